//! How long one MAIL and one RCPT take to read: the parser beside a naive reader with `to_uppercase` and
//! `split_whitespace`.
//!
//! The naive reader checks next to nothing and is here as a yardstick of the same run, on the same machine. One
//! iteration is one command. Run: `cargo bench --bench command`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use postern::smtp::Edition;
use postern::smtp::command::{self, Verb};
use postern::smtp::extension::Offered;

const LINES: [(&str, &[u8]); 4] = [
    (
        "mail",
        b"MAIL FROM:<newsletter-bounces@lists.example.test> SIZE=48213 BODY=8BITMIME",
    ),
    ("rcpt", b"RCPT TO:<firstname.lastname@example.test>"),
    (
        "rcpt_dsn",
        b"RCPT TO:<someone@example.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;someone@example.test",
    ),
    (
        "mail_utf8",
        "MAIL FROM:<jos\u{e9}@b\u{fc}cher.test> SIZE=48213 BODY=8BITMIME SMTPUTF8".as_bytes(),
    ),
];

/// Returns the octets of the path and the number of parameters, so that no work can be left out.
fn parsed(line: &[u8], offered: Offered) -> usize {
    let (verb, args) = command::split(line);
    match verb {
        Verb::Mail => {
            command::mail(args, offered).map_or(0, |(path, p)| path.as_str().len() + usize::from(p.size.is_some()))
        }
        _ => command::rcpt(args, offered, true)
            .map_or(0, |(path, p)| path.as_str().len() + usize::from(p.notify.is_some())),
    }
}

fn naive(line: &[u8]) -> usize {
    let text = String::from_utf8_lossy(line);
    let upper = text.to_uppercase();
    let mut words = text.split_whitespace().skip(1);
    let label = if upper.starts_with("MAIL") { "FROM:" } else { "TO:" };
    let Some(path) = words.next().filter(|w| w.to_uppercase().starts_with(label)) else {
        return 0;
    };
    let mailbox = path[label.len()..].trim_matches(['<', '>']).to_string();
    let parameters: Vec<(String, String)> = words
        .map(|w| {
            w.split_once('=').map_or((w.to_uppercase(), String::new()), |(k, v)| {
                (k.to_uppercase(), v.to_string())
            })
        })
        .collect();
    mailbox.len() + parameters.len()
}

fn commands(criterion: &mut Criterion) {
    let offered = Offered::of(Edition::Y2021, &[], false);
    for (name, line) in LINES {
        assert!(parsed(line, offered) > 0 && naive(line) > 0, "{name} is read by both");
        let mut group = criterion.benchmark_group(name);
        group.bench_function("parser", |b| b.iter(|| parsed(black_box(line), black_box(offered))));
        group.bench_function("naive", |b| b.iter(|| naive(black_box(line))));
        group.finish();
    }
}

criterion_group!(benches, commands);
criterion_main!(benches);
