//! TLS over a socket, without a thread or a buffer of its own: rustls does the protocol, the shard's buffers hold what is
//! under way.
//!
//! Promises: ciphertext is received into one buffer that all connections of the shard share, plaintext goes straight into
//! the other; what the peer does not take stops us like plain output does; a session that waits keeps its keys and one small
//! buffer. A peer that breaks the protocol hears its alert and is left. Lives on its shard.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use rustix::io::Errno;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Connection, HandshakeKind, ProtocolVersion, ServerConfig};

use super::slots::{Alarm, Seat};
use super::socket::Socket;
use super::{Shard, clock};
use crate::shard::stream::readable;

/// Octets of plaintext that a record may hold, rounded up to what one takes on the wire (RFC 8446 section 5.2).
const RECORD: usize = 17 << 10;
/// Octets received at once: what they come to, with a record begun before, fits into one look at the plaintext.
pub const SEALED: usize = super::SCRATCH - RECORD;
/// Octets received at once while hands are shaken. What the peer says right behind its last word is few enough to be kept.
const HANDSHAKE_AT_ONCE: usize = 4 << 10;
/// Octets of ciphertext that may wait to be sent.
const OUTPUT: usize = 64 << 10;

/// One side of a TLS connection.
#[derive(Debug)]
pub struct Tls {
    connection: Connection,
    /// There may be plaintext, or the end, before anything is received again.
    unread: bool,
}

/// What a look at a TLS connection finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// So many octets of plaintext.
    Data(usize),
    /// The peer has said that it is done, or gone.
    End,
    /// The connection is gone, or the peer has broken the protocol.
    Broken,
    /// Nothing came.
    Nothing,
    /// Records came without anything in them for us.
    Empty,
}

/// What was agreed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite without its prefix.
    pub cipher: &'static str,
    /// The name that the client asked for; on the receiving side only.
    pub sni: Option<Box<str>>,
    /// Keys came from an earlier session.
    pub resumed: bool,
}

/// Why there is no TLS. The stream is of no more use.
#[derive(Debug)]
pub enum HandshakeFailure {
    /// It has taken too long, or the server stops.
    Alarm(Alarm),
    /// The peer has gone.
    Lost,
    /// The peer and we do not go together.
    Protocol(rustls::Error),
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeFailure::Alarm(Alarm::Deadline) => f.write_str("took too long"),
            HandshakeFailure::Alarm(_) => f.write_str("stopped"),
            HandshakeFailure::Lost => f.write_str("the peer has gone"),
            HandshakeFailure::Protocol(error) => error.fmt(f),
        }
    }
}

impl Tls {
    /// The receiving side.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Tls, HandshakeFailure> {
        let connection = rustls::ServerConnection::new(config.clone()).map_err(HandshakeFailure::Protocol)?;
        Ok(Tls::new(connection.into()))
    }

    /// The sending side, towards the server of that name.
    #[allow(dead_code, reason = "for connections to next hops")]
    pub fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Tls, HandshakeFailure> {
        let connection = rustls::ClientConnection::new(config.clone(), name).map_err(HandshakeFailure::Protocol)?;
        Ok(Tls::new(connection.into()))
    }

    fn new(mut connection: Connection) -> Tls {
        connection.set_buffer_limit(Some(OUTPUT));
        Tls {
            connection,
            unread: false,
        }
    }

    /// Shakes hands until `until`. `already` are octets of the peer that came with something else.
    ///
    /// A drain does not disturb it: the alarm is raised again when it is over, so that the session can say so inside TLS.
    pub async fn handshake(
        &mut self,
        socket: &Socket,
        shard: &Shard,
        seat: &Seat,
        already: &[u8],
        until: Instant,
    ) -> Result<(), HandshakeFailure> {
        seat.deadline(until);
        let mut drains = false;
        self.take_in(already).map_err(|error| self.give_up(socket, error))?;
        loop {
            self.flush(socket, shard, seat).await.map_err(lost)?;
            if !self.connection.is_handshaking() {
                break;
            }
            match readable(seat, socket).await {
                Some(Alarm::Drain) => drains = true,
                Some(Alarm::Deadline) if clock::now() < until => {}
                Some(alarm) => return Err(HandshakeFailure::Alarm(alarm)),
                None => self.shake(socket, shard)?,
            }
            // A peer that has its words ready must not keep the others waiting: each round may cost a signature.
            glommio::yield_if_needed().await;
        }
        if drains {
            seat.slot().raise(Alarm::Drain);
        }
        Ok(())
    }

    /// One look during the handshake.
    fn shake(&mut self, socket: &Socket, shard: &Shard) -> Result<(), HandshakeFailure> {
        let mut sealed = shard.sealed.borrow_mut();
        let space = sealed.get_mut(..HANDSHAKE_AT_ONCE).unwrap_or_default();
        match socket.receive(space) {
            Ok(0) => Err(HandshakeFailure::Lost),
            Ok(n) => {
                let octets = space.get(..n).unwrap_or_default();
                self.take_in(octets).map_err(|error| self.give_up(socket, error))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(HandshakeFailure::Lost),
        }
    }

    /// Octets of the handshake, and what may come right behind it.
    fn take_in(&mut self, mut octets: &[u8]) -> Result<(), rustls::Error> {
        while !octets.is_empty() {
            match self.connection.read_tls(&mut octets) {
                Ok(0) => break,
                Ok(_) => {
                    let state = self.connection.process_new_packets()?;
                    self.unread |= state.plaintext_bytes_to_read() > 0 || state.peer_has_closed();
                }
                // More than a handshake may have.
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
        }
        Ok(())
    }

    fn give_up(&mut self, socket: &Socket, error: rustls::Error) -> HandshakeFailure {
        self.push_now(socket, false);
        HandshakeFailure::Protocol(error)
    }

    /// Whether a look finds something without receiving.
    pub fn holds_input(&self) -> bool {
        self.unread
    }

    /// What the peer has sent, without waiting: plaintext goes into `space`, which should have room for `at_once` octets
    /// and a record.
    pub fn look(&mut self, socket: &Socket, shard: &Shard, space: &mut [u8], at_once: usize) -> Look {
        if self.unread {
            let found = self.unseal(space, 0);
            self.unread = self.has_more();
            if found != Look::Nothing {
                return found;
            }
        }
        let mut sealed = shard.sealed.borrow_mut();
        let received = sealed
            .get_mut(..at_once.min(SEALED))
            .ok_or(Errno::NOBUFS)
            .and_then(|space| socket.receive(space).map(|n| space.get(..n).unwrap_or_default()));
        let octets = match received {
            Ok([]) => return Look::End,
            Ok(octets) => octets,
            Err(Errno::AGAIN | Errno::INTR) => return Look::Nothing,
            Err(_) => return Look::Broken,
        };
        let found = self.open(octets, space);
        if self.connection.wants_write() {
            // An alert, or the answer to new keys; what the socket does not take goes out with the next reply.
            self.push_now(socket, false);
        }
        found
    }

    /// Ciphertext into plaintext.
    fn open(&mut self, mut sealed: &[u8], space: &mut [u8]) -> Look {
        let mut filled = 0;
        while !sealed.is_empty() {
            match self.connection.read_tls(&mut sealed) {
                // It has said goodbye before; what comes behind that is nothing.
                Ok(0) => break,
                Ok(_) if self.connection.process_new_packets().is_ok() => {}
                // What came before the breach is lost with it: it would get no reply.
                _ => return Look::Broken,
            }
            match self.unseal(space, filled) {
                Look::Data(n) => filled = n,
                Look::End if filled == 0 => return Look::End,
                _ => {}
            }
        }
        self.unread = self.has_more();
        if filled > 0 { Look::Data(filled) } else { Look::Empty }
    }

    /// Whether there is plaintext that found no room, or the end behind it.
    fn has_more(&mut self) -> bool {
        let state = self.connection.process_new_packets();
        state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
    }

    /// Plaintext that is there already, behind `filled` octets of `space`.
    fn unseal(&mut self, space: &mut [u8], mut filled: usize) -> Look {
        let before = filled;
        loop {
            let room = space.get_mut(filled..).unwrap_or_default();
            if room.is_empty() {
                return Look::Data(filled);
            }
            match self.connection.reader().read(room) {
                Ok(0) if filled == before => return Look::End,
                Ok(0) => return Look::Data(filled),
                Ok(n) => filled += n,
                Err(_) if filled == before => return Look::Nothing,
                Err(_) => return Look::Data(filled),
            }
        }
    }

    /// Gives memory back before a wait: the buffer that took a burst of records in shrinks to its smallest.
    pub fn rest(&mut self) {
        struct Nothing;
        impl Read for Nothing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        let _ = self.connection.read_tls(&mut Nothing);
    }

    /// Seals octets and sends them; fails with `TimedOut` when an alarm is raised before the peer has taken them.
    pub async fn send(&mut self, socket: &Socket, shard: &Shard, seat: &Seat, mut octets: &[u8]) -> io::Result<()> {
        loop {
            let taken = self.connection.writer().write(octets)?;
            octets = octets.get(taken..).unwrap_or_default();
            self.flush(socket, shard, seat).await?;
            if octets.is_empty() {
                return Ok(());
            }
        }
    }

    /// Seals octets and the end, and sends what the socket takes at once. Returns how many octets are sealed.
    pub fn send_last(&mut self, socket: &Socket, octets: &[u8]) -> usize {
        let taken = self.connection.writer().write(octets).unwrap_or(0);
        if taken == octets.len() {
            self.connection.send_close_notify();
        }
        self.push_now(socket, true);
        taken
    }

    /// Whether sealed octets wait to be sent.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    async fn flush(&mut self, socket: &Socket, shard: &Shard, seat: &Seat) -> io::Result<()> {
        poll_fn(|cx| {
            while self.connection.wants_write() {
                let mut out = Polled { socket, shard, cx };
                match self.connection.write_tls(&mut out) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                    Err(_) if seat.slot().is_alarmed() => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Err(_) => {
                        seat.slot().attend(cx);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Sends what the socket takes without waiting.
    fn push_now(&mut self, socket: &Socket, more: bool) {
        let mut out = AtOnce { socket, more };
        while self.connection.wants_write() && self.connection.write_tls(&mut out).is_ok_and(|n| n > 0) {}
    }

    /// What was agreed.
    pub fn secured(&self) -> Secured {
        let common = &self.connection;
        let cipher = common
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown");
        let sni = match common {
            Connection::Server(server) => server.server_name().map(Box::from),
            Connection::Client(_) => None,
        };
        Secured {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                _ => "1.2",
            },
            cipher: cipher
                .strip_prefix("TLS13_")
                .or(cipher.strip_prefix("TLS_"))
                .unwrap_or(cipher),
            sni,
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

fn lost(error: io::Error) -> HandshakeFailure {
    match error.kind() {
        io::ErrorKind::TimedOut => HandshakeFailure::Alarm(Alarm::Deadline),
        _ => HandshakeFailure::Lost,
    }
}

/// A socket for rustls to write to, which wakes the task when it takes more.
struct Polled<'a, 'cx> {
    socket: &'a Socket,
    shard: &'a Shard,
    cx: &'a mut Context<'cx>,
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.socket.poll_send(self.cx, octets) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Several records in one segment: a flight of the handshake is one.
    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [only] = records {
            return self.write(only);
        }
        let shard = self.shard;
        let mut sealed = shard.sealed.borrow_mut();
        let mut filled = 0;
        for record in records {
            let Some(space) = sealed.get_mut(filled..filled + record.len()) else {
                break;
            };
            space.copy_from_slice(record);
            filled += record.len();
        }
        self.write(sealed.get(..filled).unwrap_or_default())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket for rustls to write to that says no where it would have to wait.
struct AtOnce<'a> {
    socket: &'a Socket,
    more: bool,
}

impl Write for AtOnce<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let sent = match self.more {
            true => self.socket.send_more(octets),
            false => self.socket.send_now(octets),
        };
        sent.map_err(Into::into)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
