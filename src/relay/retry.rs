//! When to try again.
//!
//! Promises: the same waits every time, no jitter; messages spread by themselves, each counts from its own attempt. Pure.

use std::time::Duration;

/// The waits after the first, second, … attempt; the last one repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Box<[Duration]>);

/// What an empty schedule means; the configuration has none.
const FALLBACK: Duration = Duration::from_secs(900);

impl Schedule {
    /// From the waits in order.
    pub fn new(waits: impl Into<Box<[Duration]>>) -> Schedule {
        Schedule(waits.into())
    }

    /// The wait after so many attempts, the first being 1.
    pub fn wait(&self, attempts: u16) -> Duration {
        let index = usize::from(attempts).saturating_sub(1);
        *self.0.get(index).or(self.0.last()).unwrap_or(&FALLBACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wait_repeats() {
        let seconds = |n: &[u64]| Schedule::new(n.iter().map(|&s| Duration::from_secs(s)).collect::<Vec<_>>());
        let schedule = seconds(&[15, 60, 300]);
        let waits: Vec<_> = [0, 1, 2, 3, 4, u16::MAX].map(|n| schedule.wait(n).as_secs()).into();
        assert_eq!(waits, [15, 15, 60, 300, 300, 300]);
        assert_eq!(seconds(&[]).wait(1), FALLBACK);
    }
}
