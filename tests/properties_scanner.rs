//! Properties of the scanner of message content, against an oracle that has the whole message before it.
//!
//! The oracle is written from the RFCs with no thought of speed and shares nothing with the scanner but the questions.

use std::sync::Arc;

use postern::smtp::scanner::Scanner;
use proptest::prelude::*;

const OWN: &str = "mx.example";

/// What is to be known of a message.
#[derive(Debug, PartialEq, Eq, Default)]
struct Judged {
    content: Vec<u8>,
    used: usize,
    ended: bool,
    size: u64,
    header_size: u64,
    received: u64,
    received_local: u64,
    bare_newline: bool,
    nul: bool,
    eight_bit: bool,
}

mod oracle {
    use super::{Judged, OWN};

    /// RFC 5321 section 4.1.1.4: all up to CRLF.CRLF, or .CRLF at the very start; `.` and `.CR` at the end are open.
    pub fn data(input: &[u8], normalise: bool) -> Judged {
        let line = |i: usize| i == 0 || input[..i].ends_with(b"\r\n");
        let end = (0..input.len()).find(|&i| line(i) && input[i..].starts_with(b".\r\n"));
        let open = (0..input.len()).find(|&i| line(i) && [b".".as_slice(), b".\r"].contains(&&input[i..]));
        let content = &input[..end.or(open).unwrap_or(input.len())];
        // Section 4.5.2: the dot at the start of a line is taken off.
        let kept = content.iter().enumerate().filter(|&(i, &o)| !(o == b'.' && line(i)));
        let message: Vec<u8> = kept.map(|(_, &o)| o).collect();
        Judged {
            content: content.to_vec(),
            used: content.len() + end.map_or(0, |_| 3),
            ended: end.is_some(),
            ..chunk(&message, normalise)
        }
    }

    pub fn chunk(m: &[u8], normalise: bool) -> Judged {
        // Line ends as (where, how long): CRLF, bare CR, bare LF.
        let crlf = |i: usize| m[i..].starts_with(b"\r\n");
        let end_at = |i: usize| match m[i] {
            b'\r' => Some((i, if crlf(i) { 2 } else { 1 })),
            b'\n' if i == 0 || !crlf(i - 1) => Some((i, 1)),
            _ => None,
        };
        let ends: Vec<(usize, usize)> = (0..m.len()).filter_map(end_at).collect();
        let starts = || std::iter::once(0).chain(ends.iter().map(|&(at, length)| at + length));
        let empty_line = if normalise {
            starts().find(|&start| ends.iter().any(|&(at, _)| at == start))
        } else {
            (0..m.len()).find(|&i| crlf(i) && (i == 0 || i >= 2 && crlf(i - 2)))
        };
        let header = &m[..empty_line.unwrap_or(m.len())];
        // Lines without ends, empty ones left out, then unfolded: what a blank begins belongs to the line before.
        let mut fields: Vec<Vec<u8>> = vec![];
        for line in header
            .split(|&o| o == b'\r' || o == b'\n')
            .filter(|line| !line.is_empty())
        {
            match fields.last_mut() {
                Some(field) if line[0] == b' ' || line[0] == b'\t' => field.extend(line),
                _ => fields.push(line.to_vec()),
            }
        }
        let received: Vec<&[u8]> = fields.iter().filter_map(|field| received_value(field)).collect();
        Judged {
            size: m.len() as u64,
            header_size: header.len() as u64,
            received: received.len() as u64,
            received_local: received.iter().filter(|value| by_own(&words(value))).count() as u64,
            bare_newline: ends.iter().any(|&(_, length)| length == 1),
            nul: m.contains(&0),
            eight_bit: m.iter().any(|&o| o > 127),
            ..Judged::default()
        }
    }

    fn received_value(field: &[u8]) -> Option<&[u8]> {
        let colon = field.iter().position(|&o| o == b':')?;
        let name = &field[..colon];
        let length = name.iter().rposition(|&o| o != b' ' && o != b'\t')? + 1;
        name[..length]
            .eq_ignore_ascii_case(b"received")
            .then_some(&field[colon + 1..])
    }

    /// The words between blanks, comments and semicolons; a quoted string is left as `"`, which is in no name.
    fn words(value: &[u8]) -> Vec<Vec<u8>> {
        let mut text = vec![];
        let (mut depth, mut quoted, mut i) = (0, false, 0);
        while i < value.len() {
            match value[i] {
                b'\\' if quoted || depth > 0 => i += 1,
                b'"' if depth == 0 => {
                    quoted = !quoted;
                    text.push(b'"');
                }
                b'(' if !quoted => {
                    depth += 1;
                    text.push(b' ');
                }
                b')' if depth > 0 => depth -= 1,
                _ if quoted || depth > 0 => {}
                o => text.push(o),
            }
            i += 1;
        }
        let words = text.split(|o| b" \t;)".contains(o)).filter(|word| !word.is_empty());
        words.map(<[u8]>::to_ascii_lowercase).collect()
    }

    fn by_own(words: &[Vec<u8>]) -> bool {
        words
            .windows(2)
            .any(|pair| pair[0] == b"by" && pair[1] == OWN.as_bytes())
    }
}

/// Feeds DATA as a session does: what was not used is presented again with more behind it.
fn data(input: &[u8], cuts: &[usize], normalise: bool) -> Judged {
    let mut scanner = Scanner::new(Arc::from(OWN));
    scanner.normalise(normalise);
    let (mut content, mut used, mut have, mut cuts) = (vec![], 0, 0, cuts.iter().cycle());
    let ended = loop {
        have = (have + cuts.next().unwrap_or(&input.len())).min(input.len());
        let scan = scanner.data(&input[used..have]);
        content.extend(&input[used..used + scan.content]);
        used += scan.used;
        if scan.ended || have == input.len() {
            break scan.ended;
        }
    };
    Judged {
        content,
        used,
        ended,
        ..judged(scanner)
    }
}

fn chunk(input: &[u8], cuts: &[usize], normalise: bool) -> Judged {
    let mut scanner = Scanner::new(Arc::from(OWN));
    scanner.normalise(normalise);
    let (mut at, mut cuts) = (0, cuts.iter().cycle());
    while at < input.len() {
        let end = (at + cuts.next().unwrap_or(&input.len())).min(input.len());
        scanner.chunk(&input[at..end]);
        at = end;
    }
    judged(scanner)
}

fn judged(mut scanner: Scanner) -> Judged {
    scanner.finish();
    Judged {
        size: scanner.size(),
        header_size: scanner.header_size(),
        received: scanner.received(),
        received_local: scanner.received_local(),
        bare_newline: scanner.bare_newline(),
        nul: scanner.nul(),
        eight_bit: scanner.eight_bit(),
        ..Judged::default()
    }
}

/// Line ends, dots, NUL and the pieces of Received fields, whole and broken.
fn header_piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b".",
        b"..",
        b"\0",
        b" ",
        b"\t",
        b":",
        b";",
        b"(",
        b")",
        b"\"",
        b"\\",
        b"\xe9",
        b"a",
        b"by",
        b"BY",
        b"by ",
        b" by ",
        b"mx.example",
        b" MX.Example",
        b"mx.example.org",
        b"from x",
        b"Received",
        b"received:",
        b"RECEIVED :",
        b"\r\nReceived: ",
        b"\r\n.Received: by ",
        b"\r\n ",
        b"\r\n\t",
        b"Received: from a by mx.example; now\r\n",
        b"X-Received: by mx.example\r\n",
        b"Subject: hello\r\n",
    ];
    prop::sample::select(pieces).prop_map(<[u8]>::to_vec)
}

/// Values of a Received field: words, comments, quoted strings, quoted pairs, folds, and where our name may stand.
fn received_field() -> impl Strategy<Value = Vec<u8>> {
    let pieces = &[
        "by ",
        " by\t",
        "by",
        "mx.example",
        "MX.EXAMPLE ",
        "by mx.example",
        " ",
        "(",
        ")",
        "\"",
        "\\",
        ";",
        "\r\n ",
        "x",
    ];
    // With our clause at the end, the answer hangs on what the pieces before it have left open.
    let last = prop::sample::select(&["", " by mx.example", " mx.example ", " by mx.exampl", " b mx.example"][..]);
    (prop::collection::vec(prop::sample::select(&pieces[..]), 0..10), last)
        .prop_map(|(value, last)| format!("Received:{}{last}\r\n", value.concat()).into_bytes())
}

/// Runs of text of about the lengths at which a scanner changes its step, with the odd octet between them.
fn body_piece() -> impl Strategy<Value = Vec<u8>> {
    let odd: &[&[u8]] = &[
        b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n.", b"\r\n..", b"\r", b"\n", b".", b"\n.", b"\0", b"\xff",
        b"\r\n.\n", b"\r\r\n", b"\n\r\n",
    ];
    prop_oneof![
        prop::sample::select(odd).prop_map(<[u8]>::to_vec),
        (0..300usize).prop_map(|length| vec![b'x'; length]),
        (1..80usize, 0..8usize)
            .prop_map(|(length, lines)| [vec![b'y'; length], b"\r\n".to_vec()].concat().repeat(lines)),
    ]
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let any = prop_oneof![4 => header_piece(), 1 => body_piece(), 1 => prop::sample::select(vec![b"\r\n\r\n".to_vec(), b"\r\n.\r\n".to_vec()])];
    let body = prop_oneof![1 => header_piece(), 12 => body_piece()];
    prop_oneof![
        prop::collection::vec(received_field(), 0..4).prop_map(|fields| fields.concat()),
        prop::collection::vec(any, 0..40).prop_map(|pieces| pieces.concat()),
        prop::collection::vec(body, 0..24).prop_map(|pieces| [b"\r\n".to_vec(), pieces.concat()].concat()),
        prop::collection::vec(prop::sample::select(&b"\r\n.\0 a"[..]), 0..40),
    ]
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        prop::collection::vec(0..5usize, 1..20).prop_map(|cuts| [cuts, vec![1]].concat()),
        prop::collection::vec(1..400usize, 1..20),
        Just(vec![usize::MAX >> 1]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn data_is_judged_as_the_oracle_judges_it_however_it_is_cut(m in message(), cuts in cuts(), normalise: bool) {
        prop_assert_eq!(data(&m, &cuts, normalise), oracle::data(&m, normalise));
    }

    #[test]
    fn a_chunk_is_judged_as_the_oracle_judges_it_however_it_is_cut(m in message(), cuts in cuts(), normalise: bool) {
        prop_assert_eq!(chunk(&m, &cuts, normalise), oracle::chunk(&m, normalise));
    }

    #[test]
    fn stuffed_dots_make_no_difference_to_what_is_counted(m in message(), cuts in cuts(), normalise: bool) {
        // The end mark stands on a line of its own: a message without a line end cannot be sent.
        let m = [m, b"\r\n".to_vec()].concat();
        // RFC 5321 section 4.5.2, at the sender: a dot before each dot at the start of a line.
        let mut wire = vec![];
        for (i, &octet) in m.iter().enumerate() {
            if octet == b'.' && (i == 0 || m[..i].ends_with(b"\r\n")) {
                wire.push(b'.');
            }
            wire.push(octet);
        }
        let content = wire.len();
        wire.extend(b".\r\nMAIL FROM:<>\r\n");
        let sent = data(&wire, &cuts, normalise);
        prop_assert_eq!((sent.ended, sent.used, &sent.content[..]), (true, content + 3, &wire[..content]));
        let chunked = chunk(&m, &cuts, normalise);
        prop_assert_eq!(Judged { content: vec![], used: 0, ended: false, ..sent }, chunked);
    }

    #[test]
    fn counts_never_fall_while_content_arrives(m in message(), normalise: bool) {
        let mut scanner = Scanner::new(Arc::from(OWN));
        scanner.normalise(normalise);
        let mut before = (0, 0, 0, 0);
        for octet in &m {
            scanner.chunk(std::slice::from_ref(octet));
            let now = (scanner.size(), scanner.header_size(), scanner.received(), scanner.received_local());
            prop_assert!(now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2 && now.3 >= before.3);
            before = now;
        }
        scanner.finish();
        prop_assert!(scanner.header_size() >= before.1 && scanner.header_size() <= scanner.size());
    }

    #[test]
    fn no_reading_of_line_ends_sees_more_received_fields_or_a_longer_header(m in message()) {
        // Strict readers know CRLF, a Maildir's readers LF with or without CR before it, others any of the three.
        let scanned = chunk(&m, &[7], false);
        let strict = m.clone();
        let lf: Vec<u8> = String::from_utf8_lossy(&m).replace("\r\n", "\n").replace('\r', "x").into_bytes();
        let any: Vec<u8> = String::from_utf8_lossy(&m).replace("\r\n", "\n").replace('\r', "\n").into_bytes();
        for (reading, end) in [(strict, b"\r\n".as_slice()), (lf, b"\n"), (any, b"\n")] {
            let mut seen = 0;
            let mut rest = &reading[..];
            while !rest.is_empty() && !rest.starts_with(end) {
                let line = rest.windows(end.len()).position(|w| w == end).unwrap_or(rest.len());
                let name = rest[..line].to_ascii_lowercase();
                seen += u64::from(name.starts_with(b"received:"));
                rest = &rest[(line + end.len()).min(rest.len())..];
            }
            prop_assert!(scanned.received >= seen, "{} < {}", scanned.received, seen);
        }
        prop_assert!(scanned.header_size >= chunk(&m, &[7], true).header_size);
    }

    #[test]
    fn a_scanner_that_was_reset_is_as_good_as_a_new_one(first in message(), second in message(), cut in 1..9usize) {
        let mut scanner = Scanner::new(Arc::from(OWN));
        scanner.chunk(&first);
        scanner.reset();
        second.chunks(cut).for_each(|octets| scanner.chunk(octets));
        prop_assert_eq!(judged(scanner), oracle::chunk(&second, false));
    }
}
