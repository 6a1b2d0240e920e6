//! From the greeting to the first message: EHLO, STARTTLS, AUTH.
//!
//! Promises: what was heard before TLS is forgotten after it (RFC 3207 section 4.2); a hop that cannot be made as safe as
//! the terms ask gets no mail and no password. Lives with its connection.

use std::time::Instant;

use super::auth::{self, Exchange, Found, Turn, Wanted};
use super::failure::{Failure, Fault};
use super::offers::Offers;
use super::outcome::Origin;
use super::terms::{Dialect, TlsUse};
use super::{Client, Phase};
use crate::smtp::extension::Extension;
use crate::smtp::sasl::Mechanism;

impl Client {
    /// TLS is up. To be called after [`super::Step::Handshake`] only.
    pub fn secured(&mut self, now: Instant) {
        if self.phase != Phase::Handshake {
            return;
        }
        self.since = now;
        self.secure = true;
        self.offers = Offers::default();
        self.replies.forget();
        if self.terms.implicit_tls {
            self.ask(Phase::Greeting, &[]);
        } else {
            self.say_hello();
        }
    }

    pub(super) fn greeted(&mut self) {
        match self.replies.code() / 100 {
            2 => self.say_hello(),
            3 => self.fail_by_protocol("the hop greeted with a reply that asks for more"),
            _ => self.refused(Fault::Refused),
        }
    }

    fn say_hello(&mut self) {
        let name = self.terms.hello.clone();
        let verb = match self.terms.dialect {
            Dialect::Smtp => "EHLO ",
            Dialect::Lmtp => "LHLO ",
        };
        self.ask(Phase::Ehlo, &[verb, &name, "\r\n"]);
    }

    pub(super) fn ehlo_answered(&mut self) {
        match self.replies.code() / 100 {
            2 => {
                self.offers.esmtp = true;
                self.make_safe();
            }
            // RFC 5321 section 3.2: whoever does not know EHLO is spoken to in HELO. LMTP has none.
            5 if self.terms.dialect == Dialect::Smtp => {
                self.offers = Offers::default();
                let name = self.terms.hello.clone();
                self.ask(Phase::Helo, &["HELO ", &name, "\r\n"]);
            }
            3 => self.fail_by_protocol("the hop answered EHLO with a reply that asks for more"),
            _ => self.refused(Fault::Refused),
        }
    }

    pub(super) fn helo_answered(&mut self) {
        match self.replies.code() / 100 {
            2 => self.make_safe(),
            3 => self.fail_by_protocol("the hop answered HELO with a reply that asks for more"),
            _ => self.refused(Fault::Refused),
        }
    }

    fn make_safe(&mut self) {
        if self.secure || matches!(self.terms.tls, TlsUse::Off | TlsUse::Failed) {
            return self.authenticate();
        }
        match (self.offers.has(Extension::StartTls), self.terms.tls) {
            (true, _) => self.ask(Phase::StartTls, &["STARTTLS\r\n"]),
            (false, TlsUse::Required) => self.leave(Failure::ours(
                Fault::Tls,
                Origin::NoConnection,
                "TLS is required, and the hop does not offer it",
            )),
            (false, _) => self.authenticate(),
        }
    }

    pub(super) fn starttls_answered(&mut self) {
        match (self.replies.code() / 100, self.terms.tls) {
            (2, _) => self.phase = Phase::Handshake,
            (3, _) => self.fail_by_protocol("the hop answered STARTTLS with a reply that asks for more"),
            // Whatever the code: it says nothing of the message.
            (_, TlsUse::Required) => {
                let why = format!("TLS is required, and the hop refuses it: {}", self.replies.heard());
                self.leave(Failure::ours(Fault::Tls, Origin::NoConnection, &why));
            }
            _ => self.authenticate(),
        }
    }

    fn authenticate(&mut self) {
        if self.terms.credentials.is_none() {
            self.phase = Phase::Idle;
            return;
        }
        match self.best_mechanism() {
            Some(mechanism) => self.begin_auth(mechanism),
            None => {
                let why = if self.is_confidential() {
                    "the hop offers no way to authenticate that is known here"
                } else {
                    "the hop offers no TLS, and no way to authenticate without showing the password"
                };
                self.leave(Failure::ours(Fault::Auth, Origin::NoConnection, why));
            }
        }
    }

    /// Whoever can take STARTTLS out of a reply, or break a handshake, can read a password: in the clear only where nobody asked
    /// for TLS.
    fn is_confidential(&self) -> bool {
        self.secure || self.terms.tls == TlsUse::Off
    }

    fn best_mechanism(&self) -> Option<Mechanism> {
        let mut all = auth::PREFERENCE.into_iter();
        all.find(|&m| (self.is_confidential() || !m.shows_password()) && self.offers.has_mechanism(m))
    }

    fn begin_auth(&mut self, mechanism: Mechanism) {
        let Some(credentials) = self.terms.credentials.clone() else {
            return;
        };
        let (exchange, turn) = Exchange::begin(mechanism, &credentials, &mut self.output);
        self.auth_turn(Box::new(exchange), turn);
    }

    fn auth_turn(&mut self, exchange: Box<Exchange>, turn: Turn) {
        let mechanism = exchange.mechanism;
        self.confided |= mechanism.shows_password();
        self.exchange = Some(exchange);
        match turn {
            Turn::Say => self.ask(Phase::Auth, &[]),
            Turn::Ask => self.phase = Phase::Asking,
            Turn::Break => {
                let why = format!("the hop asks for what {} does not have", mechanism.name());
                self.break_auth(&why);
            }
        }
    }

    /// An exchange cannot go on: the hop hears so (RFC 4954 section 4).
    fn break_auth(&mut self, why: &str) {
        self.exchange = None;
        self.fail(Failure::ours(Fault::Auth, Origin::NoConnection, why));
        self.output.extend_from_slice(b"*\r\nQUIT\r\n");
    }

    /// What [`super::Step::Ask`] asks for.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        match self.phase {
            Phase::Asking => self.exchange.as_ref()?.wanted(),
            _ => None,
        }
    }

    /// The answer.
    pub fn found(&mut self, found: &Found, now: Instant) {
        if self.phase != Phase::Asking {
            return;
        }
        self.since = now;
        let (Some(mut exchange), Some(credentials)) = (self.exchange.take(), self.terms.credentials.clone()) else {
            return;
        };
        if matches!(found, Found::Unavailable) {
            let why = "what it takes to authenticate cannot be found out now";
            if exchange.has_begun() {
                return self.break_auth(why);
            }
            return self.leave(Failure::ours(Fault::Auth, Origin::NoConnection, why));
        }
        let turn = exchange.found(found, &credentials, &mut self.output);
        self.auth_turn(exchange, turn);
    }

    pub(super) fn auth_answered(&mut self) {
        let (Some(mut exchange), Some(credentials)) = (self.exchange.take(), self.terms.credentials.clone()) else {
            return self.fail_by_protocol("a defect: AUTH without an exchange");
        };
        match self.replies.code() {
            200..300 if exchange.may_end() => self.phase = Phase::Idle,
            200..300 => {
                let why = "the hop has not proved that it knows the password";
                self.leave(Failure::ours(Fault::Auth, Origin::NoConnection, why));
            }
            300..400 => {
                let turn = exchange.challenge(self.replies.text(), &credentials, &mut self.output);
                self.auth_turn(exchange, turn);
            }
            code => {
                self.offers.forget_mechanism(exchange.mechanism);
                // A hop that keeps what one mechanism needs may not have what a better one needs.
                if code / 100 == 5
                    && let Some(mechanism) = self.best_mechanism()
                {
                    return self.begin_auth(mechanism);
                }
                // Whatever the code: it says nothing of the message, and the operator may mend it.
                let reply = self.replies.heard();
                let why = match auth::repeats(&reply.text, &credentials) {
                    true => "the hop refused to authenticate us".to_owned(),
                    false => format!("the hop refused to authenticate us: {reply}"),
                };
                self.leave(Failure::ours(Fault::Auth, Origin::NoConnection, &why));
            }
        }
    }
}
