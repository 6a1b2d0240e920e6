//! What follows when a task is done.
//!
//! Promises: nothing is called durable before the sync that covers it; segments go only when what was written is durable. Lives
//! on its shard.

use std::collections::VecDeque;

use super::group::Event;
use super::{BATCH_MOST, Doing, Log, Next};
use crate::spool::entry::{Entry, Index, State};
use crate::spool::record::{HEADER, Kind};
use crate::spool::{News, QueueId, summary};

impl Log {
    /// A task is done, well.
    pub(in crate::spool) fn done(&mut self, doing: Doing, index: &mut Index, news: &mut VecDeque<News>) {
        match doing {
            Doing::Create { segment, .. } => self.next = Next::Ready(segment),
            Doing::Write => self.written(index, news),
            Doing::Sync => self.synced(index, news),
            Doing::Free { segment, recycled } => {
                if recycled {
                    self.spares.push(segment);
                }
                self.segments.gone(segment);
                self.seals.retain(|seal| seal.segment != segment);
                self.reap(index);
            }
            Doing::RemoveDirectory => {}
        }
        self.write_summaries(index);
    }

    fn written(&mut self, index: &mut Index, news: &mut VecDeque<News>) {
        let Some(mut group) = self.flight.take() else { return };
        self.flight_octets = 0;
        if let Some(head) = &mut self.head {
            head.offset += group.octets;
            head.sequence = group.sequence;
        }
        for (id, piece) in group.pieces.drain(..) {
            if let Some(entry) = index.get_mut(&id) {
                entry.pieces.push(piece);
            }
        }
        let known = group.flushes.drain(..).filter(|id| index.contains_key(id));
        news.extend(known.map(|id| News::Written(QueueId::from_number(id))));
        self.sync_due |= group.durable;
        self.unsynced.messages.append(&mut group.messages);
        self.unsynced.commits.append(&mut group.commits);
        self.unsynced.events.append(&mut group.events);
        self.unsynced.confirms.append(&mut group.confirms);
    }

    fn synced(&mut self, index: &mut Index, news: &mut VecDeque<News>) {
        self.syncing = false;
        let group = std::mem::take(&mut self.unsynced);
        let Some(head) = &mut self.head else { return };
        (head.durable, head.records) = (head.offset, head.sequence);
        self.seals.clear();
        self.unsaid = false;
        for id in group.commits {
            if let Some(entry) = index.get_mut(&id).filter(|entry| entry.state == State::Committing) {
                entry.state = State::Durable;
                news.push_back(News::Durable(QueueId::from_number(id)));
            }
        }
        for (event, _) in group.events.into_iter().filter(|(_, last)| *last) {
            match event {
                Event::Update(_) => {}
                Event::Settled(id) => {
                    if let Some(entry) = index.remove(&id) {
                        self.settling -= 1;
                        self.forget(&entry);
                    }
                }
                Event::Summary(segment) => self.segments.summarised(segment),
            }
        }
        news.extend(group.confirms.into_iter().map(News::Confirmed));
        self.reap(index);
    }

    /// A message is gone: nothing of it is needed.
    pub(in crate::spool) fn forget(&mut self, entry: &Entry) {
        self.messages = self.messages.saturating_sub(1);
        let written = self.head.as_ref().map(|head| head.segment);
        for segment in &entry.segments {
            self.segments.unpin(*segment, written);
        }
    }

    /// Looks which segments may go.
    pub(super) fn reap(&mut self, index: &Index) {
        let over = self.messages == 0 && self.is_quiet() && self.unsynced_is_durable();
        if !self.is_own() && over && !self.segments.are_kept() {
            // Nothing more will be written here.
            if let Some(head) = self.head.take() {
                self.segments.retire(head.segment);
            }
        }
        if self.missing > 0 || !self.segments.have_changed() {
            return;
        }
        let reaped = self.segments.reap();
        self.free.extend(reaped.free);
        // A summary may be larger than a segment. So they are written only where they free twice what they cost; and since
        // the cost is dear to find out, it is not asked again before there is as much to be freed.
        if reaped.homes.is_empty() {
            self.dear = 0;
        }
        if reaped.homes.is_empty() || reaped.octets < self.dear {
            return;
        }
        let cost: usize = reaped.homes.iter().map(|home| self.summary_cost(*home, index)).sum();
        let cost = 2 * cost as u64;
        if cost > reaped.octets {
            self.dear = cost.max(reaped.octets + reaped.octets / 4);
            return;
        }
        self.dear = 0;
        for home in reaped.homes {
            if let Some(segment) = self.segments.find(home) {
                segment.summarising = true;
                self.summaries.push_back(home);
            }
        }
        self.write_summaries(index);
    }

    /// Writes summaries that are wanted, as far as they should wait in memory together.
    pub(super) fn write_summaries(&mut self, index: &Index) {
        while self.waiting_octets() < BATCH_MOST
            && let Some(home) = self.summaries.pop_front()
        {
            if self.segments.find(home).is_some_and(|segment| !segment.leaving) {
                self.summarise(home, index);
            }
        }
    }

    /// Octets of a summary, or a few more.
    fn summary_cost(&mut self, segment: u32, index: &Index) -> usize {
        let begun = self.segments.find(segment).map(|home| home.begun.as_slice());
        let living = begun.unwrap_or_default().iter().filter_map(|id| index.get(id));
        HEADER + living.map(|entry| summary::cost(entry.progress.len())).sum::<usize>()
    }

    /// Says which messages of a segment live.
    pub(super) fn summarise(&mut self, segment: u32, index: &Index) {
        let summary = self.summary(segment, index);
        if let Some(segment) = self.segments.find(segment) {
            segment.summarising = true;
        }
        self.push(Kind::Summary, u64::from(segment), &summary);
    }

    fn summary(&mut self, segment: u32, index: &Index) -> Vec<u8> {
        let Some(home) = self.segments.find(segment) else {
            return Vec::new();
        };
        home.begun.retain(|id| lives_in(index, *id, segment));
        let progress = |id: &u64| Some((*id, index.get(id)?.progress.octets()));
        summary::encode(home.begun.iter().filter_map(progress))
    }
}

/// Whether a message that began in the segment lives.
fn lives_in(index: &Index, id: u64, segment: u32) -> bool {
    index
        .get(&id)
        .is_some_and(|entry| entry.home == segment && entry.state != State::Settling)
}
