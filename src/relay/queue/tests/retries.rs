//! When a recipient is tried again, and when given up.

use super::*;
use crate::spool::Fate;

#[test]
fn waits_follow_the_schedule_and_the_last_one_repeats() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    for wait in [15, 60, 300, 900, 3600, 3600] {
        assert_eq!(rig.next(), (wait * SECOND, vec!["attempt 1 0 [0]".into()]));
        rig.outcome(1, 0, &[(0, later())]);
        assert_eq!(rig.said(), [""; 0]);
    }
}

#[test]
fn groups_are_tried_by_themselves_and_never_twice_at_once() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0], &[1]]);
    rig.said();
    rig.outcome(1, 0, &[(0, later())]);
    assert_eq!(rig.said(), ["persist 1"]);
    rig.durable(1);
    rig.said();
    assert_eq!(rig.next(), (15 * SECOND, vec!["attempt 1 0 [0]".into()]));
    rig.queue.retry(id(1), rig.at).unwrap();
    rig.pass(HOUR);
    assert_eq!(rig.said(), [""; 0], "both are under way");
    rig.outcome(1, 1, &[(1, ok())]);
    rig.outcome(1, 0, &[(0, later())]);
    assert_eq!(rig.next(), (60 * SECOND, vec!["attempt 1 0 [0]".into()]));
}

#[test]
fn a_recipient_of_whom_nothing_is_said_is_tried_again() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0, 1]]);
    rig.outcome(1, 0, &[(0, ok())]);
    rig.durable(1);
    rig.said();
    assert_eq!(rig.next(), (15 * SECOND, vec!["attempt 1 0 [1]".into()]));
}

#[test]
fn at_expiry_what_is_left_is_reported_with_the_last_words() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0, 1]], rig.waits()));
    let began = rig.at.now;
    let last = loop {
        let (_, said) = rig.next();
        if said.iter().any(|s| s.starts_with("report")) {
            break said;
        }
        rig.outcome(1, 0, &[(0, later()), (1, later())]);
    };
    assert_eq!(last, ["report 1 [Expired, Expired]"]);
    assert_eq!(rig.at.now - began, 48 * HOUR);
    let said = rig.reports[0].recipients[1].said.clone().unwrap();
    assert_eq!(&said.reply, later().reply());
    // Not settled before the report is durable, and tried again when it could not be.
    rig.queue.cannot_report(id(1), rig.at);
    assert_eq!(rig.next(), (15 * SECOND, vec!["report 1 [Expired, Expired]".into()]));
    assert!(matches!(&rig.updates.last().unwrap().1.recipients[0], Fate::Failed(_)));
    rig.queue.reported(id(1), rig.at);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn what_expires_during_an_attempt_has_that_attempt() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0]]);
    rig.pass(DELAY);
    rig.durable(1);
    rig.said();
    rig.pass(50 * HOUR);
    assert_eq!(rig.said(), [""; 0]);
    rig.outcome(1, 0, &[(0, later())]);
    assert_eq!(
        rig.all_said(),
        ["log 1 [0] deferred", "log 1 [0] expired", "report 1 [Expired]"]
    );
}

fn recovered(number: u64, arrived: u64, progress: Option<Progress>) -> Recovered {
    Recovered {
        id: id(number),
        envelope: envelope("s@a.test", 2),
        groups: groups_of(&[&[0], &[1]]),
        size: 10,
        authenticated: false,
        arrived,
        progress,
    }
}

#[test]
fn a_recovered_message_goes_on_where_it_was() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0], &[1]]);
    rig.outcome(1, 0, &[(0, ok())]);
    rig.outcome(1, 1, &[(1, later())]);
    rig.durable(1);
    rig.said();
    rig.pass(15 * SECOND);
    rig.outcome(1, 1, &[(1, later())]);
    rig.said();
    let progress = rig.updates.pop().unwrap().1;
    let arrived = rig.queue.show(id(1), rig.at).unwrap().arrived();

    let mut next = Rig::new();
    next.at.unix = rig.at.unix + 20;
    next.queue
        .recovered(recovered(1, arrived, Some(progress.clone())), next.at);
    next.queue.turn(next.at);
    assert_eq!(next.said(), [""; 0]);
    assert_eq!(next.next(), (40 * SECOND, vec!["attempt 1 1 [1]".into()]));
    next.outcome(1, 1, &[(1, later())]);
    next.said();
    let Fate::Waiting { attempts, due, .. } = next.updates[0].1.recipients[1] else {
        panic!("{:?}", next.updates);
    };
    assert_eq!((attempts, due), (3, next.at.unix + 300));
}

#[test]
fn a_recovered_message_whose_report_is_owed_is_reported() {
    let mut rig = Rig::new();
    let never = crate::spool::Answer {
        reply: HopReply::heard(550, b"5.1.1 Unknown"),
        hop: "hub.test".into(),
        at: 5,
    };
    let progress = Progress {
        recipients: vec![Fate::Failed(never), Fate::Settled],
        held: false,
        notified: false,
        removed: false,
    };
    rig.queue.recovered(recovered(1, rig.at.unix, Some(progress)), rig.at);
    rig.queue.turn(rig.at);
    assert_eq!(rig.said(), ["report 1 [Failed]"]);
    assert_eq!(rig.reports[0].recipients[0].tried, 5);
    rig.queue.reported(id(1), rig.at);
    assert_eq!(rig.said(), ["settle 1"]);
}

#[test]
fn a_message_found_after_its_time_is_tried_once_more_before_it_is_given_up() {
    let mut rig = Rig::new();
    rig.queue.recovered(recovered(1, rig.at.unix - 72 * 3600, None), rig.at);
    rig.queue.turn(rig.at);
    assert_eq!(rig.said(), ["attempt 1 0 [0]", "attempt 1 1 [1]"]);
    rig.outcome(1, 0, &[(0, ok())]);
    rig.outcome(1, 1, &[(1, later())]);
    assert_eq!(rig.said(), ["report 1 [Expired]"]);
}

#[test]
fn a_clock_that_went_back_makes_no_message_of_the_future() {
    let mut rig = Rig::new();
    rig.queue.recovered(recovered(1, rig.at.unix + 10_000, None), rig.at);
    rig.queue.turn(rig.at);
    assert_eq!(rig.said().len(), 2);
    rig.outcome(1, 0, &[(0, ok())]);
    rig.outcome(1, 1, &[(1, later())]);
    rig.pass(48 * HOUR);
    assert_eq!(rig.said(), ["attempt 1 1 [1]"].map(|_| "report 1 [Expired]"));
}

#[test]
fn no_more_attempts_of_a_route_run_at_once_than_it_may_have() {
    let mut rig = Rig::with(Terms { attempts: 2, ..terms() });
    for number in 1..=5 {
        rig.queue.take(message(number, &[&[0]], Client::Nobody), rig.at);
    }
    assert_eq!(rig.said(), ["attempt 1 0 [0]", "attempt 2 0 [0]"]);
    // A client that waits is not kept waiting.
    rig.take(6, &[&[0]]);
    assert_eq!(rig.said(), ["attempt 6 0 [0]"]);
    rig.outcome(6, 0, &[(0, ok())]);
    assert_eq!(rig.said(), ["acknowledge 6 NextHop", "settle 6"]);
    for number in 1..=5 {
        rig.outcome(number, 0, &[(0, ok())]);
        let mut expected = vec![format!("settle {number}")];
        if number <= 3 {
            expected.insert(0, format!("attempt {} 0 [0]", number + 2));
        }
        assert_eq!(rig.said(), expected);
    }
    rig.ends_with_nothing();
}

#[test]
fn a_turn_looks_at_a_bounded_number_and_says_that_there_are_more() {
    let mut rig = Rig::with(Terms {
        attempts: usize::MAX,
        ..terms()
    });
    for number in 0..2000 {
        rig.queue.recovered(recovered(number, rig.at.unix, None), rig.at);
    }
    let (mut attempts, mut turns) = (0, 0);
    while rig.queue.next_due().is_some_and(|due| due <= rig.at.now) {
        rig.queue.turn(rig.at);
        let said = rig.said().len();
        assert!((1..=1024).contains(&said), "{said}");
        attempts += said;
        turns += 1;
    }
    assert_eq!((attempts, turns), (4000, 4));
}

#[test]
fn words_that_many_messages_share_are_kept_once() {
    let mut rig = Rig::new();
    for number in 1..=3 {
        rig.deferred(message(number, &[&[0]], rig.waits()));
    }
    let said: Vec<_> = rig
        .queue
        .messages
        .values()
        .map(|message| message.last_said(0).unwrap())
        .collect();
    assert!(Arc::ptr_eq(&said[0], &said[1]) && Arc::ptr_eq(&said[1], &said[2]));
}
