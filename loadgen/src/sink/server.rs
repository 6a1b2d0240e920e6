//! One thread of the sink: its listeners, its connections, and what it does for each event of epoll.
//!
//! Promises: a batch of pipelined commands costs one receive and one send; nothing is allocated a message; memory of a
//! connection is bounded by one receive buffer. No clock is read unless a delay is asked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use super::fault::Plan;
use super::session::{Desk, Session, Step};
use super::socket::{Listener, Stream};
use super::tally::Tally;
use super::terms::Terms;
use super::tls::Tls;
use crate::sample::Dice;

/// Octets read in one call.
const RECEIVE_BUFFER: usize = 128 * 1024;
/// Longest wait, so that the end of the run is noticed.
const TICK: Duration = Duration::from_millis(50);
/// Longest wait for an end that is near: connections are about to close.
const PAUSE_WHEN_OUT_OF_FILES: Duration = Duration::from_millis(50);

/// What a thread shows of itself while it runs.
#[derive(Debug, Default)]
pub struct Gauge {
    pub connections: AtomicU64,
    pub open: AtomicU64,
    pub messages: AtomicU64,
    pub octets: AtomicU64,
    pub faults: AtomicU64,
}

/// What a thread is started with.
#[derive(Debug)]
pub struct Start {
    pub listeners: Vec<(Listener, Arc<Terms>)>,
    pub plan: Plan,
    pub seed: u64,
    pub verifying: bool,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub gauge: Arc<Gauge>,
    pub stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Client {
    stream: Stream,
    session: Session,
    terms: Arc<Terms>,
    tls: Option<Box<Tls>>,
    /// Input that is not used yet.
    pending: Vec<u8>,
    /// Output that the socket did not take.
    unsent: Vec<u8>,
    /// Why nothing is read for now.
    held: Option<Hold>,
    /// What follows when all is written.
    then: Step,
    /// Tells this client from an earlier one at its place.
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Delay,
    Unsent,
    Stalled,
}

/// A thread's connections and figures.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    listeners: Vec<(Listener, Arc<Terms>)>,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    plan: Plan,
    dice: Dice,
    tally: Tally,
    tls: Option<Arc<rustls::ServerConfig>>,
    gauge: Arc<Gauge>,
    stop: Arc<AtomicBool>,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

impl Server {
    /// Ready to serve.
    pub fn new(start: Start) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listeners = start.listeners;
        for (number, (listener, _)) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(usize::MAX - number))?;
        }
        Ok(Self {
            poll,
            listeners,
            clients: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            plan: start.plan,
            dice: Dice::new(start.seed),
            tally: Tally {
                verifying: start.verifying,
                ..Tally::default()
            },
            tls: start.tls,
            gauge: start.gauge,
            stop: start.stop,
            buffer: vec![0; RECEIVE_BUFFER],
            out: Vec::with_capacity(4096),
        })
    }

    /// Serves until told to stop; what was counted.
    pub fn run(mut self) -> io::Result<Tally> {
        let mut events = Events::with_capacity(1024);
        while !self.stop.load(Ordering::Relaxed) {
            let wait = match self.timers.peek() {
                Some(Reverse((due, ..))) => due.saturating_duration_since(Instant::now()).min(TICK),
                None => TICK,
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                let Token(token) = event.token();
                match usize::MAX - token {
                    number if number < self.listeners.len() => self.accept(number),
                    _ => self.with_client(token, |server, client| server.take_event(token, client, event)),
                }
            }
            self.fire_timers();
            self.show();
        }
        self.tally.abandoned += self
            .clients
            .iter()
            .flatten()
            .filter(|c| c.session.is_in_transaction())
            .count() as u64;
        Ok(self.tally)
    }

    fn show(&self) {
        let gauge = &self.gauge;
        gauge.connections.store(self.tally.connections, Ordering::Relaxed);
        gauge
            .open
            .store((self.clients.len() - self.free.len()) as u64, Ordering::Relaxed);
        gauge.octets.store(self.tally.octets, Ordering::Relaxed);
        let ledger = &self.tally.ledger;
        gauge
            .faults
            .store(ledger.duplicated.count + ledger.altered.count, Ordering::Relaxed);
        gauge.messages.store(self.tally.messages, Ordering::Relaxed);
    }

    fn accept(&mut self, number: usize) {
        loop {
            let Some((listener, terms)) = self.listeners.get(number) else {
                return;
            };
            let stream = match listener.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                    // ENFILE, EMFILE: the connection stays in the backlog, and the edge is gone: look again soon.
                    self.timers.push(Reverse((
                        Instant::now() + PAUSE_WHEN_OUT_OF_FILES,
                        usize::MAX - number,
                        0,
                    )));
                    return;
                }
                Err(_) => continue,
            };
            self.tally.connections += 1;
            let client = Client {
                stream,
                session: Session::new(),
                terms: Arc::clone(terms),
                tls: None,
                pending: Vec::new(),
                unsent: Vec::new(),
                held: None,
                then: Step::More,
                number: self.tally.connections,
            };
            let index = self.free.pop().unwrap_or(self.clients.len());
            if index == self.clients.len() {
                self.clients.push(None);
            }
            if let Some(place) = self.clients.get_mut(index) {
                *place = Some(client);
            }
            self.with_client(index, |server, client| server.welcome(index, client));
        }
    }

    /// Does something with a client, and closes it when that says so.
    fn with_client(&mut self, index: usize, work: impl FnOnce(&mut Self, &mut Client) -> bool) {
        let Some(mut client) = self.clients.get_mut(index).and_then(Option::take) else {
            return;
        };
        if work(self, &mut client) {
            if let Some(place) = self.clients.get_mut(index) {
                *place = Some(client);
            }
        } else {
            self.tally.abandoned += u64::from(client.session.is_in_transaction());
            self.free.push(index);
        }
    }

    fn welcome(&mut self, index: usize, client: &mut Client) -> bool {
        if self
            .poll
            .registry()
            .register(&mut client.stream, Token(index), Interest::READABLE)
            .is_err()
        {
            return false;
        }
        let step = self.at_desk(client, |session, desk| session.greet(desk));
        self.follow(index, client, step)
    }

    fn fire_timers(&mut self) {
        while let Some(&Reverse((due, index, number))) = self.timers.peek() {
            if due > Instant::now() {
                return;
            }
            self.timers.pop();
            if usize::MAX - index < self.listeners.len() {
                self.accept(usize::MAX - index);
                continue;
            }
            self.with_client(index, |server, client| {
                if client.number != number || client.held != Some(Hold::Delay) {
                    return true;
                }
                client.held = None;
                let step = server.at_desk(client, |session, desk| session.resume(desk));
                server.follow(index, client, step) && server.go_on(index, client)
            });
        }
    }

    /// Whether the connection goes on; so in all that follow.
    fn take_event(&mut self, index: usize, client: &mut Client, event: &Event) -> bool {
        let ends = event.is_read_closed() || event.is_error();
        match client.held {
            Some(Hold::Stalled) => return !ends,
            Some(Hold::Delay) => return !event.is_error(),
            Some(Hold::Unsent) => {
                let step = std::mem::replace(&mut client.then, Step::More);
                client.held = None;
                return self.follow(index, client, step) && self.go_on(index, client);
            }
            None => {}
        }
        self.read(index, client, ends)
    }

    /// What came while nothing was read made its event then: use what is kept, then read until there is no more.
    fn go_on(&mut self, index: usize, client: &mut Client) -> bool {
        if client.held.is_none() && !client.pending.is_empty() {
            let kept = std::mem::take(&mut client.pending);
            if !self.take_input(index, client, &kept) {
                return false;
            }
        }
        client.held.is_some() || self.read(index, client, true)
    }

    /// Reads and answers. Edge-triggered: a read that does not fill the buffer has emptied the socket, unless `to_the_end`.
    fn read(&mut self, index: usize, client: &mut Client, to_the_end: bool) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let goes_on = loop {
            if client.held.is_some() {
                break true;
            }
            let kept = client.pending.len();
            if buffer.len() < kept + RECEIVE_BUFFER / 2 {
                buffer.resize(kept + RECEIVE_BUFFER, 0);
            }
            if let Some(start) = buffer.get_mut(..kept) {
                start.copy_from_slice(&client.pending);
            }
            let room = buffer.get_mut(kept..).unwrap_or_default();
            let count = match &mut client.tls {
                None => client.stream.read(room),
                Some(tls) => tls.read(&mut client.stream, room),
            };
            self.note_tls(client);
            match count {
                Ok(0) => break false,
                Ok(count) => {
                    let filled = kept + count == buffer.len();
                    client.pending.clear();
                    if !self.take_input(index, client, buffer.get(..kept + count).unwrap_or_default()) {
                        break false;
                    }
                    if !filled && !to_the_end && client.tls.is_none() {
                        break true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break self.send_tls(client),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.buffer = buffer;
        goes_on
    }

    fn note_tls(&mut self, client: &mut Client) {
        match client.tls.as_mut().and_then(|tls| tls.take_news()) {
            Some(true) => self.tally.secured += 1,
            Some(false) => self.tally.tls_failures += 1,
            None => {}
        }
    }

    /// Handshake messages that TLS wants to send.
    fn send_tls(&mut self, client: &mut Client) -> bool {
        let tls = client.tls.as_mut();
        tls.is_none_or(|tls| tls.flush(&mut client.stream).is_ok())
    }

    fn take_input(&mut self, index: usize, client: &mut Client, input: &[u8]) -> bool {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let (used, step) = self.at_desk(client, |session, desk| session.receive(desk, rest));
            at += used;
            if step == Step::Tls {
                // What came with STARTTLS in the clear is no part of the TLS session (RFC 3207 section 4).
                at = input.len();
            }
            if !self.follow(index, client, step) {
                return false;
            }
            if step == Step::More || client.held.is_some() || at == input.len() {
                client.pending.extend_from_slice(input.get(at..).unwrap_or_default());
                return true;
            }
        }
    }

    fn at_desk<T>(&mut self, client: &mut Client, work: impl FnOnce(&mut Session, &mut Desk<'_>) -> T) -> T {
        let mut desk = Desk {
            terms: &client.terms,
            plan: &mut self.plan,
            dice: &mut self.dice,
            tally: &mut self.tally,
            out: &mut self.out,
        };
        work(&mut client.session, &mut desk)
    }

    /// Writes the output, then does what the session asked for.
    fn follow(&mut self, index: usize, client: &mut Client, step: Step) -> bool {
        match self.flush(client) {
            Err(_) => return false,
            Ok(false) => {
                client.held = Some(Hold::Unsent);
                client.then = step;
                let both = Interest::READABLE | Interest::WRITABLE;
                return self
                    .poll
                    .registry()
                    .reregister(&mut client.stream, Token(index), both)
                    .is_ok();
            }
            Ok(true) => {}
        }
        match step {
            Step::More => true,
            Step::Wait(delay) => {
                client.held = Some(Hold::Delay);
                self.timers
                    .push(Reverse((Instant::now() + delay, index, client.number)));
                true
            }
            Step::Stall => {
                client.held = Some(Hold::Stalled);
                true
            }
            Step::Close => {
                if let Some(tls) = &mut client.tls {
                    tls.close(&mut client.stream);
                }
                false
            }
            Step::Reset => {
                client.stream.reset_on_close();
                false
            }
            Step::Tls => match self.tls.as_ref().map(|config| Tls::new(Arc::clone(config))) {
                Some(Ok(tls)) => {
                    client.tls = Some(Box::new(tls));
                    client.session.secured();
                    true
                }
                _ => false,
            },
        }
    }

    /// Whether all was written.
    fn flush(&mut self, client: &mut Client) -> io::Result<bool> {
        if self.out.is_empty() && client.unsent.is_empty() {
            return Ok(true);
        }
        let out = std::mem::take(&mut self.out);
        let done = match &mut client.tls {
            Some(tls) => tls.write(&mut client.stream, &out).map(|()| true),
            None => client.stream.write_all_or_keep(&out, &mut client.unsent),
        };
        self.out = out;
        self.out.clear();
        done
    }
}
