//! The Maildir next hop: takes content in wire form and puts it, durable, into one file or several.
//!
//! A shard must never wait for a file system, so the work is done by the threads of a [`Pool`]: the shard sends a
//! [`Request`] that owns everything it needs and gets what it owned back in a [`Done`]. [`Plan`] and [`Template`] are
//! pure and live on the shard; a [`Draft`] travels; everything else stays on the workers.
//!
//! Promises: `Committed(Ok)` only after content, name and every directory above it have been synced; of one message's
//! files either all are there or none, even after a crash (see [`recover`]); nothing is allocated by a declared size.
//! The pool's queue has no bound of its own: each session has at most one request open, so sessions bound it.
//!
//! Files older than 36 hours in a Maildir's `tmp` may be removed by anybody, by the convention of Maildir; that is left
//! to the owner of the mailbox, the edge itself sweeps only what [`recover`] knows of.

mod commit;
mod directory;
mod draft;
mod form;
mod journal;
mod plan;
mod pool;
mod template;

use std::{
    any::Any,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use crate::smtp::Form;
pub use draft::Draft;
pub use form::Conversion;
pub use journal::{Recovered, recover};
pub use plan::{FilePlan, Plan};
pub use pool::{Pool, THREADS};
pub use template::Template;

/// What a shard asks the pool for.
#[derive(Debug)]
pub enum Request {
    /// Adds one piece of content, in wire form, to the message. Answered by [`Done::Appended`].
    Append(Draft, Vec<u8>),
    /// Adds the last piece (possibly empty) and delivers. Answered by [`Done::Committed`].
    Commit(Draft, Vec<u8>),
    /// Gives the message up and removes what was written. Not answered.
    Abandon(Draft),
}

/// What the pool answers. The buffer comes back empty, with its capacity, for the next piece.
#[derive(Debug)]
pub enum Done {
    /// The piece is written (not yet durable), or the draft is gone with all that it wrote.
    Appended(io::Result<Draft>, Vec<u8>),
    /// The message is durable and visible in every Maildir, or in none.
    Committed(Result<Delivered, Failure>, Vec<u8>),
}

/// Which request an answer belongs to; chosen by the asker, opaque to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Where an answer goes. The callback runs on a worker thread: it should only hand the answer over.
#[derive(Clone)]
pub struct ReplyTo {
    /// Puts the answer into the asker's inbox; must not block.
    pub callback: Arc<dyn Fn(Ticket, Done) + Send + Sync>,
    /// Given back with the answer.
    pub ticket: Ticket,
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

/// A message that is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The files as they stand in `new`, in the order of the plan.
    pub files: Vec<PathBuf>,
    /// Octets of all files together, as stored.
    pub octets: u64,
}

/// Why a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The disk or a quota is full: room may come back.
    Full,
    /// Anything else the file system refused.
    Other,
}

/// A delivery that did not happen; nothing of it is left in any Maildir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the client may be told.
    pub kind: FailureKind,
    /// What the log should say: what was tried, on which path, and the system's answer.
    pub text: String,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FailureKind::Full,
            _ => FailureKind::Other,
        };
        Failure {
            kind,
            text: error.to_string(),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        let kind = match failure.kind {
            FailureKind::Full => io::ErrorKind::StorageFull,
            FailureKind::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, failure.text)
    }
}

/// Adds to an error what was tried and where; its kind stays.
fn named<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> io::Error + 'a {
    move |error| io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}

/// Runs work that may fail or, by a mistake of ours, panic.
fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> Result<T, Failure> {
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
