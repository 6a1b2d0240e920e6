//! Whether memory or disk is low: what the sampler saw, and the state of each binding.
//!
//! Promises: a resource that became low stays low until an eighth more than its limit is free, so a server at the edge
//! does not flap; all shards see one state. The control thread alone calls [`Low::update`]; the shards only read.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Free disk and memory at one moment, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Free to an unprivileged process on the disk that mail is written to.
    pub free_disk: u64,
    /// What the host and every control group above this process leave to it.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
