//! A message on its way into its files.
//!
//! Promises: what a draft has written and not delivered, it removes when it is dropped. Travels between a shard, which
//! only carries it, and the workers, which do all its I/O: a shard gives up a draft by [`super::Request::Abandon`], not
//! by dropping it (one that was never appended to may be dropped anywhere; it has done nothing).
//!
//! Between requests a draft holds one descriptor at most, however many recipients: while content still comes it goes
//! to the first file only, and the others are copied from that when all is there. It stays open from its first octet
//! to its sync, since the kernel may forget a failed write-back once nobody has the file open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Seek, SeekFrom, Write},
    mem,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Conversion, Delivered, Plan, directory::Directories, named};

/// Files of one message that are open at once.
const OPEN_MOST: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct Draft {
    plan: Plan,
    conversion: Conversion,
    /// As many as have been begun, in the order of the plan.
    files: Vec<Stored>,
    /// Octets of content written, without heads.
    content: u64,
}

#[derive(Debug)]
struct Stored {
    tmp: PathBuf,
    /// Only set once the size is known, which is part of the name.
    new: PathBuf,
    /// Until it is synced.
    open: Option<File>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Tmp,
    New,
}

/// Names that differ between hosts and processes.
#[derive(Debug)]
pub(super) struct Host {
    name: String,
    process: u32,
    /// Names made so far: what sets two of one microsecond apart, also if they carry one queue id.
    names: AtomicU64,
}

impl Host {
    pub(super) fn this() -> Host {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // the two that Maildir's convention replaces: they mean something in a path and before the flags
        Host {
            name: name.replace('/', "\\057").replace(':', "\\072"),
            process: std::process::id(),
            names: AtomicU64::new(0),
        }
    }
}

/// What a worker needs to write drafts.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) host: &'a Host,
    pub(super) directories: &'a Directories,
    /// Converted content; reused from piece to piece.
    pub(super) buffer: Vec<u8>,
}

impl Draft {
    /// Does no I/O.
    pub fn new(plan: Plan) -> Draft {
        let conversion = Conversion::new(plan.form, plan.normalise);
        Draft {
            plan,
            conversion,
            files: Vec::new(),
            content: 0,
        }
    }

    /// The plan it was made from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Adds header fields, with CRLF, to the head of each file, as long as nothing is written.
    pub fn add_fields(&mut self, fields: &str) {
        if self.files.is_empty() {
            let fields = fields.replace("\r\n", "\n");
            self.plan
                .files
                .iter_mut()
                .for_each(|file| file.head.extend_from_slice(fields.as_bytes()));
        }
    }

    /// Adds a piece of content to the first file.
    pub(super) fn append(&mut self, piece: &[u8], desk: &mut Desk<'_>) -> io::Result<()> {
        desk.buffer.clear();
        self.conversion.push(piece, &mut desk.buffer);
        self.write_first(desk)
    }

    /// Adds the last piece and writes the other files, so that only syncing and renaming are left.
    pub(super) fn complete(&mut self, piece: &[u8], desk: &mut Desk<'_>) -> io::Result<()> {
        let whole = self.files.is_empty();
        desk.buffer.clear();
        self.conversion.push(piece, &mut desk.buffer);
        self.conversion.finish(&mut desk.buffer);
        self.write_first(desk)?;
        for index in 1..self.plan.files.len() {
            if index % OPEN_MOST == 0 {
                self.sync()?;
            }
            let content = if whole { desk.buffer.as_slice() } else { &[] };
            self.begin(index, content, desk)?;
            if !whole {
                self.copy_first_to_last()?;
            }
        }
        for (stored, file) in self.files.iter_mut().zip(&self.plan.files) {
            let mut name = stored.tmp.file_name().unwrap_or_default().to_owned();
            name.push(format!(",S={}", file.head.len() as u64 + self.content));
            stored.new = file.maildir.join("new").join(name);
        }
        Ok(())
    }

    /// Syncs and closes every open file.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        for stored in &mut self.files {
            if let Some(file) = stored.open.take() {
                file.sync_all().map_err(named("sync", &stored.tmp))?;
            }
        }
        Ok(())
    }

    /// Moves every file from `tmp` to `new`; after an error some may have been moved, see [`Draft::roll_back`].
    pub(super) fn rename(&mut self, directories: &Directories) -> io::Result<()> {
        for (stored, file) in self.files.iter_mut().zip(&self.plan.files) {
            if let Err(error) = rename(&stored.tmp, &stored.new) {
                directories.forget(&file.maildir);
                return Err(named("deliver to", &stored.new)(error));
            }
            stored.place = Place::New;
        }
        Ok(())
    }

    /// Moves back what [`Draft::rename`] moved; what a mail reader has already taken out of `new` stays with it. Where
    /// it fails, what is in `tmp` stays as well, so that an intent can still be completed.
    pub(super) fn roll_back(&mut self) -> io::Result<()> {
        for stored in &mut self.files {
            if stored.place == Place::New {
                match rename(&stored.new, &stored.tmp) {
                    Ok(()) => stored.place = Place::Tmp,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        let error = named("take back", &stored.new)(error);
                        self.leave();
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// From now on what is in `tmp` stays there.
    pub(super) fn leave(&mut self) {
        self.files.iter_mut().for_each(|stored| stored.place = Place::New);
    }

    /// Where each file is and where it goes.
    pub(super) fn moves(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.files
            .iter()
            .map(|stored| (stored.tmp.as_path(), stored.new.as_path()))
    }

    /// The `new` directories of the files; the same one more than once where files share it.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter_map(|stored| stored.new.parent())
    }

    pub(super) fn delivered(&mut self) -> Delivered {
        let heads: u64 = self.plan.files.iter().map(|file| file.head.len() as u64).sum();
        let files: Vec<_> = mem::take(&mut self.files)
            .into_iter()
            .map(|stored| stored.new)
            .collect();
        Delivered {
            octets: heads + self.content * files.len() as u64,
            files,
        }
    }

    /// Writes the buffer to the first file, which it begins if need be.
    fn write_first(&mut self, desk: &mut Desk<'_>) -> io::Result<()> {
        let octets = desk.buffer.len() as u64;
        match self.files.first() {
            None => {
                let content = mem::take(&mut desk.buffer);
                let result = self.begin(0, &content, desk);
                desk.buffer = content;
                result?;
            }
            Some(stored) => {
                let mut file = stored
                    .open
                    .as_ref()
                    .ok_or_else(|| io::Error::other("the first file is closed"))?;
                file.write_all(&desk.buffer).map_err(named("write", &stored.tmp))?;
            }
        }
        self.content += octets;
        Ok(())
    }

    /// Makes the file at `index` of the plan, the next one, and writes its head and `content`.
    fn begin(&mut self, index: usize, content: &[u8], desk: &Desk<'_>) -> io::Result<()> {
        let Some(plan) = self.plan.files.get(index) else {
            return Err(io::Error::other("the message has no file to go to"));
        };
        let tmp = plan
            .maildir
            .join("tmp")
            .join(unique(&self.plan.queue_id, index, desk.host));
        desk.directories.prepare(&plan.maildir)?;
        let file = match create(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                desk.directories.forget(&plan.maildir);
                desk.directories.prepare(&plan.maildir)?;
                create(&tmp)
            }
            result => result,
        };
        let mut file = file.map_err(named("create", &tmp))?;
        let written = write_both(&mut file, &plan.head, content).map_err(named("write", &tmp));
        // kept even if it could not be written, so that it is removed again
        self.files.push(Stored {
            tmp,
            new: PathBuf::new(),
            open: Some(file),
            place: Place::Tmp,
        });
        written
    }

    fn copy_first_to_last(&mut self) -> io::Result<()> {
        let head = self.plan.files.first().map_or(0, |file| file.head.len() as u64);
        let (Some(first), Some(last)) = (self.files.first(), self.files.last()) else {
            return Ok(());
        };
        let Some(to) = last.open.as_ref() else { return Ok(()) };
        let mut from = File::open(&first.tmp).map_err(named("read", &first.tmp))?;
        from.seek(SeekFrom::Start(head)).map_err(named("read", &first.tmp))?;
        let copied = io::copy(&mut from, &mut &*to).map_err(named("write", &last.tmp))?;
        if copied != self.content {
            return Err(named("read", &first.tmp)(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for stored in &self.files {
            if stored.place == Place::Tmp {
                // what cannot be removed is litter in `tmp`, which the mailbox's owner may sweep after 36 hours
                let _ = fs::remove_file(&stored.tmp);
            }
        }
    }
}

/// A name that no other delivery has, in the form of <https://cr.yp.to/proto/maildir.html>.
fn unique(queue_id: &str, index: usize, host: &Host) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id: String = queue_id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let index = if index == 0 { String::new() } else { format!("_{index}") };
    format!(
        "{}.M{:06}P{}Q{id}C{}{index}.{}",
        now.as_secs(),
        now.subsec_micros(),
        host.process,
        host.names.fetch_add(1, Ordering::Relaxed),
        host.name
    )
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_both(file: &mut File, head: &[u8], content: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(head), IoSlice::new(content)];
    let mut slices = slices.as_mut_slice();
    IoSlice::advance_slices(&mut slices, 0); // drops empty ones in front
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Renames, and never over another file where the file system can promise that (NFS, for one, cannot).
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(from, to),
        result => result.map_err(io::Error::from),
    }
}
