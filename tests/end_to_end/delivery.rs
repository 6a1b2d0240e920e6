//! What lies in the Maildir after the 250.

use std::time::Duration;

use crate::client::queue_id;
use crate::edge::{Edge, Home, files};
use crate::settings::Settings;

fn edge() -> Edge {
    Edge::start(&Settings::new().toml())
}

/// The only file of a Maildir.
#[track_caller]
fn only_mail(edge: &Edge, maildir: &str) -> Vec<u8> {
    let mut mail = edge.mail(maildir);
    assert_eq!(mail.len(), 1, "{:?}", files(&edge.path(maildir).join("new")));
    mail.remove(0)
}

/// Whether a stored message is exactly: these fields of this hop, then `content`. `{date}` stands for a date of now.
#[track_caller]
fn assert_stored(stored: &[u8], fields: &str, content: &[u8]) {
    let (before, after) = fields.split_once("{date}").unwrap();
    let shown = String::from_utf8_lossy(&stored[..stored.len().min(700)]).into_owned();
    let rest = stored
        .strip_prefix(before.as_bytes())
        .unwrap_or_else(|| panic!("not {fields:?}: {shown:?}"));
    let end = rest.iter().position(|octet| *octet == b'\n').unwrap();
    let date = std::str::from_utf8(&rest[..end]).unwrap();
    let age = jiff::Timestamp::now().duration_since(jiff::fmt::rfc2822::parse(date).unwrap().timestamp());
    assert!(age.abs() < jiff::SignedDuration::from_mins(2), "{date}");
    let rest = rest[end..]
        .strip_prefix(after.as_bytes())
        .unwrap_or_else(|| panic!("not {fields:?}: {shown:?}"));
    assert!(rest == content, "the content differs: {shown:?}");
}

#[test]
fn a_message_is_stored_with_lf_and_undotted_below_the_fields_of_this_hop() {
    let edge = edge();
    let mut client = edge.hello();
    client.envelope("a@client.test", &["b@example.com"]);
    client.command("DATA", "354 ");
    client.send("Subject: x\r\n\r\n..\r\n...three\r\nno. dot.\r\n..last\r\n.\r\n");
    let id = queue_id(&client.reply());
    assert_stored(
        &only_mail(&edge, "mail"),
        &format!(
            "Return-Path: <a@client.test>\nDelivered-To: b@example.com\nReceived: from client.test ([127.0.0.1])\n\tby \
             mx.example.com (postern) with ESMTP id {id}\n\tfor <b@example.com>; {{date}}\n"
        ),
        b"Subject: x\n\n.\n..three\nno. dot.\n.last\n",
    );
    let line = edge.wait_for(&format!("message id={id}"));
    assert!(
        line.contains("from=a@client.test to=b@example.com") && line.contains("result=accepted"),
        "{line}"
    );
    assert_eq!(files(&edge.path("mail/tmp")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_keyword_says_how_the_client_greeted_and_whether_it_asked_for_smtputf8() {
    let edge = edge();
    let mut client = edge.connect();
    client.expect_reply("220 mx.example.com ESMTP ready");
    client.command("HELO old.test", "250 mx.example.com Hello 127.0.0.1");
    client.accepted("", &["b@example.com"], "\r\n");
    client.command("EHLO [127.0.0.1]", "250-mx.example.com Hello 127.0.0.1\r\n");
    client.command("MAIL FROM:<jörg@client.test> SMTPUTF8", "250 ");
    client.command("RCPT TO:<b@example.com>", "250 ");
    queue_id(&client.data("Subject: ü\r\n\r\nö\r\n"));
    let mail = edge.mail("mail").concat();
    let mail = String::from_utf8(mail).unwrap();
    assert!(
        mail.contains("Received: from old.test ([127.0.0.1])\n\tby mx.example.com (postern) with SMTP id "),
        "{mail}"
    );
    assert!(mail.contains("Received: from [127.0.0.1] ([127.0.0.1])\n\tby mx.example.com (postern) with UTF8SMTP id "));
    assert!(
        mail.contains("Return-Path: <>\n") && mail.contains("Return-Path: <jörg@client.test>\n"),
        "{mail}"
    );
    assert!(mail.contains("\nSubject: ü\n\nö\n"));
}

#[test]
fn several_recipients_share_one_file_that_names_each_of_them_and_the_received_field_names_none() {
    let edge = edge();
    let mut client = edge.hello();
    let id = client.accepted(
        "a@client.test",
        &["b@example.com", "C@Example.com", "postmaster"],
        "x\r\n",
    );
    assert_stored(
        &only_mail(&edge, "mail"),
        &format!(
            "Return-Path: <a@client.test>\nDelivered-To: b@example.com\nDelivered-To: C@Example.com\nDelivered-To: \
             postmaster\nReceived: from client.test ([127.0.0.1])\n\tby mx.example.com (postern) with ESMTP \
             id {id};\n\t{{date}}\n"
        ),
        b"x\n",
    );
}

#[test]
fn an_empty_message_and_one_from_the_null_path_are_messages() {
    let edge = edge();
    let mut client = edge.hello();
    client.envelope("", &["b@example.com"]);
    client.command("DATA", "354 ");
    client.send(".\r\n");
    let id = queue_id(&client.reply());
    assert_stored(
        &only_mail(&edge, "mail"),
        &format!(
            "Return-Path: <>\nDelivered-To: b@example.com\nReceived: from client.test ([127.0.0.1])\n\tby mx.example.com \
             (postern) with ESMTP id {id}\n\tfor <b@example.com>; {{date}}\n"
        ),
        b"",
    );
}

#[test]
fn a_place_for_the_recipient_makes_a_maildir_of_safe_name_for_each() {
    let settings = Settings::new().sections("[[next_hop]]\nto = [\"maildir:mail/{domain}/{local}\"]");
    let edge = Edge::start(&settings.toml());
    let mut client = edge.hello();
    let to = ["b@Example.com", "\"../../up\"@example.com", "c+tag@other.test"];
    let id = client.accepted("a@client.test", &to, "x\r\n");
    for (maildir, delivered_to) in [
        ("mail/example.com/b", "b@Example.com"),
        ("mail/example.com/%2e.%2f..%2fup", "\"../../up\"@example.com"),
        ("mail/other.test/c+tag", "c+tag@other.test"),
    ] {
        assert_stored(
            &only_mail(&edge, maildir),
            &format!(
                "Return-Path: <a@client.test>\nDelivered-To: {delivered_to}\nReceived: from client.test ([127.0.0.1])\n\tby \
                 mx.example.com (postern) with ESMTP id {id}\n\tfor <{delivered_to}>; {{date}}\n"
            ),
            b"x\n",
        );
    }
    // Nothing stands outside, and nothing but the two domains inside.
    assert_eq!(files(&edge.path("mail")).len(), 2);
    assert!(!edge.path("up").exists());
}

#[test]
fn one_message_may_go_several_ways_at_once() {
    let settings = Settings::new().sections(
        "[[next_hop]]\ndomains = [\"one.test\"]\nto = [\"maildir:one\"]\n[[next_hop]]\ndomains = [\"two.test\"]\nto = \
         [\"maildir:two/{local}\"]\n[[next_hop]]\ndomains = [\"*\"]\nto = [\"discard:\"]",
    );
    let edge = Edge::start(&settings.toml());
    let mut client = edge.hello();
    client.accepted(
        "a@client.test",
        &["x@one.test", "y@two.test", "z@two.test", "w@three.test"],
        "x\r\n",
    );
    for (maildir, to) in [("one", "x@one.test"), ("two/y", "y@two.test"), ("two/z", "z@two.test")] {
        let mail = String::from_utf8(only_mail(&edge, maildir)).unwrap();
        assert_eq!(mail.matches("Delivered-To: ").count(), 1, "{mail}");
        assert!(mail.contains(&format!("\nDelivered-To: {to}\n")), "{mail}");
    }
    // Thrown away alone, it needs no file and no folder.
    client.accepted("a@client.test", &["w@three.test"], "x\r\n");
    let made: Vec<_> = files(edge.home().path())
        .into_iter()
        .filter(|path| path.join("new").exists())
        .collect();
    assert_eq!(made, [edge.path("one")]);
}

#[test]
fn a_message_of_three_mebibytes_arrives_octet_for_octet() {
    let edge = edge();
    let mut client = edge.hello();
    let mut content = b"Subject: long\r\n\r\n".to_vec();
    let mut number = 0_u32;
    while content.len() < 3 << 20 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let dots = &"...."[..(number >> 30) as usize];
        content
            .extend_from_slice(format!("{dots}{number:o} {}\r\n", "x".repeat((number >> 24) as usize % 70)).as_bytes());
    }
    let reply = client.deliver("a@client.test", &["b@example.com"], &content);
    queue_id(&reply);
    let mail = only_mail(&edge, "mail");
    let expected: Vec<u8> = content.into_iter().filter(|octet| *octet != b'\r').collect();
    assert!(mail.ends_with(&expected), "3 MiB differ");
    assert_eq!(
        mail.iter().filter(|octet| **octet == b'\n').count(),
        5 + expected.iter().filter(|o| **o == b'\n').count()
    );
}

#[test]
fn chunks_carry_nul_8_bit_and_dots_as_they_are() {
    let edge = edge();
    let mut client = edge.hello();
    client.command("MAIL FROM:<a@client.test> BODY=BINARYMIME", "250 ");
    client.command("RCPT TO:<b@example.com>", "250 ");
    let every: Vec<u8> = (0..=255).collect();
    let chunks = [
        b"Subject: x\r\n\r\n".to_vec(),
        every.clone(),
        b"\r\n.\r\n..\r\nno end".to_vec(),
    ];
    for chunk in &chunks {
        client.send(format!("BDAT {}\r\n", chunk.len()));
        client.send(chunk);
        client.expect_reply(&format!("250 2.0.0 {} octets received", chunk.len()));
    }
    queue_id(&client.ask("BDAT 0 LAST"));
    let mail = only_mail(&edge, "mail");
    let expected = [b"Subject: x\n\n".to_vec(), every, b"\n.\n..\nno end".to_vec()].concat();
    assert!(mail.ends_with(&expected), "{:?}", String::from_utf8_lossy(&mail));
}

#[test]
fn a_client_that_others_wrote_delivers() {
    use lettre::message::{MultiPart, SinglePart};
    use lettre::{Message, SmtpTransport, Transport};
    let edge = edge();
    let address = edge.address();
    let mailer = SmtpTransport::builder_dangerous(address.ip().to_string())
        .port(address.port())
        .timeout(Some(Duration::from_secs(20)))
        .build();
    let message = Message::builder()
        .from("Ann <ann@client.test>".parse().unwrap())
        .to("Bob <bob@example.com>".parse().unwrap())
        .cc("Cy <cy@example.com>".parse().unwrap())
        .subject("Grüße")
        .multipart(
            MultiPart::mixed()
                .singlepart(SinglePart::plain(".\r\n..\r\nGrüße\r\n".to_owned()))
                .singlepart(SinglePart::html("<p>Grüße</p>".to_owned())),
        )
        .unwrap();
    // Twice over one connection: the transport keeps it.
    for _ in 0..2 {
        assert!(mailer.send(&message).unwrap().is_positive());
    }
    let expected = String::from_utf8(message.formatted()).unwrap().replace("\r\n", "\n");
    let mail = edge.mail("mail");
    assert_eq!(mail.len(), 2);
    for mail in mail {
        let mail = String::from_utf8(mail).unwrap();
        let (fields, content) = mail.split_at(mail.find(&expected).unwrap_or_else(|| panic!("{mail}")));
        assert_eq!(content.trim_end_matches('\n'), expected.trim_end_matches('\n'));
        assert!(fields.starts_with(
            "Return-Path: <ann@client.test>\nDelivered-To: bob@example.com\nDelivered-To: cy@example.com\nReceived: from "
        ));
    }
}

#[test]
fn where_one_maildir_cannot_be_written_no_file_is_left_and_the_client_tries_later() {
    let home = Home::new();
    home.write("blocked", "a file where a folder is needed\n");
    let settings = Settings::new().sections(
        "[[next_hop]]\ndomains = [\"bad.test\"]\nto = [\"maildir:blocked/mail\"]\n[[next_hop]]\nto = [\"maildir:mail\"]",
    );
    let edge = Edge::start_in(home, &settings.toml());
    let mut client = edge.hello();
    let reply = client.deliver("a@client.test", &["b@example.com", "c@bad.test"], "x\r\n");
    assert!(reply.starts_with('4'), "{reply}");
    assert_eq!(edge.mail("mail"), Vec::<Vec<u8>>::new());
    assert_eq!(files(&edge.path("mail/tmp")), Vec::<std::path::PathBuf>::new());
    let line = edge.wait_for("message id= .. result=refused");
    assert!(line.contains("error=") && line.contains("from=a@client.test"), "{line}");
    // The session goes on, with those that can be written.
    client.accepted("a@client.test", &["b@example.com"], "x\r\n");
    only_mail(&edge, "mail");
    assert_eq!(edge.metric("postern_messages_received_total"), 1.0);
}

#[test]
fn a_message_over_the_limit_is_refused_after_its_end_and_leaves_nothing() {
    let edge = Edge::start(&Settings::new().limits("max_message_size = \"600KiB\"").toml());
    let mut client = edge.hello();
    // Within memory, and so large that a part of it is on disk by the time the limit is passed.
    for octets in [600 * 1024 + 1, 2 << 20] {
        let mut content = b"\r\n".to_vec();
        content.resize(octets - 2, b'x');
        content.extend_from_slice(b"\r\n");
        let reply = client.deliver("a@client.test", &["b@example.com"], &content);
        assert_eq!(reply, "552 5.3.4 Message size exceeds fixed maximum message size");
    }
    client.command(
        "MAIL FROM:<a@client.test> SIZE=614401",
        "552 5.3.4 Message size exceeds fixed maximum message size",
    );
    assert_eq!(files(&edge.path("mail/new")), Vec::<std::path::PathBuf>::new());
    assert!(crate::edge::eventually(|| files(&edge.path("mail/tmp")).is_empty()));
    let mut exactly = vec![b'x'; 600 * 1024 - 4];
    exactly.splice(..0, *b"\r\n");
    exactly.extend_from_slice(b"\r\n");
    assert_eq!(exactly.len(), 600 * 1024);
    client.accepted("a@client.test", &["b@example.com"], &exactly);
    assert!(only_mail(&edge, "mail").ends_with(&[&vec![b'x'; 600 * 1024 - 4][..], b"\n"].concat()));
}
