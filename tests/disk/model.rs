//! A spool on a [`MemoryDisk`](super::MemoryDisk), and what must be true of it.
//!
//! The model knows of every message what was said about it and what was heard. After a power cut it asks of recovery:
//! - what was heard to be durable and is not settled is there, byte for byte, with a progress that was noted;
//! - what was durably settled, or never committed, is not;
//! - nothing is there twice, nothing is there in part, and no damage is reported where none was done.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use postern::smtp::Form;
use postern::smtp::client::HopReply;
use postern::smtp::envelope::{Envelope, MailParameters, RcptParameters, Recipient};
use postern::smtp::path::{ForwardPath, Mailbox, ReversePath};
use postern::spool::{
    Answer, Content, DirectoryId, Failure, Fate, Head, News, Progress, QueueId, Recovered, Report, Settings, Spool,
    Task, Ticket, Work, find,
};

use super::{Chance, MemoryDisk, take_up};

/// What is known of one message.
#[derive(Clone, Debug)]
pub struct Message {
    pub content: Vec<u8>,
    pub head: Head<'static>,
    pub kind: Content,
    pub stage: Stage,
    /// What its progress may be; the last is what was said last.
    pub progress: Vec<Option<Progress>>,
    /// Octets that each flush of which nothing was heard yet was about.
    pub flushes: VecDeque<usize>,
    /// A settling was said, and may or may not be durable.
    pub settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Open,
    Committed,
    Durable,
    Failed,
    /// Durably gone, or never to be found.
    Gone,
}

/// A spool, its disk, and the model.
pub struct Rig {
    pub spool: Spool,
    pub disk: MemoryDisk,
    pub chance: Chance,
    pub settings: Settings,
    pub messages: BTreeMap<u64, Message>,
    pub under_way: Vec<Work>,
    pub poisoned: usize,
    pub written: HashSet<u64>,
    pub reports: Vec<Report>,
    /// Who waits for a confirmation: of which message, what was said of it last, whether that was its end.
    pub confirms: HashMap<Ticket, (u64, Option<Progress>, bool)>,
    tickets: u64,
    salts: Vec<u64>,
    next: u64,
}

impl Rig {
    pub fn new(settings: Settings, seed: u64) -> Rig {
        let mut disk = MemoryDisk::default();
        let mut chance = Chance(seed);
        let salt = chance.next();
        disk.make(salt);
        let mut rig = Rig {
            spool: Spool::new(settings, salt),
            disk,
            chance,
            settings,
            messages: BTreeMap::new(),
            under_way: Vec::new(),
            poisoned: 0,
            written: HashSet::new(),
            reports: Vec::new(),
            confirms: HashMap::new(),
            tickets: 0,
            salts: vec![salt],
            next: 1,
        };
        rig.collect();
        rig
    }

    pub fn begin(&mut self, recipients: usize) -> u64 {
        let id = self.next;
        self.next += 1;
        let head = head(id, recipients);
        self.spool.begin(QueueId::from_number(id), &head);
        let message = Message {
            content: Vec::new(),
            head,
            kind: Content::default(),
            stage: Stage::Open,
            progress: vec![None],
            flushes: VecDeque::new(),
            settled: false,
        };
        self.messages.insert(id, message);
        self.collect();
        id
    }

    pub fn append(&mut self, id: u64, length: usize) {
        let octets: Vec<u8> = (0..length).map(|_| self.chance.next() as u8).collect();
        let message = self.messages.get_mut(&id).unwrap();
        if message.stage == Stage::Open {
            message.content.extend_from_slice(&octets);
            self.spool.append(QueueId::from_number(id), &octets);
            self.collect();
        }
    }

    pub fn flush(&mut self, id: u64) {
        let message = self.messages.get_mut(&id).unwrap();
        message.flushes.push_back(message.content.len());
        self.spool.flush(QueueId::from_number(id));
        self.collect();
    }

    /// What has been said of a message is to be durable.
    pub fn confirm(&mut self, id: u64) {
        let message = &self.messages[&id];
        let last = message.progress.last().cloned().unwrap();
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.confirms.insert(ticket, (id, last, message.settled));
        self.spool.confirm(QueueId::from_number(id), ticket);
        self.collect();
    }

    fn is_confirmed(&mut self, ticket: Ticket) {
        let (id, last, settled) = self.confirms.remove(&ticket).expect("confirmed twice");
        let message = self.messages.get_mut(&id).unwrap();
        if settled {
            message.stage = Stage::Gone;
        }
        // Nothing that was said before may be found any more.
        if let Some(place) = message.progress.iter().position(|known| *known == last) {
            message.progress.drain(..place);
        }
    }

    pub fn commit(&mut self, id: u64) {
        let message = self.messages.get_mut(&id).unwrap();
        if message.stage == Stage::Open {
            message.stage = Stage::Committed;
            message.kind = Content {
                eight_bit: id & 1 == 1,
                bare_newline: id & 2 == 2,
            };
            self.spool.commit(QueueId::from_number(id), message.kind);
            self.collect();
        }
    }

    /// A message of which all is said at once.
    pub fn send(&mut self, length: usize) -> u64 {
        let id = self.begin(1);
        self.append(id, length);
        self.commit(id);
        id
    }

    pub fn abandon(&mut self, id: u64) {
        let message = self.messages.get_mut(&id).unwrap();
        match message.stage {
            Stage::Open => message.stage = Stage::Gone,
            Stage::Committed | Stage::Durable => message.settled = true,
            Stage::Failed | Stage::Gone => {}
        }
        self.spool.abandon(QueueId::from_number(id));
        self.collect();
    }

    pub fn update(&mut self, id: u64) {
        let message = self.messages.get_mut(&id).unwrap();
        let last = self.chance.coin().then(|| Answer {
            reply: HopReply::heard(450, b"4.2.0 later"),
            hop: "hub.test".into(),
            at: self.chance.next(),
        });
        let recipient = match (self.chance.below(3), last) {
            (0, _) => Fate::Settled,
            (1, Some(answer)) => Fate::Failed(answer),
            (_, last) => Fate::Waiting {
                attempts: self.chance.next() as u16,
                due: self.chance.next(),
                last,
            },
        };
        let recipients = vec![recipient; message.head.envelope.recipients.len()];
        let progress = Progress {
            held: self.chance.coin(),
            notified: self.chance.coin(),
            removed: self.chance.coin(),
            recipients,
        };
        if matches!(message.stage, Stage::Open | Stage::Committed | Stage::Durable) && !message.settled {
            self.spool.update(QueueId::from_number(id), &progress);
            message.progress.push(Some(progress));
        }
        self.collect();
    }

    /// Does the nth work that is under way; none where there is none.
    pub fn step(&mut self, nth: usize) -> bool {
        if self.under_way.is_empty() {
            return false;
        }
        let work = self.under_way.remove(nth % self.under_way.len());
        let salt = self.salt(work.directory);
        let result = self.disk.perform(salt, &work.task);
        self.finish(&work, result);
        true
    }

    /// Fails it.
    pub fn fail(&mut self, nth: usize) {
        if !self.under_way.is_empty() {
            let work = self.under_way.remove(nth % self.under_way.len());
            let salt = self.salt(work.directory);
            let failure = self.disk.fail(salt, &work.task, &mut self.chance);
            self.finish(&work, Err(failure));
        }
    }

    fn finish(&mut self, work: &Work, result: Result<(), Failure>) {
        self.spool.done(work.id, result);
        self.collect();
    }

    /// Does all there is to do, until nothing waits: everything that was said is durable then.
    pub fn quiet(&mut self) {
        for _ in 0..1000 {
            while self.step(0) {}
            if self.spool.is_quiet() && self.under_way.is_empty() {
                self.spool.idle();
                self.collect();
                if self.under_way.is_empty() {
                    self.all_is_durable();
                    return;
                }
            }
            self.spool.idle();
            self.collect();
        }
        panic!("it never comes to rest: {:?}", self.under_way);
    }

    fn all_is_durable(&mut self) {
        assert!(self.confirms.is_empty(), "somebody waits for ever");
        for message in self.messages.values_mut() {
            let heard = message.settled || message.stage != Stage::Committed;
            assert!(heard, "a committed message never hears of it");
            if message.settled {
                message.stage = Stage::Gone;
            }
            let last = message.progress.pop().unwrap();
            message.progress = vec![last];
        }
    }

    fn collect(&mut self) {
        while let Some(work) = self.spool.next_work() {
            self.under_way.push(work);
        }
        while let Some(news) = self.spool.next_news() {
            match news {
                News::Durable(id) => {
                    let message = self.messages.get_mut(&id.number()).unwrap();
                    assert_eq!(message.stage, Stage::Committed, "{id} is durable without a commit");
                    message.stage = Stage::Durable;
                    self.check_content(id.number());
                }
                News::Failed { id, .. } => {
                    let message = self.messages.get_mut(&id.number()).unwrap();
                    assert!(
                        matches!(message.stage, Stage::Open | Stage::Committed),
                        "{id} fails late"
                    );
                    message.stage = match message.stage {
                        Stage::Open => Stage::Gone,
                        _ => Stage::Failed,
                    };
                    assert_eq!(self.spool.extents(id), None);
                }
                News::Written(id) => {
                    self.written.insert(id.number());
                    let flushed = self.messages.get_mut(&id.number()).unwrap().flushes.pop_front();
                    let read = self.read_content(id.number());
                    assert!(read.len() >= flushed.expect("written, and nobody has asked for it"));
                    assert!(self.messages[&id.number()].content.starts_with(&read));
                }
                News::Confirmed(ticket) => self.is_confirmed(ticket),
                News::Unconfirmed { ticket, .. } => drop(self.confirms.remove(&ticket).unwrap()),
                News::Poisoned { .. } => self.poisoned += 1,
            }
        }
        let busy: Vec<_> = self
            .under_way
            .iter()
            .filter(|w| matches!(w.task, Task::Write { .. } | Task::Sync { .. }))
            .collect();
        let places: HashSet<_> = busy.iter().map(|work| work.directory).collect();
        assert_eq!(places.len(), busy.len(), "two writes or syncs of one directory at once");
    }

    /// Reads the content back, and the head.
    pub fn check_content(&self, id: u64) {
        let message = &self.messages[&id];
        if let Some(extent) = self.spool.head_extent(QueueId::from_number(id)) {
            let salt = self.salt(extent.directory);
            let octets = self
                .disk
                .read(salt, extent.segment, extent.offset, extent.length as usize);
            assert_eq!(Head::decode(&octets).as_ref(), Some(&message.head));
        } else {
            let short = message.head.envelope.recipients.len() < 50;
            assert!(
                message.stage != Stage::Durable || message.settled || !short,
                "a short head in one piece"
            );
        }
        let read = self.read_content(id);
        if message.stage == Stage::Open {
            assert!(message.content.starts_with(&read));
        } else {
            assert!(
                message.content == read,
                "{id}: {} octets of {}",
                read.len(),
                message.content.len()
            );
        }
    }

    fn read_content(&self, id: u64) -> Vec<u8> {
        let mut read = Vec::new();
        for extent in self.spool.extents(QueueId::from_number(id)).unwrap_or_default() {
            let salt = self.salt(extent.directory);
            let octets = self
                .disk
                .read(salt, extent.segment, extent.offset, extent.length as usize);
            let mut verifier = extent.verifier();
            verifier.update(&octets);
            assert!(verifier.finish());
            read.extend(octets);
        }
        read
    }

    fn salt(&self, directory: DirectoryId) -> u64 {
        self.salts[directory.0 as usize]
    }

    pub fn idle(&mut self) {
        self.spool.idle();
        self.collect();
    }

    /// The process ends, with everything that was under way done, or not, or in part; what was written stays.
    pub fn restart_alive(&mut self) {
        for work in std::mem::take(&mut self.under_way) {
            if self.chance.coin() {
                let _ = self.disk.perform(self.salt(work.directory), &work.task);
            }
        }
        self.disk.sync_all();
        self.restart();
    }

    /// The power is cut, and comes again.
    pub fn cut(&mut self) {
        let under_way = std::mem::take(&mut self.under_way);
        let under_way = under_way
            .into_iter()
            .map(|work| (self.salt(work.directory), work.task))
            .collect();
        self.disk.cut(under_way, &mut self.chance);
        self.restart();
    }

    /// A new process finds what there is.
    pub fn restart(&mut self) {
        let old = self.disk.salts();
        let salt = self.chance.next();
        self.disk.make(salt);
        self.salts = vec![salt];
        self.spool = Spool::new(self.settings, salt);
        self.written.clear();
        self.confirms.clear();
        let mut found = Vec::new();
        for old in old {
            if self.chance.coin() {
                let (_, report, messages) = take_up(&self.disk.view(old), &mut self.spool, usize::from(u8::MAX));
                found.extend(messages);
                self.salts.push(old);
                self.reports.push(report);
                continue;
            }
            let (recovery, mut living) = find(&self.disk.view(old)).unwrap();
            self.spool.adopt(recovery.adopted);
            self.salts.push(old);
            self.reports.push(recovery.report);
            loop {
                // Whatever is done meanwhile, nothing goes that is still to be handed out.
                while let Some(work) = self.spool.next_work() {
                    self.under_way.push(work);
                }
                if self.chance.coin() && !self.under_way.is_empty() {
                    let work = self.under_way.remove(0);
                    let result = self.disk.perform(self.salt(work.directory), &work.task);
                    self.spool.done(work.id, result);
                }
                let most = 1 + self.chance.below(4);
                let Some(slice) = living.take(&self.disk.view(old), most) else {
                    break;
                };
                self.spool.admit(slice.entries);
                assert!(slice.unreadable.is_empty());
                found.extend(slice.messages);
            }
        }
        self.messages.values_mut().for_each(|message| message.flushes.clear());
        self.judge(&found);
        self.collect();
    }

    fn judge(&mut self, found: &[Recovered]) {
        let ids: HashSet<u64> = found.iter().map(|recovered| recovered.id.number()).collect();
        assert_eq!(ids.len(), found.len(), "a message appears twice");
        assert_eq!(self.spool.messages(), found.len());
        for report in &self.reports {
            assert_eq!(report.damaged_octets, 0, "{report:?}");
            assert!(report.damaged_messages.is_empty(), "{report:?}");
        }
        for recovered in found {
            let message = self
                .messages
                .get_mut(&recovered.id.number())
                .expect("a message that nobody sent");
            assert_ne!(message.stage, Stage::Gone, "{} comes back to life", recovered.id);
            assert_ne!(message.stage, Stage::Open, "{} was never committed", recovered.id);
            assert_eq!(recovered.head, message.head);
            assert_eq!(recovered.content, message.kind);
            assert_eq!(recovered.octets, message.content.len() as u64);
            assert!(
                message.progress.contains(&recovered.progress),
                "{:?} is none of {:?}",
                recovered.progress,
                message.progress
            );
            message.progress = vec![recovered.progress.clone()];
            message.stage = Stage::Durable;
            message.settled = false;
        }
        for (id, message) in &mut self.messages {
            if !ids.contains(id) {
                let lost = message.stage == Stage::Durable && !message.settled;
                assert!(!lost, "{} was acknowledged and is lost", QueueId::from_number(*id));
                message.stage = Stage::Gone;
            }
        }
        found
            .iter()
            .for_each(|recovered| self.check_content(recovered.id.number()));
    }

    /// The messages that live, as far as is known.
    pub fn living(&self) -> Vec<u64> {
        let lives = |message: &Message| message.stage == Stage::Durable && !message.settled;
        self.messages
            .iter()
            .filter(|(_, message)| lives(message))
            .map(|(id, _)| *id)
            .collect()
    }
}

pub fn head(id: u64, recipients: usize) -> Head<'static> {
    let mailbox = |n: usize| Mailbox::parse(&format!("somebody.{n}@destination.test")).unwrap();
    let recipients = (0..recipients).map(|n| Recipient {
        forward_path: ForwardPath::Mailbox(mailbox(n)),
        parameters: RcptParameters::default(),
    });
    Head {
        envelope: Cow::Owned(Envelope {
            reverse_path: ReversePath::Mailbox(mailbox(99)),
            mail: MailParameters::default(),
            recipients: recipients.collect(),
        }),
        fields: Cow::Owned(format!("Received: from client.test id {id}\r\n").into_bytes()),
        form: if id & 1 == 0 { Form::Dotted } else { Form::Plain },
        arrived: id * 1000,
        session: QueueId::from_number(id + 1),
        client: Some([192, 0, 2, 7].into()),
        hello: Cow::Borrowed("client.test"),
        user: None,
    }
}
