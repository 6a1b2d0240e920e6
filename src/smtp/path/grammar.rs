//! The grammar of paths, octet by octet: how long is the local-part, the domain, the source route at the front of this
//! slice (RFC 5321 section 4.1.2, RFC 6531 section 3.3)?
//!
//! Promises: reads each octet once, allocates only for domains with octets above 127, never panics. Octets above 127 are
//! taken where RFC 6531 has UTF-8; that they are UTF-8 at all is for the caller to check first. Lives on every thread.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Octets of a local-part, quotes included (RFC 5321 section 4.5.3.1.1).
pub const MAX_LOCAL: usize = 64;
/// Octets of a domain (RFC 5321 section 4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;
/// Octets of a path with its angle brackets and source route (RFC 5321 section 4.5.3.1.3).
pub const MAX_PATH: usize = 256;
/// Octets of a label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// `atext` of RFC 5322 section 3.2.3, and above 127 what RFC 6531 section 3.3 adds to it.
const ATEXT: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = octet >= 0x80 || (octet as u8).is_ascii_alphanumeric();
        octet += 1;
    }
    let special = b"!#$%&'*+-/=?^_`{|}~";
    let mut i = 0;
    while i < special.len() {
        table[special[i] as usize] = true;
        i += 1;
    }
    table
};

/// Whether `octet` may stand in an atom.
pub const fn is_atext(octet: u8) -> bool {
    ATEXT[octet as usize]
}

/// `local-part@domain` at the front of `b`: the position of the `@`, and the length of the whole.
pub fn mailbox(b: &[u8]) -> Option<(usize, usize)> {
    let at = local_part(b)?;
    let domain = b.get(at..)?.strip_prefix(b"@")?;
    Some((at, at + 1 + domain_or_literal(domain)?))
}

/// `@a,@b:` at the front of `b` (RFC 5321 appendix C): its length, 0 where there is none.
pub fn source_route(b: &[u8]) -> Option<usize> {
    let mut n = 0;
    while let Some(domain) = b.get(n..)?.strip_prefix(b"@") {
        n += 1 + domain_name(domain)?;
        match b.get(n) {
            Some(b',') if b.get(n + 1) == Some(&b'@') => n += 1,
            Some(b':') => return Some(n + 1),
            _ => return None,
        }
    }
    Some(n)
}

fn local_part(b: &[u8]) -> Option<usize> {
    let n = if b.first() == Some(&b'"') {
        quoted_string(b)
    } else {
        dot_string(b)
    }?;
    (n <= MAX_LOCAL).then_some(n)
}

fn dot_string(b: &[u8]) -> Option<usize> {
    let mut atom_is_empty = true;
    let mut n = 0;
    for &octet in b {
        match octet {
            b'.' if atom_is_empty => return None,
            b'.' => atom_is_empty = true,
            _ if is_atext(octet) => atom_is_empty = false,
            _ => break,
        }
        n += 1;
    }
    (!atom_is_empty).then_some(n)
}

fn quoted_string(b: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (n, &octet) in b.iter().enumerate().skip(1) {
        match octet {
            // quoted-pairSMTP has no UTF-8 (RFC 5321 section 4.1.2), qtextSMTP has (RFC 6531 section 3.3).
            0x20..=0x7e if escaped => escaped = false,
            b'"' if !escaped => return Some(n + 1),
            b'\\' => escaped = true,
            0x20..=0x7e | 0x80.. if !escaped => {}
            _ => return None,
        }
    }
    None
}

fn domain_or_literal(b: &[u8]) -> Option<usize> {
    if b.first() == Some(&b'[') {
        literal(b)
    } else {
        domain_name(b)
    }
}

/// Letters, digits, hyphens and dots; a label neither begins nor ends with a hyphen (RFC 5321 section 4.1.2). No
/// underscore: hosts have none, and no mail exchanger was ever found that needs it.
fn domain_name(b: &[u8]) -> Option<usize> {
    let (mut label, mut ascii, mut all_ascii, mut last, mut n) = (0, true, true, b'.', 0);
    for &octet in b {
        match octet {
            b'.' if matches!(last, b'.' | b'-') => return None,
            b'.' if label > MAX_LABEL && ascii => return None,
            b'.' => (label, ascii) = (0, true),
            b'-' if label == 0 => return None,
            b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => label += 1,
            // The limit of such a label is that of its A-label (RFC 5890 section 2.3.2.1): `a_labels` knows.
            0x80.. => (label, ascii, all_ascii) = (label + 1, false, false),
            _ => break,
        }
        last = octet;
        n += 1;
    }
    if matches!(last, b'.' | b'-') || (label > MAX_LABEL && ascii) || n > MAX_DOMAIN {
        return None;
    }
    if !all_ascii {
        a_labels(std::str::from_utf8(b.get(..n)?).ok()?)?;
    }
    Some(n)
}

/// `[1.2.3.4]`, `[IPv6:...]`, `[tag:content]` (RFC 5321 section 4.1.3).
fn literal(b: &[u8]) -> Option<usize> {
    let end = b.iter().take(MAX_DOMAIN).position(|&octet| octet == b']')?;
    let inner = std::str::from_utf8(b.get(1..end)?).ok()?;
    // dcontent is printable ASCII without brackets, backslash and space.
    if !inner.bytes().all(|o| matches!(o, 0x21..=0x5a | 0x5e..=0x7e)) {
        return None;
    }
    let valid = match inner.split_once(':') {
        None => inner.parse::<Ipv4Addr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => address.parse::<Ipv6Addr>().is_ok(),
        Some((tag, content)) => {
            let ldh = tag.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'-');
            ldh && tag.bytes().last().is_some_and(|o| o != b'-') && !content.is_empty()
        }
    };
    valid.then_some(end + 1)
}

/// Whether the whole of `name` is a domain.
pub fn is_domain(name: &str) -> bool {
    domain_name(name.as_bytes()) == Some(name.len())
}

/// Whether the whole of `name` is an address literal.
pub fn is_literal(name: &str) -> bool {
    name.starts_with('[') && literal(name.as_bytes()) == Some(name.len())
}

/// A domain with octets above 127 in A-labels and lower case (RFC 5890 section 2.3.2.1, mapped as UTS 46 says); none where
/// it has no such form. A label that only mapping makes plain ASCII (full-width letters, the Kelvin sign, an
/// ideographic full stop) is no U-label and refused: it would be one name to us and another one to the next hop.
pub fn a_labels(domain: &str) -> Option<Cow<'_, str>> {
    let converted = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .ok()?;
    let mut labels = converted.split('.');
    for label in domain.split('.') {
        let a_label = labels.next()?;
        if !label.is_ascii() && !a_label.starts_with("xn--") {
            return None;
        }
    }
    labels.next().is_none().then_some(converted)
}
