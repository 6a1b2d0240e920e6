//! Which address to try next, and which ones are not worth trying now.
//!
//! Promises: the targets of a route are tried in their order, the addresses of one target share the load; an address that
//! does not answer is passed over until its probe time, and then exactly one attempt finds out; memory is bounded. Pure;
//! lives on its shard. An address is whatever the driver connects to.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::smtp::client::{EnhancedStatusCode, HopReply, Origin};

/// Seconds that an address rests after it has not answered for the first, second, … time in a row; the last repeats.
const RESTS: [u64; 6] = [1, 2, 5, 10, 30, 60];

/// A probe of which nothing is heard for so long is forgotten: the next attempt is one.
const PROBE: Duration = Duration::from_secs(300);

/// Addresses that do not answer which are remembered.
const REMEMBERED: usize = 4096;

/// Which addresses do not answer.
#[derive(Debug)]
pub struct Health<A> {
    dead: HashMap<A, Dead>,
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Dead {
    /// Failures in a row, less one.
    times: usize,
    /// When it may be tried again.
    probe: Instant,
    /// An attempt has been allowed to find out.
    probing: bool,
}

/// One attempt's way through the addresses of its route.
#[derive(Debug)]
pub struct Round<A> {
    tried: SmallVec<[A; 4]>,
    misfit: Option<HopReply>,
    failure: Option<HopReply>,
}

/// Where an attempt goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<A> {
    /// To this address.
    Try(A),
    /// Nowhere: nobody is left to be tried now. A 5xx where every address was reached and cannot take the message; else a
    /// 4xx, the last that was heard.
    Over(HopReply),
}

impl<A: Clone + Eq + Hash> Health<A> {
    /// Everybody is believed to answer.
    pub fn new() -> Health<A> {
        Health {
            dead: HashMap::new(),
            turn: 0,
        }
    }

    /// The address has greeted, or said anything else that is no 421: it is tried like any other.
    pub fn answers(&mut self, address: &A) {
        self.dead.remove(address);
    }

    /// The address has refused the connection, let it time out, or greeted with 421: it rests.
    pub fn is_silent(&mut self, address: &A, now: Instant) {
        if let Some(dead) = self.dead.get_mut(address) {
            // Attempts that began before it was known to be dead tell nothing new.
            if dead.probing {
                dead.times += 1;
                dead.probe = now + rest(dead.times);
                dead.probing = false;
            }
            return;
        }
        if self.dead.len() >= REMEMBERED {
            self.forget(now);
        }
        let dead = Dead {
            times: 0,
            probe: now + rest(0),
            probing: false,
        };
        self.dead.insert(address.clone(), dead);
    }

    /// A probe was given up without a verdict: another attempt may find out.
    pub fn is_unknown(&mut self, address: &A, now: Instant) {
        if let Some(dead) = self.dead.get_mut(address).filter(|dead| dead.probing) {
            dead.probing = false;
            dead.probe = now;
        }
    }

    /// Everybody is believed to answer again: somebody who knows has asked for it.
    pub fn believe_all(&mut self) {
        self.dead.clear();
    }

    /// Whether the address is being passed over.
    pub fn is_dead(&self, address: &A) -> bool {
        self.dead.contains_key(address)
    }

    /// How many addresses do not answer.
    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Whether the address may be tried now; where it is dead and its time has come, this is its probe.
    fn admits(&mut self, address: &A, now: Instant) -> bool {
        let Some(dead) = self.dead.get_mut(address) else {
            return true;
        };
        if now < dead.probe {
            return false;
        }
        dead.probing = true;
        // Until then nobody else tries.
        dead.probe = now + PROBE;
        true
    }

    /// Makes room: those that nobody has asked for since their rest ended, else any.
    fn forget(&mut self, now: Instant) {
        self.dead.retain(|_, dead| now < dead.probe);
        if self.dead.len() >= REMEMBERED
            && let Some(any) = self.dead.keys().next().cloned()
        {
            self.dead.remove(&any);
        }
    }
}

impl<A: Clone + Eq + Hash> Default for Health<A> {
    fn default() -> Health<A> {
        Health::new()
    }
}

impl<A: Clone + Eq + Hash> Round<A> {
    /// At the start of an attempt.
    pub fn new() -> Round<A> {
        Round {
            tried: SmallVec::new(),
            misfit: None,
            failure: None,
        }
    }

    /// Where to go next. `targets`: those of the route, in order, each with its addresses, which are equal.
    pub fn next<T: AsRef<[A]>>(&mut self, targets: &[T], health: &mut Health<A>, now: Instant) -> Next<A> {
        // Multiples of the golden ratio: even over the addresses of each route, however routes take turns.
        health.turn = health.turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let turn = (health.turn >> 32) as usize;
        let mut passed_over = false;
        for target in targets {
            let addresses = target.as_ref();
            let start = turn.checked_rem(addresses.len()).unwrap_or_default();
            let (after, before) = addresses.split_at(start);
            for address in before.iter().chain(after) {
                if self.tried.contains(address) {
                    continue;
                }
                if health.admits(address, now) {
                    self.tried.push(address.clone());
                    return Next::Try(address.clone());
                }
                passed_over = true;
            }
        }
        Next::Over(self.over(passed_over))
    }

    /// The address just tried cannot take the message: `reply` says why, and why for good.
    pub fn misfits(&mut self, reply: HopReply) {
        self.misfit = Some(reply);
    }

    /// The address just tried could not be used now.
    pub fn failed(&mut self, reply: HopReply) {
        self.failure = Some(reply);
    }

    fn over(&mut self, passed_over: bool) -> HopReply {
        match (self.failure.take(), self.misfit.take()) {
            (Some(reply), _) if reply.code / 100 == 4 => reply,
            (None, Some(reply)) if !passed_over => reply,
            (Some(reply), _) if !passed_over => reply,
            _ if self.tried.is_empty() && !passed_over => {
                let status = EnhancedStatusCode::new(4, 4, 4);
                HopReply::ours(Origin::NoConnection, 451, status, "No address to deliver to")
            }
            _ => {
                let status = EnhancedStatusCode::new(4, 4, 1);
                HopReply::ours(Origin::NoConnection, 451, status, "No next hop answers")
            }
        }
    }
}

impl<A: Clone + Eq + Hash> Default for Round<A> {
    fn default() -> Round<A> {
        Round::new()
    }
}

fn rest(times: usize) -> Duration {
    Duration::from_secs(RESTS.get(times).or(RESTS.last()).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn next(health: &mut Health<u8>, targets: &[Vec<u8>], now: Instant) -> Option<u8> {
        match Round::new().next(targets, health, now) {
            Next::Try(address) => Some(address),
            Next::Over(_) => None,
        }
    }

    fn misfit() -> HopReply {
        HopReply::ours(Origin::Ours, 554, EnhancedStatusCode::new(5, 6, 1), "No 8BITMIME")
    }

    #[test]
    fn targets_are_tried_in_order_and_each_address_once_a_round() {
        let (mut health, now) = (Health::new(), Instant::now());
        let targets = [vec![1], vec![], vec![2, 3], vec![1, 4]];
        let mut round = Round::new();
        let mut order = Vec::new();
        while let Next::Try(address) = round.next(&targets, &mut health, now) {
            order.push(address);
        }
        order[1..3].sort_unstable();
        assert_eq!(order, [1, 2, 3, 4]);
    }

    #[test]
    fn equal_addresses_share_the_load_also_when_routes_take_turns() {
        let (mut health, now) = (Health::new(), Instant::now());
        let targets = [vec![0, 1, 2, 3]];
        let mut counts = [0; 4];
        for turn in 0..8000 {
            let first = next(&mut health, &targets, now).unwrap();
            if turn % 2 == 0 {
                counts[usize::from(first)] += 1;
            }
        }
        assert!(counts.iter().all(|n| (950..=1050).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_dead_address_is_passed_over_and_probed_by_one_attempt_at_a_time() {
        let (mut health, mut now) = (Health::new(), Instant::now());
        let targets = [vec![1], vec![2]];
        assert_eq!(next(&mut health, &targets, now), Some(1));
        health.is_silent(&1, now);
        // Another attempt was under way: it changes nothing.
        health.is_silent(&1, now + SECOND / 2);
        for rest in [1, 2, 5, 10, 30, 60, 60] {
            let almost = now + rest * SECOND - Duration::from_nanos(1);
            assert_eq!(next(&mut health, &targets, almost), Some(2));
            now += rest * SECOND;
            assert_eq!(next(&mut health, &targets, now), Some(1), "a probe after {rest} s");
            assert_eq!(next(&mut health, &targets, now), Some(2), "and one only");
            health.is_silent(&1, now);
        }
        now += 60 * SECOND;
        assert_eq!(next(&mut health, &targets, now), Some(1));
        health.answers(&1);
        assert!(!health.is_dead(&1));
        assert_eq!(next(&mut health, &targets, now), Some(1));
    }

    #[test]
    fn all_are_tried_again_when_they_are_believed_to_answer() {
        let (mut health, now) = (Health::new(), Instant::now());
        let targets = [vec![1]];
        health.is_silent(&1, now);
        assert_eq!(next(&mut health, &targets, now), None);
        health.believe_all();
        assert_eq!(next(&mut health, &targets, now), Some(1));
        assert_eq!(next(&mut health, &targets, now), Some(1), "not as a probe");
    }

    #[test]
    fn a_probe_of_which_nothing_is_heard_does_not_bury_the_address() {
        let (mut health, now) = (Health::new(), Instant::now());
        let targets = [vec![1]];
        health.is_silent(&1, now);
        assert_eq!(next(&mut health, &targets, now + SECOND), Some(1));
        assert_eq!(next(&mut health, &targets, now + PROBE), None);
        assert_eq!(next(&mut health, &targets, now + SECOND + PROBE), Some(1));
        health.is_unknown(&1, now + PROBE * 2);
        assert_eq!(next(&mut health, &targets, now + PROBE * 2), Some(1));
    }

    #[test]
    fn a_message_that_no_address_can_take_is_refused_for_good() {
        let (mut health, now) = (Health::new(), Instant::now());
        let targets = [vec![1], vec![2]];
        let mut round = Round::new();
        for _ in 0..2 {
            assert!(matches!(round.next(&targets, &mut health, now), Next::Try(_)));
            round.misfits(misfit());
        }
        assert_eq!(round.next(&targets, &mut health, now), Next::Over(misfit()));
    }

    #[test]
    fn an_address_that_could_not_be_asked_may_be_one_that_can() {
        let (mut health, now) = (Health::new(), Instant::now());
        let targets = [vec![1], vec![2]];
        health.is_silent(&2, now);
        let mut round = Round::new();
        assert_eq!(round.next(&targets, &mut health, now), Next::Try(1));
        round.misfits(misfit());
        let Next::Over(reply) = round.next(&targets, &mut health, now) else {
            panic!("2 is dead");
        };
        assert_eq!((reply.code, reply.status), (451, EnhancedStatusCode::new(4, 4, 1)));

        health.answers(&2);
        let mut round = Round::new();
        let refused = HopReply::heard(421, b"4.3.2 Not now");
        for reply in [Err(refused.clone()), Ok(misfit())] {
            assert!(matches!(round.next(&targets, &mut health, now), Next::Try(_)));
            match reply {
                Ok(reply) => round.misfits(reply),
                Err(reply) => round.failed(reply),
            }
        }
        assert_eq!(round.next(&targets, &mut health, now), Next::Over(refused));
    }

    #[test]
    fn a_route_without_addresses_is_over_at_once() {
        let (mut health, now) = (Health::<u8>::new(), Instant::now());
        let Next::Over(reply) = Round::new().next::<Vec<u8>>(&[], &mut health, now) else {
            panic!("there is nobody");
        };
        assert_eq!(reply.status, EnhancedStatusCode::new(4, 4, 4));
    }

    #[test]
    fn no_more_dead_addresses_are_remembered_than_there_is_room_for() {
        let (mut health, now) = (Health::new(), Instant::now());
        for address in 0..3 * REMEMBERED {
            health.is_silent(&address, now);
        }
        assert_eq!(health.dead(), REMEMBERED);
        assert!(health.is_dead(&(3 * REMEMBERED - 1)));
        health.is_silent(&usize::MAX, now + 60 * SECOND);
        assert_eq!(health.dead(), 1);
    }

    proptest! {
        #[test]
        fn a_round_ends_and_never_gives_an_address_twice(
            targets in proptest::collection::vec(proptest::collection::vec(0_u8..6, 0..4), 0..4),
            dead in proptest::collection::vec(0_u8..6, 0..4),
            wait in 0_u32..3,
        ) {
            let (mut health, now) = (Health::new(), Instant::now());
            dead.iter().for_each(|address| health.is_silent(address, now));
            let mut round = Round::new();
            let mut seen = Vec::new();
            while let Next::Try(address) = round.next(&targets, &mut health, now + wait * SECOND) {
                prop_assert!(!seen.contains(&address));
                prop_assert!(wait > 0 || !dead.contains(&address));
                seen.push(address);
            }
            let all: std::collections::BTreeSet<_> = targets.iter().flatten().collect();
            let passed_over = all.iter().filter(|a| wait == 0 && dead.contains(a)).count();
            prop_assert_eq!(seen.len() + passed_over, all.len());
        }
    }
}
