//! The PROXY protocol: whom it makes the client, and who may speak it.

use std::net::Ipv6Addr;

use crate::client::Client;
use crate::edge::{Edge, eventually};
use crate::settings::Settings;

const NO_SERVICE: &str = "421 4.3.2 Service not available";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The proxy is 127.0.0.50.
fn settings() -> Settings {
    Settings::new().binding("proxy_protocol = true\nproxy_from = [\"127.0.0.50\"]")
}

fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, addresses].concat()
}

fn proxy(edge: &Edge, header: impl AsRef<[u8]>) -> Client {
    let mut client = edge.connect_from("127.0.0.50");
    client.send(header);
    client
}

#[test]
fn the_client_that_the_header_names_is_the_client_everywhere() {
    let edge = Edge::start(&settings().toml());
    let v6 = [
        &Ipv6Addr::from(0x2001_0db8 << 96 | 7).octets()[..],
        &Ipv6Addr::LOCALHOST.octets(),
        &[1, 2, 0, 25],
    ]
    .concat();
    let v4 = [192, 0, 2, 9, 127, 0, 0, 1, 1, 2, 0, 25];
    let with_tlv = [&v4[..], &[4, 0, 3, 0, 0, 0]].concat();
    let mapped = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 11], &[0; 20]].concat();
    for (header, shown, literal) in [
        (
            b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\n".to_vec(),
            "192.0.2.7",
            "[192.0.2.7]",
        ),
        (
            b"PROXY TCP6 2001:db8::5 ::1 4711 25\r\n".to_vec(),
            "2001:db8::5",
            "[IPv6:2001:db8::5]",
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.8 ::1 4711 25\r\n".to_vec(),
            "192.0.2.8",
            "[192.0.2.8]",
        ),
        (v2(0x21, 0x11, &v4), "192.0.2.9", "[192.0.2.9]"),
        (v2(0x21, 0x11, &with_tlv), "192.0.2.9", "[192.0.2.9]"),
        (v2(0x21, 0x21, &v6), "2001:db8::7", "[IPv6:2001:db8::7]"),
        (v2(0x21, 0x21, &mapped), "192.0.2.11", "[192.0.2.11]"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.50", "[127.0.0.50]"),
        (v2(0x20, 0x00, &[]), "127.0.0.50", "[127.0.0.50]"),
        (v2(0x20, 0x11, &v4), "127.0.0.50", "[127.0.0.50]"),
    ] {
        // In one segment with what the client says, and octet by octet.
        let mut client = proxy(&edge, [&header[..], b"EHLO client.test\r\n"].concat());
        client.expect_reply("220 ");
        client.expect_reply(&format!("250-mx.example.com Hello {shown}\r\n"));
        let id = client.accepted("a@client.test", &["b@example.com"], "x\r\n");
        let mail = edge
            .mail("mail")
            .into_iter()
            .map(|mail| String::from_utf8(mail).unwrap());
        let mail: Vec<_> = mail.filter(|mail| mail.contains(&id)).collect();
        assert!(
            mail[0].contains(&format!("\nReceived: from client.test ({literal})\n")),
            "{}",
            mail[0]
        );
        let line = edge.wait_for(&format!("message id={id}"));
        assert!(line.contains(&format!(" client={shown} ")), "{line}");

        let mut client = edge.connect_from("127.0.0.50");
        client.send_octet_by_octet(&header);
        client.expect_reply("220 ");
        client.command("HELO client.test", &format!("250 mx.example.com Hello {shown}"));
    }
}

#[test]
fn what_is_no_header_from_the_proxy_is_refused() {
    let edge = Edge::start(&settings().toml());
    let unix = v2(0x21, 0x31, &[0; 216]);
    let bad_command = v2(0x2f, 0x11, &[0; 12]);
    let too_long = v2(0x21, 0x11, &[0; 2000]);
    let no_line_end = [b"PROXY TCP4 192.0.2.7 127.0.0.1 1 25", &[b' '; 600][..]].concat();
    for header in [
        b"EHLO client.test\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.777 127.0.0.1 1 25\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::5 ::1 1 25\r\n".to_vec(),
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        no_line_end,
        unix,
        bad_command,
        too_long,
    ] {
        let mut client = edge.connect_from("127.0.0.50");
        let _ = client.try_send(&header);
        client.wait_for_end();
        let heard = client.transcript();
        assert!(
            heard == format!("{NO_SERVICE}\r\n") || heard.is_empty(),
            "{header:?}: {heard:?}"
        );
    }
    // Without one octet too many the refusal is certain to be heard.
    let mut client = proxy(&edge, "EHLO client.test\r\n");
    assert_eq!(client.reply(), NO_SERVICE);
    client.expect_close();
    let mut gone = proxy(&edge, "PROXY TCP4 192.");
    gone.finish_sending();
    assert_eq!(gone.reply(), NO_SERVICE);
    gone.expect_close();
    edge.wait_for_metric("postern_connections", 0.0);
}

#[test]
fn whoever_is_no_proxy_is_served_as_itself_and_its_header_is_no_command() {
    let edge = Edge::start(&settings().toml());
    let mut plain = edge.connect_from("127.0.0.51");
    plain.expect_reply("220 ");
    plain.command("EHLO client.test", "250-mx.example.com Hello 127.0.0.51\r\n");
    let mut pretender = edge.connect_from("127.0.0.51");
    pretender.expect_reply("220 ");
    let reply = pretender.ask("PROXY TCP4 192.0.2.7 127.0.0.1 4711 25");
    assert!(reply.starts_with("500 5.5.1 "), "{reply}");
    pretender.expect_close();
    // The same on a binding that has never heard of proxies.
    let edge = Edge::start(&Settings::new().toml());
    let mut pretender = edge.connect();
    pretender.expect_reply("220 ");
    pretender.send("PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\nEHLO client.test\r\n");
    pretender.expect_reply("500 5.5.1 ");
    pretender.expect_close();
}

#[test]
fn limits_lists_and_clients_judge_the_client_and_not_the_proxy() {
    let settings = Settings::new()
        .binding("proxy_protocol = true\nproxy_from = [\"127.0.0.50\"]\nclients = [\"192.0.2.0/24\"]")
        .limits("max_connections_per_source = 2\nmessage_rate = 3\nmax_connections = 6")
        .sections("[access]\nblock = [\"192.0.2.66\"]");
    let edge = Edge::start(&settings.toml());
    let from = |address: &str| {
        let mut client = proxy(&edge, format!("PROXY TCP4 {address} 127.0.0.1 4711 25\r\n"));
        let words = client.reply();
        (client, words)
    };
    let mut held: Vec<_> = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"].map(from).into();
    assert!(held.iter().all(|(_, words)| words.starts_with("220 ")), "{held:?}");
    let (mut third, words) = from("192.0.2.1");
    assert!(
        words.starts_with("421 4.3.2 The maximum number of concurrent connections"),
        "{words}"
    );
    third.expect_close();
    assert!(
        from("192.0.2.66")
            .1
            .starts_with("550 5.7.1 External client with IP address 192.0.2.66 ")
    );
    assert_eq!(from("198.51.100.1").1, NO_SERVICE);
    let mut rate = |n: usize| {
        held[n].0.command("HELO client.test", "250 ");
        held[n].0.ask("MAIL FROM:<a@client.test>").starts_with("250 ")
    };
    assert!([0, 1, 0, 1, 2, 3].map(&mut rate)[..3].iter().all(|sent| *sent));
    edge.wait_for_metric("postern_connections", 3.0);
}

#[test]
fn a_proxy_that_never_sends_its_header_is_left() {
    let edge = Edge::start(
        &settings()
            .limits("max_connections = 1\ninactivity_timeout = \"600ms\"")
            .toml(),
    );
    // It counts meanwhile: one of two is refused for the other, whichever a shard takes first. Both may be when their
    // shards race for the one place.
    assert!(eventually(|| {
        let mut silent = [(); 2].map(|()| edge.connect_from("127.0.0.50"));
        let mut heard = silent.each_mut().map(Client::reply);
        silent.iter_mut().for_each(Client::expect_close);
        heard.sort();
        assert!(heard[1].contains("server connections"), "{heard:?}");
        heard[0] == NO_SERVICE
    }));
    // Its place is free a moment after it has heard so.
    assert!(eventually(|| proxy(&edge, "PROXY UNKNOWN\r\n")
        .reply()
        .starts_with("220 ")));
}
