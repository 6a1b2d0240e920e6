//! A run in time: warm-up, the window that is measured, and the draining of what is still under way.
//!
//! A closed loop: every connection sends its next message when the last one is answered. Promises: the run is bounded in
//! time whatever the server does; what falls outside the window is in no figure but the failures. One thread.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Events;

use crate::connect::Dialer;
use crate::dialogue::Manner;
use crate::engine::Engine;
use crate::flags::{LoadFlags, Pipelining};
use crate::measure::{Counts, check_processes, cpu_of, own_cpu};
use crate::message::{Matter, Recipe, Wire, corpus, recipients};

/// How often the deadlines are looked at when nothing happens.
const TICK: Duration = Duration::from_millis(50);

/// What a run found.
#[derive(Debug)]
pub struct Findings {
    /// The window that was measured.
    pub counts: Counts,
    /// Failures in the whole run: warm-up, window and what came after.
    pub failures: u64,
    /// Length of the window.
    pub elapsed: Duration,
    /// CPU time of the generator's thread in the window.
    pub own_cpu: Duration,
    /// CPU time of the server's processes in the window.
    pub server_cpu: Option<Duration>,
    /// The server does not offer the PIPELINING that was asked for.
    pub pipelining_denied: bool,
    /// The generator never slept: its CPU time is the time that passed, and holds that of polls without work.
    pub busy_poll: bool,
    /// Why the run ended before its time.
    pub stopped: Option<String>,
    /// First part of the identity of each message of this run.
    pub run: u32,
}

/// Runs the load against `target` and measures it.
pub fn run(flags: &LoadFlags, target: SocketAddr, pids: &[u32]) -> Result<Findings, String> {
    check_processes(pids)?;
    let run = run_id();
    // BDAT puts a whole message into one write as it is.
    let group = flags.pipelining == Pipelining::Group && !flags.bdat;
    let wire = Wire::new(&Recipe {
        name: flags.ehlo.clone(),
        from: flags.from.clone(),
        to: recipients(&flags.to, flags.recipients),
        matter: match &flags.corpus {
            Some(path) => Matter::Read(corpus::read(path)?),
            None => Matter::Generated(flags.size.clone()),
        },
        bdat: flags.bdat,
        group,
        run,
    })?;
    let dialer = Dialer::new(target, &flags.sources_for(target)?, flags.socket_manner(), run);
    let manner = Manner {
        pipelining: flags.pipelining != Pipelining::Off,
        group,
        bdat: flags.bdat,
        recipients: flags.recipients,
    };
    let said = |error: io::Error| format!("epoll: {error}");
    let mut engine = Engine::new(dialer, wire, manner, flags).map_err(said)?;
    let mut findings = measure(&mut engine, flags, pids).map_err(said)?;
    if let Some(path) = &flags.expect {
        let to = recipients(&flags.to, flags.recipients);
        engine.fates().expectation(run, &to).write(path)?;
    }
    findings.run = run;
    findings.busy_poll = flags.busy_poll;
    Ok(findings)
}

/// Where the run is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Window,
    Drain,
}

fn measure(engine: &mut Engine, flags: &LoadFlags, pids: &[u32]) -> io::Result<Findings> {
    let mut events = Events::with_capacity(1024);
    let start = Instant::now();
    let (mut phase, mut phase_ends) = match flags.messages {
        Some(_) => (Phase::Window, None),
        None => (Phase::WarmUp, Some(start + flags.warm_up)),
    };
    let mut window = Window::open(start, pids);
    let mut measured = None;
    let mut failures_outside = 0;
    let stopped = loop {
        let now = Instant::now();
        let over = phase_ends.is_some_and(|end| now >= end) || (phase == Phase::Window && engine.quota_met());
        match phase {
            Phase::WarmUp if over => {
                failures_outside += engine.take_counts().failures();
                window = Window::open(now, pids);
                (phase, phase_ends) = (Phase::Window, Some(now + flags.duration));
            }
            Phase::Window if over => {
                measured = Some(window.close(engine, now, pids));
                engine.begin_no_more();
                (phase, phase_ends) = (Phase::Drain, Some(now + flags.timeout));
            }
            Phase::Drain if over || engine.open_connections() == 0 => break None,
            _ => {}
        }
        let stopped = engine.reason_to_stop(now, flags.timeout);
        if stopped.is_some() {
            break stopped;
        }
        let wait = match phase_ends {
            _ if flags.busy_poll => Duration::ZERO,
            Some(end) => end.saturating_duration_since(now).min(TICK),
            None => TICK,
        };
        engine.turn(&mut events, now, wait)?;
    };
    let unanswered = engine.messages_under_way();
    let mut findings = match measured {
        Some(findings) => {
            failures_outside += engine.take_counts().failures();
            findings
        }
        None => window.close(engine, Instant::now(), pids),
    };
    findings.counts.unanswered = unanswered;
    findings.failures = failures_outside + findings.counts.failures();
    findings.stopped = stopped;
    Ok(findings)
}

/// What was read when the window opened.
struct Window {
    opened: Instant,
    own_cpu: Duration,
    server_cpu: Option<Duration>,
}

impl Window {
    fn open(opened: Instant, pids: &[u32]) -> Self {
        Self {
            opened,
            own_cpu: own_cpu(),
            server_cpu: cpu_of(pids),
        }
    }

    /// The window's figures; the counters start again from zero.
    fn close(&self, engine: &mut Engine, now: Instant, pids: &[u32]) -> Findings {
        let (own_cpu, server_cpu) = (own_cpu(), cpu_of(pids));
        let server_cpu = server_cpu
            .zip(self.server_cpu)
            .map(|(after, before)| after.saturating_sub(before));
        Findings {
            counts: engine.take_counts(),
            failures: 0,
            elapsed: now - self.opened,
            own_cpu: own_cpu.saturating_sub(self.own_cpu),
            server_cpu,
            pipelining_denied: engine.pipelining_denied(),
            busy_poll: false,
            stopped: None,
            run: 0,
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
