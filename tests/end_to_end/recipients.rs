//! For whom mail is taken, and for whom it never is.

use crate::edge::{Edge, Home, eventually};
use crate::settings::Settings;

const DOMAINS: &str = "[domains]\naccepted = [\"example.com\"]";
const KNOWN: &str = "[domains]\naccepted = [\"example.com\"]\nrecipients = \"recipients.txt\"";

#[test]
fn only_accepted_domains_and_known_recipients_are_taken() {
    let home = Home::new();
    home.write("recipients.txt", "# people\nann@example.com\n\"odd one\"@example.com\n");
    let edge = Edge::start_in(home, &Settings::new().sections(KNOWN).toml());
    let mut client = edge.hello();
    client.command("MAIL FROM:<a@client.test>", "250 ");
    for (to, reply) in [
        ("<Ann@EXAMPLE.com>", "250 2.1.5 Recipient OK"),
        ("<\"ann\"@example.com>", "250 2.1.5 Recipient OK"),
        ("<\"odd one\"@example.com>", "250 2.1.5 Recipient OK"),
        ("<bob@example.com>", "550 5.1.1 User unknown"),
        ("<ann@sub.example.com>", "550 5.7.1 Unable to relay"),
        ("<ann@other.test>", "550 5.7.1 Unable to relay"),
        ("<postmaster>", "250 2.1.5 Recipient OK"),
        ("<PostMaster@example.com>", "250 2.1.5 Recipient OK"),
        ("<postmaster@other.test>", "550 5.7.1 Unable to relay"),
    ] {
        assert_eq!(client.ask(&format!("RCPT TO:{to}")), reply, "{to}");
    }
    assert!(client.data("x\r\n").starts_with("250 "));
    // The two spellings of Ann are one recipient.
    assert_eq!(
        String::from_utf8_lossy(&edge.mail("mail")[0])
            .matches("Delivered-To: ")
            .count(),
        4
    );
}

#[test]
fn the_list_of_recipients_is_read_again_when_it_changes_and_on_a_signal() {
    let home = Home::new();
    home.write("recipients.txt", "ann@example.com\n");
    let edge = Edge::start_in(home, &Settings::new().sections(KNOWN).toml());
    // One session from before all changes, one for each look.
    let mut old = edge.hello();
    old.command("MAIL FROM:<a@client.test>", "250 ");
    let known = |name: &str| {
        let mut client = edge.hello();
        client.command("MAIL FROM:<a@client.test>", "250 ");
        client.ask(&format!("RCPT TO:<{name}@example.com>")).starts_with("250 ")
    };
    assert!(known("ann") && !known("bob") && !known("cy"));
    edge.home()
        .write("recipients.txt", "ann@example.com\nbob@example.com\n");
    assert!(eventually(|| known("bob")));
    edge.home().write("recipients.txt", "bob@example.com\ncy@example.com\n");
    edge.signal("HUP");
    edge.wait_for("configuration reloaded");
    assert!(eventually(|| known("cy") && !known("ann")));
    // A file that is gone is no reason to know nobody: the last copy stands.
    std::fs::remove_file(edge.path("recipients.txt")).unwrap();
    edge.wait_for("a list cannot be read, the old one stays");
    assert!(known("cy"));
}

/// HARDENING: the classic forms of a relay test. None of them may reach relay.test.
#[test]
fn no_classic_form_of_a_relay_test_gets_through() {
    let settings = Settings::new()
        .limits("max_protocol_errors = 1000\nmax_recipients = 1000")
        .sections(DOMAINS);
    let edge = Edge::start(&settings.toml());
    let mut client = edge.hello();
    let forms = [
        ("a@client.test", "victim@relay.test"),
        ("a@relay.test", "victim@relay.test"),
        ("", "victim@relay.test"),
        ("a@example.com", "victim@relay.test"),
        ("a@[127.0.0.1]", "victim@relay.test"),
        ("a@mx.example.com", "victim@relay.test"),
        ("postmaster@example.com", "victim@relay.test"),
        ("a@client.test", "victim%relay.test@mx.example.com"),
        ("a@client.test", "victim%relay.test@[127.0.0.1]"),
        ("a@client.test", "\"victim@relay.test\""),
        ("a@client.test", "\"victim%relay.test\""),
        ("a@client.test", "\"victim@relay.test\"@mx.example.com"),
        ("a@client.test", "\"victim@relay.test\"@[127.0.0.1]"),
        ("a@client.test", "victim@relay.test@mx.example.com"),
        ("a@client.test", "victim@relay.test@example.com"),
        ("a@client.test", "victim@example.com@relay.test"),
        ("a@client.test", "victim@relay.test@[127.0.0.1]"),
        ("a@client.test", "@mx.example.com:victim@relay.test"),
        ("a@client.test", "@example.com,@relay.test:victim@relay.test"),
        ("a@client.test", "@[127.0.0.1]:victim@relay.test"),
        ("a@client.test", "relay.test!victim"),
        ("a@client.test", "relay.test!victim@mx.example.com"),
        ("a@client.test", "relay.test!victim@[127.0.0.1]"),
        ("a@client.test", "victim%relay.test"),
        ("a@client.test", "victim@relay.test."),
        ("a@client.test", "victim@[192.0.2.1]"),
        ("a@client.test", "victim"),
        ("a@client.test", "victim@example.com.relay.test"),
        ("a@client.test", "victim@xample.com"),
        ("a@client.test", "victim@example.comx"),
        ("a@client.test", "victim@"),
        ("a@client.test", "@relay.test"),
        ("a@client.test", ""),
    ];
    for (from, to) in forms {
        client.command("RSET", "250 ");
        client.command(&format!("MAIL FROM:<{from}>"), "250 ");
        let reply = client.ask(&format!("RCPT TO:<{to}>"));
        assert!(reply.starts_with('5'), "from {from:?} to {to:?}: {reply}");
        client.command("DATA", "503 ");
    }
    // Local-parts that others read a route into are names here, and nobody sends them on.
    for local in ["victim%relay.test", "relay.test!victim", "\"victim@relay.test\""] {
        client.command("RSET", "250 ");
        client.command("MAIL FROM:<a@client.test>", "250 ");
        let reply = client.ask(&format!("RCPT TO:<{local}@example.com>"));
        if reply.starts_with("250 ") {
            assert!(client.data("x\r\n").starts_with("250 "));
            let mail = String::from_utf8_lossy(edge.mail("mail").last().unwrap()).into_owned();
            assert!(
                mail.contains(&format!("\nDelivered-To: {local}@example.com\n")),
                "{mail}"
            );
        } else {
            assert!(reply.starts_with('5'), "{local}: {reply}");
        }
    }
    // A source route to one of ours is one of ours.
    client.accepted("a@client.test", &["@relay.test,@other.test:b@example.com"], "x\r\n");
}
