//! `loadgen`: measures SMTP servers from outside. Knows nothing of the server but its address and process id.
//!
//! `source` runs a load on one executor or several; `flags` is the manual.

#![deny(unsafe_code)]

mod abuse;
mod auth;
mod compare;
mod connect;
mod dialogue;
mod engine;
mod flags;
mod hdr;
mod host;
mod identity;
mod idle;
mod measure;
mod message;
mod mixed;
mod news;
mod page;
mod places;
mod plan;
mod progress;
mod proxy;
mod reply;
mod report;
mod sample;
mod scenario;
mod sink;
mod slot;
mod source;
mod threshold;
mod timeline;
mod tls;
mod transport;
mod verify;
mod versus;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;

use crate::flags::{Cli, Command, LoadFlags, RunFlags};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments
        .windows(2)
        .any(|pair| matches!(pair, [flag, name] if flag == "--scenario" && name == "list"))
    {
        say(format_args!("{}", scenario::list()));
        return ExitCode::SUCCESS;
    }
    let expanded = match scenario::expand(arguments) {
        Ok(expanded) => expanded,
        Err(sentence) => {
            eprintln!("loadgen: {sentence}");
            return ExitCode::from(2);
        }
    };
    let cli = Cli::parse_from(expanded.arguments);
    let loads = match understood(&cli, expanded.loads) {
        Ok(loads) => loads,
        Err(sentence) => {
            eprintln!("loadgen: {sentence}");
            return ExitCode::from(2);
        }
    };
    let done = match &cli.command {
        Some(Command::Bench(flags)) => versus::run(flags),
        Some(Command::Sink(flags)) => sink::run(flags),
        Some(Command::Verify(flags)) => verify::run(flags),
        Some(Command::Compare(flags)) => compare::run(flags),
        None if loads.is_empty() => single(&cli.run),
        None => mixed::run(&cli.run, loads),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(sentence) => {
            eprintln!("loadgen: {sentence}");
            ExitCode::from(1)
        }
    }
}

/// Whether everything went well.
fn single(flags: &RunFlags) -> Result<bool, String> {
    let (load, target) = (&flags.load, flags.target);
    if let Some(connections) = flags.idle {
        let found = idle::run(connections, target, &flags.pid, load)?;
        say(format_args!("{found}"));
        return write_json(load, &found.to_json()).map(|()| found.is_good());
    }
    if !flags.abuse.is_empty() {
        let found = abuse::run(&flags.abuse, target, &flags.pid, load)?;
        say(format_args!("{found}"));
        return write_json(load, &found.to_json()).map(|()| found.is_good());
    }
    let findings = source::run(load, target, &flags.pid)?;
    let (figures, missed) = findings.judged(&flags.load);
    say(format_args!("{findings}"));
    for threshold in &missed {
        say(format_args!("MISSED       {threshold}\n"));
    }
    write_json(&flags.load, &figures)?;
    findings.write_files(&flags.load, figures)?;
    Ok(findings.failures == 0 && findings.stopped.is_none() && missed.is_empty())
}

/// What can be seen to be wrong before anything is sent; the loads that are to run at once.
fn understood(cli: &Cli, loads: Vec<scenario::Load>) -> Result<Vec<mixed::Part>, String> {
    match &cli.command {
        Some(_) if !loads.is_empty() => Err("a scenario with [[load]] is for a run of its own".into()),
        Some(Command::Bench(flags)) => {
            if flags.servers().count() < 2 {
                return Err("expected two servers or more, as NAME=IP:PORT=PID".into());
            }
            let load = &flags.load;
            if load.hdr.is_some() || load.expect.is_some() || !load.fail_if.is_empty() {
                return Err("--hdr, --expect, --fail-if: they are for a run against one server".into());
            }
            flags.servers().try_for_each(|server| flags.load.check(server.target))?;
            connect::allow_open_files(flags.load.connections)?;
            Ok(Vec::new())
        }
        Some(_) => Ok(Vec::new()),
        None => {
            cli.run.load.check(cli.run.target)?;
            let parts = mixed::parts(&cli.run, loads)?;
            let connections = parts.iter().map(mixed::Part::connections).sum();
            connect::allow_open_files(cli.run.load.connections.max(connections))?;
            Ok(parts)
        }
    }
}

/// Becomes true with SIGINT or SIGTERM; a second one ends the process at once.
fn interruption() -> Result<Arc<AtomicBool>, String> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the first signal must not find the flag set already.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
            .map_err(|error| format!("signals: {error}"))?;
    }
    Ok(asked)
}

/// Prints to standard output. A reader that went away (`| head`) is no reason to fail: the exit status still tells.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = std::io::stdout().write_fmt(text);
}

/// Writes `--json`, if asked for.
fn write_json(flags: &LoadFlags, value: &serde_json::Value) -> Result<(), String> {
    match &flags.json {
        None => Ok(()),
        Some(path) => {
            std::fs::write(path, format!("{value:#}\n")).map_err(|error| format!("{}: {error}", path.display()))
        }
    }
}
