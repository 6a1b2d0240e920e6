//! AUTH and submission: who is let in, what a user may do that a stranger may not, and what the log says of it.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::client::Client;
use crate::edge::{Edge, Home, field};
use crate::memory::remembers;
use crate::settings::Settings;

/// `alice` may send as anybody, `bob` as two addresses. The hashes, all of `secret`, are of other programs: crypt(3), MD4.
const USERS: &str = "\
alice:{PLAIN}secret
bob:{SHA512-CRYPT}$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.:senders=bob@example.com,b@example.com
carol:{BLF-CRYPT}$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a
dave:{NT}878d8014606cda29677a44efa1353fc7
";

/// An edge with those users, whose passwords may come without TLS, and with one domain for strangers.
fn edge(binding: &str) -> Edge {
    let home = Home::new();
    home.write("users.txt", USERS);
    Edge::start_in(home, &settings(binding).toml())
}

fn settings(binding: &str) -> Settings {
    Settings::new()
        .binding(&format!(
            "auth = [\"PLAIN\", \"LOGIN\", \"SCRAM-SHA-256\", \"NTLM\"]\nauth_requires_tls = false\n{binding}"
        ))
        .sections("[auth]\nusers = \"users.txt\"\n[domains]\naccepted = [\"example.com\"]")
}

fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", BASE64.encode(format!("\0{user}\0{password}")))
}

fn logged_on(edge: &Edge, user: &str) -> Client {
    let mut client = edge.hello();
    client.command(&plain(user, "secret"), "235 2.7.0 ");
    client
}

#[test]
fn an_ordinary_client_logs_on_by_plain_and_by_login_and_sends_anywhere() {
    use lettre::transport::smtp::authentication::{Credentials, Mechanism};
    use lettre::{Message, SmtpTransport, Transport};

    let edge = edge("");
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let transport = SmtpTransport::builder_dangerous("127.0.0.1")
            .port(edge.address().port())
            .credentials(Credentials::new("alice".into(), "secret".into()))
            .authentication(vec![mechanism])
            .build();
        let message = Message::builder()
            .from("alice@example.com".parse().unwrap())
            .to("friend@elsewhere.example".parse().unwrap())
            .subject("hello")
            .body("Hello.\r\n".to_owned())
            .unwrap();
        transport.send(&message).unwrap();
    }
    for mail in edge.mail("mail") {
        let mail = String::from_utf8(mail).unwrap();
        assert!(mail.contains(" with ESMTPA id "), "{mail}");
        assert_eq!(mail.matches("\nDate: ").count(), 1, "{mail}");
    }
    let message = edge.wait_for_number("message .. result=accepted", 2).remove(0);
    assert_eq!(field(&message, "user").as_deref(), Some("alice"));
    let mut stranger = edge.hello();
    stranger.command("MAIL FROM:<alice@example.com>", "250 ");
    stranger.command("RCPT TO:<friend@elsewhere.example>", "550 5.7.1 Unable to relay");
    let session = edge.wait_for("session .. user=alice");
    assert_eq!(field(&session, "logon_errors"), None);
}

#[test]
fn every_hash_lets_in_its_password_and_no_other() {
    let edge = edge("[binding.limits]\nmax_logon_errors = 1");
    for user in ["alice", "bob", "carol", "dave", "CORP\\Dave", "carol@corp.example"] {
        let mut client = edge.hello();
        client.command(&plain(user, "Secret"), "535 5.7.3 Authentication unsuccessful");
        client.command(&plain(user, "secret"), "235 2.7.0 Authentication successful");
        let keywords = client.ask("EHLO client.test");
        assert!(!keywords.contains("AUTH"), "{keywords}");
    }
    let mut client = edge.hello();
    client.command(&plain("nobody", "secret"), "535 5.7.3 ");
    edge.wait_for_metric("postern_logons_total{result=\"accepted\"}", 6.0);
    edge.wait_for_metric("postern_logons_total{result=\"refused\"}", 7.0);
}

#[test]
fn three_logons_may_fail_and_the_fourth_ends_the_session() {
    let edge = edge("");
    let mut client = edge.hello();
    for _ in 0..3 {
        client.command(&plain("bob", "guess"), "535 5.7.3 ");
    }
    client.command(&plain("bob", "guess"), "421 4.7.0 Too many errors on this connection");
    client.expect_close();
    let session = edge.wait_for("session .. logon_errors=4");
    assert_eq!(field(&session, "limit").as_deref(), Some("ProtocolViolationCount"));
    assert!(
        edge.log()
            .iter()
            .all(|line| !line.contains("guess") && !line.contains("secret"))
    );
}

/// Counted, not timed: whether somebody exists is told by neither the replies nor the work that is done.
#[test]
fn a_name_that_nobody_has_costs_what_one_that_somebody_has_costs() {
    let edge = edge("[binding.limits]\nmax_logon_errors = 10");
    let compared = "postern_password_comparisons_total";
    let mut client = edge.hello();
    for (number, user) in (1..).zip(["bob", "nobody", "bob@corp.example", "CORP\\nobody"]) {
        client.command(&plain(user, "guess"), "535 5.7.3 Authentication unsuccessful");
        edge.wait_for_metric(compared, f64::from(number));
        client.command("AUTH LOGIN", "334 VXNlcm5hbWU6");
        client.command(&BASE64.encode(user), "334 UGFzc3dvcmQ6");
        client.command(&BASE64.encode(""), "535 5.7.3 Authentication unsuccessful");
    }
    let first = |user: &str| format!("AUTH SCRAM-SHA-256 {}", BASE64.encode(format!("n,,n={user},r=abc")));
    for user in ["alice", "nobody"] {
        let challenge = client.command(&first(user), "334 ");
        let challenge = String::from_utf8(BASE64.decode(&challenge[4..]).unwrap()).unwrap();
        assert!(
            challenge.contains(",s=") && challenge.ends_with(",i=4096"),
            "{challenge}"
        );
        client.command("*", "501 5.7.0 ");
    }
    assert_eq!(edge.metric(compared), 4.0, "no empty password is held against anything");
}

#[test]
fn mail_waits_for_a_user_whom_the_binding_serves() {
    let edge = edge("require_auth = true\nusers = [\"bob\"]");
    let mut client = edge.hello();
    client.command("MAIL FROM:<bob@example.com>", "530 5.7.1 Client was not authenticated");
    client.command(&plain("alice", "secret"), "421 4.3.2 Service not available");
    client.expect_close();
    let session = edge.wait_for("session .. limit=BindingNotConfigured");
    assert_eq!(field(&session, "user"), None);
    logged_on(&edge, "bob").accepted("bob@example.com", &["friend@elsewhere.example"], "x\r\n");
}

#[test]
fn a_user_sends_as_its_own_addresses_and_a_changed_file_is_heeded() {
    let edge = edge("");
    let mut bob = logged_on(&edge, "bob");
    let refusal = "550 5.7.1 Client does not have permissions to submit to this server";
    bob.command("MAIL FROM:<alice@example.com>", refusal);
    bob.command("MAIL FROM:<>", "250 ");
    bob.command("RSET", "250 ");
    bob.accepted("B@example.com", &["c@example.com"], "x\r\n");
    edge.home().write("users.txt", "erin:{PLAIN}secret\nfrank\n");
    let left_out = edge.wait_for("a line of the users is left out");
    assert_eq!(field(&left_out, "line").as_deref(), Some("2"));
    assert!(left_out.contains("user:{SCHEME}hash"), "{left_out}");
    edge.wait_for_number("users read", 2);
    logged_on(&edge, "erin");
    edge.hello().command(&plain("bob", "secret"), "535 5.7.3 ");
    bob.command("MAIL FROM:<b@example.com>", refusal);
}

#[test]
fn a_relay_counts_messages_by_user_wherever_they_come_from() {
    let edge = edge("role = \"relay\"\n[binding.limits]\nmessage_rate = 2");
    let connected = |source: &str, user: &str| {
        let mut client = edge.connect_from(source).hello();
        client.command(&plain(user, "secret"), "235 ");
        client
    };
    for source in ["127.0.0.2", "127.0.0.3"] {
        connected(source, "alice").accepted("a@example.com", &["b@example.com"], "x\r\n");
    }
    let mut third = connected("127.0.0.4", "CORP\\ALICE");
    third.command("MAIL FROM:<a@example.com>", "421 4.4.2 Message submission rate");
    third.expect_close();
    connected("127.0.0.4", "carol").accepted("a@example.com", &["b@example.com"], "x\r\n");
}

#[test]
fn what_a_users_message_lacks_is_added_and_a_strangers_is_left_alone() {
    let edge = edge("");
    let mut alice = logged_on(&edge, "alice");
    let bare = "Bcc: secret@example.com\r\n\r\nno date\r\n";
    let whole = "Date: Thu, 26 Nov 2026 00:00:00 +0000\r\nMessage-Id: <own@example.com>\r\n\r\nhas both\r\n";
    let large = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(40_000));
    let id = alice.accepted("a@example.com", &["b@example.com"], bare);
    let large_id = alice.accepted("a@example.com", &["b@example.com"], &large);
    alice.accepted("a@example.com", &["b@example.com"], whole);
    edge.hello()
        .accepted("a@example.com", &["b@example.com"], bare.replace("no date", "strange"));
    let mails: Vec<_> = edge
        .mail("mail")
        .into_iter()
        .map(|m| String::from_utf8(m).unwrap())
        .collect();
    let mail = |words: &str| mails.iter().find(|mail| mail.contains(words)).unwrap();
    for (words, id) in [("no date", id), ("Subject: large", large_id)] {
        let (head, _) = mail(words).split_once("\n\n").unwrap();
        assert!(
            head.contains(&format!("\nMessage-ID: <{id}@mx.example.com>\n")),
            "{head}"
        );
        assert!(head.contains("\nDate: ") && head.contains(" +0000\n"), "{head}");
    }
    assert!(mail("no date").contains("\nBcc: secret@example.com\n"));
    assert_eq!(mail("has both").to_lowercase().matches("\nmessage-id: ").count(), 1);
    assert_eq!(mail("has both").matches("\nDate: ").count(), 1);
    assert!(!mail("strange").contains("Message-ID") && !mail("strange").contains("\nDate: "));
}

#[test]
fn postern_passwd_makes_a_line_that_lets_its_user_in() {
    let run = |words: &[&str], stdin: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
            .arg("passwd")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that refuses the name has gone before it reads.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    };
    let mut users = String::new();
    for (user, words) in [
        ("ann", &["ann"][..]),
        ("nat", &["nat", "--scheme", "NT"]),
        ("sam", &["sam", "--scheme", "scram-sha-256"]),
    ] {
        let output = run(words, "secret\nmore\n");
        let line = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && line.starts_with(&format!("{user}:{{")),
            "{line}"
        );
        assert!(!line.contains("secret"), "{line}");
        users += &line;
    }
    assert!(users.starts_with("ann:{ARGON2ID}$argon2id$"), "{users}");
    for (words, stdin) in [(&["a:b"][..], "secret\n"), (&["a"], ""), (&["a"], "\n")] {
        let output = run(words, stdin);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(output.stdout.is_empty() && output.stderr.starts_with(b"postern: "));
    }
    let home = Home::new();
    home.write("users.txt", &users);
    let edge = Edge::start_in(home, &settings("").toml());
    for user in ["ann", "nat", "sam"] {
        logged_on(&edge, user);
    }
}

#[test]
fn responses_of_auth_are_wiped_and_what_is_no_secret_is_not() {
    let home = Home::new();
    home.write("users.txt", "alice:{NT}878d8014606cda29677a44efa1353fc7\n");
    let settings = Settings::new()
        .top("shards = 1")
        .binding("auth = [\"PLAIN\", \"LOGIN\"]\nauth_requires_tls = false\n[binding.limits]\nmax_logon_errors = 9")
        .sections("[auth]\nusers = \"users.txt\"");
    let edge = Edge::start_in(home, &settings.toml());
    let mut client = edge.hello();
    client.command("NOOP this-is-not-to-be-forgotten", "250 ");
    assert!(
        remembers(&edge, "NOOP this-is-not-to-be-forgotten"),
        "where is its memory?"
    );
    let plain = |password: &str| BASE64.encode(format!("\0alice\0{password}"));
    let whole = plain("initial-response-1234567890");
    client.command(&format!("AUTH PLAIN {whole}"), "535 ");
    let behind = plain("behind-a-challenge-1234567890");
    client.command("AUTH PLAIN", "334");
    client.command(&behind, "535 ");
    let password = BASE64.encode("the-password-of-login-1234567890");
    client.command("AUTH LOGIN YWxpY2U=", "334 ");
    client.command(&password, "535 ");
    let slow = plain("one-octet-after-the-other-1234567890");
    client.send_octet_by_octet(format!("AUTH PLAIN {slow}\r\n"));
    client.expect_reply("535 ");
    let broken = format!("{}=x", plain("which-is-no-base64-1234567890").trim_end_matches('='));
    client.command("AUTH PLAIN", "334");
    client.command(&broken, "501 ");
    // Nobody is let in by a response that is refused before it is looked at.
    let refused = plain("in-a-transaction-1234567890");
    client.command("MAIL FROM:<a@example.org>", "250 ");
    client.command(&format!("AUTH PLAIN {refused}"), "503 ");
    let too_long = plain(&"too-long-1234567890".repeat(1000));
    client.send_octet_by_octet(format!("AUTH PLAIN {}", &too_long[..100]));
    client.send(format!("{}\r\n", &too_long[100..]));
    client.expect_reply("500 ");
    let unfinished = plain("and-gone-in-the-middle-1234567890");
    let mut leaves = edge.hello();
    leaves.send_octet_by_octet(format!("AUTH PLAIN {unfinished}"));
    drop(leaves);
    edge.wait_for("end=disconnected");
    for secret in [
        &whole,
        &behind,
        &password,
        &slow,
        &slow[..40],
        &refused,
        &too_long[..40],
        &unfinished,
        &unfinished[..40],
        &broken,
        "\0alice\0initial-response-1234567890",
    ] {
        assert!(!remembers(&edge, secret), "{secret}");
    }
}
