//! What the spool asks of the disk, done through the ring.
//!
//! Promises: octets are written and synced by the ring, and what the ring has no word for (new files, names, directories) is
//! done on the executor's helper thread, so nothing here blocks the shard; an error is told as it is and never tried again
//! into success. Lives on its shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{BufferedFile, OpenOptions};

use crate::spool::directory::{self, Directory};
use crate::spool::{DirectoryId, Extent, Task};

/// Octets of zeros written at once into a new segment.
const ZEROS: usize = 1 << 20;

/// The directories of a shard's spool: its own, and those of earlier runs that it has adopted.
#[derive(Debug)]
pub(super) struct Disk {
    directories: RefCell<HashMap<DirectoryId, Directory>>,
    files: RefCell<HashMap<(DirectoryId, u32), Rc<BufferedFile>>>,
}

impl Disk {
    /// Of the shard's own directory.
    pub fn new(own: Directory) -> Disk {
        Disk {
            directories: RefCell::new(HashMap::from([(DirectoryId::OWN, own)])),
            files: RefCell::default(),
        }
    }

    /// One more directory; its lock is held from here on.
    pub fn adopt(&self, id: DirectoryId, directory: Directory) {
        self.directories.borrow_mut().insert(id, directory);
    }

    /// Does one piece of work.
    ///
    /// # Errors
    ///
    /// What the system says, a write that came out short included.
    pub async fn perform(&self, directory: DirectoryId, task: Task) -> io::Result<()> {
        match task {
            Task::Create { segment, size, spare } => {
                let path = self.path(directory)?;
                off_the_shard(move || create(&path, segment, size, spare)).await
            }
            Task::Write {
                segment,
                offset,
                octets,
            } => {
                let file = self.file(directory, segment).await?;
                let length = octets.len();
                let written = file.write_at(octets, offset).await?;
                if written < length {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(())
            }
            Task::Sync { segment } => Ok(self.file(directory, segment).await?.fdatasync().await?),
            Task::Recycle { segment } => {
                self.forget(directory, segment).await;
                let path = self.path(directory)?;
                off_the_shard(move || {
                    std::fs::rename(
                        path.join(directory::segment_name(segment)),
                        path.join(directory::spare_name(segment)),
                    )?;
                    sync(&path)
                })
                .await
            }
            Task::Remove { segment } => {
                self.forget(directory, segment).await;
                let path = self.path(directory)?;
                off_the_shard(move || {
                    std::fs::remove_file(path.join(directory::segment_name(segment)))?;
                    sync(&path)
                })
                .await
            }
            Task::RemoveDirectory => {
                let Some(directory) = self.directories.borrow_mut().remove(&directory) else {
                    return Ok(());
                };
                off_the_shard(move || directory.remove()).await
            }
        }
    }

    /// Reads what an extent holds. Whether it is what was written, its verifier tells.
    ///
    /// # Errors
    ///
    /// What the system says; `UnexpectedEof` where the file ends before.
    pub async fn read(&self, extent: &Extent) -> io::Result<Vec<u8>> {
        let file = self.file(extent.directory, extent.segment).await?;
        let length = extent.length as usize;
        let read = file.read_at(extent.offset, length).await?;
        if read.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read.to_vec())
    }

    fn path(&self, directory: DirectoryId) -> io::Result<PathBuf> {
        let directories = self.directories.borrow();
        let directory = directories.get(&directory).ok_or(io::ErrorKind::NotFound)?;
        Ok(directory.path().to_path_buf())
    }

    /// The open file of a segment. Two that open it at once both may: the later one stays.
    async fn file(&self, directory: DirectoryId, segment: u32) -> io::Result<Rc<BufferedFile>> {
        if let Some(file) = self.files.borrow().get(&(directory, segment)) {
            return Ok(file.clone());
        }
        let path = self.path(directory)?.join(directory::segment_name(segment));
        let file = OpenOptions::new().read(true).write(true).buffered_open(path).await?;
        let file = Rc::new(file);
        self.files.borrow_mut().insert((directory, segment), file.clone());
        Ok(file)
    }

    async fn forget(&self, directory: DirectoryId, segment: u32) {
        let file = self.files.borrow_mut().remove(&(directory, segment));
        if let Some(file) = file.and_then(Rc::into_inner) {
            let _ = file.close().await;
        }
    }
}

/// A segment with zeros in it, so that later writes change no metadata and a sync has only the octets to write.
fn create(path: &Path, segment: u32, size: u64, spare: Option<u32>) -> io::Result<()> {
    let name = path.join(directory::segment_name(segment));
    match spare {
        Some(spare) => std::fs::rename(path.join(directory::spare_name(spare)), &name)?,
        // One that could not be made is known to nobody, and would keep what a full disk has left.
        None => zeros(&name, size).inspect_err(|_| drop(std::fs::remove_file(&name)))?,
    }
    sync(path)
}

fn zeros(name: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create_new(name)?;
    let zeros = vec![0; ZEROS];
    let mut left = size;
    while let Some(piece) = zeros.get(..left.min(ZEROS as u64) as usize).filter(|p| !p.is_empty()) {
        file.write_all(piece)?;
        left -= piece.len() as u64;
    }
    file.sync_all()
}

/// Makes the names in a directory durable.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Runs blocking work on the executor's helper thread, which a panic must not reach: glommio 0.9 would leave its caller
/// waiting for ever.
async fn off_the_shard<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let result = glommio::executor()
        .spawn_blocking(move || catch_unwind(AssertUnwindSafe(work)))
        .await;
    result.unwrap_or_else(|_| Err(io::Error::other("a defect in the work on a file")))
}
