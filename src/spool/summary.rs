//! Which messages of a segment live, said in one record.
//!
//! Promises: what is written is read again as it was; nothing panics. Pure.

use super::code::{Reader, octets};

/// The messages, each with its encoded progress.
pub(super) fn encode(living: impl Iterator<Item = (u64, Option<Vec<u8>>)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, progress) in living {
        out.extend_from_slice(&id.to_le_bytes());
        // No progress is ever encoded as nothing.
        octets(&mut out, progress.as_deref().unwrap_or_default());
    }
    out
}

/// Octets that a message takes in a summary, or a few more, with so many of its progress.
pub(super) fn cost(progress: usize) -> usize {
    16 + progress
}

/// A message that lives, and how far its delivery has come.
pub(super) type Living = (u64, Option<Box<[u8]>>);

/// None where the octets are no summary.
pub(super) fn decode(octets: &[u8]) -> Option<Vec<Living>> {
    let mut rest = Reader::new(octets);
    let mut living = Vec::new();
    while !rest.is_empty() {
        let id = rest.long()?;
        let progress = rest.octets()?;
        living.push((id, (!progress.is_empty()).then(|| progress.into())));
    }
    Some(living)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_summary_is_read_as_it_was_written(
            living in prop::collection::vec((any::<u64>(), prop::option::of(prop::collection::vec(any::<u8>(), 1..9))), 0..9)
        ) {
            let octets = encode(living.iter().cloned());
            let read: Vec<_> = living.into_iter().map(|(id, progress)| (id, progress.map(Vec::into_boxed_slice))).collect();
            prop_assert_eq!(decode(&octets), Some(read));
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&octets);
        }
    }
}
