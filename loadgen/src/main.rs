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
    let arguments = match scenario::expand(arguments) {
        Ok(arguments) => arguments,
        Err(sentence) => {
            eprintln!("loadgen: {sentence}");
            return ExitCode::from(2);
        }
    };
    let cli = Cli::parse_from(arguments);
    let done = match cli.command {
        Some(Command::Bench(flags)) => prepare(&flags.load).and_then(|()| versus::run(&flags)),
        Some(Command::Sink(flags)) => sink::run(&flags),
        Some(Command::Verify(flags)) => verify::run(&flags),
        Some(Command::Compare(flags)) => compare::run(&flags),
        None => prepare(&cli.run.load).and_then(|()| single(&cli.run)),
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
    let target = flags.load.permitted(flags.target)?;
    if let Some(connections) = flags.idle {
        return idle::run(connections, target, &flags.pid, &flags.load);
    }
    if !flags.abuse.is_empty() {
        return abuse::run(&flags.abuse, target, &flags.pid, &flags.load);
    }
    let mut findings = source::run(&flags.load, target, &flags.pid)?;
    findings.target = target.to_string();
    let (figures, missed) = findings.judged(&flags.load);
    say(format_args!("{findings}"));
    for threshold in &missed {
        say(format_args!("MISSED       {threshold}\n"));
    }
    write_json(&flags.load, &figures)?;
    findings.write_files(&flags.load, figures)?;
    Ok(findings.failures == 0 && findings.stopped.is_none() && missed.is_empty())
}

fn prepare(flags: &LoadFlags) -> Result<(), String> {
    flags.check()?;
    connect::allow_open_files(flags.connections)
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
