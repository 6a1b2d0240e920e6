//! From when until when a certificate is valid (RFC 5280 section 4.1.2.5), read out of its DER.
//!
//! Promises: pure; takes any octets; what is no certificate has no validity.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Both ends in seconds since 1970, each included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: i64,
    /// Not after.
    pub until: i64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

impl Validity {
    /// That of a certificate. It stands behind version (where it is not 1), serial number, algorithm and issuer.
    pub fn of(certificate: &[u8]) -> Option<Validity> {
        let (certificate, _) = content(certificate, SEQUENCE)?;
        let (mut rest, _) = content(certificate, SEQUENCE)?;
        if let Some((_, after)) = content(rest, VERSION) {
            rest = after;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, rest) = content(rest, tag)?;
        }
        let (validity, _) = content(rest, SEQUENCE)?;
        let (from, rest) = time(validity)?;
        let (until, _) = time(rest)?;
        Some(Validity { from, until })
    }
}

/// The first element of some DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// What follows it.
    rest: &'a [u8],
}

/// The content of the first element, where it has this tag, and what follows it.
fn content(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let first = element(input)?;
    (first.tag == tag).then_some((first.content, first.rest))
}

fn element(input: &[u8]) -> Option<Element<'_>> {
    let (&[tag, length], rest) = input.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        short if short < 0x80 => (usize::from(short), rest),
        // The octets of the length; four are more than any certificate needs.
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

fn time(input: &[u8]) -> Option<(i64, &[u8])> {
    let Element { tag, content, rest } = element(input)?;
    let digits = content.strip_suffix(b"Z")?;
    let (year, digits) = match tag {
        // Two digits stand for 1950 to 2049.
        UTC_TIME => match number(digits.get(..2)?)? {
            year @ 50.. => (1900 + year, digits.get(2..)?),
            year => (2000 + year, digits.get(2..)?),
        },
        GENERALIZED_TIME => (
            number(digits.get(..2)?)? * 100 + number(digits.get(2..4)?)?,
            digits.get(4..)?,
        ),
        _ => return None,
    };
    let [month, day, hour, minute, second] = *digits
        .chunks(2)
        .map(|pair| number(pair).and_then(|n| i8::try_from(n).ok()))
        .collect::<Option<Vec<i8>>>()?
        .as_slice()
    else {
        return None;
    };
    let when = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let when = when.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    Some((when, rest))
}

/// Two digits.
fn number(digits: &[u8]) -> Option<i16> {
    match digits {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(i16::from(a - b'0') * 10 + i16::from(b - b'0')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["mx.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_ways_to_write_a_year_are_read() {
        assert_eq!(
            Validity::of(&certificate((1999, 12, 31), (2049, 12, 31))),
            Some(Validity {
                from: 946_598_400,
                until: 2_524_521_600
            })
        );
        assert_eq!(
            Validity::of(&certificate((2024, 2, 29), (2050, 1, 1))),
            Some(Validity {
                from: 1_709_164_800,
                until: 2_524_608_000
            })
        );
    }

    #[test]
    fn what_is_cut_or_changed_is_read_without_harm() {
        let whole = certificate((2024, 1, 1), (2034, 1, 1));
        for end in 0..whole.len() {
            // Only its outermost length betrays what is cut behind the validity.
            assert_eq!(Validity::of(&whole[..end]), None, "{end}");
        }
        for at in 0..whole.len() {
            for octet in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[at] = octet;
                if let Some(validity) = Validity::of(&changed) {
                    assert!(validity.from > -62_200_000_000 && validity.until < 253_500_000_000);
                }
            }
        }
    }
}
