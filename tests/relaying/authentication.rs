//! AUTH towards the hop, and what users' messages have that strangers' have not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::edge::{Edge, Home, field};
use crate::hop::{Act, Heard, Hop, Plan};
use crate::settings::Settings;
use crate::{FROM, behind_received, custody, to};

/// Another edge, which takes mail of users only.
fn hub(binding: &str, users: &str) -> Edge {
    let home = Home::new();
    home.write("users.txt", users);
    let settings = Settings::new()
        .limits("min_free_disk = 0\nmin_free_memory = 0")
        .top("hostname = \"hub.example.com\"")
        .binding(&format!("require_auth = true\n{binding}"))
        .sections("[auth]\nusers = \"users.txt\"\n[tls]\nself_signed = true");
    Edge::start_in(home, &settings.toml())
}

/// An edge that sends everything to this server, with more keys for the route.
fn edge_to(target: &str, username: &str, password: &str, keys: &str) -> Edge {
    let home = Home::new();
    home.write("hop.password", &format!("{password}\n"));
    let toml = to(&[target.to_owned()]).toml();
    let keys = format!("username = {username:?}\npassword_file = \"hop.password\"\n{keys}\n[queue]");
    Edge::start_in(home, &toml.replace("[queue]", &keys))
}

fn at(hub: &Edge) -> String {
    format!("smtp://{}", hub.address())
}

#[test]
fn mail_goes_on_to_another_edge_by_every_mechanism() {
    for (mechanism, username) in [
        ("NTLM", "CORP\\edge"),
        ("SCRAM-SHA-256", "edge"),
        ("PLAIN", "edge@corp.example"),
        ("LOGIN", "edge"),
    ] {
        let hub = hub(&format!("auth = [{mechanism:?}]"), "edge:{PLAIN}s3cret\n");
        let edge = edge_to(&at(&hub), username, "s3cret", "");
        for number in 1..=2 {
            let id = edge
                .hello()
                .accepted(FROM, &["b@example.com"], "Subject: x\r\n\r\nx\r\n");
            assert_eq!(custody(&edge, &id), "next_hop", "{mechanism}");
            hub.wait_for_number("message..user=edge..result=accepted", number);
        }
        let mail = String::from_utf8(hub.mail("mail").remove(0)).unwrap();
        assert!(mail.contains(" with ESMTPSA id "), "{mail}");
    }
}

#[test]
fn a_mechanism_that_the_hop_has_no_key_for_is_followed_by_one_that_it_has() {
    let hash = "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.";
    let hub = hub("", &format!("edge:{{SHA512-CRYPT}}{hash}\n"));
    let edge = edge_to(&at(&hub), "edge", "secret", "");
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "next_hop");
    hub.wait_for_metric("postern_logons_total{result=\"refused\"}", 1.0);
    hub.wait_for_metric("postern_logons_total{result=\"accepted\"}", 1.0);
}

#[test]
fn a_wrong_password_keeps_the_mail_here_and_is_said_by_nobody() {
    let hub = hub("auth = [\"SCRAM-SHA-256\", \"NTLM\"]", "edge:{PLAIN}s3cret\n");
    let edge = edge_to(&at(&hub), "edge", "gu3ss", "");
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    let line = edge.wait_for(&format!("delivery id={id} ..status=deferred"));
    let reply = field(&line, "reply").unwrap();
    assert!(reply.starts_with("454 4.7.0 ") && reply.contains("535 5.7.3"), "{line}");
    let shown = [edge.log(), hub.log()].concat().join("\n");
    for secret in ["gu3ss", "s3cret", &BASE64.encode("gu3ss")] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn where_tls_fails_the_password_is_not_told_in_the_clear_and_a_proof_is() {
    for (keyword, says) in [
        ("AUTH PLAIN LOGIN", "AUTH PLAIN"),
        ("AUTH PLAIN NTLM", "AUTH NTLM TlRMTVNTUA"),
    ] {
        let hop = Plan::new()
            .offers(&["STARTTLS", keyword])
            .script(|heard| match heard {
                Heard::Other("STARTTLS") => Act::SayAndReset("220 2.0.0 go on".to_owned()),
                Heard::Other(line) if line.starts_with("AUTH") => Act::Say("454 4.7.0 not now".to_owned()),
                _ => Act::Usual,
            })
            .up();
        let edge = edge_to(&hop.target(), "edge", "s3cret", "");
        let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
        assert_eq!(custody(&edge, &id), "spool");
        edge.wait_for(&format!("delivery id={id} ..status=deferred"));
        let said = hop.commands();
        let told = said.iter().any(|line| line.starts_with(says));
        assert_eq!(told, keyword.contains("NTLM"), "{said:?}");
        assert!(!said.iter().any(|line| line.starts_with("AUTH PLAIN")), "{said:?}");
    }
}

#[test]
fn what_a_hop_is_told_is_wiped() {
    let hop = Plan::new()
        .offers(&["AUTH PLAIN"])
        .script(|heard| match heard {
            Heard::Other(line) if line.starts_with("AUTH") => Act::Say("235 2.7.0 yes".to_owned()),
            _ => Act::Usual,
        })
        .up();
    let edge = edge_to(&hop.target(), "edge", "s3cret-of-some-length", "tls = \"off\"");
    edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    let told = BASE64.encode("\0edge\0s3cret-of-some-length");
    assert!(hop.commands().contains(&format!("AUTH PLAIN {told}")));
    assert!(
        crate::memory::remembers(&edge, "s3cret-of-some-length"),
        "it is needed again"
    );
    assert!(!crate::memory::remembers(&edge, &told));
}

#[test]
fn what_a_users_message_lacks_is_added_on_the_way_to_a_hop_and_a_strangers_goes_as_it_came() {
    let hop = Hop::up();
    let home = Home::new();
    home.write("users.txt", "alice:{PLAIN}secret\n");
    let settings = to(&[hop.target()])
        .binding("auth = [\"PLAIN\"]\nauth_requires_tls = false")
        .sections("[auth]\nusers = \"users.txt\"");
    let edge = Edge::start_in(home, &settings.toml());
    let bare = "Bcc: secret@example.com\r\n\r\nno date\r\n";
    let whole = "Date: Thu, 26 Nov 2026 00:00:00 +0000\r\nMessage-Id: <own@example.com>\r\n\r\nhas both\r\n";
    let large = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(40_000));
    edge.hello().accepted(FROM, &["b@example.com"], bare);
    hop.wait_for(1);
    let mut alice = edge.hello();
    alice.command(&format!("AUTH PLAIN {}", BASE64.encode("\0alice\0secret")), "235 ");
    for (number, content) in (2..).zip([bare, whole, &large]) {
        let id = alice.accepted(FROM, &["b@example.com"], content);
        let taken = hop.wait_for(number);
        let taken = behind_received(&taken.last().unwrap().content);
        let added = taken.strip_suffix(content.as_bytes()).expect("the content as it came");
        let added = String::from_utf8(added.to_vec()).unwrap();
        let expected = match content == whole {
            true => 0,
            false => 1,
        };
        assert_eq!(
            added.matches(&format!("Message-ID: <{id}@mx.example.com>\r\n")).count(),
            expected
        );
        assert_eq!(added.matches("Date: ").count(), expected, "{added}");
        assert_eq!(added.lines().count(), 2 * expected, "{added}");
    }
    // By BDAT too.
    alice.envelope(FROM, &["b@example.com"]);
    alice.send(format!("BDAT {} LAST\r\n{bare}", bare.len()));
    alice.expect_reply("250 2.6.0");
    let taken = hop.wait_for(5);
    let chunked = String::from_utf8(behind_received(&taken.last().unwrap().content).to_vec()).unwrap();
    assert!(
        chunked.contains("\r\nMessage-ID: <") || chunked.starts_with("Message-ID: <"),
        "{chunked}"
    );
    assert!(chunked.ends_with(bare), "{chunked}");
    assert_eq!(behind_received(&taken[0].content), bare.as_bytes(), "a stranger's");
}
