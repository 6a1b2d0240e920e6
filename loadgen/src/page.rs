//! The page of a run, of two side by side, or of servers that were run in turns: one file that needs nothing else, readable in light and in dark.
//!
//! Promises: made from the figures as `--json` writes them, so that a page can be made of any run that was kept; what is
//! missing there is left out here; no script, no reference to anywhere; everything that is not ours is escaped. Pure.

pub mod chart;
mod plots;
mod tables;

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use self::chart::escape;
pub use self::tables::flat;

const STYLE: &str = include_str!("page/style.css");

/// The figures of a run and what to call it.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub figures: Value,
}

/// Writes the page to a file.
pub fn write(path: &Path, runs: &[Run]) -> Result<(), String> {
    std::fs::write(path, render(runs)).map_err(|error| format!("{}: {error}", path.display()))
}

/// The page.
pub fn render(runs: &[Run]) -> String {
    let names: Vec<String> = runs.iter().map(|run| escape(&run.name)).collect();
    let title = format!("loadgen: {}", names.join(" and "));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1><small>loadgen</small> {}</h1>\n",
        names.join(" <small>and</small> ")
    );
    for run in runs {
        let _ = writeln!(page, "<p>{}</p>", escape(&about(run, runs.len() > 1)));
    }
    page.push_str("</header>\n");
    for run in runs {
        warnings(&mut page, run, runs.len() > 1);
    }
    let compared = runs.iter().find_map(|run| run.figures.get("compared"));
    match (compared, runs) {
        (Some(compared), _) => page.push_str(&tables::compared(compared)),
        (None, [a, b]) => page.push_str(&tables::side_by_side(a, b)),
        _ => runs.iter().for_each(|run| page.push_str(&tables::tiles(&run.figures))),
    }
    if let [run] = runs {
        loads(&mut page, run);
    }
    page.push_str("<h2>Latency</h2>\n");
    page.push_str(&plots::percentiles(runs));
    page.push_str(&tables::stages(runs));
    if compared.is_some() {
        page.push_str("<h2>Round by round</h2>\n");
        page.push_str(&plots::round_by_round(runs));
    } else {
        page.push_str("<h2>Over time</h2>\n");
        page.push_str(&plots::rate_over_time(runs));
        page.push_str(&plots::latency_over_time(runs));
    }
    page.push_str("<h2>Replies</h2>\n");
    page.push_str(&plots::replies(runs));
    page.push_str(&tables::failures(runs));
    page.push_str("<h2>How it was measured</h2>\n");
    page.push_str(&tables::settings(runs));
    page.push_str(&tables::hosts(runs));
    page.push_str("</body>\n</html>\n");
    page
}

/// Each of several loads that ran at once.
fn loads(page: &mut String, run: &Run) {
    let figures = run.figures.get("loads").and_then(Value::as_array);
    let loads: Vec<Run> = figures
        .into_iter()
        .flatten()
        .map(|load| Run {
            name: load.get("name").map(plain).unwrap_or_default(),
            figures: load.clone(),
        })
        .collect();
    if loads.is_empty() {
        return;
    }
    page.push_str("<h2>Each load</h2>\n");
    page.push_str(&tables::loads(&loads));
    let sends = |run: &Run| run.figures.get("kind").and_then(Value::as_str) == Some("mail");
    let mail: Vec<Run> = loads.into_iter().filter(sends).collect();
    if mail.len() > 1 {
        page.push_str(&plots::percentiles(&mail));
    }
}

/// What a run was, in a sentence.
fn about(run: &Run, named: bool) -> String {
    let figures = &run.figures;
    let text = |place: &str| figures.pointer(place).and_then(Value::as_str).unwrap_or("?").to_owned();
    let scenario = |key: &str| {
        figures
            .pointer(&format!("/scenario/{key}"))
            .map(plain)
            .unwrap_or_else(|| "?".into())
    };
    let rate = match figures.pointer("/scenario/rate").and_then(Value::as_f64) {
        Some(rate) => format!("an open loop of {rate} messages a second"),
        None => "a closed loop".into(),
    };
    let name = if named {
        format!("{}: ", run.name)
    } else {
        String::new()
    };
    if let Some(loads) = figures.get("loads").and_then(Value::as_array) {
        return format!(
            "{name}{} to {}, {} loads at once",
            text("/date"),
            text("/target"),
            loads.len()
        );
    }
    format!(
        "{name}{} to {}, {} connections, {rate}, messages of {} octets; run {}",
        text("/date"),
        text("/target"),
        scenario("connections"),
        scenario("size"),
        text("/run")
    )
}

fn warnings(page: &mut String, run: &Run, named: bool) {
    let name = if named {
        format!("{}: ", run.name)
    } else {
        String::new()
    };
    let figures = &run.figures;
    let is = |key: &str| figures.get(key).and_then(Value::as_bool) == Some(true);
    let mut warn = |kind: &str, text: &str| {
        let _ = writeln!(page, "<p class=\"note {kind}\">{}{}</p>", escape(&name), escape(text));
    };
    if let Some(why) = figures.get("stopped").and_then(Value::as_str) {
        warn("bad", &format!("The run was stopped: {why}"));
    }
    for missed in figures
        .get("thresholds_missed")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        warn("bad", &format!("Threshold missed: {}", plain(missed)));
    }
    if is("generator_was_the_limit") {
        warn(
            "warn",
            "The generator was busy: it, not the server, may have been the limit. Take these figures as a lower bound.",
        );
    }
    if is("pipelining_not_offered") {
        warn(
            "warn",
            "The server does not offer PIPELINING: commands were sent one at a time.",
        );
    }
}

/// A value as text, without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

/// Microseconds in the unit that fits.
fn time(microseconds: f64) -> String {
    let digits = |value: f64| match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    };
    let trimmed = |value: f64| {
        let text = digits(value);
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    };
    match microseconds {
        n if n < 1e3 => format!("{} µs", trimmed(n)),
        n if n < 1e6 => format!("{} ms", trimmed(n / 1e3)),
        n => format!("{} s", trimmed(n / 1e6)),
    }
}

/// A count with its thousands apart.
fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
