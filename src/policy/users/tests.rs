//! The users file, line by line, and every scheme against hashes that other programs made.

use super::hash::{Scheme, check, is_of, make};
use super::*;

const SEED: Seed = [5; 32];

fn parse(text: &str) -> Parsed {
    Users::parse(text, SEED)
}

fn users(text: &str) -> Users {
    let parsed = parse(text);
    assert_eq!(parsed.faults, []);
    parsed.users
}

/// As `doveadm pw`, `openssl passwd` and `htpasswd` write them, of the password `secret`.
const MADE_ELSEWHERE: [&str; 5] = [
    "{BLF-CRYPT}$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
    "{SHA512-CRYPT}$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.",
    "{SHA256-CRYPT}$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.",
    "{NT}878d8014606cda29677a44efa1353fc7",
    "{PLAIN}secret",
];

#[test]
fn a_password_that_was_made_here_is_known_again_in_every_scheme() {
    for scheme in Scheme::ALL {
        let line = make(scheme, "p\u{e4}ss w\u{f6}rd").unwrap();
        let hash = Secret::new(line.as_bytes());
        let text = line.split_once('}').unwrap().1;
        assert_eq!(check(scheme, text), Ok(()), "{line}");
        assert!(is_of(&hash, "p\u{e4}ss w\u{f6}rd".as_bytes()), "{line}");
        assert!(!is_of(&hash, b"pass word"), "{line}");
        assert!(!is_of(&hash, b"\xff"), "{line}");
        if !matches!(scheme, Scheme::Nt | Scheme::Plain) {
            assert_ne!(
                line,
                make(scheme, "p\u{e4}ss w\u{f6}rd").unwrap(),
                "{line} has a salt of its own"
            );
        }
        let users = users(&format!("alice:{line}:senders=a@example.com"));
        assert_eq!(users.len(), 1);
    }
    assert!(make(Scheme::Plain, "a:b").is_err());
    assert!(
        make(Scheme::BlfCrypt, &"x".repeat(100)).is_err(),
        "bcrypt keeps 72 octets"
    );
}

#[test]
fn hashes_that_other_programs_made_are_known() {
    for line in MADE_ELSEWHERE {
        let (word, text) = line[1..].split_once('}').unwrap();
        assert_eq!(check(Scheme::parse(word).unwrap(), text), Ok(()), "{line}");
        assert!(is_of(&Secret::new(line.as_bytes()), b"secret"), "{line}");
        assert!(!is_of(&Secret::new(line.as_bytes()), b"Secret"), "{line}");
    }
}

#[test]
fn a_wrong_line_is_named_with_what_was_expected_and_left_out() {
    let parsed = parse(
        "# users\n\nalice:{PLAIN}secret\nbob\nbob:secret\nbob:{MD5}x\nbob:{NT}12\nbo b:{PLAIN}x\n:{PLAIN}x\n\
         bob:{PLAIN}\nbob:{PLAIN}se:cret\nbob:{PLAIN}x:senders=nobody\nbob:{PLAIN}x:senders=a@b.c:senders=a@b.c\n\
         alice:{PLAIN}other\nbob:{SHA512-CRYPT}$5$x$y\nbob:{BLF-CRYPT}$2y$31$2Kb6N3xOa8eTmOOzVnx8TOdQnZ9tQ2cMNO2jPp2DrD4Yvbh2dp5Oy\n\
         bob:{SCRAM-SHA-256}1,AAAA,AAAA,AAAA\nbob:{ARGON2ID}$argon2i$v=19$m=16,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA\n\
         bob:{ARGON2ID}$argon2id$v=19$m=4294967295,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA\ncarol:{PLAIN}x\n",
    );
    let lines: Vec<_> = parsed.faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, (4..=19).collect::<Vec<_>>(), "{:?}", parsed.faults);
    assert!(parsed.faults[2].expected.contains("{ARGON2ID}"));
    assert!(parsed.faults[3].expected.contains("32 hexadecimal digits"));
    assert_eq!(parsed.users.len(), 2);
    assert!(parsed.users.find("bob").is_none() && parsed.users.find("carol").is_some());
    assert_eq!(parse(&"bad\n".repeat(1000)).faults.len(), MOST_FAULTS);
}

#[test]
fn a_user_is_found_in_any_case_and_with_any_domain_that_is_not_another_user() {
    let users = users("Alice:{PLAIN}a\nbob@example.com:{PLAIN}b\nbob:{PLAIN}c\n");
    let name = |name| users.find(name).map(|user| user.name.to_string());
    for spelling in ["alice", "ALICE", "CORP\\alice", "alice@corp.example", "CORP\\alice@x"] {
        assert_eq!(name(spelling).as_deref(), Some("Alice"), "{spelling}");
    }
    assert_eq!(name("BOB@example.com").as_deref(), Some("bob@example.com"));
    assert_eq!(name("X\\bob@example.com").as_deref(), Some("bob@example.com"));
    assert_eq!(name("bob@other.example").as_deref(), Some("bob"));
    for stranger in ["carol", "", "alice\\carol", "@alice"] {
        assert_eq!(name(stranger), None, "{stranger}");
    }
}

#[test]
fn a_user_sends_as_the_addresses_of_its_line_or_as_anybody() {
    let users = users("a:{PLAIN}x:senders=A@Example.com, b@example.com,@Other.example\nb:{PLAIN}x\n");
    let may = |user, path: &str| users.may_send_as(user, &ReversePath::parse(path.as_bytes(), true).unwrap().0);
    for path in [
        "<a@example.com>",
        "<a@EXAMPLE.com>",
        "<b@example.com>",
        "<anybody@other.example>",
        "<>",
    ] {
        assert!(may("a", path), "{path}");
    }
    for path in ["<c@example.com>", "<a@sub.other.example>", "<a@example.org>"] {
        assert!(!may("a", path), "{path}");
        assert!(may("b", path), "{path}");
    }
    assert!(!may("gone", "<a@example.com>") && !may("gone", "<>"));
}

#[test]
fn lines_of_one_user_add_up_and_the_first_is_what_passwords_are_held_against() {
    let strong = make(Scheme::Sha256Crypt, "secret").unwrap();
    let nt = make(Scheme::Nt, "other").unwrap();
    let users = users(&format!("a:{strong}\nA:{nt}\n"));
    assert!(
        matches!(users.nt_hash("a"), Found::NtHash { user: Some(user), hash } if &*user == "a" && hash == sasl::nt_hash("other"))
    );
    assert!(matches!(
        users.scram_keys("a", [0; 18]),
        Found::ScramKeys { user: None, .. }
    ));
    let (user, hash) = users.password("a");
    assert!(user.is_some() && is_of(&hash.unwrap(), b"secret"));
    assert_eq!(parse(&format!("a:{nt}\na:{nt}\n")).faults.len(), 1);
    assert_eq!(
        parse(&format!("a:{nt}\na:{strong}\n")).faults.len(),
        1,
        "the strong one first"
    );
}

#[test]
fn a_plain_password_serves_every_mechanism_and_is_counted() {
    let parsed = parse("a:{PLAIN}secret\n");
    assert_eq!(parsed.plain, 1);
    let users = parsed.users;
    assert!(matches!(users.nt_hash("a"), Found::NtHash { user: Some(_), hash } if hash == sasl::nt_hash("secret")));
    match users.scram_keys("a", [0; 18]) {
        Found::ScramKeys {
            user: Some(_), keys, ..
        } => assert!(keys.are_of(b"secret")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stranger_gets_answers_like_a_users_which_stay_the_same() {
    let text = format!("a:{}\n", make(Scheme::ScramSha256, "x").unwrap());
    let (one, again) = (users(&text), users(&format!("{text}b:{{PLAIN}}y\n")));
    let salt = |users: &Users, name: &str| match users.scram_keys(name, [0; 18]) {
        Found::ScramKeys { user, keys, .. } => (user.is_some(), keys.salt.to_vec(), keys.iterations),
        other => panic!("{other:?}"),
    };
    let (known, salt_of_stranger, iterations) = salt(&one, "stranger");
    assert!(!known && salt_of_stranger.len() == 16 && iterations == SCRAM_ITERATIONS);
    assert_eq!(salt(&one, "Stranger").1, salt_of_stranger);
    assert_eq!(
        salt(&again, "stranger").1,
        salt_of_stranger,
        "also when the file has changed"
    );
    assert_ne!(salt(&one, "other").1, salt_of_stranger);
    let (user, hash) = one.password("stranger");
    assert!(user.is_none() && hash.is_some(), "there is something to compare");
    assert!(Users::default().password("stranger").1.is_none());
    assert!(matches!(one.nt_hash("stranger"), Found::NtHash { user: None, .. }));
}
