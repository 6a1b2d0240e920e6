//! Drives one [`Session`] over one socket.
//!
//! Promises: a connection that waits for input holds no buffer (the shard has one for all of them); output that the client
//! does not take stops input, so it is bounded; whatever way this ends, the claim, the seat and the files are given back.
//! One detached task, never cancelled (a cancelled glommio task is never freed): it ends by itself, on an alarm at the
//! latest. Lives on its shard.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::delivery::{self, Message};
use super::record::{End, MessageRecord, SessionRecord};
use super::slots::{Alarm, Seat};
use super::{Current, Shard, clock, proxy};
use crate::lookup::{Listing, Question as Lookup};
use crate::maildir::{Done, FailureKind};
use crate::metrics::{Counter, Gauge, Histogram};
use crate::policy::admission;
use crate::policy::binding::Binding;
use crate::policy::network::{self, Source};
use crate::policy::tally::Claim;
use crate::smtp::Role;
use crate::smtp::oxsmtp::{Event, Reply};
use crate::smtp::session::{Custody, Question, Session, Step, Verdict};

/// Octets read at once while commands are awaited; content fills the shard's whole buffer.
const COMMANDS_AT_ONCE: usize = 16 << 10;
/// How long a PROXY header may take.
const PROXY_HEADER_TIME: Duration = Duration::from_secs(10);
/// How long, and how much of, what a client still sends is read after our last reply, so that a reset does not take the
/// reply from it (RFC 9293 section 3.6.1).
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 1 << 20;
/// How long the next connection of a client may take to come and still wait for its tarpit.
const TARPIT_MEMORY_SECONDS: u32 = 600;

/// A connection that was accepted and may stay for now.
#[derive(Debug)]
pub(super) struct Arrival {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub settings: Current,
    pub binding: Arc<Binding>,
    pub claim: Claim,
    pub opened: Instant,
}

/// Serves a connection to its end.
pub(super) async fn serve(shard: Rc<Shard>, arrival: Arrival) {
    Connection::new(shard, arrival).run().await;
}

/// Reads the PROXY header first; admission judges the client that it names.
pub(super) async fn serve_proxied(shard: Rc<Shard>, mut arrival: Arrival) {
    let seat = shard.slots.seat(arrival.opened + PROXY_HEADER_TIME);
    let mut input = Vec::new();
    let (used, named) = loop {
        match read(&shard, &seat, &mut arrival.stream, &mut input, proxy::MAX_HEADER).await {
            Wake::Data(filled) => {
                input.clear();
                input.extend_from_slice(shard.scratch.borrow().get(..filled).unwrap_or_default());
            }
            Wake::Alarm(_) | Wake::End | Wake::Broken => return shard.record_no_header(&arrival),
        }
        match proxy::header(&input) {
            proxy::Header::Whole(used, named) => break (used, named),
            proxy::Header::Incomplete => {}
            proxy::Header::Invalid => return shard.record_no_header(&arrival),
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
            let mut connection = Connection::new(
                shard,
                Arrival {
                    stream,
                    peer,
                    settings,
                    binding,
                    claim,
                    opened,
                },
            );
            connection.carry = input;
            connection.run().await;
        }
        Err(event) => shard.refuse_stream(stream, &settings, &binding, peer.ip(), event).await,
    }
}

/// What the block lists have said of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unasked,
    Asked,
    Clear,
    Listed,
}

#[derive(Debug)]
struct Connection {
    shard: Rc<Shard>,
    settings: Current,
    binding: Arc<Binding>,
    seat: Seat,
    stream: TcpStream,
    session: Session,
    /// Input that the session has not used yet.
    carry: Vec<u8>,
    /// The route of each recipient accepted.
    routes: Vec<usize>,
    message: Option<Message>,
    standing: Standing,
    record: SessionRecord,
    /// Counts this connection as long as it is there.
    _claim: Claim,
}

/// What the session needs that cannot be done at once.
enum Next {
    Read,
    Send,
    Listing,
    Append,
    Commit,
    Pause(Instant),
    Close,
}

/// What ended a wait for input.
enum Wake {
    /// So many octets stand in the shard's buffer, carried ones first.
    Data(usize),
    /// The client has sent all that it will.
    End,
    Broken,
    Alarm(Alarm),
}

impl Connection {
    fn new(shard: Rc<Shard>, arrival: Arrival) -> Connection {
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
            id: shard.next_id(),
            binding: binding.name.clone(),
            client: peer.ip(),
            port: peer.port(),
            opened,
            messages: 0,
            refused: 0,
            limit: None,
            end: End::Panicked,
        };
        Connection {
            shard,
            settings,
            binding,
            seat,
            stream,
            session,
            carry: Vec::new(),
            routes: Vec::new(),
            message: None,
            standing: Standing::Unasked,
            record,
            _claim: claim,
        }
    }

    async fn run(mut self) {
        self.ask_block_lists();
        if self.owes_a_delay() {
            self.pause(clock::now() + self.binding.terms.limits.tarpit).await;
        }
        self.session.greet(clock::now());
        let mut filled = self.load();
        self.record.end = loop {
            let next = self.digest(filled);
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
                Next::Append => self.append().await,
                Next::Commit => self.commit().await,
                Next::Pause(until) => self.pause(until).await,
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
                    let message = self
                        .message
                        .get_or_insert_with(|| begin(&shard, &self.session, &self.routes, now));
                    message.store(&shard, rest.get(range).unwrap_or_default());
                    if message.has_a_piece(&shard) {
                        break Next::Append;
                    }
                }
                Step::Discard => self.drop_message(),
                Step::Ask(question) => match self.judge(question, now) {
                    Some(verdict) => self.session.answer(verdict, now),
                    None => break Next::Listing,
                },
                Step::Commit => {
                    if self.is_to_be_written() {
                        break Next::Commit;
                    }
                    self.acknowledge(now, now);
                }
                Step::Pause { until } => {
                    shard.owed.owe(
                        Source::of(self.record.client),
                        shard.second(now) + TARPIT_MEMORY_SECONDS,
                    );
                    break Next::Pause(until);
                }
                Step::Close => break Next::Close,
            }
        };
        let rest = input.get(used..).unwrap_or_default();
        self.carry.clear();
        self.carry.extend_from_slice(rest);
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

    /// Policy's answers. None where it has to be waited for.
    fn judge(&mut self, question: Question, now: Instant) -> Option<Verdict> {
        let verdict = match question {
            Question::Mail => self.judge_mail(now),
            Question::Rcpt => {
                if self.standing == Standing::Asked {
                    let listing = self.seat.slot().known_listing()?;
                    self.learn(listing);
                }
                self.judge_rcpt()
            }
        };
        Some(verdict)
    }

    fn judge_mail(&mut self, now: Instant) -> Verdict {
        self.routes.clear();
        if self.binding.resources.is_low() {
            return Verdict::Refuse(Reply::ResourcesLow);
        }
        let limit = self.binding.terms.limits.message_rate;
        // A relay counts by user, and there are none yet.
        if self.binding.role == Role::Gateway && limit > 0 {
            let who = (self.binding.rate_scope, Source::of(self.record.client));
            if !self.shard.rates.admit(who, limit, self.shard.second(now)) {
                return Verdict::Limit(Event::MessageRateLimitExceeded);
            }
        }
        Verdict::Accept
    }

    fn judge_rcpt(&mut self) -> Verdict {
        if self.standing == Standing::Listed {
            return Verdict::Limit(Event::IPAddressNotAllowedBlockList);
        }
        let Some(path) = self.session.forward_path_asked() else {
            return Verdict::Refuse(Reply::TryLater);
        };
        match self.settings.policy.routing.judge(path) {
            Ok(route) => {
                self.routes.push(route);
                Verdict::Accept
            }
            Err(reply) => Verdict::Refuse(reply),
        }
    }

    /// The lists are asked when the client connects and heard when it names a recipient, so it hardly ever waits.
    fn ask_block_lists(&mut self) {
        let client = self.record.client;
        if !admission::asks_block_lists(&self.settings.policy.access, &self.binding, client) {
            return;
        }
        match self.shard.asker.ask(Lookup::BlockList { client }, self.seat.ticket()) {
            Ok(()) => self.standing = Standing::Asked,
            // A list that cannot be asked never refuses mail.
            Err(_) => self.shard.metrics.count(Counter::QuestionsRefused),
        }
    }

    fn learn(&mut self, listing: Listing) {
        self.standing = match listing {
            Listing::Clear => Standing::Clear,
            Listing::Listed { .. } => Standing::Listed,
        };
    }

    /// v17, Tarpit: once again when the same client connects.
    fn owes_a_delay(&self) -> bool {
        let limits = &self.binding.terms.limits;
        !limits.tarpit.is_zero()
            && self.binding.terms.edition == crate::smtp::Edition::Y2021
            && self
                .shard
                .owed
                .take(Source::of(self.record.client), self.shard.second(self.record.opened))
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

    /// Whether the current message has files to write, or has failed to.
    fn is_to_be_written(&mut self) -> bool {
        let message = self
            .message
            .get_or_insert_with(|| begin(&self.shard, &self.session, &self.routes, clock::now()));
        message.is_to_be_written()
    }

    /// Sends a piece of a large message to the file workers and waits until they have it.
    async fn append(&mut self) {
        let Some(message) = &mut self.message else {
            return;
        };
        if !message.append(&self.shard, self.seat.ticket()) {
            return;
        }
        match self.seat.slot().clone().file_work().await {
            Done::Appended(Ok(draft), buffer) => message.resume(draft, buffer),
            Done::Appended(Err(error), _) => message.failure = Some(error.into()),
            Done::Committed(..) => {}
        }
    }

    /// Hands the message over and waits until it is durable, then tells the client.
    async fn commit(&mut self) {
        let ended = clock::now();
        let Some(message) = &mut self.message else {
            return;
        };
        if message.commit(&self.shard, self.seat.ticket()) {
            match self.seat.slot().clone().file_work().await {
                Done::Committed(Ok(_), buffer) => self.shard.keep_buffer(buffer),
                Done::Committed(Err(failure), buffer) => {
                    self.shard.keep_buffer(buffer);
                    message.failure = Some(failure);
                }
                Done::Appended(..) => {}
            }
        }
        let now = clock::now();
        self.shard
            .metrics
            .observe(Histogram::Delivery, now.saturating_duration_since(ended));
        self.acknowledge(ended, now);
        self.settle(now);
    }

    /// The final reply, and the message's line in the log. `ended` is when its content ended.
    fn acknowledge(&mut self, ended: Instant, now: Instant) {
        let Some(message) = self.message.take() else {
            return self.session.refuse(Reply::TryLater, now);
        };
        let reply = message.failure.as_ref().map(|failure| match failure.kind {
            FailureKind::Full => Reply::CannotStore,
            FailureKind::Other => Reply::TryLater,
        });
        let size = self.session.content_size();
        if let Some(envelope) = self.session.envelope() {
            let record = MessageRecord {
                id: Some(message.id),
                envelope,
                size,
                result: if reply.is_none() { "accepted" } else { "refused" },
                reply: reply.map(Reply::text),
                limit: None,
                receiving: Some(ended.saturating_duration_since(message.begun)),
                delivering: Some(now.saturating_duration_since(ended)),
                error: message.failure.as_ref().map(|f| f.text.as_str()),
            };
            self.shard
                .record_message(&self.record, self.session.hello_name(), &record);
            if reply.is_none() {
                self.shard
                    .metrics
                    .add(Counter::Recipients, envelope.recipients.len() as u64);
            }
        }
        self.shard
            .metrics
            .observe(Histogram::Message, now.saturating_duration_since(message.begun));
        match reply {
            None => {
                self.record.messages += 1;
                self.shard.metrics.count(Counter::MessagesReceived);
                self.shard.metrics.add(Counter::OctetsReceived, size);
                self.shard.metrics.count(Counter::AcknowledgedDelivered);
                self.session.acknowledge(Custody::Delivered, message.id.as_str(), now);
            }
            Some(reply) => {
                self.session.refuse(reply, now);
                // Its line is written already.
                self.session.take_report();
                self.record.refused += 1;
            }
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

    /// A transaction that ended without an acknowledgement.
    fn report(&mut self, report: &crate::smtp::session::Report, now: Instant) {
        let message = self.message.take();
        self.record.refused += 1;
        let record = MessageRecord {
            id: message.as_ref().map(|m| m.id),
            envelope: &report.envelope,
            size: report.size,
            result: if report.reply.is_some() { "refused" } else { "abandoned" },
            reply: report.reply.as_deref(),
            limit: report.event,
            receiving: message.as_ref().map(|m| now.saturating_duration_since(m.begun)),
            delivering: None,
            error: None,
        };
        self.shard
            .record_message(&self.record, self.session.hello_name(), &record);
        if let Some(message) = message {
            message.abandon(&self.shard);
        }
    }

    fn drop_message(&mut self) {
        if let Some(message) = self.message.take() {
            message.abandon(&self.shard);
        }
    }

    async fn read(&mut self) -> Wake {
        glommio::executor().yield_if_needed().await;
        let at_once = if self.session.is_receiving() {
            super::SCRATCH
        } else {
            COMMANDS_AT_ONCE
        };
        read(&self.shard, &self.seat, &mut self.stream, &mut self.carry, at_once).await
    }

    /// Sends all output. A client that does not take it before the deadline is left.
    async fn flush(&mut self) -> io::Result<()> {
        let output = self.session.output();
        if output.is_empty() {
            return Ok(());
        }
        let result = send(&mut self.stream, self.seat.slot(), output).await;
        output.clear();
        result
    }

    async fn close(&mut self) {
        self.session.abandon();
        self.settle(clock::now());
        let _ = self.stream.shutdown(Shutdown::Write).await;
        if self.record.end == End::Closed && !self.session.has_quit() {
            self.seat.deadline(clock::now() + LINGER_TIME);
            linger(&self.shard, &self.seat, &mut self.stream).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.drop_message();
        self.shard.metrics.lower(Gauge::Connections);
        self.shard
            .record_session(&self.record, self.session.hello_name(), clock::now());
    }
}

fn begin(shard: &Shard, session: &Session, routes: &[usize], now: Instant) -> Message {
    let normalise = delivery::normalises(session.bare_newline(), session.is_chunked());
    Message::begin(shard, session, routes, normalise, now)
}

/// Waits for input. It arrives in the shard's buffer, behind what was carried over; that is safe to share because it is
/// used up before anybody else runs.
async fn read(shard: &Shard, seat: &Seat, stream: &mut TcpStream, carry: &mut Vec<u8>, at_once: usize) -> Wake {
    poll_fn(|cx| {
        if let Some(alarm) = seat.slot().take_alarm() {
            return Poll::Ready(Wake::Alarm(alarm));
        }
        let mut scratch = shard.scratch.borrow_mut();
        let end = scratch.len().min(carry.len() + at_once);
        let Some((front, space)) = scratch.get_mut(..end).and_then(|s| s.split_at_mut_checked(carry.len())) else {
            return Poll::Ready(Wake::Broken);
        };
        match Pin::new(&mut *stream).poll_read(cx, space) {
            Poll::Ready(Ok(0)) => Poll::Ready(Wake::End),
            Poll::Ready(Ok(n)) => {
                front.copy_from_slice(carry);
                Poll::Ready(Wake::Data(front.len() + n))
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Err(_)) => Poll::Ready(Wake::Broken),
            Poll::Pending => {
                seat.slot().attend(cx);
                Poll::Pending
            }
        }
    })
    .await
}

/// Sends octets; fails with `TimedOut` when an alarm is raised before the client has taken them.
pub(super) async fn send(stream: &mut TcpStream, slot: &super::slots::Slot, octets: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    poll_fn(|cx| {
        while let Some(rest) = octets.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if slot.is_alarmed() => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => {
                    slot.attend(cx);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Reads and throws away what a client still sends, until it closes, or has been given enough of our time.
pub(super) async fn linger(shard: &Shard, seat: &Seat, stream: &mut TcpStream) {
    let mut left = LINGER_OCTETS;
    let mut nothing = Vec::new();
    loop {
        match read(shard, seat, stream, &mut nothing, COMMANDS_AT_ONCE).await {
            Wake::Data(n) if n < left => left -= n,
            _ => return,
        }
    }
}

impl Shard {
    /// Admission of a client to a binding, at this moment.
    pub(super) fn admit(&self, settings: &Current, binding: &Binding, client: IpAddr) -> Result<Claim, Event> {
        let moment = admission::Moment {
            draining: self.draining.get(),
            unix_seconds: (clock::unix_millis() / 1000) as i64,
        };
        admission::admit(&settings.policy.access, binding, &self.column, client, moment)
    }
}
