//! The status page: one HTML document with everything in it, that works without scripts.
//!
//! Promises: names from the configuration are escaped; nothing comes from another place. Pure but for [`History`],
//! which lives on the control thread.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::{Counter, Gauge, Metrics};
use crate::smtp::oxsmtp::Event;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not every binding listens yet.
    Starting,
    /// New mail is taken.
    Serving,
    /// What was begun is finished, newcomers are sent away.
    Draining,
}

impl Phase {
    /// As the pages show it.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Draining => "draining",
        }
    }
}

/// What only the composition root knows.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where the process is in its life.
    pub phase: Phase,
    /// The name in the greeting.
    pub hostname: String,
    /// Executors.
    pub shards: usize,
    /// Every binding.
    pub bindings: Vec<BindingStatus>,
}

/// A binding on the page.
#[derive(Clone, Debug)]
pub struct BindingStatus {
    /// As configured.
    pub name: String,
    /// "gateway" or "relay".
    pub role: &'static str,
    /// Where it really listens.
    pub addresses: Vec<SocketAddr>,
}

/// Tells the status when a page is asked for. Called on the control thread: must not block.
pub type StatusSource = Arc<dyn Fn() -> Status + Send + Sync>;

/// Seconds that the page looks back.
const SECONDS: usize = 60;

/// How many messages had been received at the end of each of the last seconds.
#[derive(Debug, Default)]
pub struct History {
    totals: Mutex<VecDeque<u64>>,
}

impl History {
    /// Takes the total of one more second.
    pub fn take(&self, total: u64) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if totals.len() > SECONDS {
            totals.pop_front();
        }
        totals.push_back(total);
    }

    /// Messages in each second, oldest first.
    fn per_second(&self) -> Vec<u64> {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals
            .iter()
            .zip(totals.iter().skip(1))
            .map(|(before, after)| after.saturating_sub(*before))
            .collect()
    }
}

/// The page. `nonce` allows its style sheet.
pub fn page(status: &Status, metrics: &Metrics, history: &History, uptime: Duration, nonce: &str) -> String {
    let per_second = history.per_second();
    let last = per_second.iter().rev().take(10);
    let rate = last.clone().sum::<u64>() as f64 / last.count().max(1) as f64;
    let stale = metrics.gauge(Gauge::StaleShards);
    let state = if stale > 0 { "degraded" } else { status.phase.name() };
    let fill = |name: &str| match name {
        "nonce" => nonce.to_owned(),
        "hostname" => escaped(&status.hostname),
        "version" => env!("CARGO_PKG_VERSION").to_owned(),
        "state" => state.to_owned(),
        "uptime" => spoken(uptime),
        "shards" if stale > 0 => format!("{} shards, {stale} silent", status.shards),
        "shards" => format!("{} shards", status.shards),
        "connections" => grouped(metrics.gauge(Gauge::Connections)),
        "sessions" => grouped(metrics.total(Counter::Sessions)),
        "messages" => grouped(metrics.total(Counter::MessagesReceived)),
        "recipients" => grouped(metrics.total(Counter::Recipients)),
        "received" => sized(metrics.total(Counter::OctetsReceived)),
        "rate" => format!("{rate:.1}"),
        "sparkline" => sparkline(&per_second),
        "area" => area(&per_second),
        "highest" => grouped(per_second.iter().copied().max().unwrap_or(0)),
        "queue" => grouped(metrics.gauge(Gauge::QueueMessages)),
        "disk" => sized(metrics.gauge(Gauge::FreeDisk)),
        "memory" => sized(metrics.gauge(Gauge::FreeMemory)),
        "bindings" => bindings(&status.bindings),
        "replies" => replies(metrics),
        "events" => events(metrics),
        _ => String::new(),
    };
    filled(include_str!("status.html"), fill)
}

/// Replaces each `{{name}}` of a template.
fn filled(template: &str, mut fill: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&fill(name));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn bindings(bindings: &[BindingStatus]) -> String {
    let mut rows = String::new();
    for binding in bindings {
        let addresses: Vec<_> = binding.addresses.iter().map(|a| format!("<code>{a}</code>")).collect();
        let (name, role, addresses) = (escaped(&binding.name), binding.role, addresses.join(" "));
        let _ = write!(
            rows,
            "<tr><th scope=row>{name}</th><td>{role}</td><td>{addresses}</td></tr>"
        );
    }
    rows
}

fn replies(metrics: &Metrics) -> String {
    let mut rows = String::new();
    for (code, n) in metrics.replies() {
        let class = if n == 0 { "none" } else { "some" };
        let kind = code / 100;
        let _ = write!(
            rows,
            "<li class={class}><b class=k{kind}>{code}</b><span>{}</span></li>",
            grouped(n)
        );
    }
    rows
}

fn events(metrics: &Metrics) -> String {
    let mut rows = String::new();
    for &event in Event::ALL {
        let n = metrics.events(event);
        let class = if n == 0 { "none" } else { "some" };
        let (name, text) = (event.name(), escaped(event.text()));
        let _ = write!(
            rows,
            "<tr class={class}><th scope=row>{name}</th><td class=text>{text}</td><td class=n>{}</td></tr>",
            grouped(n)
        );
    }
    rows
}

/// The last minute as a line, newest to the right.
fn sparkline(per_second: &[u64]) -> String {
    let highest = per_second.iter().copied().max().unwrap_or(0).max(1) as f64;
    let first = SECONDS.saturating_sub(per_second.len());
    let mut points = String::new();
    for (i, n) in per_second.iter().enumerate() {
        let _ = write!(points, "{},{:.1} ", first + i, 39.0 - 37.0 * *n as f64 / highest);
    }
    points
}

/// The line of [`sparkline`], closed at the bottom.
fn area(per_second: &[u64]) -> String {
    let first = SECONDS.saturating_sub(per_second.len());
    format!(
        "{first},40 {}{},40",
        sparkline(per_second),
        (first + per_second.len()).saturating_sub(1)
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// 1234567 as "1 234 567", with spaces that do not break.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

fn sized(octets: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if octets == u64::MAX {
        return "unknown".to_owned();
    }
    let mut shown = (octets as f64, "octets");
    for unit in UNITS {
        if shown.0 < 1024.0 {
            break;
        }
        shown = (shown.0 / 1024.0, unit);
    }
    let places = usize::from(shown.1 != "octets");
    format!("{:.places$} {}", shown.0, shown.1)
}

fn spoken(time: Duration) -> String {
    let s = time.as_secs();
    match (s / 86400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sizes_and_times_read_well() {
        assert_eq!(
            [0, 999, 1000, 1234567].map(grouped),
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!(
            [5, 1024, 1536 << 20, u64::MAX].map(sized),
            ["5 octets", "1.0 KiB", "1.5 GiB", "unknown"]
        );
        assert_eq!(
            [59, 61, 3661, 90000].map(|s| spoken(Duration::from_secs(s))),
            ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
    }

    #[test]
    fn the_history_forgets_what_is_older_than_a_minute_and_survives_a_total_that_falls() {
        let history = History::default();
        (0..200).for_each(|n| history.take(n * 3));
        history.take(0);
        let per_second = history.per_second();
        assert_eq!(
            (per_second.len(), per_second.first(), per_second.last()),
            (SECONDS, Some(&3), Some(&0))
        );
    }

    #[test]
    fn every_place_of_the_page_is_filled_and_names_cannot_leave_theirs() {
        let status = Status {
            phase: Phase::Serving,
            hostname: "mx.test".to_owned(),
            shards: 2,
            bindings: vec![BindingStatus {
                name: "<script>".to_owned(),
                role: "gateway",
                addresses: vec!["127.0.0.1:2525".parse().unwrap()],
            }],
        };
        let page = page(&status, &Metrics::new(1), &History::default(), Duration::ZERO, "abc");
        assert!(!page.contains("{{") && !page.contains("<script"), "{page}");
        let mut names = Vec::new();
        let _ = filled(include_str!("status.html"), |name| {
            names.push(name.to_owned());
            String::new()
        });
        assert!(names.iter().all(|name| !name.is_empty()));
        for shown in [
            "&lt;script&gt;",
            "127.0.0.1:2525",
            "TooManyRecipients",
            "nonce=\"abc\"",
            "serving",
        ] {
            assert!(page.contains(shown), "{shown}");
        }
    }
}
