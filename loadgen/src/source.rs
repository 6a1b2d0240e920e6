//! A run in time: warm-up, the window that is measured, and the draining of what is still under way; on one executor or
//! several, each on a thread and, if asked for, a core of its own.
//!
//! Promises: the run is bounded in time whatever the server does; what falls outside the window is in no figure but the
//! failures; every executor goes through the phases (`phases`) at the same times. The caller's thread reads the server's CPU time;
//! everything else lives on the executors.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use self::phases::{Share, keep};
use crate::connect::Dialer;
use crate::dialogue::Manner;
use crate::engine::Engine;
use crate::flags::{LoadFlags, Pipelining, Security};
use crate::identity::expect::Fates;
use crate::measure::{Counts, check_processes, cpu_of};
use crate::message::{Matter, Recipe, Wire, corpus, recipients};
use crate::news::News;
use crate::places;
use crate::plan::Plan;
use crate::progress::{Board, Goal, Show};
use crate::timeline::Timeline;
use crate::tls::Terms;

mod phases;

/// Memory that glommio registers for files, of which there are none here: the least that it takes.
const IO_MEMORY: usize = 64 << 10;
/// Requests that fit in a ring before they are handed to the kernel.
const RING_DEPTH: usize = 256;
/// How long an executor without news looks for some before it sleeps, which takes seven calls to the system.
const SPIN: Duration = Duration::from_micros(10);
/// How long an executor spins before it sleeps, if it is never to sleep.
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// What a run found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The window that was measured.
    pub counts: Counts,
    /// Failures in the whole run: warm-up, window and what came after.
    pub failures: u64,
    /// Length of the window.
    pub elapsed: Duration,
    /// CPU time of the generator's executors in the window.
    pub own_cpu: Duration,
    /// Part of it in which there was nothing to do: executors look for more before they sleep, and some never sleep.
    pub idle: Duration,
    /// Executors.
    pub executors: usize,
    /// CPU time of the server's processes in the window.
    pub server_cpu: Option<Duration>,
    /// The server does not offer the PIPELINING that was asked for.
    pub pipelining_denied: bool,
    /// The generator never slept: its CPU time is the time that passed, and holds that in which it had nothing to do.
    pub busy_poll: bool,
    /// Why the run ended before its time.
    pub stopped: Option<String>,
    /// First part of the identity of each message of this run.
    pub run: u32,
    /// The server, as it is named in the figures.
    pub target: String,
    /// When the run began, its window closed, and it ended.
    pub began: Instant,
    pub closed: Instant,
    pub ended: Instant,
    /// The whole run.
    pub timeline: Timeline,
}

impl Findings {
    /// Nothing yet, of a run that began `start`.
    pub fn none(start: Instant, target: SocketAddr) -> Self {
        Self {
            counts: Counts::new(),
            failures: 0,
            elapsed: Duration::ZERO,
            own_cpu: Duration::ZERO,
            idle: Duration::ZERO,
            executors: 0,
            server_cpu: None,
            pipelining_denied: false,
            busy_poll: false,
            stopped: None,
            run: 0,
            target: target.to_string(),
            began: start,
            closed: start,
            ended: start,
            timeline: Timeline::new(start),
        }
    }

    /// Puts in what a later run of the same load against the same server found; the course of time is left out.
    pub fn follow(&mut self, later: &Self) {
        self.counts.add(&later.counts);
        self.failures += later.failures;
        self.elapsed += later.elapsed;
        self.own_cpu += later.own_cpu;
        self.idle += later.idle;
        self.executors = self.executors.max(later.executors);
        self.server_cpu = self.server_cpu.zip(later.server_cpu).map(|(sum, more)| sum + more);
        self.pipelining_denied |= later.pipelining_denied;
    }

    /// Puts in what another load of the same run found.
    pub fn absorb(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.failures += other.failures;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.own_cpu += other.own_cpu;
        self.idle += other.idle;
        self.executors += other.executors;
        self.pipelining_denied |= other.pipelining_denied;
        self.closed = self.closed.max(other.closed);
        self.ended = self.ended.max(other.ended);
        self.timeline.absorb(other.timeline.clone());
    }
}

/// Runs the load against `target` and measures it.
pub fn run(flags: &LoadFlags, target: SocketAddr, pids: &[u32]) -> Result<Findings, String> {
    check_processes(pids)?;
    let ready = Ready::new(flags, target)?;
    let board = Board::new(ready.executors());
    let goal = match flags.messages {
        Some(messages) => Goal::Messages(messages),
        None => Goal::Time(flags.warm_up + flags.duration),
    };
    let show = (!flags.silent).then(|| Show::start(Arc::clone(&board), goal));
    let meeting = Meeting::of(ready.executors() + 1);
    let findings = ready.run(&meeting, &board, 0, pids);
    show.into_iter().for_each(Show::stop);
    findings
}

/// Where executors, and whoever waits for them, come together before the run begins for all at once.
#[derive(Debug)]
pub struct Meeting {
    begin: Barrier,
    start: OnceLock<Instant>,
}

impl Meeting {
    /// Of so many threads.
    pub fn of(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            begin: Barrier::new(threads),
            start: OnceLock::new(),
        })
    }

    /// Waits for the others; when the run began.
    pub fn wait(&self) -> Instant {
        self.begin.wait();
        *self.start.get_or_init(Instant::now)
    }

    /// When the run began, if it has.
    pub fn began(&self) -> Option<Instant> {
        self.start.get().copied()
    }
}

/// A load with all that can be made before it starts.
#[derive(Debug)]
pub struct Ready {
    flags: LoadFlags,
    target: SocketAddr,
    run: u32,
    cores: Vec<Option<usize>>,
    dialers: Vec<Dialer>,
    wire: Wire,
    terms: Option<Terms>,
}

impl Ready {
    /// Says what is wrong with the flags before anything is started.
    pub fn new(flags: &LoadFlags, target: SocketAddr) -> Result<Self, String> {
        let run = run_id();
        let cores = flags.placements()?;
        let places = 0..cores.len();
        Ok(Self {
            dialers: places
                .map(|place| dialer(flags, target, run, place))
                .collect::<Result<_, _>>()?,
            wire: wire(flags, run)?,
            terms: flags.protocol.terms()?,
            flags: flags.clone(),
            target,
            run,
            cores,
        })
    }

    /// Executors that it takes; at the meeting there are as many, and the caller of `run`.
    pub fn executors(&self) -> usize {
        self.cores.len()
    }

    /// Runs it to its end; its executors have the places from `first` on of the board.
    pub fn run(
        self,
        meeting: &Arc<Meeting>,
        board: &Arc<Board>,
        first: usize,
        pids: &[u32],
    ) -> Result<Findings, String> {
        let executors = self.executors();
        let flags = &self.flags;
        let together = Arc::new(Together {
            terms: self.terms,
            flags: flags.clone(),
            executors,
            meeting: Arc::clone(meeting),
            board: Arc::clone(board),
            first,
        });
        let (closed, news) = mpsc::channel();
        let mut threads = Vec::new();
        for ((place, core), dialer) in self.cores.into_iter().enumerate().zip(self.dialers) {
            let (shared, wire, closed) = (Arc::clone(&together), self.wire.clone(), closed.clone());
            let placement = core.map_or(Placement::Unbound, Placement::Fixed);
            let mut builder = LocalExecutorBuilder::new(placement)
                .name("loadgen")
                .io_memory(IO_MEMORY)
                .ring_depth(RING_DEPTH)
                .blocking_thread_pool_placement(PoolPlacement::Unbound(1));
            if flags.busy_poll {
                builder = builder.spin_before_park(FOREVER);
            }
            let thread = builder
                .spawn(move || async move { shared.share(place, dialer, wire, &closed).await })
                .map_err(|error| format!("an executor does not start: {error}"))?;
            threads.push(thread);
        }
        drop(closed);
        let start = meeting.wait();
        let server_cpu = watch_server(flags, pids, start, executors, &news);
        let mut findings = Findings {
            executors,
            server_cpu,
            busy_poll: flags.busy_poll,
            run: self.run,
            ..Findings::none(start, self.target)
        };
        let mut fates = Fates::default();
        for thread in threads {
            let share = thread
                .join()
                .map_err(|error| format!("an executor ended early: {error}"))??;
            let counts = share.into_findings(&mut findings, &mut fates);
            findings.counts.add(&counts);
        }
        findings.ended = Instant::now();
        if let Some(path) = &flags.expect {
            let to = recipients(&flags.to, flags.recipients);
            fates.expectation(self.run, &to).write(path)?;
        }
        Ok(findings)
    }
}

fn dialer(flags: &LoadFlags, target: SocketAddr, run: u32, place: usize) -> Result<Dialer, String> {
    // Executors walk through the ports far from each other.
    let seed = run.wrapping_add(7919 * place as u32);
    Ok(Dialer::new(
        target,
        &flags.sources_for(target)?,
        flags.socket_manner(),
        seed,
    ))
}

fn wire(flags: &LoadFlags, run: u32) -> Result<Wire, String> {
    Wire::new(&Recipe {
        name: flags.ehlo.clone(),
        from: flags.from.clone(),
        to: recipients(&flags.to, flags.recipients),
        matter: match &flags.corpus {
            Some(path) => Matter::Read(corpus::read(path)?),
            None => Matter::Generated(flags.size.clone()),
        },
        bdat: flags.bdat.then_some(flags.bdat_chunks),
        lmtp: flags.protocol.lmtp,
        smtputf8: flags.protocol.smtputf8,
        group: is_group(flags),
        run,
    })
}

/// BDAT puts a whole message into one write as it is.
fn is_group(flags: &LoadFlags) -> bool {
    flags.pipelining == Pipelining::Group && !flags.bdat
}

/// CPU time of the server between the opening of the window and its closing.
fn watch_server(
    flags: &LoadFlags,
    pids: &[u32],
    start: Instant,
    executors: usize,
    news: &mpsc::Receiver<()>,
) -> Option<Duration> {
    let mut before = cpu_of(pids);
    // Executors tell when they close their windows early; without a quota they close at a time that is known.
    let until = flags.messages.is_none().then(|| {
        std::thread::sleep((start + flags.warm_up).saturating_duration_since(Instant::now()));
        before = cpu_of(pids);
        start + flags.warm_up + flags.duration
    });
    for _ in 0..executors {
        let told = match until {
            Some(until) => news.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if told.is_err() {
            break;
        }
    }
    Some(cpu_of(pids)?.saturating_sub(before?))
}

/// What the executors of a run have in common.
struct Together {
    flags: LoadFlags,
    terms: Option<Terms>,
    executors: usize,
    meeting: Arc<Meeting>,
    board: Arc<Board>,
    /// Place of the first executor on the board.
    first: usize,
}

impl Together {
    async fn share(&self, place: usize, dialer: Dialer, wire: Wire, closed: &Sender<()>) -> Result<Share, String> {
        let flags = &self.flags;
        // The first sleep of an executor takes long; nothing is measured yet.
        Timer::new(Duration::from_millis(1)).await;
        let start = self.meeting.wait();
        let spin = if flags.busy_poll { Duration::ZERO } else { SPIN };
        let news = News::start(spin).map_err(|error| format!("no connection can be watched: {error}"))?;
        let manner = Manner {
            pipelining: flags.pipelining != Pipelining::Off,
            group: is_group(flags),
            bdat: flags.bdat,
            chunks: if flags.bdat { flags.bdat_chunks } else { 1 },
            start_tls: flags.protocol.tls == Security::Starttls,
            auth: flags.protocol.credentials(),
            lmtp: flags.protocol.lmtp,
            smtputf8: flags.protocol.smtputf8,
            recipients: flags.recipients,
            refusals_expected: flags.refusals_expected,
        };
        let plan = Plan::new(start, flags.rate, flags.ramp, flags.messages, place, self.executors);
        let share = |whole: usize| whole / self.executors + usize::from(place < whole % self.executors);
        let connections = share(flags.connections);
        let engine = Engine::new(dialer, wire, manner, flags.per_connection.0, connections, plan, start)
            .with_tls(self.terms.clone())
            .with_clients(flags.protocol.clients());
        let engine = Rc::new(RefCell::new(engine));
        // In a closed loop the ramp is one of connections.
        let ramp = if flags.rate.is_some() {
            Duration::ZERO
        } else {
            flags.ramp
        };
        places::start(
            &engine,
            &news,
            ramp / u32::try_from(connections.max(1)).unwrap_or(u32::MAX),
        );
        if flags.rate.is_some() {
            places::pace(&engine);
        }
        let post = |glance| self.board.post(self.first + place, glance);
        let share = keep(&engine, &news, flags, start, closed, &post).await;
        news.end();
        // One round of the executor, in which its tasks end.
        Timer::new(Duration::from_millis(1)).await;
        Ok(share)
    }
}

/// Tells runs apart: from the time of day and the process id.
fn run_id() -> u32 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_nanos() as u32) ^ std::process::id().rotate_left(20)
}
