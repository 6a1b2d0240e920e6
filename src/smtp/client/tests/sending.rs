//! Messages to a hop that does what it should.

use super::*;
use crate::smtp::envelope::{Body, Notify, Ret};

/// The dialogue up to the first MAIL, with a hop that offers these.
fn opening(offers: &str) -> String {
    let offers: Vec<&str> = offers.split(", ").collect();
    let (last, others) = offers.split_last().unwrap();
    let others: String = others.iter().map(|offer| format!("S: 250-{offer}\n")).collect();
    format!("S: 220 y.test\nC: EHLO edge.test\nS: 250-y.test\n{others}S: 250 {last}\n")
}

const QUIT: &str = "C: QUIT\nS: 221 bye\n= closed\n";

#[test]
fn with_pipelining_a_message_takes_three_writes() {
    let script = "C: MAIL FROM:<a@b.test>
                  C: RCPT TO:<x@y.test>
                  C: RCPT TO:<z@y.test>
                  C: DATA
                  S: 250 ok
                  S: 250 ok
                  S: 251 will forward
                  S: 354 go on
                  C: Received: here
                  C: Hi
                  C: .
                  S: 250 2.6.0 taken
                  = delivered 250 2.6.0 taken
                  = delivered 250 2.6.0 taken\n";
    let mut message = message(&["x@y.test", "z@y.test"]);
    message.head = "Received: here\r\n";
    let script = format!("{}{}{QUIT}", opening("PIPELINING"), script.repeat(2));
    goes(&terms(), &[message.clone(), message], &script);
}

#[test]
fn with_chunking_a_small_message_takes_one_write() {
    let script = "C: MAIL FROM:<a@b.test>
                  C: RCPT TO:<x@y.test>
                  C: BDAT 15 LAST
                  C: Head: x
                  C: .Hi
                  S: 250 ok
                  S: 250 ok
                  S: 250 2.6.0 taken
                  = delivered 250 2.6.0 taken\n";
    let mut message = message(&["x@y.test"]).plain().content(".Hi\r\n");
    message.head = "Head: x\r\n";
    message.size = Some(14);
    let script = script.replace("BDAT 15", "BDAT 14");
    let script = format!("{}{}{QUIT}", opening("PIPELINING, CHUNKING"), script.repeat(2));
    goes(&terms(), &[message.clone(), message], &script);
}

#[test]
fn a_large_chunk_waits_until_somebody_wants_it() {
    let line = format!("{}\r\n", "x".repeat(98));
    let message = message(&["x@y.test"]).plain().content(&line.repeat(656));
    let lines = format!("C: {}", line.replace("\r\n", "\n")).repeat(656);
    let opening = opening("PIPELINING, CHUNKING");
    let commands = "C: MAIL FROM:<a@b.test>\nC: RCPT TO:<x@y.test>\nS: 250 ok\n";
    goes(
        &terms(),
        std::slice::from_ref(&message),
        &format!(
            "{opening}{commands}S: 250 ok\nC: BDAT 65600 LAST\n{lines}S: 250 ok\n= delivered 250 2.0.0 ok\n{QUIT}"
        ),
    );
    goes(
        &terms(),
        &[message],
        &format!("{opening}{commands}S: 550 no\n= failed 550 5.0.0 no\n{QUIT}"),
    );
}

#[test]
fn without_pipelining_everybody_refused_ends_before_the_content_and_rset_comes_before_the_next() {
    let refused = "C: MAIL FROM:<a@b.test>
                   S: 250 ok
                   C: RCPT TO:<x@y.test>
                   S: 550 5.1.1 who
                   C: RCPT TO:<z@y.test>
                   S: 450 4.2.1 later
                   = failed 550 5.1.1 who
                   = deferred 450 4.2.1 later\n";
    let again = refused.replace("C: MAIL", "C: RSET\nS: 250 ok\nC: MAIL");
    let message = message(&["x@y.test", "z@y.test"]);
    for offers in ["DSN", "CHUNKING"] {
        let script = format!("{}{refused}{again}{QUIT}", opening(offers));
        goes(&terms(), &[message.clone().plain(), message.clone().plain()], &script);
    }
}

#[test]
fn a_hop_that_refuses_everybody_and_asks_for_content_gets_none() {
    let script = "C: MAIL FROM:<a@b.test>
                  C: RCPT TO:<x@y.test>
                  C: DATA
                  S: 250 ok
                  S: 550 5.1.1 who
                  S: 354 go on
                  C: .
                  S: 554 5.5.1 no recipients
                  = failed 550 5.1.1 who\n";
    let message = message(&["x@y.test"]);
    let script = format!("{}{}{QUIT}", opening("PIPELINING"), script.repeat(2));
    goes(&terms(), &[message.clone(), message], &script);
}

#[test]
fn a_data_that_is_refused_with_its_recipients_leaves_a_transaction_to_reset() {
    let script = "C: MAIL FROM:<a@b.test>
                  C: RCPT TO:<x@y.test>
                  C: DATA
                  S: 250 ok
                  S: 550 5.1.1 who
                  S: 503 5.5.1 no recipients
                  = failed 550 5.1.1 who\n";
    let again = script
        .replace("C: MAIL", "C: RSET\nC: MAIL")
        .replacen("S: 250 ok", "S: 250 reset\nS: 250 ok", 1);
    let message = message(&["x@y.test"]);
    let script = format!("{}{script}{again}{QUIT}", opening("PIPELINING"));
    goes(&terms(), &[message.clone(), message], &script);
}

#[test]
fn a_chunk_for_nobody_is_answered_and_reset() {
    let script = "C: MAIL FROM:<a@b.test>
                  C: RCPT TO:<x@y.test>
                  C: BDAT 4 LAST
                  C: Hi
                  S: 250 ok
                  S: 550 5.1.1 who
                  S: 503 5.5.1 no recipients
                  = failed 550 5.1.1 who\n";
    let again = script
        .replace("C: MAIL", "C: RSET\nC: MAIL")
        .replacen("S: 250 ok", "S: 250 reset\nS: 250 ok", 1);
    let message = message(&["x@y.test"]).plain();
    let script = format!("{}{script}{again}{QUIT}", opening("PIPELINING, CHUNKING"));
    goes(&terms(), &[message.clone(), message], &script);
}

#[test]
fn a_sender_that_is_refused_is_refused_for_everybody_and_leaves_nothing_to_reset() {
    let pipelined = "C: MAIL FROM:<a@b.test>
                     C: RCPT TO:<x@y.test>
                     C: RCPT TO:<z@y.test>
                     C: DATA
                     S: 550 5.7.1 not you
                     S: 503 5.5.1 MAIL first
                     S: 250 why not
                     S: 503 5.5.1 MAIL first
                     = failed 550 5.7.1 not you
                     = failed 550 5.7.1 not you\n";
    let single = "C: MAIL FROM:<a@b.test>
                  S: 451 4.7.1 greylisted
                  = deferred 451 4.7.1 greylisted
                  = deferred 451 4.7.1 greylisted\n";
    let message = message(&["x@y.test", "z@y.test"]);
    for (offers, script) in [("PIPELINING", pipelined), ("DSN", single)] {
        let script = format!("{}{}{QUIT}", opening(offers), script.repeat(2));
        goes(&terms(), &[message.clone(), message.clone()], &script);
    }
}

#[test]
fn recipients_beyond_the_number_that_a_hop_takes_are_deferred() {
    for (reply, outcome) in [
        ("452 4.5.3 too many", "deferred 452 4.5.3 too many"),
        ("552 5.5.3 too many", "deferred 552 5.5.3 too many"),
        ("552 too many", "deferred 552 5.0.0 too many"),
        ("552 5.2.2 mailbox full", "failed 552 5.2.2 mailbox full"),
    ] {
        let script = format!(
            "{}C: MAIL FROM:<a@b.test>
             C: RCPT TO:<x@y.test>
             C: RCPT TO:<z@y.test>
             C: DATA
             S: 250 ok
             S: 250 ok
             S: {reply}
             S: 354 go on
             C: Hi
             C: .
             S: 250 ok
             = delivered 250 2.0.0 ok
             = {outcome}
             {QUIT}",
            opening("PIPELINING")
        );
        goes(&terms(), &[message(&["x@y.test", "z@y.test"])], &script);
    }
    let first = "C: MAIL FROM:<a@b.test>\nS: 250\nC: RCPT TO:<x@y.test>\nS: 552 no\n= failed 552 5.0.0 no\n";
    goes(
        &terms(),
        &[message(&["x@y.test"])],
        &format!("{}{first}{QUIT}", opening("DSN")),
    );
}

#[test]
fn lmtp_has_a_reply_for_each_recipient_that_was_taken() {
    for (offers, content, end) in [
        ("PIPELINING", "C: DATA", "C: ."),
        ("PIPELINING, CHUNKING", "C: BDAT 4 LAST", ""),
    ] {
        let first = if offers.contains("CHUNKING") { "" } else { "C: DATA\n" };
        let go_on = if offers.contains("CHUNKING") {
            "C: BDAT 4 LAST"
        } else {
            "S: 354 go on"
        };
        assert!(content.starts_with("C: "));
        let script = format!(
            "{}C: MAIL FROM:<a@b.test>
             C: RCPT TO:<u@y.test>
             C: RCPT TO:<v@y.test>
             C: RCPT TO:<w@y.test>
             C: RCPT TO:<x@y.test>
             {first}S: 250 ok
             S: 250 ok
             S: 550 5.1.1 v
             S: 250 ok
             S: 250 ok
             {go_on}
             C: Hi
             {end}
             S: 250 2.1.5 u
             S: 452 4.2.2 w
             S: 552 5.2.2 x
             = delivered 250 2.1.5 u
             = failed 550 5.1.1 v
             = deferred 452 4.2.2 w
             = failed 552 5.2.2 x
             {QUIT}",
            opening(offers).replace("EHLO", "LHLO")
        );
        let message = message(&["u@y.test", "v@y.test", "w@y.test", "x@y.test"]).plain();
        goes(&lmtp(), &[message], &script);
    }
}

#[test]
fn more_recipients_than_may_be_on_their_way_go_as_the_replies_come() {
    let names: Vec<String> = (0..600).map(|n| format!("u{n}@y.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (terms, now) = (Arc::new(terms()), Instant::now());
    let mut client = Client::new(terms, now);
    client.advance(b"220\r\n", now);
    client.advance(b"250-y.test\r\n250 PIPELINING\r\n", now);
    client.output().clear();
    message(&names).send(&mut client, now).unwrap();
    let (mut commands, mut replies) = (0, 0);
    while replies < 602 {
        let output = std::mem::take(client.output());
        commands += output.iter().filter(|&&octet| octet == b'\n').count();
        assert!((1..=257).contains(&(commands - replies)), "{commands} {replies}");
        assert_eq!(output.ends_with(b"DATA\r\n"), commands == 602 && !output.is_empty());
        let reply: &[u8] = match replies {
            601 => b"354\r\n",
            n if n % 2 == 1 => b"550 odd\r\n",
            _ => b"250\r\n",
        };
        replies += 1;
        let step = if replies == 602 { Step::Content } else { Step::Read };
        assert_eq!(client.advance(reply, now), (reply.len(), step));
    }
    client.content(b"Hi\r\n", true, now);
    assert_eq!(client.advance(b"250 ok\r\n", now), (8, Step::Done));
    for (n, outcome) in client.take_outcomes().iter().enumerate() {
        assert_eq!(matches!(outcome, Outcome::Delivered(_)), n % 2 == 1, "{n} {outcome:?}");
    }
}

/// A message with everything that MAIL and RCPT can say.
fn elaborate() -> Message {
    let mut message = message(&["x@y.test", "postmaster", "z@y.test"]);
    let mail = &mut message.envelope.mail;
    mail.body = Body::EightBitMime;
    mail.ret = Some(Ret::Headers);
    mail.envid = Some("QQ+2B1".into());
    mail.auth = Some("a+40b".into());
    mail.size = Some(5);
    mail.smtputf8 = true;
    let recipients = &mut message.envelope.recipients;
    recipients[0].parameters.notify = Some(Notify::Never);
    recipients[0].parameters.orcpt = Some("utf-8;\u{e9}@y.test".into());
    recipients[1].parameters.notify = Some(Notify::On {
        success: true,
        failure: false,
        delay: true,
    });
    recipients[2].parameters.orcpt = Some("rfc822;z+2B@y.test".into());
    message
}

#[test]
fn parameters_go_to_a_hop_that_offers_what_they_stand_for() {
    let all = "C: MAIL FROM:<a@b.test> SIZE=4 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1
               C: RCPT TO:<x@y.test> NOTIFY=NEVER ORCPT=utf-8;\u{e9}@y.test
               C: RCPT TO:<postmaster> NOTIFY=SUCCESS,DELAY
               C: RCPT TO:<z@y.test> ORCPT=rfc822;z+2B@y.test\n";
    let reports = "C: MAIL FROM:<a@b.test> RET=HDRS ENVID=QQ+2B1
                   C: RCPT TO:<x@y.test> NOTIFY=NEVER ORCPT=utf-8;\\x{E9}@y.test
                   C: RCPT TO:<postmaster> NOTIFY=SUCCESS,DELAY
                   C: RCPT TO:<z@y.test> ORCPT=rfc822;z+2B@y.test\n";
    let none = "C: MAIL FROM:<a@b.test>\nC: RCPT TO:<x@y.test>\nC: RCPT TO:<postmaster>\nC: RCPT TO:<z@y.test>\n";
    for (offers, commands) in [
        ("PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN, AUTH PLAIN", all),
        ("PIPELINING, DSN", reports),
        ("PIPELINING, SMTPUTF8", none),
    ] {
        let refused = format!("C: DATA\n{}= {}\n", "S: 550 no\n".repeat(5), "failed 550 5.0.0 no");
        let refused = refused.replace("= failed 550 5.0.0 no\n", &"= failed 550 5.0.0 no\n".repeat(3));
        goes(
            &terms(),
            &[elaborate()],
            &format!("{}{commands}{refused}{QUIT}", opening(offers)),
        );
    }
}

#[test]
fn a_message_that_a_hop_cannot_take_is_not_begun_and_the_connection_lives() {
    let eight_bit = message(&["x@y.test"]).content("\u{e9}\r\n");
    let mut binary = message(&["x@y.test"]).plain().content("\0");
    binary.envelope.mail.body = Body::BinaryMime;
    let mut bare = message(&["x@y.test"]).plain().content("a\nb");
    bare.bare_newline = true;
    let mut utf8_header = eight_bit.clone();
    utf8_header.envelope.mail.smtputf8 = true;
    let mut utf8_address = message(&["\u{e9}@y.test"]);
    utf8_address.envelope.mail.smtputf8 = true;
    let mut large = message(&["x@y.test"]).plain();
    large.size = Some(1001);
    for (message, offers, misfit) in [
        (
            &eight_bit,
            "SIZE",
            "EightBit 554 5.6.1 The next hop does not take 8-bit content",
        ),
        (
            &binary,
            "8BITMIME, CHUNKING",
            "BinaryMime 554 5.6.1 The next hop does not take binary content",
        ),
        (
            &binary,
            "8BITMIME, BINARYMIME",
            "BinaryMime 554 5.6.1 The next hop does not take binary content",
        ),
        (
            &bare,
            "8BITMIME",
            "BareNewline 554 5.6.1 The next hop does not take content with bare CR or LF",
        ),
        (
            &utf8_header,
            "8BITMIME",
            "SmtpUtf8 553 5.6.7 The next hop does not take internationalized mail",
        ),
        (
            &utf8_address,
            "8BITMIME",
            "SmtpUtf8 553 5.6.7 The next hop does not take internationalized mail",
        ),
        (
            &large,
            "SIZE 1000",
            "Size 552 5.3.4 The message is larger than the next hop takes",
        ),
    ] {
        let script = format!("{}= {misfit}\n{QUIT}", opening(offers));
        goes(&terms(), std::slice::from_ref(message), &script);
    }
    let helo = "S: 220\nC: EHLO edge.test\nS: 502\nC: HELO edge.test\nS: 250\n";
    let misfit = "= EightBit 554 5.6.1 The next hop does not take 8-bit content\n";
    goes(&terms(), &[eight_bit], &format!("{helo}{misfit}{QUIT}"));
}

#[test]
fn content_takes_the_form_of_its_way() {
    let mut mended = message(&["x@y.test"]).content("..a\n.b\r.\r..c\r\n..\r\n\n.");
    mended.bare_newline = true;
    let mut binary = message(&["x@y.test"]).plain().content(".\r\n\nx");
    binary.bare_newline = true;
    binary.envelope.mail.body = Body::BinaryMime;
    let plain = message(&["x@y.test"]).plain();
    for (message, offers, sent) in [
        (
            plain.clone().content(".a\r\n..b\r\n\r\n.\r\nc"),
            "DSN",
            "C: DATA\nS: 354\nC: ..a\nC: ...b\nC:\nC: ..\nC: c\nC: .",
        ),
        (plain.clone().content(""), "DSN", "C: DATA\nS: 354\nC: ."),
        (plain.clone().content("\r\n"), "DSN", "C: DATA\nS: 354\nC:\nC: ."),
        (plain.clone().content("."), "DSN", "C: DATA\nS: 354\nC: ..\nC: ."),
        (
            message(&["x@y.test"]).content("..a\r\nb\r\n"),
            "CHUNKING",
            "C: DATA\nS: 354\nC: ..a\nC: b\nC: .",
        ),
        (message(&["x@y.test"]).content(""), "DSN", "C: DATA\nS: 354\nC: ."),
        (
            mended,
            "CHUNKING",
            "C: DATA\nS: 354\nC: ..a\nC: ..b\nC: ..\nC: ...c\nC: ..\nC:\nC: ..\nC: .",
        ),
        (
            binary,
            "CHUNKING, BINARYMIME, 8BITMIME",
            "C: BDAT 5 LAST\nC: .\nC: \"\\nx\"",
        ),
        (plain.content(""), "CHUNKING", "C: BDAT 0 LAST"),
    ] {
        let body = match message.envelope.mail.body {
            Body::BinaryMime => " BODY=BINARYMIME",
            _ => "",
        };
        let script = format!(
            "{}C: MAIL FROM:<a@b.test>{body}\nS: 250\nC: RCPT TO:<x@y.test>\nS: 250\n{sent}\nS: 250 ok\n= delivered 250 2.0.0 \
             ok\n{QUIT}",
            opening(offers)
        );
        goes(&terms(), &[message], &script.replace("\"\\nx\"", "\"\\n\"\nC: \"x\""));
    }
}

#[test]
fn an_idle_connection_that_the_hop_closes_is_closed() {
    let bye = "S: 421 4.4.2 idle for too long";
    let script = format!(
        "{}C: MAIL FROM:<a@b.test>\nS: 550 no\n= failed 550 5.0.0 no\n",
        opening("DSN")
    );
    let with_bye = script.replace("S: 550 no\n", &format!("S: 550 no\n{bye}\n"));
    let said = play(&terms(), &[message(&["x@y.test"])], &with_bye, usize::MAX);
    assert!(said.ends_with("= deferred 451 4.5.0 the hop sent a reply to nothing Nonsense\n= Protocol: 451 4.5.0 the hop sent a reply to nothing\n"), "{said}");

    let script = format!(
        "{}C: MAIL FROM:<a@b.test>\nS: 250\nC: RCPT TO:<x@y.test>\nS: 250\nC: DATA\nS: 354\nC: Hi\nC: .\nS: 250 ok\n{bye}\n= \
         delivered 250 2.0.0 ok\n= Closing: 421 4.4.2 idle for too long\n",
        opening("DSN")
    );
    assert_eq!(play(&terms(), &[message(&["x@y.test"])], &script, usize::MAX), script);
}
