//! What the log is made of: records, each with a header of 40 octets.
//!
//! ```text
//!  0  CRC32 of octets 4 to 39      16  tag: which use of which segment   36  kind
//!  4  CRC32 of the payload         24  id of the message, or a segment   37  1: more parts follow
//!  8  octets of the payload        32  segment in which it was begun     38  which part this is
//! 12  its number in the segment
//! ```
//!
//! All numbers are little-endian. The tag is 64 bits that nobody outside can know: what stood in the file before, and what a
//! client sends as content to look like a record, is told apart by it.
//!
//! Promises: reading never panics, whatever the octets. Pure; lives on its shard and on the thread of recovery.

use std::ops::Range;

/// Octets of a header.
pub(super) const HEADER: usize = 40;
/// The most octets of a payload; what is longer becomes several records, the parts of one.
pub(super) const PAYLOAD_MOST: usize = 64 << 10;
/// Where the tag stands in a header.
pub(super) const TAG: Range<usize> = 16..24;
/// The form of this file, written into every [`Kind::Mark`].
pub(super) const VERSION: u32 = 1;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Begins every group: how far this segment was durable when the group was made ([`Mark`]).
    Mark = 1,
    /// In the first group of a segment: where others end ([`Seal`]).
    Sealed = 2,
    /// A message begins: its [`Head`](super::Head).
    Begin = 3,
    /// Content of a message.
    Chunk = 4,
    /// A message is whole ([`Commit`]).
    Commit = 5,
    /// What is left to do for a message ([`Progress`](super::Progress)).
    Update = 6,
    /// A message is done with.
    Settled = 7,
    /// Of the messages that were begun in a segment only these live ([`Living`](super::summary)).
    Summary = 8,
    /// Nothing: a record that lost its meaning before it was written.
    Void = 9,
}

impl Kind {
    fn from_octet(octet: u8) -> Option<Kind> {
        Some(match octet {
            1 => Kind::Mark,
            2 => Kind::Sealed,
            3 => Kind::Begin,
            4 => Kind::Chunk,
            5 => Kind::Commit,
            6 => Kind::Update,
            7 => Kind::Settled,
            8 => Kind::Summary,
            9 => Kind::Void,
            _ => return None,
        })
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) payload_crc: u32,
    /// Octets of the payload.
    pub(super) length: u32,
    /// The first record of a segment is 0, each next one more.
    pub(super) sequence: u32,
    pub(super) tag: u64,
    /// The number of a [`QueueId`](super::QueueId), or of a segment.
    pub(super) id: u64,
    /// The segment with the [`Kind::Begin`] of the message; for those about a segment, that one.
    pub(super) home: u32,
    pub(super) kind: Kind,
    pub(super) more: bool,
    pub(super) part: u16,
}

impl Header {
    /// A header as it is known when its record is gathered.
    pub(super) fn new(kind: Kind, id: u64) -> Header {
        Header {
            payload_crc: 0,
            length: 0,
            sequence: 0,
            tag: 0,
            id,
            home: 0,
            kind,
            more: false,
            part: 0,
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut octets = [0; HEADER];
        let part = self.part.to_le_bytes();
        let fields: [&[u8]; 8] = [
            &self.payload_crc.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &self.tag.to_le_bytes(),
            &self.id.to_le_bytes(),
            &self.home.to_le_bytes(),
            &[self.kind as u8, u8::from(self.more)],
            &part,
        ];
        for (place, octet) in octets.iter_mut().skip(4).zip(fields.into_iter().flatten()) {
            *place = *octet;
        }
        let crc = crc32fast::hash(&octets[4..]);
        octets[..4].copy_from_slice(&crc.to_le_bytes());
        octets
    }

    /// Reads the header at the front of `octets`; none where there is none. Says nothing of the payload.
    pub(super) fn decode(octets: &[u8]) -> Option<Header> {
        let octets = octets.first_chunk::<HEADER>()?;
        let word = |at: usize| u32::from_le_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let length = word(8);
        let whole = word(0) == crc32fast::hash(&octets[4..]) && length as usize <= PAYLOAD_MOST && octets[37] <= 1;
        let kind = Kind::from_octet(octets[36]).filter(|_| whole)?;
        Some(Header {
            payload_crc: word(4),
            length,
            sequence: word(12),
            tag: long(16),
            id: long(24),
            home: word(32),
            kind,
            more: octets[37] == 1,
            part: u16::from_le_bytes([octets[38], octets[39]]),
        })
    }
}

/// The tag of a segment: no other segment of any directory has it, unless by a chance of 1 in 2^64.
pub(super) fn tag(salt: u64, segment: u32) -> u64 {
    // SplitMix64's finalizer, a permutation: segments of one directory never share a tag.
    let mut tag = salt.wrapping_add(u64::from(segment).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    tag = (tag ^ tag >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    tag = (tag ^ tag >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    tag ^ tag >> 31
}

/// How far a segment was durable when a group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Everything before this offset had been synced.
    pub(super) durable: u64,
    /// Groups begin at multiples of this.
    pub(super) alignment: u32,
}

impl Mark {
    pub(super) const LENGTH: usize = 16;

    pub(super) fn encode(self) -> [u8; Mark::LENGTH] {
        let mut octets = [0; Mark::LENGTH];
        octets[..8].copy_from_slice(&self.durable.to_le_bytes());
        octets[8..12].copy_from_slice(&self.alignment.to_le_bytes());
        octets[12..].copy_from_slice(&VERSION.to_le_bytes());
        octets
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Mark> {
        let mut rest = super::code::Reader::new(payload);
        let (durable, alignment, version) = (rest.long()?, rest.word()?, rest.word()?);
        (version == VERSION && alignment.is_power_of_two()).then_some(Mark { durable, alignment })
    }
}

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) segment: u32,
    /// What stands behind this offset never counts.
    pub(super) end: u64,
    /// Records before that.
    pub(super) records: u32,
    /// There may be something behind it that looks as if it did.
    pub(super) poisoned: bool,
}

impl Seal {
    pub(super) const LENGTH: usize = 17;

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.push(u8::from(self.poisoned));
    }

    /// All that a record of [`Kind::Sealed`] lists.
    pub(super) fn decode_all(payload: &[u8]) -> Vec<Seal> {
        payload
            .chunks_exact(Seal::LENGTH)
            .filter_map(|seal| {
                let mut rest = super::code::Reader::new(seal);
                Some(Seal {
                    segment: rest.word()?,
                    end: rest.long()?,
                    records: rest.word()?,
                    poisoned: rest.octet()? != 0,
                })
            })
            .collect()
    }
}

/// What makes a message whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// Octets of all chunks.
    pub(super) octets: u64,
    /// How many chunks there are.
    pub(super) chunks: u32,
    pub(super) content: super::Content,
}

impl Commit {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = self.octets.to_le_bytes().to_vec();
        out.extend_from_slice(&self.chunks.to_le_bytes());
        out.push(u8::from(self.content.eight_bit) | u8::from(self.content.bare_newline) << 1);
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Commit> {
        let mut rest = super::code::Reader::new(payload);
        let (octets, chunks, flags) = (rest.long()?, rest.word()?, rest.octet()?);
        Some(Commit {
            octets,
            chunks,
            content: super::Content {
                eight_bit: flags & 1 != 0,
                bare_newline: flags & 2 != 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(
            words in any::<(u32, u32, u32, u16)>(), longs in any::<(u64, u64)>(), kind in 1..=9u8, more in any::<bool>()
        ) {
            let header = Header {
                payload_crc: words.0,
                length: words.1 % (PAYLOAD_MOST as u32 + 1),
                sequence: words.2,
                tag: longs.0,
                id: longs.1,
                home: words.0 ^ words.1,
                kind: Kind::from_octet(kind).unwrap(),
                more,
                part: words.3,
            };
            let octets = header.encode();
            prop_assert_eq!(Header::decode(&octets), Some(header));
            prop_assert_eq!(&octets[TAG], &longs.0.to_le_bytes());
            prop_assert_eq!(Header::decode(&octets[..HEADER - 1]), None);
        }

        #[test]
        fn a_header_with_any_bit_changed_is_none(bit in 0..HEADER * 8, id in any::<u64>()) {
            let mut octets = Header::new(Kind::Commit, id).encode();
            octets[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&octets), None);
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Header::decode(&octets), Mark::decode(&octets), Seal::decode_all(&octets), Commit::decode(&octets));
        }
    }

    #[test]
    fn what_a_record_carries_is_read_as_it_was_written() {
        let mark = Mark {
            durable: 1 << 40,
            alignment: 4096,
        };
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        let mut octets = Vec::new();
        let seals = [(1, 0, true), (7, u64::MAX, false)].map(|(segment, end, poisoned)| Seal {
            segment,
            end,
            records: 7,
            poisoned,
        });
        seals.iter().for_each(|seal| seal.encode(&mut octets));
        assert_eq!(Seal::decode_all(&octets), seals);
        for (eight_bit, bare_newline) in [(false, true), (true, false)] {
            let content = super::super::Content {
                eight_bit,
                bare_newline,
            };
            let commit = Commit {
                octets: 1 << 33,
                chunks: 9,
                content,
            };
            assert_eq!(Commit::decode(&commit.encode()), Some(commit));
        }
    }

    #[test]
    fn no_two_segments_share_a_tag() {
        let tags: std::collections::HashSet<_> = (0..10_000).map(|segment| tag(7, segment)).collect();
        assert_eq!(tags.len(), 10_000);
    }
}
