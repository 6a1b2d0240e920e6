//! When a client is told what.

use super::*;
use crate::spool::Fate;

#[test]
fn what_the_hop_takes_is_acknowledged_and_never_touches_the_disk() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0, 1]]);
    assert_eq!(rig.said(), ["attempt 1 0 [0, 1]"]);
    rig.outcome(1, 0, &[(0, ok()), (1, ok())]);
    assert_eq!(
        rig.all_said(),
        ["log 1 [0, 1] sent", "acknowledge 1 NextHop", "settle 1"]
    );
    assert_eq!(rig.updates, []);
    rig.ends_with_nothing();
}

#[test]
fn what_goes_into_mailboxes_only_is_delivered() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0], &[1]]);
    let maildir = Taker {
        hop: "maildir".into(),
        kind: FINAL,
    };
    assert_eq!(rig.said(), ["attempt 1 0 [0]", "attempt 1 1 [1]"]);
    rig.queue.outcomes(id(1), 1, &maildir, vec![(1, ok())], rig.at);
    assert_eq!(rig.said(), [""; 0]);
    rig.queue.outcomes(id(1), 0, &maildir, vec![(0, ok())], rig.at);
    assert_eq!(rig.said(), ["acknowledge 1 Delivered", "settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn when_all_are_refused_for_good_the_refusal_is_the_hops_and_no_report_is_written() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0], &[1]]);
    rig.said();
    rig.outcome(1, 0, &[(0, never())]);
    assert_eq!(rig.said(), [""; 0]);
    let full = Outcome::Failed(HopReply::heard(552, b"5.2.2 Full"));
    rig.outcome(1, 1, &[(1, full)]);
    assert_eq!(rig.said(), ["refuse 1 550 5.1.1 Unknown", "settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn when_some_are_refused_for_good_the_report_is_durable_before_the_250() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0, 1]]);
    rig.said();
    rig.outcome(1, 0, &[(0, ok()), (1, never())]);
    assert_eq!(rig.said(), ["report 1 [Failed]"]);
    // The delay ends meanwhile: the report is on its way to the disk, nothing else is needed.
    rig.pass(DELAY);
    assert_eq!(rig.said(), [""; 0]);
    rig.queue.reported(id(1), rig.at);
    assert_eq!(rig.said(), ["acknowledge 1 Spool", "settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn when_that_report_cannot_be_written_the_client_keeps_the_message() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0, 1]]);
    rig.said();
    rig.outcome(1, 0, &[(0, ok()), (1, never())]);
    rig.said();
    rig.queue.cannot_report(id(1), rig.at);
    assert_eq!(rig.said(), ["refuse 1", "settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn when_some_are_refused_and_nobody_is_to_hear_of_it_nothing_is_written() {
    let mut rig = Rig::new();
    let mut new = message(1, &[&[0, 1]], rig.waits());
    notify(&mut new, 1, Notify::Never);
    rig.queue.take(new, rig.at);
    let mut from_nobody = message(2, &[&[0, 1]], rig.waits());
    from_nobody.envelope.reverse_path = ReversePath::Null;
    rig.queue.take(from_nobody, rig.at);
    rig.said();
    for number in [1, 2] {
        rig.outcome(number, 0, &[(0, ok()), (1, never())]);
        let expected = [format!("acknowledge {number} NextHop"), format!("settle {number}")];
        assert_eq!(rig.said(), expected);
    }
    rig.ends_with_nothing();
}

#[test]
fn a_deferral_makes_the_message_durable_then_acknowledged_and_only_the_rest_is_left() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0, 1]]);
    rig.said();
    rig.outcome(1, 0, &[(0, ok()), (1, later())]);
    assert_eq!(rig.all_said(), ["log 1 [0] sent", "log 1 [1] deferred", "persist 1"]);
    let (_, progress) = rig.updates.pop().unwrap();
    assert_eq!(progress.recipients[0], Fate::Settled);
    let Fate::Waiting { attempts, due, last } = &progress.recipients[1] else {
        panic!("{progress:?}");
    };
    assert_eq!((*attempts, *due), (1, rig.at.unix + 15));
    assert_eq!(&*last.as_ref().unwrap().hop, "hub.test");
    rig.durable(1);
    assert_eq!(rig.said(), ["acknowledge 1 Spool"]);
    assert_eq!(rig.next(), (15 * SECOND, vec!["attempt 1 0 [1]".into()]));
    rig.outcome(1, 0, &[(1, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn no_hop_is_a_deferral_and_a_5xx_of_it_a_refusal() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0]]);
    rig.take(2, &[&[0]]);
    rig.said();
    rig.queue
        .no_hop(id(1), 0, HopReply::heard(451, b"4.4.1 Nobody"), rig.at);
    assert_eq!(rig.said(), ["persist 1"]);
    rig.queue
        .no_hop(id(2), 0, HopReply::heard(556, b"5.1.10 Null MX"), rig.at);
    assert_eq!(rig.said(), ["refuse 2 556 5.1.10 Null MX", "settle 2"]);
}

#[test]
fn at_the_end_of_the_delay_the_message_becomes_durable_and_the_attempt_goes_on() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0]]);
    rig.said();
    rig.pass(DELAY - SECOND);
    assert_eq!(rig.said(), [""; 0]);
    assert_eq!(rig.next(), (SECOND, vec!["persist 1".into()]));
    rig.durable(1);
    assert_eq!(rig.said(), ["acknowledge 1 Spool"]);
    rig.outcome(1, 0, &[(0, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn an_outcome_on_the_way_to_the_disk_acknowledges_at_once_and_settles_after() {
    let mut rig = Rig::new();
    for number in [1, 2, 3] {
        rig.take(number, &[&[0, 1]]);
    }
    rig.said();
    rig.pass(DELAY);
    assert_eq!(rig.said(), ["persist 1", "persist 2", "persist 3"]);
    rig.outcome(1, 0, &[(0, ok()), (1, ok())]);
    assert_eq!(rig.said(), ["acknowledge 1 NextHop"]);
    rig.durable(1);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.outcome(2, 0, &[(0, never()), (1, never())]);
    assert_eq!(rig.said(), ["refuse 2 550 5.1.1 Unknown"]);
    rig.queue.cannot_persist(id(2), rig.at);
    assert_eq!(rig.said(), ["settle 2"]);
    rig.outcome(3, 0, &[(0, ok()), (1, never())]);
    assert_eq!(rig.said(), [""; 0]);
    rig.durable(3);
    assert_eq!(rig.said(), ["acknowledge 3 Spool", "report 3 [Failed]"]);
    rig.queue.reported(id(3), rig.at);
    assert_eq!(rig.said(), ["settle 3"]);
    rig.ends_with_nothing();
}

#[test]
fn what_cannot_be_stored_is_refused_unless_everybody_has_it_meanwhile() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0], &[1]]);
    rig.take(2, &[&[0]]);
    rig.said();
    rig.pass(DELAY);
    rig.said();
    rig.outcome(1, 0, &[(0, ok())]);
    rig.queue.cannot_persist(id(1), rig.at);
    // The attempt under way still has the content.
    assert_eq!(rig.said(), ["refuse 1"]);
    rig.outcome(1, 1, &[(1, later())]);
    assert_eq!(rig.all_said(), ["log 1 [1] dropped", "settle 1"]);
    rig.outcome(2, 0, &[(0, ok())]);
    rig.queue.cannot_persist(id(2), rig.at);
    assert_eq!(rig.said(), ["acknowledge 2 NextHop", "settle 2"]);
    rig.ends_with_nothing();
}

#[test]
fn a_client_that_goes_keeps_its_copy_of_what_no_hop_takes() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0], &[1, 2]]);
    rig.said();
    rig.outcome(1, 0, &[(0, ok())]);
    rig.queue.client_gone(id(1), rig.at);
    assert_eq!(rig.all_said(), ["log 1 [0] sent"]);
    rig.pass(DELAY);
    assert_eq!(rig.said(), [""; 0]);
    rig.outcome(1, 1, &[(1, later()), (2, ok())]);
    assert_eq!(rig.all_said(), ["log 1 [2] sent", "log 1 [1] dropped", "settle 1"]);
    assert_eq!(rig.updates, []);
    rig.ends_with_nothing();
}

#[test]
fn a_client_that_goes_while_the_disk_is_asked_keeps_its_copy_too() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0]]);
    rig.outcome(1, 0, &[(0, later())]);
    rig.said();
    rig.queue.client_gone(id(1), rig.at);
    assert_eq!(rig.all_said(), ["log 1 [0] dropped"]);
    rig.durable(1);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn a_client_that_goes_after_its_reply_changes_nothing() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.queue.client_gone(id(1), rig.at);
    assert_eq!(rig.next(), (15 * SECOND, vec!["attempt 1 0 [0]".into()]));
}

#[test]
fn without_a_delay_the_message_is_durable_before_it_is_tried() {
    let mut rig = Rig::new();
    rig.queue.take(message(1, &[&[0]], Client::WaitsForDurable), rig.at);
    rig.queue.take(message(2, &[&[0]], Client::WaitsForDurable), rig.at);
    assert_eq!(rig.said(), ["persist 1", "persist 2"]);
    rig.durable(1);
    assert_eq!(rig.said(), ["acknowledge 1 Spool", "attempt 1 0 [0]"]);
    rig.queue.cannot_persist(id(2), rig.at);
    assert_eq!(rig.said(), ["refuse 2", "settle 2"]);
    rig.outcome(1, 0, &[(0, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn draining_makes_durable_what_is_not_acknowledged_and_begins_nothing() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.take(2, &[&[0], &[1]]);
    rig.take(3, &[&[0, 1]]);
    rig.said();
    rig.outcome(3, 0, &[(0, ok()), (1, never())]);
    assert_eq!(rig.said(), ["report 3 [Failed]"]);
    rig.queue.drain(rig.at);
    assert_eq!(rig.said(), ["persist 2"]);
    assert_eq!(rig.queue.next_due(), None);
    rig.durable(2);
    rig.queue.reported(id(3), rig.at);
    assert_eq!(rig.said(), ["acknowledge 2 Spool", "acknowledge 3 Spool", "settle 3"]);
    assert!(!rig.queue.is_drained(), "two attempts are under way");
    // A transaction that was begun may end; what it brings waits for the next process.
    rig.take(4, &[&[0]]);
    assert_eq!(rig.said(), ["persist 4"]);
    rig.durable(4);
    rig.outcome(2, 0, &[(0, ok())]);
    rig.outcome(2, 1, &[(1, never())]);
    assert_eq!(rig.said(), ["acknowledge 4 Spool"]);
    assert!(rig.queue.is_drained());
    let (of, progress) = rig.updates.pop().unwrap();
    assert_eq!(of, id(2));
    assert!(matches!(&progress.recipients[..], [Fate::Settled, Fate::Failed(_)]));
    rig.pass(HOUR);
    assert_eq!(rig.said(), [""; 0]);
}

#[test]
fn a_mixed_outcome_while_draining_is_made_durable_with_the_report_still_owed() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0], &[1]]);
    rig.said();
    rig.outcome(1, 0, &[(0, never())]);
    rig.queue.drain(rig.at);
    assert_eq!(rig.said(), ["persist 1"]);
    rig.outcome(1, 1, &[(1, ok())]);
    rig.durable(1);
    assert_eq!(rig.said(), ["acknowledge 1 Spool"]);
    assert!(rig.queue.is_drained());
    let (_, progress) = rig.updates.pop().unwrap();
    assert!(matches!(&progress.recipients[..], [Fate::Failed(_), Fate::Settled]));
}

#[test]
fn what_nobody_asked_for_is_not_heard() {
    let mut rig = Rig::new();
    rig.take(1, &[&[0]]);
    rig.said();
    rig.durable(1);
    rig.queue.cannot_persist(id(1), rig.at);
    rig.queue.reported(id(1), rig.at);
    rig.queue.cannot_report(id(1), rig.at);
    rig.outcome(1, 1, &[(0, ok())]);
    rig.outcome(7, 0, &[(0, ok())]);
    rig.take(1, &[&[0]]);
    assert_eq!(rig.all_said(), [""; 0]);
    rig.outcome(1, 0, &[(5, ok()), (0, ok())]);
    assert_eq!(rig.all_said(), ["log 1 [0] sent", "acknowledge 1 NextHop", "settle 1"]);
    rig.outcome(1, 0, &[(0, ok())]);
    assert_eq!(rig.all_said(), [""; 0]);
    rig.ends_with_nothing();
}

#[test]
fn a_recipient_without_a_route_is_tried_and_so_kept() {
    let mut rig = Rig::new();
    let mut new = message(1, &[&[0]], rig.waits());
    new.envelope = envelope("s@a.test", 2);
    rig.queue.take(new, rig.at);
    assert_eq!(rig.said(), ["attempt 1 0 [0]", "attempt 1 1 [1]"]);
    assert_eq!(rig.queue.group(id(1), 1), Some((NO_ROUTE, None)));
}
