//! `loadgen sink`: a next hop that takes mail, forgets it, and knows what should have come.
//!
//! Promises: every address is bound before it says that it is ready; ends in bounded time; the summary counts what every
//! thread has seen. This is the main thread: it starts the others, shows how far they are, and puts their figures together.

mod content;
mod fault;
pub mod flags;
mod server;
mod session;
mod socket;
mod summary;
mod tally;
mod terms;
mod tls;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use self::flags::SinkFlags;
use self::server::{Gauge, Server, Start};
use self::socket::{Listener, Place};
use self::summary::{Summary, progress};
use self::tally::Tally;
use self::terms::{Dialect, Terms};
use crate::identity::expect::Expectation;
use crate::measure::process_cpu;

/// Connections that are asked for, the most first.
const OPEN_FILES: [usize; 5] = [500_000, 100_000, 20_000, 4000, 1000];
/// How often the main thread looks.
const GLANCE: Duration = Duration::from_millis(20);
/// How often it shows what it saw.
const SHOW: Duration = Duration::from_secs(1);
/// Longest time that connections may take to close once `--messages` is met.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves, prints the summary; whether all that was to arrive did, once and whole.
pub fn run(flags: &SinkFlags) -> Result<bool, String> {
    let stop = crate::interruption()?;
    let plan = flags.plan()?;
    // As many as the hard limit allows; too few connections show in the figures.
    let _ = OPEN_FILES
        .iter()
        .find(|files| crate::connect::allow_open_files(**files).is_ok());
    let tls = match flags.starttls {
        true => Some(tls::self_made(vec![flags.hostname.clone()])?),
        false => None,
    };
    let threads = usize::from(flags.cores);
    let mut listeners: Vec<Vec<(Listener, Arc<Terms>)>> = (0..threads).map(|_| Vec::new()).collect();
    let mut places = Vec::new();
    for address in &flags.addresses {
        let other = if flags.lmtp { Dialect::Lmtp } else { Dialect::Smtp };
        let dialect = address.dialect.unwrap_or(other);
        let terms = Arc::new(Terms::new(
            dialect,
            &flags.hostname,
            flags.size_limit,
            &flags.withheld(),
        ));
        let (bound, place) =
            Listener::bind(&address.place, threads).map_err(|error| format!("{:?}: {error}", address.place))?;
        for (all, listener) in listeners.iter_mut().zip(bound) {
            all.push((listener, Arc::clone(&terms)));
        }
        crate::say(format_args!("sink ready on {}\n", name(dialect, &place)));
        places.push(place);
    }
    let gauges: Vec<Arc<Gauge>> = (0..threads).map(|_| Arc::default()).collect();
    let mut running = Vec::new();
    for (number, (listeners, gauge)) in listeners.into_iter().zip(&gauges).enumerate() {
        let start = Start {
            listeners,
            plan: plan.clone(),
            seed: flags.seed.wrapping_add(number as u64),
            verifying: !flags.blind,
            tls: tls.clone(),
            gauge: Arc::clone(gauge),
            stop: Arc::clone(&stop),
        };
        let core = flags.core.map(|core| core + number);
        running.push(std::thread::spawn(move || serve(start, core)));
    }
    let began = Instant::now();
    let cpu_before = process_cpu();
    let busy = watch(flags, &gauges, &stop);
    stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    for thread in running {
        let theirs = thread.join().map_err(|_| "a thread of the sink panicked")?;
        tally.absorb(theirs?);
    }
    for place in places {
        if let Place::Path(path) = place {
            // It may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
    let expected = flags
        .expect
        .iter()
        .map(|path| Expectation::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let summary = Summary {
        comparison: (!expected.is_empty()).then(|| tally.ledger.compare(&expected)),
        expected_messages: flags.expect_messages,
        tally,
        seconds: began.elapsed().as_secs_f64(),
        busy,
        cpu: process_cpu().saturating_sub(cpu_before),
    };
    crate::say(format_args!("{summary}"));
    if let Some(path) = &flags.json {
        std::fs::write(path, format!("{:#}\n", summary.to_json()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(summary.is_good())
}

fn name(dialect: Dialect, place: &Place) -> String {
    match (dialect, place) {
        (Dialect::Smtp, Place::Port(address)) => format!("smtp://{address}"),
        (Dialect::Lmtp, Place::Port(address)) => format!("lmtp://{address}"),
        (_, Place::Path(path)) => format!("lmtp+unix://{}", path.display()),
    }
}

fn serve(start: Start, core: Option<usize>) -> Result<Tally, String> {
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        if core >= CpuSet::MAX_CPU {
            return Err(format!("--core {core}: there is no such core"));
        }
        cores.set(core);
        sched_setaffinity(None, &cores).map_err(|error| format!("--core {core}: {error}"))?;
    }
    let stop = Arc::clone(&start.stop);
    let served = Server::new(start).and_then(Server::run);
    // One that fails ends the others: half a sink is none.
    stop.store(true, Ordering::Relaxed);
    served.map_err(|error| format!("epoll: {error}"))
}

/// Waits for the end, and shows how far it is; from the first message to the last.
fn watch(flags: &SinkFlags, gauges: &[Arc<Gauge>], stop: &AtomicBool) -> Duration {
    let sum = |figure: fn(&Gauge) -> u64| gauges.iter().map(|gauge| figure(gauge)).sum::<u64>();
    let messages = || sum(|gauge| gauge.messages.load(Ordering::Relaxed));
    let open = || sum(|gauge| gauge.open.load(Ordering::Relaxed));
    let began = Instant::now();
    let (mut first, mut last, mut seen) = (None, began, 0);
    let (mut shown, mut shown_messages) = (began, 0);
    let mut met = None;
    let on_terminal = std::io::stderr().is_terminal();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(GLANCE);
        let (now, taken) = (Instant::now(), messages());
        if taken > seen {
            first = first.or(Some(now));
            (last, seen) = (now, taken);
        }
        if on_terminal && now - shown >= SHOW {
            let rate = (taken - shown_messages) as f64 / (now - shown).as_secs_f64();
            let line = progress(
                taken,
                rate,
                open(),
                sum(|g| g.octets.load(Ordering::Relaxed)),
                sum(|g| g.faults.load(Ordering::Relaxed)),
            );
            // The line is for eyes only.
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            (shown, shown_messages) = (now, taken);
        }
        if flags.messages.is_some_and(|wanted| taken >= wanted) {
            let since = *met.get_or_insert(now);
            if open() == 0 || now - since >= FAREWELL {
                break;
            }
        }
        let over = flags.duration.is_some_and(|length| now - began >= length);
        let quiet = flags.quiet.is_some_and(|length| taken > 0 && now - last >= length);
        if over || quiet {
            break;
        }
    }
    if on_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    first.map_or(Duration::ZERO, |first| last - first)
}
