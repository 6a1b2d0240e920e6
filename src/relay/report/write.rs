//! A report as a message: for people, for programs (RFC 3464), and what it is about (RFC 6522).
//!
//! Promises: no octet that a client or a hop has sent can end a line, begin a field or end a part; 7 bits unless the sender can
//! be reached by SMTPUTF8 alone; lines of at most 998 octets; one answer to one message, and no answer to it (RFC 3834). Pure.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use super::returned::{Returned, part};
use super::{Event, Kind, Notice, Report};
use crate::relay::queue::Said;
use crate::smtp::client::{EnhancedStatusCode, Origin};
use crate::spool::QueueId;

/// What the caller gives a report.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The name of this host.
    pub hostname: &'a str,
    /// The name of the report.
    pub id: QueueId,
    /// Now, in unix seconds.
    pub unix: u64,
}

/// Octets of a line that we write; a field that would be longer is left out, for none may be folded within a word.
const MAX_LINE: usize = 990;

impl Report {
    /// The message: CRLF, no doubled dots ([`Form::Plain`](crate::smtp::Form::Plain)). Without `returned` it tells only what
    /// happened.
    pub fn write(&self, frame: Frame<'_>, returned: Option<Returned<'_>>) -> Vec<u8> {
        let utf8 = self.needs_utf8();
        let part = returned.map(|returned| part(returned, self.wants_content(), self.smtputf8, utf8));
        let mut boundary = format!("postern-{}", frame.id);
        // The name of the report is not known outside before it is sent; this is for certainty.
        while part.as_ref().is_some_and(|part| contains(&part.body, &boundary)) {
            boundary.push('-');
        }
        let mut out = String::with_capacity(2048);
        self.head(&mut out, frame, &boundary);
        self.for_people(&mut out, frame, &boundary);
        self.for_programs(&mut out, frame, &boundary);
        let mut out = out.into_bytes();
        if let Some(part) = part {
            let mut fields = String::new();
            line(&mut fields, format_args!("--{boundary}"));
            line(&mut fields, format_args!("Content-Type: {}", part.kind));
            line(
                &mut fields,
                format_args!("Content-Transfer-Encoding: {}", part.encoding),
            );
            line(&mut fields, "");
            out.extend_from_slice(fields.as_bytes());
            out.extend_from_slice(&part.body);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        out
    }

    fn head(&self, out: &mut String, frame: Frame<'_>, boundary: &str) {
        let subject = match self.kind {
            Kind::Failure => "Undelivered mail returned to sender",
            Kind::Delay => "Delayed mail (still being tried)",
            Kind::Success => "Delivery of your mail",
        };
        line(
            out,
            format_args!("From: Mail Delivery System <MAILER-DAEMON@{}>", frame.hostname),
        );
        line(out, format_args!("To: <{}>", self.to.as_str()));
        line(out, format_args!("Subject: {subject}"));
        line(out, format_args!("Date: {}", date(frame.unix)));
        line(out, format_args!("Message-ID: <{}@{}>", frame.id, frame.hostname));
        line(out, "Auto-Submitted: auto-replied");
        line(out, "MIME-Version: 1.0");
        line(out, "Content-Type: multipart/report; report-type=delivery-status;");
        line(out, format_args!("\tboundary=\"{boundary}\""));
        let encoding = if self.needs_utf8() { "8bit" } else { "7bit" };
        line(out, format_args!("Content-Transfer-Encoding: {encoding}"));
        line(out, "");
    }

    fn for_people(&self, out: &mut String, frame: Frame<'_>, boundary: &str) {
        let utf8 = self.needs_utf8();
        let (charset, encoding) = if utf8 { ("utf-8", "8bit") } else { ("us-ascii", "7bit") };
        line(out, format_args!("--{boundary}"));
        line(out, format_args!("Content-Type: text/plain; charset={charset}"));
        line(out, format_args!("Content-Transfer-Encoding: {encoding}"));
        line(out, "");
        line(out, format_args!("This is the mail server {}.", frame.hostname));
        line(out, "");
        for text in match self.kind {
            Kind::Failure => [
                "Your message could not be delivered to the recipients below, and is not",
                "tried again. What was said may tell why.",
            ],
            Kind::Delay => [
                "Your message has not been delivered yet to the recipients below. It is",
                "still being tried: there is no need to send it again.",
            ],
            Kind::Success => [
                "Your message was delivered to the recipients below, or passed on to a",
                "server that may send no report of its own.",
            ],
        } {
            line(out, text);
        }
        for notice in &self.recipients {
            line(out, "");
            let address = unitext(notice.recipient.forward_path.as_str(), utf8);
            line(out, format_args!("  <{address}>"));
            let what = match notice.event {
                Event::Failed => "refused".into(),
                Event::Expired => "not delivered in time".into(),
                Event::Delayed => format!("tried until {}", date(notice.until)),
                Event::Relayed => "passed on".into(),
                Event::Delivered => "delivered".into(),
            };
            line(out, format_args!("    {what}"));
            if let Some(said) = &notice.said {
                match hop(said) {
                    Some(hop) => line(out, format_args!("    {hop}: {}", said.reply)),
                    None => line(out, format_args!("    {}", said.reply)),
                }
            }
        }
        line(out, "");
    }

    /// RFC 3464 section 2.
    fn for_programs(&self, out: &mut String, frame: Frame<'_>, boundary: &str) {
        let utf8 = self.needs_utf8();
        let (kind, encoding) = if utf8 {
            ("message/global-delivery-status", "8bit")
        } else {
            ("message/delivery-status", "7bit")
        };
        line(out, format_args!("--{boundary}"));
        line(out, format_args!("Content-Type: {kind}"));
        line(out, format_args!("Content-Transfer-Encoding: {encoding}"));
        line(out, "");
        if let Some(envid) = &self.envid {
            line(out, format_args!("Original-Envelope-Id: {}", from_xtext(envid)));
        }
        line(out, format_args!("Reporting-MTA: dns; {}", frame.hostname));
        line(out, format_args!("Arrival-Date: {}", date(self.arrived)));
        for notice in &self.recipients {
            line(out, "");
            notice.fields(out, utf8);
        }
        line(out, "");
    }
}

impl Notice {
    fn fields(&self, out: &mut String, utf8: bool) {
        let original = self.recipient.parameters.orcpt.as_deref();
        if let Some((kind, address)) = original.and_then(|orcpt| orcpt.split_once(';')) {
            let address = if kind.eq_ignore_ascii_case("utf-8") && !address.contains('+') {
                unitext(address, utf8)
            } else {
                from_xtext(address)
            };
            line(out, format_args!("Original-Recipient: {kind}; {address}"));
        }
        let address = self.recipient.forward_path.as_str();
        let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
        line(out, format_args!("Final-Recipient: {kind}; {}", unitext(address, utf8)));
        let action = match self.event {
            Event::Failed | Event::Expired => "failed",
            Event::Delayed => "delayed",
            Event::Relayed => "relayed",
            Event::Delivered => "delivered",
        };
        line(out, format_args!("Action: {action}"));
        line(out, format_args!("Status: {}", self.status()));
        if let Some(said) = &self.said {
            if let Some(hop) = hop(said) {
                line(out, format_args!("Remote-MTA: dns; {hop}"));
            }
            let kind = match said.reply.origin {
                Origin::Hop => "smtp",
                _ => "x-postern",
            };
            line(out, format_args!("Diagnostic-Code: {kind}; {}", said.reply));
        }
        if self.tried > 0 {
            line(out, format_args!("Last-Attempt-Date: {}", date(self.tried)));
        }
        if self.event == Event::Delayed {
            line(out, format_args!("Will-Retry-Until: {}", date(self.until)));
        }
    }

    /// The class is that of the action, whatever the hop said (RFC 3464 section 2.3.4).
    fn status(&self) -> EnhancedStatusCode {
        let class = match self.event {
            // RFC 3463 section 3.5: "delivery time expired" is of the transient class.
            Event::Expired => return EnhancedStatusCode::new(4, 4, 7),
            Event::Failed => 5,
            Event::Delayed => 4,
            Event::Relayed | Event::Delivered => 2,
        };
        let said = self.said.as_ref().map(|said| said.reply.status);
        said.filter(|status| status.class == class)
            .unwrap_or(EnhancedStatusCode::new(class, 0, 0))
    }
}

/// One line. Whatever control character it may have got from anywhere becomes `?`.
fn line(out: &mut String, text: impl Display) {
    let start = out.len();
    // Writing to a String does not fail.
    let _ = write!(out, "{text}");
    let written = out.get(start..).unwrap_or_default();
    if written.len() > MAX_LINE {
        out.truncate(start);
        return;
    }
    if written.chars().any(|c| c.is_control() && c != '\t') {
        let cleaned: String = written.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        out.truncate(start);
        out.push_str(&cleaned);
    }
    out.push_str("\r\n");
}

/// The host that answered: printable ASCII, none where nobody did.
fn hop(said: &Said) -> Option<String> {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    let hop: String = said.hop.chars().take(255).map(plain).collect();
    (!hop.is_empty()).then_some(hop)
}

/// An address as it is, or in the ASCII that RFC 6533 section 3 has for it.
fn unitext(address: &str, utf8: bool) -> Cow<'_, str> {
    if utf8 || address.is_ascii() {
        return Cow::Borrowed(address);
    }
    let mut ascii = String::with_capacity(address.len() * 2);
    for character in address.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            let _ = write!(ascii, "\\x{{{:X}}}", u32::from(character));
        }
    }
    Cow::Owned(ascii)
}

/// What xtext stands for (RFC 3461 section 4); the parser has seen to it that this is printable.
fn from_xtext(text: &str) -> Cow<'_, str> {
    if !text.contains('+') {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split('+');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        match u8::from_str_radix(hex, 16) {
            Ok(octet) if octet.is_ascii() => plain.push(char::from(octet)),
            _ => plain.push('?'),
        }
        plain.push_str(rest);
    }
    Cow::Owned(plain)
}

/// A date-time of RFC 5322 section 3.3.
fn date(unix: u64) -> String {
    let second = i64::try_from(unix).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(second)
        .unwrap_or_default()
        .strftime("%a, %d %b %Y %H:%M:%S +0000")
        .to_string()
}

fn contains(body: &[u8], boundary: &str) -> bool {
    memchr::memmem::find(body, boundary.as_bytes()).is_some()
}
