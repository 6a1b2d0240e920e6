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
    for (offer, answer) in [("", ""), ("S: 250-STARTTLS\n", "C: STARTTLS\nS: 554 5.7.0 no key\n")] {
        let opening = format!("S: 220 y.test\nC: EHLO edge.test\nS: 250-y.test\n{offer}S: 250 DSN\n{answer}");
        let required = Terms {
            tls: TlsUse::Required,
            ..terms()
        };
        let end = if offer.is_empty() {
            "= Tls: 454 4.7.4 TLS is required, and the hop does not offer it"
        } else {
            "= Tls: 454 4.7.4 TLS is required, and the hop refuses it: 554 5.7.0 no key"
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
