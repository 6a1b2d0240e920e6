//! A small SMTP client that blocks: it sends what it is told, also what no client should send, and reads whole replies.
//!
//! Promises: no read or connect waits longer than [`PATIENCE`]; a test fails with what was said so far.

// Several test targets share this file and none uses all of it.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::edge::PATIENCE;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Read and not yet asked for.
    unread: Vec<u8>,
    /// Everything that the server has said.
    heard: Vec<u8>,
}

impl Client {
    /// Connects from the address that the system chooses.
    pub fn connect(server: SocketAddr) -> Client {
        Client::try_connect(None, server).unwrap()
    }

    /// Connects from an address of this host, such as `127.0.0.7`.
    pub fn connect_from(source: &str, server: SocketAddr) -> Client {
        Client::try_connect(Some(source.parse().unwrap()), server).unwrap()
    }

    /// Connects, or tells why not.
    pub fn try_connect(source: Option<IpAddr>, server: SocketAddr) -> std::io::Result<Client> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&server.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream,
            unread: Vec::new(),
            heard: Vec::new(),
        })
    }

    /// Reads the greeting and says EHLO.
    pub fn hello(mut self) -> Client {
        self.expect_reply("220 ");
        self.command("EHLO client.test", "250");
        self
    }

    /// Octets as they are.
    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.try_send(octets).unwrap();
    }

    /// Octets as they are, to a server that may have closed.
    pub fn try_send(&mut self, octets: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(octets.as_ref())
    }

    /// Octets one at a time, each in a segment of its own.
    pub fn send_octet_by_octet(&mut self, octets: impl AsRef<[u8]>) {
        for octet in octets.as_ref() {
            self.send([*octet]);
            std::thread::yield_now();
        }
    }

    /// A line with CRLF, and the whole reply to it, without its last CRLF.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// A line whose reply begins with `expected`.
    #[track_caller]
    pub fn command(&mut self, line: &str, expected: &str) -> String {
        let reply = self.ask(line);
        assert!(reply.starts_with(expected), "{line:?}: {reply:?}, not {expected:?}");
        reply
    }

    /// The next reply begins with `expected`.
    #[track_caller]
    pub fn expect_reply(&mut self, expected: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(expected), "{reply:?}, not {expected:?}");
        reply
    }

    /// The next whole reply, all its lines joined by CRLF, without the last one.
    #[track_caller]
    pub fn reply(&mut self) -> String {
        match self.try_reply() {
            Ok(Some(reply)) => reply,
            Ok(None) => panic!("closed where a reply was expected, after {:?}", self.transcript()),
            Err(error) => panic!("{error} where a reply was expected, after {:?}", self.transcript()),
        }
    }

    /// The next whole reply; none when the server closes first.
    pub fn try_reply(&mut self) -> std::io::Result<Option<String>> {
        let mut reply = Vec::new();
        loop {
            let Some(line) = self.line()? else {
                return Ok(None);
            };
            let last = line.get(3) != Some(&b'-');
            reply.extend_from_slice(&line);
            if last {
                return Ok(Some(String::from_utf8_lossy(&reply).into_owned()));
            }
            reply.extend_from_slice(b"\r\n");
        }
    }

    /// A line, without its CRLF.
    fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let mut line: Vec<u8> = self.unread.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut octets = [0; 16 << 10];
        let n = self.stream.read(&mut octets)?;
        self.unread.extend_from_slice(&octets[..n]);
        self.heard.extend_from_slice(&octets[..n]);
        Ok(n)
    }

    /// Whether the server says nothing for so long. Only to show that something does not come early.
    pub fn is_silent_for(&mut self, span: Duration) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(span)).unwrap();
        let result = self.fill();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(result, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// All that the server still says until it closes.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        loop {
            match self.fill() {
                Ok(0) => return String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned(),
                Ok(_) => {}
                Err(error) => panic!("{error} where the end was expected, after {:?}", self.transcript()),
            }
        }
    }

    /// The server closes and says nothing more.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "said {rest:?} before it closed");
    }

    /// The server ends the connection, with a reset or without one, whatever it still says.
    pub fn wait_for_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.fill().is_ok_and(|n| n > 0) {
            assert!(Instant::now() < deadline, "it goes on: {:?}", self.transcript());
        }
    }

    /// MAIL and RCPT, each answered with 250.
    #[track_caller]
    pub fn envelope(&mut self, from: &str, to: &[&str]) {
        self.command(&format!("MAIL FROM:<{from}>"), "250 2.1.0 ");
        for to in to {
            self.command(&format!("RCPT TO:<{to}>"), "250 2.1.5 ");
        }
    }

    /// One message by DATA; `content` is dotted here and ended. The final reply.
    #[track_caller]
    pub fn deliver(&mut self, from: &str, to: &[&str], content: impl AsRef<[u8]>) -> String {
        self.envelope(from, to);
        self.data(content)
    }

    /// DATA, the content (dotted here), its end, and the final reply.
    #[track_caller]
    pub fn data(&mut self, content: impl AsRef<[u8]>) -> String {
        self.command("DATA", "354 ");
        let mut octets = dotted(content.as_ref());
        octets.extend_from_slice(b".\r\n");
        self.send(octets);
        self.reply()
    }

    /// One message that is accepted: its queue id.
    #[track_caller]
    pub fn accepted(&mut self, from: &str, to: &[&str], content: impl AsRef<[u8]>) -> String {
        let reply = self.deliver(from, to, content);
        queue_id(&reply)
    }

    /// No more octets from this side.
    pub fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The socket, for what else there is to do with it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// This side's address.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// All that the server has said so far.
    pub fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }
}

/// The queue id in `250 2.6.0 <queue id> Queued mail for delivery`.
#[track_caller]
pub fn queue_id(reply: &str) -> String {
    reply
        .strip_prefix("250 2.6.0 <")
        .and_then(|rest| rest.strip_suffix("> Queued mail for delivery"))
        .unwrap_or_else(|| panic!("not accepted: {reply:?}"))
        .to_owned()
}

/// Content as DATA transfers it: a dot more in front of each line that begins with one. Ends with CRLF.
pub fn dotted(content: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(content.len() + 64);
    let mut line_begins = true;
    for &octet in content {
        if line_begins && octet == b'.' {
            octets.push(b'.');
        }
        octets.push(octet);
        line_begins = octet == b'\n';
    }
    if !line_begins {
        octets.extend_from_slice(b"\r\n");
    }
    octets
}
