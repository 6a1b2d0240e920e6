//! The certificate's files: at start, changed while it runs, and made by ourselves.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::edge::{Edge, Home, eventually};
use crate::secure::{self, Days, Secure};
use crate::{config, start};

/// The certificate that a new client sees.
fn shown(edge: &Edge) -> Vec<u8> {
    let client = Secure::starttls(edge.address(), &secure::any());
    client.tls.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start_with_a_sentence_that_names_its_file() {
    for (spoil, file, word) in [
        (
            (|home| drop(std::fs::remove_file(home.path().join("cert.pem")))) as fn(&Home),
            "cert.pem",
            "No such file",
        ),
        (|home| drop(home.write("cert.pem", "")), "cert.pem", "BEGIN CERTIFICATE"),
        (|home| drop(home.write("key.pem", "x")), "key.pem", "BEGIN PRIVATE KEY"),
        (
            |home| drop(home.write("key.pem", &secure::pair("mx.example.com", Days::Now).1)),
            "key.pem",
            "does not belong",
        ),
        (
            |home| secure::write_pair(home, "mx.example.com", Days::Past),
            "cert.pem",
            "has expired",
        ),
        (
            |home| secure::write_pair(home, "mx.example.com", Days::Future),
            "cert.pem",
            "valid from 2100-01-01",
        ),
    ] {
        let home = Home::new();
        secure::write_pair(&home, "mx.example.com", Days::Now);
        spoil(&home);
        let (status, said) = home.run_to_end(&config("", "").replace("ADMIN", "127.0.0.1:0"));
        assert_eq!(status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap();
        assert!(
            last.starts_with("postern: ") && last.contains(file) && last.contains(word),
            "{said}"
        );
    }
}

#[test]
fn a_new_pair_is_shown_after_a_signal_and_a_bad_one_keeps_the_old() {
    let edge = start("", "");
    let before = shown(&edge);
    let mut old = Secure::hello(&edge);
    secure::write_pair(edge.home(), "mx.example.com", Days::Now);
    edge.signal("HUP");
    edge.wait_for("configuration reloaded");
    let after = shown(&edge);
    assert_ne!(before, after);
    edge.home().write("key.pem", "no key");
    edge.signal("HUP");
    let line = edge.wait_for("configuration not reloaded");
    assert!(line.contains("key.pem"), "{line}");
    assert_eq!(shown(&edge), after);
    old.command("NOOP", "250 ");
}

#[test]
fn a_new_pair_is_shown_without_a_signal_and_a_bad_one_keeps_the_old() {
    let edge = start("", "");
    let before = shown(&edge);
    secure::write_pair(edge.home(), "mx.example.com", Days::Now);
    assert!(eventually(|| shown(&edge) != before));
    let good = shown(&edge);
    secure::write_pair(edge.home(), "mx.example.com", Days::Past);
    let line = edge.wait_for("a certificate cannot be used, the old one stays..has expired");
    assert!(line.contains("cert.pem"), "{line}");
    assert_eq!(shown(&edge), good);
}

#[test]
fn no_handshake_fails_while_certificates_are_swapped() {
    let edge = start("", "");
    let (stop, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (edge, stop, handshakes) = (&edge, &stop, &handshakes);
            scope.spawn(move || {
                // One of them comes with tickets of certificates that are gone.
                let known = secure::any();
                while !stop.load(Relaxed) {
                    let config = if worker == 0 { known.clone() } else { secure::any() };
                    let mut client = Secure::starttls(edge.address(), &config);
                    client.command("QUIT", "221 ");
                    handshakes.fetch_add(1, Relaxed);
                }
            });
        }
        for swap in 1..=12 {
            let reached = handshakes.load(Relaxed) + 10;
            assert!(
                eventually(|| handshakes.load(Relaxed) >= reached),
                "handshakes have stopped"
            );
            secure::write_pair(edge.home(), "mx.example.com", Days::Now);
            edge.signal("HUP");
            edge.wait_for_number("configuration reloaded", swap);
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(
        edge.metric("postern_tls_handshakes_total{result=\"failed\",version=\"none\"}"),
        0.0
    );
}

#[test]
fn one_that_was_made_here_is_kept_over_a_restart() {
    let text = config("", "").replace("certificate = \"cert.pem\"\nkey = \"key.pem\"", "self_signed = true");
    let home = Home::new();
    let kept = home.path().join("var/tls");
    let edge = Edge::start_in(home, &text);
    let warned = edge.wait_for("warn..signed by itself..made now");
    assert!(warned.contains("var/tls/certificate.pem"), "{warned}");
    let before = shown(&edge);
    let mode = std::fs::metadata(kept.join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    edge.signal("HUP");
    edge.wait_for("configuration reloaded");
    assert_eq!(shown(&edge), before);
    // A client that trusts the file believes the server.
    let pem = std::fs::read(kept.join("certificate.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let anchor = rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    roots.add(anchor).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let believing = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = Secure::starttls(edge.address(), &std::sync::Arc::new(believing));
    client.command("NOOP", "250 ");
    drop(client);
    let copy = Home::new();
    std::fs::create_dir_all(copy.path().join("var/tls")).unwrap();
    for file in ["key.pem", "certificate.pem"] {
        std::fs::copy(kept.join(file), copy.path().join("var/tls").join(file)).unwrap();
    }
    drop(edge);
    let edge = Edge::start_in(copy, &text);
    edge.wait_for("warn..signed by itself..kept from before");
    assert_eq!(shown(&edge), before);
}
