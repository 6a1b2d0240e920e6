//! The spool under any order of calls, with a disk that fails and power that is cut.

mod disk;

use disk::model::{Rig, Stage};
use postern::spool::Settings;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Move {
    Begin(usize),
    Append(usize, usize),
    Flush(usize),
    Commit(usize),
    Send(usize),
    Abandon(usize),
    Update(usize),
    Settle(usize),
    Confirm(usize),
    Idle,
    /// The nth work under way is done.
    Step(usize),
    Fail(usize),
    Quiet,
    Cut,
    /// The process ends, the power does not.
    Restart,
}

fn moves(failures: bool) -> impl Strategy<Value = Vec<Move>> {
    let nth = || 0..64usize;
    let length = || prop_oneof![4 => 0..600usize, 2 => 0..5_000usize, 1 => 0..40_000usize];
    let one = prop_oneof![
        3 => prop_oneof![5 => 1..4usize, 1 => 1..400usize].prop_map(Move::Begin),
        6 => (nth(), length()).prop_map(|(nth, length)| Move::Append(nth, length)),
        1 => nth().prop_map(Move::Flush),
        4 => nth().prop_map(Move::Commit),
        6 => length().prop_map(Move::Send),
        1 => nth().prop_map(Move::Abandon),
        4 => nth().prop_map(Move::Update),
        5 => nth().prop_map(Move::Settle),
        2 => nth().prop_map(Move::Confirm),
        2 => Just(Move::Idle),
        24 => (0..3usize).prop_map(Move::Step),
        3 => (0..3usize).prop_map(move |nth| if failures { Move::Fail(nth) } else { Move::Step(nth) }),
        2 => Just(Move::Quiet),
        1 => Just(Move::Cut),
        1 => Just(Move::Restart),
    ];
    prop::collection::vec(one, 1..250)
}

fn settings() -> impl Strategy<Value = Settings> {
    (prop_oneof![Just(1), Just(512), Just(4096)], 0..3usize).prop_map(|(alignment, spares)| Settings {
        segment_size: 32 << 10,
        adopted_segment_size: 32 << 10,
        alignment,
        spares,
    })
}

/// A case takes a quarter of a second without optimisation; `PROPTEST_CASES` asks for more of them.
fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { ProptestConfig::default().cases } else { 64 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn play(rig: &mut Rig, moves: Vec<Move>) {
    for step in moves {
        let of = |stages: &[Stage], nth: usize, rig: &Rig| {
            let known: Vec<u64> = rig
                .messages
                .iter()
                .filter(|(_, m)| stages.contains(&m.stage))
                .map(|(id, _)| *id)
                .collect();
            (!known.is_empty()).then(|| known[nth % known.len()])
        };
        let any = [
            Stage::Open,
            Stage::Committed,
            Stage::Durable,
            Stage::Failed,
            Stage::Gone,
        ];
        match step {
            Move::Begin(recipients) => drop(rig.begin(recipients)),
            Move::Append(nth, length) => drop(of(&[Stage::Open], nth, rig).map(|id| rig.append(id, length))),
            Move::Flush(nth) => drop(of(&any, nth, rig).map(|id| rig.flush(id))),
            Move::Commit(nth) => drop(of(&[Stage::Open], nth, rig).map(|id| rig.commit(id))),
            Move::Send(length) => drop(rig.send(length)),
            Move::Abandon(nth) => drop(of(&any, nth, rig).map(|id| rig.abandon(id))),
            Move::Update(nth) => drop(of(&any[..3], nth, rig).map(|id| rig.update(id))),
            Move::Settle(nth) => drop(of(&[Stage::Durable], nth, rig).map(|id| rig.abandon(id))),
            Move::Confirm(nth) => drop(of(&any, nth, rig).map(|id| rig.confirm(id))),
            Move::Idle => rig.idle(),
            Move::Step(nth) => drop(rig.step(nth)),
            Move::Fail(nth) => rig.fail(nth),
            Move::Quiet => rig.quiet(),
            Move::Cut => rig.cut(),
            Move::Restart => rig.restart_alive(),
        }
    }
    rig.quiet();
    rig.cut();
    // Nothing lives twice, nothing stays for ever.
    for id in rig.living() {
        rig.abandon(id);
    }
    rig.quiet();
    assert_eq!(rig.spool.messages(), 0);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_was_durable_is_there_after_any_cut(moves in moves(false), settings in settings(), seed in any::<u64>()) {
        let mut rig = Rig::new(settings, seed);
        play(&mut rig, moves);
        prop_assert_eq!(rig.poisoned, 0);
        // All that was adopted is gone; the own directory has the segment that is written, the next and its spares.
        prop_assert_eq!(rig.disk.salts().len(), 1);
    }

    #[test]
    fn what_was_durable_is_there_after_any_cut_of_a_disk_that_fails(
        moves in moves(true), settings in settings(), seed in any::<u64>()
    ) {
        play(&mut Rig::new(settings, seed), moves);
    }
}
