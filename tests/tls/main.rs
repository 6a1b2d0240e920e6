//! TLS as clients see it: the real binary, rustls and other programs on the other side, and clients that mean no good.

#[path = "../end_to_end/client.rs"]
mod client;
#[path = "../end_to_end/edge.rs"]
mod edge;
mod secure;

mod certificates;
mod handshakes;
mod memory;
mod programs;
mod rates;
mod sessions;

use edge::{Edge, Home};

/// A binding for STARTTLS, one for implicit TLS, one that requires TLS; all take anything into `mail`. `limits` stands in
/// that table, `rest` at the end.
fn config(limits: &str, rest: &str) -> String {
    let per_source = "max_connections_per_source = ";
    let per_source = match limits.contains(per_source) {
        true => String::new(),
        false => format!("{per_source}1000"),
    };
    format!(
        r#"hostname = "mx.example.com"
shards = 2
[limits]
tarpit = "0s"
{per_source}
min_free_disk = 0
min_free_memory = 0
message_rate = 0
{limits}
[tls]
certificate = "cert.pem"
key = "key.pem"
[domains]
accepted = ["*"]
[[next_hop]]
to = ["maildir:mail"]
[admin]
listen = "ADMIN"
[[binding]]
name = "mx"
address = ["127.0.0.1:0"]
[[binding]]
name = "implicit"
address = ["127.0.0.1:0"]
tls = "implicit"
{rest}"#
    )
}

/// An edge with a certificate for `mx.example.com`.
fn start(limits: &str, rest: &str) -> Edge {
    let home = Home::new();
    secure::write_pair(&home, "mx.example.com", secure::Days::Now);
    Edge::start_in(home, &config(limits, rest))
}
