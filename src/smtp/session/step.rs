//! What a session and its driver say to each other: steps and questions one way, verdicts and custody the other.
//!
//! Promises: plain data. Lives with its session.

use std::ops::Range;
use std::time::Instant;

use crate::smtp::envelope::Envelope;
use crate::smtp::oxsmtp::{Event, Reply};

/// All that a driver ever has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the output, then read more input.
    Read,
    /// Send the output, then call `advance` again: there is more to say than is kept in memory.
    Send,
    /// Ask policy, then call [`Session::answer`]; for [`Question::Credentials`] call [`Session::find`].
    Ask(Question),
    /// These octets of the input are content of the message, in wire form.
    Store(Range<usize>),
    /// Throw away what was stored of this message: it will be refused at its end.
    Discard,
    /// The content is complete: take custody, then call [`Session::acknowledge`] or [`Session::refuse`].
    Commit,
    /// Send the output, then do the server's side of a TLS handshake and call [`Session::secured`], or close. The input is
    /// used up: what comes from now on is the handshake.
    Handshake,
    /// Send the output; do not read before then (tarpit).
    Pause {
        /// When to call `advance` again.
        until: Instant,
    },
    /// Send the output and close.
    Close,
}

/// What only policy can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// May this client send one more message now?
    Mail,
    /// May this client begin one more TLS session now? Asked where there is a limit.
    StartTls,
    /// Is [`Session::forward_path_asked`] one to take mail for?
    Rcpt,
    /// What [`Session::credentials_asked`] names.
    Credentials,
}

/// Policy's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Accept,
    /// No, with this reply.
    Refuse(Reply),
    /// No: a limit was passed.
    Limit(Event),
}

/// Who answers for a message once it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// Every next hop that it is for has taken it, or has refused it for a sender who wants no report.
    NextHop,
    /// It is durable in the spool here, or what is left of it is: the report to its sender.
    Spool,
    /// It stands, synced, in every mailbox that it is for (or its route throws mail away).
    Delivered,
}

impl Custody {
    /// As logs and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Custody::NextHop => "next_hop",
            Custody::Spool => "spool",
            Custody::Delivered => "delivered",
        }
    }
}

/// How a transaction ended that was not acknowledged.
#[derive(Debug)]
pub struct Report {
    /// What MAIL and RCPT had said.
    pub envelope: Envelope,
    /// Octets of content seen (RFC 1870).
    pub size: u64,
    /// The reply, or none where the transaction was given up (RSET, EHLO, QUIT).
    pub reply: Option<Box<str>>,
    /// The limit that refused it.
    pub event: Option<Event>,
}

/// What was said since the driver last looked: for metrics.
#[derive(Debug, Default)]
pub struct Notes {
    /// The codes of the replies.
    pub replies: Vec<u16>,
    /// The limits passed.
    pub events: Vec<Event>,
}
