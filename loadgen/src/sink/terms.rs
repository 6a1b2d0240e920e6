//! What the sink offers and how it answers: the same for all sessions at one address.
//!
//! Promises: replies that never change are made once. Pure data, but for `Desk`, which sessions answer with.

use super::fault::{Act, Stage, Verdict};
use super::session::{Desk, Step};

/// SMTP or LMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Smtp,
    Lmtp,
}

/// An extension that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Offer {
    /// RFC 2920
    Pipelining,
    /// RFC 6152
    #[value(name = "8BITMIME")]
    EightBitMime,
    /// RFC 1870
    Size,
    /// RFC 3030
    Chunking,
    /// RFC 3030
    BinaryMime,
    /// RFC 3461
    Dsn,
    /// RFC 6531
    SmtpUtf8,
    /// RFC 2034
    EnhancedStatusCodes,
    /// RFC 3207; offered with --starttls
    StartTls,
}

const KEYWORDS: [(Offer, &str); 8] = [
    (Offer::Pipelining, "PIPELINING"),
    (Offer::EightBitMime, "8BITMIME"),
    (Offer::Size, "SIZE"),
    (Offer::Chunking, "CHUNKING"),
    (Offer::BinaryMime, "BINARYMIME"),
    (Offer::Dsn, "DSN"),
    (Offer::SmtpUtf8, "SMTPUTF8"),
    (Offer::EnhancedStatusCodes, "ENHANCEDSTATUSCODES"),
];

/// The terms of one address.
#[derive(Clone, Debug)]
pub struct Terms {
    pub dialect: Dialect,
    /// Octets of a message; also announced with SIZE.
    pub size_limit: u64,
    pub greeting: Vec<u8>,
    pub helo: Vec<u8>,
    /// In the clear: with STARTTLS, if offered.
    pub ehlo: Vec<u8>,
    /// Within TLS.
    pub ehlo_secured: Vec<u8>,
    withheld: Vec<Offer>,
    /// ENHANCEDSTATUSCODES is not offered: the replies do without (RFC 2034 section 3).
    plain_codes: bool,
}

impl Terms {
    /// `withheld` is not offered.
    pub fn new(dialect: Dialect, hostname: &str, size_limit: u64, withheld: &[Offer]) -> Self {
        let is_offered = |offer: Offer| !withheld.contains(&offer);
        let ehlo =
            |starttls: bool| {
                let mut lines = vec![hostname.to_owned()];
                lines.extend(KEYWORDS.iter().filter(|(offer, _)| is_offered(*offer)).map(
                    |(offer, word)| match offer {
                        Offer::Size => format!("{word} {size_limit}"),
                        _ => (*word).to_owned(),
                    },
                ));
                if starttls {
                    lines.push("STARTTLS".into());
                }
                let last = lines.len() - 1;
                let with_code = lines.iter().enumerate().map(|(at, line)| {
                    let mark = if at == last { ' ' } else { '-' };
                    format!("250{mark}{line}\r\n")
                });
                with_code.collect::<String>().into_bytes()
            };
        let protocol = match dialect {
            Dialect::Smtp => "ESMTP",
            Dialect::Lmtp => "LMTP",
        };
        Self {
            dialect,
            size_limit,
            greeting: format!("220 {hostname} {protocol} sink\r\n").into_bytes(),
            helo: format!("250 {hostname}\r\n").into_bytes(),
            ehlo: ehlo(is_offered(Offer::StartTls)),
            ehlo_secured: ehlo(false),
            withheld: withheld.to_vec(),
            plain_codes: !is_offered(Offer::EnhancedStatusCodes),
        }
    }

    /// Whether an extension is offered.
    pub fn offers(&self, offer: Offer) -> bool {
        !self.withheld.contains(&offer)
    }

    /// Whether STARTTLS is offered.
    pub fn offers_tls(&self) -> bool {
        self.offers(Offer::StartTls)
    }
}

impl Desk<'_> {
    /// Adds a reply to the output.
    pub fn say(&mut self, reply: &[u8]) -> Step {
        if self.terms.plain_codes {
            without_enhanced_code(reply, self.out);
        } else {
            self.out.extend_from_slice(reply);
        }
        Step::More
    }

    /// Draws the faults of a stage.
    pub fn draw(&mut self, stage: Stage) -> Verdict {
        let faults = self.plan.at(stage);
        if faults.is_empty() {
            return Verdict::PROPER;
        }
        faults.draw(self.dice)
    }

    /// Notes something that a client should not do.
    pub fn violation(&mut self, what: &str) {
        self.tally.violations.note(|| what.to_owned());
    }

    /// A command out of order.
    pub fn out_of_order(&mut self, what: &str) -> Step {
        self.violation(what);
        self.say(b"503 5.5.1 bad sequence of commands\r\n")
    }

    /// A command without a path.
    pub fn bad_syntax(&mut self, rest: &[u8]) -> Step {
        self.violation(&format!("no path in {}", rest.escape_ascii()));
        self.say(b"501 5.5.2 no path\r\n")
    }

    /// Checks the parameters of MAIL or RCPT; the reply when one belongs to an extension that is not offered.
    pub fn parameters(&mut self, parameters: &[u8], of_mail: bool) -> Result<(), &'static [u8]> {
        for parameter in parameters.split(|octet| *octet == b' ').filter(|p| !p.is_empty()) {
            let name = parameter.split(|octet| *octet == b'=').next().unwrap_or_default();
            let value = parameter.get(name.len() + 1..).unwrap_or_default();
            let needed = match (name.to_ascii_uppercase().as_slice(), of_mail) {
                (b"SIZE", true) => {
                    let size = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse::<u64>().ok());
                    if size.is_some_and(|size| size > self.terms.size_limit) {
                        self.tally.too_big += 1;
                        return Err(b"552 5.3.4 too big\r\n");
                    }
                    Some(Offer::Size)
                }
                (b"BODY", true) if value.eq_ignore_ascii_case(b"BINARYMIME") => Some(Offer::BinaryMime),
                (b"BODY", true) => Some(Offer::EightBitMime),
                (b"RET" | b"ENVID", true) | (b"NOTIFY" | b"ORCPT", false) => Some(Offer::Dsn),
                (b"SMTPUTF8", true) => Some(Offer::SmtpUtf8),
                _ => None,
            };
            if !needed.is_some_and(|offer| self.terms.offers(offer)) {
                self.violation(&format!("parameter {}, which is not offered", parameter.escape_ascii()));
                return Err(b"555 5.5.4 parameter not recognised\r\n");
            }
        }
        Ok(())
    }

    /// Writes the reply of a verdict to `reply`, counts it, and says what is to be done after it. `proper` is empty where
    /// no reply is due.
    pub fn reply(&mut self, stage: Stage, verdict: Verdict, proper: &[u8], reply: &mut Vec<u8>) -> Step {
        self.tally.drew(stage, verdict);
        match verdict.act {
            Act::Take | Act::Forget | Act::Twice | Act::Alter => reply.extend_from_slice(proper),
            Act::Defer(code) => return refusal(stage, code, 4, reply),
            Act::Refuse(code) => return refusal(stage, code, 5, reply),
            Act::Drop => return Step::Close,
            Act::Reset => return Step::Reset,
            Act::Stall => return Step::Stall,
            Act::Cut => {
                reply.extend_from_slice(proper.get(..proper.len() / 2).unwrap_or_default());
                return Step::Close;
            }
            Act::Garbage => reply.extend_from_slice(b"\x00\xff this is no reply \x16\x03\r\n"),
            Act::Lines(lines) => with_lines(proper, lines, reply),
            Act::DropAfter => {
                reply.extend_from_slice(proper);
                return Step::Close;
            }
            Act::ResetAfter => {
                reply.extend_from_slice(proper);
                return Step::Reset;
            }
        }
        Step::More
    }
}

fn refusal(stage: Stage, code: u16, class: u16, reply: &mut Vec<u8>) -> Step {
    let usual = match (stage, class) {
        (Stage::Connect | Stage::Ehlo, 4) => 421,
        (Stage::Rcpt, 4) => 450,
        (_, 4) => 451,
        (Stage::Mail | Stage::Rcpt, _) => 550,
        _ => 554,
    };
    let code = if code == 0 { usual } else { code };
    reply.extend_from_slice(format!("{code} {class}.3.0 told to say so\r\n").as_bytes());
    // RFC 5321 section 3.8: 421 closes; and a client that was not greeted has nothing more to say.
    match code == 421 || stage == Stage::Connect {
        true => Step::Close,
        false => Step::More,
    }
}

/// Adds a reply of one line without its enhanced code, if it has one.
fn without_enhanced_code(reply: &[u8], out: &mut Vec<u8>) {
    let (code, text) = reply.split_at(reply.len().min(4));
    let end = memchr::memchr(b' ', text).map_or(0, |at| at + 1);
    let (word, rest) = text.split_at(end);
    let is_enhanced = matches!(word, [b'2' | b'4' | b'5', b'.', ..]);
    out.extend_from_slice(code);
    out.extend_from_slice(if is_enhanced { rest } else { text });
}

/// The reply with lines put in front of its last one, so that there are `lines` or more.
fn with_lines(proper: &[u8], lines: u16, reply: &mut Vec<u8>) {
    let body = proper.strip_suffix(b"\r\n").unwrap_or(proper);
    let last = memchr::memrchr(b'\n', body).map_or(0, |at| at + 1);
    let present = memchr::memchr_iter(b'\n', proper).count();
    let (before, last) = proper.split_at(last);
    reply.extend_from_slice(before);
    for number in present..usize::from(lines) {
        let code = std::str::from_utf8(last.get(..3).unwrap_or_default()).unwrap_or_default();
        reply.extend_from_slice(format!("{code}-2.0.0 line {number} of many\r\n").as_bytes());
    }
    reply.extend_from_slice(last);
}
