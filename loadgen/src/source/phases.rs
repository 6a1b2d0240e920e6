//! The phases of a run on one executor: warm-up, the window that is measured, draining; and what the executor found.
//!
//! Promises: as `source`. Lives on its executor.

use std::cell::RefCell;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::Findings;
use crate::engine::Engine;
use crate::flags::LoadFlags;
use crate::identity::expect::Fates;
use crate::measure::{Counts, own_cpu};
use crate::news::News;
use crate::places;
use crate::progress::Glance;
use crate::timeline::Timeline;

/// How often the deadlines are looked at when nothing happens.
const TICK: Duration = Duration::from_millis(50);

/// What one executor found.
#[derive(Debug)]
pub struct Share {
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
    /// Adds it up; gives back the counts of the window.
    pub fn into_findings(self, findings: &mut Findings, fates: &mut Fates) -> Counts {
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

/// Where the run is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Window,
    Drain,
}

/// Goes through the phases to the end of the run.
pub async fn keep(
    engine: &RefCell<Engine>,
    news: &News,
    flags: &LoadFlags,
    start: Instant,
    closed: &Sender<()>,
    post: &impl Fn(Glance),
) -> Share {
    let (mut phase, mut phase_ends) = match flags.messages {
        Some(_) => (Phase::Window, None),
        None => (Phase::WarmUp, Some(start + flags.warm_up)),
    };
    let mut window = Window::open(start, news, flags.busy_poll);
    let mut measured = None;
    let mut failures_outside = 0;
    let stopped = loop {
        let now = Instant::now();
        let over = phase_ends.is_some_and(|end| now >= end) || (phase == Phase::Window && engine.borrow().quota_met());
        match phase {
            Phase::WarmUp if over => {
                failures_outside += engine.borrow_mut().take_counts().failures();
                window = Window::open(now, news, flags.busy_poll);
                (phase, phase_ends) = (Phase::Window, Some(now + flags.duration));
            }
            Phase::Window if over => {
                measured = Some(window.close(&mut engine.borrow_mut(), news, now));
                let _ = closed.send(());
                engine.borrow_mut().begin_no_more();
                (phase, phase_ends) = (Phase::Drain, Some(now + flags.timeout));
            }
            Phase::Drain if over || engine.borrow().is_drained() => break None,
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
        None => window.close(&mut engine.borrow_mut(), news, now),
    };
    share.counts.unanswered = unanswered;
    share.failures = failures_outside + share.counts.failures();
    share.stopped = stopped;
    share.fates = engine.borrow().fates();
    share.timeline = engine.borrow().timeline();
    engine.borrow_mut().abandon();
    share
}

/// What was read when the window opened.
struct Window {
    opened: Instant,
    own_cpu: Duration,
    worked: Duration,
    in_vain: Duration,
    never_sleeps: bool,
}

impl Window {
    fn open(opened: Instant, news: &News, never_sleeps: bool) -> Self {
        Self {
            opened,
            own_cpu: own_cpu(),
            worked: glommio::executor().executor_stats().total_runtime(),
            in_vain: news.in_vain(),
            never_sleeps,
        }
    }

    /// The window's figures; the counters start again from zero.
    fn close(&self, engine: &mut Engine, news: &News, now: Instant) -> Share {
        let own_cpu = own_cpu().saturating_sub(self.own_cpu);
        let worked = glommio::executor().executor_stats().total_runtime();
        let idle = match self.never_sleeps {
            true => own_cpu.saturating_sub(worked.saturating_sub(self.worked)),
            false => news.in_vain().saturating_sub(self.in_vain),
        };
        Share {
            counts: engine.take_counts(),
            failures: 0,
            elapsed: now - self.opened,
            own_cpu,
            idle,
            pipelining_denied: engine.pipelining_denied(),
            stopped: None,
            closed: now,
            fates: Fates::default(),
            timeline: Timeline::new(self.opened),
        }
    }
}
