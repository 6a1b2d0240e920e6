//! Who a connection's client proves to be: the users' secrets on one side, its exchange on the other.
//!
//! Promises: what a stored key can answer is answered at once; a password is compared elsewhere, and an unknown user's like a
//! known one's, so that it takes as long. Lives on its shard.

use std::sync::Arc;
use std::time::Instant;

use super::Connection;
use crate::lookup::{Answer, Match, Question as Lookup};
use crate::metrics::Counter;
use crate::shard::ids::random;
use crate::smtp::sasl::{Found, Wanted};

/// A password that is being compared, and whose it would be.
#[derive(Debug)]
pub(super) struct Comparison {
    user: Option<Arc<str>>,
}

impl Connection {
    /// Answers what the exchange wants to know. False where it has to be waited for.
    pub(super) fn find(&mut self, now: Instant) -> bool {
        if self.comparison.is_some() {
            return false;
        }
        let users = self.settings.policy.users.load();
        let found = match self.session.credentials_asked() {
            Some(Wanted::NtHash { user }) => users.nt_hash(user),
            Some(Wanted::ScramKeys { user }) => match random() {
                Some(random) => users.scram_keys(user, random),
                None => Found::Unavailable,
            },
            Some(Wanted::Nonce) => match random() {
                Some(random) => Found::Nonce {
                    random,
                    unix_millis: self.shard.unix_millis(now),
                },
                None => Found::Unavailable,
            },
            Some(Wanted::Password { user, password }) => {
                let (user, hash) = users.password(user);
                let asked = hash.map(|hash| {
                    let password = password.clone();
                    self.shard
                        .asker
                        .ask(Lookup::Password { hash, password }, self.seat.ticket())
                });
                match asked {
                    Some(Ok(())) => {
                        self.shard.metrics.count(Counter::PasswordsCompared);
                        self.comparison = Some(Comparison { user });
                        return false;
                    }
                    Some(Err(_)) => {
                        self.shard.metrics.count(Counter::QuestionsRefused);
                        Found::Unavailable
                    }
                    // There are no users at all.
                    None => Found::Password(None),
                }
            }
            None => Found::Unavailable,
        };
        self.tell(found, now);
        true
    }

    /// The password has been compared.
    pub(super) fn compared(&mut self, answer: &Answer, now: Instant) {
        let Answer::Password(matched) = answer else { return };
        let user = self.comparison.take().and_then(|comparison| comparison.user);
        let found = match matched {
            Match::Yes => Found::Password(user),
            Match::No => Found::Password(None),
            Match::Unknown => Found::Unavailable,
        };
        self.tell(found, now);
    }

    fn tell(&mut self, found: Found, now: Instant) {
        let errors = self.session.logon_errors();
        self.session.find(found, now);
        if self.session.logon_errors() > errors {
            self.shard.metrics.count(Counter::LogonsFailed);
        }
        if self.session.user().is_some() {
            self.shard.metrics.count(Counter::Logons);
        }
    }
}
