//! AUTH (RFC 4954, [MS-OXSMTP] 2.2.1 and 3.2.5.1): the lines around an [`Exchange`].
//!
//! Promises: a response has a bounded length and is decoded strictly; a logon that fails is counted apart from protocol
//! errors; whoever is authenticated stays so to the end of the session, or until TLS begins; what is decoded is wiped, and the
//! driver is told when there was a secret in the input ([`Session::take_confided`]). Lives with its session.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memchr;
use zeroize::Zeroizing;

use super::{Asked, Line, Phase, Point, Session, Step};
use crate::smtp::command::{self, MAX_LINE, Verb};
use crate::smtp::extension::{Extension, Offered};
use crate::smtp::oxsmtp::{self, Event, Follows, Reply};
use crate::smtp::sasl::{Exchange, Found, Mechanism, Turn, Wanted};

/// Octets of an AUTH command or a response, CRLF included (RFC 4954 section 4).
pub(super) const MAX_RESPONSE: usize = 12_288;

/// What a binding has settled about authentication.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Offered in this order. None: AUTH is not known here.
    pub mechanisms: Box<[Mechanism]>,
    /// LOGIN and PLAIN are offered inside TLS only.
    pub requires_tls: bool,
    /// MAIL is for authenticated clients only.
    pub required: bool,
    /// The users served; empty is all.
    pub users: Box<[Box<str>]>,
}

impl Auth {
    fn serves(&self, user: &str) -> bool {
        let served = |one: &str| one.to_lowercase() == user.to_lowercase();
        self.users.is_empty() || self.users.iter().any(|one| served(one))
    }
}

impl Session {
    /// The user that the client has proved to be, by the name in the list of users.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// Logons that failed.
    pub fn logon_errors(&self) -> u64 {
        self.logon_errors
    }

    /// Whether the input since the last call had in it what nobody else is to read: a response of AUTH. To be wiped.
    pub fn take_confided(&mut self) -> bool {
        std::mem::take(&mut self.confided)
    }

    /// The fields that a user's message should have and has not, with CRLF, to stand at the top of its header (RFC 6409
    /// section 8). Nothing of a stranger's message is mended. Before the end of the content none as long as the header
    /// section goes on.
    pub fn missing_fields(&self, date: &str, queue_id: &str) -> String {
        let mut fields = String::new();
        let known = self.scanner.header_is_over() || matches!(self.phase, Phase::Committing);
        if self.user.is_none() || !known {
            return fields;
        }
        if !self.scanner.has_date() {
            fields += &format!("Date: {date}\r\n");
        }
        if !self.scanner.has_message_id() {
            fields += &format!("Message-ID: <{queue_id}@{}>\r\n", self.terms.hostname);
        }
        fields
    }

    /// What [`Question::Credentials`](super::Question::Credentials) asks for.
    pub fn credentials_asked(&self) -> Option<Wanted<'_>> {
        match &self.phase {
            Phase::Asking(Asked::Credentials(exchange)) => exchange.wanted(),
            _ => None,
        }
    }

    /// The answer to [`Question::Credentials`](super::Question::Credentials).
    pub fn find(&mut self, found: Found, now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Asking(Asked::Credentials(mut exchange)) => {
                let turn = exchange.found(found);
                self.heard = now;
                self.turn(exchange, turn, now);
            }
            other => self.phase = other,
        }
    }

    /// The mechanisms that the client may use now.
    fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        let hidden = self.terms.auth.requires_tls && !self.tls;
        let all = self.terms.auth.mechanisms.iter().copied();
        all.filter(move |mechanism| !(hidden && mechanism.shows_password()))
    }

    /// The keyword line of EHLO; none where there is nothing to offer (any more).
    pub(super) fn auth_keyword(&self) -> Option<String> {
        if self.user.is_some() {
            return None;
        }
        let names: Vec<_> = self.mechanisms().map(Mechanism::name).collect();
        (!names.is_empty()).then(|| format!("{} {}", Extension::Auth.keyword(), names.join(" ")))
    }

    /// What the parameters of MAIL may build on: AUTH= goes with AUTH, also after its success.
    pub(super) fn extensions(&self) -> Offered {
        if self.user.is_some() || self.mechanisms().next().is_some() {
            self.offered().with(Extension::Auth)
        } else {
            self.offered()
        }
    }

    /// Whether AUTH is a command here, and its line may be as long as an exchange needs.
    pub(super) fn knows_auth(&self) -> bool {
        !self.terms.auth.mechanisms.is_empty()
    }

    /// The octets that a line which begins like `input` may have. None is known to be AUTH before its space is there.
    pub(super) fn longest_line(&self, input: &[u8]) -> usize {
        if self.knows_auth() && Self::begins_auth(input) {
            MAX_RESPONSE
        } else {
            MAX_LINE
        }
    }

    /// Whether input begins with the verb AUTH and the space behind it.
    pub(super) fn begins_auth(input: &[u8]) -> bool {
        command::split(input.get(..MAX_LINE).unwrap_or(input)).0 == Verb::Auth
    }

    pub(super) fn auth(&mut self, args: &[u8], now: Instant) {
        let refusal = match &self.transaction {
            _ if !self.knows_auth() => Some(Reply::UnrecognizedCommand),
            _ if self.hello.is_none() => Some(Reply::SendHelloFirst),
            _ if self.user.is_some() => Some(Reply::BadSequence),
            Some(_) => Some(Reply::BadSequence),
            None => None,
        };
        if let Some(reply) = refusal {
            return self.error(reply, Point::Command, now);
        }
        let (spelling, initial) = match command::auth(args) {
            Ok(parsed) => parsed,
            Err(reply) => return self.error(reply, Point::Command, now),
        };
        let mechanism = Mechanism::parse(spelling.as_bytes()).filter(|m| self.mechanisms().any(|one| one == *m));
        let Some(mechanism) = mechanism else {
            return self.error(Reply::UnrecognizedMechanism, Point::Command, now);
        };
        // RFC 4954 section 4: `=` is an initial response of no octets.
        let initial = match initial {
            Some(b"=") => Some(Zeroizing::default()),
            Some(text) => match BASE64.decode(text) {
                Ok(response) => Some(Zeroizing::new(response)),
                Err(_) => return self.error(Reply::NotBase64, Point::Command, now),
            },
            None => None,
        };
        let (exchange, turn) = Exchange::begin(
            mechanism,
            &self.terms.hostname,
            initial.as_ref().map(|response| response.as_slice()),
        );
        if mechanism == Mechanism::Ntlm && initial.is_none() {
            oxsmtp::mechanism_supported(&mut self.output, spelling);
            self.notes.replies.push(334);
            self.phase = Phase::Exchange(Box::new(exchange));
            return;
        }
        self.turn(Box::new(exchange), turn, now);
    }

    /// One line of the exchange, where there is a whole one.
    pub(super) fn response(&mut self, input: &[u8], now: Instant) -> (usize, Option<Step>) {
        // The drain came while a password was compared.
        if self.draining {
            self.put_now(Line::Reply(Reply::ServiceNotAvailable), Follows::Close);
            return (0, None);
        }
        self.confided = true;
        let Some(end) = memchr(b'\n', input) else {
            if input.len() < MAX_RESPONSE {
                return (0, Some(Step::Read));
            }
            self.phase = Phase::Overlong {
                last: input.last().copied().unwrap_or_default(),
            };
            return (input.len(), None);
        };
        let Phase::Exchange(exchange) = std::mem::replace(&mut self.phase, Phase::Command) else {
            return (0, None);
        };
        self.heard = now;
        match input.get(..end).unwrap_or_default().split_last() {
            Some((b'\r', line)) if line.len() + 2 > MAX_RESPONSE => self.error(Reply::LineTooLong, Point::Command, now),
            Some((b'\r', line)) => self.take_response(exchange, line, now),
            _ => self.close_with(Reply::BareNewlineInCommand, now),
        }
        (end + 1, None)
    }

    fn take_response(&mut self, mut exchange: Box<Exchange>, line: &[u8], now: Instant) {
        if line == b"*" {
            return self.error(Reply::AuthenticationCancelled, Point::Command, now);
        }
        match BASE64.decode(line) {
            Ok(response) => {
                let response = Zeroizing::new(response);
                let turn = exchange.respond(&response);
                self.turn(exchange, turn, now);
            }
            Err(_) => self.error(Reply::NotBase64, Point::Command, now),
        }
    }

    fn turn(&mut self, exchange: Box<Exchange>, turn: Turn, now: Instant) {
        match turn {
            Turn::Challenge(text) => {
                oxsmtp::challenge(&mut self.output, &BASE64.encode(text));
                self.notes.replies.push(334);
                self.phase = Phase::Exchange(exchange);
            }
            Turn::Ask => self.phase = Phase::Asking(Asked::Credentials(exchange)),
            Turn::Done(user) if !self.terms.auth.serves(&user) => {
                self.limit(Event::BindingNotConfigured, Point::Command, now);
            }
            Turn::Done(user) => {
                self.user = Some(user);
                self.say(Reply::Authenticated);
            }
            Turn::Failed => {
                self.logon_errors += 1;
                if self.logon_errors > self.terms.limits.max_logon_errors {
                    return self.limit(Event::ProtocolViolationCount, Point::Command, now);
                }
                self.error(Reply::AuthenticationFailed, Point::Command, now);
            }
            Turn::Unavailable => self.error(Reply::CannotAuthenticate, Point::Command, now),
        }
    }
}
