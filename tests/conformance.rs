//! README.md against the program: its tables are made from the code, its map is the tree, its log fields are those that
//! are written.
//!
//! Promises: what README.md says between two markers is what the code says today. `POSTERN_BLESS=1 cargo test --test
//! conformance` writes those parts anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postern::config::Config;
use postern::metrics::Metrics;
use postern::smtp::Edition;
use postern::smtp::limits::{ROWS, Value};
use postern::smtp::oxsmtp::{self, Event, Follows, Reply};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    let written = readme();
    let mut made = written.clone();
    for (name, text) in [
        ("configuration", configuration()),
        ("limits", limits()),
        ("conformance", events()),
        ("replies", replies()),
        ("metrics", metrics()),
    ] {
        made = with_part(&made, name, &text);
    }
    if std::env::var_os("POSTERN_BLESS").is_some() {
        fs::write(root().join("README.md"), &made).unwrap();
    } else if let Some((line, is, should)) = first_difference(&written, &made) {
        panic!(
            "README.md:{line} is not what the code says\n  is     {is}\n  should {should}\nto write it anew: \
             POSTERN_BLESS=1 cargo test --test conformance"
        );
    }
}

/// The markers of a part, which stay when the part is written anew.
fn markers(name: &str) -> (String, String) {
    (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"))
}

fn part<'t>(text: &'t str, name: &str) -> &'t str {
    let (open, close) = markers(name);
    let missing = || panic!("README.md has no part between {open}and {close}");
    let (_, after) = text.split_once(&open).unwrap_or_else(missing);
    after.split_once(&close).unwrap_or_else(missing).0
}

fn with_part(text: &str, name: &str, new: &str) -> String {
    let (open, close) = markers(name);
    let old = part(text, name);
    text.replacen(&format!("{open}{old}{close}"), &format!("{open}{new}{close}"), 1)
}

fn first_difference(old: &str, new: &str) -> Option<(usize, String, String)> {
    let (mut old_lines, mut new_lines) = (old.lines(), new.lines());
    for line in 1.. {
        match (old_lines.next(), new_lines.next()) {
            (None, None) => break,
            (is, should) if is == should => {}
            (is, should) => {
                let shown = |line: Option<&str>| line.unwrap_or("(nothing)").to_owned();
                return Some((line, shown(is), shown(should)));
            }
        }
    }
    None
}

/// What runs without a file, as `postern check` prints it.
fn configuration() -> String {
    let mut config = Config::embedded().unwrap();
    config.hostname = "mx.example.com".to_owned();
    format!("```toml\n{}```\n", config.effective())
}

fn limits() -> String {
    let mut table =
        "| key | gateway | relay | range | what it bounds | event |\n|---|---|---|---|---|---|\n".to_owned();
    for row in ROWS {
        let range = match row.most {
            Value::Size(most) if most == u64::MAX >> 1 => format!("{} or more", value(row.least)),
            most => format!("{} to {}", value(row.least), value(most)),
        };
        table += &format!(
            "| `{}` | {} | {} | {range} | {} | {} |\n",
            row.key,
            value(row.gateway),
            value(row.relay),
            row.meaning,
            row.event.map_or(String::new(), |event| format!("`{event}`"))
        );
    }
    table
}

/// As the configuration file writes it.
fn value(value: Value) -> String {
    let whole = |amount: u64, units: &[(&str, u64)]| {
        let unit = units
            .iter()
            .find(|(_, size)| amount > 0 && amount.is_multiple_of(*size));
        unit.map_or(amount.to_string(), |(name, size)| format!("{}{name}", amount / size))
    };
    match value {
        Value::Span(Duration::ZERO) => "0s".to_owned(),
        Value::Span(span) => {
            let units = [
                ("d", 86_400_000),
                ("h", 3_600_000),
                ("m", 60_000),
                ("s", 1_000),
                ("ms", 1),
            ];
            whole(span.as_millis() as u64, &units)
        }
        Value::Size(octets) => whole(
            octets,
            &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)],
        ),
        Value::Count(count) => count.to_string(),
    }
}

fn events() -> String {
    let mut table = "| event | limit | reply | in 2021 | in 2011 |\n|---|---|---|---|---|\n".to_owned();
    for &event in Event::ALL {
        let keys: Vec<_> = ROWS
            .iter()
            .filter(|row| row.event == Some(event.name()))
            .map(|row| format!("`{}`", row.key))
            .collect();
        let follows = |edition| match event.follows(edition) {
            Follows::Close => "closes",
            Follows::Continue => "goes on",
        };
        table += &format!(
            "| `{}` | {} | `{}` | {} | {} |\n",
            event.name(),
            keys.join(", "),
            whole_text(event),
            follows(Edition::Y2021),
            follows(Edition::Y2011)
        );
    }
    table
}

/// Two rows name the client's address.
fn whole_text(event: Event) -> String {
    let mut line = Vec::new();
    match event {
        Event::IPAddressNotAllowedStatic | Event::IPAddressNotAllowedDynamic => {
            let text = Config::embedded().unwrap().access.block_text;
            oxsmtp::ip_address_not_allowed(&mut line, event, "192.0.2.7".parse().unwrap(), &text);
        }
        _ => line.extend_from_slice(event.wire()),
    }
    shown(&line)
}

fn shown(line: &[u8]) -> String {
    std::str::from_utf8(line).unwrap().trim_end().replace("\r\n", "` `")
}

fn replies() -> String {
    let (host, client) = ("mx.example.com", "192.0.2.7".parse().unwrap());
    let mut lines = vec![Vec::new(); 5];
    oxsmtp::greeting(&mut lines[0], host);
    oxsmtp::helo(&mut lines[1], host, client);
    oxsmtp::ehlo(&mut lines[2], host, client, ["SIZE 10485760", "DSN"].into_iter());
    oxsmtp::queued(&mut lines[3], "0AKJXS5P40000");
    oxsmtp::chunk_received(&mut lines[4], 4096);
    let names = [
        "greeting",
        "to HELO",
        "to EHLO, a line for each keyword",
        "to a message in custody",
        "to a chunk",
    ];
    let mut table = "| reply | text |\n|---|---|\n".to_owned();
    for (name, line) in names.iter().zip(&lines) {
        table += &format!("| {name} | `{}` |\n", shown(line));
    }
    for reply in Reply::ALL {
        table += &format!("| `{}` | `{}` |\n", reply.name(), reply.text());
    }
    table
}

fn metrics() -> String {
    let metrics = Metrics::new(1);
    metrics.zones(&["bl.example.net".into()]);
    let text = metrics.render();
    let mut table = "| metric | kind | labels | what it counts |\n|---|---|---|---|\n".to_owned();
    for line in text.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let kind = format!("# TYPE {name} ");
        let kind = text.lines().find_map(|line| line.strip_prefix(&kind)).unwrap();
        let labels: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once('}'))
            .flat_map(|(labels, _)| labels.split(','))
            .filter_map(|label| label.split_once('='))
            .map(|(label, _)| format!("`{label}`"))
            .collect();
        let labels: Vec<_> = labels.into_iter().collect();
        table += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    table
}

#[test]
fn the_map_of_the_readme_shows_every_source_file_and_no_other() {
    let text = readme();
    let mapped = mapped(part(&text, "map"));
    let mut files = BTreeSet::new();
    collect(&root().join("src"), "src", &mut files);
    let missing: Vec<_> = files.difference(&mapped).collect();
    let gone: Vec<_> = mapped.difference(&files).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "the map of README.md misses {missing:#?} and shows {gone:#?}, which is not there"
    );
}

/// The files of a tree drawn by indentation: two spaces a level, a folder ends with a slash.
fn mapped(map: &str) -> BTreeSet<String> {
    let mut folders: Vec<&str> = Vec::new();
    let mut files = BTreeSet::new();
    for line in map.lines().filter(|line| !line.starts_with("```") && !line.is_empty()) {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let Some(name) = line.split_whitespace().next() else {
            continue;
        };
        folders.truncate(depth);
        match name.strip_suffix('/') {
            Some(folder) => folders.push(folder),
            None => assert!(
                files.insert(format!("{}/{name}", folders.join("/"))),
                "{name} stands twice in the map"
            ),
        }
    }
    files
}

fn collect(folder: &Path, name: &str, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let inner = format!("{name}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &inner, files);
        } else if inner.ends_with(".rs") {
            files.insert(inner);
        }
    }
}

#[test]
fn the_readme_explains_every_field_of_the_log() {
    let code = fs::read_to_string(root().join("src/shard/record.rs")).unwrap();
    let text = readme();
    let explained = part(&text, "log");
    let calls = [".field(\"", ".number(\"", ".display(\"", ".seconds(\""];
    let keys: BTreeSet<_> = calls
        .iter()
        .flat_map(|call| code.split(call).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(keys.len() > 15, "the fields were not found: {keys:?}");
    let silent: Vec<_> = keys
        .iter()
        .filter(|key| !explained.contains(&format!("`{key}`")))
        .collect();
    assert!(silent.is_empty(), "README.md does not explain {silent:?}");
}

#[test]
fn the_example_configuration_of_the_readme_is_valid_and_means_what_it_seems_to() {
    let text = readme();
    let example = part(&text, "example")
        .trim()
        .trim_start_matches("```toml")
        .trim_end_matches("```");
    let config = Config::parse(example, "README.md").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert_eq!(config.unsupported(), Vec::<String>::new());
}

#[test]
fn every_file_that_the_papers_point_to_is_there() {
    for paper in ["README.md", "tuning/README.md", "loadgen/README.md"] {
        let path = root().join(paper);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                let target = path.parent().unwrap().join(file);
                assert!(target.exists(), "{paper} points to {link}, which is not there");
            }
        }
    }
}
