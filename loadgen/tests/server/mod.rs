//! A small SMTP server for the tests: a thread for each connection, keeps everything that it was sent. Not every
//! test uses all of it.

#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the server answers.
#[derive(Clone, Copy)]
pub struct Behaviour {
    pub greeting: &'static str,
    pub extensions: &'static str,
    pub rcpt: &'static str,
    pub octet_by_octet: bool,
    pub hang_up_at_end: bool,
    /// Once so many messages have come, the whole server does nothing for a time.
    pub stall: Option<(usize, Duration)>,
    /// A PROXY header (version 1) is awaited before the greeting.
    pub proxy: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            greeting: "220 test\r\n",
            extensions: "250-PIPELINING\r\n250-CHUNKING\r\n",
            rcpt: "250 2.1.5 ok\r\n",
            octet_by_octet: false,
            hang_up_at_end: false,
            stall: None,
            proxy: false,
        }
    }
}

#[derive(Default)]
struct Seen {
    messages: Vec<String>,
    commands: Vec<String>,
    peers: BTreeSet<IpAddr>,
    connections: usize,
    /// Commands that had come before the one before them was answered.
    glued: usize,
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    /// Listens until the test process ends.
    pub fn start(behaviour: Behaviour) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), behaviour)
    }

    /// Likewise, where there is a listener already.
    pub fn on(listener: TcpListener, behaviour: Behaviour) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(serve(stream, behaviour, &shared)));
            }
        });
        Self { address, seen }
    }

    pub fn messages(&self) -> Vec<String> {
        self.seen.lock().unwrap().messages.clone()
    }

    pub fn commands(&self) -> Vec<String> {
        self.seen.lock().unwrap().commands.clone()
    }

    pub fn peers(&self) -> BTreeSet<IpAddr> {
        self.seen.lock().unwrap().peers.clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    pub fn glued(&self) -> usize {
        self.seen.lock().unwrap().glued
    }
}

fn serve(stream: TcpStream, behaviour: Behaviour, seen: &Mutex<Seen>) -> std::io::Result<()> {
    {
        let mut seen = seen.lock().unwrap();
        seen.connections += 1;
        seen.peers.insert(stream.peer_addr()?.ip());
    }
    stream.set_nodelay(true)?;
    let say = |reply: &str| -> std::io::Result<()> {
        let size = if behaviour.octet_by_octet { 1 } else { reply.len() };
        reply
            .as_bytes()
            .chunks(size)
            .try_for_each(|piece| (&stream).write_all(piece))
    };
    let mut input = BufReader::with_capacity(1 << 20, &stream);
    if behaviour.proxy {
        let mut line = String::new();
        input.read_line(&mut line)?;
        seen.lock().unwrap().commands.push(line);
    }
    say(behaviour.greeting)?;
    loop {
        let glued = usize::from(!input.buffer().is_empty());
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        {
            let mut seen = seen.lock().unwrap();
            seen.commands.push(line.clone());
            seen.glued += glued;
        }
        let verb = line.get(..4).unwrap_or_default();
        match verb {
            "EHLO" => say(&format!("250-test\r\n{}250 8BITMIME\r\n", behaviour.extensions))?,
            "RCPT" => say(behaviour.rcpt)?,
            "QUIT" => return say("221 bye\r\n"),
            "DATA" => {
                say("354 go\r\n")?;
                let Some(content) = content(&mut input)? else {
                    return Ok(());
                };
                if behaviour.hang_up_at_end {
                    return Ok(());
                }
                take(seen, content, behaviour, &say)?;
            }
            "BDAT" => {
                let size = line.split_whitespace().nth(1).unwrap().parse().unwrap();
                let mut content = vec![0; size];
                input.read_exact(&mut content)?;
                take(seen, String::from_utf8(content).unwrap(), behaviour, &say)?;
            }
            _ => say("250 ok\r\n")?,
        }
    }
}

/// The content up to the lone dot; nothing when the client went away.
fn content(input: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut content = String::new();
    loop {
        let before = content.len();
        if input.read_line(&mut content)? == 0 {
            return Ok(None);
        }
        if content.get(before..) == Some(".\r\n") {
            content.truncate(before);
            return Ok(Some(content));
        }
    }
}

fn take(
    seen: &Mutex<Seen>,
    content: String,
    behaviour: Behaviour,
    say: &impl Fn(&str) -> std::io::Result<()>,
) -> std::io::Result<()> {
    if content.is_empty() || behaviour.rcpt.starts_with('5') {
        return say("554 5.5.1 no valid recipients\r\n");
    }
    let mut seen = seen.lock().unwrap();
    seen.messages.push(content);
    if let Some((_, time)) = behaviour.stall.filter(|(after, _)| *after == seen.messages.len()) {
        // With the lock, so that no other connection goes on.
        std::thread::sleep(time);
    }
    drop(seen);
    say("250 2.0.0 taken\r\n")
}
