//! Each stage of a connection has a latency of its own: what the server delays is found in that stage and in no other.

mod common;
mod server;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Sink, figures_of, one_each};
use serde_json::Value;
use server::{Behaviour, Server};
use socket2::{Domain, Socket, Type};

/// The delays are twice as long: the server and the generator do not begin to count at the same moment.
const HALF_MS: f64 = 125.0;

fn median_ms(figures: &Value, stage: &str) -> f64 {
    figures["stages"][stage]["p50"].as_f64().unwrap_or(f64::NAN) / 1e3
}

#[test]
fn what_a_stage_of_the_server_delays_is_in_the_latency_of_that_stage_alone() {
    for (stage, flag) in [
        ("greeting", "--connect"),
        ("ehlo", "--ehlo"),
        ("envelope", "--rcpt"),
        ("final_reply", "--end"),
    ] {
        let mut sink = Sink::start(&["127.0.0.1:0", flag, "delay=250ms"]);
        let (good, figures) = sink.load(&["--messages", "3", "--connections", "1", "--per-connection", "1"]);
        assert!(good, "{}", figures["stages"]);
        for other in ["connect", "greeting", "ehlo", "envelope", "final_reply"] {
            let median = median_ms(&figures, other);
            assert_eq!(
                median >= HALF_MS,
                other == stage,
                "{stage} is delayed, {other} took {median} ms"
            );
        }
        assert_eq!(figures["stages"]["connect"]["count"], 3);
        sink.finish(true);
    }
}

#[test]
fn a_connection_that_has_to_wait_for_its_place_is_slow_to_connect_and_not_to_greet() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    // Room for one that is not accepted: the kernel leaves the next one's SYN without an answer.
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let target = listener.local_addr().unwrap();
    let first = TcpStream::connect(target).unwrap();
    let figures = std::thread::scope(|scope| {
        let run = scope.spawn(|| figures_of(&[&target.to_string(), "--messages", "1", "--connections", "1"]));
        std::thread::sleep(Duration::from_millis(700));
        let _server = Server::on(listener, Behaviour::default());
        run.join().unwrap()
    });
    drop(first);
    assert_eq!(figures["messages"], 1, "{}", figures["stages"]);
    // It is sent again after a second.
    assert!(median_ms(&figures, "connect") >= 500.0, "{}", figures["stages"]);
    assert!(median_ms(&figures, "greeting") < 500.0, "{}", figures["stages"]);
}

#[test]
fn the_handshake_is_in_no_other_stage_than_tls() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--starttls", "--connect", "delay=250ms"]);
    let flags = one_each("4", &["--tls", "starttls"]);
    let (good, figures) = sink.load(&flags);
    assert!(good, "{}", figures["stages"]);
    assert_eq!(figures["stages"]["tls"]["count"], 4);
    // One before the handshake, one after it.
    assert_eq!(figures["stages"]["ehlo"]["count"], 8);
    assert!(
        median_ms(&figures, "greeting") >= HALF_MS && median_ms(&figures, "tls") < HALF_MS,
        "{}",
        figures["stages"]
    );
    assert!(
        median_ms(&figures, "connect") < HALF_MS && median_ms(&figures, "ehlo") < HALF_MS,
        "{}",
        figures["stages"]
    );
    sink.finish(true);
}
