//! Whole exchanges against a server that verifies them: TLS from the first octet, PROXY headers, AUTH, SMTPUTF8 and LMTP.

mod common;
mod edge;

use common::{Sink, one_each, run_with_figures};
use edge::{Edge, PASSWORD, Speech};
use serde_json::Value;

fn load(edge: &Edge, flags: &[&str]) -> (bool, Value) {
    let target = edge.address.to_string();
    let (status, figures) = run_with_figures(&[&[target.as_str()], flags].concat());
    (status == Some(0), figures)
}

#[test]
fn implicit_tls_is_spoken_from_the_first_octet_and_sessions_are_resumed_unless_told_not_to() {
    let flags = one_each("6", &["--tls", "implicit"]);
    for (more, full, resumed) in [(&[][..], 1, 5), (&["--tls-full"], 6, 0)] {
        let edge = Edge::start(Speech {
            tls: true,
            ..Speech::default()
        });
        let (good, figures) = load(&edge, &[&flags, more].concat());
        assert!(good, "{}", figures["stopped"]);
        let told = edge.told();
        assert_eq!(
            (told.messages, told.full_handshakes, told.resumed_handshakes),
            (6, full, resumed),
            "{more:?}"
        );
        for stage in ["connect", "tls", "greeting"] {
            assert_eq!(figures["stages"][stage]["count"], 6, "{stage}");
        }
        assert!(told.commands.iter().all(|line| line != "STARTTLS"));
    }
}

#[test]
fn a_certificate_that_nobody_signed_ends_a_run_that_verifies() {
    let edge = Edge::start(Speech {
        tls: true,
        ..Speech::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pem");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&other, made.cert.pem()).unwrap();
    let flags = [
        "--messages",
        "1",
        "--tls",
        "implicit",
        "--tls-verify",
        other.to_str().unwrap(),
    ];
    let (good, figures) = load(&edge, &flags);
    assert!(!good && figures["messages"] == 0);
    assert!(
        figures["stopped"].as_str().unwrap().contains("certificate"),
        "{}",
        figures["stopped"]
    );
    assert_eq!(edge.told().commands, Vec::<String>::new());
}

#[test]
fn a_proxy_header_of_version_2_is_right_to_the_octet() {
    let edge = Edge::start(Speech {
        header: 28,
        ..Speech::default()
    });
    let flags = one_each("3", &["--proxy", "v2", "--proxy-clients", "2"]);
    let (good, figures) = load(&edge, &flags);
    assert!(good, "{}", figures["stopped"]);
    // The signature; version 2 and PROXY; TCP over IPv4; twelve octets: source, destination, and their ports.
    let header = |client: u8, port: u16| {
        let mut header = vec![0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
        header.extend([0x21, 0x11, 0x00, 0x0c, 198, 18, 0, client, 127, 0, 0, 1]);
        header.extend(port.to_be_bytes());
        header.extend(edge.address.port().to_be_bytes());
        header
    };
    assert_eq!(edge.told().headers, [header(0, 1024), header(1, 1025), header(0, 1026)]);
    assert_eq!(edge.told().messages, 3);
}

#[test]
fn a_proxy_header_goes_before_tls_in_clear() {
    let edge = Edge::start(Speech {
        header: 28,
        tls: true,
        ..Speech::default()
    });
    let flags = [
        "--messages",
        "2",
        "--connections",
        "1",
        "--proxy",
        "v2",
        "--tls",
        "implicit",
    ];
    let (good, figures) = load(&edge, &flags);
    assert!(good, "{}", figures["stopped"]);
    let told = edge.told();
    assert_eq!((told.messages, told.headers.len(), told.full_handshakes), (2, 1, 1));
    assert_eq!(told.headers[0][..5], [0x0d, 0x0a, 0x0d, 0x0a, 0x00]);
}

#[test]
fn every_mechanism_proves_who_the_client_is_on_every_connection() {
    for (mechanism, name, user) in [
        ("plain", "PLAIN", "me"),
        ("login", "LOGIN", "me"),
        ("ntlm", "NTLM", "EDGE\\me"),
    ] {
        for tls in [false, true] {
            let edge = Edge::start(Speech {
                auth: true,
                tls,
                extensions: &["AUTH NTLM LOGIN PLAIN"],
                ..Speech::default()
            });
            let flags = one_each(
                "4",
                &[
                    "--auth",
                    mechanism,
                    "--user",
                    user,
                    "--password",
                    PASSWORD,
                    "--tls",
                    if tls { "implicit" } else { "off" },
                ],
            );
            let (good, figures) = load(&edge, &flags);
            assert!(good, "{mechanism}: {}", figures["stopped"]);
            let told = edge.told();
            assert_eq!((told.messages, told.unproven), (4, 0));
            assert_eq!(told.proven, [name; 4]);
            assert_eq!(figures["stages"]["auth"]["count"], 4);
            assert_eq!(
                (&figures["replies"]["235"], &figures["stages"]["ehlo"]["count"]),
                (&4.into(), &4.into())
            );
        }
    }
}

#[test]
fn a_wrong_password_proves_nothing_and_sends_no_mail() {
    for (mechanism, user) in [
        ("plain", "me"),
        ("login", "me"),
        ("ntlm", "EDGE\\me"),
        ("ntlm", "OTHER\\me"),
    ] {
        let edge = Edge::start(Speech {
            auth: true,
            extensions: &["AUTH NTLM LOGIN PLAIN"],
            ..Speech::default()
        });
        let password = if user.starts_with("OTHER") { PASSWORD } else { "wrong" };
        let flags = [
            "--messages",
            "1",
            "--connections",
            "1",
            "--auth",
            mechanism,
            "--user",
            user,
        ];
        let (good, figures) = load(&edge, &[&flags[..], &["--password", password]].concat());
        assert!(!good, "{mechanism}");
        assert!(figures["turned_away"].as_u64().unwrap() > 0, "{}", figures["stopped"]);
        let told = edge.told();
        assert!(
            told.unproven > 0 && told.proven.is_empty() && told.messages == 0,
            "{told:?}"
        );
        assert!(told.commands.iter().all(|line| !line.starts_with("MAIL")));
    }
}

#[test]
fn addresses_beyond_ascii_go_with_smtputf8_to_a_server_that_offers_it() {
    let flags = [
        "--messages",
        "2",
        "--connections",
        "1",
        "--smtputf8",
        "--from",
        "jürgen@example.org",
        "--to",
        "用户@例子.example",
    ];
    let edge = Edge::start(Speech {
        extensions: &["SMTPUTF8"],
        ..Speech::default()
    });
    let (good, figures) = load(&edge, &flags);
    assert!(good, "{}", figures["stopped"]);
    let told = edge.told();
    let mail: Vec<&String> = told.commands.iter().filter(|line| line.starts_with("MAIL")).collect();
    let words: Vec<&str> = mail[0].split(' ').collect();
    assert_eq!(words[..2], ["MAIL", "FROM:<jürgen@example.org>"]);
    assert!(mail.len() == 2 && words.contains(&"SMTPUTF8"), "{mail:?}");
    assert!(told.commands.iter().any(|line| line == "RCPT TO:<用户@例子.example>"));

    let edge = Edge::start(Speech::default());
    let (good, figures) = load(&edge, &flags);
    assert!(!good && figures["messages"] == 0);
    assert!(
        figures["stopped"].as_str().unwrap().contains("SMTPUTF8"),
        "{}",
        figures["stopped"]
    );
    assert!(edge.told().commands.iter().all(|line| line.starts_with("EHLO")));
}

#[test]
fn in_lmtp_one_recipient_that_is_refused_makes_the_message_refused() {
    for (refused, messages) in [(None, 5), (Some(0), 0), (Some(2), 0)] {
        let edge = Edge::start(Speech {
            lmtp: Some(refused),
            ..Speech::default()
        });
        let flags = ["--messages", "5", "--connections", "2", "--recipients", "3", "--lmtp"];
        let (good, figures) = load(&edge, &flags);
        assert_eq!(good, refused.is_none(), "{}", figures["stopped"]);
        assert_eq!(
            (&figures["messages"], &figures["refused"]),
            (&messages.into(), &(5 - messages).into())
        );
        let codes = |code: &str| figures["replies"][code].as_u64().unwrap_or(0);
        assert_eq!(codes("452"), if refused.is_some() { 5 } else { 0 });
        assert_eq!(edge.told().messages, 5);
    }
}

#[test]
fn ipv6_is_spoken_as_well() {
    let mut sink = Sink::start(&["[::1]:0"]);
    assert!(sink.target.unwrap().is_ipv6());
    let (good, figures) = sink.load(&["--messages", "5", "--connections", "2"]);
    assert!(good, "{}", figures["stopped"]);
    assert_eq!(sink.finish(true)["messages"], 5);
}
