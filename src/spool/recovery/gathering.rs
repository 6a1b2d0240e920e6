//! What the records of a directory say, put together.
//!
//! Promises: later records prevail; memory for messages that are not settled only. Lives on the thread of recovery.

use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use crate::spool::DirectoryId;
use crate::spool::entry::{Entry, HeadPlace, Piece, State};
use crate::spool::record::{Commit, Header, Kind, Seal};
use crate::spool::segment::{Segment, Segments};
use crate::spool::summary;
use crate::spool::words::Words;

/// All that was read so far.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    pub(super) messages: HashMap<u64, Box<Message>>,
    pub(super) segments: Segments,
    /// The messages that begin in each segment.
    homes: HashMap<u32, Vec<u64>>,
    /// Updates and summaries of which parts are missing yet.
    parts: HashMap<(bool, u64), Parts>,
    words: Words,
}

/// One message that was not settled yet.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) entry: Entry,
    /// Where the parts of its head stand.
    pub(super) head: SmallVec<[Piece; 1]>,
    pub(super) head_is_whole: bool,
    pub(super) commit: Option<Commit>,
}

impl Message {
    /// What the spool remembers of it.
    pub(super) fn into_entry(self) -> Box<Entry> {
        let mut entry = self.entry;
        if let [head] = self.head.as_slice() {
            entry.head = HeadPlace {
                offset: head.offset,
                length: head.length,
                checksum: head.checksum,
            };
        }
        Box::new(entry)
    }
}

/// A record in several parts.
#[derive(Debug)]
struct Parts {
    /// The segment with the first.
    begins: u32,
    next: u16,
    octets: Vec<u8>,
}

impl Gathering {
    /// One record, in the order of the log. `segment`: the one that it stands in.
    pub(super) fn take(&mut self, number: u32, header: &Header, offset: u64, payload: &[u8], segment: &mut Segment) {
        let piece = Piece {
            segment: number,
            offset: offset as u32,
            length: header.length,
            checksum: header.payload_crc,
        };
        match header.kind {
            Kind::Mark | Kind::Void => {}
            Kind::Sealed => {
                let poisoned = Seal::decode_all(payload).into_iter().filter(|seal| seal.poisoned);
                segment.holds.extend(poisoned.map(|seal| seal.segment));
            }
            Kind::Begin => {
                let message = self.message(header, number);
                let expected = usize::from(header.part) == message.head.len() && !message.head_is_whole;
                message.head.push(piece);
                message.head_is_whole = expected && !header.more;
            }
            Kind::Chunk => {
                let entry = &mut self.message(header, number).entry;
                entry.chunks += 1;
                entry.octets += u64::from(header.length);
                entry.pieces.push(piece);
            }
            Kind::Commit => self.message(header, number).commit = Commit::decode(payload),
            Kind::Update => {
                segment.about.insert(header.home);
                if let Some(parts) = self.assemble(number, header, payload)
                    && let Some(message) = self.messages.get_mut(&header.id)
                {
                    message.entry.progress = self.words.note(&parts.octets);
                }
            }
            Kind::Settled => {
                segment.about.insert(header.home);
                self.messages.remove(&header.id);
            }
            Kind::Summary => {
                segment.about.insert(header.home);
                if let Some(parts) = self.assemble(number, header, payload) {
                    self.summarised(header.home, &parts);
                }
            }
        }
    }

    /// The message of a record, which stands in a segment.
    fn message(&mut self, header: &Header, number: u32) -> &mut Message {
        let homes = &mut self.homes;
        let message = self.messages.entry(header.id).or_insert_with(|| {
            homes.entry(header.home).or_default().push(header.id);
            let mut entry = Entry::new(DirectoryId::OWN);
            (entry.home, entry.state) = (header.home, State::Durable);
            Box::new(Message {
                entry,
                head: SmallVec::new(),
                head_is_whole: false,
                commit: None,
            })
        });
        message.entry.stands_in(number);
        message
    }

    /// Puts the parts of a record together; gives them when the last has come and none is missing.
    fn assemble(&mut self, number: u32, header: &Header, payload: &[u8]) -> Option<Parts> {
        let key = (header.kind == Kind::Summary, header.id);
        let mut parts = match self.parts.remove(&key) {
            Some(parts) if header.part > 0 => parts,
            _ => Parts {
                begins: number,
                next: 0,
                octets: Vec::new(),
            },
        };
        if header.part != parts.next {
            return None;
        }
        parts.octets.extend_from_slice(payload);
        parts.next = parts.next.wrapping_add(1);
        if header.more {
            self.parts.insert(key, parts);
            return None;
        }
        Some(parts)
    }

    /// Of the messages that begin in a segment only some live.
    fn summarised(&mut self, home: u32, parts: &Parts) {
        let Some(living) = summary::decode(&parts.octets) else {
            return;
        };
        let kept: HashSet<u64> = living.iter().map(|(id, _)| *id).collect();
        if let Some(begun) = self.homes.get_mut(&home) {
            let messages = &mut self.messages;
            begun.retain(|id| {
                let lives = kept.contains(id);
                if !lives {
                    messages.remove(id);
                }
                lives
            });
        }
        for (id, progress) in living {
            if let Some(message) = self.messages.get_mut(&id) {
                message.entry.progress = progress.map(|octets| self.words.note(&octets)).unwrap_or_default();
            }
        }
        if let Some(segment) = self.segments.find(home) {
            segment.summary = Some(parts.begins);
        }
    }
}
