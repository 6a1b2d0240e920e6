//! Lines being written: formatted field by field straight into the buffer that is handed over.
//!
//! Promises: no allocation for a line once the buffer has grown, the date is formatted once a second. A [`LineBuffer`]
//! lives on the thread that fills it.

use std::fmt::{Display, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{BUFFER_OCTETS, Format, Level, Log, VALUE_OCTETS, escape};

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
    pub(super) fn new(log: Log) -> LineBuffer {
        LineBuffer {
            log,
            out: Vec::new(),
            lines: 0,
            scratch: String::new(),
            second: u64::MAX,
            date: String::new(),
        }
    }

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
    pub fn field(mut self, key: &'static str, value: impl AsRef<[u8]>) -> Self {
        if let Some(buffer) = &mut self.buffer {
            octets(&mut buffer.out, buffer.log.shared.format, key, value.as_ref());
        }
        self
    }

    /// A number.
    pub fn number(mut self, key: &'static str, value: u64) -> Self {
        if let Some(buffer) = &mut self.buffer {
            number(&mut buffer.out, buffer.log.shared.format, key, value);
        }
        self
    }

    /// A duration in seconds, to the millisecond.
    pub fn seconds(mut self, key: &'static str, value: Duration) -> Self {
        if let Some(buffer) = &mut self.buffer {
            number(&mut buffer.out, buffer.log.shared.format, key, value.as_secs());
            buffer.out.push(b'.');
            three_digits(&mut buffer.out, value.subsec_millis());
        }
        self
    }

    /// A value that knows how to show itself: an address, an error.
    pub fn display(mut self, key: &'static str, value: impl Display) -> Self {
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

/// Keys are the program's own words, so they are written as they stand.
fn key_of(out: &mut Vec<u8>, format: Format, key: &'static str) {
    debug_assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{key}");
    let (before, after): (&[u8], &[u8]) = match format {
        Format::Text => (b" ", b"="),
        Format::Json => (b",\"", b"\":"),
    };
    out.extend_from_slice(before);
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(after);
}

fn octets(out: &mut Vec<u8>, format: Format, key: &'static str, value: &[u8]) {
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

fn number(out: &mut Vec<u8>, format: Format, key: &'static str, value: u64) {
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

/// The line that tells of lost ones.
pub(super) fn lines_dropped(format: Format, now: SystemTime, n: u64) -> Vec<u8> {
    let mut date = String::new();
    let millis = write_date(&mut date, now, &mut u64::MAX.clone());
    let mut out = Vec::new();
    begin(&mut out, format, &date, millis, Level::Warn, "log lines dropped");
    number(&mut out, format, "lines", n);
    end(&mut out, format);
    out
}
