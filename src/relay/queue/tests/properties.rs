//! Whatever happens in whatever order: nobody is forgotten, nobody is tried twice at once, and a 250 rests on something.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::relay::report::{self, Report};
use crate::smtp::session::Custody;

/// Numbers from one seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }

    fn pick<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        let at = self.roll(from.len());
        (at < from.len()).then(|| from.swap_remove(at))
    }
}

/// What the world knows of a message.
#[derive(Debug, Default)]
struct Seen {
    recipients: Vec<Fortune>,
    client: bool,
    gone: bool,
    removed: bool,
    acknowledged: bool,
    refused: bool,
    asked: bool,
    durable: bool,
    reports: u32,
    settled: bool,
}

#[derive(Debug, Default)]
struct Fortune {
    trying: bool,
    delivered: bool,
    failed: bool,
    told: bool,
    excused: bool,
}

struct World {
    rig: Rig,
    dice: Dice,
    seen: BTreeMap<QueueId, Seen>,
    attempts: Vec<(QueueId, usize, Indices)>,
    persists: Vec<QueueId>,
    reports: Vec<Report>,
    messages: u64,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            rig: Rig::with(Terms { attempts: 3, ..terms() }),
            dice: Dice(seed | 1),
            seen: BTreeMap::new(),
            attempts: Vec::new(),
            persists: Vec::new(),
            reports: Vec::new(),
            messages: 0,
        }
    }

    fn take(&mut self) {
        self.messages += 1;
        let groups: &[&[u32]] = match self.dice.roll(4) {
            0 => &[&[0]],
            1 => &[&[0, 1]],
            2 => &[&[0], &[1, 2]],
            _ => &[&[2, 0], &[1], &[3]],
        };
        let client = match self.dice.roll(6) {
            0 => Client::WaitsForDurable,
            1 => Client::Nobody,
            _ => self.rig.waits(),
        };
        let mut new = message(self.messages, groups, client);
        new.authenticated = self.dice.roll(2) == 0;
        if self.dice.roll(5) == 0 {
            new.envelope.reverse_path = ReversePath::Null;
        }
        let mut seen = Seen {
            client: client != Client::Nobody,
            durable: client == Client::Nobody,
            asked: client == Client::Nobody,
            ..Seen::default()
        };
        for recipient in &mut new.envelope.recipients {
            recipient.parameters.notify = match self.dice.roll(6) {
                0 => Some(Notify::Never),
                1 => Some(on(true, false, true)),
                2 => Some(on(true, true, true)),
                _ => None,
            };
            let silent = matches!(
                recipient.parameters.notify,
                Some(Notify::Never | Notify::On { failure: false, .. })
            );
            seen.recipients.push(Fortune {
                excused: silent || new.envelope.reverse_path == ReversePath::Null,
                ..Fortune::default()
            });
        }
        self.seen.insert(new.id, seen);
        self.rig.queue.take(new, self.rig.at);
    }

    /// Ends an attempt somehow; `well`: everybody is delivered.
    fn end_attempt(&mut self, well: bool) {
        let Some((id, group, recipients)) = self.dice.pick(&mut self.attempts) else {
            return;
        };
        let nobody = !well && self.dice.roll(6) == 0;
        let seen = self.seen.get_mut(&id).unwrap();
        let mut outcomes = Vec::new();
        for recipient in recipients {
            let fortune = &mut seen.recipients[recipient as usize];
            fortune.trying = false;
            if nobody {
                continue;
            }
            let outcome = match self.dice.roll(if well { 1 } else { 4 }) {
                0 => ok(),
                1 => never(),
                2 => later(),
                _ => continue,
            };
            fortune.delivered = matches!(outcome, Outcome::Delivered(_));
            fortune.failed = matches!(outcome, Outcome::Failed(_));
            outcomes.push((recipient, outcome));
        }
        if nobody {
            let reply = HopReply::heard(451, b"4.4.1 Nobody");
            return self.rig.queue.no_hop(id, group, reply, self.rig.at);
        }
        let kind = match self.dice.roll(3) {
            0 => Kind::Final,
            n => Kind::Relayed { dsn: n == 1 },
        };
        let taker = Taker {
            hop: "hub.test".into(),
            kind,
        };
        self.rig.queue.outcomes(id, group, &taker, outcomes, self.rig.at);
    }

    /// The route of an attempt holds no more: everybody of its message goes some other way.
    fn reroute(&mut self) {
        let Some((id, group, recipients)) = self.dice.pick(&mut self.attempts) else {
            return;
        };
        let seen = self.seen.get_mut(&id).unwrap();
        for recipient in recipients {
            seen.recipients[recipient as usize].trying = false;
        }
        let routes = 1 + self.dice.roll(4);
        let mut groups: Vec<NewGroup> = Vec::new();
        for route in 0..routes {
            groups.extend(groups_of(&[&[]]).into_iter().map(|g| NewGroup {
                route: route as u16,
                ..g
            }));
        }
        for recipient in 0..seen.recipients.len() as u32 {
            // Some have no route.
            if let Some(group) = groups.get_mut(self.dice.roll(routes + 1)) {
                group.recipients.push(recipient);
            }
        }
        self.rig.queue.reroute(id, group, groups, self.rig.at);
    }

    fn end_persist(&mut self, well: bool) {
        let Some(id) = self.dice.pick(&mut self.persists) else {
            return;
        };
        if well || self.dice.roll(4) > 0 {
            self.seen.get_mut(&id).unwrap().durable = true;
            self.rig.queue.durable(id, self.rig.at);
        } else {
            self.seen.get_mut(&id).unwrap().asked = false;
            self.rig.queue.cannot_persist(id, self.rig.at);
        }
    }

    fn end_report(&mut self, well: bool) {
        let Some(report) = self.dice.pick(&mut self.reports) else {
            return;
        };
        let seen = self.seen.get_mut(&report.of).unwrap();
        seen.reports -= 1;
        if !well && self.dice.roll(4) == 0 {
            return self.rig.queue.cannot_report(report.of, self.rig.at);
        }
        if report.kind == report::Kind::Failure {
            for notice in &report.recipients {
                let text = notice.recipient.forward_path.as_str();
                let index: usize = text[1..text.find('@').unwrap()].parse().unwrap();
                let fortune = &mut seen.recipients[index];
                assert!(!fortune.told && !fortune.delivered, "{text} was told already");
                fortune.told = true;
            }
        }
        self.rig.queue.reported(report.of, self.rig.at);
    }

    fn someone(&mut self) -> QueueId {
        id(1 + self.dice.roll(self.messages as usize) as u64)
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0..=3 => self.take(),
            4..=9 => self.end_attempt(false),
            10..=11 => self.end_persist(false),
            12..=13 => self.end_report(false),
            14 => {
                let id = self.someone();
                if let Some(seen) = self.seen.get_mut(&id).filter(|s| !s.acknowledged && !s.refused) {
                    seen.gone |= seen.client;
                }
                self.rig.queue.client_gone(id, self.rig.at);
            }
            15 => {
                let id = self.someone();
                if self.rig.queue.remove(id, self.rig.at).is_ok() {
                    self.seen.get_mut(&id).unwrap().removed = true;
                }
            }
            16 => {
                let id = self.someone();
                let _ = match self.dice.roll(3) {
                    0 => self.rig.queue.hold(id, self.rig.at),
                    1 => self.rig.queue.retry(id, self.rig.at),
                    _ => self.rig.queue.release(id, self.rig.at),
                };
            }
            17 if self.dice.roll(8) == 0 => self.rig.queue.retry_all(),
            17 | 18 => self.reroute(),
            _ => {
                let wait = [1, 10, 100, 10_000, 100_000][self.dice.roll(5)];
                self.rig.pass(wait * SECOND);
            }
        }
        self.hear();
    }

    /// Hears what is to be done, and holds it against what is known.
    fn hear(&mut self) {
        while let Some(action) = self.rig.queue.next_action() {
            match action {
                Action::Attempt { id, group, recipients } => {
                    let seen = self.live(id);
                    assert!(!recipients.is_empty());
                    for &recipient in &recipients {
                        let fortune = &mut seen.recipients[recipient as usize];
                        assert!(!fortune.trying && !fortune.delivered && !fortune.failed && !fortune.told);
                        fortune.trying = true;
                    }
                    self.attempts.push((id, group, recipients));
                }
                Action::Persist(id) => {
                    let seen = self.live(id);
                    assert!(!seen.asked && !seen.durable && !seen.refused && !seen.gone);
                    seen.asked = true;
                    self.persists.push(id);
                }
                Action::Acknowledge(id, custody) => {
                    let seen = self.live(id);
                    assert!(seen.client && !seen.acknowledged && !seen.refused && !seen.gone);
                    seen.acknowledged = true;
                    let rests = |f: &Fortune| f.delivered || f.told || f.failed && f.excused;
                    match custody {
                        Custody::Spool => assert!(seen.durable || seen.recipients.iter().all(rests)),
                        _ => assert!(seen.recipients.iter().all(rests)),
                    }
                }
                Action::Refuse(id, refusal) => {
                    let seen = self.live(id);
                    assert!(seen.client && !seen.acknowledged && !seen.refused && !seen.gone);
                    seen.refused = true;
                    if let Refusal::Hop(reply) = refusal {
                        assert_eq!(reply.code, 550);
                        assert!(seen.recipients.iter().all(|f| f.failed));
                    }
                }
                Action::Update(id, progress) => {
                    let seen = self.live(id);
                    assert!(seen.asked || seen.durable);
                    assert_eq!(progress.recipients.len(), seen.recipients.len());
                }
                Action::Report(report) => {
                    let seen = self.live(report.of);
                    seen.reports += 1;
                    assert_eq!(seen.reports, 1, "one report at a time");
                    self.reports.push(*report);
                }
                Action::Log(line) => {
                    let seen = self.live(line.id);
                    if line.status == Status::Expired {
                        for recipient in line.recipients {
                            assert!(!seen.recipients[recipient as usize].trying);
                            seen.recipients[recipient as usize].failed = true;
                        }
                    }
                }
                Action::Settle(id) => self.settle(id),
            }
        }
    }

    fn live(&mut self, id: QueueId) -> &mut Seen {
        let seen = self.seen.get_mut(&id).unwrap();
        assert!(!seen.settled, "{id} was settled");
        seen
    }

    fn settle(&mut self, id: QueueId) {
        assert!(!self.persists.contains(&id));
        assert!(self.attempts.iter().all(|(other, ..)| *other != id));
        let seen = self.live(id);
        assert_eq!(seen.reports, 0);
        seen.settled = true;
        let theirs = seen.gone || seen.refused;
        assert!(!seen.client || seen.acknowledged || theirs, "the client still waits");
        let done = |f: &Fortune| f.delivered || f.told || f.failed && f.excused;
        assert!(theirs || seen.removed || seen.recipients.iter().all(done), "{seen:?}");
    }

    /// From now on everything goes well: everything comes to its end.
    fn finish(&mut self) {
        let held: Vec<QueueId> = self.rig.queue.list(None, self.rig.at).map(|l| l.id).collect();
        for id in held {
            let _ = self.rig.queue.release(id, self.rig.at);
        }
        for _ in 0..10_000 {
            self.hear();
            if !self.attempts.is_empty() {
                self.end_attempt(true);
            } else if !self.persists.is_empty() {
                self.end_persist(true);
            } else if !self.reports.is_empty() {
                self.end_report(true);
            } else if let Some(due) = self.rig.queue.next_due() {
                self.rig.pass(due.saturating_duration_since(self.rig.at.now));
            } else {
                break;
            }
        }
        let left: BTreeSet<_> = self
            .seen
            .iter()
            .filter(|(_, s)| !s.settled)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(left, BTreeSet::new());
        self.rig.ends_with_nothing();
        assert!(self.rig.queue.urgent.is_empty() && self.rig.queue.later.is_empty());
    }

    /// A stop: whatever is under way ends, and what is left is durable.
    fn stop(&mut self) {
        self.rig.queue.drain(self.rig.at);
        self.hear();
        while !(self.attempts.is_empty() && self.persists.is_empty() && self.reports.is_empty()) {
            self.end_attempt(false);
            self.hear();
            self.end_persist(false);
            self.hear();
            self.end_report(false);
            self.hear();
        }
        assert!(self.rig.queue.is_drained());
        for (id, seen) in self.seen.iter().filter(|(_, s)| !s.settled) {
            let mut done = seen
                .recipients
                .iter()
                .map(|f| f.delivered || f.told || f.failed && f.excused);
            assert!(seen.durable || done.all(|done| done), "{id} would be lost");
            assert!(!seen.client || seen.acknowledged);
        }
    }
}

proptest! {
    #[test]
    fn every_recipient_comes_to_its_end(seed: u64, steps in 1_usize..150) {
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step();
        }
        world.finish();
    }

    #[test]
    fn a_stop_at_any_time_loses_nothing(seed: u64, steps in 1_usize..100) {
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step();
        }
        world.stop();
    }
}
