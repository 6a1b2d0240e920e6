//! From content to custody: gathers a message in memory, hands it to the file workers or to the spool, piece by piece when it is
//! large, or keeps it whole for its next hops.
//!
//! Promises: a message holds at most one piece here and one with the workers, and pieces are small when the shard's
//! memory for them runs short; nothing is allocated by a declared size. Lives on its shard.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::parcel::{Origin, Parcel};
use super::route::Target;
use super::{Settings, Shard};
use crate::lookup::Ticket;
use crate::maildir::{self, Draft, Failure, Plan, ReplyTo, Request};
use crate::smtp::envelope::Envelope;
use crate::smtp::path::ForwardPath;
use crate::smtp::received::{self, Trace};
use crate::smtp::session::Session;
use crate::smtp::{BareNewline, Form};
use crate::spool::{Content, QueueId};

/// Octets of content after which a piece goes to the workers.
const PIECE: usize = 256 << 10;
/// The same, while the messages of this shard together are over their share of memory.
const PIECE_WHEN_SHORT: usize = 16 << 10;
/// Buffers kept for the next message, and the octets that one may hold to be kept.
const SPARE_BUFFERS: usize = 64;
const SPARE_CAPACITY: usize = 64 << 10;

/// A message on its way in.
#[derive(Debug)]
pub struct Message {
    /// Its name here: in the final reply, Received and the log.
    pub id: QueueId,
    /// When its content began.
    pub begun: Instant,
    way: Way,
    buffer: Vec<u8>,
    /// Octets above 127 have come.
    eight_bit: bool,
    /// Why a piece could not be written: the message will be refused at its end.
    pub failure: Option<Box<Failure>>,
}

/// What becomes of the content.
#[derive(Debug)]
enum Way {
    /// It is thrown away.
    Nowhere,
    /// It is written to files; none while the workers have them.
    Files(Option<Draft>),
    /// It goes to next hops, out of memory or out of the spool.
    Onward(Rc<Parcel>),
}

/// What is known of a message when its content begins.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// Whose message it is.
    pub session: &'a Session,
    /// The name of the session.
    pub session_id: QueueId,
    /// By whose routes it goes.
    pub settings: &'a Settings,
    /// The route of each recipient.
    pub routes: &'a [usize],
    /// When it begins.
    pub now: Instant,
}

impl Message {
    /// A message whose content begins now.
    pub fn begin(shard: &Shard, beginning: &Beginning<'_>) -> Message {
        let Beginning { session, now, .. } = *beginning;
        let id = shard.next_id(now);
        let form = if session.is_chunked() {
            Form::Plain
        } else {
            Form::Dotted
        };
        let way = match session.envelope() {
            None => Way::Nowhere,
            Some(envelope) if beginning.is_local() => beginning
                .plan(shard, id, envelope, form)
                .map_or(Way::Nowhere, |draft| Way::Files(Some(draft))),
            Some(envelope) => Way::Onward(beginning.parcel(shard, id, envelope, form)),
        };
        let buffer = match way {
            Way::Nowhere => Vec::new(),
            _ => shard.spare_buffer(),
        };
        Message {
            id,
            begun: now,
            way,
            buffer,
            eight_bit: false,
            failure: None,
        }
    }

    /// Takes content. Where every route throws mail away, nothing is kept.
    pub fn store(&mut self, shard: &Shard, octets: &[u8]) {
        match &self.way {
            Way::Nowhere => return,
            Way::Files(None) => return,
            Way::Files(Some(_)) => {}
            Way::Onward(_) => self.eight_bit |= !octets.is_ascii(),
        }
        self.buffer.extend_from_slice(octets);
        shard.hold(octets.len());
    }

    /// Whether a piece should leave memory before more is read.
    pub fn has_a_piece(&self, shard: &Shard) -> bool {
        self.buffer.len()
            >= if shard.is_short_of_memory() {
                PIECE_WHEN_SHORT
            } else {
                PIECE
            }
    }

    /// Adds what a user's message lacks to the fields that this hop puts on top, as long as they have not left memory.
    pub fn mend(&mut self, shard: &Shard, session: &Session) {
        if session.user().is_none() {
            return;
        }
        let fields = session.missing_fields(&shard.date(self.begun), self.id.as_str());
        match &mut self.way {
            Way::Files(Some(draft)) => draft.add_fields(&fields),
            Way::Onward(parcel) if !parcel.is_in_spool() => parcel.add_fields(fields.as_bytes()),
            _ => {}
        }
    }

    /// Whether custody has to be waited for: there is something to write or to send, or writing has failed.
    pub fn is_to_be_waited_for(&self) -> bool {
        !matches!(self.way, Way::Nowhere | Way::Files(None)) || self.failure.is_some()
    }

    /// Whether it goes to next hops.
    pub fn parcel(&self) -> Option<&Rc<Parcel>> {
        match &self.way {
            Way::Onward(parcel) => Some(parcel),
            _ => None,
        }
    }

    /// Sends the piece; answered by `Done::Appended`. False where there is nothing to write.
    pub fn append(&mut self, shard: &Shard, ticket: Ticket) -> bool {
        self.submit(shard, ticket, Request::Append)
    }

    /// Sends the rest; answered by `Done::Committed`. False where there is nothing to write.
    pub fn commit(&mut self, shard: &Shard, ticket: Ticket) -> bool {
        self.submit(shard, ticket, Request::Commit)
    }

    /// The draft is back from the workers, with an emptied buffer.
    pub fn resume(&mut self, draft: Draft, buffer: Vec<u8>) {
        self.way = Way::Files(Some(draft));
        self.buffer = buffer;
    }

    /// Moves what is in memory into the spool, whose record begins with the first piece.
    pub fn spool(&mut self, shard: &Shard, envelope: &Envelope, ticket: Ticket) {
        let Way::Onward(parcel) = &self.way else {
            return;
        };
        if !parcel.is_in_spool() {
            shard.arriving.borrow_mut().insert(self.id, ticket);
            shard.begin_record(parcel, envelope);
        }
        shard.spool.borrow_mut().append(self.id, &self.buffer);
        shard.release(self.buffer.len());
        self.buffer.clear();
    }

    /// The content is complete: from here on the parcel is all there is of it. The memory that it holds stays counted.
    pub fn complete(&mut self, shard: &Shard, session: &Session) -> Option<Rc<Parcel>> {
        let Way::Onward(parcel) = std::mem::replace(&mut self.way, Way::Nowhere) else {
            return None;
        };
        let content = Content {
            eight_bit: self.eight_bit,
            bare_newline: session.has_bare_newline(),
        };
        shard.arriving.borrow_mut().remove(&self.id);
        let body = (!parcel.is_in_spool()).then(|| std::mem::take(&mut self.buffer));
        parcel.complete(content, session.content_size(), body);
        Some(parcel)
    }

    /// Removes what was written so far. The message is refused or its client is gone.
    pub fn abandon(self, shard: &Shard) {
        shard.release(self.buffer.len());
        match self.way {
            Way::Files(Some(draft)) => shard.abandon(draft),
            Way::Onward(parcel) if parcel.is_in_spool() => {
                shard.arriving.borrow_mut().remove(&self.id);
                shard.spool.borrow_mut().abandon(self.id);
            }
            _ => {}
        }
        shard.keep_buffer(self.buffer);
    }

    fn submit(&mut self, shard: &Shard, ticket: Ticket, request: fn(Draft, Vec<u8>) -> Request) -> bool {
        let Way::Files(draft) = &mut self.way else {
            return false;
        };
        let Some(draft) = draft.take() else {
            return false;
        };
        shard.release(self.buffer.len());
        shard.submit(request(draft, std::mem::take(&mut self.buffer)), ticket);
        true
    }
}

impl Beginning<'_> {
    /// Whether all of it ends in files of this host, or nowhere.
    fn is_local(&self) -> bool {
        let mut routes = self.routes.iter().map(|route| self.settings.routes.get(*route));
        routes.all(|route| route.is_none_or(|route| route.is_local()))
    }

    /// The files of the message: those of each route, with the Received field that this hop adds.
    fn plan(&self, shard: &Shard, id: QueueId, envelope: &Envelope, form: Form) -> Option<Draft> {
        let normalise = self.session.bare_newline() == BareNewline::Normalise && form == Form::Dotted;
        let mut plan = Plan::new(id.as_str(), form, normalise);
        for (number, route) in self.settings.routes.iter().enumerate() {
            let [Target::Maildir(template)] = route.targets.as_slice() else {
                continue;
            };
            let theirs = || {
                self.routes
                    .iter()
                    .zip(&envelope.recipients)
                    .filter(|(route, _)| **route == number)
                    .map(|(_, recipient)| &recipient.forward_path)
            };
            if theirs().next().is_none() {
                continue;
            }
            plan.deliver(
                template,
                &envelope.reverse_path,
                theirs(),
                &self.settings.hostname,
                |only| self.fields(shard, id, only),
            );
        }
        (!plan.files.is_empty()).then(|| Draft::new(plan))
    }

    fn parcel(&self, shard: &Shard, id: QueueId, envelope: &Envelope, form: Form) -> Rc<Parcel> {
        let only = match envelope.recipients.as_slice() {
            [only] => Some(&only.forward_path),
            _ => None,
        };
        let origin = Origin {
            session: self.session_id,
            client: Some(self.session.client()),
            hello: self.session.hello_name().into(),
            user: self.session.user().map(|user| (**user).into()),
        };
        Parcel::new(
            id,
            self.fields(shard, id, only),
            form,
            shard.unix_millis(self.now),
            origin,
        )
    }

    /// What this hop puts on top. `only` is the recipient, where there is one alone.
    fn fields(&self, shard: &Shard, id: QueueId, only: Option<&ForwardPath>) -> Vec<u8> {
        let mut field = Vec::new();
        let trace = Trace {
            hello: self.session.hello_name(),
            client: self.session.client(),
            hostname: &self.settings.hostname,
            protocol: self.session.protocol(),
            queue_id: id.as_str(),
            date: &shard.date(self.now),
            recipient: only.map(ForwardPath::as_str),
        };
        received::write(&mut field, &trace);
        field
    }
}

/// The memory and the workers that the messages of a shard share.
impl Shard {
    fn spare_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a buffer for the next message, unless there are enough or it has grown large.
    pub(super) fn keep_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_CAPACITY && buffer.capacity() > 0 {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    pub(super) fn hold(&self, octets: usize) {
        self.held.set(self.held.get() + octets);
    }

    pub(super) fn release(&self, octets: usize) {
        self.held.set(self.held.get().saturating_sub(octets));
    }

    pub(super) fn is_short_of_memory(&self) -> bool {
        self.held.get() > self.settings().message_memory
    }

    pub(super) fn submit(&self, request: Request, ticket: Ticket) {
        let callback = Arc::clone(&self.file_replies);
        self.pool.submit(
            request,
            ReplyTo {
                callback,
                ticket: pack(ticket),
            },
        );
    }

    /// Removes what a message has written so far.
    pub(super) fn abandon(&self, draft: Draft) {
        self.submit(
            Request::Abandon(draft),
            Ticket {
                slot: u32::MAX,
                generation: u32::MAX,
            },
        );
    }
}

/// The workers' ticket is one number.
pub(super) fn pack(ticket: Ticket) -> maildir::Ticket {
    maildir::Ticket(u64::from(ticket.slot) << 32 | u64::from(ticket.generation))
}

/// The reverse of [`pack`].
pub(super) fn unpack(ticket: maildir::Ticket) -> Ticket {
    Ticket {
        slot: (ticket.0 >> 32) as u32,
        generation: ticket.0 as u32,
    }
}
