//! What a run counted: outcomes, replies, latencies, CPU time, memory; and where the kernel says so.
//!
//! Promises: counting allocates nothing; a figure that could not be read is absent, never zero. CPU time of other
//! processes is the sum over their threads of /proc/PID/task/*/schedstat (nanoseconds), or utime + stime of
//! /proc/PID/stat (ticks) when that is more because threads have ended. Lives on the thread of the source.

use std::fs;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::progress::Glance;

/// Longest latency told apart, in nanoseconds; longer ones count as this.
const LATENCY_MAX: u64 = 600_000_000_000;
/// USER_HZ, which Linux fixes at 100 for /proc on every common architecture.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

/// Counters of one window of a run.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Messages accepted whole: every recipient and the content.
    pub accepted: u64,
    /// Messages that the server refused in a reply.
    pub refused: u64,
    /// Messages and connections that the server refused where that was to be expected: no failures.
    pub refused_as_expected: u64,
    /// Messages whose connection ended before the final reply.
    pub lost: u64,
    /// Messages without a final reply when the run was over.
    pub unanswered: u64,
    /// Connections greeted.
    pub connections: u64,
    /// Connections that could not be made or ended before the greeting.
    pub connect_failures: u64,
    /// Connections whose greeting or EHLO was refused.
    pub turned_away: u64,
    /// Connections that ended with something that is no SMTP reply.
    pub malformed: u64,
    /// Calls of send.
    pub sends: u64,
    /// Calls of recv that found something.
    pub receives: u64,
    /// How often a connection's task was woken.
    pub wakes: u64,
    /// From asking for a connection to its being established, nanoseconds.
    pub connect: Histogram<u64>,
    /// From the established connection, or TLS where that comes first, to the greeting, nanoseconds.
    pub greeting: Histogram<u64>,
    /// From the last octet of the content to the final reply, nanoseconds.
    pub final_reply: Histogram<u64>,
    /// From the first command of a message to its final reply, nanoseconds.
    pub transaction: Histogram<u64>,
    /// Open loop only: from the planned time of a message to its final reply, nanoseconds.
    pub from_plan: Histogram<u64>,
    /// Open loop only: from the planned time of a message to its first command, nanoseconds.
    pub begun_late: Histogram<u64>,
    /// From EHLO to its reply, nanoseconds; of every EHLO, that inside TLS from the end of the handshake on.
    pub ehlo: Histogram<u64>,
    /// From AUTH to its last reply, nanoseconds.
    pub auth: Histogram<u64>,
    /// From the reply to STARTTLS, or from the established connection where TLS comes first, to the end of the handshake, nanoseconds.
    pub tls: Histogram<u64>,
    /// From MAIL to the reply that asks for the content (DATA only), nanoseconds.
    pub envelope: Histogram<u64>,
    /// From the first octet of a content that did not leave at once to its last, nanoseconds.
    pub content: Histogram<u64>,
    replies: Vec<u64>,
}

impl Counts {
    /// All zero.
    pub fn new() -> Self {
        Self {
            accepted: 0,
            refused: 0,
            refused_as_expected: 0,
            lost: 0,
            unanswered: 0,
            connections: 0,
            connect_failures: 0,
            turned_away: 0,
            malformed: 0,
            sends: 0,
            receives: 0,
            wakes: 0,
            connect: latencies(),
            greeting: latencies(),
            final_reply: latencies(),
            transaction: latencies(),
            from_plan: latencies(),
            begun_late: latencies(),
            ehlo: latencies(),
            auth: latencies(),
            tls: latencies(),
            envelope: latencies(),
            content: latencies(),
            replies: vec![0; 1000],
        }
    }

    /// Counts a reply by its code.
    pub fn reply(&mut self, code: u16) {
        if let Some(count) = self.replies.get_mut(usize::from(code)) {
            *count += 1;
        }
    }

    /// Adds what another executor counted.
    pub fn add(&mut self, other: &Self) {
        let Self {
            accepted,
            refused,
            refused_as_expected,
            lost,
            unanswered,
            connections,
            connect_failures,
            turned_away,
            malformed,
            sends,
            receives,
            wakes,
            connect,
            greeting,
            final_reply,
            transaction,
            from_plan,
            begun_late,
            ehlo,
            auth,
            tls,
            envelope,
            content,
            replies,
        } = self;
        for (sum, more) in [
            (accepted, other.accepted),
            (refused, other.refused),
            (refused_as_expected, other.refused_as_expected),
            (lost, other.lost),
            (unanswered, other.unanswered),
            (connections, other.connections),
            (connect_failures, other.connect_failures),
            (turned_away, other.turned_away),
            (malformed, other.malformed),
            (sends, other.sends),
            (receives, other.receives),
            (wakes, other.wakes),
        ] {
            *sum += more;
        }
        for (sum, more) in [
            (connect, &other.connect),
            (greeting, &other.greeting),
            (final_reply, &other.final_reply),
            (transaction, &other.transaction),
            (from_plan, &other.from_plan),
            (begun_late, &other.begun_late),
            (ehlo, &other.ehlo),
            (auth, &other.auth),
            (tls, &other.tls),
            (envelope, &other.envelope),
            (content, &other.content),
        ] {
            // Their bounds are the same, so nothing is left out.
            let _ = sum.add(more);
        }
        for (sum, more) in replies.iter_mut().zip(&other.replies) {
            *sum += more;
        }
    }

    /// Every stage that is measured, by the name that figures have for it.
    pub fn stages(&self) -> [(&'static str, &Histogram<u64>); 11] {
        [
            ("connect", &self.connect),
            ("greeting", &self.greeting),
            ("tls", &self.tls),
            ("ehlo", &self.ehlo),
            ("auth", &self.auth),
            ("envelope", &self.envelope),
            ("content", &self.content),
            ("final_reply", &self.final_reply),
            ("transaction", &self.transaction),
            ("from_plan", &self.from_plan),
            ("begun_late", &self.begun_late),
        ]
    }

    /// What of it is shown while the run lasts.
    pub fn glance(&self) -> Glance {
        Glance {
            accepted: self.accepted,
            refused: self.refused,
            lost: self.lost + self.connect_failures + self.turned_away + self.malformed,
            errors: self
                .replies()
                .filter(|(code, _)| *code >= 400)
                .map(|(code, count)| (code as u16, count))
                .collect(),
            ..Glance::default()
        }
    }

    /// Codes seen, with how often.
    pub fn replies(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.replies.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// Messages and connections that failed.
    pub fn failures(&self) -> u64 {
        self.refused + self.lost + self.unanswered + self.connect_failures + self.turned_away + self.malformed
    }
}

/// An empty histogram of latencies: three significant digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

/// Records one latency.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
}

/// CPU time that this thread has used.
pub fn own_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// CPU time that all threads of this process have used.
pub fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Says which process of `--pid` cannot be measured, before a run is spent on it.
pub fn check_processes(pids: &[u32]) -> Result<(), String> {
    match pids.iter().find(|&&pid| cpu_of_one(pid).is_none()) {
        Some(pid) => Err(format!("process {pid}: /proc/{pid} cannot be read; is it running?")),
        None => Ok(()),
    }
}

/// CPU time that the processes have used together; none when one of them cannot be read, or there are none.
pub fn cpu_of(pids: &[u32]) -> Option<Duration> {
    if pids.is_empty() {
        return None;
    }
    pids.iter().map(|&pid| cpu_of_one(pid)).sum()
}

/// Resident memory of the processes together, in octets.
pub fn resident_of(pids: &[u32]) -> Option<u64> {
    if pids.is_empty() {
        return None;
    }
    pids.iter()
        .map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
                .map(|kib| kib * 1024)
        })
        .sum()
}

fn cpu_of_one(pid: u32) -> Option<Duration> {
    let ticks = ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end between the listing and the reading; its time is then in the ticks.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text
            .split_whitespace()
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Some(Duration::from_nanos(nanoseconds.max(ticks * NANOSECONDS_A_TICK)))
}

/// utime + stime: the 12th and 13th field after the name, which stands in brackets and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_process_is_read_and_grows() {
        let own = [std::process::id()];
        let before = cpu_of(&own).unwrap();
        let thread = own_cpu();
        while own_cpu() - thread < Duration::from_millis(60) {}
        assert!(cpu_of(&own).unwrap() >= before + Duration::from_millis(20));
    }

    #[test]
    fn a_process_that_is_not_there_has_no_figures() {
        assert!(check_processes(&[std::process::id(), u32::MAX]).is_err());
        assert_eq!(cpu_of(&[u32::MAX]), None);
        assert_eq!(resident_of(&[u32::MAX]), None);
        assert_eq!(cpu_of(&[]), None);
    }

    #[test]
    fn the_name_of_a_process_may_hold_brackets_and_spaces() {
        let stat = "12 (a) b 1 2) S 1 1 1 0 -1 4 0 0 0 0 250 50 0 0 20";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn replies_are_counted_by_code() {
        let mut counts = Counts::new();
        for code in [250, 354, 250, 60_000] {
            counts.reply(code);
        }
        assert_eq!(counts.replies().collect::<Vec<_>>(), [(250, 2), (354, 1)]);
    }
}
