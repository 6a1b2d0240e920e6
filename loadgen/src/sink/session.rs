//! One connection to the sink from its own side: octets in, replies out, no socket, no clock.
//!
//! Promises: the same replies however the stream is cut; replies to pipelined commands gather in one buffer; memory does not
//! grow with a message. It checks what a witness needs to know, not what an MTA has to: order of commands, parameters of
//! extensions that are not offered, size. One value a connection, on its thread.

use std::time::Duration;

use memchr::memchr;

use super::content::Dotted;
use super::fault::{Act, Plan, Stage, Verdict};
use super::tally::Tally;
use super::terms::{Dialect, Offer, Terms};
use crate::identity::ledger::recipient;
use crate::identity::{Examiner, Found};
use crate::sample::Dice;

/// Longest command line taken, in octets: RFC 5321 section 4.5.3.1.4 says 512, extensions add some hundreds.
const LINE_MAX: usize = 4096;
/// Most recipients of one message.
const RECIPIENTS_MAX: usize = 100_000;

/// What the owner of the connection is to do next. Everything in the output is to be written first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give more input.
    More,
    /// Call `resume` after this time, and give no input before.
    Wait(Duration),
    /// Close.
    Close,
    /// Close with RST.
    Reset,
    /// Neither read nor write any more.
    Stall,
    /// Begin TLS, then call `secured`.
    Tls,
}

/// What the session works with: the same for all sessions of a thread.
#[derive(Debug)]
pub struct Desk<'a> {
    pub terms: &'a Terms,
    pub plan: &'a mut Plan,
    pub dice: &'a mut Dice,
    pub tally: &'a mut Tally,
    pub out: &'a mut Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Command,
    Data(Dotted),
    Chunk { left: u64, last: bool, refused: bool },
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    greeted: bool,
    secured: bool,
    mail: bool,
    recipients: Vec<u32>,
    examiner: Examiner,
    /// The faults of the content of this message are drawn.
    content_drawn: bool,
    /// What comes after a delay.
    held: (Vec<u8>, Step),
}

impl Session {
    /// A connection that has just come; call `greet`.
    pub fn new() -> Self {
        Self {
            state: State::Command,
            greeted: false,
            secured: false,
            mail: false,
            recipients: Vec::new(),
            examiner: Examiner::default(),
            content_drawn: false,
            held: (Vec::new(), Step::More),
        }
    }

    /// The greeting.
    pub fn greet(&mut self, desk: &mut Desk<'_>) -> Step {
        let terms = desk.terms;
        self.answer(desk, Stage::Connect, &terms.greeting)
    }

    /// What was held back by a delay.
    pub fn resume(&mut self, desk: &mut Desk<'_>) -> Step {
        desk.out.append(&mut self.held.0);
        std::mem::replace(&mut self.held.1, Step::More)
    }

    /// TLS is established: the client begins anew (RFC 3207 section 4.2).
    pub fn secured(&mut self) {
        (self.secured, self.greeted) = (true, false);
        self.reset();
    }

    /// Whether a message is under way: its connection should not end now.
    pub fn is_in_transaction(&self) -> bool {
        self.mail
    }

    /// Takes input up to the first thing that asks for a step other than `More`; gives the octets used. What is not used is
    /// to be given again, with what follows it.
    pub fn receive(&mut self, desk: &mut Desk<'_>, input: &[u8]) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return (used, Step::More);
            }
            let (taken, step) = match self.state {
                State::Command => match memchr(b'\n', rest) {
                    Some(end) => {
                        let line = rest.get(..end).unwrap_or_default();
                        (end + 1, self.command(desk, line.strip_suffix(b"\r").unwrap_or(line)))
                    }
                    None if rest.len() > LINE_MAX => {
                        desk.say(b"500 5.5.2 line too long\r\n");
                        return (input.len(), Step::Close);
                    }
                    None => return (used, Step::More),
                },
                _ if !self.content_drawn => (0, self.content_begins(desk)),
                State::Data(mut dotted) => {
                    let read = dotted.read(rest, |piece| self.examiner.feed(piece));
                    self.state = State::Data(dotted);
                    match read.ended {
                        true => (read.used, self.end(desk)),
                        false => return (used + read.used, Step::More),
                    }
                }
                State::Chunk { left, last, refused } => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if !refused {
                        self.examiner.feed(rest.get(..taken).unwrap_or_default());
                    }
                    let left = left - taken as u64;
                    self.state = State::Chunk { left, last, refused };
                    (taken, if left == 0 { self.chunk_over(desk) } else { Step::More })
                }
            };
            used += taken;
            let early = self.state == State::Command && used < input.len() && taken > 0;
            if early && !desk.terms.offers(Offer::Pipelining) {
                desk.violation("input before the reply, though PIPELINING is not offered");
            }
            if step != Step::More {
                return (used, step);
            }
        }
    }

    fn command(&mut self, desk: &mut Desk<'_>, line: &[u8]) -> Step {
        let (word, rest) = line.split_at(line.len().min(4));
        let rest = rest.trim_ascii();
        let mut verb = [0; 4];
        for (place, octet) in verb.iter_mut().zip(word) {
            *place = octet.to_ascii_uppercase();
        }
        match &verb {
            b"MAIL" => self.mail(desk, rest),
            b"RCPT" => self.rcpt(desk, rest),
            b"DATA" => self.data(desk),
            b"BDAT" => self.bdat(desk, rest),
            b"RSET" => {
                self.reset();
                desk.say(b"250 2.0.0 ok\r\n")
            }
            b"NOOP" => desk.say(b"250 2.0.0 ok\r\n"),
            b"QUIT" => {
                desk.say(b"221 2.0.0 bye\r\n");
                Step::Close
            }
            b"EHLO" | b"LHLO" | b"HELO" => self.hello(desk, &verb),
            b"STAR" if desk.terms.offers_tls() && !self.secured => {
                desk.say(b"220 2.0.0 go ahead\r\n");
                Step::Tls
            }
            _ => {
                desk.violation(&format!("unknown command {}", line.escape_ascii()));
                desk.say(b"502 5.5.1 not implemented\r\n")
            }
        }
    }

    fn hello(&mut self, desk: &mut Desk<'_>, verb: &[u8; 4]) -> Step {
        let lmtp = desk.terms.dialect == Dialect::Lmtp;
        // RFC 2033 section 4.1: LHLO in LMTP, and neither of the others.
        if lmtp != (verb == b"LHLO") {
            desk.violation("the greeting of the other protocol: LHLO is LMTP's, EHLO and HELO are SMTP's");
            return desk.say(b"500 5.5.1 not in this protocol\r\n");
        }
        self.reset();
        let verdict = desk.draw(Stage::Ehlo);
        self.greeted = verdict.act.takes();
        let terms = desk.terms;
        let reply = match verb == b"HELO" {
            true => &terms.helo,
            false if self.secured => &terms.ehlo_secured,
            false => &terms.ehlo,
        };
        self.answer_with(desk, Stage::Ehlo, verdict, reply)
    }

    fn mail(&mut self, desk: &mut Desk<'_>, rest: &[u8]) -> Step {
        if !self.greeted || self.mail {
            return desk.out_of_order("MAIL before EHLO or within a transaction");
        }
        let Some((_, parameters)) = path(rest, b"FROM:") else {
            return desk.bad_syntax(rest);
        };
        if let Err(refusal) = desk.parameters(parameters, true) {
            return desk.say(refusal);
        }
        let verdict = desk.draw(Stage::Mail);
        self.mail = verdict.act.takes();
        self.answer_with(desk, Stage::Mail, verdict, b"250 2.1.0 ok\r\n")
    }

    fn rcpt(&mut self, desk: &mut Desk<'_>, rest: &[u8]) -> Step {
        if !self.mail {
            return desk.say(b"503 5.5.1 no MAIL before\r\n");
        }
        let Some((address, parameters)) = path(rest, b"TO:") else {
            return desk.bad_syntax(rest);
        };
        if let Err(refusal) = desk.parameters(parameters, false) {
            return desk.say(refusal);
        }
        if self.recipients.len() >= RECIPIENTS_MAX {
            return desk.say(b"452 4.5.3 too many recipients\r\n");
        }
        let verdict = desk.draw(Stage::Rcpt);
        if verdict.act.takes() {
            self.recipients.push(recipient(address));
        }
        self.answer_with(desk, Stage::Rcpt, verdict, b"250 2.1.5 ok\r\n")
    }

    fn data(&mut self, desk: &mut Desk<'_>) -> Step {
        if !self.mail || self.recipients.is_empty() {
            return desk.say(b"554 5.5.1 no valid recipients\r\n");
        }
        let verdict = desk.draw(Stage::Data);
        if verdict.act.takes() {
            self.state = State::Data(Dotted::new());
            self.content_drawn = desk.plan.content.is_empty();
        }
        self.answer_with(desk, Stage::Data, verdict, b"354 go ahead\r\n")
    }

    /// RFC 3030 section 2: the octets come whatever the reply will be.
    fn bdat(&mut self, desk: &mut Desk<'_>, rest: &[u8]) -> Step {
        let mut words = rest.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
        let size = words
            .next()
            .and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"LAST"));
        let Some(left) = size else {
            desk.violation("BDAT without a size");
            desk.say(b"501 5.5.4 no size\r\n");
            return Step::Close;
        };
        let offered = desk.terms.offers(Offer::Chunking);
        if !offered {
            desk.violation("BDAT, though CHUNKING is not offered");
        }
        let refused = !offered || !self.mail || self.recipients.is_empty();
        self.state = State::Chunk { left, last, refused };
        // One draw a message, at its first chunk; a refused one has none.
        self.content_drawn |= refused || desk.plan.content.is_empty();
        if left == 0 { self.chunk_over(desk) } else { Step::More }
    }

    fn chunk_over(&mut self, desk: &mut Desk<'_>) -> Step {
        let State::Chunk { last, refused, .. } = self.state else {
            return Step::More;
        };
        self.state = State::Command;
        match (refused, last) {
            (true, _) => {
                self.reset();
                desk.say(b"503 5.5.1 no transaction for this chunk\r\n")
            }
            (false, false) => desk.say(b"250 2.0.0 chunk taken\r\n"),
            (false, true) => self.end(desk),
        }
    }

    /// The first octets of the content are there, or its chunk is announced.
    fn content_begins(&mut self, desk: &mut Desk<'_>) -> Step {
        self.content_drawn = true;
        let verdict = desk.draw(Stage::Content);
        self.answer_with(desk, Stage::Content, verdict, b"")
    }

    fn end(&mut self, desk: &mut Desk<'_>) -> Step {
        let mut found = self.examiner.finish();
        let recipients = std::mem::take(&mut self.recipients);
        self.reset();
        let step = if found.octets > desk.terms.size_limit {
            desk.tally.too_big += 1;
            desk.say(b"552 5.3.4 too big\r\n")
        } else if desk.terms.dialect == Dialect::Lmtp {
            self.end_for_each(desk, found, &recipients)
        } else {
            let verdict = desk.draw(Stage::End);
            if verdict.act == Act::Alter {
                found.body.crc ^= 1;
            }
            desk.tally.settle(&found, &recipients, verdict.act);
            self.answer_with(desk, Stage::End, verdict, b"250 2.0.0 taken\r\n")
        };
        self.recipients = recipients;
        self.recipients.clear();
        step
    }

    /// RFC 2033 section 4.2: a reply for each recipient. Delays add up in front of all of them; the first that ends the
    /// connection leaves the recipients after it without an answer.
    fn end_for_each(&mut self, desk: &mut Desk<'_>, found: Found, recipients: &[u32]) -> Step {
        let (mut delay, mut then) = (Duration::ZERO, Step::More);
        let (mut replies, mut taken) = (Vec::new(), false);
        for recipient in recipients {
            let verdict = desk.draw(Stage::End);
            delay += verdict.delay;
            let mut found = found;
            if verdict.act == Act::Alter {
                found.body.crc ^= 1;
            }
            // The message is one, however many recipients it has.
            desk.tally.settle_one(&found, *recipient, verdict.act, !taken);
            taken |= verdict.act.takes();
            then = desk.reply(Stage::End, verdict, b"250 2.1.5 taken\r\n", &mut replies);
            if then != Step::More {
                break;
            }
        }
        self.hold(desk, delay, replies, then)
    }

    fn reset(&mut self) {
        self.mail = false;
        self.content_drawn = false;
        self.state = State::Command;
        self.recipients.clear();
        self.examiner.reset();
    }

    fn answer(&mut self, desk: &mut Desk<'_>, stage: Stage, proper: &[u8]) -> Step {
        let verdict = desk.draw(stage);
        self.answer_with(desk, stage, verdict, proper)
    }

    fn answer_with(&mut self, desk: &mut Desk<'_>, stage: Stage, verdict: Verdict, proper: &[u8]) -> Step {
        if verdict == Verdict::PROPER {
            return desk.say(proper);
        }
        let mut reply = Vec::new();
        let then = desk.reply(stage, verdict, proper, &mut reply);
        self.hold(desk, verdict.delay, reply, then)
    }

    fn hold(&mut self, desk: &mut Desk<'_>, delay: Duration, mut reply: Vec<u8>, then: Step) -> Step {
        if delay.is_zero() {
            desk.out.append(&mut reply);
            return then;
        }
        self.held = (reply, then);
        Step::Wait(delay)
    }
}

/// The address of `FROM:<address> parameters`, and the parameters.
fn path<'a>(rest: &'a [u8], keyword: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (word, rest) = rest.split_at_checked(keyword.len())?;
    let rest = rest.trim_ascii_start().strip_prefix(b"<")?;
    if !word.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let end = match memchr(b'"', rest) {
        None => memchr(b'>', rest)?,
        Some(_) => end_of_quoted_path(rest)?,
    };
    Some((rest.get(..end)?, rest.get(end + 1..)?.trim_ascii()))
}

/// A quoted local part may hold the bracket that would end the path.
fn end_of_quoted_path(rest: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    rest.iter().position(|octet| {
        let bare = !escaped;
        escaped = bare && *octet == b'\\';
        quoted ^= bare && *octet == b'"';
        *octet == b'>' && !quoted
    })
}

#[cfg(test)]
mod tests;
