//! The names of next hops: asked of the control thread, remembered for as long as the DNS allows.
//!
//! Promises: a bounded number of names is kept; one that cannot be looked up now is not asked for again at once. Lives on
//! its shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Shard, clock};
use crate::lookup::{Answer, Question, Resolved};

/// Names kept; beyond it the table begins anew.
const NAMES: usize = 4096;
/// How long a name that is not there, or could not be looked up, is left alone.
const NOTHING_FOR: Duration = Duration::from_secs(30);
/// The shortest and longest time that an answer is believed.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// How long an answer is waited for. The control thread gives up before.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of names.
#[derive(Debug, Default)]
pub(super) struct Names(RefCell<HashMap<Name, Known>>);

/// What is known by it.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Name {
    Host(Arc<str>),
    Domain(Arc<str>),
}

#[derive(Debug)]
struct Known {
    answer: Answer,
    until: Instant,
}

impl Names {
    /// The addresses of a host, where they are known.
    pub fn addresses(&self, host: &Arc<str>, now: Instant) -> Option<Resolved<Vec<IpAddr>>> {
        match self.known(&Name::Host(host.clone()), now)? {
            Answer::Addresses(found) => Some(found),
            _ => None,
        }
    }

    /// The hosts that take mail for a domain, where they are known.
    pub fn exchangers(&self, domain: &Arc<str>, now: Instant) -> Option<Resolved<Vec<Arc<str>>>> {
        match self.known(&Name::Domain(domain.clone()), now)? {
            Answer::Exchangers(found) => Some(found),
            _ => None,
        }
    }

    fn known(&self, name: &Name, now: Instant) -> Option<Answer> {
        let names = self.0.borrow();
        let known = names.get(name).filter(|known| known.until > now)?;
        Some(known.answer.clone())
    }

    fn learn(&self, question: Question, answer: Answer, now: Instant) {
        let name = match question {
            Question::Addresses { host } => Name::Host(host),
            Question::Exchangers { domain } => Name::Domain(domain),
            _ => return,
        };
        let ttl = match &answer {
            Answer::Addresses(Resolved::Found { ttl, .. }) | Answer::Exchangers(Resolved::Found { ttl, .. }) => {
                (*ttl).clamp(TTL.0, TTL.1)
            }
            _ => NOTHING_FOR,
        };
        let mut names = self.0.borrow_mut();
        if names.len() >= NAMES {
            names.clear();
        }
        names.insert(
            name,
            Known {
                answer,
                until: now + ttl,
            },
        );
    }
}

impl Shard {
    /// Asks, and remembers the answer.
    pub(super) async fn look_up(&self, question: Question) {
        let seat = self.slots.seat(clock::now() + PATIENCE);
        let answer = match self.asker.ask(question.clone(), seat.ticket()) {
            Ok(()) => seat.slot().clone().answer().await.ok(),
            Err(_) => None,
        };
        let answer = answer.unwrap_or_else(|| question.unanswered());
        self.names.learn(question, answer, clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_for_its_time_and_failure_for_a_short_one() {
        let (names, now) = (Names::default(), Instant::now());
        let host: Arc<str> = "h.example".into();
        let question = Question::Addresses { host: host.clone() };
        let found = Resolved::Found {
            what: vec![IpAddr::from([192, 0, 2, 1])],
            ttl: Duration::from_secs(60),
        };
        names.learn(question.clone(), Answer::Addresses(found.clone()), now);
        assert_eq!(names.addresses(&host, now + Duration::from_secs(59)), Some(found));
        assert_eq!(names.addresses(&host, now + Duration::from_secs(60)), None);
        names.learn(question, Answer::Addresses(Resolved::Unknown), now);
        assert_eq!(names.addresses(&host, now), Some(Resolved::Unknown));
        assert_eq!(names.addresses(&host, now + NOTHING_FOR), None);
    }

    #[test]
    fn the_table_of_names_is_bounded() {
        let (names, now) = (Names::default(), Instant::now());
        for number in 0..3 * NAMES {
            let host: Arc<str> = format!("h{number}.example").into();
            names.learn(Question::Addresses { host }, Answer::Addresses(Resolved::Absent), now);
        }
        assert!(names.0.borrow().len() <= NAMES);
    }
}
