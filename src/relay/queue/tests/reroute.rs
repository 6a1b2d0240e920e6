//! Other routes for what waits.

use super::*;

fn group(route: u16, recipients: &[u32]) -> NewGroup {
    NewGroup {
        route,
        domain: None,
        recipients: recipients.iter().copied().collect(),
    }
}

fn route(rig: &Rig, number: u64, place: usize) -> Option<u16> {
    rig.queue.group(id(number), place).map(|(route, _)| route)
}

#[test]
fn a_message_is_tried_at_once_by_its_new_routes_and_the_old_attempt_does_not_count() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0, 1]], rig.waits()));
    rig.pass(15 * SECOND);
    assert_eq!(rig.said(), ["attempt 1 0 [0, 1]"]);
    rig.queue
        .reroute(id(1), 0, vec![group(7, &[1]), group(8, &[0])], rig.at);
    let said = rig.said();
    assert_eq!(said.len(), 2, "{said:?}");
    let places: Vec<_> = (0..2)
        .map(|place| (route(&rig, 1, place), said[place].as_str()))
        .collect();
    assert_eq!(
        places,
        [(Some(8), "attempt 1 0 [0]"), (Some(7), "attempt 1 1 [1]")],
        "in the order of the recipients"
    );
    assert_eq!(rig.queue.show(id(1), rig.at).unwrap().attempts(), 1);
    rig.outcome(1, 0, &[(0, ok())]);
    rig.outcome(1, 1, &[(1, later())]);
    assert_eq!(rig.said(), [""; 0]);
    assert_eq!(rig.queue.show(id(1), rig.at).unwrap().attempts(), 2);
    let (wait, said) = rig.next();
    assert_eq!((wait, said), (60 * SECOND, vec!["attempt 1 1 [1]".to_owned()]));
    rig.outcome(1, 1, &[(1, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn an_attempt_under_way_keeps_its_place_and_is_not_tried_twice() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0], &[1], &[2]], rig.waits()));
    rig.pass(15 * SECOND);
    assert_eq!(rig.said().len(), 3);
    // The one of recipient 0 ends later; all three are to go by one route from now on.
    rig.outcome(1, 2, &[(2, later())]);
    rig.queue.reroute(id(1), 1, vec![group(9, &[0, 1, 2])], rig.at);
    assert_eq!(rig.said(), ["attempt 1 1 [1, 2]"], "2 goes along with 1");
    assert_eq!((route(&rig, 1, 0), route(&rig, 1, 1)), (Some(0), Some(9)));
    rig.outcome(1, 0, &[(0, ok())]);
    rig.outcome(1, 1, &[(1, ok()), (2, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn who_has_no_route_any_more_waits_for_one() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0]], rig.waits()));
    rig.pass(15 * SECOND);
    rig.said();
    rig.queue.reroute(id(1), 0, Vec::new(), rig.at);
    assert_eq!(rig.said(), ["attempt 1 0 [0]"]);
    assert_eq!(route(&rig, 1, 0), Some(NO_ROUTE));
    rig.queue
        .no_hop(id(1), 0, HopReply::heard(451, b"4.4.4 No route"), rig.at);
    let (wait, said) = rig.next();
    assert_eq!((wait, said), (60 * SECOND, vec!["attempt 1 0 [0]".to_owned()]));
    rig.queue.reroute(id(1), 0, vec![group(3, &[0])], rig.at);
    assert_eq!(rig.said(), ["attempt 1 0 [0]"]);
    assert_eq!(route(&rig, 1, 0), Some(3));
    rig.outcome(1, 0, &[(0, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}

#[test]
fn a_place_in_the_lane_of_the_old_route_is_given_up() {
    let mut rig = Rig::with(Terms { attempts: 1, ..terms() });
    for number in 1..=2 {
        rig.queue.take(message(number, &[&[0]], Client::Nobody), rig.at);
    }
    assert_eq!(rig.said(), ["attempt 1 0 [0]"]);
    rig.queue.reroute(id(1), 0, vec![group(5, &[0])], rig.at);
    assert_eq!(
        rig.said(),
        ["attempt 1 0 [0]", "attempt 2 0 [0]"],
        "each in its own lane"
    );
    rig.outcome(1, 0, &[(0, ok())]);
    rig.outcome(2, 0, &[(0, ok())]);
    assert_eq!(rig.said(), ["settle 1", "settle 2"]);
    rig.ends_with_nothing();
}

#[test]
fn a_report_that_is_owed_stays_owed_whatever_the_routes() {
    let mut rig = Rig::new();
    rig.deferred(message(1, &[&[0], &[1]], rig.waits()));
    rig.pass(15 * SECOND);
    rig.said();
    rig.outcome(1, 0, &[(0, never())]);
    assert_eq!(rig.said(), [""; 0], "1 is being tried");
    rig.queue.reroute(id(1), 1, vec![group(4, &[0, 1])], rig.at);
    let said = rig.said();
    assert_eq!(said, ["report 1 [Failed]", "attempt 1 0 [1]"]);
    assert_eq!(rig.reports.pop().unwrap().recipients[0].tried, rig.at.unix);
    rig.queue.reported(id(1), rig.at);
    rig.outcome(1, 0, &[(1, ok())]);
    assert_eq!(rig.said(), ["settle 1"]);
    rig.ends_with_nothing();
}
