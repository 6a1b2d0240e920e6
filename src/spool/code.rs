//! Numbers and texts as octets: lengths and small numbers take as few octets as they need.
//!
//! Promises: reading never panics and allocates nothing by a length that was read. Pure.

/// Appends a number, seven bits an octet, the lowest first; the highest bit says that more follow.
pub(super) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends octets, their count before them.
pub(super) fn octets(out: &mut Vec<u8>, value: &[u8]) {
    number(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends a text that may be missing.
pub(super) fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            octets(out, text.as_bytes());
        }
    }
}

/// Reads what the functions above wrote; none as soon as something is missing or wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// 32 bits, little-endian.
    pub(super) fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_le_bytes(*word))
    }

    /// 64 bits, little-endian.
    pub(super) fn long(&mut self) -> Option<u64> {
        let (long, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*long))
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let octet = self.octet()?;
            let bits = u64::from(octet & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn octets(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (value, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(value)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.octets()?).ok()
    }

    pub(super) fn optional(&mut self) -> Option<Option<&'a str>> {
        match self.octet()? {
            0 => Some(None),
            1 => self.text().map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(value in any::<u64>(), shift in 0..64u32, text in ".*", other in any::<Option<String>>()) {
            let mut out = Vec::new();
            number(&mut out, value >> shift);
            octets(&mut out, text.as_bytes());
            optional(&mut out, other.as_deref());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Some(value >> shift));
            prop_assert_eq!(reader.text(), Some(text.as_str()));
            prop_assert_eq!(reader.optional(), Some(other.as_deref()));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Reader::new(&octets).number();
            let _ = Reader::new(&octets).text();
            let _ = Reader::new(&octets).optional();
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_none() {
        assert_eq!(Reader::new(&[0xff; 11]).number(), None);
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Reader::new(&most).number(), Some(u64::MAX));
        let more = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(Reader::new(&more).number(), None);
    }
}
