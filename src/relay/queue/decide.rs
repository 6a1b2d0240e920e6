//! What a message needs now: the rules of acknowledgement, reports and the end, in one place.
//!
//! Promises: an acknowledgement rests on a next hop, on the spool, or on a durable report; `Acknowledge` or `Refuse` is said
//! once, and `Settle` once and last. Nothing here looks at a clock or at another message. Lives in its queue.
//!
//! ```text
//!            all taken, or taken and refused with nobody to tell ──► 250 (next hop)
//!            all refused for good ───────────────────────────────► the hop's 5xx
//!   Waits ── taken and refused, and a sender to tell ── Report ── reported() ──► 250
//!            deferred, too late, draining ── Persist ─┬ durable() ──► 250 (spool)
//!                                                     └ cannot_persist() ──► 452
//!            client_gone() ──► theirs again: what no hop takes any more is dropped
//! ```

use std::collections::VecDeque;

use super::Terms;
use super::action::{Action, Delivery, Indices, Refusal, Status};
use super::message::{Message, Phase, Standing, State, Stored};
use super::tick::{Now, Tick};
use crate::relay::report;
use crate::smtp::session::Custody;
use crate::spool::QueueId;

/// Where decisions go, and what they depend on beside the message.
pub(super) struct Desk<'a> {
    pub actions: &'a mut VecDeque<Action>,
    pub terms: &'a Terms,
    pub draining: bool,
    pub at: Now,
}

impl Message {
    /// After anything that happened: says what is to be done.
    pub fn decide(&mut self, id: QueueId, desk: &mut Desk<'_>) {
        if self.settled {
            return;
        }
        if matches!(self.standing, Standing::Waits(_) | Standing::WaitsForDurable) {
            self.while_the_client_waits(id, desk);
        }
        match self.standing {
            Standing::Ours => self.while_it_is_ours(id, desk),
            Standing::Theirs => {
                self.drop_idle(id, desk);
                self.settled = self.running == 0 && self.is_quiet();
            }
            Standing::Waits(_) | Standing::WaitsForDurable => {}
        }
        if self.settled {
            desk.actions.push_back(Action::Settle(id));
        } else if std::mem::take(&mut self.changed) && self.stored != Stored::No && self.standing != Standing::Theirs {
            desk.actions.push_back(Action::Update(id, self.progress(desk.at)));
        }
    }

    fn while_the_client_waits(&mut self, id: QueueId, desk: &mut Desk<'_>) {
        if self.stored == Stored::Durable {
            self.acknowledge(id, Custody::Spool, desk);
        } else if self.reporting.is_some() {
            // Its 250 will rest on the report.
        } else if self.waiting > 0 {
            let too_late = match self.standing {
                Standing::Waits(until) => desk.at.tick >= until || self.has_idle() || desk.draining,
                _ => true,
            };
            if too_late {
                self.persist(id, desk);
            }
        } else if let Some(reply) = self.all_failed() {
            let reply = reply.clone();
            self.refuse(id, Refusal::Hop(reply), desk);
        } else if self.owed_failures == 0 {
            let custody = if self.relayed || self.failed > 0 {
                Custody::NextHop
            } else {
                Custody::Delivered
            };
            self.acknowledge(id, custody, desk);
        } else if desk.draining {
            // The next process will report.
            self.persist(id, desk);
        } else if self.stored == Stored::No {
            self.begin_report(id, report::Kind::Failure, desk);
        }
    }

    fn while_it_is_ours(&mut self, id: QueueId, desk: &mut Desk<'_>) {
        if self.removed {
            self.drop_idle(id, desk);
            if self.reporting.is_none() {
                self.owe_nothing();
            }
        }
        let may_report = self.reporting.is_none() && self.running == 0 && desk.at.tick >= self.report_after;
        if may_report && !desk.draining {
            if self.owed_failures > 0 {
                self.begin_report(id, report::Kind::Failure, desk);
            } else if self.owed_successes > 0 {
                self.begin_report(id, report::Kind::Success, desk);
            } else if self.delay_notice(desk.terms).is_some_and(|due| desk.at.tick >= due)
                && !self.begin_report(id, report::Kind::Delay, desk)
            {
                // Nobody is to hear of it.
                self.notified = true;
            }
        }
        let owed = self.owed_failures + self.owed_successes;
        self.settled = self.waiting == 0 && owed == 0 && self.running == 0 && self.is_quiet();
    }

    /// When the sender is to be told that the message is late.
    pub fn delay_notice(&self, terms: &Terms) -> Option<Tick> {
        let told = self.notified || self.held || self.removed || self.waiting == 0 || self.stored != Stored::Durable;
        (!told).then(|| self.arrived.after(terms.delay_notice))
    }

    fn persist(&mut self, id: QueueId, desk: &mut Desk<'_>) {
        if self.stored == Stored::No {
            self.stored = Stored::Asked;
            desk.actions.push_back(Action::Persist(id));
        }
    }

    pub fn acknowledge(&mut self, id: QueueId, custody: Custody, desk: &mut Desk<'_>) {
        self.standing = Standing::Ours;
        if custody == Custody::Spool {
            // It may stay for days.
            self.envelope.recipients.shrink_to_fit();
        }
        desk.actions.push_back(Action::Acknowledge(id, custody));
    }

    pub fn refuse(&mut self, id: QueueId, refusal: Refusal, desk: &mut Desk<'_>) {
        self.standing = Standing::Theirs;
        desk.actions.push_back(Action::Refuse(id, refusal));
    }

    /// Whether there was anything to report.
    fn begin_report(&mut self, id: QueueId, kind: report::Kind, desk: &mut Desk<'_>) -> bool {
        let until = desk.at.unix_of(self.arrived.after(desk.terms.expire));
        let Some((telling, report)) = self.report(id, kind, until) else {
            return false;
        };
        self.reporting = Some(Box::new(telling));
        desk.actions.push_back(Action::Report(Box::new(report)));
        true
    }

    /// Gives up who is being tried for too long. A message that was found at start is tried once more before.
    pub fn expire(&mut self, id: QueueId, desk: &mut Desk<'_>) {
        if self.standing != Standing::Ours || self.held || desk.draining {
            return;
        }
        if desk.at.tick < self.arrived.after(desk.terms.expire) {
            return;
        }
        for index in 0..self.groups.len() {
            let Some(group) = self.groups.get_mut(index) else {
                return;
            };
            if matches!(group.phase, Phase::Running { .. }) || group.waiting == 0 {
                continue;
            }
            if !group.tried {
                group.due = group.due.min(desk.at.tick);
                continue;
            }
            group.phase = Phase::Idle;
            let recipients = self.waiting_of(index);
            self.log(id, index, recipients.clone(), Status::Expired, desk);
            for recipient in recipients {
                let last = self.last_said(recipient as usize);
                self.fails(recipient as usize, Message::given_up(last.as_ref()));
            }
        }
    }

    /// Drops who is not being tried at this moment.
    fn drop_idle(&mut self, id: QueueId, desk: &mut Desk<'_>) {
        if self.waiting == 0 {
            return;
        }
        for index in 0..self.groups.len() {
            let idle = self.groups.get(index).filter(|group| !group.is_running());
            if idle.is_some_and(|group| group.waiting > 0) {
                let recipients = self.waiting_of(index);
                self.log(id, index, recipients.clone(), Status::Dropped, desk);
                for recipient in recipients {
                    self.becomes(recipient as usize, State::Settled);
                }
            }
        }
    }

    /// One line for recipients of a group that share what was last said; more where it differs.
    fn log(&self, id: QueueId, group: usize, recipients: Indices, status: Status, desk: &mut Desk<'_>) {
        let mut line: Option<Delivery> = None;
        for recipient in recipients {
            let said = self.last_said(recipient as usize);
            match &mut line {
                Some(line) if line.said == said => line.recipients.push(recipient),
                _ => {
                    let next = Delivery {
                        id,
                        group,
                        recipients: [recipient].into_iter().collect(),
                        status,
                        said,
                        delay: desk.at.tick.since(self.arrived),
                        attempts: self.groups.get(group).map_or(0, |g| g.attempts),
                    };
                    desk.actions.extend(line.replace(next).map(Action::Log));
                }
            }
        }
        desk.actions.extend(line.map(Action::Log));
    }

    /// Nobody owes an answer about it but a hop.
    fn is_quiet(&self) -> bool {
        self.stored != Stored::Asked && self.reporting.is_none()
    }

    fn has_idle(&self) -> bool {
        self.groups.iter().any(|group| group.waiting > 0 && !group.is_running())
    }

    /// Whether anything is under way: what a drain waits for.
    pub fn is_open(&self) -> bool {
        let client_waits = matches!(self.standing, Standing::Waits(_) | Standing::WaitsForDurable);
        !self.settled && (client_waits || self.running > 0 || !self.is_quiet())
    }
}
