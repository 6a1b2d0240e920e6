//! One SMTP connection from the client's side, without sockets and without a clock.
//!
//! Promises: the same replies lead to the same steps however the stream is cut (split inside a line, several in one
//! segment); what to send next follows from the replies alone. Runs on the one thread of the load source, one value a
//! connection.

use std::hash::{BuildHasher, RandomState};

use memchr::memmem;

use crate::auth::Credentials;
use crate::reply::{Malformed, ReplyReader};

/// Most octets of a reply that are kept, of EHLO to look for extensions, of AUTH to answer it.
const HEARD_MAX: usize = 4096;

/// How the client behaves; the same for every connection of a run.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// MAIL, RCPT and DATA leave in one write (RFC 2920), when the server offers it.
    pub pipelining: bool,
    /// Pipelining, and in addition the content leads a group (RFC 2920 section 3.1): MAIL, RCPT and DATA of the next
    /// message leave in the write of the content, or QUIT where there is no next message. Not used with BDAT, which
    /// puts a whole message into one write already.
    pub group: bool,
    /// BDAT in place of DATA (RFC 3030).
    pub bdat: bool,
    /// Chunks of a content; 1 unless BDAT is used.
    pub chunks: u32,
    /// STARTTLS after the first EHLO (RFC 3207).
    pub start_tls: bool,
    /// AUTH after the last EHLO (RFC 4954).
    pub auth: Option<Credentials>,
    /// LHLO, and a final reply for each recipient (RFC 2033).
    pub lmtp: bool,
    /// MAIL with SMTPUTF8, which the server must offer (RFC 6531).
    pub smtputf8: bool,
    /// Recipients of a message.
    pub recipients: u32,
    /// Being refused is what this load is about: no failure.
    pub refusals_expected: bool,
}

/// Something to write to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// What `spoken` gives: the PROXY header, or a line of AUTH.
    Spoken,
    /// `EHLO name`, or LHLO.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// MAIL, every RCPT and DATA (or BDAT with the content) in one.
    Envelope,
    /// MAIL alone.
    Mail,
    /// The RCPT of this number alone, from 0.
    Rcpt(u32),
    /// DATA alone.
    Data,
    /// The content and its end (or BDAT with the content, in all its chunks).
    Content,
    /// BDAT with the chunk of this number alone, from 0.
    Piece(u32),
    /// The content, its end, and the envelope of the next message.
    ContentAndEnvelope,
    /// The content, its end, and QUIT.
    ContentAndQuit,
    /// The end of the content alone: what is left to say when DATA was accepted though no recipient was (RFC 2920
    /// section 3.1).
    LoneDot,
    /// RSET, after a transaction that the server may think still open.
    Reset,
    /// QUIT.
    Quit,
}

/// What became of a message that the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every recipient and the content were accepted.
    Accepted,
    /// The server refused the sender, a recipient or the content.
    Refused,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// QUIT was answered.
    Quit,
    /// The greeting or EHLO was refused.
    TurnedAway,
    /// The server said 421 in the middle.
    Shutdown,
    /// What came is not a reply of SMTP.
    Malformed,
    /// The server does not offer, or refused, what was asked for.
    Lacks(&'static str),
}

/// What follows from the octets received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the server says more; all input is used.
    More,
    /// Write this.
    Send(Chunk),
    /// Start TLS on the connection, then write EHLO.
    StartTls,
    /// EHLO is accepted, and AUTH if there is one: call `begin` or `quit`.
    Ready,
    /// The content is due and leads a group: call `group`.
    Group,
    /// The message is over: call `begin` or `quit`, unless the next one, or QUIT, `follows_already`.
    Finished(Outcome),
    /// Close the connection.
    Over(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Ehlo,
    StartTls,
    /// The number of 334 replies so far.
    Auth(u32),
    Between,
    Mail,
    Rcpt(u32),
    Data,
    Content,
    Reset,
    Quit,
}

/// What left in the same write as the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Behind {
    #[default]
    Nothing,
    Message,
    Quit,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Dialogue {
    stage: Stage,
    reader: ReplyReader,
    /// The reply that is to be looked into.
    heard: Vec<u8>,
    spoken: Vec<u8>,
    secured: bool,
    lockstep: bool,
    behind: Behind,
    refused: bool,
    recipients_accepted: u32,
    /// Replies to the content, or its chunks, that have not come yet.
    finals_due: u32,
    /// One of them took the message for a recipient, the others may not.
    partly_taken: bool,
}

impl Dialogue {
    /// A connection that waits for its greeting.
    pub fn new() -> Self {
        Self {
            stage: Stage::Greeting,
            reader: ReplyReader::default(),
            heard: Vec::new(),
            spoken: Vec::new(),
            secured: false,
            lockstep: true,
            behind: Behind::Nothing,
            refused: false,
            recipients_accepted: 0,
            finals_due: 0,
            partly_taken: false,
        }
    }

    /// What `Chunk::Spoken` stands for.
    pub fn spoken(&self) -> &[u8] {
        &self.spoken
    }

    /// Something to say before the greeting.
    pub fn speak_first(&mut self, octets: Vec<u8>) -> Chunk {
        self.spoken = octets;
        Chunk::Spoken
    }

    /// Back to the start for the next connection, keeping what was allocated.
    pub fn restart(&mut self) {
        let heard = std::mem::take(&mut self.heard);
        *self = Self { heard, ..Self::new() };
        self.heard.clear();
    }

    /// Messages begun and not finished: two while the envelope of the second is behind the content of the first.
    pub fn messages_under_way(&self) -> u64 {
        let inside = matches!(
            self.stage,
            Stage::Mail | Stage::Rcpt(_) | Stage::Data | Stage::Content | Stage::Reset
        );
        u64::from(inside) + u64::from(self.behind == Behind::Message)
    }

    /// Whether what comes after the message that has just finished is written already.
    pub fn follows_already(&self) -> bool {
        self.stage != Stage::Between
    }

    /// Whether the greeting has not come yet.
    pub fn awaits_greeting(&self) -> bool {
        self.stage == Stage::Greeting
    }

    /// Whether the message under way was taken for a recipient already, and is not finished: only in LMTP.
    pub fn is_partly_taken(&self) -> bool {
        self.partly_taken
    }

    /// Whether it is between two messages.
    pub fn is_between(&self) -> bool {
        self.stage == Stage::Between
    }

    /// Whether only the end of the connection is awaited, so that its close is no loss.
    pub fn is_quitting(&self) -> bool {
        self.stage == Stage::Quit
    }

    /// Whether the server did not offer the pipelining that was asked for.
    pub fn pipelining_denied(&self, manner: &Manner) -> bool {
        manner.pipelining && self.lockstep
    }

    /// Starts a message; to be called after `Ready` or `Finished`.
    pub fn begin(&mut self) -> Chunk {
        debug_assert_eq!(self.stage, Stage::Between);
        self.expect_envelope();
        if self.lockstep { Chunk::Mail } else { Chunk::Envelope }
    }

    /// The content with what follows it, the envelope of another message or QUIT; to be called after `Group`.
    pub fn group(&mut self, another: bool) -> Chunk {
        debug_assert_eq!((self.stage, self.behind), (Stage::Content, Behind::Nothing));
        if another {
            self.behind = Behind::Message;
            return Chunk::ContentAndEnvelope;
        }
        self.behind = Behind::Quit;
        Chunk::ContentAndQuit
    }

    /// Ends the connection politely; to be called after `Ready` or `Finished`.
    pub fn quit(&mut self) -> Chunk {
        debug_assert_eq!(self.stage, Stage::Between);
        self.stage = Stage::Quit;
        Chunk::Quit
    }

    /// Reads replies from `input` up to the first that asks for something; gives the octets used and what it asks for.
    /// Every reply's code is given to `count`.
    pub fn receive(&mut self, manner: &Manner, input: &[u8], mut count: impl FnMut(u16)) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return (used, Step::More);
            }
            let read = self.reader.read(rest);
            let taken = match read {
                Ok(Some((_, taken))) => taken,
                Ok(None) => rest.len(),
                Err(Malformed) => return (input.len(), Step::Over(Ending::Malformed)),
            };
            if matches!(self.stage, Stage::Ehlo | Stage::Auth(_)) && self.heard.len() + taken <= HEARD_MAX {
                self.heard.extend_from_slice(rest.get(..taken).unwrap_or_default());
            }
            used += taken;
            if let Ok(Some((code, _))) = read {
                count(code);
                match self.advance(manner, code) {
                    Step::More => {}
                    step => return (used, step),
                }
            }
        }
    }

    fn advance(&mut self, manner: &Manner, code: u16) -> Step {
        if code == 421 && !matches!(self.stage, Stage::Greeting | Stage::Quit) {
            return Step::Over(Ending::Shutdown);
        }
        let good = (200..300).contains(&code);
        match self.stage {
            Stage::Greeting if good => {
                self.stage = Stage::Ehlo;
                Step::Send(Chunk::Ehlo)
            }
            Stage::Ehlo if good => self.greeted(manner),
            Stage::StartTls if good => {
                self.secured = true;
                self.stage = Stage::Ehlo;
                Step::StartTls
            }
            Stage::StartTls => Step::Over(Ending::Lacks("STARTTLS")),
            Stage::Auth(_) if good => {
                self.stage = Stage::Between;
                Step::Ready
            }
            Stage::Auth(number) => self.challenged(manner, number, code),
            Stage::Greeting | Stage::Ehlo => Step::Over(Ending::TurnedAway),
            Stage::Mail => {
                self.refused |= !good;
                if self.refused && self.lockstep {
                    return self.finish();
                }
                self.stage = Stage::Rcpt(0);
                self.in_lockstep(Chunk::Rcpt(0))
            }
            Stage::Rcpt(number) => self.recipient_answered(manner, number, good),
            Stage::Data if code == 354 => {
                self.expect_finals(manner);
                if self.recipients_accepted == 0 {
                    Step::Send(Chunk::LoneDot)
                } else if manner.group && !self.lockstep {
                    Step::Group
                } else {
                    Step::Send(Chunk::Content)
                }
            }
            Stage::Content => self.content_answered(manner, good),
            // Refused: whether the transaction is still open differs between servers.
            Stage::Data => self.reset(),
            Stage::Reset => self.finish(),
            Stage::Quit => Step::Over(Ending::Quit),
            // A reply to nothing: the server and we no longer speak of the same command.
            Stage::Between => Step::Over(Ending::Malformed),
        }
    }

    fn greeted(&mut self, manner: &Manner) -> Step {
        self.heard.make_ascii_uppercase();
        let offers = |keyword: &str| {
            memmem::find_iter(&self.heard, keyword).any(|at| {
                let before = at.checked_sub(4).and_then(|start| self.heard.get(start..at));
                let after = self.heard.get(at + keyword.len());
                matches!(before, Some([b'2', b'5', b'0', b'-' | b' '])) && matches!(after, Some(b'\r' | b'\n' | b' '))
            })
        };
        if manner.start_tls && !self.secured {
            let offered = offers("STARTTLS");
            self.heard.clear();
            self.stage = Stage::StartTls;
            return match offered {
                true => Step::Send(Chunk::StartTls),
                false => Step::Over(Ending::Lacks("STARTTLS")),
            };
        }
        self.lockstep = !(manner.pipelining && offers("PIPELINING"));
        for (wanted, keyword) in [(manner.bdat, "CHUNKING"), (manner.smtputf8, "SMTPUTF8")] {
            if wanted && !offers(keyword) {
                return Step::Over(Ending::Lacks(keyword));
            }
        }
        self.heard.clear();
        let Some(credentials) = &manner.auth else {
            self.stage = Stage::Between;
            return Step::Ready;
        };
        self.stage = Stage::Auth(0);
        self.spoken = credentials.command().into_bytes();
        Step::Send(Chunk::Spoken)
    }

    fn challenged(&mut self, manner: &Manner, number: u32, code: u16) -> Step {
        // Keys of hashing are random, which is enough for a nonce of the client's.
        let nonce = RandomState::new().hash_one(number);
        let answer = manner.auth.as_ref().filter(|_| code == 334);
        let answer = answer.and_then(|credentials| credentials.answer(number, &self.heard, nonce));
        self.heard.clear();
        let Some(answer) = answer else {
            return Step::Over(Ending::Lacks("AUTH as asked for"));
        };
        self.stage = Stage::Auth(number + 1);
        self.spoken = answer.into_bytes();
        Step::Send(Chunk::Spoken)
    }

    fn expect_finals(&mut self, manner: &Manner) {
        self.stage = Stage::Content;
        let last = if manner.lmtp {
            self.recipients_accepted.max(1)
        } else {
            1
        };
        self.finals_due = if manner.bdat {
            manner.chunks.max(1) - 1 + last
        } else {
            last
        };
    }

    fn content_answered(&mut self, manner: &Manner, good: bool) -> Step {
        self.refused |= !good;
        self.finals_due = self.finals_due.saturating_sub(1);
        // The replies to chunks come first.
        self.partly_taken |= good && manner.lmtp && self.finals_due < self.recipients_accepted;
        let answered = manner.chunks.max(1).saturating_sub(self.finals_due);
        let next = manner.bdat && self.lockstep && !manner.lmtp && self.finals_due > 0;
        if next && good {
            return Step::Send(Chunk::Piece(answered));
        }
        if self.finals_due > 0 && !next {
            return Step::More;
        }
        // After a BDAT that was refused, whether the transaction is still open differs between servers.
        if self.refused && manner.bdat {
            self.reset()
        } else {
            self.finish()
        }
    }

    fn recipient_answered(&mut self, manner: &Manner, number: u32, good: bool) -> Step {
        self.recipients_accepted += u32::from(good);
        self.refused |= !good;
        let next = number + 1;
        if next < manner.recipients {
            self.stage = Stage::Rcpt(next);
            return self.in_lockstep(Chunk::Rcpt(next));
        }
        if self.lockstep && self.recipients_accepted == 0 {
            return self.reset();
        }
        if manner.bdat {
            self.expect_finals(manner);
            // Chunks one by one, unless there are replies to tell them from (RFC 2033).
            let one = manner.chunks > 1 && !manner.lmtp;
            return self.in_lockstep(if one { Chunk::Piece(0) } else { Chunk::Content });
        }
        self.stage = Stage::Data;
        self.in_lockstep(Chunk::Data)
    }

    fn in_lockstep(&self, chunk: Chunk) -> Step {
        if self.lockstep { Step::Send(chunk) } else { Step::More }
    }

    fn reset(&mut self) -> Step {
        self.refused = true;
        self.stage = Stage::Reset;
        Step::Send(Chunk::Reset)
    }

    fn finish(&mut self) -> Step {
        let outcome = if self.refused {
            Outcome::Refused
        } else {
            Outcome::Accepted
        };
        self.partly_taken = false;
        match std::mem::take(&mut self.behind) {
            Behind::Nothing => self.stage = Stage::Between,
            Behind::Message => self.expect_envelope(),
            Behind::Quit => self.stage = Stage::Quit,
        }
        Step::Finished(outcome)
    }

    fn expect_envelope(&mut self) {
        self.refused = false;
        self.recipients_accepted = 0;
        self.stage = Stage::Mail;
    }
}

#[cfg(test)]
mod tests;
