//! The spools of the shards: a directory for each, and those of earlier runs, read on a thread of their own.
//!
//! Promises: mail is taken while old mail is still being read; a directory that another process holds is left alone; what is
//! damaged is told and kept. Started by the main thread.

use std::path::Path;
use std::sync::{Arc, mpsc};

use crate::log::{Level, Log};
use crate::lookup::Inbox;
use crate::shard::Notice;
use crate::spool::directory::{self, Directory};
use crate::spool::recovery;

/// Messages that a shard takes up at once, between two looks at its sockets.
const AT_ONCE: usize = 256;
/// Times that number that may be on their way to a shard, so that a million of them are never in memory twice.
const AHEAD: usize = 4;

/// A locked directory for each shard of this run.
///
/// # Errors
///
/// The sentence for the operator.
pub fn create(data_dir: &Path, shards: usize) -> Result<Vec<Directory>, String> {
    let path = data_dir.join("spool");
    (0..shards)
        .map(|_| directory::create(&path))
        .collect::<Result<_, _>>()
        .map_err(|error| {
            format!(
                "cannot make a spool in {}: {error}; who may: ls -ld {0}",
                path.display()
            )
        })
}

/// Reads what earlier runs have left, and hands it to the shards.
pub fn take_up(data_dir: &Path, inboxes: Vec<Arc<Inbox<Notice>>>, log: Log) -> std::io::Result<()> {
    let directories = directory::adoptable(&data_dir.join("spool"))?;
    if directories.is_empty() || inboxes.is_empty() {
        return Ok(());
    }
    std::thread::Builder::new().name("recovery".into()).spawn(move || {
        for (directory, inbox) in directories.into_iter().zip(inboxes.iter().cycle()) {
            read(directory, inbox, &log);
        }
    })?;
    Ok(())
}

fn read(directory: Directory, inbox: &Inbox<Notice>, log: &Log) {
    let path = directory.path().to_path_buf();
    // By a second handle: the first goes to the shard, and would keep open the file that it read last.
    let read = directory
        .reader()
        .and_then(|reader| Ok((recovery::find(&reader)?, reader)));
    let ((recovery, mut living), reader) = match read {
        Ok(read) => read,
        Err(error) => {
            let fields: &[(&str, &dyn std::fmt::Display)] = &[("directory", &path.display()), ("error", &error)];
            log.event(
                Level::Error,
                "a spool of an earlier run cannot be read and is left",
                fields,
            );
            return;
        }
    };
    let report = &recovery.report;
    log.event(
        if report.damaged_segments.is_empty() && report.damaged_messages.is_empty() {
            Level::Info
        } else {
            Level::Error
        },
        "spool of an earlier run taken up",
        &[
            ("directory", &path.display()),
            ("messages", &report.messages),
            ("segments", &report.segments),
            ("octets", &report.octets),
            ("damaged_segments", &report.damaged_segments.len()),
            ("damaged_messages", &report.damaged_messages.len()),
        ],
    );
    inbox.send(Notice::Adopt(Box::new((directory, recovery.adopted))));
    let (taken, done) = mpsc::channel();
    let mut ahead = 0;
    while let Some(slice) = living.take(&reader, AT_ONCE) {
        for (id, error) in &slice.unreadable {
            let fields: &[(&str, &dyn std::fmt::Display)] = &[("id", id), ("error", error)];
            log.event(
                Level::Error,
                "a message of an earlier run cannot be read and is left",
                fields,
            );
        }
        let taken = taken.clone();
        inbox.send(Notice::TakeUp { slice, taken });
        ahead += 1;
        if ahead == AHEAD && done.recv().is_ok() {
            ahead -= 1;
        }
    }
}
