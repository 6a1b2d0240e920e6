//! The PROXY header, versions 1 and 2, in front of a session (haproxy.org, proxy-protocol.txt 2020-03-05).
//!
//! Promises: pure; a header is bounded in length; what is not a header is never taken for one.

use std::net::IpAddr;

use ppp::{HeaderResult, v1, v2};

/// Octets that a header may have: the longest v1 line is 107, and v2 with the TLVs that load balancers send stays below.
pub const MAX_HEADER: usize = 536;
/// The longest line of version 1, with its CRLF (section 2.1).
const MAX_LINE: usize = 107;
/// How the two versions begin.
const LINE_BEGINS: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The octets of version 2 before its addresses, of which the last two tell how many follow.
const FIXED: usize = 16;

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

/// Reads a header at the start of `input`. Where it ends is found here, what it says by `ppp`, which gets whole headers
/// only: its own answer to half a line of version 1 depends on where that is cut.
pub fn header(input: &[u8]) -> Header {
    let length = match extent(input) {
        Extent::Whole(length) => length,
        Extent::Unknown => return Header::Incomplete,
        Extent::None => return Header::Invalid,
    };
    let client = match HeaderResult::parse(input.get(..length).unwrap_or_default()) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(a) => Some(IpAddr::V4(a.source_address)),
            v1::Addresses::Tcp6(a) => Some(IpAddr::V6(a.source_address)),
            v1::Addresses::Unknown => None,
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
            (v2::Command::Local, _) => None,
            (_, v2::Addresses::IPv4(a)) => Some(IpAddr::V4(a.source_address)),
            (_, v2::Addresses::IPv6(a)) => Some(IpAddr::V6(a.source_address)),
            (_, v2::Addresses::Unspecified) => None,
            (_, v2::Addresses::Unix(_)) => return Header::Invalid,
        },
        _ => return Header::Invalid,
    };
    Header::Whole(length, client)
}

/// How far a header reaches.
enum Extent {
    Whole(usize),
    Unknown,
    /// Nothing that is added can make a header of this: whoever speaks something else is not waited for.
    None,
}

fn extent(input: &[u8]) -> Extent {
    let begins = |whole: &[u8]| input.iter().zip(whole).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        return match input.get(FIXED - 2..FIXED) {
            Some(&[high, low]) => match FIXED + usize::from(u16::from_be_bytes([high, low])) {
                length if length > MAX_HEADER => Extent::None,
                length if length > input.len() => Extent::Unknown,
                length => Extent::Whole(length),
            },
            _ => Extent::Unknown,
        };
    }
    if !begins(LINE_BEGINS) {
        return Extent::None;
    }
    let line = input.get(..MAX_LINE).unwrap_or(input);
    match memchr::memchr(b'\n', line) {
        Some(end) => Extent::Whole(end + 1),
        None if line.len() < MAX_LINE => Extent::Unknown,
        None => Extent::None,
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
    fn a_header_without_a_client_is_incomplete_until_its_end_too() {
        every_prefix_is_incomplete(b"PROXY UNKNOWN\r\n");
        every_prefix_is_incomplete(b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n");
        every_prefix_is_incomplete(b"PROXY TCP6 ::ffff:192.0.2.8 ::1 4711 25\r\n");
        every_prefix_is_incomplete(&[SIGNATURE, &[0x20, 0, 0, 0]].concat());
        every_prefix_is_incomplete(&[SIGNATURE, &[0x20, 0, 0, 5, 4, 0, 2, 0, 0]].concat());
        every_prefix_is_incomplete(&[SIGNATURE, &[0x21, 0x11, 0, 17], &[1; 12], &[4, 0, 2, 0, 0]].concat());
        every_prefix_is_incomplete(&[SIGNATURE, &[0x21, 0x21, 0, 36], &[1; 36]].concat());
    }

    #[test]
    fn what_can_become_no_header_is_refused_at_its_first_octet_that_is_none() {
        for (input, good) in [
            (&b"\0\0\0"[..], 0),
            (b"EHLO", 0),
            (b"PROXX", 4),
            (b"proxy", 0),
            (b"\r\n\r\nQUIT", 4),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", 15),
        ] {
            for end in 1..=input.len() {
                let expected = if end <= good {
                    Header::Incomplete
                } else {
                    Header::Invalid
                };
                assert_eq!(
                    header(&input[..end]),
                    expected,
                    "{:?}",
                    input[..end].escape_ascii().to_string()
                );
            }
        }
        let endless = [LINE_BEGINS, &[b'x'; MAX_LINE][..]].concat();
        assert_eq!(header(&endless[..MAX_LINE]), Header::Invalid);
    }

    #[test]
    fn what_is_no_header_or_too_long_is_refused() {
        for input in [
            &b"EHLO client.test\r\n"[..],
            b"PROXY TCP4 nonsense\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 99999 25\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\n",
            b"PROXY TCP4 2001:db8::1 ::1 12345 25\r\n",
            b"PROXY UNKNOWN\n",
            b"PROXY \r\n",
        ] {
            assert_eq!(header(input), Header::Invalid, "{}", String::from_utf8_lossy(input));
        }
        assert_eq!(header(&[b'P'; 2000]), Header::Invalid);
        let unix = [&V2[..13], &[0x31, 0x00, 0xd8], &[0; 216]].concat();
        assert_eq!(header(&unix), Header::Invalid);
    }
}
