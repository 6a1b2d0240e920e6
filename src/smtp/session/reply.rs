//! How a session says something: errors counted, limits noted, replies to strangers delayed (tarpit), the end of the
//! dialogue where the reply asks for it.
//!
//! Promises: every reply of the table goes out through here, so each is noted for the metrics. Lives with its session.

use std::time::{Duration, Instant};

use super::{Asked, Phase, Session, Step};
use crate::smtp::Edition;
use crate::smtp::command;
use crate::smtp::oxsmtp::{self, Event, Follows, Reply};

/// An error reply that waits (tarpit).
#[derive(Debug)]
pub(super) struct Delayed {
    pub until: Instant,
    pub line: Line,
    pub follows: Follows,
}

/// A reply on its way out: of the table, or a next hop's own words, which have no line end.
#[derive(Clone, Debug)]
pub(super) enum Line {
    Reply(Reply),
    Event(Event),
    Hop(Box<str>),
}

impl Line {
    pub(super) fn text(&self) -> &str {
        match self {
            Line::Reply(reply) => reply.text(),
            Line::Event(event) => event.text(),
            Line::Hop(text) => text,
        }
    }
}

/// Where in the dialogue an error reply stands, for the tarpit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    Mail,
    Command,
}

impl Point {
    pub(super) fn of(asked: &Asked) -> Point {
        match asked {
            Asked::Mail(..) => Point::Mail,
            Asked::Rcpt(..) | Asked::Credentials(..) | Asked::StartTls => Point::Command,
        }
    }
}

impl Session {
    /// A reply that is no error.
    pub(super) fn say(&mut self, reply: Reply) {
        self.write(&Line::Reply(reply));
    }

    /// A verb whose argument changes nothing, as long as it is text.
    pub(super) fn say_if_printable(&mut self, args: &[u8], reply: Reply, now: Instant) {
        match command::any_arguments(args) {
            Ok(()) => self.say(reply),
            Err(reply) => self.error(reply, Point::Command, now),
        }
    }

    /// An error reply: counted where it is a protocol error, delayed where the client is a stranger.
    pub(super) fn error(&mut self, reply: Reply, point: Point, now: Instant) {
        if reply.is_protocol_error() {
            self.protocol_errors += 1;
            if self.protocol_errors > self.terms.limits.max_protocol_errors {
                return self.limit(Event::ProtocolViolationCount, point, now);
            }
        }
        self.put(Line::Reply(reply), Follows::Continue, point, now);
    }

    /// A limit was passed: its reply, and the end of the session where the edition says so.
    pub(super) fn limit(&mut self, event: Event, point: Point, now: Instant) {
        self.notes.events.push(event);
        let follows = event.follows(self.terms.edition);
        if follows == Follows::Close {
            self.end_transaction(Some(Line::Event(event)), Some(event));
        }
        self.put(Line::Event(event), follows, point, now);
    }

    /// An error reply after which nothing more is read.
    pub(super) fn close_with(&mut self, reply: Reply, now: Instant) {
        self.end_transaction(Some(Line::Reply(reply)), None);
        self.put(Line::Reply(reply), Follows::Close, Point::Command, now);
    }

    pub(super) fn put(&mut self, line: Line, follows: Follows, point: Point, now: Instant) {
        match self.tarpit(point) {
            Some(delay) => {
                self.delayed = Some(Delayed {
                    until: now + delay,
                    line,
                    follows,
                })
            }
            None => self.put_now(line, follows),
        }
    }

    pub(super) fn put_now(&mut self, line: Line, follows: Follows) {
        self.write(&line);
        if follows == Follows::Close {
            self.end_transaction(Some(line), None);
            self.phase = Phase::Closing;
        }
    }

    pub(super) fn write(&mut self, line: &Line) {
        match line {
            Line::Reply(reply) => self.output.extend_from_slice(reply.wire()),
            Line::Event(event) => self.output.extend_from_slice(event.wire()),
            Line::Hop(text) => oxsmtp::of_a_hop(&mut self.output, text),
        }
        self.notes.replies.push(code(line.text().as_bytes()));
    }

    /// v17: an error reply at the end of any command waits; v4.1: one to MAIL (the driver sees to those at connect). None to a
    /// user.
    pub(super) fn tarpit(&self, point: Point) -> Option<Duration> {
        let waits = match self.terms.edition {
            Edition::Y2021 => true,
            Edition::Y2011 => point == Point::Mail,
        };
        (waits && self.user.is_none() && !self.terms.limits.tarpit.is_zero()).then_some(self.terms.limits.tarpit)
    }

    /// What a delayed reply or the end of a pause leaves to do before input is looked at.
    pub(super) fn resume(&mut self, now: Instant) -> Option<Step> {
        let delayed = self.delayed.take_if(|d| d.until <= now);
        if let Some(Delayed { line, follows, .. }) = delayed {
            self.put_now(line, follows);
            self.heard = now;
        }
        self.delayed.as_ref().map(|d| Step::Pause { until: d.until })
    }
}

/// The reply code at the start of a line, which has three digits there.
fn code(line: &[u8]) -> u16 {
    line.iter()
        .take(3)
        .fold(0, |n, digit| n * 10 + u16::from(digit.wrapping_sub(b'0')))
}
