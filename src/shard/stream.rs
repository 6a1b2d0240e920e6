//! Bytes in and out of one socket, with an ear for alarms.
//!
//! Promises: input goes straight into the shard's one buffer; a write that the client does not take ends with the next alarm;
//! nothing is allocated. Lives on its shard.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::Shard;
use super::slots::{Alarm, Seat, Slot};

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
    /// The client has sent all that it will.
    End,
    /// The connection is gone.
    Broken,
    /// Somebody wants this connection to look up.
    Alarm(Alarm),
}

/// Waits for input. It arrives in the shard's buffer, behind what was carried over; that is safe to share because it is
/// used up before anybody else runs.
pub async fn read(shard: &Shard, seat: &Seat, stream: &mut TcpStream, carry: &[u8], at_once: usize) -> Wake {
    poll_fn(|cx| {
        if let Some(alarm) = seat.slot().take_alarm() {
            return Poll::Ready(Wake::Alarm(alarm));
        }
        let mut scratch = shard.scratch.borrow_mut();
        let end = scratch.len().min(carry.len() + at_once);
        let Some((front, space)) = scratch.get_mut(..end).and_then(|s| s.split_at_mut_checked(carry.len())) else {
            return Poll::Ready(Wake::Broken);
        };
        match Pin::new(&mut *stream).poll_read(cx, space) {
            Poll::Ready(Ok(0)) => Poll::Ready(Wake::End),
            Poll::Ready(Ok(n)) => {
                front.copy_from_slice(carry);
                Poll::Ready(Wake::Data(front.len() + n))
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Err(_)) => Poll::Ready(Wake::Broken),
            Poll::Pending => {
                seat.slot().attend(cx);
                Poll::Pending
            }
        }
    })
    .await
}

/// Sends octets; fails with `TimedOut` when an alarm is raised before the client has taken them.
pub async fn send(stream: &mut TcpStream, slot: &Slot, octets: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    poll_fn(|cx| {
        while let Some(rest) = octets.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *stream).poll_write(cx, rest) {
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

/// Reads and throws away what a client still sends, until it closes, or has been given enough of our time.
pub async fn linger(shard: &Shard, seat: &Seat, stream: &mut TcpStream) {
    let mut left = LINGER_OCTETS;
    loop {
        match read(shard, seat, stream, &[], COMMANDS_AT_ONCE).await {
            Wake::Data(n) if n < left => left -= n,
            _ => return,
        }
    }
}
