//! Opening connections: from which address and port, with which socket options.
//!
//! Promises: never blocks; source addresses are used in turn; ports are walked one by one, so that a port comes back
//! as late as possible and a run of one-shot connections does not run into its own TIME_WAIT. Lives on the thread of
//! the source.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Ports tried before a source address is said to be out of ports.
const PORT_TRIES: usize = 64;

/// Opens connections to one target.
#[derive(Debug)]
pub struct Dialer {
    target: SocketAddr,
    target_address: SockAddr,
    sources: Vec<Walk>,
    next: usize,
    manner: Manner,
}

/// Socket options of every connection.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Close with RST.
    pub reset: bool,
    /// Congestion control; the kernel's choice when absent.
    pub congestion: Option<String>,
}

/// The next local port of one source address.
#[derive(Debug)]
struct Walk {
    address: IpAddr,
    port: u16,
}

impl Dialer {
    /// A dialer; `sources` empty leaves address and port to the kernel. `seed` says at which port to start, so that
    /// two generators on one machine do not walk together.
    pub fn new(target: SocketAddr, sources: &[IpAddr], manner: Manner, seed: u32) -> Self {
        let (first, last) = port_range();
        let start = first + (seed % u32::from(last - first)) as u16;
        let sources = sources.iter().map(|&address| Walk { address, port: start }).collect();
        Self {
            target,
            target_address: target.into(),
            sources,
            next: 0,
            manner,
        }
    }

    /// The server.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Starts a connection; it is open when it is readable without an error.
    pub fn open(&mut self) -> io::Result<TcpStream> {
        if self.sources.is_empty() {
            let socket = self.socket()?;
            return self.start(socket);
        }
        self.next = (self.next + 1) % self.sources.len();
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in 0..PORT_TRIES {
            let Some(local) = self.sources.get_mut(self.next).map(Walk::step) else {
                break;
            };
            if local == self.target {
                continue;
            }
            let socket = self.socket()?;
            // TIME_WAIT holds the port for a minute; with this flag and tcp_tw_reuse (2 is the kernel's default: on
            // loopback) the port may be used again.
            socket.set_reuse_address(true)?;
            let opened = socket.bind(&local.into()).and_then(|()| self.start(socket));
            match opened {
                Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                    last = error;
                }
                other => return other,
            }
        }
        Err(last)
    }

    fn socket(&self) -> io::Result<Socket> {
        Socket::new(
            Domain::for_address(self.target),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )
    }

    fn start(&self, socket: Socket) -> io::Result<TcpStream> {
        socket.set_tcp_nodelay(true)?;
        if let Some(name) = &self.manner.congestion {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
        if self.manner.reset {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        match socket.connect(&self.target_address) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => {
                // An acknowledgement waits for what is sent next and leaves in the same segment: with every reply
                // acknowledged at once, as the kernel does at first, a connection has half as many segments again. Only
                // on loopback, where connect has been answered by now: earlier it would delay the connection itself.
                if self.target.ip().is_loopback() {
                    let _ = rustix::net::sockopt::set_tcp_quickack(&socket, false);
                }
                Ok(socket.into())
            }
        }
    }
}

impl Walk {
    fn step(&mut self) -> SocketAddr {
        let (first, last) = port_range();
        self.port = if self.port >= last { first } else { self.port + 1 };
        SocketAddr::new(self.address, self.port)
    }
}

/// The range that Linux uses by default (net.ipv4.ip_local_port_range); servers seldom listen in it.
fn port_range() -> (u16, u16) {
    (32_768, 60_999)
}

/// Raises the limit of open files to what `connections` need, as far as the hard limit allows.
pub fn allow_open_files(connections: usize) -> Result<(), String> {
    let needed = connections as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum.map(|maximum| maximum.min(needed)).or(Some(needed)),
        ..limit
    };
    if limit.maximum.is_some_and(|maximum| maximum < needed) || setrlimit(Resource::Nofile, raised).is_err() {
        return Err(format!(
            "{connections} connections need {needed} open files and the limit is {}: raise it with `ulimit -n {needed}`",
            limit.maximum.or(limit.current).unwrap_or_default()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn source_addresses_are_used_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sources: Vec<IpAddr> = (2..5).map(|last| IpAddr::from([127, 0, 0, last])).collect();
        let mut dialer = Dialer::new(listener.local_addr().unwrap(), &sources, Manner::default(), 7);
        let mut seen = Vec::new();
        let mut open = Vec::new();
        for _ in 0..6 {
            open.push(dialer.open().unwrap());
            seen.push(listener.accept().unwrap().1.ip());
        }
        assert_eq!(seen[..3], seen[3..]);
        seen.truncate(3);
        seen.sort();
        assert_eq!(seen, sources);
    }

    #[test]
    fn a_port_comes_back_only_after_all_others() {
        let (first, last) = port_range();
        let mut walk = Walk {
            address: IpAddr::from([127, 0, 0, 2]),
            port: 40_000,
        };
        for _ in 0..u32::from(last - first) {
            assert_ne!(walk.step().port(), 40_000);
        }
        assert_eq!(walk.step().port(), 40_000);
    }
}
