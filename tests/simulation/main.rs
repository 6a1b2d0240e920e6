//! The whole path of a message without a network, a disk or a clock: scripted clients that speak DATA and BDAT, sessions, the
//! timer wheel, the queue, the spool on a disk in memory, clients towards hubs with and without CHUNKING and by LMTP, which
//! refuse, delay and vanish; messages that go to the spool as they come, a process that drains and starts again, power that is
//! cut. One seed is one course of events; `POSTERN_SEED=n cargo test --test simulation one` replays it.
//!
//! What must be true, whatever happens in whatever order:
//! - a 250 is sent only for what is with a hub, durable in the spool, or durable as a report;
//! - each acknowledged message is delivered to each recipient, byte for byte, or its failure is reported;
//! - nothing is delivered twice but after a crash or a reply that was lost;
//! - no session outlives its timers; a drain comes to its end; counts of connections and of memory return to zero.

#[path = "../disk/mod.rs"]
mod disk;
mod edge;
mod hops;
mod hub;
mod keeping;
mod ledger;
mod lmtp;
mod parcel;
mod sender;
mod sessions;

use edge::Edge;

/// Seeds of one run of the tests.
const SEEDS: u64 = 8000;

fn run(seed: u64, crashes: bool) -> Edge {
    let mut edge = Edge::new(seed, crashes);
    edge.storm();
    edge.calm();
    edge.judge();
    edge
}

/// Every seed by itself, and all together: each kind of end must have come about, or nothing was tested.
fn run_all(from: u64, crashes: bool) {
    let (mut ends, mut drains) = ([0; 7], 0);
    for seed in from..from + SEEDS / 2 {
        let ended = std::panic::catch_unwind(|| run(seed, crashes));
        let Ok(edge) = ended else {
            panic!("seed {seed}, crashes {crashes}");
        };
        drains += edge.drains;
        let ledger = edge.ledger;
        for entry in ledger.entries.values() {
            let repeated = entry.delivered.values().any(|&times| times > 1);
            let durable = entry.id.is_some_and(|id| ledger.durable.contains(&id));
            let all = [
                entry.acknowledged,
                entry.refused,
                durable,
                entry.acknowledged && !durable,
                !entry.reported.is_empty(),
                repeated,
                entry.acknowledged && entry.content.len() > sessions::PIECE,
            ];
            ends.iter_mut()
                .zip(all)
                .for_each(|(count, came)| *count += u64::from(came));
        }
    }
    println!("acknowledged, refused, durable, acknowledged without the disk, reported, repeated, large: {ends:?}");
    assert!(
        ends.iter().all(|&count| count > 10) && drains > 100,
        "{ends:?}, {drains} drains"
    );
}

#[test]
fn acknowledged_mail_comes_to_its_end_without_crashes() {
    run_all(1, false);
}

#[test]
fn acknowledged_mail_outlives_crashes() {
    run_all(1_000_000, true);
}

#[test]
fn one_course_of_events_can_be_replayed() {
    let seed = std::env::var("POSTERN_SEED").map_or(7, |seed| seed.parse().unwrap());
    for crashes in [false, true] {
        let course = || run(seed, crashes).course();
        assert_eq!(course(), course());
    }
}
