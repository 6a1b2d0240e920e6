//! A certificate chain with its private key, as it is shown to clients.
//!
//! Promises: what is loaded can be used now: the key belongs to the certificate, which is valid today. An error is one
//! sentence with the file and what to do. Made on the main thread, shared by all shards.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys};

use super::provider;
use super::validity::Validity;

/// Octets of a file of certificates or a key: far above any real one.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// A certificate that we can prove to be ours.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    validity: Validity,
}

impl Identity {
    /// Reads a chain (PEM, our own certificate first) and its key (PEM: PKCS #8, PKCS #1 or SEC 1), and holds them against
    /// the clock, `unix_seconds`.
    ///
    /// # Errors
    ///
    /// The sentence for the operator.
    pub fn load(certificate: &Path, key: &Path, unix_seconds: i64) -> Result<Identity, String> {
        let chain = chain(certificate)?;
        let private = private_key(key)?;
        let (shown, secret) = (certificate.display(), key.display());
        let certified = CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "the key in {secret} does not belong to the first certificate in {shown}: put this server's own certificate \
                 first, and the two from the same issue"
            ),
            error => format!("cannot use the certificate in {shown} with the key in {secret}: {error}"),
        })?;
        let identity = Identity::of(certified).ok_or_else(|| {
            format!("cannot read how long the certificate in {shown} is valid; what is in it: openssl x509 -text -in {shown}")
        })?;
        let Validity { from, until } = identity.validity;
        if unix_seconds > until {
            return Err(format!(
                "the certificate in {shown} has expired, it was valid until {}: renew it",
                Day(until)
            ));
        }
        if unix_seconds < from {
            return Err(format!(
                "the certificate in {shown} is valid from {} on only: wait, or set this host's clock (date)",
                Day(from)
            ));
        }
        Ok(identity)
    }

    fn of(certified: CertifiedKey) -> Option<Identity> {
        let validity = Validity::of(certified.cert.first()?)?;
        Some(Identity {
            certified: Arc::new(certified),
            validity,
        })
    }

    /// Whether it is for this name.
    pub fn covers(&self, name: &str) -> bool {
        let (Some(certificate), Ok(name)) = (self.certified.cert.first(), ServerName::try_from(name)) else {
            return false;
        };
        ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }

    /// Whether it is for any name at all (subjectAltName; RFC 6125 section 6.4.4 has no use for the common name).
    pub fn names_somebody(&self) -> bool {
        let nobody = ServerName::try_from("postern.invalid");
        let (Some(certificate), Ok(nobody)) = (self.certified.cert.first(), nobody) else {
            return false;
        };
        let verified = ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, &nobody));
        match verified {
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })) => {
                !presented.is_empty()
            }
            verified => verified.is_ok(),
        }
    }

    /// Until when it is valid, in seconds since 1970.
    pub fn valid_until(&self) -> i64 {
        self.validity.until
    }

    /// The day until which it is valid, for people.
    pub fn last_day(&self) -> impl fmt::Display + use<> {
        Day(self.validity.until)
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// Says when it ends, and nothing of the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// A day in UTC.
struct Day(i64);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = jiff::Timestamp::from_second(self.0).unwrap_or_default();
        write!(f, "{}", when.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// The certificates of a file.
///
/// # Errors
///
/// The sentence for the operator, also where there is none.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| unusable(path, "certificate", &error))?;
    if chain.is_empty() {
        return Err(no_pem(path, "certificate", "CERTIFICATE"));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        // A key behind a password has a label of its own, which nothing here looks for.
        pem::Error::NoItemsFound if contains(&text, b"ENCRYPTED PRIVATE KEY") => format!(
            "the key in {0} is behind a password, which nobody is here to give: openssl pkey -in {0} -out FILE",
            path.display()
        ),
        pem::Error::NoItemsFound => no_pem(path, "private key", "PRIVATE KEY"),
        error => unusable(path, "private key", &error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {0}: {error}; who may: ls -l {0}", path.display());
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_SIZE_MAX).read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn no_pem(path: &Path, what: &str, label: &str) -> String {
    format!(
        "there is no {what} in {0}: it wants PEM, which begins with -----BEGIN {label}-----",
        path.display()
    )
}

fn unusable(path: &Path, what: &str, error: &pem::Error) -> String {
    format!("cannot read the {what} in {}: {error:?}", path.display())
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

#[cfg(test)]
mod tests;
