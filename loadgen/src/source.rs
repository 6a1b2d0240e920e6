//! A run in time: warm-up, the window that is measured, and the draining of what is still under way; on one executor or
//! several, each on a thread and, if asked for, a core of its own.
//!
//! Promises: the run is bounded in time whatever the server does; what falls outside the window is in no figure but the
//! failures; every executor goes through the phases at the same times. The caller's thread reads the server's CPU time;
//! everything else lives on the executors.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use crate::connect::Dialer;
use crate::dialogue::Manner;
use crate::engine::Engine;
use crate::flags::{LoadFlags, Pipelining, Security};
use crate::identity::expect::Fates;
use crate::measure::{Counts, check_processes, cpu_of, own_cpu};
use crate::message::{Matter, Recipe, Wire, corpus, recipients};
use crate::places;
use crate::plan::Plan;
use crate::progress::{Board, Glance, Goal, Show};
use crate::timeline::Timeline;
use crate::tls::Terms;

/// How often the deadlines are looked at when nothing happens.
const TICK: Duration = Duration::from_millis(50);
/// Memory that glommio registers for files, of which there are none here: the least that it takes.
const IO_MEMORY: usize = 64 << 10;
/// Requests that fit in a ring before they are handed to the kernel.
const RING_DEPTH: usize = 256;
/// How long an executor spins before it sleeps, if it is never to sleep.
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// What a run found.
#[derive(Debug)]
pub struct Findings {
    /// The window that was measured.
    pub counts: Counts,
    /// Failures in the whole run: warm-up, window and what came after.
    pub failures: u64,
    /// Length of the window.
    pub elapsed: Duration,
    /// CPU time of the generator's executors in the window.
    pub own_cpu: Duration,
    /// Part of it in which there was nothing to do, of executors that never sleep.
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

/// Runs the load against `target` and measures it.
pub fn run(flags: &LoadFlags, target: SocketAddr, pids: &[u32]) -> Result<Findings, String> {
    check_processes(pids)?;
    let run = run_id();
    let cores = flags.placements()?;
    let executors = cores.len();
    // Made here first, so that what is wrong with it is said before anything is started.
    let dialers: Vec<Dialer> = (0..executors)
        .map(|place| dialer(flags, target, run, place))
        .collect::<Result<_, _>>()?;
    let wire = wire(flags, run)?;
    let together = Arc::new(Together {
        terms: flags.protocol.terms()?,
        flags: flags.clone(),
        executors,
        begin: Barrier::new(executors + 1),
        start: OnceLock::new(),
        board: Board::new(executors),
    });
    let (closed, news) = mpsc::channel();
    let mut threads = Vec::new();
    for ((place, core), dialer) in cores.into_iter().enumerate().zip(dialers) {
        let (shared, wire, closed) = (Arc::clone(&together), wire.clone(), closed.clone());
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
    together.begin.wait();
    let start = *together.start.get_or_init(Instant::now);
    let goal = match flags.messages {
        Some(messages) => Goal::Messages(messages),
        None => Goal::Time(flags.warm_up + flags.duration),
    };
    let show = (!flags.silent).then(|| Show::start(Arc::clone(&together.board), goal));
    let server_cpu = watch_server(flags, pids, start, executors, &news);
    let mut findings = Findings {
        counts: Counts::new(),
        failures: 0,
        elapsed: Duration::ZERO,
        own_cpu: Duration::ZERO,
        idle: Duration::ZERO,
        executors,
        server_cpu,
        pipelining_denied: false,
        busy_poll: flags.busy_poll,
        stopped: None,
        run,
        target: target.to_string(),
        began: start,
        closed: start,
        ended: Instant::now(),
        timeline: Timeline::new(start),
    };
    let mut fates = Fates::default();
    for thread in threads {
        let share = thread
            .join()
            .map_err(|error| format!("an executor ended early: {error}"))?;
        let counts = share.into_findings(&mut findings, &mut fates);
        findings.counts.add(&counts);
    }
    findings.ended = Instant::now();
    show.into_iter().for_each(Show::stop);
    if let Some(path) = &flags.expect {
        let to = recipients(&flags.to, flags.recipients);
        fates.expectation(run, &to).write(path)?;
    }
    Ok(findings)
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
    begin: Barrier,
    start: OnceLock<Instant>,
    board: Arc<Board>,
}

/// What one executor found.
#[derive(Debug)]
struct Share {
    counts: Counts,
    failures: u64,
    elapsed: Duration,
    own_cpu: Duration,
    idle: Duration,
    pipelining_denied: bool,
    stopped: Option<String>,
    /// Of the whole run.
    closed: Instant,
    fates: Fates,
    timeline: Timeline,
}

impl Share {
    fn into_findings(self, findings: &mut Findings, fates: &mut Fates) -> Counts {
        fates.absorb(&self.fates);
        findings.timeline.absorb(self.timeline);
        findings.closed = findings.closed.max(self.closed);
        findings.failures += self.failures;
        findings.elapsed = findings.elapsed.max(self.elapsed);
        findings.own_cpu += self.own_cpu;
        findings.idle += self.idle;
        findings.pipelining_denied |= self.pipelining_denied;
        if findings.stopped.is_none() {
            findings.stopped = self.stopped;
        }
        self.counts
    }
}

impl Together {
    async fn share(&self, place: usize, dialer: Dialer, wire: Wire, closed: &Sender<()>) -> Share {
        let flags = &self.flags;
        // The first sleep of an executor takes long; nothing is measured yet.
        Timer::new(Duration::from_millis(1)).await;
        self.begin.wait();
        let start = *self.start.get_or_init(Instant::now);
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
        places::start(&engine, ramp / u32::try_from(connections.max(1)).unwrap_or(u32::MAX));
        if flags.rate.is_some() {
            places::pace(&engine);
        }
        let post = |glance| self.board.post(place, glance);
        keep(&engine, flags, start, closed, &post).await
    }
}

/// Where the run is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Window,
    Drain,
}

async fn keep(
    engine: &RefCell<Engine>,
    flags: &LoadFlags,
    start: Instant,
    closed: &Sender<()>,
    post: &impl Fn(Glance),
) -> Share {
    let (mut phase, mut phase_ends) = match flags.messages {
        Some(_) => (Phase::Window, None),
        None => (Phase::WarmUp, Some(start + flags.warm_up)),
    };
    let mut window = Window::open(start);
    let mut measured = None;
    let mut failures_outside = 0;
    let stopped = loop {
        let now = Instant::now();
        let over = phase_ends.is_some_and(|end| now >= end) || (phase == Phase::Window && engine.borrow().quota_met());
        match phase {
            Phase::WarmUp if over => {
                failures_outside += engine.borrow_mut().take_counts().failures();
                window = Window::open(now);
                (phase, phase_ends) = (Phase::Window, Some(now + flags.duration));
            }
            Phase::Window if over => {
                measured = Some(window.close(&mut engine.borrow_mut(), now));
                let _ = closed.send(());
                engine.borrow_mut().begin_no_more();
                (phase, phase_ends) = (Phase::Drain, Some(now + flags.timeout));
            }
            Phase::Drain if over || engine.borrow().open_connections() == 0 => break None,
            _ => {}
        }
        let stopped = engine.borrow().reason_to_stop(now, flags.timeout);
        if stopped.is_some() {
            break stopped;
        }
        post(engine.borrow().glance());
        places::watch(engine, phase_ends, TICK).await;
    };
    let now = Instant::now();
    let unanswered = engine.borrow().messages_under_way(now);
    let mut share = match measured {
        Some(share) => {
            failures_outside += engine.borrow_mut().take_counts().failures();
            share
        }
        None => window.close(&mut engine.borrow_mut(), now),
    };
    share.counts.unanswered = unanswered;
    share.failures = failures_outside + share.counts.failures();
    share.stopped = stopped;
    share.fates = engine.borrow().fates();
    share.timeline = engine.borrow().timeline();
    engine.borrow_mut().abandon();
    // One round of the executor, in which the tasks let their connections go.
    Timer::new(Duration::from_millis(1)).await;
    share
}

/// What was read when the window opened.
struct Window {
    opened: Instant,
    own_cpu: Duration,
    worked: Duration,
}

impl Window {
    fn open(opened: Instant) -> Self {
        Self {
            opened,
            own_cpu: own_cpu(),
            worked: glommio::executor().executor_stats().total_runtime(),
        }
    }

    /// The window's figures; the counters start again from zero.
    fn close(&self, engine: &mut Engine, now: Instant) -> Share {
        let own_cpu = own_cpu().saturating_sub(self.own_cpu);
        let worked = glommio::executor().executor_stats().total_runtime();
        Share {
            counts: engine.take_counts(),
            failures: 0,
            elapsed: now - self.opened,
            own_cpu,
            idle: own_cpu.saturating_sub(worked.saturating_sub(self.worked)),
            pipelining_denied: engine.pipelining_denied(),
            stopped: None,
            closed: now,
            fates: Fates::default(),
            timeline: Timeline::new(self.opened),
        }
    }
}

/// Tells runs apart: from the time of day and the process id.
fn run_id() -> u32 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_nanos() as u32) ^ std::process::id().rotate_left(20)
}
