//! A server for what the small one does not speak: TLS from the first octet, PROXY headers, AUTH whose proofs are verified, and
//! LMTP. A thread for each connection; keeps what it was told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

pub mod ntlm;

/// The only user.
pub const USER: &str = "me";
pub const DOMAIN: &str = "EDGE";
pub const PASSWORD: &str = "pässword";

/// How the server speaks.
#[derive(Clone, Copy, Default)]
pub struct Speech {
    /// TLS comes first.
    pub tls: bool,
    /// Octets of a header that are awaited before anything else.
    pub header: usize,
    /// Lines of EHLO beside those that are always there.
    pub extensions: &'static [&'static str],
    /// MAIL needs AUTH.
    pub auth: bool,
    /// LHLO, and a final reply for each recipient; that of this one (from 0) is a refusal.
    pub lmtp: Option<Option<usize>>,
}

/// What it was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub headers: Vec<Vec<u8>>,
    pub commands: Vec<String>,
    pub full_handshakes: usize,
    pub resumed_handshakes: usize,
    /// Mechanisms by which somebody proved to be the user.
    pub proven: Vec<String>,
    pub unproven: usize,
    pub messages: usize,
}

pub struct Edge {
    pub address: SocketAddr,
    told: Arc<Mutex<Told>>,
}

impl Edge {
    /// Listens until the test process ends.
    pub fn start(speech: Speech) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let (shared, tls) = (Arc::clone(&told), certificate());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, tls) = (Arc::clone(&shared), Arc::clone(&tls));
                std::thread::spawn(move || drop(receive(stream, speech, tls, &shared)));
            }
        });
        Self { address, told }
    }

    pub fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }
}

fn certificate() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key);
    Arc::new(config.unwrap())
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn receive(mut stream: TcpStream, speech: Speech, tls: Arc<ServerConfig>, told: &Mutex<Told>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if speech.header > 0 {
        let mut header = vec![0; speech.header];
        stream.read_exact(&mut header)?;
        told.lock().unwrap().headers.push(header);
    }
    let stream: Box<dyn Stream> = if speech.tls {
        let mut connection = ServerConnection::new(tls).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let mut told = told.lock().unwrap();
        match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => told.resumed_handshakes += 1,
            _ => told.full_handshakes += 1,
        }
        drop(told);
        Box::new(StreamOwned::new(connection, stream))
    } else {
        Box::new(stream)
    };
    let mut session = Session {
        stream: BufReader::new(stream),
        speech,
        told,
        proven: false,
        recipients: 0,
    };
    session.run()
}

struct Session<'a> {
    stream: BufReader<Box<dyn Stream>>,
    speech: Speech,
    told: &'a Mutex<Told>,
    proven: bool,
    recipients: usize,
}

impl Session<'_> {
    fn run(&mut self) -> std::io::Result<()> {
        self.say("220 edge ready")?;
        loop {
            let Some(line) = self.line()? else { return Ok(()) };
            self.told.lock().unwrap().commands.push(line.clone());
            let hello = if self.speech.lmtp.is_some() { "LHLO " } else { "EHLO " };
            if line.starts_with(hello) {
                let lines: String = self
                    .speech
                    .extensions
                    .iter()
                    .map(|name| format!("250-{name}\r\n"))
                    .collect();
                self.say(&format!("250-edge\r\n{lines}250-PIPELINING\r\n250 8BITMIME"))?;
            } else if let Some(asked) = line.strip_prefix("AUTH ") {
                self.authenticate(asked)?;
            } else if self.speech.auth && !self.proven && line.starts_with("MAIL") {
                self.say("530 5.7.0 who are you?")?;
            } else if line.starts_with("MAIL") {
                self.recipients = 0;
                self.say("250 2.1.0 ok")?;
            } else if line.starts_with("RCPT") {
                self.recipients += 1;
                self.say("250 2.1.5 ok")?;
            } else if line == "DATA" {
                self.say("354 go on")?;
                while self.line()?.is_some_and(|line| line != ".") {}
                self.take()?;
            } else if line == "QUIT" {
                return self.say("221 bye");
            } else {
                self.say("500 5.5.1 what?")?;
            }
        }
    }

    fn take(&mut self) -> std::io::Result<()> {
        self.told.lock().unwrap().messages += 1;
        let Some(refused) = self.speech.lmtp else {
            return self.say("250 2.0.0 taken");
        };
        for number in 0..self.recipients {
            match refused == Some(number) {
                true => self.say("452 4.2.2 this mailbox is full")?,
                false => self.say("250 2.0.0 taken")?,
            }
        }
        Ok(())
    }

    fn authenticate(&mut self, asked: &str) -> std::io::Result<()> {
        let (mechanism, initial) = asked.split_once(' ').unwrap_or((asked, ""));
        let good = match mechanism {
            "PLAIN" => decoded(initial) == format!("\0{USER}\0{PASSWORD}").into_bytes(),
            "LOGIN" => {
                let user = self.ask("334 VXNlcm5hbWU6")?;
                let password = self.ask("334 UGFzc3dvcmQ6")?;
                user == USER.as_bytes() && password == PASSWORD.as_bytes()
            }
            "NTLM" => {
                let negotiate = self.ask("334 NTLM supported")?;
                assert!(ntlm::is_negotiate(&negotiate), "{negotiate:?}");
                let challenge = STANDARD.encode(ntlm::challenge());
                let authenticate = self.ask(&format!("334 {challenge}"))?;
                ntlm::proves(&authenticate, USER, DOMAIN, PASSWORD)
            }
            _ => return self.say("504 5.5.4 no such mechanism"),
        };
        let mut told = self.told.lock().unwrap();
        if good {
            told.proven.push(mechanism.into());
        } else {
            told.unproven += 1;
        }
        drop(told);
        self.proven = good;
        self.say(if good { "235 2.7.0 welcome" } else { "535 5.7.8 no" })
    }

    fn ask(&mut self, challenge: &str) -> std::io::Result<Vec<u8>> {
        self.say(challenge)?;
        Ok(decoded(&self.line()?.unwrap_or_default()))
    }

    fn say(&mut self, reply: &str) -> std::io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
        stream.flush()
    }

    /// A line without its end; none when the client is gone.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line)?;
        Ok((count > 0).then(|| line.trim_end_matches("\r\n").to_owned()))
    }
}

fn decoded(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}
