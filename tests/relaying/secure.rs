//! TLS towards the hop.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;

use crate::edge::{Edge, Home};
use crate::hop::{Act, Heard, Hop, Plan, say};
use crate::{FROM, behind_received, custody, to};

/// A server whose certificate nobody has signed.
fn tls() -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["hop.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

fn edge(hop: &Hop, tls: &str) -> Edge {
    let toml = to(&[hop.target()]).toml();
    Edge::start(&toml.replace("[queue]", &format!("tls = \"{tls}\"\n[queue]")))
}

#[test]
fn opportunistic_tls_is_used_where_it_is_offered_whoever_signed_the_certificate() {
    let hop = Plan::new().tls(tls()).up();
    let edge = edge(&hop, "opportunistic");
    let mut client = edge.hello();
    let large = format!("\r\n{}", "a line of the content\r\n".repeat(20_000));
    for content in ["Subject: x\r\n\r\nx\r\n", &large] {
        let id = client.accepted(FROM, &["b@example.com"], content);
        assert_eq!(custody(&edge, &id), "next_hop");
        let taken = hop.taken();
        let last = taken.last().unwrap();
        assert!(last.tls && behind_received(&last.content) == content.as_bytes());
    }
}

#[test]
fn without_tls_there_is_none() {
    let hop = Plan::new().tls(tls()).up();
    let edge = edge(&hop, "off");
    edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert!(!hop.taken()[0].tls);
}

#[test]
fn opportunistic_tls_that_fails_is_done_without() {
    // It offers STARTTLS, agrees to it, and then closes.
    let hop = Plan::new()
        .tls(tls())
        .script(|heard| match heard {
            Heard::Other("STARTTLS") => Act::SayAndReset("220 2.0.0 go on".to_owned()),
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop, "opportunistic");
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "next_hop");
    assert!(!hop.taken()[0].tls);
}

#[test]
fn opportunistic_tls_that_is_refused_is_done_without() {
    let hop = Plan::new()
        .tls(tls())
        .script(|heard| match heard {
            Heard::Other("STARTTLS") => say("454 4.7.0 not available"),
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop, "opportunistic");
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "next_hop");
    assert!(!hop.taken()[0].tls);
}

#[test]
fn required_tls_waits_rather_than_trust_anybody_or_go_without() {
    for hop in [Plan::new().tls(tls()).up(), Hop::up()] {
        let edge = edge(&hop, "required");
        let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
        assert_eq!(custody(&edge, &id), "spool");
        edge.wait_for_number(&format!("delivery id={id} ..status=deferred"), 2);
        assert!(
            !hop.commands().iter().any(|line| line.starts_with("MAIL")),
            "{:?}",
            hop.commands()
        );
        assert_eq!(edge.metric("postern_queue_messages"), 1.0);
    }
}

/// An authority of the operator's own.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server with a certificate of this authority, which it shows to whoever asks for its name and to nobody else.
fn tls_of(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(default_provider());
    let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap();
    let mut shown = ResolvesServerCertUsingSni::new();
    shown.add(name, certified).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    Arc::new(config)
}

/// The configuration for a hop that is to prove this name to this authority.
fn proving(hop: &Hop, name: &str) -> String {
    let keys = format!("tls = \"required\"\ntls_ca = \"ca.pem\"\ntls_name = {name:?}\n[queue]");
    to(&[hop.target()]).toml().replace("[queue]", &keys)
}

#[test]
fn required_tls_believes_an_authority_of_ones_own_for_the_name_that_is_asked_for() {
    let own = authority();
    let hop = Plan::new().tls(tls_of(&own, "hub.example.com")).up();
    for (pem, name, custody_is) in [
        (own.pem(), "Hub.Example.com", "next_hop"),
        (authority().pem() + &own.pem(), "hub.example.com", "next_hop"),
        (authority().pem(), "hub.example.com", "spool"),
        (own.pem(), "other.example.com", "spool"),
    ] {
        let home = Home::new();
        home.write("ca.pem", &pem);
        let edge = Edge::start_in(home, &proving(&hop, name));
        let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
        assert_eq!(custody(&edge, &id), custody_is, "{name}");
    }
    assert!(hop.taken().len() == 2 && hop.taken().iter().all(|taken| taken.tls));
}

#[test]
fn a_name_that_the_certificate_does_not_have_is_not_believed_whoever_signed_it() {
    let own = authority();
    let hop = Plan::new().tls(tls_of(&own, "hub.example.com")).up();
    let home = Home::new();
    home.write("ca.pem", &own.pem());
    // Without a name of its own the address is to be proved.
    let toml = proving(&hop, "hub.example.com").replace("tls_name = \"hub.example.com\"\n", "");
    let edge = Edge::start_in(home, &toml);
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    edge.wait_for(&format!("delivery id={id} ..status=deferred..TLS cannot be begun"));
}

#[test]
fn an_authority_is_read_again_with_the_configuration() {
    let own = authority();
    let hop = Plan::new().tls(tls_of(&own, "hub.example.com")).up();
    let home = Home::new();
    home.write("ca.pem", &authority().pem());
    let edge = Edge::start_in(home, &proving(&hop, "hub.example.com"));
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    edge.wait_for(&format!("delivery id={id} ..status=deferred"));
    edge.home().write("ca.pem", "none");
    edge.signal("HUP");
    let refused = edge.wait_for("configuration not reloaded");
    assert!(
        refused.contains("ca.pem") && refused.contains("BEGIN CERTIFICATE"),
        "{refused}"
    );
    edge.home().write("ca.pem", &own.pem());
    edge.signal("HUP");
    edge.wait_for("configuration reloaded");
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
    assert!(hop.taken()[0].tls);
}

#[test]
fn an_authority_that_cannot_be_read_stops_the_start() {
    let hop = Hop::up();
    for (text, word) in [
        (None, "No such file"),
        (Some(""), "BEGIN CERTIFICATE"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "cannot believe",
        ),
    ] {
        let home = Home::new();
        if let Some(text) = text {
            home.write("ca.pem", text);
        }
        let toml = proving(&hop, "hub.example.com").replace("ADMIN", "127.0.0.1:0");
        let (status, said) = home.run_to_end(&toml);
        let last = said.lines().last().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            last.starts_with("postern: ") && last.contains("ca.pem") && last.contains(word),
            "{said}"
        );
    }
}
