//! Whether memory or disk is low: what the sampler saw, and the state of each binding.
//!
//! Promises: a resource that became low stays low until an eighth more than its limit is free, so a server at the edge
//! does not flap; all shards see one state. The parsers are pure: files are read by the control thread, which alone calls
//! [`Low::update`]; the shards only read.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What was free when it was last looked at, in octets. Shared by all threads; plenty until the first look.
#[derive(Debug)]
pub struct Resources {
    free_disk: AtomicU64,
    free_memory: AtomicU64,
}

/// Free disk and memory at one moment, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Free to an unprivileged process on the disk that mail is written to.
    pub free_disk: u64,
    /// See [`available_memory`].
    pub free_memory: u64,
}

/// The limits of a binding, in octets; 0 is never low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// `min_free_disk`.
    pub min_free_disk: u64,
    /// `min_free_memory`.
    pub min_free_memory: u64,
}

/// Which resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Free disk.
    Disk,
    /// Free memory.
    Memory,
}

/// A resource became low or recovered: for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which one.
    pub resource: Resource,
    /// Low from now on, or no longer.
    pub low: bool,
    /// What is free, in octets.
    pub free: u64,
    /// The limit, in octets.
    pub limit: u64,
}

/// Whether the resources of one binding are low.
#[derive(Debug, Default)]
pub struct Low {
    disk: Watermark,
    memory: Watermark,
}

/// One resource against one limit, with hysteresis.
#[derive(Debug, Default)]
struct Watermark(AtomicBool);

impl Resources {
    /// Nothing has been looked at yet.
    pub fn new() -> Resources {
        Resources {
            free_disk: AtomicU64::new(u64::MAX),
            free_memory: AtomicU64::new(u64::MAX),
        }
    }

    /// Keeps what the sampler saw.
    pub fn store(&self, sample: Sample) {
        self.free_disk.store(sample.free_disk, Ordering::Relaxed);
        self.free_memory.store(sample.free_memory, Ordering::Relaxed);
    }

    /// What the sampler saw last.
    pub fn sample(&self) -> Sample {
        Sample {
            free_disk: self.free_disk.load(Ordering::Relaxed),
            free_memory: self.free_memory.load(Ordering::Relaxed),
        }
    }
}

impl Default for Resources {
    fn default() -> Resources {
        Resources::new()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Disk => "disk",
            Resource::Memory => "memory",
        })
    }
}

impl Low {
    /// Whether disk or memory is low: new connections and MAIL get OutOfResources.
    pub fn is_low(&self) -> bool {
        self.disk.is_low() || self.memory.is_low()
    }

    /// Judges a sample; gives what changed by it. One thread calls this.
    pub fn update(&self, sample: Sample, floor: Floor) -> impl Iterator<Item = Transition> + use<> {
        let disk = self.disk.update(Resource::Disk, sample.free_disk, floor.min_free_disk);
        let memory = self
            .memory
            .update(Resource::Memory, sample.free_memory, floor.min_free_memory);
        disk.into_iter().chain(memory)
    }
}

impl Watermark {
    fn is_low(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn update(&self, resource: Resource, free: u64, limit: u64) -> Option<Transition> {
        let was = self.is_low();
        let threshold = if was { limit.saturating_add(limit / 8) } else { limit };
        let low = free < threshold;
        self.0.store(low, Ordering::Relaxed);
        (low != was).then_some(Transition {
            resource,
            low,
            free,
            limit,
        })
    }
}

/// Octets that can be had without swapping: `MemAvailable` of `/proc/meminfo`, or what a control group leaves, whichever
/// is less. None where neither can be read out of the texts.
///
/// `cgroup` is the texts of `memory.max`, `memory.current` and `memory.stat` (version 2) or `memory.limit_in_bytes`,
/// `memory.usage_in_bytes` and `memory.stat` (version 1). The first may hold several lines, `memory.high` beside
/// `memory.max`: the smallest number counts, `max` is none. Pages of files that were not used lately (`inactive_file`)
/// count as free: the kernel takes them back before it fails an allocation.
pub fn available_memory(meminfo: &str, cgroup: Option<(&str, &str, &str)>) -> Option<u64> {
    let host = field(meminfo, "MemAvailable:").map(|kib| kib.saturating_mul(1024));
    let group = cgroup.and_then(|(limits, usage, stat)| {
        let limit = limits
            .lines()
            .filter_map(|line| line.trim().parse::<u64>().ok())
            .min()?;
        let usage: u64 = usage.trim().parse().ok()?;
        // Version 1 counts the groups below in `usage`, and only the `total_` fields of `stat` do so too.
        let reclaimable = field(stat, "total_inactive_file")
            .or_else(|| field(stat, "inactive_file"))
            .unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
    });
    host.into_iter().chain(group).min()
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n";
    const FLOOR: Floor = Floor {
        min_free_disk: 800,
        min_free_memory: 80,
    };

    fn sample(free_disk: u64, free_memory: u64) -> Sample {
        Sample { free_disk, free_memory }
    }

    #[test]
    fn a_resource_is_low_below_its_limit_and_recovers_an_eighth_above() {
        let low = Low::default();
        assert_eq!(low.update(sample(800, 80), FLOOR).count(), 0);
        assert!(!low.is_low());
        let became = Transition {
            resource: Resource::Disk,
            low: true,
            free: 799,
            limit: 800,
        };
        assert_eq!(low.update(sample(799, 80), FLOOR).collect::<Vec<_>>(), [became]);
        assert!(low.is_low());
        assert_eq!(low.update(sample(899, 80), FLOOR).count(), 0);
        assert!(low.is_low());
        let recovered = Transition {
            resource: Resource::Disk,
            low: false,
            free: 900,
            limit: 800,
        };
        assert_eq!(low.update(sample(900, 80), FLOOR).collect::<Vec<_>>(), [recovered]);
        assert!(!low.is_low(), "memory, which never was low, does not need its eighth");
    }

    #[test]
    fn both_resources_must_recover() {
        let low = Low::default();
        assert_eq!(low.update(sample(0, 0), FLOOR).count(), 2);
        assert_eq!(low.update(sample(5000, 0), FLOOR).count(), 1);
        assert!(low.is_low());
        assert_eq!(low.update(sample(5000, 500), FLOOR).count(), 1);
        assert!(!low.is_low());
    }

    #[test]
    fn a_limit_of_zero_is_never_low_and_lowering_a_limit_recovers() {
        let zero = Floor {
            min_free_disk: 0,
            min_free_memory: 0,
        };
        let low = Low::default();
        assert_eq!(low.update(sample(0, 0), zero).count(), 0);
        assert_eq!(low.update(sample(0, 0), FLOOR).count(), 2);
        assert_eq!(low.update(sample(0, 0), zero).count(), 2);
        assert!(!low.is_low());
    }

    #[test]
    fn there_is_plenty_until_the_first_sample() {
        let resources = Resources::new();
        assert_eq!(resources.sample(), sample(u64::MAX, u64::MAX));
        resources.store(sample(1, 2));
        assert_eq!(resources.sample(), sample(1, 2));
    }

    #[test]
    fn available_memory_is_the_least_of_host_and_control_group() {
        assert_eq!(available_memory(MEMINFO, None), Some(2_048_000_000));
        let v2 = |limits| {
            available_memory(
                MEMINFO,
                Some((limits, "900000\n", "anon 500000\ninactive_file 300000\n")),
            )
        };
        assert_eq!(v2("1000000\n"), Some(400_000));
        assert_eq!(v2("max\n"), Some(2_048_000_000));
        assert_eq!(v2("max\n800000\n"), Some(200_000), "memory.high beside memory.max");
        assert_eq!(v2("100\n"), Some(0));
    }

    #[test]
    fn version_1_of_control_groups_counts_the_groups_below() {
        let stat = "inactive_file 1\ntotal_inactive_file 300000\n";
        assert_eq!(
            available_memory(MEMINFO, Some(("1000000", "900000", stat))),
            Some(400_000)
        );
        let unlimited = available_memory(MEMINFO, Some(("9223372036854771712", "900000", stat)));
        assert_eq!(unlimited, Some(2_048_000_000));
    }

    #[test]
    fn texts_that_are_no_such_files_are_no_answer() {
        assert_eq!(available_memory("", None), None);
        assert_eq!(available_memory("MemAvailable: lots", Some(("", "", ""))), None);
        assert_eq!(available_memory("", Some(("1000", "10", ""))), Some(990));
    }
}
