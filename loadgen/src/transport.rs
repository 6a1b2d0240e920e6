//! One connection as the engine sees it, and the only file that knows what waits for it: a glommio stream.
//!
//! Promises: no call blocks; one that cannot be done now is `Pending` and wakes the task when it can; a connection
//! that ends as planned leaves no request behind in the ring, so it is closed at once. Lives on its executor.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
// glommio takes sockets by this version's type, which spares `unsafe` here.
use socket2_of_glommio::{SockRef, Socket};

use crate::tls::{Terms, Tls};

/// A connection.
#[derive(Debug)]
pub struct Link {
    stream: glommio::net::TcpStream,
    tls: Option<Tls>,
}

impl Link {
    /// Takes over a socket that does not block; to be called within an executor.
    pub fn new(socket: TcpStream) -> Self {
        Self {
            stream: Socket::from(socket).into(),
            tls: None,
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

    /// Reads what has come; 0 is the end. glommio asks the ring to tell of more at once, unless this is the `last` time
    /// that something is expected.
    pub fn receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8], last: bool) -> Poll<io::Result<usize>> {
        if let Some(tls) = &mut self.tls {
            let mut socket = Borrowed {
                stream: &mut self.stream,
                context,
            };
            return polled(tls.receive(buffer, &mut socket));
        }
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
        match &mut self.tls {
            Some(tls) => polled(tls.send(
                octets,
                Borrowed {
                    stream: &mut self.stream,
                    context,
                },
            )),
            None => Pin::new(&mut self.stream).poll_write(context, octets),
        }
    }

    /// Writes what is left of what was taken already; an error is found again by the next read.
    pub fn flush(&mut self, context: &mut Context<'_>) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.flush(&mut Borrowed {
                stream: &mut self.stream,
                context,
            });
        }
    }
}

fn polled(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A stream as rustls reads and writes it: what is pending would block, and the task is told when not any more.
struct Borrowed<'a, 'b> {
    stream: &'a mut glommio::net::TcpStream,
    context: &'a mut Context<'b>,
}

impl Read for Borrowed<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.stream).poll_read(self.context, buffer) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Borrowed<'_, '_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.stream).poll_write(self.context, octets) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
