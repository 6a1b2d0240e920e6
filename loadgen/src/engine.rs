//! The connections of a run and what is done for each event of epoll.
//!
//! Promises: on kept connections with pipelining a message costs two sends and two receives, in groups one of each;
//! nothing is allocated a message; failures to connect are not retried without bound. One thread; the clock is read once an event.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::connect::Dialer;
use crate::dialogue::{Chunk, Ending, Manner, Outcome, Step};
use crate::flags::LoadFlags;
use crate::identity::expect::{Fate, Fates};
use crate::measure::{Counts, record};
use crate::message::Wire;
use crate::slot::Slot;

/// Failures to get a connection greeted, one after the other, that end the run.
const CONNECT_FAILURES_MAX: u32 = 100;
/// Connections that may wait for their greeting at the same time: stays within the listen backlog of common servers.
const UNGREETED_MAX: usize = 128;
/// Octets read in one call: the replies to many messages.
const RECEIVE_BUFFER: usize = 65_536;

/// Longest time that passes as an empty poll; when more went by, another process had the core.
const EMPTY_POLL_MAX: Duration = Duration::from_micros(50);

/// Everything but the connections.
#[derive(Debug)]
pub struct Engine {
    poll: Poll,
    wire: Wire,
    dialer: Dialer,
    manner: Manner,
    per_connection: u64,
    slots: Vec<Slot>,
    counts: Counts,
    /// Of the whole run.
    fates: Fates,
    quota: Option<u64>,
    begun: u64,
    stopping: bool,
    to_open: Vec<usize>,
    open: usize,
    ungreeted: usize,
    failures_in_a_row: u32,
    last_failure: String,
    last_reply: Instant,
    pipelining_denied: bool,
    buffer: Vec<u8>,
    /// When the last turn began, if it was not to wait and there was nothing to do.
    idle_since: Option<Instant>,
}

impl Engine {
    /// An engine with nothing open yet.
    pub fn new(dialer: Dialer, wire: Wire, manner: Manner, flags: &LoadFlags) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            wire,
            dialer,
            manner,
            per_connection: flags.per_connection.0,
            slots: (0..flags.connections).map(Slot::new).collect(),
            counts: Counts::new(),
            fates: Fates::default(),
            quota: flags.messages,
            begun: 0,
            stopping: false,
            to_open: (0..flags.connections).rev().collect(),
            open: 0,
            ungreeted: 0,
            failures_in_a_row: 0,
            last_failure: String::new(),
            last_reply: Instant::now(),
            pipelining_denied: false,
            buffer: vec![0; RECEIVE_BUFFER],
            idle_since: None,
        })
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::replace(&mut self.counts, Counts::new())
    }

    /// What became of each message so far; what is under way may arrive or not.
    pub fn fates(&self) -> Fates {
        let mut fates = self.fates.clone();
        for slot in self.slots.iter().filter(|slot| slot.dialogue.messages_under_way() > 0) {
            fates.note(slot.serial, Fate::Uncertain);
        }
        fates
    }

    /// Begins no more messages and opens no more connections; what is under way is finished.
    pub fn begin_no_more(&mut self) {
        self.stopping = true;
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.open
    }

    /// Messages begun and not answered.
    pub fn messages_under_way(&self) -> u64 {
        self.slots
            .iter()
            .filter(|slot| slot.stream.is_some())
            .map(|slot| slot.dialogue.messages_under_way())
            .sum()
    }

    /// Whether the server did not offer the PIPELINING that was asked for.
    pub fn pipelining_denied(&self) -> bool {
        self.pipelining_denied
    }

    /// Whether as many messages as were asked for have an outcome.
    pub fn quota_met(&self) -> bool {
        let counts = &self.counts;
        self.quota
            .is_some_and(|quota| counts.accepted + counts.refused + counts.lost >= quota)
    }

    /// Why it makes no sense to go on.
    pub fn reason_to_stop(&self, now: Instant, timeout: Duration) -> Option<String> {
        if self.failures_in_a_row >= CONNECT_FAILURES_MAX {
            let last = &self.last_failure;
            return Some(format!(
                "{CONNECT_FAILURES_MAX} connections in a row failed, the last one: {last}"
            ));
        }
        if now.saturating_duration_since(self.last_reply) < timeout {
            return None;
        }
        Some(format!(
            "no reply for {timeout:?} on any of {} open connections",
            self.open
        ))
    }

    /// Opens what is to be opened and takes one batch of events, waiting for it no longer than `wait`.
    pub fn turn(&mut self, events: &mut Events, now: Instant, wait: Duration) -> io::Result<()> {
        if let Some(since) = self.idle_since.take() {
            self.counts.idle += now.saturating_duration_since(since).min(EMPTY_POLL_MAX);
        }
        let mut slots = std::mem::take(&mut self.slots);
        let open_before = self.open;
        self.open_what_is_closed(&mut slots, now);
        self.counts.polls += 1;
        let polled = match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        };
        if polled.is_ok() {
            if events.is_empty() {
                self.counts.empty_polls += 1;
                self.idle_since = (wait.is_zero() && self.open == open_before).then_some(now);
            }
            for event in events.iter() {
                if let Some(slot) = slots.get_mut(event.token().0) {
                    self.take_event(slot, event);
                }
            }
        }
        self.slots = slots;
        polled
    }

    fn may_begin(&self) -> bool {
        !self.stopping && self.quota.is_none_or(|quota| self.begun < quota)
    }

    fn open_what_is_closed(&mut self, slots: &mut [Slot], now: Instant) {
        while self.ungreeted < UNGREETED_MAX && self.failures_in_a_row < CONNECT_FAILURES_MAX && self.may_begin() {
            let Some(index) = self.to_open.pop() else { return };
            let Some(slot) = slots.get_mut(index) else { return };
            slot.opened = now;
            slot.dialogue.restart();
            (slot.begun, slot.unwritten, slot.waits_for_room) = (0, None, false);
            let opened = self.dialer.open().and_then(|mut stream| {
                self.poll
                    .registry()
                    .register(&mut stream, Token(index), Interest::READABLE)?;
                Ok(stream)
            });
            match opened {
                Ok(stream) => {
                    slot.stream = Some(stream);
                    self.open += 1;
                    self.ungreeted += 1;
                }
                Err(error) => {
                    self.counts.connect_failures += 1;
                    self.failed(error.to_string());
                    self.to_open.push(index);
                }
            }
        }
    }

    fn failed(&mut self, why: String) {
        self.failures_in_a_row += 1;
        self.last_failure = why;
    }

    fn take_event(&mut self, slot: &mut Slot, event: &Event) {
        let now = Instant::now();
        if let Some((chunk, written)) = slot.unwritten
            && event.is_writable()
        {
            self.write(slot, chunk, written, now);
        }
        // Edge-triggered: a read that does not fill the buffer has emptied the socket, and what comes later makes a
        // new event; only an end of file that came with the data would go unseen.
        let ends = event.is_read_closed() || event.is_error();
        while slot.stream.is_some() {
            let Some(stream) = &mut slot.stream else { return };
            self.counts.receives += 1;
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.disconnected(slot, "the server closed the connection".into()),
                Ok(count) => {
                    self.last_reply = now;
                    self.take_input(slot, count, now);
                    if count < self.buffer.len() && !ends {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.disconnected(slot, error.to_string()),
            }
        }
    }

    fn take_input(&mut self, slot: &mut Slot, count: usize, now: Instant) {
        let mut at = 0;
        while at < count && slot.stream.is_some() {
            let input = self.buffer.get(at..count).unwrap_or_default();
            let (used, step) = slot
                .dialogue
                .receive(&self.manner, input, |code| self.counts.reply(code));
            at += used;
            match step {
                Step::More => {}
                Step::Send(chunk) => {
                    if chunk == Chunk::Ehlo {
                        self.ungreeted = self.ungreeted.saturating_sub(1);
                        self.counts.connections += 1;
                        record(&mut self.counts.greeting, now.saturating_duration_since(slot.opened));
                    }
                    self.write(slot, chunk, 0, now);
                }
                Step::Ready => {
                    self.failures_in_a_row = 0;
                    self.pipelining_denied |= slot.dialogue.pipelining_denied(&self.manner);
                    self.next_message(slot, now);
                }
                Step::Group => self.group(slot, now),
                Step::Finished(outcome) => self.finished(slot, outcome, now),
                Step::Over(ending) => self.over(slot, ending),
            }
        }
    }

    fn finished(&mut self, slot: &mut Slot, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Accepted => {
                self.counts.accepted += 1;
                self.fates.note(slot.serial, Fate::Accepted);
                record(
                    &mut self.counts.final_reply,
                    now.saturating_duration_since(slot.content_ended),
                );
                record(
                    &mut self.counts.transaction,
                    now.saturating_duration_since(slot.message_began),
                );
            }
            Outcome::Refused => {
                self.counts.refused += 1;
                // Some recipients may have been accepted.
                if self.manner.recipients > 1 {
                    self.fates.note(slot.serial, Fate::Uncertain);
                }
            }
        }
        let in_content = |(chunk, written)| {
            self.wire
                .content_end(chunk, slot.serial)
                .is_some_and(|end| written < end)
        };
        if slot.unwritten.is_some_and(in_content) {
            // Refused in the middle of its content: what is still to be written would be read as commands.
            self.lose(slot);
            return self.close_connection(slot);
        }
        if slot.dialogue.follows_already() {
            (slot.serial, slot.message_began) = slot.next;
            return;
        }
        self.next_message(slot, now);
    }

    /// The number of the next message of this connection, if it is to have another.
    fn claim_message(&mut self, slot: &mut Slot) -> Option<u64> {
        let full = self.per_connection > 0 && slot.begun >= self.per_connection;
        if full || !self.may_begin() {
            return None;
        }
        let serial = self.begun;
        slot.begun += 1;
        self.begun += 1;
        Some(serial)
    }

    fn group(&mut self, slot: &mut Slot, now: Instant) {
        let next = self.claim_message(slot);
        slot.next = (next.unwrap_or(slot.serial), now);
        let chunk = slot.dialogue.group(next.is_some());
        self.write(slot, chunk, 0, now);
    }

    fn next_message(&mut self, slot: &mut Slot, now: Instant) {
        let chunk = match self.claim_message(slot) {
            Some(serial) => {
                (slot.serial, slot.message_began) = (serial, now);
                slot.dialogue.begin()
            }
            None => slot.dialogue.quit(),
        };
        self.write(slot, chunk, 0, now);
    }

    fn over(&mut self, slot: &mut Slot, ending: Ending) {
        match ending {
            Ending::Quit => {}
            Ending::TurnedAway => {
                self.counts.turned_away += 1;
                self.failed("the server refused the greeting or EHLO".into());
            }
            Ending::NoChunking => {
                self.counts.turned_away += 1;
                self.failed("the server does not offer CHUNKING, which --bdat needs".into());
            }
            Ending::Shutdown => self.lose(slot),
            Ending::Malformed => {
                self.lose(slot);
                self.counts.malformed += 1;
                self.failed("the server sent something that is no SMTP reply".into());
            }
        }
        self.close_connection(slot);
    }

    /// The connection ended without the server saying so in a reply.
    fn disconnected(&mut self, slot: &mut Slot, why: String) {
        let lost = slot.dialogue.messages_under_way();
        if lost > 0 {
            self.lose(slot);
        } else if !slot.dialogue.is_quitting() {
            self.counts.connect_failures += 1;
            self.failed(why);
        }
        self.close_connection(slot);
    }

    /// The messages under way will get no reply. Of the second only the envelope was written, so that it cannot arrive.
    fn lose(&mut self, slot: &Slot) {
        let lost = slot.dialogue.messages_under_way();
        self.counts.lost += lost;
        if lost > 0 {
            self.fates.note(slot.serial, Fate::Uncertain);
        }
    }

    fn close_connection(&mut self, slot: &mut Slot) {
        // Closing takes the socket out of the epoll set: no call to deregister is needed.
        if slot.stream.take().is_some() {
            self.open -= 1;
            self.to_open.push(slot.index);
        }
        if slot.dialogue.awaits_greeting() {
            self.ungreeted = self.ungreeted.saturating_sub(1);
        }
        slot.unwritten = None;
    }

    fn write(&mut self, slot: &mut Slot, chunk: Chunk, written: usize, now: Instant) {
        let Some(stream) = &mut slot.stream else { return };
        let content_end = self.wire.content_end(chunk, slot.serial).filter(|end| *end > written);
        let octets = self.wire.octets(chunk, slot.serial, slot.index);
        let mut rest = octets.get(written..).unwrap_or_default();
        slot.unwritten = None;
        while !rest.is_empty() {
            self.counts.sends += 1;
            match stream.write(rest) {
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    if content_end.is_some_and(|end| octets.len() - rest.len() >= end) {
                        slot.content_ended = now;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.unwritten = Some((chunk, octets.len() - rest.len()));
                    if slot.waits_for_room {
                        return;
                    }
                    // Asked for once a connection and only when needed: every send makes room, and each would be an event.
                    slot.waits_for_room = true;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = self.poll.registry().reregister(stream, Token(slot.index), both) {
                        self.disconnected(slot, error.to_string());
                    }
                    return;
                }
                // The server may have said why before it closed: let the read find out.
                Err(_) => return,
            }
        }
    }
}
