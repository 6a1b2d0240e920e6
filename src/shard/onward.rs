//! What happens to messages after their content: the queue decides, this does it.
//!
//! Promises: every action of the queue is answered exactly once; a client hears of its message what the queue says and
//! nothing else; content is let go when nobody can need it any more; after a reload a message goes by the new routes when it
//! is tried next, so that a reload costs nothing however many are queued. Lives on its shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::outbound::Job;
use super::parcel::{Origin, Parcel};
use super::route::Route;
use super::slots::Word;
use super::{Settings, Shard, clock, outbound};
use crate::log::Level;
use crate::relay::{self, Action, Client, Delivery, Moment, NewGroup, NewMessage, Queue, Taker, Terms};
use crate::smtp::client::{HopReply, Outcome};
use crate::smtp::envelope::Envelope;
use crate::smtp::path::ForwardPath;
use crate::smtp::session::Custody;
use crate::spool::{self, QueueId};

/// Actions of the queue that are done before others take their turn: an attempt that finds no hop leads to the next.
const ACTIONS_AT_ONCE: usize = 1024;
/// Turns of the queue, each a bounded amount of work, between two looks at the sockets.
const TURNS_AT_ONCE: usize = 16;
/// Recipients that one line names; the rest is counted.
const RECIPIENTS_NAMED: usize = 20;

/// The onward side of a shard.
#[derive(Debug)]
pub(super) struct Onward {
    /// Who decides.
    pub queue: RefCell<Queue>,
    parcels: RefCell<HashMap<QueueId, Rc<Parcel>>>,
    /// The routes of every configuration so far that messages still name.
    routes: RefCell<Vec<Arc<Route>>>,
    /// Actions are being done; what they lead to is done by the same loop.
    busy: Cell<bool>,
    /// There were too many for one go: a task is about to go on.
    going_on: Cell<bool>,
}

impl Onward {
    /// An empty queue.
    pub fn new(terms: Terms, at: Moment) -> Onward {
        Onward {
            queue: RefCell::new(Queue::new(terms, at)),
            parcels: RefCell::default(),
            routes: RefCell::default(),
            busy: Cell::new(false),
            going_on: Cell::new(false),
        }
    }

    /// The message, until it is settled.
    pub fn parcel(&self, id: QueueId) -> Option<Rc<Parcel>> {
        self.parcels.borrow().get(&id).cloned()
    }

    /// Keeps a message until it is settled.
    pub fn keep(&self, parcel: Rc<Parcel>) {
        self.parcels.borrow_mut().insert(parcel.id, parcel);
    }

    /// The number by which the queue knows a route of the current configuration.
    fn number(&self, route: &Arc<Route>) -> u16 {
        let mut routes = self.routes.borrow_mut();
        let known = routes.iter().rposition(|known| Arc::ptr_eq(known, route));
        let number = known.unwrap_or_else(|| {
            routes.push(route.clone());
            routes.len() - 1
        });
        u16::try_from(number).unwrap_or(u16::MAX)
    }

    fn route(&self, number: u16) -> Option<Arc<Route>> {
        self.routes.borrow().get(usize::from(number)).cloned()
    }
}

impl Shard {
    /// This moment, for the queue.
    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment {
            now,
            unix: self.unix_millis(now) / 1000,
        }
    }

    /// A message whose content is complete and stands in `parcel` or in the spool.
    pub(super) fn send_onward(
        self: &Rc<Self>,
        parcel: Rc<Parcel>,
        envelope: Envelope,
        groups: Vec<NewGroup>,
        client: Client,
    ) {
        let message = NewMessage {
            id: parcel.id,
            envelope,
            groups,
            size: parcel.size.get(),
            authenticated: parcel.authenticated,
            client,
        };
        self.onward.keep(parcel);
        let at = self.moment(clock::now());
        self.onward.queue.borrow_mut().take(message, at);
        self.act();
    }

    /// The groups of a message by the route of each recipient, and by domain where a route asks for it.
    pub(super) fn groups<'a>(
        &self,
        recipients: impl Iterator<Item = (Option<&'a Arc<Route>>, &'a ForwardPath)>,
    ) -> Vec<NewGroup> {
        let mut groups: Vec<NewGroup> = Vec::new();
        for (place, (route, path)) in (0..).zip(recipients) {
            let Some(route) = route else {
                continue;
            };
            let number = self.onward.number(route);
            let domain = route.is_by_domain().then(|| self.domain_of(path));
            match groups.iter_mut().find(|g| g.route == number && g.domain == domain) {
                Some(group) => group.recipients.push(place),
                None => groups.push(NewGroup {
                    route: number,
                    domain,
                    recipients: [place].into_iter().collect(),
                }),
            }
        }
        groups
    }

    fn domain_of(&self, path: &ForwardPath) -> Box<str> {
        match path {
            ForwardPath::Postmaster => self.settings().hostname.to_ascii_lowercase().into(),
            ForwardPath::Mailbox(mailbox) => mailbox.domain_key().as_ref().into(),
        }
    }

    /// Messages of an earlier run: they go by the routes of today.
    pub(super) fn take_up(self: &Rc<Self>, slice: spool::Slice) {
        self.spool.borrow_mut().admit(slice.entries);
        let settings = self.settings();
        let at = self.moment(clock::now());
        for message in slice.messages {
            let spool::Recovered {
                id,
                head,
                content,
                octets,
                progress,
            } = message;
            let origin = Origin {
                session: head.session,
                client: head.client,
                hello: head.hello.into(),
                user: head.user.map(Into::into),
            };
            let parcel = Parcel::new(id, head.fields.into_owned(), head.form, head.arrived, origin);
            parcel.complete(content, octets, None);
            parcel.begun.set(true);
            parcel.durable.set(true);
            self.drop_front(&parcel);
            self.count_queued(&parcel, true);
            let envelope = head.envelope.into_owned();
            let found = relay::Recovered {
                id,
                groups: self.groups_of_today(&settings, &envelope),
                envelope,
                size: octets,
                authenticated: parcel.authenticated,
                arrived: parcel.arrived / 1000,
                progress,
            };
            self.onward.keep(parcel);
            self.onward.queue.borrow_mut().recovered(found, at);
        }
        self.act();
    }

    /// The groups of a message that no session routed. Who has no route is in none.
    pub(super) fn groups_of_today(&self, settings: &Settings, envelope: &Envelope) -> Vec<NewGroup> {
        let routed = envelope.recipients.iter().map(|recipient| {
            let path = &recipient.forward_path;
            let route = settings.policy.routing.route_of(path);
            (route.and_then(|route| settings.routes.get(route)), path)
        });
        self.groups(routed)
    }

    /// Does what the queue wants done, until it wants nothing more; where that is a lot, the rest in a moment.
    pub(super) fn act(self: &Rc<Self>) {
        if self.onward.busy.replace(true) {
            return;
        }
        let mut left = ACTIONS_AT_ONCE;
        while left > 0 {
            let action = self.onward.queue.borrow_mut().next_action();
            let Some(action) = action else { break };
            self.act_on(action);
            left -= 1;
        }
        self.onward.busy.set(false);
        self.drive_spool();
        if left == 0 && !self.onward.going_on.replace(true) {
            self.spawn(|shard| async move {
                futures_lite::future::yield_now().await;
                shard.onward.going_on.set(false);
                shard.act();
            });
        }
    }

    /// Waits until what [`Shard::act`] has left for later is done.
    pub(super) async fn has_acted(&self) {
        while self.onward.going_on.get() {
            futures_lite::future::yield_now().await;
        }
    }

    fn act_on(self: &Rc<Self>, action: Action) {
        match action {
            Action::Attempt { id, group, recipients } => self.attempt(id, group, &recipients),
            Action::Persist(id) => self.persist(id),
            Action::Acknowledge(id, custody) => {
                if let Some(parcel) = self.onward.parcel(id).filter(|_| custody == Custody::Spool) {
                    self.count_queued(&parcel, true);
                }
                self.tell_client(id, Word::Acknowledged(custody));
            }
            Action::Refuse(id, refusal) => self.tell_client(id, Word::Refused(refusal)),
            Action::Update(id, progress) => self.spool.borrow_mut().update(id, &progress),
            Action::Settle(id) => self.settle(id),
            Action::Report(report) => self.report_to_sender(*report),
            Action::Log(delivery) => self.record_delivery(&delivery),
        }
    }

    fn attempt(self: &Rc<Self>, id: QueueId, group: usize, recipients: &[u32]) {
        let found = {
            let queue = self.onward.queue.borrow();
            queue
                .group(id, group)
                .map(|(route, domain)| (route, domain.map(Box::from)))
        };
        let Some((parcel, (number, domain))) = self.onward.parcel(id).zip(found) else {
            return;
        };
        let route = self.onward.route(number);
        if let Some(groups) = self.newer_routes(&parcel, route.as_ref(), recipients) {
            let at = self.moment(clock::now());
            return self.onward.queue.borrow_mut().reroute(id, group, groups, at);
        }
        parcel.tried.set(true);
        parcel.trying.set(parcel.trying.get() + 1);
        match route {
            Some(route) => self.dispatch(Job::new(parcel, group, recipients, route, domain)),
            None => self.no_hop(&parcel, group, outbound::no_route()),
        }
    }

    /// The groups of a message by the routes of today, where the route that it would go by is none of them any more. A
    /// message whose client waits goes by those that its session began with.
    fn newer_routes(&self, parcel: &Parcel, route: Option<&Arc<Route>>, recipients: &[u32]) -> Option<Vec<NewGroup>> {
        let settings = self.settings();
        let is_of_today = |route: &Arc<Route>| settings.routes.iter().any(|today| Arc::ptr_eq(today, route));
        if parcel.waiter.get().is_some() || route.is_some_and(is_of_today) {
            return None;
        }
        let queue = self.onward.queue.borrow();
        let groups = self.groups_of_today(&settings, queue.envelope(parcel.id)?);
        // Who had no route may have one now; where they have not, there is nothing new.
        let found = |place| groups.iter().any(|group| group.recipients.contains(place));
        (route.is_some() || recipients.iter().any(found)).then_some(groups)
    }

    /// The words on the recipients of a job, in its order.
    pub(super) fn tell_outcomes(self: &Rc<Self>, job: &Job, taker: &Taker, outcomes: Vec<Outcome>) {
        let at = self.moment(clock::now());
        let places = job.recipients.iter().map(|place| *place as u32);
        let outcomes = places.zip(outcomes).collect();
        self.onward
            .queue
            .borrow_mut()
            .outcomes(job.parcel.id, job.group, taker, outcomes, at);
        self.after_attempt(&job.parcel);
    }

    /// One word on all of them.
    pub(super) fn settle_attempt(self: &Rc<Self>, job: &Job, taker: &Taker, outcome: Outcome) {
        let outcomes = vec![outcome; job.recipients.len()];
        self.tell_outcomes(job, taker, outcomes);
    }

    /// No address can be tried now.
    pub(super) fn no_hop(self: &Rc<Self>, parcel: &Parcel, group: usize, reply: HopReply) {
        let at = self.moment(clock::now());
        self.onward.queue.borrow_mut().no_hop(parcel.id, group, reply, at);
        self.after_attempt(parcel);
    }

    /// What is not settled by its first attempt waits in the spool, not in memory.
    fn after_attempt(self: &Rc<Self>, parcel: &Parcel) {
        parcel.trying.set(parcel.trying.get().saturating_sub(1));
        self.act();
        if parcel.rests() {
            self.let_go(parcel);
        }
    }

    /// The client of a message has gone before its reply.
    pub(super) fn client_gone(self: &Rc<Self>, id: QueueId) {
        if let Some(parcel) = self.onward.parcel(id) {
            parcel.waiter.set(None);
        }
        let at = self.moment(clock::now());
        self.onward.queue.borrow_mut().client_gone(id, at);
        self.act();
    }

    /// Timers of the queue: as many turns as are due now.
    pub(super) fn turn_queue(self: &Rc<Self>, now: Instant) {
        let at = self.moment(now);
        for _ in 0..TURNS_AT_ONCE {
            self.onward.queue.borrow_mut().turn(at);
            self.act();
            if self.onward.queue.borrow().next_due().is_none_or(|due| due > now) {
                break;
            }
        }
    }

    fn tell_client(&self, id: QueueId, word: Word) {
        let waiter = self.onward.parcel(id).and_then(|parcel| parcel.waiter.take());
        if let Some(slot) = waiter.and_then(|ticket| self.slots.find(ticket)) {
            slot.told(word);
        }
    }

    /// Nothing is left to do for a message.
    fn settle(self: &Rc<Self>, id: QueueId) {
        let parcel = self.onward.parcels.borrow_mut().remove(&id);
        if let Some(parcel) = parcel {
            self.let_go(&parcel);
            self.count_queued(&parcel, false);
            if parcel.is_in_spool() {
                self.spool.borrow_mut().settle(id);
            }
        }
    }

    /// One line for what an attempt led to.
    fn record_delivery(&self, delivery: &Delivery) {
        let queue = self.onward.queue.borrow();
        let now = clock::now();
        let mut lines = self.lines.borrow_mut();
        let mut line = lines
            .line(self.wall(now), Level::Info, "delivery")
            .field("id", delivery.id.as_str());
        let envelope = queue.envelope(delivery.id);
        for place in delivery.recipients.iter().take(RECIPIENTS_NAMED) {
            if let Some(recipient) = envelope.and_then(|e| e.recipients.get(*place as usize)) {
                line = line.field("to", recipient.forward_path.as_str());
            }
        }
        line = line
            .number("recipients", delivery.recipients.len() as u64)
            .field("status", delivery.status.as_str());
        if let Some(said) = &delivery.said {
            if !said.hop.is_empty() {
                line = line.field("hop", &*said.hop);
            }
            line = line.display("reply", &said.reply);
        }
        line.number("attempts", u64::from(delivery.attempts))
            .seconds("delay", delivery.delay)
            .done();
    }
}
