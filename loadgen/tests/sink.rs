//! The generator against the sink, both as binaries: what the one sends, the other finds; and what the sink is told to do
//! wrong is found out.

mod common;

use std::io::{BufRead, BufReader, Read, Write};

use common::{Sink, loadgen};

#[test]
fn everything_that_was_accepted_has_come_once_and_whole() {
    for more in [
        &[][..],
        &["--pipelining", "group"],
        &["--bdat"],
        &["--pipelining", "off"],
        &["--per-connection", "3"],
    ] {
        let mut sink = Sink::start(&["127.0.0.1:0"]);
        let flags = ["--messages", "300", "--connections", "7", "--recipients", "2"];
        assert!(sink.load(&[&flags, more].concat()).0, "{more:?}");
        let figures = sink.finish(true);
        assert_eq!(
            (&figures["messages"], &figures["recipients"]),
            (&300.into(), &600.into())
        );
        assert_eq!(figures["identities"]["distinct"], 300);
        assert_eq!(figures["violations"]["count"], 0, "{figures}");
    }
}

#[test]
fn a_path_speaks_lmtp_and_goes_away_with_the_sink() {
    let sink = Sink::start(&["lmtp+unix"]);
    let path = sink.file("socket");
    let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut replies = BufReader::new(&client).lines().map(Result::unwrap);
    assert!(replies.next().unwrap().starts_with("220 "));
    let dialogue = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n";
    (&client).write_all(dialogue.as_bytes()).unwrap();
    let codes: Vec<String> = replies
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| line[..3].to_owned())
        .collect();
    assert_eq!(codes.join(" "), "250 250 250 250 354 250 250 221");
    let figures = sink.finish(true);
    assert_eq!((&figures["messages"], &figures["recipients"]), (&1.into(), &2.into()));
    assert!(!path.exists());
}

#[test]
fn starttls_secures_a_session_with_a_certificate_of_its_own() {
    let sink = Sink::start(&["127.0.0.1:0", "--starttls"]);
    let mut stream = std::net::TcpStream::connect(sink.target.unwrap()).unwrap();
    let until = |stream: &mut dyn Read, end: &str| {
        let (mut text, mut octet) = (String::new(), [0]);
        while !text.ends_with(end) && stream.read(&mut octet).unwrap() == 1 {
            text.push(octet[0] as char);
        }
        text
    };
    stream.write_all(b"EHLO x\r\n").unwrap();
    let ehlo = until(&mut stream, "250 STARTTLS\r\n");
    assert!(ehlo.contains("250-PIPELINING"), "{ehlo}");
    // What is injected behind STARTTLS is no part of the secured session.
    stream.write_all(b"STARTTLS\r\nRSET\r\n").unwrap();
    until(&mut stream, "go ahead\r\n");
    let name = "sink.loadgen.invalid".try_into().unwrap();
    let connection = rustls::ClientConnection::new(common::trusting_anybody(), name).unwrap();
    let mut tls = rustls::StreamOwned::new(connection, stream);
    let dialogue = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n";
    tls.write_all(dialogue.as_bytes()).unwrap();
    let replies = until(&mut tls, "bye\r\n");
    let codes = replies
        .lines()
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| &line[..3]);
    assert_eq!(codes.collect::<Vec<_>>().join(" "), "250 250 250 354 250 221");
    assert!(!replies.contains("STARTTLS"));
    let figures = sink.finish(true);
    assert_eq!((&figures["messages"], &figures["secured"]), (&1.into(), &1.into()));
}

#[test]
fn two_threads_see_as_much_as_one() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--cores", "2"]);
    assert!(
        sink.load(&["--messages", "400", "--connections", "10", "--size", "600..5000"])
            .0
    );
    let figures = sink.finish(true);
    assert_eq!(
        (&figures["messages"], &figures["connections"]),
        (&400.into(), &10.into())
    );
    assert!(figures["expected"]["lost"]["count"] == 0 && figures["good"] == true);
}

#[test]
fn messages_larger_than_any_buffer_are_found_whole() {
    for bdat in [&["--bdat"][..], &[]] {
        let mut sink = Sink::start(&["127.0.0.1:0"]);
        assert!(
            sink.load(&[&["--messages", "4", "--connections", "2", "--size", "5M"], bdat].concat())
                .0
        );
        assert_eq!(sink.finish(true)["octets"], 4 * (5 << 20));
    }
}

#[test]
fn loss_copies_and_alteration_are_found_when_the_sink_is_told_to_cause_them() {
    for (fault, found) in [
        ("forget:1/10", "lost"),
        ("twice:1/10", "duplicated"),
        ("alter:1/10", "altered"),
    ] {
        let mut sink = Sink::start(&["127.0.0.1:0", "--end", fault]);
        assert!(
            sink.load(&["--messages", "100", "--connections", "3"]).0,
            "the generator does not notice"
        );
        let figures = sink.finish(false);
        let place = if found == "lost" { "expected" } else { "identities" };
        assert_eq!(figures[place][found]["count"], 10, "{fault}: {figures}");
        assert_eq!(figures["good"], false);
    }
}

#[test]
fn refusals_and_deferrals_reach_the_generator_and_are_no_loss() {
    for (stage, fault, code) in [
        ("--mail", "defer:1/4", "451"),
        ("--rcpt", "refuse:1/4", "550"),
        ("--data", "defer=452:1/4", "452"),
        ("--end", "refuse=552:1/4", "552"),
    ] {
        let mut sink = Sink::start(&["127.0.0.1:0", stage, fault]);
        let (good, figures) = sink.load(&["--messages", "40", "--connections", "1"]);
        assert!(!good);
        assert_eq!(
            (&figures["refused"], &figures["replies"][code]),
            (&10.into(), &10.into()),
            "{stage}"
        );
        assert_eq!(sink.finish(true)["messages"], 30, "{stage}");
    }
}

#[test]
fn connections_that_break_are_no_loss_either_and_a_lost_reply_excuses_a_copy() {
    for (stage, fault) in [
        ("--content", "drop:1/5"),
        ("--content", "reset:1/5"),
        ("--end", "drop:1/5"),
        ("--end", "cut:1/5"),
        ("--end", "garbage:1/5"),
    ] {
        let mut sink = Sink::start(&["127.0.0.1:0", stage, fault]);
        let (good, figures) = sink.load(&["--messages", "40", "--connections", "1"]);
        assert!(!good);
        assert_eq!(figures["lost"], 8, "{stage} {fault}: {figures}");
        let taken = sink.finish(true)["messages"].as_u64().unwrap();
        assert_eq!(taken, if fault.starts_with(['c', 'g']) { 40 } else { 32 });
    }
}

#[test]
fn a_reset_behind_the_reply_leaves_the_message_taken() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--end", "reset-after"]);
    sink.load(&["--messages", "10", "--connections", "1", "--per-connection", "1"]);
    let figures = sink.finish(true);
    assert_eq!(
        (&figures["messages"], &figures["faults"]["end"]["spoilt"]),
        (&10.into(), &10.into())
    );
}

#[test]
fn a_421_has_refused_the_message_but_for_whom_lmtp_has_taken_it() {
    for more in [&[][..], &["--refusals-expected"]] {
        for (sink_flags, flags, uncertain) in [
            (&[][..], &["--messages", "8"][..], "[]"),
            // Every second recipient of every second message.
            (
                &["--lmtp"],
                &["--messages", "4", "--recipients", "2", "--lmtp"],
                "[[1,1],[3,3]]",
            ),
        ] {
            let faults = ["127.0.0.1:0", "--end", "defer=421:1/4"];
            let mut sink = Sink::start(&[&faults, sink_flags].concat());
            let (good, figures) = sink.load(&[flags, more, &["--connections", "1"]].concat());
            assert_eq!(good, !more.is_empty(), "{figures}");
            let counted = if good { "refused_as_expected" } else { "lost" };
            assert_eq!((&figures[counted], &figures["replies"]["421"]), (&2.into(), &2.into()));
            let expected = std::fs::read_to_string(sink.file("expect.json")).unwrap();
            assert!(
                expected.contains(&format!("\"uncertain\":{uncertain}")),
                "{flags:?}: {expected}"
            );
            sink.finish(true);
        }
    }
}

#[test]
fn a_delay_is_seen_in_the_latency_and_stalls_are_given_up() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--end", "delay=30ms", "--rcpt", "delay=5ms..6ms"]);
    let (good, figures) = sink.load(&["--messages", "20", "--connections", "4"]);
    assert!(good);
    assert!(
        figures["final_reply_us"]["p50"].as_f64().unwrap() >= 30_000.0,
        "{figures}"
    );
    assert!(
        figures["transaction_us"]["p50"].as_f64().unwrap() >= 35_000.0,
        "{figures}"
    );
    assert_eq!(sink.finish(true)["faults"]["end"]["delayed"], 20);
    let mut sink = Sink::start(&["127.0.0.1:0", "--mail", "stall"]);
    let (good, figures) = sink.load(&["--messages", "2", "--timeout", "200ms"]);
    assert!(!good && figures["stopped"].as_str().unwrap().contains("no reply"));
    sink.finish(true);
}

#[test]
fn a_sink_ends_by_itself_when_enough_has_come_and_misses_what_has_not() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--messages", "30", "--expect-messages", "30"]);
    assert!(sink.load(&["--messages", "30", "--connections", "3"]).0);
    assert_eq!(sink.wait(true)["messages"], 30);
    let mut sink = Sink::start(&["127.0.0.1:0", "--quiet", "100ms", "--expect-messages", "31"]);
    assert!(sink.load(&["--messages", "30", "--connections", "3"]).0);
    assert_eq!(sink.wait(false)["missing"], 1);
}

#[test]
fn extensions_that_are_not_offered_are_not_used() {
    let mut sink = Sink::start(&["127.0.0.1:0", "--without", "pipelining,CHUNKING"]);
    let (good, figures) = sink.load(&["--messages", "10", "--connections", "1"]);
    assert!(good && figures["pipelining_not_offered"] == true);
    assert_eq!(sink.finish(true)["violations"]["count"], 0);
    let mut sink = Sink::start(&["127.0.0.1:0", "--without", "CHUNKING"]);
    assert!(!sink.load(&["--messages", "10", "--bdat"]).0);
    sink.finish(true);
}

#[test]
fn a_folder_of_messages_is_sent_in_turn_and_found_whole() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.eml", "Subject: a\n\n.dot\n..\nlast"),
        ("b.eml", "no header\r\n\r\n\r\n"),
        ("c.eml", "Subject: \u{fc}\n\n\u{fc}\n"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut sink = Sink::start(&["127.0.0.1:0"]);
    assert!(
        sink.load(&[
            "--messages",
            "9",
            "--connections",
            "2",
            "--corpus",
            folder.path().to_str().unwrap()
        ])
        .0
    );
    let figures = sink.finish(true);
    assert_eq!(
        (&figures["messages"], &figures["identities"]["distinct"]),
        (&9.into(), &9.into())
    );
}

#[test]
fn faults_that_make_no_sense_are_refused_with_a_sentence() {
    for (arguments, said) in [
        (["--rcpt", "twice"], "for --end"),
        (["--content", "refuse"], "no reply is due"),
        (["--end", "dance"], "is not known"),
    ] {
        let output = loadgen(&[&["sink", "127.0.0.1:0"], &arguments[..]].concat());
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(said), "{text}");
    }
}
