//! Log lines: one for each session and each message, handed over without blocking.
//!
//! Promises: whoever logs never waits for the disk or the terminal: lines are formatted into a [`LineBuffer`], which is
//! given away whole; when the writing thread falls behind, lines are dropped, counted, and a later line tells how many.
//! A value from the network is at most [`VALUE_OCTETS`] long and cannot leave its place in the line: whatever is not
//! printable ASCII is escaped (see [`mod@escape`]).
//!
//! A [`LineBuffer`] lives on one thread; a [`Log`] on any; the writing itself has a thread of its own.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

pub mod escape;
mod line;

pub use line::{Line, LineBuffer};

/// A value longer than this is cut.
pub const VALUE_OCTETS: usize = 320;
/// A buffer of this size is handed over without waiting for the next tick.
const BUFFER_OCTETS: usize = 32 * 1024;
/// Buffers that may wait for the writing thread: 8 MiB when all are full.
const BUFFERS: usize = 256;
/// How long the end of the process waits for a log that nobody reads.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much a line matters, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken and needs a person.
    Error,
    /// Something is wrong and the server copes.
    Warn,
    /// What was done.
    Info,
    /// How it was done.
    Debug,
}

impl Level {
    /// As in the configuration and in the line.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    const fn of(number: u8) -> Level {
        match number {
            0 => Level::Error,
            1 => Level::Warn,
            2 => Level::Info,
            _ => Level::Debug,
        }
    }
}

impl FromStr for Level {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Level, Self::Err> {
        match name {
            "error" => Ok(Level::Error),
            "warn" => Ok(Level::Warn),
            "info" => Ok(Level::Info),
            "debug" | "trace" => Ok(Level::Debug),
            _ => Err("one of error, warn, info, debug, trace"),
        }
    }
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-21T00:43:39.123Z info message key=value key="quoted value"`
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Format, Self::Err> {
        match name {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("one of text, json"),
        }
    }
}

enum Parcel {
    Lines { octets: Vec<u8>, lines: u64 },
    Last,
}

#[derive(Debug)]
struct Shared {
    level: AtomicU8,
    format: Format,
    dropped: AtomicU64,
}

/// The way to the log for any thread.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
    parcels: Sender<Parcel>,
}

impl Log {
    /// Starts the thread that writes to stderr.
    pub fn start(level: Level, format: Format) -> std::io::Result<(Log, Writer)> {
        Log::start_to(Box::new(std::io::stderr()), level, format)
    }

    /// Starts the thread that writes to `sink`.
    pub fn start_to(sink: Box<dyn Write + Send>, level: Level, format: Format) -> std::io::Result<(Log, Writer)> {
        let (parcels, queue) = bounded(BUFFERS);
        let (ended, end) = bounded(1);
        let level = AtomicU8::new(level as u8);
        let shared = Arc::new(Shared {
            level,
            format,
            dropped: AtomicU64::new(0),
        });
        let log = Log { shared, parcels };
        let of_writer = log.shared.clone();
        std::thread::Builder::new().name("postern-log".into()).spawn(move || {
            write_all_parcels(&queue, sink, &of_writer);
            let _ = ended.send(());
        })?;
        Ok((log.clone(), Writer { log, end }))
    }

    /// A buffer for the lines of one thread.
    pub fn buffer(&self) -> LineBuffer {
        LineBuffer::new(self.clone())
    }

    /// Writes one line now. For threads that log rarely; `message` and fields may hold anything.
    pub fn event(&self, level: Level, message: &str, fields: &[(&'static str, &dyn Display)]) {
        let mut buffer = self.buffer();
        let mut line = buffer.line(SystemTime::now(), level, message);
        for (key, value) in fields {
            line = line.display(key, value);
        }
        line.done();
    }

    /// Says that every binding listens: the line that others wait for.
    pub fn ready(&self) {
        self.event(Level::Info, "postern ready", &[]);
    }

    /// Says where a binding listens, with the port that the system chose.
    pub fn listening(&self, binding: &str, address: SocketAddr) {
        self.event(
            Level::Info,
            &format!("listening binding={binding} address={address}"),
            &[],
        );
    }

    /// Lines lost since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Changes the level for all threads.
    pub fn set_level(&self, level: Level) {
        self.shared.level.store(level as u8, Relaxed);
    }

    /// Whether a line of this level would be written.
    pub fn enabled(&self, level: Level) -> bool {
        level <= Level::of(self.shared.level.load(Relaxed))
    }

    fn hand_over(&self, octets: Vec<u8>, lines: u64) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.parcels.try_send(Parcel::Lines { octets, lines })
        {
            self.shared.dropped.fetch_add(lines, Relaxed);
        }
    }
}

/// The end of the log. Dropping it writes what was handed over and waits until that is done, for a few seconds at most.
#[derive(Debug)]
pub struct Writer {
    log: Log,
    end: Receiver<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.log.parcels.send_timeout(Parcel::Last, PATIENCE).is_ok() {
            let _ = self.end.recv_timeout(PATIENCE);
        }
    }
}

fn write_all_parcels(queue: &Receiver<Parcel>, mut sink: Box<dyn Write + Send>, shared: &Shared) {
    let mut told = 0;
    while let Ok(Parcel::Lines { octets, lines }) = queue.recv() {
        write_parcel(&mut *sink, &octets, lines, shared);
        tell_dropped(&mut *sink, shared, &mut told);
    }
    // What other threads handed over while the last parcel was on its way.
    while let Ok(Parcel::Lines { octets, lines }) = queue.try_recv() {
        write_parcel(&mut *sink, &octets, lines, shared);
    }
    tell_dropped(&mut *sink, shared, &mut told);
    let _ = sink.flush();
}

fn tell_dropped(sink: &mut dyn Write, shared: &Shared, told: &mut u64) {
    let dropped = shared.dropped.load(Relaxed);
    if dropped > *told {
        let line = line::lines_dropped(shared.format, SystemTime::now(), dropped - *told);
        if write_patiently(sink, &line).is_ok() {
            *told = dropped;
        }
    }
}

fn write_parcel(sink: &mut dyn Write, octets: &[u8], lines: u64, shared: &Shared) {
    if write_patiently(sink, octets).is_err() {
        shared.dropped.fetch_add(lines, Relaxed);
    }
}

/// Writes to a sink that may be in non-blocking mode: stderr is shared with whoever started the process.
fn write_patiently(sink: &mut dyn Write, mut octets: &[u8]) -> std::io::Result<()> {
    let pause = Duration::from_millis(10);
    let mut pauses = PATIENCE.as_millis() / pause.as_millis();
    while !octets.is_empty() {
        match sink.write(octets) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(n) => octets = octets.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && pauses > 0 => {
                pauses -= 1;
                std::thread::sleep(pause);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
