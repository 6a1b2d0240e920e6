//! What is said of many messages in the same words is kept once.
//!
//! Thousands of messages wait because the same hop does not answer: what the spool remembers of them differs in a few octets
//! at its beginning, the times, and ends in the same words.
//!
//! Promises: what is noted comes back as it was, octet by octet; whoever shares words with nobody costs a little more than
//! its own. Lives on its shard and on the thread of recovery.

use std::collections::VecDeque;
use std::sync::Arc;

/// Ends that are remembered.
const RECENT: usize = 8;
/// Octets of an end that is worth it.
const LEAST: usize = 16;

/// A [`Progress`](super::Progress), encoded; empty where there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    own: Box<[u8]>,
    /// A thin pointer: there may be a million of them.
    shared: Option<Arc<Vec<u8>>>,
}

impl Noted {
    /// None where nothing was noted: no progress is ever encoded as nothing.
    pub(super) fn octets(&self) -> Option<Vec<u8>> {
        let shared = self.shared.as_deref().map(Vec::as_slice).unwrap_or_default();
        (self.len() > 0).then(|| [&*self.own, shared].concat())
    }

    pub(super) fn len(&self) -> usize {
        self.own.len() + self.shared.as_ref().map_or(0, |shared| shared.len())
    }
}

/// The words that were used last.
#[derive(Debug, Default)]
pub(super) struct Words {
    recent: VecDeque<Arc<Vec<u8>>>,
    last: Vec<u8>,
}

impl Words {
    /// Takes octets, sharing their end with others where it can.
    pub(super) fn note(&mut self, octets: &[u8]) -> Noted {
        let known = self.recent.iter().filter(|end| octets.ends_with(end));
        let known = known.max_by_key(|end| end.len()).cloned();
        let least = known.as_ref().map_or(LEAST, |end| end.len() + 1);
        let shared = self.learn(octets, least).or(known);
        self.last.clear();
        self.last.extend_from_slice(octets);
        let own = octets.len() - shared.as_ref().map_or(0, |shared| shared.len());
        Noted {
            own: octets.get(..own).unwrap_or(octets).into(),
            shared,
        }
    }

    /// The end that these octets have in common with the last, if it has at least so many.
    fn learn(&mut self, octets: &[u8], least: usize) -> Option<Arc<Vec<u8>>> {
        let pairs = octets.iter().rev().zip(self.last.iter().rev());
        let common = pairs.take_while(|(one, other)| one == other).count();
        let end = octets.get(octets.len() - common..).filter(|end| end.len() >= least)?;
        let end = Arc::new(end.to_vec());
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(end.clone());
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn those_that_end_in_the_same_words_share_them() {
        let mut words = Words::default();
        let noted: Vec<Noted> = (0..1000_u32)
            .map(|number| words.note(format!("{number:04}: connection refused by 192.0.2.7").as_bytes()))
            .collect();
        for (number, noted) in noted.iter().enumerate() {
            let octets = noted.octets().unwrap();
            assert_eq!(
                octets,
                format!("{number:04}: connection refused by 192.0.2.7").as_bytes()
            );
            assert_eq!(noted.len(), octets.len());
        }
        let own: usize = noted.iter().skip(1).map(|noted| noted.own.len()).sum();
        assert!(own <= 999 * 4, "{own}");
        assert!(words.recent.len() <= RECENT);
    }

    proptest! {
        #[test]
        fn what_is_noted_comes_back(all in prop::collection::vec(prop::collection::vec(0..3_u8, 0..60), 0..40)) {
            let mut words = Words::default();
            for octets in all {
                let noted = words.note(&octets);
                prop_assert_eq!(noted.octets().unwrap_or_default(), octets);
            }
        }
    }
}
