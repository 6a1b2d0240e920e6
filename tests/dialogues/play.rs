//! Plays a script, cutting the client's octets in one way, and holds what happens against what is written.

use std::fmt::Debug;
use std::time::Duration;

use crate::driver::{Driver, Ended, Taken};
use crate::script::{Line, Script};

/// How the octets of the client arrive.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// All octets between two other lines of the script at once.
    Never,
    /// A line of the script at once.
    Lines,
    /// As `Never`, but in two parts at this octet of all that the client sends.
    At(usize),
    /// Each by itself.
    Octets,
}

/// All that came of a dialogue, each reply with its time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub replies: Vec<(Duration, String)>,
    pub taken: Vec<Taken>,
    pub ended: Vec<Ended>,
    pub events: Vec<&'static str>,
    pub closed: bool,
    pub time: Duration,
}

/// A play under way. What is claimed moves from the driver into the outcome.
struct Play {
    driver: Driver,
    outcome: Outcome,
    cut: Cut,
    sent: usize,
    waiting: Vec<u8>,
    last_envelope: String,
    last_taken: Option<Taken>,
    events_claimed: usize,
    closed_claimed: bool,
}

/// Plays to the end; the error says which line was not as written.
pub fn play(script: &Script, cut: Cut) -> Result<Outcome, String> {
    let mut play = Play {
        driver: Driver::new(script),
        outcome: Outcome::default(),
        cut,
        sent: 0,
        waiting: Vec::new(),
        last_envelope: String::new(),
        last_taken: None,
        events_claimed: 0,
        closed_claimed: false,
    };
    play.reply("220 mx.test ESMTP ready")?;
    for (number, line) in &script.lines {
        play.line(line).map_err(|error| format!("line {number}: {error}"))?;
    }
    play.send();
    play.end()
}

fn same<T: PartialEq + Debug>(what: &str, found: T, written: T) -> Result<(), String> {
    if found == written {
        Ok(())
    } else {
        Err(format!("{what} is {found:?}, not {written:?}"))
    }
}

impl Play {
    fn line(&mut self, line: &Line) -> Result<(), String> {
        if let Line::Client(octets) = line {
            return self.client(octets);
        }
        self.send();
        match line {
            Line::Client(_) => {}
            Line::Reply(text) => return self.reply(text),
            Line::WholeReply(code) => return self.whole_reply(code),
            Line::Closed => {
                self.closed_claimed = true;
                self.all_replies_claimed()?;
                return same("closed", self.driver.closed, true);
            }
            Line::Waited(time) => return same("the wait", std::mem::take(&mut self.driver.waited), *time),
            Line::Message(_) | Line::File(_) | Line::Protocol(_) => return self.message(line),
            Line::Report(_) | Line::Envelope(_) | Line::Event(_) => return self.record(line),
            Line::After(time) => {
                self.all_replies_claimed()?;
                self.driver.pass(*time);
            }
            Line::PolicyMail(verdict) => self.driver.mail = *verdict,
            Line::PolicyStartTls(verdict) => self.driver.starttls = *verdict,
            Line::PolicyRcpt(path, verdict) => {
                self.driver.rcpt.insert(path.clone(), *verdict);
            }
            Line::PasswordsUnavailable => self.driver.passwords_unavailable = true,
            Line::Authenticated(user) => return same("the user", self.driver.user(), Some(user.as_str())),
            Line::PolicyTakes(time) => self.driver.policy_takes = *time,
            Line::Store(reply) => self.driver.store = *reply,
            Line::StoreTakes(time) => self.driver.store_takes = *time,
            Line::Tls => self.driver.secure(),
            Line::Drain => self.driver.drain(),
            Line::DrainWhileWaiting => self.driver.drains_while_waiting = true,
            Line::Stop => self.driver.stop(),
        }
        Ok(())
    }

    fn client(&mut self, octets: &[u8]) -> Result<(), String> {
        if self.waiting.is_empty() && !matches!(self.cut, Cut::Lines | Cut::Octets) {
            self.all_replies_claimed()?;
        }
        self.waiting.extend_from_slice(octets);
        if matches!(self.cut, Cut::Lines) {
            self.send();
        }
        Ok(())
    }

    fn send(&mut self) {
        let octets = std::mem::take(&mut self.waiting);
        if octets.is_empty() {
            return;
        }
        let before = self.sent;
        self.sent += octets.len();
        match self.cut {
            Cut::At(n) if before < n && n < self.sent => {
                let (first, second) = octets.split_at(n - before);
                self.driver.receive(first);
                self.driver.receive(second);
            }
            Cut::Octets => octets.iter().for_each(|&octet| self.driver.receive(&[octet])),
            _ => self.driver.receive(&octets),
        }
    }

    fn reply(&mut self, text: &str) -> Result<(), String> {
        let found = self.driver.replies.pop_front();
        same("the reply", found.as_ref().map_or("none", |(_, text)| text), text)?;
        self.outcome.replies.extend(found);
        Ok(())
    }

    fn whole_reply(&mut self, code: &str) -> Result<(), String> {
        loop {
            let Some((time, text)) = self.driver.replies.pop_front() else {
                return Err(format!("there is no reply {code}"));
            };
            same("the code", &text[..3], code)?;
            let more = text.as_bytes()[3] == b'-';
            self.outcome.replies.push((time, text));
            if !more {
                return Ok(());
            }
        }
    }

    fn message(&mut self, line: &Line) -> Result<(), String> {
        if let Line::Message(text) = line {
            let taken = self.driver.taken.pop_front().ok_or("there is no message")?;
            same(
                "the message",
                taken.wire.escape_ascii().to_string(),
                text.escape_ascii().to_string(),
            )?;
            self.last_envelope.clone_from(&taken.envelope);
            self.last_taken = Some(taken.clone());
            self.outcome.taken.push(taken);
            return Ok(());
        }
        let taken = self.last_taken.as_ref().ok_or("no message yet")?;
        match line {
            Line::File(text) => same(
                "the file",
                taken.file.escape_ascii().to_string(),
                text.escape_ascii().to_string(),
            ),
            Line::Protocol(keyword) => same("the protocol", taken.protocol, keyword),
            _ => Ok(()),
        }
    }

    fn record(&mut self, line: &Line) -> Result<(), String> {
        match line {
            Line::Report(text) => {
                let ended = self.driver.ended.pop_front().ok_or("there is no report")?;
                same("the report", &ended.text, text)?;
                self.last_envelope.clone_from(&ended.envelope);
                self.outcome.ended.push(ended);
                Ok(())
            }
            Line::Event(name) => {
                let found = self.driver.events.get(self.events_claimed).copied();
                self.events_claimed += 1;
                same("the event", found.unwrap_or("none"), name)
            }
            Line::Envelope(text) => same("the envelope", &self.last_envelope, text),
            _ => Ok(()),
        }
    }

    fn all_replies_claimed(&self) -> Result<(), String> {
        match self.driver.replies.front() {
            Some((_, text)) => Err(format!("nobody expected `{text}`")),
            None => Ok(()),
        }
    }

    fn end(mut self) -> Result<Outcome, String> {
        self.all_replies_claimed()
            .map_err(|error| format!("at the end {error}"))?;
        same("at the end, closed", self.driver.closed, self.closed_claimed)?;
        if let Some(taken) = self.driver.taken.front() {
            return Err(format!("nobody expected the message {}", taken.wire.escape_ascii()));
        }
        self.outcome.ended.extend(self.driver.ended.drain(..));
        self.outcome.events.extend(self.driver.events.drain(..));
        self.outcome.closed = self.driver.closed;
        self.outcome.time = self.driver.time();
        Ok(self.outcome)
    }
}
