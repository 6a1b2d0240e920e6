//! Replies as a client hears them (RFC 5321 section 4.2), line by line.
//!
//! Promises: takes any octets and never panics; the same lines however the input is cut; of a reply it keeps one bounded
//! text, whatever the hop sends, and a line, a reply of many lines and a reply of many octets each have an end. Allocates
//! nothing but that text, whose memory serves every reply of the connection. Lives on the thread of its connection.
//!
//! A line without text is a reply, a line that ends with a bare LF too: the RFC asks the first of clients, and hops that
//! were not written with care send the second. What has no code or changes it between lines is no SMTP.

use memchr::memchr;

use super::outcome::{EnhancedStatusCode, HopReply, MAX_TEXT};

/// Octets of a line with its end. RFC 5321 section 4.5.3.1.5 has 512; hops that quote addresses write more.
pub const MAX_LINE: usize = 2048;
/// Lines of a reply. The longest that is of use is that to EHLO, of some thirty.
pub const MAX_LINES: usize = 128;
/// Octets of a reply.
pub const MAX_OCTETS: usize = 16 << 10;

/// Octets of text that are kept: what a [`HopReply`] can hold, and an enhanced status code before it.
const MAX_KEPT: usize = MAX_TEXT + "5.000.000 ".len();

/// The code of a challenge (RFC 4954 section 4), whose text is needed whole.
const CHALLENGE: u16 = 334;

/// A whole line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Octets of the input that it took.
    pub used: usize,
    /// Which line of its reply it is, from 0.
    pub number: usize,
    /// Whether the reply is complete with it.
    pub last: bool,
    /// What follows the code, as it was sent.
    pub text: &'a [u8],
}

/// Why what a hop sends is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// A line that begins with no code from 200 to 599.
    NoCode,
    /// A line of another code within the reply.
    OtherCode,
    /// More than [`MAX_LINE`] octets without an end.
    LongLine,
    /// More than [`MAX_LINES`] lines or [`MAX_OCTETS`] octets.
    LongReply,
}

impl Garbage {
    /// For the log and the report.
    pub const fn text(self) -> &'static str {
        match self {
            Garbage::NoCode => "the hop sent a line that is no SMTP reply",
            Garbage::OtherCode => "the hop changed the code within a reply",
            Garbage::LongLine => "the hop sent an endless line",
            Garbage::LongReply => "the hop sent an endless reply",
        }
    }
}

/// The reply that is being heard.
#[derive(Debug, Default)]
pub struct Replies {
    code: u16,
    lines: usize,
    octets: usize,
    complete: bool,
    text: Vec<u8>,
}

impl Replies {
    /// The line at the start of `input`, which begins with the first octet not used yet; none where it has no end yet.
    pub fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<Line<'a>>, Garbage> {
        let window = input.get(..MAX_LINE).unwrap_or(input);
        let Some(end) = memchr(b'\n', window) else {
            // What cannot become a reply is not waited for.
            let digits = input.get(..3).unwrap_or(input);
            return match () {
                () if window.len() == MAX_LINE => Err(Garbage::LongLine),
                () if !digits.iter().all(u8::is_ascii_digit) => Err(Garbage::NoCode),
                () => Ok(None),
            };
        };
        if self.complete {
            self.forget();
        }
        let line = window.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, more, text) = split(line).ok_or(Garbage::NoCode)?;
        if self.lines > 0 && code != self.code {
            return Err(Garbage::OtherCode);
        }
        let number = self.lines;
        self.code = code;
        self.lines += 1;
        self.octets += end + 1;
        if self.lines > MAX_LINES || self.octets > MAX_OCTETS {
            return Err(Garbage::LongReply);
        }
        self.keep(text);
        self.complete = !more;
        Ok(Some(Line {
            used: end + 1,
            number,
            last: !more,
            text,
        }))
    }

    /// The code of the last reply: from 200 to 599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Its text: what followed the code, the lines joined by a space, up to a bound, which is larger for the challenges of
    /// AUTH.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The last reply, to be kept.
    pub fn heard(&self) -> HopReply {
        HopReply::heard(self.code, &self.text)
    }

    /// The connection speaks anew: what came before TLS is not believed (RFC 3207 section 4.2).
    pub fn forget(&mut self) {
        self.lines = 0;
        self.octets = 0;
        self.complete = false;
        self.text.clear();
    }

    fn keep(&mut self, text: &[u8]) {
        // RFC 2034 section 4: each line repeats the enhanced status code; one will do.
        let text = match EnhancedStatusCode::parse(text) {
            Some((status, rest)) if self.lines > 1 && u16::from(status.class) == self.code / 100 => rest,
            _ => text,
        };
        if self.lines > 1 && !text.is_empty() {
            self.push(b" ");
        }
        self.push(text);
    }

    fn push(&mut self, text: &[u8]) {
        let most = if self.code == CHALLENGE { MAX_LINE } else { MAX_KEPT };
        let room = most - self.text.len().min(most);
        self.text.extend_from_slice(text.get(..room).unwrap_or(text));
    }
}

/// Code, whether more lines follow, text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_first_chunk::<3>()?;
    if !matches!(code[0], b'2'..=b'5') || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = code.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, false, rest)),
        Some((b' ', text)) => Some((code, false, text)),
        Some((b'-', text)) => Some((code, true, text)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes and texts of whole replies, and what is wrong with the rest. `cuts` says how many octets come at a time.
    fn heard(input: &[u8], cut: usize) -> (Vec<(u16, String)>, Result<usize, Garbage>) {
        let (mut replies, mut said, mut used, mut have) = (Replies::default(), Vec::new(), 0, 0);
        loop {
            match replies.line(&input[used..have]) {
                Ok(Some(line)) => {
                    used += line.used;
                    if line.last {
                        said.push((replies.code(), String::from_utf8_lossy(replies.text()).into_owned()));
                    }
                }
                Ok(None) if have == input.len() => return (said, Ok(input.len() - used)),
                Ok(None) => have = (have + cut).min(input.len()),
                Err(garbage) => return (said, Err(garbage)),
            }
        }
    }

    #[test]
    fn a_reply_of_one_line_or_many_is_heard_however_it_is_cut() {
        let input = b"220 a.test ready\r\n250-first\r\n250-\r\n250 last\r\n250\r\n354\n550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 \
                      user\r\n421-bye\r\n421";
        for cut in 1..=input.len() {
            let (said, rest) = heard(input, cut);
            let said: Vec<_> = said.iter().map(|(code, text)| (*code, text.as_str())).collect();
            assert_eq!(
                said,
                [
                    (220, "a.test ready"),
                    (250, "first last"),
                    (250, ""),
                    (354, ""),
                    (550, "5.1.1 no such user"),
                ]
            );
            assert_eq!(rest, Ok(3), "the last line is not whole");
        }
    }

    #[test]
    fn what_is_no_reply_is_not_waited_for() {
        for (input, garbage) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Garbage::NoCode),
            (b"SSH", Garbage::NoCode),
            (b"2\0", Garbage::NoCode),
            (b"\x15\x03\x01\x00\x02", Garbage::NoCode),
            (b"\r\n", Garbage::NoCode),
            (b"25\r\n", Garbage::NoCode),
            (b"150 x\r\n", Garbage::NoCode),
            (b"650 x\r\n", Garbage::NoCode),
            (b"000 x\r\n", Garbage::NoCode),
            (b"2500 x\r\n", Garbage::NoCode),
            (b"250_x\r\n", Garbage::NoCode),
            (b"250-a\r\n\r\n", Garbage::NoCode),
            (b"250-a\r\n251 b\r\n", Garbage::OtherCode),
        ] {
            for cut in 1..=input.len() {
                assert_eq!(heard(input, cut).1, Err(garbage), "{input:?}");
            }
        }
    }

    #[test]
    fn a_line_and_a_reply_have_an_end() {
        let line = |octets: usize| [b"250 ".to_vec(), vec![b'x'; octets - 6], b"\r\n".to_vec()].concat();
        assert_eq!(heard(&line(MAX_LINE), MAX_LINE).1, Ok(0));
        assert_eq!(heard(&line(MAX_LINE + 1), 1).1, Err(Garbage::LongLine));
        let lines = |n: usize| [b"250-x\r\n".repeat(n - 1), b"250 x\r\n".to_vec()].concat();
        assert_eq!(heard(&lines(MAX_LINES), 1).1, Ok(0));
        assert_eq!(heard(&lines(MAX_LINES + 1), 1).1, Err(Garbage::LongReply));
        let wide = [b"250-".to_vec(), vec![b'x'; 1994], b"\r\n".to_vec()].concat();
        assert_eq!(heard(&wide.repeat(8), 500).1, Ok(0));
        assert_eq!(heard(&wide.repeat(9), 500).1, Err(Garbage::LongReply));
    }

    #[test]
    fn of_a_long_text_its_beginning_is_kept() {
        let mut replies = Replies::default();
        let input = [b"250-".to_vec(), vec![b'x'; 400], b"\r\n".to_vec()].concat().repeat(3);
        let mut rest = &input[..];
        while let Ok(Some(line)) = replies.line(rest) {
            rest = &rest[line.used..];
        }
        assert_eq!(replies.text().len(), MAX_KEPT);
        assert_eq!(&replies.text()[399..402], b"x x");
    }
}
