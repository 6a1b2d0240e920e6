//! Single values as the file writes them: durations, sizes, names, addresses, networks.
//!
//! Promises: pure functions of a string; `Err` says what was expected instead; what is printed reads back as the same
//! value.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::policy::network::Network;
use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// Units of a duration with their milliseconds, the largest first. Months and years are left out: their length varies.
const SPANS: &[(&str, u64)] = &[
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of a size with their octets: powers of 1024 (IEC 80000-13) and of 1000 (SI), as their names say.
const SIZES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A length of time: one number and unit or several, such as `30s`, `1h 30m`, `250ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = |why: &str| format!("a duration such as \"30s\", \"5m\", \"1h 30m\", \"2d\", \"250ms\"{why}");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(expected(""));
    }
    if rest.starts_with('-') {
        return Err(expected(" that is not negative"));
    }
    let mut total: u64 = 0;
    let mut below = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after.trim_start(), |c| !c.is_alphabetic());
        rest = after.trim_start();
        let Ok(number) = number.parse::<u64>() else {
            return Err(expected(""));
        };
        let Some(&(_, milliseconds)) = SPANS.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" => expected(" (no unit)"),
                _ => expected(" (units are d, h, m, s, ms)"),
            });
        };
        if milliseconds >= below {
            return Err(expected(" with each unit once, the largest first"));
        }
        below = milliseconds;
        let sum = number
            .checked_mul(milliseconds)
            .and_then(|span| total.checked_add(span));
        total = sum.ok_or_else(|| expected(" (this is longer than a clock can count)"))?;
    }
    Ok(Duration::from_millis(total))
}

fn split_where(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

/// As [`duration`] reads it.
pub(super) fn print_duration(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut words = Vec::new();
    for (unit, milliseconds) in SPANS {
        if rest >= *milliseconds {
            words.push(format!("{}{unit}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    if words.is_empty() {
        "0s".to_owned()
    } else {
        words.join(" ")
    }
}

/// A number of octets with a unit, such as `64KiB`, `10MB`; also without one.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let expected = |why: &str| format!("a size such as 65536, \"64KiB\", \"10MiB\", \"10MB\"{why}");
    let (number, unit) = split_where(text.trim(), |c| !c.is_ascii_digit());
    let Ok(number) = number.parse::<u64>() else {
        return Err(expected(""));
    };
    let octets = match unit.trim() {
        "" => 1,
        unit => match SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, octets)) => *octets,
            None => return Err(expected(" (units are B, kB, MB, GB, TB and KiB, MiB, GiB, TiB)")),
        },
    };
    let total = number.checked_mul(octets).filter(|&total| total <= i64::MAX as u64);
    total.ok_or_else(|| expected(" (this is more than 2^63 octets)"))
}

/// As [`size`] reads it, in the largest binary unit that leaves no rest.
pub(super) fn print_size(octets: u64) -> String {
    let whole = SIZES
        .iter()
        .find(|(name, unit)| name.ends_with("iB") && octets > 0 && octets.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) => format!("{}{name}", octets / unit),
        None => octets.to_string(),
    }
}

/// A domain name (RFC 5321 section 2.3.5, RFC 5891) as lower-case A-labels.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let expected = || "a domain name such as example.com".to_owned();
    if text.parse::<IpAddr>().is_ok() || text.starts_with('[') {
        return Err("a domain name, not an address".to_owned());
    }
    if text.starts_with("*.") {
        return Err("a domain name; a `*` stands alone".to_owned());
    }
    let uts46 = Uts46::new();
    // Hyphens in the third and fourth place occur in names that exist (RFC 5891 section 4.2.3.1 is for new ones).
    uts46
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .map(|ascii| ascii.into_owned())
        .map_err(|_| expected())
}

/// A domain name, or `*` for any.
pub(super) fn domain_or_any(text: &str) -> Result<String, String> {
    match text {
        "*" => Ok(text.to_owned()),
        _ => domain(text).map_err(|expected| format!("{expected}, or \"*\" for any")),
    }
}

/// A word for log lines and labels: no spaces, nothing to escape.
pub(super) fn word(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text.len() {
        1..=64 if text.chars().all(fits) => Ok(text.to_owned()),
        _ => Err("a name of 1 to 64 letters, digits, `-`, `_`, `.`".to_owned()),
    }
}

/// `IP:PORT` to listen on.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let expected = "an address and port such as \"0.0.0.0:25\", \"[::]:25\"";
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(address)) if address.ip().to_ipv4_mapped().is_some() => {
            Err("the IPv4 address itself: an IPv6 socket takes IPv6 only".to_owned())
        }
        Ok(address) if address.ip().is_multicast() => Err(format!("{expected}, not a multicast address")),
        Ok(address) => Ok(address),
        Err(_) => Err(match text.trim_matches(['[', ']']).parse() {
            Ok(IpAddr::V4(address)) => format!("{expected}; did you mean \"{address}:25\"?"),
            Ok(IpAddr::V6(address)) => format!("{expected}; did you mean \"[{address}]:25\"?"),
            Err(_) => expected.to_owned(),
        }),
    }
}

/// A DNS server: `IP`, or `IP:PORT`.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let bare = || {
        text.trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .map(|address| SocketAddr::new(address, 53))
    };
    let server = text
        .parse()
        .or_else(|_| bare())
        .ok()
        .filter(|server: &SocketAddr| server.port() != 0);
    server.ok_or_else(|| "an address such as \"192.0.2.53\", \"192.0.2.53:5353\", \"[2001:db8::53]:53\"".to_owned())
}

/// A range of addresses.
pub(super) fn network(text: &str) -> Result<Network, String> {
    text.parse::<Network>()
        .map_err(|_| "a range of addresses such as \"192.0.2.0/24\", \"2001:db8::/32\"".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_numbers_with_units_the_largest_first() {
        let ms = Duration::from_millis;
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("250ms", 250),
            ("0s", 0),
            (" 1 h ", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(ms(milliseconds)), "{text}");
        }
        for text in [
            "",
            " ",
            "30",
            "s",
            "-5s",
            "1.5h",
            "5 years",
            "1mo",
            "1y",
            "5m 1h",
            "1s 1s",
            "99999999999999999999s",
            "18446744073709551615d",
            "1h,",
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_know_powers_of_1024_from_powers_of_1000() {
        for (text, octets) in [
            ("64KiB", 65_536),
            ("10MiB", 10 << 20),
            ("10MB", 10_000_000),
            ("1 gib", 1 << 30),
            ("7", 7),
            ("7B", 7),
            ("1kb", 1000),
        ] {
            assert_eq!(size(text), Ok(octets), "{text}");
        }
        for text in [
            "",
            "KiB",
            "64K",
            "10M",
            "-1",
            "1.5MiB",
            "99999999TiB",
            "9223372036854775808",
            "1 EiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn domains_become_lower_case_a_labels() {
        assert_eq!(domain("MX.Example.COM").as_deref(), Ok("mx.example.com"));
        assert_eq!(domain("bücher.example").as_deref(), Ok("xn--bcher-kva.example"));
        assert_eq!(domain("r3---sn.example").as_deref(), Ok("r3---sn.example"));
        let long = "a.".repeat(200);
        for text in [
            "",
            ".",
            "a..b",
            "-a.example",
            "a b",
            "a_b.example",
            "example.com.",
            "192.0.2.1",
            "[192.0.2.1]",
            "*.example.com",
            "a\0b",
            &long,
        ] {
            assert!(domain(text).is_err(), "{text}");
        }
        assert_eq!(domain_or_any("*").as_deref(), Ok("*"));
    }

    #[test]
    fn an_address_to_listen_on_has_a_port_and_one_family() {
        assert!(socket_address("127.0.0.1:0").is_ok());
        assert!(socket_address("[::1]:25").is_ok());
        assert!(
            socket_address("127.0.0.1")
                .unwrap_err()
                .contains("did you mean \"127.0.0.1:25\"?")
        );
        assert!(
            socket_address("::1")
                .unwrap_err()
                .contains("did you mean \"[::1]:25\"?")
        );
        for text in [
            "",
            "localhost:25",
            "[::ffff:192.0.2.1]:25",
            "224.0.0.1:25",
            "1.2.3.4:99999",
        ] {
            assert!(socket_address(text).is_err(), "{text}");
        }
        assert_eq!(dns_server("::1"), Ok("[::1]:53".parse().unwrap()));
        assert_eq!(dns_server("192.0.2.1:5353"), Ok("192.0.2.1:5353".parse().unwrap()));
        assert!(dns_server("dns.example").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(milliseconds in 0..u64::MAX >> 20, octets in 0..=i64::MAX as u64, shift in 0u32..63) {
            let span = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration(&print_duration(span)), Ok(span));
            for octets in [octets, octets >> shift << shift, 1 << shift] {
                prop_assert_eq!(size(&print_size(octets)), Ok(octets));
            }
        }

        #[test]
        fn no_string_panics(text in "\\PC*", unit in "[-0-9]{0,30}[a-zA-Z ]{0,4}") {
            for text in [&text, &unit] {
                let _ = (duration(text), size(text), domain(text), socket_address(text), dns_server(text), network(text));
            }
        }
    }
}
