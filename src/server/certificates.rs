//! The certificates of the edge: where they come from, when they are read again.
//!
//! Promises: what is shown is complete and valid, or nothing is changed and there is a sentence that says why; the tickets and
//! their keys outlive every change. Lives on the main thread.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{self, Config};
use crate::log::{Level, Log};
use crate::tls::{self, Identity, Kept, SelfSigned};

/// A certificate that ends sooner than this is mentioned when it is read.
const SOON: i64 = 14 * 24 * 3600;

/// Where `[tls]` says that they are.
#[derive(Clone, Debug)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    SelfSigned { kept: SelfSigned, hostname: String },
}

/// The certificates in use.
#[derive(Clone, Debug)]
pub struct Certificates {
    source: Source,
    server: tls::Server,
}

/// Certificates that are read and not on show yet.
#[derive(Debug)]
pub struct Reading {
    certificates: Certificates,
    identities: Vec<Identity>,
}

impl Reading {
    /// Reads what a configuration names; none where it has no `[tls]`. What is in use already goes on with its tickets.
    ///
    /// # Errors
    ///
    /// The sentence for the operator.
    pub fn of(config: &Config, in_use: Option<&Certificates>, log: &Log) -> Result<Option<Reading>, String> {
        let Some(source) = Source::of(config) else {
            return Ok(None);
        };
        let identities = source.read(log)?;
        let server = match in_use {
            Some(certificates) => certificates.server.clone(),
            None => tls::Server::new(Vec::new())?,
        };
        Ok(Some(Reading {
            certificates: Certificates { source, server },
            identities,
        }))
    }

    /// What connections begin TLS with, once it is [`Reading::show`]n.
    pub fn config(&self) -> std::sync::Arc<rustls::ServerConfig> {
        self.certificates.server.config().clone()
    }

    /// Puts them on show.
    pub fn show(self) -> Certificates {
        self.certificates.server.show(self.identities);
        self.certificates
    }
}

impl Certificates {
    /// Reads them again where `path` is one of their files. None: it is not.
    ///
    /// # Errors
    ///
    /// The sentence for the operator; the old ones stay on show.
    pub fn read_again(&self, path: &Path, log: &Log) -> Option<Result<(), String>> {
        if !self.source.files().iter().any(|file| file == path) {
            return None;
        }
        Some(self.source.read(log).map(|identities| self.server.show(identities)))
    }
}

/// Files whose change is to be told.
pub fn files(config: &Config) -> Vec<PathBuf> {
    Source::of(config).map_or_else(Vec::new, |source| source.files())
}

impl Source {
    fn of(config: &Config) -> Option<Source> {
        match config.tls.as_ref()? {
            config::Tls::Files { certificate, key } => Some(Source::Files {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            config::Tls::SelfSigned => Some(Source::SelfSigned {
                kept: SelfSigned::below(&config.data_dir),
                hostname: config.hostname.clone(),
            }),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Source::Files { certificate, key } => vec![certificate.clone(), key.clone()],
            // Only we write them.
            Source::SelfSigned { .. } => Vec::new(),
        }
    }

    fn read(&self, log: &Log) -> Result<Vec<Identity>, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs() as i64);
        let identity = match self {
            Source::Files { certificate, key } => {
                let identity = Identity::load(certificate, key, now)?;
                let (level, said) = match identity.valid_until() - now {
                    left if left < SOON => (Level::Warn, "certificate read; it ends soon: renew it"),
                    _ => (Level::Info, "certificate read"),
                };
                let until = identity.last_day();
                log.event(
                    level,
                    said,
                    &[("file", &certificate.display()), ("valid_until", &until)],
                );
                identity
            }
            Source::SelfSigned { kept, hostname } => {
                let (identity, how) = kept.identity(hostname, now)?;
                let made = match how {
                    Kept::Made => "made now",
                    Kept::Found => "kept from before",
                };
                let until = identity.last_day();
                log.event(
                    Level::Warn,
                    "the certificate is signed by itself, so it proves nothing: [tls] certificate and key name a real one",
                    &[
                        ("file", &kept.certificate().display()),
                        ("certificate", &made),
                        ("valid_until", &until),
                    ],
                );
                identity
            }
        };
        Ok(vec![identity])
    }
}
