//! Sessions inside TLS, and at its edge.

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::client::Client;
use crate::edge::field;
use crate::secure::{self, Secure};
use crate::start;

#[test]
fn a_message_comes_by_starttls_and_log_metrics_and_received_tell_so() {
    let edge = start("", "");
    for (version, name) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        let config = Arc::new(secure::config(&[version]));
        let mut client = Secure::starttls(edge.address(), &config);
        let reply = client.command("EHLO client.test", "250-mx.example.com Hello 127.0.0.1");
        assert!(!reply.contains("STARTTLS") && reply.contains("CHUNKING"), "{reply}");
        client.deliver(b"Subject: x\r\n\r\nsealed\r\n");
        client.command("QUIT", "221 2.0.0");
        client.expect_end();
        let line = edge.wait_for(&format!("info session..tls={name}"));
        assert!(
            field(&line, "cipher").is_some_and(|cipher| cipher.contains("AES")),
            "{line}"
        );
        assert_eq!(field(&line, "sni").as_deref(), Some("mx.example.com"));
        assert_eq!(field(&line, "end").as_deref(), Some("closed"));
        let full = format!("postern_tls_handshakes_total{{result=\"full\",version=\"{name}\"}}");
        edge.wait_for_metric(&full, 1.0);
    }
    let mail = edge.mail("mail");
    assert_eq!(mail.len(), 2);
    for file in mail {
        assert!(String::from_utf8_lossy(&file).contains(" with ESMTPS id "));
    }
}

#[test]
fn a_client_that_comes_again_resumes_on_whichever_shard() {
    let edge = start("", "");
    for version in [&TLS13, &TLS12] {
        let config = Arc::new(secure::config(&[version]));
        let mut kinds = Vec::new();
        for _ in 0..12 {
            let mut client = Secure::starttls(edge.address(), &config);
            client.command("NOOP", "250 ");
            kinds.push(client.tls.handshake_kind().unwrap());
        }
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert!(
            kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed),
            "{kinds:?}"
        );
    }
    edge.wait_for_metric("postern_tls_handshakes_total{result=\"resumed\",version=\"1.2\"}", 11.0);
    edge.wait_for_metric("postern_tls_handshakes_total{result=\"resumed\",version=\"1.3\"}", 11.0);
}

#[test]
fn one_ticket_comes_behind_a_handshake() {
    let edge = start("", "");
    let config = Arc::new(secure::config(&[&TLS13]));
    let mut client = Secure::starttls(edge.address(), &config);
    client.command("NOOP", "250 ");
    client.command("NOOP", "250 ");
    assert_eq!(client.tls.tls13_tickets_received(), 1);
}

#[test]
fn plaintext_behind_starttls_ends_the_session_with_one_line_and_no_reply() {
    let edge = start("", "");
    for injected in ["EHLO x\r\nMAIL FROM:<a@evil.test>\r\n", "\n", "\u{16}\u{3}\u{1}"] {
        let mut client = edge.hello();
        client.send(format!("STARTTLS\r\n{injected}"));
        client.expect_reply("220 2.0.0 ");
        client.wait_for_end();
        assert!(client.transcript().ends_with("220 2.0.0 SMTP server ready\r\n"));
    }
    edge.wait_for_number("warn session..end=\"plaintext behind STARTTLS\"", 3);
    // In a segment of its own it is no TLS.
    let mut socket = secure::ready(edge.address());
    socket.write_all(b"MAIL FROM:<a@evil.test>\r\n").unwrap();
    let said = secure::rest(&mut socket);
    assert!(
        !said.windows(3).any(|three| three == b"250" || three == b"503"),
        "{said:?}"
    );
    edge.wait_for("info session..tls_error..end=\"no TLS\"");
}

#[test]
fn what_comes_behind_the_handshake_in_the_same_segment_is_read() {
    let edge = start("", "");
    let mut socket = secure::ready(edge.address());
    let name = "mx.example.com".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(secure::any(), name).unwrap();
    // Before the handshake is over, rustls keeps what it is given and sends it with its last word.
    tls.writer().write_all(b"EHLO early.test\r\nNOOP\r\nQUIT\r\n").unwrap();
    tls.complete_io(&mut socket).unwrap();
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut rustls::Stream::new(&mut tls, &mut socket), &mut said);
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.starts_with("250-mx.example.com ") && said.contains("221 2.0.0"),
        "{said}"
    );
}

#[test]
fn implicit_tls_greets_inside_and_offers_no_starttls() {
    let edge = start("", "");
    let server = edge.addresses("implicit")[0];
    let mut client = Secure::shake(secure::connect(server), &secure::any(), "mx.example.com").unwrap();
    client.expect_reply("220 mx.example.com ESMTP ready");
    let reply = client.command("EHLO client.test", "250");
    assert!(!reply.contains("STARTTLS"), "{reply}");
    client.command("STARTTLS", "503 5.5.1");
    client.deliver(b"Subject: x\r\n\r\nimplicit\r\n");
    // SMTP where TLS is expected is no TLS.
    let mut plain = Client::connect(server);
    plain.send("EHLO plain.test\r\n");
    plain.wait_for_end();
    assert!(!plain.transcript().contains("250"), "{:?}", plain.transcript());
    edge.wait_for("session..binding=implicit..end=\"no TLS\"");
}

#[test]
fn a_proxy_header_may_stand_in_front_of_implicit_tls_in_the_same_segment() {
    let edge = start("", "proxy_protocol = true\nproxy_from = [\"127.0.0.1\"]\n");
    let mut socket = secure::connect(edge.addresses("implicit")[0]);
    let name = "mx.example.com".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(secure::any(), name).unwrap();
    let mut first = b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 465\r\n".to_vec();
    tls.write_tls(&mut first).unwrap();
    socket.write_all(&first).unwrap();
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut socket).unwrap();
    }
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    stream.write_all(b"QUIT\r\n").unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stream, &mut said).unwrap();
    assert!(
        said.starts_with("220 mx.example.com") && said.ends_with("channel\r\n"),
        "{said}"
    );
    edge.wait_for("session..client=192.0.2.7..tls=1.3..end=closed");
}

#[test]
fn who_is_refused_where_tls_begins_at_once_hears_nothing() {
    let edge = start("", "clients = [\"192.0.2.0/24\"]\n");
    let mut client = Client::connect(edge.addresses("implicit")[0]);
    client.expect_close();
    edge.wait_for("session..binding=implicit..end=refused..limit=BindingNotConfigured");
    assert_eq!(edge.metric("postern_replies_total{code=\"421\"}"), 0.0);
}

#[test]
fn where_tls_is_required_mail_waits_for_it() {
    let edge = start(
        "",
        "[[binding]]\nname = \"strict\"\naddress = [\"127.0.0.1:0\"]\nrequire_tls = true\n",
    );
    let server = edge.addresses("strict")[0];
    let mut plain = Client::connect(server).hello();
    plain.command(
        "MAIL FROM:<a@client.test>",
        "451 5.7.3 Must issue a STARTTLS command first",
    );
    let mut client = Secure::starttls(server, &secure::any());
    client.command("MAIL FROM:<a@client.test>", "503 5.5.2");
    client.command("EHLO client.test", "250");
    client.deliver(b"Subject: x\r\n\r\nrequired\r\n");
}

#[test]
fn starttls_can_be_switched_off_and_is_then_unknown() {
    let edge = start(
        "",
        "[[binding]]\nname = \"hidden\"\naddress = [\"127.0.0.1:0\"]\nextensions_off = [\"STARTTLS\"]\n\
         [[binding]]\nname = \"off\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n",
    );
    for binding in ["hidden", "off"] {
        let mut client = Client::connect(edge.addresses(binding)[0]);
        client.expect_reply("220 ");
        assert!(!client.command("EHLO client.test", "250").contains("STARTTLS"));
        client.command("STARTTLS", "500 5.5.1");
    }
    let mut client = edge.connect();
    client.expect_reply("220 ");
    assert!(client.command("EHLO client.test", "250").contains("250-STARTTLS\r\n"));
}

/// Content without pattern, in lines.
fn content(octets: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut all = b"Subject: large\r\n\r\n".to_vec();
    while all.len() < octets {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        all.extend_from_slice(format!("{state:016x}").repeat(4).as_bytes());
        all.extend_from_slice(b"\r\n");
    }
    all
}

#[test]
fn large_content_arrives_octet_for_octet_by_data_and_by_chunks() {
    let edge = start("", "");
    let large = content(3 << 20);
    let mut client = Secure::hello(&edge);
    client.deliver(&large);
    client.command("MAIL FROM:<a@client.test>", "250 2.1.0");
    client.command("RCPT TO:<b@x.test>", "250 2.1.5");
    client.send(format!("BDAT {} LAST\r\n", large.len()));
    client.send(&large);
    client.expect_reply("250 2.6.0");
    let expected = String::from_utf8(large).unwrap().replace("\r\n", "\n");
    let mail = edge.mail("mail");
    assert_eq!(mail.len(), 2);
    for file in mail {
        assert!(file.ends_with(expected.as_bytes()), "{} octets", file.len());
    }
}

#[test]
fn many_commands_in_one_record_and_an_octet_a_record_are_the_same() {
    let edge = start("", "");
    let mut client = Secure::hello(&edge);
    client.send("NOOP\r\n".repeat(2000));
    for _ in 0..2000 {
        client.expect_reply("250 2.0.0 OK");
    }
    for octet in b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n" {
        client.send([*octet]);
    }
    for code in ["250 2.1.0", "250 2.1.5", "354", "250 2.6.0"] {
        client.expect_reply(code);
    }
}

#[test]
fn a_client_that_says_goodbye_and_one_that_just_goes_are_both_gone() {
    let edge = start("", "");
    let mut polite = Secure::hello(&edge);
    polite.tls.send_close_notify();
    polite.send("");
    polite.expect_end();
    let rude = Secure::hello(&edge);
    rude.socket.shutdown(Shutdown::Both).unwrap();
    edge.wait_for_number("session..tls=1.3..end=disconnected", 2);
    edge.wait_for_metric("postern_connections", 0.0);
}

#[test]
fn a_drain_is_said_inside_tls() {
    let mut edge = start("", "");
    let mut client = Secure::hello(&edge);
    edge.signal("TERM");
    client.expect_reply("421 4.3.2");
    client.expect_end();
    assert!(edge.wait_for_exit().success());
}

#[test]
fn a_client_that_does_not_take_its_replies_inside_tls_is_left() {
    let edge = start("inactivity_timeout = \"1s\"\nconnection_timeout = \"2s\"\n", "");
    let mut client = Secure::hello(&edge);
    client.socket.set_nonblocking(true).unwrap();
    // Until neither side takes any more.
    let sent = (0..100_000).try_for_each(|_| {
        let mut stream = rustls::Stream::new(&mut client.tls, &mut client.socket);
        stream.write_all(&b"HELP\r\n".repeat(500))
    });
    assert!(sent.is_err());
    edge.wait_for("session..tls=1.3..end=stalled");
    edge.wait_for_metric("postern_connections", 0.0);
}
