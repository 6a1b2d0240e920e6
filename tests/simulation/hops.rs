//! Deliveries of the edge to its hubs.

use postern::relay::next_hop::{Next, Round};
use postern::relay::queue::{Kind, Taker};
use postern::smtp::client::{EnhancedStatusCode, HopReply, Origin, Outcome};
use postern::spool::QueueId;

use crate::edge::{Edge, HUBS};
use crate::hub::{Attempt, Came, Link, Surroundings};
use crate::parcel::Shelf;

const ADDRESSES: u8 = 2;

impl Edge {
    pub fn attempt(&mut self, id: QueueId, group: usize, recipients: &[u32]) {
        let parcel = self.parcels.get_mut(&id).unwrap();
        parcel.tried = true;
        parcel.trying += 1;
        self.attempts.push(Attempt {
            id,
            group,
            recipients: recipients.to_vec(),
            round: Round::new(),
            link: None,
        });
    }

    /// Somebody's delivery goes on.
    pub fn hop(&mut self, well: bool) {
        let trouble = if well { 0 } else { self.trouble };
        let Some(attempt) = self.any_attempt() else { return };
        match attempt.link {
            None => self.call(attempt, trouble),
            Some(_) => self.with_link(attempt, trouble, Link::step),
        }
    }

    pub fn break_link(&mut self) {
        if self.trouble > 0
            && let Some(attempt) = self.any_attempt()
        {
            self.with_link(attempt, self.trouble, Link::breaks);
        }
    }

    /// The timers of connections whose time has come.
    pub fn expire_links(&mut self) {
        for attempt in std::mem::take(&mut self.attempts) {
            self.with_link(attempt, self.trouble, Link::expires);
        }
    }

    /// The server stops now.
    pub fn break_links(&mut self) {
        for attempt in std::mem::take(&mut self.attempts) {
            self.with_link(attempt, self.trouble, Link::breaks);
        }
    }

    fn any_attempt(&mut self) -> Option<Attempt> {
        if self.attempts.is_empty() {
            return None;
        }
        let index = self.chance.below(self.attempts.len());
        Some(self.attempts.swap_remove(index))
    }

    fn with_link(
        &mut self,
        mut attempt: Attempt,
        trouble: usize,
        what: impl FnOnce(&mut Link, &mut Surroundings<'_>) -> Came,
    ) {
        let came = match &mut attempt.link {
            None => Came::Nothing,
            Some(link) => {
                let mut around = Surroundings {
                    parcel: &self.parcels[&attempt.id],
                    recipients: &attempt.recipients,
                    shelf: Shelf {
                        spool: &self.spool,
                        disk: &self.disk,
                        salts: &self.salts,
                    },
                    now: self.now,
                    trouble,
                    chance: &mut self.chance,
                    ledger: &mut self.ledger,
                };
                what(link, &mut around)
            }
        };
        self.came(attempt, came);
    }

    fn call(&mut self, mut attempt: Attempt, trouble: usize) {
        let Some((route, _)) = self.queue.group(attempt.id, attempt.group) else {
            panic!("an attempt of a message that is settled");
        };
        if self.draining {
            return self.no_hop(&attempt, no_connection("the server stops"));
        }
        let first = route as u8 * ADDRESSES;
        let targets = [(first..first + ADDRESSES).collect::<Vec<u8>>()];
        match attempt.round.next(&targets, &mut self.health, self.now) {
            Next::Try(address) if self.chance.below(100) < trouble / 2 => {
                self.health.is_silent(&address, self.now);
                attempt.round.failed(no_connection("cannot connect"));
                self.attempts.push(attempt);
            }
            Next::Try(address) => {
                let lmtp = usize::from(route) == HUBS - 1;
                attempt.link = Some(Link::new(address, lmtp, self.now));
                self.attempts.push(attempt);
            }
            Next::Over(reply) => self.no_hop(&attempt, reply),
        }
    }

    fn no_hop(&mut self, attempt: &Attempt, reply: HopReply) {
        self.queue.no_hop(attempt.id, attempt.group, reply, self.at());
        self.after_attempt(attempt.id);
    }

    fn after_attempt(&mut self, id: QueueId) {
        if let Some(parcel) = self.parcels.get_mut(&id) {
            parcel.trying -= 1;
        }
        self.collect();
        if self.parcels.get(&id).is_some_and(|parcel| parcel.rests()) {
            self.let_go(id);
        }
    }

    fn came(&mut self, mut attempt: Attempt, came: Came) {
        let address = attempt.link.as_ref().map(|link| link.address);
        match came {
            Came::Nothing => self.attempts.push(attempt),
            Came::Failed(reply) => {
                attempt.link = None;
                attempt.round.failed(reply);
                if let Some(address) = address {
                    self.health.is_silent(&address, self.now);
                }
                self.attempts.push(attempt);
            }
            Came::Misfit(reply) => {
                attempt.link = None;
                attempt.round.misfits(reply);
                self.attempts.push(attempt);
            }
            Came::Over(outcomes) => self.attempted(attempt, outcomes),
        }
    }

    /// The hub's word on each recipient. Where it did not come to a word, another address may do better.
    fn attempted(&mut self, mut attempt: Attempt, outcomes: Vec<Outcome>) {
        assert_eq!(outcomes.len(), attempt.recipients.len());
        let address = attempt.link.take().unwrap().address;
        if outcomes.iter().all(is_unheard) {
            let reply = outcomes[0].reply().clone();
            match reply.origin {
                Origin::Lost { .. } => self.health.is_unknown(&address, self.now),
                _ => self.health.is_silent(&address, self.now),
            }
            attempt.round.failed(reply);
            return self.attempts.push(attempt);
        }
        match outcomes.iter().any(|outcome| outcome.reply().origin == Origin::Hop) {
            true => self.health.answers(&address),
            false => self.health.is_unknown(&address, self.now),
        }
        let parcel = &self.parcels[&attempt.id];
        let entry = self.ledger.entry(parcel.token);
        for (&recipient, outcome) in attempt.recipients.iter().zip(&outcomes) {
            if matches!(outcome, Outcome::Failed(_)) {
                let path = &parcel.envelope.recipients[recipient as usize].forward_path;
                entry.failed.insert(path.as_str().to_owned());
            }
        }
        let lmtp = usize::from(address / ADDRESSES) == HUBS - 1;
        let taker = Taker {
            hop: "hub.test".into(),
            kind: match lmtp {
                true => Kind::Final,
                false => Kind::Relayed { dsn: true },
            },
        };
        let told = attempt.recipients.iter().copied().zip(outcomes).collect();
        self.queue.outcomes(attempt.id, attempt.group, &taker, told, self.at());
        self.after_attempt(attempt.id);
    }
}

fn is_unheard(outcome: &Outcome) -> bool {
    matches!(
        outcome.reply().origin,
        Origin::NoConnection | Origin::Nonsense | Origin::TimedOut { ended: false } | Origin::Lost { ended: false }
    )
}

fn no_connection(text: &str) -> HopReply {
    HopReply::ours(Origin::NoConnection, 451, EnhancedStatusCode::new(4, 4, 1), text)
}
