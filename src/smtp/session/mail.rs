//! MAIL (RFC 5321 section 4.1.1.2): sequence first, then syntax, then limits, then policy.

use std::time::Instant;

use super::{Asked, Phase, Point, Session, Transaction};
use crate::smtp::command;
use crate::smtp::envelope::{Envelope, MailParameters};
use crate::smtp::oxsmtp::{Event, Reply};
use crate::smtp::path::ReversePath;

impl Session {
    /// The path of the MAIL that policy is asked about.
    pub fn reverse_path_asked(&self) -> Option<&ReversePath> {
        match &self.phase {
            Phase::Asking(Asked::Mail(path, _)) => Some(path),
            _ => None,
        }
    }

    pub(super) fn mail(&mut self, args: &[u8], now: Instant) {
        let refusal = match &self.transaction {
            _ if self.hello.is_none() => Some(Reply::SendHelloFirst),
            Some(transaction) if transaction.chunked => Some(Reply::BadSequence),
            _ if self.terms.require_tls && !self.tls => Some(Reply::MustStartTls),
            Some(_) => Some(Reply::SenderAlreadySpecified),
            None => None,
        };
        if let Some(reply) = refusal {
            return self.error(reply, Point::Mail, now);
        }
        let (path, mut parameters) = match command::mail(args, self.extensions()) {
            Ok(parsed) => parsed,
            Err(reply) => return self.error(reply, Point::Mail, now),
        };
        if self.terms.auth.required && self.user.is_none() {
            return self.error(Reply::NotAuthenticated, Point::Mail, now);
        }
        // RFC 4954 section 5: a stranger's word on who has submitted the message is worth nothing.
        if self.user.is_none() && parameters.auth.is_some() {
            parameters.auth = Some("<>".into());
        }
        // RFC 1870 section 6.1: the client has said so itself, so it need not send it first.
        if parameters
            .size
            .is_some_and(|size| size > self.terms.limits.max_message_size)
        {
            return self.limit(Event::MessageSizeExceeded, Point::Mail, now);
        }
        self.phase = Phase::Asking(Asked::Mail(path, parameters));
    }

    pub(super) fn open_transaction(&mut self, reverse_path: ReversePath, mail: MailParameters) {
        let envelope = Envelope {
            reverse_path,
            mail,
            recipients: Vec::new(),
        };
        self.transaction = Some(Transaction {
            envelope,
            chunked: false,
            blob: false,
            discarding: false,
        });
        self.scanner.reset();
        self.say(Reply::SenderOk);
    }
}
