//! Ten thousand connections that end in every way, and what the process is afterwards.

use std::net::IpAddr;
use std::time::Duration;

use crate::client::Client;
use crate::edge::{Edge, eventually};
use crate::{config, descriptors_of, unfinished};

/// Connections of one round: of each kind as many.
const ROUND: usize = 2000;
const KINDS: usize = 5;
const WORKERS: usize = 4;
/// Resident octets that may come on top for each connection in the second half. A task that is cancelled leaks more than
/// 1,000 with glommio 0.9.
const OCTETS_EACH: usize = 300;

/// A client that is to be blocked, and a binding that waits for nobody.
const REST: &str = r#"
[access]
block = ["127.0.0.66"]
[[binding]]
name = "brief"
address = ["127.0.0.1:0"]
[binding.limits]
inactivity_timeout = "200ms"
"#;

#[test]
fn memory_and_descriptors_stay_flat_over_ten_thousand_connections_used_broken_timed_out_and_refused() {
    let limits = "max_protocol_errors = 0";
    let edge = Edge::start(&config("shards = 2", limits, REST).replace("maildir:mail", "discard:"));
    let mut resident = Vec::new();
    let mut descriptors = Vec::new();
    for round in 0..5 {
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| (0..ROUND / WORKERS / KINDS / 20).for_each(|_| batch(&edge)));
            }
        });
        edge.wait_for_metric("postern_connections", 0.0);
        let settled = eventually(|| descriptors.first().is_none_or(|first| descriptors_of(&edge) <= *first));
        assert!(settled, "round {round}: {descriptors:?} and {}", descriptors_of(&edge));
        descriptors.push(descriptors_of(&edge));
        resident.push(resident_octets(&edge));
    }
    assert_eq!(edge.metric("postern_session_panics_total"), 0.0);
    assert_eq!(unfinished(&edge), 0);
    // The first two rounds fill the pools of the allocator.
    let (middle, end) = (resident[2], resident[4]);
    assert!(
        end < middle + 2 * ROUND * OCTETS_EACH,
        "resident octets after each round: {resident:?}"
    );
    println!("resident octets {resident:?}, descriptors {descriptors:?}");
}

/// Twenty connections of each kind.
fn batch(edge: &Edge) {
    let server = edge.addresses("mx")[0];
    let brief = edge.addresses("brief")[0];
    // Those that will time out wait while the others do something.
    let quiet: Vec<_> = (0..20)
        .map(|n| {
            let mut client = Client::connect(brief);
            if n % 2 == 0 {
                client.send("EHLO quiet.test\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nhalf");
            }
            client
        })
        .collect();
    for n in 0..20 {
        let mut used = Client::connect(server).hello();
        used.accepted("a@c.test", &["b@x.test"], "Subject: x\r\n\r\nused\r\n");
        if n % 2 == 0 {
            used.command("QUIT", "221 ");
        }
    }
    for n in 0..20 {
        let mut broken = Client::connect(server);
        broken.send("EHLO broken.test\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nhalf of a line");
        if n % 2 == 0 {
            socket2::SockRef::from(broken.stream())
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }
    let blocked: IpAddr = "127.0.0.66".parse().unwrap();
    for _ in 0..20 {
        Client::try_connect(Some(blocked), server)
            .unwrap()
            .expect_reply("550 5.7.1 ");
    }
    for _ in 0..20 {
        let mut wrong = Client::connect(server);
        wrong.expect_reply("220 ");
        wrong.command("NONSENSE", "421 4.7.0 ");
    }
    for mut client in quiet {
        assert!(
            client
                .rest()
                .ends_with("451 4.7.0 Timeout waiting for client input\r\n")
        );
    }
}

fn resident_octets(edge: &Edge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}
