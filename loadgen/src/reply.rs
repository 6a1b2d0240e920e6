//! Replies of RFC 5321 section 4.2 in a stream of octets.
//!
//! Promises: a reply is found however the stream is cut; a reply line and a reply have a bounded length, and nothing of
//! their text is kept. Runs on the one thread of the load source, one value a connection.

use memchr::memchr;

/// Longest reply line taken, in octets. RFC 5321 section 4.5.3.1.5 says 512; twice that is somebody's bug, not ours.
const LINE_MAX: usize = 1024;
/// Most lines that one reply may have; EHLO replies have some twenty.
const LINES_MAX: usize = 128;
/// The input is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Finds the ends of replies in a stream; between calls it keeps the code and the column, never the text.
#[derive(Debug, Default)]
pub struct ReplyReader {
    digits: [u8; 3],
    column: usize,
    lines: usize,
    goes_on: bool,
    code: u16,
}

impl ReplyReader {
    /// The code of the first reply that ends in `input` and the octets up to its end; nothing when none ends here.
    pub fn read(&mut self, input: &[u8]) -> Result<Option<(u16, usize)>, Malformed> {
        let mut at = 0;
        while let Some(&octet) = input.get(at) {
            if self.column > 3 {
                let rest = input.get(at..).unwrap_or_default();
                let end = memchr(b'\n', rest);
                self.column += end.unwrap_or(rest.len());
                if self.column > LINE_MAX {
                    return Err(Malformed);
                }
                let Some(end) = end else { return Ok(None) };
                at += end + 1;
                if let Some(code) = self.line_over()? {
                    return Ok(Some((code, at)));
                }
                continue;
            }
            match (self.column, octet) {
                (column, b'0'..=b'9') if column < 3 => {
                    if let Some(digit) = self.digits.get_mut(column) {
                        *digit = octet - b'0';
                    }
                }
                (3, b'-') => self.goes_on = true,
                // RFC 5321 section 4.2: the text, and with it the space, may be missing.
                (3, b' ' | b'\r') => self.goes_on = false,
                _ => return Err(Malformed),
            }
            self.column += 1;
            at += 1;
        }
        Ok(None)
    }

    /// Takes account of a line's end; the code when it was the last line of its reply.
    fn line_over(&mut self) -> Result<Option<u16>, Malformed> {
        let code = self
            .digits
            .iter()
            .fold(0_u16, |code, digit| code * 10 + u16::from(*digit));
        let agrees = self.lines == 0 || code == self.code;
        self.lines += 1;
        if !agrees || !(200..600).contains(&code) || self.lines > LINES_MAX {
            return Err(Malformed);
        }
        self.code = code;
        self.column = 0;
        if self.goes_on {
            return Ok(None);
        }
        self.lines = 0;
        Ok(Some(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes of `stream`, read in pieces of `cut` octets.
    fn codes(stream: &[u8], cut: usize) -> Result<Vec<u16>, Malformed> {
        let mut reader = ReplyReader::default();
        let mut codes = Vec::new();
        for mut rest in stream.chunks(cut) {
            while let Some((code, taken)) = reader.read(rest)? {
                codes.push(code);
                rest = &rest[taken..];
            }
        }
        Ok(codes)
    }

    #[test]
    fn replies_are_found_however_the_stream_is_cut() {
        let stream = b"220 here\r\n250-a\r\n250-\r\n250 b 999\r\n354\r\n250-x\n250\r\n";
        for cut in 1..=stream.len() {
            assert_eq!(codes(stream, cut), Ok(vec![220, 250, 354, 250]), "cut into {cut}");
        }
    }

    #[test]
    fn what_is_no_reply_is_found_to_be_malformed() {
        let long = [b"220 ".as_slice(), &[b'x'; 2000]].concat();
        let many = b"220-x\r\n".repeat(LINES_MAX + 1);
        for stream in [
            &b"hello\r\n"[..],
            b"220x\r\n",
            b"22\r\n",
            b"220-a\r\n221 b\r\n",
            b"999 a\r\n",
            &long,
            &many,
        ] {
            for cut in [1, stream.len()] {
                assert_eq!(codes(stream, cut), Err(Malformed), "{stream:?}");
            }
        }
    }
}
