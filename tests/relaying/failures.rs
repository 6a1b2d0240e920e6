//! Hops that are down, refuse, defer, break and babble.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::hop::{Act, Heard, Hop, Plan, say};
use crate::{FROM, behind_received, custody, edge, edge_with};

/// A hop that answers the first of these so, and everything else as usual.
fn once(is_it: impl Fn(Heard<'_>) -> bool + Send + Sync + 'static, act: Act) -> Hop {
    let times = Arc::new(AtomicUsize::new(0));
    Plan::new()
        .script(move |heard| match heard {
            heard if is_it(heard) && times.fetch_add(1, SeqCst) == 0 => act.clone(),
            _ => Act::Usual,
        })
        .up()
}

#[test]
fn mail_for_a_hop_that_is_down_is_acknowledged_from_the_spool_and_delivered_when_it_comes_up() {
    let mut hop = Plan::new().down();
    let edge = edge(&hop);
    let mut client = edge.hello();
    let id = client.accepted(FROM, &["b@example.com"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    edge.wait_for(&format!("delivery id={id} ..status=deferred"));
    assert_eq!(edge.metric("postern_queue_messages"), 1.0);
    assert_eq!(edge.metric("postern_spool_messages_total"), 1.0);
    assert!(edge.metric("postern_spool_octets_written_total") >= 4096.0);
    assert!(edge.metric("postern_spool_syncs_total") >= 1.0);
    hop.come_up();
    let taken = hop.wait_for(1);
    assert_eq!(behind_received(&taken[0].content), b"Subject: x\r\n\r\nx\r\n");
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
    edge.wait_for_metric("postern_queue_messages", 0.0);
    assert_eq!(hop.seen().len(), 1);
}

#[test]
fn a_hop_that_refuses_every_recipient_is_quoted_to_the_client_and_nobody_bounces() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::Rcpt(_) => say("550 5.1.1 nobody of that name here"),
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop);
    let mut client = edge.hello();
    let reply = client.deliver(FROM, &["b@example.com", "c@example.com"], "x\r\n");
    assert!(
        reply.starts_with("550 5.1.1 ") && reply.contains("nobody of that name here"),
        "{reply}"
    );
    edge.wait_for("delivery..status=bounced");
    assert_eq!(hop.seen().len(), 0);
    assert!(!hop.commands().iter().any(|line| line.starts_with("MAIL FROM:<>")));
    client.command("NOOP", "250 ");
}

#[test]
fn a_hop_that_refuses_the_content_is_quoted_to_the_client() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::End(_) => say("554 5.7.1 this smells"),
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop);
    let mut client = edge.hello();
    let reply = client.deliver(FROM, &["b@example.com"], "x\r\n");
    assert!(
        reply.starts_with("554 5.7.1 ") && reply.contains("this smells"),
        "{reply}"
    );
    let line = edge.wait_for("message id=..result=refused");
    assert!(!line.contains("custody="), "{line}");
    assert_eq!(hop.seen().len(), 1);
    edge.wait_for_metric("postern_queue_messages", 0.0);
}

/// 250 from the spool, and taken by the next attempt.
#[track_caller]
fn is_deferred(hop: &Hop, what: &str) {
    let edge = edge(hop);
    let content = "Subject: x\r\n\r\n.x\r\nlast\r\n";
    let id = edge.hello().accepted(FROM, &["b@example.com"], content);
    assert_eq!(custody(&edge, &id), "spool", "{what}");
    let taken = hop.wait_for(1);
    assert_eq!(behind_received(&taken[0].content), content.as_bytes(), "{what}");
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
}

/// All of these at once, each with an edge of its own.
fn are_deferred(hops: Vec<(&str, Hop)>) {
    std::thread::scope(|scope| {
        for (what, hop) in &hops {
            scope.spawn(move || is_deferred(hop, what));
        }
    });
}

#[test]
fn a_hop_that_defers_is_tried_again_wherever_it_does() {
    let data = AtomicUsize::new(0);
    let data = Plan::new()
        .lacks(&["CHUNKING", "BINARYMIME"])
        .script(move |heard| match heard {
            Heard::Data if data.fetch_add(1, SeqCst) == 0 => say("451 4.3.0 not now"),
            _ => Act::Usual,
        })
        .up();
    are_deferred(vec![
        (
            "greeting",
            once(|heard| heard == Heard::Connection, say("421 4.3.2 not now")),
        ),
        (
            "MAIL",
            once(|heard| matches!(heard, Heard::Mail(_)), say("451 4.3.0 not now")),
        ),
        (
            "RCPT",
            once(|heard| matches!(heard, Heard::Rcpt(_)), say("450 4.2.1 not now")),
        ),
        ("DATA", data),
        (
            "end",
            once(|heard| matches!(heard, Heard::End(_)), say("452 4.3.1 full")),
        ),
    ]);
}

#[test]
fn a_hop_that_goes_away_instead_of_a_reply_is_tried_again() {
    are_deferred(vec![
        (
            "closes at RCPT",
            once(|heard| matches!(heard, Heard::Rcpt(_)), Act::Close),
        ),
        (
            "resets at RCPT",
            once(|heard| matches!(heard, Heard::Rcpt(_)), Act::Reset),
        ),
        (
            "closes at the end",
            once(|heard| matches!(heard, Heard::End(_)), Act::Close),
        ),
        (
            "resets at the end",
            once(|heard| matches!(heard, Heard::End(_)), Act::Reset),
        ),
    ]);
}

#[test]
fn a_hop_that_goes_away_in_the_middle_of_content_is_tried_again() {
    let times = AtomicUsize::new(0);
    let hop = Plan::new()
        .lacks(&["CHUNKING", "BINARYMIME"])
        .script(move |heard| match heard {
            Heard::Content(octets) if octets > 100_000 && times.fetch_add(1, SeqCst) == 0 => Act::Close,
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop);
    let content = format!("\r\n{}", "a line of the content\r\n".repeat(30_000));
    let id = edge.hello().accepted(FROM, &["b@example.com"], &content);
    assert_eq!(custody(&edge, &id), "spool");
    let taken = hop.wait_for(1);
    assert!(behind_received(&taken[0].content) == content.as_bytes());
}

#[test]
fn a_hop_that_babbles_is_tried_again() {
    let mut hops = Vec::new();
    for garbage in [
        "hello there",
        "\u{1}\u{2}\u{3}",
        "99 too few digits",
        "250_no separator",
        "999 5.0.0 no such class",
    ] {
        hops.push((garbage, once(|heard| heard == Heard::Connection, say(garbage))));
        hops.push((garbage, once(|heard| matches!(heard, Heard::Mail(_)), say(garbage))));
    }
    are_deferred(hops);
}

#[test]
fn a_250_that_is_followed_by_a_reset_is_a_250() {
    let hop = once(
        |heard| matches!(heard, Heard::End(_)),
        Act::SayAndReset("250 2.0.0 taken".to_owned()),
    );
    let edge = edge(&hop);
    let mut client = edge.hello();
    let id = client.accepted(FROM, &["b@example.com"], "x\r\n");
    // The reset may overtake the reply in the kernel: then the message is sent again, never lost.
    let custody = custody(&edge, &id);
    assert!(["next_hop", "spool"].contains(&&*custody), "{custody}");
    hop.wait_for_end(if custody == "spool" { 2 } else { 1 });
    // The next message does not suffer.
    client.accepted(FROM, &["b@example.com"], "y\r\n");
    hop.wait_for_end(2);
}

#[test]
fn without_a_delay_the_message_is_durable_before_the_hop_hears_of_it() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::End(_) => Act::Hold,
            _ => Act::Usual,
        })
        .up();
    let edge = edge_with(&hop, "acknowledgement_delay = \"0s\"");
    let id = edge.hello().accepted(FROM, &["b@example.com"], "unmistakable\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    assert!(crate::is_spooled(&edge, "unmistakable"));
    hop.release();
    hop.wait_for(1);
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
}
