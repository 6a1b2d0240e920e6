//! What was found on a host: plain data, on which `judge` judges.
//!
//! Promises: nothing is read here; whatever could not be read holds the reason as a sentence. Lives wherever it is carried.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A value, or why there is none.
pub type Found<T> = Result<T, Missing>;

/// Why a value could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// This kernel, or this host, does not have it: nothing to change.
    Absent(String),
    /// It is there and was not to be read: the sentence.
    Unreadable(String),
}

/// What a configuration asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Executors.
    pub shards: u64,
    /// Files that are open when every connection that the configuration allows is there.
    pub files: u64,
    /// The largest `max_connections`.
    pub connections: u64,
    /// Ports that it listens on.
    pub ports: Vec<u16>,
    /// Where the spool is.
    pub data_dir: PathBuf,
    /// How long begun transactions may take after SIGTERM.
    pub drain: Duration,
}

/// Whose limits were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of the running edge, by its process id.
    Edge(u32),
    /// Those of the shell that `postern tune` was started from.
    Shell,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The process whose limits these are.
    pub whose: Whose,
    /// It runs as root, or with the capability to lock any memory.
    pub locks_freely: Found<bool>,
    /// It may administer the system (CAP_SYS_ADMIN).
    pub is_privileged: Found<bool>,
    /// The group that it makes files as.
    pub group: Found<u64>,
    /// That one, or another one of its groups, is that of kernel.io_uring_group.
    pub in_ring_group: bool,
    /// A filter of system calls holds for it.
    pub is_filtered: Found<bool>,
    /// Whether a ring can be made by this program, which says nothing of an edge that runs; the sentence where not.
    pub ring: Found<()>,
    /// Its limit of open files; the largest number where there is none.
    pub open_files: Found<u64>,
    /// Its limit of locked memory, in octets; the largest number where there is none.
    pub locked_memory: Found<u64>,
    /// Its environment lets the allocator take huge pages.
    pub allocator_takes_huge_pages: Found<bool>,
    /// When the kernel gives them: always, madvise or never.
    pub huge_pages: Found<String>,
    /// Kernel settings as they were written, by name.
    pub sysctls: BTreeMap<&'static str, Found<String>>,
    /// Counters of the network stack, by the names of nstat.
    pub counters: BTreeMap<String, u64>,
    /// Connections that wait to be accepted at the ports of the configuration.
    pub waiting: Found<u64>,
    /// Sockets in TIME_WAIT.
    pub time_wait: Found<u64>,
    /// Pages of memory that TCP holds now.
    pub socket_pages: Found<u64>,
    /// Packets that the cores took, and those that found the queue of their core full, since it booted.
    pub softnet: Found<(u64, u64)>,
    /// Connections that are tracked, and how many may be.
    pub tracked: Found<(u64, u64)>,
    /// Octets of memory that the kernel has.
    pub memory: Found<u64>,
    /// Cores that the process may run on.
    pub cores: u64,
    /// Thousandths of a core that the control group may take.
    pub quota: Found<u64>,
    /// How often the control group has used it up.
    pub throttled: u64,
    /// The clock in use.
    pub clock: Found<String>,
    /// How the kernel takes a core from a thread, in the words of `uname -v`.
    pub preemption: Found<String>,
    /// Where `data_dir` lies.
    pub file_system: Found<FileSystem>,
    /// Times of syncs there.
    pub syncs: Found<Syncs>,
}

/// The file system of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted.
    pub mount: String,
    /// ext4, xfs, tmpfs...
    pub kind: String,
    /// Of the mount and of the file system.
    pub options: Vec<String>,
    /// Its device, as the mount names it.
    pub device: String,
    /// What the device says of its cache: "write back" or "write through".
    pub cache: Option<String>,
}

/// How long a write of 4 KiB and fdatasync took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syncs {
    /// Half of them took at most this.
    pub p50: Duration,
    /// All but one in a hundred.
    pub p99: Duration,
    /// How many.
    pub count: usize,
}
