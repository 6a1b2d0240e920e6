//! `postern queue`: what was typed, asked of the running edge over its socket.
//!
//! Promises: what an operator reads is escaped, so that nothing from the network moves a cursor; every answer that is not
//! good has a sentence on stderr. Lives on the main thread.

mod shown;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::lookup::operator::{
    Answer, MAX_ANSWER, MAX_LISTED, Message, Question, Reply, SOCKET, Status, Wish, read_answer, to_line,
};

/// The edge waits shorter than this for its own shards.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const HELP: &str = "\
The edge is found by the data_dir of its configuration: say --config FILE as it was started with, in the same directory.
Exit status: 0 done; 1 not done, for the reason on stderr.";

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// List the messages that are acknowledged and not delivered yet, oldest first
    List {
        /// One object of JSON a message, a line each
        #[arg(long)]
        json: bool,
        /// What was last said about each recipient, below its message
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show all that is known of a message: envelope, recipients, header section
    Show {
        /// Its name, as in the list and in the log
        id: String,
        /// As one object of JSON, in a line
        #[arg(long)]
        json: bool,
    },
    /// Try messages now instead of at their next time
    Retry(Chosen),
    /// Hold messages back until they are released, also over a restart
    Hold(Named),
    /// End a hold: the messages are tried at once
    Release(Named),
    /// Forget messages: they are not delivered, and nobody is told
    Remove(Named),
}

#[derive(Args, Clone, Debug)]
pub(super) struct Named {
    /// Their names, as in the list and in the log
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct Chosen {
    /// Their names, as in the list and in the log
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    ids: Vec<String>,
    /// Every message of the queue
    #[arg(long)]
    all: bool,
}

/// Answers `postern queue`.
pub(super) fn run(command: &Command, data_dir: &Path) -> ExitCode {
    let edge = Edge {
        socket: data_dir.join(SOCKET),
    };
    let done = match command {
        Command::List { json, verbose } => edge.list(*json, *verbose),
        Command::Show { id, json } => edge.show(id, *json),
        Command::Retry(Chosen { all: true, .. }) => edge.retry_all(),
        Command::Retry(Chosen { ids, .. }) => edge.ask_for(ids, Wish::Retry, "tried now"),
        Command::Hold(Named { ids }) => edge.ask_for(ids, Wish::Hold, "held until it is released"),
        Command::Release(Named { ids }) => edge.ask_for(ids, Wish::Release, "released, tried now"),
        Command::Remove(Named { ids }) => edge.ask_for(ids, Wish::Remove, "removed, nobody is told"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            if !reason.is_empty() {
                eprintln!("postern: {reason}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The running edge. An error is the sentence for stderr; an empty one where everything was said.
struct Edge {
    socket: PathBuf,
}

impl Edge {
    fn list(&self, json: bool, verbose: bool) -> Result<(), String> {
        let mut out = io::stdout().lock();
        let mut table = shown::Table::new(verbose);
        let (mut after, mut silent) = (None, Vec::new());
        let (mut all, mut held) = (0_u64, 0_u64);
        loop {
            let most = MAX_LISTED;
            let answer = self.ask(&Question::List { after, most })?;
            silent.extend(answer.silent);
            let Reply::Page { messages, more } = answer.reply else {
                return Err(NOT_OURS.to_owned());
            };
            all += messages.len() as u64;
            held += messages.iter().filter(|m| m.status == Status::Held).count() as u64;
            if json {
                for message in &messages {
                    write_out(&mut out, &(to_line(message) + "\n"))?;
                }
            } else {
                write_out(&mut out, &table.page(&messages, answer.now))?;
            }
            // A page that ends nowhere would never end.
            let last = messages.into_iter().next_back().map(|message| message.id);
            if !more || last.is_none() {
                break;
            }
            after = last;
        }
        if !json {
            let said = match (all, held) {
                (0, _) => "The queue is empty.\n".to_owned(),
                (1, 0) => "1 message\n".to_owned(),
                (n, 0) => format!("{n} messages\n"),
                (n, held) => format!("{n} messages, {held} held\n"),
            };
            write_out(&mut out, &said)?;
        }
        silent.sort_unstable();
        silent.dedup();
        all_spoke(&silent, "its messages are not in the list")
    }

    fn show(&self, id: &str, json: bool) -> Result<(), String> {
        let mut whole: Option<(Message, u64)> = None;
        loop {
            let from = whole.as_ref().map_or(0, |(message, _)| message.recipients.len());
            let id = id.to_owned();
            let answer = self.ask(&Question::Show { id: id.clone(), from })?;
            let (now, next) = match answer {
                Answer {
                    now,
                    reply: Reply::Shown(next),
                    ..
                } => (now, *next),
                answer => return Err(not_done(&id, &answer)),
            };
            let none = next.recipients.is_empty();
            let (message, _) = match &mut whole {
                None => whole.insert((next, now)),
                Some(known) => {
                    known.0.recipients.extend(next.recipients);
                    known
                }
            };
            if none || message.recipients.len() >= message.recipient_count {
                break;
            }
        }
        let Some((message, now)) = whole else {
            return Err(NOT_OURS.to_owned());
        };
        let text = if json {
            to_line(&message) + "\n"
        } else {
            shown::message(&message, now)
        };
        write_out(&mut io::stdout().lock(), &text)
    }

    fn retry_all(&self) -> Result<(), String> {
        let answer = self.ask(&Question::RetryAll)?;
        let Reply::All(queued) = answer.reply else {
            return Err(NOT_OURS.to_owned());
        };
        let said = match queued {
            1 => "1 message is tried now, unless it is held\n".to_owned(),
            n => format!("{n} messages are tried now, but for those that are held\n"),
        };
        write_out(&mut io::stdout().lock(), &said)?;
        all_spoke(&answer.silent, "its messages are not tried")
    }

    /// The same for each; goes on with the next where one cannot be done.
    fn ask_for(&self, ids: &[String], wish: Wish, done: &str) -> Result<(), String> {
        let mut all = Ok(());
        for id in ids {
            let id = id.clone();
            let answer = self.ask(&Question::Ask { id: id.clone(), wish })?;
            if answer.reply == Reply::Done {
                write_out(
                    &mut io::stdout().lock(),
                    &format!("{}: {done}\n", id.to_ascii_uppercase()),
                )?;
            } else {
                eprintln!("postern: {}", not_done(&id, &answer));
                all = Err(String::new());
            }
        }
        all
    }

    /// A question and its answer.
    fn ask(&self, question: &Question) -> Result<Answer, String> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| self.unreachable(&error))?;
        let mut line = String::new();
        let heard = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| stream.write_all((to_line(question) + "\n").as_bytes()))
            .and_then(|()| BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line));
        match heard {
            Ok(0) => Err(format!("the edge at {} ended without an answer", self.path())),
            Ok(_) => read_answer(&line).map_err(|error| format!("{NOT_OURS}: {error}")),
            Err(error) => Err(format!("the edge at {} does not answer: {error}", self.path())),
        }
    }

    fn unreachable(&self, error: &io::Error) -> String {
        let path = self.path();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
                "no edge runs with the socket {path}: start one, or name the configuration of the one that runs with \
                 --config FILE"
            ),
            ErrorKind::PermissionDenied => {
                format!("the socket {path} is for the user that the edge runs as: become that user")
            }
            _ => format!("cannot reach the edge by its socket {path}: {error}"),
        }
    }

    /// Where the socket was looked for, wherever this runs.
    fn path(&self) -> String {
        let path = std::path::absolute(&self.socket);
        path.as_deref().unwrap_or(&self.socket).display().to_string()
    }
}

const NOT_OURS: &str = "the edge says what this program does not know: is it of another version?";

/// Why a message was not shown or changed.
fn not_done(id: &str, answer: &Answer) -> String {
    let id = shown::escaped(id);
    match &answer.reply {
        Reply::Unknown if answer.silent.is_empty() => {
            format!("there is no message {id} in the queue: it is delivered, given up, or was never there")
        }
        Reply::Unknown => format!("there is no message {id}, unless {} has it", silent(&answer.silent)),
        Reply::Unkept { error } => format!(
            "message {id}: done, but it cannot be written to the spool ({}); until it is, a crash would undo it",
            shown::escaped(error)
        ),
        Reply::Unacknowledged => {
            format!("message {id} is not in the queue yet: its client still waits for the final reply")
        }
        _ => NOT_OURS.to_owned(),
    }
}

fn all_spoke(shards: &[usize], so: &str) -> Result<(), String> {
    match shards {
        [] => Ok(()),
        shards => Err(format!("{} does not answer: {so}", silent(shards))),
    }
}

fn silent(shards: &[usize]) -> String {
    let shards: Vec<_> = shards.iter().map(|shard| format!("shard {shard}")).collect();
    shards.join(" and ")
}

/// A reader that went away (`postern queue list | head`) has read enough.
fn write_out(out: &mut impl Write, text: &str) -> Result<(), String> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write: {error}")),
        Err(_) => Err(String::new()),
        Ok(()) => Ok(()),
    }
}
