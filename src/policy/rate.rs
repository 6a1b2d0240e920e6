//! How often: messages of a source or user in any 60 seconds, over all shards.
//!
//! The window slides second by second, so there is no edge at which twice the limit passes. As in [`tally`](super::tally)
//! each shard owns a column and alone writes it; a message is counted in the own column first and all columns are summed
//! after, so racing shards may both refuse, never both admit. No lock, no compare-and-swap, no message, fixed memory.
//!
//! Promises: in no 60 seconds are more messages admitted than the limit; without a race exactly as many; a message that
//! was admitted in second s has no effect from second s + 61 on, one that was refused has none at all. [`RateTable`] is
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

use super::column::Ownership;

/// How many seconds back a message counts.
const WINDOW: u32 = 60;

/// Counters of a ring: the 61 seconds of the window, rounded up to a power of two.
const RING: u32 = 64;

/// Cells in a bucket: the 8 words that say whose they are fill one cache line.
const WAYS: usize = 8;

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

/// Eight cells: whose each is and when it was used last, and its messages by second.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    /// 32 bits of who, 32 of the last second. A cell whose last second has left the window belongs to nobody.
    words: [AtomicU64; WAYS],
    rings: [Ring; WAYS],
}

/// Messages by second; a second's place is its number modulo 64.
#[derive(Debug)]
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
    /// A column has two cells for each source, 136 octets each: 272 octets a source and column, rounded up to a power of
    /// two. With all `sources` present a bucket of 8 holds 4 on average, and the chance that a newcomer meets a full one is
    /// that of a Poisson variable of mean 4 being 8 or more: 5 %; with half of them 0.1 % (mean 2), with a quarter 10⁻⁵
    /// (mean 1). It is refused then: what cannot be counted cannot be kept within a limit. So give it four times the
    /// sources that are expected to send in a minute.
    pub fn new(shards: usize, sources: usize) -> Arc<RateTable> {
        let buckets = sources.saturating_mul(2).div_ceil(WAYS).max(1).next_power_of_two();
        Arc::new(RateTable {
            shards: (0..shards)
                .map(|_| (0..buckets).map(|_| Bucket::new()).collect())
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
    fn new() -> Bucket {
        Bucket {
            words: Default::default(),
            rings: std::array::from_fn(|_| Ring(std::array::from_fn(|_| AtomicU16::new(0)))),
        }
    }

    /// The cell of `tag`, brought up to `now`; a cell that belongs to nobody where it has none; none in a full bucket.
    /// Called by the writer alone.
    fn cell_for(&self, tag: u64, now: u32) -> Option<(&AtomicU64, &Ring)> {
        let mut free = None;
        for (word, ring) in self.words.iter().zip(&self.rings) {
            let value = word.load(Ordering::Relaxed);
            let live = last(value) + WINDOW >= now;
            if live && value & !LAST == tag {
                ring.clear(last(value) + 1, now);
                word.store(tag | u64::from(now.max(last(value))), Ordering::Release);
                return Some((word, ring));
            }
            if !live {
                free = free.or(Some((word, ring)));
            }
        }
        let (word, ring) = free?;
        // The counters first: who reads the word as the new owner's reads them as the new owner's too.
        ring.clear(now.saturating_sub(RING - 1), now);
        word.store(tag | u64::from(now), Ordering::Release);
        Some((word, ring))
    }
}

impl Ring {
    fn at(&self, second: u32) -> &AtomicU16 {
        &self.0[(second % RING) as usize]
    }

    fn clear(&self, from: u32, to: u32) {
        for second in from.max(to.saturating_sub(RING - 1))..=to {
            self.at(second).store(0, Ordering::Release);
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
