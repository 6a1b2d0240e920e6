//! STARTTLS (RFC 3207 section 4), and TLS that begins with the connection (RFC 8314 section 3.3).
//!
//! Promises: nothing that came in plaintext is taken for something said inside TLS: octets behind the command end the
//! session, and what was known before the handshake is forgotten.

use std::time::Instant;

use super::{Asked, Line, Phase, Point, Session, Step};
use crate::smtp::command;
use crate::smtp::extension::{Extension, Offered};
use crate::smtp::oxsmtp::{Follows, Reply};

impl Session {
    pub(super) fn starttls(&mut self, args: &[u8], now: Instant) {
        let refusal = if self.tls || self.transaction.is_some() {
            Some(Reply::BadSequence)
        } else if !self.offered().has(Extension::StartTls) {
            Some(Reply::UnrecognizedCommand)
        } else {
            command::no_arguments(args).err()
        };
        match refusal {
            Some(reply) => self.error(reply, Point::Command, now),
            None if self.terms.limits.tls_session_rate > 0 => self.phase = Phase::Asking(Asked::StartTls),
            None => self.begin_tls(),
        }
    }

    pub(super) fn begin_tls(&mut self) {
        self.say(Reply::StartTlsNow);
        self.phase = Phase::Handshake;
    }

    /// The handshake that is over was one too many of its source: that is said inside TLS, and the session ends.
    pub fn refuse_tls(&mut self) {
        self.put_now(Line::Reply(Reply::TooManyTlsSessions), Follows::Close);
    }

    /// Between the reply and the handshake there is nothing to read: a client that has sent more was not waiting for the
    /// reply, or somebody else has added to what it sent (CVE-2011-0411). It gets no reply, inside TLS or out of it.
    pub(super) fn handshake(&mut self, input: &[u8]) -> (usize, Option<Step>) {
        if input.is_empty() {
            return (0, Some(Step::Handshake));
        }
        self.injected = true;
        self.phase = Phase::Closing;
        (input.len(), None)
    }

    /// The connection is inside TLS from here on: after [`Step::Handshake`], or before [`Session::greet`] where TLS begins
    /// with the connection. The client begins anew (RFC 3207 section 4.2); only its errors are still counted.
    pub fn secured(&mut self, now: Instant) {
        self.tls = true;
        self.hello = None;
        self.user = None;
        self.end_transaction(None, None);
        self.heard = now;
        if matches!(self.phase, Phase::Handshake) {
            self.phase = Phase::Command;
        }
    }

    /// Whether plaintext behind STARTTLS has ended the session.
    pub fn was_injected(&self) -> bool {
        self.injected
    }

    /// What EHLO offers at this point.
    pub(super) fn offered(&self) -> Offered {
        match self.tls {
            true => self.terms.offered.without(Extension::StartTls),
            false => self.terms.offered,
        }
    }
}
