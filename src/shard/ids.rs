//! Names for sessions and messages, and octets that nobody can foresee.
//!
//! Promises: names are unique on this host across shards and restarts as long as its clock does not run backwards by more than the
//! time between two starts; sorted by time; letters and digits only. Lives on its shard.

use crate::smtp::sasl::Random;
use crate::spool::QueueId;

/// 2024-01-01: what the count of milliseconds starts from, to fit 42 bits until 2163.
const EPOCH_MILLIS: u64 = 1_704_067_200_000;
const SHARD_BITS: u32 = 10;
const COUNT_BITS: u32 = 12;

/// Makes the ids of one shard.
#[derive(Debug)]
pub struct Ids {
    shard: u64,
    millis: u64,
    count: u64,
}

impl Ids {
    /// For the shard with this index.
    pub fn new(shard: usize) -> Ids {
        Ids {
            shard: shard as u64 & ((1 << SHARD_BITS) - 1),
            millis: 0,
            count: 0,
        }
    }

    /// The next id. Should the clock stand still or step back, the count goes on and then the millisecond does.
    pub fn next(&mut self, unix_millis: u64) -> QueueId {
        let millis = unix_millis.saturating_sub(EPOCH_MILLIS);
        if millis > self.millis {
            self.millis = millis;
            self.count = 0;
        } else {
            self.count += 1;
            if self.count >> COUNT_BITS != 0 {
                self.millis += 1;
                self.count = 0;
            }
        }
        QueueId::from_number((self.millis << (SHARD_BITS + COUNT_BITS)) | (self.shard << COUNT_BITS) | self.count)
    }
}

/// Octets for one exchange of AUTH; none where the system has none.
pub fn random() -> Option<Random> {
    let mut random = [0; 18];
    getrandom::fill(&mut random).ok().map(|()| random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_stay_unique_when_the_clock_stands_still_or_steps_back() {
        let mut seen = HashSet::new();
        let mut ids = [Ids::new(0), Ids::new(1)];
        for millis in [EPOCH_MILLIS + 5, EPOCH_MILLIS + 5, EPOCH_MILLIS + 3] {
            for _ in 0..6000 {
                for ids in &mut ids {
                    assert!(seen.insert(ids.next(millis).as_str().to_string()));
                }
            }
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let mut ids = Ids::new(3);
        let early = ids.next(EPOCH_MILLIS + 1000);
        let late = ids.next(EPOCH_MILLIS + 1001);
        assert!(early < late);
    }
}
