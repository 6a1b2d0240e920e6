//! A client of the edge: sends its letters one after the other and believes what it hears.

use std::collections::VecDeque;

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Letter {
    pub token: u64,
    pub from: String,
    pub to: Vec<String>,
    pub lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Hello,
    Mail,
    Rcpt(usize),
    Data,
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
    stage: Stage,
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
        let letter = self.letters.front().cloned();
        match (self.stage, letter) {
            (Stage::Greeting, _) if good => self.say("EHLO client.test\r\n", Stage::Hello),
            (Stage::Hello, _) if good => self.next(),
            (Stage::Mail, Some(letter)) if good => {
                self.accepted.clear();
                self.say(&format!("RCPT TO:<{}>\r\n", letter.to[0]), Stage::Rcpt(0));
            }
            (Stage::Rcpt(at), Some(letter)) => {
                if good {
                    self.accepted.push(letter.to[at].clone());
                }
                match letter.to.get(at + 1) {
                    Some(to) => self.say(&format!("RCPT TO:<{to}>\r\n"), Stage::Rcpt(at + 1)),
                    None if self.accepted.is_empty() => self.give_up(),
                    None => self.say("DATA\r\n", Stage::Data),
                }
            }
            (Stage::Data, Some(letter)) if good => {
                let mut content = format!("Token: {}\r\nSubject: a letter\r\n\r\n", letter.token);
                for line in 0..letter.lines {
                    // Some begin with a dot, which is doubled.
                    content.push_str(if line % 3 == 0 { "..line\r\n" } else { "line\r\n" });
                }
                content.push_str(".\r\n");
                self.say(&content, Stage::Content);
                return Some(News::Sending(letter.token, self.accepted.clone()));
            }
            (Stage::Content, Some(letter)) => {
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

    fn next(&mut self) {
        match self.letters.front() {
            Some(letter) => self.say(&format!("MAIL FROM:<{}>\r\n", letter.from), Stage::Mail),
            None => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.say("QUIT\r\n", Stage::Quit);
    }

    fn say(&mut self, text: &str, stage: Stage) {
        self.output.extend_from_slice(text.as_bytes());
        self.stage = stage;
    }
}
