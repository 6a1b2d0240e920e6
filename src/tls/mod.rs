//! What TLS is set up with: the certificates that are shown, the tickets that are given, the peers that are believed.
//!
//! Promises: one [`Server`] for the whole process, so a ticket of one shard is good on every other; what it shows is
//! replaced as a whole, between two handshakes; a certificate that cannot be used gives a sentence with its file and what to
//! do. Reads files, so it is called on the main thread; what comes out is shared by all.

mod identity;
mod self_signed;
mod trust;
mod validity;

pub use identity::Identity;
pub use self_signed::{Kept, SelfSigned};
pub use trust::{Trust, client, roots_of, system_roots};

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Tickets after a TLS 1.3 handshake: a client that comes again gets a new one then.
const TICKETS: usize = 1;
/// What we speak, for clients that say what they want (RFC 7301): others would take our replies for something else.
const PROTOCOLS: [&[u8]; 2] = [b"smtp", b"esmtp"];

/// The algorithms, chosen here and not by whatever else is linked into the process.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}

/// The receiving side: TLS 1.2 and 1.3, no client certificates, no early data, stateless tickets (RFC 5077, RFC 8446
/// section 4.6.1) whose keys live in this process and change every six hours.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

impl Server {
    /// Shows `identities`, of which the first is for clients that name none of them.
    ///
    /// # Errors
    ///
    /// Where the system gives no random numbers.
    pub fn new(identities: Vec<Identity>) -> Result<Server, String> {
        let cannot = |error: rustls::Error| format!("cannot set up TLS: {error}");
        let shown = Arc::new(Shown(ArcSwap::from_pointee(identities)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(cannot)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(cannot)?;
        config.send_tls13_tickets = TICKETS;
        let config = Arc::new(config);
        Ok(Server { config, shown })
    }

    /// For connections.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Shows other certificates from the next handshake on; tickets stay good.
    pub fn show(&self, identities: Vec<Identity>) {
        self.shown.0.store(Arc::new(identities));
    }
}

/// The certificates on show, the default first.
#[derive(Debug)]
struct Shown(ArcSwap<Vec<Identity>>);

impl ResolvesServerCert for Shown {
    /// A name that we have no certificate for gets the default one: most senders do not verify, and those that do will
    /// say themselves what they think of it.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let all = self.0.load();
        let named = hello
            .server_name()
            .filter(|_| all.len() > 1)
            .and_then(|name| all.iter().find(|identity| identity.covers(name)));
        named.or(all.first()).map(Identity::certified_key)
    }
}
