//! A sign of life from each shard, so that the control thread can answer where a shard no longer does.
//!
//! Promises: a beat is one store; nobody waits. A shard that has never beaten is not stale, it is still starting. Lives
//! on every thread; the time comes in as an argument.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

/// When each shard last showed that it is alive.
#[derive(Debug)]
pub struct Heartbeats {
    epoch: Instant,
    /// Milliseconds since `epoch`, plus one; zero before the first beat, [`GONE`] after the end.
    beats: Vec<CachePadded<AtomicU64>>,
}

const GONE: u64 = u64::MAX;

impl Heartbeats {
    /// For so many shards, none of which has started yet.
    pub fn new(shards: usize, now: Instant) -> Heartbeats {
        Heartbeats {
            epoch: now,
            beats: (0..shards).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Shard `shard` is alive. Called on its tick.
    pub fn beat(&self, shard: usize, now: Instant) {
        self.store(shard, self.millis(now) + 1);
    }

    /// Shard `shard` has ended in disorder: stale from now on, whatever the time, until it beats again.
    pub fn gone(&self, shard: usize) {
        self.store(shard, GONE);
    }

    /// Shard `shard` has ended as it should, or has not started: nobody stands in for it.
    pub fn retired(&self, shard: usize) {
        self.store(shard, 0);
    }

    /// Whether shard `shard` has been silent for longer than `limit`, or is gone.
    pub fn is_stale(&self, shard: usize, now: Instant, limit: Duration) -> bool {
        match self.beats.get(shard).map_or(0, |beat| beat.load(Relaxed)) {
            0 => false,
            GONE => true,
            beat => self.millis(now).saturating_sub(beat - 1) > u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The shards that are stale.
    pub fn stale(&self, now: Instant, limit: Duration) -> impl Iterator<Item = usize> {
        (0..self.beats.len()).filter(move |&shard| self.is_stale(shard, now, limit))
    }

    fn store(&self, shard: usize, value: u64) {
        if let Some(beat) = self.beats.get(shard) {
            beat.store(value, Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis())
            .unwrap_or(GONE - 2)
            .min(GONE - 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_shard_is_stale_once_it_was_silent_for_longer_than_the_limit_and_no_more_when_it_beats() {
        let start = Instant::now();
        let hearts = Heartbeats::new(3, start);
        let at = |ms| start + Duration::from_millis(ms);
        let stale = |ms| hearts.stale(at(ms), LIMIT).collect::<Vec<_>>();
        hearts.beat(0, at(0));
        hearts.beat(1, at(500));
        assert_eq!(stale(1000), [0; 0]);
        assert_eq!(stale(1001), [0]);
        assert_eq!(stale(9000), [0, 1], "the third has not started");
        hearts.beat(0, at(9000));
        assert_eq!(stale(9000), [1]);
    }

    #[test]
    fn a_shard_that_is_gone_is_stale_at_once_and_one_that_retired_never_is() {
        let start = Instant::now();
        let hearts = Heartbeats::new(2, start);
        hearts.gone(0);
        hearts.beat(1, start);
        hearts.retired(1);
        assert_eq!(hearts.stale(start + 9 * LIMIT, LIMIT).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_beat_for_a_shard_that_does_not_exist_changes_nothing() {
        let hearts = Heartbeats::new(1, Instant::now());
        hearts.gone(7);
        assert_eq!(hearts.stale(Instant::now(), LIMIT).count(), 0);
    }
}
