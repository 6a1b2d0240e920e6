//! The Received field of this hop (RFC 5321 section 4.4).
//!
//! Promises: whatever the client said, the field is well formed: no raw octet of the network that could end the line,
//! close a comment or begin another clause; every line under 998 octets. Lives on the thread of its session.

use std::io::Write;
use std::net::IpAddr;

use super::path::{domain_key, grammar};

/// The protocol keyword of the `with` clause (RFC 3848, RFC 6531 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
    /// EHLO, TLS.
    Esmtps,
    /// EHLO, authenticated.
    Esmtpa,
    /// EHLO, TLS, authenticated.
    Esmtpsa,
    /// SMTPUTF8.
    Utf8Smtp,
    /// SMTPUTF8, TLS.
    Utf8Smtps,
    /// SMTPUTF8, authenticated.
    Utf8Smtpa,
    /// SMTPUTF8, TLS, authenticated.
    Utf8Smtpsa,
}

impl Protocol {
    /// The protocol of a message. `utf8`: MAIL said SMTPUTF8. After HELO it is SMTP, whatever else: no other keyword is
    /// registered.
    pub const fn of(esmtp: bool, tls: bool, auth: bool, utf8: bool) -> Protocol {
        match (esmtp, utf8, tls, auth) {
            (false, ..) => Protocol::Smtp,
            (_, false, false, false) => Protocol::Esmtp,
            (_, false, true, false) => Protocol::Esmtps,
            (_, false, false, true) => Protocol::Esmtpa,
            (_, false, true, true) => Protocol::Esmtpsa,
            (_, true, false, false) => Protocol::Utf8Smtp,
            (_, true, true, false) => Protocol::Utf8Smtps,
            (_, true, false, true) => Protocol::Utf8Smtpa,
            (_, true, true, true) => Protocol::Utf8Smtpsa,
        }
    }

    /// The registered keyword.
    pub const fn keyword(self) -> &'static str {
        match self {
            Protocol::Smtp => "SMTP",
            Protocol::Esmtp => "ESMTP",
            Protocol::Esmtps => "ESMTPS",
            Protocol::Esmtpa => "ESMTPA",
            Protocol::Esmtpsa => "ESMTPSA",
            Protocol::Utf8Smtp => "UTF8SMTP",
            Protocol::Utf8Smtps => "UTF8SMTPS",
            Protocol::Utf8Smtpa => "UTF8SMTPA",
            Protocol::Utf8Smtpsa => "UTF8SMTPSA",
        }
    }

    const fn is_utf8(self) -> bool {
        matches!(
            self,
            Protocol::Utf8Smtp | Protocol::Utf8Smtps | Protocol::Utf8Smtpa | Protocol::Utf8Smtpsa
        )
    }
}

/// What a Received field tells.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// What the client called itself, as it was sent.
    pub hello: &'a str,
    /// The address of the client.
    pub client: IpAddr,
    /// The name of this host.
    pub hostname: &'a str,
    /// How the message came.
    pub protocol: Protocol,
    /// The queue id.
    pub queue_id: &'a str,
    /// The time of reception, a date-time of RFC 5322 section 3.3.
    pub date: &'a str,
    /// The recipient, where there is exactly one: others are nobody's business (RFC 5321 section 7.2).
    pub recipient: Option<&'a str>,
}

/// Octets of a HELO name or recipient that are written; both are checked to be shorter before.
const MAX_NAME: usize = 255;

/// Writes the field, folded, with its CRLF.
pub fn write(out: &mut Vec<u8>, trace: &Trace<'_>) {
    out.extend_from_slice(b"Received: from ");
    hello_name(out, trace.hello);
    out.extend_from_slice(b" (");
    address_literal(out, trace.client);
    for part in [
        ")\r\n\tby ",
        trace.hostname,
        " (postern) with ",
        trace.protocol.keyword(),
        " id ",
        trace.queue_id,
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    match trace.recipient.filter(|r| is_printable(r, trace.protocol)) {
        Some(recipient) => {
            for part in ["\r\n\tfor <", recipient, ">; "] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        None => out.extend_from_slice(b";\r\n\t"),
    }
    out.extend_from_slice(trace.date.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A domain in A-labels, an address literal in its brackets. Of anything else letters, digits, `.`, `-`, `_` and `:`
/// stay, the rest becomes `?`, within a literal too (its grammar has semicolons and parentheses, its readers may not):
/// what the client said can be recognised, and is no syntax.
fn hello_name(out: &mut Vec<u8>, hello: &str) {
    if grammar::is_domain(hello) {
        out.extend_from_slice(domain_key(hello).as_bytes());
        return;
    }
    let bracketed = grammar::is_literal(hello);
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':') || (bracketed && matches!(c, '[' | ']'))
    };
    if hello.is_empty() {
        out.extend_from_slice(b"unknown");
    }
    out.extend(
        hello
            .chars()
            .take(MAX_NAME)
            .map(|c| if plain(c) { c as u8 } else { b'?' }),
    );
}

fn address_literal(out: &mut Vec<u8>, client: IpAddr) {
    // Writing to a Vec does not fail.
    let _ = match client.to_canonical() {
        IpAddr::V4(address) => write!(out, "[{address}]"),
        IpAddr::V6(address) => write!(out, "[IPv6:{address}]"),
    };
}

/// A checked mailbox is; this keeps the promise of the file should someone pass another string.
fn is_printable(recipient: &str, protocol: Protocol) -> bool {
    recipient.len() <= MAX_NAME
        && !recipient.chars().any(char::is_control)
        && (recipient.is_ascii() || protocol.is_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: Trace<'static> = Trace {
        hello: "client.test",
        client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
        hostname: "mx.test",
        protocol: Protocol::Esmtp,
        queue_id: "01AB",
        date: "Sat, 21 Nov 2026 01:00:00 +0000",
        recipient: None,
    };

    fn written(trace: Trace<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, &trace);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_field_names_client_host_protocol_and_queue_id() {
        assert_eq!(
            written(Trace {
                recipient: Some("a@b.test"),
                ..TRACE
            }),
            "Received: from client.test ([192.0.2.7])\r\n\tby mx.test (postern) with ESMTP id 01AB\r\n\t\
             for <a@b.test>; \
             Sat, 21 Nov 2026 01:00:00 +0000\r\n"
        );
        assert_eq!(
            written(TRACE),
            "Received: from client.test ([192.0.2.7])\r\n\tby mx.test (postern) with ESMTP id 01AB;\r\n\t\
             Sat, 21 Nov 2026 01:00:00 +0000\r\n"
        );
    }

    #[test]
    fn an_ipv6_client_has_its_tag_and_a_mapped_one_is_ipv4() {
        let client = |address: &str| {
            written(Trace {
                client: address.parse().unwrap(),
                ..TRACE
            })
        };
        assert!(client("2001:db8::7").contains("([IPv6:2001:db8::7])"));
        assert!(client("::ffff:192.0.2.7").contains("([192.0.2.7])"));
    }

    #[test]
    fn nothing_that_the_client_calls_itself_can_break_the_field() {
        let from = |hello: &str| {
            let field = written(Trace { hello, ..TRACE });
            let name = field
                .strip_prefix("Received: from ")
                .unwrap()
                .split_once(" ([192.0.2.7])\r\n\tby mx.test")
                .unwrap()
                .0;
            assert_eq!(field.matches("\r\n").count(), 3, "{field:?}");
            assert!(field.lines().all(|line| line.len() < 998), "{field:?}");
            assert_eq!(
                field
                    .replace("\r\n", "")
                    .replace('\t', "")
                    .find(|c: char| c.is_control()),
                None
            );
            name.to_owned()
        };
        assert_eq!(from("my_host"), "my_host");
        assert_eq!(from("[192.0.2.1]"), "[192.0.2.1]");
        assert_eq!(from("[IPv6:2001:DB8::1]"), "[IPv6:2001:DB8::1]");
        assert_eq!(from("[tag:a;(b]"), "[tag:a??b]");
        assert_eq!(from("[1.2.3]"), "?1.2.3?");
        assert_eq!(from("b\u{fc}cher.test"), "xn--bcher-kva.test");
        assert_eq!(from("a\r\n\r\nbody"), "a????body");
        assert_eq!(from("evil)(by"), "evil??by");
        assert_eq!(from("x;\u{202e}\u{1b}[2J\0"), "x????2J?");
        assert_eq!(from(""), "unknown");
        assert_eq!(from(&"\u{fc}!".repeat(5000)).len(), 255);
    }

    #[test]
    fn a_recipient_that_could_break_the_field_is_left_out() {
        let field = |recipient, protocol| {
            written(Trace {
                recipient: Some(recipient),
                protocol,
                ..TRACE
            })
        };
        let long = "a".repeat(300);
        for recipient in ["a\r\nX: y@b", "a\0@b", long.as_str(), "\u{fc}@b.test"] {
            assert!(!field(recipient, Protocol::Esmtp).contains("for <"), "{recipient:?}");
        }
        assert!(field("\u{fc}@b.test", Protocol::Utf8Smtps).contains("for <\u{fc}@b.test>"));
    }

    #[test]
    fn the_keyword_is_the_registered_one() {
        for tls in [false, true] {
            for auth in [false, true] {
                let suffix = format!("{}{}", if tls { "S" } else { "" }, if auth { "A" } else { "" });
                assert_eq!(Protocol::of(true, tls, auth, false).keyword(), format!("ESMTP{suffix}"));
                assert_eq!(
                    Protocol::of(true, tls, auth, true).keyword(),
                    format!("UTF8SMTP{suffix}")
                );
                assert_eq!(Protocol::of(false, tls, auth, false).keyword(), "SMTP");
            }
        }
    }
}
