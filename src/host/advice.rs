//! What is recommended to an operator: one row for each piece of advice, in the order of the guide.
//!
//! Promises: plain data. A row has a symptom, how to see it, what to set, what that costs, where it comes from, and what was
//! measured, or why it was not. tests/tuning.rs writes the files of tuning/ from it and holds them against it.

mod connections;
mod pace;
mod spool;
mod start;

/// Open files that a unit or container should allow (`LimitNOFILE`): a connection is a file.
pub const OPEN_FILES: u64 = 131_072;
/// Octets that it should allow to lock (`LimitMEMLOCK`).
pub const LOCKED_MEMORY: u64 = 64 << 20;
/// Octets that the ring of one shard wants to lock: glommio refuses to start below.
pub const LOCKED_PER_SHARD: u64 = 512 << 10;
/// What a process may raise its limit of open files to, as the kernel has it by itself.
pub const NR_OPEN: u64 = 1 << 20;
/// Connections that postern asks the kernel to let wait, for each shard and address.
pub const BACKLOG: u64 = 4096;

/// A chapter of the guide.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// What an operator notices.
    pub title: &'static str,
    /// In the order in which to try them.
    pub rows: &'static [Advice],
}

/// One piece of advice. Texts are sentences of Markdown.
#[derive(Clone, Copy, Debug)]
pub struct Advice {
    /// One word for it, the same in every version.
    pub id: &'static str,
    /// What is noticed, and why it is so.
    pub symptom: &'static str,
    /// The counter or command that shows it.
    pub see: &'static str,
    /// What to set.
    pub set: &'static str,
    /// Why, in half a sentence: what `postern tune` says of it.
    pub why: &'static str,
    /// What it costs.
    pub cost: &'static str,
    /// What was measured with and without, by which script; or why it was not.
    pub measured: &'static str,
    /// Where the facts come from.
    pub source: &'static str,
    /// Counters of the kernel that show it, by the names of nstat.
    pub counters: &'static [&'static str],
    /// How `postern tune` judges it.
    pub check: Check,
}

/// How a row is judged on a live host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// A person has to look.
    Guide,
    /// A kernel setting with one number, or the last number of several.
    Sysctl(&'static str, Wanted),
    /// Whether io_uring is switched off for this user.
    IoUring,
    /// Whether a ring can be made, by making one.
    Ring,
    /// The limit of locked memory.
    LockedMemory,
    /// The limit of open files.
    OpenFiles,
    /// How full the table of connection tracking is.
    Conntrack,
    /// Packets that the kernel dropped before it looked at them.
    Softnet,
    /// Whether memory of sockets is near its bound.
    SocketMemory,
    /// As many shards as cores.
    Shards,
    /// As many shards as the control group has time for.
    Quota,
    /// Whether the allocator may take huge pages.
    HugePages,
    /// The clock of the kernel.
    ClockSource,
    /// What the file system of `data_dir` promises.
    FileSystem,
    /// How long it takes to make a write durable.
    Sync,
    /// Whether a kernel thread that is woken may take a core at once.
    Preemption,
    /// Whether the shipped unit waits long enough for the drain.
    Drain,
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This or more.
    AtLeast(u64),
    /// The bound of a socket's buffer: this or more, or what the kernel gives itself where memory is short.
    Buffer(u64),
    /// This and nothing else.
    Exactly(u64),
}

impl Wanted {
    /// On a host with so much memory: tcp_init (net/ipv4/tcp.c) lets a buffer have a 128th of it.
    pub fn with_memory(self, octets: u64) -> Wanted {
        match self {
            Wanted::Buffer(most) => Wanted::Buffer(most.min(octets / 128)),
            other => other,
        }
    }

    /// Whether a value will do.
    pub fn takes(self, value: u64) -> bool {
        match self {
            Wanted::AtLeast(least) | Wanted::Buffer(least) => value >= least,
            Wanted::Exactly(only) => value == only,
        }
    }

    /// The number to set.
    pub fn value(self) -> u64 {
        match self {
            Wanted::AtLeast(value) | Wanted::Buffer(value) | Wanted::Exactly(value) => value,
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::AtLeast(least) | Wanted::Buffer(least) => write!(f, "at least {least}"),
            Wanted::Exactly(only) => write!(f, "{only}"),
        }
    }
}

/// Everything there is, in the order of the guide.
pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        title: "It does not start",
        rows: start::ROWS,
    },
    Chapter {
        title: "Clients cannot connect, or wait",
        rows: connections::ROWS,
    },
    Chapter {
        title: "Mail moves slowly, or takes more of the machine than it should",
        rows: pace::ROWS,
    },
    Chapter {
        title: "The final reply is late, or mail might be lost",
        rows: spool::ROWS,
    },
];

/// Every row.
pub fn rows() -> impl Iterator<Item = &'static Advice> {
    CHAPTERS.iter().flat_map(|chapter| chapter.rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_says_everything_and_no_two_have_one_name() {
        let mut names = BTreeSet::new();
        for row in rows() {
            assert!(names.insert(row.id), "{} stands twice", row.id);
            for text in [
                row.symptom,
                row.see,
                row.set,
                row.why,
                row.cost,
                row.measured,
                row.source,
            ] {
                assert!(!text.is_empty() && !text.ends_with(' '), "{}: {text:?}", row.id);
            }
            let measured = row.measured.contains("measure/") || row.measured.contains("ould not be measured here");
            let nothing_to_measure = row.measured.starts_with("Nothing to measure");
            assert!(
                measured || nothing_to_measure,
                "{}: what was measured, by which script, or why not?",
                row.id
            );
        }
        assert!(names.len() > 20);
    }

    #[test]
    fn a_better_value_will_do_where_better_means_more() {
        assert!(Wanted::AtLeast(4096).takes(4096) && Wanted::AtLeast(4096).takes(65_535));
        assert!(!Wanted::AtLeast(4096).takes(4095));
        assert!(Wanted::Exactly(0).takes(0) && !Wanted::Exactly(0).takes(1));
        assert_eq!(Wanted::Buffer(4096).with_memory(1 << 30), Wanted::Buffer(4096));
        assert_eq!(Wanted::Buffer(4096).with_memory(128_000), Wanted::Buffer(1000));
        assert_eq!(Wanted::AtLeast(4096).with_memory(128_000), Wanted::AtLeast(4096));
    }
}
