//! A client that speaks TLS by rustls, and certificates for the server.
//!
//! Promises: no wait longer than [`PATIENCE`].

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};

use crate::edge::{Edge, Home, PATIENCE};

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub enum Days {
    Past,
    Now,
    Future,
}

/// Certificate and key as PEM.
pub fn pair(name: &str, days: Days) -> (String, String) {
    let (from, until) = match days {
        Days::Past => (2001, 2002),
        Days::Now => (2001, 2101),
        Days::Future => (2100, 2101),
    };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Writes `cert.pem` and `key.pem`, each whole.
pub fn write_pair(home: &Home, name: &str, days: Days) {
    let (certificate, key) = pair(name, days);
    home.write("cert.pem", &certificate);
    home.write("key.pem", &key);
}

/// A client that believes anybody and remembers tickets.
pub fn config(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(64);
    config
}

/// Both versions.
pub fn any() -> Arc<ClientConfig> {
    Arc::new(config(rustls::ALL_VERSIONS))
}

/// A connection inside TLS.
pub struct Secure {
    pub tls: ClientConnection,
    pub socket: TcpStream,
    unread: Vec<u8>,
}

impl Secure {
    /// Greeting, EHLO, STARTTLS and the handshake. What is said inside TLS comes next.
    pub fn starttls(server: SocketAddr, config: &Arc<ClientConfig>) -> Secure {
        Secure::shake(ready(server), config, "mx.example.com").unwrap()
    }

    /// The same, and EHLO inside.
    pub fn hello(edge: &Edge) -> Secure {
        let mut client = Secure::starttls(edge.address(), &any());
        client.command("EHLO client.test", "250");
        client
    }

    /// The handshake on a connection where it is expected.
    pub fn shake(mut socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Secure> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(config.clone(), name).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Secure {
            tls,
            socket,
            unread: Vec::new(),
        })
    }

    /// Octets as they are, in records of the largest size.
    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        let mut stream = rustls::Stream::new(&mut self.tls, &mut self.socket);
        stream.write_all(octets.as_ref()).unwrap();
        stream.flush().unwrap();
    }

    /// The whole reply, lines joined by CRLF, without the last one; none when the server closes first.
    pub fn try_reply(&mut self) -> std::io::Result<Option<String>> {
        let mut end = 0;
        loop {
            while let Some(n) = self.unread[end..].windows(2).position(|two| two == b"\r\n") {
                let line = &self.unread[end..end + n];
                let last = line.get(3) != Some(&b'-');
                end += n + 2;
                if last {
                    let reply: Vec<u8> = self.unread.drain(..end).collect();
                    return Ok(Some(String::from_utf8_lossy(&reply[..end - 2]).into_owned()));
                }
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut octets = [0; 16 << 10];
        let n = rustls::Stream::new(&mut self.tls, &mut self.socket).read(&mut octets)?;
        self.unread.extend_from_slice(&octets[..n]);
        Ok(n)
    }

    #[track_caller]
    pub fn expect_reply(&mut self, expected: &str) -> String {
        let reply = self.try_reply().unwrap().expect("a reply before the end");
        assert!(reply.starts_with(expected), "{reply:?}, not {expected:?}");
        reply
    }

    /// A line whose reply begins with `expected`.
    #[track_caller]
    pub fn command(&mut self, line: &str, expected: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.expect_reply(expected)
    }

    /// One message by DATA that is accepted.
    #[track_caller]
    pub fn deliver(&mut self, content: &[u8]) {
        self.command("MAIL FROM:<a@client.test>", "250 2.1.0");
        self.command("RCPT TO:<b@x.test>", "250 2.1.5");
        self.command("DATA", "354");
        self.send([&crate::client::dotted(content), &b".\r\n"[..]].concat());
        self.expect_reply("250 2.6.0");
    }

    /// The server says that it is done, inside TLS, and nothing before that.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.fill().unwrap(), 0, "{:?}", self.unread.escape_ascii().to_string());
    }
}

/// A connection that has heard `220` to STARTTLS.
pub fn ready(server: SocketAddr) -> TcpStream {
    let mut client = crate::client::Client::connect(server).hello();
    client.command("STARTTLS", "220 2.0.0 SMTP server ready");
    let socket = client.stream().try_clone().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A connection to which nothing is said yet.
pub fn connect(server: SocketAddr) -> TcpStream {
    let client = crate::client::Client::connect(server);
    client.stream().try_clone().unwrap()
}

/// All that a server still sends, up to the end or a reset.
pub fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut octets = [0; 4096];
    while let Ok(n @ 1..) = socket.read(&mut octets) {
        all.extend_from_slice(&octets[..n]);
    }
    all
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
