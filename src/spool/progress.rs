//! How far the delivery of a message has come: what a record in the spool says of it after its content.
//!
//! Promises: plain data, whole in itself: the last one that was written replaces those before it. Times are wall time, for
//! they outlive the process. Lives with its message.

use crate::smtp::client::HopReply;

/// What is left to do for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// One for each recipient, in the order of the envelope.
    pub recipients: Vec<Fate>,
    /// The operator holds it back.
    pub held: bool,
    /// The sender has been told that it is late.
    pub notified: bool,
}

/// Where a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// To be tried.
    Waiting {
        /// Attempts that were made.
        attempts: u16,
        /// When to try, in unix seconds; 0 is now.
        due: u64,
        /// What the last attempt led to.
        last: Option<Answer>,
    },
    /// Nothing is left to do: delivered, or failed and reported, or nobody is to hear of it.
    Settled,
    /// Given up; the sender is still to be told.
    Failed(Answer),
    /// Taken by a hop that tells the sender nothing, and the sender asked to be told (RFC 3461 section 5.2.2); still to be
    /// done.
    Relayed(Answer),
    /// Delivered here, and the sender asked to be told (RFC 3461 section 5.2.3); still to be done.
    Delivered(Answer),
}

/// What was heard of a recipient, from whom, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// What was said.
    pub reply: HopReply,
    /// Who was asked: a host name or an address; empty where nobody could be. One line of printable ASCII.
    pub hop: Box<str>,
    /// When, in unix seconds.
    pub at: u64,
}
