//! What is seen of a run while it lasts: a line that is written over on a terminal, lines from time to time elsewhere.
//!
//! Promises: executors only leave their figures on a board, a thousand octets each time; whoever looks never makes them wait
//! longer than it takes to copy those. The line is written to standard error by a thread of its own.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::report::readable;
use crate::timeline::Coarse;

/// Between two lines on a terminal, and elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(250);
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Characters of the bar.
const BAR: usize = 20;
/// Codes of errors that are named.
const CODES_NAMED: usize = 3;

/// What an executor has to show: sums since the start of the run.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    pub accepted: u64,
    pub refused: u64,
    /// Lost with their connection, or connections that failed.
    pub lost: u64,
    pub connections: u64,
    /// Error replies by code.
    pub errors: Vec<(u16, u64)>,
    /// Of the final reply, or from the planned time in an open loop.
    pub latency: Coarse,
}

impl Glance {
    /// Those of another.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.lost += other.lost;
        self.connections += other.connections;
        for (code, count) in &other.errors {
            match self.errors.iter_mut().find(|(ours, _)| ours == code) {
                Some((_, sum)) => *sum += count,
                None => self.errors.push((*code, *count)),
            }
        }
        self.latency.add(&other.latency);
    }
}

/// Where executors leave their figures.
#[derive(Debug)]
pub struct Board {
    places: Vec<Mutex<Glance>>,
}

impl Board {
    /// With a place for each executor.
    pub fn new(executors: usize) -> Arc<Self> {
        Arc::new(Self {
            places: (0..executors).map(|_| Mutex::default()).collect(),
        })
    }

    /// Leaves the figures of an executor.
    pub fn post(&self, executor: usize, glance: Glance) {
        if let Some(place) = self.places.get(executor) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = glance;
        }
    }

    /// All of them together.
    pub fn sum(&self) -> Glance {
        let mut sum = Glance::default();
        for place in &self.places {
            sum.add(&place.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }
}

/// How far a run is to go.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// So many messages.
    Messages(u64),
    /// So long, warm-up included.
    Time(Duration),
}

/// Shows the board until it is told to stop.
#[derive(Debug)]
pub struct Show {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Show {
    /// Begins to show.
    pub fn start(board: Arc<Board>, goal: Goal) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let on_terminal = std::io::stderr().is_terminal();
            let every = if on_terminal { ON_TERMINAL } else { ELSEWHERE };
            let (mut last, mut before) = (began, board.sum());
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let (now, glance) = (Instant::now(), board.sum());
                let line = line(&glance, &before, now - last, now - began, goal);
                // It is for eyes only.
                let _ = match on_terminal {
                    true => write!(std::io::stderr(), "\r\x1b[K{line}"),
                    false => writeln!(std::io::stderr(), "{line}"),
                };
                (last, before) = (now, glance);
            }
            if on_terminal {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
        });
        Self { stop, thread }
    }

    /// Stops showing, and clears the line.
    pub fn stop(self) {
        drop(self.stop);
        // If it panicked there is nothing to clear.
        let _ = self.thread.join();
    }
}

fn line(now: &Glance, before: &Glance, apart: Duration, passed: Duration, goal: Goal) -> String {
    let rate = now.accepted.saturating_sub(before.accepted) as f64 / apart.as_secs_f64().max(1e-9);
    let (share, left) = match goal {
        Goal::Time(whole) => (
            passed.as_secs_f64() / whole.as_secs_f64().max(1e-9),
            whole.checked_sub(passed),
        ),
        Goal::Messages(whole) => {
            let done = now.accepted + now.refused + now.lost;
            let left = whole.saturating_sub(done) as f64 / rate.max(1e-9);
            (
                done as f64 / whole.max(1) as f64,
                Duration::try_from_secs_f64(left).ok(),
            )
        }
    };
    let share = share.clamp(0.0, 1.0);
    let full = (share * BAR as f64) as usize;
    let mut line = format!(
        "{:>3.0}% [{}{}]",
        share * 100.0,
        "#".repeat(full),
        "-".repeat(BAR - full)
    );
    // Writing to a string does not fail.
    let _ = match left.filter(|left| *left < Duration::from_secs(360_000)) {
        Some(left) => write!(line, " {:.0} s left", left.as_secs_f64()),
        None => write!(line, " finishing"),
    };
    let _ = write!(line, "  {rate:.0} messages/s  {} connections", now.connections);
    let quantile = |share: f64| now.latency.quantile(share).map(|us| readable(us * 1000));
    if let (Some(median), Some(p99)) = (quantile(0.5), quantile(0.99)) {
        let _ = write!(line, "  p50 {median}  p99 {p99}");
    }
    if now.refused + now.lost > 0 {
        let _ = write!(line, "  FAILED {}", now.refused + now.lost);
    }
    let mut errors = now.errors.clone();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (code, count) in errors.iter().take(CODES_NAMED) {
        let _ = write!(line, "  {count} x {code}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glance() -> Glance {
        let mut glance = Glance {
            accepted: 1500,
            connections: 50,
            ..Glance::default()
        };
        for _ in 0..100 {
            glance.latency.record(Duration::from_millis(2));
        }
        glance
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_well() {
        let before = Glance {
            accepted: 1000,
            ..Glance::default()
        };
        let second = Duration::from_secs(1);
        let text = line(&glance(), &before, second / 2, 3 * second, Goal::Time(12 * second));
        assert_eq!(
            text,
            " 25% [#####---------------] 9 s left  1000 messages/s  50 connections  p50 2.00 ms  p99 2.00 ms"
        );
        let text = line(&glance(), &before, second, 3 * second, Goal::Messages(3000));
        assert!(
            text.starts_with(" 50% [##########----------] 3 s left  500 messages/s"),
            "{text}"
        );
    }

    #[test]
    fn errors_are_named_most_frequent_first() {
        let (board, mut failing) = (Board::new(2), glance());
        failing.refused = 7;
        failing.errors = vec![(451, 3), (550, 1)];
        board.post(0, failing.clone());
        failing.errors = vec![(550, 9)];
        board.post(1, failing);
        board.post(2, glance());
        let sum = board.sum();
        assert_eq!((sum.accepted, sum.refused), (3000, 14));
        let text = line(
            &sum,
            &sum,
            Duration::from_secs(1),
            Duration::from_secs(99),
            Goal::Time(Duration::from_secs(9)),
        );
        assert!(
            text.contains("100% [####################] finishing") && text.ends_with("FAILED 14  10 x 550  3 x 451"),
            "{text}"
        );
    }
}
