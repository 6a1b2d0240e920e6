//! What a sender is told (RFC 3461, RFC 3464): the facts of a report, and the message that is made of them.
//!
//! Promises: plain data, whole in itself: a report can be written when its message is settled. Lives on the shard of its
//! message.

mod returned;
mod write;

#[cfg(test)]
mod tests;

pub use returned::{MAX_RETURNED, Returned};
pub use write::Frame;

use std::sync::Arc;

use crate::relay::queue::Said;
use crate::smtp::envelope::{Body, Envelope, MailParameters, Notify, RcptParameters, Recipient, Ret};
use crate::smtp::path::{ForwardPath, Mailbox, ReversePath};
use crate::spool::QueueId;

/// A report that is due.
#[derive(Clone, Debug)]
pub struct Report {
    /// The message that it is about.
    pub of: QueueId,
    /// What it tells.
    pub kind: Kind,
    /// Whom it tells.
    pub to: Mailbox,
    /// RET= of the message.
    pub ret: Option<Ret>,
    /// ENVID= of the message, in xtext.
    pub envid: Option<Box<str>>,
    /// The message came with SMTPUTF8.
    pub smtputf8: bool,
    /// When the content of the message was complete, in unix seconds.
    pub arrived: u64,
    /// About whom.
    pub recipients: Vec<Notice>,
}

/// What a report tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Given up.
    Failure,
    /// Late, and still being tried.
    Delay,
    /// Taken, as the sender asked to be told.
    Success,
}

/// What is told of one recipient.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The recipient, and what RCPT said.
    pub recipient: Recipient,
    /// What became of it.
    pub event: Event,
    /// What was last said, if anything.
    pub said: Option<Arc<Said>>,
    /// When it was last tried, in unix seconds; 0: never.
    pub tried: u64,
    /// Until when it is tried, in unix seconds: for [`Event::Delayed`].
    pub until: u64,
}

/// What became of a recipient (the actions of RFC 3464 section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `failed`, refused for good.
    Failed,
    /// `failed`, tried for too long.
    Expired,
    /// `delayed`
    Delayed,
    /// `relayed`: taken by a hop that tells the sender nothing.
    Relayed,
    /// `delivered`: into a mailbox.
    Delivered,
}

impl Report {
    /// The envelope of the report: from nobody, and no report about it is wanted (RFC 3461 section 6.1).
    pub fn envelope(&self) -> Envelope {
        Envelope {
            reverse_path: ReversePath::Null,
            mail: MailParameters {
                smtputf8: self.needs_utf8(),
                body: if self.needs_utf8() {
                    Body::EightBitMime
                } else {
                    Body::SevenBit
                },
                ..MailParameters::default()
            },
            recipients: vec![Recipient {
                forward_path: ForwardPath::Mailbox(self.to.clone()),
                parameters: RcptParameters {
                    notify: Some(Notify::Never),
                    orcpt: None,
                },
            }],
        }
    }

    /// Whether it can only be sent by SMTPUTF8 (RFC 6533 section 4): its own recipient cannot be named otherwise.
    pub fn needs_utf8(&self) -> bool {
        !self.to.is_ascii()
    }

    /// Whether the whole message is to be returned, if it is not too large (RFC 3461 section 4.3). Only a failure returns it.
    pub fn wants_content(&self) -> bool {
        self.kind == Kind::Failure && self.ret == Some(Ret::Full)
    }
}
