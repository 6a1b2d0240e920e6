//! What became of a recipient in one attempt, and the words that say so.
//!
//! Promises: whatever a hop has sent, a [`HopReply`] holds one line of printable ASCII of bounded length, so that it can stand
//! in a reply, a report or a log line as it is. Plain data; lives wherever the attempt is looked at.

use std::fmt;

/// Octets of text that are kept of a reply: one line of RFC 5321 section 4.5.3.1.5, and with its code still one.
pub const MAX_TEXT: usize = 480;

/// What an attempt led to for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The hop has taken the message: 2xx after the content.
    Delivered(HopReply),
    /// Not now: 4xx, or nobody to hear it from. To be tried again.
    Deferred(HopReply),
    /// Never: 5xx, or a message that no hop of the route can take.
    Failed(HopReply),
}

/// A reply of a next hop, or what stands for it where none came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HopReply {
    /// The reply code (RFC 5321 section 4.2): 2xx, 4xx or 5xx.
    pub code: u16,
    /// The enhanced status code; made from `code` where the hop gave none.
    pub status: EnhancedStatusCode,
    /// What follows the codes, lines joined by a space.
    pub text: Box<str>,
    /// Who says so.
    pub origin: Origin,
}

/// Where a [`HopReply`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The hop said it.
    Hop,
    /// Nobody answered: no address, no route, connection refused, no greeting in time, TLS that did not come about.
    NoConnection,
    /// The hop kept silent for too long.
    TimedOut {
        /// The end of the content had been sent: the hop may have taken the message.
        ended: bool,
    },
    /// The connection broke.
    Lost {
        /// The end of the content had been sent: the hop may have taken the message.
        ended: bool,
    },
    /// The hop spoke no SMTP.
    Nonsense,
    /// We decided it: a message that the hop cannot take, one that expired, a defect of ours.
    Ours,
}

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedStatusCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// Up to 999.
    pub subject: u16,
    /// Up to 999.
    pub detail: u16,
}

impl Outcome {
    /// The words that came with it.
    pub fn reply(&self) -> &HopReply {
        let (Outcome::Delivered(reply) | Outcome::Deferred(reply) | Outcome::Failed(reply)) = self;
        reply
    }
}

impl HopReply {
    /// A reply that a hop gave. `text` is what followed the code, the lines of one reply joined by a space. An enhanced
    /// status code at its start is believed where its class is that of the code (RFC 2034 section 4).
    pub fn heard(code: u16, text: &[u8]) -> HopReply {
        let (status, rest) = match EnhancedStatusCode::parse(text) {
            Some((status, rest)) if u16::from(status.class) == code / 100 => (status, rest),
            _ => (EnhancedStatusCode::of(code), text),
        };
        HopReply {
            code,
            status,
            text: printable(rest),
            origin: Origin::Hop,
        }
    }

    /// What we say where no reply came, or instead of one.
    pub fn ours(origin: Origin, code: u16, status: EnhancedStatusCode, text: &str) -> HopReply {
        HopReply {
            code,
            status,
            text: printable(text.as_bytes()),
            origin,
        }
    }
}

/// As it would stand on the wire.
impl fmt::Display for HopReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.code, self.status, self.text)
    }
}

impl EnhancedStatusCode {
    /// The code of these three numbers.
    pub const fn new(class: u8, subject: u16, detail: u16) -> EnhancedStatusCode {
        EnhancedStatusCode { class, subject, detail }
    }

    /// What a reply code alone says: "other or undefined" (RFC 3463 section 3.1).
    pub const fn of(code: u16) -> EnhancedStatusCode {
        let class = match code / 100 {
            2 => 2,
            5 => 5,
            _ => 4,
        };
        EnhancedStatusCode::new(class, 0, 0)
    }

    /// Reads a code that stands at the start of a text and ends there or before a space: the code, and what follows.
    pub fn parse(text: &[u8]) -> Option<(EnhancedStatusCode, &[u8])> {
        let end = text.iter().position(|&b| b == b' ').unwrap_or(text.len());
        let (code, rest) = text.split_at_checked(end)?;
        let mut parts = code.split(|&b| b == b'.');
        let class = number(parts.next()?)?;
        let (subject, detail) = (number(parts.next()?)?, number(parts.next()?)?);
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return None;
        }
        let status = EnhancedStatusCode::new(class as u8, subject, detail);
        Some((status, rest.strip_prefix(b" ").unwrap_or(rest)))
    }
}

impl fmt::Display for EnhancedStatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// One to three digits.
fn number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')))
}

/// Octets that are no printable ASCII become `?`, line ends and tabs a space.
fn printable(text: &[u8]) -> Box<str> {
    let plain: String = text
        .trim_ascii()
        .iter()
        .take(MAX_TEXT)
        .map(|&octet| match octet {
            b' '..=b'~' => char::from(octet),
            b'\r' | b'\n' | b'\t' => ' ',
            _ => '?',
        })
        .collect();
    plain.trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_enhanced_status_code_is_believed_where_its_class_agrees() {
        let reply = HopReply::heard(550, b"5.1.1 User unknown");
        assert_eq!(
            (reply.status, &*reply.text),
            (EnhancedStatusCode::new(5, 1, 1), "User unknown")
        );
        assert_eq!(reply.to_string(), "550 5.1.1 User unknown");
        let reply = HopReply::heard(450, b"5.1.1 User unknown");
        assert_eq!(
            (reply.status, &*reply.text),
            (EnhancedStatusCode::new(4, 0, 0), "5.1.1 User unknown")
        );
        assert_eq!(HopReply::heard(250, b"2.0.0").to_string(), "250 2.0.0 ");
    }

    #[test]
    fn what_is_no_enhanced_status_code_is_text() {
        for text in [
            "5.1 x",
            "5.1.1.1 x",
            "5.1.1000 x",
            "5..1 x",
            "3.1.1 x",
            "55.1.1 x",
            ".1.1",
            "",
            "5.1.x y",
        ] {
            assert_eq!(EnhancedStatusCode::parse(text.as_bytes()), None, "{text}");
            assert_eq!(&*HopReply::heard(554, text.as_bytes()).text, text);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_hop_says_is_one_printable_line(code: u16, text: Vec<u8>) {
            let reply = HopReply::heard(code, &text);
            prop_assert!(reply.text.len() <= MAX_TEXT);
            prop_assert!(reply.to_string().bytes().all(|b| matches!(b, b' '..=b'~')));
            prop_assert!(reply.to_string().len() <= 510);
        }
    }
}
