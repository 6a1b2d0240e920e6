//! The life of the process: signals, reloads, panics, clients that vanish, resources that run out, and what the log says.
//!
//! Real edges, started as their operators start them; only `fence` runs a shard inside the test.

#[path = "../end_to_end/client.rs"]
mod client;
#[path = "../end_to_end/edge.rs"]
mod edge;

mod descriptors;
mod disconnects;
mod drain;
mod fence;
mod leaks;
mod lines;
mod reload;
mod start;

use edge::Edge;

/// A configuration that takes anything into `mail`. `head` is what stands before the first table, `limits` in that table,
/// `rest` after all.
fn config(head: &str, limits: &str, rest: &str) -> String {
    format!(
        r#"hostname = "mx.example.com"
{head}
[limits]
tarpit = "0s"
max_connections_per_source = 1000
min_free_disk = 0
min_free_memory = 0
message_rate = 0
{limits}
[[binding]]
name = "mx"
address = ["127.0.0.1:0"]
[domains]
accepted = ["*"]
[[next_hop]]
domains = ["*"]
to = ["maildir:mail"]
[admin]
listen = "ADMIN"
{rest}"#
    )
}

/// Open descriptors of the process.
fn descriptors_of(edge: &Edge) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", edge.pid())).unwrap().count()
}

/// Files that deliveries have left unfinished.
fn unfinished(edge: &Edge) -> usize {
    edge::files(&edge.path("mail/tmp")).len()
}
