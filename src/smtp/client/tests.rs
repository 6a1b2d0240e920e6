//! The client as a hop sees it: whole dialogues, each run with the hop's octets in one piece and one by one.
//!
//! A dialogue is a text. `S:` is what the hop says, `C:` what it hears; `=` is what comes of it, a line for each recipient or
//! for the end of the connection; `!` is what befalls the connection: a wait, a loss, TLS, nobody who could find out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::smtp::Form;
use crate::smtp::envelope::{Envelope, MailParameters, RcptParameters, Recipient};
use crate::smtp::path::{ForwardPath, ReversePath};
use crate::smtp::sasl::salted_password;

mod authentication;
mod opening;
mod sending;
mod trouble;

fn terms() -> Terms {
    Terms {
        dialect: Dialect::Smtp,
        hello: "edge.test".into(),
        tls: TlsUse::Off,
        implicit_tls: false,
        credentials: None,
        timeouts: Timeouts::default(),
    }
}

fn lmtp() -> Terms {
    Terms {
        dialect: Dialect::Lmtp,
        ..terms()
    }
}

/// A message as the dialogues have it.
#[derive(Clone)]
struct Message {
    envelope: Envelope,
    form: Form,
    head: &'static str,
    content: Vec<u8>,
    bare_newline: bool,
    /// What is said of the size where it is not true.
    size: Option<u64>,
}

/// From `a@b.test` to these, with a content of one line.
fn message(recipients: &[&str]) -> Message {
    let recipient = |to: &&str| Recipient {
        forward_path: ForwardPath::parse(format!("<{to}>").as_bytes(), true).unwrap().0,
        parameters: RcptParameters::default(),
    };
    Message {
        envelope: Envelope {
            reverse_path: ReversePath::parse(b"<a@b.test>", true).unwrap().0,
            mail: MailParameters::default(),
            recipients: recipients.iter().map(recipient).collect(),
        },
        form: Form::Dotted,
        head: "",
        content: b"Hi\r\n".to_vec(),
        bare_newline: false,
        size: None,
    }
}

impl Message {
    fn content(self, content: &str) -> Message {
        Message {
            content: content.as_bytes().to_vec(),
            ..self
        }
    }

    fn plain(self) -> Message {
        Message {
            form: Form::Plain,
            ..self
        }
    }

    fn send(&self, client: &mut Client, now: Instant) -> Result<(), Misfit> {
        let recipients: Vec<usize> = (0..self.envelope.recipients.len()).collect();
        let outgoing = Outgoing {
            envelope: &self.envelope,
            recipients: &recipients,
            form: self.form,
            size: self.size.unwrap_or((self.head.len() + self.content.len()) as u64),
            head: self.head.as_bytes(),
            eight_bit: !self.content.is_ascii(),
            bare_newline: self.bare_newline,
        };
        client.send(&outgoing, now)
    }
}

/// Finds out what AUTH needs; the nonce is the same each time.
fn find(client: &mut Client, now: Instant) {
    let found = match client.wanted() {
        Some(Wanted::Nonce) => Found::Nonce {
            random: *b"\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa1234567890",
            unix_millis: 1_795_000_000_000,
        },
        Some(Wanted::SaltedPassword {
            password,
            salt,
            iterations,
        }) => Found::SaltedPassword(salted_password(password.octets(), salt, iterations)),
        None => panic!("asks for nothing"),
    };
    client.found(&found, now);
}

/// Plays the dialogue with the hop's octets in pieces of `cut`, and writes down what really came of it.
fn play(terms: &Terms, messages: &[Message], script: &str, cut: usize) -> String {
    let mut now = Instant::now();
    let mut client = Client::new(Arc::new(terms.clone()), now);
    let (mut script, mut messages) = (script.lines().map(str::trim).peekable(), messages.iter());
    let (mut said, mut coming, mut input) = (String::new(), Vec::<u8>::new(), Vec::<u8>::new());
    let mut content: &[u8] = &[];
    let flush = |client: &mut Client, said: &mut String| {
        let output = std::mem::take(client.output());
        for line in String::from_utf8_lossy(&output).split_inclusive('\n') {
            let line = line.strip_suffix("\r\n").map_or(format!("{line:?}"), str::to_owned);
            said.push_str(format!("C: {line}").trim_end());
            said.push('\n');
        }
    };
    for _ in 0..100_000 {
        let (used, step) = client.advance(&input, now);
        input.drain(..used);
        match step {
            Step::Read if !coming.is_empty() => input.extend(coming.drain(..cut.min(coming.len()))),
            Step::Read => {
                flush(&mut client, &mut said);
                while script
                    .next_if(|line| line.starts_with("C:") || line.starts_with('='))
                    .is_some()
                {}
                match script.next() {
                    Some(line) if line.starts_with("S:") => {
                        let mut next = Some(line);
                        while let Some(line) = next {
                            let text = line.strip_prefix("S:").unwrap();
                            coming.extend(text.strip_prefix(' ').unwrap_or(text).as_bytes());
                            coming.extend(b"\r\n");
                            said.push_str(&format!("{line}\n"));
                            next = script.next_if(|line| line.starts_with("S:"));
                        }
                    }
                    Some("! lost") => {
                        said.push_str("! lost\n");
                        client.lost("connection reset");
                    }
                    Some(wait) => {
                        let seconds = wait.strip_prefix("! after ").expect("a line that is known");
                        said.push_str(&format!("{wait}\n"));
                        now += Duration::from_secs(seconds.trim_end_matches('s').parse().unwrap());
                        client.expire(now);
                    }
                    None => return said + "? the hop has no more to say\n",
                }
            }
            Step::Handshake => {
                assert!(input.is_empty(), "unused input before TLS");
                flush(&mut client, &mut said);
                said.push_str("! TLS\n");
                script.next_if(|line| *line == "! TLS");
                while script
                    .next_if(|line| line.starts_with("C:") || *line == "! TLS")
                    .is_some()
                {}
                client.secured(now);
            }
            Step::Ask if script.next_if(|line| *line == "! unknown").is_some() => {
                said.push_str("! unknown\n");
                client.found(&Found::Unavailable, now);
            }
            Step::Ask => find(&mut client, now),
            Step::Ready => match messages.next() {
                Some(message) => {
                    content = &message.content;
                    if let Err(misfit) = message.send(&mut client, now) {
                        said.push_str(&format!("= {misfit:?} {}\n", misfit.reply()));
                    }
                }
                None => client.quit(now),
            },
            Step::Content => {
                let (piece, rest) = content.split_at(cut.min(content.len()));
                content = rest;
                client.content(piece, rest.is_empty(), now);
            }
            Step::Done => {
                flush(&mut client, &mut said);
                for outcome in client.take_outcomes() {
                    let (kind, reply) = match &outcome {
                        Outcome::Delivered(reply) => ("delivered", reply),
                        Outcome::Deferred(reply) => ("deferred", reply),
                        Outcome::Failed(reply) => ("failed", reply),
                    };
                    let origin = match reply.origin {
                        Origin::Hop => String::new(),
                        origin => format!(" {origin:?}"),
                    };
                    said.push_str(&format!("= {kind} {reply}{origin}\n"));
                }
            }
            Step::Close => {
                flush(&mut client, &mut said);
                let end = client.failure().map_or("closed".to_owned(), |failure| {
                    format!("{:?}: {}", failure.fault, failure.reply)
                });
                return said + &format!("= {end}\n");
            }
        }
    }
    said + "? no end\n"
}

/// The dialogue goes as it is written, however the octets of the hop and of the content are cut.
#[track_caller]
fn goes(terms: &Terms, messages: &[Message], script: &str) {
    let expected: String = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    for cut in [usize::MAX, 1, 2, 3] {
        let said = play(terms, messages, &expected, cut);
        assert!(said == expected, "in pieces of {cut}:\n{said}\ninstead of\n{expected}");
    }
}
