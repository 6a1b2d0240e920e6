//! Time as the queue keeps it.
//!
//! Promises: eight octets instead of the sixteen of an `Instant`, and a time before the process began is one too; nothing
//! here overflows. Pure.

use std::time::{Duration, Instant};

use super::action::Moment;

/// Microseconds since the queue was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(i64);

/// A moment as ticks and on the clock of the wall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub tick: Tick,
    /// Seconds.
    pub unix: u64,
}

impl Tick {
    pub const MIN: Tick = Tick(i64::MIN);

    /// Never before `instant`.
    pub fn of(instant: Instant, epoch: Instant) -> Tick {
        match instant.checked_duration_since(epoch) {
            Some(since) => Tick(i64::try_from(since.as_nanos().div_ceil(1000)).unwrap_or(i64::MAX)),
            None => Tick(-micros(epoch.saturating_duration_since(instant))),
        }
    }

    pub fn after(self, wait: Duration) -> Tick {
        Tick(self.0.saturating_add(micros(wait)))
    }

    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub fn instant(self, epoch: Instant) -> Instant {
        let since = Duration::from_micros(u64::try_from(self.0).unwrap_or(0));
        // A time that no Instant can hold is one to look again.
        epoch
            .checked_add(since)
            .unwrap_or_else(|| epoch + Duration::from_secs(86400))
    }
}

impl Now {
    pub fn of(at: Moment, epoch: Instant) -> Now {
        Now {
            tick: Tick::of(at.now, epoch),
            unix: at.unix,
        }
    }

    /// The tick of a time of the wall, as its clock shows now.
    pub fn tick_of(self, unix: u64) -> Tick {
        let seconds = i128::from(unix) - i128::from(self.unix);
        let micros = seconds.saturating_mul(1_000_000) + i128::from(self.tick.0);
        // Half of the range: a wait can be added to any time.
        Tick(micros.clamp(i128::from(i64::MIN / 2), i128::from(i64::MAX / 2)) as i64)
    }

    /// The time of the wall of a tick, as its clock shows now.
    pub fn unix_of(self, tick: Tick) -> u64 {
        let micros = i128::from(tick.0) - i128::from(self.tick.0);
        let unix = i128::from(self.unix) + micros.div_euclid(1_000_000);
        u64::try_from(unix.max(0)).unwrap_or(u64::MAX)
    }
}

fn micros(wait: Duration) -> i64 {
    i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_never_before_its_instant() {
        let epoch = Instant::now();
        let tick = Tick::of(epoch + Duration::from_nanos(1_000_001), epoch);
        assert_eq!(tick, Tick(1001));
        assert_eq!(tick.instant(epoch), epoch + Duration::from_micros(1001));
        let before = Tick::of(epoch, epoch + Duration::from_secs(1));
        assert_eq!(before, Tick(-1_000_000));
        assert_eq!(before.instant(epoch), epoch);
    }

    #[test]
    fn times_of_the_wall_come_back_as_they_were() {
        let now = Now {
            tick: Tick(5_000_000),
            unix: 1_000,
        };
        for unix in [0, 1, 999, 1_000, 1_001, 1 << 32] {
            assert_eq!(now.unix_of(now.tick_of(unix)), unix);
        }
        assert!(now.tick_of(u64::MAX) > now.tick_of(1 << 32));
        assert_eq!(now.tick_of(u64::MAX).after(Duration::MAX), Tick(i64::MAX));
        assert_eq!(now.tick.since(now.tick_of(990)), Duration::from_secs(10));
        assert_eq!(now.tick_of(0).since(now.tick), Duration::ZERO);
    }
}
