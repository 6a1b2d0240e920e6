//! The certificate's files: at start, changed while it runs, and made by ourselves.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

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

/// Two certificates besides the default.
const OTHERS: &str = "[[tls.certificates]]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n\
                      [[tls.certificates]]\ncertificate = \"b.pem\"\nkey = \"b.key\"\n";

fn write_named(home: &Home, file: &str, name: &str, days: Days) -> Vec<u8> {
    let (certificate, key) = secure::pair(name, days);
    // The key first: the two go together again with the certificate.
    home.write(&format!("{file}.key"), &key);
    home.write(&format!("{file}.pem"), &certificate);
    CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec()
}

/// A folder with all three, and what the two look like.
fn three() -> (Home, Vec<u8>, Vec<u8>) {
    let home = Home::new();
    secure::write_pair(&home, "mx.example.com", Days::Now);
    let a = write_named(&home, "a", "a.example.net", Days::Now);
    let b = write_named(&home, "b", "*.example.org", Days::Now);
    (home, a, b)
}

/// What a client that asks for this name sees.
fn shown_to(edge: &Edge, name: &str) -> Vec<u8> {
    let client = Secure::shake(secure::ready(edge.address()), &secure::any(), name).unwrap();
    client.tls.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn each_name_gets_its_certificate_and_every_other_the_default() {
    let (home, a, b) = three();
    let edge = Edge::start_in(home, &config("", OTHERS));
    let default = shown(&edge);
    for (name, expected) in [
        ("mx.example.com", &default),
        ("a.example.net", &a),
        ("A.Example.NET", &a),
        ("any.example.org", &b),
        ("example.org", &default),
        ("x.y.example.org", &default),
        ("b.example.net", &default),
        // No name is sent for an address (RFC 6066 section 3).
        ("127.0.0.1", &default),
    ] {
        assert!(shown_to(&edge, name) == *expected, "{name}");
        let implicit = secure::connect(edge.addresses("implicit")[0]);
        let client = Secure::shake(implicit, &secure::any(), name).unwrap();
        assert!(
            client.tls.peer_certificates().unwrap()[0].to_vec() == *expected,
            "{name}"
        );
    }
}

#[test]
fn one_of_several_is_shown_anew_when_its_files_change_and_stays_when_they_are_bad() {
    let (home, a, b) = three();
    let edge = Edge::start_in(home, &config("", OTHERS));
    let default = shown(&edge);
    let new = write_named(edge.home(), "a", "a.example.net", Days::Now);
    assert!(new != a && eventually(|| shown_to(&edge, "a.example.net") == new));
    write_named(edge.home(), "b", "*.example.org", Days::Past);
    let line = edge.wait_for("a certificate cannot be used, the old one stays..has expired");
    assert!(line.contains("b.pem"), "{line}");
    assert!(shown_to(&edge, "x.example.org") == b && shown(&edge) == default);
    edge.signal("HUP");
    edge.wait_for("configuration not reloaded..b.pem");
    let newer = write_named(edge.home(), "b", "*.example.org", Days::Now);
    edge.signal("HUP");
    edge.wait_for("configuration reloaded");
    assert!(shown_to(&edge, "x.example.org") == newer && shown_to(&edge, "a.example.net") == new);
}

#[test]
fn one_of_several_that_cannot_be_used_stops_the_start() {
    let nameless = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    for (certificate, key, word) in [
        (None, None, "No such file"),
        (Some(secure::pair("a.example.net", Days::Past)), None, "has expired"),
        (
            Some(secure::pair("a.example.net", Days::Now)),
            Some(secure::pair("a.example.net", Days::Now).1),
            "does not belong",
        ),
        (Some(nameless()), None, "subjectAltName"),
    ] {
        let (home, ..) = three();
        match certificate {
            None => std::fs::remove_file(home.path().join("a.pem")).unwrap(),
            Some((certificate, its_key)) => {
                home.write("a.pem", &certificate);
                home.write("a.key", &key.unwrap_or(its_key));
            }
        }
        let (status, said) = home.run_to_end(&config("", OTHERS).replace("ADMIN", "127.0.0.1:0"));
        let last = said.lines().last().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            last.starts_with("postern: ") && last.contains("a.pem") && last.contains(word),
            "{said}"
        );
    }
}
