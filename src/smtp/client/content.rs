//! The content of a message in the form that was agreed on, piece by piece.
//!
//! Promises: one copy, into the output; the same octets however the content is cut; what a hop may take for the end of the
//! content never stands in the middle of it. Lives with its connection.
//!
//! | form | by | what is done |
//! |---|---|---|
//! | `Dotted` | DATA | as it came; a CRLF where the last line has none |
//! | `Dotted`, bare newlines | DATA | a bare CR or LF becomes CRLF, and a dot behind it is doubled: what a lax reader would take for a line becomes one, so that no two readers differ |
//! | `Plain` | DATA | a dot that begins a line is doubled (RFC 5321 section 4.5.2), a CRLF where the last line has none |
//! | `Plain` | BDAT | as it is |

use memchr::{memchr2, memmem};

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const CRLF: &[u8] = b"\r\n";
/// RFC 5321 section 4.1.1.4, at the start of a line.
pub(super) const END_MARK: &[u8] = b".\r\n";

/// What is done to the octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// A chunk: nothing.
    #[default]
    Chunk,
    /// Nothing but at the end.
    Dotted,
    /// Dots are doubled.
    Stuffed,
    /// In wire form already, but not every line end is one.
    Mended,
}

/// What the octets before the next one mean for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    /// Nothing yet, or CRLF.
    #[default]
    LineEnd,
    /// A bare newline that has become CRLF.
    Mended,
    /// A CR.
    Cr,
    /// Anything else.
    Other,
}

/// Writes one content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writer {
    wire: Wire,
    last: Last,
}

impl Writer {
    /// A content from its beginning.
    pub fn new(wire: Wire) -> Writer {
        Writer {
            wire,
            last: Last::LineEnd,
        }
    }

    /// Appends what goes before the content, which is not in wire form even where the content is.
    pub fn head(&mut self, head: &[u8], output: &mut Vec<u8>) {
        match self.wire {
            Wire::Chunk => output.extend_from_slice(head),
            Wire::Dotted | Wire::Stuffed | Wire::Mended => self.stuff(head, output),
        }
    }

    /// Appends what becomes of `piece`.
    pub fn piece(&mut self, piece: &[u8], output: &mut Vec<u8>) {
        match self.wire {
            Wire::Chunk => output.extend_from_slice(piece),
            Wire::Dotted => {
                output.extend_from_slice(piece);
                self.last = self.last.after(piece);
            }
            Wire::Stuffed => self.stuff(piece, output),
            Wire::Mended => self.mend(piece, output),
        }
    }

    /// Appends the end: nothing for a chunk, whose size tells it.
    pub fn end(&mut self, output: &mut Vec<u8>) {
        if self.wire == Wire::Chunk {
            return;
        }
        // A CR that `mend` holds back is a bare one, and becomes the CRLF.
        if !matches!(self.last, Last::LineEnd | Last::Mended) {
            output.extend_from_slice(CRLF);
        }
        output.extend_from_slice(END_MARK);
    }

    fn stuff(&mut self, piece: &[u8], output: &mut Vec<u8>) {
        let mut rest = piece;
        let mut last = self.last;
        // The CRLF that was cut in two is not found below.
        if let (Last::Cr, Some((&LF, after))) = (last, rest.split_first()) {
            output.push(LF);
            rest = after;
            last = Last::LineEnd;
        }
        if last == Last::LineEnd && rest.first() == Some(&b'.') {
            output.push(b'.');
        }
        self.last = last.after(rest);
        while let Some(at) = memmem::find(rest, b"\r\n.") {
            let (line, after) = rest.split_at(at + b"\r\n.".len());
            output.extend_from_slice(line);
            output.push(b'.');
            rest = after;
        }
        output.extend_from_slice(rest);
    }

    fn mend(&mut self, piece: &[u8], output: &mut Vec<u8>) {
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            match (self.last, first) {
                // Held back until it is known what kind it is.
                (Last::Cr, LF) => {
                    output.extend_from_slice(CRLF);
                    self.last = Last::LineEnd;
                    rest = rest.get(1..).unwrap_or_default();
                }
                (Last::Cr, _) => {
                    output.extend_from_slice(CRLF);
                    self.last = Last::Mended;
                }
                (_, CR) => {
                    self.last = Last::Cr;
                    rest = rest.get(1..).unwrap_or_default();
                }
                (_, LF) => {
                    output.extend_from_slice(CRLF);
                    self.last = Last::Mended;
                    rest = rest.get(1..).unwrap_or_default();
                }
                (last, first) => {
                    // Behind a true CRLF the dot is a doubled one already.
                    if last == Last::Mended && first == b'.' {
                        output.push(b'.');
                    }
                    let (text, after) = rest.split_at(memchr2(CR, LF, rest).unwrap_or(rest.len()));
                    output.extend_from_slice(text);
                    self.last = Last::Other;
                    rest = after;
                }
            }
        }
    }
}

impl Last {
    /// What comes after `piece`, which comes after this.
    fn after(self, piece: &[u8]) -> Last {
        match piece {
            [] => self,
            [.., CR, LF] => Last::LineEnd,
            [LF] if self == Last::Cr => Last::LineEnd,
            [.., CR] => Last::Cr,
            _ => Last::Other,
        }
    }
}
