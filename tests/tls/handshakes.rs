//! Handshakes that go wrong, and odd ones that do not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConnection, Error};

use crate::client::Client;
use crate::edge::{Edge, eventually};
use crate::secure::{self, Secure};
use crate::start;

const TIMED_OUT: &str = "postern_tls_handshakes_total{result=\"timed_out\",version=\"none\"}";
const FAILED: &str = "postern_tls_handshakes_total{result=\"failed\",version=\"none\"}";

/// What a client begins with.
fn client_hello(config: &Arc<rustls::ClientConfig>) -> (ClientConnection, Vec<u8>) {
    let mut tls = ClientConnection::new(config.clone(), "mx.example.com".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut hello).unwrap();
    }
    (tls, hello)
}

/// The alert that a server answers a failed handshake with.
fn alert(edge: &Edge, config: rustls::ClientConfig) -> Option<AlertDescription> {
    let error = Secure::shake(secure::ready(edge.address()), &Arc::new(config), "mx.example.com").err()?;
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[test]
fn a_handshake_that_does_not_come_ends_in_time_and_counts_against_its_source_meanwhile() {
    let edge = start("inactivity_timeout = \"1500ms\"\nmax_connections_per_source = 1\n", "");
    let mut silent = secure::ready(edge.address());
    let mut second = edge.connect();
    second.expect_reply("421 4.3.2 The maximum number of concurrent connections");
    assert_eq!(secure::rest(&mut silent), b"", "nothing is said outside TLS");
    edge.wait_for_metric(TIMED_OUT, 1.0);
    edge.wait_for("session..tls_error=\"took too long\"..end=\"no TLS\"");
    assert!(eventually(|| {
        let mut client = edge.connect();
        client.reply().starts_with("220 ")
    }));
}

#[test]
fn a_handshake_of_an_octet_now_and_then_does_not_outlive_its_timer() {
    let edge = start("inactivity_timeout = \"1s\"\n", "");
    for mut socket in [
        secure::ready(edge.address()),
        secure::connect(edge.addresses("implicit")[0]),
    ] {
        let (_, hello) = client_hello(&secure::any());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let ended = hello.iter().any(|octet| {
            let gone = socket.write_all(&[*octet]).is_err();
            gone || matches!(socket.read(&mut [0]), Ok(0))
        });
        assert!(ended, "the whole hello was taken");
    }
    edge.wait_for_metric(TIMED_OUT, 2.0);
}

#[test]
fn a_handshake_may_be_cut_at_every_octet() {
    let edge = start("", "");
    let (_, hello) = client_hello(&secure::any());
    for at in (1..hello.len()).step_by(7).chain(1..8) {
        let mut socket = secure::ready(edge.address());
        let (mut tls, hello) = client_hello(&secure::any());
        let (first, second) = hello.split_at(at.min(hello.len()));
        socket.write_all(first).unwrap();
        std::thread::yield_now();
        socket.write_all(second).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
    }
    for version in [&TLS13, &TLS12] {
        let mut drip = Drip(secure::ready(edge.address()));
        let config = Arc::new(secure::config(&[version]));
        let mut tls = ClientConnection::new(config, "mx.example.com".try_into().unwrap()).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut drip).unwrap();
        }
        rustls::Stream::new(&mut tls, &mut drip).write_all(b"QUIT\r\n").unwrap();
        let mut said = String::new();
        rustls::Stream::new(&mut tls, &mut drip)
            .read_to_string(&mut said)
            .unwrap();
        assert!(said.starts_with("221 "), "{said}");
    }
    assert_eq!(edge.metric(FAILED), 0.0);
}

/// Sends each octet by itself.
struct Drip(TcpStream);

impl Read for Drip {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(space)
    }
}

impl Write for Drip {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.write(&octets[..octets.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_hello_over_many_records_and_one_beyond_a_record_are_read_and_an_endless_one_is_not() {
    let edge = start("", "");
    let mut small = secure::config(rustls::ALL_VERSIONS);
    small.max_fragment_size = Some(64);
    let mut client = Secure::starttls(edge.address(), &Arc::new(small));
    client.command("NOOP", "250 ");
    let mut large = secure::config(rustls::ALL_VERSIONS);
    large.alpn_protocols = (0..120).map(|n| format!("{n:0>200}").into_bytes()).collect();
    large.alpn_protocols.push(b"smtp".to_vec());
    assert!(client_hello(&Arc::new(large.clone())).1.len() > 20_000);
    let mut client = Secure::starttls(edge.address(), &Arc::new(large));
    client.command("NOOP", "250 ");
    // A handshake message that says it has 16 MiB - 1: no room is made for it.
    let mut socket = secure::ready(edge.address());
    let record = [
        &b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03"[..],
        &[7; (16 << 10) - 6],
    ]
    .concat();
    let more = [&b"\x16\x03\x01\x40\x00"[..], &[7; 16 << 10]].concat();
    let _ = socket.write_all(&record);
    for _ in 0..200 {
        if socket.write_all(&more).is_err() {
            break;
        }
    }
    edge.wait_for_metric(FAILED, 1.0);
}

#[test]
fn garbage_gets_an_alert_at_most_and_no_reply() {
    let edge = start("", "");
    let (_, hello) = client_hello(&secure::any());
    let mut wrong_length = hello.clone();
    wrong_length[7] ^= 0x40;
    let mut endless_extension = hello.clone();
    let last = endless_extension.len() - 1;
    endless_extension[last - 40..].fill(0xff);
    let cases: [&[u8]; 7] = [
        b"\x00\x00\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x05hello",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        &wrong_length,
        &endless_extension,
    ];
    let implicit = edge.addresses("implicit")[0];
    for garbage in cases {
        for mut socket in [secure::ready(edge.address()), secure::connect(implicit)] {
            socket.write_all(garbage).unwrap();
            let _ = socket.shutdown(Shutdown::Write);
            let said = secure::rest(&mut socket);
            assert!(
                said.is_empty() || said[0] == 0x15 && said.len() == 7,
                "{garbage:?}: {said:?}"
            );
        }
    }
    edge.wait_for_metric(FAILED, 14.0);
    edge.wait_for_metric("postern_connections", 0.0);
    assert_eq!(edge.metric("postern_session_panics_total"), 0.0);
}

#[test]
fn another_protocol_by_alpn_is_refused_and_smtp_is_not() {
    let edge = start("", "");
    for version in [&TLS13, &TLS12] {
        let mut config = secure::config(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        assert_eq!(
            alert(&edge, config.clone()),
            Some(AlertDescription::NoApplicationProtocol)
        );
        config.alpn_protocols.push(b"smtp".to_vec());
        let client = Secure::starttls(edge.address(), &Arc::new(config));
        assert_eq!(client.tls.alpn_protocol(), Some(&b"smtp"[..]));
    }
}

#[test]
fn a_name_that_is_not_ours_and_none_get_the_default_certificate() {
    let edge = start("", "");
    for name in ["other.example.net", "MX.EXAMPLE.COM", "127.0.0.1"] {
        let client = Secure::shake(secure::ready(edge.address()), &secure::any(), name).unwrap();
        assert_eq!(client.tls.peer_certificates().map(<[_]>::len), Some(1));
    }
    edge.wait_for("session..sni=other.example.net");
}

#[test]
fn new_keys_without_end_are_refused_and_now_and_then_they_are_given() {
    let edge = start("", "");
    let config = Arc::new(secure::config(&[&TLS13]));
    let mut client = Secure::starttls(edge.address(), &config);
    for _ in 0..100 {
        client.tls.refresh_traffic_keys().unwrap();
        client.command("NOOP", "250 2.0.0 OK");
    }
    let mut flood = Secure::starttls(edge.address(), &config);
    // The server has done with the handshake, too.
    flood.command("NOOP", "250 ");
    for _ in 0..200 {
        flood.tls.refresh_traffic_keys().unwrap();
    }
    let _ = flood.tls.complete_io(&mut flood.socket);
    let _ = secure::rest(&mut flood.socket);
    edge.wait_for("session..tls=1.3..end=broken");
    client.command("NOOP", "250 2.0.0 OK");
}

#[test]
fn a_client_that_goes_away_in_the_middle_leaves_nothing() {
    let edge = start("", "");
    let (_, hello) = client_hello(&secure::any());
    for end in [0, 1, 5, 100, hello.len()] {
        let mut socket = secure::ready(edge.address());
        socket.write_all(&hello[..end]).unwrap();
        socket2::SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    edge.wait_for_metric(FAILED, 5.0);
    edge.wait_for_metric("postern_connections", 0.0);
    let mut next = Client::connect(edge.address()).hello();
    next.command("QUIT", "221 ");
}
