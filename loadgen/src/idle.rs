//! Quiet connections: opens many, reads their greetings, keeps them, then sees how soon a new client is greeted.
//!
//! Promises: opens in bounded batches; bounded in time; says how many the server dropped meanwhile. One thread.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::connect::{Dialer, allow_open_files};
use crate::flags::LoadFlags;
use crate::measure::{cpu_of, latencies, record, resident_of};
use crate::report::readable;

/// Connections that may wait for their greeting at the same time.
const UNGREETED_MAX: usize = 128;
/// New clients that are tried at the end, one after the other.
const PROBES: usize = 10;
/// Failed connections after which no more are opened.
const FAILURES_MAX: usize = 100;

/// Runs it and prints what was found; whether all connections lived and the new clients were greeted.
pub fn run(connections: usize, target: SocketAddr, pids: &[u32], flags: &LoadFlags) -> Result<bool, String> {
    allow_open_files(connections)?;
    let dialer = Dialer::new(
        target,
        &flags.sources_for(target)?,
        flags.socket_manner(),
        std::process::id(),
    );
    let mut crowd = Crowd::new(dialer, connections + PROBES).map_err(|error| format!("epoll: {error}"))?;
    let resident_before = resident_of(pids);
    let began = Instant::now();
    while crowd.opened() < connections && crowd.failed < FAILURES_MAX {
        if crowd.ungreeted() < UNGREETED_MAX {
            crowd.open();
        }
        let wait = if crowd.ungreeted() < UNGREETED_MAX {
            Duration::ZERO
        } else {
            flags.timeout
        };
        crowd.watch(wait, |crowd| crowd.ungreeted() < UNGREETED_MAX)?;
        if crowd.ungreeted() >= UNGREETED_MAX {
            break;
        }
    }
    crowd.watch(flags.timeout, |crowd| crowd.ungreeted() == 0)?;
    let (greeted, opening) = (crowd.greeted, began.elapsed());
    let resident_full = resident_of(pids);
    let cpu_before = cpu_of(pids);
    let quiet = Instant::now();
    crowd.watch(flags.duration, |_| false)?;
    let quiet = quiet.elapsed();
    let cpu = cpu_of(pids)
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    let dropped = crowd.dropped;
    let mut probe = latencies();
    for _ in 0..PROBES {
        let (before, asked) = (crowd.greeted, Instant::now());
        crowd.open();
        crowd.watch(flags.timeout, |crowd| crowd.ungreeted() == 0)?;
        if crowd.greeted > before {
            record(&mut probe, asked.elapsed());
        }
    }
    println!(
        "{greeted} of {connections} connections greeted in {:.2} s, {} failed",
        opening.as_secs_f64(),
        crowd.failed
    );
    println!(
        "{dropped} dropped by the server in {:.2} s of quiet",
        quiet.as_secs_f64()
    );
    if let (Some(before), Some(full)) = (resident_before, resident_full) {
        let each = full.saturating_sub(before) as f64 / greeted.max(1) as f64;
        println!(
            "server       {} KiB resident before, {} KiB with them: {each:.0} octets each",
            before / 1024,
            full / 1024
        );
    }
    if let Some(cpu) = cpu {
        println!("server       {:.2} ms CPU in the quiet time", cpu.as_secs_f64() * 1e3);
    }
    let (median, most) = (probe.value_at_quantile(0.5), probe.max());
    println!(
        "new clients  {} of {PROBES} greeted: median {}, longest {}",
        probe.len(),
        readable(median),
        readable(most)
    );
    let value = json!({
        "connections": connections, "greeted": greeted, "failed": crowd.failed, "dropped": dropped,
        "opening_seconds": opening.as_secs_f64(), "quiet_seconds": quiet.as_secs_f64(),
        "resident_before": resident_before, "resident_with": resident_full,
        "server_cpu_ms": cpu.map(|cpu| cpu.as_secs_f64() * 1e3),
        "probes_greeted": probe.len(), "probe_median_us": median as f64 / 1e3, "probe_max_us": most as f64 / 1e3,
    });
    crate::write_json(flags, &value)?;
    Ok(greeted == connections && crowd.failed == 0 && dropped == 0 && probe.len() == PROBES as u64)
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

    fn opened(&self) -> usize {
        self.quiet.len()
    }

    fn ungreeted(&self) -> usize {
        self.quiet.len() - self.greeted - self.failed
    }

    fn open(&mut self) {
        let token = Token(self.quiet.len());
        let stream = self.dialer.open().and_then(|mut stream| {
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            Ok(stream)
        });
        self.failed += usize::from(stream.is_err());
        self.quiet.push(Quiet {
            stream: stream.ok(),
            greeted: false,
        });
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
                // The first octets of a 220 are the greeting; anything else is the server turning us away.
                Ok(count) if count > 0 => {
                    let welcome = buffer.starts_with(b"220");
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
