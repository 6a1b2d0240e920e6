//! One message: MAIL, the RCPTs, DATA or BDAT, the content, and what the hop says to each of them.
//!
//! Promises: replies are taken in the order of the commands; each recipient gets one outcome, whatever the hop says and
//! whenever it stops; what is neither taken nor refused by the hop is deferred. Lives with its connection, and keeps its
//! memory from message to message.

use std::time::Instant;

use memchr::memchr;

use super::content::{END_MARK, Wire, Writer};
use super::failure::{Failure, Fault};
use super::outcome::{EnhancedStatusCode, HopReply, Origin, Outcome};
use super::outgoing::{Manner, Misfit, Outgoing};
use super::terms::Dialect;
use super::{Client, Phase};
use crate::smtp::Form;
use crate::smtp::extension::Extension;

/// Commands whose replies may be on their way at once, so that a hop that reads nothing before it has written everything
/// (RFC 2920 section 3.1 warns of it) has little to write.
const WINDOW: usize = 256;
/// Octets of a chunk that is sent behind the RCPTs without waiting for the replies to them: not much is lost if all are
/// refused.
const EAGER_CHUNK: u64 = 64 << 10;

const RSET: &[u8] = b"RSET\r\n";
const DATA: &[u8] = b"DATA\r\n";

/// From MAIL to the last reply.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// By recipient; none where it is not settled yet.
    outcomes: Vec<Option<Outcome>>,
    awaited: Awaited,
    content: Content,
    writer: Writer,
    wire: Wire,
    /// Octets of head and content, and how many are still to come.
    size: u64,
    left: u64,
    /// `size` is exact.
    counted: bool,
    /// What goes before the content.
    head: Vec<u8>,
    /// Commands that wait for replies to others, and how much of them has gone.
    commands: Vec<u8>,
    gone: usize,
    /// RCPTs that have gone.
    rcpts: usize,
    /// The hop has taken MAIL.
    begun: bool,
    /// DATA or BDAT has gone.
    announced: bool,
}

/// Which command the next reply is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    Rset,
    #[default]
    Mail,
    /// Of the recipient with this number.
    Rcpt(usize),
    Data,
    /// The content; in LMTP, of the first unsettled recipient from this number on.
    End(usize),
    /// Content that was none, for the hop had refused everybody and yet wanted it.
    Nothing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    /// Not agreed on yet.
    #[default]
    Later,
    /// Its next piece may come.
    Open,
    /// All of it is in the output.
    Ended,
}

impl Transaction {
    /// A new one, in the memory of the last.
    fn begin(&mut self, message: &Outgoing<'_>, manner: Manner) {
        self.outcomes.clear();
        self.outcomes.resize(message.count(), None);
        self.awaited = Awaited::Mail;
        self.content = Content::Later;
        self.wire = manner.wire;
        self.size = message.size;
        self.left = message.size;
        self.counted = message.form == Form::Plain;
        self.head.clear();
        self.head.extend_from_slice(message.head);
        self.commands.clear();
        self.gone = 0;
        self.rcpts = 0;
        self.begun = false;
        self.announced = false;
    }

    pub fn awaited(&self) -> Awaited {
        self.awaited
    }

    /// Whether the next piece of content may come.
    pub fn is_open(&self) -> bool {
        self.content == Content::Open
    }

    /// Whether the end of the content is in the output.
    pub fn has_ended(&self) -> bool {
        self.content == Content::Ended
    }

    fn by_chunk(&self) -> bool {
        self.wire == Wire::Chunk
    }

    fn unsettled(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.is_none()).count()
    }

    /// The outcome of everybody who has none yet.
    pub fn settle(&mut self, outcome: &Outcome) {
        for place in &mut self.outcomes {
            if place.is_none() {
                *place = Some(outcome.clone());
            }
        }
    }

    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        let defect = || Outcome::Deferred(Failure::ours(Fault::Content, Origin::Ours, "no outcome").reply);
        let outcomes = self.outcomes.drain(..);
        outcomes.map(|outcome| outcome.unwrap_or_else(defect)).collect()
    }

    /// `octets` of the content are to go out: whether the announced size has room for them.
    fn count(&mut self, octets: usize, last: bool) -> bool {
        if !self.counted {
            return true;
        }
        match self.left.checked_sub(octets as u64) {
            Some(left) => {
                self.left = left;
                !last || left == 0
            }
            None => false,
        }
    }
}

impl Client {
    /// Begins a transaction. To be called after [`super::Step::Ready`] only; then [`Client::advance`] says how it goes on.
    /// A message that the hop cannot take leaves the connection as it is.
    pub fn send(&mut self, message: &Outgoing<'_>, now: Instant) -> Result<(), Misfit> {
        if self.phase != Phase::Idle {
            return Ok(());
        }
        let manner = message.manner(&self.offers)?;
        self.phase = Phase::Transaction;
        self.since = now;
        let transaction = &mut self.transaction;
        transaction.begin(message, manner);
        let recipients = transaction.outcomes.len();
        if recipients != message.recipients.len() {
            transaction.outcomes.resize(message.recipients.len(), None);
            self.fail(Failure::ours(
                Fault::Content,
                Origin::Ours,
                "a recipient is not in the envelope",
            ));
            return Ok(());
        }
        if recipients == 0 {
            self.phase = Phase::Done;
            return Ok(());
        }
        let lines = recipients + 1 + usize::from(self.stale);
        let at_once = self.offers.has(Extension::Pipelining) && lines <= WINDOW;
        let to = if at_once {
            &mut self.output
        } else {
            &mut transaction.commands
        };
        if self.stale {
            to.extend_from_slice(RSET);
            transaction.awaited = Awaited::Rset;
        }
        message.commands(manner, &self.offers, to);
        self.stale = false;
        if at_once {
            self.asked += lines;
            self.transaction.rcpts = recipients;
            self.announce();
        } else {
            self.pump();
        }
        Ok(())
    }

    /// Appends a piece of the content to the output, in the form that was agreed on. To be called after
    /// [`super::Step::Content`] only, with pieces of any size; `last` ends the content.
    pub fn content(&mut self, piece: &[u8], last: bool, now: Instant) {
        if self.phase != Phase::Transaction || !self.transaction.is_open() {
            return;
        }
        self.since = now;
        let transaction = &mut self.transaction;
        if !transaction.count(piece.len(), last) {
            let why = "the content has not the size that was announced";
            return self.fail(Failure::ours(Fault::Content, Origin::Ours, why));
        }
        transaction.writer.piece(piece, &mut self.output);
        if last {
            transaction.writer.end(&mut self.output);
            transaction.content = Content::Ended;
            if !transaction.by_chunk() {
                self.asked += self.replies_to_content();
            }
        }
    }

    /// The outcomes of the transaction that is over, one for each recipient, in the order of [`Outgoing::recipients`].
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        if self.phase != Phase::Done {
            return Vec::new();
        }
        self.phase = if self.failure.is_some() {
            Phase::Closed
        } else {
            Phase::Idle
        };
        self.transaction.take_outcomes()
    }

    /// Sends the commands that wait, as far as the hop may hear them before it answers others.
    fn pump(&mut self) {
        let pipelining = self.offers.has(Extension::Pipelining);
        let most = if pipelining { WINDOW } else { 1 };
        let transaction = &mut self.transaction;
        if transaction.gone == transaction.commands.len() {
            return;
        }
        while self.asked < most {
            let rest = transaction.commands.get(transaction.gone..).unwrap_or_default();
            let Some(end) = memchr(b'\n', rest) else {
                break;
            };
            let line = rest.get(..=end).unwrap_or(rest);
            self.output.extend_from_slice(line);
            transaction.rcpts += usize::from(line.starts_with(b"RCPT"));
            transaction.gone += line.len();
            self.asked += 1;
        }
        if pipelining && transaction.gone == transaction.commands.len() {
            self.announce();
        }
    }

    /// DATA behind the RCPTs, before the replies to them (RFC 2920 section 3.1), or a small chunk. In LMTP a chunk waits:
    /// how many replies come is known when the recipients are.
    fn announce(&mut self) {
        let small = self.transaction.size <= EAGER_CHUNK && self.terms.dialect == Dialect::Smtp;
        if !self.transaction.by_chunk() {
            self.transaction.announced = true;
            self.output.extend_from_slice(DATA);
            self.asked += 1;
        } else if small {
            self.begin_chunk();
        }
    }

    /// The content is one chunk, since its size is known (RFC 3030 section 2).
    fn begin_chunk(&mut self) {
        let mut digits = itoa::Buffer::new();
        self.output.extend_from_slice(b"BDAT ");
        self.output
            .extend_from_slice(digits.format(self.transaction.size).as_bytes());
        self.output.extend_from_slice(b" LAST\r\n");
        self.transaction.announced = true;
        self.asked += self.replies_to_content();
        self.open_content();
    }

    /// Head first.
    fn open_content(&mut self) {
        let transaction = &mut self.transaction;
        transaction.content = Content::Open;
        let head = std::mem::take(&mut transaction.head);
        if !transaction.count(head.len(), false) {
            let why = "the head alone is larger than the announced size";
            return self.fail(Failure::ours(Fault::Content, Origin::Ours, why));
        }
        transaction.writer = Writer::new(transaction.wire);
        transaction.writer.head(&head, &mut self.output);
        transaction.head = head;
    }

    fn replies_to_content(&self) -> usize {
        match self.terms.dialect {
            Dialect::Smtp => 1,
            Dialect::Lmtp => self.transaction.unsettled(),
        }
    }

    /// The reply to the command that is awaited.
    pub(super) fn transaction_answered(&mut self) {
        let class = self.replies.code() / 100;
        let transaction = &mut self.transaction;
        match (transaction.awaited, class) {
            (Awaited::Rset, 2) => transaction.awaited = Awaited::Mail,
            (Awaited::Rset, _) => {
                return self.fail(Failure::ours(Fault::Refused, Origin::Nonsense, "the hop refused RSET"));
            }
            (Awaited::Mail | Awaited::Rcpt(_), 3) => {
                return self.fail_by_protocol("the hop answered MAIL or RCPT with a reply that asks for more");
            }
            (Awaited::Mail, 2) => {
                transaction.begun = true;
                transaction.awaited = Awaited::Rcpt(0);
            }
            (Awaited::Mail, _) => {
                let outcome = outcome(self.replies.heard());
                transaction.settle(&outcome);
                transaction.gone = transaction.commands.len();
                transaction.awaited = Awaited::Rcpt(0);
            }
            (Awaited::Rcpt(number), class) => {
                if class != 2 {
                    self.recipient_refused(number);
                }
                self.transaction.awaited = Awaited::Rcpt(number + 1);
            }
            (Awaited::Data, _) => return self.data_answered(class),
            (Awaited::End(_), _) => return self.content_answered(class),
            (Awaited::Nothing, _) => return self.end(false),
        }
        self.pump();
        let transaction = &self.transaction;
        let all_gone = transaction.gone == transaction.commands.len();
        if matches!(transaction.awaited, Awaited::Rcpt(number) if number >= transaction.rcpts) && all_gone {
            self.recipients_answered();
        }
    }

    fn recipient_refused(&mut self, number: usize) {
        let reply = self.replies.heard();
        let transaction = &mut self.transaction;
        let before = transaction.outcomes.get(..number).unwrap_or_default();
        let some_taken = transaction.begun && before.iter().any(Option::is_none);
        if let Some(place @ None) = transaction.outcomes.get_mut(number) {
            *place = Some(if is_too_many(&reply, some_taken) {
                Outcome::Deferred(reply)
            } else {
                outcome(reply)
            });
        }
    }

    fn recipients_answered(&mut self) {
        let transaction = &mut self.transaction;
        let anybody = transaction.unsettled() > 0;
        if transaction.announced {
            transaction.awaited = if transaction.by_chunk() {
                Awaited::End(0)
            } else {
                Awaited::Data
            };
        } else if !anybody {
            let begun = transaction.begun;
            self.end(begun);
        } else if transaction.by_chunk() {
            transaction.awaited = Awaited::End(0);
            self.begin_chunk();
        } else {
            transaction.awaited = Awaited::Data;
            transaction.announced = true;
            self.output.extend_from_slice(DATA);
            self.asked += 1;
        }
    }

    fn data_answered(&mut self, class: u16) {
        let anybody = self.transaction.unsettled() > 0;
        match (class, anybody, self.terms.dialect) {
            (3, true, _) => {
                self.transaction.awaited = Awaited::End(0);
                self.open_content();
            }
            // RFC 2920 section 3.1: whoever has refused everybody and says 354 gets an empty message.
            (3, false, Dialect::Smtp) => {
                self.output.extend_from_slice(END_MARK);
                self.asked += 1;
                self.transaction.awaited = Awaited::Nothing;
            }
            (3, false, Dialect::Lmtp) => self.fail_by_protocol("the hop wants content for nobody"),
            (2, ..) => self.fail_by_protocol("the hop answered DATA as if it had the content already"),
            _ => {
                let outcome = outcome(self.replies.heard());
                self.transaction.settle(&outcome);
                let begun = self.transaction.begun;
                self.end(begun);
            }
        }
    }

    fn content_answered(&mut self, class: u16) {
        let reply = self.replies.heard();
        let transaction = &mut self.transaction;
        if class == 3 || class == 2 && transaction.is_open() {
            return self.fail_by_protocol("the hop answered content that it had not got");
        }
        if transaction.is_open() {
            // It will hear no more of it, and an end mark now would say that it was all.
            transaction.settle(&outcome(reply.clone()));
            return self.fail(Failure::heard(Fault::Refused, reply));
        }
        let Awaited::End(from) = transaction.awaited else {
            return;
        };
        // RFC 3030 section 2: after a chunk that was refused only RSET brings the hop back to a known state.
        self.stale |= class != 2 && transaction.by_chunk();
        if self.terms.dialect == Dialect::Smtp {
            transaction.settle(&outcome(reply));
            let stale = self.stale;
            return self.end(stale);
        }
        let next = |outcomes: &[Option<Outcome>], from: usize| {
            let rest = outcomes.get(from..).unwrap_or_default();
            rest.iter().position(Option::is_none).map(|n| from + n)
        };
        if let Some(number) = next(&transaction.outcomes, from) {
            transaction.awaited = Awaited::End(number + 1);
            if let Some(place) = transaction.outcomes.get_mut(number) {
                *place = Some(outcome(reply));
            }
        }
        if self.asked == 0 {
            let stale = self.stale;
            self.end(stale);
        }
    }

    /// Everybody has an outcome. `stale`: the hop still holds the transaction.
    fn end(&mut self, stale: bool) {
        self.stale = stale;
        self.served += 1;
        self.phase = Phase::Done;
    }
}

/// What a reply means for its recipient (RFC 5321 section 4.2.1).
fn outcome(reply: HopReply) -> Outcome {
    match reply.code / 100 {
        2 => Outcome::Delivered(reply),
        5 => Outcome::Failed(reply),
        _ => Outcome::Deferred(reply),
    }
}

/// RFC 5321 section 4.5.3.1.10: a hop that takes no more recipients should say 452, and some say 552, as RFC 821 had it.
/// 552 is also a mailbox that is full, so the enhanced status code decides, and without one whether others were taken.
fn is_too_many(reply: &HopReply, some_taken: bool) -> bool {
    const TOO_MANY: EnhancedStatusCode = EnhancedStatusCode::new(5, 5, 3);
    reply.code == 552 && (reply.status == TOO_MANY || reply.status == EnhancedStatusCode::of(552) && some_taken)
}
