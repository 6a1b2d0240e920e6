//! Several loads at once: shares, figures of each and of all, and the exit status.

mod common;
mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Sink, loadgen, run_with_figures};
use serde_json::Value;
use server::{Behaviour, Server};
use tempfile::TempDir;

/// A scenario in a file.
fn scenario(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("day.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// What tells why loads went wrong.
fn why(figures: &Value) -> Vec<(&Value, &Value, &Value)> {
    let loads = figures["loads"].as_array().unwrap().iter();
    loads
        .map(|load| (&load["name"], &load["good"], &load["failures_in_whole_run"]))
        .collect()
}

fn load<'a>(figures: &'a Value, name: &str) -> &'a Value {
    let loads = figures["loads"].as_array().unwrap();
    loads.iter().find(|load| load["name"] == name).unwrap()
}

const DAY: &str = r#"
    [flags]
    rate = 200
    connections = 10
    duration = "1500ms"
    warm-up = "100ms"

    [[load]]
    name = "kept"
    share = 75
    ehlo = "kept.invalid"

    [[load]]
    name = "strangers"
    share = 25
    per-connection = 1
    ehlo = "stranger.invalid"
    size = "9000"

    [[load]]
    name = "slow"
    abuse = "slow"
    connections = 2

    [[load]]
    name = "quiet"
    idle = 5
"#;

#[test]
fn loads_run_together_each_with_its_share_and_are_told_apart_and_together() {
    let server = Server::start(Behaviour::default());
    let (_folder, path) = scenario(DAY);
    let (status, figures) = run_with_figures(&[&server.address.to_string(), "--scenario", &path]);
    assert_eq!(status, Some(0), "{:?}", why(&figures));
    let (kept, strangers) = (load(&figures, "kept"), load(&figures, "strangers"));
    // 150 and 50 a second for a second and a half.
    let messages = |load: &Value| load["messages"].as_u64().unwrap();
    assert!((150..=250).contains(&messages(kept)), "{kept}");
    assert!((50..=85).contains(&messages(strangers)), "{strangers}");
    assert_eq!(messages(&figures), messages(kept) + messages(strangers));
    assert_eq!(
        figures["stages"]["final_reply"]["count"].as_u64().unwrap(),
        messages(&figures)
    );
    assert_eq!(
        (&kept["scenario"]["connections"], &strangers["scenario"]["connections"]),
        (&8.into(), &3.into())
    );
    let (slow, quiet) = (load(&figures, "slow"), load(&figures, "quiet"));
    assert!(
        slow["good_clients_greeted"].as_u64().unwrap() > 0 && slow["good"] == true,
        "{slow}"
    );
    assert_eq!((&quiet["greeted"], &quiet["dropped"]), (&5.into(), &0.into()));
    // Each in its own way, at the same time: nobody waited for another to end.
    let greetings: Vec<String> = server
        .commands()
        .into_iter()
        .filter(|line| line.starts_with("EHLO"))
        .collect();
    assert!(greetings.iter().filter(|line| line.contains("stranger")).count() > 40);
    assert_eq!(greetings.iter().filter(|line| line.contains("kept")).count(), 8);
    assert!(server.messages().iter().any(|message| message.len() == 9000));
}

#[test]
fn each_load_is_a_line_of_the_table_and_of_the_page() {
    let server = Server::start(Behaviour::default());
    let (folder, path) = scenario(DAY);
    let page = folder.path().join("day.html");
    let output = loadgen(&[
        &server.address.to_string(),
        "--scenario",
        &path,
        "--duration",
        "300ms",
        "--report",
        page.to_str().unwrap(),
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let page = std::fs::read_to_string(page).unwrap();
    for name in ["kept", "strangers", "slow", "quiet"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
        assert!(page.contains(&format!("<td>{name}</td>")), "{name}");
    }
    assert!(text.contains("\ntogether\n"), "{text}");
    assert!(page.contains("kept: final reply") && page.contains("strangers: final reply"));
}

#[test]
fn a_load_that_fails_makes_the_exit_status_1_and_the_others_go_on() {
    let server = Server::start(Behaviour::default());
    let (_folder, path) = scenario(
        "[flags]\nrate = 100\nduration = \"600ms\"\nwarm-up = \"0s\"\n[[load]]\nname = \"good\"\nshare = 50\n\
         [[load]]\nname = \"bad\"\nshare = 50\ntls = \"starttls\"\n",
    );
    let (status, figures) = run_with_figures(&[&server.address.to_string(), "--scenario", &path]);
    assert_eq!(status, Some(1));
    let (good, bad) = (load(&figures, "good"), load(&figures, "bad"));
    assert!(
        bad["stopped"].as_str().unwrap().contains("STARTTLS") && bad["good"] == false,
        "{bad}"
    );
    assert!(
        good["messages"].as_u64().unwrap() >= 20 && good["good"] == true,
        "{good}"
    );
}

#[test]
fn clients_beyond_a_limit_are_refused_as_expected_and_that_is_no_failure() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--connect", "defer=421:1/2"]);
    let flags = ["--messages", "80", "--connections", "10", "--rate", "50"];
    let (good, figures) = sink.load(&[&flags[..], &["--refusals-expected"]].concat());
    assert!(good, "{}", figures["failures_in_whole_run"]);
    // Five of the first ten, then half of those that come again, a second later each time.
    let refused = figures["refused_as_expected"].as_u64().unwrap();
    assert!((7..=10).contains(&refused), "{refused}");
    assert_eq!(
        (&figures["replies"]["421"], &figures["turned_away"]),
        (&refused.into(), &0.into())
    );
    assert_eq!(figures["messages"], 80);
    sink.finish(true);
    let mut sink = Sink::start(&["127.0.0.1:0", "--connect", "defer=421:1/2"]);
    let (good, figures) = sink.load(&["--connections", "10", "--messages", "30"]);
    assert!(!good && figures["turned_away"].as_u64().unwrap() > 0);
    sink.finish(true);
}

#[test]
fn clients_that_are_all_turned_away_end_a_run_that_waits_for_their_messages() {
    let server = Server::start(Behaviour {
        greeting: "421 4.3.2 later\r\n",
        ..Behaviour::default()
    });
    let target = server.address.to_string();
    for more in [&[][..], &["--rate", "50"], &["--rate", "50", "--per-connection", "1"]] {
        let flags = [
            "--refusals-expected",
            "--messages",
            "10",
            "--connections",
            "3",
            "--timeout",
            "1500ms",
        ];
        let (status, figures) = run_with_figures(&[&[&target[..]][..], &flags, more].concat());
        assert_eq!(status, Some(1), "{figures}");
        assert!(
            figures["stopped"]
                .as_str()
                .unwrap()
                .contains("every connection was turned away"),
            "{figures}"
        );
        // Three places, each at the start and every second.
        assert!(
            (3..=9).contains(&figures["refused_as_expected"].as_u64().unwrap()),
            "{figures}"
        );
    }
}

#[test]
fn a_client_that_is_turned_away_at_the_end_of_a_run_does_not_come_again() {
    let server = Server::start(Behaviour {
        greeting: "421 4.3.2 later\r\n",
        ..Behaviour::default()
    });
    // Each of them has a message, and nobody to give it to, when the time is over.
    let flags = [
        "--refusals-expected",
        "--duration",
        "1200ms",
        "--warm-up",
        "0s",
        "--connections",
        "3",
    ];
    let open = ["--rate", "50", "--per-connection", "1", "--timeout", "10s"];
    let begun = Instant::now();
    let target = server.address.to_string();
    let (status, figures) = run_with_figures(&[&[&target[..]][..], &flags, &open].concat());
    assert_eq!(status, Some(0), "{figures}");
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "it went on until it was given up"
    );
    assert!(
        server.connections() <= 9,
        "{}: an own each second and at the end",
        server.connections()
    );
    assert_eq!(figures["unanswered"], 0);
}

#[test]
fn what_does_not_go_together_is_refused_with_a_sentence_and_exit_status_2() {
    let (_folder, path) = scenario(DAY);
    let (_other, wrong) = scenario("[[load]]\nname = \"odd\"\nshare = 10\nsize = \"huge\"\n");
    let (_third, short) = scenario("[[load]]\nname = \"one\"\nshare = 10\n");
    for (arguments, said) in [
        (&["--scenario", &short, "--messages", "9"][..], "run for a --duration"),
        (&["--scenario", &path, "--expect", "x.json"], "not with several loads"),
        (&["--scenario", &wrong], "load \"odd\""),
        (&["192.0.2.1:25", "--scenario", &path], "--target-is-mine"),
        (
            &["bench", "a=127.0.0.1:1", "b=127.0.0.1:2", "--scenario", &path],
            "a run of its own",
        ),
    ] {
        let output = loadgen(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{said}: {text}");
    }
}
