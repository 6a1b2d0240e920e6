//! A message of 4 KB to a next hop through [`Client`] with the smallest driver, on a connection that is kept: how long, and how
//! many messages a second one core could hand on if the kernel cost nothing.
//!
//! `dotted`: DATA, content as it came. `plain`: DATA, dots doubled on the way. `chunk`: BDAT, everything in one write. All with
//! PIPELINING and one recipient; the hop's replies are constants.
//! `copy_only` is the lower bound in the same run: constant commands, one copy of the content, and the line ends of the
//! replies looked for. Run: `cargo bench --bench client`.
//!
//! Measured with `--quick` on two shared cores: 1.2 µs dotted, 1.8 µs plain, 1.0 µs as a chunk; `copy_only` 0.11 µs.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memchr::memchr_iter;
use postern::smtp::Form;
use postern::smtp::client::{Client, Dialect, Outcome, Outgoing, Step, Terms, Timeouts, TlsUse};
use postern::smtp::envelope::{Envelope, MailParameters, RcptParameters, Recipient};
use postern::smtp::path::{ForwardPath, ReversePath};

const HEAD: &[u8] =
    b"Received: from client.example.test ([192.0.2.7])\r\n\tby mx.example.test (postern) with ESMTP id \
                      0AKJXS5P40000\r\n\tfor <firstname.lastname@example.test>; Sat, 21 Nov 2026 01:47:02 +0000\r\n";
const COMMANDS: &[u8] = b"MAIL FROM:<newsletter-bounces@client.test> SIZE=4260\r\n\
                          RCPT TO:<firstname.lastname@mx.example.test>\r\nDATA\r\n";
const TAKEN: &[u8] = b"250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n";
const GO_ON: &[u8] = b"354 Start mail input; end with <CRLF>.<CRLF>\r\n";
const QUEUED: &[u8] = b"250 2.6.0 <0AKJXS5P40000> Queued mail for delivery\r\n";

/// Lines of 76 octets: 4096 octets in all. Every tenth begins with a dot.
fn content(dots: &str) -> Vec<u8> {
    let mut text = String::new();
    let mut line = 0;
    while text.len() + 78 < 4096 {
        line += 1;
        let first = if line % 10 == 0 { dots } else { "" };
        text.push_str(first);
        text.push_str(&"bW9yZSBvZiBpdA".repeat(6)[first.len()..76]);
        text.push_str("\r\n");
    }
    text.push_str(&"x".repeat(4094 - text.len()));
    text.push_str("\r\n");
    assert_eq!(text.len(), 4096);
    text.into_bytes()
}

fn envelope() -> Envelope {
    let to = b"<firstname.lastname@mx.example.test>";
    Envelope {
        reverse_path: ReversePath::parse(b"<newsletter-bounces@client.test>", false)
            .unwrap()
            .0,
        mail: MailParameters::default(),
        recipients: vec![Recipient {
            forward_path: ForwardPath::parse(to, false).unwrap().0,
            parameters: RcptParameters::default(),
        }],
    }
}

/// A client that is ready, for a hop that offers this as well.
fn ready(offer: &str, now: Instant) -> Client {
    let terms = Terms {
        dialect: Dialect::Smtp,
        hello: "mx.example.test".into(),
        tls: TlsUse::Opportunistic,
        implicit_tls: false,
        credentials: None,
        timeouts: Timeouts::default(),
    };
    let mut client = Client::new(Arc::new(terms), now);
    client.advance(b"220 hub.test ready\r\n", now);
    let offers = format!("250-hub.test\r\n250-SIZE 10485760\r\n250-{offer}\r\n250 PIPELINING\r\n");
    assert_eq!(client.advance(offers.as_bytes(), now).1, Step::Ready);
    client.output().clear();
    client
}

/// What a driver does for one message, without waiting for anything. Returns the octets sent.
fn message(client: &mut Client, outgoing: &Outgoing<'_>, content: &[u8], replies: &[&[u8]], now: Instant) -> usize {
    assert_eq!(client.send(outgoing, now), Ok(()));
    let (mut replies, mut sent, mut step) = (replies.iter(), 0, client.advance(b"", now).1);
    loop {
        match step {
            Step::Read => {
                sent += client.output().len();
                client.output().clear();
                let reply = replies.next().expect("a reply to what was sent");
                step = client.advance(reply, now).1;
            }
            Step::Content => {
                client.content(content, true, now);
                step = client.advance(b"", now).1;
            }
            Step::Done => {
                assert!(matches!(&client.take_outcomes()[..], [Outcome::Delivered(_)]));
                return sent;
            }
            step => unreachable!("{step:?} in a transaction without a fault"),
        }
    }
}

/// The lower bound: the same octets out, the lines of the same replies counted.
fn copy_only(output: &mut Vec<u8>, content: &[u8], replies: &[&[u8]]) -> usize {
    let lines: usize = replies.iter().map(|reply| memchr_iter(b'\n', reply).count()).sum();
    for part in [COMMANDS, HEAD, content, b".\r\n"] {
        output.extend_from_slice(part);
    }
    let sent = output.len() + lines;
    output.clear();
    sent
}

fn messages(criterion: &mut Criterion) {
    let (now, envelope) = (Instant::now(), envelope());
    let (with_data, with_chunk) = ([&[TAKEN, GO_ON].concat()[..], QUEUED], [&[TAKEN, QUEUED].concat()[..]]);
    let mut group = criterion.benchmark_group("client");
    group.throughput(Throughput::Elements(1));
    for (name, form, offer, dots, replies) in [
        ("dotted", Form::Dotted, "DSN", "..", &with_data[..]),
        ("plain", Form::Plain, "DSN", ".", &with_data),
        ("chunk", Form::Plain, "CHUNKING", ".", &with_chunk),
    ] {
        let content = content(dots);
        let outgoing = Outgoing {
            envelope: &envelope,
            recipients: &[0],
            form,
            size: (HEAD.len() + content.len()) as u64,
            head: HEAD,
            eight_bit: false,
            bare_newline: false,
        };
        let mut client = ready(offer, now);
        assert!(message(&mut client, &outgoing, &content, replies, now) > 4200);
        group.bench_function(name, |b| {
            b.iter(|| message(&mut client, black_box(&outgoing), black_box(&content), replies, now));
        });
    }
    let (content, mut output) = (content(".."), Vec::new());
    group.bench_function("copy_only", |b| {
        b.iter(|| copy_only(&mut output, black_box(&content), black_box(&with_data)));
    });
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
