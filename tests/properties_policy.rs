//! Properties of the timer wheel and of policy, each against an oracle that is too simple to be wrong.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postern::policy::network::{DynamicList, Network, NetworkSet, Source, canonical};
use postern::policy::rate::RateTable;
use postern::policy::tally::{Refusal, Tally};
use postern::timer::{Look, SLOT, TimerWheel};
use proptest::prelude::*;

// Timers

#[derive(Clone, Debug)]
enum Move {
    /// A connection opens, or its deadline moves earlier or later: armed in any case.
    Arm(usize, u64),
    /// The deadline moves later, which the wheel is not told.
    Later(usize, u64),
    Close(usize),
    Turn(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let wait = prop_oneof![0..500u64, 0..100_000u64, 0..2_000_000u64, Just(5_000_000u64)];
    let pause = prop_oneof![0..150u64, 0..5_000u64, 0..1_000_000u64];
    let one = prop_oneof![
        4 => (0..40usize, wait.clone()).prop_map(|(key, wait)| Move::Arm(key, wait)),
        2 => (0..40usize, wait).prop_map(|(key, wait)| Move::Later(key, wait)),
        1 => (0..40usize).prop_map(Move::Close),
        3 => pause.prop_map(Move::Turn),
    ];
    prop::collection::vec(one, 1..200)
}

proptest! {
    /// The model knows every deadline: a turn must fire all that have been due for a slot, and none before its time.
    #[test]
    fn the_wheel_fires_what_a_sorted_map_would(moves in moves()) {
        let epoch = Instant::now();
        let mut now = epoch;
        let mut wheel = TimerWheel::new(epoch);
        let mut deadlines: BTreeMap<usize, Instant> = BTreeMap::new();
        for step in moves {
            match step {
                Move::Arm(key, wait) => {
                    let deadline = now + Duration::from_millis(wait);
                    deadlines.insert(key, deadline);
                    wheel.arm(key, deadline);
                }
                Move::Later(key, wait) => {
                    if let Some(deadline) = deadlines.get_mut(&key) {
                        *deadline += Duration::from_millis(wait);
                    }
                }
                Move::Close(key) => {
                    deadlines.remove(&key);
                }
                Move::Turn(pause) => {
                    now += Duration::from_millis(pause);
                    let mut looked = Vec::new();
                    let turned_at = now;
                    wheel.turn(now, |key| {
                        looked.push(key);
                        match deadlines.get(&key) {
                            None => Look::Gone,
                            Some(&deadline) if deadline <= turned_at => {
                                deadlines.remove(&key);
                                Look::Fired
                            }
                            Some(&deadline) => Look::At(deadline),
                        }
                    });
                    let looks = looked.len();
                    looked.sort_unstable();
                    looked.dedup();
                    prop_assert_eq!(looked.len(), looks, "nobody is looked at twice in a turn");
                    for (key, &deadline) in &deadlines {
                        prop_assert!(now < deadline + SLOT, "key {} is late by {:?}", key, now - deadline);
                    }
                }
            }
            prop_assert!(wheel.len() >= deadlines.len());
            prop_assert!(wheel.len() <= 40);
            prop_assert_eq!(wheel.next().is_none(), wheel.is_empty());
        }
        // Turned only when it says so, the wheel still looks at everybody, and ends empty.
        while let Some(next) = wheel.next() {
            now = now.max(next);
            wheel.turn(now, |key| match deadlines.get(&key) {
                Some(&deadline) if deadline > now => Look::At(deadline),
                _ => { deadlines.remove(&key); Look::Fired }
            });
        }
        prop_assert!(deadlines.is_empty());
    }
}

// Networks

fn address() -> impl Strategy<Value = IpAddr> {
    // Few bits vary, so that networks and addresses meet.
    let corner = prop_oneof![
        Just(0u128),
        Just(u128::MAX),
        Just(0xffff_0000_0000u128),
        Just(0x2001_0db8u128 << 96)
    ];
    prop_oneof![
        (
            prop_oneof![Just(0u32), Just(u32::MAX), Just(0x0a00_0000)],
            0..8u32,
            0..32u32
        )
            .prop_map(|(base, flip, at)| Ipv4Addr::from_bits(base ^ flip.rotate_left(at)).into()),
        (corner, 0..8u128, 0..128u32)
            .prop_map(|(base, flip, at)| Ipv6Addr::from_bits(base ^ flip.rotate_left(at)).into()),
    ]
}

fn network() -> impl Strategy<Value = Network> {
    (address(), 0..=128u8).prop_map(|(address, prefix)| {
        Network::new(address, if address.is_ipv4() { prefix % 33 } else { prefix }).unwrap()
    })
}

/// Bit by bit, as a reader of RFC 4632 would.
fn naive_contains(network: Network, address: IpAddr) -> bool {
    let bits = |address: IpAddr| -> Vec<bool> {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        octets
            .iter()
            .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1))
            .collect()
    };
    let (ours, theirs) = (bits(network.address()), bits(canonical(address)));
    let prefix = usize::from(network.prefix());
    ours.len() == theirs.len() && ours[..prefix] == theirs[..prefix]
}

proptest! {
    #[test]
    fn a_set_of_networks_contains_what_one_of_them_contains(
        networks in prop::collection::vec(network(), 0..12),
        addresses in prop::collection::vec(address(), 1..20),
    ) {
        let set: NetworkSet = networks.iter().copied().collect();
        for address in addresses {
            let expected = networks.iter().any(|&network| naive_contains(network, address));
            prop_assert_eq!(set.contains(address), expected, "{}", address);
            prop_assert_eq!(networks.iter().any(|network| network.contains(address)), expected, "{}", address);
        }
        prop_assert_eq!(set.is_empty(), networks.is_empty());
    }

    #[test]
    fn a_network_reads_back_as_it_was_written(network in network()) {
        prop_assert_eq!(network.to_string().parse(), Ok(network));
    }

    #[test]
    fn reading_a_network_or_a_list_never_panics(text in "[0-9a-f:./# \nT+Z-]{0,60}") {
        let _ = text.parse::<Network>();
        let _ = DynamicList::parse(&text);
    }

    #[test]
    fn a_dynamic_list_contains_what_an_unexpired_line_contains(
        lines in prop::collection::vec((network(), prop::option::of(0..100i64)), 0..12),
        looks in prop::collection::vec((address(), 0..100i64), 1..20),
    ) {
        let text: String = lines
            .iter()
            .map(|(network, expiry)| match expiry {
                Some(second) => format!("{network} {}\n", jiff::Timestamp::from_second(*second).unwrap()),
                None => format!("{network}\n"),
            })
            .collect();
        let (list, faults) = DynamicList::parse(&text);
        prop_assert_eq!(faults, []);
        for (address, now) in looks {
            let expected = lines
                .iter()
                .any(|&(network, expiry)| naive_contains(network, address) && expiry.is_none_or(|second| now < second));
            prop_assert_eq!(list.contains(address, now), expected, "{} at {}", address, now);
        }
    }
}

// Connections

fn source(number: u32) -> Source {
    Source::of(Ipv4Addr::from_bits(number).into())
}

proptest! {
    #[test]
    fn the_tally_admits_what_a_map_would(
        steps in prop::collection::vec((prop::bool::weighted(0.7), 0..2usize, 0..6u32, any::<prop::sample::Index>()), 1..300),
        shards in 1..4usize,
        max_total in 1..30u64,
        max_per_source in 1..8u64,
    ) {
        let tally = Tally::new(shards, 1024, 2);
        let columns: Vec<_> = (0..shards).map(|shard| Rc::new(tally.column(shard))).collect();
        let mut held = Vec::new();
        let (mut totals, mut sources) = ([0u64; 2], HashMap::<(usize, u32), u64>::new());
        for (comes, scope, number, pick) in steps {
            if comes {
                let expected = if totals[scope] >= max_total {
                    Err(Refusal::Total)
                } else if sources.get(&(scope, number)).is_some_and(|&count| count >= max_per_source) {
                    Err(Refusal::PerSource)
                } else {
                    Ok(())
                };
                let claim = pick.get(&columns).claim(scope, source(number), max_total, max_per_source);
                prop_assert_eq!(claim.as_ref().map(|_| ()).map_err(|refusal| *refusal), expected);
                if let Ok(claim) = claim {
                    totals[scope] += 1;
                    *sources.entry((scope, number)).or_default() += 1;
                    held.push((claim, scope, number));
                }
            } else if !held.is_empty() {
                let (claim, scope, number) = held.swap_remove(pick.index(held.len()));
                drop(claim);
                totals[scope] -= 1;
                *sources.entry((scope, number)).or_default() -= 1;
            }
            prop_assert_eq!([tally.connections(0), tally.connections(1)], totals);
            for (&(scope, number), &count) in &sources {
                prop_assert_eq!(tally.per_source(scope, source(number)), count);
            }
        }
    }
}

/// Lets threads go at nearly the same moment, round after round.
struct Line {
    threads: usize,
    arrived: AtomicUsize,
}

impl Line {
    fn wait(&self) {
        let round = self.arrived.fetch_add(1, Ordering::AcqRel) / self.threads;
        let mut spins = 0u32;
        while self.arrived.load(Ordering::Acquire) / self.threads == round {
            spins += 1;
            if spins > 2_000 {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
    }
}

#[test]
fn of_shards_that_race_for_the_last_place_at_most_one_gets_it() {
    const ROUNDS: u32 = 5_000;
    let tally = Tally::new(2, 1024, 1);
    let line = Line {
        threads: 2,
        arrived: AtomicUsize::new(0),
    };
    let held = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for shard in 0..2 {
            let (column, line, held) = (tally.column(shard), &line, &held);
            scope.spawn(move || {
                let column = Rc::new(column);
                for round in 0..ROUNDS {
                    line.wait();
                    // Odd rounds race for the total, even ones for the source.
                    let (who, total) = if round % 2 == 0 { (7, 100) } else { (shard as u32, 1) };
                    let claim = column.claim(0, source(who), total, 1);
                    if claim.is_ok() {
                        assert_eq!(
                            held.fetch_add(1, Ordering::AcqRel),
                            0,
                            "two hold the one place in round {round}"
                        );
                    }
                    line.wait();
                    if claim.is_ok() {
                        held.fetch_sub(1, Ordering::AcqRel);
                    }
                    drop(claim);
                }
            });
        }
    });
    assert_eq!((tally.connections(0), tally.per_source(0, source(7))), (0, 0));
}

#[test]
fn racing_shards_never_hold_more_than_the_limits_and_the_counts_return_to_zero() {
    const SHARDS: usize = 4;
    const SOURCES: u32 = 8;
    const TOTAL: i64 = 20;
    const PER_SOURCE: i64 = 3;
    let tally = Tally::new(SHARDS, 64, 1);
    let total = AtomicI64::new(0);
    let sources: Vec<AtomicI64> = (0..SOURCES).map(|_| AtomicI64::new(0)).collect();
    std::thread::scope(|scope| {
        for shard in 0..SHARDS {
            let (column, total, sources) = (tally.column(shard), &total, &sources);
            scope.spawn(move || {
                let column = Rc::new(column);
                let mut held = VecDeque::new();
                let mut state = shard as u32 + 1;
                for _ in 0..20_000 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let who = (state >> 16) % SOURCES;
                    if let Ok(claim) = column.claim(0, source(who), TOTAL as u64, PER_SOURCE as u64) {
                        assert!(total.fetch_add(1, Ordering::AcqRel) < TOTAL);
                        assert!(sources[who as usize].fetch_add(1, Ordering::AcqRel) < PER_SOURCE);
                        held.push_back((claim, who));
                    }
                    while held.len() > (state >> 8) as usize % 10 {
                        let Some((claim, who)) = held.pop_front() else { break };
                        total.fetch_sub(1, Ordering::AcqRel);
                        sources[who as usize].fetch_sub(1, Ordering::AcqRel);
                        drop(claim);
                    }
                }
                for (claim, who) in held {
                    total.fetch_sub(1, Ordering::AcqRel);
                    sources[who as usize].fetch_sub(1, Ordering::AcqRel);
                    drop(claim);
                }
            });
        }
    });
    assert_eq!(tally.connections(0), 0);
    assert!((0..SOURCES).all(|who| tally.per_source(0, source(who)) == 0));
}

// Rates

proptest! {
    #[test]
    fn the_rate_admits_what_a_queue_of_seconds_would(
        steps in prop::collection::vec((0..3u8, prop_oneof![8 => 0..3u32, 2 => 0..70u32, 1 => 0..1000u32], any::<prop::sample::Index>()), 1..400),
        shards in 1..4usize,
        limit in 1..12u64,
    ) {
        let table = RateTable::new(shards, 64);
        let columns: Vec<_> = (0..shards).map(|shard| table.column(shard)).collect();
        let mut admitted: HashMap<u8, VecDeque<u32>> = HashMap::new();
        let mut now = 0;
        for (who, pause, pick) in steps {
            now += pause;
            let queue = admitted.entry(who).or_default();
            queue.retain(|&second| second + 60 >= now);
            let expected = (queue.len() as u64) < limit;
            prop_assert_eq!(pick.get(&columns).admit(who, limit, now), expected);
            if expected {
                queue.push_back(now);
            }
            prop_assert_eq!(table.messages(who, now), queue.len() as u64);
        }
    }
}

#[test]
fn racing_shards_never_admit_more_than_the_rate() {
    const ROUNDS: u32 = 4_000;
    const SHARDS: usize = 2;
    const LIMIT: u64 = 3;
    let table = RateTable::new(SHARDS, 64);
    let line = Line {
        threads: SHARDS,
        arrived: AtomicUsize::new(0),
    };
    let admitted: Vec<AtomicUsize> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for shard in 0..SHARDS {
            let (column, line, admitted) = (table.column(shard), &line, &admitted);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    line.wait();
                    // A window of its own for each round; the seconds in it differ, cells are cleared while others read.
                    for second in 0..4 {
                        if column.admit("a", LIMIT, round * 70 + second) {
                            admitted[round as usize].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    for (round, admitted) in admitted.iter().enumerate() {
        let admitted = admitted.load(Ordering::Relaxed) as u64;
        assert!(admitted <= LIMIT, "{admitted} in round {round}");
    }
}
