//! TLS of a connection: the handshake, what is counted of it, what the log will say.
//!
//! Promises: the handshake has a deadline of its own and holds the connection's claim, so it counts against its source; a
//! client that fails it hears no reply of ours. Lives on its shard.

use std::time::{Duration, Instant};

use super::Connection;
use crate::metrics::Counter;
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
                self.shard
                    .metrics
                    .count(secured.as_ref().map_or(Counter::TlsFailed, counter));
                self.record.tls = secured.map(|secured| Box::new(Ok(secured)));
                self.session.secured(now);
                self.settle(now);
                Ok(())
            }
            Err(failure) => {
                self.shard.metrics.count(match failure {
                    HandshakeFailure::Alarm(Alarm::Deadline) => Counter::TlsTimedOut,
                    _ => Counter::TlsFailed,
                });
                self.record.tls = Some(Box::new(Err(failure.to_string())));
                Err(End::NoTls)
            }
        }
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
