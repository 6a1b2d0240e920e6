//! Other routes for messages that wait: the configuration has changed since they came.
//!
//! Promises: nobody is forgotten or tried twice by it; attempts and times stay what they were; a message is given its new
//! routes when it is tried next, so that a reload costs nothing however many are queued. Lives in its queue.

use super::Queue;
use super::action::{Moment, NO_ROUTE, NewGroup};
use super::message::{Group, Message, Phase, State};
use super::tick::Now;
use crate::spool::QueueId;

impl Queue {
    /// The answer to an `Attempt` whose route holds no more: it is not made and does not count. `groups` are all recipients
    /// of the message by the routes of today; those that are not being tried at this moment go by them, at once where they
    /// are due.
    pub fn reroute(&mut self, id: QueueId, group: usize, groups: Vec<NewGroup>, at: Moment) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        let Some(known) = message.groups.get_mut(group) else {
            return;
        };
        let Phase::Running { in_lane } = known.phase else {
            return;
        };
        known.phase = Phase::Idle;
        let route = known.route;
        message.running -= 1;
        message.regroup(groups);
        if in_lane && let Some(lane) = self.lanes.get_mut(&route) {
            lane.running -= 1;
        }
        self.look(id, Now::of(at, self.epoch));
        self.start(route);
    }
}

impl Message {
    /// Makes all groups anew but those with an attempt under way, whose places are known outside.
    fn regroup(&mut self, groups: Vec<NewGroup>) {
        let nowhere = groups.len();
        let mut ways = vec![nowhere; self.recipients.len()];
        for (number, group) in groups.iter().enumerate() {
            for &recipient in &group.recipients {
                if let Some(way) = ways.get_mut(recipient as usize) {
                    *way = number;
                }
            }
        }
        let ends = groups.into_iter().map(|group| (group.route, group.domain));
        let mut ends: Vec<_> = ends.chain([(NO_ROUTE, None)]).collect();
        let mut places: Vec<Option<u32>> = vec![None; ends.len()];
        let mut made: Vec<Option<Group>> = self.groups.iter().map(|_| None).collect();
        let mut free = 0;
        for (recipient, way) in self.recipients.iter_mut().zip(ways) {
            let Some(old) = self.groups.get(recipient.group as usize).filter(|g| !g.is_running()) else {
                continue;
            };
            let (Some(place), Some((route, domain))) = (places.get_mut(way), ends.get_mut(way)) else {
                continue;
            };
            let place = *place.get_or_insert_with(|| {
                while self.groups.get(free).is_some_and(Group::is_running) {
                    free += 1;
                }
                free += 1;
                if made.len() < free {
                    made.resize_with(free, || None);
                }
                free as u32 - 1
            });
            if let Some(group) = made.get_mut(place as usize) {
                let group = group.get_or_insert_with(|| old.with_end(*route, domain.take()));
                group.inherit(old);
                group.waiting += u32::from(matches!(recipient.state, State::Waiting(_)));
            }
            recipient.group = place;
        }
        for (place, group) in made.into_iter().enumerate() {
            match (group, self.groups.get_mut(place)) {
                (Some(group), Some(old)) => *old = group,
                (Some(group), None) => self.groups.push(group),
                (None, Some(old)) if !old.is_running() => *old = old.with_end(NO_ROUTE, None),
                (None, _) => {}
            }
        }
    }
}

impl Group {
    /// An idle group of nobody, as often tried as this one.
    fn with_end(&self, route: u16, domain: Option<Box<str>>) -> Group {
        Group {
            domain,
            route,
            phase: Phase::Idle,
            waiting: 0,
            ..*self
        }
    }

    /// Some who are here now were there before: they have seen the most attempts of all, and are tried when the first is due.
    fn inherit(&mut self, old: &Group) {
        self.attempts = self.attempts.max(old.attempts);
        self.due = self.due.min(old.due);
        self.tried |= old.tried;
        self.tried_unix = self.tried_unix.max(old.tried_unix);
    }
}
