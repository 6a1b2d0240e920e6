//! A connection's place in a run, and when it did what.
//!
//! Plain state of the engine, on its executor; there are as many as `--connections` says.

use std::task::Waker;
use std::time::Instant;

use crate::dialogue::{Chunk, Dialogue};
use crate::plan::Due;

/// A connection's place: the connection changes, the place stays.
#[derive(Debug)]
pub struct Slot {
    /// Its state.
    pub dialogue: Dialogue,
    /// The message under way, or the last one.
    pub message: Due,
    /// Taken for this place before it could be begun: while it had no connection, or waited for its time.
    pub assigned: Option<Due>,
    /// It waits for the time of a message.
    pub parked: bool,
    /// The server had no place for its last connection, and that was to be expected.
    pub turned_away: bool,
    /// The server has taken its connection: greeted, and answered everything before the first message.
    pub taken: bool,
    /// A connection is there.
    pub open: bool,
    /// Messages begun on this connection.
    pub begun: u64,
    /// When the connection was asked for.
    pub opened: Instant,
    /// It is not known yet to be established.
    pub connecting: bool,
    /// Since when the greeting is due: the connection was established, or TLS that comes first was.
    pub greeting_due: Instant,
    /// When the last EHLO was written, behind the handshake if that was still to end.
    pub ehlo_sent: Instant,
    /// When AUTH was begun on this connection.
    pub auth_began: Option<Instant>,
    /// When the content of the message under way was asked for.
    pub content_began: Instant,
    /// When MAIL of the message under way was written.
    pub message_began: Instant,
    /// When the last octet of its content was written.
    pub content_ended: Instant,
    /// The message whose envelope left behind the content of the one under way, and when.
    pub behind: (Due, Instant),
    /// What the socket did not take yet: the chunk and the octets of it written.
    pub unwritten: Option<(Chunk, usize)>,
    /// TLS is to begin before anything else is said but what is unwritten.
    pub tls_due: bool,
    /// When its handshake began, while it lasts.
    pub tls_began: Option<Instant>,
    /// Wakes its task.
    pub waker: Option<Waker>,
}

impl Slot {
    /// A place without a connection.
    pub fn new(now: Instant) -> Self {
        let none = Due {
            serial: 0,
            planned: None,
        };
        Self {
            dialogue: Dialogue::new(),
            message: none,
            assigned: None,
            parked: false,
            turned_away: false,
            taken: false,
            open: false,
            begun: 0,
            opened: now,
            connecting: false,
            greeting_due: now,
            ehlo_sent: now,
            auth_began: None,
            content_began: now,
            message_began: now,
            content_ended: now,
            behind: (none, now),
            unwritten: None,
            tls_due: false,
            tls_began: None,
            waker: None,
        }
    }

    /// Remembers how to wake its task.
    pub fn attend(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Lets its task look again.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
