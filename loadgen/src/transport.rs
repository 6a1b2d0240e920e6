//! One connection as the engine sees it, and the only file that knows what waits for it: a glommio stream.
//!
//! Promises: no call blocks; one that cannot be done now is `Pending` and wakes the task when it can; a connection
//! that ends as planned leaves no request behind in the ring, so it is closed at once. Lives on its executor.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::timer::Timer;
// glommio takes sockets by this version's type, which spares `unsafe` here.
use socket2_of_glommio::{SockRef, Socket};

use crate::tls::{Terms, Tls};

/// A connection.
#[derive(Debug)]
pub struct Link {
    stream: glommio::net::TcpStream,
    tls: Option<Tls>,
    rest: Option<Timer>,
}

impl Link {
    /// Takes over a socket that does not block; to be called within an executor.
    pub fn new(socket: TcpStream) -> Self {
        Self {
            stream: Socket::from(socket).into(),
            tls: None,
            rest: None,
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

    /// Has the task run again when the others have had their turn, to look for more after something was found.
    pub fn look_again(&mut self, looks: &mut Looks, context: &mut Context<'_>) {
        looks.0 = looks.0.saturating_add(1);
        if looks.is_tired() {
            let rest = self.rest.insert(Timer::new(REST));
            if Pin::new(rest).poll(context).is_pending() {
                return;
            }
        }
        context.waker().wake_by_ref();
    }

    /// To be called whenever the task runs; notes it when that is because its rest is over.
    pub fn wake(&mut self, looks: &mut Looks, context: &mut Context<'_>) {
        if let Some(mut rest) = self.rest.take()
            && Pin::new(&mut rest).poll(context).is_ready()
        {
            looks.0 = 0;
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

/// How many looks may find something before everybody rests.
const LOOKS: u32 = 256;
/// Long enough to be over when the ring has been asked, and not before.
const REST: Duration = Duration::from_micros(1);

/// Whose turn it is. A connection whose reply is awaited lets the others go first and then simply looks: on a busy executor
/// the server has mostly answered by then, and a look that finds something is cheaper than being told by the ring. An executor
/// that only looked would never come to the end of its work, which is when those that wait in the ring are heard. So after
/// some looks all who would look again wait for a timer instead: timers too are heard then only, and cost less than the ring.
#[derive(Debug, Default)]
pub struct Looks(u32);

impl Looks {
    fn is_tired(&self) -> bool {
        self.0 >= LOOKS
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_executor_that_always_finds_something_rests_in_turns() {
        let rested = in_an_executor(async |mut link, mut looks| {
            let mut rested = 0;
            for _ in 0..10 * LOOKS {
                again(&mut link, &mut looks).await;
                rested += u32::from(!looks.is_tired() && looks.0 == 0);
            }
            rested
        });
        assert_eq!(rested, 10);
    }

    #[test]
    fn who_waits_in_the_ring_is_heard_beside_those_who_always_find_something() {
        let heard = in_an_executor(async |mut link, mut looks| {
            let (mut ours, mut theirs) = glommio::net::UnixStream::pair().unwrap();
            let waits =
                glommio::spawn_local(
                    async move { futures_lite::AsyncReadExt::read(&mut theirs, &mut [0]).await.unwrap() },
                )
                .detach();
            let heard = futures_lite::future::or(async { Some(waits.await) }, async {
                for n in 0..20 * LOOKS {
                    if n == LOOKS {
                        futures_lite::AsyncWriteExt::write_all(&mut ours, b"x").await.unwrap();
                    }
                    again(&mut link, &mut looks).await;
                }
                None
            });
            heard.await.flatten()
        });
        assert_eq!(heard, Some(1));
    }

    /// What a connection does that has found something: it waits for its next turn.
    async fn again(link: &mut Link, looks: &mut Looks) {
        let mut begun = false;
        poll_fn(|context| {
            link.wake(looks, context);
            if std::mem::replace(&mut begun, true) {
                return Poll::Ready(());
            }
            link.look_again(looks, context);
            Poll::Pending
        })
        .await;
    }

    fn in_an_executor<T: Send + 'static>(test: impl AsyncFnOnce(Link, Looks) -> T + Send + 'static) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        glommio::LocalExecutorBuilder::default()
            .spawn(|| async move { test(Link::new(socket), Looks::default()).await })
            .unwrap()
            .join()
            .unwrap()
    }
}
