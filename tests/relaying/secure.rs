//! TLS towards the hop.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::edge::Edge;
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
