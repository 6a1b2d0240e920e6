//! What the world knows of each message, by the token in its content.

use std::collections::{BTreeMap, BTreeSet};

use memchr::memmem;
use postern::spool::QueueId;

/// A message that a client has sent.
#[derive(Debug, Default)]
pub struct Entry {
    pub recipients: Vec<String>,
    /// What the client sends, without doubled dots.
    pub content: Vec<u8>,
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

    /// A hub has taken a message, or a report: of which message.
    pub fn arrived(&mut self, content: &[u8], recipients: &[String]) -> Option<u64> {
        if memmem::find(content, b"report-type=delivery-status").is_some() {
            let token = token(content, "Original-Envelope-Id: T").expect("a report about nothing");
            self.note(token);
            let text = std::str::from_utf8(content).unwrap();
            let field = |name: &'static str| text.lines().filter_map(move |line| line.strip_prefix(name));
            if field("Action: ").any(|action| action == "failed") {
                let failed = field("Final-Recipient: rfc822; ").map(str::to_owned);
                self.entry(token).reported.extend(failed);
            }
            return None;
        }
        let token = token(content, "Token: ").expect("a message without its token");
        self.note(token);
        let entry = self.entry(token);
        let head = content.strip_suffix(&*entry.content).map(<[u8]>::to_vec);
        let head = head.and_then(|head| String::from_utf8(head).ok()).unwrap_or_default();
        let ours =
            head.starts_with("Received: by edge.test id ") && head.ends_with("\r\n") && head.lines().count() == 1;
        assert!(ours, "message {token} was altered on its way: {} octets", content.len());
        for recipient in recipients {
            self.delivered(token, recipient);
        }
        Some(token)
    }

    fn delivered(&mut self, token: u64, recipient: &str) {
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

/// The number behind these words.
pub fn token(content: &[u8], words: &str) -> Option<u64> {
    let at = memmem::find(content, words.as_bytes())? + words.len();
    let digits = content[at..].iter().take_while(|octet| octet.is_ascii_digit());
    std::str::from_utf8(&digits.copied().collect::<Vec<u8>>())
        .ok()?
        .parse()
        .ok()
}
