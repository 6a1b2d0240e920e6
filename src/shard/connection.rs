//! Drives one [`Session`] over one socket.
//!
//! Promises: a connection that waits for input holds no buffer (the shard has one for all of them); output that the client
//! does not take stops input, so it is bounded; whatever way this ends, the claim, the seat and the files are given back; input
//! with a response of AUTH in it is wiped.
//! One detached task, never cancelled (a cancelled glommio task is never freed): it ends by itself, on an alarm at the
//! latest. Lives on its shard.

mod credentials;
mod custody;
mod secure;
mod verdict;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroize as _;

use super::delivery::Message;
use super::record::{End, SessionRecord};
use super::slots::{Alarm, Seat};
use super::stream::{COMMANDS_AT_ONCE, LINGER_TIME, Stream, Wake};
use super::{Current, Shard, clock, proxy};
use crate::metrics::{Counter, Gauge};
use crate::policy::binding::Binding;
use crate::policy::network::{self, Source};
use crate::policy::tally::Claim;
use crate::smtp::session::{Question, Session, Step};
use credentials::Comparison;
use verdict::Standing;

/// How long a PROXY header may take, where a client may not be silent for a shorter time anyway.
const PROXY_HEADER_TIME: Duration = Duration::from_secs(10);
/// How long the next connection of a client may take to come and still wait for its tarpit.
const TARPIT_MEMORY_SECONDS: u32 = 600;

/// A connection that was accepted and may stay for now.
#[derive(Debug)]
pub(super) struct Arrival {
    pub stream: Stream,
    pub peer: SocketAddr,
    pub settings: Current,
    pub binding: Arc<Binding>,
    pub claim: Claim,
    pub opened: Instant,
}

/// Serves a connection to its end. What it is made of stands in one box; the task holds a pointer to it, for a future
/// that held it by value would hold it twice, in its argument and in its body.
pub(super) fn serve(shard: Rc<Shard>, arrival: Arrival) -> impl Future<Output = ()> + 'static {
    Connection::run(Connection::new(shard, arrival, Vec::new()))
}

/// Reads the PROXY header first; admission judges the client that it names.
pub(super) async fn serve_proxied(shard: Rc<Shard>, mut arrival: Arrival) {
    let patience = PROXY_HEADER_TIME.min(arrival.binding.terms.limits.inactivity_timeout);
    let seat = shard.slots.seat(arrival.opened + patience);
    let mut input = Vec::new();
    let (used, named) = loop {
        match arrival.stream.read(&shard, &seat, &input, proxy::MAX_HEADER).await {
            Wake::Data(filled) => {
                input.clear();
                input.extend_from_slice(shard.scratch.borrow().get(..filled).unwrap_or_default());
            }
            Wake::Alarm(_) | Wake::End | Wake::Broken => return shard.record_no_header(arrival),
        }
        match proxy::header(&input) {
            proxy::Header::Whole(used, named) => break (used, named),
            proxy::Header::Incomplete => {}
            proxy::Header::Invalid => return shard.record_no_header(arrival),
        }
    };
    drop(seat);
    input.drain(..used);
    if let Some(address) = named {
        arrival.peer = SocketAddr::new(network::canonical(address), 0);
    }
    let Arrival {
        stream,
        peer,
        settings,
        binding,
        claim,
        opened,
    } = arrival;
    // The proxy's place in the total becomes the client's.
    drop(claim);
    match shard.admit(&settings, &binding, peer.ip()) {
        Ok(claim) => {
            let arrival = Arrival {
                stream,
                peer,
                settings,
                binding,
                claim,
                opened,
            };
            Connection::run(Connection::new(shard, arrival, input)).await;
        }
        Err(event) => {
            shard
                .refuse_stream(stream.into_socket(), &settings, &binding, peer.ip(), event)
                .await
        }
    }
}

#[derive(Debug)]
struct Connection {
    shard: Rc<Shard>,
    settings: Current,
    binding: Arc<Binding>,
    seat: Seat,
    stream: Stream,
    session: Session,
    /// Input that the session has not used yet.
    carry: Vec<u8>,
    /// The route of each recipient accepted.
    routes: Vec<usize>,
    message: Option<Message>,
    standing: Standing,
    comparison: Option<Comparison>,
    record: SessionRecord,
    /// Counts this connection as long as it is there.
    _claim: Claim,
}

/// What the session needs that cannot be done at once.
enum Next {
    Read,
    Send,
    Listing,
    Comparison,
    Append,
    Commit,
    Handshake,
    Pause(Instant),
    Close,
}

impl Connection {
    fn new(shard: Rc<Shard>, arrival: Arrival, carry: Vec<u8>) -> Box<Connection> {
        let Arrival {
            stream,
            peer,
            settings,
            binding,
            claim,
            opened,
        } = arrival;
        let session = Session::new(binding.terms.clone(), peer.ip(), opened);
        let seat = shard.slots.seat(session.deadline());
        shard.metrics.count(Counter::Sessions);
        shard.metrics.raise(Gauge::Connections);
        let record = SessionRecord {
            id: shard.next_id(opened),
            binding: binding.clone(),
            client: peer.ip(),
            client_text: peer.ip().to_string().into(),
            port: peer.port(),
            opened,
            messages: 0,
            refused: 0,
            tls: None,
            limit: None,
            end: End::Panicked,
        };
        Box::new(Connection {
            shard,
            settings,
            binding,
            seat,
            stream,
            session,
            carry,
            routes: Vec::new(),
            message: None,
            standing: Standing::Unasked,
            comparison: None,
            record,
            _claim: claim,
        })
    }

    async fn run(mut self: Box<Self>) {
        if self.binding.implicit_tls
            && let Err(end) = self.secure().await
        {
            self.record.end = end;
            return self.close().await;
        }
        // Not for one whose handshake was one too many.
        if !self.session.is_closing() {
            self.ask_block_lists();
            if self.owes_a_delay() {
                self.pause(clock::now() + self.binding.terms.limits.tarpit).await;
            }
        }
        self.session.greet(clock::now());
        let mut filled = self.load();
        self.record.end = loop {
            let next = self.digest(filled);
            if matches!(next, Next::Close) {
                self.say_farewell();
            }
            if let Err(error) = self.flush().await {
                break if error.kind() == io::ErrorKind::TimedOut {
                    End::Stalled
                } else {
                    End::Broken
                };
            }
            match next {
                Next::Read => match self.read().await {
                    Wake::Data(n) => {
                        self.carry.clear();
                        filled = n;
                        continue;
                    }
                    Wake::Alarm(alarm) => self.heed(alarm),
                    Wake::End => break End::Disconnected,
                    Wake::Broken => break End::Broken,
                },
                Next::Send => {}
                Next::Listing => match self.seat.slot().clone().listing().await {
                    Ok(listing) => self.learn(listing),
                    Err(alarm) => self.heed(alarm),
                },
                Next::Comparison => match self.seat.slot().clone().answer().await {
                    Ok(answer) => self.compared(&answer, clock::now()),
                    Err(alarm) => self.heed(alarm),
                },
                Next::Append => self.append().await,
                Next::Commit => {
                    if !self.commit().await {
                        break End::Disconnected;
                    }
                }
                Next::Handshake => {
                    if let Err(end) = self.secure().await {
                        break end;
                    }
                }
                Next::Pause(until) => self.pause(until).await,
                Next::Close if self.session.was_injected() => break End::Injected,
                Next::Close => break End::Closed,
            }
            filled = self.load();
        };
        self.close().await;
    }

    /// Feeds the shard's buffer to the session, and does all that can be done without waiting.
    fn digest(&mut self, filled: usize) -> Next {
        let shard = Rc::clone(&self.shard);
        let scratch = shard.scratch.borrow();
        let input = scratch.get(..filled).unwrap_or_default();
        let now = clock::now();
        let mut used = 0;
        let next = loop {
            let rest = input.get(used..).unwrap_or_default();
            let (taken, step) = self.session.advance(rest, now);
            used += taken;
            // Before anything is stored of the next message, which can begin in the same input.
            if let Some(report) = self.session.take_report() {
                self.report(&report, now);
            }
            match step {
                Step::Read => break Next::Read,
                Step::Send => break Next::Send,
                Step::Store(range) => {
                    let message = self.message(now);
                    message.store(&shard, rest.get(range).unwrap_or_default());
                    if message.has_a_piece(&shard) {
                        break Next::Append;
                    }
                }
                Step::Discard => self.drop_message(),
                Step::Ask(Question::Credentials) => {
                    if !self.find(now) {
                        break Next::Comparison;
                    }
                }
                Step::Ask(question) => match self.judge(question, now) {
                    Some(verdict) => self.session.answer(verdict, now),
                    None => break Next::Listing,
                },
                Step::Commit => {
                    if self.message(now).is_to_be_waited_for() {
                        break Next::Commit;
                    }
                    self.acknowledge(now);
                }
                Step::Pause { until } => {
                    shard.owed.owe(
                        Source::of(self.record.client),
                        shard.second(now) + TARPIT_MEMORY_SECONDS,
                    );
                    break Next::Pause(until);
                }
                Step::Handshake => break Next::Handshake,
                Step::Close => break Next::Close,
            }
        };
        let rest = input.get(used..).unwrap_or_default();
        let confided = self.session.take_confided();
        if confided {
            self.carry.zeroize();
        }
        self.carry.clear();
        self.carry.extend_from_slice(rest);
        drop(scratch);
        if confided && let Some(input) = shard.scratch.borrow_mut().get_mut(..filled) {
            input.zeroize();
        }
        self.settle(now);
        next
    }

    /// Puts what was carried over back into the shard's buffer, for the next [`Connection::digest`].
    fn load(&mut self) -> usize {
        if self.carry.is_empty() {
            return 0;
        }
        let mut scratch = self.shard.scratch.borrow_mut();
        match scratch.get_mut(..self.carry.len()) {
            Some(front) => {
                front.copy_from_slice(&self.carry);
                self.carry.len()
            }
            None => 0,
        }
    }

    fn heed(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Deadline => self.session.expire(clock::now()),
            Alarm::Drain => self.session.drain(),
            Alarm::Stop => self.session.stop(),
        }
    }

    /// Waits without reading until `until`, or for an alarm that ends the session.
    async fn pause(&mut self, until: Instant) {
        self.seat.deadline(until.min(self.session.deadline()));
        let alarm = self.seat.slot().clone().alarm().await;
        if alarm != Alarm::Deadline || clock::now() < until {
            self.heed(alarm);
        }
    }

    /// What the session has said goes to the metrics and the log; its deadline to the wheel.
    fn settle(&mut self, now: Instant) {
        let notes = self.session.take_notes();
        for code in notes.replies.drain(..) {
            self.shard.metrics.reply(code);
        }
        for event in notes.events.drain(..) {
            self.shard.metrics.event(event);
            self.record.limit = Some(event);
        }
        if let Some(report) = self.session.take_report() {
            self.report(&report, now);
        }
        self.seat.deadline(self.session.deadline());
    }

    async fn read(&mut self) -> Wake {
        let at_once = if self.session.is_receiving() {
            super::SCRATCH
        } else {
            COMMANDS_AT_ONCE
        };
        self.stream.read(&self.shard, &self.seat, &self.carry, at_once).await
    }

    /// Sends all output. A client that does not take it before the deadline is left.
    async fn flush(&mut self) -> io::Result<()> {
        let output = self.session.output();
        if output.is_empty() && !self.stream.wants_send() {
            return Ok(());
        }
        let result = self.stream.send(&self.shard, &self.seat, output).await;
        output.clear();
        result
    }

    /// Sends what can be sent at once without pushing it, so that the end of the connection travels in the same segment.
    fn say_farewell(&mut self) {
        let output = self.session.output();
        let sent = self.stream.send_last(output);
        output.drain(..sent);
    }

    async fn close(&mut self) {
        self.session.abandon();
        self.settle(clock::now());
        // After QUIT nothing of the client is on its way: closing the socket, which comes next, says all.
        if self.session.has_quit() {
            return;
        }
        self.stream.shutdown().await;
        if self.record.end == End::Closed {
            self.seat.deadline(clock::now() + LINGER_TIME);
            self.stream.linger(&self.shard, &self.seat).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Half a response of AUTH may stand there.
        self.carry.zeroize();
        self.drop_message();
        self.shard.metrics.lower(Gauge::Connections);
        self.shard.record_session(&self.record, &self.session, clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_of<F: Future>(_: fn(Rc<Shard>, Arrival) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand idle clients are to fit into 100 MiB with everything else; the rest of a connection's memory is its
    /// slot, its task's header, and what the executor keeps for a wait.
    #[test]
    fn a_connection_takes_little_memory_and_its_task_holds_it_once() {
        assert!(size_of::<Connection>() <= 1100, "{}", size_of::<Connection>());
        assert!(future_of(serve) <= 300, "{}", future_of(serve));
        assert!(future_of(serve_proxied) <= 900, "{}", future_of(serve_proxied));
    }
}
