//! TLS of a connection: the handshake, what is counted of it, what the log will say.
//!
//! Promises: the handshake has a deadline of its own and holds the connection's claim, so it counts against its source; a
//! client that fails it hears no reply of ours; no source begins more new sessions in 60 seconds than the limit says. Lives on
//! its shard.
//!
//! Whether a session is new is known when it is there. So a source is asked for before the handshake, which costs a signature,
//! and counted after it; one that has reached its limit waits, also with sessions that it would resume. A handshake that fails
//! has cost as much and counts too.

use std::time::{Duration, Instant};

use super::Connection;
use super::verdict::Who;
use crate::metrics::Counter;
use crate::policy::network::Source;
use crate::shard::clock;
use crate::shard::record::End;
use crate::shard::slots::Alarm;
use crate::shard::tls::{HandshakeFailure, Secured};

/// How long a handshake may take, where the session does not end earlier.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

impl Connection {
    /// Does the server's side of the handshake. What was carried over belongs to it.
    pub(super) async fn secure(&mut self) -> Result<(), End> {
        let Some(config) = self.settings.tls.clone() else {
            return Err(End::NoTls);
        };
        // After STARTTLS policy has been asked already.
        if self.binding.implicit_tls && !self.may_begin_tls(clock::now()) {
            self.note_tls_refused();
            return Err(End::NoTls);
        }
        let already = std::mem::take(&mut self.carry);
        let until = self.handshake_deadline(clock::now());
        // In a box, so that a connection that only might do this has no room for it.
        let shaken = Box::pin(
            self.stream
                .upgrade_server(&self.shard, &self.seat, &config, &already, until),
        )
        .await;
        let now = clock::now();
        match shaken {
            Ok(()) => {
                let secured = self.stream.secured();
                let counted = secured.as_ref().is_some_and(|secured| secured.resumed) || self.count_tls(now);
                self.session.secured(now);
                if counted {
                    self.shard
                        .metrics
                        .count(secured.as_ref().map_or(Counter::TlsFailed, counter));
                    self.record.tls = secured.map(|secured| Box::new(Ok(secured)));
                } else {
                    self.note_tls_refused();
                    self.session.refuse_tls();
                }
                self.settle(now);
                Ok(())
            }
            Err(failure) => {
                self.count_tls(now);
                self.shard.metrics.count(match failure {
                    HandshakeFailure::Alarm(Alarm::Deadline) => Counter::TlsTimedOut,
                    _ => Counter::TlsFailed,
                });
                self.record.tls = Some(Box::new(Err(failure.to_string())));
                Err(End::NoTls)
            }
        }
    }

    /// Whether the client's source has not begun as many TLS sessions as it may.
    pub(super) fn may_begin_tls(&self, now: Instant) -> bool {
        let limit = self.binding.terms.limits.tls_session_rate;
        limit == 0 || self.shard.rates.messages(self.tls_source(), self.shard.second(now)) < limit
    }

    /// Counts a new session. False where it is one too many.
    fn count_tls(&self, now: Instant) -> bool {
        let limit = self.binding.terms.limits.tls_session_rate;
        limit == 0 || self.shard.rates.admit(self.tls_source(), limit, self.shard.second(now))
    }

    fn tls_source(&self) -> (usize, Who<'static>) {
        (self.binding.tls_rate_scope, Who::Tls(Source::of(self.record.client)))
    }

    pub(super) fn note_tls_refused(&mut self) {
        self.shard.metrics.count(Counter::TlsRefused);
        self.record.tls = Some(Box::new(Err("too many new sessions".to_owned())));
    }

    fn handshake_deadline(&self, now: Instant) -> Instant {
        self.session.deadline().min(now + HANDSHAKE_TIME)
    }
}

fn counter(secured: &Secured) -> Counter {
    match (secured.version, secured.resumed) {
        ("1.3", false) => Counter::Tls13Full,
        ("1.3", true) => Counter::Tls13Resumed,
        (_, false) => Counter::Tls12Full,
        (_, true) => Counter::Tls12Resumed,
    }
}
