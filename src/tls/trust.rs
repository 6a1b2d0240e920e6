//! The sending side: whose certificates are believed.
//!
//! Promises: whoever is believed has proved to hold the key of the certificate that it showed. Made on the main thread,
//! shared by all shards.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{identity, provider};

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Anybody's, whatever its name and issuer: encryption where there would be none (RFC 7435).
    Anyone,
    /// Those that lead to one of these roots and are for the name of the server.
    Roots(Arc<RootCertStore>),
}

/// What connections to servers begin with.
///
/// # Errors
///
/// A sentence, where the algorithms do not go together.
pub fn client(trust: Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let config = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth(),
        Trust::Roots(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The roots that this host believes, and how many of its files or certificates could not be used.
pub fn system_roots() -> (Arc<RootCertStore>, usize) {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_, bad) = roots.add_parsable_certificates(found.certs);
    (Arc::new(roots), bad + found.errors.len())
}

/// The roots in a PEM file.
///
/// # Errors
///
/// The sentence for the operator: it cannot be read, or has no certificate, or one that cannot be used.
pub fn roots_of(path: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in identity::chain(path)? {
        roots.add(certificate).map_err(|error| {
            format!(
                "cannot believe a certificate in {0}: {error}; what is in it: openssl x509 -text -in {0}",
                path.display()
            )
        })?;
    }
    Ok(Arc::new(roots))
}

/// Looks at the signature of the handshake only.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
