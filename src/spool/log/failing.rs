//! What a log does when the disk fails.
//!
//! A failed write or sync leaves behind nobody knows what, and the next sync may say that all is well although it is not. So
//! the segment is left for good: it ends where it last was durable, the next segment says so before it says anything else,
//! and every message that rested on more fails. What was said about other messages is said again.
//!
//! Promises: nothing is tried again into success; a message that has failed is forgotten. Lives on its shard.

use std::collections::{HashSet, VecDeque};

use super::group::Event;
use super::{Doing, Log, Next};
use crate::spool::batch::Batch;
use crate::spool::entry::{Index, State};
use crate::spool::record::{Header, Kind, Seal};
use crate::spool::{Failure, News, QueueId, Ticket};

impl Log {
    /// A task is done, badly.
    pub(in crate::spool) fn failed(
        &mut self,
        doing: Doing,
        failure: Failure,
        index: &mut Index,
        news: &mut VecDeque<News>,
    ) {
        match doing {
            // A spare that cannot be had is no reason to take no mail.
            Doing::Create { spare: true, .. } => self.next = Next::None,
            Doing::Create { .. } => {
                self.next = Next::Failed;
                if self.is_short_of_room() {
                    self.fail_pending(&failure, index, news);
                    self.resting = true;
                }
            }
            Doing::Write | Doing::Sync => self.poison(failure, index, news),
            Doing::Free { segment, .. } => self.segments.stays(segment),
            Doing::RemoveDirectory => {}
        }
    }

    fn poison(&mut self, failure: Failure, index: &mut Index, news: &mut VecDeque<News>) {
        (self.syncing, self.sync_due) = (false, false);
        let mut lost = std::mem::take(&mut self.unsynced);
        self.flight_octets = 0;
        if let Some(mut flight) = self.flight.take() {
            lost.messages.append(&mut flight.messages);
            lost.events.append(&mut flight.events);
            lost.confirms.append(&mut flight.confirms);
            lost.flushes = flight.flushes;
        }
        let Some(head) = self.head.take() else { return };
        news.push_back(News::Poisoned {
            directory: self.directory,
            segment: head.segment,
            failure: failure.clone(),
        });
        self.fail(lost.messages, &failure, index, news);
        news.extend(lost.confirms.into_iter().map(unconfirmed(&failure)));
        self.seals.push(Seal {
            segment: head.segment,
            end: head.durable,
            records: head.records,
            poisoned: true,
        });
        self.unsaid = true;
        self.segments.poison(head.segment, head.durable == 0);
        if let Some(free) = self.segments.free_if_empty(head.segment) {
            self.free.push(free);
        }
        // Those that have not failed have nothing in what was lost, and what is pending came after the flush.
        let known = lost.flushes.into_iter().filter(|id| index.contains_key(id));
        news.extend(known.map(|id| News::Written(QueueId::from_number(id))));
        let events: Vec<Event> = lost.events.into_iter().map(|(event, _)| event).collect();
        let flushed = self.say_again(&events, index);
        self.are_written(flushed, news);
    }

    /// Nothing can be written: messages that wait for it fail, what is said of others waits.
    fn fail_pending(&mut self, failure: &Failure, index: &mut Index, news: &mut VecDeque<News>) {
        let content = |(header, _): (Header, _)| is_content(header.kind).then_some(header.id);
        let messages = self
            .pending
            .iter()
            .flat_map(|batch| batch.records().filter_map(content))
            .collect();
        self.fail(messages, failure, index, news);
        let confirms = self
            .pending
            .iter_mut()
            .flat_map(|batch| std::mem::take(&mut batch.confirms));
        news.extend(confirms.map(unconfirmed(failure)));
        let flushed = self.say_again(&[], index);
        self.are_written(flushed, news);
    }

    /// Messages that wait for a write which is not made any more, and have nothing in it: their content stands in a file, or
    /// is on its way there.
    fn are_written(&mut self, messages: Vec<u64>, news: &mut VecDeque<News>) {
        match &mut self.flight {
            Some(flight) => flight.flushes.extend(messages),
            None => news.extend(messages.into_iter().map(|id| News::Written(QueueId::from_number(id)))),
        }
    }

    fn fail(&mut self, messages: Vec<u64>, failure: &Failure, index: &mut Index, news: &mut VecDeque<News>) {
        for id in messages {
            if index.get(&id).is_some_and(|entry| entry.is_being_written())
                && let Some(entry) = index.remove(&id)
            {
                self.forget(&entry);
                news.push_back(News::Failed {
                    id: QueueId::from_number(id),
                    failure: failure.clone(),
                });
            }
        }
    }

    /// Gathers anew what is pending, without the content of messages that are gone, and what was lost. Gives the messages
    /// whose flush has nothing left to wait for.
    fn say_again(&mut self, lost: &[Event], index: &Index) -> Vec<u64> {
        let mut flushed = Vec::new();
        let again: HashSet<Event> = lost.iter().copied().collect();
        let mut confirms = Vec::new();
        for mut batch in std::mem::take(&mut self.pending) {
            confirms.append(&mut batch.confirms);
            let first = self.pending.len().saturating_sub(1);
            for (header, payload) in batch.records() {
                let kept = match header.kind {
                    Kind::Begin | Kind::Chunk | Kind::Commit => index.contains_key(&header.id),
                    Kind::Update => !again.contains(&Event::Update(header.id)),
                    Kind::Settled => !again.contains(&Event::Settled(header.id)),
                    Kind::Summary => !again.contains(&Event::Summary(header.id as u32)),
                    Kind::Mark | Kind::Sealed | Kind::Void => false,
                };
                if kept {
                    self.batch_with_room(payload.len()).push(header, payload);
                }
            }
            let living = |batch: &Batch| batch.records().any(|(header, _)| header.kind == Kind::Commit);
            let flushes: Vec<u64> = batch.flushes.into_iter().filter(|id| index.contains_key(id)).collect();
            for gathered in self.pending.iter_mut().skip(first) {
                gathered.durable |= living(gathered);
                gathered.written |= !flushes.is_empty();
            }
            match self.pending.back_mut() {
                Some(last) => last.flushes.extend(flushes),
                None => flushed.extend(flushes),
            }
        }
        for event in again {
            match event {
                Event::Update(id) => {
                    let entry = index.get(&id).filter(|entry| entry.state != State::Settling);
                    if let Some(progress) = entry.and_then(|entry| entry.progress.octets()) {
                        self.push(Kind::Update, id, &progress);
                    }
                }
                Event::Settled(id) => self.push(Kind::Settled, id, &[]),
                Event::Summary(segment) => self.summarise(segment, index),
            }
        }
        if !confirms.is_empty() {
            // Whatever they wait for is pending by now. Where nothing is, an empty batch tells them.
            let last = self.batch_with_room(0);
            last.durable = true;
            last.confirms = confirms;
        }
        flushed
    }
}

fn unconfirmed(failure: &Failure) -> impl Fn(Ticket) -> News {
    let failure = failure.clone();
    move |ticket| News::Unconfirmed {
        ticket,
        failure: failure.clone(),
    }
}

fn is_content(kind: Kind) -> bool {
    matches!(kind, Kind::Begin | Kind::Chunk | Kind::Commit)
}
