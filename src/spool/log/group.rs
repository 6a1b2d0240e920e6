//! What becomes durable together.
//!
//! Promises: whatever depends on the place of a record learns of it here. Lives on its shard.

use crate::spool::Ticket;
use crate::spool::entry::{HeadPlace, Index, NOWHERE, Piece};
use crate::spool::record::{Header, Kind};
use crate::spool::segment::Segments;

/// What becomes durable together.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Messages with content in it.
    pub(super) messages: Vec<u64>,
    pub(super) commits: Vec<u64>,
    /// Each part of a record; whether it is the last.
    pub(super) events: Vec<(Event, bool)>,
    pub(super) flushes: Vec<u64>,
    /// Who wants to hear when it is durable.
    pub(super) confirms: Vec<Ticket>,
    pub(super) pieces: Vec<(u64, Piece)>,
    /// Octets, padding included.
    pub(super) octets: u64,
    /// The number of the record after it.
    pub(super) sequence: u32,
    pub(super) durable: bool,
}

/// A record that is not content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    Update(u64),
    Settled(u64),
    Summary(u32),
}

impl Group {
    /// A record has found its place: everybody who must know learns of it.
    pub(super) fn place(
        &mut self,
        header: &mut Header,
        at: u64,
        segment: u32,
        index: &mut Index,
        segments: &mut Segments,
    ) {
        let id = header.id;
        match header.kind {
            Kind::Mark | Kind::Sealed | Kind::Void => header.home = segment,
            Kind::Begin | Kind::Chunk | Kind::Commit => {
                let Some(entry) = index.get_mut(&id).filter(|entry| entry.is_being_written()) else {
                    header.kind = Kind::Void;
                    return;
                };
                if entry.home == NOWHERE {
                    entry.home = segment;
                    if let Some(segment) = segments.find(segment) {
                        segment.begun.push(id);
                    }
                }
                if entry.stands_in(segment) {
                    segments.pin(segment);
                }
                header.home = entry.home;
                if self.messages.last() != Some(&id) {
                    self.messages.push(id);
                }
                match header.kind {
                    Kind::Begin if header.part == 0 && !header.more => {
                        entry.head = HeadPlace {
                            offset: at as u32,
                            length: header.length,
                            checksum: header.payload_crc,
                        };
                    }
                    Kind::Chunk => self.pieces.push((
                        id,
                        Piece {
                            segment,
                            offset: at as u32,
                            length: header.length,
                            checksum: header.payload_crc,
                        },
                    )),
                    Kind::Commit => self.commits.push(id),
                    _ => {}
                }
            }
            Kind::Update | Kind::Settled | Kind::Summary => {
                let (home, event) = match header.kind {
                    Kind::Summary => (id as u32, Event::Summary(id as u32)),
                    kind => {
                        let home = index.get(&id).map_or(NOWHERE, |entry| entry.home);
                        (
                            home,
                            if kind == Kind::Update {
                                Event::Update(id)
                            } else {
                                Event::Settled(id)
                            },
                        )
                    }
                };
                header.home = home;
                if header.kind == Kind::Summary
                    && header.part == 0
                    && let Some(home) = segments.find(home)
                {
                    home.summary_begins = Some(segment);
                }
                if home == NOWHERE {
                    header.kind = Kind::Void;
                } else if let Some(segment) = segments.find(segment) {
                    segment.about.insert(home);
                }
                self.events.push((event, !header.more));
            }
        }
    }
}
