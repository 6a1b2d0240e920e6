//! The cheapest server that `loadgen` can talk to: answers by the first letter of each line and checks nothing.
//!
//! It exists to find the generator's own ceiling, as a server that is slower than the generator hides it. It takes the
//! content to end with the first segment that has CRLF.CRLF in it, which is true of this client only. One thread, epoll.
//! Usage: `blind_sink [IP:PORT]`; loopback only; ends with SIGTERM.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

struct Client {
    stream: TcpStream,
    in_content: bool,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2601".into());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    if !address.ip().is_loopback() {
        return Err(io::Error::other("loopback only"));
    }
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking(),
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    let mut listener = TcpListener::from_std(socket.into());
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; 65_536];
    let mut replies = Vec::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut clients, &mut free)?;
                continue;
            }
            let index = event.token().0;
            let Some(place) = clients.get_mut(index) else { continue };
            let Some(client) = place else { continue };
            if !serve(client, &mut buffer, &mut replies) {
                *place = None;
                free.push(index);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    clients: &mut Vec<Option<Client>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let index = free.pop().unwrap_or(clients.len());
        if stream.write(b"220 blind\r\n").is_err() {
            free.push(index);
            continue;
        }
        poll.registry()
            .register(&mut stream, Token(index), Interest::READABLE)?;
        if index == clients.len() {
            clients.push(None);
        }
        clients[index] = Some(Client {
            stream,
            in_content: false,
        });
    }
}

/// Whether the connection goes on.
fn serve(client: &mut Client, buffer: &mut [u8], replies: &mut Vec<u8>) -> bool {
    loop {
        let count = match client.stream.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        let mut input = &buffer[..count];
        replies.clear();
        let mut goes_on = true;
        if client.in_content {
            let end = memchr::memmem::find(input, b"\r\n.\r\n");
            client.in_content = end.is_none();
            if end.is_some() {
                replies.extend_from_slice(b"250 2.0.0 taken\r\n");
            }
            input = end.and_then(|end| input.get(end + 5..)).unwrap_or_default();
        }
        if !client.in_content {
            for line in input.split_inclusive(|octet| *octet == b'\n') {
                let reply: &[u8] = match line.first() {
                    Some(b'E') => b"250-blind\r\n250 PIPELINING\r\n",
                    Some(b'D') => b"354 go\r\n",
                    Some(b'Q') => b"221 bye\r\n",
                    _ => b"250 ok\r\n",
                };
                client.in_content |= line.starts_with(b"D");
                goes_on &= !line.starts_with(b"Q");
                replies.extend_from_slice(reply);
            }
        }
        if !replies.is_empty() && client.stream.write(replies).is_err() {
            return false;
        }
        if !goes_on || count < buffer.len() {
            return goes_on;
        }
    }
}
