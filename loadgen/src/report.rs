//! The figures of a run as text for people and as JSON for programs.
//!
//! Promises: both say the same; a figure that is not known is left out, not shown as zero. Pure.

use std::fmt::{self, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::flags::LoadFlags;
use crate::page::{self, Run};
use crate::source::Findings;
use crate::{hdr, host};

/// Share of its core, or of its CPU time when it never sleeps, above which the generator may have been the limit.
const BUSY: f64 = 0.9;
/// Percentiles whose curve is drawn.
const CURVE: [f64; 25] = [
    0.0, 1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.5, 98.0, 99.0,
    99.5, 99.9, 99.95, 99.99, 99.999, 100.0,
];
/// Those that `--json` names, beside the mean.
const NAMED: [(&str, f64); 8] = [
    ("p50", 50.0),
    ("p75", 75.0),
    ("p90", 90.0),
    ("p95", 95.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
    ("max", 100.0),
];
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
        self.share_of(self.work())
    }

    fn share_of(&self, time: Duration) -> f64 {
        time.as_secs_f64() / (self.elapsed.as_secs_f64().max(1e-9) * self.executors.max(1) as f64)
    }

    /// Share of its CPU time in which a generator that never sleeps had nothing to do; none of one that sleeps.
    pub fn idle_share(&self) -> Option<f64> {
        let own = self.own_cpu.as_secs_f64().max(1e-9);
        self.busy_poll.then(|| (1.0 - self.work().as_secs_f64() / own).max(0.0))
    }

    /// Whether the generator may have been the limit, not the server.
    pub fn generator_was_busy(&self) -> bool {
        let share = match self.idle_share() {
            Some(idle) => 1.0 - idle,
            None => self.share_of(self.own_cpu.saturating_sub(self.idle)),
        };
        share > BUSY
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

    /// The figures with all that is kept of a run, and the thresholds that it missed.
    pub fn judged(&self, flags: &LoadFlags) -> (Value, Vec<String>) {
        let mut figures = self.to_json();
        let missed: Vec<String> = flags
            .fail_if
            .iter()
            .filter_map(|threshold| threshold.missed_by(&figures))
            .collect();
        if let Some(figures) = figures.as_object_mut() {
            figures.insert("target".into(), self.target.clone().into());
            figures.insert("date".into(), host::date().into());
            figures.insert("scenario".into(), flags.to_json());
            figures.insert("timeline".into(), self.timeline.to_json(self.ended));
            let since = |then: Instant| then.saturating_duration_since(self.began).as_secs_f64();
            let opened = self.closed.checked_sub(self.elapsed).unwrap_or(self.began);
            figures.insert("window".into(), json!([since(opened), since(self.closed)]));
            figures.insert("thresholds_missed".into(), json!(missed));
            figures.insert("host".into(), host::facts());
            figures.insert("sysctl".into(), host::sysctl());
        }
        (figures, missed)
    }

    /// Writes `--report` and `--hdr`, if asked for.
    pub fn write_files(&self, flags: &LoadFlags, figures: Value) -> Result<(), String> {
        if let Some(path) = &flags.hdr {
            let start = SystemTime::now().checked_sub(self.elapsed).unwrap_or(UNIX_EPOCH);
            hdr::write(path, start, self.elapsed, &self.counts.stages())?;
        }
        let Some(path) = &flags.report else { return Ok(()) };
        let name = self.target.clone();
        page::write(path, &[Run { name, figures }])
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
            "refused_as_expected": counts.refused_as_expected,
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
            "stages": counts.stages().iter().map(|(name, histogram)| ((*name).into(), stage(histogram)))
                .collect::<serde_json::Map<_, _>>(),
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
        write!(
            f,
            "{} messages accepted in {:.2} s: {:.0} messages/s",
            counts.accepted,
            self.elapsed.as_secs_f64(),
            self.rate()
        )?;
        // Several loads at once are as many runs.
        match self.run {
            0 => writeln!(f)?,
            run => writeln!(f, " (run {run:08x})")?,
        }
        let mut replies = String::new();
        for (code, count) in counts.replies() {
            write!(replies, "  {code}: {count}")?;
        }
        writeln!(f, "replies    {replies}")?;
        if counts.connections > 0 {
            writeln!(f, "connections  {} made", counts.connections)?;
        }
        if counts.refused_as_expected > 0 {
            let refused = counts.refused_as_expected;
            writeln!(
                f,
                "refused      {refused} messages and connections, as was to be expected"
            )?;
        }
        latency(f, "final reply", &counts.final_reply)?;
        latency(f, "transaction", &counts.transaction)?;
        latency(f, "from plan", &counts.from_plan)?;
        latency(f, "begun late", &counts.begun_late)?;
        latency(f, "envelope", &counts.envelope)?;
        latency(f, "content", &counts.content)?;
        latency(f, "connect", &counts.connect)?;
        latency(f, "greeting", &counts.greeting)?;
        latency(f, "tls", &counts.tls)?;
        latency(f, "ehlo", &counts.ehlo)?;
        latency(f, "auth", &counts.auth)?;
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

/// All that is kept of a stage; times in microseconds.
fn stage(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let at = |percentile: f64| histogram.value_at_quantile(percentile / 100.0) as f64 / 1e3;
    let mut all: serde_json::Map<_, _> = NAMED
        .iter()
        .map(|(name, percentile)| ((*name).into(), json!(at(*percentile))))
        .collect();
    all.insert("count".into(), histogram.len().into());
    all.insert("mean".into(), json!(histogram.mean() / 1e3));
    // A percentile that so few samples do not have would be the maximum again and again.
    let told = CURVE
        .iter()
        .filter(|percentile| (100.0 - **percentile) / 100.0 * histogram.len() as f64 >= 1.0);
    let curve: Vec<_> = told
        .chain([&100.0])
        .map(|percentile| json!([percentile, at(*percentile)]))
        .collect();
    all.insert("series".into(), curve.into());
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Counts, record};

    fn findings() -> Findings {
        let now = Instant::now();
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
            target: "127.0.0.1:25".into(),
            began: now,
            closed: now + Duration::from_secs(3),
            ended: now + Duration::from_secs(3),
            timeline: crate::timeline::Timeline::new(now),
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_samples() {
        let mut histogram = crate::measure::latencies();
        let mut dice = crate::sample::Dice::new(5);
        let distribution = crate::sample::Distribution::LogNormal(3e6, 1.2);
        let mut samples: Vec<u64> = (0..20_000).map(|_| distribution.draw(&mut dice) as u64).collect();
        for sample in &samples {
            record(&mut histogram, Duration::from_nanos(*sample));
        }
        samples.sort_unstable();
        let told = stage(&histogram);
        for (name, percentile) in NAMED {
            let rank = ((percentile / 100.0 * 20_000.0_f64).ceil() as usize).clamp(1, 20_000);
            let truth = samples[rank - 1] as f64 / 1e3;
            let found = told[name].as_f64().unwrap();
            assert!((found / truth - 1.0).abs() < 0.002, "{name}: {found} for {truth}");
        }
        let mean = samples.iter().sum::<u64>() as f64 / 20_000.0 / 1e3;
        assert!((told["mean"].as_f64().unwrap() / mean - 1.0).abs() < 0.002);
        let curve = told["series"].as_array().unwrap();
        assert!(
            curve.len() == 24 && curve[23][0] == 100.0 && curve[22][0] == 99.99,
            "{curve:?}"
        );
        assert!(stage(&crate::measure::latencies()).is_null());
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
        // In a part of it there was nothing to do but to look for more.
        findings.idle = Duration::from_millis(300);
        assert!(!findings.to_string().contains("WARNING"));
        assert_eq!(findings.own_cpu_a_message(), Some(1900.0));
    }

    #[test]
    fn a_generator_that_never_sleeps_warns_by_the_time_it_had_nothing_to_do() {
        let mut findings = findings();
        findings.busy_poll = true;
        findings.own_cpu = Duration::from_secs(2);
        findings.idle = Duration::from_secs(1);
        let text = findings.to_string();
        assert!(
            !text.contains("WARNING") && text.contains("50.0 % of the generator"),
            "{text}"
        );
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
