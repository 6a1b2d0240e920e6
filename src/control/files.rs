//! Which of some files have changed since the last look.
//!
//! Promises: a file that was replaced, rewritten, made or removed is told once. Whoever watches has looked before it read
//! the file, so that a change between its reading and the first look here is not lost. [`look`] may block on a slow file system and belongs on a helper thread.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What tells one state of a file from another: inode, size, time of last change of content and of inode (so that a
/// file moved into place with an old modification time is seen as well). `None`: there is no such file.
pub type State = Option<(u64, u64, (i64, i64), (i64, i64))>;

/// The state of each file now.
pub fn look(paths: Vec<PathBuf>) -> Vec<(PathBuf, State)> {
    let state = |path: &PathBuf| {
        let m = fs::metadata(path).ok()?;
        Some((
            m.ino(),
            m.len(),
            (m.mtime(), m.mtime_nsec()),
            (m.ctime(), m.ctime_nsec()),
        ))
    };
    paths
        .into_iter()
        .map(|path| (state(&path), path))
        .map(|(state, path)| (path, state))
        .collect()
}

/// The states of the last look.
#[derive(Debug, Default)]
pub struct Seen {
    states: HashMap<PathBuf, State>,
}

impl Seen {
    /// Takes in a new look; returns the files that differ from the last one. A file that was not watched before is held
    /// against `read`, its state when it was read.
    pub fn changes(&mut self, read: &[(PathBuf, State)], look: Vec<(PathBuf, State)>) -> Vec<PathBuf> {
        let last = std::mem::replace(&mut self.states, look.iter().cloned().collect());
        let before = |path: &PathBuf| {
            let when_read = || read.iter().find(|(p, _)| p == path).map(|(_, state)| state);
            last.get(path).or_else(when_read).copied()
        };
        let changed = |(path, state): (PathBuf, State)| before(&path).is_some_and(|b| b != state).then_some(path);
        look.into_iter().filter_map(changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_when_it_is_made_rewritten_replaced_or_removed_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("dynamic.txt"), dir.path().join("other.txt"));
        let mut seen = Seen::default();
        let now = || look(vec![file.clone(), other.clone()]);
        let read = now();
        fs::write(&file, "192.0.2.1").unwrap();
        let mut changed = || seen.changes(&read, now()) == [file.clone()];
        assert!(changed());
        assert!(!changed());
        fs::write(&file, "192.0.2.11").unwrap();
        assert!(changed());
        let new = dir.path().join("new");
        fs::write(&new, "192.0.2.12").unwrap();
        fs::rename(&new, &file).unwrap();
        assert!(changed());
        fs::remove_file(&file).unwrap();
        assert!(changed());
        assert!(!changed());
    }
}
