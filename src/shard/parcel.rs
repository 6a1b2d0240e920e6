//! A message that has more than files to go to: what the shard keeps of it beside its envelope, until it is settled.
//!
//! Promises: its content stands in memory or in the spool, and in memory only as long as somebody may need it there; so do its
//! fields, once it is durable. Kept small, for there may be a million of them. Lives on its shard.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use crate::lookup::Ticket;
use crate::smtp::Form;
use crate::spool::{Content, QueueId};

/// One message on its way onward.
pub(super) struct Parcel {
    /// Its name.
    pub id: QueueId,
    /// How its content came, and is kept.
    pub form: Form,
    /// What is in it that a next hop may not take; known when it has ended.
    pub content: Cell<Content>,
    /// Octets of content, as RFC 1870 counts them; known when it has ended.
    pub size: Cell<u64>,
    /// When it began to come, in unix milliseconds.
    pub arrived: u64,
    /// Its sender had authenticated.
    pub authenticated: bool,
    /// Octets of the fields that this hop puts on top.
    fields_length: Cell<u32>,
    front: Cell<Option<Rc<Front>>>,
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

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parcel").field(&self.id).finish()
    }
}

/// What the spool knows as well once the message is durable: it goes from memory with the content.
#[derive(Debug)]
pub(super) struct Front {
    /// The fields that this hop puts on top, with CRLF.
    pub fields: Box<[u8]>,
    /// Whom it came from.
    pub origin: Origin,
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
            form,
            arrived,
            authenticated: origin.user.is_some(),
            fields_length: Cell::new(fields.len() as u32),
            front: Cell::new(Some(Rc::new(Front {
                fields: fields.into(),
                origin,
            }))),
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

    /// Its fields and its origin; none while they stand in the spool alone.
    pub fn front(&self) -> Option<Rc<Front>> {
        let front = self.front.take();
        self.front.set(front.clone());
        front
    }

    /// More fields at the end of those that this hop puts on top; while nobody else has them.
    pub fn add_fields(&self, more: &[u8]) {
        match self.front.take().map(Rc::try_unwrap) {
            Some(Ok(front)) => {
                let fields = [&*front.fields, more].concat().into();
                self.set_front(Front { fields, ..front });
            }
            Some(Err(shared)) => self.front.set(Some(shared)),
            None => {}
        }
    }

    /// They were read again.
    pub fn set_front(&self, front: Front) {
        self.fields_length.set(front.fields.len() as u32);
        self.front.set(Some(Rc::new(front)));
    }

    /// Gives up what the spool knows too. To be called when it can be read there.
    pub fn drop_front(&self) {
        self.front.set(None);
    }

    /// Octets of the fields that this hop puts on top.
    pub fn fields_length(&self) -> u64 {
        u64::from(self.fields_length.get())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_rests_costs_some_hundred_octets() {
        assert!(size_of::<Parcel>() <= 112, "{}", size_of::<Parcel>());
    }
}
