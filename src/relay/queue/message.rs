//! One queued message: where each recipient stands, who waits, what is under way.
//!
//! Promises: a recipient changes its state in [`Message::becomes`] alone, so the counts always agree with the states; what is
//! final stays final. Kept small, for there may be a million of them. Lives in its queue.

use std::sync::Arc;

use smallvec::SmallVec;

use super::action::{Indices, Kind, NO_ROUTE, NewGroup, Said};
use super::tick::{Now, Tick};
use crate::relay::report::{self, Event, Notice, Report};
use crate::smtp::client::{EnhancedStatusCode, HopReply, Origin};
use crate::smtp::envelope::{Envelope, Notify};
use crate::smtp::path::ReversePath;
use crate::spool::{Answer, Fate, Progress, QueueId};

#[derive(Debug)]
pub(super) struct Message {
    pub envelope: Envelope,
    pub size: u64,
    pub arrived: Tick,
    /// The same on the clock of the wall, seconds.
    pub arrived_unix: u64,
    pub groups: SmallVec<[Group; 1]>,
    pub recipients: SmallVec<[Recipient; 1]>,
    /// Recipients to be tried or being tried.
    pub waiting: u32,
    /// Recipients refused for good or given up, whether or not anybody is to hear of it.
    pub failed: u32,
    /// Of these, those whose failure is still to be reported.
    pub owed_failures: u32,
    /// Recipients whose delivery is still to be reported.
    pub owed_successes: u32,
    /// Groups with an attempt under way.
    pub running: u32,
    pub standing: Standing,
    pub stored: Stored,
    /// The report under way.
    pub reporting: Option<Box<Telling>>,
    /// No report before then: one could not be written.
    pub report_after: Tick,
    /// When to look at it, and in which of the two indexes that is kept.
    pub armed: Option<(bool, Tick)>,
    pub authenticated: bool,
    pub held: bool,
    /// The sender has been told of the delay.
    pub notified: bool,
    /// Some recipient was taken by another server.
    pub relayed: bool,
    /// The spool does not know of the latest change.
    pub changed: bool,
    /// The operator has removed it: what is not delivered is dropped.
    pub removed: bool,
    /// The last action has been said.
    pub settled: bool,
    /// It is among those that the queue counts as open.
    pub open: bool,
}

/// A report under way.
#[derive(Debug)]
pub(super) struct Telling {
    pub kind: report::Kind,
    /// About whom: others may fail meanwhile.
    pub recipients: Indices,
}

/// Who answers for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The client, who waits until then at most.
    Waits(Tick),
    /// The client, who waits until the message is durable.
    WaitsForDurable,
    /// We: it has been acknowledged.
    Ours,
    /// The client: it was refused, or the client is gone. What is not delivered is not ours.
    Theirs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    No,
    /// `Persist` was said and not answered.
    Asked,
    Durable,
}

#[derive(Debug)]
pub(super) struct Group {
    pub domain: Option<Box<str>>,
    pub route: u16,
    pub attempts: u16,
    pub phase: Phase,
    /// An attempt has ended since the process started.
    pub tried: bool,
    /// When to try next; of use while idle.
    pub due: Tick,
    /// When it was last tried, in unix seconds; 0: never. Good until 2106.
    pub tried_unix: u32,
    pub waiting: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is under way; tried when due, if anybody waits.
    Idle,
    /// Due, and in its lane.
    Ready,
    /// An attempt is under way; in a lane: it counts there.
    Running { in_lane: bool },
}

#[derive(Debug)]
pub(super) struct Recipient {
    pub group: u32,
    pub state: State,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    /// To be tried, or being tried; what was last said.
    Waiting(Option<Arc<Said>>),
    /// Done: delivered, reported, dropped.
    Settled,
    /// Refused for good or given up, and nobody is to hear of it but the client, if all are.
    Refused(Arc<Said>),
    /// Refused for good or given up, and the sender is to hear of it.
    Failed(Arc<Said>),
    /// Taken by another server, of which the sender is to hear from us.
    Relayed(Arc<Said>),
    /// Delivered into a mailbox, of which the sender is to hear.
    Delivered(Arc<Said>),
}

impl Message {
    pub fn new(envelope: Envelope, groups: Vec<NewGroup>, size: u64, standing: Standing, at: Now) -> Message {
        let mut recipients: SmallVec<[Recipient; 1]> = SmallVec::with_capacity(envelope.recipients.len());
        let nowhere = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        recipients.extend(envelope.recipients.iter().map(|_| Recipient {
            group: nowhere,
            state: State::Waiting(None),
        }));
        let mut own: SmallVec<[Group; 1]> = SmallVec::with_capacity(groups.len());
        for (index, group) in (0..).zip(groups) {
            let mut waiting = 0;
            for &recipient in &group.recipients {
                if let Some(r) = recipients.get_mut(recipient as usize).filter(|r| r.group == nowhere) {
                    r.group = index;
                    waiting += 1;
                }
            }
            own.push(Group::new(group.route, group.domain, waiting, at.tick));
        }
        let waiting = recipients.len() as u32;
        let without = recipients.iter().filter(|r| r.group == nowhere).count() as u32;
        if without > 0 {
            own.push(Group::new(NO_ROUTE, None, without, at.tick));
        }
        Message {
            envelope,
            size,
            arrived: at.tick,
            arrived_unix: at.unix,
            groups: own,
            recipients,
            waiting,
            failed: 0,
            owed_failures: 0,
            owed_successes: 0,
            running: 0,
            standing,
            stored: Stored::No,
            reporting: None,
            report_after: Tick::MIN,
            armed: None,
            authenticated: false,
            held: false,
            notified: false,
            relayed: false,
            changed: false,
            removed: false,
            settled: false,
            open: false,
        }
    }

    /// Takes up what the spool knew.
    pub fn resume(&mut self, progress: Progress, at: Now) {
        self.held = progress.held;
        self.notified = progress.notified;
        self.removed = progress.removed;
        for (index, fate) in progress.recipients.into_iter().enumerate() {
            let Some(group) = self.recipients.get(index).map(|r| r.group as usize) else {
                return;
            };
            let said = |answer: Answer| {
                let hop = answer.hop.into();
                let reply = answer.reply;
                (Arc::new(Said { reply, hop }), answer.at)
            };
            match fate {
                Fate::Waiting { attempts, due, last } => {
                    let last = last.map(said);
                    if let Some(group) = self.groups.get_mut(group) {
                        // The most that any of its recipients has seen: routes may have changed since.
                        if attempts > group.attempts {
                            group.attempts = attempts;
                            group.due = at.tick_of(due);
                        }
                        group.is_tried_at(last.as_ref().map_or(0, |(_, at)| *at));
                    }
                    self.becomes(index, State::Waiting(last.map(|(said, _)| said)));
                }
                Fate::Settled => self.becomes(index, State::Settled),
                Fate::Failed(answer) => self.resume_final(index, group, said(answer), State::Failed),
                Fate::Relayed(answer) => self.resume_final(index, group, said(answer), State::Relayed),
                Fate::Delivered(answer) => self.resume_final(index, group, said(answer), State::Delivered),
            }
        }
    }

    fn resume_final(&mut self, index: usize, group: usize, said: (Arc<Said>, u64), state: fn(Arc<Said>) -> State) {
        if let Some(group) = self.groups.get_mut(group) {
            group.is_tried_at(said.1);
        }
        self.becomes(index, state(said.0));
    }

    /// The one place where a recipient changes. What is final stays: only a report may settle it.
    pub fn becomes(&mut self, index: usize, state: State) {
        let Some(recipient) = self.recipients.get_mut(index) else {
            return;
        };
        let group = self.groups.get_mut(recipient.group as usize);
        match (&recipient.state, &state) {
            (State::Waiting(_), State::Waiting(_)) => {}
            (State::Waiting(_), _) => {
                self.waiting -= 1;
                if let Some(group) = group {
                    group.waiting -= 1;
                }
            }
            (State::Failed(_), State::Settled) => self.owed_failures -= 1,
            (State::Relayed(_) | State::Delivered(_), State::Settled) => self.owed_successes -= 1,
            _ => return,
        }
        match &state {
            State::Failed(_) => {
                self.failed += 1;
                self.owed_failures += 1;
            }
            State::Refused(_) => self.failed += 1,
            State::Relayed(_) | State::Delivered(_) => self.owed_successes += 1,
            State::Waiting(_) | State::Settled => {}
        }
        recipient.state = state;
        self.changed = true;
    }

    pub fn is_waiting(&self, index: usize, group: usize) -> bool {
        self.recipients
            .get(index)
            .is_some_and(|r| r.group as usize == group && matches!(r.state, State::Waiting(_)))
    }

    /// The recipients of a group that are to be tried.
    pub fn waiting_of(&self, group: usize) -> Indices {
        let all = (0..).zip(&self.recipients);
        all.filter(|(_, r)| r.group as usize == group && matches!(r.state, State::Waiting(_)))
            .map(|(index, _)| index)
            .collect()
    }

    /// A recipient has been taken.
    pub fn delivered(&mut self, index: usize, said: &Arc<Said>, kind: Kind) {
        self.relayed |= matches!(kind, Kind::Relayed { .. });
        let wanted = matches!(self.notify(index), Some(Notify::On { success: true, .. })) && self.has_sender();
        let state = match kind {
            Kind::Final if wanted => State::Delivered(said.clone()),
            Kind::Relayed { dsn: false } if wanted => State::Relayed(said.clone()),
            _ => State::Settled,
        };
        self.becomes(index, state);
    }

    /// A recipient has been refused for good, or is given up.
    pub fn fails(&mut self, index: usize, said: Arc<Said>) {
        let wanted = !matches!(
            self.notify(index),
            Some(Notify::Never | Notify::On { failure: false, .. })
        );
        if wanted && self.has_sender() {
            self.becomes(index, State::Failed(said));
        } else {
            self.becomes(index, State::Refused(said));
        }
    }

    /// Whether a recipient's delay is to be reported: where it was asked for, or where the sender is one of ours and has not
    /// said otherwise.
    pub fn delay_is_told(&self, index: usize) -> bool {
        let wanted = match self.notify(index) {
            Some(Notify::On { delay, .. }) => delay,
            Some(Notify::Never) => false,
            None => self.authenticated,
        };
        wanted && self.has_sender()
    }

    pub fn last_said(&self, index: usize) -> Option<Arc<Said>> {
        match &self.recipients.get(index)?.state {
            State::Waiting(last) => last.clone(),
            State::Settled => None,
            State::Refused(said) | State::Failed(said) | State::Relayed(said) | State::Delivered(said) => {
                Some(said.clone())
            }
        }
    }

    fn notify(&self, index: usize) -> Option<Notify> {
        self.envelope.recipients.get(index)?.parameters.notify
    }

    fn has_sender(&self) -> bool {
        self.envelope.reverse_path != ReversePath::Null
    }

    /// Whether every recipient was refused for good: the words for the first.
    pub fn all_failed(&self) -> Option<&HopReply> {
        if self.failed as usize != self.recipients.len() {
            return None;
        }
        match &self.recipients.first()?.state {
            State::Failed(said) | State::Refused(said) => Some(&said.reply),
            _ => None,
        }
    }

    /// The words for what is given up: the last that were heard.
    pub fn given_up(last: Option<&Arc<Said>>) -> Arc<Said> {
        last.cloned().unwrap_or_else(|| {
            // RFC 3463 section 3.5: X.4.7, delivery time expired.
            let reply = HopReply::ours(
                Origin::Ours,
                451,
                EnhancedStatusCode::new(4, 4, 7),
                "Delivery time expired",
            );
            Arc::new(Said { reply, hop: "".into() })
        })
    }

    /// What the spool is to know.
    pub fn progress(&self, at: Now) -> Progress {
        let fate = |recipient: &Recipient| {
            let group = self.groups.get(recipient.group as usize);
            let tried = group.map_or(0, |g| g.tried_unix.into());
            let answer = |said: &Arc<Said>| Answer {
                reply: said.reply.clone(),
                hop: said.hop.as_ref().into(),
                at: tried,
            };
            match &recipient.state {
                State::Waiting(last) => Fate::Waiting {
                    attempts: group.map_or(0, |g| g.attempts),
                    due: group.filter(|g| g.attempts > 0).map_or(0, |g| at.unix_of(g.due)),
                    last: last.as_ref().map(answer),
                },
                State::Settled | State::Refused(_) => Fate::Settled,
                State::Failed(said) => Fate::Failed(answer(said)),
                State::Relayed(said) => Fate::Relayed(answer(said)),
                State::Delivered(said) => Fate::Delivered(answer(said)),
            }
        };
        Progress {
            recipients: self.recipients.iter().map(fate).collect(),
            held: self.held,
            notified: self.notified,
            removed: self.removed,
        }
    }

    /// The report of a kind: about all who are due one. `until`: when waiting recipients are given up, in unix seconds.
    pub fn report(&self, id: QueueId, kind: report::Kind, until: u64) -> Option<(Telling, Report)> {
        let (mut recipients, mut told) = (Vec::new(), Indices::new());
        for (index, recipient) in self.recipients.iter().enumerate() {
            let (event, said) = match (kind, &recipient.state) {
                // A 4xx that ends it can only be one that was repeated for too long.
                (report::Kind::Failure, State::Failed(said)) if said.reply.code / 100 == 4 => {
                    (Event::Expired, Some(said))
                }
                (report::Kind::Failure, State::Failed(said)) => (Event::Failed, Some(said)),
                (report::Kind::Success, State::Relayed(said)) => (Event::Relayed, Some(said)),
                (report::Kind::Success, State::Delivered(said)) => (Event::Delivered, Some(said)),
                (report::Kind::Delay, State::Waiting(last)) if self.delay_is_told(index) => {
                    (Event::Delayed, last.as_ref())
                }
                _ => continue,
            };
            told.push(index as u32);
            recipients.push(Notice {
                recipient: self.envelope.recipients.get(index)?.clone(),
                event,
                said: said.cloned(),
                tried: self
                    .groups
                    .get(recipient.group as usize)
                    .map_or(0, |g| g.tried_unix.into()),
                until,
            });
        }
        if recipients.is_empty() {
            return None;
        }
        let report = Report {
            of: id,
            kind,
            to: self.envelope.reverse_path.mailbox()?.clone(),
            ret: self.envelope.mail.ret,
            envid: self.envelope.mail.envid.clone(),
            smtputf8: self.envelope.mail.smtputf8,
            arrived: self.arrived_unix,
            recipients,
        };
        let recipients = told;
        Some((Telling { kind, recipients }, report))
    }

    /// A report is durable, or is given up: what it tells is owed no more.
    pub fn reported(&mut self, told: &Telling) {
        match told.kind {
            report::Kind::Delay => {
                self.notified = true;
                self.changed = true;
            }
            report::Kind::Failure | report::Kind::Success => {
                for &index in &told.recipients {
                    self.becomes(index as usize, State::Settled);
                }
            }
        }
    }

    /// Forgets what is owed to the sender.
    pub fn owe_nothing(&mut self) {
        for index in 0..self.recipients.len() {
            let waits = self
                .recipients
                .get(index)
                .is_some_and(|r| matches!(r.state, State::Waiting(_)));
            if !waits {
                self.becomes(index, State::Settled);
            }
        }
    }
}

impl Group {
    fn new(route: u16, domain: Option<Box<str>>, waiting: u32, due: Tick) -> Group {
        Group {
            domain,
            route,
            attempts: 0,
            phase: Phase::Idle,
            tried: false,
            due,
            tried_unix: 0,
            waiting,
        }
    }

    /// It was tried at this time, in unix seconds, or later.
    pub fn is_tried_at(&mut self, unix: u64) {
        self.tried_unix = self.tried_unix.max(u32::try_from(unix).unwrap_or(u32::MAX));
    }

    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_some_hundred_octets() {
        assert!(size_of::<Message>() <= 296, "{}", size_of::<Message>());
    }
}
