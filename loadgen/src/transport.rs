//! One connection as the engine sees it, and the only file that knows what waits for it: a glommio stream.
//!
//! Promises: neither call blocks; one that cannot be done now is `Pending` and wakes the task when it can; a connection
//! that ends as planned leaves no request behind in the ring, so it is closed at once. Lives on its executor.

use std::io::{self, Read};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
// glommio takes sockets by this version's type, which spares `unsafe` here.
use socket2_of_glommio::{SockRef, Socket};

/// A connection.
#[derive(Debug)]
pub struct Link {
    stream: glommio::net::TcpStream,
}

impl Link {
    /// Takes over a socket that does not block; to be called within an executor.
    pub fn new(socket: TcpStream) -> Self {
        Self {
            stream: Socket::from(socket).into(),
        }
    }

    /// Reads what has come; 0 is the end. glommio asks the ring to tell of more at once, unless this is the `last` time
    /// that something is expected.
    pub fn receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8], last: bool) -> Poll<io::Result<usize>> {
        if last {
            let read = (&*SockRef::from(&self.stream)).read(buffer);
            if !matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(read);
            }
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }

    /// Writes as much as there is room for.
    pub fn send(&mut self, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }
}
