//! From the greeting to the first message: EHLO, STARTTLS, AUTH.
//!
//! Promises: what was heard before TLS is forgotten after it (RFC 3207 section 4.2); a hop that cannot be made as safe as
//! the terms ask gets no mail and no password. Lives with its connection.

use std::time::Instant;

use super::auth::{self, Exchange, Mechanism};
use super::failure::{Failure, Fault};
use super::offers::Offers;
use super::outcome::Origin;
use super::terms::{Dialect, TlsUse};
use super::{Client, Phase};
use crate::smtp::extension::Extension;

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
        if self.secure || self.terms.tls == TlsUse::Off {
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
            (_, TlsUse::Required) => self.refused(Fault::Tls),
            _ => self.authenticate(),
        }
    }

    fn authenticate(&mut self) {
        let Some(credentials) = self.terms.credentials.clone() else {
            self.phase = Phase::Idle;
            return;
        };
        // Whoever can take STARTTLS out of a reply can read a password: in the clear only where nobody asked for TLS.
        let confidential = self.secure || self.terms.tls == TlsUse::Off;
        let chosen = Mechanism::ALL
            .into_iter()
            .filter(|m| confidential || !m.shows_password())
            .find(|&m| self.offers.has_mechanism(m));
        let Some(mechanism) = chosen else {
            let why = if confidential {
                "the hop offers no way to authenticate that is known here"
            } else {
                "the hop offers no TLS, and no way to authenticate without showing the password"
            };
            return self.leave(Failure::ours(Fault::Auth, Origin::NoConnection, why));
        };
        let exchange = Exchange::begin(mechanism, &credentials, &mut self.output);
        self.ask(Phase::Auth(exchange), &[]);
    }

    pub(super) fn auth_answered(&mut self, mut exchange: Exchange) {
        let Some(credentials) = self.terms.credentials.clone() else {
            return;
        };
        match self.replies.code() {
            200..300 => self.phase = Phase::Idle,
            300..400 => {
                let text = self.replies.text();
                if exchange.challenge(text, &credentials, &mut self.output) {
                    return self.ask(Phase::Auth(exchange), &[]);
                }
                let name = exchange.mechanism.name();
                let why = format!("the hop asks for what {name} does not have");
                self.fail(Failure::ours(Fault::Auth, Origin::NoConnection, &why));
                self.output.extend_from_slice(b"*\r\nQUIT\r\n");
            }
            _ => {
                let mut reply = self.replies.heard();
                if auth::repeats(&reply.text, &credentials) {
                    reply.text = "the hop refused to authenticate us".into();
                }
                self.leave(Failure::heard(Fault::Auth, reply));
            }
        }
    }
}
