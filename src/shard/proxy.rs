//! The PROXY header, versions 1 and 2, in front of a session (haproxy.org, proxy-protocol.txt 2020-03-05).
//!
//! Promises: pure; a header is bounded in length; what is not a header is never taken for one.

use std::net::IpAddr;

use memchr::memchr;
use ppp::{PartialResult, v1, v2};

/// Octets that a header may have: v2 with the TLVs that load balancers send stays below.
pub const MAX_HEADER: usize = 536;
/// Octets of the longest line of version 1, with its CRLF (section 2.1).
const MAX_LINE: usize = 107;
/// How version 1 begins.
const VERSION_1: &[u8] = b"PROXY ";

/// What the octets so far are.
#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    /// The beginning of a header.
    Incomplete,
    /// A whole header of so many octets, and the client it names; none for LOCAL and UNKNOWN (the peer speaks for itself).
    Whole(usize, Option<IpAddr>),
    /// No header, too long a header, or one of another address family.
    Invalid,
}

/// Reads a header at the start of `input`.
pub fn header(input: &[u8]) -> Header {
    if input.starts_with(VERSION_1) || VERSION_1.starts_with(input) {
        version_1(input)
    } else {
        version_2(input)
    }
}

/// A line: judged once its end is there, whatever the parser makes of a line that is cut.
fn version_1(input: &[u8]) -> Header {
    let most = input.get(..MAX_LINE).unwrap_or(input);
    let Some(end) = memchr(b'\n', most) else {
        return if input.len() < MAX_LINE {
            Header::Incomplete
        } else {
            Header::Invalid
        };
    };
    match input.get(..=end).map(v1::Header::try_from) {
        Some(Ok(header)) => Header::Whole(
            end + 1,
            match header.addresses {
                v1::Addresses::Tcp4(a) => Some(IpAddr::V4(a.source_address)),
                v1::Addresses::Tcp6(a) => Some(IpAddr::V6(a.source_address)),
                v1::Addresses::Unknown => None,
            },
        ),
        _ => Header::Invalid,
    }
}

fn version_2(input: &[u8]) -> Header {
    let parsed = v2::Header::try_from(input);
    if parsed.is_incomplete() && input.len() < MAX_HEADER {
        return Header::Incomplete;
    }
    match parsed {
        Ok(header) if header.len() <= MAX_HEADER => Header::Whole(
            header.len(),
            match (header.command, header.addresses) {
                (v2::Command::Local, _) => None,
                (_, v2::Addresses::IPv4(a)) => Some(IpAddr::V4(a.source_address)),
                (_, v2::Addresses::IPv6(a)) => Some(IpAddr::V6(a.source_address)),
                (_, v2::Addresses::Unspecified) => None,
                (_, v2::Addresses::Unix(_)) => return Header::Invalid,
            },
        ),
        _ => Header::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x30\x39\x00\x19";

    fn every_prefix_is_incomplete(whole: &[u8]) {
        for end in 1..whole.len() {
            assert_eq!(header(&whole[..end]), Header::Incomplete, "{end}");
        }
    }

    #[test]
    fn version_1_names_its_client_wherever_it_is_cut() {
        let line = b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\r\n";
        assert_eq!(
            header(line),
            Header::Whole(line.len(), Some("192.0.2.7".parse().unwrap()))
        );
        let line6 = b"PROXY TCP6 2001:db8::1 ::1 12345 25\r\nEHLO x\r\n";
        assert_eq!(header(line6), Header::Whole(37, Some("2001:db8::1".parse().unwrap())));
        every_prefix_is_incomplete(line);
        assert_eq!(header(b"PROXY UNKNOWN\r\n"), Header::Whole(15, None));
    }

    #[test]
    fn version_2_names_its_client_wherever_it_is_cut() {
        assert_eq!(header(V2), Header::Whole(V2.len(), Some("192.0.2.7".parse().unwrap())));
        every_prefix_is_incomplete(V2);
        let mut local = V2.to_vec();
        local[12] = 0x20;
        assert_eq!(header(&local), Header::Whole(V2.len(), None));
    }

    #[test]
    fn what_is_no_header_or_too_long_is_refused() {
        for input in [
            &b"EHLO client.test\r\n"[..],
            b"PROXY TCP4 nonsense\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 99999 25\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\n",
        ] {
            assert_eq!(header(input), Header::Invalid, "{}", String::from_utf8_lossy(input));
        }
        assert_eq!(header(&[b'P'; 2000]), Header::Invalid);
        let endless = [VERSION_1, &[b'1'; 101]].concat();
        assert_eq!(header(&endless[..106]), Header::Incomplete);
        assert_eq!(header(&endless), Header::Invalid);
        let mut huge = V2[..14].to_vec();
        huge.extend_from_slice(&[0xff, 0xff]);
        huge.resize(MAX_HEADER, 0);
        assert_eq!(header(&huge), Header::Invalid);
        let unix = [&V2[..13], &[0x31, 0x00, 0xd8], &[0; 216]].concat();
        assert_eq!(header(&unix), Header::Invalid);
    }
}
