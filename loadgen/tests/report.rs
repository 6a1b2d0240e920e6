//! What a run leaves behind: figures, page, histogram log, thresholds; and two runs side by side.

mod common;

use std::path::Path;

use common::{Sink, loadgen};
use serde_json::Value;

fn figures(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_a_page_figures_and_histograms_that_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut sink = Sink::start(&["127.0.0.1:0", "--end", "delay=20ms"]);
    let target = sink.target.unwrap().to_string();
    for name in ["one", "two"] {
        let (json, page, log) = (
            file(&format!("{name}.json")),
            file(&format!("{name}.html")),
            file(&format!("{name}.hlog")),
        );
        let flags = [
            "--messages",
            "60",
            "--connections",
            "3",
            "--silent",
            "--json",
            &json,
            "--report",
            &page,
            "--hdr",
            &log,
        ];
        let output = loadgen(&[&[target.as_str()], &flags[..]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.stderr.is_empty(), "--silent");
    }
    let one = figures(Path::new(&file("one.json")));
    let stage = &one["stages"]["final_reply"];
    assert_eq!(
        (&stage["count"], &one["stages"]["envelope"]["count"]),
        (&60.into(), &60.into())
    );
    assert!(
        stage["p50"].as_f64().unwrap() >= 20_000.0 && stage["max"].as_f64() >= stage["p50"].as_f64(),
        "{stage}"
    );
    assert!(one["stages"]["transaction"]["p50"].as_f64() >= stage["p50"].as_f64());
    for stage in ["connect", "greeting", "ehlo"] {
        assert_eq!(one["stages"][stage]["count"], 3, "{stage}");
    }
    // A reply that comes within the event that asked for it took its time as well.
    let shortest = stage["series"][0][1].as_f64().unwrap();
    assert!(shortest >= 20_000.0, "{shortest}");
    assert!(
        one["stages"]["envelope"]["series"][0][1].as_f64().unwrap() > 1.0,
        "{}",
        one["stages"]["envelope"]
    );
    for asked in ["connect", "greeting", "ehlo"] {
        assert!(one["stages"][asked]["series"][0][1].as_f64().unwrap() > 1.0, "{asked}");
    }
    assert!(one["stages"]["tls"].is_null() && one["stages"]["auth"].is_null());
    let rows = one["timeline"]["rows"].as_array().unwrap();
    let longest = rows.iter().filter_map(|row| row[5].as_f64()).fold(0.0, f64::max);
    assert!(
        (20_000.0..=stage["max"].as_f64().unwrap() + 1.0).contains(&longest),
        "{longest} {stage}"
    );
    assert!(one["host"]["kernel"].is_string() && one["sysctl"]["net.core.somaxconn"].is_string());
    let page = std::fs::read_to_string(file("one.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("final reply") && page.contains("net.core.somaxconn"));
    for outside in ["http:", "https:", "src=", "href=", "url(", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let log = std::fs::read_to_string(file("one.hlog")).unwrap();
    for tag in [
        "Tag=final_reply,",
        "Tag=transaction,",
        "Tag=connect,",
        "Tag=greeting,",
        "Tag=envelope,",
    ] {
        assert!(log.contains(tag), "{tag}: {log}");
    }
    let both = file("both.html");
    let output = loadgen(&["compare", &file("one.json"), &file("two.json"), "--report", &both]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("final reply p99") && text.contains("B/A"),
        "{text}"
    );
    assert!(!text.contains("loads differ: connections"), "{text}");
    assert!(std::fs::read_to_string(both).unwrap().contains("<th>two / one</th>"));
    assert!(sink.load(&["--messages", "1"]).0);
}

#[test]
fn a_threshold_that_is_missed_makes_the_exit_status_1_and_says_so() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--end", "delay=20ms"]);
    let flags = ["--messages", "10", "--connections", "2", "--fail-if"];
    let run = |sink: &mut Sink, limit: &str| sink.load(&[&flags[..], &[limit]].concat());
    assert!(run(&mut sink, "p99>3600s").0);
    assert!(run(&mut sink, "failures>0").0);
    for limit in ["p50>5ms", "rate>1", "transaction:max>19ms", "server-cpu>1s"] {
        let (good, figures) = run(&mut sink, limit);
        assert!(!good, "{limit}");
        assert!(
            figures["thresholds_missed"][0].as_str().unwrap().starts_with(limit),
            "{figures}"
        );
    }
    let output = loadgen(&["--fail-if", "p98>1ms"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no figure"));
}

#[test]
fn without_a_terminal_progress_is_told_in_lines() {
    let sink = Sink::start(&["127.0.0.1:0"]);
    let target = sink.target.unwrap().to_string();
    let output = loadgen(&[target.as_str(), "--messages", "5", "--connections", "1"]);
    // Shorter than the time between two lines: nothing is written over what others write.
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains('\r'));
}
