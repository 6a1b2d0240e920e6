//! The tarpit's memory: whose next connection waits before its greeting (v17, Tarpit). Which error replies wait is the
//! session's to know.
//!
//! Promises: fixed memory; any thread may owe and take; of one debt one connection waits. A debt may get lost under
//! pressure (its place is given to a newer one), which costs a delay and no limit. Shared by all shards.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;

/// Cells in a set: 8 of 8 octets are one cache line of 64.
const WAYS: usize = 8;

/// Whose next connection waits once before its greeting (2021).
#[derive(Debug)]
pub struct Owed {
    sets: Box<[Set]>,
    /// Seeded at start: nobody outside can push a chosen other out of its set.
    seed: RandomState,
}

/// A cell is 32 bits of who and 32 of the second until which the debt stands; 0 is empty.
#[derive(Debug, Zeroable)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl Owed {
    /// A table of at least `cells` debts, 8 octets each.
    pub fn new(cells: usize) -> Owed {
        let sets = cells.div_ceil(WAYS).max(1).next_power_of_two();
        Owed {
            sets: bytemuck::allocation::zeroed_slice_box(sets),
            seed: RandomState::new(),
        }
    }

    /// The next connection of `who` waits, if it comes before `until_second`; the oldest debt of the set makes room.
    ///
    /// Seconds count from any moment that all shards share.
    pub fn owe(&self, who: impl Hash, until_second: u32) {
        let (set, tag) = self.place(who);
        let mut oldest: Option<(u64, &AtomicU64)> = None;
        for cell in &set.0 {
            let value = cell.load(Ordering::Relaxed);
            if value & TAG == tag && value != 0 {
                oldest = Some((0, cell));
                break;
            }
            if oldest.is_none_or(|(least, _)| value & UNTIL < least) {
                oldest = Some((value & UNTIL, cell));
            }
        }
        if let Some((_, cell)) = oldest {
            // Two shards may write the same cell: one of the debts is lost.
            cell.store(tag | u64::from(until_second), Ordering::Relaxed);
        }
    }

    /// Whether `who` owes a delay at `now_second`; it does not from then on. Of threads that ask together one is told so.
    pub fn take(&self, who: impl Hash, now_second: u32) -> bool {
        let (set, tag) = self.place(who);
        set.0.iter().any(|cell| {
            let value = cell.load(Ordering::Relaxed);
            value & TAG == tag
                && value & UNTIL > u64::from(now_second)
                && cell
                    .compare_exchange(value, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        })
    }

    fn place(&self, who: impl Hash) -> (&Set, u64) {
        let hash = self.seed.hash_one(who);
        (&self.sets[(hash as usize) & (self.sets.len() - 1)], hash & TAG)
    }
}

const UNTIL: u64 = 0xffff_ffff;
const TAG: u64 = !UNTIL;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_taken_once() {
        let owed = Owed::new(1024);
        assert!(!owed.take("a", 0));
        owed.owe("a", 600);
        owed.owe("a", 700);
        owed.owe("b", 600);
        assert!(owed.take("a", 650), "the newer debt holds");
        assert!(!owed.take("a", 0));
        assert!(owed.take("b", 599));
    }

    #[test]
    fn a_debt_expires_at_its_second() {
        let owed = Owed::new(1);
        owed.owe(1, 600);
        assert!(!owed.take(1, 600));
    }

    #[test]
    fn the_oldest_debt_makes_room() {
        let owed = Owed::new(WAYS);
        for who in 0..=WAYS as u32 {
            owed.owe(who, 100 + who);
        }
        assert!(!owed.take(0, 0), "the one that would have expired first");
        assert!((1..=WAYS as u32).all(|who| owed.take(who, 0)));
    }

    #[test]
    fn of_threads_that_ask_together_one_is_told() {
        let owed = Owed::new(64);
        owed.owe("a", 600);
        let told: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| usize::from(owed.take("a", 0)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(told, 1);
    }
}
