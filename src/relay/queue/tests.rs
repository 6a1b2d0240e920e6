//! The queue on virtual time: a rig that says what happened and reads what is to be done.

mod acknowledgement;
mod operator;
mod properties;
mod reports;
mod reroute;
mod retries;

use std::time::{Duration, Instant};

use super::*;
use crate::smtp::client::{HopReply, Outcome};
use crate::smtp::envelope::{MailParameters, Notify, RcptParameters, Recipient};
use crate::smtp::path::{ForwardPath, Mailbox, ReversePath};
use crate::spool::Progress;

pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DELAY: Duration = Duration::from_secs(30);

pub struct Rig {
    pub queue: Queue,
    pub at: Moment,
    /// The last that the spool was told of each message.
    pub updates: Vec<(QueueId, Progress)>,
    pub reports: Vec<crate::relay::report::Report>,
}

pub fn terms() -> Terms {
    Terms {
        retry: Schedule::new([15, 60, 300, 900, 3600].map(Duration::from_secs).to_vec()),
        expire: 48 * HOUR,
        delay_notice: 4 * HOUR,
        attempts: 100,
    }
}

pub fn id(number: u64) -> QueueId {
    QueueId::from_number(number)
}

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

/// From `sender`, or from nobody, to so many.
pub fn envelope(sender: &str, recipients: usize) -> Envelope {
    let recipient = |n| Recipient {
        forward_path: ForwardPath::Mailbox(mailbox(&format!("r{n}@b.test"))),
        parameters: RcptParameters::default(),
    };
    Envelope {
        reverse_path: match sender {
            "" => ReversePath::Null,
            sender => ReversePath::Mailbox(mailbox(sender)),
        },
        mail: MailParameters::default(),
        recipients: (0..recipients).map(recipient).collect(),
    }
}

/// A message with a group for each list of recipients.
pub fn message(number: u64, groups: &[&[u32]], client: Client) -> NewMessage {
    let recipients = groups.iter().map(|g| g.len()).sum();
    NewMessage {
        id: id(number),
        envelope: envelope("s@a.test", recipients),
        groups: groups_of(groups),
        size: 1000,
        authenticated: false,
        client,
    }
}

pub fn groups_of(groups: &[&[u32]]) -> Vec<NewGroup> {
    let group = |(route, recipients): (u16, &&[u32])| NewGroup {
        route,
        domain: None,
        recipients: recipients.iter().copied().collect(),
    };
    (0..).zip(groups).map(group).collect()
}

pub fn notify(message: &mut NewMessage, recipient: usize, notify: Notify) {
    message.envelope.recipients[recipient].parameters.notify = Some(notify);
}

pub fn on(success: bool, failure: bool, delay: bool) -> Notify {
    Notify::On {
        success,
        failure,
        delay,
    }
}

pub fn ok() -> Outcome {
    Outcome::Delivered(HopReply::heard(250, b"2.0.0 Taken"))
}

pub fn later() -> Outcome {
    Outcome::Deferred(HopReply::heard(451, b"4.3.0 Later"))
}

pub fn never() -> Outcome {
    Outcome::Failed(HopReply::heard(550, b"5.1.1 Unknown"))
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(terms())
    }

    pub fn with(terms: Terms) -> Rig {
        let at = Moment {
            now: Instant::now(),
            unix: 1_000_000,
        };
        Rig {
            queue: Queue::new(terms, at),
            at,
            updates: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// Takes a message whose client waits for the usual delay.
    pub fn take(&mut self, number: u64, groups: &[&[u32]]) {
        self.queue.take(message(number, groups, self.waits()), self.at);
    }

    pub fn waits(&self) -> Client {
        Client::Waits {
            acknowledge_by: self.at.now + DELAY,
        }
    }

    /// Takes a message and brings it to where it is ours, durable, and everything was deferred once.
    pub fn deferred(&mut self, message: NewMessage) {
        let (id, groups) = (message.id, message.groups.len());
        let groups: Vec<Vec<u32>> = (0..groups).map(|g| message.groups[g].recipients.to_vec()).collect();
        self.queue.take(message, self.at);
        for (group, recipients) in groups.iter().enumerate() {
            let outcomes = recipients.iter().map(|&r| (r, later())).collect();
            self.queue.outcomes(id, group, &hop(false), outcomes, self.at);
        }
        self.queue.durable(id, self.at);
        self.said();
    }

    /// A message to one recipient comes back after a restart, with what was noted of it.
    pub fn recovers(&mut self, number: u64, progress: Progress) {
        let recovered = Recovered {
            id: id(number),
            envelope: envelope("s@a.test", 1),
            groups: groups_of(&[&[0]]),
            size: 1,
            authenticated: false,
            arrived: self.at.unix,
            progress: Some(progress),
        };
        self.queue.recovered(recovered, self.at);
        self.queue.turn(self.at);
    }

    pub fn outcome(&mut self, number: u64, group: usize, outcomes: &[(u32, Outcome)]) {
        self.queue
            .outcomes(id(number), group, &hop(false), outcomes.to_vec(), self.at);
    }

    pub fn durable(&mut self, number: u64) {
        self.queue.durable(id(number), self.at);
    }

    /// Lets time pass at once, then turns.
    pub fn pass(&mut self, time: Duration) {
        self.at.now += time;
        self.at.unix += time.as_secs();
        self.queue.turn(self.at);
    }

    /// Lets time pass to the next time that something is due, and turns: what was said.
    pub fn next(&mut self) -> (Duration, Vec<String>) {
        let due = self.queue.next_due().expect("nothing is due");
        let wait = due.saturating_duration_since(self.at.now);
        self.pass(wait);
        (wait, self.said())
    }

    /// What is to be done, as text: without Update and Log.
    pub fn said(&mut self) -> Vec<String> {
        self.all_said().into_iter().filter(|s| !s.starts_with("log")).collect()
    }

    /// What is to be done, as text: without Update.
    pub fn all_said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(action) = self.queue.next_action() {
            said.push(match action {
                Action::Attempt { id, group, recipients } => {
                    format!("attempt {} {group} {recipients:?}", id.number())
                }
                Action::Persist(id) => format!("persist {}", id.number()),
                Action::Acknowledge(id, custody) => format!("acknowledge {} {custody:?}", id.number()),
                Action::Refuse(id, Refusal::Hop(reply)) => format!("refuse {} {reply}", id.number()),
                Action::Refuse(id, Refusal::CannotStore) => format!("refuse {}", id.number()),
                Action::Settle(id) => format!("settle {}", id.number()),
                Action::Log(line) => format!("log {} {:?} {}", line.id.number(), line.recipients, line.status),
                Action::Update(id, progress) => {
                    self.updates.push((id, progress));
                    continue;
                }
                Action::Report(report) => {
                    let events: Vec<_> = report.recipients.iter().map(|r| r.event).collect();
                    let said = format!("report {} {events:?}", report.of.number());
                    self.reports.push(*report);
                    said
                }
            });
        }
        said
    }

    /// Settles what is left of the one message there is, and looks that nothing stays.
    pub fn ends_with_nothing(&mut self) {
        assert_eq!(self.queue.len(), 0);
        assert_eq!(self.queue.next_due(), None);
        assert_eq!(self.queue.open, 0);
        assert!(self.queue.lanes.values().all(|lane| lane.running == 0));
        self.queue.drain(self.at);
        assert!(self.queue.is_drained());
    }
}

/// A hop that does or does not take DSN.
pub fn hop(dsn: bool) -> Taker {
    Taker {
        hop: "hub.test".into(),
        kind: Kind::Relayed { dsn },
    }
}

pub const FINAL: Kind = Kind::Final;
