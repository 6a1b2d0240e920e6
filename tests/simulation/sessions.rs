//! The clients of the edge, their sessions, and content on its way in.

use std::time::{Duration, Instant};

use postern::policy::network::Source;
use postern::policy::tally::Claim;
use postern::relay::queue::Client;
use postern::smtp::Form;
use postern::smtp::oxsmtp::Reply;
use postern::smtp::session::{Session, Step, Verdict};
use postern::spool::QueueId;

use crate::edge::{Edge, HUBS};
use crate::parcel::Parcel;
use crate::sender::{Letter, News, Sender};

const DELAY: Duration = Duration::from_secs(30);
const CLIENT: &str = "192.0.2.7";
/// Octets of content after which a piece goes to the spool, and the same while memory is short.
pub const PIECE: usize = 4 << 10;
const PIECE_WHEN_SHORT: usize = 512;

/// A client and its session.
pub struct Visit {
    pub sender: Sender,
    pub session: Session,
    /// What comes in.
    message: Option<Incoming>,
    /// The message whose reply it waits for.
    pub waits: Option<QueueId>,
    /// It waits until the disk has caught up.
    stalls: bool,
    token: u64,
    _claim: Claim,
}

/// A message whose content comes in.
pub struct Incoming {
    pub id: QueueId,
    buffer: Vec<u8>,
    /// It goes to the spool as it comes.
    spooled: bool,
    /// All has come, and it waits until all is written.
    ended: bool,
    /// What the spool has said of it.
    word: Option<Result<(), ()>>,
}

impl Visit {
    /// For a panic.
    pub fn shown(&self) -> String {
        format!(
            "{:?}, {} octets to read, waits for {:?}, {}",
            self.sender.stage,
            self.sender.output.len(),
            self.waits,
            if self.is_bound() { "bound" } else { "free" },
        )
    }

    /// Whether its next octets are read.
    pub fn may_talk(&self) -> bool {
        self.waits.is_none() && !self.is_bound()
    }

    /// Whether the shard does not look whether its client is still there.
    fn is_bound(&self) -> bool {
        self.stalls || self.message.as_ref().is_some_and(|message| message.ended)
    }
}

impl Edge {
    pub fn connect(&mut self) {
        let source = Source::of(CLIENT.parse().unwrap());
        if self.draining {
            return;
        }
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
            message: None,
            waits: None,
            stalls: false,
            token: 0,
            _claim: claim,
        };
        self.visits.insert(self.visitors, visit);
        self.visitors += 1;
    }

    fn letter(&mut self) -> Letter {
        self.tokens += 1;
        let token = self.tokens;
        let to = (0..1 + self.chance.below(3)).map(|n| {
            let name = ["well", "well", "well", "never", "full"][self.chance.below(5)];
            format!("{name}{n}.{token}@h{}.test", self.chance.below(HUBS))
        });
        let to = to.collect();
        let size = match self.chance.below(400) {
            // As large as what is large for a shard.
            0 => 300 << 10,
            1..100 => self.chance.below(40 << 10),
            _ => self.chance.below(600),
        };
        let mut content = format!("Token: {token}\r\nSubject: a letter\r\n\r\n").into_bytes();
        while content.len() < size {
            // Some begin with a dot, which is doubled.
            let dot = if self.chance.below(3) == 0 { "." } else { "" };
            let text = format!(
                "{dot}line {} of {size}, {}\r\n",
                content.len(),
                "and more ".repeat(size >> 9)
            );
            content.extend_from_slice(text.as_bytes());
        }
        let chunk = self.chance.coin().then(|| 1 + self.chance.below(content.len()));
        self.ledger.entry(token).content = content.clone();
        Letter {
            token,
            to,
            from: format!("s{token}@h0.test"),
            content,
            chunk,
        }
    }

    /// Somebody's octets arrive.
    pub fn talk(&mut self) {
        if self.has_room() {
            self.visits.values_mut().for_each(|visit| visit.stalls = false);
        }
        let open = self.visits.iter().filter(|(_, visit)| visit.may_talk());
        let open: Vec<usize> = open.map(|(&key, _)| key).collect();
        if !open.is_empty() {
            let key = open[self.chance.below(open.len())];
            self.run(key);
        }
    }

    /// One part of what a client has sent, and what follows from it.
    pub fn run(&mut self, key: usize) {
        let Some(visit) = self.visits.get_mut(&key) else {
            return;
        };
        let length = match self.chance.below(3) {
            0 => 1 + self.chance.below(visit.sender.output.len()),
            _ => visit.sender.output.len(),
        };
        let mut given = length.min(visit.sender.output.len());
        loop {
            let visit = self.visits.get_mut(&key).unwrap();
            let (used, step) = visit.session.advance(&visit.sender.output[..given], self.now);
            if let Some(report) = visit.session.take_report() {
                assert!(report.envelope.recipients.len() < 10);
                self.abandon(key);
            }
            let visit = self.visits.get_mut(&key).unwrap();
            let stored = match &step {
                Step::Store(range) => visit.sender.output[range.clone()].to_vec(),
                _ => Vec::new(),
            };
            visit.sender.output.drain(..used);
            given -= used;
            match step {
                Step::Read | Step::Close | Step::Pause { .. } => return self.read_on(key, step == Step::Close),
                Step::Send => {}
                Step::Store(_) => {
                    if self.store(key, &stored) {
                        return;
                    }
                }
                Step::Ask(_) => visit.session.answer(Verdict::Accept, self.now),
                Step::Discard => self.abandon(key),
                Step::Commit => return self.commit(key),
                Step::Handshake => panic!("nobody offered TLS"),
            }
        }
    }

    /// All input is used up: the client hears what was said.
    fn read_on(&mut self, key: usize, closes: bool) {
        let visit = self.visits.get_mut(&key).unwrap();
        let output = std::mem::take(visit.session.output());
        let news = visit.sender.hear(&output);
        if closes || visit.sender.is_closed() {
            self.close(key);
        }
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

    fn close(&mut self, key: usize) {
        self.abandon(key);
        if let Some(mut visit) = self.visits.remove(&key) {
            visit.session.abandon();
        }
    }

    /// Content; whether its session waits for room in the spool.
    fn store(&mut self, key: usize, octets: &[u8]) -> bool {
        let id = match &self.visits[&key].message {
            Some(message) => message.id,
            None => self.next_id(),
        };
        let piece = match self.is_short_of_memory() {
            true => PIECE_WHEN_SHORT,
            false => PIECE,
        };
        let visit = self.visits.get_mut(&key).unwrap();
        let message = visit.message.get_or_insert_with(|| Incoming {
            id,
            buffer: Vec::new(),
            spooled: false,
            ended: false,
            word: None,
        });
        message.buffer.extend_from_slice(octets);
        self.held += octets.len();
        if message.buffer.len() < piece {
            return false;
        }
        self.spool_piece(key);
        self.collect();
        let stalls = !self.has_room();
        self.visits.get_mut(&key).unwrap().stalls = stalls;
        stalls
    }

    /// What is in memory of a message goes to the spool; its record begins with the first piece.
    fn spool_piece(&mut self, key: usize) {
        let parcel = self.parcel(key);
        let message = self.visits.get_mut(&key).unwrap().message.as_mut().unwrap();
        let buffer = std::mem::take(&mut message.buffer);
        if !std::mem::replace(&mut message.spooled, true) {
            self.begin_record(&parcel);
        }
        self.held -= buffer.len();
        self.spool.append(parcel.id, &buffer);
    }

    /// What will be kept of a message.
    fn parcel(&self, key: usize) -> Parcel {
        let visit = &self.visits[&key];
        let message = visit.message.as_ref().unwrap();
        let form = if visit.session.is_chunked() {
            Form::Plain
        } else {
            Form::Dotted
        };
        let envelope = visit.session.envelope().unwrap().clone();
        let fields = format!("Received: by edge.test id {}\r\n", message.id).into_bytes();
        let mut parcel = Parcel::new(message.id, visit.token, envelope, fields, form);
        parcel.size = visit.session.content_size();
        parcel.begun = message.spooled;
        parcel
    }

    /// The content of a message is complete.
    fn commit(&mut self, key: usize) {
        let message = self.visits.get_mut(&key).unwrap().message.as_mut().unwrap();
        message.ended = true;
        let id = message.id;
        if !message.spooled {
            message.word = Some(Ok(()));
            return self.hand_over(key);
        }
        self.spool_piece(key);
        self.spool.flush(id);
        self.hand_over(key);
        self.collect();
    }

    /// The spool speaks of a message that comes in; whether there is such a one.
    pub fn written(&mut self, id: QueueId, word: Result<(), ()>) -> bool {
        let mut visits = self.visits.iter_mut();
        let found = visits.find(|(_, visit)| visit.message.as_ref().is_some_and(|message| message.id == id));
        let Some((&key, visit)) = found else { return false };
        if let Some(message) = &mut visit.message {
            message.word = Some(word);
        }
        self.hand_over(key);
        true
    }

    /// A message that is whole, and written where it goes to the spool, is the queue's.
    fn hand_over(&mut self, key: usize) {
        let visit = &self.visits[&key];
        let message = visit.message.as_ref().unwrap();
        let (id, token) = (message.id, visit.token);
        match message.word {
            Some(word) if message.ended => {
                self.ledger.entry(token).id = Some(id);
                if word.is_err() {
                    self.abandon(key);
                    let visit = self.visits.get_mut(&key).unwrap();
                    visit.session.refuse(Reply::CannotStore, self.now);
                    return self.wheel.arm(key, visit.session.deadline());
                }
            }
            _ => return,
        }
        let mut parcel = self.parcel(key);
        let short = self.is_short_of_memory();
        let visit = self.visits.get_mut(&key).unwrap();
        let message = visit.message.take().unwrap();
        if !message.spooled {
            // What it holds stays counted.
            parcel.body = Some(message.buffer);
        }
        visit.waits = Some(id);
        let client = match self.chance.below(4) {
            0 => Client::WaitsForDurable,
            _ if short => Client::Waits {
                acknowledge_by: self.now,
            },
            _ => Client::Waits {
                acknowledge_by: self.now + DELAY,
            },
        };
        self.take(parcel, client);
    }

    /// Nothing is wanted of what came in so far.
    fn abandon(&mut self, key: usize) {
        let message = self.visits.get_mut(&key).and_then(|visit| visit.message.take());
        if let Some(message) = message {
            self.held -= message.buffer.len();
            if message.spooled {
                self.spool.abandon(message.id);
            }
        }
    }

    /// A client goes away without a word. It still has its copy: what nobody answers for yet is not delivered later.
    pub fn hang_up(&mut self) {
        let visits = self.visits.iter().filter(|(_, visit)| !visit.is_bound());
        let keys: Vec<usize> = visits.map(|(&key, _)| key).collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.chance.below(keys.len())];
        let waits = self.visits[&key].waits;
        self.close(key);
        if let Some(id) = waits {
            self.queue.client_gone(id, self.at());
        }
        self.collect();
    }

    pub fn reply(&mut self, id: QueueId, reply: impl FnOnce(&mut Session, Instant)) {
        let found = self.visits.iter_mut().find(|(_, visit)| visit.waits == Some(id));
        if let Some((&key, visit)) = found {
            visit.waits = None;
            reply(&mut visit.session, self.now);
            self.wheel.arm(key, visit.session.deadline());
        }
    }
}
