//! The name of a message.
//!
//! Promises: letters and digits only, so it can stand in a reply, a field, a log line and a file name as it is; sorts by the
//! time that it was made; a number of 64 bits, for the disk. Lives on every thread.

use std::fmt;

/// Thirteen characters of base 32 (Crockford: no I, L, O, U). Sessions are named alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId([u8; LENGTH]);

const LENGTH: usize = 13;
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl QueueId {
    /// The id that stands for a number. Thirteen digits hold 65 bits, so no two numbers share one.
    pub const fn from_number(number: u64) -> QueueId {
        let mut text = [0; LENGTH];
        let mut place = 0;
        while place < LENGTH {
            text[LENGTH - 1 - place] = DIGITS[(number >> (5 * place)) as usize & 31];
            place += 1;
        }
        QueueId(text)
    }

    /// The number that it stands for.
    pub fn number(&self) -> u64 {
        self.0.iter().fold(0, |number, digit| {
            let value = DIGITS.iter().position(|d| d == digit).unwrap_or_default() as u64;
            number << 5 | value
        })
    }

    /// Reads one that a person typed: lower case is fine. None where it is no id.
    pub fn parse(text: &str) -> Option<QueueId> {
        let mut id = [0; LENGTH];
        let text = text.as_bytes();
        if text.len() != LENGTH {
            return None;
        }
        for (digit, typed) in id.iter_mut().zip(text) {
            *digit = *DIGITS.iter().find(|d| d.eq_ignore_ascii_case(typed))?;
        }
        // The first digit holds the four highest bits alone.
        (id[0] < b'G').then_some(QueueId(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_one_to_one_and_sort_alike() {
        let numbers = [0, 1, 31, 32, u64::from(u32::MAX), 1 << 63, u64::MAX - 1, u64::MAX];
        let ids: Vec<_> = numbers.iter().map(|n| QueueId::from_number(*n)).collect();
        assert!(ids.is_sorted());
        for (number, id) in numbers.iter().zip(&ids) {
            assert_eq!(id.number(), *number);
            assert_eq!(QueueId::parse(id.as_str()), Some(*id));
            assert_eq!(QueueId::parse(&id.as_str().to_lowercase()), Some(*id));
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in [
            "",
            "0",
            "00000000000000",
            "000000000000U",
            "G000000000000",
            "000000000000-",
        ] {
            assert_eq!(QueueId::parse(text), None, "{text}");
        }
    }
}
