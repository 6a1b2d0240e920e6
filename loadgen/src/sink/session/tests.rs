//! Dialogues with the sink, at every cut of their octets.

use super::*;
use crate::identity::{Body, Identity};
use crate::sink::fault::Faults;

struct Bench {
    terms: Terms,
    plan: Plan,
    dice: Dice,
    tally: Tally,
    session: Session,
    out: Vec<u8>,
}

impl Bench {
    fn new(dialect: Dialect, withheld: &[Offer]) -> Self {
        let mut bench = Self {
            terms: Terms::new(dialect, "sink.test", 1000, withheld),
            plan: Plan::default(),
            dice: Dice::new(1),
            tally: Tally {
                verifying: true,
                ..Tally::default()
            },
            session: Session::new(),
            out: Vec::new(),
        };
        assert_eq!(bench.work(Session::greet), Step::More);
        bench.out.clear();
        bench
    }

    fn with(mut self, stage: Stage, faults: &str) -> Self {
        *self.plan.at(stage) = faults.parse::<Faults>().unwrap();
        self
    }

    fn work<T>(&mut self, work: impl FnOnce(&mut Session, &mut Desk<'_>) -> T) -> T {
        let mut desk = Desk {
            terms: &self.terms,
            plan: &mut self.plan,
            dice: &mut self.dice,
            tally: &mut self.tally,
            out: &mut self.out,
        };
        work(&mut self.session, &mut desk)
    }

    /// Gives `stream` in pieces of `cut` octets; the codes of the replies and the last step.
    fn say(&mut self, stream: &[u8], cut: usize) -> (Vec<String>, Step) {
        let (mut pending, mut step) = (Vec::new(), Step::More);
        'pieces: for piece in stream.chunks(cut) {
            pending.extend_from_slice(piece);
            loop {
                let input = pending.clone();
                let (used, next) = self.work(|session, desk| session.receive(desk, &input));
                pending.drain(..used);
                step = next;
                match step {
                    Step::More => break,
                    Step::Wait(_) => {
                        assert_eq!(self.work(Session::resume), Step::More);
                        if pending.is_empty() {
                            break;
                        }
                    }
                    _ => break 'pieces,
                }
            }
        }
        (self.codes(), step)
    }

    fn codes(&mut self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut self.out)).unwrap();
        let last_lines = text.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
        last_lines.map(|line| line[..3].to_owned()).collect()
    }
}

fn message(serial: u64) -> String {
    let body = "first\r\n.second\r\n";
    let identity = Identity {
        run: 1,
        serial,
        connection: 0,
        body: Body::of(body.as_bytes()),
    };
    format!("Received: by hop\r\n{}\r\n{body}", identity.field())
}

fn by_data(serial: u64) -> String {
    let stuffed = message(serial).replace("\r\n.", "\r\n..");
    format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n{stuffed}.\r\n")
}

fn by_bdat(serial: u64) -> String {
    let message = message(serial);
    let (one, two) = message.split_at(20);
    format!(
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 20\r\n{one}BDAT {}\r\n{two}BDAT 0 LAST\r\n",
        two.len()
    )
}

#[test]
fn messages_by_data_and_bdat_are_taken_and_found_intact_at_every_cut() {
    let stream = format!("EHLO x\r\n{}{}QUIT\r\n", by_data(0), by_bdat(1));
    for cut in 1..=stream.len() {
        let mut bench = Bench::new(Dialect::Smtp, &[]);
        let (codes, step) = bench.say(stream.as_bytes(), cut);
        let expected = "250 250 250 250 354 250 250 250 250 250 250 221";
        assert_eq!(
            (codes.join(" ").as_str(), step),
            (expected, Step::Close),
            "cut into {cut}"
        );
        let tally = &bench.tally;
        assert_eq!((tally.messages, tally.recipients, tally.violations.count), (2, 3, 0));
        assert_eq!((tally.ledger.distinct(), tally.ledger.has_faults()), (2, false));
    }
}

#[test]
fn lmtp_answers_the_content_once_for_each_recipient() {
    let mut bench = Bench::new(Dialect::Lmtp, &[]);
    let stream = format!("LHLO x\r\n{}", by_data(0));
    assert_eq!(
        bench.say(stream.as_bytes(), 7).0.join(" "),
        "250 250 250 250 354 250 250"
    );
    assert_eq!((bench.tally.messages, bench.tally.recipients), (1, 2));
    assert_eq!(bench.say(b"EHLO x\r\n", 99).0, ["500"]);
}

#[test]
fn lmtp_faults_are_drawn_for_each_recipient() {
    let mut bench = Bench::new(Dialect::Lmtp, &[]).with(Stage::End, "refuse:1/2");
    let stream = format!("LHLO x\r\n{}", by_data(0));
    assert_eq!(
        bench.say(stream.as_bytes(), 99).0.join(" "),
        "250 250 250 250 354 250 554"
    );
    assert_eq!(bench.tally.recipients, 1);
}

#[test]
fn each_stage_defers_and_refuses_as_told() {
    for (stage, faults, expected) in [
        (Stage::Ehlo, "refuse", "554 503 503 503 554"),
        (Stage::Mail, "defer=452", "250 452 503 503 554"),
        (Stage::Rcpt, "refuse", "250 250 550 550 554"),
        (Stage::Rcpt, "defer:1/2", "250 250 250 450 354 250"),
        (Stage::Data, "defer", "250 250 250 250 451"),
        (Stage::End, "refuse=552", "250 250 250 250 354 552"),
    ] {
        let mut bench = Bench::new(Dialect::Smtp, &[]).with(stage, faults);
        let stream = format!("EHLO x\r\n{}", by_data(0));
        let (codes, _) = bench.say(stream.as_bytes(), 9999);
        let codes = codes.join(" ");
        assert!(codes.starts_with(expected), "{stage:?} {faults}: {codes}");
    }
}

#[test]
fn connections_end_as_told() {
    for (stage, faults, step, taken) in [
        (Stage::Content, "drop", Step::Close, 0),
        (Stage::Content, "reset", Step::Reset, 0),
        (Stage::End, "drop", Step::Close, 0),
        (Stage::End, "stall", Step::Stall, 0),
        (Stage::End, "reset-after", Step::Reset, 1),
        (Stage::End, "drop-after", Step::Close, 1),
        (Stage::Mail, "defer=421", Step::Close, 0),
    ] {
        let mut bench = Bench::new(Dialect::Smtp, &[]).with(stage, faults);
        let stream = format!("EHLO x\r\n{}", by_data(0));
        assert_eq!(bench.say(stream.as_bytes(), 9999).1, step, "{stage:?} {faults}");
        assert_eq!(bench.tally.messages, taken, "{stage:?} {faults}");
    }
}

#[test]
fn a_delay_holds_the_reply_and_what_comes_behind_it() {
    let mut bench = Bench::new(Dialect::Smtp, &[]).with(Stage::Mail, "delay=10ms");
    bench.say(b"EHLO x\r\n", 99);
    let input = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
    let (used, step) = bench.work(|session, desk| session.receive(desk, input));
    assert_eq!((used, step), (17, Step::Wait(Duration::from_millis(10))));
    assert!(bench.out.is_empty());
    assert_eq!(bench.work(Session::resume), Step::More);
    assert_eq!(bench.codes(), ["250"]);
}

#[test]
fn a_sink_that_lies_is_found_out() {
    for (faults, duplicated, altered, distinct) in [("forget", 0, 0, 0), ("twice", 2, 0, 1), ("alter", 0, 1, 1)] {
        let mut bench = Bench::new(Dialect::Smtp, &[]).with(Stage::End, faults);
        let stream = format!("EHLO x\r\n{}", by_data(0));
        assert!(bench.say(stream.as_bytes(), 99).0.ends_with(&["250".into()]));
        let ledger = &bench.tally.ledger;
        assert_eq!(
            (ledger.duplicated.count, ledger.altered.count, ledger.distinct()),
            (duplicated, altered, distinct),
            "{faults}"
        );
    }
}

#[test]
fn replies_can_have_many_lines_or_make_no_sense() {
    let mut bench = Bench::new(Dialect::Smtp, &[]).with(Stage::Mail, "lines=4");
    bench.say(b"EHLO x\r\n", 99);
    let (_, step) = bench.work(|session, desk| session.receive(desk, b"MAIL FROM:<a@b>\r\n"));
    let text = String::from_utf8(bench.out).unwrap();
    assert_eq!((step, text.lines().count()), (Step::More, 4));
    assert!(
        text.lines().take(3).all(|line| line.starts_with("250-")) && text.ends_with("250 2.1.0 ok\r\n"),
        "{text}"
    );
    let mut bench = Bench::new(Dialect::Smtp, &[]).with(Stage::Ehlo, "garbage");
    bench.work(|session, desk| session.receive(desk, b"EHLO x\r\n"));
    assert!(std::str::from_utf8(&bench.out).is_err());
}

#[test]
fn what_is_not_offered_is_refused_and_noted() {
    let mut bench = Bench::new(
        Dialect::Smtp,
        &[
            Offer::Size,
            Offer::Chunking,
            Offer::Pipelining,
            Offer::EnhancedStatusCodes,
        ],
    );
    bench.say(b"EHLO x\r\n", 99);
    assert_eq!(bench.say(b"MAIL FROM:<a@b> SIZE=1\r\n", 99).0, ["555"]);
    assert_eq!(bench.say(b"BDAT 3 LAST\r\nabc", 99).0, ["503"]);
    assert_eq!(bench.tally.violations.count, 2);
    bench.say(b"RSET\r\nMAIL FROM:<a@b>\r\n", 99);
    assert_eq!(bench.tally.violations.count, 3);
    bench.work(|session, desk| session.receive(desk, b"RSET\r\n"));
    assert_eq!(bench.out, b"250 ok\r\n", "without an enhanced code");
}

#[test]
fn every_extension_is_offered_and_its_parameters_are_taken() {
    let mut bench = Bench::new(Dialect::Smtp, &[]);
    bench.work(|session, desk| session.receive(desk, b"EHLO x\r\n"));
    let ehlo = String::from_utf8(std::mem::take(&mut bench.out)).unwrap();
    for word in [
        "PIPELINING",
        "8BITMIME",
        "SIZE 1000",
        "CHUNKING",
        "BINARYMIME",
        "DSN",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "STARTTLS",
    ] {
        assert!(
            ehlo.contains(&format!("250-{word}\r\n")) || ehlo.contains(&format!("250 {word}\r\n")),
            "{word}: {ehlo}"
        );
    }
    let mail = b"MAIL FROM:<\"a> b\"@c> BODY=BINARYMIME SIZE=5 RET=HDRS ENVID=x SMTPUTF8\r\n";
    assert_eq!(bench.say(mail, 999).0, ["250"]);
    assert_eq!(
        bench.say(b"RCPT TO:<a@b> NOTIFY=NEVER ORCPT=rfc822;a>b\r\n", 999).0,
        ["250"]
    );
    assert_eq!(bench.tally.violations.count, 0);
}

#[test]
fn a_message_over_the_limit_is_refused_however_it_is_announced() {
    let mut bench = Bench::new(Dialect::Smtp, &[]);
    assert_eq!(
        bench.say(b"EHLO x\r\nMAIL FROM:<a@b> SIZE=1001\r\n", 999).0,
        ["250", "552"]
    );
    let content = "x".repeat(1001);
    let stream = format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n{content}\r\n.\r\n");
    assert_eq!(bench.say(stream.as_bytes(), 100).0.last().unwrap(), "552");
    assert_eq!((bench.tally.messages, bench.tally.too_big), (0, 2));
}

#[test]
fn a_line_without_end_is_not_kept_for_ever() {
    let mut bench = Bench::new(Dialect::Smtp, &[]);
    let line = vec![b'x'; LINE_MAX + 1];
    assert_eq!(bench.say(&line, LINE_MAX + 1), (vec!["500".into()], Step::Close));
}
