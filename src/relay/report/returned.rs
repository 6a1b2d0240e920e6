//! What a report returns of the message: its header section, or the whole.
//!
//! Promises: the part can be sent in 7 bits with lines of at most 998 octets, whatever the message holds; only where the
//! report goes by SMTPUTF8 anyway it may have 8. Costs are bounded by [`MAX_RETURNED`]. Pure.

use memchr::memchr2;

use crate::smtp::Form;

/// Octets of content that a report is given at most. A larger message comes back as its header section.
pub const MAX_RETURNED: usize = 64 << 10;

/// Octets of a line (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 998;

/// The content of the message that a report is about, or its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Returned<'a> {
    /// Its first octets, in wire form: at most [`MAX_RETURNED`] are of use.
    pub content: &'a [u8],
    /// How they came.
    pub form: Form,
    /// They are all of it.
    pub whole: bool,
}

/// A part of a report: its own fields, and what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub kind: &'static str,
    pub encoding: &'static str,
    pub body: Vec<u8>,
}

/// The part. `wanted`: the whole, if that can be. `smtputf8`: the message was one; `eight_bit`: the report may have 8 bits.
pub(super) fn part(returned: Returned<'_>, wanted: bool, smtputf8: bool, eight_bit: bool) -> Part {
    let lines = plain_lines(returned);
    let clean = is_clean(&lines.text, lines.exact);
    let is_ascii = lines.text.is_ascii();
    if wanted && returned.whole && returned.content.len() <= MAX_RETURNED {
        if clean && is_ascii {
            return Part::new("message/rfc822", "7bit", lines.text);
        }
        // RFC 2046 section 5.2.1 lets nobody encode message/rfc822; RFC 6532 section 3.7 allows it for message/global.
        if smtputf8 && eight_bit && clean {
            return Part::new("message/global", "8bit", lines.text);
        }
        if smtputf8 && lines.exact {
            return Part::new("message/global", "quoted-printable", quoted_printable(&lines.text));
        }
    }
    let header = header_section(&lines.text);
    let kind = if smtputf8 && !header.is_ascii() {
        "message/global-headers"
    } else {
        "text/rfc822-headers"
    };
    let clean = is_clean(header, true);
    match (clean, header.is_ascii()) {
        (true, true) => Part::new(kind, "7bit", header.to_vec()),
        (true, false) if smtputf8 && eight_bit => Part::new(kind, "8bit", header.to_vec()),
        // RFC 6522 section 4: headers that are broken may be encoded so.
        _ => Part::new(kind, "quoted-printable", quoted_printable(header)),
    }
}

impl Part {
    fn new(kind: &'static str, encoding: &'static str, body: Vec<u8>) -> Part {
        Part { kind, encoding, body }
    }
}

struct Lines {
    /// Every line ends in CRLF, no dot is doubled.
    text: Vec<u8>,
    /// There was no CR or LF but in a CRLF.
    exact: bool,
}

fn plain_lines(returned: Returned<'_>) -> Lines {
    let mut rest = returned.content.get(..MAX_RETURNED).unwrap_or(returned.content);
    let mut lines = Lines {
        text: Vec::with_capacity(rest.len() + 2),
        exact: true,
    };
    while !rest.is_empty() {
        if returned.form == Form::Dotted && rest.starts_with(b".") {
            rest = rest.get(1..).unwrap_or_default();
        }
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        lines.text.extend_from_slice(line);
        lines.text.extend_from_slice(b"\r\n");
        rest = after.strip_prefix(b"\r\n").unwrap_or_else(|| {
            lines.exact &= after.is_empty();
            after.get(1..).unwrap_or_default()
        });
    }
    lines
}

/// Up to the empty line that ends it, or as far as the text goes.
fn header_section(text: &[u8]) -> &[u8] {
    if text.starts_with(b"\r\n") {
        return &[];
    }
    let end = memchr::memmem::find(text, b"\r\n\r\n").map_or(text.len(), |end| end + 2);
    text.get(..end).unwrap_or(text)
}

/// Whether lines and octets are those of a message that is sent as it is.
fn is_clean(text: &[u8], exact: bool) -> bool {
    exact
        && !text.contains(&0)
        && text
            .split(|&octet| octet == b'\n')
            .all(|line| line.len() <= MAX_LINE + 1)
}

/// RFC 2045 section 6.7, of lines that end in CRLF.
fn quoted_printable(text: &[u8]) -> Vec<u8> {
    const WIDTH: usize = 76;
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    for line in text.split(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut column = 0;
        for (at, &octet) in line.iter().enumerate() {
            let last = at + 1 == line.len();
            let plain = match octet {
                b'=' => false,
                b'!'..=b'~' => true,
                b' ' | b'\t' => !last,
                _ => false,
            };
            let width = if plain { 1 } else { 3 };
            // One place is for the `=` of a line that goes on.
            if column + width > WIDTH - 1 {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            column += width;
            if plain {
                out.push(octet);
            } else {
                let digit = |n: u8| if n < 10 { b'0' + n } else { b'A' + n - 10 };
                out.extend_from_slice(&[b'=', digit(octet >> 4), digit(octet & 15)]);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    // The text ended with its last line.
    out.truncate(out.len().saturating_sub(2));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn returned(content: &[u8], form: Form) -> Returned<'_> {
        Returned {
            content,
            form,
            whole: true,
        }
    }

    fn text(part: &Part) -> &str {
        std::str::from_utf8(&part.body).unwrap()
    }

    #[test]
    fn the_header_section_comes_back_without_doubled_dots() {
        let content = b"Subject: x\r\n..hidden: y\r\n\r\nbody\r\n";
        let headers = part(returned(content, Form::Dotted), false, false, false);
        assert_eq!((headers.kind, headers.encoding), ("text/rfc822-headers", "7bit"));
        assert_eq!(text(&headers), "Subject: x\r\n.hidden: y\r\n");
        let plain = part(returned(content, Form::Plain), false, false, false);
        assert_eq!(text(&plain), "Subject: x\r\n..hidden: y\r\n");
        assert_eq!(text(&part(returned(b"\r\nbody", Form::Plain), false, false, false)), "");
        assert_eq!(text(&part(returned(b"", Form::Plain), false, false, false)), "");
    }

    #[test]
    fn the_whole_comes_back_where_it_can_be_sent_as_it_is() {
        let whole = |content: &[u8], smtputf8, eight_bit| {
            let part = part(returned(content, Form::Plain), true, smtputf8, eight_bit);
            (part.kind, part.encoding)
        };
        assert_eq!(whole(b"a: b\r\n\r\nc\r\n", false, false), ("message/rfc822", "7bit"));
        for broken in ["a: b\r\n\r\n\u{e9}\r\n", "a: b\r\n\r\nc\nd\r\n", "a: b\r\n\r\n\0\r\n"] {
            assert_eq!(
                whole(broken.as_bytes(), false, false),
                ("text/rfc822-headers", "7bit"),
                "{broken:?}"
            );
        }
        let long = format!("a: b\r\n\r\n{}\r\n", "x".repeat(999));
        assert_eq!(whole(long.as_bytes(), false, false), ("text/rfc822-headers", "7bit"));
        assert_eq!(
            whole(&long.as_bytes()[1..][..1000], false, false),
            ("text/rfc822-headers", "7bit")
        );
        let utf8 = "a: \u{e9}\r\n\r\nc\r\n".as_bytes();
        assert_eq!(whole(utf8, true, true), ("message/global", "8bit"));
        assert_eq!(whole(utf8, true, false), ("message/global", "quoted-printable"));
        let large = vec![b'x'; MAX_RETURNED + 1];
        assert_eq!(whole(&large, false, false).0, "text/rfc822-headers");
    }

    #[test]
    fn headers_that_are_broken_are_encoded() {
        let headers = |content: &str, smtputf8, eight_bit| {
            part(returned(content.as_bytes(), Form::Plain), false, smtputf8, eight_bit)
        };
        let broken = headers("a: \u{e9} =\r\nb: c \r\n\r\n", false, false);
        assert_eq!(
            (broken.kind, broken.encoding),
            ("text/rfc822-headers", "quoted-printable")
        );
        assert_eq!(text(&broken), "a: =C3=A9 =3D\r\nb: c=20\r\n");
        let global = headers("a: \u{e9}\r\n\r\n", true, true);
        assert_eq!((global.kind, global.encoding), ("message/global-headers", "8bit"));
        let global = headers("a: \u{e9}\r\n\r\n", true, false);
        assert_eq!(
            (global.kind, global.encoding),
            ("message/global-headers", "quoted-printable")
        );
    }

    /// RFC 2045 section 6.7 the other way.
    fn decoded(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = body;
        while let Some((&first, after)) = rest.split_first() {
            if first != b'=' {
                out.push(first);
                rest = after;
            } else if let Some(after) = after.strip_prefix(b"\r\n") {
                rest = after;
            } else {
                let hex = std::str::from_utf8(&after[..2]).unwrap();
                out.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &after[2..];
            }
        }
        out
    }

    proptest! {
        #[test]
        fn whatever_the_message_holds_its_part_can_be_sent_in_seven_bits(
            content in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b' '), any::<u8>()], 0..3000),
            dotted: bool, wanted: bool, smtputf8: bool, whole: bool,
        ) {
            let form = if dotted { Form::Dotted } else { Form::Plain };
            let part = part(Returned { content: &content, form, whole }, wanted, smtputf8, false);
            prop_assert!(part.body.is_ascii() && !part.body.contains(&0));
            for line in part.body.split(|&b| b == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                prop_assert!(line.len() <= MAX_LINE && !line.contains(&b'\r'));
            }
        }

        #[test]
        fn quoted_printable_comes_back_as_it_was(lines in proptest::collection::vec("[^\r\n]{0,100}", 0..5)) {
            let text: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
            let encoded = quoted_printable(text.as_bytes());
            prop_assert!(encoded.split(|&b| b == b'\n').all(|line| line.len() <= 77));
            prop_assert_eq!(decoded(&encoded), text.into_bytes());
        }
    }
}
