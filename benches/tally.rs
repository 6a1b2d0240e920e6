//! What it costs to count a connection and a message exactly over all shards, beside a map behind a mutex.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use criterion::{Criterion, criterion_group, criterion_main};
use postern::policy::network::Source;
use postern::policy::rate::RateTable;
use postern::policy::tally::Tally;

/// Sources in turn: enough that their words do not all stay in the nearest cache.
const SOURCES: u32 = 4096;
const MAX_TOTAL: u64 = 5000;
const MAX_PER_SOURCE: u64 = 20;

fn source(turn: u32) -> Source {
    Source::of(Ipv4Addr::from_bits(turn.wrapping_mul(0x9e37_79b9) % SOURCES).into())
}

/// The oracle: what one would write first.
#[derive(Default)]
struct Naive {
    total: u64,
    sources: HashMap<Source, u64>,
}

impl Naive {
    fn claim(&mut self, source: Source) -> bool {
        let count = self.sources.entry(source).or_default();
        if self.total >= MAX_TOTAL || *count >= MAX_PER_SOURCE {
            return false;
        }
        self.total += 1;
        *count += 1;
        true
    }

    fn leave(&mut self, source: Source) {
        self.total -= 1;
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

/// Runs `load` on another thread while `measured` is measured here.
fn beside(load: impl FnOnce(&AtomicBool) + Send, measured: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load(&done));
        measured();
        done.store(true, Ordering::Relaxed);
    });
}

fn tally(c: &mut Criterion) {
    let mut group = c.benchmark_group("claim and drop");
    let table = Tally::new(2, 5000, 1);
    let mut turn = 0u32;
    let column = Rc::new(table.column(0));
    let mut claim = |b: &mut criterion::Bencher<'_>| {
        b.iter(|| {
            turn += 1;
            drop(black_box(column.claim(0, source(turn), MAX_TOTAL, MAX_PER_SOURCE)));
        });
    };
    group.bench_function("tally, alone", &mut claim);
    let other = table.column(1);
    beside(
        |done| {
            let other = Rc::new(other);
            let mut turn = 7u32;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                drop(black_box(other.claim(0, source(turn), MAX_TOTAL, MAX_PER_SOURCE)));
            }
        },
        || {
            group.bench_function("tally, two shards at once", &mut claim);
        },
    );

    let map = Arc::new(Mutex::new(Naive::default()));
    let once = |turn: u32| {
        let source = source(turn);
        if black_box(map.lock().unwrap().claim(source)) {
            map.lock().unwrap().leave(source);
        }
    };
    let mut turn = 0u32;
    let mut locked = |b: &mut criterion::Bencher<'_>| {
        b.iter(|| {
            turn += 1;
            once(turn);
        });
    };
    group.bench_function("mutex and map, alone", &mut locked);
    beside(
        |done| {
            let mut turn = 7u32;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                once(turn);
            }
        },
        || {
            group.bench_function("mutex and map, two threads at once", &mut locked);
        },
    );
    group.finish();
}

fn rate(c: &mut Criterion) {
    let mut group = c.benchmark_group("admit a message");
    for shards in [1, 8, 64] {
        let table = RateTable::new(shards, 5000);
        let columns: Vec<_> = (0..shards).map(|shard| table.column(shard)).collect();
        let mut turn = 0u32;
        group.bench_function(format!("rate, {shards} shards"), |b| {
            b.iter(|| {
                turn += 1;
                black_box(columns[turn as usize % shards].admit(source(turn), 1_000_000, turn >> 16))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tally, rate);
criterion_main!(benches);
