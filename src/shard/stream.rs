//! Bytes in and out of one connection, with an ear for alarms.
//!
//! Promises: input goes straight into the shard's one buffer; a write that the peer does not take ends with the next alarm;
//! nothing is allocated. Lives on its shard.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, future};
use glommio::net::TcpStream;
use rustix::io::Errno;

use super::slots::{Alarm, Seat, Slot};
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
}

impl Stream {
    /// A connection as it comes from the network.
    pub fn plain(socket: TcpStream) -> Stream {
        Stream { socket }
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
        if shard.looks.may_look() {
            future::yield_now().await;
            // A peer that always has something to say must not talk past its deadline.
            if let Some(alarm) = seat.slot().take_alarm() {
                return Wake::Alarm(alarm);
            }
            if let Some(wake) = self.look(shard, carry, at_once) {
                shard.looks.found();
                return wake;
            }
        } else {
            glommio::yield_if_needed().await;
        }
        loop {
            if let Some(alarm) = readable(seat, &mut self.socket).await {
                return Wake::Alarm(alarm);
            }
            if let Some(wake) = self.look(shard, carry, at_once) {
                return wake;
            }
        }
    }

    /// What the connection has, without waiting; none where it has nothing.
    fn look(&mut self, shard: &Shard, carry: &[u8], at_once: usize) -> Option<Wake> {
        let mut scratch = shard.scratch.borrow_mut();
        let end = scratch.len().min(carry.len() + at_once);
        let Some((front, space)) = scratch.get_mut(..end).and_then(|s| s.split_at_mut_checked(carry.len())) else {
            return Some(Wake::Broken);
        };
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

    /// Sends octets; fails with `TimedOut` when an alarm is raised before the peer has taken them.
    pub async fn send(&mut self, _shard: &Shard, seat: &Seat, octets: &[u8]) -> io::Result<()> {
        push(&mut self.socket, seat.slot(), octets).await
    }

    /// Sends what can be sent at once without pushing it, so that the end of the connection travels in the same segment.
    /// Returns how many octets are taken care of; the rest is for [`Stream::send`].
    pub fn send_more(&mut self, octets: &[u8]) -> usize {
        listener::send_more(&self.socket, octets)
    }

    /// Says that nothing more will come from here. What the peer sends can still be read.
    pub async fn shutdown(&mut self) {
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
async fn readable(seat: &Seat, socket: &mut TcpStream) -> Option<Alarm> {
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

/// How often in a row a shard looks for itself before it lets the ring tell, and for how many reads then. A shard that
/// only looked would never come to the end of its work, which is when sockets that wait in the ring are heard.
const LOOKS: u32 = 256;
const RESTS: u32 = 64;

/// Whether to look or to be told.
#[derive(Debug, Default)]
pub struct Looks(Cell<u32>);

impl Looks {
    fn may_look(&self) -> bool {
        let count = self.0.get();
        if count < LOOKS {
            return true;
        }
        self.0.set(if count + 1 < LOOKS + RESTS { count + 1 } else { 0 });
        false
    }

    fn found(&self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Sends octets into a socket; fails with `TimedOut` when an alarm is raised before they are taken.
async fn push(socket: &mut TcpStream, slot: &Slot, octets: &[u8]) -> io::Result<()> {
    let mut sent = 0;
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
    fn a_shard_that_always_finds_something_still_asks_the_ring_in_turns() {
        let looks = Looks::default();
        let mut looked = 0;
        for _ in 0..10 * (LOOKS + RESTS) {
            if looks.may_look() {
                looks.found();
                looked += 1;
            }
        }
        assert_eq!(looked, 10 * LOOKS);
    }

    #[test]
    fn a_look_in_vain_costs_none_of_them() {
        let looks = Looks::default();
        assert!((0..10 * LOOKS).all(|_| looks.may_look()));
    }
}
