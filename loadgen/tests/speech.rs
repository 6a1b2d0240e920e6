//! The generator's ways of speaking, against the sink; and a load with a plan against a server that stalls.

mod common;
mod server;

use std::process::Command;
use std::time::Duration;

use common::{Sink, one_each};
use serde_json::Value;
use server::{Behaviour, Server};

#[test]
fn everything_arrives_through_starttls_with_and_without_resumption() {
    for more in [
        &[][..],
        &["--tls-full"],
        &["--pipelining", "off"],
        &["--pipelining", "group"],
    ] {
        let mut sink = Sink::start(&["127.0.0.1:0", "--starttls"]);
        let flags = [
            "--messages",
            "60",
            "--connections",
            "4",
            "--per-connection",
            "3",
            "--tls",
            "starttls",
        ];
        let (good, figures) = sink.load(&[&flags, more].concat());
        assert!(good, "{figures}");
        assert_eq!(sink.finish(true)["identities"]["distinct"], 60, "{more:?}");
    }
}

#[test]
fn a_large_message_arrives_through_starttls() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--starttls"]);
    let flags = [
        "--messages",
        "4",
        "--connections",
        "2",
        "--size",
        "6000000",
        "--tls",
        "starttls",
    ];
    let (good, figures) = sink.load(&flags);
    assert!(good, "{figures}");
    assert_eq!(sink.finish(true)["identities"]["distinct"], 4);
}

#[test]
fn a_server_without_starttls_is_not_spoken_to_in_clear() {
    let server = Server::start(Behaviour::default());
    let (good, figures) = run(&server, &["--messages", "5", "--tls", "starttls"]);
    assert!(!good);
    assert_eq!(figures["messages"], 0);
    assert!(server.commands().iter().all(|line| line.starts_with("EHLO")));
}

#[test]
fn lmtp_counts_a_final_reply_for_each_recipient() {
    for more in [&[][..], &["--pipelining", "off"], &["--bdat", "--bdat-chunks", "3"]] {
        let mut sink = Sink::start(&["127.0.0.1:0", "--lmtp"]);
        let flags = ["--messages", "40", "--connections", "3", "--recipients", "3", "--lmtp"];
        let (good, figures) = sink.load(&[&flags, more].concat());
        assert!(good, "{more:?} {figures}");
        let figures = sink.finish(true);
        assert_eq!(
            (&figures["messages"], &figures["recipients"]),
            (&40.into(), &120.into())
        );
    }
}

#[test]
fn chunks_make_up_the_message_that_was_to_be_sent() {
    for pipelining in ["on", "off"] {
        for chunks in ["2", "7", "4096"] {
            let mut sink = Sink::start(&["127.0.0.1:0"]);
            let flags = [
                "--messages",
                "6",
                "--connections",
                "2",
                "--bdat",
                "--bdat-chunks",
                chunks,
            ];
            let (good, figures) = sink.load(&[&flags[..], &["--pipelining", pipelining]].concat());
            assert!(good, "{figures}");
            assert_eq!(sink.finish(true)["identities"]["distinct"], 6, "{chunks} {pipelining}");
        }
    }
}

#[test]
fn executors_share_out_the_messages_and_lose_none() {
    let mut sink = Sink::start(&["127.0.0.1:0"]);
    let flags = ["--messages", "101", "--connections", "7", "--cores", "3"];
    assert!(sink.load(&flags).0);
    let figures = sink.finish(true);
    assert_eq!(
        (&figures["identities"]["distinct"], &figures["messages"]),
        (&101.into(), &101.into())
    );
}

/// The server does nothing for 400 ms in the middle of two seconds with 100 messages each: 40 are planned meanwhile.
#[test]
fn an_open_loop_reports_a_stall_for_every_message_that_it_delayed_and_a_closed_loop_hides_it() {
    let stall = Behaviour {
        stall: Some((50, Duration::from_millis(400))),
        ..Behaviour::default()
    };
    let server = Server::start(stall);
    let (good, figures) = run(&server, &["--messages", "100", "--connections", "2", "--rate", "100"]);
    assert!(good, "{figures}");
    // A fifth of them came due while at least 200 ms of the stall were left.
    let planned = figures["from_plan_us"]["p90"].as_f64().unwrap();
    assert!(planned >= 200_000.0, "{figures}");
    // Seen from the first command of each, only the two that were under way were slow.
    let seen = figures["transaction_us"]["p90"].as_f64().unwrap();
    assert!(seen < planned, "{figures}");

    let server = Server::start(stall);
    let (good, figures) = run(&server, &["--messages", "100", "--connections", "2"]);
    assert!(good, "{figures}");
    assert!(figures["from_plan_us"].is_null());
    assert!(figures["transaction_us"]["max"].as_f64().unwrap() >= 400_000.0);
    assert!(
        figures["transaction_us"]["p90"].as_f64().unwrap() < planned,
        "{figures}"
    );
}

#[test]
fn an_open_loop_with_a_connection_for_each_message_sends_all_of_them() {
    let server = Server::start(Behaviour::default());
    let flags = [
        "--messages",
        "50",
        "--connections",
        "4",
        "--per-connection",
        "1",
        "--rate",
        "500",
    ];
    let (good, figures) = run(&server, &flags);
    assert!(good, "{figures}");
    assert_eq!((figures["messages"].as_u64(), server.connections()), (Some(50), 50));
}

#[test]
fn a_proxy_header_goes_before_the_greeting() {
    let server = Server::start(Behaviour {
        proxy: true,
        ..Behaviour::default()
    });
    let flags = one_each("6", &["--proxy", "v1", "--proxy-clients", "2"]);
    assert!(run(&server, &flags).0);
    let headers: Vec<String> = server
        .commands()
        .into_iter()
        .filter(|line| line.starts_with("PROXY"))
        .collect();
    assert_eq!(headers.len(), 6);
    assert!(
        headers[0].starts_with("PROXY TCP4 198.18.0.0 127.0.0.1 "),
        "{}",
        headers[0]
    );
    assert!(
        headers[1].starts_with("PROXY TCP4 198.18.0.1 127.0.0.1 "),
        "{}",
        headers[1]
    );
}

#[test]
fn bad_clients_are_only_let_loose_on_this_machine() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["192.0.2.1:25", "--scenario", "abusive"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("--target-is-mine"));
}

#[test]
fn good_clients_are_greeted_among_bad_ones() {
    let server = Server::start(Behaviour::default());
    let flags = [
        "--abuse",
        "half-closed,reset,garbage,deaf,slow",
        "--connections",
        "10",
        "--duration",
        "700ms",
    ];
    let (good, figures) = run(&server, &flags);
    assert!(good, "{figures}");
    assert!(figures["good_clients_greeted"].as_u64().unwrap() > 0);
    assert_eq!(figures["good_clients_not_greeted"], 0);
    let kinds: std::collections::BTreeSet<&str> = figures["ends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|end| end["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.len(), 5, "{figures}");
}

/// Runs the binary with `--json`; whether it exited with 0, and its figures.
fn run(server: &Server, flags: &[&str]) -> (bool, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg(server.address.to_string())
        .args(flags)
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|_| panic!("no figures: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), serde_json::from_str(&text).unwrap())
}
