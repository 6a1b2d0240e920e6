//! The shards: one glommio executor a core, with its own listening sockets, connections, counters and log buffer.
//!
//! Promises: nothing on a shard blocks or takes a lock; what takes time elsewhere (files, DNS) is asked of other threads
//! and comes back through the shard's [`Inbox`]. A shard ends when it was told to drain and its last connection is gone.
//! glommio appears in this folder only.

mod clock;
mod connection;
mod delivery;
mod disk;
mod ids;
mod listener;
mod onward;
mod operator;
mod outbound;
mod parcel;
mod proxy;
mod readiness;
mod record;
mod reporting;
mod resolve;
pub mod route;
mod slots;
mod socket;
mod spooling;
mod stream;
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};

pub use listener::{BoundSocket, bind};

use crate::log::{Level, LineBuffer};
use crate::lookup::{self, Answer, Asker, Heartbeats, Inbox, Ticket};
use crate::maildir::{Done, Pool};
use crate::metrics::{Metrics, ShardMetrics};
use crate::policy::binding::Binding;
use crate::policy::tarpit::Owed;
use crate::policy::{Policy, rate, tally};
use crate::relay;
use crate::spool::directory::Directory;
use crate::spool::{self, Adopted, QueueId, Spool};
use readiness::Readiness;
use route::Route;
use slots::{Alarm, Slots};

/// Octets of the buffer that all connections of a shard read into.
const SCRATCH: usize = 64 << 10;
/// Room in front of it for what a connection carried over: at most as much again.
const SCRATCH_WITH_CARRY: usize = 2 * SCRATCH;
/// The tick of the timer wheel, the log and the heartbeat.
const TICK: Duration = Duration::from_millis(100);
/// How long a unit of work may run before timers and notices are heard (the ring is only looked at when this expires or
/// nothing is left to do).
///
/// Not shorter: glommio 0.9 arms this timer before it runs its tasks and goes to sleep without running them when the timer
/// has expired by then (`run_task_queues` says that nothing ran, `wait` throws the expiry away). A thread that loses its
/// core for so long at that point sleeps with work to do until something else wakes it: the next tick, or the control
/// thread, which misses its heartbeat. With 2 ms one start in some 500 on a busy host hung for ever.
const PREEMPT: Duration = Duration::from_millis(20);
/// Entries of the ring's submission queue.
const RING_DEPTH: usize = 256;
/// Octets for registered buffers: the floor, for no file is read or written through the ring here.
const IO_MEMORY: usize = 64 << 10;

/// What one configuration says to a shard.
#[derive(Debug)]
pub struct Settings {
    /// This host's name.
    pub hostname: Box<str>,
    /// Who may do what.
    pub policy: Policy,
    /// Where each route of `policy.routing` leads.
    pub routes: Vec<Arc<Route>>,
    /// How long and how often delivery is tried.
    pub queue: relay::Terms,
    /// What TLS begins with, where there is TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Octets of content that one shard may hold before messages go to the file workers in smaller pieces.
    pub message_memory: usize,
}

impl Settings {
    fn binding(&self, name: &str) -> Option<&Arc<Binding>> {
        self.policy.bindings.iter().find(|b| &*b.name == name)
    }
}

/// Settings as a shard shares them among its connections: counting holders costs no other shard anything.
type Current = Rc<Arc<Settings>>;

/// What other threads tell a shard.
#[derive(Debug)]
pub enum Notice {
    /// From the control thread, to the session that asked.
    Answer(Ticket, Answer),
    /// From the file workers.
    Done(crate::maildir::Ticket, Done),
    /// A new configuration, the sockets that it adds, and the names and addresses that stay.
    Reload {
        /// For sessions from now on.
        settings: Arc<Settings>,
        /// To accept from.
        sockets: Vec<BoundSocket>,
        /// Every other listener ends.
        keep: Arc<[(Arc<str>, std::net::SocketAddr)]>,
    },
    /// An earlier run's spool, which this shard goes on with.
    Adopt(Box<(Directory, Adopted)>),
    /// Messages that were found in it.
    TakeUp {
        /// Some of them.
        slice: spool::Slice,
        /// Hears when they are taken up.
        taken: std::sync::mpsc::Sender<()>,
    },
    /// From an operator.
    Operator(lookup::operator::Request),
    /// Idle sessions end, newcomers are refused, transactions may finish.
    Drain,
    /// Every session ends.
    Stop,
}

/// All that a shard is made of; moves into its thread.
pub struct Seed {
    /// Its number, from 0.
    pub index: usize,
    /// The core that it runs on.
    pub cpu: usize,
    /// The configuration to start with.
    pub settings: Arc<Settings>,
    /// Its sockets.
    pub sockets: Vec<BoundSocket>,
    /// Its column of the connection counts.
    pub column: tally::Column,
    /// Its column of the message rates.
    pub rates: rate::RateColumn,
    /// Which clients the tarpit waits for.
    pub owed: Arc<Owed>,
    /// The file workers.
    pub pool: Pool,
    /// Questions to the control thread.
    pub asker: Asker,
    /// What others tell it.
    pub inbox: Arc<Inbox<Notice>>,
    /// Its log.
    pub lines: LineBuffer,
    /// All metrics; it writes its own column.
    pub metrics: Arc<Metrics>,
    /// Where it shows that it is alive.
    pub heartbeats: Arc<Heartbeats>,
    /// Where its spool lives; locked.
    pub directory: Directory,
    /// The moment that all shards count seconds from.
    pub epoch: Instant,
}

/// Everything on one core. Shared by its tasks.
struct Shard {
    settings: RefCell<Current>,
    column: Rc<tally::Column>,
    rates: rate::RateColumn,
    owed: Arc<Owed>,
    pool: Pool,
    asker: Asker,
    file_replies: Arc<dyn Fn(crate::maildir::Ticket, Done) + Send + Sync>,
    slots: Rc<Slots>,
    listeners: RefCell<Vec<Rc<listener::Listener>>>,
    scratch: RefCell<Box<[u8]>>,
    /// What TLS connections receive before it is opened, and send together.
    sealed: RefCell<Box<[u8]>>,
    readiness: Rc<Readiness>,
    buffers: RefCell<Vec<Vec<u8>>>,
    held: Cell<usize>,
    lines: RefCell<LineBuffer>,
    metrics: ShardMetrics,
    ids: RefCell<ids::Ids>,
    dates: RefCell<clock::Date>,
    draining: Cell<bool>,
    waiting_refusals: Cell<usize>,
    onward: onward::Onward,
    hops: outbound::Hops,
    names: resolve::Names,
    spool: RefCell<Spool>,
    spooling: spooling::Spooling,
    /// Reports that are being written.
    reports: RefCell<HashMap<QueueId, reporting::Draft>>,
    /// Messages whose content goes to the spool as it comes, and who waits for it.
    arriving: RefCell<HashMap<QueueId, Ticket>>,
    wall: Cell<clock::Wall>,
    complained: Cell<u64>,
    epoch: Instant,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("live", &self.slots.live())
            .finish_non_exhaustive()
    }
}

/// Starts a shard on a thread of its own. The result of its start arrives by `started`, before it accepts anybody.
///
/// # Errors
///
/// Where the thread could not be made.
pub fn start(seed: Seed, started: std::sync::mpsc::Sender<Result<(), String>>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("shard-{}", seed.index))
        .spawn(move || match executor(seed.cpu) {
            Ok(executor) => executor.run(run(seed, started)),
            Err(said) => drop(started.send(Err(said))),
        })
}

fn executor(cpu: usize) -> Result<LocalExecutor, String> {
    let make = || {
        LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .io_memory(IO_MEMORY)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT)
            // Otherwise every shard's helper thread would be pinned to the first core.
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make()
    };
    // glommio panics on some kernels where it should say no.
    match std::panic::catch_unwind(make) {
        Ok(made) => made.map_err(|error| error.to_string()),
        Err(payload) => {
            let said = payload.downcast_ref::<&str>().copied().unwrap_or("no text");
            Err(format!("io_uring is not available: {said}"))
        }
    }
}

/// Makes what a shard runs on and ends it again: whether this host lets it. To be called on a thread of its own.
///
/// # Errors
///
/// What the system said.
pub fn try_ring(cpu: usize) -> Result<(), String> {
    executor(cpu).map(|executor| executor.run(async {}))
}

async fn run(seed: Seed, started: std::sync::mpsc::Sender<Result<(), String>>) {
    let Seed {
        index,
        settings,
        sockets,
        column,
        rates,
        owed,
        pool,
        asker,
        inbox,
        lines,
        metrics,
        heartbeats,
        directory,
        epoch,
        ..
    } = seed;
    let replies = inbox.clone();
    let queue = settings.queue.clone();
    let wall = clock::Wall::set(clock::now());
    let moment = relay::Moment {
        now: clock::now(),
        unix: clock::unix_millis(wall.at(clock::now())) / 1000,
    };
    let Some(metrics) = metrics.shard(index) else {
        let _ = started.send(Err(format!("there are no metrics for shard {index}")));
        return;
    };
    let readiness = match Readiness::new() {
        Ok(readiness) => readiness,
        Err(error) => return drop(started.send(Err(error.to_string()))),
    };
    let shard = Rc::new(Shard {
        settings: RefCell::new(Rc::new(settings)),
        column: Rc::new(column),
        rates,
        owed,
        pool,
        asker,
        file_replies: Arc::new(move |ticket, done| replies.send(Notice::Done(ticket, done))),
        slots: Slots::new(clock::now()),
        listeners: RefCell::default(),
        scratch: RefCell::new(vec![0; SCRATCH_WITH_CARRY].into_boxed_slice()),
        sealed: RefCell::new(vec![0; tls::SEALED].into_boxed_slice()),
        readiness: readiness.clone(),
        buffers: RefCell::default(),
        held: Cell::new(0),
        lines: RefCell::new(lines),
        metrics,
        ids: RefCell::new(ids::Ids::new(index)),
        dates: RefCell::default(),
        draining: Cell::new(false),
        waiting_refusals: Cell::new(0),
        onward: onward::Onward::new(queue, moment),
        hops: outbound::Hops::default(),
        names: resolve::Names::default(),
        spool: RefCell::new(Spool::new(spool::Settings::default(), directory.salt())),
        spooling: spooling::Spooling::new(disk::Disk::new(directory)),
        reports: RefCell::default(),
        arriving: RefCell::default(),
        wall: Cell::new(wall),
        complained: Cell::new(0),
        epoch,
    });
    glommio::spawn_local(async move { readiness.run().await }).detach();
    let reader = shard.clone();
    glommio::spawn_local(async move { reader.read_notices(&inbox).await }).detach();
    // The first sleep of an executor registers a memory barrier, which takes up to 80 ms: before clients come. The inbox
    // is read by then and the heart has beaten once: should the kernel lose this first timer, the control thread misses the
    // next beat and nudges the shard as it does later.
    heartbeats.beat(index, clock::now());
    Timer::new(Duration::from_millis(1)).await;
    for socket in sockets {
        if let Err(error) = shard.listen(socket) {
            let _ = started.send(Err(error.to_string()));
            return;
        }
    }
    let _ = started.send(Ok(()));
    drop(started);
    shard.live(&heartbeats, index).await;
}

impl Shard {
    /// From the first beat to the end.
    async fn live(self: &Rc<Self>, heartbeats: &Heartbeats, index: usize) {
        while !self.is_finished() {
            let now = clock::now();
            heartbeats.beat(index, now);
            self.tick(now);
            Timer::new(TICK).await;
        }
        for listener in self.listeners.borrow().iter() {
            listener.shut();
        }
        self.lines.borrow_mut().flush();
    }

    /// What is due now and is no task of its own.
    fn tick(self: &Rc<Self>, now: Instant) {
        self.wall.set(clock::Wall::set(now));
        self.slots.turn(now);
        self.turn_queue(now);
        self.spool.borrow_mut().idle();
        self.drive_spool();
        self.lines.borrow_mut().flush();
    }

    /// Drained: the last connection is gone, what was acknowledged is with its hop or durable, and the disk is still.
    fn is_finished(&self) -> bool {
        self.draining.get()
            && self.slots.live() == 0
            && self.waiting_refusals.get() == 0
            && self.onward.queue.borrow().is_drained()
            && self.spool.borrow().is_quiet()
    }

    /// Begins to end: what clients wait for is made durable, nothing new is tried.
    fn drain(self: &Rc<Self>, alarm: Alarm) {
        self.draining.set(true);
        let at = self.moment(clock::now());
        self.onward.queue.borrow_mut().drain(at);
        self.act();
        self.recall_jobs();
        self.slots.raise(alarm);
    }

    /// The one task that other threads wake, for as long as the shard lives.
    async fn read_notices(self: &Rc<Self>, inbox: &Inbox<Notice>) {
        loop {
            let notice = poll_fn(|cx| inbox.poll_next(cx)).await;
            match notice {
                Notice::Answer(ticket, answer) => {
                    if let Some(slot) = self.slots.find(ticket) {
                        match answer {
                            Answer::BlockList(listing) => slot.listed(listing),
                            other => slot.answered(other),
                        }
                    }
                }
                Notice::Done(ticket, done) => self.file_work_done(delivery::unpack(ticket), done),
                Notice::Reload {
                    settings,
                    sockets,
                    keep,
                } => self.reload(settings, sockets, &keep),
                Notice::Adopt(found) => {
                    let (directory, adopted) = *found;
                    let id = self.spool.borrow_mut().adopt(adopted);
                    self.spooling.disk.adopt(id, directory);
                    self.spooling.used.set(true);
                    self.drive_spool();
                }
                Notice::TakeUp { slice, taken } => {
                    self.take_up(slice);
                    let _ = taken.send(());
                    // There may be a million: others take their turns in between.
                    futures_lite::future::yield_now().await;
                }
                Notice::Operator(request) => self.answer_operator(request),
                Notice::Drain => self.drain(Alarm::Drain),
                Notice::Stop => self.drain(Alarm::Stop),
            }
        }
    }

    /// An answer for a session that has gone leaves nothing behind: an unfinished draft is given up.
    fn file_work_done(&self, ticket: Ticket, done: Done) {
        match self.slots.find(ticket) {
            Some(slot) => slot.done(done),
            None => {
                if let Done::Appended(Ok(draft), _) = done {
                    self.abandon(draft);
                }
            }
        }
    }

    fn reload(
        self: &Rc<Self>,
        settings: Arc<Settings>,
        sockets: Vec<BoundSocket>,
        keep: &[(Arc<str>, std::net::SocketAddr)],
    ) {
        self.onward.queue.borrow_mut().set_terms(settings.queue.clone());
        *self.settings.borrow_mut() = Rc::new(settings);
        for listener in self.listeners.borrow().iter() {
            match keep.iter().find(|(_, address)| *address == listener.address) {
                Some((binding, _)) => *listener.binding.borrow_mut() = binding.clone(),
                None => listener.shut(),
            }
        }
        for socket in sockets {
            let address = socket.address;
            // The socket is there; only watching it can fail, for want of memory.
            if let Err(error) = self.listen(socket) {
                let mut lines = self.lines.borrow_mut();
                let line = lines.line(self.wall(clock::now()), Level::Error, "cannot listen on a new address");
                line.display("address", address).display("error", error).done();
            }
        }
    }

    fn settings(&self) -> Current {
        self.settings.borrow().clone()
    }

    fn next_id(&self, now: Instant) -> QueueId {
        self.ids.borrow_mut().next(self.unix_millis(now))
    }

    fn date(&self, now: Instant) -> String {
        self.dates.borrow_mut().at(self.unix_millis(now)).to_string()
    }

    /// The host's clock at `now`, without asking it each time.
    fn wall(&self, now: Instant) -> std::time::SystemTime {
        self.wall.get().at(now)
    }

    fn unix_millis(&self, now: Instant) -> u64 {
        clock::unix_millis(self.wall(now))
    }

    /// Seconds that all shards count alike.
    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_secs() as u32
    }
}
