//! What a TLS session that waits costs.

use crate::config;
use crate::edge::{Edge, Home};
use crate::secure::{self, Days, Secure};

const SESSIONS: usize = 400;
/// Resident KiB of a session inside TLS that waits, its connection included; README.md tells the number.
const KIB_EACH: usize = 16;

fn resident_kib(edge: &Edge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_tls_session_that_waits_is_small_also_after_a_burst() {
    // Huge pages come two MiB at a time, more than what is looked for.
    let home = Home::under(&["env", "MIMALLOC_ALLOW_THP=0"]);
    secure::write_pair(&home, "mx.example.com", Days::Now);
    let edge = Edge::start_in(home, &config("", ""));
    let client = secure::any();
    // Pools and pages that the first of them bring.
    let mut warm: Vec<_> = (0..20).map(|_| Secure::starttls(edge.address(), &client)).collect();
    warm.iter_mut().for_each(burst);
    let before = resident_kib(&edge);
    let mut idle: Vec<_> = (0..SESSIONS)
        .map(|_| Secure::starttls(edge.address(), &client))
        .collect();
    let each = |kib: usize| kib.saturating_sub(before) as f64 / SESSIONS as f64;
    let at_first = resident_kib(&edge);
    idle.iter_mut().for_each(burst);
    let after = resident_kib(&edge);
    println!(
        "{:.1} KiB each after the handshake, {:.1} after a burst",
        each(at_first),
        each(after)
    );
    assert!(each(at_first) <= KIB_EACH as f64, "{:.1} KiB each", each(at_first));
    assert!(
        each(after) <= KIB_EACH as f64,
        "{:.1} KiB each after a burst",
        each(after)
    );
}

/// A message of 128 KiB, which is thrown away.
fn burst(client: &mut Secure) {
    client.command("EHLO client.test", "250");
    client.command("MAIL FROM:<a@client.test>", "250");
    client.command("RCPT TO:<b@x.test>", "250");
    client.send(format!("BDAT {}\r\n", 128 << 10));
    client.send(vec![b'x'; 128 << 10]);
    client.expect_reply("552 5.3.4");
}
