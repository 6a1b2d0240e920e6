//! Histograms as an HdrHistogram log (V2, compressed), which the tools of that family read and put together.
//!
//! Promises: one line a stage that has a count, tagged with the stage's name; values in nanoseconds, the longest told in
//! milliseconds as those tools do. Used after a run.

use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// The log prints its longest value divided by this.
const NANOSECONDS_A_MILLISECOND: f64 = 1e6;

/// Writes the log of a window that began `start` and lasted `length`.
pub fn write(
    path: &Path,
    start: SystemTime,
    length: Duration,
    stages: &[(&str, &Histogram<u64>)],
) -> Result<(), String> {
    let log = log(start, length, stages)?;
    std::fs::write(path, log).map_err(|error| format!("{}: {error}", path.display()))
}

fn log(start: SystemTime, length: Duration, stages: &[(&str, &Histogram<u64>)]) -> Result<Vec<u8>, String> {
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(concat!("loadgen ", env!("CARGO_PKG_VERSION"), ", nanoseconds"))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(NANOSECONDS_A_MILLISECOND);
    let mut writer = builder
        .begin_log_with(&mut log, &mut serializer)
        .map_err(|error| format!("histogram log: {error}"))?;
    for (name, histogram) in stages.iter().filter(|(_, histogram)| !histogram.is_empty()) {
        writer
            .write_histogram(histogram, Duration::ZERO, length, Tag::new(name))
            .map_err(|error| format!("histogram log: {error:?}"))?;
    }
    drop(writer);
    Ok(log)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::measure::{latencies, record};

    #[test]
    fn what_is_written_is_read_back_by_tag() {
        let (mut one, empty) = (latencies(), latencies());
        for microseconds in 1..=1000 {
            record(&mut one, Duration::from_micros(microseconds));
        }
        let log = log(
            SystemTime::UNIX_EPOCH,
            Duration::from_secs(5),
            &[("final_reply", &one), ("tls", &empty)],
        )
        .unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let encoded = base64::engine::general_purpose::STANDARD
                    .decode(interval.encoded_histogram())
                    .unwrap();
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut encoded.as_slice()).unwrap();
                assert!(
                    (interval.max() - 1.0).abs() < 0.01,
                    "a millisecond, not {}",
                    interval.max()
                );
                found.push((interval.tag().unwrap().as_str().to_owned(), histogram));
            }
        }
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "final_reply");
        assert_eq!(found[0].1.len(), 1000);
        assert_eq!(found[0].1.value_at_quantile(0.5), one.value_at_quantile(0.5));
    }
}
