//! The `by` clause of a Received field, read as it arrives.
//!
//! Promises: holds no octet of the field. Lives in its [`Header`](super::header::Header).
//!
//! RFC 5321 section 4.4: `Received: from NAME (comment) by NAME (comment) via … with … id … for …; date`. Line ends and
//! what precedes the colon have been taken off. Words are parted by blanks, comments and semicolons; the field is ours
//! if the word after a word `by` is our name. Taking *any* `by` and not the first keeps a client that calls itself `by`
//! from hiding ours.

use std::sync::Arc;

use memchr::{memchr2, memchr3};

/// Looks for `by` and our name.
#[derive(Debug)]
pub(super) struct By {
    own_name: Arc<str>,
    place: Place,
    /// Whether the last octet was a backslash that quotes the next one (RFC 5322 section 3.2.1).
    escaped: bool,
    /// Octets of the current word.
    word: usize,
    like: Like,
    names_us: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Words,
    Quoted,
    /// So many comments deep (RFC 5322 section 3.2.2: they nest).
    Comment(u64),
}

/// What the current word may still become.
#[derive(Clone, Copy, Debug)]
struct Like {
    by: bool,
    /// Our name, with `by` as the word before.
    own_name: bool,
}

/// The octets that end a word, or begin a quoted string in it.
const ENDS_WORD: [bool; 256] = {
    let mut ends = [false; 256];
    let octets = b" \t;()\"";
    let mut i = 0;
    while i < octets.len() {
        ends[octets[i] as usize] = true;
        i += 1;
    }
    ends
};

const FIRST_WORD: Like = Like {
    by: true,
    own_name: false,
};

const BY: &[u8] = b"by";

impl By {
    pub(super) fn new(own_name: Arc<str>) -> By {
        By {
            own_name,
            place: Place::Words,
            escaped: false,
            word: 0,
            like: FIRST_WORD,
            names_us: false,
        }
    }

    /// Begins a field.
    pub(super) fn reset(&mut self) {
        self.place = Place::Words;
        self.escaped = false;
        self.word = 0;
        self.like = FIRST_WORD;
        self.names_us = false;
    }

    /// Takes more of the field.
    pub(super) fn text(&mut self, text: &[u8]) {
        let mut rest = text;
        while !rest.is_empty() && !self.names_us {
            if std::mem::take(&mut self.escaped) {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let found = match self.place {
                Place::Words => rest.iter().position(|&octet| ENDS_WORD[usize::from(octet)]),
                Place::Quoted => memchr2(b'"', b'\\', rest),
                Place::Comment(_) => memchr3(b'(', b')', b'\\', rest),
            };
            let (before, after) = rest.split_at(found.unwrap_or(rest.len()));
            if self.place == Place::Words {
                self.extend_word(before);
            }
            let Some((&octet, after)) = after.split_first() else {
                return;
            };
            self.stop(octet);
            rest = after;
        }
    }

    /// Whether the field, which has ended, was added by this host.
    pub(super) fn names_us(&mut self) -> bool {
        self.end_word();
        self.names_us
    }

    /// Takes one of the octets that were searched for.
    fn stop(&mut self, octet: u8) {
        match (self.place, octet) {
            (Place::Words, b'"') => {
                self.place = Place::Quoted;
                // A quoted string is part of a word, and that word is no name.
                self.extend_word(b"\"");
            }
            (Place::Words, _) => {
                self.end_word();
                if octet == b'(' {
                    self.place = Place::Comment(1);
                }
            }
            (_, b'\\') => self.escaped = true,
            (Place::Quoted, _) | (Place::Comment(..=1), b')') => self.place = Place::Words,
            (Place::Comment(depth), b')') => self.place = Place::Comment(depth - 1),
            (Place::Comment(depth), _) => self.place = Place::Comment(depth + 1),
        }
    }

    fn extend_word(&mut self, part: &[u8]) {
        let end = self.word + part.len();
        let is = |word: &[u8]| {
            word.get(self.word..end)
                .is_some_and(|expected| expected.eq_ignore_ascii_case(part))
        };
        self.like.by = self.like.by && is(BY);
        self.like.own_name = self.like.own_name && is(self.own_name.as_bytes());
        self.word = end;
    }

    fn end_word(&mut self) {
        if self.word == 0 {
            return;
        }
        self.names_us |= self.like.own_name && self.word == self.own_name.len();
        self.like = Like {
            by: true,
            own_name: self.like.by && self.word == BY.len(),
        };
        self.word = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::smtp::scanner::Scanner;

    /// Whether the field is ours, wherever it is cut.
    fn ours(value: &str) -> bool {
        let field = format!("Received: {value}\r\n");
        let count = |cut: usize| {
            let mut scanner = Scanner::new(Arc::from("mx.example"));
            scanner.chunk(&field.as_bytes()[..cut]);
            scanner.chunk(&field.as_bytes()[cut..]);
            scanner.finish();
            assert_eq!(scanner.received(), 1);
            scanner.received_local()
        };
        let whole = count(0);
        for cut in 1..field.len() {
            assert_eq!(count(cut), whole, "{value} cut at {cut}");
        }
        whole == 1
    }

    #[test]
    fn a_field_is_ours_by_its_by_clause_in_any_case() {
        for value in [
            "from a by mx.example with SMTP id 1; now",
            "from a BY MX.Example; now",
            "by mx.example",
            "from a (b)by(c)mx.example(d)",
            "from a\r\n\tby\r\n mx.example\r\n id 1",
            "from a (b (by c) \\) d) by mx.example;now",
            "from \"by\" (\"by) by mx.example",
            "from a (b \\x \\\\) by mx.example",
            "from by (a) by mx.example",
            "from a by by mx.example",
        ] {
            assert!(ours(value), "{value}");
        }
    }

    #[test]
    fn our_name_elsewhere_does_not_make_a_field_ours() {
        for value in [
            "from mx.example by other.example",
            "from a (by mx.example) by other.example",
            "from \"a by mx.example\" by other.example",
            "from \"a\\\" by mx.example\" by other.example",
            "from a by mx.example.org",
            "from a by mx.exampl",
            "from a by \"mx.example\"",
            "from a by other.example for mx.example",
            "from a (b (c) by mx.example) by other.example",
            "from a (b \\) by mx.example) by other.example",
            "from a bymx.example",
            "from a b mx.example",
            "from a standby mx.example",
            "from a (never closed by mx.example",
            "",
        ] {
            assert!(!ours(value), "{value}");
        }
    }
}
