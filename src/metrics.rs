//! Every metric in one table.
//!
//! Promises: counting on a shard is a load and a store of its own cache lines, never an atomic read-modify-write; the
//! columns are summed when somebody looks. Every series exists from the start, and no label value is chosen by a
//! client. Names and units follow the Prometheus conventions (base units, `_total` for counters).
//!
//! A [`ShardMetrics`] lives on its shard; [`Metrics`] itself is for every other thread.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::smtp::oxsmtp::{Event, Reply};

mod exposition;
mod zones;

pub use zones::ZoneMetrics;

macro_rules! table {
    ($enum:ident: $what:literal; $( $name:literal $help:literal { $( $(#[$doc:meta])* $row:ident $labels:literal ),* } )*) => {
        #[doc = $what]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $($( #[doc = $help] $(#[$doc])* $row, )*)* }

        impl $enum {
            /// Every row, in the order of the table.
            pub const ALL: &'static [$enum] = &[$($( $enum::$row, )*)*];
            /// The metrics, each with its help text and its rows.
            const FAMILIES: &'static [Family<$enum>] =
                &[$( Family { name: $name, help: $help, rows: &[$(($enum::$row, $labels)),*] } ),*];
        }
    };
}

struct Family<R: 'static> {
    name: &'static str,
    help: &'static str,
    rows: &'static [(R, &'static str)],
}

table! { Counter: "A number that only grows.";
    "postern_sessions_total" "Connections that were admitted and greeted." { Sessions "" }
    "postern_messages_received_total" "Messages acknowledged with a 250 after their content." { MessagesReceived "" }
    "postern_octets_received_total" "Octets of content of the messages received." { OctetsReceived "" }
    "postern_recipients_total" "Recipients of the messages received." { Recipients "" }
    "postern_acknowledgements_total" "Messages acknowledged, by what held them at that moment." {
        /// The next hop took it.
        AcknowledgedByNextHop r#"custody="next_hop""#,
        /// The spool holds it.
        AcknowledgedBySpool r#"custody="spool""#,
        /// It was delivered here.
        AcknowledgedDelivered r#"custody="delivered""#
    }
    "postern_spool_messages_total" "Messages whose writing to the spool has begun, reports of our own included." { SpoolMessages "" }
    "postern_spool_octets_written_total" "Octets written to the segments of the spool, padding included." { SpoolOctetsWritten "" }
    "postern_spool_syncs_total" "Syncs of segments of the spool (fdatasync)." { SpoolSyncs "" }
    "postern_tls_handshakes_total" "TLS handshakes with clients, by version and what came of them." {
        /// With a signature.
        Tls13Full r#"result="full",version="1.3""#,
        /// With keys of an earlier session.
        Tls13Resumed r#"result="resumed",version="1.3""#,
        /// With a signature.
        Tls12Full r#"result="full",version="1.2""#,
        /// With keys of an earlier session.
        Tls12Resumed r#"result="resumed",version="1.2""#,
        /// The client went away or broke the protocol, or there was nothing to agree on.
        TlsFailed r#"result="failed",version="none""#,
        /// It took too long.
        TlsTimedOut r#"result="timed_out",version="none""#,
        /// The source had begun as many as it may.
        TlsRefused r#"result="refused",version="none""#
    }
    "postern_logons_total" "Clients that have tried to authenticate, by how it ended." {
        /// With success.
        Logons r#"result="accepted""#,
        /// With a wrong name or password, or a broken message.
        LogonsFailed r#"result="refused""#
    }
    "postern_password_comparisons_total" "Passwords held against a hash; for a name that nobody has against somebody's." { PasswordsCompared "" }
    "postern_session_panics_total" "Sessions ended by a defect of this program." { SessionPanics "" }
    "postern_accept_errors_total" "Connections that the system could not hand over." { AcceptErrors "" }
    "postern_questions_refused_total" "Look-ups skipped because too many were waiting." { QuestionsRefused "" }
    "postern_shard_nudges_total" "Shards woken because their timer was late." { Nudges "" }
    "postern_standin_replies_total" "Connections answered in place of a shard that hangs or has died." { StandInReplies "" }
    "postern_log_lines_dropped_total" "Log lines lost because the log could not be written fast enough." { LogLinesDropped "" }
}

table! { Gauge: "A number that rises and falls.";
    "postern_connections" "Connections open now." { Connections "" }
    "postern_queue_messages" "Messages acknowledged and not yet delivered." { QueueMessages "" }
    "postern_free_disk_bytes" "Space left for messages, on the fullest of the file systems in use." { FreeDisk "" }
    "postern_free_memory_bytes" "Memory left to this process by the host and its control group." { FreeMemory "" }
    "postern_ready" "1 while new mail is taken." { Ready "" }
    "postern_shards_stale" "Shards whose heartbeat has stopped." { StaleShards "" }
    "postern_uptime_seconds" "Seconds since the start." { Uptime "" }
}

table! { Histogram: "A distribution of durations.";
    "postern_message_duration_seconds" "From the command that begins the content to the final reply." { Message "" }
    "postern_delivery_duration_seconds" "From the end of the content until it is durable or handed on." { Delivery "" }
}

/// The upper bound of the first bucket in microseconds; each further bucket is twice as wide: 250 µs to 262 s.
const FIRST_BUCKET_US: u64 = 250;
const BUCKETS: usize = 21;

/// Reply codes have a place each; RFC 5321 section 4.2.1 has no others.
const FIRST_CODE: u16 = 200;
const CODES: usize = 400;

/// What one writer has counted.
struct Column {
    counters: [AtomicU64; Counter::ALL.len()],
    gauges: [AtomicU64; Gauge::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
    replies: [AtomicU64; CODES],
    histograms: [Distribution; Histogram::ALL.len()],
}

struct Distribution {
    /// The last one has no upper bound.
    buckets: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

impl Column {
    fn new() -> Column {
        Column {
            counters: [const { AtomicU64::new(0) }; _],
            gauges: [const { AtomicU64::new(0) }; _],
            events: [const { AtomicU64::new(0) }; _],
            replies: [const { AtomicU64::new(0) }; _],
            histograms: [const {
                Distribution {
                    buckets: [const { AtomicU64::new(0) }; _],
                    sum_us: AtomicU64::new(0),
                }
            }; _],
        }
    }

    fn reply(&self, code: u16) -> Option<&AtomicU64> {
        self.replies.get(usize::from(code.checked_sub(FIRST_CODE)?))
    }
}

/// The numbers of the whole process.
pub struct Metrics {
    shards: Vec<Arc<CachePadded<Column>>>,
    /// For every thread that is no shard.
    others: CachePadded<Column>,
    /// Touched by the control thread only, so the lock is never contended. As many as zones are configured.
    zones: Mutex<Vec<Arc<ZoneMetrics>>>,
}

impl Metrics {
    /// All zeros, with a column for each shard.
    pub fn new(shards: usize) -> Arc<Metrics> {
        Arc::new(Metrics {
            shards: (0..shards).map(|_| Arc::new(CachePadded::new(Column::new()))).collect(),
            others: CachePadded::new(Column::new()),
            zones: Mutex::default(),
        })
    }

    /// The column of a shard, none where there is no such shard: to be called on the shard's own thread, whose later clones
    /// are the column's only writers.
    pub fn shard(&self, index: usize) -> Option<ShardMetrics> {
        Some(ShardMetrics {
            column: self.shards.get(index)?.clone(),
            here: PhantomData,
        })
    }

    /// Counts one, on a thread that is no shard.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several, on a thread that is no shard.
    pub fn add(&self, counter: Counter, n: u64) {
        self.others.counters[counter as usize].fetch_add(n, Relaxed);
    }

    /// Counts an event, on a thread that is no shard.
    pub fn event(&self, event: Event) {
        self.others.events[event as usize].fetch_add(1, Relaxed);
    }

    /// Counts a reply, on a thread that is no shard.
    pub fn reply(&self, code: u16) {
        if let Some(cell) = self.others.reply(code) {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// Takes over a total that is counted elsewhere, instead of [`Metrics::add`] for that counter.
    pub fn carry(&self, counter: Counter, total: u64) {
        self.others.counters[counter as usize].store(total, Relaxed);
    }

    /// Sets the part of a gauge that belongs to no shard.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.others.gauges[gauge as usize].store(value, Relaxed);
    }

    /// A counter, all threads together.
    pub fn total(&self, counter: Counter) -> u64 {
        self.sum(|c| &c.counters[counter as usize])
    }

    /// A gauge, all threads together.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.sum(|c| &c.gauges[gauge as usize])
    }

    /// How often an event has answered.
    pub fn events(&self, event: Event) -> u64 {
        self.sum(|c| &c.events[event as usize])
    }

    /// Every reply code that this server has a text for, and any other that was sent, with how often.
    pub fn replies(&self) -> Vec<(u16, u64)> {
        let sums = (0..CODES).map(|i| self.sum(|c| &c.replies[i]));
        let codes = FIRST_CODE..;
        codes
            .zip(sums)
            .filter(|&(code, n)| n > 0 || KNOWN_CODES[usize::from(code - FIRST_CODE)])
            .collect()
    }

    fn sum(&self, cell: impl Fn(&Column) -> &AtomicU64) -> u64 {
        // Wrapping: a gauge may be raised on one column and lowered on another.
        let own = cell(&self.others).load(Relaxed);
        self.shards
            .iter()
            .fold(own, |sum, column| sum.wrapping_add(cell(column).load(Relaxed)))
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

/// The codes of the table and of the replies with variable text, by code minus [`FIRST_CODE`].
const KNOWN_CODES: [bool; CODES] = {
    const fn code(text: &str) -> usize {
        let b = text.as_bytes();
        (b[0] - b'0') as usize * 100 + (b[1] - b'0') as usize * 10 + (b[2] - b'0') as usize
    }
    let mut known = [false; CODES];
    let mut i = 0;
    while i < Event::ALL.len() {
        known[code(Event::ALL[i].text()) - FIRST_CODE as usize] = true;
        i += 1;
    }
    i = 0;
    while i < Reply::ALL.len() {
        known[code(Reply::ALL[i].text()) - FIRST_CODE as usize] = true;
        i += 1;
    }
    known[220 - FIRST_CODE as usize] = true; // the greeting
    known[250 - FIRST_CODE as usize] = true; // HELO, EHLO, the acknowledgement
    known
};

/// The column of one shard. It cannot leave its thread: only one writer may do without read-modify-write.
#[derive(Clone)]
pub struct ShardMetrics {
    column: Arc<CachePadded<Column>>,
    here: PhantomData<Rc<()>>,
}

impl ShardMetrics {
    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several.
    pub fn add(&self, counter: Counter, n: u64) {
        bump(&self.column.counters[counter as usize], n);
    }

    /// Counts a reply by its code; what is no reply code counts nothing.
    pub fn reply(&self, code: u16) {
        if let Some(cell) = self.column.reply(code) {
            bump(cell, 1);
        }
    }

    /// Counts an event.
    pub fn event(&self, event: Event) {
        bump(&self.column.events[event as usize], 1);
    }

    /// Raises this shard's part of a gauge by one.
    pub fn raise(&self, gauge: Gauge) {
        bump(&self.column.gauges[gauge as usize], 1);
    }

    /// Lowers this shard's part of a gauge by one.
    pub fn lower(&self, gauge: Gauge) {
        bump(&self.column.gauges[gauge as usize], u64::MAX);
    }

    /// Sets this shard's part of a gauge.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.column.gauges[gauge as usize].store(value, Relaxed);
    }

    /// Takes a duration into a distribution.
    pub fn observe(&self, histogram: Histogram, taken: Duration) {
        let (distribution, us) = (&self.column.histograms[histogram as usize], micros(taken));
        bump(&distribution.buckets[bucket(us)], 1);
        bump(&distribution.sum_us, us);
    }
}

impl std::fmt::Debug for ShardMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShardMetrics")
    }
}

fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

fn micros(taken: Duration) -> u64 {
    u64::try_from(taken.as_micros()).unwrap_or(u64::MAX)
}

/// The first bucket whose bound is not below `us`.
fn bucket(us: u64) -> usize {
    let firsts = us.div_ceil(FIRST_BUCKET_US);
    let doublings = u64::BITS - firsts.saturating_sub(1).leading_zeros();
    (doublings as usize).min(BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_shards_and_other_threads_are_summed() {
        let metrics = Metrics::new(2);
        std::thread::scope(|scope| {
            for i in 0..2 {
                let metrics = &metrics;
                scope.spawn(move || {
                    let shard = metrics.shard(i).unwrap();
                    shard.add(Counter::OctetsReceived, 40);
                    shard.raise(Gauge::Connections);
                    shard.raise(Gauge::Connections);
                    shard.lower(Gauge::Connections);
                    shard.reply(250);
                    shard.event(Event::TooManyRecipients);
                });
            }
            metrics.add(Counter::OctetsReceived, 2);
        });
        assert_eq!(metrics.total(Counter::OctetsReceived), 82);
        assert_eq!(metrics.gauge(Gauge::Connections), 2);
        assert_eq!(metrics.events(Event::TooManyRecipients), 2);
        assert!(metrics.replies().contains(&(250, 2)));
    }

    #[test]
    fn a_code_that_no_reply_can_have_counts_nothing() {
        let metrics = Metrics::new(1);
        let shard = metrics.shard(0).unwrap();
        for code in [0, 99, 199, 600, u16::MAX] {
            shard.reply(code);
        }
        assert!(metrics.replies().iter().all(|&(_, n)| n == 0));
    }

    #[test]
    fn a_shard_beyond_the_last_has_no_column() {
        assert!(Metrics::new(1).shard(1).is_none());
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_is_not_below_it() {
        assert_eq!(
            (bucket(0), bucket(250), bucket(251), bucket(500), bucket(501)),
            (0, 0, 1, 1, 2)
        );
        assert_eq!(
            (bucket(250 << 20), bucket((250 << 20) + 1), bucket(u64::MAX)),
            (20, 21, 21)
        );
    }
}
