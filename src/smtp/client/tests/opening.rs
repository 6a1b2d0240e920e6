//! From the greeting to the first message.

use super::*;

#[test]
fn a_hop_that_knows_no_ehlo_is_spoken_to_in_helo_and_gets_one_command_at_a_time() {
    goes(
        &terms(),
        &[message(&["x@y.test", "z@y.test"])],
        "S: 220-y.test
         S: 220 ready
         C: EHLO edge.test
         S: 500 what
         C: HELO edge.test
         S: 250 y.test
         C: MAIL FROM:<a@b.test>
         S: 250 ok
         C: RCPT TO:<x@y.test>
         S: 250 ok
         C: RCPT TO:<z@y.test>
         S: 250 ok
         C: DATA
         S: 354 go on
         C: Hi
         C: .
         S: 250 2.6.0 taken
         = delivered 250 2.6.0 taken
         = delivered 250 2.6.0 taken
         C: QUIT
         S: 221 bye
         = closed",
    );
}

#[test]
fn a_hop_that_refuses_to_be_spoken_to_is_left() {
    for (script, end) in [
        ("S: 554 no service", "= Refused: 554 5.0.0 no service"),
        ("S: 450 4.3.2 not now", "= Refused: 450 4.3.2 not now"),
    ] {
        goes(&terms(), &[], &format!("{script}\nC: QUIT\n{end}"));
        goes(
            &terms(),
            &[],
            &format!("S: 220\nC: EHLO edge.test\nS: 501\nC: HELO edge.test\n{script}\nC: QUIT\n{end}"),
        );
        let ehlo = format!("S: 220\nC: LHLO edge.test\n{script}\nC: QUIT\n{end}");
        goes(&lmtp(), &[], &ehlo);
    }
    goes(
        &terms(),
        &[],
        "S: 220\nC: EHLO edge.test\nS: 421 4.3.2 bye\n= Closing: 421 4.3.2 bye",
    );
}

#[test]
fn after_starttls_everything_begins_anew_and_what_was_said_before_is_forgotten() {
    let terms = Terms {
        tls: TlsUse::Required,
        ..terms()
    };
    goes(
        &terms,
        &[message(&["x@y.test"]).plain()],
        "S: 220 y.test
         C: EHLO edge.test
         S: 250-y.test
         S: 250-SIZE 1
         S: 250-CHUNKING
         S: 250 STARTTLS
         C: STARTTLS
         S: 220 2.0.0 go
         ! TLS
         C: EHLO edge.test
         S: 250 y.test
         C: MAIL FROM:<a@b.test>
         S: 250 ok
         C: RCPT TO:<x@y.test>
         S: 250 ok
         C: DATA
         S: 354 go on
         C: Hi
         C: .
         S: 250 ok
         = delivered 250 2.0.0 ok
         C: QUIT
         S: 221 bye
         = closed",
    );
}

#[test]
fn implicit_tls_comes_before_the_greeting() {
    let terms = Terms {
        implicit_tls: true,
        tls: TlsUse::Required,
        ..terms()
    };
    let script = "! TLS
                  S: 220 y.test
                  C: EHLO edge.test
                  S: 250 y.test
                  C: QUIT
                  S: 221 bye
                  = closed";
    goes(&terms, &[], script);
}

#[test]
fn without_tls_a_hop_gets_mail_only_where_tls_is_not_required() {
    for (offer, answer) in [("", ""), ("S: 250-STARTTLS\n", "C: STARTTLS\nS: 454 4.7.0 no key\n")] {
        let opening = format!("S: 220 y.test\nC: EHLO edge.test\nS: 250-y.test\n{offer}S: 250 DSN\n{answer}");
        let required = Terms {
            tls: TlsUse::Required,
            ..terms()
        };
        let end = if offer.is_empty() {
            "= Tls: 454 4.7.4 TLS is required, and the hop does not offer it"
        } else {
            "= Tls: 454 4.7.0 no key"
        };
        goes(&required, &[], &format!("{opening}C: QUIT\n{end}"));
        let opportunistic = Terms {
            tls: TlsUse::Opportunistic,
            ..terms()
        };
        goes(&opportunistic, &[], &format!("{opening}C: QUIT\nS: 221 bye\n= closed"));
    }
    let off = "S: 220\nC: EHLO edge.test\nS: 250-y.test\nS: 250 STARTTLS\nC: QUIT\nS: 221 bye\n= closed";
    goes(&terms(), &[], off);
}

#[test]
fn what_a_hop_says_behind_its_yes_to_starttls_ends_the_connection() {
    let terms = Terms {
        tls: TlsUse::Opportunistic,
        ..terms()
    };
    let script = "S: 220 y.test\nC: EHLO edge.test\nS: 250-y.test\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nS: 250-y.test\n\
                  S: 250 AUTH PLAIN\n= Protocol: 451 4.5.0 the hop sent a reply to nothing\n";
    assert_eq!(play(&terms, &[], script, usize::MAX), script);
}

#[test]
fn a_hop_that_answers_before_it_is_asked_is_left() {
    let script = "S: 220 y.test\nS: 250 y.test\n= Protocol: 451 4.5.0 the hop sent a reply to nothing\n";
    assert_eq!(play(&terms(), &[], script, usize::MAX), script);
    for greeting in [
        "HTTP/1.1 400 Bad Request",
        "SSH-2.0-x",
        "* OK IMAP4rev1",
        "+OK POP3",
        "",
        "350 x",
    ] {
        let said = play(&terms(), &[], &format!("S: {greeting}\n"), 1);
        assert!(said.contains("= Protocol: 451 4.5.0 "), "{said}");
    }
}

fn with_password(terms: Terms) -> Terms {
    Terms {
        credentials: Some(Arc::new(Credentials::new("edge", "s3cret!"))),
        ..terms
    }
}

const PLAIN: &str = "AGVkZ2UAczNjcmV0IQ==";

#[test]
fn plain_is_told_in_auth_or_after_either_form_of_an_empty_challenge() {
    let opening = "S: 220\nC: EHLO edge.test\nS: 250-y.test\nS: 250 AUTH LOGIN PLAIN\n";
    let end = "S: 235 2.7.0 yes\nC: QUIT\nS: 221 bye\n= closed";
    let auth = format!("C: AUTH PLAIN {PLAIN}\n");
    goes(&with_password(terms()), &[], &format!("{opening}{auth}{end}"));
    for challenge in ["334 ", "334", "334 PLAIN supported", "334 plain supported"] {
        goes(
            &with_password(terms()),
            &[],
            &format!("{opening}{auth}S: {}\nC: {PLAIN}\n{end}", challenge.trim_end()),
        );
    }
    for challenge in ["334 NTLM supported", "334 d2hhdD8="] {
        goes(
            &with_password(terms()),
            &[],
            &format!(
                "{opening}{auth}S: {challenge}\nC: *\nC: QUIT\n= Auth: 454 4.7.0 the hop asks for what PLAIN does not have"
            ),
        );
    }
}

#[test]
fn a_response_that_is_too_long_for_a_command_waits_for_its_challenge() {
    let terms = Terms {
        credentials: Some(Arc::new(Credentials::new("edge", &"x".repeat(400)))),
        ..terms()
    };
    let said = play(
        &terms,
        &[],
        "S: 220\nC: \nS: 250-y.test\nS: 250 AUTH PLAIN\nC: \nS: 334 PLAIN supported\nC: \nS: 235 yes\nC: \nS: 221 bye",
        usize::MAX,
    );
    assert!(
        said.contains("C: AUTH PLAIN\nS: 334 PLAIN supported\nC: AGVkZ2UAeHh4"),
        "{said}"
    );
    assert!(said.ends_with("= closed\n"), "{said}");
}

#[test]
fn login_answers_the_prompts_whatever_they_are_called() {
    let opening = "S: 220\nC: EHLO edge.test\nS: 250-y.test\nS: 250 AUTH=LOGIN\nC: AUTH LOGIN\n";
    let end = "C: czNjcmV0IQ==\nS: 235 2.7.0 yes\nC: QUIT\nS: 221 bye\n= closed";
    for (first, second) in [
        ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
        ("334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"),
        ("334", "334"),
        ("334 ?", "334 ?"),
    ] {
        goes(
            &with_password(terms()),
            &[],
            &format!("{opening}S: {first}\nC: ZWRnZQ==\nS: {second}\n{end}"),
        );
    }
    goes(
        &with_password(terms()),
        &[],
        &format!("{opening}S: 334 LOGIN supported\nC: ZWRnZQ==\nS: 334 UGFzc3dvcmQ6\n{end}"),
    );
    goes(
        &with_password(terms()),
        &[],
        &format!(
            "{opening}S: 334 UGFzc3dvcmQ6\nC: *\nC: QUIT\n= Auth: 454 4.7.0 the hop asks for what LOGIN does not have"
        ),
    );
}

#[test]
fn a_hop_that_does_not_authenticate_us_gets_no_mail() {
    let opening = "S: 220\nC: EHLO edge.test\nS: 250-y.test\n";
    for (offer, rest) in [
        (
            "DSN",
            "= Auth: 454 4.7.0 the hop offers no way to authenticate that is known here".to_owned(),
        ),
        (
            "AUTH GSSAPI",
            "= Auth: 454 4.7.0 the hop offers no way to authenticate that is known here".to_owned(),
        ),
    ] {
        goes(
            &with_password(terms()),
            &[],
            &format!("{opening}S: 250 {offer}\nC: QUIT\n{rest}"),
        );
    }
    goes(
        &with_password(terms()),
        &[],
        &format!("{opening}S: 250 AUTH PLAIN\nC: AUTH PLAIN {PLAIN}\nS: 535 5.7.8 no\nC: QUIT\n= Auth: 535 5.7.8 no"),
    );
}

#[test]
fn a_password_is_not_told_in_the_clear_because_tls_was_not_offered() {
    let terms = with_password(Terms {
        tls: TlsUse::Opportunistic,
        ..terms()
    });
    goes(
        &terms,
        &[],
        "S: 220
         C: EHLO edge.test
         S: 250-y.test
         S: 250 AUTH PLAIN LOGIN
         C: QUIT
         = Auth: 454 4.7.0 the hop offers no TLS, and no way to authenticate without showing the password",
    );
}

#[test]
fn a_password_is_in_no_debug_output_and_in_no_failure() {
    let terms = with_password(terms());
    let now = Instant::now();
    let mut client = Client::new(Arc::new(terms.clone()), now);
    client.advance(b"220\r\n", now);
    client.advance(b"250-y.test\r\n250 AUTH PLAIN\r\n", now);
    assert!(String::from_utf8_lossy(client.output()).contains(PLAIN));
    let shown = format!("{terms:?} {client:?} {:?}", terms.credentials);
    client.advance(format!("535 5.7.8 not s3cret! nor {PLAIN}\r\n").as_bytes(), now);
    let shown = format!("{shown} {client:?} {:?}", client.failure());
    for secret in ["s3cret", PLAIN, "czNjcmV0"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("refused to authenticate"), "{shown}");
}
