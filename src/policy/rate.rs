//! How often: messages of a source or user in any 60 seconds, over all shards; new TLS sessions of a source likewise, which
//! are told apart by what they are counted under.
//!
//! The window slides second by second, so there is no edge at which twice the limit passes. As in [`tally`](super::tally)
//! each shard owns a column and alone writes it; a message is counted in the own column first and all columns are summed
//! after, so racing shards may both refuse, never both admit. No lock, no compare-and-swap, no message, fixed memory.
//!
//! Promises: in no 60 seconds are more messages admitted than the limit; without a race exactly as many; a message that
//! was admitted in second s does not count from second s + 61 on, one that was refused never does. [`RateTable`] is
//! shared by all threads, a [`RateColumn`] is used by the thread of one shard.
//!
//! # Why no limit is ever exceeded
//!
//! Two moments less than 60 s apart are in seconds whose numbers differ by at most 60, so the seconds `now - 60..=now`
//! cover every message that may count. That two shards never both admit is the argument of the tally: of all messages
//! admitted in a window let L be the one whose fence is last; it saw the words of all others, or newer ones. A word gets
//! newer in two ways: more messages, or its second has left the window on the clock of its writer and it is cleared. A
//! writer's clock is never ahead of the true time, so what it cleared is truly past, whatever the reader's clock says.
//!
//! All shards count seconds from one moment. A shard whose clock lags (it reads it once a turn of its loop) stamps
//! messages that much too early; the 60 s are exact up to that lag.

use std::hash::{BuildHasher, Hash, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

use bytemuck::Zeroable;

use super::column::Ownership;

/// How many seconds back a message counts.
const WINDOW: u32 = 60;

/// Counters of a ring: the 61 seconds of the window, rounded up to a power of two.
const RING: u32 = 64;

/// Cells in a bucket: the words that say whose they are fill two cache lines, which the hardware fetches together.
const WAYS: usize = 16;

/// Cells for each source that a table is made for: see [`RateTable::new`].
const SPARE: usize = 4;

/// The low bits of a word: the second of the last message.
const LAST: u64 = 0xffff_ffff;

/// Messages of the last 60 seconds by source or user, over all shards.
#[derive(Debug)]
pub struct RateTable {
    shards: Box<[Box<[Bucket]>]>,
    ownership: Ownership,
    /// The number of buckets of a column, less one.
    mask: usize,
    /// Seeded at start: nobody outside can choose sources that fall into one bucket.
    seed: RandomState,
}

/// Cells: whose each is and when it was used last, and its messages by second.
#[derive(Debug, Zeroable)]
#[repr(align(64))]
struct Bucket {
    /// 32 bits of who, 32 of the last second. A cell whose last second has left the window belongs to nobody.
    words: [AtomicU64; WAYS],
    rings: [Ring; WAYS],
}

/// Messages by second; a second's place is its number modulo 64.
#[derive(Debug, Zeroable)]
struct Ring([AtomicU16; RING as usize]);

/// One shard's part of a [`RateTable`]. May be sent to the thread of its shard; dropping it allows
/// [`RateTable::column`] to hand it out again.
#[derive(Debug)]
pub struct RateColumn {
    table: Arc<RateTable>,
    shard: usize,
    /// Not `Sync`: one thread writes.
    one_thread: PhantomData<std::cell::Cell<()>>,
}

impl RateTable {
    /// A table for `shards` columns that each hold `sources` different sources or users of the last minute.
    ///
    /// A cell is 136 octets and there are four for each source: 544 octets a source and column, rounded up to a power of
    /// two. With all `sources` present a bucket of 16 cells holds 4 on average, and a newcomer meets a full one as often
    /// as a Poisson variable of mean 4 is 16 or more: 5·10⁻⁶. With twice as many as planned it is 0.8 %. A newcomer to a
    /// full bucket is refused: what cannot be counted cannot be kept within a limit.
    pub fn new(shards: usize, sources: usize) -> Arc<RateTable> {
        let buckets = sources.saturating_mul(SPARE).div_ceil(WAYS).max(1).next_power_of_two();
        Arc::new(RateTable {
            shards: (0..shards)
                // Zeroed by the kernel when a page is first used: room for many sources costs nothing until they come.
                .map(|_| bytemuck::allocation::zeroed_slice_box(buckets))
                .collect(),
            ownership: Ownership::new(shards),
            mask: buckets - 1,
            seed: RandomState::new(),
        })
    }

    /// The column of a shard.
    ///
    /// # Panics
    ///
    /// When there is no such shard or its column is held already: a second writer would make every count wrong.
    pub fn column(self: &Arc<RateTable>, shard: usize) -> RateColumn {
        assert!(
            self.ownership.take(shard),
            "column {shard} of the rates does not exist or is in use"
        );
        RateColumn {
            table: Arc::clone(self),
            shard,
            one_thread: PhantomData,
        }
    }

    /// Messages of `who` in the 60 seconds before `now_second`, those about to be refused included.
    pub fn messages(&self, who: impl Hash, now_second: u32) -> u64 {
        let (bucket, tag) = self.place(who);
        self.sum(bucket, tag, shifted(now_second))
    }

    fn place(&self, who: impl Hash) -> (usize, u64) {
        let hash = self.seed.hash_one(who);
        ((hash as usize) & self.mask, hash & !LAST)
    }

    fn sum(&self, bucket: usize, tag: u64, now: u32) -> u64 {
        self.shards
            .iter()
            .filter_map(|column| column.get(bucket))
            .flat_map(|bucket| bucket.words.iter().zip(&bucket.rings))
            .map(|(word, ring)| (word.load(Ordering::Acquire), ring))
            .filter(|(word, _)| word & !LAST == tag)
            .map(|(word, ring)| ring.sum(last(word), now))
            .sum()
    }
}

impl RateColumn {
    /// Messages of `who` in the 60 seconds before `now_second`, over all shards.
    pub fn messages(&self, who: impl Hash, now_second: u32) -> u64 {
        self.table.messages(who, now_second)
    }

    /// Counts a message of `who` (a source, a user, either with whatever sets it apart) in second `now_second`, unless
    /// there are `limit` in the last 60 seconds already: then false, and nothing is counted. More than 65,535 in one
    /// second on one shard are refused whatever the limit.
    pub fn admit(&self, who: impl Hash, limit: u64, now_second: u32) -> bool {
        let now = shifted(now_second);
        let (bucket, tag) = self.table.place(who);
        let Some(own) = self.table.shards.get(self.shard).and_then(|column| column.get(bucket)) else {
            return false;
        };
        let Some((word, ring)) = own.cell_for(tag, now) else {
            return false;
        };
        // A clock that went back would count where the window has been already.
        let second = now.max(last(word.load(Ordering::Relaxed)));
        let counter = ring.at(second);
        let Some(counted) = counter.load(Ordering::Relaxed).checked_add(1) else {
            return false;
        };
        counter.store(counted, Ordering::Release);
        fence(Ordering::SeqCst);
        let admitted = self.table.sum(bucket, tag, now) <= limit;
        if !admitted {
            counter.store(counted - 1, Ordering::Release);
        }
        admitted
    }
}

impl Drop for RateColumn {
    fn drop(&mut self) {
        self.table.ownership.give_back(self.shard);
    }
}

impl Bucket {
    /// The cell of `tag`, brought up to `now`; a cell that belongs to nobody where it has none; none in a full bucket.
    /// Called by the writer alone.
    fn cell_for(&self, tag: u64, now: u32) -> Option<(&AtomicU64, &Ring)> {
        let mut free = None;
        for (word, ring) in self.words.iter().zip(&self.rings) {
            let value = word.load(Ordering::Relaxed);
            let live = last(value).saturating_add(WINDOW) >= now;
            if live && value & !LAST == tag {
                ring.clear(last(value), now);
                word.store(tag | u64::from(now.max(last(value))), Ordering::Release);
                return Some((word, ring));
            }
            if !live {
                free = free.or(Some((word, ring)));
            }
        }
        let (word, ring) = free?;
        // The counters first: who reads the word as the new owner's reads them as the new owner's too.
        ring.clear(now.saturating_sub(RING), now);
        word.store(tag | u64::from(now), Ordering::Release);
        Some((word, ring))
    }
}

impl Ring {
    fn at(&self, second: u32) -> &AtomicU16 {
        &self.0[(second % RING) as usize]
    }

    /// Forgets what stands where the seconds behind `last`, up to `now`, will be counted.
    fn clear(&self, last: u32, now: u32) {
        for ago in 0..now.saturating_sub(last).min(RING) {
            self.at(now - ago).store(0, Ordering::Release);
        }
    }

    /// The messages from `now - 60` on in a ring whose last second is `last`, which may be later than a lagging `now`.
    fn sum(&self, last: u32, now: u32) -> u64 {
        let first = now.saturating_sub(WINDOW).max(last.saturating_sub(RING - 1));
        (first..=last)
            .map(|second| u64::from(self.at(second).load(Ordering::Acquire)))
            .sum()
    }
}

fn last(word: u64) -> u32 {
    (word & LAST) as u32
}

/// Second 0 is a window and more after the 0 of cells that were never used.
fn shifted(second: u32) -> u32 {
    second.saturating_add(WINDOW + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: u32 = 1_000;

    #[test]
    fn a_limit_of_n_admits_exactly_n_and_frees_them_after_a_minute() {
        let column = RateTable::new(1, 16).column(0);
        assert!((0..5).all(|_| column.admit("a", 5, LONG_AGO)));
        assert!(!column.admit("a", 5, LONG_AGO));
        assert!(!column.admit("a", 5, LONG_AGO + 60));
        assert!(
            column.admit("b", 5, LONG_AGO + 60),
            "another user has a rate of its own"
        );
        assert!((0..5).all(|_| column.admit("a", 5, LONG_AGO + 61)));
        assert!(!column.admit("a", 5, LONG_AGO + 61));
    }

    #[test]
    fn twice_the_limit_around_the_edge_of_a_minute_does_not_pass() {
        let column = RateTable::new(1, 16).column(0);
        let edge = 60 * 20;
        let before = (0..600).filter(|_| column.admit("a", 600, edge - 1)).count();
        let after = (0..600).filter(|_| column.admit("a", 600, edge)).count();
        assert_eq!((before, after), (600, 0));
    }

    #[test]
    fn the_first_seconds_of_the_process_are_like_any_other() {
        let column = RateTable::new(1, 1).column(0);
        assert!(column.admit("a", 1, 0));
        assert!(!column.admit("a", 1, 60));
        assert!(column.admit("a", 1, 61));
    }

    #[test]
    fn a_refused_message_is_not_counted() {
        let table = RateTable::new(1, 16);
        let column = table.column(0);
        assert!(column.admit("a", 1, LONG_AGO));
        assert!((1..=60).all(|later| !column.admit("a", 1, LONG_AGO + later)));
        assert_eq!(table.messages("a", LONG_AGO + 60), 1);
        assert!(column.admit("a", 1, LONG_AGO + 61));
    }

    #[test]
    fn the_columns_are_summed() {
        let table = RateTable::new(3, 16);
        let columns: Vec<_> = (0..3).map(|shard| table.column(shard)).collect();
        let admitted = (0..30)
            .filter(|turn| columns[turn % 3].admit("a", 10, LONG_AGO + *turn as u32))
            .count();
        assert_eq!(admitted, 10);
        assert_eq!(table.messages("a", LONG_AGO + 30), 10);
        assert_eq!(table.messages("a", LONG_AGO + 71), 0);
    }

    #[test]
    fn a_clock_that_lags_or_goes_back_admits_no_more() {
        let table = RateTable::new(2, 16);
        let (ahead, behind) = (table.column(0), table.column(1));
        assert!((0..5).all(|_| ahead.admit("a", 5, LONG_AGO)));
        assert!(!behind.admit("a", 5, LONG_AGO - 1));
        assert!(!ahead.admit("a", 5, LONG_AGO - 30));
        assert!(!ahead.admit("a", 5, LONG_AGO + 60));
    }

    #[test]
    fn a_full_bucket_refuses_newcomers_and_keeps_those_it_has() {
        let column = RateTable::new(1, 1).column(0);
        assert!((0..WAYS).all(|who| column.admit(who, 2, LONG_AGO)));
        assert!(!column.admit("newcomer", 2, LONG_AGO));
        assert!((0..WAYS).all(|who| column.admit(who, 2, LONG_AGO)));
        assert!(column.admit("newcomer", 2, LONG_AGO + 61), "a cell of nobody");
    }

    #[test]
    fn a_counter_at_its_end_refuses() {
        let table = RateTable::new(1, 1);
        let column = table.column(0);
        let admitted = (0..70_000).filter(|_| column.admit("a", 1_000_000, LONG_AGO)).count();
        assert_eq!(admitted, 65_535);
        assert!(column.admit("a", 1_000_000, LONG_AGO + 1));
    }

    #[test]
    fn the_last_second_that_can_be_counted_does_not_panic() {
        let column = RateTable::new(1, 1).column(0);
        assert!(column.admit("a", 1, u32::MAX) && !column.admit("a", 1, u32::MAX));
    }

    #[test]
    #[should_panic(expected = "column 0 of the rates")]
    fn a_column_has_one_writer() {
        let table = RateTable::new(1, 1);
        let _first = table.column(0);
        let _second = table.column(0);
    }
}
