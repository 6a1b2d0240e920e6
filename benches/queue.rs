//! What the queue costs a message, alone and beside a million others; and what a million take in memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use postern::relay::queue::{Action, Client, Kind, Moment, NewGroup, NewMessage, Queue, Recovered, Taker, Terms};
use postern::relay::retry::Schedule;
use postern::smtp::client::{HopReply, Outcome};
use postern::smtp::envelope::{Envelope, MailParameters, RcptParameters, Recipient};
use postern::smtp::path::{ForwardPath, Mailbox, ReversePath};
use postern::spool::QueueId;

const QUEUED: u64 = 1_000_000;

fn envelope(number: u64) -> Envelope {
    let mailbox = |text: String| Mailbox::parse(&text).unwrap();
    Envelope {
        reverse_path: ReversePath::Mailbox(mailbox(format!("sender.{number}@client.example"))),
        mail: MailParameters::default(),
        recipients: vec![Recipient {
            forward_path: ForwardPath::Mailbox(mailbox(format!("recipient.{number}@example.com"))),
            parameters: RcptParameters::default(),
        }],
    }
}

fn groups() -> Vec<NewGroup> {
    vec![NewGroup {
        route: 0,
        domain: None,
        recipients: [0].into_iter().collect(),
    }]
}

fn terms() -> Terms {
    Terms {
        retry: Schedule::new([15, 60, 300, 900, 3600].map(Duration::from_secs).to_vec()),
        expire: Duration::from_secs(365 * 86400),
        delay_notice: Duration::from_secs(4 * 3600),
        attempts: 32,
    }
}

fn hop() -> Taker {
    Taker {
        hop: "hub.example".into(),
        kind: Kind::Relayed { dsn: true },
    }
}

fn start() -> Moment {
    Moment {
        now: Instant::now(),
        unix: 1_795_221_819,
    }
}

/// Octets that the process has in memory (`man 5 proc`: the second number of statm, in pages).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A queue in which so many wait for a hop that does not answer.
fn queued(messages: u64, at: Moment) -> Queue {
    let mut queue = Queue::new(terms(), at);
    for number in 0..messages {
        let message = Recovered {
            id: QueueId::from_number(number),
            envelope: envelope(number),
            groups: groups(),
            size: 10_000,
            authenticated: false,
            arrived: at.unix,
            progress: None,
        };
        queue.recovered(message, at);
    }
    while queue.next_due().is_some_and(|due| due <= at.now) {
        queue.turn(at);
        defer(&mut queue, at);
    }
    queue
}

/// Answers every attempt with the same deferral.
fn defer(queue: &mut Queue, at: Moment) -> u64 {
    let mut attempts = 0;
    while let Some(action) = queue.next_action() {
        if let Action::Attempt { id, group, .. } = action {
            queue.no_hop(id, group, HopReply::heard(451, b"4.4.1 No next hop answers"), at);
            attempts += 1;
        }
    }
    attempts
}

fn pass_through(c: &mut Criterion) {
    let mut group = c.benchmark_group("take, deliver, settle");
    let (at, hop) = (start(), hop());
    let before = resident();
    let million = queued(QUEUED, at);
    let octets = (resident() - before) / QUEUED;
    println!("{octets} octets for each of {QUEUED} queued messages, envelopes of 60 octets of addresses included");
    for (name, mut queue) in [("alone", Queue::new(terms(), at)), ("beside 1,000,000", million)] {
        let mut number = QUEUED;
        let envelope = envelope(7);
        group.bench_function(name, |b| {
            b.iter(|| {
                number += 1;
                let id = QueueId::from_number(number);
                let message = NewMessage {
                    id,
                    envelope: envelope.clone(),
                    groups: groups(),
                    size: 10_000,
                    authenticated: false,
                    client: Client::Waits {
                        acknowledge_by: at.now + Duration::from_secs(30),
                    },
                };
                queue.take(message, at);
                while black_box(queue.next_action()).is_some() {}
                let taken = Outcome::Delivered(HopReply::heard(250, b"2.0.0 Taken"));
                queue.outcomes(id, 0, &hop, vec![(0, taken)], at);
                while black_box(queue.next_action()).is_some() {}
            });
        });
    }
    group.finish();
}

/// The oracle: every message is looked at in every turn.
fn naive_turn(due: &mut [Instant], now: Instant) -> usize {
    due.iter_mut()
        .filter(|due| **due <= now)
        .map(|due| *due = now + Duration::from_secs(3600))
        .count()
}

fn turn(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    let mut at = start();
    let mut queue = queued(QUEUED, at);
    group.bench_function("nobody of 1,000,000 is due", |b| b.iter(|| queue.turn(black_box(at))));
    group.bench_function("512 of 1,000,000 are tried and deferred", |b| {
        b.iter(|| {
            if let Some(due) = queue.next_due() {
                at.now = at.now.max(due);
            }
            queue.turn(at);
            black_box(defer(&mut queue, at))
        });
    });
    let mut due = vec![at.now + Duration::from_secs(3600); QUEUED as usize];
    group.bench_function("naive, nobody of 1,000,000 is due", |b| {
        b.iter(|| naive_turn(black_box(&mut due), at.now));
    });
    group.finish();
}

criterion_group!(benches, pass_through, turn);
criterion_main!(benches);
