//! Bytes in and out of one connection, with an ear for alarms.
//!
//! Promises: input goes straight into the shard's one buffer, whether it comes plain or sealed; a write that the peer does not
//! take ends with the next alarm; a plain connection allocates nothing. Lives on its shard.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite, future};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use rustix::io::Errno;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::slots::{Alarm, Seat, Slot, Word};
use super::tls::{HandshakeFailure, Look, Secured, Tls};
use super::{Shard, listener};

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
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

impl Stream {
    /// A connection as it comes from the network.
    pub fn plain(socket: TcpStream) -> Stream {
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
        tls.handshake(&mut self.socket, shard, seat, already, until).await?;
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
        tls.handshake(&mut self.socket, shard, seat, &[], until).await?;
        self.tls = Some(tls);
        Ok(())
    }

    /// What the handshake has agreed on; none on a plain connection.
    pub fn secured(&self) -> Option<Secured> {
        self.tls.as_ref().map(|tls| tls.secured())
    }

    /// The socket itself, for who has only a last word to say.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Waits for input. It arrives in the shard's buffer, behind what was carried over; that is safe to share because it is
    /// used up before anybody else runs.
    ///
    /// A busy shard serves everybody else first and then simply looks: by then the peer has mostly answered, and a look that
    /// finds something is cheaper than being told by the ring (no poll request, no completion, no interrupt between cores).
    pub async fn read(&mut self, shard: &Shard, seat: &Seat, carry: &[u8], at_once: usize) -> Wake {
        shard.looks.let_others_go_first().await;
        // A peer that always has something to say must not talk past its deadline.
        if let Some(alarm) = seat.slot().take_alarm() {
            return Wake::Alarm(alarm);
        }
        if let Some(wake) = self.look(shard, carry, at_once) {
            shard.looks.found();
            return wake;
        }
        loop {
            match &mut self.tls {
                Some(tls) if tls.holds_input() => {}
                tls => {
                    if let Some(tls) = tls {
                        tls.rest();
                    }
                    if let Some(alarm) = readable(seat, &mut self.socket).await {
                        return Wake::Alarm(alarm);
                    }
                }
            }
            if let Some(wake) = self.look(shard, carry, at_once) {
                return wake;
            }
            if self.tls.is_some() {
                // A peer that sends records with nothing in them gets its turn like the others.
                future::yield_now().await;
            }
        }
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
        match listener::receive(&self.socket, space) {
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
            while !talks && Pin::new(&mut self.socket).poll_read(cx, &mut []).is_ready() {
                match listener::peek(&self.socket) {
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
        listener::quickack(&self.socket, true);
    }

    /// Sends octets; fails with `TimedOut` when an alarm is raised before the peer has taken them.
    pub async fn send(&mut self, shard: &Shard, seat: &Seat, octets: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.send(&mut self.socket, shard, seat, octets).await,
            None => push(&mut self.socket, seat.slot(), octets).await,
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
            None => listener::send_more(&self.socket, octets),
        }
    }

    /// Says that nothing more will come from here. What the peer sends can still be read away with [`Stream::linger`].
    pub async fn shutdown(&mut self) {
        if let Some(mut tls) = self.tls.take() {
            tls.send_last(&self.socket, &[]);
        }
        let _ = self.socket.shutdown(Shutdown::Write).await;
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

/// Waits until there is something to read, the end included, or until an alarm. A read of no octets is how to wait without
/// a buffer.
pub(super) async fn readable(seat: &Seat, socket: &mut TcpStream) -> Option<Alarm> {
    poll_fn(|cx| {
        if let Some(alarm) = seat.slot().take_alarm() {
            return Poll::Ready(Some(alarm));
        }
        match Pin::new(&mut *socket).poll_read(cx, &mut []) {
            // An error is found again by whoever looks.
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => {
                seat.slot().attend(cx);
                Poll::Pending
            }
        }
    })
    .await
}

/// How many looks may find something before everybody rests.
const LOOKS: u32 = 256;
/// Long enough to be over when the ring has been asked, and not before.
const REST: Duration = Duration::from_micros(1);

/// Whose turn it is. A shard that only looked would never come to the end of its work, which is when sockets that wait in
/// the ring are heard. So after some looks all who would look again wait for a timer instead: timers too are heard then
/// only, and cost less than the ring.
#[derive(Debug, Default)]
pub struct Looks(Cell<u32>);

impl Looks {
    async fn let_others_go_first(&self) {
        if self.is_tired() {
            Timer::new(REST).await;
            self.0.set(0);
        } else {
            future::yield_now().await;
        }
    }

    fn is_tired(&self) -> bool {
        self.0.get() >= LOOKS
    }

    fn found(&self) {
        self.0.set(self.0.get().saturating_add(1));
    }
}

/// Sends octets into a socket; fails with `TimedOut` when an alarm is raised before they are taken.
async fn push(socket: &mut TcpStream, slot: &Slot, octets: &[u8]) -> io::Result<()> {
    let mut sent = match listener::send_now(socket, octets, false) {
        Ok(sent) if sent == octets.len() => return Ok(()),
        Ok(sent) => sent,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(errno) => return Err(errno.into()),
    };
    poll_fn(|cx| {
        while let Some(rest) = octets.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_always_finds_something_rests_in_turns() {
        let rested = in_an_executor(async |looks| {
            let mut rested = 0;
            for _ in 0..10 * LOOKS {
                rested += u32::from(looks.is_tired());
                looks.let_others_go_first().await;
                looks.found();
            }
            rested
        });
        assert_eq!(rested, 9);
    }

    #[test]
    fn looks_in_vain_tire_nobody() {
        let tired = in_an_executor(async |looks| {
            for _ in 0..10 * LOOKS {
                looks.let_others_go_first().await;
            }
            looks.is_tired()
        });
        assert!(!tired);
    }

    #[test]
    fn who_waits_in_the_ring_is_heard_beside_those_who_always_find_something() {
        let heard = in_an_executor(async |looks| {
            let (mut ours, mut theirs) = glommio::net::UnixStream::pair().unwrap();
            let waits =
                glommio::spawn_local(
                    async move { futures_lite::AsyncReadExt::read(&mut theirs, &mut [0]).await.unwrap() },
                )
                .detach();
            let heard = future::or(async { Some(waits.await) }, async {
                for n in 0..20 * LOOKS {
                    if n == LOOKS {
                        futures_lite::AsyncWriteExt::write_all(&mut ours, b"x").await.unwrap();
                    }
                    looks.let_others_go_first().await;
                    looks.found();
                }
                None
            });
            heard.await.flatten()
        });
        assert_eq!(heard, Some(1));
    }

    fn in_an_executor<T: Send + 'static>(test: impl AsyncFnOnce(Looks) -> T + Send + 'static) -> T {
        glommio::LocalExecutorBuilder::default()
            .spawn(|| test(Looks::default()))
            .unwrap()
            .join()
            .unwrap()
    }
}
