//! Who has arrived, and for which recipients: finds loss, copies and alteration.
//!
//! Promises: memory is bounded by `IDENTITIES_MAX`, whatever the messages claim to be; of each kind of fault a few examples
//! are kept. One ledger a thread, put together at the end. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::expect::{Expectation, Fate};
use super::{Found, Identity};

/// Most identities that are kept apart; some 50 octets each.
const IDENTITIES_MAX: usize = 20_000_000;
/// Examples of one kind of fault.
const EXAMPLES_MAX: usize = 20;

/// A kind of fault: how often, and a few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    pub count: u64,
    pub examples: Vec<String>,
}

impl Fault {
    /// One more.
    pub fn note(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }

    /// Those of another thread.
    pub fn absorb(&mut self, other: Self) {
        self.count += other.count;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({ "count": self.count, "examples": self.examples })
    }
}

/// The recipients that one message arrived for, as checksums of their addresses; nearly always one.
#[derive(Clone, Debug)]
struct Seen {
    first: u32,
    more: Vec<u32>,
    /// The reply to a copy may not have reached the client, which then has to send it again (RFC 1047).
    spoilt: bool,
}

impl Seen {
    fn copies_for(&self, recipient: u32) -> usize {
        usize::from(self.first == recipient) + self.more.iter().filter(|other| **other == recipient).count()
    }

    fn recipients(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}

/// Everything that has arrived.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    seen: HashMap<(u32, u64), Seen>,
    /// Messages without an identity.
    pub unidentified: u64,
    /// Copies that nothing excuses: one for each message and recipient too many.
    pub duplicated: Fault,
    /// Copies after a reply that may not have reached the client.
    pub repeated: u64,
    /// Messages whose body is not what their identity says.
    pub altered: Fault,
    /// Identities beyond what is kept: their loss and copies cannot be told.
    pub untracked: u64,
}

/// What a ledger shows, held against what was to arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Messages and recipients that were accepted and did not arrive.
    pub lost: Fault,
    /// What arrived though nothing was, or was to be, accepted.
    pub unexpected: Fault,
}

impl Ledger {
    /// A message has come for these recipients. `spoilt`: its reply may not have reached the client.
    pub fn arrived(&mut self, found: &Found, recipients: impl IntoIterator<Item = u32>, spoilt: bool) {
        let Some(identity) = found.identity else {
            self.unidentified += 1;
            return;
        };
        if found.is_altered() {
            self.altered.note(|| alteration(&identity, found));
        }
        let key = (identity.run, identity.serial);
        for recipient in recipients {
            self.copy(key, recipient, spoilt);
        }
    }

    fn copy(&mut self, key: (u32, u64), recipient: u32, spoilt: bool) {
        if self.seen.len() >= IDENTITIES_MAX && !self.seen.contains_key(&key) {
            self.untracked += 1;
            return;
        }
        let Some(seen) = self.seen.get_mut(&key) else {
            let seen = Seen {
                first: recipient,
                more: Vec::new(),
                spoilt,
            };
            self.seen.insert(key, seen);
            return;
        };
        if seen.copies_for(recipient) > 0 {
            if seen.spoilt {
                self.repeated += 1;
            } else {
                self.duplicated.note(|| name(key));
            }
        }
        seen.more.push(recipient);
        seen.spoilt |= spoilt;
    }

    /// Different messages that have arrived.
    pub fn distinct(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Takes up what another has seen: copies that came to both are found now.
    pub fn absorb(&mut self, other: Self) {
        self.unidentified += other.unidentified;
        self.repeated += other.repeated;
        self.untracked += other.untracked;
        self.duplicated.absorb(other.duplicated);
        self.altered.absorb(other.altered);
        for (key, theirs) in other.seen {
            let Some(ours) = self.seen.get_mut(&key) else {
                self.seen.insert(key, theirs);
                continue;
            };
            let mut counted = Vec::new();
            for recipient in theirs.recipients().filter(|r| ours.copies_for(*r) > 0) {
                // Their own copies are counted; only the first of each recipient is news.
                if !counted.contains(&recipient) {
                    counted.push(recipient);
                    if ours.spoilt || theirs.spoilt {
                        self.repeated += 1;
                    } else {
                        self.duplicated.note(|| name(key));
                    }
                }
            }
            ours.more.extend(theirs.recipients());
            ours.spoilt |= theirs.spoilt;
        }
    }

    /// Holds what has arrived against what was to.
    pub fn compare(&self, expected: &[Expectation]) -> Comparison {
        let mut comparison = Comparison::default();
        for expectation in expected {
            for serial in expectation.accepted.serials() {
                let key = (expectation.run, serial);
                match self.seen.get(&key) {
                    None => comparison.lost.note(|| name(key)),
                    Some(seen) => {
                        for (address, recipient) in &expectation.recipients {
                            if seen.copies_for(*recipient) == 0 {
                                comparison.lost.note(|| format!("{} for {address}", name(key)));
                            }
                        }
                    }
                }
            }
        }
        let mut strangers: Vec<_> = self.seen.keys().filter(|key| !is_expected(expected, **key)).collect();
        strangers.sort_unstable();
        for key in strangers {
            comparison.unexpected.note(|| name(*key));
        }
        comparison
    }

    /// Whether something is wrong with what has arrived, loss aside.
    pub fn has_faults(&self) -> bool {
        self.duplicated.count + self.altered.count + self.untracked > 0
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "distinct": self.distinct(), "unidentified": self.unidentified, "duplicated": self.duplicated.to_json(),
            "repeated_after_lost_reply": self.repeated, "altered": self.altered.to_json(), "untracked": self.untracked,
        })
    }
}

impl Comparison {
    /// Whether all is as expected.
    pub fn is_clean(&self) -> bool {
        self.lost.count + self.unexpected.count == 0
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Value {
        json!({ "lost": self.lost.to_json(), "unexpected": self.unexpected.to_json() })
    }
}

/// A recipient as the ledger keeps it.
pub fn recipient(address: &[u8]) -> u32 {
    crc32fast::hash(address)
}

fn is_expected(expected: &[Expectation], (run, serial): (u32, u64)) -> bool {
    expected.iter().any(|expectation| {
        expectation.run == run && matches!(expectation.fate(serial), Fate::Accepted | Fate::Uncertain)
    })
}

fn name((run, serial): (u32, u64)) -> String {
    format!("{run:08x}-{serial:012}")
}

fn alteration(identity: &Identity, found: &Found) -> String {
    let name = name((identity.run, identity.serial));
    let (was, is) = (identity.body, found.body);
    if was.octets == is.octets {
        return format!("{name}: as long as it was, but other octets");
    }
    format!("{name}: {} octets of body in place of {}", is.octets, was.octets)
}

#[cfg(test)]
mod tests {
    use super::super::Body;
    use super::super::expect::Serials;
    use super::*;

    fn found(serial: u64) -> Found {
        let body = Body { octets: 3, crc: 9 };
        let identity = Identity {
            run: 1,
            serial,
            connection: 0,
            body,
        };
        Found {
            identity: Some(identity),
            body,
            octets: 100,
        }
    }

    fn expecting(serials: &[u64], recipients: &[&str]) -> Expectation {
        Expectation {
            run: 1,
            recipients: recipients
                .iter()
                .map(|r| ((*r).into(), recipient(r.as_bytes())))
                .collect(),
            accepted: Serials::from_iter(serials.iter().copied()),
            uncertain: Serials::default(),
        }
    }

    #[test]
    fn a_message_may_come_in_parts_for_different_recipients_but_once_for_each() {
        let mut ledger = Ledger::default();
        let (a, b) = (recipient(b"a@x"), recipient(b"b@x"));
        ledger.arrived(&found(0), [a], false);
        ledger.arrived(&found(0), [b], false);
        assert!(!ledger.has_faults());
        assert!(ledger.compare(&[expecting(&[0], &["a@x", "b@x"])]).is_clean());
        ledger.arrived(&found(0), [a], false);
        assert_eq!((ledger.duplicated.count, ledger.distinct()), (1, 1));
    }

    #[test]
    fn loss_is_found_for_messages_and_for_recipients() {
        let mut ledger = Ledger::default();
        ledger.arrived(&found(0), [recipient(b"a@x")], false);
        let comparison = ledger.compare(&[expecting(&[0, 1], &["a@x", "b@x"])]);
        assert_eq!(
            comparison.lost.examples,
            ["00000001-000000000000 for b@x", "00000001-000000000001"]
        );
    }

    #[test]
    fn what_was_not_accepted_is_unexpected_and_what_is_uncertain_may_come_or_not() {
        let mut ledger = Ledger::default();
        ledger.arrived(&found(0), [1], false);
        ledger.arrived(&found(5), [1], false);
        let mut expectation = expecting(&[0], &[]);
        assert_eq!(ledger.compare(&[expectation.clone()]).unexpected.count, 1);
        expectation.uncertain = Serials::from_iter([5, 6]);
        assert!(ledger.compare(&[expectation]).is_clean());
    }

    #[test]
    fn a_copy_after_a_reply_that_got_lost_is_excused() {
        let mut ledger = Ledger::default();
        ledger.arrived(&found(0), [1], true);
        ledger.arrived(&found(0), [1], false);
        assert_eq!((ledger.duplicated.count, ledger.repeated), (0, 1));
    }

    #[test]
    fn copies_that_came_to_two_threads_are_found_when_their_ledgers_are_put_together() {
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        one.arrived(&found(0), [1, 2], false);
        other.arrived(&found(0), [2], false);
        other.arrived(&found(0), [2], false);
        other.arrived(&found(1), [2], false);
        one.absorb(other);
        assert_eq!((one.duplicated.count, one.distinct()), (2, 2));
    }

    #[test]
    fn alteration_says_what_changed() {
        let mut ledger = Ledger::default();
        let mut altered = found(0);
        altered.body.crc += 1;
        ledger.arrived(&altered, [1], false);
        altered = found(1);
        altered.body.octets += 1;
        ledger.arrived(&altered, [1], false);
        assert_eq!(ledger.altered.count, 2);
        assert!(ledger.altered.examples[0].contains("other octets"));
        assert!(ledger.altered.examples[1].contains("4 octets of body in place of 3"));
    }
}
