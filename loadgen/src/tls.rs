//! TLS from the client's side: one configuration for a run, and a connection that turns octets into records and back.
//!
//! Promises: never blocks and knows no socket of its own (`transport` lends it one); plaintext that does not fit is
//! refused, not kept, so memory is bounded; a certificate is verified only if asked for, as the servers under load have
//! none that anybody signed. Lives on its executor.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Plaintext that may wait for the socket.
const WAITING_MAX: usize = 64 << 10;

/// How connections of a run speak TLS.
#[derive(Clone, Debug)]
pub struct Terms {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Terms {
    /// Terms for a server called `name`; its certificate is verified against `roots`, a PEM file, if there is one.
    pub fn new(name: &str, roots: Option<&Path>, resume: bool) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let mut config = match roots {
            Some(path) => builder.with_root_certificates(read_roots(path)?),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        }
        .with_no_client_auth();
        if !resume {
            config.resumption = Resumption::disabled();
        }
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| format!("--tls-name {name}: no name of a server"))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let said = |error: String| format!("--tls-verify {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| said(error.to_string()))? {
        let certificate = certificate.map_err(|error| said(error.to_string()))?;
        roots.add(certificate).map_err(|error| said(error.to_string()))?;
    }
    Ok(roots)
}

/// One connection's TLS.
#[derive(Debug)]
pub struct Tls {
    connection: Box<ClientConnection>,
}

impl Tls {
    /// Before the first record.
    pub fn new(terms: &Terms) -> Result<Self, String> {
        let connection = ClientConnection::new(Arc::clone(&terms.config), terms.name.clone());
        let mut connection = Box::new(connection.map_err(|error| format!("TLS: {error}"))?);
        connection.set_buffer_limit(Some(WAITING_MAX));
        Ok(Self { connection })
    }

    /// Whether the handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes plaintext, as much as there is room for, and writes what the socket takes of the records. `WouldBlock` when
    /// there is no room.
    pub fn send(&mut self, octets: &[u8], mut socket: impl Write) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let rest = octets.get(taken..).unwrap_or_default();
            let count = self.connection.writer().write(rest)?;
            taken += count;
            match self.flush(&mut socket) {
                Ok(()) if taken < octets.len() && count > 0 => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ if taken == 0 && !octets.is_empty() => return Err(io::ErrorKind::WouldBlock.into()),
                _ => return Ok(taken),
            }
        }
    }

    /// Writes records that wait. During the handshake plaintext waits too.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(socket)?;
        }
        Ok(())
    }

    /// Reads plaintext; 0 is the end. `WouldBlock` when there is none yet.
    pub fn receive(&mut self, buffer: &mut [u8], socket: &mut (impl Read + Write)) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Servers that close without close_notify are common, and the dialogue knows whether it was over.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.connection.read_tls(socket)? == 0 {
                return Ok(0);
            }
            let processed = self.connection.process_new_packets();
            // An alert, or the next flight of the handshake.
            match self.flush(socket) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            processed.map_err(io::Error::other)?;
        }
    }
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

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
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
