//! The two timers of a session (v17 section 3.2.2) and the drain.
//!
//! ConnectionTimer runs from the first to the last octet. ConnectionInactivityTimer restarts with every whole command and
//! every octet of content, and stands still while the client waits for us.

use std::time::Instant;

use super::{Follows, Line, Phase, Session};
use crate::smtp::oxsmtp::{Event, Reply};

impl Session {
    /// When [`Session::expire`] must be called. It only ever moves later, except back to the inactivity timer when a
    /// wait for us ends.
    pub fn deadline(&self) -> Instant {
        let connection = self.opened + self.terms.limits.connection_timeout;
        if self.client_waits() {
            return connection;
        }
        connection.min(self.heard + self.terms.limits.inactivity_timeout)
    }

    /// Ends the session when its deadline is reached; otherwise does nothing. While a message is being committed the
    /// end waits: the client must learn what became of it.
    pub fn expire(&mut self, now: Instant) {
        if now < self.deadline() || matches!(self.phase, Phase::Closing | Phase::Committing) {
            return;
        }
        let event = if now >= self.opened + self.terms.limits.connection_timeout {
            Event::ConnectionTimeOut
        } else {
            Event::ConnectionInactivityTimeOut
        };
        if matches!(self.phase, Phase::Handshake) {
            // There is no way to say it between plaintext and TLS.
            self.notes.events.push(event);
            self.phase = Phase::Closing;
            return;
        }
        self.notes.events.push(event);
        self.delayed = None;
        self.end_transaction(Some(Line::Event(event)), Some(event));
        self.put_now(Line::Event(event), Follows::Close);
    }

    /// The server is stopping: an idle session ends now, any other when its transaction has ended.
    pub fn drain(&mut self) {
        self.draining = true;
        if self.transaction.is_none()
            && matches!(self.phase, Phase::Command | Phase::Overlong { .. } | Phase::Exchange(_))
        {
            self.delayed = None;
            self.put_now(Line::Reply(Reply::ServiceNotAvailable), Follows::Close);
        }
    }

    /// The server stops now, whatever is under way; a message that is being committed is still answered for.
    pub fn stop(&mut self) {
        self.draining = true;
        if matches!(self.phase, Phase::Handshake) {
            self.phase = Phase::Closing;
        }
        if !matches!(self.phase, Phase::Closing | Phase::Committing) {
            self.delayed = None;
            self.put_now(Line::Reply(Reply::ServiceNotAvailable), Follows::Close);
        }
    }

    /// Whether the next move is ours.
    fn client_waits(&self) -> bool {
        !self.greeted
            || self.delayed.is_some()
            || matches!(self.phase, Phase::Asking(_) | Phase::Committing | Phase::Closing)
    }
}
