//! The tables of a page, from the figures of its runs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use super::chart::escape;
use super::plots::STAGES;
use super::{Run, count, plain, time};

/// A figure that matters: where it stands, its name, and how it is written.
struct Headline {
    place: &'static str,
    name: &'static str,
    text: fn(f64) -> String,
}

const HEADLINES: [Headline; 10] = [
    Headline {
        place: "/messages_per_second",
        name: "messages a second",
        text: count,
    },
    Headline {
        place: "/messages",
        name: "messages accepted",
        text: count,
    },
    Headline {
        place: "/failures_in_whole_run",
        name: "failures",
        text: count,
    },
    Headline {
        place: "/stages/from_plan/p50",
        name: "from the planned time, p50",
        text: time,
    },
    Headline {
        place: "/stages/from_plan/p99",
        name: "from the planned time, p99",
        text: time,
    },
    Headline {
        place: "/stages/final_reply/p50",
        name: "final reply, p50",
        text: time,
    },
    Headline {
        place: "/stages/final_reply/p99",
        name: "final reply, p99",
        text: time,
    },
    Headline {
        place: "/server_cpu_us_per_message",
        name: "server CPU a message",
        text: time,
    },
    Headline {
        place: "/generator_cpu_us_per_message",
        name: "generator CPU a message",
        text: time,
    },
    Headline {
        place: "/generator_cpu_share",
        name: "of its cores used by the generator",
        text: |share| format!("{:.0} %", share * 100.0),
    },
];

/// The figures that matter, large.
pub fn tiles(figures: &Value) -> String {
    let mut tiles = String::from("<div class=\"tiles\">\n");
    for headline in &HEADLINES {
        let Some(value) = figures.pointer(headline.place).and_then(Value::as_f64) else {
            continue;
        };
        let bad = headline.place == "/failures_in_whole_run" && value > 0.0;
        let _ = writeln!(
            tiles,
            "<div class=\"tile{}\"><b>{}</b><span>{}</span></div>",
            if bad { " bad" } else { "" },
            escape(&(headline.text)(value)),
            headline.name
        );
    }
    tiles + "</div>\n"
}

/// The figures that matter of two runs, with what the second is to the first.
pub fn side_by_side(a: &Run, b: &Run) -> String {
    let mut rows = String::new();
    for headline in &HEADLINES {
        let of = |run: &Run| run.figures.pointer(headline.place).and_then(Value::as_f64);
        let (one, other) = (of(a), of(b));
        if one.is_none() && other.is_none() {
            continue;
        }
        let text = |value: Option<f64>| value.map_or("-".into(), |value| escape(&(headline.text)(value)));
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            headline.name,
            text(one),
            text(other),
            ratio(one, other)
        );
    }
    let (a, b) = (escape(&a.name), escape(&b.name));
    table(&["", &a, &b, &format!("{b} / {a}")], &rows)
}

fn ratio(one: Option<f64>, other: Option<f64>) -> String {
    match (one, other) {
        (Some(one), Some(other)) if one > 0.0 => format!("{:.3}", other / one),
        _ => "-".into(),
    }
}

/// Medians over the rounds of a bench, with what each server is to the last one, round by round.
pub fn compared(figures: &Value) -> String {
    let mut rows = String::new();
    for figure in figures.as_array().into_iter().flatten() {
        let what = figure.get("what").map(plain).unwrap_or_default();
        let digits = if what.contains("CPU") { 2 } else { 0 };
        for server in figure.get("servers").and_then(Value::as_array).into_iter().flatten() {
            let spread = |place: &str, digits: usize| {
                let at = |key: &str| server.pointer(&format!("/{place}/{key}"))?.as_f64();
                let (median, least, most) = (at("median")?, at("least")?, at("most")?);
                Some(format!(
                    "<td><b>{median:.digits$}</b></td><td>{least:.digits$} to {most:.digits$}</td>"
                ))
            };
            let none = "<td>-</td><td></td>";
            let _ = writeln!(
                rows,
                "<tr><td>{}, {}</td>{}{}</tr>",
                escape(&what),
                escape(&server.get("name").map(plain).unwrap_or_default()),
                spread("figures", digits).unwrap_or_else(|| none.into()),
                spread("to_last", 3).unwrap_or_else(|| none.into())
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    table(&["", "median", "of the rounds", "to the last", "of the rounds"], &rows)
}

/// Latency of each stage.
pub fn stages(runs: &[Run]) -> String {
    let mut rows = String::new();
    for (key, name) in STAGES {
        for run in runs {
            let Some(stage) = run
                .figures
                .pointer(&format!("/stages/{key}"))
                .filter(|stage| stage.is_object())
            else {
                continue;
            };
            let name = if runs.len() > 1 {
                format!("{name}, {}", run.name)
            } else {
                name.to_owned()
            };
            let _ = write!(rows, "<tr><td>{}</td>", escape(&name));
            for figure in ["count", "mean", "p50", "p90", "p99", "p99.9", "max"] {
                let value = stage.get(figure).and_then(Value::as_f64);
                let text = value.map(|value| if figure == "count" { count(value) } else { time(value) });
                let _ = write!(rows, "<td>{}</td>", escape(&text.unwrap_or_else(|| "-".into())));
            }
            rows.push_str("</tr>\n");
        }
    }
    if rows.is_empty() {
        return rows;
    }
    table(&["stage", "count", "mean", "p50", "p90", "p99", "p99.9", "max"], &rows)
}

/// What each of several loads did: those that send messages, then what the others found.
pub fn loads(loads: &[Run]) -> String {
    let (mut mail, mut others) = (String::new(), String::new());
    for load in loads {
        let number = |place: &str| load.figures.pointer(place).and_then(Value::as_f64);
        let text = |place: &str, text: fn(f64) -> String| escape(&number(place).map_or("-".into(), text));
        let name = escape(&load.name);
        let good = load.figures.get("good").and_then(Value::as_bool) == Some(true);
        let class = if good { "" } else { " class=\"bad\"" };
        if load.figures.get("kind").and_then(Value::as_str) == Some("mail") {
            let refused: f64 = ["/refused", "/refused_as_expected", "/turned_away"]
                .into_iter()
                .filter_map(number)
                .sum();
            let _ = writeln!(
                mail,
                "<tr><td>{name}</td><td>{}</td><td>{}</td><td{class}>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                text("/scenario/connections", count),
                text("/messages_per_second", |rate| format!("{rate:.1}")),
                text("/failures_in_whole_run", count),
                count(refused),
                text("/stages/final_reply/p50", time),
                text("/stages/final_reply/p99", time),
                text("/stages/greeting/p99", time)
            );
            continue;
        }
        let found = match number("/probes_greeted") {
            Some(probes) => format!(
                "{} of {} connections greeted, {} dropped by the server; then {probes} new clients greeted, {} in the median",
                text("/greeted", count),
                text("/connections", count),
                text("/dropped", count),
                text("/probe_median_us", time)
            ),
            None => format!(
                "good clients meanwhile: {} greeted, {} in the median and {} at most; {} not greeted",
                text("/good_clients_greeted", count),
                text("/greeting_median_us", time),
                text("/greeting_max_us", time),
                text("/good_clients_not_greeted", count)
            ),
        };
        let _ = writeln!(
            others,
            "<tr><td>{name}</td><td class=\"text\"><span{class}>{found}</span></td></tr>"
        );
    }
    let heads = [
        "load",
        "connections",
        "messages a second",
        "failures",
        "refused",
        "final reply p50",
        "p99",
        "greeting p99",
    ];
    let mut tables = String::new();
    if !mail.is_empty() {
        tables.push_str(&table(&heads, &mail));
    }
    if !others.is_empty() {
        tables.push_str(&table(&["load without messages", ""], &others));
    }
    tables
}

/// What went wrong, by kind; a sentence when nothing did.
pub fn failures(runs: &[Run]) -> String {
    let kinds = [
        ("refused", "messages refused"),
        ("lost", "messages lost with their connection, before the final reply"),
        ("unanswered", "messages without a final reply at the end"),
        ("connect_failures", "connections that failed"),
        ("turned_away", "connections turned away at greeting or EHLO"),
        ("malformed", "connections with something that is no reply"),
    ];
    let mut rows = String::new();
    for run in runs {
        for (key, what) in kinds {
            let times = run.figures.get(key).and_then(Value::as_f64).unwrap_or_default();
            if times > 0.0 {
                let name = if runs.len() > 1 {
                    format!("{}: {what}", run.name)
                } else {
                    what.to_owned()
                };
                let _ = writeln!(
                    rows,
                    "<tr><td>{}</td><td class=\"bad\">{}</td></tr>",
                    escape(&name),
                    escape(&count(times))
                );
            }
        }
    }
    if rows.is_empty() {
        return "<p>Nothing failed in the measured window.</p>\n".into();
    }
    table(&["failures in the measured window", ""], &rows)
}

/// The flags.
pub fn settings(runs: &[Run]) -> String {
    keys_and_values(runs, "/scenario", "setting")
}

/// The machine and what its kernel is set to.
pub fn hosts(runs: &[Run]) -> String {
    let mut text = keys_and_values(runs, "/host", "host");
    let sysctls = keys_and_values(runs, "/sysctl", "kernel setting");
    if !sysctls.is_empty() {
        let _ = writeln!(
            text,
            "<details><summary>Kernel settings at the time of the run</summary>{sysctls}</details>"
        );
    }
    text
}

fn keys_and_values(runs: &[Run], place: &str, title: &str) -> String {
    let of = |run: &Run| run.figures.pointer(place).map(flat).unwrap_or_default();
    let all: Vec<BTreeMap<String, Value>> = runs.iter().map(of).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(|map| map.keys()).collect();
    let mut rows = String::new();
    for key in keys {
        let values: Vec<String> = all.iter().map(|map| map.get(key).map_or("-".into(), plain)).collect();
        if values.iter().all(|value| value == "-") {
            continue;
        }
        let _ = write!(rows, "<tr><td>{}</td>", escape(&key.replace('_', " ")));
        for value in values {
            let _ = write!(rows, "<td class=\"text\">{}</td>", escape(&value));
        }
        rows.push_str("</tr>\n");
    }
    if rows.is_empty() {
        return rows;
    }
    let mut heads = vec![title.to_owned()];
    heads.extend(runs.iter().map(|run| {
        if runs.len() > 1 {
            escape(&run.name)
        } else {
            String::new()
        }
    }));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    table(&heads, &rows).replace("<table>", "<table class=\"text\">")
}

/// Keys and values; what stands under a key of its own comes up to the others.
pub fn flat(value: &Value) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => all.extend(flat(value)),
            value => {
                all.insert(key.clone(), value.clone());
            }
        }
    }
    all
}

/// `heads` and `rows` are HTML.
fn table(heads: &[&str], rows: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    format!("<div class=\"wide\"><table><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table></div>\n")
}
