//! The work of a spool, done in a folder with the standard library. For tests and benches.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use postern::spool::Task;
use postern::spool::directory::{segment_name, spare_name};

/// A folder with segments.
pub struct Files {
    path: PathBuf,
    open: HashMap<u32, File>,
}

impl Files {
    pub fn new(path: impl Into<PathBuf>) -> Files {
        Files {
            path: path.into(),
            open: HashMap::new(),
        }
    }

    /// Does it and waits until it is done.
    pub fn perform(&mut self, task: &Task) -> io::Result<()> {
        match task {
            Task::Create { segment, size, spare } => {
                let path = self.path.join(segment_name(*segment));
                match spare {
                    Some(spare) => fs::rename(self.path.join(spare_name(*spare)), path)?,
                    None => {
                        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
                        let zeros = vec![0; 1 << 20];
                        let mut left = *size as usize;
                        while left > 0 {
                            let part = left.min(zeros.len());
                            file.write_all(&zeros[..part])?;
                            left -= part;
                        }
                        file.sync_all()?;
                    }
                }
                self.sync()
            }
            Task::Write {
                segment,
                offset,
                octets,
            } => self.file(*segment)?.write_all_at(octets, *offset),
            Task::Sync { segment } => self.file(*segment)?.sync_data(),
            Task::Recycle { segment } => {
                self.open.remove(segment);
                fs::rename(
                    self.path.join(segment_name(*segment)),
                    self.path.join(spare_name(*segment)),
                )?;
                self.sync()
            }
            Task::Remove { segment } => {
                self.open.remove(segment);
                fs::remove_file(self.path.join(segment_name(*segment)))?;
                self.sync()
            }
            Task::RemoveDirectory => Ok(()),
        }
    }

    fn file(&mut self, segment: u32) -> io::Result<&File> {
        if !self.open.contains_key(&segment) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.path.join(segment_name(segment)))?;
            self.open.insert(segment, file);
        }
        Ok(&self.open[&segment])
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
