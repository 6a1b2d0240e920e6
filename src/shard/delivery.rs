//! From content to custody: gathers a message in memory, hands it to the file workers, piece by piece when it is large.
//!
//! Promises: a message holds at most one piece here and one with the workers, and pieces are small when the shard's
//! memory for them runs short; nothing is allocated by a declared size. Lives on its shard.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use crate::lookup::Ticket;
use crate::maildir::{self, Draft, Failure, Form, Plan, ReplyTo, Request, Template};
use crate::smtp::BareNewline;
use crate::smtp::envelope::Envelope;
use crate::smtp::path::ForwardPath;
use crate::smtp::received::{self, Trace};
use crate::smtp::session::Session;
use crate::spool::QueueId;

/// Where a route leads.
#[derive(Debug)]
pub enum Destination {
    /// Into one Maildir, or one for each recipient.
    Maildir(Template),
    /// Nowhere.
    Discard,
}

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
    /// Where it is written to; none where there is nothing to write, or while the workers have it.
    draft: Option<Draft>,
    buffer: Vec<u8>,
    /// Why a piece could not be written: the message will be refused at its end.
    pub failure: Option<Failure>,
}

impl Message {
    /// A message whose content begins now. `routes` has the route of each recipient.
    pub fn begin(shard: &Shard, session: &Session, routes: &[usize], normalise: bool, now: Instant) -> Message {
        let id = shard.next_id(now);
        let draft = session.envelope().and_then(|envelope| {
            let form = if session.is_chunked() {
                Form::Plain
            } else {
                Form::Dotted
            };
            plan(
                shard,
                session,
                envelope,
                routes,
                Plan::new(id.as_str(), form, normalise),
                now,
            )
        });
        let buffer = if draft.is_some() {
            shard.spare_buffer()
        } else {
            Vec::new()
        };
        Message {
            id,
            begun: now,
            draft,
            buffer,
            failure: None,
        }
    }

    /// Takes content. Where every route throws mail away, nothing is kept.
    pub fn store(&mut self, shard: &Shard, octets: &[u8]) {
        if self.draft.is_some() {
            self.buffer.extend_from_slice(octets);
            shard.hold(octets.len());
        }
    }

    /// Whether a piece should go to the workers before more is read.
    pub fn has_a_piece(&self, shard: &Shard) -> bool {
        self.buffer.len()
            >= if shard.is_short_of_memory() {
                PIECE_WHEN_SHORT
            } else {
                PIECE
            }
    }

    /// Whether custody has to be waited for: there is something to write, or writing has failed.
    pub fn is_to_be_written(&self) -> bool {
        self.draft.is_some() || self.failure.is_some()
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
        self.draft = Some(draft);
        self.buffer = buffer;
    }

    /// Removes what was written so far. The message is refused or its client is gone.
    pub fn abandon(mut self, shard: &Shard) {
        shard.release(self.buffer.len());
        if let Some(draft) = self.draft.take() {
            shard.abandon(draft);
        }
        shard.keep_buffer(std::mem::take(&mut self.buffer));
    }

    fn submit(&mut self, shard: &Shard, ticket: Ticket, request: fn(Draft, Vec<u8>) -> Request) -> bool {
        let Some(draft) = self.draft.take() else {
            return false;
        };
        shard.release(self.buffer.len());
        shard.submit(request(draft, std::mem::take(&mut self.buffer)), ticket);
        true
    }
}

/// The files of the message: those of each route, with the Received field that this hop adds.
fn plan(
    shard: &Shard,
    session: &Session,
    envelope: &Envelope,
    routes: &[usize],
    mut plan: Plan,
    now: Instant,
) -> Option<Draft> {
    let settings = shard.settings();
    let date = shard.date(now);
    let queue_id = plan.queue_id.clone();
    for (route, destination) in settings.destinations.iter().enumerate() {
        let Destination::Maildir(template) = destination else {
            continue;
        };
        let theirs = || {
            routes
                .iter()
                .zip(&envelope.recipients)
                .filter(|(r, _)| **r == route)
                .map(|(_, r)| &r.forward_path)
        };
        if theirs().next().is_none() {
            continue;
        }
        plan.deliver(template, &envelope.reverse_path, theirs(), &settings.hostname, |only| {
            let mut field = Vec::new();
            let trace = Trace {
                hello: session.hello_name(),
                client: session.client(),
                hostname: &settings.hostname,
                protocol: session.protocol(),
                queue_id: &queue_id,
                date: &date,
                recipient: only.map(|path| match path {
                    ForwardPath::Postmaster => "postmaster",
                    ForwardPath::Mailbox(mailbox) => mailbox.as_str(),
                }),
            };
            received::write(&mut field, &trace);
            field
        });
    }
    (!plan.files.is_empty()).then(|| Draft::new(plan))
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

    fn hold(&self, octets: usize) {
        self.held.set(self.held.get() + octets);
    }

    fn release(&self, octets: usize) {
        self.held.set(self.held.get().saturating_sub(octets));
    }

    fn is_short_of_memory(&self) -> bool {
        self.held.get() > self.settings().message_memory
    }

    fn submit(&self, request: Request, ticket: Ticket) {
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

/// Whether content is to be normalised on its way into files.
pub(super) fn normalises(bare_newline: BareNewline, chunked: bool) -> bool {
    bare_newline == BareNewline::Normalise && !chunked
}
