//! The process is killed under load, at any moment, and started again on the same files: whatever it has answered 250 arrives.
//!
//! The hop is slow, down and up in turn. Duplicates are allowed (RFC 5321 section 4.5.4.1 knows no way around them) and
//! counted; a message that is altered is not.

#[path = "end_to_end/client.rs"]
mod client;
#[path = "end_to_end/edge.rs"]
mod edge;
#[path = "relaying/hop.rs"]
mod hop;
#[path = "end_to_end/settings.rs"]
mod settings;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::Client;
use edge::{Edge, Home};
use hop::{Act, Heard, Plan};
use settings::Settings;

const SEED: u64 = 0x706f_7374_6572_6e21;
const ROUNDS: usize = 6;
const CLIENTS: usize = 4;

/// Small and even enough for moments and sizes (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The content of a message: its name, and lines that only this message has.
fn content(name: &str, lines: u64) -> String {
    let mut text = format!("Subject: {name}\r\nX-Lines: {lines}\r\n\r\n");
    for line in 0..lines {
        text.push_str(&format!(".{line} of {name}\r\n"));
    }
    text
}

/// The name of a message that the hop has got. Panics where it is not what was sent under that name.
fn name_of(octets: &[u8]) -> String {
    let text = std::str::from_utf8(octets).unwrap();
    let start = text.find("Subject: ").unwrap_or_else(|| panic!("altered: {text:?}"));
    let sent = &text[start..];
    let mut fields = sent.lines().map(|line| line.split(' ').nth(1).unwrap_or_default());
    let (name, lines) = (fields.next().unwrap(), fields.next().unwrap());
    assert!(sent == content(name, lines.parse().unwrap()), "altered: {name}");
    name.to_owned()
}

/// Sends until the edge is gone; notes what was answered 250.
fn load(edge: SocketAddr, tag: &str, seed: u64, acknowledged: &Mutex<Vec<String>>) {
    let mut chance = Chance(seed);
    let Ok(mut client) = Client::try_connect(None, edge) else {
        return;
    };
    let mut ask = move |octets: &str| {
        use std::io::Write;
        if !octets.is_empty() {
            client.stream().write_all(octets.as_bytes()).ok()?;
        }
        client.try_reply().ok().flatten()
    };
    let greeted = ask("").and_then(|_| ask("EHLO client.test\r\n"));
    if greeted.is_none() {
        return;
    }
    for number in 0.. {
        let name = format!("{tag}-{number}");
        // Now and then one that does not fit into memory.
        let lines = if chance.below(20) == 0 {
            12_000
        } else {
            chance.below(60)
        };
        let octets = client::dotted(content(&name, lines).as_bytes());
        let octets = String::from_utf8(octets).unwrap() + ".\r\n";
        let last = ask("MAIL FROM:<a@client.test>\r\n")
            .and_then(|_| ask("RCPT TO:<b@example.com>\r\n"))
            .and_then(|_| ask("DATA\r\n"))
            .and_then(|_| ask(&octets));
        match last {
            Some(reply) if reply.starts_with("250 2.6.0 ") => acknowledged.lock().unwrap().push(name),
            Some(_) => {}
            None => return,
        }
    }
}

#[test]
fn what_was_answered_250_arrives_however_often_the_process_is_killed() {
    // 0 takes everything, 1 takes its time, 2 closes every connection.
    let mood = Arc::new(AtomicUsize::new(0));
    let of_hop = mood.clone();
    let hop = Plan::new()
        .script(move |heard| match (of_hop.load(SeqCst), heard) {
            (1, Heard::End(_)) => Act::After(Duration::from_millis(150)),
            (2, Heard::Connection | Heard::Mail(_) | Heard::End(_)) => Act::Close,
            _ => Act::Usual,
        })
        .up();
    let toml = Settings::new()
        .limits("acknowledgement_delay = \"100ms\"\nmin_free_disk = 0\nmin_free_memory = 0\nmessage_rate = 0")
        .sections(&format!(
            "[[next_hop]]\nto = [\"{}\"]\n[queue]\nretry = [\"1s\"]",
            hop.target()
        ))
        .toml();
    let mut chance = Chance(SEED);
    let acknowledged = Mutex::new(Vec::new());
    let mut home = Home::new();
    for round in 0..ROUNDS {
        mood.store((round + 1) % 3, SeqCst);
        let mut edge = Edge::start_in(home, &toml);
        let address = edge.address();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (acknowledged, over) = (&acknowledged, &over);
                let seed = chance.below(u64::MAX);
                scope.spawn(move || {
                    for connection in 0.. {
                        if over.load(SeqCst) {
                            return;
                        }
                        let tag = format!("{round}-{client}-{connection}");
                        load(address, &tag, seed ^ connection, acknowledged);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(900 + chance.below(1000)));
            edge.signal("KILL");
            edge.wait_for_exit();
            over.store(true, SeqCst);
        });
        home = edge.leave_home();
    }
    mood.store(0, SeqCst);
    let edge = Edge::start_in(home, &toml);
    let acknowledged = acknowledged.into_inner().unwrap();
    // What it has agreed to; the rest it has read and not answered for.
    let arrived = || {
        let mut counts = HashMap::<String, usize>::new();
        for taken in hop.taken() {
            *counts.entry(name_of(&taken.content)).or_default() += 1;
        }
        counts
    };
    let mut counts = arrived();
    let mut missing = Vec::new();
    edge::eventually(|| {
        counts = arrived();
        missing = acknowledged.iter().filter(|name| !counts.contains_key(*name)).collect();
        missing.is_empty()
    });
    edge.wait_for_metric("postern_queue_messages", 0.0);
    hop.seen().iter().for_each(|taken| drop(name_of(&taken.content)));
    assert!(missing.is_empty(), "lost of {}: {missing:?}", acknowledged.len());
    assert!(!acknowledged.is_empty());
    let copies: usize = counts.values().sum();
    println!(
        "{} messages acknowledged, {} arrived, {} more than once; seed {SEED:#x}",
        acknowledged.len(),
        counts.len(),
        copies - counts.len()
    );
}
