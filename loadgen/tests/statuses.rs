//! Exit statuses and thresholds, each once: what CI relies on.

mod common;
mod server;

use common::{Sink, loadgen, run_with_figures};
use server::{Behaviour, Server};

#[test]
fn every_threshold_holds_or_is_missed_by_the_figure_that_it_names() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--end", "delay=25ms"]);
    let pid = std::process::id().to_string();
    let flags = [
        "--messages",
        "8",
        "--connections",
        "2",
        "--rate",
        "400",
        "--pid",
        &pid,
        "--fail-if",
    ];
    for (limit, good) in [
        ("mean>3600s", true),
        ("mean>10ms", false),
        ("p50>10ms", false),
        ("p75>10ms", false),
        ("p90>10ms", false),
        ("p95>10ms", false),
        ("p99>10ms", false),
        ("p99.9>10ms", false),
        ("p99.99>10ms", false),
        ("max>10ms", false),
        ("max<3600s", false),
        ("final-reply:p50>24ms", false),
        ("from-plan:p50>24ms", false),
        ("transaction:p50>24ms", false),
        ("envelope:max>3600s", true),
        ("connect:max>3600s", true),
        ("greeting:max>3600s", true),
        ("ehlo:max>3600s", true),
        ("tls:max>3600s", false),
        ("auth:max>3600s", false),
        ("content:max>3600s", false),
        ("rate<1", true),
        ("rate<100000", false),
        ("rate>1", false),
        ("failures>0", true),
        ("failures>0%", true),
        ("server-cpu>3600s", true),
        ("server-cpu<3600s", false),
    ] {
        let (found, figures) = sink.load(&[&flags[..], &[limit]].concat());
        let missed = &figures["thresholds_missed"];
        assert_eq!(found, good, "{limit}: {missed}");
        assert_eq!(
            missed.as_array().unwrap().len(),
            usize::from(!good),
            "{limit}: {missed}"
        );
        assert!(
            good || missed[0].as_str().unwrap().starts_with(limit),
            "{limit}: {missed}"
        );
    }
}

#[test]
fn failures_are_held_against_their_number_and_their_share() {
    for (limit, missed) in [
        ("failures>9", true),
        ("failures>10", false),
        ("failures>24%", true),
        ("failures>25%", false),
    ] {
        let mut sink = Sink::start(&["127.0.0.1:0", "--rcpt", "refuse:1/4"]);
        let (good, figures) = sink.load(&["--messages", "40", "--connections", "1", "--fail-if", limit]);
        // A message that failed makes the status 1 by itself.
        assert!(!good);
        assert_eq!(
            figures["thresholds_missed"].as_array().unwrap().len(),
            usize::from(missed),
            "{limit}"
        );
        sink.finish(true);
    }
}

#[test]
fn status_0_is_for_runs_in_which_everything_was_accepted() {
    let server = Server::start(Behaviour::default());
    let target = server.address.to_string();
    assert_eq!(run_with_figures(&[&target, "--messages", "3"]).0, Some(0));
    assert_eq!(loadgen(&["--scenario", "list"]).status.code(), Some(0));
    assert_eq!(loadgen(&["--help"]).status.code(), Some(0));
}

#[test]
fn status_1_is_for_what_failed_while_it_ran() {
    let refusing = Server::start(Behaviour {
        rcpt: "550 5.1.1 no such user\r\n",
        ..Behaviour::default()
    });
    let breaking = Server::start(Behaviour {
        hang_up_at_end: true,
        ..Behaviour::default()
    });
    let busy = Server::start(Behaviour {
        greeting: "554 5.3.2 no\r\n",
        ..Behaviour::default()
    });
    let odd = Server::start(Behaviour {
        greeting: "hello\r\n",
        ..Behaviour::default()
    });
    for (server, kind) in [
        (&refusing, "refused"),
        (&breaking, "lost"),
        (&busy, "turned_away"),
        (&odd, "malformed"),
    ] {
        let target = server.address.to_string();
        let (status, figures) = run_with_figures(&[&target, "--messages", "3", "--connections", "1"]);
        assert_eq!(status, Some(1), "{kind}");
        assert!(figures[kind].as_u64().unwrap() > 0, "{kind}: {}", figures["stopped"]);
    }
    let target = busy.address.to_string();
    assert_eq!(
        run_with_figures(&[&target, "--idle", "3", "--duration", "50ms"]).0,
        Some(1)
    );
    let missing = loadgen(&["compare", "not-there.json", "not-there-either.json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("not-there.json"));
    let process = loadgen(&[&target, "--pid", "4294967295"]);
    assert_eq!(process.status.code(), Some(1));
    assert!(
        String::from_utf8(process.stderr)
            .unwrap()
            .contains("process 4294967295")
    );
}

#[test]
fn status_2_is_for_flags_that_make_no_sense_and_says_which() {
    for (arguments, said) in [
        (&["--connections", "0"][..], "--connections"),
        (&["--size", "none"], "--size"),
        (&["--scenario", "no-such-scenario"], "no-such-scenario"),
        (&["192.0.2.1:25"], "--target-is-mine"),
        (&["192.0.2.1:25", "--idle", "5"], "--target-is-mine"),
        (&["192.0.2.1:25", "--abuse", "slow"], "--target-is-mine"),
        (&["192.0.2.1:25", "--scenario", "abusive"], "--target-is-mine"),
        (&["bench", "a=127.0.0.1:25", "b=192.0.2.1:25"], "--target-is-mine"),
        (&["bench", "a=127.0.0.1:25"], "two servers or more"),
        (
            &["bench", "a=127.0.0.1:25", "b=127.0.0.1:26", "--hdr", "x"],
            "one server",
        ),
        (&["--to", "jürgen@example.com"], "--smtputf8"),
        (&["--sources", "::1"], "one is IPv4"),
        (&["--core", "1000"], "--core 1000"),
        (&["--auth", "plain"], "--user"),
        (&["--fail-if", "speed<3"], "no figure"),
        (&["--messages", "3", "--duration", "3s"], "cannot be used with"),
        (&["verify"], "PATH"),
    ] {
        let output = loadgen(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}
