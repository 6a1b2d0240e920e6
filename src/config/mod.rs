//! The configuration: what the operator's TOML means, valid by construction.
//!
//! Promises: whoever holds a [`Config`] need not check it again: every value is in range, every default is filled in,
//! names are A-labels, nothing contradicts. No file that the configuration names is opened here. An invalid file gives a
//! [`ConfigError`] that shows each mistake in its place. Plain data; read on the main thread at start, on the control
//! thread at a reload.
//!
//! The way of a file: `table` walks the TOML and collects problems, `file` and `binding` say which keys there are and
//! what they mean, `value` and `destination` read single values, `advice` holds the warnings and what `serve` cannot do yet,
//! `effective` prints it all again.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::smtp::limits::{Limits, Value};
use crate::smtp::{Edition, Role};

mod advice;
mod binding;
mod destination;
mod effective;
mod error;
mod file;
mod table;
mod value;

pub use crate::policy::network::Network;
pub use crate::smtp::BareNewline;
pub use crate::smtp::sasl::Mechanism;
pub use error::{ConfigError, Problem};

/// What runs without `--config`: only the loopback interface listens, so any domain may be taken.
const EMBEDDED: &str = r#"
[[binding]]
name = "mx"
address = ["127.0.0.1:2525"]

[domains]
accepted = ["*"]

[tls]
self_signed = true
"#;

/// Octets of a configuration file: far above any real one, so that `--config /dev/zero` ends.
const FILE_SIZE_MAX: u64 = 16 << 20;

/// The whole configuration of one edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The name in the greeting, the EHLO reply and `Received`; A-labels, no dot at the end.
    pub hostname: String,
    /// The spool and the state live below it.
    pub data_dir: PathBuf,
    /// How long begun transactions may take after SIGTERM.
    pub drain_timeout: Duration,
    /// Executors; 0 is one for each core that the process may run on.
    pub shards: usize,
    /// The edition of [MS-OXSMTP] followed.
    pub edition: Edition,
    /// `[limits]` as it was written: key of [`crate::smtp::limits::ROWS`] and value, in the order of the rows. They are
    /// already part of each [`Binding::limits`].
    pub limits: Vec<(&'static str, Value)>,
    /// Where to listen; may be empty.
    pub bindings: Vec<Binding>,
    /// Which addresses may connect.
    pub access: Access,
    /// Which recipients are taken.
    pub domains: Domains,
    /// Where messages go, tried in order; never empty.
    pub routes: Vec<Route>,
    /// `[auth]`, where it is there.
    pub auth: Option<Auth>,
    /// `[tls]`, where it is there.
    pub tls: Option<Tls>,
    /// How long and how often delivery is tried.
    pub queue: Queue,
    /// Where metrics and the status page are served.
    pub admin: Option<SocketAddr>,
    /// What is logged.
    pub log: Log,
    /// The edges that count together.
    pub fleet: Option<Fleet>,
}

/// One `[[binding]]`: a role on some addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Unique among the bindings; one word.
    pub name: String,
    /// At least one; no address stands twice in the configuration, unless its port is 0.
    pub addresses: Vec<SocketAddr>,
    /// Gateway or relay.
    pub role: Role,
    /// Whether and when TLS begins.
    pub tls: BindingTls,
    /// MAIL before STARTTLS is refused.
    pub require_tls: bool,
    /// Offered in this order; each at most once.
    pub auth: Vec<Mechanism>,
    /// LOGIN and PLAIN are offered only inside TLS.
    pub auth_requires_tls: bool,
    /// MAIL before AUTH is refused.
    pub require_auth: bool,
    /// Who may connect.
    pub clients: Vec<Network>,
    /// The authenticated users served; empty is all.
    pub users: Vec<String>,
    /// XEXCH50 blobs are taken and thrown away.
    pub xexch50: bool,
    /// A PROXY header comes first.
    pub proxy_protocol: bool,
    /// Who may send that header.
    pub proxy_from: Vec<Network>,
    /// EHLO keywords not to advertise, in capitals.
    pub extensions_off: Vec<String>,
    /// What happens to a bare CR or LF in DATA.
    pub bare_newline: BareNewline,
    /// The limits in force: of the role, then `[limits]`, then `[binding.limits]`.
    pub limits: Limits,
    /// `[binding.limits]` gives `max_connections` another value than the server's: the binding counts apart from it.
    pub own_connections: bool,
    /// The same for `max_connections_per_source`.
    pub own_connections_per_source: bool,
    /// The same for `message_rate`.
    pub own_rate: bool,
    /// The same for `tls_session_rate`.
    pub own_tls_rate: bool,
}

/// `tls` of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingTls {
    /// Never.
    Off,
    /// Offered as STARTTLS (RFC 3207).
    StartTls,
    /// From the first octet (RFC 8314 section 3.3).
    Implicit,
}

/// `[access]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Goes before every block list.
    pub allow: Vec<Network>,
    /// Static ranges.
    pub block: Vec<Network>,
    /// The last sentence of the static refusal: printable ASCII, may be empty.
    pub block_text: String,
    /// A file of ranges that change.
    pub block_dynamic: Option<PathBuf>,
    /// Zones asked for the client's address.
    pub dnsbl: Vec<String>,
    /// Whom to ask; empty is the system's resolver configuration.
    pub dns_servers: Vec<SocketAddr>,
}

/// `[domains]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Domains {
    /// Domains taken from unauthenticated clients, as lower-case A-labels; `*` is any.
    pub accepted: Vec<String>,
    /// A file of the known addresses in them.
    pub recipients: Option<PathBuf>,
}

/// One `[[next_hop]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Recipient domains, as lower-case A-labels, or `*`; at least one.
    pub domains: Vec<String>,
    /// At least one.
    pub to: Vec<Destination>,
    /// TLS towards the hop.
    pub tls: HopTls,
    /// Whose certificates are believed, instead of those of the system; TLS is required then.
    pub tls_ca: Option<PathBuf>,
    /// The name that the hop has to prove and hears as SNI (RFC 6066), instead of that of its URL; lower-case A-labels.
    pub tls_name: Option<String>,
    /// AUTH to the hop; there is a `password_file` too.
    pub username: Option<String>,
    /// Its first line is the password; there is a `username` too.
    pub password_file: Option<PathBuf>,
    /// Connections to one address of the hop, per shard.
    pub max_connections: usize,
}

/// One URL of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `maildir:PATH`; PATH may hold `{local}` and `{domain}`.
    Maildir(String),
    /// `discard:`
    Discard,
    /// `smtp://HOST[:PORT]`
    Smtp(Host, u16),
    /// `smtps://HOST[:PORT]`: TLS from the first octet.
    Smtps(Host, u16),
    /// `lmtp://HOST[:PORT]` (RFC 2033)
    Lmtp(Host, u16),
    /// `lmtp+unix:///PATH`
    LmtpUnix(PathBuf),
    /// `mx:`, the recipient's own servers.
    Mx,
}

/// The host of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Written as an address.
    Address(IpAddr),
    /// Lower-case A-labels.
    Name(String),
}

/// `tls` of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopTls {
    /// Never.
    Off,
    /// Where it is offered.
    Opportunistic,
    /// Or the message waits.
    Required,
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// The users file.
    pub users: Option<PathBuf>,
}

/// `[tls]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// For clients that ask for none of the others.
    pub default: Certificate,
    /// `[[tls.certificates]]`: for clients that ask for one of their names.
    pub certificates: Vec<CertificateFiles>,
}

/// A certificate and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Certificate {
    /// The operator's own.
    Files(CertificateFiles),
    /// Made at start.
    SelfSigned,
}

/// A certificate of the operator's own.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[queue]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Waits between tries; the last one repeats; never empty.
    pub retry: Vec<Duration>,
    /// When a message bounces.
    pub expire: Duration,
    /// When its sender hears of the delay.
    pub delay_notice: Duration,
    /// Octets of the messages that wait in memory, all shards together.
    pub memory: u64,
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least that is logged.
    pub level: Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something will be.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Every step.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`
    Text,
    /// One object a line.
    Json,
}

/// `[fleet]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// `redis://` or `rediss://` URL.
    pub redis: String,
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let unreadable = |error: std::io::Error| ConfigError::unreadable(path, &error);
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes));
        let octets = read.map_err(unreadable)? as u64;
        let name = path.display().to_string();
        if octets > FILE_SIZE_MAX {
            return Err(ConfigError::too_large(&name, FILE_SIZE_MAX));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Config::parse(text, &name),
            Err(error) => Err(ConfigError::not_utf8(&name, &bytes, &error)),
        }
    }

    /// Validates the text of a file; `name` is what errors call it.
    pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
        // Editors of another world begin a file with a byte order mark; it is not a part of line 1.
        file::read(text.strip_prefix('\u{feff}').unwrap_or(text), name)
    }

    /// What runs without `--config`: one gateway on 127.0.0.1:2525 that delivers into a Maildir under `./var/mail`.
    pub fn embedded() -> Result<Config, ConfigError> {
        Config::parse(EMBEDDED, "the embedded default")
    }

    /// The effective configuration as TOML, each default filled in; [`Config::parse`] makes an equal one of it.
    pub fn effective(&self) -> String {
        effective::print(self)
    }

    /// What is valid but probably not meant, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        advice::warnings(self)
    }

    /// What `serve` cannot do yet, a sentence each; empty: it can run.
    pub fn unsupported(&self) -> Vec<String> {
        advice::unsupported(self)
    }
}
