//! `bench`: servers under the same load in turns (A B B A A B ...), so that what else the machine does falls on all,
//! and a drift that goes on over the rounds on neither.
//!
//! Promises: the same flags for all; medians of the rounds, and ratios round by round with their spread; `--report` writes one
//! page with all of them. One thread.

use serde_json::{Value, json};

use crate::flags::{BenchFlags, Contender};
use crate::page::{self, Run};
use crate::source::{self, Findings};

/// A line on standard output.
macro_rules! say {
    () => { crate::say(format_args!("\n")) };
    ($text:literal $($rest:tt)*) => { crate::say(format_args!("{}\n", format_args!($text $($rest)*))) };
}

/// Runs the rounds and prints the comparison; whether every message of every run was accepted.
pub fn run(flags: &BenchFlags) -> Result<bool, String> {
    let servers: Vec<&Contender> = flags.servers().collect();
    let mut runs: Vec<Vec<Findings>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 1..=flags.rounds {
        let mut turns: Vec<_> = servers.iter().zip(&mut runs).collect();
        if round % 2 == 0 {
            turns.reverse();
        }
        for (server, runs) in turns {
            let findings = source::run(&flags.load, server.target, &server.pids)?;
            say!("round {round}  {:<12} {}", server.name, line(&findings));
            if let Some(why) = &findings.stopped {
                return Err(format!("{}: {why}", server.name));
            }
            runs.push(findings);
        }
    }
    say!();
    let of = |figure: fn(&Findings) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
        runs.iter().map(|runs| runs.iter().map(figure).collect()).collect()
    };
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let compared = [
        compare("messages/s", 0, &names, &of(|run| Some(run.rate()))),
        compare("server CPU µs/message", 2, &names, &of(Findings::server_cpu_a_message)),
        compare(
            "final reply p99, µs",
            0,
            &names,
            &of(|run| Some(run.counts.final_reply.value_at_quantile(0.99) as f64 / 1e3)),
        ),
    ];
    let warnings = runs.iter().flatten().filter(|run| run.generator_was_busy()).count();
    if warnings > 0 {
        say!("WARNING: the generator was busy in {warnings} runs: it, not the server, may have been the limit");
    }
    let told: Vec<_> = servers
        .iter()
        .zip(&runs)
        .map(|(server, runs)| {
            json!({ "name": server.name, "target": server.target.to_string(),
                    "runs": runs.iter().map(Findings::to_json).collect::<Vec<_>>() })
        })
        .collect();
    let value = json!({ "scenario": flags.load.to_json(), "servers": told, "compared": compared });
    crate::write_json(&flags.load, &value)?;
    if let Some(path) = &flags.load.report {
        let pages: Vec<Run> = servers
            .iter()
            .zip(&runs)
            .filter_map(|(server, runs)| paged(flags, server, runs, &value["compared"]))
            .collect();
        page::write(path, &pages)?;
    }
    Ok(runs.iter().flatten().all(|run| run.failures == 0))
}

/// All rounds of a server as the page takes them.
fn paged(flags: &BenchFlags, server: &Contender, runs: &[Findings], compared: &Value) -> Option<Run> {
    let (first, later) = runs.split_first()?;
    let mut sum = first.clone();
    later.iter().for_each(|run| sum.follow(run));
    let (mut figures, _) = sum.judged(&flags.load);
    let round = |run: &Findings| {
        let reply = |quantile| run.counts.final_reply.value_at_quantile(quantile) as f64 / 1e3;
        json!({ "messages_per_second": run.rate(), "server_cpu_us_per_message": run.server_cpu_a_message(),
                "p50_us": reply(0.5), "p99_us": reply(0.99) })
    };
    let all = figures.as_object_mut()?;
    all.remove("timeline");
    all.remove("window");
    all.insert("rounds".into(), runs.iter().map(round).collect());
    all.insert("compared".into(), compared.clone());
    Some(Run {
        name: server.name.clone(),
        figures,
    })
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

/// Prints one figure of all, and its ratio to the last one's, round by round; nothing when a round lacks it.
fn compare(what: &str, digits: usize, names: &[&str], figures: &[Vec<Option<f64>>]) -> Option<serde_json::Value> {
    let known = |runs: &Vec<Option<f64>>| runs.iter().copied().collect::<Option<Vec<f64>>>();
    let figures: Vec<Vec<f64>> = figures.iter().map(known).collect::<Option<_>>()?;
    let (last_name, last) = (names.last()?, figures.last()?);
    let mut told = Vec::new();
    say!("{what}");
    for (name, runs) in names.iter().zip(&figures) {
        let spread = Spread::of(runs)?;
        let Spread { median, least, most } = &spread;
        say!("  {name:<14} median {median:>10.digits$}   ({least:.digits$} to {most:.digits$})");
        told.push(json!({ "name": name, "figures": spread.to_json() }));
    }
    let others = names.iter().zip(&figures).take(figures.len() - 1);
    for ((name, runs), told) in others.zip(&mut told) {
        let ratios: Vec<f64> = runs.iter().zip(last).map(|(run, last)| run / last).collect();
        let spread = Spread::of(&ratios)?;
        let Spread { median, least, most } = &spread;
        let title = format!("{name}/{last_name}");
        say!("  {title:<14} median {median:>10.3}   ({least:.3} to {most:.3})");
        if let Some(told) = told.as_object_mut() {
            told.insert("to_last".into(), spread.to_json());
        }
    }
    Some(json!({ "what": what, "servers": told }))
}

/// Median and extremes of some figures.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn to_json(&self) -> serde_json::Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }

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
