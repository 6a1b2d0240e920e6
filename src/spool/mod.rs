//! Durability: what was acknowledged is found again after a crash.
//!
//! A [`Spool`] is an append-only log of segments in a directory of its own, for one shard and one run. Content of many
//! messages interleaves in it as it arrives; one write and one sync make durable whatever has gathered meanwhile. At start
//! [`recovery`] reads the directories that no process holds, and the spool adopts them: what is said of their messages from
//! then on is written there, until nothing in them lives and they are removed.
//!
//! The calls of [`Spool`] are of three kinds.
//! - What is to be kept: [`begin`](Spool::begin), [`append`](Spool::append), [`flush`](Spool::flush),
//!   [`commit`](Spool::commit), [`abandon`](Spool::abandon), [`update`](Spool::update), [`settle`](Spool::settle),
//!   [`confirm`](Spool::confirm). An id that is not known is ignored.
//! - What to do: [`next_work`](Spool::next_work), [`done`](Spool::done), [`next_news`](Spool::next_news). After any call of
//!   the first kind, and after `done`, the driver starts what work there is and tells the news.
//! - What is known: [`extents`](Spool::extents), [`head_extent`](Spool::head_extent),
//!   [`waiting_octets`](Spool::waiting_octets).
//!
//! Promises: [`News::Durable`] comes after a sync that covers every octet of the message, and never after a failed one; a
//! message whose settling was synced never comes back; memory is bounded by `waiting_octets`, which the driver keeps low,
//! and some hundred octets for each message that lives. Plain logic over files that others write and sync for it; lives on
//! its shard, but for [`recovery`] and [`directory`], which block and have a thread of their own at start.

mod batch;
mod code;
pub mod directory;
mod entry;
mod extent;
mod head;
mod log;
mod progress;
mod queue_id;
mod record;
pub mod recovery;
mod scan;
mod segment;
mod summary;
mod words;
mod work;

use std::collections::{HashMap, VecDeque};

pub use extent::{Extent, Verifier};
pub use head::{Content, Head};
pub use progress::{Answer, Fate, Progress};
pub use queue_id::QueueId;
pub use recovery::{Adopted, Disk, Entries, Living, Recovered, Recovery, Report, Slice, find};
pub use work::{DirectoryId, Failure, FailureKind, News, Task, Ticket, Work, WorkId};

use entry::{Entry, Index, State};
use log::{Doing, Log};
use record::{Commit, Kind};
use words::{Noted, Words};

/// What can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Octets of a segment of the own directory; 32 KiB to 1 GiB.
    pub segment_size: u64,
    /// Octets of a segment written into an adopted directory, for what is said of its messages.
    pub adopted_segment_size: u64,
    /// Writes begin at multiples of this and are padded to it: 1, or what files opened with O_DIRECT need.
    pub alignment: u32,
    /// Segments that are kept to be used again.
    pub spares: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            segment_size: 16 << 20,
            adopted_segment_size: 1 << 20,
            alignment: 4096,
            spares: 1,
        }
    }
}

impl Settings {
    /// Brought into the bounds that the log relies on.
    fn bounded(self) -> Settings {
        let alignment = self.alignment.clamp(1, 4096).next_power_of_two();
        let size = |size: u64| size.clamp(32 << 10, 1 << 30) / 4096 * 4096;
        Settings {
            segment_size: size(self.segment_size),
            adopted_segment_size: size(self.adopted_segment_size),
            alignment,
            spares: self.spares,
        }
    }
}

/// The log of one shard, with those that it has adopted.
#[derive(Debug)]
pub struct Spool {
    settings: Settings,
    /// By [`DirectoryId`].
    logs: Vec<Log>,
    index: Index,
    under_way: HashMap<u64, (DirectoryId, Doing)>,
    works: u64,
    news: VecDeque<News>,
    words: Words,
}

impl Spool {
    /// An empty one. `salt`: that of its own directory.
    pub fn new(settings: Settings, salt: u64) -> Spool {
        let settings = settings.bounded();
        Spool {
            settings,
            logs: vec![Log::new(DirectoryId::OWN, salt, settings, Default::default())],
            index: Index::new(),
            under_way: HashMap::new(),
            works: 0,
            news: VecDeque::new(),
            words: Words::default(),
        }
    }

    /// Takes over a directory that recovery has read; its messages are then as durable ones of this run. Those that do not
    /// come with it come by [`Spool::admit`], and until the last has come nothing of the directory is removed.
    pub fn adopt(&mut self, adopted: Adopted) -> DirectoryId {
        let directory = DirectoryId(self.logs.len() as u32);
        let mut log = Log::new(directory, adopted.salt, self.settings, adopted.segments);
        log.resume(adopted.seals, adopted.messages);
        self.logs.push(log);
        self.admit_to(directory, Vec::new());
        directory
    }

    /// More messages of a directory that was adopted.
    pub fn admit(&mut self, entries: Entries) {
        let place = self.logs.iter().position(|log| log.is_of(entries.salt));
        if let Some(place) = place {
            self.admit_to(DirectoryId(place as u32), entries.entries);
        }
    }

    fn admit_to(&mut self, directory: DirectoryId, entries: Vec<(u64, Box<Entry>)>) {
        let Some(log) = self.logs.get_mut(directory.0 as usize) else {
            return;
        };
        let (mut known, admitted) = (0, entries.len());
        for (id, mut entry) in entries {
            entry.directory = directory;
            match self.index.entry(id) {
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(entry);
                }
                std::collections::hash_map::Entry::Occupied(_) => known += 1,
            }
        }
        log.admitted(admitted, known, &self.index);
    }

    /// A message begins. An id is used once.
    pub fn begin(&mut self, id: QueueId, head: &Head<'_>) {
        let id = id.number();
        if self.index.contains_key(&id) {
            return;
        }
        self.index.insert(id, Box::new(Entry::new(DirectoryId::OWN)));
        if let Some(log) = self.logs.first_mut() {
            log.wake();
            log.begun();
            log.push(Kind::Begin, id, &head.encode());
        }
    }

    /// Content, as it came; in pieces of any size.
    pub fn append(&mut self, id: QueueId, octets: &[u8]) {
        let id = id.number();
        if let Some((entry, log)) = self.find(id)
            && entry.state == State::Open
        {
            log.wake();
            entry.octets += octets.len() as u64;
            entry.chunks += log.append(id, octets);
        }
    }

    /// Has what was appended written, so that it can be read back: answered by [`News::Written`]. It may not survive a
    /// power cut.
    pub fn flush(&mut self, id: QueueId) {
        if let Some((_, log)) = self.find(id.number())
            && !log.write_soon(id.number())
        {
            self.news.push_back(News::Written(id));
        }
    }

    /// The message is whole and is to be made durable: answered by [`News::Durable`] or [`News::Failed`].
    pub fn commit(&mut self, id: QueueId, content: Content) {
        let id = id.number();
        if let Some((entry, log)) = self.find(id)
            && entry.state == State::Open
        {
            entry.state = State::Committing;
            let commit = Commit {
                octets: entry.octets,
                chunks: entry.chunks,
                content,
            };
            log.push(Kind::Commit, id, &commit.encode());
            log.sync_soon();
        }
    }

    /// The message is not wanted any more, in whatever state it is; there are no more news of it.
    pub fn abandon(&mut self, id: QueueId) {
        let id = id.number();
        let Some((entry, log)) = self.find(id) else { return };
        match entry.state {
            // Without a commit nothing of it will ever be found.
            State::Open => {
                if let Some(entry) = self.index.remove(&id)
                    && let Some(log) = self.logs.get_mut(entry.directory.0 as usize)
                {
                    log.forget(&entry);
                }
            }
            State::Committing | State::Durable => {
                entry.state = State::Settling;
                entry.progress = Noted::default();
                log.settle(id);
            }
            State::Settling => {}
        }
    }

    /// Notes how far delivery is. Becomes durable with whatever is synced next, or by [`idle`](Spool::idle).
    pub fn update(&mut self, id: QueueId, progress: &Progress) {
        let id = id.number();
        let encoded = progress.encode();
        let noted = self.words.note(&encoded);
        if let Some((entry, log)) = self.find(id)
            && entry.state != State::Settling
        {
            log.push(Kind::Update, id, &encoded);
            entry.progress = noted;
        }
    }

    /// Nothing is left to do for the message; its content may not be read any more. Becomes durable as an update does.
    pub fn settle(&mut self, id: QueueId) {
        self.abandon(id);
    }

    /// Makes durable what was said of a message, its settling too: answered by [`News::Confirmed`] or
    /// [`News::Unconfirmed`], at once where there is nothing that is not durable.
    pub fn confirm(&mut self, id: QueueId, ticket: Ticket) {
        let waits = match self.find(id.number()) {
            Some((_, log)) => log.confirm(ticket),
            None => false,
        };
        if !waits {
            self.news.push_back(News::Confirmed(ticket));
        }
    }

    /// Writes and syncs the updates and settlings that wait. For a driver that has nothing else to do, and now and then.
    pub fn idle(&mut self) {
        self.logs.iter_mut().for_each(Log::idle);
    }

    /// The next thing to be done, until there is none.
    pub fn next_work(&mut self) -> Option<Work> {
        for (number, log) in self.logs.iter_mut().enumerate() {
            if let Some((doing, task)) = log.next_task(&mut self.index) {
                let directory = DirectoryId(number as u32);
                self.works += 1;
                self.under_way.insert(self.works, (directory, doing));
                return Some(Work {
                    id: WorkId(self.works),
                    directory,
                    task,
                });
            }
        }
        None
    }

    /// A work is done, or could not be done.
    pub fn done(&mut self, work: WorkId, result: Result<(), Failure>) {
        let Some((directory, doing)) = self.under_way.remove(&work.0) else {
            return;
        };
        if let Some(log) = self.logs.get_mut(directory.0 as usize) {
            match result {
                Ok(()) => log.done(doing, &mut self.index, &mut self.news),
                Err(failure) => log.failed(doing, failure, &mut self.index, &mut self.news),
            }
        }
    }

    /// The next thing that became of a message, until there is none.
    pub fn next_news(&mut self) -> Option<News> {
        // One that was given up meanwhile hears nothing any more.
        loop {
            let news = self.news.pop_front()?;
            match &news {
                News::Written(id) | News::Durable(id) if !self.lives(*id) => {}
                _ => return Some(news),
            }
        }
    }

    /// Where the content of a message stands, in order, as far as it is written. None for a message that is not known: it
    /// has failed, or is settled, and has no content, which is not the same as content without an octet.
    pub fn extents(&self, id: QueueId) -> Option<Vec<Extent>> {
        let entry = self.index.get(&id.number())?;
        (entry.state != State::Settling).then(|| entry.extents().collect())
    }

    /// Where the head of a durable message can be read again, for [`Head::decode`]. None where it is too long to stand in one
    /// piece.
    pub fn head_extent(&self, id: QueueId) -> Option<Extent> {
        self.index.get(&id.number())?.head_extent()
    }

    /// Octets that were handed over and are not yet in a file.
    pub fn waiting_octets(&self) -> usize {
        self.logs.iter().map(Log::waiting_octets).sum()
    }

    /// Messages that were begun or found and are not yet done with.
    pub fn messages(&self) -> usize {
        self.logs.iter().map(Log::messages).sum()
    }

    /// Whether nothing is under way and nothing waits to be written or synced.
    pub fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.logs.iter().all(Log::is_quiet)
    }

    fn lives(&self, id: QueueId) -> bool {
        self.index
            .get(&id.number())
            .is_some_and(|entry| entry.state != State::Settling)
    }

    fn find(&mut self, id: u64) -> Option<(&mut Entry, &mut Log)> {
        let entry = self.index.get_mut(&id)?;
        let log = self.logs.get_mut(entry.directory.0 as usize)?;
        Some((entry, log))
    }
}

#[cfg(test)]
mod tests;
