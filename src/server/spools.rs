//! The spools of the shards: a directory for each, and those of earlier runs, read on a thread of their own.
//!
//! Promises: mail is taken while old mail is still being read; a directory that another process holds is left alone; what is
//! damaged is told and kept. Started by the main thread.

use std::path::Path;
use std::sync::Arc;

use crate::log::{Level, Log};
use crate::lookup::Inbox;
use crate::shard::Notice;
use crate::spool::directory::{self, Directory};
use crate::spool::{Recovered, recovery};

/// Messages that a shard takes up at once, between two looks at its sockets.
const AT_ONCE: usize = 256;

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
    let mut found: Vec<Recovered> = Vec::new();
    let recovery = match recovery::recover(&directory, &mut |message| found.push(message)) {
        Ok(recovery) => recovery,
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
            ("messages", &found.len()),
            ("segments", &report.segments),
            ("octets", &report.octets),
            ("damaged_segments", &report.damaged_segments.len()),
            ("damaged_messages", &report.damaged_messages.len()),
        ],
    );
    inbox.send(Notice::Adopt(Box::new((directory, recovery.adopted))));
    let mut found = found.into_iter().peekable();
    while found.peek().is_some() {
        inbox.send(Notice::TakeUp(found.by_ref().take(AT_ONCE).collect()));
    }
}
