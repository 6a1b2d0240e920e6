//! Bytes in and out of one connection, with an ear for alarms.
//!
//! Promises: input goes straight into the shard's one buffer, whether it comes plain or sealed; a write that the peer does not
//! take ends with the next alarm; a plain connection allocates nothing. Lives on its shard.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::Shard;
use super::slots::{Alarm, Seat, Slot, Word};
use super::socket::Socket;
use super::tls::{HandshakeFailure, Look, Secured, Tls};

/// Octets read at once while commands are awaited; content fills the shard's whole buffer.
pub const COMMANDS_AT_ONCE: usize = 16 << 10;
/// How long, and how much of, what a client still sends is read after our last reply, so that a reset does not take the
/// reply from it (RFC 9293 section 3.6.1).
pub const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 1 << 20;

/// What ended a wait for input.
#[derive(Debug)]
pub enum Wake {
    /// So many octets stand in the shard's buffer, carried ones first.
    Data(usize),
    /// The peer has sent all that it will.
    End,
    /// The connection is gone.
    Broken,
    /// Somebody wants this connection to look up.
    Alarm(Alarm),
}

/// A connection, whichever side has opened it.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

impl Stream {
    /// A connection as it comes from the network.
    pub fn plain(socket: Socket) -> Stream {
        Stream { socket, tls: None }
    }

    /// Does the server's side of a TLS handshake, until `until` at the latest. `already` are octets of the peer that were read
    /// with something else. The seat's deadline is the caller's again afterwards.
    pub async fn upgrade_server(
        &mut self,
        shard: &Shard,
        seat: &Seat,
        config: &Arc<ServerConfig>,
        already: &[u8],
        until: Instant,
    ) -> Result<(), HandshakeFailure> {
        let mut tls = Box::new(Tls::server(config)?);
        tls.handshake(&self.socket, shard, seat, already, until).await?;
        self.tls = Some(tls);
        Ok(())
    }

    /// Does the client's side, towards the server of that name.
    pub async fn upgrade_client(
        &mut self,
        shard: &Shard,
        seat: &Seat,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        until: Instant,
    ) -> Result<(), HandshakeFailure> {
        let mut tls = Box::new(Tls::client(config, name)?);
        tls.handshake(&self.socket, shard, seat, &[], until).await?;
        self.tls = Some(tls);
        Ok(())
    }

    /// What the handshake has agreed on; none on a plain connection.
    pub fn secured(&self) -> Option<Secured> {
        self.tls.as_ref().map(|tls| tls.secured())
    }

    /// The socket itself, for who has only a last word to say.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Waits for input. It arrives in the shard's buffer, behind what was carried over; that is safe to share because it is
    /// used up before anybody else runs.
    pub async fn read(&mut self, shard: &Shard, seat: &Seat, carry: &[u8], at_once: usize) -> Wake {
        if self.holds_input() {
            // A peer that always has something to say gets its turn like the others.
            shard.readiness.found(1);
            shard.readiness.let_others_go_first().await;
        }
        loop {
            // And it must not talk past its deadline.
            if let Some(alarm) = seat.slot().take_alarm() {
                return Wake::Alarm(alarm);
            }
            if let Some(wake) = self.look(shard, carry, at_once) {
                return wake;
            }
            if self.holds_input() {
                // Records came with nothing in them.
                shard.readiness.found(1);
                shard.readiness.let_others_go_first().await;
                continue;
            }
            if let Some(tls) = &mut self.tls {
                tls.rest();
            }
            if let Some(alarm) = readable(seat, &self.socket).await {
                return Wake::Alarm(alarm);
            }
        }
    }

    /// Whether a look finds something, most likely.
    fn holds_input(&self) -> bool {
        self.socket.is_readable() || self.tls.as_ref().is_some_and(|tls| tls.holds_input())
    }

    /// What the connection has, without waiting; none where it has nothing.
    fn look(&mut self, shard: &Shard, carry: &[u8], at_once: usize) -> Option<Wake> {
        let mut scratch = shard.scratch.borrow_mut();
        let room = match self.tls {
            Some(_) => scratch.len(),
            None => at_once,
        };
        let end = scratch.len().min(carry.len() + room);
        let Some((front, space)) = scratch.get_mut(..end).and_then(|s| s.split_at_mut_checked(carry.len())) else {
            return Some(Wake::Broken);
        };
        if let Some(tls) = &mut self.tls {
            return match tls.look(&self.socket, shard, space, at_once) {
                Look::Data(n) => {
                    front.copy_from_slice(carry);
                    Some(Wake::Data(front.len() + n))
                }
                Look::End => Some(Wake::End),
                Look::Broken => Some(Wake::Broken),
                Look::Nothing | Look::Empty => None,
            };
        }
        match self.socket.receive(space) {
            Ok(0) => Some(Wake::End),
            Ok(n) => {
                front.copy_from_slice(carry);
                Some(Wake::Data(front.len() + n))
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => Some(Wake::Broken),
        }
    }

    /// Waits for the onward side's word or an alarm; none when the peer goes away before. What it says meanwhile waits its
    /// turn.
    pub async fn word_or_end(&mut self, slot: &Slot) -> Option<Result<Word, Alarm>> {
        let mut talks = false;
        poll_fn(|cx| {
            if let Poll::Ready(heard) = slot.poll_word(cx) {
                return Poll::Ready(Some(heard));
            }
            while !talks && self.socket.poll_readable(cx).is_ready() {
                match self.socket.peek() {
                    Ok(0) => return Poll::Ready(None),
                    Ok(_) => talks = true,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Acknowledges what was received without waiting for something to send.
    pub fn acknowledge_now(&self) {
        self.socket.quickack(true);
    }

    /// Sends octets; fails with `TimedOut` when an alarm is raised before the peer has taken them.
    pub async fn send(&mut self, shard: &Shard, seat: &Seat, octets: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.send(&self.socket, shard, seat, octets).await,
            None => push(&self.socket, seat.slot(), octets).await,
        }
    }

    /// Whether octets that were taken care of still wait for a [`Stream::send`], be it of nothing.
    pub fn wants_send(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what can be sent at once without pushing it, so that the end of the connection travels in the same segment.
    /// Returns how many octets are taken care of; the rest is for [`Stream::send`].
    pub fn send_last(&mut self, octets: &[u8]) -> usize {
        match &mut self.tls {
            Some(tls) => tls.send_last(&self.socket, octets),
            None => self.socket.send_more(octets).unwrap_or(0),
        }
    }

    /// Says that nothing more will come from here. What the peer sends can still be read away with [`Stream::linger`].
    pub async fn shutdown(&mut self) {
        if let Some(mut tls) = self.tls.take() {
            tls.send_last(&self.socket, &[]);
        }
        self.socket.shutdown();
    }

    /// Reads and throws away what a peer still sends, until it closes, or has been given enough of our time.
    pub async fn linger(&mut self, shard: &Shard, seat: &Seat) {
        let mut left = LINGER_OCTETS;
        loop {
            match self.read(shard, seat, &[], COMMANDS_AT_ONCE).await {
                Wake::Data(n) if n < left => left -= n,
                _ => return,
            }
        }
    }
}

/// Waits until there is something to read, the end included, or until an alarm.
pub(super) async fn readable(seat: &Seat, socket: &Socket) -> Option<Alarm> {
    poll_fn(|cx| {
        if let Some(alarm) = seat.slot().take_alarm() {
            return Poll::Ready(Some(alarm));
        }
        match socket.poll_readable(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => {
                seat.slot().attend(cx);
                Poll::Pending
            }
        }
    })
    .await
}

/// Sends octets into a socket; fails with `TimedOut` when an alarm is raised before they are taken.
async fn push(socket: &Socket, slot: &Slot, octets: &[u8]) -> io::Result<()> {
    let mut sent = match socket.send_now(octets) {
        Ok(sent) if sent == octets.len() => return Ok(()),
        Ok(sent) => sent,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(errno) => return Err(errno.into()),
    };
    poll_fn(|cx| {
        while let Some(rest) = octets.get(sent..).filter(|rest| !rest.is_empty()) {
            match socket.poll_send(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if slot.is_alarmed() => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => {
                    slot.attend(cx);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
