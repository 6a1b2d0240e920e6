//! What the spool remembers of a message.
//!
//! Promises: some hundred octets for a message that waits to be delivered. Lives on its shard.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::words::Noted;
use super::{DirectoryId, Extent};

/// The home of a message that has none yet.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Messages by the number of their id. Boxed, because a table is up to half empty.
pub(super) type Index = HashMap<u64, Box<Entry>>;

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    /// The directory that all of it stands in.
    pub(super) directory: DirectoryId,
    /// The segment that it begins in.
    pub(super) home: u32,
    /// Chunks so far.
    pub(super) chunks: u32,
    /// Octets of content so far.
    pub(super) octets: u64,
    /// Where its head stands; no octets where that is in several parts, or nowhere yet.
    pub(super) head: HeadPlace,
    /// Where its content stands, as far as it is written.
    pub(super) pieces: SmallVec<[Piece; 1]>,
    /// The segments that hold something of it, each once.
    pub(super) segments: SmallVec<[u32; 4]>,
    /// The last [`Progress`](super::Progress), encoded: written anew whenever the record of it would be lost.
    pub(super) progress: Noted,
}

/// ```text
/// Open ── commit ─► Committing ── synced ─► Durable ── settle ─► Settling ── synced ─► gone
///   │ abandon, failure      │ failure ─► gone    ▲ recovered          ▲
///   └─► gone                └─────────────── abandon ─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its content comes in.
    Open,
    /// It is whole; whether it is durable will be heard.
    Committing,
    /// It is found again after a crash.
    Durable,
    /// It is done with; that is not durable yet.
    Settling,
}

/// A [`Piece`] of the segment that a message begins in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadPlace {
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) checksum: u32,
}

/// An [`Extent`], shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) checksum: u32,
}

impl Entry {
    pub(super) fn new(directory: DirectoryId) -> Entry {
        Entry {
            state: State::Open,
            directory,
            home: NOWHERE,
            chunks: 0,
            octets: 0,
            head: HeadPlace::default(),
            pieces: SmallVec::new(),
            segments: SmallVec::new(),
            progress: Noted::default(),
        }
    }

    /// Whether its records are still being written.
    pub(super) fn is_being_written(&self) -> bool {
        matches!(self.state, State::Open | State::Committing)
    }

    /// Notes that a segment holds something of it; whether that is new.
    pub(super) fn stands_in(&mut self, segment: u32) -> bool {
        let new = !self.segments.contains(&segment);
        if new {
            self.segments.push(segment);
        }
        new
    }

    /// Where its head stands, if that can be read back in one piece.
    pub(super) fn head_extent(&self) -> Option<Extent> {
        let known = self.state == State::Durable && self.head.length > 0;
        known.then_some(Extent {
            directory: self.directory,
            segment: self.home,
            offset: u64::from(self.head.offset),
            length: self.head.length,
            checksum: self.head.checksum,
        })
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.pieces.iter().map(|piece| Extent {
            directory: self.directory,
            segment: piece.segment,
            offset: u64::from(piece.offset),
            length: piece.length,
            checksum: piece.checksum,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_some_hundred_octets() {
        let entry = size_of::<Entry>() + size_of::<(u64, Box<Entry>)>() * 2;
        assert!(entry <= 144, "{entry}");
    }
}
