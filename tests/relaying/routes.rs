//! Messages with several ways to go, targets of other kinds, LMTP.

use crate::edge::Edge;
use crate::hop::{Act, Heard, Hop, Plan, say};
use crate::settings::Settings;
use crate::{FROM, behind_received, custody, edge, to};

#[test]
fn recipients_of_one_message_go_by_their_own_routes() {
    let hop = Hop::up();
    let routes = format!(
        "[[next_hop]]\ndomains = [\"files.example\"]\nto = [\"maildir:mail\"]\n[[next_hop]]\nto = [\"{}\"]",
        hop.target()
    );
    let edge = Edge::start(&Settings::new().sections(&routes).toml());
    let id = edge.hello().accepted(
        FROM,
        &["b@files.example", "c@example.com", "d@example.com"],
        "Subject: x\r\n\r\nx\r\n",
    );
    assert!(["next_hop", "spool"].contains(&&*custody(&edge, &id)));
    edge.wait_for_number(&format!("delivery id={id} ..status=sent"), 2);
    let taken = hop.wait_for(1);
    assert_eq!(taken[0].recipients, ["c@example.com", "d@example.com"]);
    let mail = edge.mail("mail");
    assert_eq!(mail.len(), 1);
    let mail = String::from_utf8(mail.concat()).unwrap();
    assert!(
        mail.contains("Delivered-To: b@files.example\n") && mail.ends_with("Subject: x\n\nx\n"),
        "{mail}"
    );
    assert!(!mail.contains("c@example.com"), "{mail}");
}

#[test]
fn one_route_may_defer_while_the_other_delivers() {
    let mut down = Plan::new().down();
    let up = Hop::up();
    let routes = format!(
        "[[next_hop]]\ndomains = [\"late.example\"]\nto = [\"{}\"]\n[[next_hop]]\nto = [\"{}\"]\n[queue]\nretry = [\"1s\"]",
        down.target(),
        up.target()
    );
    let edge = Edge::start(&Settings::new().sections(&routes).toml());
    let id = edge
        .hello()
        .accepted(FROM, &["b@late.example", "c@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    assert_eq!(up.wait_for(1)[0].recipients, ["c@example.com"]);
    down.come_up();
    assert_eq!(down.wait_for(1)[0].recipients, ["b@late.example"]);
    edge.wait_for_metric("postern_queue_messages", 0.0);
    assert_eq!(up.seen().len(), 1);
}

#[test]
fn a_maildir_takes_what_the_server_before_it_does_not() {
    let hop = Plan::new().down();
    let edge = Edge::start(&to(&[hop.target(), "maildir:mail".to_owned()]).toml());
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert!(["delivered", "spool"].contains(&&*custody(&edge, &id)));
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
    assert_eq!(edge.mail("mail").len(), 1);
}

#[test]
fn every_recipient_has_its_own_reply_in_lmtp() {
    let hop = Plan::new()
        .lmtp()
        .script(|heard| match heard {
            Heard::End("later@example.com") => say("451 4.2.2 mailbox locked"),
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop);
    let id = edge
        .hello()
        .accepted(FROM, &["now@example.com", "later@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "spool");
    edge.wait_for(&format!("delivery id={id} ..to=now@example.com ..status=sent"));
    hop.wait_for_end(2);
    let seen = hop.seen();
    assert_eq!(seen[0].recipients, ["now@example.com", "later@example.com"]);
    assert_eq!(seen[1].recipients, ["later@example.com"]);
    assert_eq!(behind_received(&seen[1].content), b"x\r\n");
    assert!(hop.commands()[0].starts_with("LHLO "), "{:?}", hop.commands());
}

#[test]
fn all_recipients_refused_in_lmtp_are_refused_to_the_client() {
    let hop = Plan::new()
        .lmtp()
        .script(|heard| match heard {
            Heard::End(_) => say("552 5.2.2 over quota"),
            _ => Act::Usual,
        })
        .up();
    let edge = edge(&hop);
    let reply = edge.hello().deliver(FROM, &["b@example.com", "c@example.com"], "x\r\n");
    assert!(
        reply.starts_with("552 5.2.2 ") && reply.contains("over quota"),
        "{reply}"
    );
}
