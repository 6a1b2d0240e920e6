//! A hub that speaks LMTP (RFC 2033): a reply for each recipient after the content.

use crate::sender::undotted;

/// What becomes of something that a hub is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    Yes,
    Later,
    Never,
}

/// A message that it has agreed to keep for some.
pub struct Kept {
    pub content: Vec<u8>,
    pub recipients: Vec<String>,
}

enum Mode {
    Command,
    Data,
    Chunk { left: usize, last: bool },
}

pub struct Lmtp {
    chunking: bool,
    mode: Mode,
    recipients: Vec<String>,
    content: Vec<u8>,
    pub output: Vec<u8>,
    pub closed: bool,
}

impl Lmtp {
    pub fn new(chunking: bool) -> Lmtp {
        Lmtp {
            chunking,
            mode: Mode::Command,
            recipients: Vec::new(),
            content: Vec::new(),
            output: b"220 lmtp.test LMTP\r\n".to_vec(),
            closed: false,
        }
    }

    /// Takes what it can of the input. `judge` is asked for each recipient, at its RCPT and, with `true`,
    /// after the content.
    pub fn advance(&mut self, input: &mut Vec<u8>, judge: &mut dyn FnMut(&str, bool) -> Judgement) -> Vec<Kept> {
        let mut kept = Vec::new();
        loop {
            match self.mode {
                Mode::Command => {
                    let Some(line) = line(input) else { return kept };
                    self.command(&line, judge);
                }
                Mode::Data => {
                    let Some(line) = line(input) else { return kept };
                    if line != b".\r\n" {
                        self.content.extend_from_slice(&line);
                        continue;
                    }
                    self.content = undotted(&self.content);
                    kept.extend(self.end(judge));
                }
                Mode::Chunk { left, last } => {
                    let taken = left.min(input.len());
                    self.content.extend(input.drain(..taken));
                    if taken < left {
                        self.mode = Mode::Chunk {
                            left: left - taken,
                            last,
                        };
                        return kept;
                    }
                    if last {
                        kept.extend(self.end(judge));
                    } else {
                        self.say("250 2.0.0 octets taken");
                        self.mode = Mode::Command;
                    }
                }
            }
        }
    }

    fn command(&mut self, line: &[u8], judge: &mut dyn FnMut(&str, bool) -> Judgement) {
        let line = std::str::from_utf8(line).unwrap().trim_end();
        let mut words = line.split([' ', ':']);
        match words.next().unwrap() {
            "LHLO" if self.chunking => {
                self.say("250-lmtp.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 ENHANCEDSTATUSCODES")
            }
            "LHLO" => self.say("250-lmtp.test\r\n250 PIPELINING"),
            "MAIL" => {
                self.reset();
                self.say("250 2.1.0 OK");
            }
            "RCPT" => {
                let path = line.split(['<', '>']).nth(1).unwrap();
                match judge(path, false) {
                    Judgement::Yes => {
                        self.recipients.push(path.to_owned());
                        self.say("250 2.1.5 OK");
                    }
                    Judgement::Later => self.say("450 4.2.0 not now"),
                    Judgement::Never => self.say("550 5.1.1 nobody of that name"),
                }
            }
            // RFC 2033 section 4.2.
            "DATA" if self.recipients.is_empty() => self.say("503 5.5.1 nobody to take it for"),
            "DATA" => {
                self.mode = Mode::Data;
                self.say("354 go on");
            }
            "BDAT" => {
                assert!(!self.recipients.is_empty(), "a chunk for nobody");
                self.mode = Mode::Chunk {
                    left: words.next().unwrap().parse().unwrap(),
                    last: words.next() == Some("LAST"),
                };
            }
            "RSET" => {
                self.reset();
                self.say("250 2.0.0 OK");
            }
            "QUIT" => {
                self.closed = true;
                self.say("221 2.0.0 bye");
            }
            other => panic!("{other} is no command of LMTP"),
        }
    }

    /// A reply for each.
    fn end(&mut self, judge: &mut dyn FnMut(&str, bool) -> Judgement) -> Option<Kept> {
        let mut takers = Vec::new();
        for recipient in std::mem::take(&mut self.recipients) {
            match judge(&recipient, true) {
                Judgement::Yes => {
                    self.say("250 2.0.0 kept");
                    takers.push(recipient);
                }
                Judgement::Later => self.say("452 4.2.2 mailbox full for now"),
                Judgement::Never => self.say("552 5.2.2 mailbox full for good"),
            }
        }
        let content = std::mem::take(&mut self.content);
        self.mode = Mode::Command;
        (!takers.is_empty()).then_some(Kept {
            content,
            recipients: takers,
        })
    }

    fn reset(&mut self) {
        self.recipients.clear();
        self.content.clear();
    }

    fn say(&mut self, reply: &str) {
        self.output.extend_from_slice(reply.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }
}

fn line(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = input.iter().position(|&octet| octet == b'\n')?;
    Some(input.drain(..=end).collect())
}
