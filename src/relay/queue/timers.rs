//! When to look at a message, what its time has brought, and whose turn it is.
//!
//! Promises: a turn looks at a bounded number of messages, those that are due first, and those for which clients wait before
//! all others; a message is in one index at most. Lives in its queue.

use std::ops::Bound;
use std::time::Instant;

use super::action::{Action, Moment};
use super::decide::Desk;
use super::message::{Message, Phase, Standing};
use super::tick::{Now, Tick};
use super::{Queue, Terms};
use crate::spool::QueueId;

/// Messages that one turn looks at, some 0.3 ms of work.
const LOOKS: usize = 512;

impl Queue {
    /// Looks at who is due. What is left over is due at once: see [`Queue::next_due`].
    pub fn turn(&mut self, at: Moment) {
        let at = Now::of(at, self.epoch);
        if self.draining {
            return;
        }
        let mut looks = LOOKS;
        while looks > 0 {
            let due = self.urgent.first().filter(|(tick, _)| *tick <= at.tick);
            let due = due.or_else(|| self.later.first().filter(|(tick, _)| *tick <= at.tick));
            let Some(&(_, id)) = due else {
                break;
            };
            // Whatever becomes of it, it is not due at this tick again.
            self.arm(id, None);
            self.look(id, at);
            looks -= 1;
        }
        self.sweep_on(looks, at);
    }

    /// When the next turn is of use; a time that has passed is now.
    pub fn next_due(&self) -> Option<Instant> {
        if self.draining {
            return None;
        }
        if self.sweep.is_some() {
            return Some(self.epoch);
        }
        let urgent = self.urgent.first().map(|(tick, _)| *tick);
        let later = self.later.first().map(|(tick, _)| *tick);
        Some([urgent, later].into_iter().flatten().min()?.instant(self.epoch))
    }

    /// A part of a retry of all.
    fn sweep_on(&mut self, looks: usize, at: Now) {
        let Some(from) = self.sweep else {
            return;
        };
        let next = self.messages.range((Bound::Included(from), Bound::Unbounded));
        let ids: Vec<QueueId> = next.map(|(id, _)| *id).take(looks + 1).collect();
        self.sweep = ids.get(looks).copied();
        for id in ids.into_iter().take(looks) {
            if let Some(message) = self.messages.get_mut(&id) {
                message.hasten(at.tick);
                self.look(id, at);
            }
        }
    }

    /// After anything that happened to a message: what its time has brought, what is to be done, who may be tried, and when
    /// to look again.
    pub(super) fn look(&mut self, id: QueueId, at: Now) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        let mut desk = Desk {
            actions: &mut self.actions,
            terms: &self.terms,
            draining: self.draining,
            at,
        };
        message.expire(id, &mut desk);
        message.decide(id, &mut desk);
        let mut lanes = Vec::new();
        if !self.draining {
            for group in message.groups_due(at.tick) {
                let Some(known) = message.groups.get_mut(group as usize) else {
                    continue;
                };
                known.phase = Phase::Ready;
                let lane = self.lanes.entry(known.route).or_default();
                lane.push(id, group, known.attempts > 0);
                lanes.push(known.route);
            }
        }
        let next = message.next_look(&self.terms, self.draining);
        self.arm(id, next);
        for lane in lanes {
            self.start(lane);
        }
        self.count(id);
    }

    /// Keeps the count of messages of which something is under way.
    fn count(&mut self, id: QueueId) {
        if let Some(message) = self.messages.get_mut(&id) {
            let open = message.is_open();
            match (std::mem::replace(&mut message.open, open), open) {
                (false, true) => self.open += 1,
                (true, false) => self.open -= 1,
                _ => {}
            }
        }
    }

    /// Begins attempts of a route while it may have more.
    pub(super) fn start(&mut self, route: u16) {
        while let Some((id, group)) = self.pop_ready(route) {
            if let Some(message) = self.messages.get_mut(&id) {
                let recipients = message.waiting_of(group);
                message.begin_attempt(group, true);
                self.actions.push_back(Action::Attempt { id, group, recipients });
                self.count(id);
            }
        }
    }

    /// The next group of a route that may be tried now; it counts as running.
    fn pop_ready(&mut self, route: u16) -> Option<(QueueId, usize)> {
        let lane = self.lanes.get_mut(&route)?;
        while !self.draining && lane.running < self.terms.attempts.max(1) {
            let (id, group) = lane.pop()?;
            let group = group as usize;
            let message = self.messages.get(&id).filter(|message| message.may_be_tried());
            let known = message.and_then(|message| message.groups.get(group));
            // It may have been held, removed or given up since it came here.
            if known.is_some_and(|known| known.phase == Phase::Ready && known.route == route) {
                lane.running += 1;
                return Some((id, group));
            }
        }
        None
    }

    /// Whether there was an attempt to end.
    pub(super) fn end_attempt(&mut self, id: QueueId, group: usize, at: Now) -> bool {
        let Some(message) = self.messages.get_mut(&id) else {
            return false;
        };
        let Some(known) = message.groups.get_mut(group) else {
            return false;
        };
        let Phase::Running { in_lane } = known.phase else {
            return false;
        };
        known.phase = Phase::Idle;
        known.tried = true;
        known.is_tried_at(at.unix);
        known.attempts = known.attempts.saturating_add(1);
        known.due = at.tick.after(self.terms.retry.wait(known.attempts));
        let route = known.route;
        message.running -= 1;
        message.changed = true;
        if in_lane && let Some(lane) = self.lanes.get_mut(&route) {
            lane.running -= 1;
            self.start(route);
        }
        true
    }

    /// Sets the time of the next look.
    pub(super) fn arm(&mut self, id: QueueId, next: Option<(bool, Tick)>) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        if message.armed == next {
            return;
        }
        match std::mem::replace(&mut message.armed, next) {
            Some((true, tick)) => drop(self.urgent.remove(&(tick, id))),
            Some((false, tick)) => drop(self.later.remove(&(tick, id))),
            None => {}
        }
        match next {
            Some((true, tick)) => drop(self.urgent.insert((tick, id))),
            Some((false, tick)) => drop(self.later.insert((tick, id))),
            None => {}
        }
    }
}

impl Message {
    pub fn begin_attempt(&mut self, group: usize, in_lane: bool) {
        if let Some(group) = self.groups.get_mut(group) {
            group.phase = Phase::Running { in_lane };
            self.running += 1;
        }
    }

    pub fn client_waits(&self) -> bool {
        matches!(self.standing, Standing::Waits(_) | Standing::WaitsForDurable)
    }

    /// Whether new attempts may begin: the one of a waiting client begins with the message.
    pub fn may_be_tried(&self) -> bool {
        self.standing == Standing::Ours && !self.held && !self.removed && !self.settled
    }

    /// Whether what is not delivered will be dropped, not tried again.
    pub fn is_to_be_dropped(&self) -> bool {
        self.standing == Standing::Theirs || self.removed
    }

    /// Tries whoever waits for a retry now.
    pub fn hasten(&mut self, now: Tick) {
        for group in &mut self.groups {
            group.due = group.due.min(now);
        }
    }

    /// Groups whose time has come.
    fn groups_due(&self, now: Tick) -> Vec<u32> {
        if self.waiting == 0 || !self.may_be_tried() {
            return Vec::new();
        }
        let due = (0..).zip(&self.groups);
        due.filter(|(_, g)| g.phase == Phase::Idle && g.waiting > 0 && g.due <= now)
            .map(|(index, _)| index)
            .collect()
    }

    /// When to look at it next, and whether a client waits.
    fn next_look(&self, terms: &Terms, draining: bool) -> Option<(bool, Tick)> {
        if self.settled || draining {
            return None;
        }
        let rests = self.reporting.is_none() && self.stored != super::message::Stored::Asked;
        match self.standing {
            Standing::Waits(by) => (rests && self.waiting > 0).then_some((true, by)),
            Standing::WaitsForDurable | Standing::Theirs => None,
            Standing::Ours => {
                let owed = self.owed_failures + self.owed_successes > 0;
                let report = (owed && self.reporting.is_none() && self.running == 0).then_some(self.report_after);
                let notice = self
                    .delay_notice(terms)
                    .filter(|_| self.reporting.is_none() && self.running == 0);
                let notice = notice.map(|due| due.max(self.report_after));
                let groups = self
                    .groups
                    .iter()
                    .filter(|g| g.waiting > 0 && !self.held && !g.is_running());
                let expire = self.arrived.after(terms.expire);
                let groups = groups.filter_map(|g| match g.phase {
                    Phase::Idle if g.tried => Some(g.due.min(expire)),
                    Phase::Idle => Some(g.due),
                    Phase::Ready if g.tried => Some(expire),
                    _ => None,
                });
                let next = groups.chain(report).chain(notice).min()?;
                Some((false, next))
            }
        }
    }
}
