//! What the scanner does, one behaviour a test: the end of DATA, sizes, bare newlines, octets of note.
//!
//! Promises: no timing, no file, no socket; lives on the test's thread.

use super::*;

fn scanner() -> Scanner {
    Scanner::new(Arc::from("mx.example"))
}

/// Gives `input` to DATA in two pieces, as a session does; the octets used and whether the content ended.
fn data_cut(scanner: &mut Scanner, input: &[u8], cut: usize) -> (usize, bool) {
    let first = scanner.data(&input[..cut]);
    if first.ended {
        return (first.used, true);
    }
    let second = scanner.data(&input[first.used..]);
    (first.used + second.used, second.ended)
}

fn chunked(input: &[u8], normalise: bool) -> Scanner {
    let mut scanner = scanner();
    scanner.normalise(normalise);
    scanner.chunk(input);
    scanner.finish();
    scanner
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_data_wherever_it_is_cut() {
    let marks: [&[u8]; 12] = [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\n.\r.\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n. \r\n",
        b"\r\r\n..\r\n",
    ];
    for mark in marks {
        for normalise in [false, true] {
            let smuggled = [
                b"Subject: x\r\n\r\nfirst",
                mark,
                b"MAIL FROM:<a@b>\r\nDATA\r\n\r\nsecond",
            ]
            .concat();
            let input = [&smuggled, b"\r\n.\r\nQUIT\r\n".as_slice()].concat();
            for cut in 0..=input.len() {
                let mut scanner = scanner();
                scanner.normalise(normalise);
                let at = (data_cut(&mut scanner, &input, cut), cut);
                assert_eq!(
                    at,
                    ((smuggled.len() + 5, true), cut),
                    "{:?}",
                    mark.escape_ascii().to_string()
                );
                let odd = mark.contains(&0) || mark == b"\r\n. \r\n";
                assert!(odd || scanner.bare_newline(), "{:?}", mark.escape_ascii().to_string());
            }
        }
    }
}

#[test]
fn a_dot_and_crlf_at_once_end_an_empty_message() {
    let scan = scanner().data(b".\r\nRSET\r\n");
    let (content, used, ended) = (0, 3, true);
    assert_eq!(scan, Scan { content, used, ended });
}

#[test]
fn a_dot_that_may_begin_the_end_mark_is_left_unused() {
    let mut scanner = scanner();
    for (input, content) in [(&b"a\r\n."[..], 3), (b".", 0), (b".\r", 0), (b"", 0)] {
        let (used, ended) = (content, false);
        assert_eq!(scanner.data(input), Scan { content, used, ended });
    }
    assert_eq!(scanner.size(), 3);
    let (content, used, ended) = (4, 7, true);
    assert_eq!(scanner.data(b".\r\r\n.\r\nNOOP"), Scan { content, used, ended });
    assert_eq!((scanner.size(), scanner.bare_newline()), (6, true));
}

#[test]
fn stuffed_dots_are_content_but_not_size() {
    let input = b"..\r\n\r\n...\r\n.a\r\n\r\n.\r\n";
    for cut in 0..=input.len() {
        let mut scanner = scanner();
        assert_eq!(data_cut(&mut scanner, input, cut), (input.len(), true));
        assert_eq!((scanner.size(), scanner.header_size()), (14, 3), "cut at {cut}");
        assert!(!scanner.bare_newline());
    }
}

#[test]
fn in_a_chunk_a_dot_is_a_dot() {
    let scanner = chunked(b"..\r\n.\r\n\r\n.\r\nReceived: x", false);
    assert_eq!((scanner.size(), scanner.header_size(), scanner.received()), (23, 7, 0));
}

#[test]
fn the_header_section_counts_the_last_crlf_but_not_the_empty_line() {
    for (content, size) in [
        (&b"\r\nbody"[..], 0),
        (b"A: b\r\n\r\nbody\r\n", 6),
        (b"A: b\r\n c\r\n\td\r\n\r\n\r\n", 14),
        (b"no field at all\r\nA: b\r\n\r\n", 23),
        (b"A: b\r\n \r\nB: c\r\n\r\n", 15),
        (b"A: b\r\nno empty line", 19),
        (b"A: b\r\n\r", 7),
        (b"", 0),
    ] {
        assert_eq!(
            chunked(content, false).header_size(),
            size,
            "{}",
            content.escape_ascii()
        );
        let mut scanner = scanner();
        scanner.data(&[content, b"\r\n.\r\n"].concat());
        assert!(scanner.header_size() >= size, "{}", content.escape_ascii());
    }
}

#[test]
fn the_empty_line_is_not_counted_before_it_is_whole() {
    let mut scanner = scanner();
    scanner.chunk(b"A: b\r\n\r");
    assert_eq!(scanner.header_size(), 6);
}

#[test]
fn bare_newlines_hide_no_field_and_no_header_octet() {
    for newline in ["\n", "\r"] {
        let message = format!("A: b{newline}Received: x{newline}{newline}Received: y\r\nC: d\r\n\r\nReceived: z\r\n");
        let strict = chunked(message.as_bytes(), false);
        assert_eq!(
            (strict.received(), strict.header_size(), strict.bare_newline()),
            (2, 37, true)
        );
        let normalised = chunked(message.as_bytes(), true);
        assert_eq!(
            (normalised.received(), normalised.header_size()),
            (1, 17),
            "one reading, one answer"
        );
    }
}

#[test]
fn a_crlf_that_is_cut_in_two_is_not_bare() {
    let mut scanner = scanner();
    scanner.chunk(b"a\r");
    scanner.chunk(b"\n");
    scanner.finish();
    assert!(!scanner.bare_newline());
    scanner.reset();
    scanner.chunk(b"a\r");
    scanner.finish();
    assert!(scanner.bare_newline(), "nothing came behind the CR");
}

#[test]
fn nul_and_eight_bit_octets_are_seen_in_header_and_body_and_cut_nothing_off() {
    for at in [0, 5, 30, 400, 900] {
        let mut message = [b"A: something or other\r\n\r\n".to_vec(), vec![b'x'; 1000]].concat();
        message[at] = 0;
        let scanner = chunked(&message, false);
        assert_eq!(
            (scanner.nul(), scanner.eight_bit(), scanner.size()),
            (true, false, 1025)
        );
        message[at] = 0xe9;
        let scanner = chunked(&message, false);
        assert_eq!(
            (scanner.nul(), scanner.eight_bit(), scanner.header_size()),
            (false, true, 23)
        );
    }
}

#[test]
fn a_line_may_have_any_length() {
    for length in [998, 999, 2048, 65_536, 4 << 20] {
        let line = vec![b'x'; length];
        for start in ["", "\r\n", "Received: ", "Received: by ", "Received: (", "Received: \""] {
            let input = [start.as_bytes(), &line, b"\r\n.\r\n"].concat();
            let mut scanner = scanner();
            assert_eq!(scanner.data(&input).used, input.len());
            assert_eq!(scanner.size(), (input.len() - 3) as u64);
        }
    }
}

#[test]
fn a_scanner_holds_no_octet_of_the_message() {
    // Were there a buffer, it would be here or behind a pointer that grows; there is neither.
    assert!(size_of::<Scanner>() <= 160, "{}", size_of::<Scanner>());
}
