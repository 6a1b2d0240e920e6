//! A message that has more than files to go to: what the shard keeps of it beside its envelope, until it is settled.
//!
//! Promises: its content stands in memory or in the spool, and in memory only as long as somebody may need it there. Lives
//! on its shard.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use crate::lookup::Ticket;
use crate::smtp::Form;
use crate::spool::{Content, QueueId};

/// One message on its way onward.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Its name.
    pub id: QueueId,
    /// The fields that this hop puts on top, with CRLF.
    pub fields: Box<[u8]>,
    /// How its content came, and is kept.
    pub form: Form,
    /// What is in it that a next hop may not take; known when it has ended.
    pub content: Cell<Content>,
    /// Octets of content, as RFC 1870 counts them; known when it has ended.
    pub size: Cell<u64>,
    /// When it began to come, in unix milliseconds.
    pub arrived: u64,
    /// Whom it came from.
    pub origin: Origin,
    /// The connection whose client waits for the final reply.
    pub waiter: Cell<Option<Ticket>>,
    /// The spool has begun a record of it.
    pub begun: Cell<bool>,
    /// The spool has said that it is durable.
    pub durable: Cell<bool>,
    /// Attempts under way.
    pub trying: Cell<u32>,
    /// An attempt has begun.
    pub tried: Cell<bool>,
    /// It is counted among the acknowledged messages.
    pub queued: Cell<bool>,
    body: RefCell<Option<Rc<Vec<u8>>>>,
}

/// Where a message came from.
#[derive(Debug)]
pub(super) struct Origin {
    /// The session.
    pub session: QueueId,
    /// The client's address; none for a message of our own.
    pub client: Option<IpAddr>,
    /// The client's name in HELO or EHLO.
    pub hello: Box<str>,
    /// Who had authenticated.
    pub user: Option<Box<str>>,
}

/// Where content is read from.
#[derive(Debug)]
pub(super) enum Body {
    /// Whole, here.
    Memory(Rc<Vec<u8>>),
    /// In the spool's extents.
    Spool,
}

impl Parcel {
    /// A message whose content begins to come.
    pub fn new(id: QueueId, fields: Vec<u8>, form: Form, arrived: u64, origin: Origin) -> Rc<Parcel> {
        Rc::new(Parcel {
            id,
            fields: fields.into(),
            form,
            arrived,
            origin,
            content: Cell::default(),
            size: Cell::new(0),
            waiter: Cell::new(None),
            begun: Cell::new(false),
            durable: Cell::new(false),
            trying: Cell::new(0),
            tried: Cell::new(false),
            queued: Cell::new(false),
            body: RefCell::new(None),
        })
    }

    /// The content is complete; without `body` it stands in the spool.
    pub fn complete(&self, content: Content, size: u64, body: Option<Vec<u8>>) {
        self.content.set(content);
        self.size.set(size);
        *self.body.borrow_mut() = body.map(Rc::new);
    }

    /// Whether the spool has to be told when nothing is left to do for it.
    pub fn is_in_spool(&self) -> bool {
        self.begun.get()
    }

    /// Whether its sender had authenticated.
    pub fn is_authenticated(&self) -> bool {
        self.origin.user.is_some()
    }

    /// Whether nobody is about to read its content: it waits for a later attempt.
    pub fn rests(&self) -> bool {
        self.durable.get() && self.tried.get() && self.trying.get() == 0
    }

    /// Where its content is to be read now.
    pub fn body(&self) -> Body {
        self.body.borrow().clone().map_or(Body::Spool, Body::Memory)
    }

    /// Octets that it holds in memory.
    pub fn held(&self) -> usize {
        self.body.borrow().as_ref().map_or(0, |body| body.len())
    }

    /// Gives its memory up; whoever reads from it at this moment may finish. Returns the buffer where nobody does.
    pub fn drop_body(&self) -> Option<Vec<u8>> {
        self.body.borrow_mut().take().and_then(Rc::into_inner)
    }
}
