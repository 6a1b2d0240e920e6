//! The admin pages, and the metrics as text.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use postern::control::Settings;
use postern::control::status::Phase;
use postern::metrics::{Counter, Gauge, Histogram, Metrics};
use postern::smtp::oxsmtp::Event;

use crate::rig::{self, eventually, get, request};

#[test]
fn health_is_life_and_readiness_follows_the_phase_and_the_shards() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let rig = rig::rig(Settings::default(), vec![vec![listener]]);
    assert!(get(rig.admin, "/healthz").starts_with("HTTP/1.1 200 "));
    let not = get(rig.admin, "/readyz");
    assert!(not.starts_with("HTTP/1.1 503 ") && not.ends_with("starting\n"), "{not}");
    *rig.phase.lock().unwrap() = Phase::Serving;
    assert!(get(rig.admin, "/readyz").starts_with("HTTP/1.1 200 "));
    rig.heartbeats.gone(0);
    eventually("a silent shard", || {
        get(rig.admin, "/readyz").starts_with("HTTP/1.1 503 ")
    });
    assert!(get(rig.admin, "/metrics").contains("\npostern_ready 0\n"));
    rig.heartbeats.beat(0, std::time::Instant::now());
    eventually("the shard is back", || {
        get(rig.admin, "/readyz").starts_with("HTTP/1.1 200 ")
    });
    *rig.phase.lock().unwrap() = Phase::Draining;
    assert!(get(rig.admin, "/readyz").ends_with("draining\n"));
}

#[test]
fn the_status_page_stands_alone_and_allows_no_script() {
    let rig = rig::rig(Settings::default(), vec![]);
    rig.metrics.event(Event::TooManyRecipients);
    let page = get(rig.admin, "/");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; style-src 'nonce-"));
    assert!(page.contains("content-type: text/html; charset=utf-8"));
    for absent in ["<script", "http://", "https://", "src=", "style=", "{{"] {
        assert!(!page.contains(absent), "{absent}");
    }
    for present in ["mx.test", "127.0.0.1:2525", "TooManyRecipients", "starting"] {
        assert!(page.contains(present), "{present}");
    }
}

#[test]
fn only_get_is_taken_and_only_for_pages_that_exist() {
    let rig = rig::rig(Settings::default(), vec![]);
    let post = request(
        rig.admin,
        "POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert!(
        post.starts_with("HTTP/1.1 405 ") && post.contains("connection: close"),
        "{post}"
    );
    assert!(get(rig.admin, "/nothing").starts_with("HTTP/1.1 404 "));
    assert!(get(rig.admin, "/../etc/passwd").starts_with("HTTP/1.1 404 "));
    assert!(request(rig.admin, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn the_metrics_page_is_prometheus_text() {
    let rig = rig::rig(Settings::default(), vec![]);
    let page = get(rig.admin, "/metrics");
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4"));
    assert!(body.contains("postern_build_info{version=\""));
    well_formed(body);
}

/// Checks the text format (version 0.0.4); returns each series with its value.
fn well_formed(text: &str) -> HashMap<String, f64> {
    let (mut typed, mut series, mut current) = (HashSet::new(), HashMap::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split_once(' ').unwrap().0.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "HELP goes before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert!(kind != "counter" || name.ends_with("_total"), "{name}");
            assert!(typed.insert(name.to_owned()), "{name} twice");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            assert!(bare.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            assert!(
                bare.strip_prefix(current.as_str())
                    .is_some_and(|s| ["", "_bucket", "_sum", "_count"].contains(&s))
            );
            let value: f64 = value.parse().unwrap();
            assert!(series.insert(name.to_owned(), value).is_none(), "{name} twice");
        }
    }
    series
}

#[test]
fn every_event_and_every_known_code_has_a_series_before_it_happens() {
    let series = well_formed(&Metrics::new(2).render());
    for event in Event::ALL {
        assert_eq!(
            series[&format!("postern_events_total{{event=\"{}\"}}", event.name())],
            0.0
        );
    }
    for code in [
        214, 220, 221, 250, 252, 354, 421, 451, 452, 500, 501, 502, 503, 530, 550, 552, 553, 554,
    ] {
        assert_eq!(series[&format!("postern_replies_total{{code=\"{code}\"}}")], 0.0);
    }
    for custody in ["next_hop", "spool", "delivered"] {
        assert_eq!(
            series[&format!("postern_acknowledgements_total{{custody=\"{custody}\"}}")],
            0.0
        );
    }
    for name in [
        "postern_messages_received_total",
        "postern_connections",
        "postern_queue_messages",
    ] {
        assert_eq!(series[name], 0.0);
    }
}

#[test]
fn what_a_shard_counts_is_what_the_text_says() {
    let metrics = Metrics::new(2);
    let shard = metrics.shard(1).unwrap();
    shard.count(Counter::MessagesReceived);
    shard.reply(599);
    shard.set(Gauge::QueueMessages, 7);
    for millis in [0, 1, 3, 1_000_000] {
        shard.observe(Histogram::Message, Duration::from_millis(millis));
    }
    metrics.zones(&["a\"b\\c\nd".into()]);
    let series = well_formed(&metrics.render());
    assert_eq!(series["postern_messages_received_total"], 1.0);
    assert_eq!(series["postern_replies_total{code=\"599\"}"], 1.0);
    assert_eq!(series["postern_queue_messages"], 7.0);
    assert_eq!(series["postern_message_duration_seconds_bucket{le=\"0.00025\"}"], 1.0);
    assert_eq!(series["postern_message_duration_seconds_bucket{le=\"0.001\"}"], 2.0);
    assert_eq!(series["postern_message_duration_seconds_bucket{le=\"0.004\"}"], 3.0);
    assert_eq!(series["postern_message_duration_seconds_bucket{le=\"+Inf\"}"], 4.0);
    assert_eq!(series["postern_message_duration_seconds_count"], 4.0);
    assert_eq!(series["postern_message_duration_seconds_sum"], 1000.004);
    assert_eq!(series[r#"postern_dnsbl_errors_total{zone="a\"b\\c\nd"}"#], 0.0);
}
