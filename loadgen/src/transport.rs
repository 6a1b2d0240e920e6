//! One connection as the engine sees it.
//!
//! Promises: no call blocks; one that cannot be done now is `Pending` and wakes the task when it can. Lives on its executor.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::news::{News, Place};
use crate::tls::{Terms, Tls};

/// A connection.
#[derive(Debug)]
pub struct Link {
    /// None where the system would not have it watched.
    place: Option<Place>,
    socket: TcpStream,
    tls: Option<Tls>,
    /// The last read has found all that there was.
    is_read_out: bool,
}

impl Link {
    /// Takes over a socket that does not block.
    pub fn new(socket: TcpStream, news: &Rc<News>) -> Self {
        Self {
            place: news.watch(&socket).ok(),
            socket,
            tls: None,
            is_read_out: false,
        }
    }

    /// Speaks TLS from here on. What follows, and what comes, is encrypted; nothing is written yet.
    pub fn start_tls(&mut self, terms: &Terms) -> Result<(), String> {
        self.tls = Some(Tls::new(terms)?);
        Ok(())
    }

    /// Whether TLS has begun and its handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::is_handshaking)
    }

    /// Reads what has come; 0 is the end. The system is not asked again behind a read that found all that there was.
    pub fn receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.is_read_out) {
            return self.wait(context);
        }
        let received = match &mut self.tls {
            Some(tls) => tls.receive(buffer, &mut &self.socket),
            None => self.socket.read(buffer),
        };
        if let Ok(count) = received {
            let ended = self.place.as_ref().is_none_or(Place::has_ended);
            self.is_read_out = count < buffer.len() && self.tls.is_none() && !ended;
        }
        self.polled(received, context)
    }

    /// To be called when the task runs: there may be something to read again.
    pub fn wake(&mut self) {
        self.is_read_out = false;
    }

    /// Writes as much as there is room for.
    pub fn send(&mut self, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let sent = match &mut self.tls {
            Some(tls) => tls.send(octets, &self.socket),
            None => self.socket.write(octets),
        };
        self.polled(sent, context)
    }

    /// Writes what is left of what was taken already; an error is found again by the next read.
    pub fn flush(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.flush(&mut &self.socket);
        }
    }

    fn polled(&self, result: io::Result<usize>, context: &Context<'_>) -> Poll<io::Result<usize>> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(context),
            result => Poll::Ready(result),
        }
    }

    fn wait(&self, context: &Context<'_>) -> Poll<io::Result<usize>> {
        match &self.place {
            Some(place) => {
                place.wait(context);
                Poll::Pending
            }
            None => Poll::Ready(Err(io::Error::other(
                "the system does not have it watched: fs.epoll.max_user_watches",
            ))),
        }
    }
}
