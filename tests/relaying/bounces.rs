//! Reports (RFC 3464) to senders: whom they go to, what they say, and when there is none.

use crate::edge::Edge;
use crate::hop::{Act, Heard, Hop, Plan, Taken, say};
use crate::{FROM, custody, edge, to};

/// A hop that refuses `nobody@…` and takes the rest.
fn picky() -> Hop {
    Plan::new()
        .script(|heard| match heard {
            Heard::Rcpt(path) if path.starts_with("nobody@") => say("550 5.1.1 nobody of that name here"),
            Heard::Rcpt(path) if path.starts_with("never@") => say("450 4.2.1 come back later"),
            _ => Act::Usual,
        })
        .up()
}

/// The only report that the hop has got.
#[track_caller]
fn only_report(taken: &[Taken]) -> (Taken, String) {
    let reports: Vec<_> = taken.iter().filter(|t| t.mail.starts_with("MAIL FROM:<>")).collect();
    assert_eq!(reports.len(), 1, "{taken:?}");
    (
        reports[0].clone(),
        String::from_utf8_lossy(&reports[0].content).into_owned(),
    )
}

#[test]
fn who_is_refused_among_others_is_reported_to_the_sender() {
    let hop = picky();
    let edge = edge(&hop);
    let content = "Subject: the original\r\n\r\nits content\r\n";
    let id = edge
        .hello()
        .accepted(FROM, &["b@example.com", "nobody@example.com"], content);
    assert!(["next_hop", "spool"].contains(&&*custody(&edge, &id)));
    let taken = hop.wait_for(2);
    let (report, text) = only_report(&taken);
    assert_eq!(report.recipients, [FROM]);
    for words in [
        "multipart/report",
        "message/delivery-status",
        "Reporting-MTA: dns; mx.example.com\r\n",
        "Final-Recipient: rfc822; nobody@example.com\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "550 5.1.1 nobody of that name here",
        "Subject: the original\r\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("b@example.com"), "{text}");
    let delivered = taken.iter().find(|t| !t.mail.starts_with("MAIL FROM:<>")).unwrap();
    assert_eq!(delivered.recipients, ["b@example.com"]);
    edge.wait_for_metric("postern_queue_messages", 0.0);
}

#[test]
fn the_null_reverse_path_is_told_nothing() {
    let hop = picky();
    let edge = edge(&hop);
    edge.hello()
        .accepted("", &["b@example.com", "nobody@example.com"], "x\r\n");
    edge.wait_for("delivery..to=nobody@example.com..status=bounced");
    edge.wait_for_metric("postern_queue_messages", 0.0);
    assert_eq!(hop.seen().len(), 1);
}

#[test]
fn what_expires_is_reported_to_the_sender() {
    let hop = picky();
    let toml = to(&[hop.target()]).toml() + "expire = \"2s\"\n";
    let edge = Edge::start(&toml);
    let id = edge
        .hello()
        .accepted(FROM, &["never@example.com"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    edge.wait_for(&format!("delivery id={id} ..status=expired"));
    let (report, text) = only_report(&hop.wait_for(1));
    assert_eq!(report.recipients, [FROM]);
    assert!(
        text.contains("Final-Recipient: rfc822; never@example.com\r\n"),
        "{text}"
    );
    assert!(
        text.contains("Action: failed\r\n") && text.contains("come back later"),
        "{text}"
    );
    edge.wait_for_metric("postern_queue_messages", 0.0);
}

#[test]
fn a_report_that_is_refused_is_not_reported() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::Rcpt(path) if path.starts_with("b@") => Act::Usual,
            Heard::Rcpt(_) => say("550 5.1.1 nobody of that name here"),
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop);
    edge.hello()
        .accepted(FROM, &["b@example.com", "nobody@example.com"], "x\r\n");
    edge.wait_for(&format!("delivery..to={FROM}..status=bounced"));
    edge.wait_for_metric("postern_queue_messages", 0.0);
    let reports = hop
        .commands()
        .iter()
        .filter(|line| line.starts_with("MAIL FROM:<>"))
        .count();
    assert_eq!(reports, 1);
}
