//! Which connections there are, and which addresses are tried.

use crate::edge::Edge;
use crate::hop::{Act, Heard, Hop, Plan, say};
use crate::{FROM, custody, edge, to};

#[test]
fn messages_one_after_the_other_share_a_kept_connection() {
    let hop = Hop::up();
    // One shard, or each has a connection of its own.
    let edge = Edge::start(&to(&[hop.target()]).top("shards = 1").toml());
    let mut client = edge.hello();
    for number in 0..10 {
        client.accepted(FROM, &["b@example.com"], format!("number {number}\r\n"));
    }
    assert_eq!(hop.taken().len(), 10);
    assert_eq!(hop.connections(), 1);
}

#[test]
fn a_kept_connection_that_the_hop_has_ended_loses_no_message() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::End(_) => Act::SayAndReset("250 2.0.0 the last one".to_owned()),
            _ => Act::Usual,
        })
        .lacks(&["PIPELINING"])
        .up();
    let edge = edge(&hop);
    let mut client = edge.hello();
    for number in 0..5 {
        client.accepted(FROM, &["b@example.com"], format!("number {number}\r\n"));
        hop.wait_for_end(number + 1);
    }
    edge.wait_for_metric("postern_queue_messages", 0.0);
    for number in 0..5 {
        let end = format!("number {number}\r\n");
        assert!(hop.seen().iter().any(|taken| taken.content.ends_with(end.as_bytes())));
    }
}

#[test]
fn of_two_equal_targets_the_dead_one_is_passed_over() {
    // The dead one closes what it accepts, so that attempts can be counted.
    let dead = Plan::new()
        .script(|heard| match heard {
            Heard::Connection => say("421 4.3.2 out of service"),
            _ => Act::Usual,
        })
        .up();
    let alive = Hop::up();
    let edge = Edge::start(&to(&[dead.target(), alive.target()]).top("shards = 1").toml());
    let mut client = edge.hello();
    for number in 0..30 {
        let id = client.accepted(FROM, &["b@example.com"], format!("number {number}\r\n"));
        assert_eq!(custody(&edge, &id), "next_hop");
    }
    assert_eq!(alive.taken().len(), 30);
    assert_eq!(dead.seen().len(), 0);
    // Once, and once again for each probe: a second after the first failure at the earliest.
    assert!((1..15).contains(&dead.connections()), "{}", dead.connections());
}

#[test]
fn a_target_that_goes_away_in_the_middle_of_a_transaction_is_followed_by_the_next() {
    let broken = Plan::new()
        .script(|heard| match heard {
            Heard::Rcpt(_) => Act::Reset,
            _ => Act::Usual,
        })
        .up();
    let alive = Hop::up();
    let edge = Edge::start(&to(&[broken.target(), alive.target()]).toml());
    let mut client = edge.hello();
    for number in 0..4 {
        let id = client.accepted(FROM, &["b@example.com"], format!("number {number}\r\n"));
        assert_eq!(custody(&edge, &id), "next_hop");
    }
    assert_eq!(alive.taken().len(), 4);
    assert!(broken.connections() > 0);
}

#[test]
fn no_more_connections_than_configured_are_open_at_once() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::Mail(_) => Act::Hold,
            _ => Act::Usual,
        })
        .up();
    let toml = to(&[hop.target()]).top("shards = 1").toml();
    let edge = Edge::start(&toml.replace("[queue]", "max_connections = 2\n[queue]"));
    std::thread::scope(|scope| {
        for number in 0..6 {
            let edge = &edge;
            scope.spawn(move || {
                edge.hello()
                    .accepted(FROM, &["b@example.com"], format!("number {number}\r\n"))
            });
        }
        hop.wait_for_command("MAIL");
        edge.wait_for_metric("postern_connections", 6.0);
        hop.release();
    });
    assert_eq!(hop.taken().len(), 6);
    assert!(hop.connections() <= 2, "{}", hop.connections());
}
