//! What the world knows of each message, by the token in its content.

use std::collections::{BTreeMap, BTreeSet};

use postern::spool::QueueId;

/// A message that a client has sent.
#[derive(Debug, Default)]
pub struct Entry {
    pub recipients: Vec<String>,
    pub id: Option<QueueId>,
    pub acknowledged: bool,
    pub refused: bool,
    /// Times that each recipient's hub has taken it.
    pub delivered: BTreeMap<String, usize>,
    /// Recipients that a hub has refused for good.
    pub failed: BTreeSet<String>,
    /// Recipients whose failure the sender has read of.
    pub reported: BTreeSet<String>,
    /// There was a crash, or a reply that nobody heard: a second copy is the price of not losing the first.
    pub may_repeat: bool,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub entries: BTreeMap<u64, Entry>,
    /// Messages that the spool has said are durable.
    pub durable: BTreeSet<QueueId>,
    /// Messages about which a report is durable.
    pub told: BTreeSet<QueueId>,
    /// Everything that happened, in short: two runs of one seed have the same.
    pub course: u64,
}

impl Ledger {
    /// Mixes one event into the course.
    pub fn note(&mut self, event: u64) {
        self.course = (self.course ^ event).wrapping_mul(0x100_0000_01b3).rotate_left(17);
    }

    pub fn entry(&mut self, token: u64) -> &mut Entry {
        self.entries.entry(token).or_default()
    }

    /// A hub has taken a message.
    pub fn delivered(&mut self, token: u64, recipient: &str) {
        let entry = self.entry(token);
        let times = entry.delivered.entry(recipient.to_owned()).or_default();
        *times += 1;
        let times = *times;
        assert!(
            times == 1 || entry.may_repeat,
            "message {token} came to {recipient} {times} times"
        );
    }

    /// The client of a message is about to hear 250.
    pub fn may_be_acknowledged(&mut self, id: QueueId) {
        let safe = self.durable.contains(&id) || self.told.contains(&id);
        let Some((token, entry)) = self.entries.iter_mut().find(|(_, entry)| entry.id == Some(id)) else {
            panic!("{id} is nobody's message");
        };
        let taken = |recipient| entry.delivered.contains_key(recipient) || entry.failed.contains(recipient);
        let with_hubs = entry.recipients.iter().all(taken);
        assert!(
            safe || with_hubs,
            "a 250 for message {token} that is nowhere: {entry:?}"
        );
        assert!(!entry.refused, "message {token} was refused before");
    }

    /// At the end of the world.
    pub fn judge(&self) {
        for (token, entry) in &self.entries {
            if !entry.acknowledged {
                continue;
            }
            for recipient in &entry.recipients {
                let delivered = entry.delivered.contains_key(recipient);
                let reported = entry.reported.contains(recipient);
                assert!(
                    delivered || reported,
                    "message {token} is lost for {recipient}: {entry:?}"
                );
            }
        }
    }
}
