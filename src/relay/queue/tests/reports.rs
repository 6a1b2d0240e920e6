//! Who is told what, and who is not.

use super::*;

#[test]
fn failures_of_one_message_are_reported_together_once_no_attempt_runs() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0, 1], &[2]], rig.waits()));
    rig.pass(15 * SECOND);
    rig.said();
    rig.outcome(1, 0, &[(0, never()), (1, later())]);
    assert_eq!(rig.said(), [""; 0], "the other group is being tried");
    rig.outcome(1, 1, &[(2, never())]);
    assert_eq!(rig.said(), ["report 1 [Failed, Failed]"]);
    rig.queue.reported(id(1), rig.at);
    assert_eq!(rig.next(), (60 * SECOND, vec!["attempt 1 0 [1]".into()]));
    rig.outcome(1, 0, &[(1, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
}

#[test]
fn a_failure_is_not_reported_to_nobody_nor_where_that_is_not_wanted() {
    for (wanted, expected) in [
        (None, true),
        (Some(Notify::Never), false),
        (Some(on(true, false, true)), false),
        (Some(on(false, true, false)), true),
    ] {
        for sender in ["s@a.test", ""] {
            let mut rig = Rig::new();
            let mut new = message(1, &[&[0]], rig.waits());
            new.envelope = envelope(sender, 1);
            new.envelope.recipients[0].parameters.notify = wanted;
            rig.deferred(new);
            rig.pass(15 * SECOND);
            rig.said();
            rig.outcome(1, 0, &[(0, never())]);
            let said = if expected && !sender.is_empty() {
                "report 1 [Failed]"
            } else {
                "settle 1"
            };
            assert_eq!(rig.said(), [said], "{wanted:?} {sender}");
        }
    }
}

#[test]
fn a_delay_is_reported_once_to_authenticated_senders_and_where_asked_for() {
    for (authenticated, wanted, expected) in [
        (false, None, false),
        (true, None, true),
        (false, Some(on(false, true, true)), true),
        (true, Some(on(false, true, false)), false),
        (true, Some(Notify::Never), false),
    ] {
        let mut rig = Rig::new();
        let mut new = message(1, &[&[0, 1]], rig.waits());
        new.authenticated = authenticated;
        new.envelope.recipients[0].parameters.notify = wanted;
        new.envelope.recipients[1].parameters.notify = Some(Notify::Never);
        rig.deferred(new);
        let began = rig.at.now;
        let mut notices = Vec::new();
        while rig.at.now - began < 47 * HOUR {
            for said in rig.next().1 {
                match said.as_str() {
                    "attempt 1 0 [0, 1]" => rig.outcome(1, 0, &[(0, later()), (1, later())]),
                    "report 1 [Delayed]" => {
                        notices.push(rig.at.now - began);
                        rig.queue.reported(id(1), rig.at);
                    }
                    other => panic!("{other}"),
                }
            }
        }
        let expected: &[_] = if expected { &[4 * HOUR] } else { &[] };
        assert_eq!(notices, expected, "{authenticated} {wanted:?}");
        if let Some(report) = rig.reports.first() {
            assert!(rig.updates.last().unwrap().1.notified);
            assert_eq!(report.recipients[0].until, report.arrived + 48 * 3600);
        }
    }
}

#[test]
fn a_delivery_is_reported_where_asked_for_unless_the_hop_does_so() {
    let on_success = Some(on(true, true, false));
    for (wanted, kind, expected) in [
        (None, Kind::Relayed { dsn: false }, None),
        (on_success, Kind::Relayed { dsn: true }, None),
        (on_success, Kind::Relayed { dsn: false }, Some("report 1 [Relayed]")),
        (on_success, Kind::Final, Some("report 1 [Delivered]")),
    ] {
        let mut rig = Rig::new();
        let mut new = message(1, &[&[0]], rig.waits());
        new.envelope.recipients[0].parameters.notify = wanted;
        rig.queue.take(new, rig.at);
        rig.said();
        let hop = "hub.test".into();
        rig.queue
            .outcomes(id(1), 0, &Taker { hop, kind }, vec![(0, ok())], rig.at);
        let said = rig.said();
        assert!(said[0].starts_with("acknowledge 1"), "the mail is safe: {said:?}");
        assert_eq!(said[1], expected.unwrap_or("settle 1"));
        if expected.is_some() {
            rig.queue.reported(id(1), rig.at);
            assert_eq!(rig.said(), ["settle 1"]);
        }
        rig.ends_with_nothing();
    }
}

#[test]
fn news_of_a_delivery_that_cannot_be_written_are_let_go_with_the_message() {
    let mut rig = Rig::new();
    let mut new = message(1, &[&[0]], rig.waits());
    notify(&mut new, 0, on(true, false, false));
    rig.queue.take(new, rig.at);
    rig.outcome(1, 0, &[(0, ok())]);
    rig.said();
    rig.queue.cannot_report(id(1), rig.at);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn a_report_is_from_nobody_and_wants_none() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.pass(15 * SECOND);
    rig.outcome(1, 0, &[(0, never())]);
    rig.said();
    let envelope = rig.reports[0].envelope();
    assert_eq!(envelope.reverse_path, ReversePath::Null);
    assert_eq!(envelope.recipients[0].forward_path.as_str(), "s@a.test");
    assert_eq!(envelope.recipients[0].parameters.notify, Some(Notify::Never));
    // It is a message like any other, and its own failure ends it.
    let report = NewMessage {
        id: id(2),
        envelope,
        ..message(2, &[&[0]], Client::Nobody)
    };
    rig.queue.take(report, rig.at);
    rig.queue.reported(id(1), rig.at);
    assert_eq!(rig.said(), ["attempt 2 0 [0]", "settle 1"]);
    rig.outcome(2, 0, &[(0, never())]);
    assert_eq!(rig.all_said(), ["log 2 [0] bounced", "settle 2"]);
    rig.ends_with_nothing();
}
