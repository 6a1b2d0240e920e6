//! The sending side of one connection, sans-IO: a [`Client`] takes what the hop sent and `now`, and says what its driver has
//! to do next. SMTP (RFC 5321) and LMTP (RFC 2033).
//!
//! Promises: the same commands and outcomes however the hop's replies are cut; no input panics; each recipient of a message
//! gets exactly one outcome, and Delivered only by a 2xx after the end of the content; memory is bounded by the
//! commands of one message and the content that the driver puts in before it sends it; no credential is in debug output or in
//! a failure. Lives on the thread of its connection.
//!
//! The methods are of four kinds. What happened: [`Client::advance`], [`Client::secured`], [`Client::expire`],
//! [`Client::lost`], [`Client::found`]. What to do: the [`Step`] that `advance` returns. What is wanted: [`Client::send`], [`Client::content`],
//! [`Client::quit`]. What came of it: [`Client::output`], [`Client::take_outcomes`], [`Client::failure`]. A driver loops:
//! `advance`, do the step; at [`Step::Read`] it sends the output and reads.
//!
//! ```text
//!  implicit TLS ─► Handshake ──────► Greeting ─► Ehlo ─► Helo
//!                      ▲                          │ ▲      │
//!                      └───── StartTls ◄──────────┤ └─ secured() by STARTTLS
//!                                                 ▼
//!                                Asking ◄─► Auth ──► Idle ── quit() ─► Quitting
//!                                                  │  ▲                  │
//!                                           send() ▼  │ take_outcomes()  ▼
//!                                          Transaction ─► Done ──────► Closed
//!
//!  a failure: from Transaction to Done, then Closed; from everywhere else to Closed
//! ```
//!
//! What the hop says when nobody has asked it is a failure, except 421, which is one too, but of another kind.

mod auth;
mod content;
mod failure;
mod offers;
mod opening;
mod outcome;
mod outgoing;
mod reply;
mod terms;
#[cfg(test)]
mod tests;
mod transaction;

pub use auth::{Found, Wanted};
pub use content::{Wire, Writer};
pub use failure::{Failure, Fault};
pub use offers::Offers;
pub use outcome::{EnhancedStatusCode, HopReply, MAX_TEXT, Origin, Outcome};
pub use outgoing::{Misfit, Outgoing};
pub use reply::{Garbage, Line, Replies};
pub use terms::{Credentials, Dialect, Terms, Timeouts, TlsUse};

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroize as _;

use auth::Exchange;
use transaction::{Awaited, Transaction};

/// All that a driver ever has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the output, then read more input.
    Read,
    /// Send the output, do the handshake of TLS, then call [`Client::secured`]. There is no unused input.
    Handshake,
    /// Find out [`Client::wanted`], and call [`Client::found`] with the answer.
    Ask,
    /// Connected and idle: call [`Client::send`] or [`Client::quit`], or wait.
    Ready,
    /// Call [`Client::content`] with the next piece, and send the output when there is enough of it.
    Content,
    /// The transaction is over: call [`Client::take_outcomes`].
    Done,
    /// Send the output and close.
    Close,
}

/// The facts of the connection. What belongs to one message is in its transaction.
pub struct Client {
    terms: Arc<Terms>,
    phase: Phase,
    replies: Replies,
    offers: Offers,
    transaction: Transaction,
    /// An AUTH that is under way.
    exchange: Option<Box<Exchange>>,
    output: Vec<u8>,
    /// A password stands in the output.
    confided: bool,
    /// Commands without a reply yet.
    asked: usize,
    secure: bool,
    /// The hop may still hold a transaction: RSET goes before the next.
    stale: bool,
    /// When the wait for the hop began.
    since: Instant,
    served: u64,
    failure: Option<Box<Failure>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Auth,
    /// AUTH goes on when the driver has found something out.
    Asking,
    Idle,
    /// The hop speaks without having been asked.
    Unasked,
    Transaction,
    Done,
    Quitting,
    Closed,
}

impl Client {
    /// A client whose connection was made at `now`.
    pub fn new(terms: Arc<Terms>, now: Instant) -> Client {
        let implicit = terms.implicit_tls;
        Client {
            terms,
            phase: if implicit { Phase::Handshake } else { Phase::Greeting },
            replies: Replies::default(),
            offers: Offers::default(),
            transaction: Transaction::default(),
            exchange: None,
            output: Vec::new(),
            confided: false,
            asked: usize::from(!implicit),
            secure: false,
            stale: false,
            since: now,
            served: 0,
            failure: None,
        }
    }

    /// Takes input and runs on until it needs its driver. `input` starts with the first octet not yet used.
    /// Returns how many octets are done with, and what to do.
    pub fn advance(&mut self, input: &[u8], now: Instant) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match self.phase {
                Phase::Handshake => return (used, Step::Handshake),
                Phase::Asking => return (used, Step::Ask),
                Phase::Done => return (used, Step::Done),
                Phase::Closed => return (input.len(), Step::Close),
                Phase::Idle if rest.is_empty() => return (used, Step::Ready),
                Phase::Idle => {
                    self.phase = Phase::Unasked;
                    self.since = now;
                }
                _ => {}
            }
            match self.replies.line(rest) {
                Ok(Some(line)) => {
                    used += line.used;
                    if self.phase == Phase::Ehlo && line.number > 0 {
                        self.offers.add(line.text);
                    }
                    if line.last {
                        self.since = now;
                        self.answered(line.used < rest.len());
                    }
                }
                Ok(None) if self.phase == Phase::Transaction && self.transaction.is_open() => {
                    return (used, Step::Content);
                }
                Ok(None) => return (used, Step::Read),
                Err(garbage) => self.fail_by_protocol(garbage.text()),
            }
        }
    }

    /// What waits to be sent. The driver takes it from the front.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The output has been sent: it is emptied, and wiped where a password stood in it.
    pub fn sent(&mut self) {
        match std::mem::take(&mut self.confided) {
            true => self.output.zeroize(),
            false => self.output.clear(),
        }
    }

    /// Ends an idle connection.
    pub fn quit(&mut self, now: Instant) {
        if self.phase == Phase::Idle {
            self.since = now;
            self.ask(Phase::Quitting, &["QUIT\r\n"]);
        }
    }

    /// The connection is gone, or must go: `reason` for the log and the report.
    pub fn lost(&mut self, reason: &str) {
        self.fail(Failure::lost(reason, self.transaction.has_ended()));
    }

    /// When [`Client::expire`] must be called; never where the next move is ours.
    pub fn deadline(&self) -> Option<Instant> {
        let (limit, _) = self.patience()?;
        self.since.checked_add(limit)
    }

    /// Gives the hop up when its deadline is reached; otherwise does nothing.
    pub fn expire(&mut self, now: Instant) {
        let Some((limit, waited_for)) = self.patience() else {
            return;
        };
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.fail(Failure::timed_out(waited_for, limit, self.transaction.has_ended()));
    }

    /// What the hop has offered, since TLS where there is TLS.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Whether a message may be sent.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether TLS is up.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Transactions that the hop has answered to their end.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Why the connection cannot be used; none after an orderly QUIT.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_deref()
    }

    /// A whole reply is there. `more`: and something behind it.
    fn answered(&mut self, more: bool) {
        let in_content = self.phase == Phase::Transaction && self.transaction.is_open();
        let asked = self.asked > 0;
        self.asked = self.asked.saturating_sub(1);
        if self.phase == Phase::Quitting {
            self.phase = Phase::Closed;
            return;
        }
        if self.replies.code() == 421 {
            return self.fail(Failure::heard(Fault::Closing, self.replies.heard()));
        }
        // Behind the last reply of a transaction a hop may say that it closes; anywhere else, what stands behind the last
        // reply would be taken for the reply to what was not asked yet (behind STARTTLS: for one that came by TLS).
        let last = self.phase == Phase::Transaction
            && matches!(self.transaction.awaited(), Awaited::End(_) | Awaited::Nothing);
        if !asked && !in_content || more && self.asked == 0 && !last {
            return self.fail_by_protocol("the hop sent a reply to nothing");
        }
        match self.phase {
            Phase::Greeting => self.greeted(),
            Phase::Ehlo => self.ehlo_answered(),
            Phase::Helo => self.helo_answered(),
            Phase::StartTls => self.starttls_answered(),
            Phase::Auth => self.auth_answered(),
            Phase::Transaction => self.transaction_answered(),
            Phase::Handshake
            | Phase::Asking
            | Phase::Idle
            | Phase::Unasked
            | Phase::Done
            | Phase::Quitting
            | Phase::Closed => {}
        }
    }

    /// Writes a command and waits for its reply in `phase`.
    fn ask(&mut self, phase: Phase, command: &[&str]) {
        for part in command {
            self.output.extend_from_slice(part.as_bytes());
        }
        self.asked += 1;
        self.phase = phase;
    }

    /// The connection ends here. What has not gone out stays: after this nobody knows what a part of it would do.
    fn fail(&mut self, failure: Failure) {
        if self.phase == Phase::Quitting {
            // It was to end anyway.
            self.phase = Phase::Closed;
            return;
        }
        self.phase = match self.phase {
            Phase::Done | Phase::Closed => self.phase,
            Phase::Transaction => {
                self.transaction.settle(&Outcome::Deferred(failure.reply.clone()));
                Phase::Done
            }
            _ => Phase::Closed,
        };
        self.sent();
        self.asked = 0;
        if self.failure.is_none() {
            self.failure = Some(Box::new(failure));
        }
    }

    fn fail_by_protocol(&mut self, why: &str) {
        self.fail(Failure::ours(Fault::Protocol, Origin::Nonsense, why));
    }

    /// The hop is well but of no use: it hears QUIT.
    fn leave(&mut self, failure: Failure) {
        self.fail(failure);
        self.output.extend_from_slice(b"QUIT\r\n");
    }

    fn refused(&mut self, fault: Fault) {
        self.leave(Failure::heard(fault, self.replies.heard()));
    }

    /// How long the hop may take, and for what.
    fn patience(&self) -> Option<(Duration, &'static str)> {
        let times = &self.terms.timeouts;
        Some(match self.phase {
            Phase::Handshake => (times.hello, "handshake of TLS"),
            Phase::Greeting => (times.greeting, "greeting"),
            Phase::Ehlo | Phase::Helo => (times.hello, "EHLO"),
            Phase::StartTls => (times.hello, "STARTTLS"),
            Phase::Auth => (times.hello, "AUTH"),
            Phase::Asking => (times.hello, "what AUTH needs"),
            Phase::Unasked => (times.hello, "end of a line"),
            Phase::Transaction if self.transaction.is_open() => (times.block, "content"),
            Phase::Transaction => match self.transaction.awaited() {
                Awaited::Rset => (times.hello, "RSET"),
                Awaited::Mail => (times.mail, "MAIL"),
                Awaited::Rcpt(_) => (times.rcpt, "RCPT"),
                Awaited::Data => (times.data, "DATA"),
                Awaited::End(_) | Awaited::Nothing => (times.end, "end of content"),
            },
            Phase::Quitting => (times.quit, "QUIT"),
            Phase::Idle | Phase::Done | Phase::Closed => return None,
        })
    }
}

/// Without the output, in which a password may stand.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("phase", &self.phase)
            .field("offers", &self.offers)
            .field("asked", &self.asked)
            .field("secure", &self.secure)
            .field("served", &self.served)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
