//! What came of one row.
//!
//! Promises: plain data.

use crate::host::advice::Advice;

/// One row, judged.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The row.
    pub advice: &'static Advice,
    /// What came of it.
    pub verdict: Verdict,
    /// Its counters now, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do.
    AsAdvised {
        /// What is there.
        found: String,
    },
    /// Something to change.
    Change {
        /// What is there.
        found: String,
        /// What should be.
        wanted: String,
        /// What brings it there.
        command: String,
    },
    /// A person has to know.
    Note {
        /// What is there.
        found: String,
        /// What to make of it.
        mind: String,
    },
    /// The host has no such thing.
    NotHere(String),
    /// It could not be read, for this reason.
    Unread(String),
}

impl Verdict {
    /// One word for it, the same in every version.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::AsAdvised { .. } => "ok",
            Verdict::Change { .. } => "change",
            Verdict::Note { .. } => "note",
            Verdict::NotHere(_) => "absent",
            Verdict::Unread(_) => "unread",
        }
    }
}

pub(super) fn as_advised(found: impl Into<String>) -> Verdict {
    Verdict::AsAdvised { found: found.into() }
}

pub(super) fn change(found: impl Into<String>, wanted: impl Into<String>, command: impl Into<String>) -> Verdict {
    Verdict::Change {
        found: found.into(),
        wanted: wanted.into(),
        command: command.into(),
    }
}

pub(super) fn note(found: impl Into<String>, mind: impl Into<String>) -> Verdict {
    Verdict::Note {
        found: found.into(),
        mind: mind.into(),
    }
}
