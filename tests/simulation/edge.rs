//! The edge as a shard drives it, and the chance that decides what happens next.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern::policy::network::Source;
use postern::policy::tally::{Claim, Column, Tally};
use postern::relay::next_hop::{Health, Next, Round};
use postern::relay::queue::{
    Action, Client, Kind, Moment, NewGroup, NewMessage, Queue, Recovered, Refusal, Taker, Terms as QueueTerms,
};
use postern::relay::report::{Frame, Report, Returned};
use postern::relay::retry::Schedule;
use postern::smtp::client::Outcome;
use postern::smtp::envelope::Envelope;
use postern::smtp::extension::Offered;
use postern::smtp::limits::Limits;
use postern::smtp::oxsmtp::Reply;
use postern::smtp::session::{Session, Step, Terms, Verdict};
use postern::smtp::{BareNewline, Edition, Form, Role};
use postern::spool::{self, Content, DirectoryId, Head, QueueId, Settings, Spool, Work};
use postern::timer::{Look, TimerWheel};

use crate::disk::{Chance, MemoryDisk};
use crate::hub::{Attempt, Came, Link};
use crate::ledger::Ledger;
use crate::sender::{Letter, News, Sender};

const HUBS: usize = 2;
const ADDRESSES: u8 = 2;
const DELAY: Duration = Duration::from_secs(30);
const CLIENT: &str = "192.0.2.7";

/// A message as the shard has it in memory.
pub struct Parcel {
    pub token: u64,
    pub envelope: Envelope,
    pub fields: Vec<u8>,
    pub content: Vec<u8>,
    pub form: Form,
}

impl Parcel {
    /// Octets of content without doubled dots.
    pub fn size(&self) -> u64 {
        let dots = match self.form {
            Form::Dotted => self
                .content
                .split(|&b| b == b'\n')
                .filter(|line| line.starts_with(b"."))
                .count(),
            Form::Plain => 0,
        };
        (self.content.len() - dots) as u64
    }
}

/// A client and its session.
struct Visit {
    sender: Sender,
    session: Session,
    stored: Vec<u8>,
    /// The message whose reply it waits for.
    waits: Option<QueueId>,
    token: u64,
    _claim: Claim,
}

pub struct Edge {
    chance: Chance,
    crashes: bool,
    now: Instant,
    begun: Instant,
    terms: Arc<Terms>,
    tally: Arc<Tally>,
    column: Rc<Column>,
    wheel: TimerWheel,
    visits: BTreeMap<usize, Visit>,
    visitors: usize,
    queue: Queue,
    health: Health<u8>,
    attempts: Vec<Attempt>,
    parcels: BTreeMap<QueueId, Parcel>,
    /// Reports on their way to the disk, and what they are about.
    reports: BTreeMap<QueueId, QueueId>,
    spool: Spool,
    disk: MemoryDisk,
    salts: Vec<u64>,
    works: Vec<Work>,
    ids: u64,
    tokens: u64,
    trouble: usize,
    pub ledger: Ledger,
}

fn queue_terms() -> QueueTerms {
    QueueTerms {
        retry: Schedule::new([15, 60, 300, 900, 3600].map(Duration::from_secs).to_vec()),
        expire: Duration::from_secs(48 * 3600),
        delay_notice: Duration::from_secs(4 * 3600),
        attempts: 3,
    }
}

const SETTINGS: Settings = Settings {
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
        let terms = Terms {
            auth: Default::default(),
            hostname: "edge.test".into(),
            edition: Edition::Y2021,
            limits: Limits::of(Role::Gateway),
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
            reports: BTreeMap::new(),
            spool: Spool::new(SETTINGS, salt),
            disk,
            salts: vec![salt],
            works: Vec::new(),
            ids: 0,
            tokens: 0,
            trouble: chance.below(3) * 20,
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
            let event = self.chance.below(40);
            self.ledger.note(event as u64);
            match event {
                0..=2 => self.connect(),
                3..=12 => self.talk(),
                13..=21 => self.hop(false),
                22..=29 => self.work(self.crashes),
                30..=31 => self.break_link(),
                32 => self.hang_up(),
                33..=36 => self.pass(),
                37 if self.crashes && self.chance.below(6) == 0 => self.crash(),
                38 => {
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
            if self.visits.values().any(|v| v.waits.is_none()) && self.chance.coin() {
                self.talk();
            } else if !self.attempts.is_empty() {
                self.hop(true);
            } else if self.visits.is_empty() && self.queue.is_empty() {
                return;
            } else {
                self.talk();
                self.pass();
            }
        }
        panic!("no end: {} visits, {} queued", self.visits.len(), self.queue.len());
    }

    pub fn judge(&self) {
        self.ledger.judge();
        assert_eq!(self.tally.connections(0), 0, "a connection is counted that is gone");
        assert!(self.parcels.is_empty() && self.reports.is_empty());
        assert_eq!(self.spool.messages(), 0, "the spool keeps what is settled");
    }

    fn at(&self) -> Moment {
        at(self.now, self.begun)
    }

    fn next_id(&mut self) -> QueueId {
        self.ids += 1;
        QueueId::from_number(self.ids)
    }

    // Sessions

    fn connect(&mut self) {
        let source = Source::of(CLIENT.parse().unwrap());
        let Ok(claim) = self.column.claim(0, source, 5, 5) else {
            return;
        };
        let letters = (0..1 + self.chance.below(2)).map(|_| self.letter()).collect();
        let mut session = Session::new(self.terms.clone(), CLIENT.parse().unwrap(), self.now);
        session.greet(self.now);
        self.wheel.arm(self.visitors, session.deadline());
        let visit = Visit {
            sender: Sender::new(letters),
            session,
            stored: Vec::new(),
            waits: None,
            token: 0,
            _claim: claim,
        };
        self.visits.insert(self.visitors, visit);
        self.visitors += 1;
    }

    fn letter(&mut self) -> Letter {
        self.tokens += 1;
        let to = (0..1 + self.chance.below(3)).map(|n| {
            let name = ["well", "well", "never"][self.chance.below(3)];
            format!("{name}{n}.{}@h{}.test", self.tokens, self.chance.below(HUBS))
        });
        Letter {
            token: self.tokens,
            to: to.collect(),
            from: format!("s{}@h0.test", self.tokens),
            lines: self.chance.below(60),
        }
    }

    /// Somebody's octets arrive.
    fn talk(&mut self) {
        let open: Vec<usize> = self
            .visits
            .iter()
            .filter(|(_, v)| v.waits.is_none())
            .map(|(&key, _)| key)
            .collect();
        if !open.is_empty() {
            let key = open[self.chance.below(open.len())];
            self.run(key);
        }
    }

    /// One part of what a client has sent, and what follows from it.
    fn run(&mut self, key: usize) {
        let Some(visit) = self.visits.get_mut(&key) else {
            return;
        };
        let length = match self.chance.below(3) {
            0 => 1 + self.chance.below(visit.sender.output.len()),
            _ => visit.sender.output.len(),
        };
        let mut given = length.min(visit.sender.output.len());
        loop {
            let (used, step) = visit.session.advance(&visit.sender.output[..given], self.now);
            if let Some(report) = visit.session.take_report() {
                assert!(report.envelope.recipients.len() < 10);
                visit.stored.clear();
            }
            let stored = match &step {
                Step::Store(range) => visit.sender.output[range.clone()].to_vec(),
                _ => Vec::new(),
            };
            visit.sender.output.drain(..used);
            given -= used;
            visit.stored.extend(stored);
            match step {
                Step::Read | Step::Close | Step::Pause { .. } => {
                    let closes = step == Step::Close;
                    let output = std::mem::take(visit.session.output());
                    let news = visit.sender.hear(&output);
                    if closes || visit.sender.is_closed() {
                        visit.session.abandon();
                        self.visits.remove(&key);
                    }
                    self.learn(key, news);
                    return;
                }
                Step::Send | Step::Store(_) => {}
                Step::Ask(_) => visit.session.answer(Verdict::Accept, self.now),
                Step::Discard => visit.stored.clear(),
                Step::Commit => return self.commit(key),
                Step::Handshake => panic!("nobody offered TLS"),
            }
        }
    }

    fn learn(&mut self, key: usize, news: Vec<News>) {
        for news in news {
            match news {
                News::Sending(token, recipients) => {
                    self.ledger.entry(token).recipients = recipients;
                    if let Some(visit) = self.visits.get_mut(&key) {
                        visit.token = token;
                    }
                }
                News::Acknowledged(token) => self.ledger.entry(token).acknowledged = true,
                News::Refused(token) => self.ledger.entry(token).refused = true,
            }
        }
    }

    /// The content of a message is complete.
    fn commit(&mut self, key: usize) {
        let id = self.next_id();
        let visit = self.visits.get_mut(&key).unwrap();
        visit.waits = Some(id);
        self.ledger.entry(visit.token).id = Some(id);
        let parcel = Parcel {
            token: visit.token,
            envelope: visit.session.envelope().unwrap().clone(),
            fields: format!("Received: by edge.test id {id}\r\n").into_bytes(),
            content: std::mem::take(&mut visit.stored),
            form: Form::Dotted,
        };
        let client = match self.chance.below(4) {
            0 => Client::WaitsForDurable,
            _ => Client::Waits {
                acknowledge_by: self.now + DELAY,
            },
        };
        self.take(id, parcel, client);
    }

    fn take(&mut self, id: QueueId, parcel: Parcel, client: Client) {
        let message = NewMessage {
            id,
            groups: groups(&parcel.envelope),
            envelope: parcel.envelope.clone(),
            size: parcel.size(),
            authenticated: true,
            client,
        };
        self.parcels.insert(id, parcel);
        self.queue.take(message, self.at());
        self.collect();
    }

    /// A client goes away without a word.
    fn hang_up(&mut self) {
        let keys: Vec<usize> = self.visits.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.chance.below(keys.len())];
        let mut visit = self.visits.remove(&key).unwrap();
        visit.session.abandon();
        if let Some(id) = visit.waits {
            // It still has its copy, and sends it again some day.
            self.ledger.entry(visit.token).may_repeat = true;
            self.queue.client_gone(id, self.at());
            self.collect();
        }
    }

    fn reply(&mut self, id: QueueId, reply: impl FnOnce(&mut Session, Instant)) {
        let found = self.visits.iter_mut().find(|(_, visit)| visit.waits == Some(id));
        if let Some((&key, visit)) = found {
            visit.waits = None;
            reply(&mut visit.session, self.now);
            self.wheel.arm(key, visit.session.deadline());
        }
    }

    // What the queue wants, what the spool tells

    fn collect(&mut self) {
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
            Action::Attempt { id, group, recipients } => self.attempts.push(Attempt {
                id,
                group,
                recipients: recipients.to_vec(),
                round: Round::new(),
                link: None,
            }),
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
            Action::Settle(id) => {
                self.spool.settle(id);
                self.parcels.remove(&id);
            }
            Action::Report(report) => self.report(*report),
            Action::Log(_) => {}
        }
    }

    fn persist(&mut self, id: QueueId) {
        let parcel = &self.parcels[&id];
        let head = Head {
            envelope: Cow::Borrowed(&parcel.envelope),
            fields: Cow::Borrowed(&parcel.fields),
            form: parcel.form,
            arrived: self.at().unix * 1000,
            session: id,
            client: None,
            hello: "client.test".into(),
            user: None,
        };
        self.spool.begin(id, &head);
        self.spool.append(id, &parcel.content);
        self.spool.commit(id, Content::default());
    }

    fn report(&mut self, report: Report) {
        let id = self.next_id();
        let parcel = &self.parcels[&report.of];
        let frame = Frame {
            hostname: "edge.test",
            id,
            unix: self.at().unix,
        };
        let returned = Returned {
            content: &parcel.content,
            form: parcel.form,
            whole: true,
        };
        let parcel = Parcel {
            token: parcel.token,
            envelope: report.envelope(),
            fields: Vec::new(),
            content: report.write(frame, Some(returned)),
            form: Form::Plain,
        };
        self.parcels.insert(id, parcel);
        self.reports.insert(id, report.of);
        self.persist(id);
    }

    fn hear(&mut self, news: spool::News) {
        match news {
            spool::News::Durable(id) => {
                self.ledger.durable.insert(id);
                let Some(of) = self.reports.remove(&id) else {
                    return self.queue.durable(id, self.at());
                };
                self.ledger.told.insert(of);
                let parcel = self.parcels.remove(&id).unwrap();
                self.take(id, parcel, Client::Nobody);
                self.queue.reported(of, self.at());
            }
            spool::News::Failed { id, .. } => match self.reports.remove(&id) {
                Some(of) => {
                    self.parcels.remove(&id);
                    self.queue.cannot_report(of, self.at());
                }
                None => self.queue.cannot_persist(id, self.at()),
            },
            spool::News::Written(_) | spool::News::Poisoned { .. } => {}
        }
    }

    // The disk

    /// Some work of the disk is done, or fails.
    fn work(&mut self, may_fail: bool) {
        if self.works.is_empty() {
            return;
        }
        let work = self.works.swap_remove(self.chance.below(self.works.len()));
        let salt = self.salt(work.directory);
        let result = if may_fail && self.chance.below(12) == 0 {
            Err(self.disk.fail(salt, &work.task, &mut self.chance))
        } else {
            self.disk.perform(salt, &work.task)
        };
        self.spool.done(work.id, result);
        self.collect();
    }

    fn salt(&self, directory: DirectoryId) -> u64 {
        self.salts[directory.0 as usize]
    }

    /// The power is cut, and comes back.
    fn crash(&mut self) {
        let works = std::mem::take(&mut self.works);
        let works = works
            .into_iter()
            .map(|work| (self.salt(work.directory), work.task))
            .collect();
        self.disk.cut(works, &mut self.chance);
        for entry in self.ledger.entries.values_mut() {
            entry.may_repeat = true;
        }
        for visit in self.visits.values_mut() {
            visit.session.abandon();
        }
        self.visits.clear();
        self.attempts.clear();
        self.parcels.clear();
        self.reports.clear();
        self.health = Health::new();
        self.queue = Queue::new(queue_terms(), self.at());
        let (old, salt) = (self.disk.salts(), self.chance.next());
        self.disk.make(salt);
        self.salts = vec![salt];
        self.spool = Spool::new(SETTINGS, salt);
        for old in old {
            let mut found = Vec::new();
            let recovery = spool::recover(&self.disk.view(old), &mut |message| found.push(message)).unwrap();
            self.spool.adopt(recovery.adopted);
            self.salts.push(old);
            found.into_iter().for_each(|message| self.recovered(message));
        }
        self.queue.turn(self.at());
        self.collect();
    }

    fn recovered(&mut self, found: spool::Recovered) {
        let envelope = found.head.envelope.into_owned();
        let mut content = Vec::new();
        for extent in self.spool.extents(found.id) {
            let salt = self.salt(extent.directory);
            content.extend(
                self.disk
                    .read(salt, extent.segment, extent.offset, extent.length as usize),
            );
        }
        let text = String::from_utf8(content).unwrap();
        let token = text.lines().find_map(|line| line.strip_prefix("Token: "));
        let parcel = Parcel {
            token: token.expect("content without its token").parse().unwrap(),
            envelope: envelope.clone(),
            fields: found.head.fields.into_owned(),
            content: text.into_bytes(),
            form: found.head.form,
        };
        assert_eq!(parcel.content.len() as u64, found.octets);
        let message = Recovered {
            id: found.id,
            groups: groups(&envelope),
            envelope,
            size: parcel.size(),
            authenticated: true,
            arrived: found.head.arrived / 1000,
            progress: found.progress,
        };
        self.parcels.insert(found.id, parcel);
        self.queue.recovered(message, self.at());
    }

    // Hubs

    /// Somebody's delivery goes on.
    fn hop(&mut self, well: bool) {
        if self.attempts.is_empty() {
            return;
        }
        let index = self.chance.below(self.attempts.len());
        let mut attempt = self.attempts.swap_remove(index);
        let trouble = if well { 0 } else { self.trouble };
        let came = match &mut attempt.link {
            None => return self.call(attempt, trouble),
            Some(link) => {
                let parcel = &self.parcels[&attempt.id];
                let (chance, ledger) = (&mut self.chance, &mut self.ledger);
                link.step(parcel, &attempt.recipients, self.now, trouble, chance, ledger)
            }
        };
        self.came(attempt, came);
    }

    fn call(&mut self, mut attempt: Attempt, trouble: usize) {
        let Some((route, _)) = self.queue.group(attempt.id, attempt.group) else {
            panic!("an attempt of a message that is settled");
        };
        let first = route as u8 * ADDRESSES;
        let targets = [(first..first + ADDRESSES).collect::<Vec<u8>>()];
        match attempt.round.next(&targets, &mut self.health, self.now) {
            Next::Try(address) if self.chance.below(100) < trouble / 2 => {
                self.health.is_silent(&address, self.now);
                self.attempts.push(attempt);
            }
            Next::Try(address) => {
                attempt.link = Some(Link::new(address, self.now));
                self.attempts.push(attempt);
            }
            Next::Over(reply) => {
                self.queue.no_hop(attempt.id, attempt.group, reply, self.at());
                self.collect();
            }
        }
    }

    fn came(&mut self, mut attempt: Attempt, came: Came) {
        let address = attempt.link.as_ref().map(|link| link.address);
        match came {
            Came::Nothing => {
                if let Some(address) = address {
                    self.health.answers(&address);
                }
                self.attempts.push(attempt);
            }
            Came::Failed(reply) => {
                attempt.link = None;
                attempt.round.failed(reply);
                if let Some(address) = address {
                    self.health.is_silent(&address, self.now);
                }
                self.attempts.push(attempt);
            }
            Came::Misfit(reply) => {
                attempt.link = None;
                attempt.round.misfits(reply);
                self.attempts.push(attempt);
            }
            Came::Over(outcomes) => {
                assert_eq!(outcomes.len(), attempt.recipients.len());
                let parcel = &self.parcels[&attempt.id];
                let entry = self.ledger.entry(parcel.token);
                let mut told = Vec::new();
                for (&recipient, outcome) in attempt.recipients.iter().zip(outcomes) {
                    if matches!(outcome, Outcome::Failed(_)) {
                        let path = &parcel.envelope.recipients[recipient as usize].forward_path;
                        entry.failed.insert(path.as_str().to_owned());
                    }
                    told.push((recipient, outcome));
                }
                let taker = Taker {
                    hop: "hub.test".into(),
                    kind: Kind::Relayed { dsn: true },
                };
                self.queue.outcomes(attempt.id, attempt.group, &taker, told, self.at());
                self.collect();
            }
        }
    }

    fn break_link(&mut self) {
        if self.attempts.is_empty() || self.trouble == 0 {
            return;
        }
        let index = self.chance.below(self.attempts.len());
        let mut attempt = self.attempts.swap_remove(index);
        let came = match &mut attempt.link {
            None => Came::Nothing,
            Some(link) => link.breaks(
                &self.parcels[&attempt.id],
                &attempt.recipients,
                self.now,
                &mut self.ledger,
            ),
        };
        self.came(attempt, came);
    }

    // Time

    /// Time passes: up to the next thing that is due, or a part of it.
    fn pass(&mut self) {
        let links = self.attempts.iter().filter_map(|a| a.link.as_ref()?.deadline());
        let next = links.chain(self.queue.next_due()).chain(self.wheel.next()).min();
        let wait = next.map_or(Duration::from_secs(1), |next| next.saturating_duration_since(self.now));
        self.now += match self.chance.below(3) {
            0 => wait / 2,
            _ => wait,
        };
        if self.queue.next_due().is_some_and(|due| due <= self.now) {
            self.queue.turn(self.at());
            self.collect();
        }
        for mut attempt in std::mem::take(&mut self.attempts) {
            let came = match &mut attempt.link {
                None => Came::Nothing,
                Some(link) => link.expires(
                    &self.parcels[&attempt.id],
                    &attempt.recipients,
                    self.now,
                    &mut self.ledger,
                ),
            };
            self.came(attempt, came);
        }
        let mut due = Vec::new();
        let (visits, now) = (&mut self.visits, self.now);
        self.wheel.turn(now, |key| match visits.get(&key) {
            None => Look::Gone,
            Some(visit) if visit.session.deadline() <= now && visit.waits.is_none() => {
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

fn at(now: Instant, begun: Instant) -> Moment {
    Moment {
        now,
        unix: 1_795_221_819 + (now - begun).as_secs(),
    }
}

/// By the hub of each recipient.
fn groups(envelope: &Envelope) -> Vec<NewGroup> {
    let mut groups: Vec<NewGroup> = Vec::new();
    for (index, recipient) in (0..).zip(&envelope.recipients) {
        let domain = recipient.forward_path.mailbox().unwrap().domain();
        let route = if domain == "h0.test" { 0 } else { 1 };
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
