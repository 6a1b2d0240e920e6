//! How many TLS sessions a source may begin in a minute.

use std::io::Write;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::client::Client;
use crate::edge::Edge;
use crate::secure::{self, Secure};
use crate::start;

const REFUSED: &str = "postern_tls_handshakes_total{result=\"refused\",version=\"none\"}";
const TOO_MANY: &str = "421 4.7.0 Too many new TLS sessions from this client";

/// A client that has no ticket.
fn new_session(edge: &Edge) -> Secure {
    Secure::hello(edge)
}

fn is_sent_away_before_the_handshake(edge: &Edge) {
    let mut client = edge.hello();
    client.command("STARTTLS", TOO_MANY);
    client.expect_close();
}

#[test]
fn new_sessions_count_and_resumed_ones_do_not() {
    let edge = start("tls_session_rate = 4\n", "");
    for version in [&TLS13, &TLS12] {
        let known = Arc::new(secure::config(&[version]));
        for number in 0..6 {
            let mut client = Secure::starttls(edge.address(), &known);
            // The ticket comes behind the handshake.
            client.command("NOOP", "250 ");
            let resumed = client.tls.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, number > 0);
        }
    }
    for _ in 0..2 {
        new_session(&edge);
    }
    is_sent_away_before_the_handshake(&edge);
    edge.wait_for("session..tls_error=\"too many new sessions\"..end=closed");
}

#[test]
fn where_tls_comes_first_a_source_that_has_begun_too_many_hears_nothing() {
    let edge = start("tls_session_rate = 1\n", "");
    let server = edge.addresses("implicit")[0];
    let mut client = Secure::shake(secure::connect(server), &secure::any(), "mx.example.com").unwrap();
    client.expect_reply("220 ");
    let mut next = secure::connect(server);
    let mut tls = rustls::ClientConnection::new(secure::any(), "mx.example.com".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    let _ = next.write_all(&hello);
    assert_eq!(secure::rest(&mut next), b"");
    edge.wait_for("session..binding=implicit..tls_error=\"too many new sessions\"..end=\"no TLS\"");
    // Plain sessions are none of it, and other sources neither.
    edge.hello().command("NOOP", "250 ");
    let mut other = Client::connect_from("127.0.0.9", edge.address()).hello();
    other.command("STARTTLS", "220 ");
    assert_eq!(edge.metric(REFUSED), 1.0);
}

#[test]
fn of_handshakes_at_once_no_more_succeed_than_the_limit_says() {
    let edge = start("tls_session_rate = 5\n", "");
    // All of them are asked for while nothing has been counted.
    let ready: Vec<_> = (0..8).map(|_| secure::ready(edge.address())).collect();
    let mut sent_away = 0;
    for (number, socket) in ready.into_iter().enumerate() {
        let mut client = Secure::shake(socket, &secure::any(), "mx.example.com").unwrap();
        if number < 5 {
            client.command("NOOP", "250 ");
        } else {
            client.expect_reply(TOO_MANY);
            client.expect_end();
            sent_away += 1;
        }
    }
    is_sent_away_before_the_handshake(&edge);
    edge.wait_for_metric(REFUSED, f64::from(sent_away + 1));
}

#[test]
fn a_handshake_that_fails_counts_too() {
    let edge = start("tls_session_rate = 2\n", "");
    for _ in 0..2 {
        let mut socket = secure::ready(edge.address());
        socket.write_all(b"EHLO is no TLS\r\n").unwrap();
        secure::rest(&mut socket);
    }
    edge.wait_for_number("session..tls_error..end=\"no TLS\"", 2);
    is_sent_away_before_the_handshake(&edge);
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let edge = start("", "");
    for _ in 0..20 {
        new_session(&edge).command("NOOP", "250 ");
    }
    assert_eq!(edge.metric(REFUSED), 0.0);
}
