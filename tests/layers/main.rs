//! The architecture as a test: who may import whom, and where what may stand. README.md, "Layers", says it in prose.
//!
//! Promises: a failure names file, line and rule; each rule finds a violation that is planted for it.

mod rules;
mod source;

use std::fs;
use std::path::Path;

use source::Source;

#[test]
fn the_source_keeps_its_layers_and_its_manners() {
    let violations = rules::check(&sources());
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn no_test_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches", "loadgen"] {
        for (path, text) in files(&root.join(folder)) {
            let source = Source::new(&path, &text);
            found.extend(
                rules::left_out(&source)
                    .into_iter()
                    .map(|said| format!("{folder}/{said}")),
            );
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources: Vec<_> = files(&src).iter().map(|(path, text)| Source::new(path, text)).collect();
    assert!(sources.len() > 50, "the source was not found");
    sources
}

/// Every `.rs` file below a folder, by its path in it.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if entry.file_name() != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
                all.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// A tree with one file of each kind, in order.
fn clean() -> Vec<(&'static str, String)> {
    let module = |text: &str| format!("//! What it is.\n{text}\n");
    vec![
        (
            "lib.rs",
            module("pub mod smtp;\npub mod shard;\npub mod control;\npub mod policy;\n"),
        ),
        ("main.rs", module("fn main() { postern::cli::run(); }")),
        (
            "smtp/mod.rs",
            module("pub mod oxsmtp;\npub mod session;\nuse self::oxsmtp::Event;"),
        ),
        (
            "smtp/oxsmtp.rs",
            module("const OK: &str = \"250 2.0.0 OK\";\nuse super::session::X;"),
        ),
        (
            "smtp/session.rs",
            module("use super::oxsmtp::Event;\nuse crate::smtp::oxsmtp;"),
        ),
        ("policy/mod.rs", module("use crate::smtp::session::Terms;")),
        (
            "control/mod.rs",
            module("use tokio::time::sleep;\nfn f() { Instant::now(); }"),
        ),
        (
            "shard/mod.rs",
            module("mod clock;\nmod listener;\nuse glommio::timer::Timer;\nuse crate::policy;"),
        ),
        ("shard/clock.rs", module("pub fn now() { Instant::now() }")),
        (
            "shard/listener.rs",
            module("#[cfg(test)]\nmod tests {\n    fn t() { SystemTime::now(); \"250 2.0.0 OK\" }\n}"),
        ),
    ]
}

fn said_with(path: &str, line: &str) -> Vec<String> {
    let mut tree = clean();
    match tree.iter_mut().find(|(p, _)| *p == path) {
        Some((_, text)) => text.push_str(line),
        None => tree.push((Box::leak(path.to_owned().into_boxed_str()), line.to_owned())),
    }
    let sources: Vec<_> = tree.iter().map(|(path, text)| Source::new(path, text)).collect();
    rules::check(&sources)
}

#[test]
fn a_tree_in_order_breaks_no_rule() {
    assert_eq!(said_with("lib.rs", ""), Vec::<String>::new());
}

#[test]
fn every_rule_finds_the_violation_planted_for_it() {
    let long_file = "// x\n".repeat(rules::FILE_LINES + 1);
    let left_out = format!("fn f() {{ {}() }}", rules::LEFT_OUT[0]);
    let long_function = format!("fn f() {{\n{}}}\n", "    x();\n".repeat(rules::FUNCTION_LINES));
    for (path, planted, rule) in [
        (
            "smtp/session.rs",
            "use crate::policy::Policy;",
            "smtp may not use policy",
        ),
        (
            "smtp/session.rs",
            "use super::super::policy;",
            "smtp may not use policy",
        ),
        (
            "smtp/session.rs",
            "use crate::{shard::Shard, smtp::X};",
            "smtp may not use shard",
        ),
        (
            "smtp/session.rs",
            "fn f(x: crate::shard::Shard) {}",
            "smtp may not use shard",
        ),
        ("policy/mod.rs", "use crate::shard::Shard;", "policy may not use shard"),
        (
            "shard/mod.rs",
            "use crate::control::Control;",
            "shard may not use control",
        ),
        (
            "control/mod.rs",
            "use crate::shard::Shard;",
            "control may not use shard",
        ),
        (
            "control/mod.rs",
            "use crate::smtp::session::Session;",
            "control may not use smtp::session",
        ),
        ("policy/mod.rs", "use glommio::net::TcpStream;", "glommio"),
        ("shard/clock.rs", "fn f() { tokio::spawn(x) }", "tokio"),
        ("shard/clock.rs", "fn f() { unsafe {} }", "unsafe"),
        ("smtp/session.rs", "const A: &str = \"221 2.0.0 Bye\";", "reply literal"),
        ("smtp/session.rs", "const A: &[u8] = b\"250-SIZE\";", "reply literal"),
        ("policy/mod.rs", "fn f() { std::time::Instant::now(); }", "clock"),
        ("policy/mod.rs", "fn f(then: Instant) { then.elapsed(); }", "clock"),
        ("policy/lost.rs", "//! What it is.\n", "no module declares"),
        ("policy/mod.rs", &left_out, rules::LEFT_OUT[0]),
        ("policy/mod.rs", "fn get_name() {}", "get_"),
        ("policy/utils.rs", "//! What it is.\n", "says nothing"),
        ("policy/mod.rs", &long_file, "lines"),
        ("policy/mod.rs", &long_function, "function"),
        ("policy/bare.rs", "fn f() {}\n", "//!"),
        ("strange.rs", "//! What it is.\nuse crate::smtp;", "has no layer"),
    ] {
        let said = said_with(path, planted);
        let place = format!("src/{path}:");
        assert!(
            said.iter().any(|s| s.starts_with(&place) && s.contains(rule)),
            "{planted:.60} in {path}: expected `{rule}`, found {said:#?}"
        );
    }
}
