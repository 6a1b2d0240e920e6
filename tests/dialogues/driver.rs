//! A driver of a session without sockets: does the steps at once, keeps what comes of them, moves a clock of its own.
//!
//! It does what `shard::connection` does, in the same order, and checks in passing what every session promises: no input is
//! taken while a reply waits, nothing ends before its deadline, the octets counted are the octets stored, the codes noted
//! are the codes sent, and nothing of one message is left when the next one begins.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern::maildir::{Conversion, Form};
use postern::policy::users::Users;
use postern::policy::users::hash::is_of;
use postern::smtp::BareNewline;
use postern::smtp::envelope::{Body, Envelope, Notify, Ret};
use postern::smtp::oxsmtp::Reply;
use postern::smtp::sasl::{Found, Wanted};
use postern::smtp::session::{Custody, Question, Session, Step, Verdict};

use crate::script::Script;

/// A message in custody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub envelope: String,
    /// As it came.
    pub wire: Vec<u8>,
    /// As a Maildir would hold it.
    pub file: Vec<u8>,
    pub protocol: &'static str,
}

/// A transaction that ended otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub envelope: String,
    pub text: String,
}

pub struct Driver {
    session: Session,
    started: Instant,
    now: Instant,
    input: Vec<u8>,
    stored: Vec<u8>,
    pub closed: bool,
    pub waited: Duration,
    pub replies: VecDeque<(Duration, String)>,
    pub taken: VecDeque<Taken>,
    pub ended: VecDeque<Ended>,
    pub events: VecDeque<&'static str>,
    pub queue_ids: u32,
    pub mail: Verdict,
    pub starttls: Verdict,
    pub rcpt: HashMap<String, Verdict>,
    pub policy_takes: Duration,
    pub store: Option<Reply>,
    pub store_takes: Duration,
    pub drains_while_waiting: bool,
    normalises: bool,
    users: Arc<Users>,
    pub passwords_unavailable: bool,
}

impl Driver {
    pub fn new(script: &Script) -> Driver {
        let started = Instant::now();
        let mut session = Session::new(script.terms.clone(), "192.0.2.7".parse().unwrap(), started);
        session.greet(started);
        let mut driver = Driver {
            session,
            started,
            now: started,
            input: Vec::new(),
            stored: Vec::new(),
            closed: false,
            waited: Duration::ZERO,
            replies: VecDeque::new(),
            taken: VecDeque::new(),
            ended: VecDeque::new(),
            events: VecDeque::new(),
            queue_ids: 0,
            mail: Verdict::Accept,
            starttls: Verdict::Accept,
            rcpt: HashMap::new(),
            policy_takes: Duration::ZERO,
            store: None,
            store_takes: Duration::ZERO,
            drains_while_waiting: false,
            normalises: script.terms.bare_newline == BareNewline::Normalise,
            users: script.users.clone(),
            passwords_unavailable: false,
        };
        driver.run();
        driver
    }

    /// The client sends this.
    pub fn receive(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        self.run();
    }

    /// Nothing happens for so long but what the timers do.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while !self.closed && self.session.deadline() <= until {
            self.now = self.session.deadline();
            self.session.expire(self.now - Duration::from_millis(1));
            assert!(self.session.output().is_empty(), "a timer ran out before its time");
            self.expire();
            self.run();
            assert!(self.closed, "a deadline that ends nothing");
        }
        self.now = until;
    }

    /// The handshake is done.
    pub fn secure(&mut self) {
        self.session.secured(self.now);
        self.run();
    }

    pub fn drain(&mut self) {
        self.session.drain();
        self.run();
    }

    pub fn stop(&mut self) {
        self.session.stop();
        self.run();
    }

    pub fn user(&self) -> Option<&str> {
        self.session.user().map(|user| &**user)
    }

    /// Since the session began.
    pub fn time(&self) -> Duration {
        self.now - self.started
    }

    fn run(&mut self) {
        loop {
            let input = std::mem::take(&mut self.input);
            let (used, step) = self.session.advance(&input, self.now);
            self.settle();
            let left = input[used..].to_vec();
            match step {
                Step::Read => {
                    self.input = left;
                    if self.now < self.session.deadline() {
                        return;
                    }
                    self.expire();
                    continue;
                }
                Step::Handshake => {
                    assert!(left.is_empty(), "octets between the reply and the handshake");
                    return;
                }
                Step::Send => {}
                Step::Ask(question) => self.ask(question),
                Step::Store(range) => {
                    assert!(range.end <= used && self.session.envelope().is_some_and(|e| !e.recipients.is_empty()));
                    self.stored.extend_from_slice(&input[range]);
                }
                Step::Discard => self.stored.clear(),
                Step::Commit => self.commit(),
                Step::Pause { until } => self.pause(&left, until),
                Step::Close => {
                    assert!(left.is_empty());
                    self.session.abandon();
                    self.settle();
                    self.closed = true;
                    return;
                }
            }
            self.settle();
            self.input = left;
        }
    }

    fn expire(&mut self) {
        self.session.expire(self.now);
        self.settle();
    }

    fn ask(&mut self, question: Question) {
        self.now += self.policy_takes;
        if self.now >= self.session.deadline() {
            return self.expire();
        }
        let verdict = match question {
            Question::Mail => {
                assert!(self.stored.is_empty(), "something is left of the message before");
                self.mail
            }
            Question::Rcpt => {
                let path = self.session.forward_path_asked().unwrap().to_string();
                self.rcpt.get(&path).copied().unwrap_or(Verdict::Accept)
            }
            Question::StartTls => self.starttls,
            Question::Credentials => {
                let found = self.find();
                return self.session.find(found, self.now);
            }
        };
        self.session.answer(verdict, self.now);
    }

    /// What `shard::connection::credentials` finds, with the same random octets and the same time always.
    fn find(&self) -> Found {
        let random = *b"random octets here";
        match self.session.credentials_asked().unwrap() {
            Wanted::Nonce => Found::Nonce {
                random,
                unix_millis: 1_795_000_000_000,
            },
            Wanted::NtHash { user } => self.users.nt_hash(user),
            Wanted::ScramKeys { user } => self.users.scram_keys(user, random),
            Wanted::Password { .. } if self.passwords_unavailable => Found::Unavailable,
            Wanted::Password { user, password } => {
                let (user, hash) = self.users.password(user);
                let right = hash.is_some_and(|hash| is_of(&hash, password.octets()));
                Found::Password(user.filter(|_| right))
            }
        }
    }

    fn pause(&mut self, left: &[u8], until: Instant) {
        assert!(until > self.now);
        let deadline = self.session.deadline();
        let end = until.min(deadline);
        let early = self.now + (end - self.now) / 2;
        assert_eq!(
            self.session.advance(left, early),
            (0, Step::Pause { until }),
            "input was read in a pause"
        );
        if std::mem::take(&mut self.drains_while_waiting) {
            self.waited += early - self.now;
            self.now = early;
            return self.session.drain();
        }
        self.waited += end - self.now;
        self.now = end;
        if end < until {
            self.expire();
        }
    }

    fn commit(&mut self) {
        self.now += self.store_takes;
        let envelope = describe(self.session.envelope().unwrap());
        let protocol = self.session.protocol().keyword();
        let form = if self.session.is_chunked() {
            Form::Plain
        } else {
            Form::Dotted
        };
        let wire = std::mem::take(&mut self.stored);
        let mut undotted = Vec::new();
        let strict = wire.split_inclusive(|&octet| octet == b'\n');
        let mut line_start = true;
        for line in strict {
            let dot = form == Form::Dotted && line_start && line.starts_with(b".");
            undotted.extend_from_slice(&line[usize::from(dot)..]);
            line_start = undotted.ends_with(b"\r\n");
        }
        assert_eq!(
            self.session.content_size(),
            undotted.len() as u64,
            "octets counted and stored"
        );
        let mut file = Vec::new();
        let mut conversion = Conversion::new(form, self.normalises && form == Form::Dotted);
        conversion.push(&wire, &mut file);
        conversion.finish(&mut file);
        if let Some(reply) = self.store {
            return self.session.refuse(reply, self.now);
        }
        self.taken.push_back(Taken {
            envelope,
            wire,
            file,
            protocol,
        });
        self.queue_ids += 1;
        self.session
            .acknowledge(Custody::Delivered, &format!("Q{}", self.queue_ids), self.now);
    }

    /// Takes what the session has to send and to tell.
    fn settle(&mut self) {
        let time = self.time();
        let output = std::mem::take(self.session.output());
        let text = String::from_utf8(output).expect("replies are ASCII");
        assert!(text.is_empty() || text.ends_with("\r\n"));
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        let is_last = |line: &&&str| line.as_bytes().get(3) == Some(&b' ');
        let codes: Vec<u16> = lines
            .iter()
            .filter(is_last)
            .map(|line| line[..3].parse().unwrap())
            .collect();
        self.replies.extend(lines.iter().map(|line| (time, line.to_string())));
        let notes = self.session.take_notes();
        assert_eq!(std::mem::take(&mut notes.replies), codes, "codes noted and sent");
        self.events.extend(notes.events.drain(..).map(|event| event.name()));
        if let Some(report) = self.session.take_report() {
            self.stored.clear();
            let text = match (report.event, report.reply) {
                (Some(event), Some(_)) => format!("limit {}", event.name()),
                (Some(event), None) => panic!("{} without a reply", event.name()),
                (None, Some(reply)) => format!("refused {reply}"),
                (None, None) => "abandoned".to_owned(),
            };
            let envelope = describe(&report.envelope);
            self.ended.push_back(Ended { envelope, text });
        }
    }
}

/// An envelope as the files write it.
fn describe(envelope: &Envelope) -> String {
    let mail = &envelope.mail;
    let mut text = envelope.reverse_path.to_string();
    let mut say = |keyword: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!(" {keyword}={value}"));
        }
    };
    say("SIZE", mail.size.map(|size| size.to_string()));
    say(
        "BODY",
        match mail.body {
            Body::SevenBit => None,
            Body::EightBitMime => Some("8BITMIME".into()),
            Body::BinaryMime => Some("BINARYMIME".into()),
        },
    );
    let ret = |ret| if ret == Ret::Full { "FULL" } else { "HDRS" };
    say("RET", mail.ret.map(|r| ret(r).into()));
    say("ENVID", mail.envid.as_deref().map(str::to_owned));
    say("AUTH", mail.auth.as_deref().map(str::to_owned));
    if mail.smtputf8 {
        text.push_str(" SMTPUTF8");
    }
    for recipient in &envelope.recipients {
        text.push_str(&format!(" -> {}", recipient.forward_path));
        if let Some(notify) = recipient.parameters.notify {
            text.push_str(" NOTIFY=");
            text.push_str(&kinds(notify));
        }
        if let Some(orcpt) = &recipient.parameters.orcpt {
            text.push_str(&format!(" ORCPT={orcpt}"));
        }
    }
    text
}

fn kinds(notify: Notify) -> String {
    let Notify::On {
        success,
        failure,
        delay,
    } = notify
    else {
        return "NEVER".to_owned();
    };
    let kinds = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
    let kinds: Vec<_> = kinds.into_iter().filter_map(|(on, kind)| on.then_some(kind)).collect();
    kinds.join(",")
}
