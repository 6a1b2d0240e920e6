//! The spool of a shard, driven: its work is started as it comes, its news are told to whom they concern.
//!
//! Promises: a message is called durable only when the spool says so; content waits in memory no longer than needed; a session
//! that is faster than the disk waits. Lives on its shard.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::disk::Disk;
use super::parcel::{Body, Front, Origin, Parcel};
use super::slots::Word;
use super::{Shard, clock};
use crate::log::Level;
use crate::lookup::operator::{Reply, ReplyTo};
use crate::metrics::{Counter, Gauge};
use crate::smtp::envelope::Envelope;
use crate::spool::{Extent, Failure, Head, News, QueueId, Task, Ticket, Work};

/// Octets that may wait for the disk before sessions wait too.
const WAITING_OCTETS: usize = 4 << 20;

/// What drives the spool.
pub(super) struct Spooling {
    pub disk: Disk,
    /// A message has been begun, or an earlier run's have been taken up. Before that the spool is left alone: who never needs
    /// the disk gets no files on it.
    pub used: Cell<bool>,
    /// Work and news are being taken; what they lead to is taken by the same loop.
    busy: Cell<bool>,
    /// Whoever waits until there is room.
    waiting: RefCell<Vec<Waker>>,
    /// Operators who wait until what they have asked for is durable.
    confirming: RefCell<HashMap<Ticket, ReplyTo>>,
    confirms: Cell<u64>,
}

impl std::fmt::Debug for Spooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spooling")
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

impl Spooling {
    /// For the files of `disk`.
    pub fn new(disk: Disk) -> Spooling {
        Spooling {
            disk,
            used: Cell::new(false),
            busy: Cell::new(false),
            waiting: RefCell::default(),
            confirming: RefCell::default(),
            confirms: Cell::new(0),
        }
    }
}

impl Shard {
    /// Makes a message durable. The news of it comes later.
    pub(super) fn persist(self: &Rc<Self>, id: QueueId) {
        let Some(parcel) = self.onward.parcel(id) else {
            return;
        };
        if !parcel.is_in_spool() {
            let Body::Memory(octets) = parcel.body() else {
                // It had gone to the spool as it came, and the disk has failed since.
                let at = self.moment(clock::now());
                return self.onward.queue.borrow_mut().cannot_persist(id, at);
            };
            let queue = self.onward.queue.borrow();
            let Some(envelope) = queue.envelope(id) else {
                return;
            };
            self.begin_record(&parcel, envelope);
            self.spool.borrow_mut().append(id, &octets);
        }
        self.spool.borrow_mut().commit(id, parcel.content.get());
    }

    /// Begins the record of a message; its content follows.
    pub(super) fn begin_record(&self, parcel: &Parcel, envelope: &Envelope) {
        // It has never rested, so it is there.
        let Some(front) = parcel.front() else { return };
        let origin = &front.origin;
        self.spool.borrow_mut().begin(
            parcel.id,
            &Head {
                envelope: Cow::Borrowed(envelope),
                fields: Cow::Borrowed(&front.fields),
                form: parcel.form,
                arrived: parcel.arrived,
                session: origin.session,
                client: origin.client,
                hello: Cow::Borrowed(&origin.hello),
                user: origin.user.as_deref().map(Cow::Borrowed),
            },
        );
        parcel.begun.set(true);
        self.metrics.count(Counter::SpoolMessages);
        self.spooling.used.set(true);
    }

    /// Starts whatever the spool wants done and passes its news on, until it wants and says nothing more.
    pub(super) fn drive_spool(self: &Rc<Self>) {
        if !self.spooling.used.get() || self.spooling.busy.replace(true) {
            return;
        }
        loop {
            let work = self.spool.borrow_mut().next_work();
            if let Some(work) = work {
                self.start_work(work);
                continue;
            }
            let news = self.spool.borrow_mut().next_news();
            match news {
                Some(news) => self.hear_news(news),
                None => break,
            }
        }
        self.spooling.busy.set(false);
        if self.has_room() {
            self.spooling.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    fn start_work(self: &Rc<Self>, work: Work) {
        let counted = match &work.task {
            Task::Write { octets, .. } => Some((Counter::SpoolOctetsWritten, octets.len() as u64)),
            Task::Sync { .. } => Some((Counter::SpoolSyncs, 1)),
            _ => None,
        };
        let shard = self.clone();
        glommio::spawn_local(async move {
            let result = shard.spooling.disk.perform(work.directory, work.task).await;
            if let (Ok(_), Some((counter, count))) = (&result, counted) {
                shard.metrics.add(counter, count);
            }
            shard.spool.borrow_mut().done(work.id, result.map_err(Failure::from));
            shard.drive_spool();
        })
        .detach();
    }

    fn hear_news(self: &Rc<Self>, news: News) {
        let at = self.moment(clock::now());
        match news {
            News::Written(id) => self.tell_waiter(id, Word::Written(Ok(()))),
            News::Durable(id) => {
                if let Some(parcel) = self.onward.parcel(id) {
                    parcel.durable.set(true);
                    if self.is_short_of_memory() || parcel.rests() {
                        self.let_go(&parcel);
                    }
                }
                if !self.report_is_durable(id) {
                    self.onward.queue.borrow_mut().durable(id, at);
                }
                self.act();
            }
            News::Failed { id, failure } => {
                self.complain("a message cannot be written to the spool", None, &failure);
                if let Some(parcel) = self.onward.parcel(id) {
                    parcel.begun.set(false);
                }
                if !self.report_has_failed(id) {
                    self.onward.queue.borrow_mut().cannot_persist(id, at);
                }
                self.tell_waiter(id, Word::Written(Err(failure)));
                self.act();
            }
            News::Confirmed(ticket) => self.answer_confirm(ticket, Reply::Done),
            News::Unconfirmed { ticket, failure } => {
                self.answer_confirm(ticket, Reply::Unkept { error: failure.text });
            }
            News::Poisoned { segment, failure, .. } => {
                self.complain(
                    "a segment of the spool cannot be written and is left",
                    Some(segment),
                    &failure,
                );
            }
        }
    }

    /// Answers an operator when what was said of a message is durable.
    pub(super) fn confirm(self: &Rc<Self>, id: QueueId, reply_to: ReplyTo) {
        if !self.spooling.used.get() {
            return reply_to(Reply::Done);
        }
        let ticket = Ticket(self.spooling.confirms.get());
        self.spooling.confirms.set(ticket.0 + 1);
        self.spooling.confirming.borrow_mut().insert(ticket, reply_to);
        self.spool.borrow_mut().confirm(id, ticket);
        self.drive_spool();
    }

    fn answer_confirm(&self, ticket: Ticket, reply: Reply) {
        let waits = self.spooling.confirming.borrow_mut().remove(&ticket);
        if let Some(reply_to) = waits {
            reply_to(reply);
        }
    }

    fn complain(&self, what: &str, segment: Option<u32>, failure: &Failure) {
        let mut lines = self.lines.borrow_mut();
        let mut line = lines.line(self.wall(clock::now()), Level::Error, what);
        if let Some(segment) = segment {
            line = line.number("segment", u64::from(segment));
        }
        line.field("error", &failure.text).done();
    }

    /// Content that is on its way in, from a connection that is not served by the queue yet.
    fn tell_waiter(&self, id: QueueId, word: Word) {
        let waiter = self.arriving.borrow_mut().remove(&id);
        if let Some(slot) = waiter.and_then(|ticket| self.slots.find(ticket)) {
            slot.told(word);
        }
    }

    fn has_room(&self) -> bool {
        self.spool.borrow().waiting_octets() < WAITING_OCTETS
    }

    /// Waits until the disk has caught up.
    pub(super) async fn room_in_spool(&self) {
        poll_fn(|cx| {
            if self.has_room() {
                return Poll::Ready(());
            }
            self.spooling.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Where the content of a message stands that is not in memory. Nobody takes one that is lost for an empty one.
    pub(super) fn extents_of(&self, id: QueueId) -> io::Result<Vec<Extent>> {
        let lost = || io::Error::other("the spool has lost the content of the message");
        self.spool.borrow().extents(id).ok_or_else(lost)
    }

    /// The fields and the origin of a message that rests, read again.
    pub(super) async fn read_front(&self, parcel: &Parcel) -> io::Result<Front> {
        let extent = self.spool.borrow().head_extent(parcel.id);
        let extent = extent.ok_or_else(|| io::Error::other("its head is not there"))?;
        let octets = self.read_extent(&extent).await?;
        let head = Head::decode(&octets).ok_or_else(|| io::Error::other("its head cannot be understood"))?;
        Ok(Front {
            fields: head.fields.into_owned().into(),
            origin: Origin {
                session: head.session,
                client: head.client,
                hello: head.hello.into(),
                user: head.user.map(Into::into),
            },
        })
    }

    /// Reads a piece of content back, and believes it only when its checksum says so.
    pub(super) async fn read_extent(&self, extent: &Extent) -> io::Result<Vec<u8>> {
        let octets = self.spooling.disk.read(extent).await?;
        let mut verifier = extent.verifier();
        verifier.update(&octets);
        if verifier.finish() {
            Ok(octets)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a checksum in the spool does not match",
            ))
        }
    }

    /// The memory of a message is not needed any more: it stands in the spool, or is settled.
    pub(super) fn let_go(&self, parcel: &Parcel) {
        self.release(parcel.held());
        if let Some(buffer) = parcel.drop_body() {
            self.keep_buffer(buffer);
        }
        if parcel.rests() {
            self.drop_front(parcel);
        }
    }

    /// What can be read again in the spool is not kept in memory by a message that rests.
    pub(super) fn drop_front(&self, parcel: &Parcel) {
        if self.spool.borrow().head_extent(parcel.id).is_some() {
            parcel.drop_front();
        }
    }

    /// How many acknowledged messages this shard answers for.
    pub(super) fn count_queued(&self, parcel: &Parcel, queued: bool) {
        if parcel.queued.replace(queued) != queued {
            if queued {
                self.metrics.raise(Gauge::QueueMessages);
            } else {
                self.metrics.lower(Gauge::QueueMessages);
            }
        }
    }
}
