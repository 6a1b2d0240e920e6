//! A run second by second: how many messages, how many failures, and how long they took.
//!
//! Promises: some thousand octets a row and a bounded number of rows, however long the run is: when there are too many, two
//! become one. Latency is told to within 1 part in 8. One value an executor, put together at the end. Pure: times are given.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Parts of each doubling that are told apart.
const PARTS: u32 = 8;
/// Doublings from a microsecond on: to 2^30 µs, some 18 minutes.
const DOUBLINGS: u32 = 30;
const BUCKETS: usize = (PARTS * DOUBLINGS) as usize;
/// Most rows.
const ROWS_MAX: usize = 1200;

/// A histogram of latencies that is small enough to have many of.
#[derive(Clone, Debug)]
pub struct Coarse {
    counts: Vec<u32>,
    /// Longest, in microseconds.
    max: u64,
}

impl Default for Coarse {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            max: 0,
        }
    }
}

impl Coarse {
    /// One more.
    pub fn record(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.max = self.max.max(microseconds);
        if let Some(count) = self.counts.get_mut(bucket(microseconds)) {
            *count += 1;
        }
    }

    /// Those of another.
    pub fn add(&mut self, other: &Self) {
        self.max = self.max.max(other.max);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// In microseconds: the latency that this share was within; none of no messages.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let wanted = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        (all > 0).then(|| upper_bound(found).min(self.max))
    }

    /// Longest, in microseconds.
    pub fn max(&self) -> u64 {
        self.max
    }
}

fn bucket(microseconds: u64) -> usize {
    let value = microseconds.max(1);
    let doubling = value.ilog2();
    // The part of this doubling: the three bits behind the highest.
    let part = ((u128::from(value) * u128::from(PARTS)) >> doubling) as u32 - PARTS;
    ((doubling * PARTS + part) as usize).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    let (doubling, part) = (bucket as u32 / PARTS, bucket as u32 % PARTS);
    (1_u64 << doubling) * u64::from(PARTS + part + 1) / u64::from(PARTS)
}

#[derive(Clone, Debug, Default)]
struct Row {
    accepted: u64,
    failed: u64,
    latency: Coarse,
}

/// The rows of a run, from its start on.
#[derive(Clone, Debug)]
pub struct Timeline {
    start: Instant,
    width: Duration,
    rows: Vec<Row>,
    /// Latency of the whole run.
    total: Coarse,
}

impl Timeline {
    /// Nothing yet; all executors of a run give the same start.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            width: Duration::from_secs(1),
            rows: Vec::new(),
            total: Coarse::default(),
        }
    }

    /// Latency of the whole run.
    pub fn total(&self) -> &Coarse {
        &self.total
    }

    /// A message was accepted, after this time.
    pub fn accepted(&mut self, now: Instant, latency: Duration) {
        if let Some(row) = self.row(now) {
            row.accepted += 1;
            row.latency.record(latency);
        }
        self.total.record(latency);
    }

    /// Messages or connections failed.
    pub fn failed(&mut self, now: Instant, count: u64) {
        if let Some(row) = self.row(now) {
            row.failed += count;
        }
    }

    fn row(&mut self, now: Instant) -> Option<&mut Row> {
        let passed = now.saturating_duration_since(self.start);
        let mut at = place(passed, self.width);
        while at >= ROWS_MAX {
            self.widen();
            at = place(passed, self.width);
        }
        if at >= self.rows.len() {
            self.rows.resize_with(at + 1, Row::default);
        }
        self.rows.get_mut(at)
    }

    fn widen(&mut self) {
        self.width *= 2;
        let mut rows: Vec<Row> = Vec::with_capacity(self.rows.len() / 2 + 1);
        for (number, row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            match rows.last_mut() {
                Some(last) if number % 2 == 1 => last.add(&row),
                _ => rows.push(row),
            }
        }
        self.rows = rows;
    }

    /// Puts in what another executor of the same run has.
    pub fn absorb(&mut self, mut other: Self) {
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        if self.rows.len() < other.rows.len() {
            self.rows.resize_with(other.rows.len(), Row::default);
        }
        for (ours, theirs) in self.rows.iter_mut().zip(&other.rows) {
            ours.add(theirs);
        }
        self.total.add(&other.total);
    }

    /// Rows of: seconds since the start, messages a second, failures, and p50, p99 and longest latency in microseconds. The
    /// last row ends at `end`.
    pub fn to_json(&self, end: Instant) -> Value {
        let width = self.width.as_secs_f64();
        let whole = end.saturating_duration_since(self.start).as_secs_f64();
        let rows = self.rows.iter().enumerate().map(|(number, row)| {
            let from = number as f64 * width;
            // A sliver at the end would show a rate of its own.
            let length = (whole - from).clamp(width / 10.0, width);
            let latency = &row.latency;
            let max = (row.accepted > 0).then_some(latency.max());
            json!([
                from,
                row.accepted as f64 / length,
                row.failed,
                latency.quantile(0.5),
                latency.quantile(0.99),
                max
            ])
        });
        json!({ "row_seconds": width, "rows": rows.collect::<Vec<_>>() })
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.failed += other.failed;
        self.latency.add(&other.latency);
    }
}

fn place(passed: Duration, width: Duration) -> usize {
    usize::try_from(passed.as_millis() / width.as_millis().max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Dice, Distribution};

    #[test]
    fn quantiles_are_within_an_eighth_of_the_truth() {
        let mut dice = Dice::new(3);
        let mut coarse = Coarse::default();
        let mut all: Vec<u64> = Vec::new();
        for _ in 0..10_000 {
            let latency = Duration::from_micros(Distribution::LogNormal(2000.0, 1.5).draw(&mut dice) as u64 + 1);
            coarse.record(latency);
            all.push(latency.as_micros() as u64);
        }
        all.sort_unstable();
        for share in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let truth = all[(10_000.0 * share) as usize - 1] as f64;
            let told = coarse.quantile(share).unwrap() as f64;
            assert!((truth..=truth * 1.126).contains(&told), "{share}: {told} for {truth}");
        }
        assert_eq!(coarse.quantile(1.0), Some(coarse.max()));
        assert_eq!(coarse.max(), *all.last().unwrap());
        assert_eq!(Coarse::default().quantile(0.5), None);
    }

    #[test]
    fn every_latency_has_a_place() {
        let mut coarse = Coarse::default();
        for microseconds in [0, 1, 2, 7, 8, 9, u64::from(u32::MAX), u64::MAX / 1000] {
            coarse.record(Duration::from_micros(microseconds));
        }
        assert_eq!(coarse.quantile(0.1), Some(1));
        for value in 1..100_000_u64 {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value && bound <= value + value / 8 + 1, "{value}: {bound}");
        }
    }

    #[test]
    fn messages_fall_into_their_seconds() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        for millisecond in [0, 999, 1000, 2500] {
            timeline.accepted(start + Duration::from_millis(millisecond), Duration::from_millis(2));
        }
        timeline.failed(start + Duration::from_millis(1500), 3);
        let json = timeline.to_json(start + Duration::from_millis(2500));
        let column = |number: usize| -> Vec<f64> {
            let rows = json["rows"].as_array().unwrap();
            rows.iter().map(|row| row[number].as_f64().unwrap_or(-1.0)).collect()
        };
        assert_eq!(column(1), [2.0, 1.0, 2.0], "the last row is half a second long");
        assert_eq!(column(2), [0.0, 3.0, 0.0]);
        assert_eq!(column(5), [2000.0, 2000.0, 2000.0]);
    }

    #[test]
    fn a_long_run_has_longer_rows_and_loses_nothing() {
        let start = Instant::now();
        let (mut one, mut other) = (Timeline::new(start), Timeline::new(start));
        for second in 0..5000 {
            one.accepted(start + Duration::from_secs(second), Duration::from_millis(1));
        }
        other.accepted(start + Duration::from_secs(1), Duration::from_millis(1));
        other.absorb(one.clone());
        one.absorb(other.clone());
        assert!(other.rows.len() <= ROWS_MAX && other.width > Duration::from_secs(4));
        assert_eq!(other.rows.iter().map(|row| row.accepted).sum::<u64>(), 5001);
        assert_eq!(one.rows.iter().map(|row| row.accepted).sum::<u64>(), 10_001);
    }
}
