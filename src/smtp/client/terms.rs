//! What is settled about a next hop before it is connected to: how to speak, how to be safe, how long to wait.
//!
//! Promises: a [`Credentials`] is in no debug output, and its memory is wiped. Plain data; shared by the connections of a
//! shard.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and after the content a reply for each recipient that was taken.
    Lmtp,
}

/// Whether STARTTLS (RFC 3207) is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsUse {
    /// Never.
    Off,
    /// Where the hop offers it.
    #[default]
    Opportunistic,
    /// Not on this connection, for it has failed on another one and is no must; what needs it does not go.
    Failed,
    /// No mail without it.
    Required,
}

/// What holds for every connection to a hop.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What is spoken.
    pub dialect: Dialect,
    /// The name that this side gives in EHLO, LHLO or HELO.
    pub hello: Arc<str>,
    /// Whether STARTTLS is used. Without a meaning where TLS is implicit.
    pub tls: TlsUse,
    /// TLS comes first, before the greeting (RFC 8314 section 3).
    pub implicit_tls: bool,
    /// Whom to authenticate as; nobody where there are none.
    pub credentials: Option<Arc<Credentials>>,
    /// How long each reply is waited for.
    pub timeouts: Timeouts,
}

/// How long to wait for the hop: by default the times of RFC 5321 section 4.5.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting.
    pub greeting: Duration,
    /// For the reply to EHLO, STARTTLS, AUTH or RSET, and for the handshake of TLS.
    pub hello: Duration,
    /// For the reply to MAIL.
    pub mail: Duration,
    /// For the reply to a RCPT.
    pub rcpt: Duration,
    /// For the reply to DATA.
    pub data: Duration,
    /// For a piece of content to go out.
    pub block: Duration,
    /// For the reply after the end of the content.
    pub end: Duration,
    /// For the reply to QUIT, after which nothing depends on the hop any more.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Timeouts {
            greeting: minutes(5),
            hello: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
            quit: Duration::from_secs(10),
        }
    }
}

/// A name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(super) username: Zeroizing<String>,
    pub(super) password: Zeroizing<String>,
}

impl Credentials {
    /// What the hop knows us by.
    pub fn new(username: &str, password: &str) -> Credentials {
        Credentials {
            username: Zeroizing::new(username.to_owned()),
            password: Zeroizing::new(password.to_owned()),
        }
    }
}

/// Shows nothing.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}
