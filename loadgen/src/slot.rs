//! A connection's place in a run, and when it did what.
//!
//! Plain state of the engine, on its thread; there are as many as `--connections` says.

use std::time::Instant;

use mio::net::TcpStream;

use crate::dialogue::{Chunk, Dialogue};

/// A connection's place: the connection changes, the place stays.
#[derive(Debug)]
pub struct Slot {
    /// Its number, which is also its token in the epoll set.
    pub index: usize,
    /// The connection; none while the place is empty.
    pub stream: Option<TcpStream>,
    /// Its state.
    pub dialogue: Dialogue,
    /// The message under way, or the last one.
    pub serial: u64,
    /// Messages begun on this connection.
    pub begun: u64,
    /// When the connection was asked for.
    pub opened: Instant,
    /// When MAIL of the message under way was written.
    pub message_began: Instant,
    /// When the last octet of its content was written.
    pub content_ended: Instant,
    /// Number and beginning of the message whose envelope left behind the content of the one under way.
    pub next: (u64, Instant),
    /// What the socket did not take yet: the chunk and the octets of it written.
    pub unwritten: Option<(Chunk, usize)>,
    /// Writability is asked for.
    pub waits_for_room: bool,
}

impl Slot {
    /// A place without a connection.
    pub fn new(index: usize) -> Self {
        let now = Instant::now();
        Self {
            index,
            stream: None,
            dialogue: Dialogue::new(),
            serial: 0,
            begun: 0,
            opened: now,
            message_began: now,
            content_ended: now,
            next: (0, now),
            unwritten: None,
            waits_for_room: false,
        }
    }
}
