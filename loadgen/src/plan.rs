//! Which message is begun when: as soon as a connection is free (closed loop), or at a time fixed beforehand (open loop).
//!
//! Promises: no more messages than asked for; in an open loop the time of a message depends on its number alone, never on
//! what the server did to those before it; numbers of several executors never collide. Pure; one value an executor.

use std::time::{Duration, Instant};

/// The share of a run that one executor takes.
#[derive(Clone, Debug)]
pub struct Plan {
    start: Instant,
    /// Messages a second of this executor; none in a closed loop.
    rate: Option<f64>,
    /// The rate rises from nothing for so long.
    ramp: Duration,
    /// Messages of this executor; none for as many as time allows.
    quota: Option<u64>,
    begun: u64,
    /// This executor of so many.
    place: u64,
    executors: u64,
}

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its number in the run.
    pub serial: u64,
    /// When it was to be sent; none in a closed loop.
    pub planned: Option<Instant>,
}

/// What a free connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this message.
    Message(Due),
    /// Wait until then.
    Wait(Instant),
    /// There is nothing more to send.
    Nothing,
}

impl Plan {
    /// The share of executor `place` (from 0) of `executors`; `rate` and `quota` are those of the whole run.
    pub fn new(
        start: Instant,
        rate: Option<f64>,
        ramp: Duration,
        quota: Option<u64>,
        place: usize,
        executors: usize,
    ) -> Self {
        let (place, executors) = (place as u64, executors.max(1) as u64);
        Self {
            start,
            rate: rate.map(|rate| rate / executors as f64),
            ramp,
            quota: quota.map(|quota| quota / executors + u64::from(place < quota % executors)),
            begun: 0,
            place,
            executors,
        }
    }

    /// Takes the next message, if it is time.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.quota.is_some_and(|quota| self.begun >= quota) {
            return Next::Nothing;
        }
        let planned = self.rate.map(|rate| self.start + self.offset(rate));
        if let Some(at) = planned.filter(|at| *at > now) {
            return Next::Wait(at);
        }
        let serial = self.begun * self.executors + self.place;
        self.begun += 1;
        Next::Message(Due { serial, planned })
    }

    /// Whether messages have times.
    pub fn is_open(&self) -> bool {
        self.rate.is_some()
    }

    /// The number in the run of a connection of this executor.
    pub fn connection(&self, index: usize) -> usize {
        let (executors, place) = (self.executors as usize, self.place as usize);
        index.saturating_mul(executors).saturating_add(place)
    }

    /// Whether there is anything left to send.
    pub fn has_more(&self) -> bool {
        self.quota.is_none_or(|quota| self.begun < quota)
    }

    /// Messages that this executor is to send; none for as many as time allows.
    pub fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// Messages whose time has come and that were not begun.
    pub fn backlog(&self, now: Instant) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let passed = now.saturating_duration_since(self.start).as_secs_f64();
        let ramp = self.ramp.as_secs_f64();
        let due = match passed < ramp {
            true => rate * passed * passed / (2.0 * ramp),
            false => rate * (passed - ramp / 2.0),
        };
        let due = self.quota.map_or(due, |quota| due.min(quota as f64));
        (due as u64).saturating_sub(self.begun)
    }

    /// From the start to the time of the next message. Executors take turns, so that the run as a whole is even.
    fn offset(&self, rate: f64) -> Duration {
        let number = self.begun as f64 + self.place as f64 / self.executors as f64;
        let ramp = self.ramp.as_secs_f64();
        // While the rate rises as r t / ramp, the number sent is its integral, r t^2 / 2 ramp.
        let seconds = match number < rate * ramp / 2.0 {
            true => (2.0 * number * ramp / rate).sqrt(),
            false => ramp / 2.0 + number / rate,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(plan: &mut Plan, start: Instant, until: Duration) -> Vec<(u64, Duration)> {
        let mut times = Vec::new();
        while let Next::Message(due) = plan.next(start + until) {
            times.push((due.serial, due.planned.unwrap() - start));
        }
        times
    }

    #[test]
    fn a_closed_loop_sends_at_once_and_as_many_as_asked_for() {
        let now = Instant::now();
        let mut plan = Plan::new(now, None, Duration::ZERO, Some(2), 0, 1);
        for serial in 0..2 {
            let due = Due { serial, planned: None };
            assert_eq!(plan.next(now), Next::Message(due));
        }
        assert_eq!(plan.next(now), Next::Nothing);
        assert!(!plan.has_more());
    }

    #[test]
    fn an_open_loop_spaces_its_messages_evenly_whenever_they_are_taken() {
        let start = Instant::now();
        let mut plan = Plan::new(start, Some(100.0), Duration::ZERO, None, 0, 1);
        let times = times(&mut plan, start, Duration::from_millis(35));
        let milliseconds: Vec<u128> = times.iter().map(|(_, at)| at.as_millis()).collect();
        assert_eq!(milliseconds, [0, 10, 20, 30]);
        assert_eq!(
            plan.next(start + Duration::from_millis(39)),
            Next::Wait(start + Duration::from_millis(40))
        );
        assert_eq!(plan.backlog(start + Duration::from_millis(65)), 2);
    }

    #[test]
    fn executors_share_rate_quota_and_numbers() {
        let start = Instant::now();
        let mut all = Vec::new();
        for place in 0..3 {
            let mut plan = Plan::new(start, Some(30.0), Duration::ZERO, Some(10), place, 3);
            all.extend(times(&mut plan, start, Duration::from_secs(60)));
        }
        all.sort_by_key(|(serial, _)| *serial);
        assert_eq!(
            all.iter().map(|(serial, _)| *serial).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        for (serial, at) in all {
            let expected = Duration::from_secs_f64(serial as f64 / 30.0);
            assert!(at.abs_diff(expected) < Duration::from_micros(1), "{serial}: {at:?}");
        }
    }

    #[test]
    fn a_ramp_sends_half_of_what_the_full_rate_would_and_then_goes_on_at_it() {
        let start = Instant::now();
        let mut plan = Plan::new(start, Some(1000.0), Duration::from_secs(2), None, 0, 1);
        let count = |plan: &mut Plan, seconds| times(plan, start, Duration::from_secs(seconds)).len();
        assert_eq!(count(&mut plan, 1).abs_diff(250), 1);
        assert!((748..=752).contains(&count(&mut plan, 2)));
        assert!((999..=1001).contains(&count(&mut plan, 3)));
    }
}
