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

/// Where `[tls]` says that one is.
#[derive(Clone, Debug)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    SelfSigned { kept: SelfSigned, hostname: String },
}

/// All of them: the default, and those for clients that ask for one of their names.
#[derive(Clone, Debug)]
struct Sources {
    default: Source,
    others: Vec<Source>,
}

/// The certificates in use.
#[derive(Clone, Debug)]
pub struct Certificates {
    sources: Sources,
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
        let Some(sources) = Sources::of(config) else {
            return Ok(None);
        };
        let identities = sources.read(log)?;
        let server = match in_use {
            Some(certificates) => certificates.server.clone(),
            None => tls::Server::new(Vec::new())?,
        };
        Ok(Some(Reading {
            certificates: Certificates { sources, server },
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
        if !self.sources.files().iter().any(|file| file == path) {
            return None;
        }
        Some(self.sources.read(log).map(|identities| self.server.show(identities)))
    }
}

/// Files whose change is to be told.
pub fn files(config: &Config) -> Vec<PathBuf> {
    Sources::of(config).map_or_else(Vec::new, |sources| sources.files())
}

impl Sources {
    fn of(config: &Config) -> Option<Sources> {
        let tls = config.tls.as_ref()?;
        let of_files = |files: &config::CertificateFiles| Source::Files {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        };
        Some(Sources {
            default: match &tls.default {
                config::Certificate::Files(files) => of_files(files),
                config::Certificate::SelfSigned => Source::SelfSigned {
                    kept: SelfSigned::below(&config.data_dir),
                    hostname: config.hostname.clone(),
                },
            },
            others: tls.certificates.iter().map(of_files).collect(),
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        let all = std::iter::once(&self.default).chain(&self.others);
        all.flat_map(Source::files).collect()
    }

    /// The default first.
    fn read(&self, log: &Log) -> Result<Vec<Identity>, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs() as i64);
        let mut identities = vec![self.default.read(now, log)?];
        for source in &self.others {
            let identity = source.read(now, log)?;
            if let (false, Source::Files { certificate, .. }) = (identity.names_somebody(), source) {
                return Err(format!(
                    "the certificate in {0} has no name that a client could ask for (subjectAltName); what is in it: \
                     openssl x509 -text -in {0}",
                    certificate.display()
                ));
            }
            identities.push(identity);
        }
        Ok(identities)
    }
}

impl Source {
    fn files(&self) -> Vec<PathBuf> {
        match self {
            Source::Files { certificate, key } => vec![certificate.clone(), key.clone()],
            // Only we write them.
            Source::SelfSigned { .. } => Vec::new(),
        }
    }

    fn read(&self, now: i64, log: &Log) -> Result<Identity, String> {
        match self {
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
                Ok(identity)
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
                Ok(identity)
            }
        }
    }
}
