//! The end of the process while messages wait, and the next start.

use crate::edge::Edge;
use crate::hop::{Act, Heard, Plan};
use crate::{FROM, home_of, send, to};

#[test]
fn messages_that_wait_for_a_silent_hop_are_answered_when_it_drains_and_delivered_after_the_next_start() {
    let silent = Plan::new()
        .script(|heard| match heard {
            Heard::End(_) => Act::Silent,
            _ => Act::Usual,
        })
        .up();
    let edge = Edge::start(&to(&[silent.target()]).toml());
    let mut clients: Vec<_> = (0..6).map(|_| edge.hello()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        send(client, &["b@example.com"], &format!("number {number}\r\n"));
    }
    silent.wait_for_end(6);
    edge.signal("TERM");
    let mut kept = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let reply = client.reply();
        if reply.starts_with("250 ") {
            kept.push(number);
        } else {
            assert!(reply.starts_with('4'), "{reply}");
        }
    }
    let home = home_of(edge);
    let hop = crate::Hop::up();
    let edge = Edge::start_in(home, &to(&[hop.target()]).toml());
    let taken = hop.wait_for(kept.len());
    for number in kept {
        let end = format!("number {number}\r\n");
        let copies = taken.iter().filter(|t| t.content.ends_with(end.as_bytes())).count();
        assert_eq!(copies, 1, "{end}");
    }
    edge.wait_for_metric("postern_queue_messages", 0.0);
}

#[test]
fn what_waits_in_the_spool_survives_a_start_with_another_number_of_shards() {
    let mut hop = Plan::new().down();
    let edge = Edge::start(&to(&[hop.target()]).top("shards = 2").toml());
    let ids: Vec<_> = (0..5)
        .map(|number| {
            edge.hello()
                .accepted(FROM, &["b@example.com"], format!("number {number}\r\n"))
        })
        .collect();
    let home = home_of(edge);
    let edge = Edge::start_in(home, &to(&[hop.target()]).top("shards = 1").toml());
    edge.wait_for_metric("postern_queue_messages", 5.0);
    hop.come_up();
    hop.wait_for(5);
    for id in ids {
        edge.wait_for(&format!("delivery id={id} ..status=sent"));
    }
    edge.wait_for_metric("postern_queue_messages", 0.0);
    assert_eq!(hop.seen().len(), 5);
    // Nothing is found again by the start after that.
    let home = home_of(edge);
    let edge = Edge::start_in(home, &to(&[hop.target()]).toml());
    assert_eq!(edge.metric("postern_queue_messages"), 0.0);
    assert_eq!(hop.seen().len(), 5);
}
