//! `loadgen compare`: two runs that were kept with `--json`, side by side.
//!
//! Promises: says what differs between the loads before it compares what came of them. Reads two files.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::page::{self, Run, flat};
use crate::report::readable;

/// Lays two runs side by side: figures of the first, of the second, and what the second is to the first.
#[derive(Clone, Debug, Args)]
pub struct CompareFlags {
    /// What --json of the first run wrote.
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// What --json of the second run wrote.
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
    /// Writes a page with both.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// A figure that is compared.
struct Figure {
    place: &'static str,
    name: &'static str,
    is_time: bool,
}

const fn figure(place: &'static str, name: &'static str, is_time: bool) -> Figure {
    Figure { place, name, is_time }
}

const FIGURES: [Figure; 20] = [
    figure("/messages_per_second", "messages/s", false),
    figure("/messages", "messages accepted", false),
    figure("/failures_in_whole_run", "failures", false),
    figure("/stages/from_plan/p50", "from the plan p50", true),
    figure("/stages/from_plan/p99", "from the plan p99", true),
    figure("/stages/from_plan/p99.9", "from the plan p99.9", true),
    figure("/stages/final_reply/p50", "final reply p50", true),
    figure("/stages/final_reply/p99", "final reply p99", true),
    figure("/stages/final_reply/p99.9", "final reply p99.9", true),
    figure("/stages/final_reply/max", "final reply max", true),
    figure("/stages/transaction/p50", "transaction p50", true),
    figure("/stages/transaction/p99", "transaction p99", true),
    figure("/stages/envelope/p99", "envelope p99", true),
    figure("/stages/connect/p99", "connect p99", true),
    figure("/stages/greeting/p99", "greeting p99", true),
    figure("/stages/tls/p99", "TLS p99", true),
    figure("/stages/ehlo/p99", "EHLO p99", true),
    figure("/stages/auth/p99", "AUTH p99", true),
    figure("/server_cpu_us_per_message", "server CPU/message", true),
    figure("/generator_cpu_us_per_message", "generator CPU/message", true),
];

/// Prints the comparison; always well when both files could be read.
pub fn run(flags: &CompareFlags) -> Result<bool, String> {
    let runs = [read(&flags.a)?, read(&flags.b)?];
    let [a, b] = &runs;
    crate::say(format_args!("{}", text(a, b)));
    if let Some(path) = &flags.report {
        page::write(path, &runs)?;
    }
    Ok(true)
}

fn read(path: &Path) -> Result<Run, String> {
    let said = |error: String| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| said(error.to_string()))?;
    let figures: Value = serde_json::from_str(&text).map_err(|error| said(error.to_string()))?;
    if figures.get("messages_per_second").is_none() {
        return Err(said("these are not the figures of a run".into()));
    }
    let name = path
        .file_stem()
        .map_or("run".into(), |name| name.to_string_lossy().into_owned());
    Ok(Run { name, figures })
}

fn text(a: &Run, b: &Run) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    for (key, one, other) in differences(a, b) {
        let _ = writeln!(
            text,
            "NOTE the loads differ: {key} is {one} in {}, {other} in {}",
            a.name, b.name
        );
    }
    let _ = writeln!(text, "{:<24}{:>14}{:>14}{:>12}", "", a.name, b.name, "B/A");
    for figure in &FIGURES {
        let of = |run: &Run| run.figures.pointer(figure.place).and_then(Value::as_f64);
        let (one, other) = (of(a), of(b));
        if one.is_none() && other.is_none() {
            continue;
        }
        let written = |value: Option<f64>| match value {
            None => "-".into(),
            Some(value) if figure.is_time => readable((value * 1e3) as u64),
            Some(value) => format!("{value:.0}"),
        };
        let ratio = match (one, other) {
            (Some(one), Some(other)) if one > 0.0 => format!("{:.3}", other / one),
            _ => "-".into(),
        };
        let _ = writeln!(
            text,
            "{:<24}{:>14}{:>14}{ratio:>12}",
            figure.name,
            written(one),
            written(other)
        );
    }
    for run in [a, b] {
        if run.figures.get("generator_was_the_limit") == Some(&Value::Bool(true)) {
            let _ = writeln!(
                text,
                "WARNING {}: the generator was busy: it, not the server, may have been the limit",
                run.name
            );
        }
    }
    text
}

/// Flags, and facts of the machine, that differ.
fn differences(a: &Run, b: &Run) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for place in ["scenario", "host", "sysctl"] {
        let of = |run: &Run| run.figures.get(place).map(flat).unwrap_or_default();
        let (one, other) = (of(a), of(b));
        for (key, value) in &one {
            // What changes from run to run says nothing.
            let fleeting = matches!(key.as_str(), "load_average" | "memory_available");
            match other.get(key) {
                Some(theirs) if theirs != value && !fleeting => {
                    found.push((key.clone(), value.to_string(), theirs.to_string()));
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run_of(name: &str, rate: f64, connections: u64) -> Run {
        let figures = json!({
            "messages_per_second": rate, "messages": 10, "server_cpu_us_per_message": 40.0,
            "stages": { "final_reply": { "p50": rate } },
            "scenario": { "connections": connections, "size": "4096" }, "host": { "load_average": name },
        });
        Run {
            name: name.into(),
            figures,
        }
    }

    #[test]
    fn two_runs_are_compared_and_what_differs_between_their_loads_is_told() {
        let text = text(&run_of("old", 1000.0, 50), &run_of("new", 1500.0, 60));
        for expected in [
            "connections is 50 in old, 60 in new",
            "messages/s",
            "1.500",
            "1.00 ms",
            "40 µs",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("load_average") && !text.contains("size is") && !text.contains("transaction"));
    }

    #[test]
    fn files_are_read_and_a_page_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["a.json", "b.json"] {
            fs::write(file(name), run_of(name, 5.0, 1).figures.to_string()).unwrap();
        }
        fs::write(file("other.json"), "{}").unwrap();
        let flags = |b: &str| CompareFlags {
            a: file("a.json"),
            b: file(b),
            report: Some(file("both.html")),
        };
        assert_eq!(run(&flags("b.json")), Ok(true));
        assert!(
            fs::read_to_string(file("both.html"))
                .unwrap()
                .contains("<th>b / a</th>")
        );
        assert!(
            run(&flags("other.json"))
                .unwrap_err()
                .contains("not the figures of a run")
        );
        assert!(run(&flags("missing.json")).is_err());
    }
}
