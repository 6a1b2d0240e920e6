//! Tests of identities: what can be loaded, and what is said of the rest.

use std::fs;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

const NOW: i64 = 1_795_221_819; // 2026-11-21

struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair {
            dir: tempfile::tempdir().unwrap(),
        };
        let (certificate, key) = pem(&["mx.example.com", "*.example.org"], (2026, 1, 1), (2027, 1, 1));
        pair.write("cert.pem", &certificate);
        pair.write("key.pem", &key);
        pair
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn load(&self, now: i64) -> Result<Identity, String> {
        Identity::load(&self.dir.path().join("cert.pem"), &self.dir.path().join("key.pem"), now)
    }

    /// The sentence, which names the file `name`.
    fn refusal(&self, now: i64, name: &str) -> String {
        let said = self.load(now).unwrap_err();
        assert!(
            said.contains(&self.dir.path().join(name).display().to_string()),
            "{said}"
        );
        assert!(!said.contains('\n'), "{said}");
        said
    }
}

fn pem(names: &[&str], from: (i32, u8, u8), until: (i32, u8, u8)) -> (String, String) {
    let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(until.0, until.1, until.2);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_pair_that_belongs_together_is_loaded_and_knows_its_names() {
    let identity = Pair::new().load(NOW).unwrap();
    assert!(identity.covers("mx.example.com") && identity.covers("a.example.org"));
    assert!(!identity.covers("example.org") && !identity.covers("") && !identity.covers("mx..com"));
    assert_eq!(identity.last_day().to_string(), "2027-01-01 00:00:00 UTC");
}

#[test]
fn a_chain_may_have_text_between_its_certificates_and_the_key_may_stand_in_the_same_file() {
    let pair = Pair::new();
    let (issuer, _) = pem(&["issuer.test"], (2020, 1, 1), (2030, 1, 1));
    let (own, key) = pem(&["mx.test"], (2026, 1, 1), (2027, 1, 1));
    let whole = format!("subject=mx.test\r\n{own}\nissuer:\n{issuer}{key}");
    pair.write("cert.pem", &whole);
    pair.write("key.pem", &whole);
    let identity = pair.load(NOW).unwrap();
    assert_eq!(identity.certified_key().cert.len(), 2);
}

#[test]
fn files_that_cannot_be_read_or_hold_nothing_are_named() {
    let pair = Pair::new();
    fs::remove_file(pair.dir.path().join("key.pem")).unwrap();
    assert!(pair.refusal(NOW, "key.pem").contains("ls -l"));
    pair.write("key.pem", "");
    assert!(pair.refusal(NOW, "key.pem").contains("BEGIN PRIVATE KEY"));
    pair.write(
        "key.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIG=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    assert!(pair.refusal(NOW, "key.pem").contains("openssl pkey"));
    pair.write("key.pem", "-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n");
    pair.refusal(NOW, "key.pem");
    pair.write(
        "cert.pem",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    );
    pair.refusal(NOW, "cert.pem");
    pair.write("cert.pem", "no certificate");
    assert!(pair.refusal(NOW, "cert.pem").contains("BEGIN CERTIFICATE"));
}

#[test]
fn the_key_of_another_certificate_is_told_from_its_own() {
    let pair = Pair::new();
    let (_, other) = pem(&["mx.example.com"], (2026, 1, 1), (2027, 1, 1));
    pair.write("key.pem", &other);
    assert!(pair.refusal(NOW, "key.pem").contains("does not belong"));
}

#[test]
fn one_that_is_not_valid_yet_or_any_more_says_when_it_is() {
    let pair = Pair::new();
    assert!(pair.refusal(1_798_761_601, "cert.pem").contains("until 2027-01-01"));
    assert!(pair.load(1_798_761_600).is_ok());
    assert!(pair.refusal(1_767_225_599, "cert.pem").contains("from 2026-01-01"));
    assert!(pair.load(1_767_225_600).is_ok());
}
