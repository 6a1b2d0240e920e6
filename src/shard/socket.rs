//! A socket that never blocks, and the set that tells of it.
//!
//! Promises: what the set has not told of is not received; who waits is woken. Lives on its shard.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::readiness::{Interest, Place, Readiness};

/// A connection, or one that is being made.
#[derive(Debug)]
pub struct Socket {
    place: Place,
    descriptor: OwnedFd,
}

impl Socket {
    /// Has a stream socket watched that does not block.
    ///
    /// # Errors
    ///
    /// As [`Readiness::watch`].
    pub fn new(readiness: &Rc<Readiness>, descriptor: OwnedFd, interest: Interest) -> io::Result<Socket> {
        let place = readiness.watch(&descriptor, interest)?;
        Ok(Socket { place, descriptor })
    }

    /// The descriptor alone, which is watched no more.
    pub fn into_descriptor(self) -> OwnedFd {
        self.place.leave(&self.descriptor);
        self.descriptor
    }

    /// Whether there may be something to receive, or an end.
    pub fn is_readable(&self) -> bool {
        self.place.is_readable()
    }

    /// Waits until there may be something to receive, or an end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.place.poll_readable(cx)
    }

    /// Receives what is there; 0 is the end, `AGAIN` nothing yet.
    pub fn receive(&self, space: &mut [u8]) -> Result<usize, Errno> {
        if !self.place.is_readable() {
            return Err(Errno::AGAIN);
        }
        let received = rustix::net::recv(&self.descriptor, &mut *space, RecvFlags::DONTWAIT).map(|(n, _)| n);
        match received {
            Ok(n) => self.place.has_read(n < space.len()),
            Err(Errno::AGAIN) => self.place.nothing_to_read(),
            Err(_) => {}
        }
        received
    }

    /// Whether there is something to receive: 0 is its end, `AGAIN` nothing yet.
    pub fn peek(&self) -> Result<usize, Errno> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let peeked = rustix::net::recv(&self.descriptor, &mut [0; 1], flags).map(|(n, _)| n);
        if peeked == Err(Errno::AGAIN) {
            self.place.nothing_to_read();
        }
        peeked
    }

    /// Sends what is taken at once; `AGAIN` where nothing is.
    pub fn send_now(&self, octets: &[u8]) -> Result<usize, Errno> {
        self.send(octets, SendFlags::empty())
    }

    /// The same without pushing it (MSG_MORE): a shutdown right behind it travels in the same segment.
    pub fn send_more(&self, octets: &[u8]) -> Result<usize, Errno> {
        self.send(octets, SendFlags::MORE)
    }

    fn send(&self, octets: &[u8], flags: SendFlags) -> Result<usize, Errno> {
        rustix::net::send(
            &self.descriptor,
            octets,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL | flags,
        )
    }

    /// Sends what is taken, and waits until something is.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn poll_send(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.send_now(octets) {
                Err(Errno::AGAIN) => self.place.no_room_to_write(),
                Err(Errno::INTR) => continue,
                sent => return Poll::Ready(sent.map_err(Into::into)),
            }
            match self.place.poll_writable(&self.descriptor, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits until a connection is made, or could not be.
    ///
    /// # Errors
    ///
    /// What the system said to `connect`.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.place.poll_writable(&self.descriptor, cx) {
            Poll::Ready(Ok(())) => match rustix::net::sockopt::socket_error(&self.descriptor) {
                Ok(result) => Poll::Ready(result.map_err(Into::into)),
                Err(errno) => Poll::Ready(Err(errno.into())),
            },
            other => other,
        }
    }

    /// Says that nothing more will be sent.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(&self.descriptor, Shutdown::Write);
    }

    /// Whether segments are acknowledged at once, or with what is sent next.
    pub fn quickack(&self, at_once: bool) {
        let _ = rustix::net::sockopt::set_tcp_quickack(&self.descriptor, at_once);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use glommio::timer::Timer;

    use super::*;
    use crate::shard::readiness::tests::in_an_executor;

    #[test]
    fn an_end_that_came_with_the_last_octets_is_found_behind_them() {
        with_peer(async |socket, mut peer| {
            peer.write_all(b"QUIT\r\n").unwrap();
            drop(peer);
            Timer::new(Duration::from_millis(20)).await;
            let mut space = [0; 64];
            assert_eq!(receive(&socket, &mut space).await, Ok(6));
            assert_eq!(receive(&socket, &mut space).await, Ok(0));
            assert_eq!(receive(&socket, &mut space).await, Ok(0));
        });
    }

    #[test]
    fn what_found_no_room_is_found_by_the_next_look() {
        with_peer(async |socket, mut peer| {
            peer.write_all(b"abcdef").unwrap();
            let mut space = [0; 3];
            assert_eq!(receive(&socket, &mut space).await, Ok(3));
            assert!(socket.is_readable());
            assert_eq!((socket.receive(&mut space), space), (Ok(3), *b"def"));
            assert_eq!(socket.receive(&mut space), Err(Errno::AGAIN));
            assert!(!socket.is_readable());
            peer.write_all(b"g").unwrap();
            assert_eq!(receive(&socket, &mut space).await, Ok(1));
        });
    }

    #[test]
    fn a_peek_takes_nothing_and_tells_the_end() {
        with_peer(async |socket, mut peer| {
            assert_eq!(socket.peek(), Err(Errno::AGAIN));
            peer.write_all(b"x").unwrap();
            poll_fn(|cx| socket.poll_readable(cx)).await;
            assert_eq!((socket.peek(), socket.receive(&mut [0; 1])), (Ok(1), Ok(1)));
            drop(peer);
            assert_eq!(receive(&socket, &mut [0; 1]).await, Ok(0));
            assert_eq!(socket.peek(), Ok(0));
        });
    }

    #[test]
    fn an_urgent_octet_hides_nothing_behind_it() {
        with_peer(async |socket, mut peer| {
            peer.write_all(b"NOOP\r\n").unwrap();
            socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap();
            peer.write_all(b"QUIT\r\n").unwrap();
            Timer::new(Duration::from_millis(20)).await;
            let mut space = [0; 64];
            assert_eq!(receive(&socket, &mut space).await, Ok(6));
            assert_eq!(socket.receive(&mut space), Ok(6));
            assert!(space.starts_with(b"QUIT\r\n"));
            assert_eq!(socket.receive(&mut space), Err(Errno::AGAIN));
            assert!(!socket.is_readable());
        });
    }

    #[test]
    fn a_reset_is_an_error_once_and_an_end_then() {
        with_peer(async |socket, peer| {
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            let mut space = [0; 8];
            assert_eq!(receive(&socket, &mut space).await, Err(Errno::CONNRESET));
            assert_eq!(receive(&socket, &mut space).await, Ok(0));
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_waited_for_and_then_gets_all() {
        with_peer(async |socket, mut peer| {
            let octets: Vec<u8> = (0..4 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
            let reader = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all
            });
            let (mut sent, mut waits) = (0, 0);
            while sent < octets.len() {
                sent += poll_fn(|cx| {
                    let polled = socket.poll_send(cx, &octets[sent..]);
                    waits += u32::from(polled.is_pending());
                    polled
                })
                .await
                .unwrap();
            }
            socket.shutdown();
            assert!(waits > 0);
            assert!(reader.join().unwrap() == octets);
        });
    }

    #[test]
    fn everybody_gets_all_that_was_sent_however_it_was_cut() {
        const PEERS: usize = 40;
        in_an_executor(async |readiness| {
            let mut tasks = Vec::new();
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..PEERS {
                let (socket, peer) = pair(&readiness);
                ours.push(socket);
                theirs.push(peer);
            }
            let writer = std::thread::spawn(move || {
                let mut state = 7_u64;
                let mut random = |below: usize| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) as usize % below
                };
                let mut sent = vec![0; PEERS];
                for _ in 0..20 * PEERS {
                    let n = random(PEERS);
                    let octets = vec![b'x'; 1 + random(300)];
                    theirs[n].write_all(&octets).unwrap();
                    sent[n] += octets.len();
                    if random(8) == 0 {
                        std::thread::sleep(Duration::from_micros(random(300) as u64));
                    }
                }
                sent
            });
            for (n, socket) in ours.into_iter().enumerate() {
                tasks.push(glommio::spawn_local(async move {
                    let mut space = vec![0; 1 + 17 * (n % 20)];
                    let mut all = 0;
                    loop {
                        match receive(&socket, &mut space).await.unwrap() {
                            0 => return all,
                            n => all += n,
                        }
                    }
                }));
            }
            let mut received = Vec::new();
            for task in tasks {
                received.push(task.await);
            }
            assert_eq!(received, writer.join().unwrap());
        });
    }

    async fn receive(socket: &Socket, space: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match socket.receive(space) {
                Err(Errno::AGAIN) => poll_fn(|cx| socket.poll_readable(cx)).await,
                other => return other,
            }
        }
    }

    fn pair(readiness: &Rc<Readiness>) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        (Socket::new(readiness, ours.into(), Interest::Read).unwrap(), peer)
    }

    fn with_peer(test: impl AsyncFnOnce(Socket, TcpStream) + Send + 'static) {
        in_an_executor(async |readiness| {
            let (socket, peer) = pair(&readiness);
            test(socket, peer).await;
        });
    }
}
