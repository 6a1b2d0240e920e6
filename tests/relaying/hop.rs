//! A next hop in the test process that does what a script says, and records what it is given.
//!
//! Promises: one address, kept while the hop is down; every message is recorded octet by octet, once its end has been seen;
//! nothing is left running when the [`Hop`] is dropped.

// Several test targets share this file and none uses all of it.
#![allow(dead_code)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::edge::PATIENCE;

/// What a hop has heard and is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A connection.
    Connection,
    /// EHLO or LHLO: the answer is the keywords.
    Hello,
    /// MAIL, with the whole line.
    Mail(&'a str),
    /// RCPT, with the path.
    Rcpt(&'a str),
    /// DATA.
    Data,
    /// So many octets of the content of DATA, and more to come.
    Content(usize),
    /// The end of the content. With LMTP once a recipient, who is named here.
    End(&'a str),
    /// RSET, QUIT, NOOP and what is unknown.
    Other(&'a str),
}

/// What it does.
#[derive(Clone, Debug)]
pub enum Act {
    /// What a hop that works would do.
    Usual,
    /// These octets and a CRLF.
    Say(String),
    /// Nothing until the other side has closed.
    Silent,
    /// Waits until [`Hop::release`], then as usual.
    Hold,
    /// As usual after a while.
    After(Duration),
    /// Closes.
    Close,
    /// Resets the connection.
    Reset,
    /// Says so, and resets the connection when it was read.
    SayAndReset(String),
}

/// A reply.
pub fn say(reply: &str) -> Act {
    Act::Say(reply.to_owned())
}

/// A message that the hop has read to its end.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The number of its connection, from 1.
    pub connection: usize,
    /// The whole MAIL line.
    pub mail: String,
    /// The paths of RCPT that were accepted, as they came.
    pub recipients: Vec<String>,
    /// Undotted.
    pub content: Vec<u8>,
    /// DATA or BDAT.
    pub verb: &'static str,
    /// It came inside TLS.
    pub tls: bool,
    /// The hop has said 250, to one recipient at least.
    pub accepted: bool,
}

type Script = dyn Fn(Heard<'_>) -> Act + Send + Sync;

/// How the hop is.
pub struct Plan {
    keywords: Vec<String>,
    script: Arc<Script>,
    tls: Option<Arc<ServerConfig>>,
    lmtp: bool,
    address: &'static str,
}

impl Plan {
    /// Everything is offered but STARTTLS, everything is taken.
    pub fn new() -> Plan {
        let all = [
            "PIPELINING",
            "8BITMIME",
            "SIZE 0",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "BINARYMIME",
            "SMTPUTF8",
            "DSN",
        ];
        Plan {
            keywords: all.map(str::to_owned).to_vec(),
            script: Arc::new(|_| Act::Usual),
            tls: None,
            lmtp: false,
            address: "127.0.0.1:0",
        }
    }

    /// Without these.
    pub fn lacks(mut self, keywords: &[&str]) -> Plan {
        self.keywords.retain(|keyword| !keywords.contains(&&**keyword));
        self
    }

    /// These as well, whether it can do them or not.
    pub fn offers(mut self, keywords: &[&str]) -> Plan {
        self.keywords
            .extend(keywords.iter().map(|keyword| (*keyword).to_owned()));
        self
    }

    /// What it does otherwise than usual.
    pub fn script(mut self, script: impl Fn(Heard<'_>) -> Act + Send + Sync + 'static) -> Plan {
        self.script = Arc::new(script);
        self
    }

    /// Offers STARTTLS.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Plan {
        self.keywords.push("STARTTLS".to_owned());
        self.tls = Some(config);
        self
    }

    /// Speaks LMTP.
    pub fn lmtp(mut self) -> Plan {
        self.lmtp = true;
        self
    }

    /// Listens elsewhere than on 127.0.0.1.
    pub fn on(mut self, address: &'static str) -> Plan {
        self.address = address;
        self
    }

    /// A hop that listens.
    pub fn up(self) -> Hop {
        let mut hop = self.down();
        hop.come_up();
        hop
    }

    /// A hop whose address refuses connections until it comes up.
    pub fn down(self) -> Hop {
        let address: SocketAddr = self.address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Hop {
            address,
            socket: Some(socket),
            shared: Arc::new(Shared {
                plan: self,
                state: Mutex::default(),
                changed: Condvar::new(),
                stopping: AtomicBool::new(false),
                connections: AtomicUsize::new(0),
            }),
            acceptor: None,
        }
    }
}

/// The hop, until it is dropped.
pub struct Hop {
    address: SocketAddr,
    socket: Option<Socket>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    plan: Plan,
    state: Mutex<State>,
    changed: Condvar,
    stopping: AtomicBool,
    connections: AtomicUsize,
}

#[derive(Default)]
struct State {
    taken: Vec<Taken>,
    commands: Vec<String>,
    open: Vec<TcpStream>,
    released: bool,
}

impl Hop {
    /// One that takes everything.
    pub fn up() -> Hop {
        Plan::new().up()
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a target of a route.
    pub fn target(&self) -> String {
        let scheme = if self.shared.plan.lmtp { "lmtp" } else { "smtp" };
        format!("{scheme}://{}", self.address)
    }

    /// Starts to listen.
    pub fn come_up(&mut self) {
        let socket = self.socket.take().expect("it was down");
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        let shared = self.shared.clone();
        self.acceptor = Some(std::thread::spawn(move || shared.accept(&listener)));
    }

    /// What was held goes on.
    pub fn release(&self) {
        self.shared.state.lock().unwrap().released = true;
        self.shared.changed.notify_all();
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Every command so far, whole lines.
    pub fn commands(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().commands.clone()
    }

    /// Every message so far, also those that it has refused.
    pub fn seen(&self) -> Vec<Taken> {
        self.shared.state.lock().unwrap().taken.clone()
    }

    /// The messages that it has said 250 to.
    pub fn taken(&self) -> Vec<Taken> {
        let mut taken = self.seen();
        taken.retain(|message| message.accepted);
        taken
    }

    /// Waits for so many messages to be accepted.
    #[track_caller]
    pub fn wait_for(&self, number: usize) -> Vec<Taken> {
        let enough = |state: &State| state.taken.iter().filter(|t| t.accepted).count() >= number;
        assert!(self.wait(enough), "not {number} messages: {:?}", self.commands());
        self.taken()
    }

    /// Waits until a command begins so.
    #[track_caller]
    pub fn wait_for_command(&self, start: &str) {
        let heard = |state: &State| state.commands.iter().any(|line| line.starts_with(start));
        assert!(self.wait(heard), "no {start}: {:?}", self.commands());
    }

    /// Waits until it has read so many messages to their end.
    #[track_caller]
    pub fn wait_for_end(&self, number: usize) {
        let enough = |state: &State| state.taken.len() >= number;
        assert!(self.wait(enough), "not {number} messages: {:?}", self.commands());
    }

    fn wait(&self, is_so: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        while !is_so(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        self.release();
        for stream in &self.shared.state.lock().unwrap().open {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(acceptor) = self.acceptor.take() {
            // Wakes it.
            drop(TcpStream::connect(self.address));
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.stopping.load(SeqCst) {
                return;
            }
            stream.set_nodelay(true).unwrap();
            let number = self.connections.fetch_add(1, SeqCst) + 1;
            self.state.lock().unwrap().open.push(stream.try_clone().unwrap());
            let shared = self.clone();
            std::thread::spawn(move || {
                let socket = stream.try_clone().unwrap();
                let mut line = Line {
                    shared: &shared,
                    number,
                    wire: BufReader::new(Box::new(stream)),
                    socket: &socket,
                    tls: false,
                };
                // Errors are the edge's going away.
                let _ = line.serve();
                let _ = socket.shutdown(Shutdown::Both);
            });
        }
    }

    /// Until [`Hop::release`].
    fn hold(&self) {
        let mut state = self.state.lock().unwrap();
        while !state.released {
            state = self.changed.wait(state).unwrap();
        }
    }
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// One connection.
struct Line<'a> {
    shared: &'a Shared,
    number: usize,
    wire: BufReader<Box<dyn Wire>>,
    socket: &'a TcpStream,
    tls: bool,
}

/// The connection is over.
fn over() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// A transaction.
#[derive(Default)]
struct Transaction {
    mail: Option<String>,
    recipients: Vec<String>,
    content: Vec<u8>,
}

impl Line<'_> {
    fn serve(&mut self) -> io::Result<()> {
        self.act(Heard::Connection, "220 hop.test ESMTP")?;
        let mut transaction = Transaction::default();
        while let Some(line) = self.line()? {
            self.note(&line);
            let upper = line.to_ascii_uppercase();
            let verb = upper.split(' ').next().unwrap_or_default();
            match verb {
                "EHLO" | "LHLO" if (verb == "LHLO") == self.shared.plan.lmtp => self.hello()?,
                "MAIL" => {
                    if self.act(Heard::Mail(&line), "250 2.1.0 ok")? {
                        transaction = Transaction::default();
                        transaction.mail = Some(line);
                    }
                }
                "RCPT" => {
                    let path = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    let reply = if transaction.mail.is_some() {
                        "250 2.1.5 ok"
                    } else {
                        "503 5.5.1 MAIL first"
                    };
                    if self.act(Heard::Rcpt(&path), reply)? && transaction.mail.is_some() {
                        transaction.recipients.push(path);
                    }
                }
                "DATA" if transaction.recipients.is_empty() => self.say("503 5.5.1 no recipient")?,
                "DATA" => {
                    if self.act(Heard::Data, "354 go on")? {
                        self.content(&mut transaction.content)?;
                        self.end(std::mem::take(&mut transaction), "DATA")?;
                    }
                }
                "BDAT" => {
                    let mut words = line.split(' ').skip(1);
                    let size = words
                        .next()
                        .and_then(|word| word.parse::<usize>().ok())
                        .ok_or_else(over)?;
                    let last = words.next().is_some();
                    let start = transaction.content.len();
                    transaction.content.resize(start + size, 0);
                    self.wire.read_exact(&mut transaction.content[start..])?;
                    if transaction.recipients.is_empty() {
                        self.say("503 5.5.1 no recipient")?;
                    } else if last {
                        self.end(std::mem::take(&mut transaction), "BDAT")?;
                    } else {
                        self.say("250 2.0.0 more")?;
                    }
                }
                "STARTTLS" if self.shared.plan.tls.is_some() => {
                    self.starttls()?;
                    transaction = Transaction::default();
                }
                "QUIT" => {
                    self.act(Heard::Other(&line), "221 2.0.0 bye")?;
                    return Ok(());
                }
                "RSET" => {
                    transaction = Transaction::default();
                    self.act(Heard::Other(&line), "250 2.0.0 ok")?;
                }
                _ => drop(self.act(Heard::Other(&line), "500 5.5.1 unknown")?),
            }
        }
        Ok(())
    }

    fn starttls(&mut self) -> io::Result<()> {
        if !self.act(Heard::Other("STARTTLS"), "220 2.0.0 go on")? {
            return Ok(());
        }
        let config = self.shared.plan.tls.clone().expect("it was offered");
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        let stream = StreamOwned::new(session, self.socket.try_clone()?);
        self.wire = BufReader::new(Box::new(stream));
        self.tls = true;
        Ok(())
    }

    fn hello(&mut self) -> io::Result<()> {
        let mut reply = String::from("250-hop.test hello");
        let keywords = &self.shared.plan.keywords;
        for keyword in keywords.iter().filter(|keyword| !(self.tls && *keyword == "STARTTLS")) {
            reply.push_str("\r\n250-");
            reply.push_str(keyword);
        }
        reply.push_str("\r\n250 HELP");
        self.act(Heard::Hello, &reply).map(drop)
    }

    /// The content of DATA, undotted, without the end mark.
    fn content(&mut self, content: &mut Vec<u8>) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.wire.read_until(b'\n', &mut line)? == 0 {
                return Err(over());
            }
            // Only CRLF ends a line (RFC 5321 section 2.3.8).
            let begins = content.is_empty() || content.ends_with(b"\r\n");
            if begins && line == b".\r\n" {
                return Ok(());
            }
            let undotted = if begins {
                line.strip_prefix(b".").unwrap_or(&line)
            } else {
                &line
            };
            content.extend_from_slice(undotted);
            match (self.shared.plan.script)(Heard::Content(content.len())) {
                Act::Usual => {}
                act => drop(self.perform(act, "")?),
            }
        }
    }

    /// The end of a message and the reply, or the replies.
    fn end(&mut self, transaction: Transaction, verb: &'static str) -> io::Result<()> {
        let recipients = transaction.recipients.clone();
        let index = {
            let mut state = self.shared.state.lock().unwrap();
            state.taken.push(Taken {
                connection: self.number,
                mail: transaction.mail.unwrap_or_default(),
                recipients: transaction.recipients,
                content: transaction.content,
                verb,
                tls: self.tls,
                accepted: false,
            });
            state.taken.len() - 1
        };
        self.shared.changed.notify_all();
        let named = if self.shared.plan.lmtp {
            &recipients[..]
        } else {
            &recipients[..1]
        };
        for recipient in named {
            if self.act(Heard::End(recipient), "250 2.0.0 taken")? {
                self.shared.state.lock().unwrap().taken[index].accepted = true;
                self.shared.changed.notify_all();
            }
        }
        Ok(())
    }

    /// What the script wants. True where the answer was 2xx or 3xx.
    fn act(&mut self, heard: Heard<'_>, usual: &str) -> io::Result<bool> {
        let act = (self.shared.plan.script)(heard);
        self.perform(act, usual)
    }

    fn perform(&mut self, act: Act, usual: &str) -> io::Result<bool> {
        let said = match act {
            Act::Usual => usual.to_owned(),
            Act::Say(text) => text,
            Act::After(span) => {
                std::thread::sleep(span);
                usual.to_owned()
            }
            Act::Hold => {
                self.shared.hold();
                usual.to_owned()
            }
            Act::Silent => {
                io::copy(&mut self.wire, &mut io::sink())?;
                return Err(over());
            }
            Act::Close => return Err(over()),
            Act::Reset => return Err(self.reset()),
            Act::SayAndReset(text) => {
                self.say(&text)?;
                return Err(self.reset());
            }
        };
        if !said.is_empty() {
            self.say(&said)?;
        }
        Ok(said.starts_with(['2', '3']))
    }

    /// Resets the connection at once, however many descriptors it has.
    fn reset(&mut self) -> io::Error {
        let _ = rustix::net::connect_unspec(self.socket);
        over()
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let wire = self.wire.get_mut();
        wire.write_all(format!("{text}\r\n").as_bytes())?;
        wire.flush()
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.wire.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    fn note(&self, line: &str) {
        self.shared.state.lock().unwrap().commands.push(line.to_owned());
        self.shared.changed.notify_all();
    }
}
