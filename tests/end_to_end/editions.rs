//! Where the editions of the document differ: after a limit that 2011 closes at and 2021 does not.

use crate::client::Client;
use crate::edge::Edge;
use crate::settings::Settings;

/// Passes a limit that the editions treat differently, and tells what was said.
type Passes = fn(&mut Client) -> String;

const LIMITS: &str =
    "max_recipients = 1\nmax_hop_count = 1\nmax_local_hop_count = 1\nmax_header_size = 200\nmax_message_size = 400";

fn too_many_recipients(client: &mut Client) -> String {
    client.envelope("a@client.test", &["b@example.com"]);
    client.ask("RCPT TO:<c@example.com>")
}

fn too_many_hops(client: &mut Client) -> String {
    client.deliver(
        "a@client.test",
        &["b@example.com"],
        "Received: by a.test; x\r\nReceived: by b.test; x\r\n\r\nx\r\n",
    )
}

fn too_long_a_header(client: &mut Client) -> String {
    client.deliver(
        "a@client.test",
        &["b@example.com"],
        format!("X: {}\r\n\r\nx\r\n", "x".repeat(200)),
    )
}

fn too_long_a_message(client: &mut Client) -> String {
    client.deliver(
        "a@client.test",
        &["b@example.com"],
        format!("\r\n{}\r\n", "x".repeat(400)),
    )
}

fn too_long_as_announced(client: &mut Client) -> String {
    client.ask("MAIL FROM:<a@client.test> SIZE=401")
}

const CASES: [(Passes, &str); 5] = [
    (too_many_recipients, "452 4.5.3 Too many recipients"),
    (too_many_hops, "554 5.4.6 Hop count exceeded - possible mail loop"),
    (too_long_a_header, "552 5.3.4 Header size exceeds fixed maximum size"),
    (
        too_long_a_message,
        "552 5.3.4 Message size exceeds fixed maximum message size",
    ),
    (
        too_long_as_announced,
        "552 5.3.4 Message size exceeds fixed maximum message size",
    ),
];

#[test]
fn in_2011_a_limit_ends_the_session() {
    let edge = Edge::start(&Settings::new().top("edition = \"2011\"").limits(LIMITS).toml());
    for (passes, reply) in CASES {
        let mut client = edge.hello();
        assert_eq!(passes(&mut client), reply);
        client.expect_close();
    }
    assert_eq!(edge.mail("mail").len(), 0);
}

#[test]
fn in_2021_a_session_goes_on_after_the_same_limits() {
    let edge = Edge::start(&Settings::new().limits(LIMITS).toml());
    let mut client = edge.hello();
    for (passes, reply) in CASES {
        assert_eq!(passes(&mut client), reply);
        client.command("RSET", "250 ");
    }
    client.accepted("a@client.test", &["b@example.com"], "x\r\n");
    assert_eq!(edge.mail("mail").len(), 1);
}
