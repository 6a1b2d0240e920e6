//! Throughput of the scanner, beside a naive scanner of one octet at a time and beside memchr alone, in the same run.
//!
//! memchr visits the line ends of the same content: the least that a search line by line could cost.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memchr::memchr_iter;
use postern::smtp::scanner::Scanner;

/// What anybody writes first: a state for the end mark and for the header, and a look at each octet. It does less than
/// the scanner: no folding, no `by` clause.
fn naive(input: &[u8]) -> (usize, u64, u64, bool, bool) {
    let (mut end, mut header, mut size, mut header_size, mut received) = (1, true, 0u64, 0u64, 0u64);
    let (mut bare, mut nul, mut last, mut line, mut line_start) = (false, false, 0u8, 0usize, 0u64);
    for (at, &octet) in input.iter().enumerate() {
        bare |= (last == b'\r') != (octet == b'\n');
        nul |= octet == 0;
        if octet == b'.' && end == 1 {
            end = 2;
            last = octet;
            continue;
        }
        end = match (end, octet) {
            (2, b'\r') => 3,
            (3, b'\n') => return (at + 1, size - 1, header_size, bare, nul),
            (_, b'\n') if last == b'\r' => 1,
            _ => 0,
        };
        size += 1;
        if header {
            if line < 9 && octet.eq_ignore_ascii_case(&b"received:"[line]) {
                line += 1;
                received += u64::from(line == 9);
            } else {
                line = 9;
            }
            if end == 1 {
                header = size - line_start != 2;
                header_size = line_start;
                line_start = size;
                line = 0;
            }
        }
        last = octet;
    }
    (input.len(), size, header_size + received, bare, nul)
}

/// The header section of a message that came three hops, some 1 KB.
fn header() -> Vec<u8> {
    let mut header = String::new();
    for hop in 0..3 {
        header += &format!(
            "Received: from mail{hop}.example.org (mail{hop}.example.org [192.0.2.{hop}])\r\n\tby mx{hop}.example.net (Postfix) \
             with ESMTPS id 4XyZ{hop}\r\n\tfor <someone@example.net>; Tue, 3 Nov 2026 10:00:00 +0000 (UTC)\r\n"
        );
    }
    header += "From: Alice <alice@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: The minutes of last week\r\n\
               Date: Tue, 3 Nov 2026 10:00:00 +0000\r\nMessage-ID: <20261103.1@example.org>\r\nMIME-Version: 1.0\r\n\
               Content-Type: text/plain; charset=us-ascii\r\n";
    header.into_bytes()
}

fn body(octets: usize, line: &[u8]) -> Vec<u8> {
    let line = [line, b"\r\n"].concat();
    line.repeat(octets.div_ceil(line.len()))
}

fn mail(header: Vec<u8>, octets: usize, line: &[u8]) -> Vec<u8> {
    let body = body(octets.saturating_sub(header.len()), line);
    [&header, b"\r\n".as_slice(), &body, b".\r\n"].concat()
}

fn throughput(criterion: &mut Criterion) {
    let text = b"It was agreed that the minutes be taken as read, and so they were. Any other.";
    let base64 = b"UG9zdGVybiBpcyBhIHNtYWxsIGRvb3IgYXQgdGhlIGJhY2sgb2YgYSBjYXN0bGUsIG9yIGF0IGl0";
    let received = header().repeat((1 << 20) / header().len());
    let subjects = body(
        1 << 20,
        b"X-Field: something that nobody will ever read, of an ordinary length",
    );
    let inputs = [
        ("4 KB mail", mail(header(), 4096, text)),
        ("4 KB body", mail(vec![], 4096, text)),
        ("1 MB base64", mail(header(), 1 << 20, base64)),
        ("1 MB of header, Received", mail(received, 0, b"")),
        ("1 MB of header, other", mail(subjects, 0, b"")),
        ("1 MB of stuffed dots", mail(vec![], 1 << 20, b"..")),
    ];
    for (name, input) in &inputs {
        let mut group = criterion.benchmark_group(*name);
        group.throughput(Throughput::Bytes(input.len() as u64));
        let mut scanner = Scanner::new(Arc::from("mx.example.com"));
        assert!(scanner.data(input).ended && naive(input).0 == input.len());
        assert_eq!(scanner.size(), naive(input).1);
        group.bench_function("scanner", |b| {
            b.iter(|| {
                scanner.reset();
                black_box(scanner.data(black_box(input)))
            })
        });
        group.bench_function("naive", |b| b.iter(|| naive(black_box(input))));
        group.bench_function("memchr", |b| {
            b.iter(|| memchr_iter(b'\n', black_box(input)).fold(0, |ends, at| ends ^ at))
        });
        group.finish();
    }
}

criterion_group!(benches, throughput);
criterion_main!(benches);
