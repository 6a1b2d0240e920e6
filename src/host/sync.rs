//! How long it takes to make a write durable where the spool lies.
//!
//! Promises: writes one file of a few pages below a directory that is there, and removes it, also when it fails half-way.
//! Blocks as long as the disk does; lives on the main thread of `postern tune`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::facts::{Found, Missing, Syncs};

/// Octets of one write: a page, as the smallest message of the spool.
const WRITE: usize = 4096;
/// Writes before anything is timed.
const WARM_UP: usize = 3;

/// Writes and syncs `count` times in the directory.
pub fn measure(directory: &Path, count: usize) -> Found<Syncs> {
    let unusable = |error: io::Error| {
        Missing::Unreadable(format!(
            "cannot write in {}: {error}; run it as the user that the edge runs as",
            directory.display()
        ))
    };
    let probe = Probe::make(directory, WARM_UP + count).map_err(unusable)?;
    let mut times = Vec::with_capacity(count);
    for turn in 0..WARM_UP + count {
        let begun = Instant::now();
        probe.write(turn).map_err(unusable)?;
        if turn >= WARM_UP {
            times.push(begun.elapsed());
        }
    }
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get((times.len() * share / 100).min(times.len().saturating_sub(1)))
            .copied()
    };
    match (at(50), at(99)) {
        (Some(p50), Some(p99)) => Ok(Syncs { p50, p99, count }),
        _ => Err(Missing::Absent("nothing was to be measured".into())),
    }
}

/// The file, for as long as it is needed.
struct Probe {
    file: File,
    path: PathBuf,
}

impl Probe {
    /// Its blocks are written before anything is timed, as those of a segment of the spool are.
    fn make(directory: &Path, writes: usize) -> io::Result<Probe> {
        let path = directory.join(format!(".postern-tune-{}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let probe = Probe { file, path };
        for turn in 0..writes {
            probe.file.write_all_at(&[0; WRITE], (turn * WRITE) as u64)?;
        }
        probe.file.sync_all()?;
        Ok(probe)
    }

    fn write(&self, turn: usize) -> io::Result<()> {
        self.file.write_all_at(&[turn as u8; WRITE], (turn * WRITE) as u64)?;
        self.file.sync_data()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_is_timed_and_nothing_stays_behind() {
        let directory = tempfile::tempdir().unwrap();
        let syncs = measure(directory.path(), 5).unwrap();
        assert!(syncs.count == 5 && syncs.p50 <= syncs.p99 && !syncs.p99.is_zero());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let said = measure(&gone, 1).unwrap_err();
        assert!(
            matches!(&said, Missing::Unreadable(text) if text.contains(gone.to_str().unwrap())),
            "{said:?}"
        );
    }
}
