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

    /// Whether TLS has begun.
    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether TLS has begun and its handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::is_handshaking)
    }

    /// Reads what has come; 0 is the end. The ring is asked to tell of more only when there is nothing now.
    pub fn receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(tls) = &mut self.tls {
            let mut socket = Borrowed {
                stream: &mut self.stream,
                context,
            };
            return polled(tls.receive(buffer, &mut socket));
        }
        loop {
            let read = (&*SockRef::from(&self.stream)).read(buffer);
            if !matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(read);
            }
            // A read of no octets waits without a buffer; it is ready when there is something, or an end.
            match Pin::new(&mut self.stream).poll_read(context, &mut []) {
                Poll::Ready(Ok(_)) => {}
                ended => return ended,
            }
        }
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

/// How often in a row an executor looks for itself before it lets the ring tell, and for how many reads then. One that
/// only looked would never come to the end of its work, which is when those that wait in the ring are heard.
const LOOKS: u32 = 256;
const RESTS: u32 = 64;

/// Whether a connection whose reply is awaited lets the others go first and then simply looks, or asks the ring to be told.
/// On a busy executor the server has mostly answered by then, and a look that finds something is the cheaper.
#[derive(Debug, Default)]
pub struct Looks(u32);

impl Looks {
    /// Whether to look this time.
    pub fn may_look(&mut self) -> bool {
        self.0 = if self.0 + 1 < LOOKS + RESTS { self.0 + 1 } else { 0 };
        self.0 < LOOKS
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
