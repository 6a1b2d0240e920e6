//! RCPT (RFC 5321 section 4.1.1.3).

use std::time::Instant;

use super::{Asked, Phase, Point, Session};
use crate::smtp::command;
use crate::smtp::envelope::{RcptParameters, Recipient};
use crate::smtp::oxsmtp::{Event, Reply};
use crate::smtp::path::ForwardPath;

impl Session {
    /// The path of the RCPT that policy is asked about.
    pub fn forward_path_asked(&self) -> Option<&ForwardPath> {
        match &self.phase {
            Phase::Asking(Asked::Rcpt(path, _)) => Some(path),
            _ => None,
        }
    }

    pub(super) fn rcpt(&mut self, args: &[u8], now: Instant) {
        let (recipients, smtputf8) = match &self.transaction {
            _ if self.hello.is_none() => return self.error(Reply::SendHelloFirst, Point::Command, now),
            None => return self.error(Reply::NeedMail, Point::Command, now),
            Some(t) if t.chunked || t.blob => return self.error(Reply::BadSequence, Point::Command, now),
            Some(t) => (t.envelope.recipients.len() as u64, t.envelope.mail.smtputf8),
        };
        let (path, parameters) = match command::rcpt(args, self.terms.offered, smtputf8) {
            Ok(parsed) => parsed,
            Err(reply) => return self.error(reply, Point::Command, now),
        };
        if recipients >= self.terms.limits.max_recipients {
            return self.limit(Event::TooManyRecipients, Point::Command, now);
        }
        self.phase = Phase::Asking(Asked::Rcpt(path, parameters));
    }

    pub(super) fn add_recipient(&mut self, forward_path: ForwardPath, parameters: RcptParameters) {
        self.propose_for_report(forward_path, parameters);
        self.say(Reply::RecipientOk);
    }

    /// A recipient whose refusal ends the session still belongs into the report (EVENTS: the envelope can be logged).
    pub(super) fn propose_for_report(&mut self, forward_path: ForwardPath, parameters: RcptParameters) {
        if let Some(transaction) = &mut self.transaction {
            transaction.envelope.recipients.push(Recipient {
                forward_path,
                parameters,
            });
        }
    }
}
