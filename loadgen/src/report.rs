//! The figures of a run as text for people and as JSON for programs.
//!
//! Promises: both say the same; a figure that is not known is left out, not shown as zero. Pure.

use std::fmt::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::source::Findings;

/// Share of its core, or of its CPU time when it never sleeps, above which the generator may have been the limit.
const BUSY: f64 = 0.9;
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

impl Findings {
    /// Accepted messages in a second.
    pub fn rate(&self) -> f64 {
        self.counts.accepted as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// CPU time of the server for an accepted message, in microseconds.
    pub fn server_cpu_a_message(&self) -> Option<f64> {
        self.a_message(self.server_cpu?)
    }

    /// CPU time of the generator for an accepted message, in microseconds, without that in which there was nothing to do.
    pub fn own_cpu_a_message(&self) -> Option<f64> {
        self.a_message(self.work())
    }

    /// Share of its cores that the generator used for its work.
    pub fn own_share(&self) -> f64 {
        self.work().as_secs_f64() / (self.elapsed.as_secs_f64().max(1e-9) * self.executors.max(1) as f64)
    }

    /// Share of its CPU time in which a generator that never sleeps had nothing to do; none of one that sleeps.
    pub fn idle_share(&self) -> Option<f64> {
        let own = self.own_cpu.as_secs_f64().max(1e-9);
        self.busy_poll.then(|| (1.0 - self.work().as_secs_f64() / own).max(0.0))
    }

    /// Whether the generator may have been the limit, not the server.
    pub fn generator_was_busy(&self) -> bool {
        self.idle_share().map_or(self.own_share(), |idle| 1.0 - idle) > BUSY
    }

    fn work(&self) -> Duration {
        match self.busy_poll {
            true => self.own_cpu.saturating_sub(self.idle),
            false => self.own_cpu,
        }
    }

    fn a_message(&self, time: Duration) -> Option<f64> {
        (self.counts.accepted > 0).then(|| time.as_secs_f64() * 1e6 / self.counts.accepted as f64)
    }

    /// The figures as JSON; times in microseconds.
    pub fn to_json(&self) -> Value {
        let counts = &self.counts;
        let replies: serde_json::Map<_, _> = counts
            .replies()
            .map(|(code, count)| (code.to_string(), json!(count)))
            .collect();
        json!({
            "run": format!("{:08x}", self.run),
            "seconds": self.elapsed.as_secs_f64(),
            "messages": counts.accepted,
            "messages_per_second": self.rate(),
            "failures_in_whole_run": self.failures,
            "refused": counts.refused,
            "lost": counts.lost,
            "unanswered": counts.unanswered,
            "connections": counts.connections,
            "connect_failures": counts.connect_failures,
            "turned_away": counts.turned_away,
            "malformed": counts.malformed,
            "replies": replies,
            "final_reply_us": quantiles(&counts.final_reply),
            "transaction_us": quantiles(&counts.transaction),
            "from_plan_us": quantiles(&counts.from_plan),
            "begun_late_us": quantiles(&counts.begun_late),
            "greeting_us": quantiles(&counts.greeting),
            "server_cpu_us_per_message": self.server_cpu_a_message(),
            "server_cpu_share": self.server_cpu.map(|cpu| cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)),
            "generator_cpu_us_per_message": self.own_cpu_a_message(),
            "generator_cpu_share": self.own_share(),
            "generator_idle_share": self.idle_share(),
            "generator_was_the_limit": self.generator_was_busy(),
            "pipelining_not_offered": self.pipelining_denied,
            "stopped": self.stopped,
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "{} messages accepted in {:.2} s: {:.0} messages/s (run {:08x})",
            counts.accepted,
            self.elapsed.as_secs_f64(),
            self.rate(),
            self.run
        )?;
        let mut replies = String::new();
        for (code, count) in counts.replies() {
            write!(replies, "  {code}: {count}")?;
        }
        writeln!(f, "replies    {replies}")?;
        if counts.connections > 0 {
            writeln!(f, "connections  {} made", counts.connections)?;
        }
        latency(f, "final reply", &counts.final_reply)?;
        latency(f, "transaction", &counts.transaction)?;
        latency(f, "from plan", &counts.from_plan)?;
        latency(f, "begun late", &counts.begun_late)?;
        latency(f, "greeting", &counts.greeting)?;
        if let (Some(cpu), Some(total)) = (self.server_cpu_a_message(), self.server_cpu) {
            let share = total.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9) * 100.0;
            writeln!(f, "server       {cpu:.2} µs CPU a message, {share:.0} % of a core")?;
        }
        if let Some(cpu) = self.own_cpu_a_message() {
            let each = |count: u64| count as f64 / counts.accepted as f64;
            writeln!(
                f,
                "generator    {cpu:.2} µs CPU a message, {:.0} % of {}; {:.2} sends, {:.2} receives, {:.2} wakes a message",
                self.own_share() * 100.0,
                if self.executors > 1 { "its cores" } else { "a core" },
                each(counts.sends),
                each(counts.receives),
                each(counts.wakes)
            )?;
        }
        if let Some(idle) = self.idle_share() {
            writeln!(
                f,
                "busy poll    nothing to do in {:.1} % of the generator's CPU time, not counted above",
                idle * 100.0
            )?;
        }
        self.problems(f)
    }
}

impl Findings {
    fn problems(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        if self.generator_was_busy() {
            writeln!(
                f,
                "WARNING      the generator was busy: it, not the server, may have been the limit"
            )?;
        }
        if self.pipelining_denied {
            writeln!(
                f,
                "WARNING      the server does not offer PIPELINING: commands were sent one at a time"
            )?;
        }
        let kinds = [
            (counts.refused, "messages refused"),
            (
                counts.lost,
                "messages lost: the connection ended before the final reply",
            ),
            (
                counts.unanswered,
                "messages without a final reply when the run was over",
            ),
            (counts.connect_failures, "connections failed"),
            (counts.turned_away, "connections turned away at greeting or EHLO"),
            (counts.malformed, "connections with something that is no SMTP reply"),
        ];
        for (count, what) in kinds.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "FAILED       {count} {what}")?;
        }
        if self.failures > counts.failures() {
            writeln!(
                f,
                "FAILED       {} more outside the measured window",
                self.failures - counts.failures()
            )?;
        }
        match &self.stopped {
            Some(why) => writeln!(f, "STOPPED      {why}"),
            None => Ok(()),
        }
    }
}

fn latency(f: &mut fmt::Formatter<'_>, name: &str, histogram: &Histogram<u64>) -> fmt::Result {
    if histogram.is_empty() {
        return Ok(());
    }
    write!(f, "{name:<13}")?;
    for (label, quantile) in QUANTILES {
        write!(f, "{label} {}  ", readable(histogram.value_at_quantile(quantile)))?;
    }
    writeln!(f)
}

/// Nanoseconds in the unit that fits.
pub fn readable(nanoseconds: u64) -> String {
    match nanoseconds as f64 {
        n if n < 1e6 => format!("{:.0} µs", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let all: serde_json::Map<_, _> = QUANTILES
        .iter()
        .map(|(label, quantile)| {
            (
                (*label).into(),
                json!(histogram.value_at_quantile(*quantile) as f64 / 1e3),
            )
        })
        .collect();
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Counts, record};

    fn findings() -> Findings {
        let mut counts = Counts::new();
        counts.accepted = 1000;
        counts.reply(250);
        record(&mut counts.final_reply, Duration::from_micros(100));
        Findings {
            counts,
            failures: 0,
            elapsed: Duration::from_secs(2),
            own_cpu: Duration::from_millis(10),
            idle: Duration::ZERO,
            executors: 1,
            server_cpu: Some(Duration::from_millis(20)),
            pipelining_denied: false,
            busy_poll: false,
            stopped: None,
            run: 7,
        }
    }

    #[test]
    fn rates_and_cpu_time_are_for_each_accepted_message() {
        let findings = findings();
        assert_eq!(findings.rate(), 500.0);
        assert_eq!(findings.server_cpu_a_message(), Some(20.0));
        assert_eq!(findings.own_cpu_a_message(), Some(10.0));
        let json = findings.to_json();
        assert_eq!(
            (json["messages"].as_u64(), json["replies"]["250"].as_u64()),
            (Some(1000), Some(1))
        );
        assert!(json["greeting_us"].is_null());
    }

    #[test]
    fn a_generator_that_used_its_core_up_warns() {
        let mut findings = findings();
        assert!(!findings.to_string().contains("WARNING"));
        findings.own_cpu = Duration::from_millis(1900);
        assert!(findings.to_string().contains("WARNING"));
    }

    #[test]
    fn a_generator_that_never_sleeps_warns_by_the_time_it_had_nothing_to_do() {
        let mut findings = findings();
        findings.busy_poll = true;
        findings.own_cpu = Duration::from_secs(2);
        findings.idle = Duration::from_secs(1);
        let text = findings.to_string();
        assert!(!text.contains("WARNING") && text.contains("50.0 % of the generator"), "{text}");
        assert_eq!(findings.own_cpu_a_message(), Some(1000.0));
        findings.idle = Duration::from_millis(100);
        assert!(findings.to_string().contains("WARNING"));
    }

    #[test]
    fn failures_are_told_by_kind() {
        let mut findings = findings();
        findings.counts.lost = 3;
        findings.failures = 5;
        let text = findings.to_string();
        assert!(
            text.contains("3 messages lost") && text.contains("2 more outside"),
            "{text}"
        );
    }
}
