//! The content of DATA: where it ends, and what it is without the dots that were stuffed (RFC 5321 section 4.5.2).
//!
//! Promises: one pass, nothing copied; the same content however the stream is cut. Pure.

use std::sync::LazyLock;

use memchr::memmem::Finder;

static LINE_WITH_DOT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

/// Finds the end of one content; begins anew for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dotted {
    /// Nothing has been read: what comes is the beginning of a line.
    fresh: bool,
}

/// What was found in some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Octets used; the others are to be given again with those that follow.
    pub used: usize,
    /// The content is whole.
    pub ended: bool,
}

impl Dotted {
    /// At the beginning of a content.
    pub fn new() -> Self {
        Self { fresh: true }
    }

    /// Gives the content in `input` to `feed`, piece by piece, its last CRLF included.
    pub fn read(&mut self, input: &[u8], mut feed: impl FnMut(&[u8])) -> Read {
        let mut at = 0;
        if self.fresh {
            match input {
                [b'.', b'\r', b'\n', ..] => return Read { used: 3, ended: true },
                [] | [b'.'] | [b'.', b'\r'] => return Read { used: 0, ended: false },
                [b'.', ..] => at = 1,
                _ => {}
            }
            self.fresh = false;
        }
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let Some(found) = LINE_WITH_DOT.find(rest) else {
                // A CRLF, or half of one, at the end of input may turn out to stand before a dot.
                let kept = match rest {
                    [.., b'\r', b'\n'] => 2,
                    [.., b'\r'] => 1,
                    _ => 0,
                };
                feed(rest.get(..rest.len() - kept).unwrap_or_default());
                return Read {
                    used: input.len() - kept,
                    ended: false,
                };
            };
            match rest.get(found + 3..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {
                    feed(rest.get(..found + 2).unwrap_or_default());
                    return Read {
                        used: at + found + 5,
                        ended: true,
                    };
                }
                [] | [b'\r'] => {
                    feed(rest.get(..found).unwrap_or_default());
                    return Read {
                        used: at + found,
                        ended: false,
                    };
                }
                _ => {
                    feed(rest.get(..found + 2).unwrap_or_default());
                    at += found + 3;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of `stream`, given in pieces of `cut` octets, and what is left behind its end.
    fn content(stream: &[u8], cut: usize) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut dotted, mut content, mut pending) = (Dotted::new(), Vec::new(), Vec::new());
        let mut pieces = stream.chunks(cut);
        for piece in pieces.by_ref() {
            pending.extend_from_slice(piece);
            let read = dotted.read(&pending, |piece| content.extend_from_slice(piece));
            pending.drain(..read.used);
            assert!(read.ended || pending.len() <= 4, "{} octets kept", pending.len());
            if read.ended {
                pending.extend(pieces.flatten());
                return (content, Some(pending));
            }
        }
        (content, None)
    }

    #[test]
    fn content_is_read_however_it_is_cut() {
        for (stream, expected, behind) in [
            (&b".\r\nQUIT\r\n"[..], &b""[..], &b"QUIT\r\n"[..]),
            (b"a\r\n.\r\n", b"a\r\n", b""),
            (b"..\r\n.\r\nX", b".\r\n", b"X"),
            (b"a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n", b""),
            (b"a\r\n.b.\r\r\n\r\n.\r\n", b"a\r\nb.\r\r\n\r\n", b""),
            (b"\r\n\r\n.\r\n.\r\n", b"\r\n\r\n", b".\r\n"),
            (b"a\n.\nb\r.\r\r\n.\r\n", b"a\n.\nb\r.\r\r\n", b""),
        ] {
            for cut in 1..=stream.len() {
                let found = content(stream, cut);
                assert_eq!(found, (expected.to_vec(), Some(behind.to_vec())), "cut into {cut}");
            }
        }
    }

    #[test]
    fn content_without_its_end_goes_on() {
        assert_eq!(content(b"a\r\n.\n.\r\r\n.\r", 3).1, None);
    }
}
