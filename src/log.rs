//! Log lines: one for each session and each message, handed over without blocking.
//!
//! Promises: whoever logs never waits for the disk or the terminal: lines are formatted into a [`LineBuffer`], which is
//! given away whole; when the writing thread falls behind, lines are dropped, counted, and a later line tells how many.
//! A value from the network is at most [`VALUE_OCTETS`] long and cannot leave its place in the line: whatever is not
//! printable ASCII is escaped (see [`mod@escape`]).
//!
//! A [`LineBuffer`] lives on one thread; a [`Log`] on any; the writing itself has a thread of its own.

use std::fmt::{Display, Write as _};
use std::io::Write;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

pub mod escape;

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
        LineBuffer {
            log: self.clone(),
            out: Vec::new(),
            lines: 0,
            scratch: String::new(),
            second: u64::MAX,
            date: String::new(),
        }
    }

    /// Writes one line now. For threads that log rarely; `message` and fields may hold anything.
    pub fn event(&self, level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
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
    if dropped > *told && write_patiently(sink, &lines_dropped(shared.format, dropped - *told)).is_ok() {
        *told = dropped;
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

fn lines_dropped(format: Format, n: u64) -> Vec<u8> {
    let mut date = String::new();
    let millis = write_date(&mut date, SystemTime::now(), &mut u64::MAX.clone());
    let mut out = Vec::new();
    begin(&mut out, format, &date, millis, Level::Warn, "log lines dropped");
    number(&mut out, format, "lines", n);
    end(&mut out, format);
    out
}

/// Lines of one thread on their way. The owner calls [`LineBuffer::flush`] on its tick; dropping it flushes too.
#[derive(Debug)]
pub struct LineBuffer {
    log: Log,
    out: Vec<u8>,
    lines: u64,
    scratch: String,
    /// The second that `date` shows.
    second: u64,
    date: String,
}

impl LineBuffer {
    /// Begins a line; it ends with [`Line::done`] or when dropped. A level that is not wanted costs next to nothing.
    pub fn line(&mut self, now: SystemTime, level: Level, message: &str) -> Line<'_> {
        if !self.log.enabled(level) {
            return Line { buffer: None };
        }
        let millis = write_date(&mut self.date, now, &mut self.second);
        begin(
            &mut self.out,
            self.log.shared.format,
            &self.date,
            millis,
            level,
            message,
        );
        Line { buffer: Some(self) }
    }

    /// Hands the lines over to the writing thread. Never blocks.
    pub fn flush(&mut self) {
        if !self.out.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.log.hand_over(std::mem::take(&mut self.out), lines);
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A line being written. Keys are the program's own words.
#[derive(Debug)]
pub struct Line<'b> {
    buffer: Option<&'b mut LineBuffer>,
}

impl Line<'_> {
    /// A value of any octets, from anyone.
    pub fn field(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        if let Some(buffer) = &mut self.buffer {
            octets(&mut buffer.out, buffer.log.shared.format, key, value.as_ref());
        }
        self
    }

    /// A number.
    pub fn number(mut self, key: &str, value: u64) -> Self {
        if let Some(buffer) = &mut self.buffer {
            number(&mut buffer.out, buffer.log.shared.format, key, value);
        }
        self
    }

    /// A duration in seconds, to the millisecond.
    pub fn seconds(mut self, key: &str, value: Duration) -> Self {
        if let Some(buffer) = &mut self.buffer {
            number(&mut buffer.out, buffer.log.shared.format, key, value.as_secs());
            buffer.out.push(b'.');
            three_digits(&mut buffer.out, value.subsec_millis());
        }
        self
    }

    /// A value that knows how to show itself: an address, an error.
    pub fn display(mut self, key: &str, value: impl Display) -> Self {
        if let Some(buffer) = &mut self.buffer {
            buffer.scratch.clear();
            let _ = write!(buffer.scratch, "{value}");
            octets(
                &mut buffer.out,
                buffer.log.shared.format,
                key,
                buffer.scratch.as_bytes(),
            );
        }
        self
    }

    /// Ends the line.
    pub fn done(self) {}
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            end(&mut buffer.out, buffer.log.shared.format);
            buffer.lines += 1;
            if buffer.out.len() >= BUFFER_OCTETS {
                buffer.flush();
            }
        }
    }
}

/// Brings `date` up to the second of `now`; returns the milliseconds.
fn write_date(date: &mut String, now: SystemTime, second: &mut u64) -> u32 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if *second != since.as_secs() {
        *second = since.as_secs();
        let at = i64::try_from(*second)
            .ok()
            .and_then(|s| jiff::Timestamp::from_second(s).ok())
            .unwrap_or_default();
        date.clear();
        let _ = write!(date, "{}", at.strftime("%Y-%m-%dT%H:%M:%S"));
    }
    since.subsec_millis()
}

fn begin(out: &mut Vec<u8>, format: Format, date: &str, millis: u32, level: Level, message: &str) {
    match format {
        Format::Text => {
            out.extend_from_slice(date.as_bytes());
            out.push(b'.');
            three_digits(out, millis);
            out.extend_from_slice(b"Z ");
            out.extend_from_slice(level.name().as_bytes());
            out.push(b' ');
            escape::bare(out, message.as_bytes());
        }
        Format::Json => {
            out.extend_from_slice(b"{\"time\":\"");
            out.extend_from_slice(date.as_bytes());
            out.push(b'.');
            three_digits(out, millis);
            out.extend_from_slice(b"Z\",\"level\":\"");
            out.extend_from_slice(level.name().as_bytes());
            out.extend_from_slice(b"\",\"message\":\"");
            escape::json(out, message.as_bytes());
            out.push(b'"');
        }
    }
}

fn key_of(out: &mut Vec<u8>, format: Format, key: &str) {
    match format {
        Format::Text => {
            out.push(b' ');
            escape::bare(out, key.as_bytes());
            out.push(b'=');
        }
        Format::Json => {
            out.extend_from_slice(b",\"");
            escape::json(out, key.as_bytes());
            out.extend_from_slice(b"\":");
        }
    }
}

fn octets(out: &mut Vec<u8>, format: Format, key: &str, value: &[u8]) {
    key_of(out, format, key);
    let (kept, rest) = value.split_at_checked(VALUE_OCTETS).unwrap_or((value, &[]));
    let cut: &[u8] = if rest.is_empty() { b"" } else { b"..." };
    match format {
        Format::Text if escape::needs_no_quotes(kept) => {
            out.extend_from_slice(kept);
            out.extend_from_slice(cut);
        }
        Format::Text => {
            out.push(b'"');
            escape::quoted(out, kept);
            out.extend_from_slice(cut);
            out.push(b'"');
        }
        Format::Json => {
            out.push(b'"');
            escape::json(out, kept);
            out.extend_from_slice(cut);
            out.push(b'"');
        }
    }
}

fn number(out: &mut Vec<u8>, format: Format, key: &str, value: u64) {
    key_of(out, format, key);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn three_digits(out: &mut Vec<u8>, n: u32) {
    let digit = |d: u32| b'0' + u8::try_from(d % 10).unwrap_or_default();
    out.extend_from_slice(&[digit(n / 100), digit(n / 10), digit(n)]);
}

fn end(out: &mut Vec<u8>, format: Format) {
    out.extend_from_slice(match format {
        Format::Text => b"\n",
        Format::Json => b"}\n",
    });
}

#[cfg(test)]
mod tests;
