//! Why a connection to a hop cannot be used any more.
//!
//! Promises: never holds a credential. Plain data.

use std::time::Duration;

use super::outcome::{EnhancedStatusCode, HopReply, Origin};

/// What went wrong, and the words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub fault: Fault,
    /// The hop's own words where it spoke, else ours.
    pub reply: HopReply,
}

/// Whose fault it is that a connection ended before QUIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The hop refused: at the greeting, EHLO or RSET, or in the middle of the content.
    Refused,
    /// It said 421.
    Closing,
    /// It kept silent for too long.
    Timeout,
    /// The connection broke.
    Lost,
    /// It sent what is no reply, or a reply that nobody had asked for.
    Protocol,
    /// TLS is required and not to be had.
    Tls,
    /// Authentication is wanted and not to be had.
    Auth,
    /// Ours: the content had not the size that was announced.
    Content,
}

impl Failure {
    /// In the hop's words.
    pub(super) fn heard(fault: Fault, reply: HopReply) -> Failure {
        Failure { fault, reply }
    }

    /// The hop let `limit` pass. `ended`: the end of the content had been sent.
    pub(super) fn timed_out(waited_for: &str, limit: Duration, ended: bool) -> Failure {
        let text = format!("no answer within {} s: {waited_for}", limit.as_secs_f32());
        Failure::ours(Fault::Timeout, Origin::TimedOut { ended }, &text)
    }

    /// The connection broke.
    pub(super) fn lost(reason: &str, ended: bool) -> Failure {
        Failure::ours(Fault::Lost, Origin::Lost { ended }, reason)
    }

    /// In our words: for now, since another connection may fare better.
    pub(super) fn ours(fault: Fault, origin: Origin, text: &str) -> Failure {
        let (code, subject, detail) = match fault {
            Fault::Timeout | Fault::Lost | Fault::Closing => (451, 4, 2),
            Fault::Refused | Fault::Protocol => (451, 5, 0),
            Fault::Tls => (454, 7, 4),
            Fault::Auth => (454, 7, 0),
            Fault::Content => (451, 3, 0),
        };
        Failure {
            fault,
            reply: HopReply::ours(origin, code, EnhancedStatusCode::new(4, subject, detail), text),
        }
    }
}
