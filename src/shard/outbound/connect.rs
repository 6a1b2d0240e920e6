//! Opening a connection to a next hop.
//!
//! Promises: nothing blocks; whoever waits ends with an alarm of its seat; names are not resolved here. Lives on its shard.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::task::Poll;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket as Unwatched, Type};

use crate::shard::Shard;
use crate::shard::readiness::Interest;
use crate::shard::route::Place;
use crate::shard::slots::Seat;
use crate::shard::socket::Socket;

/// Connects; fails with `TimedOut` when the seat is alarmed before.
pub(super) async fn connect(shard: &Shard, seat: &Seat, place: &Place) -> io::Result<Socket> {
    let socket = match place {
        Place::Inet(address) => start_inet(*address)?,
        Place::Local(path) => start_local(path)?,
        Place::Files(_) | Place::Nowhere => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = Socket::new(&shard.readiness, socket.into(), Interest::Both)?;
    poll_fn(|cx| match socket.poll_connected(cx) {
        Poll::Pending if seat.slot().is_alarmed() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        Poll::Pending => {
            seat.slot().attend(cx);
            Poll::Pending
        }
        made => made,
    })
    .await?;
    Ok(socket)
}

fn start_inet(address: SocketAddr) -> io::Result<Unwatched> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Unwatched::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    start(&socket, &address.into())?;
    Ok(socket)
}

fn start_local(path: &Path) -> io::Result<Unwatched> {
    let socket = Unwatched::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    start(&socket, &SockAddr::unix(path)?)?;
    Ok(socket)
}

fn start(socket: &Unwatched, address: &SockAddr) -> io::Result<()> {
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}
