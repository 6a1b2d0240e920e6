//! Delivering several messages at once, so that they share what waiting for the disk costs.
//!
//! Promises: each message succeeds or fails by itself; a panic in the work for one is that one's failure. Runs on a
//! worker.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use super::{Delivered, Draft, Failure, FailureKind, directory, draft::Desk, journal::Journal};

/// One message of a batch.
#[derive(Debug)]
pub(super) struct Commit {
    draft: Draft,
    content: Vec<u8>,
    intent: Option<PathBuf>,
    failure: Option<Failure>,
}

impl Commit {
    pub(super) fn new(draft: Draft, content: Vec<u8>) -> Commit {
        Commit {
            draft,
            content,
            intent: None,
            failure: None,
        }
    }

    /// The answer, and the buffer to give back.
    pub(super) fn finish(mut self) -> (Result<Delivered, Failure>, Vec<u8>) {
        self.content.clear();
        let result = match self.failure.take() {
            None => Ok(self.draft.delivered()),
            Some(failure) => Err(failure),
        };
        (result, self.content)
    }

    /// Runs a step of the work, unless an earlier one has failed.
    fn step(&mut self, work: impl FnOnce(&mut Commit) -> io::Result<()>) {
        if self.failure.is_none() {
            self.failure = guarded(|| work(self)).err();
        }
    }
}

/// Delivers all of the batch, or says why not.
pub(super) fn deliver(batch: &mut [Commit], desk: &mut Desk<'_>, journal: &Journal) {
    for commit in batch.iter_mut() {
        commit.step(|commit| commit.draft.complete(&commit.content, desk));
    }
    for commit in batch.iter_mut() {
        commit.step(|commit| commit.draft.sync());
    }
    write_intents(batch, journal);
    for commit in batch.iter_mut() {
        commit.step(|commit| commit.draft.rename(desk.directories));
    }
    let synced = sync_destinations(batch);
    for commit in batch.iter_mut() {
        commit.step(
            |commit| match commit.draft.destinations().find_map(|new| synced.get(new)?.as_ref()) {
                Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
                None => Ok(()),
            },
        );
    }
    roll_back(batch, journal);
    for commit in batch.iter_mut() {
        if let Some(intent) = commit.intent.take() {
            // one that comes back finds its files moved and does nothing
            let _ = std::fs::remove_file(intent);
        }
    }
}

/// For the messages with more than one file.
fn write_intents(batch: &mut [Commit], journal: &Journal) {
    for commit in batch.iter_mut().filter(|commit| commit.draft.moves().nth(1).is_some()) {
        commit.step(|commit| {
            commit.intent = Some(journal.write(commit.draft.moves())?);
            Ok(())
        });
    }
    if batch.iter().any(|commit| commit.intent.is_some())
        && let Err(error) = journal.sync()
    {
        for commit in batch.iter_mut().filter(|commit| commit.intent.is_some()) {
            commit.step(|_| Err(io::Error::new(error.kind(), error.to_string())));
        }
    }
}

/// Syncs each directory that files were moved to, once; gives the errors.
fn sync_destinations(batch: &[Commit]) -> BTreeMap<PathBuf, Option<(io::ErrorKind, String)>> {
    let mut synced = BTreeMap::new();
    for commit in batch.iter().filter(|commit| commit.failure.is_none()) {
        for new in commit.draft.destinations() {
            if !synced.contains_key(new) {
                let error = directory::sync(new)
                    .err()
                    .map(|error| (error.kind(), error.to_string()));
                synced.insert(new.to_owned(), error);
            }
        }
    }
    synced
}

/// Undoes the failed messages. While an intent stands, a crash completes it, so all files must be back in `tmp`, and
/// that durable, before the intent goes; and it must be gone, and that durable, before the files are removed.
fn roll_back(batch: &mut [Commit], journal: &Journal) {
    for commit in batch.iter_mut().filter(|commit| commit.failure.is_some()) {
        let undone = guarded(|| {
            commit.draft.roll_back()?;
            let Some(intent) = commit.intent.take() else {
                return Ok(());
            };
            commit.draft.destinations().try_for_each(directory::sync)?;
            std::fs::remove_file(&intent)?;
            journal.sync()
        });
        if let (Err(undo), Some(failure)) = (undone, &mut commit.failure) {
            commit.draft.leave();
            commit.intent = None;
            failure.text.push_str("; then: ");
            failure.text.push_str(&undo.text);
        }
    }
}

/// Runs work that may fail or, by a mistake of ours, panic.
pub(super) fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Failure::from),
        Err(panic) => Err(Failure {
            kind: FailureKind::Other,
            text: format!("panic: {}", panic_text(&*panic)),
        }),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of unknown kind")
}
