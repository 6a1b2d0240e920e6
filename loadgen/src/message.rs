//! The octets of a run: every command and every message, made once and shared by all connections.
//!
//! Promises: every message has an identity (`identity`) that is written over in place, and whose checksum is right; the same
//! serial number always has the same octets; nothing is allocated a message. Lives on the thread of the source.

pub mod corpus;
mod generated;
pub mod size;

use crate::dialogue::Chunk;
use crate::identity::{Body, FIELD, Identity};
use crate::sample::Dice;

use self::size::Sizes;

/// Digits of the serial number in a message's identity, and where they begin in its field.
const SERIAL_DIGITS: usize = 12;
const SERIAL_AT: usize = FIELD.len() + 11;
/// Likewise for the connection.
const CONNECTION_DIGITS: usize = 6;
const CONNECTION_AT: usize = SERIAL_AT + SERIAL_DIGITS + 4;
/// Most octets of all messages of a run together.
const CONTENTS_MAX: usize = 1 << 30;

/// What a message is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name given in EHLO.
    pub name: String,
    /// Address for MAIL.
    pub from: String,
    /// Addresses for RCPT, one for each recipient.
    pub to: Vec<String>,
    /// Where the content comes from.
    pub matter: Matter,
    /// BDAT in place of DATA, the content in so many chunks.
    pub bdat: Option<u32>,
    /// LHLO in place of EHLO.
    pub lmtp: bool,
    /// MAIL with SMTPUTF8.
    pub smtputf8: bool,
    /// The content is to lead groups of commands.
    pub group: bool,
    /// First part of every identity: names the run.
    pub run: u32,
}

/// Where the content comes from.
#[derive(Clone, Debug)]
pub enum Matter {
    /// Made up, of these sizes: octets of the content, header included, the closing dot not.
    Generated(Sizes),
    /// Messages that were read, with CRLF; an identity is put on top of each.
    Read(Vec<Vec<u8>>),
}

/// Octets that may carry an identity.
#[derive(Clone, Debug)]
struct Stamped {
    octets: Vec<u8>,
    /// Where the field with the identity begins; none in commands.
    field: Option<usize>,
}

/// One message, in every way that it is written.
#[derive(Clone, Debug)]
struct Variant {
    /// MAIL, RCPT and BDAT with the content; empty without BDAT.
    envelope: Stamped,
    content: Stamped,
    /// Where each chunk of BDAT ends in the content; empty without.
    pieces: Vec<usize>,
    /// Empty unless the recipe asks for groups.
    content_and_envelope: Stamped,
    content_and_quit: Stamped,
}

/// Everything that the source writes.
#[derive(Clone, Debug)]
pub struct Wire {
    ehlo: Stamped,
    start_tls: Stamped,
    envelope: Stamped,
    mail: Stamped,
    rcpt: Vec<Stamped>,
    data: Stamped,
    /// In the order in which messages take turns.
    variants: Vec<Variant>,
    lone_dot: Stamped,
    reset: Stamped,
    quit: Stamped,
}

impl Wire {
    /// Makes every chunk. Fails when a size has no room for the header, or all together are too much to keep.
    pub fn new(recipe: &Recipe) -> Result<Self, String> {
        let contents = contents(recipe)?;
        let eight_bit = contents.iter().any(|content| !content.octets.is_ascii());
        let body = if eight_bit { " BODY=8BITMIME" } else { "" };
        let utf8 = if recipe.smtputf8 { " SMTPUTF8" } else { "" };
        let mail = format!("MAIL FROM:<{}>{body}{utf8}\r\n", recipe.from);
        let rcpt: Vec<String> = recipe.to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
        let commands = mail.clone() + &rcpt.concat();
        let with_data = commands.clone() + "DATA\r\n";
        let variants = contents.into_iter().map(|content| match recipe.bdat {
            Some(chunks) => Variant::by_bdat(commands.as_bytes(), &content, chunks),
            None => Variant::by_data(with_data.as_bytes(), content, recipe.group),
        });
        Ok(Self {
            variants: variants.collect(),
            ehlo: command(&format!(
                "{} {}\r\n",
                if recipe.lmtp { "LHLO" } else { "EHLO" },
                recipe.name
            )),
            start_tls: command("STARTTLS\r\n"),
            envelope: command(&with_data),
            mail: command(&mail),
            rcpt: rcpt.iter().map(|rcpt| command(rcpt)).collect(),
            data: command("DATA\r\n"),
            lone_dot: command(".\r\n"),
            reset: command("RSET\r\n"),
            quit: command("QUIT\r\n"),
        })
    }

    /// The octets of a chunk, with the identity of message `serial` on `connection` where the chunk has one.
    pub fn octets(&mut self, chunk: Chunk, serial: u64, connection: usize) -> &[u8] {
        let variant = variant_of(&mut self.variants, serial);
        let stamped = match (chunk, variant) {
            (Chunk::Ehlo, _) => &mut self.ehlo,
            (Chunk::StartTls, _) => &mut self.start_tls,
            (Chunk::Piece(number), Some(variant)) => return variant.piece(number, serial, connection),
            (Chunk::Envelope, Some(variant)) if variant.envelope.field.is_some() => &mut variant.envelope,
            (Chunk::Envelope, _) => &mut self.envelope,
            (Chunk::Mail, _) => &mut self.mail,
            (Chunk::Rcpt(number), _) => {
                let rcpt = self.rcpt.get(number as usize);
                return rcpt.map(|rcpt| rcpt.octets.as_slice()).unwrap_or_default();
            }
            (Chunk::Data, _) => &mut self.data,
            (Chunk::Content, Some(variant)) => &mut variant.content,
            (Chunk::ContentAndEnvelope, Some(variant)) => &mut variant.content_and_envelope,
            (Chunk::ContentAndQuit, Some(variant)) => &mut variant.content_and_quit,
            (Chunk::Reset, _) => &mut self.reset,
            (Chunk::Quit, _) => &mut self.quit,
            (Chunk::LoneDot | Chunk::Spoken, _) | (_, None) => &mut self.lone_dot,
        };
        stamped.stamp(serial, connection);
        &stamped.octets
    }

    /// Where in this chunk of message `serial` the content ends, if it has one: the final reply is due when that much is
    /// written.
    pub fn content_end(&self, chunk: Chunk, serial: u64) -> Option<usize> {
        let turn = usize::try_from(serial % self.variants.len().max(1) as u64).unwrap_or_default();
        let variant = self.variants.get(turn)?;
        match chunk {
            Chunk::Content | Chunk::ContentAndEnvelope | Chunk::ContentAndQuit => Some(variant.content.octets.len()),
            // Of the last one; those before it have no final reply.
            Chunk::Piece(number) => variant.piece_range(number).map(|range| range.len()),
            Chunk::Envelope if variant.envelope.field.is_some() => Some(variant.envelope.octets.len()),
            _ => None,
        }
    }
}

impl Variant {
    fn by_bdat(commands: &[u8], content: &Stamped, chunks: u32) -> Self {
        let mut pieces = Vec::new();
        let mut whole = Stamped {
            octets: Vec::with_capacity(content.octets.len() + 32 * chunks as usize),
            field: None,
        };
        let chunks = (chunks as usize).clamp(1, content.octets.len().max(1));
        for number in 0..chunks {
            // No cut goes through the identity, which is written over in place.
            let share = |number: usize| {
                let cut = content.octets.len() * number / chunks;
                let within = |field: &usize| (*field + 1..*field + Identity::LENGTH).contains(&cut);
                content
                    .field
                    .filter(within)
                    .map_or(cut, |field| field + Identity::LENGTH)
            };
            let (from, to) = (share(number), share(number + 1));
            let last = if number + 1 == chunks { " LAST" } else { "" };
            whole
                .octets
                .extend_from_slice(format!("BDAT {}{last}\r\n", to - from).as_bytes());
            if let Some(field) = content.field.filter(|field| (from..to).contains(field)) {
                whole.field = Some(whole.octets.len() + field - from);
            }
            whole
                .octets
                .extend_from_slice(content.octets.get(from..to).unwrap_or_default());
            pieces.push(whole.octets.len());
        }
        let content = whole;
        Self {
            pieces,
            envelope: prefixed(commands, &content),
            content,
            content_and_envelope: command(""),
            content_and_quit: command(""),
        }
    }

    fn by_data(commands: &[u8], content: Stamped, group: bool) -> Self {
        let mut content = Stamped {
            octets: dot_stuffed(&content.octets),
            field: content.field,
        };
        content.octets.extend_from_slice(b".\r\n");
        let followed = |behind: &[u8]| match group {
            true => Stamped {
                octets: [&content.octets, behind].concat(),
                field: content.field,
            },
            false => command(""),
        };
        Self {
            pieces: Vec::new(),
            envelope: command(""),
            content_and_envelope: followed(commands),
            content_and_quit: followed(b"QUIT\r\n"),
            content,
        }
    }
}

impl Variant {
    fn piece_range(&self, number: u32) -> Option<std::ops::Range<usize>> {
        let number = number as usize;
        let from = number
            .checked_sub(1)
            .map_or(Some(0), |before| self.pieces.get(before).copied())?;
        Some(from..*self.pieces.get(number)?)
    }

    fn piece(&mut self, number: u32, serial: u64, connection: usize) -> &[u8] {
        self.content.stamp(serial, connection);
        let range = self.piece_range(number);
        range
            .and_then(|range| self.content.octets.get(range))
            .unwrap_or_default()
    }
}

impl Stamped {
    /// Writes the identity of message `serial` on `connection` into its place, if there is one.
    fn stamp(&mut self, serial: u64, connection: usize) {
        if let Some(field) = self.field {
            let octets = &mut self.octets;
            write_number(octets, field + SERIAL_AT, SERIAL_DIGITS, serial);
            write_number(octets, field + CONNECTION_AT, CONNECTION_DIGITS, connection as u64);
        }
    }
}

fn variant_of(variants: &mut [Variant], serial: u64) -> Option<&mut Variant> {
    let turn = usize::try_from(serial % variants.len().max(1) as u64).unwrap_or_default();
    variants.get_mut(turn)
}

/// The recipients of a message: the addresses given, then the last one with a number put to its local part.
pub fn recipients(given: &[String], count: u32) -> Vec<String> {
    (0..count as usize)
        .map(|number| match (given.get(number), given.last()) {
            (Some(address), _) => address.clone(),
            (None, Some(last)) => match last.rsplit_once('@') {
                Some((local, domain)) => format!("{local}{}@{domain}", number + 1),
                None => format!("{last}{}", number + 1),
            },
            (None, None) => format!("someone{}@example.com", number + 1),
        })
        .collect()
}

/// The contents of the run, each with the field of its identity, in the order in which they take turns.
fn contents(recipe: &Recipe) -> Result<Vec<Stamped>, String> {
    let copies = if recipe.group {
        3
    } else {
        1 + usize::from(recipe.bdat.is_some())
    };
    let too_much = |octets: usize| {
        let limit = CONTENTS_MAX / copies;
        format!("the messages of this run have {octets} octets together: more than {limit}, which is what is kept")
    };
    let mut contents: Vec<Stamped> = match &recipe.matter {
        Matter::Generated(sizes) => {
            let sizes = sizes.drawn();
            let all = sizes.iter().sum::<usize>();
            if all > CONTENTS_MAX / copies {
                return Err(too_much(all));
            }
            let least = generated::least(recipe);
            // A size that was asked for has to be met; one that was drawn is as small as a message can be.
            let floor = if sizes.len() > 1 { least } else { 0 };
            let made = sizes.iter().enumerate();
            made.map(|(number, size)| generated::content(recipe, (*size).max(floor), number as u64))
                .collect::<Result<_, _>>()?
        }
        Matter::Read(messages) => {
            let all = messages.iter().map(Vec::len).sum::<usize>();
            if messages.is_empty() || all > CONTENTS_MAX / copies {
                return Err(if all == 0 {
                    "there is no message to send".into()
                } else {
                    too_much(all)
                });
            }
            messages.iter().map(|message| on_top(recipe.run, message)).collect()
        }
    };
    shuffle(&mut contents);
    Ok(contents)
}

/// A message that was read, with an identity on top.
fn on_top(run: u32, message: &[u8]) -> Stamped {
    let mut octets = field(run, Body::default()).into_bytes();
    octets.extend_from_slice(message);
    let mut examiner = crate::identity::Examiner::default();
    examiner.feed(&octets);
    let field = field(run, examiner.finish().body);
    if let Some(place) = octets.get_mut(..Identity::LENGTH) {
        place.copy_from_slice(field.as_bytes());
    }
    Stamped { octets, field: Some(0) }
}

fn field(run: u32, body: Body) -> String {
    let identity = Identity {
        run,
        serial: 0,
        connection: 0,
        body,
    };
    identity.field()
}

/// Small and large ones in no order, the same in every run (Fisher and Yates).
fn shuffle(contents: &mut [Stamped]) {
    let mut dice = Dice::new(1);
    for at in (1..contents.len()).rev() {
        let other = dice.number() % (at as u64 + 1);
        contents.swap(at, usize::try_from(other).unwrap_or_default());
    }
}

/// RFC 5321 section 4.5.2.
fn dot_stuffed(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(content.len() + 16);
    let mut from = 0;
    if content.starts_with(b".") {
        stuffed.push(b'.');
    }
    for at in memchr::memmem::find_iter(content, b"\r\n.") {
        stuffed.extend_from_slice(content.get(from..at + 3).unwrap_or_default());
        stuffed.push(b'.');
        from = at + 3;
    }
    stuffed.extend_from_slice(content.get(from..).unwrap_or_default());
    stuffed
}

fn write_number(octets: &mut [u8], at: usize, digits: usize, mut number: u64) {
    let Some(place) = octets.get_mut(at..at + digits) else {
        return;
    };
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn command(text: &str) -> Stamped {
    Stamped {
        octets: text.as_bytes().to_vec(),
        field: None,
    }
}

fn prefixed(prefix: &[u8], rest: &Stamped) -> Stamped {
    Stamped {
        octets: [prefix, &rest.octets].concat(),
        field: rest.field.map(|at| at + prefix.len()),
    }
}

#[cfg(test)]
mod tests;
