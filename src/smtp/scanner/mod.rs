//! The scanner of DATA and BDAT content: where it ends, how large it is, what stands in its header section.
//!
//! Promises: content is judged in place, never copied and never rewritten; every answer is the same however the input is
//! cut; a message costs a fixed number of octets of memory and time linear in its length, whatever stands in it; nothing
//! but `CRLF.CRLF` ends DATA. Lives on the shard of the session, which has one scanner and resets it for each message.
//!
//! # Lines
//!
//! RFC 5321 section 2.3.8 knows one line end, CRLF, and so do the end of DATA and the undoubling of dots, always
//! (section 4.1.1.4: a receiver that takes `LF.LF` or the like for the end can be made to see a second message).
//!
//! The header section is read by others after us, and they disagree about a bare CR or LF: a Maildir holds LF lines, so
//! its readers end the header at `LF LF`, where a strict reader goes on. So a scanner counts what *any* of them could see:
//! a field begins after CRLF, bare CR or bare LF, and the header section ends at `CRLF CRLF` only, the last place of all
//! readings. A bare newline can therefore add to [`Scanner::received`] and [`Scanner::header_size`], but hide nothing.
//!
//! Where the content is normalised before anybody reads it, there is one reading, and [`Scanner::normalise`] asks for it:
//! bare CR and bare LF are line ends like CRLF, also of the empty line. Sizes are still those of the octets received.

mod body;
mod header;
mod received_by;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use memchr::memchr3;

use header::Header;

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const NUL: u8 = 0;

/// What one look at the content has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Octets of content at the start of the input, in wire form: stuffed dots are among them.
    pub content: usize,
    /// Octets of the input that are done with: `content`, and the three of `.CRLF` where the content ended.
    pub used: usize,
    /// Whether the end of DATA was seen. What lies behind `used` is the next command.
    pub ended: bool,
}

/// Judges the content of one message as it arrives.
#[derive(Debug)]
pub struct Scanner {
    header: Header,
    last: Last,
    size: u64,
    bare_newline: bool,
    nul: bool,
    eight_bit: bool,
}

/// What the octets before the next one mean for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// Nothing yet, or CRLF: a dot here is a stuffed one or begins the end mark.
    LineEnd,
    /// A CR that is bare unless LF follows.
    Cr,
    /// Anything else.
    Other,
}

impl Scanner {
    /// A scanner for a host that calls itself `own_name` in its Received fields.
    pub fn new(own_name: Arc<str>) -> Scanner {
        Scanner {
            header: Header::new(own_name),
            last: Last::LineEnd,
            size: 0,
            bare_newline: false,
            nul: false,
            eight_bit: false,
        }
    }

    /// Forgets the message. The name and [`Scanner::normalise`] stay.
    pub fn reset(&mut self) {
        self.header.reset();
        self.last = Last::LineEnd;
        self.size = 0;
        self.bare_newline = false;
        self.nul = false;
        self.eight_bit = false;
    }

    /// Whether every reader will see this content with each bare CR and bare LF turned into CRLF (false at first). To be
    /// set between messages. It changes where the header section ends, never where DATA ends.
    pub fn normalise(&mut self, normalise: bool) {
        self.header.normalise(normalise);
    }

    /// Looks at DATA `input`, which continues where the last call's `used` octets ended. `.` or `.CR` at the start of a
    /// line is left unused where the input ends behind it: only the octets to come tell whether it is the end mark, so
    /// the caller presents it again with more input. After `ended` comes [`Scanner::reset`].
    pub fn data(&mut self, input: &[u8]) -> Scan {
        self.scan::<true>(input)
    }

    /// Looks at octets of a BDAT chunk: all of them are content, and a dot is a dot (RFC 3030 section 2).
    pub fn chunk(&mut self, input: &[u8]) {
        self.scan::<false>(input);
    }

    /// No more content will come: judges what the last octets left open.
    pub fn finish(&mut self) {
        if self.last == Last::Cr {
            self.end_bare_line();
            self.last = Last::Other;
        }
        self.header.finish();
    }

    /// Octets of the message so far as RFC 1870 section 3 counts them: stuffed dots and the end mark are not message.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Octets of the header section so far, with the CRLF of its last field, without the empty line; all of the message
    /// where no empty line comes. Not every line must be a field: the section ends at the empty line only.
    pub fn header_size(&self) -> u64 {
        self.header.size(self.size)
    }

    /// Received fields in the header section: in any case, also with the blanks before the colon of RFC 5322 section
    /// 4.5. A field counts from its colon on.
    pub fn received(&self) -> u64 {
        self.header.received()
    }

    /// Received fields whose `by` clause (RFC 5321 section 4.4) names this host. A field counts when it has ended.
    pub fn received_local(&self) -> u64 {
        self.header.received_local()
    }

    /// Whether the header section is over, so that the next two say all.
    pub fn header_is_over(&self) -> bool {
        !self.header.is_open()
    }

    /// Whether a Date field (RFC 5322 section 3.6.1) was seen in the header section.
    pub fn has_date(&self) -> bool {
        self.header.has_date()
    }

    /// Whether a Message-ID field (RFC 5322 section 3.6.4) was seen in the header section.
    pub fn has_message_id(&self) -> bool {
        self.header.has_message_id()
    }

    /// Whether a CR without LF or an LF without CR was seen (RFC 5321 section 2.3.8).
    pub fn bare_newline(&self) -> bool {
        self.bare_newline
    }

    /// Whether an octet 0 was seen.
    pub fn nul(&self) -> bool {
        self.nul
    }

    /// Whether an octet above 127 was seen (RFC 6152).
    pub fn eight_bit(&self) -> bool {
        self.eight_bit
    }

    fn scan<const DOTS: bool>(&mut self, input: &[u8]) -> Scan {
        let mut rest = input;
        // Where the search goes octet by octet because a block of the body is not plain.
        let mut uneven = 0;
        let ended = loop {
            match self.last {
                Last::LineEnd => match rest {
                    [] => break false,
                    [b'.', CR, LF, ..] if DOTS => break true,
                    [b'.'] | [b'.', CR] if DOTS => break false,
                    [b'.', line @ ..] if DOTS => {
                        rest = line;
                        self.last = Last::Other;
                    }
                    _ => self.last = Last::Other,
                },
                Last::Cr => match rest {
                    [] => break false,
                    [LF, line @ ..] => {
                        rest = line;
                        self.size += 1;
                        self.header.line_end(self.size);
                        self.last = Last::LineEnd;
                    }
                    _ => {
                        self.end_bare_line();
                        self.last = Last::Other;
                    }
                },
                Last::Other if rest.is_empty() => break false,
                Last::Other if self.header.is_open() => rest = self.line(rest, rest.len()),
                Last::Other if uneven > 0 => {
                    let left = rest.len();
                    rest = self.line(rest, uneven);
                    uneven = uneven.saturating_sub(left - rest.len());
                }
                Last::Other => {
                    let plain = self.plain::<DOTS>(rest);
                    let (before, after) = rest.split_at(plain);
                    self.size += plain as u64;
                    if before.last() == Some(&CR) {
                        self.last = Last::Cr;
                    }
                    rest = after;
                    uneven = body::BLOCK;
                }
            }
        };
        let content = input.len() - rest.len();
        Scan {
            content,
            used: if ended { content + 3 } else { content },
            ended,
        }
    }

    /// Takes what comes up to a CR, LF or NUL, with it, from the first `most` octets of `rest`, and gives back the others.
    fn line<'a>(&mut self, rest: &'a [u8], most: usize) -> &'a [u8] {
        let window = rest.get(..most).unwrap_or(rest);
        let found = memchr3(CR, LF, NUL, window);
        let (text, after) = rest.split_at(found.unwrap_or(window.len()));
        self.eight_bit = self.eight_bit || !text.is_ascii();
        self.size += text.len() as u64;
        self.header.text(text);
        let (Some(_), Some((&octet, after))) = (found, after.split_first()) else {
            return after;
        };
        self.size += 1;
        match octet {
            CR => self.last = Last::Cr,
            LF => self.end_bare_line(),
            _ => {
                self.nul = true;
                self.header.text(&[NUL]);
            }
        }
        after
    }

    /// How many octets at the start of `rest`, in whole blocks, hold nothing to record and nothing that ends.
    fn plain<const DOTS: bool>(&mut self, rest: &[u8]) -> usize {
        // A block looks at each octet and its successor, so nothing has looked at the first one as a successor.
        if rest.first() == Some(&LF) {
            return 0;
        }
        let looked_for = body::LookedFor {
            bare_newline: !self.bare_newline,
            nul: !self.nul,
            dot: DOTS,
        };
        let (plain, eight_bit) = body::plain(rest, looked_for);
        self.eight_bit |= eight_bit;
        plain
    }

    fn end_bare_line(&mut self) {
        self.bare_newline = true;
        self.header.bare_newline(self.size);
    }
}
