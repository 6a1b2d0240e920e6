//! What a queue and its driver say to each other.
//!
//! Promises: plain data. Lives on the shard of its queue.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::relay::report::Report;
use crate::smtp::client::HopReply;
use crate::smtp::envelope::Envelope;
use crate::smtp::session::Custody;
use crate::spool::{Progress, QueueId};

/// Recipients, each by its place in the envelope.
pub type Indices = SmallVec<[u32; 4]>;

/// A time on both clocks: one to count with, one that outlives the process.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Counts on evenly.
    pub now: Instant,
    /// Wall time, seconds.
    pub unix: u64,
}

/// A message whose content is complete.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its name.
    pub id: QueueId,
    /// Who to whom.
    pub envelope: Envelope,
    /// Its recipients by where they go: each in one group. One that is in none is put in a group of [`NO_ROUTE`].
    pub groups: Vec<NewGroup>,
    /// Octets of content.
    pub size: u64,
    /// The client had authenticated: it may hear of a delay.
    pub authenticated: bool,
    /// Who waits for its acknowledgement.
    pub client: Client,
}

/// Recipients that go the same way.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// The place of the route in the configuration.
    pub route: u16,
    /// For a route to the recipients' own servers: their domain.
    pub domain: Option<Box<str>>,
    /// Who.
    pub recipients: Indices,
}

/// The route of recipients that no route is for (any more): whoever attempts it finds no hop.
pub const NO_ROUTE: u16 = u16::MAX;

/// Who waits for the acknowledgement of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Until the message is delivered, or durable: at the latest it is to be made durable then.
    Waits {
        /// The acknowledgement delay has passed.
        acknowledge_by: Instant,
    },
    /// Until the message is durable; no attempt is made before.
    WaitsForDurable,
    /// Nobody: the message is durable already, such as a report of our own.
    Nobody,
}

/// A message that the spool has found at start.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Its name.
    pub id: QueueId,
    /// Who to whom.
    pub envelope: Envelope,
    /// All its recipients, by the routes of today.
    pub groups: Vec<NewGroup>,
    /// Octets of content.
    pub size: u64,
    /// The client had authenticated.
    pub authenticated: bool,
    /// When its content was complete, in unix seconds.
    pub arrived: u64,
    /// How far its delivery had come; none: not begun.
    pub progress: Option<Progress>,
}

/// Who answered in an attempt.
#[derive(Clone, Debug)]
pub struct Taker {
    /// Its host name or address, for logs and reports.
    pub hop: Arc<str>,
    /// What a delivery to it is.
    pub kind: Kind,
}

/// What a delivery is (RFC 3461 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On to another server.
    Relayed {
        /// It has been told what the sender wants to be notified of.
        dsn: bool,
    },
    /// Into a mailbox: Maildir, LMTP, or thrown away as configured.
    Final,
}

/// What a driver has to do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Find a hop and deliver. Answered by [`Queue::outcomes`](super::Queue::outcomes),
    /// [`Queue::no_hop`](super::Queue::no_hop) or [`Queue::reroute`](super::Queue::reroute), once.
    Attempt {
        /// The message.
        id: QueueId,
        /// Its group.
        group: usize,
        /// Those of the group to whom it is to go now.
        recipients: Indices,
    },
    /// Make the message durable. Answered by [`Queue::durable`](super::Queue::durable) or
    /// [`Queue::cannot_persist`](super::Queue::cannot_persist), once.
    Persist(QueueId),
    /// The session may say 250.
    Acknowledge(QueueId, Custody),
    /// The session is to refuse.
    Refuse(QueueId, Refusal),
    /// Write what is left to do to the spool, without a sync. Comes after `Persist`, perhaps before its answer.
    Update(QueueId, Progress),
    /// The last word on a message: its content and its record may be forgotten. Nothing of it is under way.
    Settle(QueueId),
    /// Make a report durable, as a message of our own. Answered by [`Queue::reported`](super::Queue::reported) or
    /// [`Queue::cannot_report`](super::Queue::cannot_report), once.
    Report(Box<Report>),
    /// A line for the log.
    Log(Delivery),
}

/// Why a message is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Every recipient was refused for good: the reply of the hop for the first of them, a 5xx.
    Hop(HopReply),
    /// It could not be made durable.
    CannotStore,
}

/// What was said in an attempt, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The words.
    pub reply: HopReply,
    /// Who; empty where nobody could be asked.
    pub hop: Arc<str>,
}

/// What has become of some recipients of a message, for the log.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message; its envelope can be looked at until it is settled.
    pub id: QueueId,
    /// The group.
    pub group: usize,
    /// Who.
    pub recipients: Indices,
    /// What.
    pub status: Status,
    /// Why, where anybody said so.
    pub said: Option<Arc<Said>>,
    /// Since the content was complete.
    pub delay: Duration,
    /// Attempts made, this one included.
    pub attempts: u16,
}

/// What has become of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Taken.
    Sent,
    /// To be tried again.
    Deferred,
    /// Refused for good.
    Bounced,
    /// Tried for too long.
    Expired,
    /// The client was not given an acknowledgement and keeps its copy, or the operator has removed the message.
    Dropped,
}

impl Status {
    /// As the log has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Sent => "sent",
            Status::Deferred => "deferred",
            Status::Bounced => "bounced",
            Status::Expired => "expired",
            Status::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
