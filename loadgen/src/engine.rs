//! The connections of one executor and what is done when one of them can be read or written.
//!
//! Promises: on kept connections with pipelining a message costs two sends and two receives, in groups one of each;
//! nothing is allocated a message; failures to connect are not retried without bound; the clock is read once an event.
//! Lives on its executor; `places` calls it from a task for each connection.

mod exchange;

use std::collections::VecDeque;
use std::net::TcpStream;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::connect::Dialer;
use crate::dialogue::Manner;
use crate::identity::expect::{Fate, Fates};
use crate::measure::Counts;
use crate::message::Wire;
use crate::plan::{Next, Plan};
use crate::progress::Glance;
use crate::proxy::Clients;
use crate::slot::Slot;
use crate::timeline::Timeline;
use crate::tls::Terms;

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
    /// Try again later: the server had no place, as was to be expected.
    TurnedAway,
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
    /// Connections that the server has taken.
    taken: usize,
    /// Since when it turns every connection away, as was to be expected, and none is left that it took before.
    shut_out: Option<Instant>,
    /// Places that wait for others to be greeted before they connect.
    crowd: VecDeque<usize>,
    /// Places that wait for the time of a message, longest first.
    parked: VecDeque<usize>,
    /// So many of them may go on.
    to_admit: usize,
    failures_in_a_row: u32,
    /// There were too many: whoever waits is to hear of it.
    given_up: bool,
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
            taken: 0,
            shut_out: None,
            crowd: VecDeque::new(),
            parked: VecDeque::new(),
            to_admit: 0,
            failures_in_a_row: 0,
            given_up: false,
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

    /// Whether no connection is open, and none is to be made for a message that was taken already.
    pub fn is_drained(&self) -> bool {
        self.open == 0 && self.slots.iter().all(|slot| slot.assigned.is_none())
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
        // Nobody is there to be answered, so that the quota would never be met.
        let shut_out = self.shut_out.filter(|_| self.plan.quota().is_some());
        if shut_out.is_some_and(|since| now.saturating_duration_since(since) >= timeout) {
            return Some(format!("every connection was turned away for {timeout:?}"));
        }
        // Silence is no fault of the server's while nothing is asked of it.
        let silent = now.saturating_duration_since(self.last_reply) >= timeout;
        let asked = self.ungreeted > 0 || self.messages_under_way(now) > 0 || !self.plan.is_open();
        (silent && asked).then(|| format!("no reply for {timeout:?} on any of {} open connections", self.open))
    }

    /// Whether the keeper of the run has something to look at; wakes it when it has.
    pub fn poll_news(&mut self, context: &Context<'_>) -> Poll<()> {
        let failed = self.failures_in_a_row >= CONNECT_FAILURES_MAX;
        let over = if self.stopping {
            self.is_drained()
        } else {
            self.quota_met()
        };
        if failed || over {
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
        if std::mem::take(&mut slot.turned_away) {
            if !self.stopping {
                return Poll::Ready(Place::TurnedAway);
            }
            // There is no later: a message that waited for this connection is refused with it.
            self.counts.refused_as_expected += u64::from(slot.assigned.take().is_some());
        }
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
        (slot.opened, slot.connecting, slot.auth_began) = (now, true, None);
        slot.dialogue.restart();
        (slot.begun, slot.unwritten) = (0, None);
        match self.dialer.open() {
            Ok(socket) => {
                if let Some(clients) = &self.clients {
                    let header = clients.header(self.connections_made, self.dialer.target());
                    slot.unwritten = Some((slot.dialogue.speak_first(header), 0));
                }
                self.connections_made += 1;
                (slot.tls_due, slot.tls_began) = (self.tls_first, None);
                slot.open = true;
                self.open += 1;
                self.ungreeted += 1;
                Place::Open(socket)
            }
            Err(error) => {
                self.counts.connect_failures += 1;
                self.failed(error.to_string());
                self.settle();
                Place::Failed
            }
        }
    }

    fn failed(&mut self, why: String) {
        self.failures_in_a_row += 1;
        self.last_failure = why;
        self.given_up = self.failures_in_a_row >= CONNECT_FAILURES_MAX;
    }

    /// Wakes whoever has to hear of what happened; to be called when the slots are in their place.
    fn settle(&mut self) {
        while self.to_admit > 0 {
            self.to_admit -= 1;
            if let Some(slot) = self.crowd.pop_front().and_then(|index| self.slots.get(index)) {
                slot.wake();
            }
        }
        if std::mem::take(&mut self.given_up) {
            self.wake_all();
            self.news();
        }
    }

    /// One fewer waits for its greeting.
    fn greeted(&mut self) {
        self.ungreeted = self.ungreeted.saturating_sub(1);
        self.to_admit += 1;
    }
}
