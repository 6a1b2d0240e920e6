//! The log of one directory: records gather, go into a segment as one write, and become durable by one sync.
//!
//! ```text
//! idle ── batch wanted ─► Writing ── done ─► idle ── somebody waits for it ─► Syncing ── done ─► idle
//!                            └────────── failed ─► poisoned: a new segment ◄── failed ──┘
//! ```
//!
//! While a write or a sync is under way the next batch gathers: the busier the disk, the more messages share a sync. No
//! timer is needed.
//!
//! Promises: at most one write or sync at a time; what a failed one should have made durable is never called so; a segment is
//! left only when all of it is durable, so one sync covers whatever a commit rests on. Lives on its shard.

use std::collections::VecDeque;

use super::batch::{Batch, Place};
use super::entry::Index;
use super::record::{HEADER, Header, Kind, Mark, PAYLOAD_MOST, Seal, tag};
use super::segment::{Segment, Segments};
use super::{DirectoryId, Settings, Task, Ticket};

mod failing;
mod finishing;
mod group;

use group::Group;

/// Octets that are written although nobody waits for them.
const WRITE_LEAST: usize = 256 << 10;
/// Octets of a batch, or so.
const BATCH_MOST: usize = 1 << 20;

/// Seals in one record.
const SEALS_MOST: usize = 256;

/// What a task was about, for when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Create { segment: u32, spare: bool },
    Write,
    Sync,
    Free { segment: u32, recycled: bool },
    RemoveDirectory,
}

/// The log of one directory.
#[derive(Debug)]
pub(super) struct Log {
    directory: DirectoryId,
    salt: u64,
    settings: Settings,
    pub(super) segments: Segments,
    head: Option<Head>,
    next: Next,
    /// The highest number that any segment had.
    highest: u32,
    /// Creating failed; it is tried again when somebody asks for something.
    resting: bool,
    pending: VecDeque<Batch>,
    /// What is in the write that is under way.
    flight: Option<Group>,
    flight_octets: usize,
    syncing: bool,
    /// What is written and not durable.
    unsynced: Group,
    sync_due: bool,
    /// Ends of segments; not yet durable in any other.
    seals: Vec<Seal>,
    /// A segment was poisoned, and no other one says so yet.
    unsaid: bool,
    spares: Vec<u32>,
    free: Vec<u32>,
    /// Octets that segments must have that could go but for summaries before it is looked again what those would cost.
    dear: u64,
    /// Segments of which a summary is to be written.
    summaries: VecDeque<u32>,
    /// Messages that live and are not known yet: what is not known is not dead.
    missing: usize,
    /// Messages that are known.
    messages: usize,
    /// Those of them that are done with, not yet durably.
    settling: usize,
    removed: bool,
}

/// The segment that is being written.
#[derive(Debug)]
struct Head {
    segment: u32,
    /// Where the next batch goes.
    offset: u64,
    /// Everything before it is durable.
    durable: u64,
    /// Records that are durable.
    records: u32,
    /// The number of the next record.
    sequence: u32,
}

/// The segment after that.
#[derive(Debug)]
enum Next {
    None,
    Creating,
    Ready(u32),
    Failed,
}

impl Log {
    pub(super) fn new(directory: DirectoryId, salt: u64, settings: Settings, segments: Segments) -> Log {
        Log {
            directory,
            salt,
            settings,
            head: None,
            next: Next::None,
            highest: segments.highest().unwrap_or(0),
            segments,
            resting: false,
            pending: VecDeque::new(),
            flight: None,
            flight_octets: 0,
            syncing: false,
            unsynced: Group::default(),
            sync_due: false,
            seals: Vec::new(),
            unsaid: false,
            spares: Vec::new(),
            free: Vec::new(),
            dear: 0,
            summaries: VecDeque::new(),
            missing: 0,
            messages: 0,
            settling: 0,
            removed: false,
        }
    }

    /// Takes over what recovery found: where older segments end, and how many messages live, of which none is known yet.
    pub(super) fn resume(&mut self, seals: Vec<Seal>, messages: usize) {
        self.seals = seals;
        self.messages = messages;
        self.missing = messages;
        self.segments.retire_all();
    }

    /// So many messages of those are known now. `twice`: of these, those that another directory has too.
    pub(super) fn admitted(&mut self, messages: usize, twice: usize, index: &Index) {
        self.missing = self.missing.saturating_sub(messages);
        self.messages = self.messages.saturating_sub(twice);
        self.reap(index);
    }

    /// Whether it is that of the directory with this salt.
    pub(super) fn is_of(&self, salt: u64) -> bool {
        self.salt == salt
    }

    /// One message more lives here.
    pub(super) fn begun(&mut self) {
        self.messages += 1;
    }

    /// A message is done with.
    pub(super) fn settle(&mut self, id: u64) {
        self.settling += 1;
        self.push(Kind::Settled, id, &[]);
    }

    /// Messages that live.
    pub(super) fn messages(&self) -> usize {
        self.messages - self.settling
    }

    /// A record, in as many parts as it takes.
    pub(super) fn push(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        let most = self.payload_most();
        let mut parts = payload.chunks(most).peekable();
        let mut header = Header::new(kind, id);
        loop {
            let part = parts.next().unwrap_or_default();
            header.more = parts.peek().is_some();
            self.batch_with_room(HEADER + part.len()).push(header, part);
            header.part = header.part.wrapping_add(1);
            if !header.more {
                break;
            }
        }
    }

    /// Somebody asks for something: what rested is tried again.
    pub(super) fn wake(&mut self) {
        self.resting = false;
    }

    /// Content; gives the number of chunks that it began.
    pub(super) fn append(&mut self, id: u64, mut octets: &[u8]) -> u32 {
        let (most, batch_most) = (self.payload_most(), self.batch_most());
        let mut begun = 0;
        if let Some(batch) = self.pending.back_mut() {
            let room = batch_most.saturating_sub(batch.len());
            let taken = batch.extend(id, most, octets.get(..room).unwrap_or(octets));
            octets = octets.get(taken..).unwrap_or_default();
        }
        for chunk in octets.chunks(most) {
            self.push(Kind::Chunk, id, chunk);
            begun += 1;
        }
        begun
    }

    /// There is time: what gathers is to be durable soon. Where a segment ends that was poisoned is said even if there is
    /// nothing else to be said: otherwise the next start would find there what somebody was told is not kept.
    pub(super) fn idle(&mut self) {
        if self.unsaid && self.head.is_none() && self.pending.is_empty() {
            self.pending.push_back(Batch::new());
        }
        self.sync_soon();
    }

    /// What gathers is to be durable soon.
    pub(super) fn sync_soon(&mut self) {
        self.wake();
        if let Some(batch) = self.pending.back_mut() {
            batch.durable = true;
        } else if let Some(flight) = &mut self.flight {
            flight.durable = true;
        } else if !self.syncing && !self.unsynced_is_durable() {
            self.sync_due = true;
        }
    }

    /// What gathers is to be written soon; whether there is anything that the message has to wait for.
    pub(super) fn write_soon(&mut self, id: u64) -> bool {
        self.wake();
        if let Some(batch) = self.pending.back_mut() {
            batch.written = true;
            batch.flushes.push(id);
        } else if let Some(flight) = &mut self.flight {
            flight.flushes.push(id);
        } else {
            return false;
        }
        true
    }

    /// What was said so far is to be durable soon; whether there is anything that has to be waited for.
    pub(super) fn confirm(&mut self, ticket: Ticket) -> bool {
        self.sync_soon();
        if let Some(batch) = self.pending.back_mut() {
            batch.confirms.push(ticket);
        } else if let Some(flight) = &mut self.flight {
            flight.confirms.push(ticket);
        } else if self.unsynced_is_durable() {
            return false;
        } else {
            // A sync that is under way covers it, for nothing is written meanwhile.
            self.unsynced.confirms.push(ticket);
        }
        true
    }

    pub(super) fn waiting_octets(&self) -> usize {
        self.flight_octets + self.pending.iter().map(Batch::len).sum::<usize>()
    }

    /// Whether nothing is under way and nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.flight.is_none() && !self.syncing && !self.sync_due && self.free.is_empty()
    }

    /// The next thing to be done.
    pub(super) fn next_task(&mut self, index: &mut Index) -> Option<(Doing, Task)> {
        if let Some(segment) = self.free.pop() {
            let fit = self.is_own() && !self.segments.is_poisoned(segment);
            let recycled = fit && self.spares.len() < self.settings.spares;
            let task = match recycled {
                true => Task::Recycle { segment },
                false => Task::Remove { segment },
            };
            return Some((Doing::Free { segment, recycled }, task));
        }
        if self.is_over() {
            self.removed = true;
            return Some((Doing::RemoveDirectory, Task::RemoveDirectory));
        }
        self.create().or_else(|| self.write_or_sync(index))
    }

    /// A segment is prepared before it is needed; in adopted directories, where little is written, when it is.
    fn create(&mut self) -> Option<(Doing, Task)> {
        let wanted = match self.next {
            Next::None => self.is_own() || self.is_short_of_room(),
            Next::Failed => self.is_short_of_room() && !self.resting,
            Next::Creating | Next::Ready(_) => false,
        };
        if !wanted {
            return None;
        }
        self.highest = self.highest.checked_add(1)?;
        let (segment, spare) = (self.highest, self.spares.pop());
        self.next = Next::Creating;
        let size = self.segment_size();
        let doing = Doing::Create {
            segment,
            spare: spare.is_some(),
        };
        Some((doing, Task::Create { segment, size, spare }))
    }

    fn write_or_sync(&mut self, index: &mut Index) -> Option<(Doing, Task)> {
        if self.flight.is_some() || self.syncing {
            return None;
        }
        let full = self.is_short_of_room();
        if let Some(head) = &self.head
            && (self.sync_due || (full && !self.unsynced_is_durable()))
        {
            let segment = head.segment;
            (self.sync_due, self.syncing) = (false, true);
            return Some((Doing::Sync, Task::Sync { segment }));
        }
        self.sync_due = false;
        if !self.wants_write() || (full && !self.rotate()) {
            return None;
        }
        let batch = self.pending.pop_front()?;
        Some((Doing::Write, self.write(batch, index)?))
    }

    fn wants_write(&self) -> bool {
        self.pending.front().is_some_and(|batch| {
            batch.durable
                || batch.written
                || batch.len() >= WRITE_LEAST.min(self.batch_most())
                || self.pending.len() > 1
        })
    }

    /// Whether there is something to be written and no room for it in the segment.
    fn is_short_of_room(&self) -> bool {
        let Some(batch) = self.pending.front().filter(|_| self.wants_write()) else {
            return false;
        };
        // A fresh segment takes any batch, and the seals with it.
        self.head.as_ref().is_none_or(|head| {
            let end = head.offset + batch.len() as u64;
            head.offset > 0 && end.next_multiple_of(u64::from(self.settings.alignment)) > self.segment_size()
        })
    }

    /// Goes on to the next segment, if there is one.
    fn rotate(&mut self) -> bool {
        let Next::Ready(segment) = self.next else { return false };
        self.next = Next::None;
        let head = Head {
            segment,
            offset: 0,
            durable: 0,
            records: 0,
            sequence: 0,
        };
        let size = self.segment_size();
        self.segments.insert(
            segment,
            Segment {
                size,
                ..Segment::default()
            },
        );
        if let Some(old) = self.head.replace(head) {
            self.seals.push(Seal {
                segment: old.segment,
                end: old.durable,
                records: old.records,
                poisoned: false,
            });
            self.segments.retire(old.segment);
        }
        true
    }

    fn write(&mut self, mut batch: Batch, index: &mut Index) -> Option<Task> {
        let head = self.head.as_ref()?;
        let (segment, offset) = (head.segment, head.offset);
        let place = Place {
            segment,
            tag: tag(self.salt, segment),
            offset,
            sequence: head.sequence,
            durable: head.durable,
            alignment: self.settings.alignment,
            seals: if offset == 0 { last(&self.seals) } else { &[] },
        };
        let mut group = Group {
            durable: batch.durable,
            flushes: std::mem::take(&mut batch.flushes),
            confirms: std::mem::take(&mut batch.confirms),
            ..Group::default()
        };
        let segments = &mut self.segments;
        segments.hold(segment, place.seals);
        let (octets, sequence) = batch.seal(place, |header, at| {
            group.place(header, at, segment, index, segments);
        });
        (group.octets, group.sequence) = (octets.len() as u64, sequence);
        self.flight_octets = octets.len();
        self.flight = Some(group);
        Some(Task::Write {
            segment,
            offset,
            octets,
        })
    }

    fn is_own(&self) -> bool {
        self.directory == DirectoryId::OWN
    }

    /// Whether an adopted directory has nothing left in it.
    fn is_over(&self) -> bool {
        let still = self.is_quiet() && !matches!(self.next, Next::Creating);
        !self.is_own() && !self.removed && self.segments.is_empty() && still && self.messages == 0
    }

    fn unsynced_is_durable(&self) -> bool {
        self.head.as_ref().is_none_or(|head| head.durable == head.offset)
    }

    fn segment_size(&self) -> u64 {
        match self.is_own() {
            true => self.settings.segment_size,
            false => self.settings.adopted_segment_size,
        }
    }

    fn batch_most(&self) -> usize {
        BATCH_MOST.min(self.segment_size() as usize / 4)
    }

    fn payload_most(&self) -> usize {
        PAYLOAD_MOST.min(self.batch_most() / 2)
    }

    fn batch_with_room(&mut self, octets: usize) -> &mut Batch {
        let most = self.batch_most();
        let fresh = HEADER + Mark::LENGTH;
        if self
            .pending
            .back()
            .is_none_or(|last| last.len() > fresh && last.len() + octets > most)
        {
            self.pending.push_back(Batch::new());
        }
        let last = self.pending.len() - 1;
        &mut self.pending[last]
    }
}

/// All seals, unless a disk that fails on and on has left more than a record should hold.
fn last(seals: &[Seal]) -> &[Seal] {
    seals.get(seals.len().saturating_sub(SEALS_MOST)..).unwrap_or_default()
}
