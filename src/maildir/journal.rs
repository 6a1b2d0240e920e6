//! Intents: what makes several renames one step, even for a crash between them.
//!
//! Before the first rename of a message with more than one file, an intent that lists all of them is synced below
//! `data_dir/intents`; it is removed after the last. All files of an intent were synced before it was written, so
//! [`recover`] can always complete it.
//!
//! Promises: an intent that is not whole changed nothing yet and is only removed; completing one twice is harmless.
//! Shared by the workers; [`recover`] runs at start, before the pool; blocks.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{self, Path, PathBuf},
};

use super::{directory, draft, named};

const DIRECTORY: &str = "intents";
/// What an intent begins with and ends in; in between, paths with a NUL after each.
const FIRST: &[u8] = b"postern intent 1\0";
const LAST: &[u8] = b"end\0";

/// The intents of this process.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    /// Locked, shared with other living processes: while it is, nobody completes our intents for us.
    handle: File,
}

impl Journal {
    pub(super) fn open(data_dir: &Path) -> io::Result<Journal> {
        let directory = path::absolute(data_dir.join(DIRECTORY))?;
        directory::make(&directory)?;
        for made in directory.ancestors().skip(1).take(2) {
            directory::sync(made)?;
        }
        let handle = File::open(&directory).map_err(named("open", &directory))?;
        handle.lock_shared().map_err(named("lock", &directory))?;
        Ok(Journal { directory, handle })
    }

    /// Writes an intent; it counts from [`Journal::sync`] on. The name is unique among all processes, as that of the
    /// first file is.
    pub(super) fn write<'a>(&self, moves: impl Iterator<Item = (&'a Path, &'a Path)>) -> io::Result<PathBuf> {
        let (mut text, mut intent) = (FIRST.to_vec(), None);
        for (tmp, new) in moves {
            intent.get_or_insert_with(|| self.directory.join(tmp.file_name().unwrap_or_default()));
            for path in [tmp, new] {
                // the next process may start in another working directory
                text.extend_from_slice(path::absolute(path)?.as_os_str().as_bytes());
                text.push(0);
            }
        }
        text.extend_from_slice(LAST);
        let intent = intent.ok_or_else(|| io::Error::other("an intent without files"))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&intent)
            .map_err(named("create", &intent))?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = fs::remove_file(&intent);
            return Err(named("write", &intent)(error));
        }
        Ok(intent)
    }

    /// Makes what was written and removed durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all().map_err(named("sync", &self.directory))
    }
}

/// What [`recover`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages that now are in all their Maildirs.
    pub completed: usize,
    /// Intents that a crash had cut short; their messages were never acknowledged and are in no Maildir.
    pub cleared: usize,
    /// Another process works with this `data_dir`: nothing was done, its intents are its own affair.
    pub busy: bool,
    /// Intents that stay for the next start, with the reason for the log.
    pub failures: Vec<String>,
}

/// Completes what a crash left half done. To be called once at start, before [`super::Pool::start`]. An error means
/// that the intents could not be looked at; one intent that cannot be completed does not keep the others from it.
pub fn recover(data_dir: &Path) -> io::Result<Recovered> {
    let directory = data_dir.join(DIRECTORY);
    let mut recovered = Recovered::default();
    let handle = match File::open(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(recovered),
        result => result.map_err(named("open", &directory))?,
    };
    match handle.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Ok(Recovered {
                busy: true,
                ..recovered
            });
        }
        Err(TryLockError::Error(error)) => return Err(named("lock", &directory)(error)),
    }
    for entry in fs::read_dir(&directory).map_err(named("read", &directory))? {
        let intent = entry.map_err(named("read", &directory))?.path();
        let result = fs::read(&intent)
            .map_err(named("read", &intent))
            .and_then(|text| match moves(&text) {
                Some(moves) => complete(&moves).map(|()| &mut recovered.completed),
                None => Ok(&mut recovered.cleared),
            });
        match result.and_then(|count| fs::remove_file(&intent).map(|()| *count += 1)) {
            Ok(()) => {}
            Err(error) => recovered.failures.push(format!("{}: {error}", intent.display())),
        }
    }
    handle.sync_all().map_err(named("sync", &directory))?;
    Ok(recovered)
}

/// The moves that an intent lists; none where it was cut short.
fn moves(text: &[u8]) -> Option<Vec<(&Path, &Path)>> {
    let paths = text.strip_prefix(FIRST)?.strip_suffix(LAST)?;
    let mut paths = paths.split_inclusive(|octet| *octet == 0);
    let mut moves = Vec::new();
    while let Some(tmp) = paths.next() {
        moves.push((path_of(tmp)?, path_of(paths.next()?)?));
    }
    Some(moves)
}

fn path_of(text: &[u8]) -> Option<&Path> {
    Some(Path::new(OsStr::from_bytes(text.strip_suffix(b"\0")?)))
}

/// Renames what is still in `tmp`. What is not has been moved before the crash (and perhaps read and removed since).
fn complete(moves: &[(&Path, &Path)]) -> io::Result<()> {
    for (tmp, new) in moves {
        match draft::rename(tmp, new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !tmp.exists() => {}
            result => result.map_err(named("deliver to", new))?,
        }
    }
    let destinations: BTreeSet<&Path> = moves.iter().filter_map(|(_, new)| new.parent()).collect();
    destinations
        .into_iter()
        .filter(|directory| directory.exists())
        .try_for_each(directory::sync)
}
