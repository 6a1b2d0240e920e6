//! From wire form to stored form: dots undone, CRLF to LF.
//!
//! Promises: the result does not depend on how the content was cut into pieces; the output is never longer than the
//! input. Pure; lives in a draft, runs on a worker.

use memchr::{memchr, memchr2};

use crate::smtp::Form;

/// The conversion of one message, piece by piece.
#[derive(Clone, Debug)]
pub struct Conversion {
    undot: bool,
    normalise: bool,
    /// The next octet begins a line.
    line_start: bool,
    /// The last piece ended in a CR of which nothing can be said yet.
    carriage_return: bool,
}

impl Conversion {
    /// At the start of the content. With `normalise` a bare CR or LF is a line end like any other, so that a dot after
    /// it is undone as well: the content is read as if it had been normalised to CRLF first, which is what a next hop
    /// by SMTP would be sent.
    pub fn new(form: Form, normalise: bool) -> Conversion {
        Conversion {
            undot: form == Form::Dotted,
            normalise,
            line_start: true,
            carriage_return: false,
        }
    }

    /// Converts one piece onto the end of `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        if self.carriage_return && !rest.is_empty() {
            self.carriage_return = false;
            rest = self.after_carriage_return(rest, out);
        }
        while let Some((&first, after_first)) = rest.split_first() {
            if self.line_start && self.undot && first == b'.' {
                self.line_start = false;
                rest = after_first;
                continue;
            }
            let end = if self.normalise {
                memchr2(b'\r', b'\n', rest)
            } else {
                memchr(b'\r', rest)
            };
            let (text, tail) = rest.split_at(end.unwrap_or(rest.len()));
            out.extend_from_slice(text);
            self.line_start &= text.is_empty();
            rest = match tail.split_first() {
                None => return,
                Some((b'\r', [])) => {
                    self.carriage_return = true;
                    return;
                }
                Some((b'\r', after)) => self.after_carriage_return(after, out),
                Some((_, after)) => {
                    self.line_end(out);
                    after
                }
            };
        }
    }

    /// Ends the content: a CR at its very end was a bare one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.carriage_return) {
            if self.normalise {
                self.line_end(out)
            } else {
                out.push(b'\r')
            }
        }
    }

    /// Judges a CR by what follows it, which is not empty; gives what is left to convert.
    fn after_carriage_return<'a>(&mut self, after: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        if let Some((b'\n', rest)) = after.split_first() {
            self.line_end(out);
            return rest;
        }
        if self.normalise {
            self.line_end(out);
        } else {
            out.push(b'\r');
            self.line_start = false;
        }
        after
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        out.push(b'\n');
        self.line_start = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The whole content at once, one octet at a time, in three plain passes.
    fn naive(content: &[u8], form: Form, normalise: bool) -> Vec<u8> {
        let mut lines = Vec::new(); // None is a line end
        let mut at = 0;
        while at < content.len() {
            match (content[at], content.get(at + 1)) {
                (b'\r', Some(b'\n')) => {
                    lines.push(None);
                    at += 1;
                }
                (b'\r' | b'\n', _) if normalise => lines.push(None),
                (octet, _) => lines.push(Some(octet)),
            }
            at += 1;
        }
        let mut out = Vec::new();
        for (i, item) in lines.iter().enumerate() {
            let begins_line = i == 0 || lines[i - 1].is_none();
            match item {
                Some(b'.') if begins_line && form == Form::Dotted => {}
                Some(octet) => out.push(*octet),
                None => out.push(b'\n'),
            }
        }
        out
    }

    fn converted(pieces: &[&[u8]], form: Form, normalise: bool) -> Vec<u8> {
        let (mut conversion, mut out) = (Conversion::new(form, normalise), Vec::new());
        pieces.iter().for_each(|piece| conversion.push(piece, &mut out));
        conversion.finish(&mut out);
        out
    }

    #[test]
    fn dots_are_undone_only_where_a_line_begins() {
        assert_eq!(
            converted(&[b"..a\r\n..\r\nb..\r\n"], Form::Dotted, false),
            b".a\n.\nb..\n"
        );
        assert_eq!(
            converted(&[b"..a\r\n..\r\nb..\r\n"], Form::Plain, false),
            b"..a\n..\nb..\n"
        );
    }

    #[test]
    fn a_bare_cr_or_lf_stays_unless_normalised() {
        assert_eq!(converted(&[b"a\rb\nc\r\r\nd\r"], Form::Plain, false), b"a\rb\nc\r\nd\r");
        assert_eq!(converted(&[b"a\rb\nc\r\r\nd\r"], Form::Plain, true), b"a\nb\nc\n\nd\n");
        assert_eq!(converted(&[b"a\n..b\r..c"], Form::Dotted, true), b"a\n.b\n.c");
        assert_eq!(converted(&[b"a\n..b\r..c"], Form::Dotted, false), b"a\n..b\r..c");
    }

    proptest! {
        #[test]
        fn content_is_converted_as_the_oracle_does_wherever_it_is_cut(
            content in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..40),
            normalise: bool,
            dotted: bool,
        ) {
            let form = if dotted { Form::Dotted } else { Form::Plain };
            let expected = naive(&content, form, normalise);
            prop_assert!(expected.len() <= content.len());
            for cut in 0..=content.len() {
                for second in cut..=content.len() {
                    let pieces = [&content[..cut], &content[cut..second], &content[second..]];
                    prop_assert_eq!(&converted(&pieces, form, normalise), &expected);
                }
            }
        }
    }
}
