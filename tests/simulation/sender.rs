//! A client of the edge: sends its letters one after the other and believes what it hears.

use std::collections::VecDeque;

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Letter {
    pub token: u64,
    pub from: String,
    pub to: Vec<String>,
    /// Without doubled dots.
    pub content: Vec<u8>,
    /// Octets of a chunk; none: it goes by DATA.
    pub chunk: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Greeting,
    Hello,
    Mail,
    Rcpt(usize),
    Data,
    /// Octets that have gone in chunks.
    Chunk(usize),
    Content,
    Quit,
    Closed,
}

/// What a client has learnt.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// This letter is about to be sent to these.
    Sending(u64, Vec<String>),
    Acknowledged(u64),
    Refused(u64),
}

#[derive(Debug)]
pub struct Sender {
    letters: VecDeque<Letter>,
    pub stage: Stage,
    accepted: Vec<String>,
    heard: Vec<u8>,
    /// What it has sent and the edge has not read.
    pub output: Vec<u8>,
}

impl Sender {
    pub fn new(letters: Vec<Letter>) -> Sender {
        Sender {
            letters: letters.into(),
            stage: Stage::Greeting,
            accepted: Vec::new(),
            heard: Vec::new(),
            output: Vec::new(),
        }
    }

    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub fn close(&mut self) {
        self.stage = Stage::Closed;
        self.output.clear();
    }

    /// Octets from the edge.
    pub fn hear(&mut self, octets: &[u8]) -> Vec<News> {
        self.heard.extend_from_slice(octets);
        let mut news = Vec::new();
        while let Some(end) = self.heard.windows(2).position(|pair| pair == b"\r\n") {
            let line: Vec<u8> = self.heard.drain(..end + 2).collect();
            if line[3] == b' ' {
                let code: u16 = std::str::from_utf8(&line[..3]).unwrap().parse().unwrap();
                news.extend(self.reply(code));
            }
        }
        news
    }

    fn reply(&mut self, code: u16) -> Option<News> {
        let good = code / 100 == 2 || code == 354;
        if code == 421 || (self.stage == Stage::Quit) {
            self.close();
            return None;
        }
        let Some(letter) = self.letters.front().cloned() else {
            match self.stage {
                Stage::Greeting if good => self.say(b"EHLO client.test\r\n", Stage::Hello),
                _ => self.give_up(),
            }
            return None;
        };
        match self.stage {
            Stage::Greeting if good => self.say(b"EHLO client.test\r\n", Stage::Hello),
            Stage::Hello if good => self.next(),
            Stage::Mail if good => {
                self.accepted.clear();
                self.say(format!("RCPT TO:<{}>\r\n", letter.to[0]).as_bytes(), Stage::Rcpt(0));
            }
            Stage::Rcpt(at) => {
                if good {
                    self.accepted.push(letter.to[at].clone());
                }
                match letter.to.get(at + 1) {
                    Some(to) => self.say(format!("RCPT TO:<{to}>\r\n").as_bytes(), Stage::Rcpt(at + 1)),
                    None if self.accepted.is_empty() => self.give_up(),
                    None if letter.chunk.is_some() => {
                        self.chunk(&letter, 0);
                        return Some(News::Sending(letter.token, self.accepted.clone()));
                    }
                    None => self.say(b"DATA\r\n", Stage::Data),
                }
            }
            Stage::Data if good => {
                let mut octets = dotted(&letter.content);
                octets.extend_from_slice(b".\r\n");
                self.say(&octets, Stage::Content);
                return Some(News::Sending(letter.token, self.accepted.clone()));
            }
            Stage::Chunk(gone) if good => self.chunk(&letter, gone),
            Stage::Content => {
                self.letters.pop_front();
                self.next();
                return Some(if good {
                    News::Acknowledged(letter.token)
                } else {
                    News::Refused(letter.token)
                });
            }
            _ => self.give_up(),
        }
        None
    }

    /// The next chunk of a letter of which so many octets have gone.
    fn chunk(&mut self, letter: &Letter, gone: usize) {
        let rest = &letter.content[gone..];
        let size = letter.chunk.unwrap().min(rest.len());
        let (last, stage) = match size == rest.len() {
            true => (" LAST", Stage::Content),
            false => ("", Stage::Chunk(gone + size)),
        };
        let mut octets = format!("BDAT {size}{last}\r\n").into_bytes();
        octets.extend_from_slice(&rest[..size]);
        self.say(&octets, stage);
    }

    fn next(&mut self) {
        match self.letters.front() {
            Some(letter) => {
                let command = format!("MAIL FROM:<{}> ENVID=T{}\r\n", letter.from, letter.token);
                self.say(command.as_bytes(), Stage::Mail);
            }
            None => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.say(b"QUIT\r\n", Stage::Quit);
    }

    fn say(&mut self, octets: &[u8], stage: Stage) {
        self.output.extend_from_slice(octets);
        self.stage = stage;
    }
}

/// With a second dot where one begins a line (RFC 5321 section 4.5.2).
pub fn dotted(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out
}

/// The reverse.
pub fn undotted(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    out
}
