//! The connections of one executor and what is done when one of them can be read or written.
//!
//! Promises: on kept connections with pipelining a message costs two sends and two receives, in groups one of each;
//! nothing is allocated a message but what glommio needs to wait; failures to connect are not retried without bound; the
//! clock is read once an event. Lives on its executor; `places` calls it from a task for each connection.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::connect::Dialer;
use crate::dialogue::{Chunk, Ending, Manner, Outcome, Step};
use crate::identity::expect::{Fate, Fates};
use crate::measure::{Counts, record};
use crate::message::Wire;
use crate::plan::{Next, Plan};
use crate::progress::Glance;
use crate::slot::Slot;
use crate::timeline::Timeline;
use crate::proxy::Clients;
use crate::tls::Terms;
use crate::transport::Link;

/// Failures to get a connection greeted, one after the other, that end the run.
const CONNECT_FAILURES_MAX: u32 = 100;
/// Connections that may wait for their greeting at the same time: stays within the listen backlog of common servers.
const UNGREETED_MAX: usize = 128;
/// Octets read in one call: the replies to many messages.
const RECEIVE_BUFFER: usize = 65_536;

/// What a place does next.
#[derive(Debug)]
pub enum Place {
    /// Carry this connection.
    Open(TcpStream),
    /// Try again: no connection could be had.
    Failed,
    /// Nothing more is to be sent.
    Done,
}

/// Everything of one executor but the sockets.
#[derive(Debug)]
pub struct Engine {
    wire: Wire,
    dialer: Dialer,
    manner: Manner,
    per_connection: u64,
    plan: Plan,
    slots: Vec<Slot>,
    counts: Counts,
    /// Of the whole run.
    fates: Fates,
    timeline: Timeline,
    /// What was shown of windows that are closed.
    shown: Glance,
    answered: u64,
    stopping: bool,
    abandoned: bool,
    open: usize,
    ungreeted: usize,
    /// Places that wait for others to be greeted before they connect.
    crowd: VecDeque<usize>,
    /// Places that wait for the time of a message, longest first.
    parked: VecDeque<usize>,
    failures_in_a_row: u32,
    last_failure: String,
    last_reply: Instant,
    pipelining_denied: bool,
    tls: Option<Terms>,
    /// TLS begins with the connection, not with STARTTLS.
    tls_first: bool,
    clients: Option<Clients>,
    connections_made: u64,
    buffer: Vec<u8>,
    /// Who hands out messages at their times.
    pacer: Option<Waker>,
    /// Who waits for the quota to be met, for the last connection to close or for a reason to stop.
    keeper: Option<Waker>,
}

impl Engine {
    /// An engine with nothing open yet.
    pub fn new(
        dialer: Dialer,
        wire: Wire,
        manner: Manner,
        per_connection: u64,
        connections: usize,
        plan: Plan,
        now: Instant,
    ) -> Self {
        Self {
            wire,
            dialer,
            manner,
            per_connection,
            plan,
            slots: (0..connections).map(|_| Slot::new(now)).collect(),
            counts: Counts::new(),
            fates: Fates::default(),
            timeline: Timeline::new(now),
            shown: Glance::default(),
            answered: 0,
            stopping: false,
            abandoned: false,
            open: 0,
            ungreeted: 0,
            crowd: VecDeque::new(),
            parked: VecDeque::new(),
            failures_in_a_row: 0,
            last_failure: String::new(),
            last_reply: now,
            pipelining_denied: false,
            tls: None,
            tls_first: false,
            clients: None,
            connections_made: 0,
            buffer: vec![0; RECEIVE_BUFFER],
            pacer: None,
            keeper: None,
        }
    }

    /// Speaks TLS with these terms: from the start, or after STARTTLS where the manner says so.
    pub fn with_tls(mut self, terms: Option<Terms>) -> Self {
        self.tls_first = terms.is_some() && !self.manner.start_tls;
        self.tls = terms;
        self
    }

    /// Says in a PROXY header which client each connection comes from.
    pub fn with_clients(mut self, clients: Option<Clients>) -> Self {
        self.clients = clients;
        self
    }

    /// Places for connections.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> Counts {
        self.shown.add(&self.counts.glance());
        std::mem::replace(&mut self.counts, Counts::new())
    }

    /// The whole run so far, in short.
    pub fn glance(&self) -> Glance {
        let mut glance = self.shown.clone();
        glance.add(&self.counts.glance());
        glance.connections = self.open as u64;
        glance.latency = self.timeline.total().clone();
        glance
    }

    /// The run second by second.
    pub fn timeline(&self) -> Timeline {
        self.timeline.clone()
    }

    /// What became of each message so far; what is under way may arrive or not.
    pub fn fates(&self) -> Fates {
        let mut fates = self.fates.clone();
        let under_way = |slot: &&Slot| slot.open && slot.dialogue.messages_under_way() > 0;
        for slot in self.slots.iter().filter(under_way) {
            fates.note(slot.message.serial, Fate::Uncertain);
        }
        fates
    }

    /// Begins no more messages and opens no more connections; what is under way is finished.
    pub fn begin_no_more(&mut self) {
        self.stopping = true;
        self.wake_all();
    }

    /// Closes every connection as it is.
    pub fn abandon(&mut self) {
        self.stopping = true;
        self.abandoned = true;
        self.wake_all();
    }

    fn wake_all(&mut self) {
        self.slots.iter().for_each(Slot::wake);
        self.pacer.take().into_iter().for_each(Waker::wake);
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.open
    }

    /// Messages begun and not answered, and those whose time has come without one being begun.
    pub fn messages_under_way(&self, now: Instant) -> u64 {
        let open = self.slots.iter().filter(|slot| slot.open);
        let assigned = self.slots.iter().filter(|slot| slot.assigned.is_some()).count() as u64;
        let backlog = if self.stopping { 0 } else { self.plan.backlog(now) };
        open.map(|slot| slot.dialogue.messages_under_way()).sum::<u64>() + assigned + backlog
    }

    /// Whether the server did not offer the PIPELINING that was asked for.
    pub fn pipelining_denied(&self) -> bool {
        self.pipelining_denied
    }

    /// Whether as many messages as were asked for have an outcome.
    pub fn quota_met(&self) -> bool {
        self.plan.quota().is_some_and(|quota| self.answered >= quota)
    }

    /// Why it makes no sense to go on.
    pub fn reason_to_stop(&self, now: Instant, timeout: Duration) -> Option<String> {
        if self.failures_in_a_row >= CONNECT_FAILURES_MAX {
            let last = &self.last_failure;
            return Some(format!(
                "{CONNECT_FAILURES_MAX} connections in a row failed, the last one: {last}"
            ));
        }
        // Silence is no fault of the server's while nothing is asked of it.
        let silent = now.saturating_duration_since(self.last_reply) >= timeout;
        let asked = self.ungreeted > 0 || self.messages_under_way(now) > 0 || !self.plan.is_open();
        (silent && asked).then(|| format!("no reply for {timeout:?} on any of {} open connections", self.open))
    }

    /// Whether the keeper of the run has something to look at; wakes it when it has.
    pub fn poll_news(&mut self, context: &Context<'_>) -> Poll<()> {
        let failed = self.failures_in_a_row >= CONNECT_FAILURES_MAX;
        if failed || self.quota_met() || (self.stopping && self.open == 0) {
            return Poll::Ready(());
        }
        self.keeper = Some(context.waker().clone());
        Poll::Pending
    }

    fn news(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }

    /// Gives messages whose time has come to places that wait for one; when to call again. Pending while none waits;
    /// nothing when there will be no more.
    pub fn poll_release(&mut self, context: &Context<'_>) -> Poll<Option<Instant>> {
        let now = Instant::now();
        while !self.stopping && self.plan.has_more() {
            let Some(&index) = self.parked.front() else {
                self.pacer = Some(context.waker().clone());
                return Poll::Pending;
            };
            match self.plan.next(now) {
                Next::Message(due) => {
                    self.parked.pop_front();
                    let Some(slot) = self.slots.get_mut(index) else {
                        continue;
                    };
                    slot.parked = false;
                    slot.assigned = Some(due);
                    slot.wake();
                }
                Next::Wait(at) => return Poll::Ready(Some(at)),
                Next::Nothing => break,
            }
        }
        // They have nothing to wait for: let them quit.
        for index in std::mem::take(&mut self.parked) {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.parked = false;
                slot.wake();
            }
        }
        Poll::Ready(None)
    }

    fn park(&mut self, index: usize) {
        self.parked.push_back(index);
        if let Some(pacer) = self.pacer.take() {
            pacer.wake();
        }
    }

    /// Opens a connection for a place when it is time.
    pub fn poll_place(&mut self, index: usize, context: &Context<'_>) -> Poll<Place> {
        let now = Instant::now();
        let Some(slot) = self.slots.get_mut(index) else {
            return Poll::Ready(Place::Done);
        };
        slot.attend(context.waker());
        let begins = slot.assigned.is_some() || (!self.stopping && self.plan.has_more());
        if self.abandoned || !begins || self.failures_in_a_row >= CONNECT_FAILURES_MAX {
            return Poll::Ready(Place::Done);
        }
        // In an open loop a connection of few messages is made when there is one to send.
        if self.plan.is_open() && self.per_connection > 0 && slot.assigned.is_none() {
            if slot.parked {
                return Poll::Pending;
            }
            match self.plan.next(now) {
                Next::Message(due) => slot.assigned = Some(due),
                Next::Wait(_) => {
                    slot.parked = true;
                    self.park(index);
                    return Poll::Pending;
                }
                Next::Nothing => return Poll::Ready(Place::Done),
            }
        }
        if self.ungreeted >= UNGREETED_MAX {
            if !self.crowd.contains(&index) {
                self.crowd.push_back(index);
            }
            return Poll::Pending;
        }
        Poll::Ready(self.dial(index, now))
    }

    fn dial(&mut self, index: usize, now: Instant) -> Place {
        let Some(slot) = self.slots.get_mut(index) else {
            return Place::Done;
        };
        slot.opened = now;
        slot.dialogue.restart();
        (slot.begun, slot.unwritten) = (0, None);
        match self.dialer.open() {
            Ok(socket) => {
                if let Some(clients) = &self.clients {
                    let header = clients.header(self.connections_made, self.dialer.target());
                    slot.unwritten = Some((slot.dialogue.speak_first(header), 0));
                }
                self.connections_made += 1;
                slot.tls_due = self.tls_first;
                slot.open = true;
                self.open += 1;
                self.ungreeted += 1;
                Place::Open(socket)
            }
            Err(error) => {
                self.counts.connect_failures += 1;
                self.failed(error.to_string());
                Place::Failed
            }
        }
    }

    fn failed(&mut self, why: String) {
        self.failures_in_a_row += 1;
        self.last_failure = why;
        if self.failures_in_a_row >= CONNECT_FAILURES_MAX {
            self.slots.iter().for_each(Slot::wake);
            self.news();
        }
    }

    /// One fewer waits for its greeting.
    fn greeted(&mut self) {
        self.ungreeted = self.ungreeted.saturating_sub(1);
        if let Some(slot) = self.crowd.pop_front().and_then(|index| self.slots.get(index)) {
            slot.wake();
        }
    }

    /// Does what can be done on a connection now; `Ready` when it is over.
    pub fn attend(&mut self, index: usize, link: &mut Link, context: &mut Context<'_>) -> Poll<()> {
        let mut slots = std::mem::take(&mut self.slots);
        if let Some(slot) = slots.get_mut(index) {
            slot.attend(context.waker());
            let mut event = Event {
                link,
                context,
                index,
                now: Instant::now(),
            };
            self.counts.wakes += 1;
            self.take_event(slot, &mut event);
        }
        let open = slots.get(index).is_some_and(|slot| slot.open);
        self.slots = slots;
        if open { Poll::Pending } else { Poll::Ready(()) }
    }

    fn take_event(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        if self.abandoned {
            return self.close_connection(slot, event.index);
        }
        event.link.flush(event.context);
        if let Some((chunk, written)) = slot.unwritten {
            self.write(slot, chunk, written, event);
        }
        if slot.tls_due && slot.unwritten.is_none() {
            slot.tls_due = false;
            self.begin_tls(slot, event);
        } else if slot.dialogue.is_between() && !slot.parked {
            self.next_message(slot, event);
        } else if slot.parked && self.stopping {
            slot.parked = false;
            self.next_message(slot, event);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        while slot.open {
            let last = slot.dialogue.is_quitting();
            match event.link.receive(event.context, &mut buffer, last) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.disconnected(slot, event.index, "the server closed the connection".into()),
                Poll::Ready(Ok(count)) => {
                    self.counts.receives += 1;
                    self.last_reply = event.now;
                    self.take_input(slot, buffer.get(..count).unwrap_or_default(), event);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => self.disconnected(slot, event.index, error.to_string()),
            }
        }
        self.buffer = buffer;
    }

    fn take_input(&mut self, slot: &mut Slot, mut input: &[u8], event: &mut Event<'_, '_>) {
        while !input.is_empty() && slot.open {
            let (used, step) = slot
                .dialogue
                .receive(&self.manner, input, |code| self.counts.reply(code));
            input = input.get(used..).unwrap_or_default();
            match step {
                Step::More => {}
                Step::Send(chunk) => {
                    if chunk == Chunk::Ehlo {
                        self.greeted();
                        self.counts.connections += 1;
                        let waited = event.now.saturating_duration_since(slot.opened);
                        record(&mut self.counts.greeting, waited);
                        slot.ehlo_sent = event.now;
                    }
                    if chunk == Chunk::Content && !self.manner.bdat {
                        self.content_is_due(slot, event.now);
                    }
                    self.write(slot, chunk, 0, event);
                }
                Step::StartTls => {
                    self.begin_tls(slot, event);
                    if slot.open {
                        self.write(slot, Chunk::Ehlo, 0, event);
                    }
                }
                Step::Ready => {
                    self.failures_in_a_row = 0;
                    let waited = event.now.saturating_duration_since(slot.ehlo_sent);
                    record(&mut self.counts.ehlo, waited);
                    self.pipelining_denied |= slot.dialogue.pipelining_denied(&self.manner);
                    self.next_message(slot, event);
                }
                Step::Group => self.group(slot, event),
                Step::Finished(outcome) => self.finished(slot, outcome, event),
                Step::Over(ending) => self.over(slot, event.index, ending),
            }
        }
    }

    fn begin_tls(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        match self.tls.as_ref().map(|terms| event.link.start_tls(terms)) {
            Some(Err(why)) => {
                self.counts.connect_failures += 1;
                self.failed(why);
                self.close_connection(slot, event.index);
            }
            _ => event.link.flush(event.context),
        }
    }

    fn finished(&mut self, slot: &mut Slot, outcome: Outcome, event: &mut Event<'_, '_>) {
        match outcome {
            Outcome::Accepted => self.accepted(slot, event.now),
            Outcome::Refused => {
                self.counts.refused += 1;
                self.timeline.failed(event.now, 1);
                // Some recipients may have been accepted.
                if self.manner.recipients > 1 {
                    self.fates.note(slot.message.serial, Fate::Uncertain);
                }
            }
        }
        self.answer(1);
        let in_content = |(chunk, written)| {
            let end = self.wire.content_end(chunk, slot.message.serial);
            end.is_some_and(|end| written < end)
        };
        if slot.unwritten.is_some_and(in_content) {
            // Refused in the middle of its content: what is still to be written would be read as commands.
            self.lost(slot);
            return self.close_connection(slot, event.index);
        }
        if slot.dialogue.follows_already() {
            (slot.message, slot.message_began) = slot.behind;
            return;
        }
        self.next_message(slot, event);
    }

    fn accepted(&mut self, slot: &Slot, now: Instant) {
        self.counts.accepted += 1;
        self.fates.note(slot.message.serial, Fate::Accepted);
        let since = |then| now.saturating_duration_since(then);
        record(&mut self.counts.final_reply, since(slot.content_ended));
        record(&mut self.counts.transaction, since(slot.message_began));
        let shown = slot.message.planned.unwrap_or(slot.content_ended);
        self.timeline.accepted(now, since(shown));
        if let Some(planned) = slot.message.planned {
            record(&mut self.counts.from_plan, since(planned));
            let late = slot.message_began.saturating_duration_since(planned);
            record(&mut self.counts.begun_late, late);
        }
    }

    fn answer(&mut self, messages: u64) {
        self.answered += messages;
        if messages > 0 && self.quota_met() {
            self.news();
        }
    }

    /// The next message of this connection, if it is to have another.
    fn claim_message(&mut self, slot: &mut Slot, now: Instant) -> Next {
        let next = match slot.assigned.take() {
            Some(due) => Next::Message(due),
            None if self.stopping || (self.per_connection > 0 && slot.begun >= self.per_connection) => Next::Nothing,
            None => self.plan.next(now),
        };
        slot.begun += u64::from(matches!(next, Next::Message(_)));
        next
    }

    fn content_is_due(&mut self, slot: &mut Slot, now: Instant) {
        let waited = now.saturating_duration_since(slot.message_began);
        record(&mut self.counts.envelope, waited);
        slot.content_began = now;
    }

    fn group(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        self.content_is_due(slot, event.now);
        let next = self.claim_message(slot, event.now);
        let chunk = match next {
            Next::Message(due) => {
                slot.behind = (due, event.now);
                slot.dialogue.group(true)
            }
            Next::Nothing => slot.dialogue.group(false),
            // Its time has not come: the content leaves alone.
            Next::Wait(_) => Chunk::Content,
        };
        self.write(slot, chunk, 0, event);
    }

    fn next_message(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        let chunk = match self.claim_message(slot, event.now) {
            Next::Message(due) => {
                (slot.message, slot.message_began) = (due, event.now);
                slot.dialogue.begin()
            }
            Next::Nothing => slot.dialogue.quit(),
            Next::Wait(_) => {
                slot.parked = true;
                return self.park(event.index);
            }
        };
        self.write(slot, chunk, 0, event);
    }

    fn over(&mut self, slot: &mut Slot, index: usize, ending: Ending) {
        self.lost(slot);
        match ending {
            Ending::Quit => {}
            Ending::TurnedAway => {
                self.counts.turned_away += 1;
                self.failed("the server turned the connection away".into());
            }
            Ending::Lacks(what) => {
                self.counts.turned_away += 1;
                self.failed(format!("the server does not offer {what}"));
            }
            Ending::Shutdown => {}
            Ending::Malformed => {
                self.counts.malformed += 1;
                self.failed("the server sent something that is no SMTP reply".into());
            }
        }
        self.close_connection(slot, index);
    }

    /// The connection ended without the server saying so in a reply.
    fn disconnected(&mut self, slot: &mut Slot, index: usize, why: String) {
        let idle = slot.dialogue.is_quitting() || slot.dialogue.is_between();
        if !self.lost(slot) && !idle {
            self.counts.connect_failures += 1;
            self.failed(why);
        }
        self.close_connection(slot, index);
    }

    /// Counts the messages that a connection takes with it; whether there were any. Of a second one only the envelope was
    /// written, so that it cannot arrive.
    fn lost(&mut self, slot: &mut Slot) -> bool {
        let lost = slot.dialogue.messages_under_way();
        if lost > 0 {
            self.fates.note(slot.message.serial, Fate::Uncertain);
            self.timeline.failed(Instant::now(), lost);
        }
        self.counts.lost += lost;
        self.answer(lost);
        lost > 0
    }

    fn close_connection(&mut self, slot: &mut Slot, index: usize) {
        if std::mem::take(&mut slot.parked) {
            self.parked.retain(|parked| *parked != index);
        }
        if slot.dialogue.awaits_greeting() {
            self.greeted();
        }
        if std::mem::take(&mut slot.open) {
            self.open -= 1;
        }
        slot.unwritten = None;
        if self.open == 0 && self.stopping {
            self.news();
        }
    }

    fn write(&mut self, slot: &mut Slot, chunk: Chunk, mut written: usize, event: &mut Event<'_, '_>) {
        let content_end = self
            .wire
            .content_end(chunk, slot.message.serial)
            .filter(|end| *end > written);
        let connection = self.plan.connection(event.index);
        let octets = match chunk {
            Chunk::Spoken => slot.dialogue.spoken(),
            chunk => self.wire.octets(chunk, slot.message.serial, connection),
        };
        slot.unwritten = None;
        let resumed = written > 0;
        while let Some(rest) = octets.get(written..).filter(|rest| !rest.is_empty()) {
            self.counts.sends += 1;
            match event.link.send(event.context, rest) {
                Poll::Ready(Ok(count)) => {
                    written += count;
                    if content_end.is_some_and(|end| written >= end) {
                        slot.content_ended = event.now;
                        if resumed {
                            let took = event.now.saturating_duration_since(slot.content_began);
                            record(&mut self.counts.content, took);
                        }
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // The server may have said why before it closed: let the read find out.
                Poll::Ready(Err(_)) => return,
                Poll::Pending => {
                    slot.unwritten = Some((chunk, written));
                    return;
                }
            }
        }
    }
}

/// What happens on one connection now.
struct Event<'a, 'b> {
    link: &'a mut Link,
    context: &'a mut Context<'b>,
    index: usize,
    now: Instant,
}
