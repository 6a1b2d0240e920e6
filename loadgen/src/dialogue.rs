//! One SMTP connection from the client's side, without sockets and without a clock.
//!
//! Promises: replies are understood however the stream is cut (split inside a line, several in one segment); a reply
//! line and a reply have a bounded length; what to send next follows from the replies alone. Runs on the one thread of
//! the load source, one value a connection.

use memchr::{memchr, memmem};

/// Longest reply line taken, in octets. RFC 5321 section 4.5.3.1.5 says 512; twice that is somebody's bug, not ours.
const LINE_MAX: usize = 1024;
/// Most lines that one reply may have; EHLO replies have some twenty.
const LINES_MAX: usize = 128;
/// Most octets of the EHLO reply that are kept to look for extensions.
const EHLO_MAX: usize = 4096;

/// How the client behaves; the same for every connection of a run.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// MAIL, RCPT and DATA leave in one write (RFC 2920), when the server offers it.
    pub pipelining: bool,
    /// BDAT in place of DATA (RFC 3030).
    pub bdat: bool,
    /// Recipients of a message.
    pub recipients: u32,
}

/// Something to write to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// `EHLO name`.
    Ehlo,
    /// MAIL, every RCPT and DATA (or BDAT with the content) in one.
    Envelope,
    /// MAIL alone.
    Mail,
    /// The RCPT of this number alone, from 0.
    Rcpt(u32),
    /// DATA alone.
    Data,
    /// The content and its end (or BDAT with the content).
    Content,
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
    /// BDAT was asked for and the server does not offer CHUNKING.
    NoChunking,
}

/// What follows from the octets received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the server says more; all input is used.
    More,
    /// Write this.
    Send(Chunk),
    /// EHLO is accepted: call `begin` or `quit`.
    Ready,
    /// The message is over: call `begin` or `quit`.
    Finished(Outcome),
    /// Close the connection.
    Over(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Ehlo,
    Between,
    Mail,
    Rcpt(u32),
    Data,
    Content,
    Reset,
    Quit,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Dialogue {
    stage: Stage,
    reader: ReplyReader,
    ehlo: Vec<u8>,
    lockstep: bool,
    refused: bool,
    recipients_accepted: u32,
}

impl Dialogue {
    /// A connection that waits for its greeting.
    pub fn new() -> Self {
        Self {
            stage: Stage::Greeting,
            reader: ReplyReader::default(),
            ehlo: Vec::new(),
            lockstep: true,
            refused: false,
            recipients_accepted: 0,
        }
    }

    /// Back to the start for the next connection, keeping what was allocated.
    pub fn restart(&mut self) {
        let ehlo = std::mem::take(&mut self.ehlo);
        *self = Self { ehlo, ..Self::new() };
        self.ehlo.clear();
    }

    /// Whether a message was begun and is not finished.
    pub fn in_message(&self) -> bool {
        !matches!(self.stage, Stage::Greeting | Stage::Ehlo | Stage::Between | Stage::Quit)
    }

    /// Whether the greeting has not come yet.
    pub fn awaits_greeting(&self) -> bool {
        self.stage == Stage::Greeting
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
        self.refused = false;
        self.recipients_accepted = 0;
        self.stage = Stage::Mail;
        if self.lockstep { Chunk::Mail } else { Chunk::Envelope }
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
            if self.stage == Stage::Ehlo && self.ehlo.len() + taken <= EHLO_MAX {
                self.ehlo.extend_from_slice(rest.get(..taken).unwrap_or_default());
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
                self.stage = Stage::Content;
                Step::Send(if self.recipients_accepted == 0 {
                    Chunk::LoneDot
                } else {
                    Chunk::Content
                })
            }
            Stage::Content if good => self.finish(),
            Stage::Content if !manner.bdat => {
                self.refused = true;
                self.finish()
            }
            // DATA refused, or BDAT refused: whether the transaction is still open differs between servers.
            Stage::Data | Stage::Content => self.reset(),
            Stage::Reset => self.finish(),
            Stage::Quit => Step::Over(Ending::Quit),
            // A reply to nothing: the server and we no longer speak of the same command.
            Stage::Between => Step::Over(Ending::Malformed),
        }
    }

    fn greeted(&mut self, manner: &Manner) -> Step {
        self.stage = Stage::Between;
        self.ehlo.make_ascii_uppercase();
        let offers = |keyword: &str| {
            memmem::find_iter(&self.ehlo, keyword).any(|at| {
                let before = at.checked_sub(4).and_then(|start| self.ehlo.get(start..at));
                let after = self.ehlo.get(at + keyword.len());
                matches!(before, Some([b'2', b'5', b'0', b'-' | b' '])) && matches!(after, Some(b'\r' | b'\n' | b' '))
            })
        };
        self.lockstep = !(manner.pipelining && offers("PIPELINING"));
        if manner.bdat && !offers("CHUNKING") {
            return Step::Over(Ending::NoChunking);
        }
        Step::Ready
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
            self.stage = Stage::Content;
            return self.in_lockstep(Chunk::Content);
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
        self.stage = Stage::Between;
        Step::Finished(if self.refused {
            Outcome::Refused
        } else {
            Outcome::Accepted
        })
    }
}

/// The input is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// Finds the ends of replies in a stream; between calls it keeps the code and the column, never the text.
#[derive(Debug, Default)]
struct ReplyReader {
    digits: [u8; 3],
    column: usize,
    lines: usize,
    goes_on: bool,
    code: u16,
}

impl ReplyReader {
    /// The code of the first reply that ends in `input` and the octets up to its end; nothing when none ends here.
    fn read(&mut self, input: &[u8]) -> Result<Option<(u16, usize)>, Malformed> {
        let mut at = 0;
        while let Some(&octet) = input.get(at) {
            if self.column > 3 {
                let rest = input.get(at..).unwrap_or_default();
                let end = memchr(b'\n', rest);
                self.column += end.unwrap_or(rest.len());
                if self.column > LINE_MAX {
                    return Err(Malformed);
                }
                let Some(end) = end else { return Ok(None) };
                at += end + 1;
                if let Some(code) = self.line_over()? {
                    return Ok(Some((code, at)));
                }
                continue;
            }
            match (self.column, octet) {
                (column, b'0'..=b'9') if column < 3 => {
                    if let Some(digit) = self.digits.get_mut(column) {
                        *digit = octet - b'0';
                    }
                }
                (3, b'-') => self.goes_on = true,
                // RFC 5321 section 4.2: the text, and with it the space, may be missing.
                (3, b' ' | b'\r') => self.goes_on = false,
                _ => return Err(Malformed),
            }
            self.column += 1;
            at += 1;
        }
        Ok(None)
    }

    /// Takes account of a line's end; the code when it was the last line of its reply.
    fn line_over(&mut self) -> Result<Option<u16>, Malformed> {
        let code = self
            .digits
            .iter()
            .fold(0_u16, |code, digit| code * 10 + u16::from(*digit));
        let agrees = self.lines == 0 || code == self.code;
        self.lines += 1;
        if !agrees || !(200..600).contains(&code) || self.lines > LINES_MAX {
            return Err(Malformed);
        }
        self.code = code;
        self.column = 0;
        if self.goes_on {
            return Ok(None);
        }
        self.lines = 0;
        Ok(Some(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINED: Manner = Manner {
        pipelining: true,
        bdat: false,
        recipients: 2,
    };
    const LOCKSTEP: Manner = Manner {
        pipelining: false,
        bdat: false,
        recipients: 2,
    };
    const GREETED: &[u8] = b"220 here\r\n250-here\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 100\r\n";

    /// Plays `script` cut into pieces of `cut` octets, beginning a message whenever one may begin; gives the steps.
    fn play(manner: Manner, script: &[u8], cut: usize) -> (Vec<Step>, Vec<u16>) {
        let mut dialogue = Dialogue::new();
        let (mut steps, mut codes) = (Vec::new(), Vec::new());
        for piece in script.chunks(cut) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (used, step) = dialogue.receive(&manner, rest, |code| codes.push(code));
                rest = &rest[used..];
                if step != Step::More {
                    steps.push(step);
                }
                if matches!(step, Step::Ready | Step::Finished(_)) {
                    steps.push(Step::Send(dialogue.begin()));
                }
            }
        }
        (steps, codes)
    }

    fn same_however_cut(manner: Manner, replies: &[u8], expected: &[Step]) {
        let script = [GREETED, replies].concat();
        for cut in 1..=script.len() {
            assert_eq!(play(manner, &script, cut).0, expected, "cut into {cut}");
        }
    }

    #[test]
    fn a_pipelined_message_takes_two_writes() {
        same_however_cut(
            PIPELINED,
            b"250 ok\r\n250 ok\r\n250-a\r\n250 ok\r\n354 go\r\n250 taken\r\n",
            &[
                Step::Send(Chunk::Ehlo),
                Step::Ready,
                Step::Send(Chunk::Envelope),
                Step::Send(Chunk::Content),
                Step::Finished(Outcome::Accepted),
                Step::Send(Chunk::Envelope),
            ],
        );
    }

    #[test]
    fn without_pipelining_each_command_waits_for_its_reply() {
        same_however_cut(
            LOCKSTEP,
            b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250\r\n",
            &[
                Step::Send(Chunk::Ehlo),
                Step::Ready,
                Step::Send(Chunk::Mail),
                Step::Send(Chunk::Rcpt(0)),
                Step::Send(Chunk::Rcpt(1)),
                Step::Send(Chunk::Data),
                Step::Send(Chunk::Content),
                Step::Finished(Outcome::Accepted),
                Step::Send(Chunk::Mail),
            ],
        );
    }

    #[test]
    fn pipelining_that_is_not_offered_is_not_used() {
        let script = b"220 here\r\n250 here PIPELINING\r\n";
        let (steps, _) = play(PIPELINED, script, script.len());
        assert_eq!(steps.last(), Some(&Step::Send(Chunk::Mail)));
    }

    #[test]
    fn bdat_without_chunking_ends_the_connection() {
        let script = b"220 here\r\n250 here\r\n";
        let (steps, _) = play(
            Manner {
                bdat: true,
                ..PIPELINED
            },
            script,
            5,
        );
        assert_eq!(steps.last(), Some(&Step::Over(Ending::NoChunking)));
    }

    #[test]
    fn a_pipelined_bdat_message_takes_one_write() {
        let start = [Step::Send(Chunk::Ehlo), Step::Ready, Step::Send(Chunk::Envelope)];
        let end = [Step::Finished(Outcome::Accepted), Step::Send(Chunk::Envelope)];
        let expected = [&start[..], &end[..]].concat();
        let manner = Manner {
            bdat: true,
            ..PIPELINED
        };
        same_however_cut(manner, b"250 ok\r\n250 ok\r\n250 ok\r\n250 taken\r\n", &expected);
    }

    #[test]
    fn when_no_recipient_is_accepted_only_the_dot_is_sent() {
        let (steps, codes) = play(
            PIPELINED,
            &[GREETED, b"250 ok\r\n550 no\r\n550 no\r\n354 go\r\n554 none\r\n"].concat(),
            7,
        );
        assert!(steps.contains(&Step::Send(Chunk::LoneDot)));
        assert!(steps.contains(&Step::Finished(Outcome::Refused)));
        assert_eq!(codes, [220, 250, 250, 550, 550, 354, 554]);
    }

    #[test]
    fn one_refused_recipient_makes_the_message_refused() {
        let replies = b"250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n250 taken\r\n";
        let (steps, _) = play(PIPELINED, &[GREETED, replies].concat(), 1000);
        assert!(steps.contains(&Step::Send(Chunk::Content)));
        assert!(steps.contains(&Step::Finished(Outcome::Refused)));
    }

    #[test]
    fn refused_data_is_followed_by_rset() {
        let replies = b"250 ok\r\n550 no\r\n550 no\r\n503 none\r\n250 reset\r\n";
        let (steps, _) = play(PIPELINED, &[GREETED, replies].concat(), 3);
        assert!(steps.ends_with(&[
            Step::Send(Chunk::Reset),
            Step::Finished(Outcome::Refused),
            Step::Send(Chunk::Envelope)
        ]));
    }

    #[test]
    fn a_refused_greeting_turns_the_client_away() {
        for script in [&b"421 later\r\n"[..], b"554 never\r\n"] {
            assert_eq!(play(PIPELINED, script, 2).0, [Step::Over(Ending::TurnedAway)]);
        }
    }

    #[test]
    fn a_421_in_the_middle_ends_the_connection() {
        let (steps, _) = play(PIPELINED, &[GREETED, b"250 ok\r\n421 bye\r\n"].concat(), 1000);
        assert_eq!(steps.last(), Some(&Step::Over(Ending::Shutdown)));
    }

    #[test]
    fn what_is_no_reply_is_found_to_be_malformed() {
        let long = [b"220 ".as_slice(), &[b'x'; 2000]].concat();
        let many = b"220-x\r\n".repeat(LINES_MAX + 1);
        for script in [
            &b"hello\r\n"[..],
            b"220x\r\n",
            b"22\r\n",
            b"220-a\r\n221 b\r\n",
            b"999 a\r\n",
            &long,
            &many,
        ] {
            for cut in [1, script.len()] {
                let (steps, _) = play(PIPELINED, script, cut);
                assert_eq!(steps.first(), Some(&Step::Over(Ending::Malformed)), "{script:?}");
            }
        }
    }

    #[test]
    fn a_restarted_dialogue_forgets_what_the_last_server_offered() {
        let mut dialogue = Dialogue::new();
        dialogue.receive(&PIPELINED, b"220 x\r\n", |_| {});
        dialogue.receive(&PIPELINED, b"250-x\r\n250 PIPELINING\r\n", |_| {});
        assert!(!dialogue.pipelining_denied(&PIPELINED));
        dialogue.restart();
        dialogue.receive(&PIPELINED, b"220 x\r\n", |_| {});
        dialogue.receive(&PIPELINED, b"250 x\r\n", |_| {});
        assert!(dialogue.pipelining_denied(&PIPELINED));
    }
}
