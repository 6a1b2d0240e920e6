//! Command lines: where one ends, how long it may be, and whose it is (RFC 5321 sections 4.1.1 and 4.5.3.1.4).

use std::time::Instant;

use memchr::memchr;

use super::reply::Point;
use super::step::Step;
use super::{Phase, Session};
use crate::smtp::command::{self, Verb};
use crate::smtp::oxsmtp::Reply;

impl Session {
    /// One command line, where there is a whole one.
    pub(super) fn command(&mut self, input: &[u8], now: Instant) -> (usize, Option<Step>) {
        if self.draining && self.transaction.is_none() {
            self.say(Reply::ServiceNotAvailable);
            self.phase = Phase::Closing;
            return (0, None);
        }
        // A TLS ClientHello has no line ends to wait for.
        if input.first() == Some(&0x16) {
            self.close_with(Reply::UnrecognizedCommand, now);
            return (input.len(), None);
        }
        let Some(end) = memchr(b'\n', input) else {
            self.confided |= Self::begins_auth(input);
            if input.len() < self.longest_line(input) {
                return (0, Some(Step::Read));
            }
            if command::is_foreign(input) {
                self.close_with(Reply::UnrecognizedCommand, now);
                return (input.len(), None);
            }
            self.phase = Phase::Overlong {
                last: input.last().copied().unwrap_or_default(),
            };
            return (input.len(), None);
        };
        self.heard = now;
        let line = input.get(..end).unwrap_or_default();
        match line.split_last() {
            Some((b'\r', line)) => self.dispatch(line, now),
            _ if command::is_foreign(line) => self.close_with(Reply::UnrecognizedCommand, now),
            _ => self.close_with(Reply::BareNewlineInCommand, now),
        }
        (end + 1, None)
    }

    /// RFC 5321 section 4.1.1, one row a verb.
    fn dispatch(&mut self, line: &[u8], now: Instant) {
        let (verb, args) = command::split(line);
        // Taken or refused, it has been said.
        self.confided |= verb == Verb::Auth;
        // Another protocol's lines have limits of their own; a verb that is not offered gets no more room than any may have.
        if verb != Verb::Foreign && line.len() + 2 > verb.line_limit().min(self.longest_line(line)) {
            return self.error(Reply::LineTooLong, Point::Command, now);
        }
        match verb {
            Verb::Helo => self.hello(args, false, now),
            Verb::Ehlo => self.hello(args, true, now),
            Verb::Mail => self.mail(args, now),
            Verb::Rcpt => self.rcpt(args, now),
            Verb::Data => self.data(args, now),
            Verb::Bdat => self.bdat(args, now),
            Verb::Xexch50 => self.xexch50(args, now),
            Verb::StartTls => self.starttls(args, now),
            Verb::Rset => self.bare(args, now, |s| {
                s.end_transaction(None, None);
                s.say(Reply::Resetting);
            }),
            Verb::Quit => self.bare(args, now, |s| {
                s.end_transaction(None, None);
                s.say(Reply::Goodbye);
                s.quit = true;
                s.phase = Phase::Closing;
            }),
            Verb::Noop => self.say_if_printable(args, Reply::NoopOk, now),
            Verb::Help => self.say_if_printable(args, Reply::Help, now),
            Verb::Vrfy if args.is_empty() => self.error(Reply::InvalidArguments, Point::Command, now),
            Verb::Vrfy => self.say_if_printable(args, Reply::CannotVerify, now),
            Verb::Expn => self.error(Reply::CannotExpand, Point::Command, now),
            Verb::Auth => self.auth(args, now),
            Verb::Foreign => self.close_with(Reply::UnrecognizedCommand, now),
            // Not offered here, so not known here.
            Verb::Unknown => self.error(Reply::UnrecognizedCommand, Point::Command, now),
        }
    }

    /// A verb that takes no argument.
    fn bare(&mut self, args: &[u8], now: Instant, then: impl FnOnce(&mut Self)) {
        match command::no_arguments(args) {
            Ok(()) => then(self),
            Err(reply) => self.error(reply, Point::Command, now),
        }
    }

    /// The rest of a line that is too long for any command: thrown away up to its end, then one reply.
    pub(super) fn overlong(&mut self, input: &[u8], last: u8, now: Instant) -> (usize, Option<Step>) {
        let Some(end) = memchr(b'\n', input) else {
            self.phase = Phase::Overlong {
                last: input.last().copied().unwrap_or(last),
            };
            return (input.len(), Some(Step::Read));
        };
        self.phase = Phase::Command;
        self.heard = now;
        let before = end.checked_sub(1).and_then(|at| input.get(at)).copied().unwrap_or(last);
        match before {
            b'\r' => self.error(Reply::LineTooLong, Point::Command, now),
            _ => self.close_with(Reply::BareNewlineInCommand, now),
        }
        (end + 1, None)
    }
}
