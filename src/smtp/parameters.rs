//! The parameters of MAIL and RCPT: SIZE, BODY, RET, ENVID, SMTPUTF8, AUTH; NOTIFY, ORCPT (RFC 5321 section 4.1.2).
//!
//! Promises: a parameter whose extension is not offered is unknown; each at most once; values are checked to the octet, so
//! that none can break a line of a header, a log or a report. Allocates only the values that are kept. Lives on the
//! thread of its session.

use super::envelope::{Body, MailParameters, Notify, RcptParameters, Ret};
use super::extension::{Extension, Offered};
use super::oxsmtp::Reply;
use super::path::grammar::is_atext;

/// Octets of ENVID= (RFC 3461 section 4.4).
const MAX_ENVID: usize = 100;
/// Octets of ORCPT= (RFC 3461 section 4.2) and of AUTH= (RFC 4954 section 3, item 6).
const MAX_ADDRESS: usize = 500;

const INVALID: Reply = Reply::InvalidArguments;

/// The parameters of MAIL: `rest` is what follows the path.
pub fn mail(rest: &[u8], offered: Offered) -> Result<MailParameters, Reply> {
    let mut parameters = MailParameters::default();
    let mut body = None;
    for parameter in split(rest) {
        let (keyword, value) = parameter?;
        // Keywords are as good as their extension: RFC 5321 section 4.1.1.11 has 555, [MS-OXSMTP] 501.
        if keyword.eq_ignore_ascii_case(b"SIZE") && offered.has(Extension::Size) {
            once(&mut parameters.size, size(needed(value)?)?)?;
        } else if keyword.eq_ignore_ascii_case(b"BODY") {
            once(&mut body, self::body(needed(value)?, offered)?)?;
        } else if keyword.eq_ignore_ascii_case(b"SMTPUTF8") && offered.has(Extension::SmtpUtf8) {
            if value.is_some() || parameters.smtputf8 {
                return Err(INVALID);
            }
            parameters.smtputf8 = true;
        } else if keyword.eq_ignore_ascii_case(b"RET") && offered.has(Extension::Dsn) {
            once(&mut parameters.ret, ret(needed(value)?)?)?;
        } else if keyword.eq_ignore_ascii_case(b"ENVID") && offered.has(Extension::Dsn) {
            let value = needed(value)?;
            if value.len() > MAX_ENVID || !is_xtext(value) {
                return Err(INVALID);
            }
            once(&mut parameters.envid, kept(value)?)?;
        } else if keyword.eq_ignore_ascii_case(b"AUTH") && offered.has(Extension::Auth) {
            let value = needed(value)?;
            if value.len() > MAX_ADDRESS || !(value == b"<>" || is_xtext(value)) {
                return Err(INVALID);
            }
            once(&mut parameters.auth, kept(value)?)?;
        } else {
            return Err(INVALID);
        }
    }
    parameters.body = body.unwrap_or_default();
    Ok(parameters)
}

/// The parameters of RCPT: `rest` is what follows the path. `smtputf8`: MAIL said SMTPUTF8.
pub fn rcpt(rest: &[u8], offered: Offered, smtputf8: bool) -> Result<RcptParameters, Reply> {
    let mut parameters = RcptParameters::default();
    for parameter in split(rest) {
        let (keyword, value) = parameter?;
        let value = needed(value)?;
        if !offered.has(Extension::Dsn) {
            return Err(INVALID);
        } else if keyword.eq_ignore_ascii_case(b"NOTIFY") {
            once(&mut parameters.notify, notify(value)?)?;
        } else if keyword.eq_ignore_ascii_case(b"ORCPT") {
            once(&mut parameters.orcpt, orcpt(value, smtputf8)?)?;
        } else {
            return Err(INVALID);
        }
    }
    Ok(parameters)
}

/// Keywords and values. Runs of spaces divide, as every server has it; the grammar has one.
fn split(rest: &[u8]) -> impl Iterator<Item = Result<(&[u8], Option<&[u8]>), Reply>> {
    rest.split(|&octet| octet == b' ').filter(|p| !p.is_empty()).map(|p| {
        // Octets above 127 are for the one value that may have them.
        if p.iter().any(u8::is_ascii_control) {
            return Err(INVALID);
        }
        Ok(match p.iter().position(|&octet| octet == b'=') {
            Some(n) => (p.get(..n).unwrap_or_default(), p.get(n + 1..)),
            None => (p, None),
        })
    })
}

/// A value is one octet at least (RFC 5321 section 4.1.2, esmtp-value).
fn needed(value: Option<&[u8]>) -> Result<&[u8], Reply> {
    value.filter(|v| !v.is_empty()).ok_or(INVALID)
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Reply> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(INVALID),
    }
}

fn kept(value: &[u8]) -> Result<Box<str>, Reply> {
    std::str::from_utf8(value).map(Box::from).map_err(|_| INVALID)
}

/// RFC 1870 section 5: 1*20DIGIT, leading zeros and all.
fn size(value: &[u8]) -> Result<u64, Reply> {
    if value.len() > 20 {
        return Err(INVALID);
    }
    decimal(value).ok_or(INVALID)
}

/// Digits and nothing else; none where the number is beyond 64 bits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let (first, more) = digits.split_first()?;
    let digit = |octet: &u8| octet.is_ascii_digit().then(|| u64::from(octet - b'0'));
    more.iter()
        .try_fold(digit(first)?, |n, octet| n.checked_mul(10)?.checked_add(digit(octet)?))
}

fn body(value: &[u8], offered: Offered) -> Result<Body, Reply> {
    let (eight, binary) = (offered.has(Extension::EightBitMime), offered.has(Extension::BinaryMime));
    if value.eq_ignore_ascii_case(b"7BIT") && (eight || binary) {
        Ok(Body::SevenBit)
    } else if value.eq_ignore_ascii_case(b"8BITMIME") && eight {
        Ok(Body::EightBitMime)
    } else if value.eq_ignore_ascii_case(b"BINARYMIME") && binary {
        Ok(Body::BinaryMime)
    } else {
        Err(INVALID)
    }
}

fn ret(value: &[u8]) -> Result<Ret, Reply> {
    if value.eq_ignore_ascii_case(b"FULL") {
        Ok(Ret::Full)
    } else if value.eq_ignore_ascii_case(b"HDRS") {
        Ok(Ret::Headers)
    } else {
        Err(INVALID)
    }
}

/// RFC 3461 section 4.1: NEVER alone, or a list of the others.
fn notify(value: &[u8]) -> Result<Notify, Reply> {
    if value.eq_ignore_ascii_case(b"NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for kind in value.split(|&octet| octet == b',') {
        let said = if kind.eq_ignore_ascii_case(b"SUCCESS") {
            &mut success
        } else if kind.eq_ignore_ascii_case(b"FAILURE") {
            &mut failure
        } else if kind.eq_ignore_ascii_case(b"DELAY") {
            &mut delay
        } else {
            return Err(INVALID);
        };
        *said = true;
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

/// RFC 3461 section 4.2: an address type, `;`, an address in xtext. RFC 6533 section 3: or of type utf-8, in its own code.
fn orcpt(value: &[u8], smtputf8: bool) -> Result<Box<str>, Reply> {
    let split = value.iter().position(|&octet| octet == b';').ok_or(INVALID)?;
    let kind = value.get(..split).unwrap_or_default();
    let address = value.get(split + 1..).unwrap_or_default();
    if value.len() > MAX_ADDRESS || kind.is_empty() || address.is_empty() {
        return Err(INVALID);
    }
    if !kind.iter().all(|&octet| octet.is_ascii() && is_atext(octet)) {
        return Err(INVALID);
    }
    // In the type utf-8, `+` is none of the code, but clients send xtext; only what is both would be read as `\x{HEX}`.
    let is_utf8 = kind.eq_ignore_ascii_case(b"utf-8");
    if is_xtext(address) && !(is_utf8 && address.contains(&b'\\')) {
        return kept(value);
    }
    if !is_utf8 {
        return Err(INVALID);
    }
    let text = std::str::from_utf8(address).map_err(|_| INVALID)?;
    if !is_utf8_addr(text) {
        return Err(INVALID);
    }
    if !text.is_ascii() && !smtputf8 {
        return Err(Reply::NeedSmtpUtf8);
    }
    kept(value)
}

/// xtext (RFC 3461 section 4): printable ASCII without `+` and `=`, and `+HH` in upper case. What it stands for must be
/// printable too, or a tab (sections 4.2 and 4.4): so no line end can come into a report through it.
pub fn is_xtext(value: &[u8]) -> bool {
    let mut octets = value.iter();
    while let Some(&octet) = octets.next() {
        match octet {
            b'+' => {
                let decoded = match (octets.next().and_then(upper_hex), octets.next().and_then(upper_hex)) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return false,
                };
                if !matches!(decoded, b'\t' | 0x20..=0x7e) {
                    return false;
                }
            }
            b'=' => return false,
            0x21..=0x7e => {}
            _ => return false,
        }
    }
    true
}

fn upper_hex(octet: &u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 section 3): printable, without `+`, `=` and `\`, but `\x{HEX}`.
fn is_utf8_addr(text: &str) -> bool {
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = match character {
            '\\' => match embedded(rest) {
                Some(rest) => rest,
                None => return false,
            },
            '+' | '=' | ' ' => return false,
            _ if character.is_control() => return false,
            _ => rest.get(character.len_utf8()..).unwrap_or_default(),
        };
    }
    true
}

/// What follows `\x{HEX}`, where HEX is a code point in upper case that needs to be written so: not printable ASCII other
/// than `+`, `=`, `\`, space and DEL. Control characters are refused as in xtext.
fn embedded(text: &str) -> Option<&str> {
    let (hex, rest) = text.strip_prefix("\\x{")?.split_once('}')?;
    if !(2..=6).contains(&hex.len())
        || !hex.bytes().all(|octet| upper_hex(&octet).is_some())
        || (hex.len() > 2 && hex.starts_with('0'))
    {
        return None;
    }
    let character = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
    let needs_it = !character.is_ascii() || matches!(character, '+' | '=' | '\\' | ' ');
    (needs_it && !character.is_control()).then_some(rest)
}
