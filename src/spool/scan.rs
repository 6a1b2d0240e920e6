//! Reading one segment: which of its records count.
//!
//! Records that follow each other without a gap count. Behind a gap there is damage or the torn tail of a power cut, and the
//! log itself knows which: what a seal or a later mark says was durable must be there, so a gap before that is damage, is
//! passed over and is reported. A gap behind it ends the segment: those octets were never synced, nobody relied on them, and
//! which of them reached the disk says nothing.
//!
//! Promises: never panics, never believes a record without its tag and both checksums. Pure.

use memchr::memmem;

use super::record::{HEADER, Header, Kind, Mark, Seal, TAG};

/// What a segment was found to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Nothing behind this counts.
    pub(super) end: u64,
    /// Records before that.
    pub(super) records: u32,
    /// Octets that must have been there and are not, or are not what they were.
    pub(super) damaged: u64,
    /// Behind the end there are records of this segment.
    pub(super) torn: bool,
}

/// Shows every record that counts, with the offset of its payload. `seal`: where the segment ends, if another one says so.
pub(super) fn scan(octets: &[u8], tag: u64, seal: Option<&Seal>, visit: &mut dyn FnMut(&Header, u64, &[u8])) -> Scan {
    let sealed = seal.map(|seal| usize::try_from(seal.end).unwrap_or(usize::MAX));
    let segment = Segment {
        octets: octets.get(..sealed.unwrap_or(usize::MAX)).unwrap_or(octets),
        tag,
    };
    let mut at = At {
        offset: 0,
        sequence: 0,
        alignment: 1,
    };
    let mut found = Scan::default();
    // How far the segment was durable; looked for at the first gap.
    let mut durable = None;
    loop {
        if let Some((offset, header, payload)) = segment.next(&at) {
            visit(&header, (offset + HEADER) as u64, payload);
            at.pass(offset, &header, payload);
            found.end = at.offset as u64;
            continue;
        }
        let durable = *durable.get_or_insert_with(|| sealed.unwrap_or_else(|| segment.durable()));
        if at.offset >= durable {
            break;
        }
        // What begins where the durable part ends is no tail behind a gap: the gap ends with the durable part.
        let next = segment.search(&at).filter(|(offset, _)| *offset <= durable);
        let complete = seal.is_none_or(|seal| at.sequence >= seal.records);
        if next.is_none() && complete && segment.is_padding(&at, durable) {
            break;
        }
        let (offset, sequence) = next.unwrap_or((durable, at.sequence));
        found.damaged += offset.saturating_sub(at.offset) as u64;
        found.end = offset as u64;
        (at.offset, at.sequence) = (offset, sequence);
    }
    found.records = at.sequence;
    found.torn = segment.search(&at).is_some();
    found
}

/// Where the next record is expected.
struct At {
    offset: usize,
    sequence: u32,
    alignment: usize,
}

impl At {
    fn pass(&mut self, offset: usize, header: &Header, payload: &[u8]) {
        self.offset = offset + HEADER + payload.len();
        self.sequence = header.sequence.wrapping_add(1);
        if header.kind == Kind::Mark
            && let Some(mark) = Mark::decode(payload)
        {
            self.alignment = mark.alignment as usize;
        }
    }
}

struct Segment<'a> {
    octets: &'a [u8],
    tag: u64,
}

impl<'a> Segment<'a> {
    /// The record that is expected: right here, or where the next group would begin.
    fn next(&self, at: &At) -> Option<(usize, Header, &'a [u8])> {
        let aligned = at.offset.next_multiple_of(at.alignment);
        [at.offset, aligned].into_iter().find_map(|offset| {
            let (header, payload) = self.record(offset)?;
            (header.sequence == at.sequence).then_some((offset, header, payload))
        })
    }

    /// The record at an offset, if it is one of this segment, unchanged.
    fn record(&self, offset: usize) -> Option<(Header, &'a [u8])> {
        let header = Header::decode(self.octets.get(offset..)?).filter(|header| header.tag == self.tag)?;
        let start = offset + HEADER;
        let payload = self.octets.get(start..start + header.length as usize)?;
        (crc32fast::hash(payload) == header.payload_crc).then_some((header, payload))
    }

    /// Whether between here and there is nothing but the padding of a group.
    fn is_padding(&self, at: &At, end: usize) -> bool {
        let padding = self.octets.get(at.offset..end).unwrap_or(&[1]);
        at.offset.next_multiple_of(at.alignment) >= end && padding.iter().all(|octet| *octet == 0)
    }

    /// The next record behind a gap, and its number.
    fn search(&self, at: &At) -> Option<(usize, u32)> {
        self.records(at.offset)
            .find(|(_, header, _)| header.sequence >= at.sequence)
            .map(|(offset, header, _)| (offset, header.sequence))
    }

    /// The furthest that any mark says was durable.
    fn durable(&self) -> usize {
        self.records(0)
            .filter(|(_, header, _)| header.kind == Kind::Mark)
            .filter_map(|(_, _, payload)| Mark::decode(payload))
            .map(|mark| usize::try_from(mark.durable).unwrap_or(usize::MAX))
            .max()
            .unwrap_or(0)
            .min(self.octets.len())
    }

    /// Whatever looks like a record of this segment from an offset on.
    fn records(&self, from: usize) -> impl Iterator<Item = (usize, Header, &'a [u8])> {
        let tags = written(self.octets.get(from..).unwrap_or_default());
        let tag = self.tag.to_le_bytes();
        let finder = memmem::Finder::new(&tag).into_owned();
        let mut at = 0;
        std::iter::from_fn(move || {
            let found = at + finder.find(tags.get(at..)?)?;
            at = found + 1;
            Some(from + found)
        })
        .filter_map(|place| {
            let offset = place.checked_sub(TAG.start)?;
            let (header, payload) = self.record(offset)?;
            Some((offset, header, payload))
        })
        .filter(move |(offset, ..)| *offset >= from)
    }
}

/// Without the blocks of zeros at its end, which segments are filled with when they are made: no header stands in one.
fn written(mut octets: &[u8]) -> &[u8] {
    static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
    while let Some(front) = octets.strip_suffix(&ZEROS) {
        octets = front;
    }
    octets
}

#[cfg(test)]
mod tests;
