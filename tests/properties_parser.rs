//! Properties of the command parser: what holds for any octets, and naive readers of 30 lines that must agree with it.
//!
//! Promises: the oracles share no code with the parser. Needs no network, no files, no clock.

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use postern::smtp::Edition;
use postern::smtp::command::{self, Chunk, Verb};
use postern::smtp::extension::{Extension, Offered};
use postern::smtp::parameters::xtext::is_xtext;
use postern::smtp::path::{ForwardPath, Mailbox, ReversePath};
use postern::smtp::received::{self, Protocol, Trace};
use proptest::prelude::*;

fn everything() -> Offered {
    Offered::of(Edition::Y2021, &[], true)
        .with(Extension::StartTls)
        .with(Extension::Auth)
}

/// Octets that are often nearly right.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        &b"MAIL FROM:"[..],
        b"RCPT TO:",
        b"BDAT ",
        b"EHLO ",
        b"XEXCH50 ",
        b"<",
        b">",
        b"<>",
        b"@",
        b"a@b.test",
        b"\"",
        b"\\",
        b" ",
        b"  ",
        b"SIZE=",
        b"18446744073709551616",
        b"BODY=",
        b"8BITMIME",
        b"SMTPUTF8",
        b"AUTH=",
        b"ENVID=",
        b"ORCPT=utf-8;",
        b"NOTIFY=",
        b"NEVER",
        b",",
        b"\\x{",
        b"}",
        b"+0A",
        b"+",
        b"[IPv6:",
        b"]",
        b":",
        b"0",
        b"LAST",
        b"\0",
        b"\r",
        b"\n",
        b"\x7f",
        b"\xc3\xa9",
        b"\xc3",
        b"\xe3\x80\x82",
    ]);
    let word = prop_oneof![4 => words.prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..5)];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

/// RFC 5321 section 4.1.2 without UTF-8, slowly: the mailbox of `<...>` without its source route.
fn naive_path(path: &str) -> Option<&str> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() < 64
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let domain = |d: &str| d.len() < 256 && d.split('.').all(label);
    let mut mailbox = path.strip_prefix('<')?.strip_suffix('>')?;
    if mailbox.starts_with('@') {
        let (route, rest) = mailbox.split_once(':')?;
        if !route.split(',').all(|hop| hop.strip_prefix('@').is_some_and(domain)) {
            return None;
        }
        mailbox = rest;
    }
    let at = mailbox.rfind('@')?;
    let (local, host) = (&mailbox[..at], &mailbox[at + 1..]);
    let atom = |a: &str| {
        !a.is_empty()
            && a.chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    };
    let quoted = |q: &str| {
        let plain = q.replace("\\\\", "").replace("\\\"", "");
        // What is left of the backslashes escapes an ordinary character.
        let printable = q.chars().all(|c| (' '..='~').contains(&c));
        printable && !plain.contains('"') && !plain.ends_with('\\')
    };
    let good_local = match local.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').is_some_and(quoted),
        None => local.split('.').all(atom),
    };
    let good_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(literal) => match literal.split_once(':') {
            None => literal.parse::<std::net::Ipv4Addr>().is_ok(),
            Some((tag, rest)) if tag.eq_ignore_ascii_case("ipv6") => rest.parse::<std::net::Ipv6Addr>().is_ok(),
            Some((tag, rest)) => {
                let dcontent = |c: char| ('!'..='~').contains(&c) && !"[\\]".contains(c);
                !tag.ends_with('-')
                    && atom(&tag.replace('-', "x"))
                    && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                    && !rest.is_empty()
                    && rest.chars().all(dcontent)
            }
        },
        None => domain(host),
    };
    (good_local && good_host && local.len() <= 64 && host.len() <= 255 && path.len() <= 256).then_some(mailbox)
}

fn naive_bdat(args: &str) -> Option<Chunk> {
    let words: Vec<&str> = args.split(' ').collect();
    let size: u64 = words[0].parse().ok()?;
    let last = match words[1..] {
        [] => false,
        [last] if last.to_uppercase() == "LAST" && last.is_ascii() => true,
        _ => return None,
    };
    (size.to_string() == words[0] && size <= 9_223_372_036_854_775_807).then_some(Chunk { size, last })
}

/// Decodes, looks, encodes again.
fn naive_xtext(value: &str) -> bool {
    let mut decoded = Vec::new();
    let mut rest = value.to_owned();
    while let Some(character) = rest.chars().next() {
        rest.remove(0);
        if character != '+' {
            decoded.push((character, false));
            continue;
        }
        let Some(hex) = rest.get(..2).map(str::to_owned) else {
            return false;
        };
        let Ok(code) = u8::from_str_radix(&hex, 16) else {
            return false;
        };
        if format!("{code:02X}") != hex {
            return false;
        }
        decoded.push((char::from(code), true));
        rest.drain(..2);
    }
    decoded.iter().all(|&(character, encoded)| match character {
        '\t' | ' ' | '+' | '=' => encoded,
        _ => character.is_ascii_graphic(),
    })
}

/// Printed and read again, a path is the same.
fn survives(path: &[u8]) -> Result<(), TestCaseError> {
    if let Ok((parsed, _)) = ReversePath::parse(path, true) {
        let printed = parsed.to_string();
        prop_assert_eq!(ReversePath::parse(printed.as_bytes(), true), Ok((parsed, &b""[..])));
    }
    if let Ok((parsed, _)) = ForwardPath::parse(path, true) {
        let printed = parsed.to_string();
        prop_assert_eq!(
            ForwardPath::parse(printed.as_bytes(), true),
            Ok((parsed.clone(), &b""[..]))
        );
        if let Some(mailbox) = parsed.mailbox() {
            prop_assert_eq!(Mailbox::parse(mailbox.as_str()), Some(mailbox.clone()));
            prop_assert!(!mailbox.as_str().chars().any(char::is_control));
            prop_assert!(mailbox.domain_key().is_ascii());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_octets_make_the_parser_panic_and_nothing_unprintable_comes_through(line in line()) {
        let (verb, args) = command::split(&line);
        prop_assert!(verb.line_limit() >= 512 && !verb.name().is_empty());
        prop_assert!(!args.starts_with(b" ") && !args.ends_with(b" "));
        for args in [args, &line] {
            let _ = (command::bdat(args), command::xexch50(args));
            let _ = (command::no_arguments(args), command::any_arguments(args));
            for offered in [everything(), Offered::of(Edition::Y2011, &Extension::ALL, false)] {
                if let Ok((path, parameters)) = command::mail(args, offered) {
                    let values = [Some(path.as_str()), parameters.envid.as_deref(), parameters.auth.as_deref()];
                    prop_assert!(!values.into_iter().flatten().any(|v| v.contains(char::is_control)));
                    prop_assert!(parameters.smtputf8 || path.as_str().is_ascii());
                }
                for utf8 in [true, false] {
                    if let Ok((path, parameters)) = command::rcpt(args, offered, utf8) {
                        let said = format!("{path}{}", parameters.orcpt.unwrap_or_default());
                        prop_assert!(!said.contains(char::is_control));
                        prop_assert!(utf8 || said.is_ascii());
                    }
                }
            }
            if let Ok(name) = command::hello(args, true) {
                prop_assert!(!name.contains(|c: char| c.is_control() || c == ' '));
            }
        }
        survives(&line)?;
    }

    #[test]
    fn a_verb_is_what_stands_before_the_first_space(
        word in "[a-zA-Z]{0,9}|[mM][aA][iI][lL]|[rR]set",
        args in "[ -~]{0,20}",
    ) {
        let line = format!("{word} {args}");
        let (verb, rest) = command::split(line.as_bytes());
        let upper = word.to_uppercase();
        if !matches!(verb, Verb::Unknown | Verb::Foreign) {
            prop_assert_eq!(verb.name(), upper);
        } else {
            prop_assert!(!["HELO", "EHLO", "MAIL", "RCPT", "RSET", "QUIT", "NOOP", "DATA"].contains(&upper.as_str()));
        }
        prop_assert_eq!(rest, args.trim_matches(' ').as_bytes());
    }

    #[test]
    fn a_path_is_one_where_the_naive_reader_says_so(
        path in prop_oneof![
            r#"<?[ab.@"\\:,\[\]1<> -]{0,10}>?"#,
            r#"<(@[ab.-]{1,3}[,:]){0,2}([a!#$%&'*+/=?^_`{|}~.-]{1,5}|"([ab@<> ]|\\.){0,4}")@[a1.-]{1,6}>"#,
            r"<a@\[([0-9]{1,3}\.){3}[0-9]{1,3}\]>",
            r"<a@\[(IPv6|ipv6|x-t|-|):[0-9a-f:.]{0,12}\]>",
            "<[ab]{60,67}@[a.]{2,4}>",
            r"<a@([a-z]{60,65}\.){0,4}[a-z]{1,60}>",
        ]
    ) {
        let expected = naive_path(&path).map(str::to_owned);
        // The parser stops behind the path; only where it has read everything do the two speak of the same.
        let parsed = ForwardPath::parse(path.as_bytes(), false).ok().filter(|(_, rest)| rest.is_empty());
        prop_assert_eq!(parsed.map(|(p, _)| p.as_str().to_owned()), expected);
        survives(path.as_bytes())?;
    }

    #[test]
    fn a_chunk_is_one_where_the_naive_reader_says_so(
        args in prop_oneof![
            "[0-9+x-]{0,21}( |  )?([lL][aA][sS][tT]|LAS|)",
            "0|[1-9][0-9]{0,19}( [lL]ast)?",
            "92233720368547758[0-9]{2}",
        ]
    ) {
        prop_assert_eq!(command::bdat(args.as_bytes()).ok(), naive_bdat(&args));
    }

    #[test]
    fn xtext_is_what_the_naive_reader_can_decode(
        value in "([a-z!~ =\u{e9}\t]|\\+[0-9A-Fa-f]{0,2}|\\+[2-7][0-9A-F]){0,8}"
    ) {
        prop_assert_eq!(is_xtext(value.as_bytes()), naive_xtext(&value));
    }

    #[test]
    fn composed_or_decomposed_quoted_or_not_a_mailbox_has_one_key(
        local in "[a-zA-Z\u{c0}-\u{24f}\u{300}-\u{345}\u{ac00}-\u{ac20}]{1,8}",
        domain in "[a-z\u{e0}-\u{f6}]{1,8}\\.test",
    ) {
        let composed = ComposingNormalizerBorrowed::new_nfc().normalize(&local).into_owned();
        let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(&local).into_owned();
        let spelled = [
            format!("{composed}@{domain}"),
            format!("\"{composed}\"@{}", domain.to_uppercase()),
            format!("{decomposed}@{domain}"),
        ];
        let mailboxes: Vec<_> = spelled.iter().filter_map(|m| Mailbox::parse(m)).collect();
        // Some marks may not begin a label, some names are too long once decomposed; the rest must agree.
        for mailbox in &mailboxes {
            prop_assert_eq!(mailbox.key(), mailboxes[0].key());
            let a_labels = format!("{}@{}", mailbox.local(), mailbox.domain_key());
            prop_assert_eq!(Mailbox::parse(&a_labels).map(|m| m.key()), Some(mailbox.key()));
            if let Some(key) = Mailbox::parse(&mailbox.key()) {
                prop_assert_eq!(key.key(), mailbox.key(), "a key of a key is that key");
            }
        }
    }
}

proptest! {
    // Long strings are slow to make.
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_hello_name_breaks_the_received_field(
        hello in "\\PC{0,300}|[\u{0}-\u{ff}]{0,300}",
        recipient in any::<Option<String>>(),
    ) {
        let mut out = Vec::new();
        received::write(&mut out, &Trace {
            hello: &hello,
            client: [192, 0, 2, 1].into(),
            hostname: "mx.test",
            protocol: Protocol::of(true, false, false, false),
            queue_id: "Q",
            date: "D",
            recipient: recipient.as_deref(),
        });
        prop_assert!(out.iter().all(|&o| matches!(o, b'\r' | b'\n' | b'\t' | b' '..=b'~')));
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.split("\r\n").collect();
        prop_assert_eq!(lines.len(), 4);
        prop_assert!(lines[0].starts_with("Received: from ") && lines[0].ends_with(" ([192.0.2.1])"));
        prop_assert!(lines[1].starts_with("\tby mx.test ") && lines[2].starts_with('\t') && lines[3].is_empty());
        prop_assert!(lines.iter().all(|line| line.len() < 998 && !line.contains(['\r', '\n'])));
    }
}
