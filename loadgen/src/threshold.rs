//! What a run must not exceed: `--fail-if 'p99>20ms'`, for use in CI.
//!
//! Promises: what cannot be measured counts as missed, so that a typing mistake or an empty run does not pass. Pure.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::report::readable;

/// Percentiles that `--json` has for each stage.
const PERCENTILES: [&str; 9] = ["mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max"];
/// Stages of which they are.
const STAGES: [&str; 10] = [
    "final_reply",
    "from_plan",
    "transaction",
    "envelope",
    "content",
    "connect",
    "greeting",
    "ehlo",
    "tls",
    "auth",
];

/// What is measured, in which unit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// A latency, in microseconds: of the stage named, or of what the run is about.
    Latency(Option<String>, String),
    /// Messages a second.
    Rate,
    /// Failures in the whole run: a number of them.
    Failures,
    /// Their share of the messages.
    FailureShare,
    /// CPU time of the server for a message, in microseconds.
    ServerCpu,
}

/// A condition under which the run has failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    what: What,
    above: bool,
    limit: f64,
}

impl Threshold {
    /// Why the run has failed, if it has.
    pub fn missed_by(&self, figures: &Value) -> Option<String> {
        let Some(value) = self.value(figures) else {
            return Some(format!("{self}: there is no such figure in this run"));
        };
        let missed = if self.above {
            value > self.limit
        } else {
            value < self.limit
        };
        missed.then(|| format!("{self}: it was {}", self.readable(value)))
    }

    fn value(&self, figures: &Value) -> Option<f64> {
        let number = |place: &str| figures.pointer(place).and_then(Value::as_f64);
        match &self.what {
            What::Latency(Some(stage), percentile) => number(&format!("/stages/{stage}/{percentile}")),
            // An open loop is about the planned time.
            What::Latency(None, percentile) => number(&format!("/stages/from_plan/{percentile}"))
                .or_else(|| number(&format!("/stages/final_reply/{percentile}"))),
            What::Rate => number("/messages_per_second"),
            What::Failures => number("/failures_in_whole_run"),
            What::FailureShare => {
                let failures = number("/failures_in_whole_run")?;
                Some(failures / (failures + number("/messages")?).max(1.0))
            }
            What::ServerCpu => number("/server_cpu_us_per_message"),
        }
    }

    fn readable(&self, value: f64) -> String {
        match self.what {
            What::Latency(..) | What::ServerCpu => readable((value * 1e3) as u64),
            What::Rate => format!("{value:.0} a second"),
            What::Failures => format!("{value:.0}"),
            What::FailureShare => format!("{:.3} %", value * 100.0),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text
            .find(['<', '>'])
            .ok_or("expected FIGURE>LIMIT or FIGURE<LIMIT, such as p99>20ms")?;
        let (name, limit) = (text[..at].trim(), text[at + 1..].trim());
        let (what, limit) = match name {
            "rate" => (What::Rate, limit.parse().ok()),
            "failures" => match limit.strip_suffix('%') {
                Some(percent) => (
                    What::FailureShare,
                    percent.parse().ok().map(|percent: f64| percent / 100.0),
                ),
                None => (What::Failures, limit.parse().ok()),
            },
            "server-cpu" => (What::ServerCpu, microseconds(limit)),
            _ => {
                let (stage, percentile) = match name.split_once(':') {
                    Some((stage, percentile)) => (Some(stage.replace('-', "_")), percentile),
                    None => (None, name),
                };
                let known = stage.as_deref().is_none_or(|stage| STAGES.contains(&stage));
                if !known || !PERCENTILES.contains(&percentile) {
                    return Err(format!(
                        "\"{name}\" is no figure: {} (of the final reply, or STAGE:p99), rate, failures, server-cpu",
                        PERCENTILES.join(", ")
                    ));
                }
                (What::Latency(stage, percentile.into()), microseconds(limit))
            }
        };
        Ok(Self {
            text: text.trim().into(),
            what,
            above: text[at..].starts_with('>'),
            limit: limit.ok_or_else(|| format!("\"{text}\" has no limit, such as 20ms, 1000 or 1%"))?,
        })
    }
}

fn microseconds(text: &str) -> Option<f64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn missed(threshold: &str) -> bool {
        let figures = json!({
            "messages": 90, "messages_per_second": 1000.0, "failures_in_whole_run": 10,
            "stages": { "final_reply": { "p99": 25_000.0, "mean": 90.0 }, "tls": { "max": 1_500_000.0 } },
        });
        threshold.parse::<Threshold>().unwrap().missed_by(&figures).is_some()
    }

    #[test]
    fn a_run_fails_beyond_its_limits_only() {
        for (threshold, expected) in [
            ("p99>20ms", true),
            ("p99 > 25ms", false),
            ("p99<30ms", true),
            ("mean>100us", false),
            ("tls:max>1s", true),
            ("tls:max>2s", false),
            ("rate<1001", true),
            ("rate<1000", false),
            ("failures>9", true),
            ("failures>10", false),
            ("failures>9%", true),
            ("failures>10%", false),
        ] {
            assert_eq!(missed(threshold), expected, "{threshold}");
        }
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        assert!(missed("server-cpu>1s") && missed("ehlo:p50>1s"));
    }

    #[test]
    fn in_an_open_loop_latency_counts_from_the_plan() {
        let figures = json!({ "stages": { "from_plan": { "p99": 2e6 }, "final_reply": { "p99": 1.0 } } });
        let threshold: Threshold = "p99>1s".parse().unwrap();
        assert_eq!(threshold.missed_by(&figures).unwrap(), "p99>1s: it was 2.00 s");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "",
            "p99",
            "p99>",
            "p99>20",
            "p98>20ms",
            "rate>fast",
            "x:p99>1s",
            "p99=20ms",
        ] {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong}");
        }
    }
}
