//! How much disk and memory is left.
//!
//! Promises: memory is the least that the host and every control group above this process leave to it, so a container's
//! limit counts as much as the machine's. What cannot be read does not count as a shortage. [`sample_once`] may block
//! on a hanging file system and belongs on a helper thread, or before serving.

use std::fs;
use std::path::{Path, PathBuf};

pub use crate::policy::resources::Sample;

/// Looks now.
pub fn sample_once(paths: &[PathBuf]) -> Sample {
    Sample {
        free_disk: paths
            .iter()
            .filter_map(|path| free_disk(path))
            .min()
            .unwrap_or(u64::MAX),
        free_memory: free_memory(Path::new("/proc"), Path::new("/sys/fs/cgroup")).unwrap_or(u64::MAX),
    }
}

/// The space on the file system of the nearest ancestor that exists: the directory itself may still be made.
fn free_disk(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let fs = absolute
        .ancestors()
        .find_map(|ancestor| rustix::fs::statvfs(ancestor).ok())?;
    Some(fs.f_bavail.saturating_mul(fs.f_frsize))
}

fn free_memory(proc: &Path, groups: &Path) -> Option<u64> {
    let host = fs::read_to_string(proc.join("meminfo"))
        .ok()
        .and_then(|text| available(&text));
    let group = fs::read_to_string(proc.join("self/cgroup"))
        .ok()
        .and_then(|text| group_room(&text, groups));
    [host, group].into_iter().flatten().min()
}

/// The least room among the control groups that `/proc/self/cgroup` names and all above them.
fn group_room(own_groups: &str, root: &Path) -> Option<u64> {
    own_groups
        .lines()
        .filter_map(|line| {
            // hierarchy:controllers:path (cgroups(7)); version 2 is hierarchy 0 without controllers.
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let (root, names) = match controllers {
                "" => (root.to_owned(), VERSION_2),
                c if c.split(',').any(|c| c == "memory") => (root.join("memory"), VERSION_1),
                _ => return None,
            };
            // Inside a container the path may be one of the host that is not mounted here: then only its root is read.
            let own = root.join(path.trim_start_matches('/'));
            let levels = own.ancestors().take_while(|level| level.starts_with(&root));
            levels.filter_map(|level| room_at(level, names)).min()
        })
        .min()
}

/// The files of a control group: limit, usage, and the line of `memory.stat` with the pages that can be dropped.
type Names = (&'static str, &'static str, &'static str);
const VERSION_2: Names = ("memory.max", "memory.current", "inactive_file");
const VERSION_1: Names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");

fn room_at(level: &Path, (limit, usage, droppable): Names) -> Option<u64> {
    let read = |name| fs::read_to_string(level.join(name)).ok();
    room(
        &read(limit)?,
        &read(usage)?,
        &read("memory.stat").unwrap_or_default(),
        droppable,
    )
}

/// What a control group leaves: `None` without a limit ("max", which does not parse).
fn room(limit: &str, usage: &str, stat: &str, droppable: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let usage: u64 = usage.trim().parse().ok()?;
    let cache = stat
        .lines()
        .find_map(|line| line.strip_prefix(droppable)?.strip_prefix(' ')?.trim().parse().ok());
    Some(limit.saturating_sub(usage.saturating_sub(cache.unwrap_or(0))))
}

/// `MemAvailable` of `/proc/meminfo`, in octets.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_leaves_what_meminfo_calls_available() {
        assert_eq!(
            available("MemTotal:  99 kB\nMemAvailable:    2048 kB\n"),
            Some(2048 * 1024)
        );
        assert_eq!(available("MemTotal:  99 kB\n"), None);
        assert_eq!(available("MemAvailable: 99999999999999999999 kB\n"), None);
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used_and_cannot_be_dropped() {
        assert_eq!(
            room("1000\n", "700\n", "anon 1\ninactive_file 200\n", "inactive_file"),
            Some(500)
        );
        assert_eq!(room("1000", "1700", "", "inactive_file"), Some(0));
        assert_eq!(room("max\n", "700\n", "", "inactive_file"), None);
    }

    #[test]
    fn the_tightest_of_all_groups_above_the_process_counts_in_either_version() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, files: &[(&str, &str)]| {
            let dir = root.path().join(path);
            fs::create_dir_all(&dir).unwrap();
            files
                .iter()
                .for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
        };
        group("a/b", &[("memory.max", "max"), ("memory.current", "10")]);
        group("a", &[("memory.max", "100"), ("memory.current", "10")]);
        assert_eq!(group_room("0::/a/b\n", root.path()), Some(90));
        group(
            "memory/c",
            &[("memory.limit_in_bytes", "50"), ("memory.usage_in_bytes", "20")],
        );
        assert_eq!(group_room("4:cpu:/x\n3:memory:/c\n0::/a/b\n", root.path()), Some(30));
        assert_eq!(group_room("3:memory:/not/mounted/here\n", root.path()), None);
        assert_eq!(group_room("nonsense", root.path()), None);
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_measured_by_its_nearest_ancestor() {
        let dir = tempfile::tempdir().unwrap();
        let sample = sample_once(&[dir.path().join("not/made/yet")]);
        assert!(sample.free_disk < u64::MAX && sample.free_memory < u64::MAX);
        assert_eq!(sample_once(&[]).free_disk, u64::MAX);
    }
}
