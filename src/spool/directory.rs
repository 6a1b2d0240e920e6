//! Directories of spools: whose they are, and what their files are called.
//!
//! ```text
//! data_dir/spool/                     locked, for a moment, by whoever makes, adopts or removes a directory
//!   5d0c41e6a3b9f027/                 one shard of one run; locked as long as that uses it
//!     00000001.log  00000002.log      segments
//!     00000000.spare                  to be used again
//!   quarantine/                       damaged segments, for a person to look at; never removed
//! ```
//!
//! A lock goes with its process, however that ends. So what is not locked belongs to nobody: a crash, a restart, a changed
//! number of shards and two processes that overlap are one case.
//!
//! Promises: no directory is ever held by two. Blocks; used at start, and by whoever removes a directory.

use std::{
    cell::RefCell,
    fmt,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
};

use super::recovery::Disk;

const QUARANTINE: &str = "quarantine";
const SEGMENT: &str = "log";
const SPARE: &str = "spare";

/// Octets that are given up when they cannot be read.
const BLOCK: usize = 4096;

/// The name of the file of a segment.
pub fn segment_name(segment: u32) -> String {
    format!("{segment:08x}.{SEGMENT}")
}

/// The name of the file of a segment that is to be used again.
pub fn spare_name(segment: u32) -> String {
    format!("{segment:08x}.{SPARE}")
}

/// A directory that this process holds, as long as this lives.
pub struct Directory {
    path: PathBuf,
    salt: u64,
    /// The segment that a piece was read from last, for the next.
    last: RefCell<Option<(u32, File)>>,
    /// Holds the lock.
    lock: File,
}

/// Makes a directory for one shard of this run.
pub fn create(spool: &Path) -> io::Result<Directory> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(spool)
        .map_err(named("make", spool))?;
    let spool = fs::canonicalize(spool).map_err(named("find", spool))?;
    if let Some(above) = spool.parent() {
        sync(above)?;
    }
    let _door = door(&spool)?;
    // The salt has to be new, not only unknown: a name that is there is not taken.
    let salt = getrandom::u64().map_err(io::Error::other)?;
    let path = spool.join(format!("{salt:016x}"));
    DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(named("make", &path))?;
    let handle = File::open(&path).map_err(named("open", &path))?;
    handle.lock().map_err(named("lock", &path))?;
    sync(&spool)?;
    Ok(Directory {
        path,
        salt,
        last: RefCell::default(),
        lock: handle,
    })
}

/// Takes hold of every directory that nobody holds.
pub fn adoptable(spool: &Path) -> io::Result<Vec<Directory>> {
    let spool = match fs::canonicalize(spool) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(named("find", spool))?,
    };
    let _door = door(&spool)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&spool).map_err(named("read", &spool))? {
        let path = entry.map_err(named("read", &spool))?.path();
        let Some(salt) = salt(&path).filter(|_| path.is_dir()) else {
            continue;
        };
        let handle = File::open(&path).map_err(named("open", &path))?;
        match handle.try_lock() {
            Ok(()) => found.push(Directory {
                path,
                salt,
                last: RefCell::default(),
                lock: handle,
            }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(named("lock", &path)(error)),
        }
    }
    // The order of their names means nothing, but it is the same each time.
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl Directory {
    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its tags are made from.
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// The same for somebody who only reads, while this one is used elsewhere. The lock is held as long as either lives.
    pub fn reader(&self) -> io::Result<Directory> {
        Ok(Directory {
            path: self.path.clone(),
            salt: self.salt,
            last: RefCell::default(),
            lock: self.lock.try_clone().map_err(named("hold", &self.path))?,
        })
    }

    /// Removes it, with files of segments that were prepared and not used. Anything else in it is an error.
    pub fn remove(self) -> io::Result<()> {
        let spool = self.path.parent().unwrap_or(&self.path);
        let _door = door(spool)?;
        for entry in fs::read_dir(&self.path).map_err(named("read", &self.path))? {
            let path = entry.map_err(named("read", &self.path))?.path();
            if number(&path, SEGMENT).or(number(&path, SPARE)).is_some() {
                fs::remove_file(&path).map_err(named("remove", &path))?;
            }
        }
        fs::remove_dir(&self.path).map_err(named("remove", &self.path))?;
        sync(spool)
    }

    fn open(&self, segment: u32) -> io::Result<(File, PathBuf)> {
        let path = self.path.join(segment_name(segment));
        let file = File::open(&path).map_err(named("open", &path))?;
        Ok((file, path))
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Directory").field(&self.path).finish()
    }
}

impl Disk for Directory {
    fn salt(&self) -> u64 {
        self.salt
    }

    fn segments(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(named("read", &self.path))? {
            let path = entry.map_err(named("read", &self.path))?.path();
            found.extend(number(&path, SEGMENT));
        }
        Ok(found)
    }

    fn whole(&self, segment: u32) -> io::Result<Vec<u8>> {
        let (file, path) = self.open(segment)?;
        let length = file.metadata().map_err(named("read", &path))?.len() as usize;
        let mut octets = vec![0; length];
        if file.read_exact_at(&mut octets, 0).is_err() {
            // Block by block: what cannot be read stays zero, and is damage.
            for (number, block) in octets.chunks_mut(BLOCK).enumerate() {
                if file.read_exact_at(block, (number * BLOCK) as u64).is_err() {
                    block.fill(0);
                }
            }
        }
        Ok(octets)
    }

    fn piece(&self, segment: u32, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut last = self.last.borrow_mut();
        let path = self.path.join(segment_name(segment));
        let file = match &mut *last {
            Some((known, file)) if *known == segment => file,
            last => &mut last.insert((segment, self.open(segment)?.0)).1,
        };
        let size = file.metadata().map_err(named("read", &path))?.len();
        let length = length.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut octets = vec![0; length];
        file.read_exact_at(&mut octets, offset).map_err(named("read", &path))?;
        Ok(octets)
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        let (file, path) = self.open(segment)?;
        file.sync_data().map_err(named("sync", &path))
    }

    fn keep_aside(&self, segment: u32) -> io::Result<()> {
        let spool = self.path.parent().unwrap_or(&self.path);
        let aside = spool.join(QUARANTINE);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&aside)
            .map_err(named("make", &aside))?;
        let link = aside.join(format!("{:016x}-{}", self.salt, segment_name(segment)));
        match fs::hard_link(self.path.join(segment_name(segment)), &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named("make", &link)(error)),
            _ => sync(&aside).and_then(|()| sync(spool)),
        }
    }
}

/// While it lives nobody else makes, adopts or removes a directory.
fn door(spool: &Path) -> io::Result<File> {
    let door = File::open(spool).map_err(named("open", spool))?;
    door.lock().map_err(named("lock", spool))?;
    Ok(door)
}

fn salt(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let salt = u64::from_str_radix(name, 16).ok()?;
    (name == format!("{salt:016x}")).then_some(salt)
}

fn number(path: &Path, extension: &str) -> Option<u32> {
    let stem = path.file_stem()?.to_str()?;
    let number = u32::from_str_radix(stem, 16).ok()?;
    (path.file_name()?.to_str()? == format!("{number:08x}.{extension}")).then_some(number)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(named("sync", directory))
}

/// Adds to an error what was tried and where; its kind stays.
fn named<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> io::Error + 'a {
    move |error| io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}
