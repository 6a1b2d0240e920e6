//! `postern queue` against a running edge, as an operator types it.

#[path = "../end_to_end/client.rs"]
mod client;
#[path = "../end_to_end/edge.rs"]
mod edge;

mod commands;
mod hop;
mod kept;
mod reload;

use std::process::{Command, Output, Stdio};

use edge::{Edge, Home, eventually};

/// An edge that relays to `hops` and tries again only in an hour.
fn config(hops: &str) -> String {
    format!(
        r#"hostname = "mx.example.com"
shards = 2
[limits]
tarpit = "0s"
acknowledgement_delay = "0s"
max_connections_per_source = 1000
min_free_disk = 0
min_free_memory = 0
message_rate = 0
[[binding]]
name = "mx"
address = ["127.0.0.1:0"]
[domains]
accepted = ["*"]
[[next_hop]]
to = ["{hops}"]
tls = "off"
[queue]
retry = ["1h"]
[admin]
listen = "ADMIN"
"#
    )
}

/// `postern queue` with these words, for the edge of this folder.
fn queue(home: &Home, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern"))
        .arg("queue")
        .args(words)
        .args(["--config", "postern.toml"])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The same, which is to succeed: what it wrote.
fn ok(edge: &Edge, words: &[&str]) -> String {
    let output = queue(edge.home(), words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    assert_eq!(error, "");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, which is to fail: what it said.
fn fails(home: &Home, words: &[&str]) -> String {
    let output = queue(home, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("postern: ") && said.lines().count() == 1, "{said}");
    said
}

/// What is queued, as the edge says in JSON.
fn listed(edge: &Edge) -> Vec<serde_json::Value> {
    let text = ok(edge, &["list", "--json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until every queued message was tried once and is deferred: their names, in the order of the list.
fn deferred(edge: &Edge, number: usize) -> Vec<String> {
    let mut last = Vec::new();
    assert!(
        eventually(|| {
            last = listed(edge);
            last.len() == number && last.iter().all(|m| m["status"] == "deferred")
        }),
        "{last:#?}"
    );
    last.iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}
