//! Hops that fail, fall silent, break off or speak nonsense, at every step.

use proptest::prelude::*;

use super::*;

/// What the hop says in a message by DATA that is begun one command at a time, and the wait for each of it.
const STEPS: [(&str, u64); 7] = [
    ("220 y.test", 300),
    ("250 y.test", 300),
    ("250 ok", 300),
    ("250 ok", 300),
    ("354 go on", 120),
    ("250 ok", 600),
    ("221 bye", 10),
];

const COMMANDS: [&str; 7] = [
    "",
    "C: EHLO edge.test\n",
    "C: MAIL FROM:<a@b.test>\n",
    "C: RCPT TO:<x@y.test>\n",
    "C: DATA\n",
    "C: Hi\nC: .\n",
    "= delivered 250 2.0.0 ok\nC: QUIT\n",
];

/// The dialogue up to where the hop is to say line `step`.
fn up_to(step: usize) -> String {
    let replies = STEPS.iter().map(|(reply, _)| format!("S: {reply}\n"));
    let mut script: String = COMMANDS
        .iter()
        .zip(replies)
        .take(step)
        .map(|(c, s)| format!("{c}{s}"))
        .collect();
    script.push_str(COMMANDS[step]);
    script
}

#[test]
fn a_hop_that_says_421_defers_whoever_is_not_settled() {
    for step in 0..6 {
        let outcome = if step >= 2 { "= deferred 421 4.3.2 bye\n" } else { "" };
        let script = format!("{}S: 421 4.3.2 bye\n{outcome}= Closing: 421 4.3.2 bye", up_to(step));
        goes(&terms(), &[message(&["x@y.test"])], &script);
    }
    goes(
        &terms(),
        &[message(&["x@y.test"])],
        &format!("{}S: 421 bye\n= closed", up_to(6)),
    );
}

#[test]
fn a_connection_that_breaks_defers_and_tells_whether_the_content_had_ended() {
    for step in 0..6 {
        let ended = step == 5;
        let outcome = if step >= 2 {
            format!("= deferred 451 4.4.2 connection reset Lost {{ ended: {ended} }}\n")
        } else {
            String::new()
        };
        let script = format!("{}! lost\n{outcome}= Lost: 451 4.4.2 connection reset", up_to(step));
        goes(&terms(), &[message(&["x@y.test"])], &script);
    }
    goes(
        &terms(),
        &[message(&["x@y.test"])],
        &format!("{}! lost\n= closed", up_to(6)),
    );
}

#[test]
fn each_reply_is_waited_for_as_long_as_the_rfc_asks_and_comes_too_late_after_that() {
    let waits = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "end of content", "QUIT"];
    for (step, (_, seconds)) in STEPS.iter().enumerate() {
        let text = format!("451 4.4.2 no answer within {seconds} s: {}", waits[step]);
        let end = match step {
            0 | 1 => format!("= Timeout: {text}"),
            6 => "= closed".to_owned(),
            _ => format!(
                "= deferred {text} TimedOut {{ ended: {} }}\n= Timeout: {text}",
                step == 5
            ),
        };
        let script = format!("{}! after {}s\n! after 1s\n{end}", up_to(step), seconds - 1);
        goes(&terms(), &[message(&["x@y.test"])], &script);
    }
}

#[test]
fn what_comes_after_a_timeout_changes_nothing() {
    let now = Instant::now();
    let mut client = at_end_of_content(now);
    let deadline = client.deadline().unwrap();
    client.expire(deadline - Duration::from_millis(1));
    assert!(client.failure().is_none());
    client.expire(deadline);
    assert_eq!(client.advance(b"250 ok\r\n", deadline), (0, Step::Done));
    assert!(matches!(&client.take_outcomes()[..], [Outcome::Deferred(reply)]
        if reply.origin == Origin::TimedOut { ended: true }));
    assert_eq!(client.advance(b"250 ok\r\n", deadline), (8, Step::Close));
    assert_eq!(client.take_outcomes(), []);
    assert_eq!((client.deadline(), client.served()), (None, 0));
}

/// A client that has sent all of a message and waits for the last reply.
fn at_end_of_content(now: Instant) -> Client {
    let mut client = Client::new(Arc::new(terms()), now);
    client.advance(b"220\r\n", now);
    client.advance(b"250-y.test\r\n250 PIPELINING\r\n", now);
    message(&["x@y.test"]).send(&mut client, now).unwrap();
    assert_eq!(client.advance(b"250\r\n250\r\n354\r\n", now).1, Step::Content);
    client.content(b"Hi\r\n", true, now);
    assert_eq!(client.advance(b"", now), (0, Step::Read));
    client
}

#[test]
fn content_that_has_not_gone_out_when_the_hop_is_given_up_never_goes_out() {
    let now = Instant::now();
    let mut client = at_end_of_content(now);
    assert!(client.output().ends_with(b"Hi\r\n.\r\n"));
    client.expire(client.deadline().unwrap());
    assert_eq!(client.output(), b"");
}

#[test]
fn garbage_instead_of_a_reply_defers_at_every_step() {
    for step in 0..6 {
        for garbage in ["hello", "99 x", "250-a\nS: 251 b", "650 x"] {
            let said = play(
                &terms(),
                &[message(&["x@y.test"])],
                &format!("{}S: {garbage}\n", up_to(step)),
                usize::MAX,
            );
            assert!(said.contains("= Protocol: 451 4.5.0 the hop "), "{said}");
            assert_eq!(said.contains("= deferred 451 4.5.0 the hop "), step >= 2, "{said}");
        }
    }
    // 1xx is none of RFC 5321, and 3xx is an answer to AUTH and DATA only.
    for step in [0, 1, 2, 3, 5] {
        let said = play(
            &terms(),
            &[message(&["x@y.test"])],
            &format!("{}S: 354 go on\n", up_to(step)),
            1,
        );
        assert!(said.contains("= Protocol: 451 4.5.0 the hop "), "{said}");
    }
    let said = play(
        &terms(),
        &[message(&["x@y.test"])],
        &format!("{}S: 250 ok\n", up_to(4)),
        1,
    );
    assert!(said.contains("as if it had the content already"), "{said}");
}

#[test]
fn replies_that_nobody_asked_for_end_the_connection() {
    for (step, reply) in [(2, "250 ok"), (3, "250 ok"), (4, "354 go on")] {
        let script = format!("{}S: {reply}\nS: 250 ok\n", up_to(step));
        let said = play(&terms(), &[message(&["x@y.test"])], &script, usize::MAX);
        assert!(
            said.contains("= deferred 451 4.5.0 the hop sent a reply to nothing Nonsense"),
            "{said}"
        );
    }
    let script = format!("{}S: 250 ok\nS: 250 ok\n", up_to(5));
    let said = play(&terms(), &[message(&["x@y.test"])], &script, usize::MAX);
    let end = "= delivered 250 2.0.0 ok\n= Protocol: 451 4.5.0 the hop sent a reply to nothing\n";
    assert!(said.ends_with(end), "{said}");
}

#[test]
fn a_hop_that_answers_in_the_middle_of_the_content_hears_no_end_of_it() {
    let now = Instant::now();
    for (reply, outcome) in [
        ("552 5.3.4 too large\r\n", "Failed"),
        ("452 4.3.1 full\r\n", "Deferred"),
        ("421 4.3.2 bye\r\n", "Deferred"),
        ("250 2.0.0 taken\r\n", "Deferred"),
        ("354 more\r\n", "Deferred"),
    ] {
        for chunking in [false, true] {
            let mut client = Client::new(Arc::new(terms()), now);
            client.advance(b"220\r\n", now);
            let offers = if chunking { "CHUNKING" } else { "DSN" };
            client.advance(format!("250-y.test\r\n250 {offers}\r\n").as_bytes(), now);
            message(&["x@y.test"]).plain().send(&mut client, now).unwrap();
            client.advance(b"250\r\n", now);
            let mut step = client.advance(b"250\r\n", now).1;
            if !chunking {
                step = client.advance(b"354\r\n", now).1;
            }
            assert_eq!(step, Step::Content);
            client.content(b"Hi", false, now);
            assert_eq!(client.advance(&reply.as_bytes()[..3], now), (0, Step::Content));
            assert_eq!(client.advance(reply.as_bytes(), now), (reply.len(), Step::Done));
            client.content(b"\r\n", true, now);
            assert_eq!(client.output(), b"", "nothing more is sent");
            let outcomes = format!("{:?}", client.take_outcomes());
            assert!(outcomes.starts_with(&format!("[{outcome}(")), "{reply} {outcomes}");
            assert_eq!(client.advance(b"", now), (0, Step::Close));
        }
    }
}

#[test]
fn content_that_has_not_the_announced_size_is_not_ended() {
    for (size, content) in [(3, "Hi\r\n"), (5, "Hi\r\n"), (0, "Hi\r\n")] {
        for offers in ["DSN", "CHUNKING"] {
            for chunk in [1, 4] {
                let now = Instant::now();
                let mut client = Client::new(Arc::new(terms()), now);
                client.advance(b"220\r\n", now);
                client.advance(format!("250-y.test\r\n250 {offers}\r\n").as_bytes(), now);
                let mut message = message(&["x@y.test"]).plain();
                message.size = Some(size);
                message.send(&mut client, now).unwrap();
                client.advance(b"250\r\n", now);
                client.advance(b"250\r\n", now);
                if offers == "DSN" {
                    client.advance(b"354\r\n", now);
                }
                let pieces: Vec<&[u8]> = content.as_bytes().chunks(chunk).collect();
                for (n, piece) in pieces.iter().enumerate() {
                    client.content(piece, n + 1 == pieces.len(), now);
                }
                assert_eq!(client.advance(b"", now), (0, Step::Done));
                assert_eq!(client.output(), b"");
                assert!(matches!(&client.take_outcomes()[..], [Outcome::Deferred(_)]));
                assert_eq!(client.failure().unwrap().fault, Fault::Content);
            }
        }
    }
}

#[test]
fn a_recipient_that_is_not_in_the_envelope_stops_the_message_and_none_is_an_empty_one() {
    let now = Instant::now();
    let message = message(&["x@y.test"]);
    for (recipients, outcomes) in [(&[0, 7][..], 2), (&[][..], 0)] {
        let mut client = Client::new(Arc::new(terms()), now);
        client.advance(b"220\r\n", now);
        client.advance(b"250\r\n", now);
        client.output().clear();
        let outgoing = Outgoing {
            envelope: &message.envelope,
            recipients,
            form: Form::Dotted,
            size: 4,
            head: b"",
            eight_bit: false,
            bare_newline: false,
        };
        client.send(&outgoing, now).unwrap();
        assert_eq!(client.advance(b"", now), (0, Step::Done));
        assert_eq!(client.output(), b"");
        assert_eq!(client.take_outcomes().len(), outcomes);
        assert_eq!(client.is_idle(), outcomes == 0);
    }
}

/// Pieces of what a hop could say, so that a random sequence gets somewhere.
fn utterance() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "220 y.test\r\n",
        "250 ok\r\n",
        "250-y.test\r\n",
        "250 PIPELINING\r\n",
        "250-CHUNKING\r\n",
        "250-STARTTLS\r\n",
        "250 AUTH PLAIN LOGIN\r\n",
        "354 go\r\n",
        "334 \r\n",
        "334 LOGIN supported\r\n",
        "235 yes\r\n",
        "421 bye\r\n",
        "450 x\r\n",
        "550 5.1.1 x\r\n",
        "250",
        "-",
        "\r",
        "\n",
        "503 x\r\n",
        "552 x\r\n",
        "220\r\n",
        "250\r\n",
    ];
    prop_oneof![
        20 => prop::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn whatever_a_hop_says_everybody_gets_one_outcome_and_none_is_delivered_before_the_end(
        said in prop::collection::vec(utterance(), 0..40), lmtp in any::<bool>(), auth in any::<bool>(),
        tls in any::<bool>(), plain in any::<bool>(), recipients in 1..4_usize,
    ) {
        let terms = Terms {
            dialect: if lmtp { Dialect::Lmtp } else { Dialect::Smtp },
            credentials: auth.then(|| Arc::new(Credentials::new("edge", "s3cret!"))),
            tls: if tls { TlsUse::Opportunistic } else { TlsUse::Off },
            ..terms()
        };
        let mut message = message(&["u@y.test", "v@y.test", "w@y.test"][..recipients]);
        message.form = if plain { Form::Plain } else { Form::Dotted };
        let mut now = Instant::now();
        let mut client = Client::new(Arc::new(terms), now);
        let (mut said, mut input, mut begun, mut ended) = (said.iter(), Vec::new(), 0, false);
        for _ in 0..1000 {
            let (used, step) = client.advance(&input, now);
            input.drain(..used);
            match step {
                Step::Read => match said.next() {
                    Some(utterance) => input.extend_from_slice(utterance),
                    None => {
                        now = client.deadline().expect("a wait has an end");
                        client.expire(now);
                    }
                },
                Step::Handshake => client.secured(now),
                Step::Ask => find(&mut client, now),
                Step::Ready => {
                    (begun, ended) = (begun + 1, false);
                    prop_assert!(message.send(&mut client, now).is_ok());
                }
                Step::Content => {
                    ended = true;
                    client.content(&message.content, true, now);
                }
                Step::Done => {
                    begun -= 1;
                    let outcomes = client.take_outcomes();
                    prop_assert_eq!(outcomes.len(), recipients);
                    let delivered = |outcome| matches!(outcome, &Outcome::Delivered(_));
                    prop_assert!(ended || !outcomes.iter().any(delivered));
                }
                Step::Close => {
                    prop_assert_eq!(begun, 0, "a message that was begun is done");
                    prop_assert!(client.failure().is_some());
                    return Ok(());
                }
            }
            client.output().clear();
        }
        prop_assert!(false, "no end");
    }
}
