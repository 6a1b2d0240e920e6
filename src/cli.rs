//! The command line: what was typed, and which part of the program answers.
//!
//! Promises: exit codes and streams are those of the manual below; nothing but answers goes to stdout.
//! Lives on the main thread.

mod passwd;
mod queue;
mod tune;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError};
use crate::policy::users::hash::Scheme;

/// `check` found a mistake. clap ends with the same code when the command line itself is wrong.
const INVALID: u8 = 2;

/// postern, an internet-facing edge MTA.
#[derive(Debug, Parser)]
#[command(name = "postern", version, about, long_about = ABOUT, after_help = NEXT, after_long_help = NEXT)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,

    /// The configuration, in TOML; without it the embedded default runs
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Run the edge in the foreground until SIGTERM or SIGINT (this is what `postern` alone does)
    Serve,
    /// Validate the configuration and print it with every default filled in; starts nothing
    #[command(after_help = CHECK)]
    Check,
    /// Read a password and print a line for the users file
    #[command(after_help = PASSWD)]
    Passwd {
        /// The name that the client logs on with
        user: String,
        /// How the password is kept
        #[arg(long, value_name = "SCHEME", default_value = "ARGON2ID", value_parser = scheme)]
        scheme: Scheme,
    },
    /// Compare this host with what tuning/ recommends: what to change, why, and the command
    #[command(after_help = tune::HELP)]
    Tune {
        /// One object of JSON for each piece of advice, a line each
        #[arg(long)]
        json: bool,
    },
    /// Look at the queue of the running edge, and work on it
    #[command(after_help = queue::HELP)]
    Queue {
        #[command(subcommand)]
        command: queue::Command,
    },
}

const ABOUT: &str = "\
postern takes mail from the internet (RFC 5321, [MS-OXSMTP]) and hands it on.

Without a command and without --config it runs on an embedded default: it listens on 127.0.0.1:2525 and delivers into \
a Maildir under ./var/mail. That needs no root and no other server.";

const NEXT: &str = "\
Try next:
  postern                              run on the embedded default
  postern check > postern.toml         write that default down, to change it
  postern check --config postern.toml  is it valid, and what does it mean?
  postern --config postern.toml        run on it; SIGHUP reads it again, SIGTERM ends
  postern queue list                   what waits for delivery
  postern tune                         is this host set up for it?";

const CHECK: &str = "\
Exit status: 0 valid, 2 invalid. Mistakes and warnings go to stderr, the effective configuration to stdout.
Without --config the embedded default is printed, a start for a file of your own.";

const PASSWD: &str = "\
The password is asked for on a terminal, without showing it, or read from the first line of stdin.
Schemes: ARGON2ID, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT serve PLAIN and LOGIN; SCRAM-SHA-256 serves these and SCRAM-SHA-256;
NT serves these and NTLM, and is worth little when the file is lost; PLAIN serves everything and is worth nothing then.
Two lines of one user add up: a strong one first, then NT.
Exit status: 0, or 1 when no password could be read.";

/// Answers the command line of the process.
pub fn run() -> ExitCode {
    let Line { command, config } = Line::parse();
    match command.unwrap_or(Command::Serve) {
        Command::Serve => serve(config),
        Command::Check => check(config.as_deref()),
        Command::Passwd { user, scheme } => passwd::passwd(&user, scheme),
        Command::Tune { json } => match load(config.as_deref()) {
            Ok(config) => tune::run(&config, json),
            Err(error) => {
                eprintln!("{error}");
                ExitCode::from(INVALID)
            }
        },
        Command::Queue { command } => match load(config.as_deref()) {
            Ok(config) => queue::run(&command, &config.data_dir),
            Err(error) => {
                eprintln!("postern: {}", error.one_line());
                ExitCode::FAILURE
            }
        },
    }
}

/// Refuses in one line what cannot run, so that a service manager's journal shows the reason.
fn serve(path: Option<PathBuf>) -> ExitCode {
    let config = match load(path.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("postern: {}", error.one_line());
            return ExitCode::FAILURE;
        }
    };
    let unsupported = config.unsupported();
    if let Some(first) = unsupported.first() {
        let more = match unsupported.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        eprintln!("postern: {first}{more}");
        return ExitCode::FAILURE;
    }
    crate::server::serve(config, path)
}

fn check(path: Option<&Path>) -> ExitCode {
    let config = match load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(INVALID);
        }
    };
    for warning in config.warnings() {
        eprintln!("warning: {warning}");
    }
    // A reader that went away (`postern check | head`) is no reason to panic.
    match std::io::stdout().lock().write_all(config.effective().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn scheme(name: &str) -> Result<Scheme, String> {
    let names = || Scheme::ALL.map(Scheme::name).join(", ");
    Scheme::parse(name).ok_or_else(|| format!("expected one of {}", names()))
}

fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
    path.map_or_else(Config::embedded, Config::load)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Line::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_stand_before_or_after_the_command_or_without_one() {
        for words in [
            &["postern", "--config", "f"][..],
            &["postern", "serve", "--config", "f"],
            &["postern", "--config", "f", "check"],
        ] {
            let line = Line::try_parse_from(words).unwrap();
            assert_eq!(line.config.as_deref(), Some(Path::new("f")), "{words:?}");
        }
        assert!(Line::try_parse_from(["postern"]).unwrap().command.is_none());
        assert!(Line::try_parse_from(["postern", "check", "--config"]).is_err());
        assert!(Line::try_parse_from(["postern", "start"]).is_err());
        assert!(Line::try_parse_from(["postern", "tune", "--config", "f", "--json"]).is_ok());
        assert!(Line::try_parse_from(["postern", "tune", "more"]).is_err());
        assert!(Line::try_parse_from(["postern", "passwd"]).is_err());
        assert!(Line::try_parse_from(["postern", "passwd", "a", "--scheme", "MD5"]).is_err());
        assert!(Line::try_parse_from(["postern", "passwd", "a", "--scheme", "scram-sha-256"]).is_ok());
    }
}
