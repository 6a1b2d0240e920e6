//! No file descriptors left.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::client::Client;
use crate::edge::{Edge, Home, eventually};
use crate::{config, descriptors_of};

/// Processor time of the process so far. One tick is 10 ms on every Linux.
fn busy(edge: &Edge) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", edge.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
}

#[test]
fn out_of_descriptors_sessions_go_on_nothing_spins_and_who_waited_is_served_when_others_leave() {
    let edge = Edge::start(&config("shards = 2", "", "").replace("maildir:mail", "discard:"));
    let mut working = edge.hello();
    // Lowered from outside: the process has counted on more.
    let room = descriptors_of(&edge) as u64 + 10;
    let pid = Pid::from_raw(edge.pid() as i32);
    let lowered = Rlimit {
        current: Some(room),
        maximum: Some(room),
    };
    prlimit(pid, Resource::Nofile, lowered).unwrap();
    let mut crowd: Vec<_> = (0..40).map(|_| edge.connect()).collect();
    edge.wait_for(" error .. cannot accept connections: raise LimitNOFILE");
    let (before, from) = (busy(&edge), Instant::now());
    working.accepted("a@c.test", &["b@x.test"], "Subject: x\r\n\r\nstill here\r\n");
    while from.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(100));
        working.command("NOOP", "250 ");
    }
    let (used, over) = (busy(&edge) - before, from.elapsed());
    assert!(used < over / 4, "{used:?} of processor time in {over:?}");
    // Each that leaves lets another one in, whichever, until all have been greeted.
    assert!(eventually(|| {
        crowd.retain_mut(|client| {
            let waits = client.is_silent_for(Duration::from_millis(1));
            if !waits {
                client.expect_reply("220 ");
            }
            waits
        });
        crowd.is_empty()
    }));
    edge.hello().command("QUIT", "221 ");
    working.command("QUIT", "221 ");
}

#[test]
fn with_few_descriptors_newcomers_are_refused_before_messages_cannot_be_written() {
    let home = Home::under(&["prlimit", "--nofile=64:64"]);
    // No admin page: it would need descriptors of its own to be asked.
    let text = config("shards = 2", "", "").replace("[admin]\nlisten = \"ADMIN\"\n", "");
    let edge = Edge::start_in(home, &text);
    edge.wait_for("max_connections is more than the limit of open files allows .. open_files=64 .. connections=10");
    let mut crowd: Vec<Client> = Vec::new();
    while let Some(client) = greeted(&edge) {
        crowd.push(client);
    }
    assert_eq!(crowd.len(), 10);
    for client in &mut crowd {
        client.command("EHLO c.test", "250");
        client.accepted("a@c.test", &["b@x.test"], "Subject: x\r\n\r\nroom for its file\r\n");
    }
    assert_eq!(edge.mail("mail").len(), 10);
    crowd.pop();
    assert!(eventually(|| greeted(&edge).is_some()));
}

/// A client that got in; none where it is one too many.
fn greeted(edge: &Edge) -> Option<Client> {
    let mut client = edge.connect();
    let reply = client.reply();
    if reply.starts_with("220 ") {
        return Some(client);
    }
    let expected = "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit";
    assert!(reply.starts_with(expected), "{reply}");
    None
}
