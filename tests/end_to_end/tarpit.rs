//! Error replies to strangers wait, and so does a stranger's next connection.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::edge::Edge;
use crate::settings::Settings;

const WAIT: Duration = Duration::from_millis(600);
/// What is certain to be less than a wait, and enough for all else to happen.
const EARLY: Duration = Duration::from_millis(250);

fn settings() -> Settings {
    Settings::new().limits("tarpit = \"600ms\"")
}

/// How long something takes.
fn time<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = what();
    (began.elapsed(), result)
}

#[test]
fn an_error_waits_and_what_was_said_before_it_does_not() {
    let edge = Edge::start(&settings().toml());
    let mut client = edge.hello();
    let began = Instant::now();
    client.send("NOOP\r\nMAIL FROM:<a@client.test>\r\nNONSENSE\r\nNOOP\r\n");
    client.expect_reply("250 2.0.0 ");
    client.expect_reply("250 2.1.0 ");
    // On a busy machine the two may have taken long: then nothing is shown here.
    if began.elapsed() < EARLY {
        assert!(
            client.is_silent_for(EARLY),
            "the error came early: {}",
            client.transcript()
        );
    }
    client.expect_reply("500 5.5.1 ");
    assert!(began.elapsed() >= WAIT);
    client.expect_reply("250 2.0.0 ");
    // A second error waits again, a good reply does not.
    let (took, _) = time(|| client.command("RCPT TO:<>", "501 5.1.3 "));
    assert!(took >= WAIT, "{took:?}");
}

#[test]
fn the_next_connection_of_the_address_waits_once() {
    let edge = Edge::start(&settings().toml());
    let mut client = edge.connect_from("127.0.0.7").hello();
    client.command("NONSENSE", "500 ");
    client.command("NONSENSE", "500 ");
    client.command("QUIT", "221 ");
    let mut second = edge.connect_from("127.0.0.7");
    let (took, _) = time(|| second.expect_reply("220 "));
    // The connection was there a moment before the clock started here.
    assert!(took >= WAIT - Duration::from_millis(100), "{took:?}");
    second.command("EHLO client.test", "250");
    // The debt is paid: of the third, and of others, the greeting comes in less than a wait when nothing else slows it.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(time(|| edge.connect_from("127.0.0.7").expect_reply("220 ")).0);
    }
    assert!(best < WAIT, "{best:?}");
}

#[test]
fn whoever_waits_is_not_read_and_still_in_order() {
    let edge = Edge::start(&settings().limits("max_protocol_errors = 2").toml());
    let mut client = edge.hello();
    client.send("A\r\nB\r\nC\r\nNOOP\r\n");
    let began = Instant::now();
    client.expect_reply("500 ");
    client.expect_reply("500 ");
    client.expect_reply("421 4.7.0 Too many errors on this connection, closing transmission channel");
    client.expect_close();
    assert!(
        began.elapsed() >= 3 * WAIT - Duration::from_millis(100),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_wait_before_the_greeting_is_no_inactivity_of_the_client() {
    let edge = Edge::start(&settings().limits("inactivity_timeout = \"300ms\"").toml());
    let mut client = edge.connect_from("127.0.0.7").hello();
    // The client waits for us here as well.
    client.command("NONSENSE", "500 ");
    drop(client);
    let mut second = edge.connect_from("127.0.0.7");
    second.expect_reply("220 ");
    second.expect_reply("451 4.7.0 Timeout waiting for client input");
    second.expect_close();
}

#[test]
fn a_drain_during_the_wait_before_the_greeting_is_told_in_its_place() {
    let edge = Edge::start(&Settings::new().limits("tarpit = \"5s\"").toml());
    let mut client = edge.connect_from("127.0.0.7").hello();
    client.send("NONSENSE\r\n");
    // The debt is noted when the wait begins.
    let metric = || edge.metric("postern_connections");
    let mut second = edge.connect_from("127.0.0.7");
    crate::edge::eventually(|| metric() == 2.0);
    edge.signal("TERM");
    let first = second.reply();
    if first.starts_with("220 ") {
        // It came before the error was read: then it was greeted, and drained as an idle session.
        second.expect_reply("421 4.3.2 Service not available");
    } else {
        assert_eq!(first, "421 4.3.2 Service not available");
    }
    second.expect_close();
}

#[test]
fn in_2011_only_mail_and_refusals_at_connect_wait() {
    let settings = settings()
        .top("edition = \"2011\"")
        .limits("max_protocol_errors = 100")
        .sections("[access]\nblock = [\"127.0.0.9\"]");
    let edge = Edge::start(&settings.toml());
    let mut client = edge.hello();
    let best = (0..5)
        .map(|_| time(|| client.command("NONSENSE", "500 ")).0)
        .min()
        .unwrap();
    assert!(best < WAIT, "{best:?}");
    let (took, _) = time(|| client.command("MAIL FROM:<", "501 "));
    assert!(took >= WAIT, "{took:?}");
    let mut refused = Client::connect_from("127.0.0.9", edge.address());
    let (took, _) = time(|| refused.expect_reply("550 5.7.1 "));
    assert!(took >= WAIT - Duration::from_millis(100), "{took:?}");
    refused.expect_close();
    // A connection anew does not.
    let best = (0..5)
        .map(|_| time(|| edge.connect().expect_reply("220 ")).0)
        .min()
        .unwrap();
    assert!(best < WAIT, "{best:?}");
}

#[test]
fn in_2011_the_refusal_of_the_rate_is_an_error_to_mail_and_waits() {
    let edge = Edge::start(&settings().top("edition = \"2011\"").limits("message_rate = 1").toml());
    let mut client = edge.hello();
    client.command("MAIL FROM:<a@client.test>", "250 ");
    client.command("RSET", "250 ");
    let (took, _) = time(|| client.command("MAIL FROM:<a@client.test>", "421 4.4.2 "));
    assert!(took >= WAIT, "{took:?}");
    client.expect_close();
}
