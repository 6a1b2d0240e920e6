//! The dialogue of one connection, sans-IO: a [`Session`] takes bytes and `now`, and says what its driver has to do next.
//!
//! Promises: the same replies however the input is cut into segments; no input panics; memory is bounded by one command
//! line and the envelope; a 250 after content is written by [`Session::acknowledge`] alone, which takes a [`Custody`].
//! Lives on the thread of its connection.
//!
//! The methods are of four kinds. What happened: [`Session::advance`], [`Session::answer`], [`Session::acknowledge`],
//! [`Session::refuse`], [`Session::secured`], [`Session::expire`], [`Session::drain`]. What to do: the [`Step`] that `advance` returns. What to
//! send: [`Session::output`]. What to record: [`Session::take_report`], [`Session::take_notes`]. A driver loops: `advance`,
//! do the step, until the step is [`Step::Read`]; then it sends the output and reads.
//!
//! ```text
//!              ┌── RSET, EHLO, refusal ──┐
//!              ▼                         │
//!  greeting ─► Command ──── MAIL, RCPT ─► Asking ─ answer() ─► Command
//!              │  ▲ ▲ ▲
//!              │  │ │ └── end of blob ◄── Blob ◄── XEXCH50
//!              │  │ └──── CRLF ◄── Overlong ◄── a line without end
//!              │  └────── acknowledge(), refuse() ◄── Committing ◄── end of content, within every limit
//!              │                                          ▲
//!              ├── DATA ─► Content ───────────────────────┤
//!              ├── BDAT ─► Chunk ─── last ────────────────┘
//!              └── STARTTLS ─► Handshake ── secured() ─► Command, everything before forgotten
//!
//!  an error reply to a stranger waits in `delayed` (tarpit); QUIT, a closing event, a deadline ─► Closing
//! ```

mod auth;
mod data;
mod hello;
mod line;
mod mail;
mod rcpt;
mod reply;
mod starttls;
mod step;
mod timers;

pub use auth::Auth;
pub use step::{Custody, Notes, Question, Report, Step, Verdict};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::envelope::{Envelope, MailParameters, RcptParameters};
use super::extension::Offered;
use super::limits::Limits;
use super::oxsmtp::{self, Event, Follows, Reply};
use super::path::{ForwardPath, ReversePath};
use super::sasl::Exchange;
use super::scanner::Scanner;
use super::{BareNewline, Edition};
use reply::{Delayed, Line, Point};

/// What a binding has settled for every session on it.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The name in the greeting, the EHLO reply and Received.
    pub hostname: Arc<str>,
    /// Which edition of the document is followed.
    pub edition: Edition,
    /// The limits of the binding.
    pub limits: Limits,
    /// What EHLO offers before TLS; AUTH is added by the session.
    pub offered: Offered,
    /// MAIL before TLS is refused.
    pub require_tls: bool,
    /// Who may and must authenticate, and how.
    pub auth: Auth,
    /// What a bare CR or LF in DATA leads to.
    pub bare_newline: BareNewline,
}

/// Octets of output after which the client must take some before more commands are answered.
const OUTPUT_FULL: usize = 8 << 10;

/// Octets that the reply to EHLO, the longest, takes; so the output does not grow by steps.
const OUTPUT_USUAL: usize = 384;

/// The facts of the connection. What belongs to one message is in [`Transaction`].
#[derive(Debug)]
pub struct Session {
    terms: Arc<Terms>,
    client: IpAddr,
    phase: Phase,
    hello: Option<Hello>,
    transaction: Option<Transaction>,
    scanner: Scanner,
    output: Vec<u8>,
    delayed: Option<Delayed>,
    protocol_errors: u64,
    logon_errors: u64,
    /// See [`Session::take_confided`].
    confided: bool,
    /// Whom the client has proved to be.
    user: Option<Arc<str>>,
    draining: bool,
    quit: bool,
    greeted: bool,
    tls: bool,
    injected: bool,
    opened: Instant,
    heard: Instant,
    report: Option<Box<Report>>,
    notes: Notes,
}

#[derive(Debug)]
struct Hello {
    name: Box<str>,
    esmtp: bool,
}

/// From an accepted MAIL to the reply after the content (RFC 5321 section 3.3).
#[derive(Debug)]
struct Transaction {
    envelope: Envelope,
    /// BDAT has begun the message: no more MAIL, RCPT or DATA.
    chunked: bool,
    /// XEXCH50 has been sent: no more RCPT.
    blob: bool,
    /// The message is past a limit: its octets are read and thrown away.
    discarding: bool,
}

#[derive(Debug)]
enum Phase {
    /// At the start of a command line.
    Command,
    /// Inside a line longer than any may be; the last octet seen tells whether its end is a CRLF.
    Overlong { last: u8 },
    /// Policy is being asked about MAIL or RCPT, or for the credentials of a user.
    Asking(Asked),
    /// Between AUTH and its end, at the start of a response.
    Exchange(Box<Exchange>),
    /// Inside DATA; `ended` once the end mark has been seen.
    Content { ended: bool },
    /// Inside a chunk of BDAT.
    Chunk(data::OpenChunk),
    /// Inside the octets of XEXCH50.
    Blob { left: u64 },
    /// Waiting for custody.
    Committing,
    /// Waiting for TLS.
    Handshake,
    /// The last reply is written.
    Closing,
}

#[derive(Debug)]
enum Asked {
    Mail(ReversePath, MailParameters),
    Rcpt(ForwardPath, RcptParameters),
    Credentials(Box<Exchange>),
    StartTls,
}

impl Session {
    /// A session whose connection was accepted at `now`; nothing has been sent yet.
    pub fn new(terms: Arc<Terms>, client: IpAddr, now: Instant) -> Session {
        let mut scanner = Scanner::new(terms.hostname.clone());
        scanner.normalise(terms.bare_newline == BareNewline::Normalise);
        Session {
            scanner,
            terms,
            client,
            phase: Phase::Command,
            hello: None,
            transaction: None,
            output: Vec::new(),
            delayed: None,
            protocol_errors: 0,
            logon_errors: 0,
            confided: false,
            user: None,
            draining: false,
            quit: false,
            greeted: false,
            tls: false,
            injected: false,
            opened: now,
            heard: now,
            report: None,
            notes: Notes::default(),
        }
    }

    /// Writes the greeting; the inactivity timer starts here. A session that ended before (a drain during the tarpit of a
    /// new connection) has had its only reply.
    pub fn greet(&mut self, now: Instant) {
        self.greeted = true;
        if self.is_closing() {
            return;
        }
        self.output.reserve(OUTPUT_USUAL);
        oxsmtp::greeting(&mut self.output, &self.terms.hostname);
        self.notes.replies.push(220);
        self.heard = now;
    }

    /// Takes input and runs on until it needs its driver. `input` starts with the first octet not yet used.
    /// Returns how many octets are done with, and what to do.
    pub fn advance(&mut self, input: &[u8], now: Instant) -> (usize, Step) {
        let mut used = 0;
        loop {
            if let Some(step) = self.resume(now) {
                return (used, step);
            }
            let rest = input.get(used..).unwrap_or_default();
            let (taken, step) = match self.phase {
                Phase::Command if self.output.len() >= OUTPUT_FULL => (0, Some(Step::Send)),
                Phase::Command => self.command(rest, now),
                Phase::Overlong { last } => self.overlong(rest, last, now),
                Phase::Exchange(_) => self.response(rest, now),
                Phase::Content { ended } => self.content(rest, ended, now),
                Phase::Chunk(chunk) => self.chunk(rest, chunk, now),
                Phase::Blob { left } => self.blob(rest, left, now),
                // A driver that calls too early is told again what it owes.
                Phase::Asking(ref asked) => (0, Some(Step::Ask(asked.question()))),
                Phase::Committing => (0, Some(Step::Commit)),
                Phase::Handshake => self.handshake(rest),
                Phase::Closing => (rest.len(), Some(Step::Close)),
            };
            let at = used;
            used += taken;
            match step {
                None => {}
                Some(Step::Store(range)) => return (used, Step::Store(range.start + at..range.end + at)),
                Some(step) => return (used, step),
            }
        }
    }

    /// Policy's answer to the last [`Step::Ask`].
    pub fn answer(&mut self, verdict: Verdict, now: Instant) {
        let Phase::Asking(asked) = std::mem::replace(&mut self.phase, Phase::Command) else {
            return;
        };
        match (verdict, asked) {
            (Verdict::Accept, Asked::Mail(path, parameters)) => self.open_transaction(path, parameters),
            (Verdict::Accept, Asked::Rcpt(path, parameters)) => self.add_recipient(path, parameters),
            (Verdict::Accept, Asked::StartTls) => self.begin_tls(),
            (Verdict::Refuse(reply), Asked::StartTls) => self.close_with(reply, now),
            // That is for [`Session::find`] to say.
            (_, asked @ Asked::Credentials(_)) => self.phase = Phase::Asking(asked),
            (Verdict::Refuse(reply), asked) => {
                if reply == Reply::ResourcesLow {
                    self.notes.events.push(Event::OutOfResources);
                }
                self.error(reply, Point::of(&asked), now);
            }
            (Verdict::Limit(event), asked) => {
                let point = Point::of(&asked);
                if let Asked::Rcpt(path, parameters) = asked {
                    self.propose_for_report(path, parameters);
                }
                self.limit(event, point, now);
            }
        }
        self.heard = now;
    }

    /// The message is in custody under `queue_id`: the final 250.
    pub fn acknowledge(&mut self, _custody: Custody, queue_id: &str, now: Instant) {
        if !matches!(self.phase, Phase::Committing) {
            return;
        }
        oxsmtp::queued(&mut self.output, queue_id);
        self.notes.replies.push(250);
        self.transaction = None;
        self.phase = Phase::Command;
        self.heard = now;
    }

    /// Custody could not be had: the final refusal.
    pub fn refuse(&mut self, reply: Reply, now: Instant) {
        if !matches!(self.phase, Phase::Committing) {
            return;
        }
        self.phase = Phase::Command;
        self.heard = now;
        self.end_transaction(Some(Line::Reply(reply)), None);
        self.error(reply, Point::Command, now);
    }

    /// Every recipient was refused for good by the next hop: its own words, `550 5.1.1 …` without a line end, are the final
    /// refusal.
    pub fn refuse_as_hop(&mut self, text: &str, now: Instant) {
        if !matches!(self.phase, Phase::Committing) {
            return;
        }
        self.phase = Phase::Command;
        self.heard = now;
        let line = Line::Hop(text.into());
        self.end_transaction(Some(line.clone()), None);
        self.put(line, Follows::Continue, Point::Command, now);
    }

    /// What waits to be sent. The driver takes it from the front.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The envelope so far; complete from the first [`Step::Store`] on.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.transaction.as_ref().map(|t| &t.envelope)
    }

    /// What a bare CR or LF in DATA leads to here.
    pub fn bare_newline(&self) -> BareNewline {
        self.terms.bare_newline
    }

    /// Whether the content so far has a bare CR or LF.
    pub fn has_bare_newline(&self) -> bool {
        self.scanner.bare_newline()
    }

    /// The client's address.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// The name that the client gave in HELO or EHLO.
    pub fn hello_name(&self) -> &str {
        self.hello.as_ref().map_or("", |h| &h.name)
    }

    /// Whether the current message comes by BDAT, so that its content has no doubled dots.
    pub fn is_chunked(&self) -> bool {
        self.transaction.as_ref().is_some_and(|t| t.chunked)
    }

    /// Octets of content of the current message (RFC 1870).
    pub fn content_size(&self) -> u64 {
        self.scanner.size()
    }

    /// Whether octets of content are awaited, of which large reads are worth while.
    pub fn is_receiving(&self) -> bool {
        matches!(self.phase, Phase::Content { .. } | Phase::Chunk(_) | Phase::Blob { .. })
    }

    /// Whether there is nothing left but to send the output and to close.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }

    /// Whether the client asked for the end (QUIT), so that nothing of it can be on its way any more.
    pub fn has_quit(&self) -> bool {
        self.quit
    }

    /// Whether a message is under way.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// The transaction that last ended without an acknowledgement, once. To be asked after every [`Session::advance`],
    /// before its step is done: what was stored of that message must not get into the next one, which can begin in the
    /// same input. No two transactions end in one `advance`, since [`Question::Mail`] stands between them.
    pub fn take_report(&mut self) -> Option<Box<Report>> {
        self.report.take()
    }

    /// Replies and events since the last call; the driver clears them.
    pub fn take_notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    /// The connection is gone or must go: whatever transaction is open is reported as given up.
    pub fn abandon(&mut self) {
        self.end_transaction(None, None);
        self.phase = Phase::Closing;
    }

    /// Drops the transaction and leaves a report of it.
    fn end_transaction(&mut self, line: Option<Line>, event: Option<Event>) {
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        self.report = Some(Box::new(Report {
            envelope: transaction.envelope,
            size: self.scanner.size(),
            reply: line.map(|line| line.text().into()),
            event,
        }));
        self.scanner.reset();
    }
}

impl Asked {
    fn question(&self) -> Question {
        match self {
            Asked::Mail(..) => Question::Mail,
            Asked::Rcpt(..) => Question::Rcpt,
            Asked::Credentials(..) => Question::Credentials,
            Asked::StartTls => Question::StartTls,
        }
    }
}
