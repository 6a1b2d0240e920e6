//! The closed loop: one epoll set, every connection sends its next message when the last one is answered.
//!
//! Promises: on kept connections with pipelining a message costs two sends and two receives; nothing is allocated a
//! message; the run is bounded in time whatever the server does. One thread; the clock is read once an event.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::connect::Dialer;
use crate::dialogue::{Chunk, Dialogue, Ending, Manner, Outcome, Step};
use crate::flags::{LoadFlags, Switch};
use crate::measure::{Counts, cpu_of, own_cpu, record};
use crate::message::{Recipe, Wire, recipients};

/// Failures to get a connection greeted, one after the other, that end the run.
const CONNECT_FAILURES_MAX: u32 = 100;
/// Connections that may wait for their greeting at the same time: stays within the listen backlog of common servers.
const UNGREETED_MAX: usize = 128;
/// How often the deadlines are looked at when nothing happens.
const TICK: Duration = Duration::from_millis(50);

/// What a run found.
#[derive(Debug)]
pub struct Findings {
    /// The window that was measured.
    pub counts: Counts,
    /// Failures in the whole run: warm-up, window and what came after.
    pub failures: u64,
    /// Length of the window.
    pub elapsed: Duration,
    /// CPU time of the generator's thread in the window.
    pub own_cpu: Duration,
    /// CPU time of the server's processes in the window.
    pub server_cpu: Option<Duration>,
    /// The server does not offer the PIPELINING that was asked for.
    pub pipelining_denied: bool,
    /// Why the run ended before its time.
    pub stopped: Option<String>,
    /// First part of the identity of each message of this run.
    pub run: u32,
}

/// Runs the load against `target` and measures it.
pub fn run(flags: &LoadFlags, target: SocketAddr, pids: &[u32]) -> Result<Findings, String> {
    let run = run_id();
    let wire = Wire::new(&Recipe {
        name: flags.ehlo.clone(),
        from: flags.from.clone(),
        to: recipients(&flags.to, flags.recipients),
        size: flags.size,
        bdat: flags.bdat,
        run,
    })?;
    let dialer = Dialer::new(target, &flags.sources_for(target)?, flags.socket_manner(), run);
    let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
    let mut engine = Engine {
        poll,
        wire,
        dialer,
        manner: Manner {
            pipelining: flags.pipelining == Switch::On,
            bdat: flags.bdat,
            recipients: flags.recipients,
        },
        per_connection: flags.per_connection.0,
        counts: Counts::new(),
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
        buffer: vec![0; 65_536],
    };
    let mut slots: Vec<Slot> = (0..flags.connections).map(Slot::new).collect();
    let mut findings = engine
        .measure(flags, &mut slots, pids)
        .map_err(|error| format!("epoll: {error}"))?;
    findings.run = run;
    Ok(findings)
}

/// A connection's place: the connection changes, the place stays.
#[derive(Debug)]
struct Slot {
    index: usize,
    stream: Option<TcpStream>,
    dialogue: Dialogue,
    /// The message under way, or the last one.
    serial: u64,
    /// Messages begun on this connection.
    begun: u64,
    opened: Instant,
    message_began: Instant,
    content_ended: Instant,
    /// What the socket did not take yet: the chunk and the octets of it written.
    unwritten: Option<(Chunk, usize)>,
    waits_for_room: bool,
}

impl Slot {
    fn new(index: usize) -> Self {
        let now = Instant::now();
        Self {
            index,
            stream: None,
            dialogue: Dialogue::new(),
            serial: 0,
            begun: 0,
            opened: now,
            message_began: now,
            content_ended: now,
            unwritten: None,
            waits_for_room: false,
        }
    }
}

/// Where the run is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Window,
    Drain,
}

/// Everything but the connections.
#[derive(Debug)]
struct Engine {
    poll: Poll,
    wire: Wire,
    dialer: Dialer,
    manner: Manner,
    per_connection: u64,
    counts: Counts,
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
}

impl Engine {
    fn measure(&mut self, flags: &LoadFlags, slots: &mut [Slot], pids: &[u32]) -> io::Result<Findings> {
        let mut events = Events::with_capacity(1024);
        let start = Instant::now();
        let mut phase = if self.quota.is_some() {
            Phase::Window
        } else {
            Phase::WarmUp
        };
        let mut phase_ends = if self.quota.is_some() {
            None
        } else {
            Some(start + flags.warm_up)
        };
        let mut window = Window::open(start, pids);
        let mut measured: Option<Findings> = None;
        let mut failures = 0;
        let mut stopped = None;
        self.last_reply = start;
        loop {
            let now = Instant::now();
            let over = phase_ends.is_some_and(|end| now >= end) || (self.quota_met() && phase == Phase::Window);
            match phase {
                Phase::WarmUp if over => {
                    failures += std::mem::replace(&mut self.counts, Counts::new()).failures();
                    window = Window::open(now, pids);
                    (phase, phase_ends) = (Phase::Window, Some(now + flags.duration));
                }
                Phase::Window if over => {
                    measured = Some(self.close(&window, now, pids));
                    self.stopping = true;
                    (phase, phase_ends) = (Phase::Drain, Some(now + flags.timeout));
                }
                Phase::Drain if over || self.open == 0 => break,
                _ => {}
            }
            stopped = self.reason_to_stop(flags, now, slots);
            if stopped.is_some() {
                break;
            }
            self.open_connections(slots, now);
            let wait = phase_ends.map_or(TICK, |end| end.saturating_duration_since(now).min(TICK));
            self.counts.polls += 1;
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if let Some(slot) = slots.get_mut(event.token().0) {
                    self.take_event(slot, event);
                }
            }
        }
        let unanswered = slots
            .iter()
            .filter(|slot| slot.stream.is_some() && slot.dialogue.in_message())
            .count() as u64;
        self.counts.unanswered += unanswered;
        let mut findings = match measured {
            Some(mut findings) => {
                findings.counts.unanswered += unanswered;
                failures += self.counts.failures() + findings.failures;
                findings
            }
            None => {
                let findings = self.close(&window, Instant::now(), pids);
                failures += findings.failures;
                findings
            }
        };
        (findings.failures, findings.stopped) = (failures, stopped);
        Ok(findings)
    }

    /// The window's figures; the counters start again from zero.
    fn close(&mut self, window: &Window, now: Instant, pids: &[u32]) -> Findings {
        let counts = std::mem::replace(&mut self.counts, Counts::new());
        let server_cpu = cpu_of(pids)
            .zip(window.server_cpu)
            .map(|(after, before)| after.saturating_sub(before));
        Findings {
            failures: counts.failures(),
            counts,
            elapsed: now - window.opened,
            own_cpu: own_cpu() - window.own_cpu,
            server_cpu,
            pipelining_denied: self.pipelining_denied,
            stopped: None,
            run: 0,
        }
    }

    fn quota_met(&self) -> bool {
        let counts = &self.counts;
        self.quota
            .is_some_and(|quota| counts.accepted + counts.refused + counts.lost >= quota)
    }

    fn may_begin(&self) -> bool {
        !self.stopping && self.quota.is_none_or(|quota| self.begun < quota)
    }

    fn reason_to_stop(&self, flags: &LoadFlags, now: Instant, slots: &[Slot]) -> Option<String> {
        if self.failures_in_a_row >= CONNECT_FAILURES_MAX {
            return Some(format!(
                "{CONNECT_FAILURES_MAX} connections in a row failed, the last one: {}",
                self.last_failure
            ));
        }
        if now.saturating_duration_since(self.last_reply) < flags.timeout {
            return None;
        }
        let waiting = slots.iter().filter(|slot| slot.stream.is_some()).count();
        Some(format!(
            "no reply for {:?} on any of {waiting} open connections",
            flags.timeout
        ))
    }

    fn open_connections(&mut self, slots: &mut [Slot], now: Instant) {
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
                Step::Finished(outcome) => self.finished(slot, outcome, now),
                Step::Over(ending) => self.over(slot, ending),
            }
        }
    }

    fn finished(&mut self, slot: &mut Slot, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Accepted => {
                self.counts.accepted += 1;
                record(
                    &mut self.counts.final_reply,
                    now.saturating_duration_since(slot.content_ended),
                );
                record(
                    &mut self.counts.transaction,
                    now.saturating_duration_since(slot.message_began),
                );
            }
            Outcome::Refused => self.counts.refused += 1,
        }
        if slot.unwritten.is_some() {
            // Refused in the middle of its content: what is still to be written would be read as commands.
            return self.close_connection(slot);
        }
        self.next_message(slot, now);
    }

    fn next_message(&mut self, slot: &mut Slot, now: Instant) {
        let full = self.per_connection > 0 && slot.begun >= self.per_connection;
        let chunk = if full || !self.may_begin() {
            slot.dialogue.quit()
        } else {
            slot.serial = self.begun;
            slot.message_began = now;
            slot.begun += 1;
            self.begun += 1;
            slot.dialogue.begin()
        };
        self.write(slot, chunk, 0, now);
    }

    fn over(&mut self, slot: &mut Slot, ending: Ending) {
        let lost = u64::from(slot.dialogue.in_message());
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
            Ending::Shutdown => self.counts.lost += lost,
            Ending::Malformed => {
                self.counts.lost += lost;
                self.counts.malformed += 1;
                self.failed("the server sent something that is no SMTP reply".into());
            }
        }
        self.close_connection(slot);
    }

    /// The connection ended without the server saying so in a reply.
    fn disconnected(&mut self, slot: &mut Slot, why: String) {
        if slot.dialogue.in_message() {
            self.counts.lost += 1;
        } else if !slot.dialogue.is_quitting() {
            self.counts.connect_failures += 1;
            self.failed(why);
        }
        self.close_connection(slot);
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
        let octets = self.wire.octets(chunk, slot.serial);
        let mut rest = octets.get(written..).unwrap_or_default();
        slot.unwritten = None;
        while !rest.is_empty() {
            self.counts.sends += 1;
            match stream.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
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
        if self.wire.ends_content(chunk) {
            slot.content_ended = now;
        }
    }
}

/// What was read when the window opened.
struct Window {
    opened: Instant,
    own_cpu: Duration,
    server_cpu: Option<Duration>,
}

impl Window {
    fn open(opened: Instant, pids: &[u32]) -> Self {
        Self {
            opened,
            own_cpu: own_cpu(),
            server_cpu: cpu_of(pids),
        }
    }
}

/// Tells runs apart: from the time of day and the process id.
fn run_id() -> u32 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_nanos() as u32) ^ std::process::id().rotate_left(20)
}
