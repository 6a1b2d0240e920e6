//! Pages of runs that never were.

use serde_json::json;

use super::*;

fn figures(p99: f64) -> Value {
    json!({
        "date": "2026-01-01T00:00:00Z", "target": "127.0.0.1:25", "run": "0000abcd",
        "messages": 12_345, "messages_per_second": 1234.5, "failures_in_whole_run": 3, "refused": 2, "lost": 1,
        "generator_was_the_limit": true, "pipelining_not_offered": false,
        "thresholds_missed": ["p99>20ms: 25 ms"],
        "replies": { "250": 5000, "354": 1000, "451": 2, "550": 1 },
        "stages": {
            "final_reply": { "count": 1000, "mean": 150.0, "p50": 100.0, "p90": 200.0, "p99": p99, "p99.9": 900.0, "max": 5000.0,
                "series": [[0.0, 20.0], [50.0, 100.0], [90.0, 200.0], [99.0, p99], [99.9, 900.0], [100.0, 5000.0]] },
            "tls": null,
        },
        "timeline": { "row_seconds": 1.0, "rows": [[0.0, 900.0, 0, 90, 300, 800], [1.0, 1300.0, 3, null, null, null]] },
        "window": [1.0, 2.0],
        "scenario": { "connections": 50, "size": "4096", "rate": null, "name": "<script>alert(1)</script>" },
        "host": { "kernel": "6.1", "cpu": "a & b" }, "sysctl": { "net.core.somaxconn": "4096" },
    })
}

fn run(name: &str, p99: f64) -> Run {
    Run {
        name: name.into(),
        figures: figures(p99),
    }
}

/// Whether every element that is opened is closed, in order.
fn is_well_formed(page: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.split_once("</style>").unwrap().1;
    open.push("html");
    open.push("head");
    while let Some((_, tag)) = rest.split_once('<') {
        let (tag, behind) = tag.split_once('>').ok_or("a tag without end")?;
        rest = behind;
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes nothing; open are {open:?}"));
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("open at the end: {open:?}"))
    }
}

#[test]
fn a_page_is_well_formed_and_refers_to_nothing() {
    for runs in [vec![run("a", 300.0)], vec![run("a <b>", 300.0), run("c", 400.0)]] {
        let page = render(&runs);
        is_well_formed(&page).unwrap();
        for outside in [
            "http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link", "<img",
        ] {
            assert!(!page.contains(outside), "{outside} is in the page");
        }
        assert!(page.contains("&lt;script&gt;") && page.contains("prefers-color-scheme: dark"));
        assert!(!page.contains("NaN"));
    }
}

#[test]
fn a_page_says_what_matters() {
    let page = render(&[run("a", 300.0)]);
    for text in [
        "1\u{202f}234",
        "300 µs",
        "may have been the limit",
        "p99&gt;20ms: 25 ms",
        "net.core.somaxconn",
        "messages refused",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("<figure>").count(), 4);
}

#[test]
fn two_runs_are_laid_side_by_side() {
    let page = render(&[run("old", 300.0), run("new", 600.0)]);
    assert!(page.contains("<th>new / old</th>") && page.contains("<td>2.000</td>"));
    assert!(page.contains("old: final reply") && page.contains("new: final reply"));
}

#[test]
fn a_page_can_be_made_of_figures_that_lack_nearly_everything() {
    let page = render(&[Run {
        name: "a".into(),
        figures: json!({}),
    }]);
    is_well_formed(&page).unwrap();
}

#[test]
fn times_have_the_unit_that_fits() {
    let texts = [0.5, 12.34, 999.0, 1500.0, 25_000.0, 1_500_000.0].map(time);
    assert_eq!(texts, ["0.5 µs", "12.3 µs", "999 µs", "1.5 ms", "25 ms", "1.5 s"]);
    assert_eq!(
        [1.0, 999.0, 1000.0, 1_234_567.0].map(count),
        ["1", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
    );
}
