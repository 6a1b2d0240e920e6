//! The brain of a shard's onward side: it is told what happened and says what to do.
//!
//! Promises: a message is acknowledged only once it is with its next hops, durable here, or durable as a report; nobody is
//! tried twice at once; every recipient is delivered, reported, dropped with its client's knowledge, or still queued. No call
//! does more than a bounded amount of work for messages other than its own, however many are queued. Lives on its shard.
//!
//! The methods are of four kinds. What happened: [`Queue::take`], [`Queue::recovered`], [`Queue::outcomes`],
//! [`Queue::no_hop`], [`Queue::durable`], [`Queue::cannot_persist`], [`Queue::reported`], [`Queue::cannot_report`],
//! [`Queue::client_gone`], [`Queue::reroute`], [`Queue::turn`], [`Queue::drain`]. What to do: [`Queue::next_action`], to be called until there is
//! none after anything that happened. When to look again: [`Queue::next_due`]. And what an operator asks for.

mod action;
mod decide;
mod lane;
mod message;
mod operator;
mod reroute;
mod tick;
mod timers;

#[cfg(test)]
mod tests;

pub use action::{
    Action, Client, Delivery, Indices, Kind, Moment, NO_ROUTE, NewGroup, NewMessage, Recovered, Refusal, Said, Status,
    Taker,
};
pub use operator::{Listed, Refused, Stand};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::relay::retry::Schedule;
use crate::smtp::client::{HopReply, Outcome};
use crate::smtp::envelope::Envelope;
use crate::smtp::session::Custody;
use crate::spool::QueueId;

use decide::Desk;
use lane::Lane;
use message::{Message, Standing, State, Stored};
use tick::{Now, Tick};

/// What holds for every message.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The waits between attempts.
    pub retry: Schedule,
    /// Since its content was complete: then what is not delivered is given up.
    pub expire: Duration,
    /// Since its content was complete: then its sender is told that it is late.
    pub delay_notice: Duration,
    /// Attempts of one route at once, of messages for which no client waits.
    pub attempts: usize,
}

/// The messages of a shard that are not settled.
#[derive(Debug)]
pub struct Queue {
    terms: Terms,
    epoch: Instant,
    messages: BTreeMap<QueueId, Box<Message>>,
    actions: VecDeque<Action>,
    /// When to look at a message for which a client waits.
    urgent: BTreeSet<(Tick, QueueId)>,
    /// When to look at any other.
    later: BTreeSet<(Tick, QueueId)>,
    /// By route.
    lanes: BTreeMap<u16, Lane>,
    /// Words that many messages share, such as "connection refused".
    recent: VecDeque<Arc<Said>>,
    /// How far a retry of all has come.
    sweep: Option<QueueId>,
    /// Messages of which something is under way.
    open: usize,
    draining: bool,
}

/// Shared words that are remembered.
const RECENT: usize = 4;

impl Queue {
    /// An empty queue.
    pub fn new(terms: Terms, at: Moment) -> Queue {
        Queue {
            terms,
            epoch: at.now,
            messages: BTreeMap::new(),
            actions: VecDeque::new(),
            urgent: BTreeSet::new(),
            later: BTreeSet::new(),
            lanes: BTreeMap::new(),
            recent: VecDeque::new(),
            sweep: None,
            open: 0,
            draining: false,
        }
    }

    /// Other terms from now on; what was timed by the old ones is looked at by them once more.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// A message whose content is complete. A second one of the same name is not taken.
    pub fn take(&mut self, new: NewMessage, at: Moment) {
        if self.messages.contains_key(&new.id) {
            return;
        }
        let (id, at) = (new.id, Now::of(at, self.epoch));
        let standing = match new.client {
            Client::Waits { acknowledge_by } => Standing::Waits(Tick::of(acknowledge_by, self.epoch)),
            Client::WaitsForDurable => Standing::WaitsForDurable,
            Client::Nobody => Standing::Ours,
        };
        let mut message = Box::new(Message::new(new.envelope, new.groups, new.size, standing, at));
        message.authenticated = new.authenticated;
        match standing {
            Standing::Waits(_) if !self.draining => {
                for group in 0..message.groups.len() {
                    let recipients = message.waiting_of(group);
                    message.begin_attempt(group, false);
                    self.actions.push_back(Action::Attempt { id, group, recipients });
                }
            }
            Standing::Ours => message.stored = Stored::Durable,
            _ => {}
        }
        self.messages.insert(id, message);
        self.look(id, at);
    }

    /// A message that the spool has found at start.
    pub fn recovered(&mut self, found: Recovered, at: Moment) {
        if self.messages.contains_key(&found.id) {
            return;
        }
        let (id, at) = (found.id, Now::of(at, self.epoch));
        let mut message = Box::new(Message::new(
            found.envelope,
            found.groups,
            found.size,
            Standing::Ours,
            at,
        ));
        message.authenticated = found.authenticated;
        message.stored = Stored::Durable;
        message.arrived_unix = found.arrived;
        // A clock that was set back since: not before it came.
        message.arrived = at.tick_of(found.arrived.min(at.unix));
        message.envelope.recipients.shrink_to_fit();
        if let Some(progress) = found.progress {
            message.resume(progress, at);
        }
        message.changed = false;
        self.messages.insert(id, message);
        // Looked at in its turn, a removed one too: there may be many.
        self.arm(id, Some((false, at.tick)));
    }

    /// An attempt is over. A recipient that is left out counts as deferred.
    pub fn outcomes(&mut self, id: QueueId, group: usize, taker: &Taker, outcomes: Vec<(u32, Outcome)>, at: Moment) {
        let at = Now::of(at, self.epoch);
        if !self.end_attempt(id, group, at) {
            return;
        }
        let mut line: Option<Delivery> = None;
        for (recipient, outcome) in outcomes {
            let index = recipient as usize;
            let status = match &outcome {
                Outcome::Delivered(_) => Status::Sent,
                Outcome::Deferred(_) => Status::Deferred,
                Outcome::Failed(_) => Status::Bounced,
            };
            let (Outcome::Delivered(reply) | Outcome::Deferred(reply) | Outcome::Failed(reply)) = outcome;
            let said = match &line {
                Some(line) if line.said.as_ref().is_some_and(|said| said.reply == reply) => line.said.clone(),
                _ => None,
            };
            let said = said.unwrap_or_else(|| self.share(status, reply, &taker.hop));
            let Some(message) = self.messages.get_mut(&id).filter(|m| m.is_waiting(index, group)) else {
                continue;
            };
            match status {
                Status::Sent => message.delivered(index, &said, taker.kind),
                Status::Bounced => message.fails(index, said.clone()),
                _ => message.becomes(index, State::Waiting(Some(said.clone()))),
            }
            if status == Status::Deferred && message.is_to_be_dropped() {
                continue; // and logged as such
            }
            match &mut line {
                Some(line) if line.status == status && line.said.as_ref() == Some(&said) => {
                    line.recipients.push(recipient)
                }
                _ => {
                    let next = Delivery {
                        id,
                        group,
                        recipients: [recipient].into_iter().collect(),
                        status,
                        said: Some(said),
                        delay: at.tick.since(message.arrived),
                        attempts: message.groups.get(group).map_or(0, |g| g.attempts),
                    };
                    self.actions.extend(line.replace(next).map(Action::Log));
                }
            }
        }
        self.actions.extend(line.map(Action::Log));
        self.look(id, at);
    }

    /// An attempt is over before it began: there is no address that could be tried now. A 5xx is for good.
    pub fn no_hop(&mut self, id: QueueId, group: usize, reply: HopReply, at: Moment) {
        let Some(message) = self.messages.get(&id) else {
            return;
        };
        let outcome = if reply.code / 100 == 5 {
            Outcome::Failed
        } else {
            Outcome::Deferred
        };
        let outcomes = message.waiting_of(group).into_iter();
        let outcomes = outcomes.map(|recipient| (recipient, outcome(reply.clone()))).collect();
        let nobody = Taker {
            hop: "".into(),
            kind: Kind::Relayed { dsn: false },
        };
        self.outcomes(id, group, &nobody, outcomes, at);
    }

    /// A message is durable.
    pub fn durable(&mut self, id: QueueId, at: Moment) {
        if let Some(message) = self.messages.get_mut(&id).filter(|m| m.stored == Stored::Asked) {
            message.stored = Stored::Durable;
            self.look(id, Now::of(at, self.epoch));
        }
    }

    /// A message cannot be made durable. Its client hears so, unless there is nothing left that would need it.
    pub fn cannot_persist(&mut self, id: QueueId, at: Moment) {
        let at = Now::of(at, self.epoch);
        let (mut desk, messages) = self.desk(at);
        let Some(message) = messages.get_mut(&id).filter(|m| m.stored == Stored::Asked) else {
            return;
        };
        message.stored = Stored::No;
        if message.client_waits() {
            message.refuse(id, Refusal::CannotStore, &mut desk);
        }
        self.look(id, at);
    }

    /// The report about a message is durable.
    pub fn reported(&mut self, of: QueueId, at: Moment) {
        let at = Now::of(at, self.epoch);
        let (mut desk, messages) = self.desk(at);
        let Some(message) = messages.get_mut(&of) else {
            return;
        };
        let Some(told) = message.reporting.take() else {
            return;
        };
        message.reported(&told);
        if message.client_waits() {
            message.acknowledge(of, Custody::Spool, &mut desk);
        }
        self.look(of, at);
    }

    /// The report about a message cannot be made durable now.
    pub fn cannot_report(&mut self, of: QueueId, at: Moment) {
        let at = Now::of(at, self.epoch);
        let (mut desk, messages) = self.desk(at);
        let Some(message) = messages.get_mut(&of) else {
            return;
        };
        let Some(told) = message.reporting.take() else {
            return;
        };
        message.report_after = at.tick.after(desk.terms.retry.wait(1));
        if message.client_waits() {
            message.refuse(of, Refusal::CannotStore, &mut desk);
        } else if message.stored == Stored::No {
            // Only the news of a delivery can be owed by a message that was never stored. Its content cannot be kept.
            message.reported(&told);
        }
        self.look(of, at);
    }

    /// The client of a message has gone before it was told anything: it still has its copy.
    pub fn client_gone(&mut self, id: QueueId, at: Moment) {
        if let Some(message) = self.messages.get_mut(&id).filter(|m| m.client_waits()) {
            message.standing = Standing::Theirs;
            self.look(id, Now::of(at, self.epoch));
        }
    }

    /// Begins to stop: what is not acknowledged becomes durable now, attempts under way may end, no new ones begin.
    pub fn drain(&mut self, at: Moment) {
        self.draining = true;
        let at = Now::of(at, self.epoch);
        // Every message that waits for anything but an answer is there.
        let waiting: Vec<QueueId> = self.urgent.iter().map(|&(_, id)| id).collect();
        for id in waiting {
            self.look(id, at);
        }
    }

    /// Whether nothing is under way any more.
    pub fn is_drained(&self) -> bool {
        self.draining && self.open == 0 && self.actions.is_empty()
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        if let Action::Settle(id) = action {
            self.messages.remove(&id);
        }
        Some(action)
    }

    /// The envelope of a message, until its `Settle` has been handed out.
    pub fn envelope(&self, id: QueueId) -> Option<&Envelope> {
        self.messages.get(&id).map(|message| &message.envelope)
    }

    /// The route of a group, and its domain where the route goes to the recipients' own servers.
    pub fn group(&self, id: QueueId, group: usize) -> Option<(u16, Option<&str>)> {
        let group = self.messages.get(&id)?.groups.get(group)?;
        Some((group.route, group.domain.as_deref()))
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn desk(&mut self, at: Now) -> (Desk<'_>, &mut BTreeMap<QueueId, Box<Message>>) {
        let desk = Desk {
            actions: &mut self.actions,
            terms: &self.terms,
            draining: self.draining,
            at,
        };
        (desk, &mut self.messages)
    }

    /// The words of a hop; those of a deferral are often the same for many messages.
    fn share(&mut self, status: Status, reply: HopReply, hop: &Arc<str>) -> Arc<Said> {
        if status == Status::Deferred {
            let known = self.recent.iter().find(|said| said.reply == reply && said.hop == *hop);
            if let Some(known) = known {
                return known.clone();
            }
        }
        let hop = hop.clone();
        let said = Arc::new(Said { reply, hop });
        if status == Status::Deferred {
            self.recent.truncate(RECENT - 1);
            self.recent.push_front(said.clone());
        }
        said
    }
}
