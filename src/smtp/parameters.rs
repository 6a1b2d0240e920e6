//! The parameters of MAIL and RCPT: SIZE, BODY, RET, ENVID, SMTPUTF8, AUTH; NOTIFY, ORCPT (RFC 5321 section 4.1.2).
//!
//! Promises: a parameter whose extension is not offered is unknown; each at most once; values are checked to the octet,
//! so that none can break a line of a header, a log or a report. Allocates only the values that are kept. Lives on the
//! thread of its session.

use super::envelope::{Body, MailParameters, Notify, RcptParameters, Ret};
use super::extension::{Extension, Offered};
use super::oxsmtp::Reply;
use super::path::grammar::is_atext;

pub mod xtext;

use xtext::{is_utf8_addr, is_xtext};

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

/// RFC 3461 section 4.2: an address type, `;`, an address in xtext. RFC 6533 section 3: or of type utf-8, in its own
/// code.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Edition;

    fn offered() -> Offered {
        Offered::of(Edition::Y2021, &[], false)
    }

    fn mailed(rest: &str) -> Result<MailParameters, Reply> {
        mail(rest.as_bytes(), offered())
    }

    fn asked(rest: &str) -> Result<RcptParameters, Reply> {
        rcpt(rest.as_bytes(), offered(), false)
    }

    #[test]
    fn every_parameter_of_mail_is_read() {
        let parameters = mailed(" size=0001000 Body=binarymime ret=Hdrs EnvId=a+2Bb SmtpUtf8").unwrap();
        assert_eq!(
            parameters,
            MailParameters {
                size: Some(1000),
                body: Body::BinaryMime,
                ret: Some(Ret::Headers),
                envid: Some("a+2Bb".into()),
                smtputf8: true,
                auth: None,
            }
        );
        assert_eq!(mailed("   ").unwrap(), MailParameters::default());
        assert_eq!(mailed(" SIZE=18446744073709551615").unwrap().size, Some(u64::MAX));
    }

    #[test]
    fn what_is_unknown_twice_or_not_valid_is_refused() {
        let long = format!(" ENVID={}", "x".repeat(101));
        let rests = "X|X=1|=|=1|SIZE|SIZE=|SIZE==1|SIZE=1=|SIZE=-1|SIZE=+1|SIZE=1k|SIZE=0x1|SIZE=18446744073709551616|\
                     SIZE=000000000000000000001|SIZE=1 SIZE=1|BODY|BODY=|BODY=8BIT|BODY=7BIT body=7BIT|RET=NO|\
                     RET=FULL RET=FULL|\
                     ENVID=|ENVID=a ENVID=b|ENVID=a+2b|ENVID=a+2|ENVID=a+|ENVID=a=b|ENVID=a\tb|ENVID=a+0D+0Ab|\
                     ENVID=a+00|\
                     ENVID=\u{e9}|SMTPUTF8=|SMTPUTF8=1|SMTPUTF8 SMTPUTF8|AUTH=<>|NOTIFY=NEVER|\
                     ORCPT=rfc822;a|S\u{130}ZE=1";
        for rest in rests.split('|').chain([long.as_str()]) {
            assert_eq!(mailed(rest), Err(Reply::InvalidArguments), "{rest:?}");
        }
        assert!(mailed(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn a_parameter_goes_with_its_extension() {
        let bodies = |off: &[Extension]| {
            let offered = Offered::of(Edition::Y2021, off, false);
            ["7BIT", "8BITMIME", "BINARYMIME"].map(|body| mail(format!(" BODY={body}").as_bytes(), offered).is_ok())
        };
        assert_eq!(bodies(&[]), [true, true, true]);
        assert_eq!(bodies(&[Extension::BinaryMime]), [true, true, false]);
        assert_eq!(bodies(&[Extension::EightBitMime]), [true, false, true]);
        assert_eq!(
            bodies(&[Extension::EightBitMime, Extension::Chunking]),
            [false, false, false]
        );
        let auth = offered().with(Extension::Auth);
        for value in ["<>", "a+40b", "a@b"] {
            assert_eq!(
                mail(format!(" AUTH={value}").as_bytes(), auth).unwrap().auth.as_deref(),
                Some(value)
            );
        }
        for value in ["", "<a@b>=", "a+0A", "a+4"] {
            assert_eq!(
                mail(format!(" AUTH={value}").as_bytes(), auth),
                Err(Reply::InvalidArguments)
            );
        }
    }

    #[test]
    fn notify_is_never_alone_or_a_list() {
        let notify = |value: &str| asked(&format!(" NOTIFY={value}")).map(|p| p.notify.unwrap());
        let on = |success, failure, delay| {
            Ok(Notify::On {
                success,
                failure,
                delay,
            })
        };
        assert_eq!(notify("never"), Ok(Notify::Never));
        assert_eq!(notify("Success"), on(true, false, false));
        assert_eq!(notify("DELAY,FAILURE"), on(false, true, true));
        assert_eq!(notify("SUCCESS,FAILURE,DELAY"), on(true, true, true));
        for value in [
            "",
            ",",
            "SUCCESS,",
            ",DELAY",
            "NEVER,DELAY",
            "DELAY,NEVER",
            "ALWAYS",
            "SUCCESS;DELAY",
            "DELAY NOTIFY=DELAY",
        ] {
            assert_eq!(notify(value), Err(Reply::InvalidArguments), "{value}");
        }
    }

    #[test]
    fn orcpt_is_a_type_and_an_address_that_cannot_break_a_report() {
        let orcpt = |value: &str, utf8| {
            rcpt(format!(" ORCPT={value}").as_bytes(), offered(), utf8).map(|p| p.orcpt.unwrap().into_string())
        };
        for value in [
            "rfc822;a@b",
            "RFC822;a+2Bb@c",
            "x-type;+20+09",
            "utf-8;a@b",
            "utf-8;a+2Bb@c",
            r"utf-8;\x{E9}@b",
            r"utf-8;\x{2B}\x{3D}\x{5C}\x{20}",
            r"UTF-8;\x{1F600}\x{10FFFF}",
        ] {
            assert_eq!(orcpt(value, false).as_deref(), Ok(value));
        }
        for value in ["utf-8;\u{e9}@b", "utf-8;\u{e9}\\x{E8}@b"] {
            assert_eq!(orcpt(value, true).as_deref(), Ok(value));
            assert_eq!(orcpt(value, false), Err(Reply::NeedSmtpUtf8));
        }
        let long = format!("rfc822;{}", "x".repeat(494));
        let values = "a@b|;a@b|rfc822;|rfc 822;a|rfc;822;+a|r(c);a|\u{e9};a@b|rfc822;\u{e9}@b|rfc822;a=b|\
                      rfc822;a+0D+0Ab|rfc822;a+00|\
                      rfc822;a+7F|rfc822;a+80|rfc822;a\0|utf-8;\u{85}";
        let embedded =
            r"\x{0A}|\x{A}|\x{00}|\x{7F}|\x{85}|\x{41}|\x{0E9}|\x{e9}|\x{D800}|\x{110000}|\x{E9|\x{}|\|\y|\x{E9}+2B";
        let embedded: Vec<_> = embedded.split('|').map(|code| format!("utf-8;{code}")).collect();
        for value in values
            .split('|')
            .chain(embedded.iter().chain([&long]).map(String::as_str))
        {
            assert_eq!(orcpt(value, true), Err(Reply::InvalidArguments), "{value:?}");
        }
        assert!(orcpt(&long[..500], false).is_ok());
        assert_eq!(
            rcpt(b" ORCPT=utf-8;\xff", offered(), true),
            Err(Reply::InvalidArguments)
        );
        assert_eq!(asked(" ORCPT=rfc822;a ORCPT=rfc822;a"), Err(Reply::InvalidArguments));
        assert_eq!(asked(" ORCPT"), Err(Reply::InvalidArguments));
    }
}
