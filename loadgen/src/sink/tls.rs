//! TLS at the sink: rustls between the socket and the session, with a certificate made for this run.
//!
//! Promises: non-blocking; what the socket does not take is kept and written first the next time. One value a connection.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::socket::Stream;

/// A configuration with a certificate that nobody trusts, for these names.
pub fn self_made(names: Vec<String>) -> Result<Arc<ServerConfig>, String> {
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| format!("certificate: {error}"))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|error| format!("certificate: {error}"))?;
    Ok(Arc::new(config))
}

/// The TLS of one connection.
#[derive(Debug)]
pub struct Tls {
    connection: ServerConnection,
    /// Whether the outcome of the handshake has been told.
    told: bool,
    failed: bool,
}

impl Tls {
    /// Before the handshake.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: ServerConnection::new(config)?,
            told: false,
            failed: false,
        })
    }

    /// Whether the handshake has come to an end since the last call, and whether well.
    pub fn take_news(&mut self) -> Option<bool> {
        let over = self.failed || !self.connection.is_handshaking();
        if self.told || !over {
            return None;
        }
        self.told = true;
        Some(!self.failed)
    }

    /// Reads plain octets; takes the handshake along.
    pub fn read(&mut self, stream: &mut Stream, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.flush(stream)?;
            if self.connection.read_tls(stream)? == 0 {
                return Ok(0);
            }
            if let Err(error) = self.connection.process_new_packets() {
                self.failed = true;
                // The alert says why.
                let _ = self.flush(stream);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    /// Writes plain octets. What the socket does not take stays in rustls; replies are small, and a client that does not
    /// read them gets no more.
    pub fn write(&mut self, stream: &mut Stream, octets: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(octets)?;
        self.flush(stream)
    }

    /// Writes what is to be written, as far as the socket takes it.
    pub fn flush(&mut self, stream: &mut Stream) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that nothing more will come.
    pub fn close(&mut self, stream: &mut Stream) {
        self.connection.send_close_notify();
        // A client that is gone does not mind.
        let _ = self.flush(stream);
    }
}
