//! Opening a connection to a next hop.
//!
//! Promises: nothing blocks; whoever waits ends with an alarm of its seat; names are not resolved here. Lives on its shard.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;

use futures_lite::AsyncWrite;
use glommio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::shard::listener;
use crate::shard::route::Place;
use crate::shard::slots::Seat;

/// Connects; fails with `TimedOut` when the seat is alarmed before.
pub(super) async fn connect(seat: &Seat, place: &Place) -> io::Result<TcpStream> {
    let socket = match place {
        Place::Inet(address) => start_inet(*address)?,
        Place::Local(path) => start_local(path)?,
        Place::Files(_) | Place::Nowhere => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut stream = listener::adopt(socket.into());
    // Sending no octets waits for the connection: a socket can be written to once it is there, or has failed.
    poll_fn(|cx| match Pin::new(&mut stream).poll_write(cx, &[]) {
        Poll::Ready(result) => Poll::Ready(result.map(drop)),
        Poll::Pending if seat.slot().is_alarmed() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        Poll::Pending => {
            seat.slot().attend(cx);
            Poll::Pending
        }
    })
    .await?;
    Ok(stream)
}

fn start_inet(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    start(&socket, &address.into())?;
    Ok(socket)
}

fn start_local(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    start(&socket, &SockAddr::unix(path)?)?;
    Ok(socket)
}

fn start(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}
