//! A disk in memory, for the spool: it forgets what was not synced when the power is cut, and fails on demand.
//!
//! Promises to be as mean as a disk may be: of what was written and not synced each sector of 512 octets is there or not, in
//! no order; a failed write leaves any part of itself; a failed sync drops what it was for, and the next one says that all is
//! well. One seed gives one course of events.

#![allow(dead_code, reason = "each test that includes it uses its own part")]

use std::collections::BTreeMap;
use std::io;

use postern::spool::directory::{segment_name, spare_name};
use postern::spool::{DirectoryId, Disk, Failure, FailureKind, Recovered, Report, Spool, Task, find};

/// Takes up a directory as the server does, some messages at a time.
pub fn take_up(disk: &dyn Disk, spool: &mut Spool, at_once: usize) -> (DirectoryId, Report, Vec<Recovered>) {
    let (recovery, mut living) = find(disk).unwrap();
    let directory = spool.adopt(recovery.adopted);
    let mut found = Vec::new();
    while let Some(slice) = living.take(disk, at_once) {
        assert_eq!(slice.unreadable, []);
        spool.admit(slice.entries);
        found.extend(slice.messages);
    }
    (directory, recovery.report, found)
}

pub mod files;
pub mod model;

const SECTOR: usize = 512;

/// Random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn octets(&mut self, length: usize) -> Vec<u8> {
        let mut octets = Vec::with_capacity(length + 8);
        while octets.len() < length {
            octets.extend_from_slice(&self.next().to_le_bytes());
        }
        octets.truncate(length);
        octets
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// One file: what is on the disk itself, and what reading gives.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile {
    durable: Vec<u8>,
    seen: Vec<u8>,
    /// Writes since the last sync, whole or in part.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl MemoryFile {
    fn write(&mut self, offset: usize, octets: &[u8]) {
        overwrite(&mut self.seen, offset, octets);
        self.unsynced.push((offset, octets.to_vec()));
    }

    fn sync(&mut self) {
        for (offset, octets) in self.unsynced.drain(..) {
            overwrite(&mut self.durable, offset, &octets);
        }
    }

    /// Each sector of each write is on the disk or not.
    fn cut(&mut self, chance: &mut Chance) {
        for (offset, octets) in std::mem::take(&mut self.unsynced) {
            for (from, sector) in sectors(offset, &octets) {
                if chance.coin() {
                    overwrite(&mut self.durable, from, sector);
                }
            }
        }
        self.seen = self.durable.clone();
    }
}

fn overwrite(file: &mut Vec<u8>, offset: usize, octets: &[u8]) {
    let end = offset + octets.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(octets);
}

/// The parts of a write that lie in one sector each.
fn sectors(offset: usize, octets: &[u8]) -> Vec<(usize, &[u8])> {
    let (mut at, mut rest, mut parts) = (offset, octets, Vec::new());
    while !rest.is_empty() {
        let (sector, more) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
        parts.push((at, sector));
        at += sector.len();
        rest = more;
    }
    parts
}

/// All directories of a spool, by their salt.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    directories: BTreeMap<u64, BTreeMap<String, MemoryFile>>,
    /// How many segments were kept aside.
    pub aside: std::cell::Cell<usize>,
    /// Octets that all files together may have; none is no bound.
    pub room: Option<usize>,
}

impl MemoryDisk {
    /// Makes an empty directory.
    pub fn make(&mut self, salt: u64) {
        self.directories.insert(salt, BTreeMap::new());
    }

    pub fn salts(&self) -> Vec<u64> {
        self.directories.keys().copied().collect()
    }

    /// The names of the files of a directory.
    pub fn names(&self, salt: u64) -> Vec<String> {
        self.directories
            .get(&salt)
            .map_or_else(Vec::new, |files| files.keys().cloned().collect())
    }

    /// A directory, for recovery.
    pub fn view(&self, salt: u64) -> View<'_> {
        View { disk: self, salt }
    }

    /// Octets of a segment as they would be read.
    pub fn read(&self, salt: u64, segment: u32, offset: u64, length: usize) -> Vec<u8> {
        let file = &self.directories[&salt][&segment_name(segment)].seen;
        file[offset as usize..][..length].to_vec()
    }

    /// The same, where they are there.
    pub fn try_read(&self, salt: u64, segment: u32, offset: u64, length: usize) -> Option<Vec<u8>> {
        let file = self.directories.get(&salt)?.get(&segment_name(segment))?;
        Some(file.seen.get(offset as usize..)?.get(..length)?.to_vec())
    }

    /// Changes a segment behind everybody's back.
    pub fn damage(&mut self, salt: u64, segment: u32, offset: usize, octets: &[u8]) {
        let file = self.file(salt, &segment_name(segment)).unwrap();
        overwrite(&mut file.durable, offset, octets);
        overwrite(&mut file.seen, offset, octets);
    }

    /// The work as it should be done.
    pub fn perform(&mut self, salt: u64, task: &Task) -> Result<(), Failure> {
        match task {
            Task::Create { segment, size, spare } => {
                let used: usize = self
                    .directories
                    .values()
                    .flatten()
                    .map(|(_, file)| file.seen.len())
                    .sum();
                let files = self.directories.get_mut(&salt).ok_or_else(missing)?;
                let file = match spare {
                    Some(spare) => files.remove(&spare_name(*spare)).ok_or_else(missing)?,
                    None => {
                        if self.room.is_some_and(|room| used + *size as usize > room) {
                            return Err(full());
                        }
                        let zeros = vec![0; *size as usize];
                        MemoryFile {
                            durable: zeros.clone(),
                            seen: zeros,
                            unsynced: Vec::new(),
                        }
                    }
                };
                let before = files.insert(segment_name(*segment), file);
                assert!(before.is_none(), "segment {segment} is made twice");
            }
            Task::Write {
                segment,
                offset,
                octets,
            } => {
                let size = self.file(salt, &segment_name(*segment))?.seen.len();
                assert!(
                    *offset as usize + octets.len() <= size,
                    "a write passes the end of its segment"
                );
                self.file(salt, &segment_name(*segment))?
                    .write(*offset as usize, octets);
            }
            Task::Sync { segment } => self.file(salt, &segment_name(*segment))?.sync(),
            Task::Recycle { segment } => {
                let files = self.directories.get_mut(&salt).ok_or_else(missing)?;
                let file = files.remove(&segment_name(*segment)).ok_or_else(missing)?;
                files.insert(spare_name(*segment), file);
            }
            Task::Remove { segment } => {
                let files = self.directories.get_mut(&salt).ok_or_else(missing)?;
                files.remove(&segment_name(*segment)).ok_or_else(missing)?;
            }
            Task::RemoveDirectory => {
                self.directories.remove(&salt).ok_or_else(missing)?;
            }
        }
        Ok(())
    }

    /// The work as it goes wrong.
    pub fn fail(&mut self, salt: u64, task: &Task, chance: &mut Chance) -> Failure {
        match task {
            Task::Write {
                segment,
                offset,
                octets,
            } => {
                if let Ok(file) = self.file(salt, &segment_name(*segment)) {
                    for (from, sector) in sectors(*offset as usize, octets) {
                        if chance.coin() {
                            file.write(from, sector);
                        }
                    }
                }
            }
            Task::Sync { segment } => {
                if let Ok(file) = self.file(salt, &segment_name(*segment)) {
                    let seen = file.seen.clone();
                    file.cut(chance);
                    // What could not be written is gone, but until the power is cut it can be read.
                    file.seen = seen;
                }
            }
            _ if chance.coin() => {
                // It was done, only not durably said so.
                let _ = match task {
                    Task::Create { .. } => self.perform(salt, task),
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        Failure {
            kind: FailureKind::Other,
            text: "the disk was told to fail".to_owned(),
        }
    }

    /// The power is cut: what was under way is done, or not, or in part.
    pub fn cut(&mut self, under_way: Vec<(u64, Task)>, chance: &mut Chance) {
        for (salt, task) in under_way {
            match task {
                Task::Sync { .. } => {}
                Task::Write { .. } => drop(self.perform(salt, &task)),
                _ if chance.coin() => drop(self.perform(salt, &task)),
                _ => {}
            }
        }
        for file in self.directories.values_mut().flat_map(BTreeMap::values_mut) {
            file.cut(chance);
        }
    }

    /// What recovery does by itself on a real disk: all that it reads becomes durable.
    pub fn sync_all(&mut self) {
        for file in self.directories.values_mut().flat_map(BTreeMap::values_mut) {
            file.durable = file.seen.clone();
            file.unsynced.clear();
        }
    }

    fn file(&mut self, salt: u64, name: &str) -> Result<&mut MemoryFile, Failure> {
        self.directories
            .get_mut(&salt)
            .and_then(|files| files.get_mut(name))
            .ok_or_else(missing)
    }
}

fn missing() -> Failure {
    Failure {
        kind: FailureKind::Other,
        text: "no such file".to_owned(),
    }
}

fn full() -> Failure {
    Failure {
        kind: FailureKind::Full,
        text: "no space left on device".to_owned(),
    }
}

/// One directory.
pub struct View<'a> {
    disk: &'a MemoryDisk,
    salt: u64,
}

impl View<'_> {
    fn seen(&self, segment: u32) -> io::Result<&[u8]> {
        let file = self
            .disk
            .directories
            .get(&self.salt)
            .and_then(|files| files.get(&segment_name(segment)));
        file.map(|file| file.seen.as_slice())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for View<'_> {
    fn salt(&self) -> u64 {
        self.salt
    }

    fn segments(&self) -> io::Result<Vec<u32>> {
        let names = self.disk.names(self.salt);
        let numbers = names.iter().filter_map(|name| name.strip_suffix(".log"));
        Ok(numbers.map(|stem| u32::from_str_radix(stem, 16).unwrap()).collect())
    }

    fn whole(&self, segment: u32) -> io::Result<Vec<u8>> {
        self.seen(segment).map(<[u8]>::to_vec)
    }

    fn piece(&self, segment: u32, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let seen = self.seen(segment)?;
        let rest = seen.get(offset as usize..).unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest).to_vec())
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        // After a power cut all that is seen is durable; without one there is a disk to call.
        self.seen(segment).map(|_| ())
    }

    fn keep_aside(&self, segment: u32) -> io::Result<()> {
        self.disk.aside.set(self.disk.aside.get() + 1);
        self.seen(segment).map(|_| ())
    }
}
