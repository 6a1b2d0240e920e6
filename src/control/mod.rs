//! The control thread: whatever needs the wider library world and no speed: DNS, the admin pages, files, signals.
//!
//! Promises: one thread of its own with a tokio runtime on it; work that could block goes to a few helper threads. What
//! goes wrong here degrades the service (a block list goes unasked, a page stays empty), it never stops the shards: a
//! question that cannot be answered in time is answered "clear", and a panic ends one task.

use std::future::poll_fn;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::log::{Level, Log};
use crate::lookup::{Answer, Heartbeats, Listing, Question, Questions};
use crate::metrics::{Counter, Gauge, Metrics};

pub mod dns;
pub mod files;
pub mod http;
pub mod operator;
mod passwords;
pub mod resolve;
pub mod sampler;
pub mod signals;
pub mod standin;
pub mod status;

use dns::BlockLists;
use passwords::Passwords;
use resolve::Names;
use sampler::Sample;
use signals::Signal;
use status::{History, StatusSource};

/// Questions worked on at once. More wait on their desk, and when that is full, sessions do without.
const QUESTIONS_AT_ONCE: usize = 512;
/// How often resources are sampled and rates are taken.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How often watched files are looked at; a change must be seen within 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often heartbeats are looked at, and the control thread shows its own.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Threads for what may block: statvfs and stat on a file system that hangs.
const HELPERS: usize = 4;

/// What may change while the process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which block lists to ask, and whom.
    pub block_lists: dns::Settings,
    /// How names of next hops are looked up.
    pub names: resolve::Settings,
    /// Files whose change is to be told, as [`files::look`] saw them before they were read.
    pub watched: Vec<(PathBuf, files::State)>,
    /// Places that need free space.
    pub disks: Vec<PathBuf>,
}

/// What the control thread tells the rest of the process. Called on the control thread: must not block.
pub struct Callbacks {
    /// A signal has come.
    pub on_signal: Box<dyn FnMut(Signal) + Send>,
    /// Free disk and memory, every second.
    pub on_sample: Box<dyn FnMut(Sample) + Send>,
    /// A watched file has changed, appeared or gone.
    pub on_change: Box<dyn FnMut(&std::path::Path) + Send>,
    /// The beat of this shard is late: wake it.
    pub on_late: Box<dyn FnMut(usize) + Send>,
}

/// Duplicates of the listening sockets of each shard.
pub type Listeners = Vec<Vec<Twin>>;

/// A second descriptor of a listening socket of a shard.
#[derive(Clone, Debug)]
pub struct Twin {
    /// Its flags are those of the shard's own.
    pub socket: Arc<TcpListener>,
    /// TLS begins with the connection, so nothing can be said in the clear.
    pub implicit_tls: bool,
}

/// All that the control thread works with.
pub struct Setup {
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Where it is told.
    pub log: Log,
    /// The answering end of the desk.
    pub questions: Questions,
    /// To begin with; [`Control::change`] replaces them.
    pub settings: Settings,
    /// The socket of the admin pages, from [`http::bind`].
    pub admin: Option<TcpListener>,
    /// What the admin pages show.
    pub status: StatusSource,
    /// How an operator's commands reach the shards.
    pub operator: Option<operator::Operator>,
    /// Signs of life of the shards.
    pub heartbeats: Arc<Heartbeats>,
    /// A duplicate of every listening socket of every shard, non-blocking like the originals; to begin with,
    /// [`Control::change_listeners`] replaces them.
    pub listeners: Listeners,
    /// How long a shard may be silent before others answer for it.
    pub silence: Duration,
    /// Whom to tell.
    pub callbacks: Callbacks,
}

/// The running control thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Control {
    settings: watch::Sender<Settings>,
    listeners: watch::Sender<Listeners>,
    stop: Arc<Notify>,
    beat: Arc<AtomicU64>,
    epoch: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread. From here on SIGTERM, SIGINT and SIGHUP do nothing but call `on_signal`.
    pub fn start(mut setup: Setup) -> std::io::Result<Control> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(HELPERS)
            .thread_name("postern-helper")
            .build()?;
        // Here and not on the thread, so that no signal ends the process between now and its first turn.
        let signals = {
            let _context = runtime.enter();
            signals::Signals::catch()?
        };
        let (settings, changes) = watch::channel(setup.settings.clone());
        let (listeners, open) = watch::channel(std::mem::take(&mut setup.listeners));
        let stop = Arc::new(Notify::new());
        let beat = Arc::new(AtomicU64::new(0));
        let epoch = Instant::now();
        let work = run(setup, changes, open, signals, beat.clone(), epoch);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("postern-control".into())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        () = work => {}
                        () = stopped.notified() => {}
                    }
                });
                // A helper that hangs in a dead file system must not keep the process from ending.
                runtime.shutdown_background();
            })?;
        Ok(Control {
            settings,
            listeners,
            stop,
            beat,
            epoch,
            thread: Some(thread),
        })
    }

    /// Replaces the settings, after a reload.
    pub fn change(&self, settings: Settings) {
        self.settings.send_if_modified(|old| {
            let changed = *old != settings;
            *old = settings;
            changed
        });
    }

    /// Replaces the listening sockets, after a reload; those that are not needed any more are closed.
    pub fn change_listeners(&self, listeners: Listeners) {
        self.listeners.send_replace(listeners);
    }

    /// How long the control thread has been silent. It shows itself four times a second.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch + Duration::from_millis(self.beat.load(Relaxed)))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(
    setup: Setup,
    changes: watch::Receiver<Settings>,
    open: watch::Receiver<Listeners>,
    signals: signals::Signals,
    beat: Arc<AtomicU64>,
    epoch: Instant,
) {
    let Setup {
        metrics,
        log,
        questions,
        admin,
        status,
        operator,
        heartbeats,
        silence,
        callbacks,
        ..
    } = setup;
    let Callbacks {
        on_signal,
        on_sample,
        on_change,
        on_late,
    } = callbacks;
    let lists = Arc::new(BlockLists::new(&changes.borrow().block_lists, &metrics, &log));
    let (newest, current) = watch::channel(lists);
    let history = Arc::new(History::default());

    let mut parts = JoinSet::new();
    parts.spawn(signals.tell(on_signal));
    parts.spawn(keep_block_lists(changes.clone(), newest, metrics.clone(), log.clone()));
    parts.spawn(answer_questions(questions, current, changes.clone(), log.clone()));
    parts.spawn(watch_files(changes.clone(), on_change));
    parts.spawn(sample(
        changes,
        on_sample,
        metrics.clone(),
        log.clone(),
        history.clone(),
        epoch,
    ));
    parts.spawn(standin::supervise(
        heartbeats,
        open,
        silence,
        on_late,
        metrics.clone(),
        log.clone(),
    ));
    if let Some(operator) = operator {
        parts.spawn(operator::serve(operator, log.clone()));
    }
    if let Some(listener) = admin {
        parts.spawn(http::serve(
            listener,
            http::Admin {
                metrics,
                status,
                history,
                epoch,
            },
            log.clone(),
        ));
    }
    let mut ticks = ticks(BEAT_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                beat.store(u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
            }
            // None of them ends by itself. The others go on: a page that is gone is no reason to stop asking.
            Some(Err(e)) = parts.join_next() => {
                log.event(Level::Error, "a part of the control thread has ended", &[("error", &e)]);
            }
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Tests the lists from time to time, and builds new ones when the settings change.
async fn keep_block_lists(
    mut changes: watch::Receiver<Settings>,
    newest: watch::Sender<Arc<BlockLists>>,
    metrics: Arc<Metrics>,
    log: Log,
) {
    let mut wanted = changes.borrow_and_update().block_lists.clone();
    loop {
        let lists = newest.borrow().clone();
        tokio::select! {
            () = lists.keep_testing() => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let new = changes.borrow_and_update().block_lists.clone();
                if new != wanted {
                    newest.send_replace(Arc::new(BlockLists::new(&new, &metrics, &log)));
                    wanted = new;
                }
            }
        }
    }
}

async fn answer_questions(
    mut questions: Questions,
    lists: watch::Receiver<Arc<BlockLists>>,
    mut changes: watch::Receiver<Settings>,
    log: Log,
) {
    let places = Arc::new(Semaphore::new(QUESTIONS_AT_ONCE));
    let passwords = Arc::new(Passwords::default());
    let mut wanted = changes.borrow_and_update().names.clone();
    let mut names = Arc::new(Names::new(&wanted, &log));
    while let Ok(place) = places.clone().acquire_owned().await {
        let asked = poll_fn(|cx| questions.poll_next(cx)).await;
        if changes.has_changed().unwrap_or(false) {
            let new = changes.borrow_and_update().names.clone();
            if new != wanted {
                names = Arc::new(Names::new(&new, &log));
                wanted = new;
            }
        }
        let (lists, names, passwords) = (lists.borrow().clone(), names.clone(), passwords.clone());
        tokio::spawn(async move {
            let answer = match asked.question() {
                Question::BlockList { client } => Answer::BlockList(match lists.ask(*client).await {
                    Some(zone) => Listing::Listed { zone },
                    None => Listing::Clear,
                }),
                Question::Password { hash, password } => {
                    Answer::Password(passwords.compare(hash.clone(), password.clone()).await)
                }
                Question::SaltedPassword {
                    password,
                    salt,
                    iterations,
                } => Answer::SaltedPassword(passwords.salted(password.clone(), salt.clone(), *iterations).await),
                Question::Addresses { host } => Answer::Addresses(names.addresses(host).await),
                Question::Exchangers { domain } => Answer::Exchangers(names.exchangers(domain).await),
            };
            asked.answer(answer);
            drop(place);
        });
    }
}

async fn watch_files(changes: watch::Receiver<Settings>, mut on_change: Box<dyn FnMut(&std::path::Path) + Send>) {
    let mut seen = files::Seen::default();
    let mut ticks = ticks(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let watched = changes.borrow().watched.clone();
        let paths = watched.iter().map(|(path, _)| path.clone()).collect();
        // A look that hangs holds up the next look, nothing else.
        if let Ok(states) = tokio::task::spawn_blocking(move || files::look(paths)).await {
            seen.changes(&watched, states).iter().for_each(|path| on_change(path));
        }
    }
}

async fn sample(
    changes: watch::Receiver<Settings>,
    mut on_sample: Box<dyn FnMut(Sample) + Send>,
    metrics: Arc<Metrics>,
    log: Log,
    history: Arc<History>,
    epoch: Instant,
) {
    let mut ticks = ticks(SAMPLE_EVERY);
    loop {
        ticks.tick().await;
        history.take(metrics.total(Counter::MessagesReceived));
        metrics.set(Gauge::Uptime, epoch.elapsed().as_secs());
        metrics.carry(Counter::LogLinesDropped, log.dropped());
        let paths = changes.borrow().disks.clone();
        match tokio::task::spawn_blocking(move || sampler::sample_once(&paths)).await {
            Ok(sample) => {
                metrics.set(Gauge::FreeDisk, sample.free_disk);
                metrics.set(Gauge::FreeMemory, sample.free_memory);
                on_sample(sample);
            }
            Err(e) => log.event(Level::Error, "resources could not be sampled", &[("error", &e)]),
        }
    }
}
