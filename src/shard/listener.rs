//! Listening sockets: made before any shard serves, one per shard and address, and the loop that accepts from one.
//!
//! Promises: a connection that is refused costs one write and no session; running out of file descriptors does not spin;
//! the loop ends when the socket is shut down. Sockets are made on the main or control thread, the loop lives on its shard.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;
use glommio::timer::Timer;
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketAddrAny, SocketFlags};
use socket2::{Domain, Protocol, Socket as Unwatched, Type};

use super::connection::{self, Arrival};
use super::readiness::{Interest, Place};
use super::socket::Socket;
use super::stream::Stream;
use super::{Current, Shard, clock};
use crate::log::Level;
use crate::metrics::Counter;
use crate::policy::binding::Binding;
use crate::policy::network::{self, Source};
use crate::policy::tally::{Claim, Refusal};
use crate::smtp::Edition;
use crate::smtp::oxsmtp::{self, Event};

/// Connections that may wait to be accepted, per socket; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Connections accepted in a row before others on the shard get their turn.
const ACCEPTS_AT_ONCE: usize = 64;
/// How long accepting rests when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(50);
/// Refusals that may wait for their tarpit (v4.1) at once on a shard; beyond it they are answered at once.
const WAITING_REFUSALS: usize = 1024;

/// A bound and listening socket, on its way to a shard.
#[derive(Debug)]
pub struct BoundSocket {
    /// The name of its binding.
    pub binding: Arc<str>,
    /// The real address, with the port that the system chose.
    pub address: SocketAddr,
    /// The socket itself.
    pub socket: OwnedFd,
}

/// Binds `count` sockets to one address, for as many shards. A port 0 is chosen by the first and shared by the rest.
///
/// # Errors
///
/// Whatever the system says to `bind`; `AddrInUse` also when another process shares the port with SO_REUSEPORT, which
/// the kernel would allow and which would take half of the mail away from one of the two.
pub fn bind(binding: &Arc<str>, address: SocketAddr, count: usize) -> io::Result<Vec<BoundSocket>> {
    if address.port() != 0 {
        // Without SO_REUSEPORT the kernel tells whether anybody is there.
        let probe = socket(address)?;
        probe.bind(&address.into())?;
    }
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        // Accepted connections inherit it: a reply never waits for the client's delayed acknowledgement.
        socket.set_tcp_nodelay(true)?;
        // And this: replies are far smaller than the first window, so there is no congestion to control, and the simplest way
        // to do it is always there. A host's BBR would keep accounts of each segment. Where it is refused, so be it.
        let _ = socket.set_tcp_congestion(b"reno");
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        if let Some(real) = socket.local_addr()?.as_socket() {
            address = real;
        }
        sockets.push(BoundSocket {
            binding: binding.clone(),
            address,
            socket: socket.into(),
        });
    }
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<Unwatched> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Unwatched::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// A socket that a shard accepts from.
#[derive(Debug)]
pub(super) struct Listener {
    /// A reload may give the address to another binding.
    pub binding: RefCell<Arc<str>>,
    pub address: SocketAddr,
    place: Place,
    socket: OwnedFd,
}

impl Listener {
    /// Ends the accept loop.
    pub fn shut(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Read);
    }
}

impl Shard {
    /// Starts accepting from a socket.
    pub(super) fn listen(self: &Rc<Self>, bound: BoundSocket) -> io::Result<()> {
        let BoundSocket {
            binding,
            address,
            socket,
        } = bound;
        let listener = Rc::new(Listener {
            binding: RefCell::new(binding),
            address,
            place: self.readiness.watch(&socket, Interest::Read)?,
            socket,
        });
        self.listeners.borrow_mut().push(listener.clone());
        let shard = self.clone();
        glommio::spawn_local(async move {
            shard.accept_from(&listener).await;
            shard.listeners.borrow_mut().retain(|l| !Rc::ptr_eq(l, &listener));
        })
        .detach();
        Ok(())
    }

    async fn accept_from(self: &Rc<Self>, listener: &Listener) {
        loop {
            poll_fn(|cx| listener.place.poll_readable(cx)).await;
            for _ in 0..ACCEPTS_AT_ONCE {
                match accept(&listener.socket) {
                    Ok(Some((descriptor, peer))) => self.welcome(listener, descriptor, peer),
                    Ok(None) => {}
                    Err(Errno::AGAIN) => {
                        listener.place.nothing_to_read();
                        break;
                    }
                    Err(errno) if self.rests_after(errno).await => {}
                    Err(_) => return,
                }
            }
            if listener.place.is_readable() {
                self.readiness.found(ACCEPTS_AT_ONCE);
                self.readiness.let_others_go_first().await;
            }
        }
    }

    /// What an error of accept asks for: false ends the loop (the socket was shut down).
    async fn rests_after(&self, errno: Errno) -> bool {
        if errno == Errno::INVAL || errno == Errno::BADF {
            return false;
        }
        self.metrics.count(Counter::AcceptErrors);
        if matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) {
            self.complain_once_a_minute("cannot accept connections: raise LimitNOFILE (or ulimit -n)", errno);
            Timer::new(REST).await;
        }
        true
    }

    /// Admits a newcomer and gives it a session, or refuses it.
    fn welcome(self: &Rc<Self>, listener: &Listener, descriptor: OwnedFd, peer: SocketAddr) {
        let opened = clock::now();
        let settings = self.settings();
        let peer = SocketAddr::new(network::canonical(peer.ip()), peer.port());
        let Some(binding) = settings.binding(&listener.binding.borrow()).cloned() else {
            return refuse_now(&descriptor, Event::BindingNotConfigured.wire());
        };
        let proxied = binding.proxy_protocol && binding.proxy_from.contains(peer.ip());
        let claim = if proxied {
            self.admit_proxy(&binding, peer.ip())
        } else {
            self.admit(&settings, &binding, peer.ip())
        };
        let claim = match claim {
            Ok(claim) => claim,
            Err(event) => return self.refuse(descriptor, settings, &binding, peer.ip(), event),
        };
        let Some(stream) = self.watch(descriptor) else {
            return;
        };
        let arrival = Arrival {
            stream,
            peer,
            settings,
            binding,
            claim,
            opened,
        };
        if proxied {
            self.spawn(|shard| connection::serve_proxied(shard, arrival));
        } else {
            self.spawn(|shard| connection::serve(shard, arrival));
        }
    }

    fn watch(&self, descriptor: OwnedFd) -> Option<Stream> {
        match Socket::new(&self.readiness, descriptor, Interest::Read) {
            Ok(socket) => {
                // A reply comes right behind what it answers and acknowledges it too (RFC 9293 section 3.8.6.3): no segment of
                // its own.
                socket.quickack(false);
                Some(Stream::plain(socket))
            }
            Err(error) => {
                self.metrics.count(Counter::AcceptErrors);
                self.complain_once_a_minute("cannot watch a connection: raise fs.epoll.max_user_watches", error);
                None
            }
        }
    }

    /// A proxy counts in the total, not as a source: its clients do that.
    fn admit_proxy(&self, binding: &Binding, proxy: IpAddr) -> Result<Claim, Event> {
        if self.draining.get() {
            return Err(Event::NewConnectionNotAvailable);
        }
        let limits = &binding.terms.limits;
        self.column
            .claim(
                binding.connection_scope,
                Source::of(proxy),
                limits.max_connections,
                u64::MAX,
            )
            .map_err(|refusal| match refusal {
                Refusal::Total => Event::ConnectionCountExceeded,
                Refusal::PerSource => Event::ConnectionCountPerSource,
            })
    }

    /// Runs a connection behind a fence: a defect in one session costs one connection. The future is made inside the
    /// task, which would hold it twice if it came as an argument.
    pub(super) fn spawn<F: Future<Output = ()>>(self: &Rc<Self>, connection: impl FnOnce(Rc<Shard>) -> F + 'static) {
        let shard = self.clone();
        glommio::spawn_local(async move {
            if AssertUnwindSafe(connection(shard.clone()))
                .catch_unwind()
                .await
                .is_err()
            {
                shard.metrics.count(Counter::SessionPanics);
            }
        })
        .detach();
    }

    /// Answers a connection that is not admitted: at once, or in v4.1 after the tarpit.
    fn refuse(
        self: &Rc<Self>,
        descriptor: OwnedFd,
        settings: Current,
        binding: &Arc<Binding>,
        client: IpAddr,
        event: Event,
    ) {
        let tarpit = binding.terms.limits.tarpit;
        let waits = binding.terms.edition == Edition::Y2011 && !tarpit.is_zero();
        if !waits || self.waiting_refusals.get() >= WAITING_REFUSALS || self.draining.get() {
            self.note_refusal(binding, client, event);
            return refuse_now(&descriptor, &refusal(&settings, binding, client, event));
        }
        self.waiting_refusals.set(self.waiting_refusals.get() + 1);
        let (shard, binding) = (self.clone(), binding.clone());
        glommio::spawn_local(async move {
            Timer::new(tarpit).await;
            shard.waiting_refusals.set(shard.waiting_refusals.get() - 1);
            shard.note_refusal(&binding, client, event);
            refuse_now(&descriptor, &refusal(&settings, &binding, client, event));
        })
        .detach();
    }

    /// The same for a client whose address was learnt from a PROXY header.
    pub(super) async fn refuse_stream(
        self: &Rc<Self>,
        stream: Socket,
        settings: &Current,
        binding: &Arc<Binding>,
        client: IpAddr,
        event: Event,
    ) {
        self.refuse(stream.into_descriptor(), settings.clone(), binding, client, event);
    }

    /// A proxy that does not say whom it speaks for is not served.
    pub(super) fn record_no_header(&self, arrival: Arrival) {
        self.metrics.event(Event::BindingNotConfigured);
        if !arrival.binding.implicit_tls {
            self.metrics.reply(reply_code(Event::BindingNotConfigured));
        }
        self.record_no_proxy_header(&arrival.binding.name, arrival.peer.ip(), clock::now());
        let line: &[u8] = match arrival.binding.implicit_tls {
            true => b"",
            false => Event::BindingNotConfigured.wire(),
        };
        refuse_now(&arrival.stream.into_socket().into_descriptor(), line);
    }

    fn note_refusal(&self, binding: &Binding, client: IpAddr, event: Event) {
        self.metrics.event(event);
        if !binding.implicit_tls {
            self.metrics.reply(reply_code(event));
        }
        self.record_refusal(&binding.name, client, event, clock::now());
    }

    fn complain_once_a_minute(&self, what: &str, error: impl std::fmt::Display) {
        let now = clock::now();
        let minute = self.unix_millis(now) / 60_000;
        if self.complained.replace(minute) != minute {
            self.lines
                .borrow_mut()
                .line(self.wall(now), Level::Error, what)
                .display("error", error)
                .done();
        }
    }
}

/// The whole line that refuses a connection. Where TLS begins with the connection there is none: a handshake costs more than
/// a refusal may, and plaintext would be taken for a broken record.
fn refusal(settings: &Current, binding: &Binding, client: IpAddr, event: Event) -> Vec<u8> {
    match event {
        _ if binding.implicit_tls => Vec::new(),
        Event::IPAddressNotAllowedStatic | Event::IPAddressNotAllowedDynamic => {
            let mut line = Vec::new();
            oxsmtp::ip_address_not_allowed(&mut line, event, client, &settings.policy.access.block_text);
            line
        }
        event => event.wire().to_vec(),
    }
}

/// Sends one line into a fresh socket, whose buffer has room for it, and closes: the end travels in the same segment.
fn refuse_now(descriptor: &OwnedFd, line: &[u8]) {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
    let _ = rustix::net::send(descriptor, line, flags);
    let _ = rustix::net::shutdown(descriptor, rustix::net::Shutdown::Write);
}

fn reply_code(event: Event) -> u16 {
    event
        .text()
        .get(..3)
        .and_then(|code| code.parse().ok())
        .unwrap_or_default()
}

/// Accepts whoever is first in the queue; none where that one has gone. `AGAIN` where nobody waits.
fn accept(socket: &OwnedFd) -> Result<Option<(OwnedFd, SocketAddr)>, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match rustix::net::acceptfrom_with(socket, flags) {
        Ok((accepted, peer)) => Ok(peer.and_then(|peer| address(&peer)).map(|peer| (accepted, peer))),
        Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn address(peer: &SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(peer.clone()).ok()
}
