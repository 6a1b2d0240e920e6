//! The worker threads and their queue.
//!
//! Promises: every `Append` and `Commit` is answered exactly once, also when the work panics or the pool is shut down.
//! [`Pool`] lives wherever it is cloned to; its methods do no I/O, except [`Pool::start`], and [`Pool::shutdown`] waits.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use super::{
    Done, Draft, Failure, FailureKind, ReplyTo, Request,
    commit::{Commit, deliver},
    directory::Directories,
    draft::{Desk, Host},
    guarded,
    journal::Journal,
};

/// Threads that serve well: on two cores and ext4, 8 deliver no more than 4 (`benches/maildir.rs`).
pub const THREADS: usize = 4;
/// Messages that share one sync of a directory: of the two syncs that a message in a busy Maildir waits for, all but the
/// first of a batch are spared the second.
const BATCH_MOST: usize = 32;
/// Files that a batch has open at once, unless its first message alone has more.
const BATCH_FILES_MOST: usize = 64;
/// What a worker keeps of its buffer between requests, in octets.
const BUFFER_KEPT: usize = 1024 * 1024;

/// See the module. A clone is another handle of the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    host: Host,
    directories: Directories,
    journal: Journal,
}

#[derive(Debug, Default)]
struct Queue {
    commits: VecDeque<(Commit, usize, ReplyTo)>,
    others: VecDeque<(Other, ReplyTo)>,
    /// Whose turn it is when both wait: neither may starve the other.
    commits_next: bool,
    closed: bool,
}

#[derive(Debug)]
enum Other {
    Append(Draft, Vec<u8>),
    Abandon(Draft),
}

enum Work {
    Batch(Vec<(Commit, usize, ReplyTo)>),
    Other(Other, ReplyTo),
}

impl Pool {
    /// Starts the workers. Intents are kept below `data_dir`, which is made if need be.
    pub fn start(threads: usize, data_dir: &Path) -> io::Result<Pool> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            host: Host::this(),
            directories: Directories::default(),
            journal: Journal::open(data_dir)?,
        });
        let pool = Pool {
            inner: Arc::new(Inner {
                shared,
                threads: Mutex::default(),
            }),
        };
        for index in 0..threads.max(1) {
            let shared = Arc::clone(&pool.inner.shared);
            let thread = thread::Builder::new()
                .name(format!("maildir-{index}"))
                .spawn(move || shared.run())?;
            pool.threads().push(thread);
        }
        Ok(pool)
    }

    /// Queues a request; its answer comes by `reply`, from another thread. After [`Pool::shutdown`] the answer is a
    /// failure, and comes at once from this one.
    pub fn submit(&self, request: Request, reply: ReplyTo) {
        let mut queue = self.inner.shared.queue();
        if queue.closed {
            drop(queue);
            return refuse(request, &reply);
        }
        match request {
            Request::Commit(draft, content) => {
                let files = draft.plan().files.len();
                queue.commits.push_back((Commit::new(draft, content), files, reply));
            }
            Request::Append(draft, piece) => queue.others.push_back((Other::Append(draft, piece), reply)),
            Request::Abandon(draft) => queue.others.push_back((Other::Abandon(draft), reply)),
        }
        drop(queue);
        self.inner.shared.work.notify_one();
    }

    /// Takes no more, finishes what is queued, and waits for the workers to end. Not to be called from a reply.
    pub fn shutdown(&self) {
        self.inner.shared.close();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            // a worker's panics are caught; one that got through has nothing left to tell
            let _ = thread.join();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    /// The workers finish what is queued and end; nobody waits for them.
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// The life of a worker.
    fn run(&self) {
        let mut desk = Desk {
            host: &self.host,
            directories: &self.directories,
            buffer: Vec::new(),
        };
        while let Some(work) = self.next() {
            match work {
                Work::Batch(batch) => self.deliver(batch, &mut desk),
                Work::Other(Other::Append(draft, piece), reply) => append(draft, piece, &mut desk, &reply),
                Work::Other(Other::Abandon(draft), _) => drop(draft),
            }
            desk.buffer.clear();
            desk.buffer.shrink_to(BUFFER_KEPT);
        }
    }

    /// Waits for work; none when the pool is closed and all is done.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue();
        loop {
            if let Some(work) = queue.take() {
                return Some(work);
            }
            if queue.closed {
                return None;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn deliver(&self, batch: Vec<(Commit, usize, ReplyTo)>, desk: &mut Desk<'_>) {
        let (mut commits, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|(commit, _, reply)| (commit, reply)).unzip();
        deliver(&mut commits, desk, &self.journal);
        for (commit, reply) in commits.into_iter().zip(replies) {
            let (result, buffer) = commit.finish();
            answer(&reply, Done::Committed(result, buffer));
        }
    }

    fn close(&self) {
        self.queue().closed = true;
        self.work.notify_all();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // nothing that may panic happens under the lock
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take(&mut self) -> Option<Work> {
        let commits = !self.commits.is_empty() && (self.commits_next || self.others.is_empty());
        self.commits_next = !commits;
        if !commits {
            return self.others.pop_front().map(|(other, reply)| Work::Other(other, reply));
        }
        let mut files = 0;
        let mut batch = Vec::new();
        while let Some((_, more, _)) = self.commits.front() {
            files += more;
            if batch.len() == BATCH_MOST || (files > BATCH_FILES_MOST && !batch.is_empty()) {
                break;
            }
            batch.extend(self.commits.pop_front());
        }
        Some(Work::Batch(batch))
    }
}

fn append(draft: Draft, mut piece: Vec<u8>, desk: &mut Desk<'_>, reply: &ReplyTo) {
    let result = guarded(|| {
        let mut draft = draft;
        draft.append(&piece, desk).map(|()| draft)
    });
    piece.clear();
    answer(reply, Done::Appended(result.map_err(io::Error::from), piece));
}

fn refuse(request: Request, reply: &ReplyTo) {
    let failure = Failure {
        kind: FailureKind::Other,
        text: "the Maildir workers have been shut down".into(),
    };
    match request {
        Request::Append(_, mut piece) => {
            piece.clear();
            answer(reply, Done::Appended(Err(failure.into()), piece));
        }
        Request::Commit(_, mut content) => {
            content.clear();
            answer(reply, Done::Committed(Err(failure), content));
        }
        Request::Abandon(_) => {}
    }
}

/// A reply that panics is its asker's loss; the others of the batch get theirs.
fn answer(reply: &ReplyTo, done: Done) {
    let _ = catch_unwind(AssertUnwindSafe(|| (reply.callback)(reply.ticket, done)));
}
