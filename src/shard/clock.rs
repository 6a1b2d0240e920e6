//! The only place where a shard reads a clock.
//!
//! Promises: everything else of the data plane takes `now` as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, for deadlines.
pub fn now() -> Instant {
    Instant::now()
}

/// The host's clock, set once a tick and read by the distance from there: a session reads one clock, not two.
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    then: Instant,
    wall: SystemTime,
}

impl Wall {
    /// Reads the host's clock at `now`.
    pub fn set(now: Instant) -> Wall {
        Wall {
            then: now,
            wall: SystemTime::now(),
        }
    }

    /// What the host's clock shows at `now`, as long as nobody has set it since.
    pub fn at(self, now: Instant) -> SystemTime {
        self.wall + now.saturating_duration_since(self.then)
    }
}

/// Milliseconds since 1970, for names and dates; 0 where the host's clock stands before that.
pub fn unix_millis(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// The date of a Received field (RFC 5322 section 3.3), in UTC, kept for the second it belongs to.
#[derive(Debug, Default)]
pub struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// The date at `unix_millis`.
    pub fn at(&mut self, unix_millis: u64) -> &str {
        let second = unix_millis / 1000;
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.text = jiff::Timestamp::from_second(second as i64)
                .unwrap_or_default()
                .strftime("%a, %d %b %Y %H:%M:%S +0000")
                .to_string();
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_rfc_5322_in_utc() {
        let mut date = Date::default();
        assert_eq!(date.at(1_795_221_819_123), "Sat, 21 Nov 2026 00:43:39 +0000");
        assert_eq!(date.at(0), "Thu, 01 Jan 1970 00:00:00 +0000");
    }
}
