//! Maildirs on disk: made on demand, and known to be durable before a message relies on them.
//!
//! Promises: after [`Directories::prepare`] the Maildir, its three directories and all directories above it have been
//! synced by this process. Shared by the workers; blocks.

use std::{
    collections::HashSet,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::named;

/// Directories remembered; past it all are forgotten, which costs a few syncs and bounds memory.
const KNOWN_MOST: usize = 16_384;

/// What is known of the directories.
#[derive(Debug, Default)]
pub(super) struct Directories {
    /// Each of these exists, as an entry of its parent, on the disk itself. A directory that merely is there does not
    /// count: another worker, or a process that crashed, may have made it and not yet (or never) synced its parent.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Directories {
    /// Makes the Maildir if it is not there, and makes sure that it outlives a crash.
    pub(super) fn prepare(&self, maildir: &Path) -> io::Result<()> {
        if self.known().contains(maildir) {
            return Ok(());
        }
        make(maildir)?;
        for name in ["tmp", "new", "cur"] {
            make(&maildir.join(name))?;
        }
        sync(maildir)?;
        let mut fresh = vec![maildir];
        let mut at = maildir;
        while let Some(parent) = parent(at) {
            match sync(parent) {
                // a directory that may be searched but not read holds nothing that this process made
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => result?,
            }
            if parent == Path::new(".") || self.known().contains(parent) {
                break;
            }
            fresh.push(parent);
            at = parent;
        }
        let mut known = self.known();
        if known.len() + fresh.len() > KNOWN_MOST {
            known.clear();
        }
        known.extend(fresh.into_iter().map(Path::to_owned));
        Ok(())
    }

    /// To be called when a prepared Maildir turns out to have been removed.
    pub(super) fn forget(&self, maildir: &Path) {
        let mut known = self.known();
        for directory in maildir.ancestors() {
            known.remove(directory);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // an entry is added whole, so the set is right even after a panic elsewhere
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Syncs a directory: its entries are then on the disk.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(named("sync", directory))
}

/// Makes a directory, and those above it that are missing, for this user only.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(named("make", directory))
}

fn parent(directory: &Path) -> Option<&Path> {
    let parent = directory.parent()?;
    Some(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}
