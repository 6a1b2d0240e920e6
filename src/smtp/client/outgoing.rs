//! A message for a hop: whether the hop can take it, and the commands that say who it is from and for.
//!
//! Promises: a command is one line whatever the envelope holds, since an envelope holds only what the parser has checked;
//! nothing is said that the hop does not offer. Lives with its connection.

use std::fmt::Write;

use super::content::Wire;
use super::offers::Offers;
use super::outcome::{EnhancedStatusCode, HopReply, Origin};
use crate::smtp::Form;
use crate::smtp::envelope::{Body, Envelope, Notify, Recipient, Ret};
use crate::smtp::extension::Extension;

/// One message to some of its recipients.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Who to whom, and how it is to be treated.
    pub envelope: &'a Envelope,
    /// Which recipients this transaction is for, by their place in the envelope.
    pub recipients: &'a [usize],
    /// How the content is kept.
    pub form: Form,
    /// Octets of `head` and content as RFC 1870 counts them: without doubled dots, without the end mark. Exact where the
    /// form is [`Form::Plain`], since a chunk is announced by it.
    pub size: u64,
    /// What this host puts in front of the content: whole lines in CRLF.
    pub head: &'a [u8],
    /// The content has octets above 127.
    pub eight_bit: bool,
    /// The content has a CR without LF or an LF without CR.
    pub bare_newline: bool,
}

/// Why a hop cannot take a message, whoever it is for. Another hop may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Misfit {
    /// Octets above 127, and no 8BITMIME. RFC 6152 section 3: such content must not be sent, under any circumstances, to a
    /// server that does not offer it; nor to one that knows no EHLO, which is the same case. To encode it anew would
    /// change what the sender has signed.
    EightBit,
    /// BODY=BINARYMIME, and no BINARYMIME or no CHUNKING (RFC 3030 section 3).
    BinaryMime,
    /// A bare CR or LF came by BDAT, and the hop takes DATA only, in which readers differ about its meaning.
    BareNewline,
    /// UTF-8 in addresses or header, and no SMTPUTF8 (RFC 6531 section 3.2).
    SmtpUtf8,
    /// More octets than the hop takes (RFC 1870 section 6.1).
    Size,
}

impl Misfit {
    /// What to tell whoever sent it.
    pub fn reply(self) -> HopReply {
        let (code, subject, detail, text) = match self {
            Misfit::EightBit => (554, 6, 1, "The next hop does not take 8-bit content"),
            Misfit::BinaryMime => (554, 6, 1, "The next hop does not take binary content"),
            Misfit::BareNewline => (554, 6, 1, "The next hop does not take content with bare CR or LF"),
            Misfit::SmtpUtf8 => (553, 6, 7, "The next hop does not take internationalized mail"),
            Misfit::Size => (552, 3, 4, "The message is larger than the next hop takes"),
        };
        HopReply::ours(Origin::Ours, code, EnhancedStatusCode::new(5, subject, detail), text)
    }
}

/// How a message goes to a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    pub wire: Wire,
    body: Body,
    smtputf8: bool,
}

impl Outgoing<'_> {
    /// The recipients that are meant; a place beyond the envelope names nobody.
    fn chosen(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients
            .iter()
            .filter_map(|&at| self.envelope.recipients.get(at))
    }

    /// How it goes to a hop with these offers, if it can.
    pub(super) fn manner(&self, offers: &Offers) -> Result<Manner, Misfit> {
        let mail = &self.envelope.mail;
        let eight_bit = self.eight_bit || !self.head.is_ascii();
        let utf8_address = !self.envelope.reverse_path.as_str().is_ascii()
            || self
                .chosen()
                .any(|recipient| !recipient.forward_path.as_str().is_ascii());
        // What has not an octet above 127 is no internationalized mail, though its sender was ready for it.
        let needs_utf8 = mail.smtputf8 && (eight_bit || utf8_address);
        if needs_utf8 && !offers.has(Extension::SmtpUtf8) {
            return Err(Misfit::SmtpUtf8);
        }
        if mail.body == Body::BinaryMime && !offers.has(Extension::BinaryMime) {
            return Err(Misfit::BinaryMime);
        }
        if eight_bit && !offers.has(Extension::EightBitMime) && mail.body != Body::BinaryMime {
            return Err(Misfit::EightBit);
        }
        if offers.size_limit.is_some_and(|limit| self.size > limit) {
            return Err(Misfit::Size);
        }
        let wire = match (self.form, self.bare_newline) {
            (Form::Plain, _) if offers.has(Extension::Chunking) => Wire::Chunk,
            (Form::Plain, false) => Wire::Stuffed,
            (Form::Plain, true) => return Err(Misfit::BareNewline),
            (Form::Dotted, false) => Wire::Dotted,
            (Form::Dotted, true) => Wire::Mended,
        };
        let body = match mail.body {
            Body::BinaryMime if wire == Wire::Chunk => Body::BinaryMime,
            // It came in lines, or it could not be marked so.
            Body::BinaryMime => return Err(Misfit::BinaryMime),
            body if !eight_bit && body == Body::SevenBit => Body::SevenBit,
            _ if offers.has(Extension::EightBitMime) => Body::EightBitMime,
            _ => Body::SevenBit,
        };
        Ok(Manner {
            wire,
            body,
            smtputf8: mail.smtputf8 && offers.has(Extension::SmtpUtf8),
        })
    }

    /// MAIL and the RCPTs, a line each.
    pub(super) fn commands(&self, manner: Manner, offers: &Offers, output: &mut Vec<u8>) {
        self.mail(manner, offers, output);
        let dsn = offers.has(Extension::Dsn);
        for recipient in self.chosen() {
            rcpt(recipient, dsn, manner.smtputf8, output);
        }
    }

    fn mail(&self, manner: Manner, offers: &Offers, output: &mut Vec<u8>) {
        let mail = &self.envelope.mail;
        put(output, &["MAIL FROM:<", self.envelope.reverse_path.as_str(), ">"]);
        if offers.has(Extension::Size) {
            put(output, &[" SIZE=", itoa::Buffer::new().format(self.size)]);
        }
        match manner.body {
            Body::SevenBit => {}
            Body::EightBitMime => put(output, &[" BODY=8BITMIME"]),
            Body::BinaryMime => put(output, &[" BODY=BINARYMIME"]),
        }
        if manner.smtputf8 {
            put(output, &[" SMTPUTF8"]);
        }
        // AUTH= of the message is not passed on: RFC 4954 section 5 asks that the hop trusts us, which nothing says.
        if offers.has(Extension::Dsn) {
            match mail.ret {
                None => {}
                Some(Ret::Full) => put(output, &[" RET=FULL"]),
                Some(Ret::Headers) => put(output, &[" RET=HDRS"]),
            }
            if let Some(envid) = &mail.envid {
                put(output, &[" ENVID=", envid]);
            }
        }
        put(output, &["\r\n"]);
    }

    /// How many recipients are meant.
    pub(super) fn count(&self) -> usize {
        self.chosen().count()
    }
}

/// RFC 3461 section 5.2.1: what the sender said of reports goes on to a hop that knows them; nothing is added.
fn rcpt(recipient: &Recipient, dsn: bool, smtputf8: bool, output: &mut Vec<u8>) {
    put(output, &["RCPT TO:<", recipient.forward_path.as_str(), ">"]);
    if dsn {
        match recipient.parameters.notify {
            None => {}
            Some(Notify::Never) => put(output, &[" NOTIFY=NEVER"]),
            Some(Notify::On {
                success,
                failure,
                delay,
            }) => {
                let mut between = " NOTIFY=";
                for (wanted, kind) in [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")] {
                    if wanted {
                        put(output, &[between, kind]);
                        between = ",";
                    }
                }
            }
        }
        if let Some(orcpt) = &recipient.parameters.orcpt {
            put(output, &[" ORCPT="]);
            if smtputf8 || orcpt.is_ascii() {
                put(output, &[orcpt]);
            } else {
                put(output, &[&embedded(orcpt)]);
            }
        }
    }
    put(output, &["\r\n"]);
}

/// An original recipient for a hop without SMTPUTF8 (RFC 6533 section 3): characters beyond ASCII as `\x{HEX}`.
fn embedded(orcpt: &str) -> String {
    orcpt.chars().fold(String::new(), |mut text, character| {
        if character.is_ascii() {
            text.push(character);
        } else {
            let _ = write!(text, "\\x{{{:X}}}", u32::from(character));
        }
        text
    })
}

fn put(output: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        output.extend_from_slice(part.as_bytes());
    }
}
