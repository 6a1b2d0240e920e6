//! The spool of the edge, its disk, and the ends of its process: a power cut, or a drain and a new start.

use std::borrow::Cow;

use postern::relay::next_hop::Health;
use postern::relay::queue::{Client, NewMessage, Queue, Recovered};
use postern::relay::report::{Frame, MAX_RETURNED, Report, Returned};
use postern::smtp::Form;
use postern::spool::{self, Content, Head, QueueId, Spool};

use crate::disk::take_up;
use crate::edge::{Edge, SETTINGS, groups, queue_terms};
use crate::ledger::token;
use crate::parcel::Parcel;
use crate::sessions::Visit;

impl Edge {
    /// A message whose content is complete.
    pub fn take(&mut self, parcel: Parcel, client: Client) {
        let message = NewMessage {
            id: parcel.id,
            groups: groups(&parcel.envelope),
            envelope: parcel.envelope.clone(),
            size: parcel.size,
            authenticated: true,
            client,
        };
        self.parcels.insert(parcel.id, parcel);
        self.queue.take(message, self.at());
        self.collect();
    }

    pub fn settle(&mut self, id: QueueId) {
        self.let_go(id);
        if self.parcels.remove(&id).is_some_and(|parcel| parcel.begun) {
            self.spool.settle(id);
        }
    }

    /// The memory of a message is not needed any more.
    pub fn let_go(&mut self, id: QueueId) {
        if let Some(body) = self.parcels.get_mut(&id).and_then(|parcel| parcel.body.take()) {
            self.held -= body.len();
        }
    }

    pub fn begin_record(&mut self, parcel: &Parcel) {
        let head = Head {
            envelope: Cow::Borrowed(&parcel.envelope),
            fields: Cow::Borrowed(&parcel.fields),
            form: parcel.form,
            arrived: self.at().unix * 1000,
            session: parcel.id,
            client: None,
            hello: "client.test".into(),
            user: None,
        };
        self.spool.begin(parcel.id, &head);
    }

    pub fn persist(&mut self, id: QueueId) {
        let mut parcel = self.parcels.remove(&id).unwrap();
        if parcel.begun {
            self.spool.commit(id, Content::default());
        } else if let Some(body) = &parcel.body {
            self.begin_record(&parcel);
            self.spool.append(id, body);
            self.spool.commit(id, Content::default());
            parcel.begun = true;
        } else {
            self.queue.cannot_persist(id, self.at());
        }
        self.parcels.insert(id, parcel);
    }

    pub fn report(&mut self, report: Report) {
        let id = self.next_id();
        let about = &self.parcels[&report.of];
        let content = self.shelf().content(about);
        let frame = Frame {
            hostname: "edge.test",
            id,
            unix: self.at().unix,
        };
        let returned = content.as_ref().map(|content| Returned {
            content: &content[..content.len().min(MAX_RETURNED)],
            form: about.form,
            whole: content.len() <= MAX_RETURNED,
        });
        let text = report.write(frame, returned);
        let mut parcel = Parcel::new(id, about.token, report.envelope(), Vec::new(), Form::Plain);
        parcel.size = text.len() as u64;
        self.held += text.len();
        parcel.body = Some(text);
        self.parcels.insert(id, parcel);
        self.reports.insert(id, report.of);
        self.persist(id);
    }

    pub fn hear(&mut self, news: spool::News) {
        match news {
            spool::News::Written(id) => assert!(self.written(id, Ok(())), "{id} is written for nobody"),
            spool::News::Durable(id) => {
                self.ledger.durable.insert(id);
                let short = self.is_short_of_memory();
                let report = self.reports.remove(&id);
                if let Some(parcel) = self.parcels.get_mut(&id) {
                    parcel.durable = true;
                    if report.is_none() && (short || parcel.rests()) {
                        self.let_go(id);
                    }
                }
                let Some(of) = report else {
                    return self.queue.durable(id, self.at());
                };
                self.ledger.told.insert(of);
                let parcel = self.parcels.remove(&id).unwrap();
                self.take(parcel, Client::Nobody);
                self.queue.reported(of, self.at());
            }
            spool::News::Failed { id, .. } => {
                if let Some(of) = self.reports.remove(&id) {
                    self.let_go(id);
                    self.parcels.remove(&id);
                    return self.queue.cannot_report(of, self.at());
                }
                if let Some(parcel) = self.parcels.get_mut(&id) {
                    parcel.begun = false;
                }
                self.queue.cannot_persist(id, self.at());
                self.written(id, Err(()));
            }
            spool::News::Poisoned { .. } | spool::News::Confirmed(_) | spool::News::Unconfirmed { .. } => {}
        }
    }

    /// Some work of the disk is done, or fails.
    pub fn work(&mut self, may_fail: bool) {
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

    /// The power is cut, and comes back.
    pub fn crash(&mut self) {
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
        self.restart();
    }

    /// The process is told to end in the middle of things. It does, and another one goes on: without a crash, so nothing is
    /// delivered twice but what a broken connection leaves unknown.
    pub fn drain(&mut self) {
        self.draining = true;
        self.queue.drain(self.at());
        self.collect();
        self.tell_sessions(|visit| visit.session.drain());
        let patience = self.chance.below(120);
        for turn in 0.. {
            self.spool.idle();
            self.collect();
            if self.is_drained() {
                break;
            }
            assert!(turn < 20_000, "it never ends: {} visits", self.visits.len());
            if turn == patience {
                self.tell_sessions(|visit| visit.session.stop());
                self.break_links();
            }
            match self.chance.below(7) {
                6 => self.pass(),
                0..=1 => self.talk(),
                2..=3 => self.hop(false),
                4 => self.work(true),
                _ => self.work(false),
            }
        }
        self.draining = false;
        self.drains += 1;
        self.disk.sync_all();
        self.restart();
    }

    fn is_drained(&self) -> bool {
        let still = self.spool.is_quiet() && self.works.is_empty();
        self.visits.is_empty() && self.attempts.is_empty() && self.queue.is_drained() && still
    }

    fn tell_sessions(&mut self, what: impl Fn(&mut Visit)) {
        let keys: Vec<usize> = self.visits.keys().copied().collect();
        for key in keys {
            let Some(visit) = self.visits.get_mut(&key) else {
                continue;
            };
            what(visit);
            if visit.may_talk() {
                self.run(key);
            }
        }
    }

    /// A new process takes up what there is.
    fn restart(&mut self) {
        self.parcels.clear();
        self.reports.clear();
        self.held = 0;
        self.health = Health::new();
        self.queue = Queue::new(queue_terms(), self.at());
        let (old, salt) = (self.disk.salts(), self.chance.next());
        self.disk.make(salt);
        self.salts = vec![salt];
        self.spool = Spool::new(SETTINGS, salt);
        for old in old {
            let (_, _, found) = take_up(&self.disk.view(old), &mut self.spool, 3);
            self.salts.push(old);
            found.into_iter().for_each(|message| self.recovered(message));
        }
        self.queue.turn(self.at());
        self.collect();
    }

    fn recovered(&mut self, found: spool::Recovered) {
        let envelope = found.head.envelope.into_owned();
        let fields = found.head.fields.into_owned();
        let mut parcel = Parcel::new(found.id, 0, envelope.clone(), fields, found.head.form);
        (parcel.begun, parcel.durable) = (true, true);
        parcel.size = found.octets;
        let content = self.shelf().content(&parcel).expect("durable, and not to be read");
        assert_eq!(content.len() as u64, found.octets);
        let of_report = token(&content, "Original-Envelope-Id: T");
        parcel.token = of_report
            .or(token(&content, "Token: "))
            .expect("content without its token");
        let message = Recovered {
            id: found.id,
            groups: groups(&envelope),
            envelope,
            size: found.octets,
            authenticated: true,
            arrived: found.head.arrived / 1000,
            progress: found.progress,
        };
        self.parcels.insert(found.id, parcel);
        self.queue.recovered(message, self.at());
    }
}
