//! Properties of the sending side: what a Session hears from a Client is what the Client was given; dots and replies
//! against oracles that know no speed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use postern::smtp::client::{
    Client, Dialect, Misfit, Outcome, Outgoing, Replies, Step as ClientStep, Terms as ClientTerms, Timeouts, TlsUse,
    Wire, Writer,
};
use postern::smtp::envelope::{Body, Envelope, MailParameters, Notify, RcptParameters, Recipient, Ret};
use postern::smtp::extension::{Extension, Offered};
use postern::smtp::limits::Limits;
use postern::smtp::oxsmtp::Reply;
use postern::smtp::path::{ForwardPath, ReversePath};
use postern::smtp::session::{Custody, Question, Session, Step, Terms, Verdict};
use postern::smtp::{BareNewline, Edition, Form, Role};
use proptest::prelude::*;

const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// Written from the RFCs, one octet after the other.
mod oracle {
    /// Lines by CRLF; the last one may have no end.
    fn lines(message: &[u8]) -> Vec<&[u8]> {
        let mut lines = vec![];
        let mut start = 0;
        for i in 0..message.len() {
            if message[..=i].ends_with(b"\r\n") && i > start {
                lines.push(&message[start..=i]);
                start = i + 1;
            }
        }
        if start < message.len() {
            lines.push(&message[start..]);
        }
        lines
    }

    pub fn stuffed(message: &[u8]) -> Vec<u8> {
        let mut wire = vec![];
        for line in lines(message) {
            if line[0] == b'.' {
                wire.push(b'.');
            }
            wire.extend(line);
        }
        wire
    }

    pub fn unstuffed(wire: &[u8]) -> Vec<u8> {
        lines(wire)
            .iter()
            .flat_map(|line| line.strip_prefix(b".").unwrap_or(line))
            .copied()
            .collect()
    }

    pub fn with_end(message: &[u8]) -> Vec<u8> {
        let end: &[u8] = if message.is_empty() || message.ends_with(b"\r\n") {
            b""
        } else {
            b"\r\n"
        };
        [message, end].concat()
    }

    pub fn bare_newline(message: &[u8]) -> bool {
        (0..message.len()).any(|i| match message[i] {
            b'\r' => message.get(i + 1) != Some(&b'\n'),
            b'\n' => i == 0 || message[i - 1] != b'\r',
            _ => false,
        })
    }

    pub fn normalised(message: &[u8]) -> Vec<u8> {
        let text: String = message.iter().map(|&octet| char::from(octet)).collect();
        let text = text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
        text.chars().map(|character| character as u8).collect()
    }

    /// Codes of the whole replies in `input`, up to what is none.
    pub fn replies(input: &[u8]) -> (Vec<u16>, bool) {
        let (mut codes, mut open) = (vec![], None);
        for line in input.split_inclusive(|&octet| octet == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                let digits = &line[..line.len().min(3)];
                return (codes, digits.iter().all(u8::is_ascii_digit));
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let code = std::str::from_utf8(&line[..line.len().min(3)])
                .ok()
                .and_then(|code| code.parse::<u16>().ok());
            let plain = line.iter().take(3).all(u8::is_ascii_digit);
            let more = match line.get(3) {
                None | Some(b' ') => false,
                Some(b'-') => true,
                Some(_) => return (codes, false),
            };
            match code {
                Some(code) if plain && (200..600).contains(&code) && open.is_none_or(|open| open == code) => {
                    open = more.then_some(code);
                    if !more {
                        codes.push(code);
                    }
                }
                _ => return (codes, false),
            }
        }
        (codes, true)
    }
}

/// Octets that matter to somebody on the way.
fn text(bare: bool) -> impl Strategy<Value = Vec<u8>> {
    let mut pieces: Vec<&[u8]> = vec![
        b"\r\n",
        b".",
        b"..",
        b"a",
        b"word ",
        b"\r\n.\r\n",
        b"\r\n..",
        b"\xff",
        b"\0",
    ];
    if bare {
        pieces.extend([&b"\r"[..], b"\n", b"\n.\n", b"\r.\r", b"\n.\r\n"]);
    }
    let piece = prop::sample::select(pieces);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn pieces<'a>(mut octets: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = vec![];
    for &cut in cuts.iter().cycle() {
        let (piece, rest) = octets.split_at(cut.min(octets.len()));
        pieces.push(piece);
        octets = rest;
        if octets.is_empty() {
            break;
        }
    }
    pieces
}

fn written(wire: Wire, octets: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut writer, mut output) = (Writer::new(wire), vec![]);
    for piece in pieces(octets, cuts) {
        writer.piece(piece, &mut output);
    }
    writer.end(&mut output);
    output
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..50_usize, 1..8)
}

proptest! {
    #[test]
    fn dots_are_doubled_where_lines_begin_and_nowhere_else(message in text(true), cuts in cuts()) {
        let expected = [oracle::stuffed(&oracle::with_end(&message)), b".\r\n".to_vec()].concat();
        prop_assert_eq!(written(Wire::Stuffed, &message, &cuts), expected);
        prop_assert_eq!(written(Wire::Chunk, &message, &cuts), message);
    }

    #[test]
    fn dotted_content_goes_as_it_came(message in text(false), cuts in cuts()) {
        let wire = oracle::stuffed(&oracle::with_end(&message));
        let expected = [&wire[..], b".\r\n"].concat();
        prop_assert_eq!(written(Wire::Dotted, &wire, &cuts), &expected[..]);
        prop_assert_eq!(written(Wire::Mended, &wire, &cuts), &expected[..]);
    }

    #[test]
    fn mended_content_has_one_kind_of_line_and_one_end(message in text(true), cuts in cuts()) {
        let wire = oracle::stuffed(&message);
        let sent = written(Wire::Mended, &wire, &cuts);
        prop_assert!(!oracle::bare_newline(&sent));
        let content = sent.strip_suffix(b".\r\n").unwrap();
        prop_assert!(!content.starts_with(b".\r\n"));
        prop_assert!(!content.windows(5).any(|octets| octets == b"\r\n.\r\n"));
        prop_assert_eq!(oracle::unstuffed(content), oracle::with_end(&oracle::normalised(&message)));
    }

    #[test]
    fn replies_are_those_of_the_oracle_however_they_are_cut(
        lines in prop::collection::vec("([245][0-9]{2}[ -]?.{0,6}|.{0,5})\r?\n?", 0..12), cuts in cuts(),
    ) {
        let input = lines.concat().into_bytes();
        let (mut replies, mut codes, mut used, mut have) = (Replies::default(), vec![], 0, 0);
        let mut cuts = cuts.iter().cycle();
        let fine = loop {
            match replies.line(&input[used..have]) {
                Ok(Some(line)) => {
                    used += line.used;
                    codes.extend(line.last.then(|| replies.code()));
                }
                Ok(None) if have == input.len() => break true,
                Ok(None) => have = (have + cuts.next().unwrap()).min(input.len()),
                Err(_) => break false,
            }
        };
        prop_assert_eq!((codes, fine), oracle::replies(&input));
    }

    #[test]
    fn any_octets_are_heard_without_harm(input: Vec<u8>) {
        let mut replies = Replies::default();
        let mut rest = &input[..];
        while let Ok(Some(line)) = replies.line(rest) {
            prop_assert!(line.used > 0);
            rest = &rest[line.used..];
            prop_assert!((200..600).contains(&replies.code()));
        }
    }
}

/// A message, and what becomes of it at the hub.
#[derive(Clone, Debug)]
struct Case {
    envelope: Envelope,
    form: Form,
    head: Vec<u8>,
    message: Vec<u8>,
    mail_refused: bool,
    refused: Vec<Option<Reply>>,
}

fn mailbox() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z]{1,8}(\\.[a-z]{1,3})?@[a-z]{1,8}\\.test",
        1 => Just("\"a b\\\\>\"@[192.0.2.1]".to_owned()),
        1 => Just("\u{e9}@\u{fc}.test".to_owned()),
    ]
}

fn mail() -> impl Strategy<Value = MailParameters> {
    let body = prop::sample::select(vec![Body::SevenBit, Body::EightBitMime, Body::BinaryMime]);
    let ret = prop::sample::select(vec![None, Some(Ret::Full), Some(Ret::Headers)]);
    let envid = prop::sample::select(vec![None, Some("QQ+2B1".into())]);
    (body, ret, envid, any::<bool>()).prop_map(|(body, ret, envid, smtputf8)| MailParameters {
        size: Some(1),
        body,
        ret,
        envid,
        smtputf8,
        auth: None,
    })
}

fn recipient() -> impl Strategy<Value = (String, RcptParameters, Option<Reply>)> {
    let notify = (any::<bool>(), any::<bool>()).prop_map(|(success, delay)| match (success, delay) {
        (false, false) => Some(Notify::Never),
        (success, delay) => Some(Notify::On {
            success,
            failure: !success,
            delay,
        }),
    });
    let notify = prop_oneof![Just(None), notify];
    let orcpt = prop::sample::select(vec![
        None,
        Some("rfc822;a+2Bb@c".into()),
        Some(r"utf-8;\x{E9}@b".into()),
    ]);
    let refused = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Reply::UserUnknown)),
        1 => Just(Some(Reply::TryLater)),
    ];
    (mailbox(), notify, orcpt, refused)
        .prop_map(|(to, notify, orcpt, refused)| (to, RcptParameters { notify, orcpt }, refused))
}

fn case() -> impl Strategy<Value = Case> {
    let from = prop_oneof![1 => Just(String::new()), 5 => mailbox()];
    let recipients = prop::collection::vec(recipient(), 1..5);
    let head = prop::sample::select(vec!["", "Received: by a.test\r\n", ".dot: first\r\n"]);
    let content = (text(true), any::<bool>()).prop_map(|(text, clean)| match clean {
        true => oracle::normalised(&text).into_iter().filter(u8::is_ascii).collect(),
        false => text,
    });
    let form = prop::sample::select(vec![Form::Dotted, Form::Plain]);
    let mail_refused = prop::bool::weighted(0.1);
    (from, mail(), recipients, form, head, content, mail_refused).prop_map(
        |(from, mut mail, recipients, form, head, message, mail_refused)| {
            if form == Form::Dotted && mail.body == Body::BinaryMime {
                mail.body = Body::SevenBit;
            }
            mail.smtputf8 |= !from.is_ascii() || recipients.iter().any(|(to, ..)| !to.is_ascii());
            let message = match form {
                Form::Dotted => oracle::with_end(&message),
                Form::Plain => message,
            };
            let path = |to: &str| ForwardPath::parse(format!("<{to}>").as_bytes(), true).unwrap().0;
            let refused = recipients.iter().map(|(.., refused)| *refused).collect();
            let recipients = recipients.into_iter().map(|(to, parameters, _)| Recipient {
                forward_path: path(&to),
                parameters,
            });
            Case {
                envelope: Envelope {
                    reverse_path: ReversePath::parse(format!("<{from}>").as_bytes(), true).unwrap().0,
                    mail,
                    recipients: recipients.collect(),
                },
                form,
                head: head.into(),
                message,
                mail_refused,
                refused,
            }
        },
    )
}

/// What a hub got.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    envelope: Envelope,
    message: Vec<u8>,
}

/// A Session as a hub, and the Client that talks to it, octet by octet as `cuts` say.
struct Wires {
    client: Client,
    hub: Session,
    cuts: Vec<usize>,
    now: Instant,
    to_hub: Vec<u8>,
    to_client: Vec<u8>,
    stored: Vec<u8>,
    asked: usize,
    /// The hub knows EHLO.
    esmtp: bool,
}

impl Wires {
    fn new(off: &[Extension], esmtp: bool, cuts: Vec<usize>) -> Wires {
        let now = Instant::now();
        let edition = Edition::Y2021;
        let mut limits = Limits::of(Role::Relay);
        limits.max_protocol_errors = 1_000_000;
        limits.tarpit = std::time::Duration::ZERO;
        let offered = Offered::of(edition, off, false);
        let terms = Terms {
            require_tls: false,
            auth: Default::default(),
            hostname: "hub.test".into(),
            edition,
            limits,
            offered,
            bare_newline: BareNewline::Refuse,
        };
        let mut hub = Session::new(Arc::new(terms), HUB, now);
        hub.greet(now);
        let terms = ClientTerms {
            dialect: Dialect::Smtp,
            hello: "edge.test".into(),
            tls: TlsUse::Opportunistic,
            implicit_tls: false,
            credentials: None,
            timeouts: Timeouts::default(),
        };
        let client = Client::new(Arc::new(terms), now);
        Wires {
            client,
            hub,
            cuts,
            now,
            to_hub: vec![],
            to_client: vec![],
            stored: vec![],
            asked: 0,
            esmtp,
        }
    }

    /// The hub works on what has come. Gives a message that it has acknowledged.
    fn hub(&mut self, case: &Case) -> Option<Got> {
        let mut got = None;
        loop {
            let (used, step) = self.hub.advance(&self.to_hub, self.now);
            let stored = match &step {
                Step::Store(range) => self.to_hub[range.clone()].to_vec(),
                _ => vec![],
            };
            self.to_hub.drain(..used);
            match step {
                Step::Read | Step::Send | Step::Close => {
                    self.to_client.append(self.hub.output());
                    if step != Step::Send {
                        return got;
                    }
                }
                Step::Ask(Question::Mail) => {
                    self.asked = 0;
                    let verdict = match case.mail_refused {
                        true => Verdict::Refuse(Reply::NoPermission),
                        false => Verdict::Accept,
                    };
                    self.hub.answer(verdict, self.now);
                }
                Step::Ask(Question::Rcpt) => {
                    let verdict = case.refused[self.asked].map_or(Verdict::Accept, Verdict::Refuse);
                    self.asked += 1;
                    self.hub.answer(verdict, self.now);
                }
                Step::Store(_) => self.stored.extend(stored),
                Step::Commit => {
                    let stored = std::mem::take(&mut self.stored);
                    let message = if self.hub.is_chunked() {
                        stored
                    } else {
                        oracle::unstuffed(&stored)
                    };
                    let envelope = self.hub.envelope().unwrap().clone();
                    got = Some(Got { envelope, message });
                    self.hub.acknowledge(Custody::Delivered, "0AKK0SJVW0000", self.now);
                }
                step => panic!("{step:?} for a message in order"),
            }
        }
    }

    /// Everything goes to its other end, in pieces, until the client wants something else.
    fn carry(&mut self, case: &Case, got: &mut Vec<Got>) -> ClientStep {
        let mut input = vec![];
        loop {
            let (used, step) = self.client.advance(&input, self.now);
            input.drain(..used);
            if step != ClientStep::Read {
                assert!(input.is_empty() || step == ClientStep::Done);
                return step;
            }
            let mut output = std::mem::take(self.client.output());
            if !self.esmtp && output.starts_with(b"EHLO") {
                output[0] = b'X';
            }
            let cuts = self.cuts.clone();
            for piece in pieces(&output, &cuts) {
                self.to_hub.extend_from_slice(piece);
                got.extend(self.hub(case));
            }
            assert!(!self.to_client.is_empty(), "both wait: {:?}", self.client);
            let cut = self.cuts[0].min(self.to_client.len());
            self.cuts.rotate_left(1);
            input.extend(self.to_client.drain(..cut));
        }
    }

    /// The whole of a message. Gives outcomes and what the hub has got.
    fn send(&mut self, case: &Case) -> Result<(Vec<Outcome>, Vec<Got>), Misfit> {
        let mut got = vec![];
        assert_eq!(self.carry(case, &mut got), ClientStep::Ready);
        let recipients: Vec<usize> = (0..case.envelope.recipients.len()).collect();
        let content = match case.form {
            Form::Plain => case.message.clone(),
            Form::Dotted => oracle::stuffed(&case.message),
        };
        self.client.send(
            &Outgoing {
                envelope: &case.envelope,
                recipients: &recipients,
                form: case.form,
                size: (case.head.len() + case.message.len()) as u64,
                head: &case.head,
                eight_bit: !case.message.is_ascii(),
                bare_newline: oracle::bare_newline(&case.message),
            },
            self.now,
        )?;
        loop {
            match self.carry(case, &mut got) {
                ClientStep::Content => {
                    let cuts = self.cuts.clone();
                    let pieces = pieces(&content, &cuts);
                    for (n, piece) in pieces.iter().enumerate() {
                        self.client.content(piece, n + 1 == pieces.len(), self.now);
                    }
                }
                ClientStep::Done => return Ok((self.client.take_outcomes(), got)),
                step => panic!("{step:?}: {:?}", self.client.failure()),
            }
        }
    }
}

/// What the hub should have of it, by the RFCs of what it offers.
fn expected(case: &Case, offered: Offered, esmtp: bool) -> Result<Got, Misfit> {
    let has = |extension| esmtp && offered.has(extension);
    let (mail, bare) = (&case.envelope.mail, oracle::bare_newline(&case.message));
    let eight_bit = !case.message.is_ascii();
    let paths = case
        .envelope
        .recipients
        .iter()
        .map(|recipient| recipient.forward_path.as_str());
    let utf8 = eight_bit
        || paths
            .chain([case.envelope.reverse_path.as_str()])
            .any(|path| !path.is_ascii());
    if mail.smtputf8 && utf8 && !has(Extension::SmtpUtf8) {
        return Err(Misfit::SmtpUtf8);
    }
    if mail.body == Body::BinaryMime && !has(Extension::BinaryMime) {
        return Err(Misfit::BinaryMime);
    }
    if mail.body != Body::BinaryMime && eight_bit && !has(Extension::EightBitMime) {
        return Err(Misfit::EightBit);
    }
    let by_chunk = case.form == Form::Plain && has(Extension::Chunking);
    if case.form == Form::Plain && bare && !by_chunk {
        return Err(Misfit::BareNewline);
    }
    let message = [&case.head[..], &case.message].concat();
    let recipients = case.envelope.recipients.iter().zip(&case.refused);
    Ok(Got {
        message: match (case.form, by_chunk) {
            (Form::Plain, true) => message.clone(),
            (Form::Plain, false) => oracle::with_end(&message),
            (Form::Dotted, _) => oracle::with_end(&oracle::normalised(&message)),
        },
        envelope: Envelope {
            reverse_path: case.envelope.reverse_path.clone(),
            mail: MailParameters {
                size: esmtp.then_some(message.len() as u64),
                body: match mail.body {
                    Body::BinaryMime => Body::BinaryMime,
                    Body::SevenBit if !eight_bit => Body::SevenBit,
                    _ if has(Extension::EightBitMime) => Body::EightBitMime,
                    _ => Body::SevenBit,
                },
                ret: mail.ret.filter(|_| esmtp),
                envid: mail.envid.clone().filter(|_| esmtp),
                smtputf8: mail.smtputf8 && has(Extension::SmtpUtf8),
                auth: None,
            },
            recipients: recipients
                .filter(|(_, refused)| refused.is_none())
                .map(|(recipient, _)| Recipient {
                    parameters: match esmtp {
                        true => recipient.parameters.clone(),
                        false => RcptParameters::default(),
                    },
                    ..recipient.clone()
                })
                .collect(),
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_session_hears_from_a_client_what_the_client_was_given(
        cases in prop::collection::vec(case(), 1..5), cuts in cuts(), esmtp in prop::bool::weighted(0.9),
        off in prop::sample::subsequence(vec![
            Extension::Pipelining, Extension::Chunking, Extension::EightBitMime, Extension::BinaryMime, Extension::SmtpUtf8,
        ], 0..=5),
    ) {
        let offered = Offered::of(Edition::Y2021, &off, false);
        let mut wires = Wires::new(&off, esmtp, cuts);
        for case in &cases {
            let expected = expected(case, offered, esmtp);
            let (outcomes, got) = match (wires.send(case), expected.as_ref()) {
                (Err(misfit), Err(expected)) => {
                    prop_assert_eq!(misfit, *expected);
                    continue;
                }
                (Ok(sent), Ok(_)) => sent,
                (sent, expected) => panic!("{sent:?} instead of {expected:?}"),
            };
            prop_assert_eq!(outcomes.len(), case.refused.len());
            let nobody = case.mail_refused || case.refused.iter().all(Option::is_some);
            for (outcome, refused) in outcomes.iter().zip(&case.refused) {
                let as_it_should_be = match (outcome, refused) {
                    (Outcome::Failed(reply), _) if case.mail_refused => reply.code == 550,
                    (Outcome::Failed(reply), Some(Reply::UserUnknown)) => reply.code == 550,
                    (Outcome::Deferred(reply), Some(Reply::TryLater)) => reply.code == 451,
                    (Outcome::Delivered(reply), None) => reply.text.starts_with("<0AKK0SJVW0000>"),
                    _ => false,
                };
                prop_assert!(as_it_should_be, "{:?} for {:?}", outcome, refused);
            }
            match (&got[..], expected) {
                ([], _) if nobody => {}
                ([got], Ok(expected)) if !nobody => prop_assert_eq!(got, &expected),
                (got, _) => panic!("{} messages", got.len()),
            }
        }
        prop_assert!(wires.client.failure().is_none());
    }
}
