//! The metrics as text: the Prometheus exposition format, version 0.0.4.
//!
//! Promises: HELP and TYPE once for each metric, before its samples; every series of the table, also while it is zero.
//! Lives on the control thread.

use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{BUCKETS, Counter, FIRST_BUCKET_US, Gauge, Histogram, Metrics, ZoneMetrics};
use crate::smtp::oxsmtp::Event;

impl Metrics {
    /// All of it in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        family(&mut out, "postern_build_info", "The version that runs.", "gauge");
        sample(
            &mut out,
            "postern_build_info",
            concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
            1,
        );
        for f in Counter::FAMILIES {
            family(&mut out, f.name, f.help, "counter");
            f.rows
                .iter()
                .for_each(|&(row, labels)| sample(&mut out, f.name, labels, self.total(row)));
        }
        family(&mut out, "postern_replies_total", "Replies sent, by code.", "counter");
        for (code, n) in self.replies() {
            sample(&mut out, "postern_replies_total", &format!("code=\"{code}\""), n);
        }
        family(
            &mut out,
            "postern_events_total",
            "Limits passed and refusals of the server's state, by event.",
            "counter",
        );
        for &event in Event::ALL {
            sample(
                &mut out,
                "postern_events_total",
                &format!("event=\"{}\"", event.name()),
                self.events(event),
            );
        }
        for f in Gauge::FAMILIES {
            family(&mut out, f.name, f.help, "gauge");
            f.rows
                .iter()
                .for_each(|&(row, labels)| sample(&mut out, f.name, labels, self.gauge(row)));
        }
        for f in Histogram::FAMILIES {
            family(&mut out, f.name, f.help, "histogram");
            f.rows
                .iter()
                .for_each(|&(row, _)| self.render_histogram(&mut out, f.name, row));
        }
        self.render_zones(&mut out);
        out
    }

    fn render_histogram(&self, out: &mut String, name: &str, row: Histogram) {
        let mut below = 0;
        for bucket in 0..=BUCKETS {
            below += self.sum(|c| &c.histograms[row as usize].buckets[bucket]);
            let bound = match bucket {
                BUCKETS => "+Inf".to_owned(),
                _ => ((FIRST_BUCKET_US << bucket) as f64 / 1e6).to_string(),
            };
            sample(out, &format!("{name}_bucket"), &format!("le=\"{bound}\""), below);
        }
        let sum_us = self.sum(|c| &c.histograms[row as usize].sum_us);
        let _ = writeln!(out, "{name}_sum {}.{:06}", sum_us / 1_000_000, sum_us % 1_000_000);
        sample(out, &format!("{name}_count"), "", below);
    }

    fn render_zones(&self, out: &mut String) {
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let mut each = |name: &str, help: &str, kind: &str, cell: fn(&ZoneMetrics) -> &AtomicU64| {
            family(out, name, help, kind);
            for zone in zones.iter() {
                let label = zone.zone.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
                sample(out, name, &format!("zone=\"{label}\""), cell(zone).load(Relaxed));
            }
        };
        each(
            "postern_dnsbl_errors_total",
            "Questions to a block list without a usable answer.",
            "counter",
            |z| &z.errors,
        );
        each(
            "postern_dnsbl_listed_total",
            "Addresses found on a block list.",
            "counter",
            |z| &z.listed,
        );
        each(
            "postern_dnsbl_failing",
            "1 while a block list fails its test (RFC 5782).",
            "gauge",
            |z| &z.failing,
        );
    }
}

fn family(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}
