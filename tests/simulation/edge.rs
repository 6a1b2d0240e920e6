//! The edge as a shard drives it, and the chance that decides what happens next.
//!
//! Everything is smaller than in a shard, so that a short course of events passes every bound: a segment of the spool has 32 KiB,
//! a message goes to the spool from 4 KiB on, and 24 KiB are all the memory there is for messages.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern::policy::tally::{Column, Tally};
use postern::relay::next_hop::Health;
use postern::relay::queue::{Action, Moment, NewGroup, Queue, Refusal, Terms as QueueTerms};
use postern::relay::retry::Schedule;
use postern::smtp::envelope::Envelope;
use postern::smtp::extension::Offered;
use postern::smtp::limits::Limits;
use postern::smtp::oxsmtp::Reply;
use postern::smtp::session::Terms;
use postern::smtp::{BareNewline, Edition, Role};
use postern::spool::{DirectoryId, QueueId, Settings, Spool, Work};
use postern::timer::{Look, TimerWheel};

use crate::disk::{Chance, MemoryDisk};
use crate::hub::Attempt;
use crate::ledger::Ledger;
use crate::parcel::{Parcel, Shelf};
use crate::sessions::Visit;

/// The last one speaks LMTP.
pub const HUBS: usize = 3;
/// Octets that all messages in memory may have.
const MEMORY: usize = 24 << 10;
const MINUTE: Duration = Duration::from_secs(60);
/// Octets that may wait for the disk before sessions wait too.
const ROOM: usize = 16 << 10;

pub struct Edge {
    pub chance: Chance,
    crashes: bool,
    pub now: Instant,
    pub begun: Instant,
    pub terms: Arc<Terms>,
    tally: Arc<Tally>,
    pub column: Rc<Column>,
    pub wheel: TimerWheel,
    pub visits: BTreeMap<usize, Visit>,
    pub visitors: usize,
    pub queue: Queue,
    pub health: Health<u8>,
    pub attempts: Vec<Attempt>,
    pub parcels: BTreeMap<QueueId, Parcel>,
    /// Octets of messages in memory.
    pub held: usize,
    /// Reports on their way to the disk, and what they are about.
    pub reports: BTreeMap<QueueId, QueueId>,
    pub spool: Spool,
    pub disk: MemoryDisk,
    pub salts: Vec<u64>,
    pub works: Vec<Work>,
    ids: u64,
    pub tokens: u64,
    /// How often in a hundred something is refused for now.
    pub trouble: usize,
    pub draining: bool,
    pub drains: usize,
    pub ledger: Ledger,
}

pub fn queue_terms() -> QueueTerms {
    QueueTerms {
        retry: Schedule::new([15, 60, 300, 900, 3600].map(Duration::from_secs).to_vec()),
        expire: Duration::from_secs(48 * 3600),
        delay_notice: Duration::from_secs(4 * 3600),
        attempts: 3,
    }
}

pub const SETTINGS: Settings = Settings {
    segment_size: 32 << 10,
    adopted_segment_size: 32 << 10,
    alignment: 512,
    spares: 1,
};

impl Edge {
    pub fn new(seed: u64, crashes: bool) -> Edge {
        let mut chance = Chance(seed);
        let now = Instant::now();
        let (mut disk, salt) = (MemoryDisk::default(), chance.next());
        disk.make(salt);
        let tally = Tally::new(1, 64, 1);
        let mut limits = Limits::of(Role::Gateway);
        if chance.coin() {
            // Some messages turn out to be too large when a part of them is in the spool.
            limits.max_message_size = 20 << 10;
        }
        let terms = Terms {
            auth: Default::default(),
            hostname: "edge.test".into(),
            edition: Edition::Y2021,
            limits,
            offered: Offered::of(Edition::Y2021, &[], false),
            bare_newline: BareNewline::Refuse,
            require_tls: false,
        };
        Edge {
            crashes,
            now,
            begun: now,
            terms: Arc::new(terms),
            column: Rc::new(tally.column(0)),
            tally,
            wheel: TimerWheel::new(now),
            visits: BTreeMap::new(),
            visitors: 0,
            queue: Queue::new(queue_terms(), at(now, now)),
            health: Health::new(),
            attempts: Vec::new(),
            parcels: BTreeMap::new(),
            held: 0,
            reports: BTreeMap::new(),
            spool: Spool::new(SETTINGS, salt),
            disk,
            salts: vec![salt],
            works: Vec::new(),
            ids: 0,
            tokens: 0,
            trouble: chance.below(3) * 20,
            draining: false,
            drains: 0,
            ledger: Ledger::default(),
            chance,
        }
    }

    pub fn course(&self) -> (u64, Duration) {
        (self.ledger.course, self.now - self.begun)
    }

    /// Anything may happen.
    pub fn storm(&mut self) {
        for _ in 0..20 + self.chance.below(300) {
            let event = self.chance.below(42);
            self.ledger.note(event as u64);
            match event {
                0..=2 => self.connect(),
                3..=12 => self.talk(),
                13..=21 => self.hop(false),
                22..=29 => self.work(self.crashes),
                30..=31 => self.break_link(),
                32..=33 => self.hang_up(),
                34..=37 => self.pass(),
                38 if self.crashes && self.chance.below(6) == 0 => self.crash(),
                39 if self.chance.below(8) == 0 => self.drain(),
                40 => {
                    self.spool.idle();
                    self.collect();
                }
                _ => self.talk(),
            }
        }
    }

    /// From now on everything goes well, and everything comes to its end.
    pub fn calm(&mut self) {
        self.trouble = 0;
        for _ in 0..20_000 {
            while !self.works.is_empty() {
                self.work(false);
            }
            if self.visits.values().any(Visit::may_talk) && self.chance.coin() {
                self.talk();
            } else if !self.attempts.is_empty() {
                self.hop(true);
            } else if self.visits.is_empty() && self.queue.is_empty() {
                self.spool.idle();
                self.collect();
                if self.works.is_empty() {
                    return;
                }
            } else {
                self.spool.idle();
                self.collect();
                self.talk();
                self.pass();
            }
        }
        let links: Vec<String> = self.attempts.iter().map(Attempt::shown).collect();
        let visits: Vec<String> = self.visits.values().map(Visit::shown).collect();
        panic!(
            "no end: {} queued, visits {visits:?}, attempts {links:?}, {} octets wait, due {:?}",
            self.queue.len(),
            self.spool.waiting_octets(),
            self.queue.next_due().map(|due| due.saturating_duration_since(self.now)),
        );
    }

    pub fn judge(&self) {
        self.ledger.judge();
        assert_eq!(self.tally.connections(0), 0, "a connection is counted that is gone");
        assert_eq!(self.held, 0, "memory is held for nobody");
        assert!(self.parcels.is_empty() && self.reports.is_empty());
        assert_eq!(self.spool.messages(), 0, "the spool keeps what is settled");
    }

    pub fn at(&self) -> Moment {
        at(self.now, self.begun)
    }

    pub fn next_id(&mut self) -> QueueId {
        self.ids += 1;
        QueueId::from_number(self.ids)
    }

    pub fn is_short_of_memory(&self) -> bool {
        self.held > MEMORY
    }

    pub fn has_room(&self) -> bool {
        self.spool.waiting_octets() < ROOM
    }

    pub fn shelf(&self) -> Shelf<'_> {
        Shelf {
            spool: &self.spool,
            disk: &self.disk,
            salts: &self.salts,
        }
    }

    pub fn salt(&self, directory: DirectoryId) -> u64 {
        self.salts[directory.0 as usize]
    }

    /// Does what the queue wants, and hears what the spool tells, until both are silent.
    pub fn collect(&mut self) {
        loop {
            if let Some(action) = self.queue.next_action() {
                self.act(action);
            } else if let Some(news) = self.spool.next_news() {
                self.hear(news);
            } else if let Some(work) = self.spool.next_work() {
                self.works.push(work);
            } else {
                return;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Attempt { id, group, recipients } => self.attempt(id, group, &recipients),
            Action::Persist(id) => self.persist(id),
            Action::Acknowledge(id, custody) => {
                if self.visits.values().any(|visit| visit.waits == Some(id)) {
                    self.ledger.may_be_acknowledged(id);
                }
                self.reply(id, |session, now| session.acknowledge(custody, id.as_str(), now));
            }
            Action::Refuse(id, Refusal::Hop(reply)) => {
                self.reply(id, |session, now| session.refuse_as_hop(&reply.to_string(), now));
            }
            Action::Refuse(id, Refusal::CannotStore) => {
                self.reply(id, |session, now| session.refuse(Reply::CannotStore, now));
            }
            Action::Update(id, progress) => self.spool.update(id, &progress),
            Action::Settle(id) => self.settle(id),
            Action::Report(report) => self.report(*report),
            Action::Log(_) => {}
        }
    }

    /// Time passes: up to the next thing that is due, or a part of it.
    pub fn pass(&mut self) {
        let links = self.attempts.iter().filter_map(|a| a.link.as_ref()?.deadline());
        let next = links.chain(self.queue.next_due()).chain(self.wheel.next()).min();
        let wait = next.map_or(Duration::from_secs(1), |next| next.saturating_duration_since(self.now));
        // A delivery that is under way has its turn before days are over.
        let wait = if self.attempts.is_empty() {
            wait
        } else {
            wait.min(MINUTE)
        };
        self.now += match self.chance.below(3) {
            0 => wait / 2,
            _ => wait,
        };
        if self.queue.next_due().is_some_and(|due| due <= self.now) {
            self.queue.turn(self.at());
            self.collect();
        }
        self.expire_links();
        let mut due = Vec::new();
        let (visits, now) = (&mut self.visits, self.now);
        self.wheel.turn(now, |key| match visits.get(&key) {
            None => Look::Gone,
            Some(visit) if visit.session.deadline() <= now && visit.may_talk() => {
                due.push(key);
                Look::Fired
            }
            Some(visit) => Look::At(visit.session.deadline().max(now)),
        });
        for key in due {
            if let Some(visit) = self.visits.get_mut(&key) {
                visit.session.expire(now);
                self.run(key);
                assert!(!self.visits.contains_key(&key), "a session outlives its timer");
            }
        }
    }
}

pub fn at(now: Instant, begun: Instant) -> Moment {
    Moment {
        now,
        unix: 1_795_221_819 + (now - begun).as_secs(),
    }
}

/// By the hub of each recipient.
pub fn groups(envelope: &Envelope) -> Vec<NewGroup> {
    let mut groups: Vec<NewGroup> = Vec::new();
    for (index, recipient) in (0..).zip(&envelope.recipients) {
        let domain = recipient.forward_path.mailbox().unwrap().domain();
        let route = (0..HUBS as u16).find(|hub| domain == format!("h{hub}.test")).unwrap();
        match groups.iter_mut().find(|group| group.route == route) {
            Some(group) => group.recipients.push(index),
            None => groups.push(NewGroup {
                route,
                domain: None,
                recipients: [index].into_iter().collect(),
            }),
        }
    }
    groups
}
