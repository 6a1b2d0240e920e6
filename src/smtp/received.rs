//! The Received field of this hop (RFC 5321 section 4.4).
//!
//! Promises: whatever the client said, the field is well formed: no raw octet of the network that could end the line, close
//! a comment or begin another clause; every line under 998 octets. Lives on the thread of its session.

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
    /// The recipient, where there is exactly one: others are nobody's business (RFC 5321 section 7.6).
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

/// A domain in A-labels or an address literal as it is. Of anything else, letters, digits, `.`, `-`, `_` and `:` stay, the rest
/// becomes `?`: what the client said can be recognised, and is no syntax.
fn hello_name(out: &mut Vec<u8>, hello: &str) {
    if grammar::is_domain(hello) && !hello.is_ascii() {
        out.extend_from_slice(domain_key(hello).as_bytes());
    } else if grammar::is_domain(hello) || grammar::is_literal(hello) {
        out.extend_from_slice(hello.as_bytes());
    } else if hello.is_empty() {
        out.extend_from_slice(b"unknown");
    } else {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        out.extend(
            hello
                .chars()
                .take(MAX_NAME)
                .map(|c| if plain(c) { c as u8 } else { b'?' }),
        );
    }
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
