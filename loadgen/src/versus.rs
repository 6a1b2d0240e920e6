//! Two servers under the same load in turns (A B B A A B ...), so that what else the machine does falls on both,
//! and a drift that goes on over the rounds on neither.
//!
//! Promises: the same flags for both; medians of the rounds, and ratios round by round with their spread. One thread.

use serde_json::json;

use crate::flags::{Contender, VersusFlags};
use crate::source::{self, Findings};

/// A line on standard output.
macro_rules! say {
    () => { crate::say(format_args!("\n")) };
    ($text:literal $($rest:tt)*) => { crate::say(format_args!("{}\n", format_args!($text $($rest)*))) };
}

/// Runs the rounds and prints the comparison; whether every message of every run was accepted.
pub fn run(flags: &VersusFlags) -> Result<bool, String> {
    for contender in [&flags.a, &flags.b] {
        flags.load.permitted(contender.target)?;
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 1..=flags.rounds {
        let mut turns = [(&flags.a, &mut a), (&flags.b, &mut b)];
        if round % 2 == 0 {
            turns.reverse();
        }
        for (contender, runs) in turns {
            let findings = source::run(&flags.load, contender.target, &contender.pids)?;
            say!("round {round}  {:<12} {}", contender.name, line(&findings));
            if let Some(why) = &findings.stopped {
                return Err(format!("{}: {why}", contender.name));
            }
            runs.push(findings);
        }
    }
    say!();
    let rates = |runs: &[Findings]| runs.iter().map(|run| Some(run.rate())).collect::<Vec<_>>();
    let cpus = |runs: &[Findings]| runs.iter().map(Findings::server_cpu_a_message).collect::<Vec<_>>();
    let compared = [
        compare("messages/s", 0, flags, &rates(&a), &rates(&b)),
        compare("server CPU µs/message", 2, flags, &cpus(&a), &cpus(&b)),
    ];
    let warnings = a.iter().chain(&b).filter(|run| run.generator_was_busy()).count();
    if warnings > 0 {
        say!("WARNING: the generator was busy in {warnings} runs: it, not the server, may have been the limit");
    }
    let rounds = |contender: &Contender, runs: &[Findings]| {
        json!({ "name": contender.name, "target": contender.target.to_string(),
                "runs": runs.iter().map(Findings::to_json).collect::<Vec<_>>() })
    };
    let value = json!({ "scenario": flags.load.to_json(), "a": rounds(&flags.a, &a), "b": rounds(&flags.b, &b), "compared": compared });
    crate::write_json(&flags.load, &value)?;
    Ok(a.iter().chain(&b).all(|run| run.failures == 0))
}

fn line(findings: &Findings) -> String {
    let cpu = findings
        .server_cpu_a_message()
        .map_or("-".into(), |cpu| format!("{cpu:.2}"));
    let failed = if findings.failures > 0 {
        format!("  FAILED {}", findings.failures)
    } else {
        String::new()
    };
    format!(
        "{:>9.0} messages/s  server {cpu:>6} µs/message  generator {:.2} µs/message ({:.0} % busy){failed}",
        findings.rate(),
        findings.own_cpu_a_message().unwrap_or_default(),
        findings.own_share() * 100.0
    )
}

/// Prints one figure of both; nothing when a round lacks it.
fn compare(
    what: &str,
    digits: usize,
    flags: &VersusFlags,
    a: &[Option<f64>],
    b: &[Option<f64>],
) -> Option<serde_json::Value> {
    let a: Vec<f64> = a.iter().copied().collect::<Option<_>>()?;
    let b: Vec<f64> = b.iter().copied().collect::<Option<_>>()?;
    let ratios: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a / b).collect();
    let (a, b, ratio) = (Spread::of(&a)?, Spread::of(&b)?, Spread::of(&ratios)?);
    say!("{what}");
    for (name, spread) in [(&flags.a.name, &a), (&flags.b.name, &b)] {
        let Spread { median, least, most } = spread;
        say!("  {name:<14} median {median:>10.digits$}   ({least:.digits$} to {most:.digits$})");
    }
    let title = format!("{}/{}", flags.a.name, flags.b.name);
    say!(
        "  {title:<14} median {:>10.3}   ({:.3} to {:.3})",
        ratio.median,
        ratio.least,
        ratio.most
    );
    let spread = |spread: &Spread| json!({ "median": spread.median, "least": spread.least, "most": spread.most });
    Some(json!({ "what": what, "a": spread(&a), "b": spread(&b), "a_to_b": spread(&ratio) }))
}

/// Median and extremes of some figures.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// None of no figures.
    fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            median: (lower + upper) / 2.0,
            least: *sorted.first()?,
            most: *sorted.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_figures() {
        assert_eq!(
            Spread::of(&[3.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                least: 1.0,
                most: 3.0
            })
        );
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of(&[]), None);
    }
}
