//! Listeners and connections of the sink, TCP and Unix.
//!
//! Promises: every listener is bound before any thread serves; a thread has a TCP listener of its own (SO_REUSEPORT), so
//! that the kernel spreads connections; those of a Unix path share one.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef, Socket, Type};

use super::terms::Dialect;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Said by the address itself.
    pub dialect: Option<Dialect>,
    pub place: Place,
}

/// A port or a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Port(SocketAddr),
    Path(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text
            .strip_prefix("lmtp+unix://")
            .or_else(|| text.strip_prefix("lmtp+unix:"))
        {
            return Ok(Self {
                dialect: Some(Dialect::Lmtp),
                place: Place::Path(path.into()),
            });
        }
        let (dialect, place) = match text.split_once("://") {
            Some(("smtp", place)) => (Some(Dialect::Smtp), place),
            Some(("lmtp", place)) => (Some(Dialect::Lmtp), place),
            _ => (None, text),
        };
        let place = place.parse().map_err(|_| {
            "expected IP:PORT, smtp://IP:PORT, lmtp://IP:PORT or lmtp+unix:///PATH, such as 127.0.0.1:2600".to_owned()
        })?;
        Ok(Self {
            dialect,
            place: Place::Port(place),
        })
    }
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds one listener for each of `threads`; says where, as port 0 is any. A path is taken over when nobody listens there.
    pub fn bind(place: &Place, threads: usize) -> io::Result<(Vec<Self>, Place)> {
        match place {
            Place::Port(address) => {
                let mut address = *address;
                let mut all = Vec::new();
                for _ in 0..threads {
                    let socket = tcp(address)?;
                    address = socket.local_addr()?.as_socket().unwrap_or(address);
                    all.push(Self::Tcp(TcpListener::from_std(socket.into())));
                }
                Ok((all, Place::Port(address)))
            }
            Place::Path(path) => {
                let first = unix(path)?;
                first.set_nonblocking(true)?;
                let mut all = Vec::new();
                for _ in 1..threads {
                    all.push(Self::Unix(UnixListener::from_std(first.try_clone()?)));
                }
                all.push(Self::Unix(UnixListener::from_std(first)));
                Ok((all, place.clone()))
            }
        }
    }

    /// Puts it into an epoll set.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Self::Unix(listener) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// The next connection.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Connections inherit it: a reply behind a reply that is not yet acknowledged must not wait.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net;
    match net::UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && net::UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)?;
            net::UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Closing it will send RST (TCP).
    pub fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // If it cannot be set, the connection ends with FIN.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Writes what was kept, then `octets`, and keeps what the socket does not take; whether it took all.
    pub fn write_all_or_keep(&mut self, octets: &[u8], kept: &mut Vec<u8>) -> io::Result<bool> {
        if !kept.is_empty() {
            kept.extend_from_slice(octets);
            let all = std::mem::take(kept);
            let written = self.write_some(&all)?;
            kept.extend_from_slice(all.get(written..).unwrap_or_default());
        } else {
            let written = self.write_some(octets)?;
            kept.extend_from_slice(octets.get(written..).unwrap_or_default());
        }
        Ok(kept.is_empty())
    }

    fn write_some(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < octets.len() {
            match self.write(octets.get(written..).unwrap_or_default()) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

impl Read for Stream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(room),
            Self::Unix(stream) => stream.read(room),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(octets),
            Self::Unix(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
