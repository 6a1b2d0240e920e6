//! How long the final reply waits for the hop, and clients that do not wait so long.

use std::time::{Duration, Instant};

use crate::hop::{Act, Heard, Plan};
use crate::{FROM, custody, edge_with, send};

fn slow(span: Duration) -> Plan {
    Plan::new().script(move |heard| match heard {
        Heard::End(_) => Act::After(span),
        _ => Act::Usual,
    })
}

#[test]
fn a_hop_that_never_answers_costs_the_client_the_delay_and_no_more() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::End(_) => Act::Hold,
            _ => Act::Usual,
        })
        .up();
    let edge = edge_with(&hop, "acknowledgement_delay = \"1s\"");
    let mut client = edge.hello();
    send(&mut client, &["b@example.com"], "x\r\n");
    let sent = Instant::now();
    let reply = client.expect_reply("250 2.6.0 ");
    let waited = sent.elapsed();
    assert!(waited >= Duration::from_millis(980), "{waited:?}");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    let id = crate::client::queue_id(&reply);
    assert_eq!(custody(&edge, &id), "spool");
    // The attempt goes on, and there is no second one.
    hop.release();
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
    assert_eq!(hop.seen().len(), 1);
}

#[test]
fn a_hop_that_answers_before_the_delay_is_over_has_the_message() {
    let hop = slow(Duration::from_millis(400)).up();
    let edge = edge_with(&hop, "acknowledgement_delay = \"15s\"");
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "next_hop");
}

#[test]
fn a_hop_that_answers_after_the_delay_gets_the_message_once() {
    let hop = slow(Duration::from_millis(900)).up();
    let edge = edge_with(&hop, "acknowledgement_delay = \"300ms\"");
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
    assert_eq!(hop.seen().len(), 1);
    edge.wait_for_metric("postern_queue_messages", 0.0);
}

#[test]
fn answers_around_the_end_of_the_delay_neither_lose_nor_double_a_message() {
    let hop = slow(Duration::from_millis(500)).up();
    let edge = edge_with(&hop, "acknowledgement_delay = \"500ms\"");
    std::thread::scope(|scope| {
        for client in 0..8 {
            let edge = &edge;
            scope.spawn(move || {
                let id = edge
                    .hello()
                    .accepted(FROM, &["b@example.com"], format!("number {client}\r\n"));
                assert!(["next_hop", "spool"].contains(&&*custody(edge, &id)));
            });
        }
    });
    edge.wait_for_number("delivery id=..status=sent", 8);
    edge.wait_for_metric("postern_queue_messages", 0.0);
    assert_eq!(hop.seen().len(), 8);
}

#[test]
fn a_message_whose_client_goes_away_before_its_reply_is_dropped() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::Mail(_) => Act::Hold,
            Heard::End(_) => crate::hop::say("451 4.3.0 not now"),
            _ => Act::Usual,
        })
        .up();
    let edge = edge_with(&hop, "acknowledgement_delay = \"15s\"");
    let mut client = edge.hello();
    send(&mut client, &["b@example.com"], "x\r\n");
    hop.wait_for_command("MAIL");
    drop(client);
    edge.wait_for("message id=..result=abandoned");
    hop.release();
    edge.wait_for("delivery id=..status=dropped");
    edge.wait_for_metric("postern_queue_messages", 0.0);
    assert_eq!(hop.taken().len(), 0);
    // Another one is delivered, and only that.
    let id = {
        let reply = edge.hello().deliver(FROM, &["c@example.com"], "y\r\n");
        crate::client::queue_id(&reply)
    };
    assert_eq!(custody(&edge, &id), "spool");
    assert!(
        hop.seen()
            .iter()
            .all(|taken| taken.recipients != ["b@example.com"] || !taken.accepted)
    );
}
