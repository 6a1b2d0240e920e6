//! AUTH towards a hop: which mechanism, what is said, what is not believed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::smtp::extension::Offered;
use crate::smtp::limits::Limits;
use crate::smtp::sasl::{self, Mechanism, ScramKeys, nt_hash};
use crate::smtp::session::{self, Question, Session};
use crate::smtp::{BareNewline, Edition, Role};

fn with_password(terms: Terms) -> Terms {
    Terms {
        credentials: Some(Arc::new(Credentials::new("edge", "s3cret!"))),
        ..terms
    }
}

const PLAIN: &str = "AGVkZ2UAczNjcmV0IQ==";

#[test]
fn plain_is_told_in_auth_or_after_either_form_of_an_empty_challenge() {
    let opening = "S: 220\nC: EHLO edge.test\nS: 250-y.test\nS: 250 AUTH LOGIN PLAIN\n";
    let end = "S: 235 2.7.0 yes\nC: QUIT\nS: 221 bye\n= closed";
    let auth = format!("C: AUTH PLAIN {PLAIN}\n");
    goes(&with_password(terms()), &[], &format!("{opening}{auth}{end}"));
    for challenge in ["334 ", "334", "334 PLAIN supported", "334 plain supported"] {
        goes(
            &with_password(terms()),
            &[],
            &format!("{opening}{auth}S: {}\nC: {PLAIN}\n{end}", challenge.trim_end()),
        );
    }
    for challenge in ["334 NTLM supported", "334 d2hhdD8="] {
        goes(
            &with_password(terms()),
            &[],
            &format!(
                "{opening}{auth}S: {challenge}\nC: *\nC: QUIT\n= Auth: 454 4.7.0 the hop asks for what PLAIN does not have"
            ),
        );
    }
}

#[test]
fn a_response_that_is_too_long_for_a_command_waits_for_its_challenge() {
    let terms = Terms {
        credentials: Some(Arc::new(Credentials::new("edge", &"x".repeat(400)))),
        ..terms()
    };
    let said = play(
        &terms,
        &[],
        "S: 220\nC: \nS: 250-y.test\nS: 250 AUTH PLAIN\nC: \nS: 334 PLAIN supported\nC: \nS: 235 yes\nC: \nS: 221 bye",
        usize::MAX,
    );
    assert!(
        said.contains("C: AUTH PLAIN\nS: 334 PLAIN supported\nC: AGVkZ2UAeHh4"),
        "{said}"
    );
    assert!(said.ends_with("= closed\n"), "{said}");
}

#[test]
fn login_answers_the_prompts_whatever_they_are_called() {
    let opening = "S: 220\nC: EHLO edge.test\nS: 250-y.test\nS: 250 AUTH=LOGIN\nC: AUTH LOGIN\n";
    let end = "C: czNjcmV0IQ==\nS: 235 2.7.0 yes\nC: QUIT\nS: 221 bye\n= closed";
    for (first, second) in [
        ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
        ("334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"),
        ("334", "334"),
        ("334 ?", "334 ?"),
    ] {
        goes(
            &with_password(terms()),
            &[],
            &format!("{opening}S: {first}\nC: ZWRnZQ==\nS: {second}\n{end}"),
        );
    }
    goes(
        &with_password(terms()),
        &[],
        &format!("{opening}S: 334 LOGIN supported\nC: ZWRnZQ==\nS: 334 UGFzc3dvcmQ6\n{end}"),
    );
    goes(
        &with_password(terms()),
        &[],
        &format!(
            "{opening}S: 334 UGFzc3dvcmQ6\nC: *\nC: QUIT\n= Auth: 454 4.7.0 the hop asks for what LOGIN does not have"
        ),
    );
}

#[test]
fn a_hop_that_does_not_authenticate_us_gets_no_mail() {
    let opening = "S: 220\nC: EHLO edge.test\nS: 250-y.test\n";
    for (offer, rest) in [
        (
            "DSN",
            "= Auth: 454 4.7.0 the hop offers no way to authenticate that is known here".to_owned(),
        ),
        (
            "AUTH GSSAPI",
            "= Auth: 454 4.7.0 the hop offers no way to authenticate that is known here".to_owned(),
        ),
    ] {
        goes(
            &with_password(terms()),
            &[],
            &format!("{opening}S: 250 {offer}\nC: QUIT\n{rest}"),
        );
    }
    for refusal in ["535 5.7.8 no", "454 4.7.0 not now", "421 4.3.2 bye"] {
        let end = match refusal {
            "421 4.3.2 bye" => "= Closing: 421 4.3.2 bye".to_owned(),
            _ => format!("C: QUIT\n= Auth: 454 4.7.0 the hop refused to authenticate us: {refusal}"),
        };
        goes(
            &with_password(terms()),
            &[],
            &format!("{opening}S: 250 AUTH PLAIN\nC: AUTH PLAIN {PLAIN}\nS: {refusal}\n{end}"),
        );
    }
}

#[test]
fn a_password_is_not_told_in_the_clear_because_tls_was_not_offered() {
    for tls in [TlsUse::Opportunistic, TlsUse::Failed] {
        let terms = with_password(Terms { tls, ..terms() });
        let starttls = if tls == TlsUse::Failed { "S: 250-STARTTLS\n" } else { "" };
        let why = "the hop offers no TLS, and no way to authenticate without showing the password";
        let offer = format!("S: 220\nC: EHLO edge.test\nS: 250-y.test\n{starttls}");
        goes(
            &terms,
            &[],
            &format!("{offer}S: 250 AUTH PLAIN LOGIN\nC: QUIT\n= Auth: 454 4.7.0 {why}"),
        );
        let said = play(&terms, &[], &format!("{offer}S: 250 AUTH PLAIN NTLM\n"), usize::MAX);
        assert!(said.contains("\nC: AUTH NTLM TlRMTVNTUA"), "{said}");
    }
}

#[test]
fn a_password_is_in_no_debug_output_and_in_no_failure() {
    let terms = with_password(terms());
    let now = Instant::now();
    let mut client = Client::new(Arc::new(terms.clone()), now);
    client.advance(b"220\r\n", now);
    client.advance(b"250-y.test\r\n250 AUTH PLAIN\r\n", now);
    assert!(String::from_utf8_lossy(client.output()).contains(PLAIN));
    let shown = format!("{terms:?} {client:?} {:?}", terms.credentials);
    client.advance(format!("535 5.7.8 not s3cret! nor {PLAIN}\r\n").as_bytes(), now);
    let shown = format!("{shown} {client:?} {:?}", client.failure());
    for secret in ["s3cret", PLAIN, "czNjcmV0"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("refused to authenticate"), "{shown}");
}

const OPENING: &str = "S: 220\nC: EHLO edge.test\nS: 250-y.test\n";
/// NEGOTIATE.
const NTLM: &str = "TlRMTVNTUAABAAAABYIIAAAAAAAAAAAAAAAAAAAAAAA=";
/// `n,,n=edge,r=` and the nonce.
const SCRAM: &str = "biwsbj1lZGdlLHI9cXFxcXFxcXFxcW94TWpNME5UWTNPRGt3";

#[test]
fn the_best_mechanism_that_the_hop_offers_is_taken() {
    for (offer, auth) in [
        ("LOGIN PLAIN SCRAM-SHA-256 NTLM", format!("NTLM {NTLM}")),
        ("LOGIN scram-sha-256 PLAIN", format!("SCRAM-SHA-256 {SCRAM}")),
        ("LOGIN PLAIN SCRAM-SHA-1 GSSAPI", format!("PLAIN {PLAIN}")),
        ("LOGIN CRAM-MD5", "LOGIN".to_owned()),
    ] {
        goes(
            &with_password(terms()),
            &[],
            &format!("{OPENING}S: 250 AUTH {offer}\nC: AUTH {auth}\nS: 421 4.3.2 bye\n= Closing: 421 4.3.2 bye"),
        );
    }
}

#[test]
fn after_a_refusal_for_good_the_next_mechanism_is_tried_and_none_twice() {
    goes(
        &with_password(terms()),
        &[],
        &format!(
            "{OPENING}S: 250 AUTH LOGIN PLAIN SCRAM-SHA-256 NTLM
             C: AUTH NTLM {NTLM}
             S: 504 5.7.4 not for you
             C: AUTH SCRAM-SHA-256 {SCRAM}
             S: 535 5.7.8 no
             C: AUTH PLAIN {PLAIN}
             S: 535 5.7.8 no
             C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: ZWRnZQ==
             S: 334 UGFzc3dvcmQ6
             C: czNjcmV0IQ==
             S: 535 5.7.8 still no
             C: QUIT
             = Auth: 454 4.7.0 the hop refused to authenticate us: 535 5.7.8 still no"
        ),
    );
    goes(
        &with_password(terms()),
        &[],
        &format!(
            "{OPENING}S: 250 AUTH PLAIN NTLM\nC: AUTH NTLM {NTLM}\nS: 454 4.7.0 later\nC: QUIT\n= Auth: 454 4.7.0 the hop refused to authenticate us: 454 4.7.0 later"
        ),
    );
}

#[test]
fn the_first_response_is_said_again_to_whoever_has_not_taken_it_with_the_command() {
    for (name, first) in [("NTLM", NTLM), ("SCRAM-SHA-256", SCRAM)] {
        for challenge in [
            "334".to_owned(),
            format!("334 {name} supported"),
            format!("334 {} supported", name.to_lowercase()),
        ] {
            goes(
                &with_password(terms()),
                &[],
                &format!(
                    "{OPENING}S: 250 AUTH {name}\nC: AUTH {name} {first}\nS: {challenge}\nC: {first}\nS: 334\nC: *\nC: QUIT
                     = Auth: 454 4.7.0 the hop asks for what {name} does not have"
                ),
            );
        }
    }
}

#[test]
fn a_hop_that_answers_nonsense_is_left() {
    for (name, first) in [("NTLM", NTLM), ("SCRAM-SHA-256", SCRAM)] {
        for challenge in [
            "?",
            "PLAIN supported",
            "TlRMTVNTUAACAAAA",
            "cj1hYmM=",
            &"A".repeat(2000),
        ] {
            goes(
                &with_password(terms()),
                &[],
                &format!(
                    "{OPENING}S: 250 AUTH {name}\nC: AUTH {name} {first}\nS: 334 {challenge}\nC: *\nC: QUIT
                     = Auth: 454 4.7.0 the hop asks for what {name} does not have"
                ),
            );
        }
    }
    // In the middle of an exchange it says yes to somebody who has not said who they are: that is its own affair.
    goes(
        &with_password(terms()),
        &[],
        &format!("{OPENING}S: 250 AUTH NTLM\nC: AUTH NTLM {NTLM}\nS: 235 yes\nC: QUIT\nS: 221 bye\n= closed"),
    );
}

#[test]
fn what_cannot_be_found_out_ends_the_exchange() {
    let why = "= Auth: 454 4.7.0 what it takes to authenticate cannot be found out now";
    goes(
        &with_password(terms()),
        &[],
        &format!("{OPENING}S: 250 AUTH NTLM\n! unknown\nC: QUIT\n{why}"),
    );
    let first = STANDARD.encode("r=qqqqqqqqqqoxMjM0NTY3ODkwx,s=c2FsdA==,i=4096");
    let opening = format!("{OPENING}S: 250 AUTH SCRAM-SHA-256\nC: AUTH SCRAM-SHA-256 {SCRAM}\nS: 334 {first}\n");
    // The nonce is asked for first, and is there.
    let said = play_unknown_second(&opening);
    assert!(said.ends_with(&format!("C: *\nC: QUIT\n{why}\n")), "{said}");
}

/// The nonce is found out, the salted password is not.
fn play_unknown_second(script: &str) -> String {
    let now = Instant::now();
    let mut client = Client::new(Arc::new(with_password(terms())), now);
    let hop: String = script
        .lines()
        .filter_map(|line| line.strip_prefix("S: "))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let (mut said, mut asked) = (String::new(), 0);
    for line in hop.split_inclusive('\n') {
        let mut input = line.as_bytes().to_vec();
        loop {
            let (used, step) = client.advance(&input, now);
            input.drain(..used);
            match step {
                Step::Ask if asked == 1 => client.found(&Found::Unavailable, now),
                Step::Ask => {
                    asked += 1;
                    find(&mut client, now);
                }
                _ => break,
            }
        }
        let output = std::mem::take(client.output());
        for line in String::from_utf8(output).unwrap().lines() {
            said += &format!("C: {line}\n");
        }
    }
    assert_eq!(asked, 1);
    let failure = client.failure().unwrap();
    said + &format!("= {:?}: {}\n", failure.fault, failure.reply)
}

#[test]
fn a_hop_that_does_not_prove_that_it_knows_the_password_is_not_believed() {
    let nonce = "qqqqqqqqqqoxMjM0NTY3ODkwx";
    let first = STANDARD.encode(format!("r={nonce},s=c2FsdA==,i=4096"));
    let keys = ScramKeys::derive(b"s3cret!", b"salt", 4096);
    let last = |play: &dyn Fn(&str) -> String| {
        // What the client says does not depend on what comes after it.
        let said = play("");
        let line = said.lines().find(|line| line.starts_with("C: Yz1")).unwrap().to_owned();
        line.strip_prefix("C: ").unwrap().to_owned()
    };
    let opening = format!("{OPENING}S: 250 AUTH SCRAM-SHA-256\nC: AUTH SCRAM-SHA-256 {SCRAM}\nS: 334 {first}\n");
    let proof = last(&|rest| super::play(&with_password(terms()), &[], &format!("{opening}{rest}"), usize::MAX));
    let without_proof = String::from_utf8(STANDARD.decode(&proof).unwrap()).unwrap();
    let without_proof = without_proof.rsplit_once(",p=").unwrap().0.to_owned();
    let said = format!("n=edge,r=qqqqqqqqqqoxMjM0NTY3ODkw,r={nonce},s=c2FsdA==,i=4096,{without_proof}");
    let signature = sasl::hmac_sha256(keys.server_key.octets(), &[said.as_bytes()]);
    let right = STANDARD.encode(format!("v={}", STANDARD.encode(signature)));
    let wrong = STANDARD.encode(format!("v={}", STANDARD.encode([7; 32])));
    goes(
        &with_password(terms()),
        &[],
        &format!("{opening}C: {proof}\nS: 334 {right}\nC:\nS: 235 2.7.0 yes\nC: QUIT\nS: 221 bye\n= closed"),
    );
    goes(
        &with_password(terms()),
        &[],
        &format!(
            "{opening}C: {proof}\nS: 334 {wrong}\nC: *\nC: QUIT
             = Auth: 454 4.7.0 the hop asks for what SCRAM-SHA-256 does not have"
        ),
    );
    goes(
        &with_password(terms()),
        &[],
        &format!(
            "{opening}C: {proof}\nS: 235 2.7.0 yes\nC: QUIT
             = Auth: 454 4.7.0 the hop has not proved that it knows the password"
        ),
    );
}

/// What our own session says to our own client, line by line, until the client is ready or gone.
fn against_our_own(mechanism: Mechanism, username: &str, password: &str, hostname: &str) -> String {
    let now = Instant::now();
    let mut limits = Limits::of(Role::Relay);
    limits.tarpit = Duration::ZERO;
    let hub_terms = session::Terms {
        auth: session::Auth {
            mechanisms: [mechanism].into(),
            requires_tls: false,
            required: true,
            users: [].into(),
        },
        hostname: hostname.into(),
        edition: Edition::Y2021,
        limits,
        offered: Offered::of(Edition::Y2021, &[], false),
        bare_newline: BareNewline::Refuse,
        require_tls: false,
    };
    let mut hub = Session::new(Arc::new(hub_terms), "192.0.2.1".parse().unwrap(), now);
    hub.greet(now);
    let terms = Terms {
        credentials: Some(Arc::new(Credentials::new(username, password))),
        ..terms()
    };
    let mut client = Client::new(Arc::new(terms), now);
    let (mut to_hub, mut to_client, mut said) = (Vec::new(), Vec::new(), String::new());
    let note = |said: &mut String, who: &str, octets: &[u8]| {
        for line in String::from_utf8_lossy(octets).lines() {
            *said += &format!("{who}: {line}\n");
        }
    };
    for _ in 0..100 {
        let (used, step) = hub.advance(&to_hub, now);
        to_hub.drain(..used);
        note(&mut said, "S", hub.output());
        to_client.append(hub.output());
        match step {
            session::Step::Ask(Question::Credentials) => {
                let known = |user: &str| user.eq_ignore_ascii_case("edge").then(|| Arc::from("edge"));
                let found = match hub.credentials_asked().unwrap() {
                    sasl::Wanted::Nonce => sasl::Found::Nonce {
                        random: *b"\x01\x23\x45\x67\x89\xab\xcd\xef----------",
                        unix_millis: 1_795_000_000_123,
                    },
                    sasl::Wanted::NtHash { user } => sasl::Found::NtHash {
                        user: known(user),
                        hash: nt_hash("s3cret!"),
                    },
                    sasl::Wanted::ScramKeys { user } => sasl::Found::ScramKeys {
                        user: known(user),
                        keys: ScramKeys::derive(b"s3cret!", b"salt", 4096),
                        random: [7; 18],
                    },
                    sasl::Wanted::Password { user, password } => {
                        sasl::Found::Password(known(user).filter(|_| password.octets() == b"s3cret!"))
                    }
                };
                hub.find(found, now);
                continue;
            }
            session::Step::Read | session::Step::Close => {}
            step => panic!("{step:?}"),
        }
        let (used, step) = client.advance(&to_client, now);
        to_client.drain(..used);
        match step {
            Step::Ask => find(&mut client, now),
            Step::Ready => return said + "= ready\n",
            Step::Close => {
                let failure = client.failure().unwrap();
                return said + &format!("= {:?}: {}\n", failure.fault, failure.reply);
            }
            Step::Read => {}
            step => panic!("{step:?}"),
        }
        note(&mut said, "C", client.output());
        to_hub.append(client.output());
    }
    said + "? no end\n"
}

#[test]
fn our_own_server_lets_us_in_by_every_mechanism_and_refuses_a_wrong_password() {
    let long = format!("{}.{}.example.com", "a".repeat(63), "b".repeat(63));
    for mechanism in Mechanism::ALL {
        for hostname in ["hub.test", &long] {
            let said = against_our_own(mechanism, "edge", "s3cret!", hostname);
            assert!(
                said.ends_with("S: 235 2.7.0 Authentication successful\n= ready\n"),
                "{said}"
            );
            assert_eq!(said.matches("C: AUTH ").count(), 1, "{said}");
        }
        let said = against_our_own(mechanism, "edge", "secret", "hub.test");
        assert!(
            said.ends_with("refused to authenticate us: 535 5.7.3 Authentication unsuccessful\n"),
            "{said}"
        );
    }
}

/// NTLM and SCRAM as they go over the wire between our two sides: what [MS-NLMP] and RFC 5802 leave open is settled here.
#[test]
fn the_exchanges_with_our_own_server_are_these() {
    let ntlm = against_our_own(Mechanism::Ntlm, "CORP\\edge", "s3cret!", "hub.test");
    let expected = include_str!("ntlm.txt");
    assert_eq!(ntlm, expected, "\n{ntlm}");
    let scram = against_our_own(Mechanism::ScramSha256, "edge", "s3cret!", "hub.test");
    let expected = include_str!("scram.txt");
    assert_eq!(scram, expected, "\n{scram}");
}
