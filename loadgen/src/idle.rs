//! Quiet connections: opens many, reads their greetings, keeps them, then sees how soon a new client is greeted.
//!
//! Promises: opens in bounded batches; bounded in time; says how many the server dropped meanwhile. One thread, and an epoll
//! set in place of an executor: nearly all of ten thousand connections only wait, for which a set that the sink needs anyway
//! has one registration each, where an executor would have a task and a request in its ring.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::connect::{Dialer, allow_open_files};
use crate::flags::LoadFlags;
use crate::measure::{check_processes, cpu_of, latencies, record, resident_of};
use crate::report::readable;

/// Connections that may wait for their greeting at the same time.
const UNGREETED_MAX: usize = 128;
/// New clients that are tried at the end, one after the other.
const PROBES: usize = 10;
/// Failed connections after which no more are opened.
const FAILURES_MAX: usize = 100;

/// Runs it.
pub fn run(connections: usize, target: SocketAddr, pids: &[u32], flags: &LoadFlags) -> Result<Found, String> {
    allow_open_files(connections)?;
    check_processes(pids)?;
    let dialer = Dialer::new(
        target,
        &flags.sources_for(target)?,
        flags.socket_manner(),
        std::process::id(),
    );
    let mut crowd = Crowd::new(dialer, connections + PROBES).map_err(|error| format!("epoll: {error}"))?;
    let resident_before = resident_of(pids);
    let began = Instant::now();
    crowd.gather(connections, flags.timeout)?;
    let (greeted, opening) = (crowd.greeted, began.elapsed());
    let resident_with = resident_of(pids);
    let (quiet, cpu_before) = (Instant::now(), cpu_of(pids));
    crowd.watch(flags.duration, |_| false)?;
    let quiet = quiet.elapsed();
    let cpu = cpu_of(pids)
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    let dropped = crowd.dropped;
    let probes = crowd.probe(flags.timeout)?;
    Ok(Found {
        connections,
        greeted,
        failed: crowd.failed,
        dropped,
        opening,
        quiet,
        resident_before,
        resident_with,
        cpu,
        probes,
    })
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    connections: usize,
    greeted: usize,
    failed: usize,
    dropped: usize,
    opening: Duration,
    quiet: Duration,
    resident_before: Option<u64>,
    resident_with: Option<u64>,
    cpu: Option<Duration>,
    /// From connect to the greeting of the new clients, nanoseconds.
    probes: Histogram<u64>,
}

impl Found {
    /// Whether all connections lived and the new clients were greeted.
    pub fn is_good(&self) -> bool {
        let lived = self.greeted == self.connections && self.failed == 0 && self.dropped == 0;
        lived && self.probes.len() == PROBES as u64
    }

    /// As `--json` has it.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "connections": self.connections, "greeted": self.greeted, "failed": self.failed, "dropped": self.dropped,
            "opening_seconds": self.opening.as_secs_f64(), "quiet_seconds": self.quiet.as_secs_f64(),
            "resident_before": self.resident_before, "resident_with": self.resident_with,
            "server_cpu_ms": self.cpu.map(|cpu| cpu.as_secs_f64() * 1e3),
            "probes_greeted": self.probes.len(),
            "probe_median_us": self.probes.value_at_quantile(0.5) as f64 / 1e3,
            "probe_max_us": self.probes.max() as f64 / 1e3,
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            greeted,
            failed,
            dropped,
            probes,
            ..
        } = self;
        let (opening, quiet) = (self.opening.as_secs_f64(), self.quiet.as_secs_f64());
        writeln!(
            f,
            "{greeted} of {connections} connections greeted in {opening:.2} s, {failed} failed"
        )?;
        writeln!(f, "{dropped} dropped by the server in {quiet:.2} s of quiet")?;
        if let (Some(before), Some(with)) = (self.resident_before, self.resident_with) {
            let each = with.saturating_sub(before) as f64 / (*greeted).max(1) as f64;
            let (before, with) = (before / 1024, with / 1024);
            writeln!(
                f,
                "server       {before} KiB resident before, {with} KiB with them: {each:.0} octets each"
            )?;
        }
        if let Some(cpu) = self.cpu {
            writeln!(
                f,
                "server       {:.2} ms CPU in the quiet time",
                cpu.as_secs_f64() * 1e3
            )?;
        }
        let (median, most) = (readable(probes.value_at_quantile(0.5)), readable(probes.max()));
        writeln!(
            f,
            "new clients  {} of {PROBES} greeted: median {median}, longest {most}",
            probes.len()
        )
    }
}

/// One quiet connection.
#[derive(Debug)]
struct Quiet {
    stream: Option<TcpStream>,
    greeted: bool,
}

/// All of them.
#[derive(Debug)]
struct Crowd {
    poll: Poll,
    events: Events,
    dialer: Dialer,
    quiet: Vec<Quiet>,
    greeted: usize,
    failed: usize,
    dropped: usize,
}

impl Crowd {
    fn new(dialer: Dialer, capacity: usize) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            dialer,
            quiet: Vec::with_capacity(capacity),
            greeted: 0,
            failed: 0,
            dropped: 0,
        })
    }

    fn ungreeted(&self) -> usize {
        self.quiet.len() - self.greeted - self.failed
    }

    fn open(&mut self) {
        let token = Token(self.quiet.len());
        let stream = self.dialer.open().and_then(|stream| {
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            Ok(stream)
        });
        self.failed += usize::from(stream.is_err());
        self.quiet.push(Quiet {
            stream: stream.ok(),
            greeted: false,
        });
    }

    /// Opens `connections`, few at a time, and waits for their greetings; stops early when the server no longer greets.
    fn gather(&mut self, connections: usize, timeout: Duration) -> Result<(), String> {
        while self.quiet.len() < connections && self.failed < FAILURES_MAX {
            self.open();
            let full = self.ungreeted() >= UNGREETED_MAX;
            self.watch(if full { timeout } else { Duration::ZERO }, |crowd| {
                crowd.ungreeted() < UNGREETED_MAX / 2
            })?;
            if self.ungreeted() >= UNGREETED_MAX {
                break;
            }
        }
        self.watch(timeout, |crowd| crowd.ungreeted() == 0)
    }

    /// New clients, one after the other, each waited for at most `timeout`; stops at the first that is not greeted.
    fn probe(&mut self, timeout: Duration) -> Result<Histogram<u64>, String> {
        let mut probes = latencies();
        for _ in 0..PROBES {
            let (before, asked) = (self.greeted, Instant::now());
            self.open();
            self.watch(timeout, |crowd| crowd.greeted > before || crowd.ungreeted() == 0)?;
            if self.greeted == before {
                break;
            }
            record(&mut probes, asked.elapsed());
        }
        Ok(probes)
    }

    /// Takes events for at most `time`, or until `enough`.
    fn watch(&mut self, time: Duration, enough: impl Fn(&Self) -> bool) -> Result<(), String> {
        let end = Instant::now() + time;
        while !enough(self) {
            let left = end.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(format!("epoll: {error}")),
                _ => {}
            }
            let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for index in ready {
                self.read(index);
            }
            if Instant::now() >= end {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) {
        let Some(quiet) = self.quiet.get_mut(index) else { return };
        let mut buffer = [0; 1024];
        while let Some(stream) = &mut quiet.stream {
            match stream.read(&mut buffer) {
                // The first digit decides, as the greeting may come in pieces; no other stands for a welcome.
                Ok(count) if count > 0 => {
                    let welcome = buffer.starts_with(b"2");
                    match (quiet.greeted, welcome) {
                        (false, true) => {
                            quiet.greeted = true;
                            self.greeted += 1;
                        }
                        (false, false) => {
                            self.failed += 1;
                            quiet.stream = None;
                        }
                        // A 421 before the server closes; the close is what counts.
                        (true, _) => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    if quiet.greeted {
                        self.dropped += 1;
                    } else {
                        self.failed += 1;
                    }
                    quiet.stream = None;
                }
            }
        }
    }
}
