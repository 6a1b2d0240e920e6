//! A whole session of one message of 4 KB, through [`Session`] with the smallest driver: how long, and how many messages a
//! second one core could take if the kernel and the disk cost nothing.
//!
//! `pipelined`: EHLO by itself, then MAIL, RCPT and DATA in one segment, then content, its end and QUIT in one segment.
//! `by_command`: every command and the content in segments of their own. `kept`: a transaction of a session that goes on.
//! `lines_only` is the lower bound in the same run: a splitter that looks for CRLF, and for CRLF.CRLF after DATA, judges
//! nothing and answers with constants. Run: `cargo bench --bench session`.
//!
//! Measured with `--quick` on two busy cores: 2.5 µs pipelined, 2.7 µs by command, 1.7 µs for each message of a kept session
//! (580,000 a second); `lines_only` 0.28 µs.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memchr::{memchr, memmem};
use postern::smtp::extension::Offered;
use postern::smtp::limits::Limits;
use postern::smtp::session::{Auth, Custody, Session, Step, Terms, Verdict};
use postern::smtp::{BareNewline, Edition, Role};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn terms() -> Arc<Terms> {
    let (edition, role) = (Edition::Y2021, Role::Gateway);
    Arc::new(Terms {
        hostname: "mx.example.test".into(),
        edition,
        limits: Limits::of(role),
        offered: Offered::of(edition, &[], false),
        require_tls: false,
        auth: Auth::default(),
        bare_newline: BareNewline::Refuse,
    })
}

/// Eleven header fields, then lines of 76 octets: 4096 octets in all.
fn content() -> Vec<u8> {
    let mut text = String::from(
        "Received: from client.example.test (client.example.test [192.0.2.7])\r\n\tby out.example.test with ESMTPS id 4Xy;\r\n\
         \tMon, 6 Jan 2025 10:00:00 +0000\r\nReceived: from [10.0.0.2]\r\n\tby client.example.test; Mon, 6 Jan 2025 09:59:59 \
         +0000\r\nFrom: A <a@client.test>\r\nTo: B <b@mx.example.test>\r\nSubject: a message of four thousand octets\r\n\
         Message-ID: <1@client.test>\r\nDate: Mon, 6 Jan 2025 09:59:59 +0000\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n",
    );
    while text.len() + 78 < 4096 {
        text.push_str(&"bW9yZSBvZiBpdA".repeat(6)[..76]);
        text.push_str("\r\n");
    }
    text.push_str(&"x".repeat(4094 - text.len()));
    text.push_str("\r\n");
    assert_eq!(text.len(), 4096);
    text.into_bytes()
}

const EHLO: &[u8] = b"EHLO client.example.test\r\n";
const MAIL: &[u8] = b"MAIL FROM:<newsletter-bounces@client.test> SIZE=4096 BODY=8BITMIME\r\n";
const RCPT: &[u8] = b"RCPT TO:<firstname.lastname@mx.example.test>\r\n";
const DATA: &[u8] = b"DATA\r\n";
const END: &[u8] = b".\r\n";
const QUIT: &[u8] = b"QUIT\r\n";

fn pipelined() -> Vec<Vec<u8>> {
    vec![
        EHLO.to_vec(),
        [MAIL, RCPT, DATA].concat(),
        [&content(), END, QUIT].concat(),
    ]
}

fn by_command() -> Vec<Vec<u8>> {
    let content = [&content(), END].concat();
    let segments: [&[u8]; 6] = [EHLO, MAIL, RCPT, DATA, &content, QUIT];
    segments.map(<[u8]>::to_vec).to_vec()
}

/// What a driver does, without waiting for anything. Returns the octets stored.
fn drive(session: &mut Session, segment: &[u8], store: &mut Vec<u8>, now: Instant) -> usize {
    let (mut used, mut messages) = (0, 0);
    loop {
        let rest = &segment[used..];
        let (taken, step) = session.advance(rest, now);
        used += taken;
        match step {
            Step::Read | Step::Close => {
                session.output().clear();
                session.take_notes().replies.clear();
                return messages;
            }
            Step::Ask(_) => session.answer(Verdict::Accept, now),
            Step::Store(range) => store.extend_from_slice(&rest[range]),
            Step::Commit => {
                session.acknowledge(Custody::Delivered, "0AKK0SJVW0000", now);
                messages += store.len();
                store.clear();
            }
            step => unreachable!("{step:?} in a session without a fault"),
        }
    }
}

fn session(terms: &Arc<Terms>, segments: &[Vec<u8>], store: &mut Vec<u8>, now: Instant) -> usize {
    let mut session = Session::new(terms.clone(), CLIENT, now);
    session.greet(now);
    segments
        .iter()
        .map(|segment| drive(&mut session, segment, store, now))
        .sum()
}

/// The lower bound: lines and the end of content are found, nothing is read.
fn lines_only(segments: &[Vec<u8>], output: &mut Vec<u8>, store: &mut Vec<u8>) -> usize {
    let (mut in_data, mut messages) = (false, 0);
    for segment in segments {
        let mut rest = &segment[..];
        while !rest.is_empty() {
            if in_data {
                let Some(end) = memmem::find(rest, b"\r\n.\r\n") else {
                    break;
                };
                store.extend_from_slice(&rest[..end + 2]);
                messages += store.len();
                store.clear();
                rest = &rest[end + 5..];
                in_data = false;
            } else {
                let Some(end) = memchr(b'\n', rest) else {
                    break;
                };
                in_data = rest.starts_with(b"DATA");
                rest = &rest[end + 1..];
            }
            output.extend_from_slice(b"250 2.0.0 OK\r\n");
        }
        output.clear();
    }
    messages
}

fn sessions(criterion: &mut Criterion) {
    let (terms, now, mut store) = (terms(), Instant::now(), Vec::with_capacity(8 << 10));
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    for (name, segments) in [("pipelined", pipelined()), ("by_command", by_command())] {
        let mut output = Vec::new();
        assert_eq!(session(&terms, &segments, &mut store, now), 4096);
        assert_eq!(lines_only(&segments, &mut output, &mut store), 4096);
        group.bench_function(name, |b| {
            b.iter(|| session(&terms, black_box(&segments), &mut store, now))
        });
        group.bench_function(format!("{name}/lines_only"), |b| {
            b.iter(|| lines_only(black_box(&segments), &mut output, &mut store));
        });
    }
    let mut kept = Session::new(terms.clone(), CLIENT, now);
    kept.greet(now);
    drive(&mut kept, EHLO, &mut store, now);
    let transaction = [[MAIL, RCPT, DATA].concat(), [&content(), END].concat()];
    group.bench_function("kept", |b| {
        b.iter(|| {
            let stored = transaction
                .iter()
                .map(|s| drive(&mut kept, black_box(s), &mut store, now));
            assert_eq!(stored.sum::<usize>(), 4096);
        });
    });
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
