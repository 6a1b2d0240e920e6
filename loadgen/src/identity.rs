//! What tells every generated message from every other, and whether it arrived as it left.
//!
//! A header field: `X-Loadgen-Id: RUN-SERIAL; c=CONNECTION; body=OCTETS/CRC`, where RUN is 8 hexadecimal digits and SERIAL
//! 12 decimal ones, and body tells the length and the CRC-32 of all octets behind the empty line that ends the header, as
//! they stand on the wire (CRLF, no dots stuffed). What hops put on top of the header changes none of it.
//! Promises: content is examined piece by piece, however it is cut, and no more than the header is kept. Pure.

pub mod expect;
pub mod ledger;

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Name of the field.
pub const FIELD: &str = "X-Loadgen-Id";
static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(FIELD));
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
/// Most octets of a header that are kept to find the identity in.
const HEADER_MAX: usize = 256 * 1024;

/// What the field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names the run of the generator.
    pub run: u32,
    /// Number of the message in its run, from 0.
    pub serial: u64,
    /// Number of the connection that it left by.
    pub connection: u32,
    /// Its body.
    pub body: Body,
}

/// Length and checksum of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Body {
    pub octets: u64,
    pub crc: u32,
}

impl Body {
    /// Those of these octets.
    pub fn of(octets: &[u8]) -> Self {
        Self {
            octets: octets.len() as u64,
            crc: crc32fast::hash(octets),
        }
    }
}

impl Identity {
    /// Octets of the field, name and CRLF included: always the same, so that it can be written over in place.
    pub const LENGTH: usize = FIELD.len() + 61;

    /// The field, with its CRLF.
    pub fn field(&self) -> String {
        let Self {
            run,
            serial,
            connection,
            body: Body { octets, crc },
        } = self;
        format!(
            "{FIELD}: {run:08x}-{serial:012}; c={:06}; body={octets:010}/{crc:08x}\r\n",
            connection % 1_000_000
        )
    }

    /// The identity in a header section, the last if there are several.
    pub fn find(header: &[u8]) -> Option<Self> {
        // What a relay put on top comes first; the generator's own field stands last of its header.
        NAME.find_iter(header)
            .filter(|&at| at == 0 || header.get(at - 1) == Some(&b'\n'))
            .last()
            .and_then(|at| Self::parse(header.get(at + FIELD.len()..)?))
    }

    /// Reads what follows the field's name.
    fn parse(value: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', value).unwrap_or(value.len());
        let line = std::str::from_utf8(value.get(..end)?).ok()?.strip_prefix(':')?.trim();
        let mut parts = line.split(';').map(str::trim);
        let (run, serial) = parts.next()?.split_once('-')?;
        let connection = parts.next()?.strip_prefix("c=")?;
        let (octets, crc) = parts.next()?.strip_prefix("body=")?.split_once('/')?;
        Some(Self {
            run: u32::from_str_radix(run, 16).ok()?,
            serial: serial.parse().ok()?,
            connection: connection.parse().ok()?,
            body: Body {
                octets: octets.parse().ok()?,
                crc: u32::from_str_radix(crc, 16).ok()?,
            },
        })
    }
}

/// What a whole message turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who it says it is; nothing when it is not of a generator, or when that line was destroyed.
    pub identity: Option<Identity>,
    /// Its body as it came; meaningful with an identity only.
    pub body: Body,
    /// Octets of the content, header included.
    pub octets: u64,
}

impl Found {
    /// Whether the body is not what the identity says.
    pub fn is_altered(&self) -> bool {
        self.identity.is_some_and(|identity| identity.body != self.body)
    }
}

/// Looks at one message after the other as they come in.
#[derive(Debug, Default)]
pub struct Examiner {
    header: Vec<u8>,
    in_body: bool,
    identity: Option<Identity>,
    crc: crc32fast::Hasher,
    body: u64,
    octets: u64,
}

impl Examiner {
    /// Takes the next octets of the content.
    pub fn feed(&mut self, piece: &[u8]) {
        self.octets += piece.len() as u64;
        if self.in_body {
            return self.feed_body(piece);
        }
        // In the common case all of the header is in one piece, and nothing is copied.
        if self.header.is_empty()
            && let Some(end) = header_end(piece, 0)
        {
            self.identity = Identity::find(piece.get(..end).unwrap_or_default());
            self.in_body = true;
            return self.feed_body(piece.get(end..).unwrap_or_default());
        }
        let before = self.header.len();
        self.header.extend_from_slice(piece);
        let end = header_end(&self.header, before.saturating_sub(3));
        if end.is_none() && self.header.len() < HEADER_MAX {
            return;
        }
        let mut header = std::mem::take(&mut self.header);
        let end = end.unwrap_or(header.len());
        self.identity = Identity::find(header.get(..end).unwrap_or_default());
        self.in_body = true;
        self.feed_body(header.get(end..).unwrap_or_default());
        header.clear();
        self.header = header;
    }

    /// The message is whole; the next piece is that of another.
    pub fn finish(&mut self) -> Found {
        if !self.in_body {
            self.identity = Identity::find(&self.header);
        }
        let found = Found {
            identity: self.identity,
            body: Body {
                octets: self.body,
                crc: self.crc.clone().finalize(),
            },
            octets: self.octets,
        };
        self.reset();
        found
    }

    /// Forgets what was fed.
    pub fn reset(&mut self) {
        self.header.clear();
        (self.in_body, self.identity, self.body, self.octets) = (false, None, 0, 0);
        self.crc.reset();
    }

    fn feed_body(&mut self, piece: &[u8]) {
        self.body += piece.len() as u64;
        if self.identity.is_some() {
            self.crc.update(piece);
        }
    }
}

/// Where the body begins; `from` is where to begin looking.
fn header_end(octets: &[u8], from: usize) -> Option<usize> {
    if octets.starts_with(b"\r\n") {
        return Some(2);
    }
    EMPTY_LINE.find(octets.get(from..)?).map(|at| from + at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> (Identity, Vec<u8>) {
        let identity = Identity {
            run: 0xabc,
            serial: 42,
            connection: 7,
            body: Body::of(body),
        };
        let header = format!("Subject: x\r\n{}X-Other: y\r\n\r\n", identity.field());
        (identity, [header.as_bytes(), body].concat())
    }

    #[test]
    fn the_field_has_one_length_and_is_read_back() {
        for serial in [0, 42, 999_999_999_999] {
            let identity = Identity {
                serial,
                ..message(b"x\r\n").0
            };
            assert_eq!(identity.field().len(), Identity::LENGTH);
            assert_eq!(Identity::find(identity.field().as_bytes()), Some(identity));
        }
    }

    #[test]
    fn an_intact_message_is_found_intact_however_it_is_cut() {
        let (identity, whole) = message(b"first\r\n\r\nlast\r\n");
        for cut in 1..=whole.len() {
            let mut examiner = Examiner::default();
            for _ in 0..2 {
                whole.chunks(cut).for_each(|piece| examiner.feed(piece));
                let found = examiner.finish();
                assert_eq!(found.identity, Some(identity), "cut into {cut}");
                assert!(!found.is_altered() && found.octets == whole.len() as u64);
            }
        }
    }

    #[test]
    fn what_hops_put_on_top_changes_nothing_and_every_octet_of_the_body_counts() {
        let (identity, whole) = message(b"first\r\nlast\r\n");
        let topped = [b"Received: by hop\r\n\twith ESMTP\r\n", whole.as_slice()].concat();
        let mut examiner = Examiner::default();
        examiner.feed(&topped);
        let found = examiner.finish();
        assert_eq!((found.identity, found.is_altered()), (Some(identity), false));
        let body = whole.len() - 13;
        for at in body..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            examiner.feed(&altered);
            assert!(examiner.finish().is_altered(), "octet {at}");
        }
        examiner.feed(&whole[..whole.len() - 2]);
        assert!(examiner.finish().is_altered());
    }

    #[test]
    fn other_mail_has_no_identity() {
        let mut examiner = Examiner::default();
        for other in [
            &b"Subject: X-Loadgen-Id: 00000abc-000000000042\r\n\r\nhello\r\n"[..],
            b"X-Loadgen-Id: nonsense\r\n\r\n",
            b"\r\nX-Loadgen-Id: 00000abc-000000000042; c=000007; body=0000000000/00000000\r\n",
            b"",
        ] {
            examiner.feed(other);
            assert_eq!(examiner.finish().identity, None, "{}", other.escape_ascii());
        }
    }
}
