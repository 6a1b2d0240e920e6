//! The grammar of paths, octet by octet: how long is the local-part, the domain, the source route at the front of this
//! slice (RFC 5321 section 4.1.2, RFC 6531 section 3.3)?
//!
//! Promises: reads each octet once, allocates only for domains with octets above 127, never panics. Octets above 127
//! are taken where RFC 6531 has UTF-8; that they are UTF-8 at all is for the caller to check. Lives on every
//! thread.

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

/// Letters, digits, hyphens and dots; a label neither begins nor ends with a hyphen; no dot at the end (RFC 5321
/// sections 2.3.5 and 4.1.2). An underscore is refused: it is in names of the DNS, but in none of a host.
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

/// `[1.2.3.4]`, `[IPv6:...]`, `[tag:content]` (RFC 5321 section 4.1.3). An IPv6 address without its tag is of the third
/// form, by the grammar. Snum of more digits than its number needs is refused: `010` is 8 to some readers and 10 to
/// others.
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

/// A domain with octets above 127 in A-labels and lower case (RFC 5890 section 2.3.2.1, mapped as UTS 46 says); none
/// where it has no such form. A label that only mapping makes plain ASCII (full-width letters, the Kelvin sign, an
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

#[cfg(test)]
mod tests {
    use super::is_domain;
    use crate::smtp::path::{ForwardPath, Mailbox};

    #[test]
    fn what_the_grammar_allows_is_a_mailbox() {
        for text in [
            "a@b",
            "a.b.c@d.test",
            "!#$%&'*+-/=?^_`{|}~@b.test",
            "\"\"@b",
            "\"a b\"@c",
            "\"a@b\"@c",
            r#""a\"\\\ "@b"#,
            "\"<>\"@b",
            "a@1.2",
            "a@a-b.test",
            "a@a--b.test",
            "a@xn--bcher-kva.test",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "a@[ipV6:::ffff:192.0.2.1]",
            "a@[x-tag:!Z^~]",
            "a@[2001:db8::1]",
            "user%host@b",
            "host!user@b",
            "\u{e9}t\u{e9}@b",
            "\"\u{e9} \"@b",
            "a@b\u{fc}cher.test",
            "a@\u{65e5}\u{672c}.test",
        ] {
            assert_eq!(Mailbox::parse(text).as_ref().map(Mailbox::as_str), Some(text));
        }
    }

    #[test]
    fn what_it_does_not_allow_is_none() {
        for text in [
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a@@b",
            "a@b@c",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a b@c",
            "a@b c",
            "a(c)@b",
            "a,b@c",
            "a:b@c",
            "a;b@c",
            "a<b@c",
            "a>b@c",
            "a[b@c",
            "a\\b@c",
            "a\"b@c",
            "\"a\"b@c",
            "a\"b\"@c",
            "\"a@b",
            "\"a\"\"@b",
            "\"a\\\"@b",
            "\"\\\u{e9}\"@b",
            "a@.b",
            "a@b.",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@b-.c",
            "a@b.-c",
            "a@b_c",
            "a@b/c",
            "a@b:25",
            "a@[]",
            "a@[192.0.2.1",
            "a@192.0.2.1]",
            "a@[192.0.2.256]",
            "a@[192.0.2]",
            "a@[192.0.2.01]",
            "a@[IPv6:]",
            "a@[IPv6:192.0.2.1]",
            "a@[IPv6:fe80::1%eth0]",
            "a@[tag:]",
            "a@[:x]",
            "a@[tag-:x]",
            "a@[t_g:x]",
            "a@[tag:x[y]",
            "a@[tag:x y]",
            "a@[tag:x\\y]",
            "a@[1.2.3.4].b",
            "a@[1.2.3.4]b",
            "a\0@b",
            "a@b\0",
            "\"\r\"@b",
            "\"\t\"@b",
            "\"\x7f\"@b",
            "a\x7f@b",
            "a\u{85}@b",
            "a\u{9b}@b",
            "a@\u{85}b",
            "<a@b>",
            " a@b",
            "a@b ",
            "a@\u{fc}-",
            "a@-\u{fc}",
            "a@xn--\u{fc}",
            "a@\u{378}.test",
        ] {
            assert_eq!(Mailbox::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_only_mapping_makes_plain_is_refused() {
        // Full-width letters, the Kelvin sign, three other full stops, a soft hyphen, a full-width commercial at.
        for domain in [
            "\u{ff42}\u{ff43}.test",
            "\u{212a}.test",
            "b\u{3002}test",
            "b\u{ff0e}test",
            "b\u{ff61}test",
            "b\u{ad}c.test",
            "b\u{ff20}c",
        ] {
            assert_eq!(Mailbox::parse(&format!("a@{domain}")), None, "{domain:?}");
        }
    }

    #[test]
    fn parts_may_be_as_long_as_their_limits_and_no_longer() {
        let label = |n| "b".repeat(n);
        assert!(Mailbox::parse(&format!("{}@b", label(64))).is_some());
        assert!(Mailbox::parse(&format!("{}@b", label(65))).is_none());
        assert!(Mailbox::parse(&format!("\"{}\"@b", label(62))).is_some());
        assert!(
            Mailbox::parse(&format!("\"{}\"@b", label(63))).is_none(),
            "quotes count"
        );
        assert!(Mailbox::parse(&format!("{}@b", "\u{e9}".repeat(32))).is_some());
        assert!(
            Mailbox::parse(&format!("{}@b", "\u{e9}".repeat(33))).is_none(),
            "octets count"
        );
        assert!(Mailbox::parse(&format!("a@{}.test", label(63))).is_some());
        assert!(Mailbox::parse(&format!("a@{}.test", label(64))).is_none());
        assert!(Mailbox::parse(&format!("a@b.{}", label(64))).is_none());
        assert!(Mailbox::parse(&format!("a@{}.test", "\u{fc}".repeat(70))).is_none());

        // 63 * 3 + 3 dots = 192 octets of domain before the last label.
        let domain = |n: usize| [label(63), label(63), label(63), label(n - 192)].join(".");
        assert!(is_domain(&domain(255)));
        assert!(!is_domain(&[domain(253), "bb".to_owned()].join(".")));
        assert!(
            ForwardPath::parse(format!("<a@{}>", domain(252)).as_bytes(), true).is_ok(),
            "256 octets"
        );
        assert!(
            ForwardPath::parse(format!("<a@{}>", domain(253)).as_bytes(), true).is_err(),
            "257 octets"
        );
        assert!(
            ForwardPath::parse(format!("<@c:a@{}>", domain(249)).as_bytes(), true).is_ok(),
            "the source route counts"
        );
        assert!(ForwardPath::parse(format!("<@c:a@{}>", domain(250)).as_bytes(), true).is_err());
        assert!(Mailbox::parse(&format!("a@{}", domain(252))).is_some());
        assert!(Mailbox::parse(&format!("a@{}", domain(253))).is_none());
        assert!(ForwardPath::parse(format!("<{}", label(10_000_000)).as_bytes(), true).is_err());
    }
}
