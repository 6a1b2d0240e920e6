//! What an operator sees and asks for.
//!
//! Promises: a list of a million messages is read a piece at a time and copies nothing; what is asked for holds for messages
//! that are acknowledged: those of clients still waiting are gone within the acknowledgement delay. Lives in its queue.

use std::ops::Bound;

use super::Queue;
use super::action::{Moment, Said};
use super::message::{Message, Phase, State};
use super::tick::Now;
use crate::smtp::envelope::{Envelope, Recipient};
use crate::spool::QueueId;

/// A queued message, as it stands now.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'q> {
    /// Its name.
    pub id: QueueId,
    message: &'q Message,
    at: Now,
}

/// Where one recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// An attempt is under way.
    Trying,
    /// To be tried at this time, in unix seconds.
    Due(u64),
    /// The operator holds the message back.
    Held,
    /// Taken, refused, reported or about to be reported.
    Done,
}

/// Why an operator's wish is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such message.
    Unknown,
    /// Its client still waits for the reply.
    Unacknowledged,
}

impl Queue {
    /// The messages in the order of their names, which is that of their times: those behind `after`. Cheap to begin anywhere:
    /// take a page, remember its last name, go on from there later.
    pub fn list(&self, after: Option<QueueId>, at: Moment) -> impl Iterator<Item = Listed<'_>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let at = Now::of(at, self.epoch);
        let all = self.messages.range((from, Bound::Unbounded));
        all.filter(|(_, message)| !message.settled)
            .map(move |(&id, message)| Listed { id, message, at })
    }

    /// One message.
    pub fn show(&self, id: QueueId, at: Moment) -> Option<Listed<'_>> {
        let message = self.messages.get(&id).filter(|m| !m.settled)?;
        let at = Now::of(at, self.epoch);
        Some(Listed { id, message, at })
    }

    /// Makes no more attempts and sends no notices, also after a restart, until [`Queue::release`].
    pub fn hold(&mut self, id: QueueId, at: Moment) -> Result<(), Refused> {
        self.ask(id, at, |message, now| {
            message.changed |= !message.held;
            message.held = true;
            message.make_idle(now);
        })
    }

    /// Ends a hold: who waits is tried now.
    pub fn release(&mut self, id: QueueId, at: Moment) -> Result<(), Refused> {
        self.ask(id, at, |message, now| {
            message.changed |= message.held;
            message.held = false;
            message.hasten(now.tick);
        })
    }

    /// Tries now who waits for a retry. A message that is held stays so.
    pub fn retry(&mut self, id: QueueId, at: Moment) -> Result<(), Refused> {
        self.ask(id, at, |message, now| message.hasten(now.tick))
    }

    /// Tries now whoever waits for a retry, a part of the messages in each turn.
    pub fn retry_all(&mut self) {
        self.sweep = self.messages.keys().next().copied();
    }

    /// Forgets a message: who is not being tried at this moment gets nothing, and the sender hears nothing, also after a
    /// restart in the middle of an attempt.
    pub fn remove(&mut self, id: QueueId, at: Moment) -> Result<(), Refused> {
        self.ask(id, at, |message, now| {
            message.changed |= !message.removed;
            message.removed = true;
            message.make_idle(now);
        })
    }

    fn ask(&mut self, id: QueueId, at: Moment, wish: impl FnOnce(&mut Message, Now)) -> Result<(), Refused> {
        let at = Now::of(at, self.epoch);
        let message = self.messages.get_mut(&id).filter(|m| !m.settled);
        let message = message.ok_or(Refused::Unknown)?;
        if message.client_waits() {
            return Err(Refused::Unacknowledged);
        }
        wish(message, at);
        self.look(id, at);
        Ok(())
    }
}

impl Message {
    /// Takes its groups out of their lanes.
    fn make_idle(&mut self, now: Now) {
        for group in self.groups.iter_mut().filter(|g| g.phase == Phase::Ready) {
            group.phase = Phase::Idle;
            group.due = now.tick;
        }
    }
}

impl<'q> Listed<'q> {
    /// Who to whom.
    pub fn envelope(&self) -> &'q Envelope {
        &self.message.envelope
    }

    /// Octets of content.
    pub fn size(&self) -> u64 {
        self.message.size
    }

    /// When its content was complete, in unix seconds.
    pub fn arrived(&self) -> u64 {
        self.message.arrived_unix
    }

    /// Whether the operator holds it back.
    pub fn is_held(&self) -> bool {
        self.message.held
    }

    /// Whether it is acknowledged: ours to deliver.
    pub fn is_acknowledged(&self) -> bool {
        !self.message.client_waits()
    }

    /// The most attempts that any of its recipients has seen.
    pub fn attempts(&self) -> u16 {
        self.message.groups.iter().map(|g| g.attempts).max().unwrap_or_default()
    }

    /// The attempts that the recipient at this place has seen.
    pub fn attempts_of(&self, place: usize) -> u16 {
        let group = self.message.recipients.get(place).map(|own| own.group as usize);
        let group = group.and_then(|group| self.message.groups.get(group));
        group.map_or(0, |group| group.attempts)
    }

    /// Whether an attempt is under way.
    pub fn is_being_tried(&self) -> bool {
        self.message.running > 0
    }

    /// When the next of its recipients is to be tried, in unix seconds; none where nobody waits for it.
    pub fn next_due(&self) -> Option<u64> {
        let groups = self.message.groups.iter();
        let waiting = groups.filter(|g| g.waiting > 0 && !g.is_running() && !self.message.held);
        waiting.map(|group| self.at.unix_of(group.due)).min()
    }

    /// Its recipients, where each stands, and what was last said.
    pub fn recipients(&self) -> impl Iterator<Item = (&'q Recipient, Stand, Option<&'q Said>)> {
        let (message, at) = (self.message, self.at);
        message
            .envelope
            .recipients
            .iter()
            .zip(&message.recipients)
            .map(move |(recipient, own)| {
                let group = message.groups.get(own.group as usize);
                let stand = match (&own.state, group) {
                    (State::Waiting(_), Some(group)) if group.is_running() => Stand::Trying,
                    (State::Waiting(_), _) if message.held => Stand::Held,
                    (State::Waiting(_), Some(group)) => Stand::Due(at.unix_of(group.due)),
                    _ => Stand::Done,
                };
                let said = match &own.state {
                    State::Waiting(said) => said.as_deref(),
                    State::Settled => None,
                    State::Refused(said) | State::Failed(said) | State::Relayed(said) | State::Delivered(said) => {
                        Some(&**said)
                    }
                };
                (recipient, stand, said)
            })
    }
}
