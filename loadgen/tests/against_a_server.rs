//! The binary against small servers in this process that keep what they were sent and answer as they are told.

mod server;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::Value;
use server::{Behaviour, Server};

/// Runs the binary with `--json`; whether it exited with 0, and its figures.
fn loadgen(target: SocketAddr, flags: &[&str]) -> (bool, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg(target.to_string())
        .args(flags)
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|_| panic!("no figures: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), serde_json::from_str(&text).unwrap())
}

fn fails_with(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap()
}

#[test]
fn exactly_as_many_messages_arrive_as_were_asked_for_each_with_its_own_identity() {
    let server = Server::start(Behaviour::default());
    let (good, figures) = loadgen(server.address, &["--messages", "500", "--connections", "7"]);
    assert!(good);
    assert_eq!(figures["messages"], 500);
    assert_eq!(figures["replies"]["354"], 500);
    let identities: BTreeSet<String> = server.messages().iter().map(|message| identity(message)).collect();
    assert_eq!(identities.len(), 500);
    let run = figures["run"].as_str().unwrap();
    let expected: BTreeSet<String> = (0..500).map(|serial| format!("{run}-{serial:012}")).collect();
    assert_eq!(identities, expected);
}

fn identity(message: &str) -> String {
    let line = message.lines().find_map(|line| line.strip_prefix("X-Loadgen-Id: "));
    line.unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn every_message_has_the_size_asked_for_and_its_recipients() {
    let server = Server::start(Behaviour::default());
    let flags = [
        "--messages",
        "5",
        "--size",
        "70000",
        "--recipients",
        "3",
        "--to",
        "a@example.com",
        "--to",
        "b@example.com",
    ];
    let (good, _) = loadgen(server.address, &flags);
    assert!(good);
    assert!(server.messages().iter().all(|message| message.len() == 70_000));
    let recipients = server.commands().into_iter().filter(|line| line.starts_with("RCPT"));
    let expected: BTreeSet<String> = ["a", "b", "b3"]
        .iter()
        .map(|local| format!("RCPT TO:<{local}@example.com>\r\n"))
        .collect();
    assert_eq!(recipients.collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_message_larger_than_the_socket_takes_at_once_arrives_whole_with_its_own_identity() {
    for bdat in [&["--bdat"][..], &[]] {
        let server = Server::start(Behaviour::default());
        let flags = [&["--messages", "6", "--connections", "3", "--size", "8000000"], bdat].concat();
        assert!(loadgen(server.address, &flags).0);
        let messages = server.messages();
        assert!(messages.iter().all(|message| message.len() == 8_000_000));
        assert_eq!(
            messages
                .iter()
                .map(|message| identity(message))
                .collect::<BTreeSet<_>>()
                .len(),
            6
        );
        let body = |message: &str| message.split_once("\r\n\r\n").unwrap().1.to_owned();
        let first = body(&messages[0]);
        assert!(messages.iter().all(|message| body(message) == first));
    }
}

#[test]
fn one_message_for_each_connection_ends_each_with_quit() {
    let server = Server::start(Behaviour::default());
    let flags = ["--messages", "60", "--connections", "3", "--per-connection", "1"];
    let (good, figures) = loadgen(server.address, &flags);
    assert!(good);
    assert_eq!(figures["messages"], 60);
    assert!(server.connections() >= 60);
    assert!(server.commands().iter().filter(|line| *line == "QUIT\r\n").count() >= 57);
}

#[test]
fn connections_come_from_the_sources_in_turn() {
    let server = Server::start(Behaviour::default());
    let flags = [
        "--messages",
        "12",
        "--connections",
        "4",
        "--sources",
        "127.0.0.2-127.0.0.5",
    ];
    assert!(loadgen(server.address, &flags).0);
    let expected: BTreeSet<_> = (2..=5).map(|last| std::net::IpAddr::from([127, 0, 0, last])).collect();
    assert_eq!(server.peers(), expected);
}

#[test]
fn replies_may_come_an_octet_at_a_time() {
    let server = Server::start(Behaviour {
        octet_by_octet: true,
        ..Behaviour::default()
    });
    let (good, figures) = loadgen(
        server.address,
        &["--messages", "20", "--connections", "2", "--recipients", "2"],
    );
    assert!(good);
    assert_eq!(figures["messages"], 20);
    assert_eq!(figures["replies"]["354"], 20);
}

#[test]
fn a_server_without_pipelining_is_spoken_to_one_command_at_a_time() {
    let server = Server::start(Behaviour {
        extensions: "",
        ..Behaviour::default()
    });
    let (good, figures) = loadgen(server.address, &["--messages", "20", "--connections", "2"]);
    assert!(good);
    assert_eq!(figures["pipelining_not_offered"], true);
    assert!(
        server.glued() == 0,
        "commands were sent before the reply to the one before"
    );
}

#[test]
fn with_pipelining_the_envelope_is_one_write() {
    let server = Server::start(Behaviour::default());
    assert!(loadgen(server.address, &["--messages", "20", "--connections", "1"]).0);
    assert_eq!(server.glued(), 40, "RCPT and DATA come with MAIL");
}

#[test]
fn in_groups_every_message_arrives_once_and_one_write_is_enough_for_each() {
    let server = Server::start(Behaviour::default());
    let flags = ["--messages", "20", "--connections", "1", "--pipelining", "group"];
    let (good, figures) = loadgen(server.address, &flags);
    assert!(good);
    assert_eq!(
        (&figures["messages"], &figures["replies"]["354"]),
        (&20.into(), &20.into())
    );
    let run = figures["run"].as_str().unwrap();
    let identities: Vec<String> = server.messages().iter().map(|message| identity(message)).collect();
    let expected: Vec<String> = (0..20).map(|serial| format!("{run}-{serial:012}")).collect();
    assert_eq!(identities, expected);
    // RCPT and DATA behind each MAIL, 19 MAIL and the QUIT behind a content.
    assert_eq!(server.glued(), 60);
}

#[test]
fn in_groups_a_connection_for_each_message_ends_with_quit_behind_the_content() {
    let server = Server::start(Behaviour::default());
    let flags = [
        "--messages",
        "60",
        "--connections",
        "3",
        "--per-connection",
        "1",
        "--pipelining",
        "group",
    ];
    let (good, figures) = loadgen(server.address, &flags);
    assert!(good);
    assert_eq!(figures["messages"], 60);
    assert_eq!(server.glued(), 180, "RCPT, DATA and QUIT");
}

#[test]
fn in_groups_a_message_larger_than_the_socket_takes_at_once_arrives_whole() {
    let server = Server::start(Behaviour::default());
    let flags = [
        "--messages",
        "6",
        "--connections",
        "2",
        "--size",
        "8000000",
        "--pipelining",
        "group",
    ];
    assert!(loadgen(server.address, &flags).0);
    let messages = server.messages();
    assert!(messages.iter().all(|message| message.len() == 8_000_000));
    let identities: BTreeSet<String> = messages.iter().map(|message| identity(message)).collect();
    assert_eq!(identities.len(), 6);
}

#[test]
fn in_groups_a_connection_that_ends_in_the_content_loses_what_was_begun_behind_it() {
    let server = Server::start(Behaviour {
        hang_up_at_end: true,
        ..Behaviour::default()
    });
    let flags = ["--messages", "10", "--connections", "1", "--pipelining", "group"];
    let (good, figures) = loadgen(server.address, &flags);
    assert!(!good);
    assert_eq!((&figures["lost"], &figures["messages"]), (&10.into(), &0.into()));
    assert_eq!(figures["connections"], 5, "two on each connection");
}

#[test]
fn in_groups_refused_recipients_are_counted_message_by_message() {
    let server = Server::start(Behaviour {
        rcpt: "550 5.1.1 no such user\r\n",
        ..Behaviour::default()
    });
    let flags = ["--messages", "10", "--connections", "2", "--pipelining", "group"];
    let (good, figures) = loadgen(server.address, &flags);
    assert!(!good);
    assert_eq!((&figures["messages"], &figures["refused"]), (&0.into(), &10.into()));
}

#[test]
fn a_generator_that_never_sleeps_says_how_often_it_had_nothing_to_do() {
    let server = Server::start(Behaviour::default());
    let flags = ["--messages", "50", "--connections", "1", "--busy-poll", "--core", "0"];
    let (good, figures) = loadgen(server.address, &flags);
    assert!(good);
    assert_eq!(figures["messages"], 50);
    assert!(figures["generator_idle_share"].as_f64().is_some(), "{figures}");
}

#[test]
fn bdat_delivers_the_same_messages() {
    for pipelining in ["on", "off", "group"] {
        let server = Server::start(Behaviour::default());
        let flags = [
            "--messages",
            "30",
            "--connections",
            "3",
            "--bdat",
            "--pipelining",
            pipelining,
        ];
        let (good, figures) = loadgen(server.address, &flags);
        assert!(good);
        assert_eq!(figures["messages"], 30);
        assert!(figures["replies"]["354"].is_null());
        assert!(server.messages().iter().all(|message| message.len() == 4096));
    }
}

#[test]
fn a_refused_recipient_makes_the_exit_status_1() {
    let server = Server::start(Behaviour {
        rcpt: "550 5.1.1 no such user\r\n",
        ..Behaviour::default()
    });
    let (good, figures) = loadgen(server.address, &["--messages", "10", "--connections", "2"]);
    assert!(!good);
    assert_eq!((&figures["messages"], &figures["refused"]), (&0.into(), &10.into()));
    assert_eq!(figures["replies"]["550"], 10);
}

#[test]
fn a_connection_that_ends_in_the_content_is_a_lost_message() {
    let server = Server::start(Behaviour {
        hang_up_at_end: true,
        ..Behaviour::default()
    });
    let (good, figures) = loadgen(server.address, &["--messages", "10", "--connections", "2"]);
    assert!(!good);
    assert_eq!(figures["lost"], 10);
}

#[test]
fn a_server_that_turns_everybody_away_stops_the_run() {
    let server = Server::start(Behaviour {
        greeting: "421 4.3.2 later\r\n",
        ..Behaviour::default()
    });
    let (good, figures) = loadgen(server.address, &["--messages", "10"]);
    assert!(!good);
    assert!(
        figures["stopped"]
            .as_str()
            .unwrap()
            .contains("100 connections in a row failed")
    );
}

#[test]
fn a_target_where_nobody_listens_stops_the_run_with_a_sentence() {
    // Bound but not listening: the port stays ours, so no other test can come to listen there.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let target = socket.local_addr().unwrap().as_socket().unwrap();
    let (good, figures) = loadgen(target, &["--messages", "10"]);
    assert!(!good);
    assert!(figures["stopped"].as_str().unwrap().contains("refused"), "{figures}");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (good, figures) = loadgen(
        listener.local_addr().unwrap(),
        &["--messages", "1", "--timeout", "100ms"],
    );
    assert!(!good);
    assert!(figures["stopped"].as_str().unwrap().contains("no reply"), "{figures}");
}

#[test]
fn a_target_on_another_machine_is_refused() {
    assert!(fails_with(&["192.0.2.1:25"]).contains("--target-is-mine"));
    assert!(fails_with(&["versus", "--a", "a=127.0.0.1:25", "--b", "b=192.0.2.1:25"]).contains("--target-is-mine"));
}

#[test]
fn a_run_for_a_time_counts_only_its_window() {
    let server = Server::start(Behaviour::default());
    let flags = ["--duration", "300ms", "--warm-up", "200ms", "--connections", "2"];
    let (good, figures) = loadgen(server.address, &flags);
    assert!(good);
    let counted = figures["messages"].as_u64().unwrap();
    assert!(counted > 0 && counted < server.messages().len() as u64);
}

#[test]
fn quiet_connections_are_held_and_a_new_client_is_greeted() {
    let server = Server::start(Behaviour::default());
    let (good, figures) = loadgen(server.address, &["--idle", "50", "--duration", "100ms"]);
    assert!(good);
    assert_eq!((&figures["greeted"], &figures["dropped"]), (&50.into(), &0.into()));
    assert_eq!(figures["probes_greeted"], 10);
}

#[test]
fn two_servers_are_run_in_turns_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("both.html");
    let (one, two) = (Server::start(Behaviour::default()), Server::start(Behaviour::default()));
    let (a, b) = (
        format!("one={}={}", one.address, std::process::id()),
        format!("two={}", two.address),
    );
    let arguments = [
        "versus",
        "--a",
        &a,
        "--b",
        &b,
        "--rounds",
        "2",
        "--messages",
        "50",
        "--connections",
        "2",
        "--report",
        page.to_str().unwrap(),
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let order: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("round ")?.split_whitespace().nth(1))
        .collect();
    assert_eq!(order, ["one", "two", "two", "one"]);
    assert!(text.contains("one/two"), "{text}");
    assert_eq!((one.messages().len(), two.messages().len()), (100, 100));
    let page = std::fs::read_to_string(page).unwrap();
    for expected in [
        "<td>messages/s, one</td>",
        "<td>messages/s, two</td>",
        "to the last",
        "Round by round",
        "one: final reply",
        "two: final reply",
        "Replies by code",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    // Both rounds of both: 50 messages each.
    assert_eq!(page.matches("100  send the content").count(), 2);
}
