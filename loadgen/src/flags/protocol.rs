//! The flags that say how the client speaks: TLS, AUTH, LMTP, PROXY. Pure data.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::auth::{Credentials, Mechanism};
use crate::proxy::{CLIENTS_MAX, Clients, Version};
use crate::tls::Terms;

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Security {
    Off,
    Starttls,
    Implicit,
}

/// How the client speaks.
#[derive(Clone, Debug, Args)]
pub struct ProtocolFlags {
    /// TLS: off; starttls (RFC 3207), which the server must offer; or implicit, from the first octet (RFC 8314).
    #[arg(long, value_enum, default_value_t = Security::Off, help_heading = "How the client speaks")]
    pub tls: Security,
    /// Verifies the server's certificate against these (PEM); without it any certificate is taken.
    #[arg(long, value_name = "FILE", help_heading = "How the client speaks")]
    pub tls_verify: Option<PathBuf>,
    /// Name of the server in TLS.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "localhost",
        help_heading = "How the client speaks"
    )]
    pub tls_name: String,
    /// Makes a full handshake for every connection: no session is resumed.
    #[arg(long, help_heading = "How the client speaks")]
    pub tls_full: bool,
    /// AUTH with this mechanism on every connection, after TLS if there is TLS.
    #[arg(long, value_enum, requires_all = ["user", "password"], help_heading = "How the client speaks")]
    pub auth: Option<Mechanism>,
    /// User for AUTH; NTLM takes DOMAIN\user too.
    #[arg(long, value_name = "USER", requires = "auth", help_heading = "How the client speaks")]
    pub user: Option<String>,
    /// Password for AUTH.
    #[arg(
        long,
        value_name = "PASSWORD",
        requires = "auth",
        help_heading = "How the client speaks"
    )]
    pub password: Option<String>,
    /// Speaks LMTP (RFC 2033): LHLO, and a final reply for each recipient, all of which must be good.
    #[arg(long, help_heading = "How the client speaks")]
    pub lmtp: bool,
    /// MAIL with SMTPUTF8 (RFC 6531), which the server must offer; --from and --to may then have any letters.
    #[arg(long, help_heading = "How the client speaks")]
    pub smtputf8: bool,
    /// Begins each connection with a PROXY header that names a made-up client of 198.18.0.0/15.
    #[arg(long, value_enum, value_name = "VERSION", help_heading = "How the client speaks")]
    pub proxy: Option<Version>,
    /// Made-up clients that take turns.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "proxy",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)), help_heading = "How the client speaks")]
    pub proxy_clients: u32,
}

impl ProtocolFlags {
    /// Terms of TLS, if there is any.
    pub fn terms(&self) -> Result<Option<Terms>, String> {
        match self.tls {
            Security::Off => Ok(None),
            _ => Terms::new(&self.tls_name, self.tls_verify.as_deref(), !self.tls_full).map(Some),
        }
    }

    /// Who the client is, if it says so.
    pub fn credentials(&self) -> Option<Credentials> {
        Some(Credentials {
            mechanism: self.auth?,
            user: self.user.clone()?,
            password: self.password.clone()?,
        })
    }

    /// Clients for the PROXY header.
    pub fn clients(&self) -> Option<Clients> {
        Some(Clients {
            version: self.proxy?,
            count: self.proxy_clients,
        })
    }

    /// What of it shapes the figures.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "tls": format!("{:?}", self.tls).to_lowercase(), "tls_resumed": !self.tls_full,
            "auth": self.auth.map(|mechanism| format!("{mechanism:?}").to_lowercase()),
            "lmtp": self.lmtp, "smtputf8": self.smtputf8, "proxy": self.proxy.is_some(),
        })
    }
}
