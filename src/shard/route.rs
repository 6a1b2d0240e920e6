//! Where the routes of the configuration lead.
//!
//! Promises: plain data, made at start and at a reload. Shared by all shards.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::maildir::Template;
use crate::smtp::client::Terms;

/// One `[[next_hop]]`.
#[derive(Debug)]
pub struct Route {
    /// In the order in which they are tried; at least one.
    pub targets: Vec<Target>,
    /// Connections to one address of it, per shard.
    pub max_connections: usize,
    /// How TLS towards it begins.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name that its servers have to prove and hear as SNI, where it is not that of the host.
    pub proves: Option<rustls::pki_types::ServerName<'static>>,
}

/// One URL of its `to`.
#[derive(Debug)]
pub enum Target {
    /// Into one Maildir, or one for each recipient.
    Maildir(Template),
    /// Nowhere.
    Discard,
    /// Another server.
    Server {
        /// Where it is.
        host: Host,
        /// Its port.
        port: u16,
        /// How to speak to it.
        terms: Arc<Terms>,
    },
    /// A server on this host, by the path of its socket.
    Local {
        /// The path.
        path: PathBuf,
        /// How to speak to it.
        terms: Arc<Terms>,
    },
    /// The servers of the recipient's own domain (RFC 5321 section 5.1).
    Exchangers {
        /// How to speak to them.
        terms: Arc<Terms>,
    },
}

/// What can be tried for a group of recipients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A server, by its address.
    Inet(SocketAddr),
    /// A server on this host, by the path of its socket.
    Local(PathBuf),
    /// The Maildir that is this target of the route.
    Files(usize),
    /// The place where mail is thrown away.
    Nowhere,
}

impl Place {
    /// The server at an address.
    pub fn inet(address: IpAddr, port: u16) -> Place {
        Place::Inet(SocketAddr::new(address, port))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Inet(address) => address.fmt(f),
            Place::Local(path) => path.display().fmt(f),
            Place::Files(_) => f.write_str("maildir"),
            Place::Nowhere => f.write_str("discard"),
        }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// At an address.
    Address(IpAddr),
    /// At the addresses of a name, in lower-case A-labels.
    Name(Arc<str>),
}

impl Route {
    /// Whether it leads to files or to nothing, and nowhere else: such mail is in custody when it is written.
    pub fn is_local(&self) -> bool {
        matches!(self.targets.as_slice(), [Target::Maildir(_) | Target::Discard])
    }

    /// Whether recipients of different domains are different deliveries.
    pub fn is_by_domain(&self) -> bool {
        self.targets
            .iter()
            .any(|target| matches!(target, Target::Exchangers { .. }))
    }
}
