//! What a spool and its driver say to each other.
//!
//! Pure data; lives on its shard.

use std::io;

use super::QueueId;

/// One of the directories of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub u32);

impl DirectoryId {
    /// The one that this run made, and in which new messages are kept.
    pub const OWN: DirectoryId = DirectoryId(0);
}

/// Names a [`Work`] in [`Spool::done`](super::Spool::done).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// Names a call of [`Spool::confirm`](super::Spool::confirm) in the news of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something to be done with files. It may be started at once, beside everything that is under way: what has to wait is
/// handed out later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// To be given back with the result.
    pub id: WorkId,
    /// Where.
    pub directory: DirectoryId,
    /// What.
    pub task: Task,
}

/// What is to be done. Names of files are those of [`segment_name`](super::directory::segment_name) and
/// [`spare_name`](super::directory::spare_name). Done is what survives a power cut: a file that was made, renamed or removed
/// is done when the directory has been synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Prepares a segment. With a spare: renames that; its content may stay. Without: makes the file, writes zeros over its
    /// whole size and syncs it, so that later writes change no metadata.
    Create {
        /// Its number; no other segment of the directory ever had it.
        segment: u32,
        /// Octets.
        size: u64,
        /// The spare to be used. Should that fail, a segment without a spare is asked for next.
        spare: Option<u32>,
    },
    /// Writes. Fewer octets than these are a failure. Offset and count are multiples of the alignment.
    Write {
        /// Where.
        segment: u32,
        /// Octets before it.
        offset: u64,
        /// What.
        octets: Vec<u8>,
    },
    /// Makes durable what was written (fdatasync).
    Sync {
        /// The file.
        segment: u32,
    },
    /// Renames a segment to a spare.
    Recycle {
        /// The file.
        segment: u32,
    },
    /// Removes a segment.
    Remove {
        /// The file.
        segment: u32,
    },
    /// Removes an adopted directory, in which nothing lives, with whatever is left in it
    /// ([`Directory::remove`](super::directory::Directory::remove)).
    RemoveDirectory,
}

/// What became of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All content that had been appended before the flush can be read back; it may not survive a power cut.
    Written(QueueId),
    /// The message is found again after a crash.
    Durable(QueueId),
    /// The message could not be kept; nothing is known of it any more.
    Failed {
        /// Which.
        id: QueueId,
        /// Why.
        failure: Failure,
    },
    /// All that had been said of a message before [`Spool::confirm`](super::Spool::confirm) survives a crash.
    Confirmed(Ticket),
    /// It may not: the disk has failed. It will be said again.
    Unconfirmed {
        /// Of which call.
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// A segment takes nothing any more, because a write or a sync failed; another is begun. For the log.
    Poisoned {
        /// Where.
        directory: DirectoryId,
        /// Which.
        segment: u32,
        /// Why.
        failure: Failure,
    },
}

/// What the client may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The disk or a quota is full: room may come back.
    Full,
    /// Anything else that the file system refused.
    Other,
}

/// Something that could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of which kind it is.
    pub kind: FailureKind,
    /// For the log: what was tried, and the system's answer.
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
