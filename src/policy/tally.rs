//! How many: exact counts of connections, in all and per source, over all shards.
//!
//! SO_REUSEPORT spreads the connections of one source over all shards, yet the limits are those of the server. Each
//! shard owns a [`Column`] and alone writes it; all read all. A claim counts itself in its own column first and looks at
//! all columns after: racing shards may both refuse, never both admit. No lock, no compare-and-swap, no message; memory
//! is fixed when the table is made.
//!
//! Promises: at no time are more claims held than the smallest limit under which they were claimed; without a race a
//! limit of N admits exactly N; dropping a [`Claim`] counts it down. [`Tally`] is shared by all threads, a [`Column`] and
//! its claims stay on the thread of one shard (`Rc` makes the compiler see to it).
//!
//! # Why no limit is ever exceeded
//!
//! One word is one source in one column: 48 bits of who, 16 of how many. Three facts:
//!
//! 1. While a column holds a claim of a source, the source keeps its word: a word is given to another source only at
//!    count 0. A word is read in one load, so who and how many always belong together.
//! 2. Every claim is: store its own words, sequentially consistent fence, load everybody's words.
//! 3. Of any claims held together, let L be the one whose fence is last in the order of all such fences. The stores of
//!    the others come before their fences, so before L's fence, so L's loads see them, or something newer in the same
//!    word. Newer could only be another claim (more) or the drop of one that is then no longer held.
//!
//! So L has seen all of them and itself, and was admitted only because they were within its limit. A load that races
//! with a claim about to be refused counts it too: that may refuse one too many at that moment, and never admits one.

use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use bytemuck::Zeroable;
use crossbeam_utils::CachePadded;

use super::column::Ownership;
use super::network::Source;

/// Words in a bucket: 8 of 8 octets are one cache line of 64.
const WAYS: usize = 8;

/// The low bits of a word: how many.
const COUNT: u64 = 0xffff;

/// Counts of connections, in all and per source, over all shards.
#[derive(Debug)]
pub struct Tally {
    shards: Box<[Words]>,
    ownership: Ownership,
    /// The number of buckets of a column, less one.
    mask: usize,
    /// Seeded at start: nobody outside can choose sources that fall into one bucket.
    seed: RandomState,
}

/// What one shard writes.
#[derive(Debug)]
struct Words {
    /// Connections of each scope. Padded: the neighbour in memory may be another shard's.
    totals: Box<[CachePadded<AtomicU64>]>,
    /// A power of two of them.
    buckets: Box<[Bucket]>,
}

#[derive(Debug, Zeroable)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// One shard's part of a [`Tally`]: may be sent to the thread of its shard, and is then used behind an [`Rc`].
///
/// Dropping it (after its last claim) allows [`Tally::column`] to hand it out again.
#[derive(Debug)]
pub struct Column {
    tally: Arc<Tally>,
    shard: usize,
    /// Not `Sync`: one thread writes.
    one_thread: PhantomData<std::cell::Cell<()>>,
}

/// A connection that counts. Dropping it counts it down.
#[derive(Debug)]
#[must_use = "a claim that is dropped counts no more"]
pub struct Claim {
    column: Rc<Column>,
    scope: usize,
    bucket: usize,
    way: usize,
}

/// Which limit a connection would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All connections together.
    Total,
    /// The connections of the source, or (practically unreachable, see [`Tally::new`]) its bucket is full.
    PerSource,
}

impl Tally {
    /// A table for `shards` columns that each hold `sources` different sources at once, and `scopes` counters of totals.
    ///
    /// A scope is a group of bindings that share one count; a source is counted apart in each scope.
    ///
    /// Each column gets two buckets of eight words for each source, so with all `sources` in one column a bucket holds
    /// half a source on average. Sources fall into buckets like dice (seeded hash), so a newcomer meets a full bucket as
    /// often as a Poisson variable of mean 0.5 is 8 or more: 0.5⁸ / 8! · e^-0.5 · 1.06 = 6·10⁻⁸, and that only while every
    /// connection of a full server comes from another source to the same shard; spread over two shards 3·10⁻¹⁰. It is
    /// refused then: what cannot be counted cannot be kept within a limit. The price is 128 octets a source and column,
    /// rounded up to a power of two: 1 MiB a shard for the default of 5,000 connections.
    pub fn new(shards: usize, sources: usize, scopes: usize) -> Arc<Tally> {
        let buckets = sources.max(1).saturating_mul(2).next_power_of_two();
        let words = || Words {
            totals: (0..scopes).map(|_| CachePadded::default()).collect(),
            // Zeroed by the kernel when a page is first used.
            buckets: bytemuck::allocation::zeroed_slice_box(buckets),
        };
        Arc::new(Tally {
            shards: (0..shards).map(|_| words()).collect(),
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
    pub fn column(self: &Arc<Tally>, shard: usize) -> Column {
        assert!(
            self.ownership.take(shard),
            "the tally's column {shard} does not exist or is in use"
        );
        Column {
            tally: Arc::clone(self),
            shard,
            one_thread: PhantomData,
        }
    }

    /// Connections of `scope` at this moment, claims about to be refused included.
    pub fn connections(&self, scope: usize) -> u64 {
        self.shards
            .iter()
            .filter_map(|words| words.totals.get(scope))
            .map(|total| total.load(Ordering::Acquire))
            .sum()
    }

    /// Connections of `source` in `scope` at this moment, claims about to be refused included.
    pub fn per_source(&self, scope: usize, source: Source) -> u64 {
        let (bucket, who) = self.place(scope, source);
        self.sum(bucket, who)
    }

    /// The bucket of a source and the word that stands for it there, at count 0. Two sources may share both (one pair in
    /// 2⁴⁸ · buckets): they are then counted together, which can only refuse.
    fn place(&self, scope: usize, source: Source) -> (usize, u64) {
        let hash = self.seed.hash_one((scope, source));
        ((hash as usize) & self.mask, hash & !COUNT)
    }

    fn sum(&self, bucket: usize, who: u64) -> u64 {
        self.shards
            .iter()
            .filter_map(|words| words.buckets.get(bucket))
            .flat_map(|bucket| &bucket.0)
            .map(|word| word.load(Ordering::Acquire))
            .filter(|word| word & !COUNT == who)
            .map(|word| word & COUNT)
            .sum()
    }
}

impl Column {
    /// Counts a connection of `source` in `scope`, unless there are `max_total` in the scope or `max_per_source` of the
    /// source in the scope already. No source may have more than 65,535 on one shard whatever its limit says.
    ///
    /// # Errors
    ///
    /// The limit that stands in the way; the total is looked at first. A scope that the table was not made for is full.
    pub fn claim(
        self: &Rc<Column>,
        scope: usize,
        source: Source,
        max_total: u64,
        max_per_source: u64,
    ) -> Result<Claim, Refusal> {
        let own = self.own();
        let Some(total) = own.totals.get(scope) else {
            return Err(Refusal::Total);
        };
        let (bucket, who) = self.tally.place(scope, source);
        let Some((way, word)) = own.buckets.get(bucket).and_then(|bucket| bucket.word_for(who)) else {
            let full = self.tally.connections(scope) >= max_total;
            return Err(if full { Refusal::Total } else { Refusal::PerSource });
        };
        total.store(total.load(Ordering::Relaxed) + 1, Ordering::Release);
        word.store(who | ((word.load(Ordering::Relaxed) & COUNT) + 1), Ordering::Release);
        // Dropping it, on every way out, counts down again.
        let claim = Claim {
            column: Rc::clone(self),
            scope,
            bucket,
            way,
        };
        fence(Ordering::SeqCst);
        if self.tally.connections(scope) > max_total {
            return Err(Refusal::Total);
        }
        if self.tally.sum(bucket, who) > max_per_source {
            return Err(Refusal::PerSource);
        }
        Ok(claim)
    }

    /// The words that this column alone writes: so its own are read `Relaxed` and changed without read-modify-write.
    fn own(&self) -> &Words {
        &self.tally.shards[self.shard]
    }
}

impl Drop for Column {
    fn drop(&mut self) {
        self.tally.ownership.give_back(self.shard);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let own = self.column.own();
        for word in [&*own.totals[self.scope], &own.buckets[self.bucket].0[self.way]] {
            let value = word.load(Ordering::Relaxed);
            debug_assert_ne!(value, 0, "a claim is counted down once");
            word.store(value - 1, Ordering::Release);
        }
    }
}

impl Bucket {
    /// The word of `who`, or one that nobody uses; none where all are in use or the count of `who` is at its end.
    fn word_for(&self, who: u64) -> Option<(usize, &AtomicU64)> {
        let mut free = None;
        for (way, word) in self.0.iter().enumerate() {
            let value = word.load(Ordering::Relaxed);
            if value & COUNT == 0 {
                free = free.or(Some((way, word)));
            } else if value & !COUNT == who {
                return (value & COUNT < COUNT).then_some((way, word));
            }
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn source(number: u32) -> Source {
        Source::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_limit_of_n_admits_exactly_n() {
        let tally = Tally::new(3, 64, 1);
        let columns: Vec<_> = (0..3).map(|shard| Rc::new(tally.column(shard))).collect();
        let claims: Vec<_> = (0..9)
            .filter_map(|turn| columns[turn % 3].claim(0, source(1), 100, 7).ok())
            .collect();
        assert_eq!(
            (claims.len(), tally.per_source(0, source(1)), tally.connections(0)),
            (7, 7, 7)
        );
        assert_eq!(columns[0].claim(0, source(1), 100, 7).unwrap_err(), Refusal::PerSource);
        assert!(columns[0].claim(0, source(2), 8, 7).is_ok());
        drop(claims);
        assert_eq!((tally.per_source(0, source(1)), tally.connections(0)), (0, 0));
    }

    #[test]
    fn the_total_is_looked_at_before_the_source() {
        let tally = Tally::new(1, 64, 1);
        let column = Rc::new(tally.column(0));
        let _claim = column.claim(0, source(1), 1, 1).unwrap();
        assert_eq!(column.claim(0, source(1), 1, 1).unwrap_err(), Refusal::Total);
        assert_eq!(column.claim(0, source(1), 2, 1).unwrap_err(), Refusal::PerSource);
        assert_eq!(
            (tally.connections(0), tally.per_source(0, source(1))),
            (1, 1),
            "a refusal leaves nothing behind"
        );
    }

    #[test]
    fn scopes_count_apart() {
        let tally = Tally::new(1, 64, 2);
        let column = Rc::new(tally.column(0));
        let _first = column.claim(0, source(1), 1, 1).unwrap();
        let _second = column.claim(1, source(1), 1, 1).unwrap();
        assert_eq!((tally.connections(0), tally.connections(1)), (1, 1));
        assert_eq!(
            column.claim(2, source(1), 1, 1).unwrap_err(),
            Refusal::Total,
            "there is no such scope"
        );
    }

    #[test]
    fn a_full_bucket_refuses_newcomers_and_keeps_those_it_has() {
        let tally = Tally::new(1, 1, 1);
        let column = Rc::new(tally.column(0));
        // Two buckets: among 17 sources one has nine candidates.
        let mut claims: Vec<_> = (0..17)
            .filter_map(|number| column.claim(0, source(number), 100, 2).ok())
            .collect();
        assert!((WAYS..=2 * WAYS).contains(&claims.len()));
        let refused = (0..17)
            .find(|&number| tally.per_source(0, source(number)) == 0)
            .unwrap();
        assert_eq!(
            column.claim(0, source(refused), 100, 2).unwrap_err(),
            Refusal::PerSource
        );
        assert_eq!(column.claim(0, source(refused), 1, 2).unwrap_err(), Refusal::Total);
        let kept = (0..17)
            .find(|&number| tally.per_source(0, source(number)) == 1)
            .unwrap();
        claims.push(column.claim(0, source(kept), 100, 2).unwrap());
        claims.clear();
        assert!(column.claim(0, source(refused), 100, 2).is_ok());
        assert_eq!(tally.connections(0), 0);
    }

    #[test]
    fn a_count_at_its_end_refuses() {
        let tally = Tally::new(1, 1, 1);
        let column = Rc::new(tally.column(0));
        let claims: Vec<_> = (0..COUNT)
            .map(|_| column.claim(0, source(1), u64::MAX, u64::MAX).unwrap())
            .collect();
        assert_eq!(
            column.claim(0, source(1), u64::MAX, u64::MAX).unwrap_err(),
            Refusal::PerSource
        );
        drop(claims);
        assert_eq!((tally.connections(0), tally.per_source(0, source(1))), (0, 0));
    }

    #[test]
    fn a_column_is_free_again_after_its_last_claim() {
        let tally = Tally::new(1, 1, 1);
        let column = Rc::new(tally.column(0));
        let claim = column.claim(0, source(1), 1, 1).unwrap();
        drop(column);
        assert_eq!(tally.connections(0), 1);
        assert!(!tally.ownership.take(0));
        drop(claim);
        assert_eq!(tally.connections(0), 0);
        let _next = tally.column(0);
    }

    #[test]
    #[should_panic(expected = "column 0")]
    fn a_column_has_one_writer() {
        let tally = Tally::new(1, 1, 1);
        let _first = tally.column(0);
        let _second = tally.column(0);
    }
}
