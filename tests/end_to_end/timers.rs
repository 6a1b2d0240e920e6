//! The two timers of a connection, over real sockets.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::edge::{Edge, PATIENCE};
use crate::settings::Settings;

const INACTIVE: &str = "451 4.7.0 Timeout waiting for client input";
const TOO_LONG: &str = "421 4.4.1 Connection timed out";

#[test]
fn a_silent_client_is_told_and_left_wherever_it_stopped() {
    let edge = Edge::start(&Settings::new().limits("inactivity_timeout = \"400ms\"").toml());
    let mut after_greeting = edge.connect();
    after_greeting.expect_reply("220 ");
    let mut in_command = edge.hello();
    in_command.send("MAIL FROM:<a@cli");
    let mut in_data = edge.hello();
    in_data.envelope("a@client.test", &["b@example.com"]);
    in_data.command("DATA", "354 ");
    in_data.send("half");
    let mut in_chunk = edge.hello();
    in_chunk.envelope("a@client.test", &["b@example.com"]);
    in_chunk.send("BDAT 10 LAST\r\nhalf");
    let mut in_overlong = edge.hello();
    in_overlong.send(vec![b'x'; 100_000]);
    for client in [
        &mut after_greeting,
        &mut in_command,
        &mut in_data,
        &mut in_chunk,
        &mut in_overlong,
    ] {
        assert_eq!(client.reply(), INACTIVE);
        client.expect_close();
    }
    edge.wait_for_metric("postern_connections", 0.0);
    assert_eq!(
        edge.metric("postern_events_total{event=\"ConnectionInactivityTimeOut\"}"),
        5.0
    );
    assert_eq!(crate::edge::files(&edge.path("mail/new")).len(), 0);
    edge.wait_for("session .. limit=ConnectionInactivityTimeOut");
}

#[test]
fn octets_of_a_message_keep_a_session_alive_and_octets_of_a_command_do_not() {
    let edge = Edge::start(&Settings::new().limits("inactivity_timeout = \"800ms\"").toml());
    let drip = Duration::from_millis(50);
    let mut content = edge.hello();
    content.envelope("a@client.test", &["b@example.com"]);
    content.command("DATA", "354 ");
    let mut command = edge.hello();
    let mut heard = None;
    let began = Instant::now();
    // Three times as long as the timer: the command's session ends meanwhile, the message's does not.
    while began.elapsed() < Duration::from_millis(2400) {
        content.send("x");
        if heard.is_none() {
            let _ = command.try_send("x");
            if !command.is_silent_for(drip) {
                heard = Some((began.elapsed(), command.reply()));
            }
        } else {
            std::thread::sleep(drip);
        }
    }
    let (after, reply) = heard.expect("the command's session ended");
    assert_eq!(reply, INACTIVE);
    assert!(after >= Duration::from_millis(750), "{after:?}");
    content.send("\r\n.\r\n");
    content.expect_reply("250 2.6.0 ");
}

#[test]
fn a_session_ends_at_its_time_however_busy_it_is() {
    let edge = Edge::start(&Settings::new().limits("connection_timeout = \"700ms\"").toml());
    let opened = Instant::now();
    let mut busy = edge.hello();
    let mut in_data = edge.hello();
    in_data.envelope("a@client.test", &["b@example.com"]);
    in_data.command("DATA", "354 ");
    let last = loop {
        let _ = in_data.try_send("line\r\n");
        if busy.try_send("NOOP\r\n").is_err() {
            break busy.reply();
        }
        let reply = busy.reply();
        if reply != "250 2.0.0 OK" {
            break reply;
        }
        assert!(opened.elapsed() < PATIENCE, "it goes on");
    };
    assert_eq!(last, TOO_LONG);
    assert!(opened.elapsed() >= Duration::from_millis(650), "{:?}", opened.elapsed());
    busy.wait_for_end();
    assert_eq!(in_data.reply(), TOO_LONG);
    in_data.wait_for_end();
    edge.wait_for_metric("postern_connections", 0.0);
    assert_eq!(edge.metric("postern_events_total{event=\"ConnectionTimeOut\"}"), 2.0);
}

#[test]
fn a_client_that_never_takes_its_replies_is_left_at_its_deadline() {
    let edge = Edge::start(
        &Settings::new()
            .limits("inactivity_timeout = \"1s\"\nmax_protocol_errors = 1000000")
            .toml(),
    );
    let client = edge.hello();
    client
        .stream()
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    // Every HELP is 6 octets and its reply 80: once both buffers between us are full, nothing more is taken from here.
    let asked = b"HELP\r\n".repeat(10_000);
    let mut sent = 0;
    let mut stream = client.stream();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match stream.write(&asked) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    assert!(sent < 64 << 20, "output is not bounded: {sent} octets were taken");
    edge.wait_for("session .. end=stalled");
    edge.wait_for_metric("postern_connections", 0.0);
}
