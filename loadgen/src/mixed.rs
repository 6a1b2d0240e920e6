//! Several loads at once against one server, as a scenario with `[[load]]` tables says: a day of its life in a minute.
//!
//! Promises: all begin at the same time and are measured over the same window; each is told apart, and those that send
//! messages together as well; a load that cannot start ends the run. Each load has executors of its own, or a thread; the
//! caller's thread reads the server's CPU time.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;

use crate::flags::{Cli, RunFlags};
use crate::measure::{check_processes, cpu_of};
use crate::progress::{Board, Goal, Show};
use crate::report::readable;
use crate::scenario::Load;
use crate::source::{Findings, Meeting, Ready};
use crate::{abuse, idle};

/// How often it is looked whether the window opens or closes.
const TICK: Duration = Duration::from_millis(20);

/// One of the loads.
#[derive(Debug)]
pub struct Part {
    name: String,
    flags: RunFlags,
}

impl Part {
    /// Connections that it holds at most.
    pub fn connections(&self) -> usize {
        self.flags.idle.unwrap_or(self.flags.load.connections)
    }
}

/// The loads with what each takes of the whole; or what is wrong with them.
pub fn parts(whole: &RunFlags, loads: Vec<Load>) -> Result<Vec<Part>, String> {
    if loads.is_empty() {
        return Ok(Vec::new());
    }
    let theirs = &whole.load;
    if theirs.messages.is_some() {
        return Err("--messages: several loads at once run for a --duration".into());
    }
    if theirs.busy_poll || theirs.expect.is_some() {
        return Err("--busy-poll, --expect: not with several loads at once; expect may stand in each [[load]]".into());
    }
    loads.into_iter().map(|load| part(whole, load)).collect()
}

fn part(whole: &RunFlags, load: Load) -> Result<Part, String> {
    let said = |why: String| format!("load \"{}\": {why}", load.name);
    let cli = Cli::try_parse_from(&load.arguments).map_err(|error| said(error.to_string()))?;
    let mut flags = cli.run;
    let own = |flag: &str| load.own.iter().any(|own| own == flag);
    if let Some(share) = load.share.map(|share| share / 100.0) {
        if !own("--connections") {
            flags.load.connections = ((whole.load.connections as f64 * share).round() as usize).max(1);
        }
        if !own("--rate") {
            flags.load.rate = whole.load.rate.map(|rate| rate * share);
        }
    }
    flags.load.check(flags.target).map_err(said)?;
    Ok(Part { name: load.name, flags })
}

/// What became of a load.
#[derive(Debug)]
enum Found {
    Mail(Box<Findings>),
    Idle(Box<idle::Found>),
    Abuse(Box<abuse::Found>),
}

impl Found {
    fn is_good(&self) -> bool {
        match self {
            Self::Mail(findings) => findings.failures == 0 && findings.stopped.is_none(),
            Self::Idle(found) => found.is_good(),
            Self::Abuse(found) => found.is_good(),
        }
    }

    fn to_json(&self, part: &Part) -> Value {
        let (kind, mut figures) = match self {
            Self::Mail(findings) => ("mail", findings.to_json()),
            Self::Idle(found) => ("idle", found.to_json()),
            Self::Abuse(found) => ("abuse", found.to_json()),
        };
        if let Some(figures) = figures.as_object_mut() {
            figures.insert("name".into(), part.name.clone().into());
            figures.insert("kind".into(), kind.into());
            figures.insert("good".into(), self.is_good().into());
            if kind == "mail" {
                figures.insert("scenario".into(), part.flags.load.to_json());
            }
        }
        figures
    }
}

/// Runs the loads and says what came of each; whether all went well.
pub fn run(whole: &RunFlags, parts: Vec<Part>) -> Result<bool, String> {
    check_processes(&whole.pid)?;
    let (found, start, server_cpu) = all(whole, &parts)?;
    let mut together = Findings::none(start, whole.target);
    for found in &found {
        if let Found::Mail(findings) = found {
            together.absorb(findings);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    together.executors = together.executors.min(cores);
    together.server_cpu = server_cpu;
    let (mut figures, missed) = together.judged(&whole.load);
    let loads: Vec<Value> = parts
        .iter()
        .zip(&found)
        .map(|(part, found)| found.to_json(part))
        .collect();
    if let Some(figures) = figures.as_object_mut() {
        figures.insert("loads".into(), loads.into());
    }
    crate::say(format_args!("{}\ntogether\n{together}", table(&parts, &found)));
    for threshold in &missed {
        crate::say(format_args!("MISSED       {threshold}\n"));
    }
    crate::write_json(&whole.load, &figures)?;
    together.write_files(&whole.load, figures)?;
    Ok(missed.is_empty() && found.iter().all(Found::is_good))
}

/// Runs all of them at once: what each found, when they began, and the server's CPU time in the window.
fn all(whole: &RunFlags, parts: &[Part]) -> Result<(Vec<Found>, Instant, Option<Duration>), String> {
    let mut ready = Vec::new();
    for Part { name, flags } in parts {
        let sends = flags.idle.is_none() && flags.abuse.is_empty();
        let load = sends.then(|| Ready::new(&flags.load, flags.target)).transpose();
        ready.push(load.map_err(|why| format!("load \"{name}\": {why}"))?);
    }
    let executors = ready.iter().flatten().map(Ready::executors).sum::<usize>();
    // Each load's thread comes too.
    let meeting = Meeting::of(executors + parts.len());
    let board = Board::new(executors);
    let (warm_up, duration) = (whole.load.warm_up, whole.load.duration);
    let show = (!whole.load.silent).then(|| Show::start(Arc::clone(&board), Goal::Time(warm_up + duration)));
    let (tell, told) = mpsc::channel();
    let mut first = 0;
    for (number, (part, ready)) in parts.iter().zip(ready).enumerate() {
        let (meeting, board, tell) = (Arc::clone(&meeting), Arc::clone(&board), tell.clone());
        let (mut flags, place) = (part.flags.clone(), first);
        first += ready.as_ref().map_or(0, Ready::executors);
        std::thread::spawn(move || {
            flags.load.duration += if ready.is_some() { Duration::ZERO } else { warm_up };
            let found = match ready {
                Some(ready) => ready
                    .run(&meeting, &board, place, &[])
                    .map(|found| Found::Mail(Box::new(found))),
                None => {
                    meeting.wait();
                    harmless(&flags)
                }
            };
            // Nobody hears it when another load has ended the run.
            let _ = tell.send((number, found));
        });
    }
    drop(tell);
    let mut server = Watch::new(&whole.pid, warm_up, duration);
    let mut found: Vec<Option<Found>> = parts.iter().map(|_| None).collect();
    loop {
        if let Some(start) = meeting.began() {
            server.look(start);
        }
        match told.recv_timeout(TICK) {
            Ok((number, outcome)) => {
                let name = parts.get(number).map_or("", |part| part.name.as_str());
                let outcome = outcome.map_err(|why| format!("load \"{name}\": {why}"))?;
                if let Some(place) = found.get_mut(number) {
                    *place = Some(outcome);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    show.into_iter().for_each(Show::stop);
    let found: Option<Vec<Found>> = found.into_iter().collect();
    match (found, meeting.began()) {
        (Some(found), Some(start)) => Ok((found, start, server.found())),
        _ => Err("a load ended without figures".into()),
    }
}

/// A load that sends no message.
fn harmless(flags: &RunFlags) -> Result<Found, String> {
    match flags.idle {
        Some(connections) => {
            idle::run(connections, flags.target, &[], &flags.load).map(|found| Found::Idle(Box::new(found)))
        }
        None => abuse::run(&flags.abuse, flags.target, &[], &flags.load).map(|found| Found::Abuse(Box::new(found))),
    }
}

/// CPU time of the server between the opening of the window and its closing.
struct Watch<'a> {
    pids: &'a [u32],
    opens: Duration,
    closes: Duration,
    before: Option<Duration>,
    after: Option<Duration>,
}

impl<'a> Watch<'a> {
    fn new(pids: &'a [u32], warm_up: Duration, duration: Duration) -> Self {
        Self {
            pids,
            opens: warm_up,
            closes: warm_up + duration,
            before: None,
            after: None,
        }
    }

    fn look(&mut self, start: Instant) {
        let passed = start.elapsed();
        if self.before.is_none() && passed >= self.opens {
            self.before = cpu_of(self.pids);
        }
        if self.after.is_none() && passed >= self.closes {
            self.after = cpu_of(self.pids);
        }
    }

    fn found(&self) -> Option<Duration> {
        Some(self.after?.saturating_sub(self.before?))
    }
}

/// A line for each load, and below what those found that send no messages.
fn table(parts: &[Part], found: &[Found]) -> String {
    let wide = parts
        .iter()
        .map(|part| part.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = format!(
        "{:<wide$}{:>12}{:>12}{:>10}{:>10}{:>12}{:>12}{:>14}\n",
        "load", "connections", "messages/s", "failures", "refused", "final p50", "p99", "greeting p99"
    );
    let mut below = String::new();
    for (part, found) in parts.iter().zip(found) {
        // Writing to a string does not fail.
        match found {
            Found::Mail(findings) => {
                let counts = &findings.counts;
                let at = |histogram: &hdrhistogram::Histogram<u64>, quantile| match histogram.is_empty() {
                    true => "-".into(),
                    false => readable(histogram.value_at_quantile(quantile)),
                };
                let _ = writeln!(
                    text,
                    "{:<wide$}{:>12}{:>12.1}{:>10}{:>10}{:>12}{:>12}{:>14}",
                    part.name,
                    part.connections(),
                    findings.rate(),
                    findings.failures,
                    counts.refused + counts.refused_as_expected + counts.turned_away,
                    at(&counts.final_reply, 0.5),
                    at(&counts.final_reply, 0.99),
                    at(&counts.greeting, 0.99)
                );
                if let Some(why) = &findings.stopped {
                    let _ = writeln!(below, "STOPPED      {}: {why}", part.name);
                }
            }
            Found::Idle(found) => told(&mut below, &part.name, &found.to_string()),
            Found::Abuse(found) => told(&mut below, &part.name, &found.to_string()),
        }
    }
    text + &below
}

fn told(text: &mut String, name: &str, what: &str) {
    let _ = writeln!(text, "\n{name}");
    for line in what.lines() {
        let _ = writeln!(text, "  {line}");
    }
}
