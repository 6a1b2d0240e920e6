//! Records on their way into one write.
//!
//! Where in which segment a record will stand is known only when its batch is sealed: until then a failure of the segment
//! costs nothing but a new place.
//!
//! Promises: a batch begins with room for its [`Mark`], holds whole records only, and every record has its checksums when
//! it leaves. Lives on its shard.

use super::Ticket;
use super::record::{HEADER, Header, Kind, Mark, PAYLOAD_MOST, Seal};

/// Room for the mark, which each batch begins with.
const FRONT: usize = HEADER + Mark::LENGTH;

/// Where a batch will stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) segment: u32,
    pub(super) tag: u64,
    pub(super) offset: u64,
    /// The number of its first record.
    pub(super) sequence: u32,
    /// How far the segment is durable.
    pub(super) durable: u64,
    pub(super) alignment: u32,
    /// What is known of the ends of other segments and not yet durable; for the first batch of a segment.
    pub(super) seals: &'a [Seal],
}

/// Records that are gathered.
#[derive(Debug)]
pub(super) struct Batch {
    octets: Vec<u8>,
    /// Where the last record begins.
    last: Option<usize>,
    /// Somebody waits until it is durable.
    pub(super) durable: bool,
    /// Somebody waits until it is written.
    pub(super) written: bool,
    /// Messages whose driver wants to hear when all of this is written.
    pub(super) flushes: Vec<u64>,
    /// Who wants to hear when all of this is durable.
    pub(super) confirms: Vec<Ticket>,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            octets: vec![0; FRONT],
            last: None,
            durable: false,
            written: false,
            flushes: Vec::new(),
            confirms: Vec::new(),
        }
    }

    /// Octets that it will take, before padding.
    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    pub(super) fn push(&mut self, mut header: Header, payload: &[u8]) {
        header.length = payload.len() as u32;
        self.last = Some(self.octets.len());
        self.octets.extend_from_slice(&header.encode());
        self.octets.extend_from_slice(payload);
    }

    /// Adds to the last record, if that is content of the same message with room in it; gives how many octets it took.
    pub(super) fn extend(&mut self, id: u64, most: usize, octets: &[u8]) -> usize {
        let Some((at, mut header)) = self.last.and_then(|at| Some((at, self.header(at)?))) else {
            return 0;
        };
        if header.kind != Kind::Chunk || header.id != id {
            return 0;
        }
        let room = most.min(PAYLOAD_MOST).saturating_sub(header.length as usize);
        let taken = octets.get(..room).unwrap_or(octets);
        header.length += taken.len() as u32;
        self.rewrite(at, &header);
        self.octets.extend_from_slice(taken);
        taken.len()
    }

    /// The records, in order: header and payload.
    pub(super) fn records(&self) -> impl Iterator<Item = (Header, &[u8])> {
        let mut at = FRONT;
        std::iter::from_fn(move || {
            let header = self.header(at)?;
            let payload = at + HEADER;
            at = payload + header.length as usize;
            Some((header, self.octets.get(payload..at)?))
        })
    }

    /// Gives the records their place. `each` sees every header, which it may change, with the offset of its payload. The
    /// octets are padded to the alignment; with them comes the number of the next record.
    pub(super) fn seal(mut self, place: Place<'_>, mut each: impl FnMut(&mut Header, u64)) -> (Vec<u8>, u32) {
        let mut sequence = place.sequence;
        let mut mark = Header::new(Kind::Mark, u64::from(place.segment));
        mark.length = Mark::LENGTH as u32;
        self.rewrite(0, &mark);
        let payload = Mark {
            durable: place.durable,
            alignment: place.alignment,
        };
        if let Some(room) = self.octets.get_mut(HEADER..FRONT) {
            room.copy_from_slice(&payload.encode());
        }
        if !place.seals.is_empty() {
            let mut payload = Vec::new();
            place.seals.iter().for_each(|seal| seal.encode(&mut payload));
            self.push(Header::new(Kind::Sealed, u64::from(place.segment)), &payload);
        }
        let mut at = 0;
        while let Some(mut header) = self.header(at) {
            let payload = at + HEADER;
            let end = payload + header.length as usize;
            header.payload_crc = crc32fast::hash(self.octets.get(payload..end).unwrap_or_default());
            header.tag = place.tag;
            header.sequence = sequence;
            each(&mut header, place.offset + payload as u64);
            self.rewrite(at, &header);
            sequence += 1;
            at = end;
        }
        let padded = self.octets.len().next_multiple_of(place.alignment as usize);
        self.octets.resize(padded, 0);
        (self.octets, sequence)
    }

    fn header(&self, at: usize) -> Option<Header> {
        Header::decode(self.octets.get(at..)?)
    }

    fn rewrite(&mut self, at: usize, header: &Header) {
        if let Some(place) = self.octets.get_mut(at..at + HEADER) {
            place.copy_from_slice(&header.encode());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place {
        segment: 3,
        tag: 77,
        offset: 8192,
        sequence: 5,
        durable: 4096,
        alignment: 512,
        seals: &[],
    };

    #[test]
    fn content_of_one_message_in_a_row_becomes_one_record() {
        let mut batch = Batch::new();
        assert_eq!(batch.extend(1, 100, b"none yet"), 0);
        batch.push(Header::new(Kind::Chunk, 1), b"ab");
        assert_eq!(batch.extend(1, 5, b"cdefg"), 3);
        assert_eq!(batch.extend(1, 5, b"fg"), 0);
        assert_eq!(batch.extend(2, 100, b"another's"), 0);
        batch.push(Header::new(Kind::Settled, 1), b"");
        assert_eq!(batch.extend(1, 100, b"too late"), 0);
        let records: Vec<_> = batch
            .records()
            .map(|(header, payload)| (header.kind, payload.to_vec()))
            .collect();
        assert_eq!(records, [(Kind::Chunk, b"abcde".to_vec()), (Kind::Settled, Vec::new())]);
    }

    #[test]
    fn a_sealed_batch_begins_with_its_mark_and_counts_its_records() {
        let mut batch = Batch::new();
        batch.push(Header::new(Kind::Chunk, 9), b"content");
        let seals = [Seal {
            segment: 2,
            end: 512,
            records: 3,
            poisoned: true,
        }];
        let mut seen = Vec::new();
        let (octets, next) = batch.seal(Place { seals: &seals, ..PLACE }, |header, offset| {
            header.home = 3;
            seen.push((header.kind, header.sequence, offset));
        });
        assert_eq!(next, 8);
        assert_eq!(octets.len(), 512);
        let at = |n: u64| PLACE.offset + n;
        assert_eq!(
            seen,
            [
                (Kind::Mark, 5, at(40)),
                (Kind::Chunk, 6, at(96)),
                (Kind::Sealed, 7, at(143))
            ]
        );
        assert_eq!(
            Mark::decode(&octets[40..56]),
            Some(Mark {
                durable: 4096,
                alignment: 512
            })
        );
        let chunk = Header::decode(&octets[56..]).unwrap();
        assert_eq!(
            (chunk.tag, chunk.home, chunk.payload_crc),
            (77, 3, crc32fast::hash(b"content"))
        );
        assert_eq!(&octets[96..103], b"content");
        assert_eq!(Seal::decode_all(&octets[143..160]), seals);
        assert!(octets[160..].iter().all(|octet| *octet == 0));
    }
}
