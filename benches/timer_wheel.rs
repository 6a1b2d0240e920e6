//! The timer wheel with 100,000 connections, beside a sorted map of deadlines.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use postern::timer::{Look, SLOT, TimerWheel};

const TIMERS: usize = 100_000;
const IDLE: Duration = Duration::from_secs(60);

/// The oracle: exact alarms, each moved whenever its deadline moves.
#[derive(Default)]
struct Alarms {
    sorted: BTreeSet<(Instant, usize)>,
    deadlines: Vec<Option<Instant>>,
}

impl Alarms {
    fn arm(&mut self, key: usize, deadline: Instant) {
        if key >= self.deadlines.len() {
            self.deadlines.resize(key + 1, None);
        }
        if let Some(old) = self.deadlines[key].replace(deadline) {
            self.sorted.remove(&(old, key));
        }
        self.sorted.insert((deadline, key));
    }

    fn turn(&mut self, now: Instant, mut fired: impl FnMut(usize)) {
        while let Some(&(deadline, key)) = self.sorted.first().filter(|(deadline, _)| *deadline <= now) {
            self.sorted.remove(&(deadline, key));
            self.deadlines[key] = None;
            fired(key);
        }
    }
}

/// Deadlines of connections that opened over a minute.
fn deadline(epoch: Instant, key: usize) -> Instant {
    epoch + IDLE + Duration::from_micros(600 * key as u64)
}

fn arm_all(c: &mut Criterion, epoch: Instant) {
    let mut group = c.benchmark_group("arm 100,000 timers");
    group.sample_size(20);
    group.bench_function("wheel", |b| {
        b.iter(|| {
            let mut wheel = TimerWheel::new(epoch);
            (0..TIMERS).for_each(|key| wheel.arm(key, deadline(epoch, key)));
            wheel
        });
    });
    group.bench_function("sorted map", |b| {
        b.iter(|| {
            let mut alarms = Alarms::default();
            (0..TIMERS).for_each(|key| alarms.arm(key, deadline(epoch, key)));
            alarms
        });
    });
    group.finish();
}

fn move_later(c: &mut Criterion, epoch: Instant) {
    let mut group = c.benchmark_group("a deadline moves later, of 100,000");
    let mut wheel = TimerWheel::new(epoch);
    let mut alarms = Alarms::default();
    for key in 0..TIMERS {
        wheel.arm(key, deadline(epoch, key));
        alarms.arm(key, deadline(epoch, key));
    }
    let mut turn = 0u64;
    let mut next = move || {
        turn += 1;
        (
            turn as usize * 7919 % TIMERS,
            epoch + 2 * IDLE + Duration::from_micros(turn),
        )
    };
    group.bench_function("wheel", |b| {
        b.iter(|| {
            let (key, deadline) = next();
            wheel.arm(key, deadline);
        });
    });
    group.bench_function("sorted map", |b| {
        b.iter(|| {
            let (key, deadline) = next();
            alarms.arm(key, deadline);
        });
    });
    group.finish();
}

/// Two minutes of 100 ms turns in which everybody is put back once, then fires.
fn two_minutes(c: &mut Criterion, epoch: Instant) {
    let mut group = c.benchmark_group("1,800 turns, 100,000 timers put back once and fired");
    group.sample_size(10);
    group.bench_function("wheel", |b| {
        let fresh = || {
            let mut wheel = TimerWheel::new(epoch);
            (0..TIMERS).for_each(|key| wheel.arm(key, deadline(epoch, key)));
            wheel
        };
        b.iter_batched(
            fresh,
            |mut wheel| {
                for turn in 1..=1800u32 {
                    let now = epoch + turn * SLOT;
                    wheel.turn(now, |key| {
                        let deadline = deadline(epoch, key) + IDLE;
                        if black_box(deadline) <= now {
                            Look::Fired
                        } else {
                            Look::At(deadline)
                        }
                    });
                }
                assert!(wheel.is_empty());
                wheel
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("sorted map", |b| {
        let fresh = || {
            let mut alarms = Alarms::default();
            (0..TIMERS).for_each(|key| alarms.arm(key, deadline(epoch, key)));
            alarms
        };
        b.iter_batched(
            fresh,
            |mut alarms| {
                // Moved once, as the wheel puts back once: the least that alarms have to do.
                (0..TIMERS).for_each(|key| alarms.arm(key, deadline(epoch, key) + IDLE));
                let mut fired = 0;
                (1..=1800u32).for_each(|turn| alarms.turn(epoch + turn * SLOT, |_| fired += 1));
                assert_eq!(fired, TIMERS);
                alarms
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn timer_wheel(c: &mut Criterion) {
    let epoch = Instant::now();
    arm_all(c, epoch);
    move_later(c, epoch);
    two_minutes(c, epoch);
}

criterion_group!(benches, timer_wheel);
criterion_main!(benches);
