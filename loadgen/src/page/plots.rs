//! The charts of a page, from the figures of its runs. Pure.

use serde_json::Value;

use super::chart::{Axis, Band, Bar, COLOURS, Scale, Series, bars, lines};
use super::{Run, count, time};

/// Stages whose latency is drawn: as `--json` names them, and as people do.
pub const STAGES: [(&str, &str); 10] = [
    ("final_reply", "final reply"),
    ("from_plan", "final reply, from the planned time"),
    ("transaction", "whole transaction"),
    ("envelope", "MAIL, RCPT and DATA"),
    ("content", "writing the content"),
    ("connect", "connect"),
    ("greeting", "greeting"),
    ("tls", "TLS handshake"),
    ("ehlo", "EHLO"),
    ("auth", "AUTH"),
];

/// Latency by percentile.
pub fn percentiles(runs: &[Run]) -> String {
    let mut series = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        for (key, name) in STAGES {
            let points = curve(&run.figures, key);
            // Runs are told apart by colour, so that only what matters most of each is drawn; of many a single line.
            let matters = match runs.len() {
                1 => true,
                2 => matches!(key, "final_reply" | "from_plan"),
                _ => key == most_telling(&run.figures),
            };
            if points.is_empty() || !matters {
                continue;
            }
            let (many, drawn) = (runs.len() > 1, series.len());
            series.push(Series {
                name: if many {
                    format!("{}: {name}", run.name)
                } else {
                    name.into()
                },
                colour: if many { number } else { drawn },
                // Colours are used a second time when there are many stages.
                dashed: if many {
                    runs.len() == 2 && key == "from_plan"
                } else {
                    drawn >= COLOURS
                },
                points,
                filled: false,
            });
        }
    }
    let across = Axis {
        name: "percentile",
        scale: Scale::Percentile,
        label: |value| {
            format!("{:.5}", value)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        },
    };
    lines("Latency by percentile", across, latency_axis(), &series, &[])
}

/// In an open loop latency counts from the planned time.
fn most_telling(figures: &Value) -> &'static str {
    match figures.pointer("/stages/from_plan").is_some_and(Value::is_object) {
        true => "from_plan",
        false => "final_reply",
    }
}

/// Accepted messages a second, and failures.
pub fn rate_over_time(runs: &[Run]) -> String {
    let mut series = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        series.push(Series {
            name: named(runs, run, "accepted messages a second"),
            colour: number,
            dashed: false,
            points: steps(&run.figures, 1),
            filled: runs.len() == 1,
        });
        let failed = column(&run.figures, 2);
        if failed.iter().any(|(_, failures)| *failures > 0.0) {
            series.push(Series {
                name: named(runs, run, "failures"),
                colour: if runs.len() > 1 { number } else { 5 },
                dashed: true,
                points: failed,
                filled: false,
            });
        }
    }
    let up = Axis {
        name: "messages a second",
        scale: Scale::Linear,
        label: rate,
    };
    over_time("Rate", up, &series, runs)
}

/// p50, p99 and the longest latency.
pub fn latency_over_time(runs: &[Run]) -> String {
    let mut series = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        for (place, (at, name)) in [(3, "p50"), (4, "p99"), (5, "longest")].into_iter().enumerate() {
            if runs.len() > 1 && at == 5 {
                continue;
            }
            series.push(Series {
                name: named(runs, run, name),
                colour: if runs.len() > 1 { number } else { place },
                dashed: runs.len() > 1 && at == 4,
                points: column(&run.figures, at),
                filled: false,
            });
        }
    }
    over_time("Latency of the final reply", latency_axis(), &series, runs)
}

fn over_time(title: &str, up: Axis<'_>, series: &[Series], runs: &[Run]) -> String {
    let across = Axis {
        name: "seconds since the start",
        scale: Scale::Linear,
        label: |value| format!("{value}"),
    };
    let window = |run: &Run| {
        let at = |place: &str| run.figures.pointer(place).and_then(Value::as_f64);
        Some((at("/window/0")?, at("/window/1")?))
    };
    let mut bands = Vec::new();
    if let Some((from, to)) = runs.first().and_then(window) {
        bands.push(Band {
            from: 0.0,
            to: from,
            name: "before the measured window",
        });
        bands.push(Band {
            from: to,
            to: f64::MAX,
            name: "after the measured window",
        });
    }
    lines(title, across, up, series, &bands)
}

/// What each round of a bench found, server by server.
pub fn round_by_round(runs: &[Run]) -> String {
    let up = |name: &'static str, label: fn(f64) -> String| Axis {
        name,
        scale: Scale::Linear,
        label,
    };
    let charts = [
        ("messages_per_second", "Rate", up("messages a second", rate)),
        (
            "server_cpu_us_per_message",
            "CPU time of the server",
            up("a message", time),
        ),
        ("p50_us", "Final reply, p50", up("", time)),
        ("p99_us", "Final reply, p99", up("", time)),
    ];
    let mut text = String::new();
    for (key, title, up) in charts {
        let line = |(number, run): (usize, &Run)| {
            let rounds = run.figures.get("rounds").and_then(Value::as_array);
            let value = |(at, round): (usize, &Value)| Some((at as f64 + 1.0, round.get(key)?.as_f64()?));
            Series {
                name: run.name.clone(),
                colour: number,
                dashed: number >= COLOURS,
                points: rounds.into_iter().flatten().enumerate().filter_map(value).collect(),
                filled: false,
            }
        };
        let series: Vec<Series> = runs.iter().enumerate().map(line).collect();
        text.push_str(&lines(title, across(), up, &series, &[]));
    }
    text
}

/// The rounds of a bench.
fn across() -> Axis<'static> {
    Axis {
        name: "round",
        scale: Scale::Linear,
        label: |value| match value.fract() == 0.0 {
            true => format!("{value}"),
            false => String::new(),
        },
    }
}

/// Replies by code.
pub fn replies(runs: &[Run]) -> String {
    let mut all = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let Some(replies) = run.figures.get("replies").and_then(Value::as_object) else {
            continue;
        };
        for (code, times) in replies {
            let value = times.as_f64().unwrap_or_default();
            let colour = match (runs.len(), code.as_bytes().first()) {
                (2.., _) => number,
                (_, Some(b'4')) => 4,
                (_, Some(b'5')) => 5,
                _ => 0,
            };
            all.push((
                code.clone(),
                Bar {
                    name: code.clone(),
                    text: named(runs, run, &format!("{}  {}", count(value), meaning(code))),
                    value,
                    colour,
                },
            ));
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let all: Vec<Bar> = all.into_iter().map(|(_, bar)| bar).collect();
    bars("Replies by code", &all)
}

/// RFC 5321 section 4.2.3, in a few words.
fn meaning(code: &str) -> &'static str {
    match code {
        "220" => "greeting",
        "221" => "closing",
        "235" => "authenticated",
        "250" => "done",
        "354" => "send the content",
        "421" => "not available, closing",
        "450" => "mailbox not available now",
        "451" => "local error",
        "452" => "no room now",
        "454" => "TLS or AUTH not available now",
        "500" => "not understood",
        "501" => "bad parameter",
        "502" => "not implemented",
        "503" => "out of order",
        "530" => "authenticate or encrypt first",
        "535" => "wrong credentials",
        "550" => "refused",
        "552" => "too much",
        "554" => "refused",
        "555" => "parameter not known",
        _ => "",
    }
}

/// A rate, which may be slow.
fn rate(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 {
        format!("{value:.1}")
    } else {
        count(value)
    }
}

fn latency_axis() -> Axis<'static> {
    Axis {
        name: "logarithmic",
        scale: Scale::Logarithmic,
        label: time,
    }
}

fn named(runs: &[Run], run: &Run, what: &str) -> String {
    if runs.len() > 1 {
        format!("{}: {what}", run.name)
    } else {
        what.to_owned()
    }
}

/// Latency by percentile. The longest of n stands where half a sample is left, not at infinity.
fn curve(figures: &Value, stage: &str) -> Vec<(f64, f64)> {
    let Some(stage) = figures.pointer(&format!("/stages/{stage}")) else {
        return Vec::new();
    };
    let count = stage.get("count").and_then(Value::as_f64).unwrap_or(1.0).max(1.0);
    let pairs = stage.get("series").and_then(Value::as_array);
    let pair = |value: &Value| {
        let percentile = value.get(0)?.as_f64()?.min(100.0 * (1.0 - 0.5 / count));
        // What is shorter than a microsecond is not worth decades of the axis.
        Some((percentile, value.get(1)?.as_f64()?.max(1.0)))
    };
    pairs.into_iter().flatten().filter_map(pair).collect()
}

/// A column of the timeline, against the time; what began after the measured window is left out.
fn column(figures: &Value, number: usize) -> Vec<(f64, f64)> {
    let rows = figures.pointer("/timeline/rows").and_then(Value::as_array);
    let end = figures.pointer("/window/1").and_then(Value::as_f64).unwrap_or(f64::MAX);
    let point = |row: &Value| Some((row.get(0)?.as_f64()?, row.get(number)?.as_f64()?));
    let points = rows.into_iter().flatten().filter_map(point);
    points.filter(|(at, _)| *at == 0.0 || at + 0.05 < end).collect()
}

/// A column whose rows last to the next one, the last to its own end.
fn steps(figures: &Value, number: usize) -> Vec<(f64, f64)> {
    let mut points = column(figures, number);
    let width = figures
        .pointer("/timeline/row_seconds")
        .and_then(Value::as_f64)
        .unwrap_or(1.0);
    let end = figures.pointer("/window/1").and_then(Value::as_f64).unwrap_or(f64::MAX);
    if let Some((at, value)) = points.last().copied() {
        points.push(((at + width).min(end.max(at)), value));
    }
    points
}
