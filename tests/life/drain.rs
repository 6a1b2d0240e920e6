//! SIGTERM and SIGINT.

use std::time::Duration;

use crate::client::Client;
use crate::config;
use crate::edge::Edge;

const NOT_AVAILABLE: &str = "421 4.3.2 Service not available";

/// A client that has sent half of a message.
fn in_data(edge: &Edge) -> Client {
    let mut client = edge.hello();
    client.envelope("a@client.test", &["b@example.com"]);
    client.command("DATA", "354 ");
    client.send("Subject: half\r\n\r\nfirst\r\n");
    client
}

fn idle_sessions_end_newcomers_are_refused_and_a_transaction_finishes(signal: &str) {
    let edge = Edge::start(&config("shards = 1\ndrain_timeout = \"1h\"", "", ""));
    let mut busy = in_data(&edge);
    let mut begun = edge.hello();
    begun.command("MAIL FROM:<c@client.test>", "250 ");
    let (mut idle, mut greeted) = (edge.hello(), edge.connect());
    greeted.expect_reply("220 ");
    edge.signal(signal);
    for client in [&mut idle, &mut greeted] {
        assert_eq!(client.reply(), NOT_AVAILABLE);
        client.expect_close();
    }
    for _ in 0..3 {
        let mut newcomer = edge.connect();
        assert_eq!(newcomer.reply(), "421 4.4.2 Connection dropped");
        newcomer.expect_close();
    }
    assert!(edge.metric("postern_connections") >= 2.0);
    busy.send("second\r\n.\r\n");
    busy.expect_reply("250 2.6.0 ");
    let mail = edge.mail("mail");
    assert_eq!(mail.len(), 1);
    assert!(mail[0].ends_with(b"first\nsecond\n"));
    assert_eq!(busy.reply(), NOT_AVAILABLE);
    busy.expect_close();
    // One that has only said MAIL may go on to its end as well.
    assert!(begun.deliver_rest("b@example.com").starts_with("250 2.6.0 "));
    assert_eq!(begun.reply(), NOT_AVAILABLE);
    drop((busy, begun, idle, greeted));
    let mut edge = edge;
    assert_eq!(edge.wait_for_exit().code(), Some(0));
    assert!(
        edge.log().last().unwrap().contains("postern stopped"),
        "{:#?}",
        edge.log()
    );
}

impl Client {
    /// RCPT, DATA and a short message.
    fn deliver_rest(&mut self, to: &str) -> String {
        self.command(&format!("RCPT TO:<{to}>"), "250 ");
        self.data("Subject: x\r\n\r\nlate\r\n")
    }
}

#[test]
fn on_sigterm_idle_sessions_end_newcomers_are_refused_and_a_transaction_finishes() {
    idle_sessions_end_newcomers_are_refused_and_a_transaction_finishes("TERM");
}

#[test]
fn on_sigint_idle_sessions_end_newcomers_are_refused_and_a_transaction_finishes() {
    idle_sessions_end_newcomers_are_refused_and_a_transaction_finishes("INT");
}

#[test]
fn a_transaction_that_outlasts_the_drain_is_ended_and_leaves_no_file() {
    let edge = Edge::start(&config("shards = 2\ndrain_timeout = \"300ms\"", "", ""));
    let mut clients: Vec<_> = (0..4).map(|_| in_data(&edge)).collect();
    edge.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.reply(), NOT_AVAILABLE);
        client.expect_close();
    }
    drop(clients);
    let mut edge = edge;
    assert_eq!(edge.wait_for_exit().code(), Some(0));
    assert!(edge.mail("mail").is_empty());
    assert_eq!(crate::unfinished(&edge), 0);
}

#[test]
fn a_second_signal_ends_transactions_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let edge = Edge::start(&config("shards = 2\ndrain_timeout = \"1h\"", "", ""));
        let mut client = in_data(&edge);
        edge.signal(first);
        edge.wait_for("draining");
        assert!(client.is_silent_for(Duration::from_millis(200)));
        edge.signal(second);
        assert_eq!(client.reply(), NOT_AVAILABLE);
        client.expect_close();
        drop(client);
        let mut edge = edge;
        assert_eq!(edge.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn a_client_that_is_kept_waiting_by_the_tarpit_is_let_go() {
    let text = config("shards = 1\ndrain_timeout = \"1h\"", "", "").replace("tarpit = \"0s\"", "tarpit = \"10m\"");
    let mut edge = Edge::start(&text);
    let mut client = edge.hello();
    client.send("NONSENSE\r\n");
    // The next command shows that the first one was taken: it is not read before the tarpit is over.
    edge.wait_for_metric("postern_connections", 1.0);
    assert!(client.is_silent_for(Duration::from_millis(300)));
    edge.signal("TERM");
    assert_eq!(client.rest().lines().last(), Some(NOT_AVAILABLE));
    drop(client);
    assert_eq!(edge.wait_for_exit().code(), Some(0));
}
