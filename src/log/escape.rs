//! Escaping of values for log lines: nothing but printable ASCII comes out.
//!
//! Promises: no octet of a value can end a line, close a quote, move a terminal's cursor or reverse the reading
//! direction. Control characters, DEL and octets that are no UTF-8 become `\xNN`, all other characters outside ASCII
//! `\u{…}` (in JSON `\uNNNN`; octets that are no UTF-8 have no JSON form and become the text `\xNN`). Pure functions.

use std::io::Write;

/// Whether a value can stand in a text line as it is.
pub fn needs_no_quotes(value: &[u8]) -> bool {
    !value.is_empty()
        && value
            .iter()
            .all(|&b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'='))
}

/// For the inside of double quotes in a text line.
pub fn quoted(out: &mut Vec<u8>, value: &[u8]) {
    text(out, value, |b| matches!(b, b'"' | b'\\'));
}

/// For the message of a text line, which stands without quotes; a backslash still means an escape.
pub fn bare(out: &mut Vec<u8>, value: &[u8]) {
    text(out, value, |b| b == b'\\');
}

fn text(out: &mut Vec<u8>, value: &[u8], special: impl Fn(u8) -> bool) {
    let plain = |b: u8| matches!(b, b' '..=b'~') && !special(b);
    runs(out, value, plain, |out, c| match c {
        Piece::Ascii(b) if special(b) => out.extend_from_slice(&[b'\\', b]),
        Piece::Ascii(b) | Piece::Octet(b) => hex(out, b"\\x", b),
        Piece::Char(c) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    });
}

/// For the inside of a JSON string (RFC 8259 section 7).
pub fn json(out: &mut Vec<u8>, value: &[u8]) {
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    runs(out, value, plain, |out, c| match c {
        Piece::Ascii(b @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', b]),
        Piece::Ascii(b) => hex(out, b"\\u00", b),
        Piece::Octet(b) => hex(out, b"\\\\x", b),
        Piece::Char(c) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let [high, low] = unit.to_be_bytes();
                hex(out, b"\\u", high);
                hex(out, b"", low);
            }
        }
    });
}

enum Piece {
    Ascii(u8),
    Char(char),
    Octet(u8),
}

/// Copies runs of plain octets whole and gives everything between them to `escape`.
fn runs(out: &mut Vec<u8>, value: &[u8], plain: impl Fn(u8) -> bool, escape: impl Fn(&mut Vec<u8>, Piece)) {
    let end = value.iter().position(|&b| !plain(b)).unwrap_or(value.len());
    let (head, rest) = value.split_at_checked(end).unwrap_or((value, &[]));
    out.extend_from_slice(head);
    for chunk in rest.utf8_chunks() {
        for c in chunk.valid().chars() {
            match u8::try_from(c) {
                Ok(b) if plain(b) => out.push(b),
                Ok(b) if b.is_ascii() => escape(out, Piece::Ascii(b)),
                _ => escape(out, Piece::Char(c)),
            }
        }
        chunk.invalid().iter().for_each(|&b| escape(out, Piece::Octet(b)));
    }
}

fn hex(out: &mut Vec<u8>, before: &[u8], b: u8) {
    let digit = |d: u8| if d < 10 { b'0' + d } else { b'a' + d - 10 };
    out.extend_from_slice(before);
    out.extend_from_slice(&[digit(b >> 4), digit(b & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(escape: fn(&mut Vec<u8>, &[u8]), value: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_steers_a_terminal_or_ends_a_line_is_spelled_out() {
        let nasty = "a\r\n\x1b[31m\x7f\u{202e}\u{2028}é".as_bytes();
        assert_eq!(with(quoted, nasty), r"a\x0d\x0a\x1b[31m\x7f\u{202e}\u{2028}\u{e9}");
        assert_eq!(with(json, nasty), r"a\u000d\u000a\u001b[31m\u007f\u202e\u2028\u00e9");
    }

    #[test]
    fn quotes_and_backslashes_are_escaped_and_octets_that_are_no_utf_8_are_hexadecimal() {
        assert_eq!(with(quoted, b"a\"b\\\xff"), r#"a\"b\\\xff"#);
        assert_eq!(with(json, b"a\"b\\\xff"), r#"a\"b\\\\xff"#);
        assert_eq!(with(bare, b"say \"hi\" \\"), r#"say "hi" \\"#);
    }

    #[test]
    fn a_character_beyond_the_basic_plane_is_a_surrogate_pair_in_json() {
        assert_eq!(with(json, "😀".as_bytes()), r"\ud83d\ude00");
    }
}
