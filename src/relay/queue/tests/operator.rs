//! What an operator can do.

use super::*;

#[test]
fn a_held_message_rests_also_after_a_restart_and_a_release_tries_it_at_once() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.queue.hold(id(1), rig.at).unwrap();
    rig.pass(100 * HOUR);
    rig.queue.retry(id(1), rig.at).unwrap();
    assert_eq!(rig.said(), [""; 0]);
    assert_eq!(rig.queue.next_due(), None);
    let progress = rig.updates.pop().unwrap().1;
    assert!(progress.held);
    rig.recovers(2, progress);
    assert_eq!(rig.said(), [""; 0]);
    assert!(rig.queue.show(id(2), rig.at).unwrap().is_held());
    rig.queue.release(id(2), rig.at).unwrap();
    assert_eq!(rig.said(), ["attempt 2 0 [0]"]);
    assert!(!rig.updates.pop().unwrap().1.held);
}

#[test]
fn a_message_released_after_its_time_is_given_up() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.queue.hold(id(1), rig.at).unwrap();
    rig.pass(100 * HOUR);
    rig.queue.release(id(1), rig.at).unwrap();
    assert_eq!(rig.said(), ["report 1 [Expired]"]);
}

#[test]
fn a_hold_lets_the_attempt_under_way_end() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.pass(15 * SECOND);
    rig.queue.hold(id(1), rig.at).unwrap();
    rig.outcome(1, 0, &[(0, later())]);
    assert_eq!(rig.said(), ["attempt 1 0 [0]"]);
    assert_eq!(rig.queue.next_due(), None);
}

#[test]
fn what_waits_in_its_lane_can_be_held_and_removed() {
    let mut rig = Rig::with(Terms { attempts: 1, ..terms() });
    for number in 1..=4 {
        rig.queue.take(message(number, &[&[0]], Client::Nobody), rig.at);
    }
    rig.queue.hold(id(2), rig.at).unwrap();
    rig.queue.remove(id(3), rig.at).unwrap();
    assert_eq!(rig.said(), ["attempt 1 0 [0]", "settle 3"]);
    rig.outcome(1, 0, &[(0, ok())]);
    assert_eq!(rig.said(), ["attempt 4 0 [0]", "settle 1"]);
    rig.queue.release(id(2), rig.at).unwrap();
    rig.outcome(4, 0, &[(0, ok())]);
    assert_eq!(rig.said(), ["attempt 2 0 [0]", "settle 4"]);
}

#[test]
fn a_removed_message_is_dropped_without_a_word_to_its_sender() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0], &[1]], rig.waits()));
    rig.pass(15 * SECOND);
    rig.outcome(1, 0, &[(0, never())]);
    rig.said();
    rig.queue.remove(id(1), rig.at).unwrap();
    assert_eq!(rig.said(), [""; 0], "an attempt is under way");
    rig.outcome(1, 1, &[(1, later())]);
    assert_eq!(rig.all_said(), ["log 1 [1] dropped", "settle 1"]);
    assert_eq!(rig.queue.remove(id(1), rig.at), Err(Refused::Unknown));
    rig.ends_with_nothing();
}

#[test]
fn a_message_removed_during_an_attempt_is_dropped_also_after_a_restart() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.pass(15 * SECOND);
    assert_eq!(rig.said(), ["attempt 1 0 [0]"]);
    rig.queue.remove(id(1), rig.at).unwrap();
    assert_eq!(rig.said(), [""; 0]);
    let progress = rig.updates.pop().unwrap().1;
    assert!(progress.removed);
    rig.recovers(2, progress);
    assert_eq!(rig.all_said(), ["log 2 [0] dropped", "settle 2"]);
}

#[test]
fn a_message_whose_client_waits_is_no_operators_business_yet() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0]]);
    for refused in [
        rig.queue.hold(id(1), rig.at),
        rig.queue.release(id(1), rig.at),
        rig.queue.retry(id(1), rig.at),
        rig.queue.remove(id(1), rig.at),
    ] {
        assert_eq!(refused, Err(Refused::Unacknowledged));
    }
    assert_eq!(rig.queue.hold(id(2), rig.at), Err(Refused::Unknown));
    assert!(!rig.queue.show(id(1), rig.at).unwrap().is_acknowledged());
}

#[test]
fn a_retry_tries_now_what_waits() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.queue.retry(id(1), rig.at).unwrap();
    assert_eq!(rig.said(), ["attempt 1 0 [0]"]);
}

#[test]
fn a_retry_of_all_is_spread_over_turns_and_reaches_everybody() {
    let mut rig = Rig::with(Terms {
        attempts: usize::MAX,
        ..terms()
    });
    for number in 0..1500 {
        rig.deferred(message(number, &[&[0]], rig.waits()));
    }
    rig.queue.retry_all();
    let mut turns = Vec::new();
    while rig.queue.next_due().is_some_and(|due| due <= rig.at.now) {
        rig.queue.turn(rig.at);
        turns.push(rig.said().len());
    }
    assert_eq!(turns, [512, 512, 476]);
}

#[test]
fn the_list_goes_on_where_it_was_left() {
    let mut rig = Rig::new();
    for number in 1..=5 {
        rig.deferred(message(number, &[&[0]], rig.waits()));
    }
    let numbers = |rig: &Rig, after: Option<u64>| -> Vec<u64> {
        let page = rig.queue.list(after.map(id), rig.at).take(2);
        page.map(|listed| listed.id.number()).collect()
    };
    assert_eq!(numbers(&rig, None), [1, 2]);
    rig.queue.remove(id(2), rig.at).unwrap();
    assert_eq!(numbers(&rig, Some(2)), [3, 4]);
    assert_eq!(numbers(&rig, Some(4)), [5]);
    let listed = rig.queue.show(id(1), rig.at).unwrap();
    let (recipient, stand, said) = listed.recipients().next().unwrap();
    assert_eq!(recipient.forward_path.as_str(), "r0@b.test");
    assert_eq!(stand, Stand::Due(rig.at.unix + 15));
    assert_eq!(said.unwrap().reply.code, 451);
    assert_eq!((listed.attempts(), listed.size()), (1, 1000));
}
