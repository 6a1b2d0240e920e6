//! Mail on its way to next hops that work, fail, stall and lie: the real binary between a client and a scripted server.

#[path = "../end_to_end/client.rs"]
mod client;
#[path = "../end_to_end/edge.rs"]
mod edge;
#[path = "../end_to_end/memory.rs"]
mod memory;
#[path = "../end_to_end/settings.rs"]
mod settings;

mod hop;

mod authentication;
mod bounces;
mod connections;
mod content;
mod delays;
mod endings;
mod failures;
mod routes;
mod secure;

use client::Client;
use edge::{Edge, Home};
use hop::Hop;
use settings::Settings;

const FROM: &str = "a@client.test";

/// A route to these targets, with retries every second.
fn to(targets: &[String]) -> Settings {
    Settings::new()
        .limits("min_free_disk = 0\nmin_free_memory = 0")
        .sections(&format!("[[next_hop]]\nto = {targets:?}\n[queue]\nretry = [\"1s\"]"))
}

/// An edge whose mail all goes to one hop.
fn edge(hop: &Hop) -> Edge {
    Edge::start(&to(&[hop.target()]).toml())
}

/// The same, with keys of `[limits]`.
fn edge_with(hop: &Hop, limits: &str) -> Edge {
    Edge::start(&to(&[hop.target()]).limits(limits).toml())
}

/// All but the content's end: `expect_reply` comes next.
fn send(client: &mut Client, to: &[&str], content: &str) {
    client.envelope(FROM, to);
    client.command("DATA", "354 ");
    client.send(format!("{content}.\r\n"));
}

/// What the log says of the acknowledgement of a message.
fn custody(edge: &Edge, id: &str) -> String {
    let line = edge.wait_for(&format!("message id={id} ..result=accepted"));
    edge::field(&line, "custody").unwrap_or_default()
}

/// Whether these words stand anywhere below the spool.
fn is_spooled(edge: &Edge, words: &str) -> bool {
    let mut folders = vec![edge.path("var/spool")];
    while let Some(folder) = folders.pop() {
        for path in edge::files(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).is_ok_and(|o| memchr::memmem::find(&o, words.as_bytes()).is_some()) {
                return true;
            }
        }
    }
    false
}

/// The content behind our Received field, which comes first.
#[track_caller]
fn behind_received(content: &[u8]) -> &[u8] {
    let shown = String::from_utf8_lossy(&content[..content.len().min(400)]).into_owned();
    assert!(
        content.starts_with(b"Received: from client.test ([127.0.0.1])\r\n\tby mx.example.com "),
        "{shown}"
    );
    // The field goes on for as long as lines begin with white space.
    let mut end = 0;
    loop {
        let line = content[end..]
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a whole field");
        end += line + 2;
        if !content.get(end).is_some_and(|octet| b" \t".contains(octet)) {
            return &content[end..];
        }
    }
}

/// The folder of an edge that was drained, for another start.
fn home_of(mut edge: Edge) -> Home {
    edge.signal("TERM");
    let status = edge.wait_for_exit();
    assert_eq!(status.code(), Some(0), "{:#?}", edge.log());
    edge.leave_home()
}
