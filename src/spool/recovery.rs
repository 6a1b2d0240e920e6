//! Reading a directory that an earlier process left behind.
//!
//! First all segments are read, in order, one at a time: each message comes out as settled, as never whole (nobody was told
//! that it is kept), as alive, or as damaged. Then the heads of those that live are read again and handed out in slices,
//! while the spool has the directory already, so that a million of them are never in memory twice.
//!
//! Promises: content is believed only with its checksums, its whole length and every chunk; what was found is synced before
//! it is handed out; damage is passed over, counted, and the file kept aside. In memory are one segment and some hundred
//! octets for each message that is not settled. Blocks; runs on a thread of its own at start.

use std::collections::HashMap;
use std::io;

use super::entry::Entry;
use super::record::{HEADER, Kind, Seal, tag};
use super::scan::scan;
use super::segment::{Segment, Segments};
use super::{Content, Head, Progress, QueueId};

mod gathering;

use gathering::{Gathering, Message};

/// A directory with segments, for reading.
pub trait Disk {
    /// The number that its tags are made from.
    fn salt(&self) -> u64;
    /// The segments that there are, in any order.
    fn segments(&self) -> io::Result<Vec<u32>>;
    /// A whole segment. What cannot be read is zeros.
    fn whole(&self, segment: u32) -> io::Result<Vec<u8>>;
    /// Octets of a segment; fewer at its end.
    fn piece(&self, segment: u32, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Makes durable what was read.
    fn sync(&self, segment: u32) -> io::Result<()>;
    /// Sees to it that the segment as it is now outlives the directory.
    fn keep_aside(&self, segment: u32) -> io::Result<()>;
}

/// A message that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its name.
    pub id: QueueId,
    /// What was known when its content began.
    pub head: Head<'static>,
    /// What was known when its content ended.
    pub content: Content,
    /// Octets of content.
    pub octets: u64,
    /// How far its delivery is; none where it was never tried.
    pub progress: Option<Progress>,
}

/// A directory as it was found.
#[derive(Debug)]
pub struct Recovery {
    /// For [`Spool::adopt`](super::Spool::adopt).
    pub adopted: Adopted,
    /// For the log.
    pub report: Report,
}

/// What a spool needs to go on with a directory.
#[derive(Debug)]
pub struct Adopted {
    pub(super) salt: u64,
    pub(super) segments: Segments,
    /// Messages that live; they come by [`Spool::admit`](super::Spool::admit).
    pub(super) messages: usize,
    pub(super) seals: Vec<Seal>,
}

/// The messages that live in a directory, to be handed out.
#[derive(Debug)]
pub struct Living(std::vec::IntoIter<(u64, Box<Message>)>);

/// What a spool needs of them, for [`Spool::admit`](super::Spool::admit).
#[derive(Debug)]
pub struct Entries {
    pub(super) salt: u64,
    pub(super) entries: Vec<(u64, Box<Entry>)>,
}

/// Some of them.
#[derive(Debug)]
pub struct Slice {
    /// For the spool.
    pub entries: Entries,
    /// For who goes on with them.
    pub messages: Vec<Recovered>,
    /// Those whose head could not be read a second time, and why: they stay where they are, for the next start.
    pub unreadable: Vec<(QueueId, String)>,
}

/// What was found, in numbers and names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: usize,
    /// Octets of records in them that count.
    pub octets: u64,
    /// Messages that live.
    pub messages: usize,
    /// Messages that nobody was told are kept: the power went before they were durable, or they were given up.
    pub unfinished: usize,
    /// Segments with a tail that was never synced and does not count.
    pub torn_segments: Vec<u32>,
    /// Segments with damage before their end; each is kept aside.
    pub damaged_segments: Vec<u32>,
    /// Octets lost by that.
    pub damaged_octets: u64,
    /// Messages that were kept once and are not whole any more.
    pub damaged_messages: Vec<QueueId>,
}

/// Reads a directory. The messages are handed out later.
pub fn find(disk: &dyn Disk) -> io::Result<(Recovery, Living)> {
    let (mut adopted, living, mut report) = read_segments(disk)?;
    for (id, message) in &living {
        adopted.segments.count_in(*id, &message.entry);
    }
    adopted.messages = living.len();
    report.messages = living.len();
    Ok((Recovery { adopted, report }, Living(living.into_iter())))
}

impl Living {
    /// The next ones, until there are none. `disk`: where they were found.
    pub fn take(&mut self, disk: &dyn Disk, most: usize) -> Option<Slice> {
        let mut slice = Slice {
            entries: Entries {
                salt: disk.salt(),
                entries: Vec::with_capacity(most),
            },
            messages: Vec::with_capacity(most),
            unreadable: Vec::new(),
        };
        for (id, message) in self.0.by_ref().take(most) {
            let name = QueueId::from_number(id);
            match read_head(disk, id, &message) {
                Ok(Some(recovered)) => slice.messages.push(recovered),
                Ok(None) => slice
                    .unreadable
                    .push((name, "its head cannot be understood".to_owned())),
                Err(error) => slice.unreadable.push((name, error.to_string())),
            }
            slice.entries.entries.push((id, message.into_entry()));
        }
        (!slice.entries.entries.is_empty()).then_some(slice)
    }
}

/// Messages by the number of their id.
type Messages = Vec<(u64, Box<Message>)>;

fn read_segments(disk: &dyn Disk) -> io::Result<(Adopted, Messages, Report)> {
    let mut numbers = disk.segments()?;
    numbers.sort_unstable();
    let mut report = Report {
        segments: numbers.len(),
        ..Report::default()
    };
    let seals = seals(disk, &numbers)?;
    let mut gathering = Gathering::default();
    let mut last = None;
    for &number in &numbers {
        let octets = disk.whole(number)?;
        let seal = seals.get(&number);
        let mut segment = Segment {
            size: octets.len() as u64,
            ..Segment::default()
        };
        let found = scan(
            &octets,
            tag(disk.salt(), number),
            seal,
            &mut |header, offset, payload| {
                report.octets += (HEADER + payload.len()) as u64;
                gathering.take(number, header, offset, payload, &mut segment);
            },
        );
        drop(octets);
        disk.sync(number)?;
        if found.damaged > 0 {
            segment.kept = disk.keep_aside(number).is_err();
            report.damaged_segments.push(number);
            report.damaged_octets += found.damaged;
        }
        if found.torn {
            report.torn_segments.push(number);
        }
        gathering.segments.insert(number, segment);
        last = Some(Seal {
            segment: number,
            end: found.end,
            records: found.records,
            poisoned: found.torn,
        });
    }
    let living = judge(gathering.messages, disk, &numbers, &mut report);
    let adopted = Adopted {
        salt: disk.salt(),
        segments: gathering.segments,
        messages: 0,
        seals: last.into_iter().collect(),
    };
    Ok((adopted, living, report))
}

/// Where segments end, as far as others say so. They do so in their first group.
fn seals(disk: &dyn Disk, numbers: &[u32]) -> io::Result<HashMap<u32, Seal>> {
    /// More than a group has.
    const FIRST_GROUP_MOST: usize = 2 << 20;
    let mut seals: HashMap<u32, Seal> = HashMap::new();
    for &number in numbers {
        let first = disk.piece(number, 0, FIRST_GROUP_MOST)?;
        scan(&first, tag(disk.salt(), number), None, &mut |header, _, payload| {
            if header.kind == Kind::Sealed {
                for seal in Seal::decode_all(payload) {
                    let known = seals.entry(seal.segment).or_insert(seal);
                    if seal.end < known.end {
                        *known = seal;
                    }
                }
            }
        });
    }
    Ok(seals)
}

/// Which messages live.
fn judge(messages: HashMap<u64, Box<Message>>, disk: &dyn Disk, numbers: &[u32], report: &mut Report) -> Messages {
    let mut living = Vec::new();
    for (id, message) in messages {
        let Some(commit) = message.commit else {
            report.unfinished += 1;
            continue;
        };
        let entry = &message.entry;
        let whole = message.head_is_whole && (entry.octets, entry.chunks) == (commit.octets, commit.chunks);
        if whole {
            living.push((id, message));
        } else if numbers.binary_search(&entry.home).is_ok() {
            // Where the segment that it began in is gone, it is a leftover of one that was settled.
            report.damage(id, entry, disk);
        }
    }
    living.sort_unstable_by_key(|(id, message)| (message.entry.home, *id));
    living
}

/// Reads the head of a message again; none where it cannot be understood.
fn read_head(disk: &dyn Disk, id: u64, message: &Message) -> io::Result<Option<Recovered>> {
    let mut octets = Vec::new();
    for part in &message.head {
        let piece = disk.piece(part.segment, u64::from(part.offset), part.length as usize)?;
        if crc32fast::hash(&piece) != part.checksum {
            return Ok(None);
        }
        octets.extend(piece);
    }
    let (Some(head), Some(commit)) = (Head::decode(&octets), message.commit) else {
        return Ok(None);
    };
    Ok(Some(Recovered {
        id: QueueId::from_number(id),
        head,
        content: commit.content,
        octets: commit.octets,
        progress: message
            .entry
            .progress
            .octets()
            .and_then(|octets| Progress::decode(&octets)),
    }))
}

impl Report {
    /// A message that lives is not whole: all that is left of it is kept aside.
    fn damage(&mut self, id: u64, entry: &Entry, disk: &dyn Disk) {
        self.damaged_messages.push(QueueId::from_number(id));
        for segment in &entry.segments {
            // It is an extra; the segment with the damage itself stays where it is if it cannot be kept aside.
            let _ = disk.keep_aside(*segment);
        }
    }
}
