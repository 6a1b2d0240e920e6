//! What is known of a message when its content begins, as octets: the envelope with every parameter, and what the fields
//! that this hop adds say.
//!
//! Promises: what is written is read again as it was; whatever is read, an [`Envelope`] holds only what the grammar of paths
//! allows; nothing panics. Pure.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::QueueId;
use super::code::{Reader, number, octets, optional};
use crate::smtp::Form;
use crate::smtp::envelope::{Body, Envelope, MailParameters, Notify, RcptParameters, Recipient, Ret};
use crate::smtp::path::{ForwardPath, Mailbox, ReversePath};

/// A message as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Who to whom.
    pub envelope: Cow<'a, Envelope>,
    /// The fields that this hop puts before the content, each with its CRLF.
    pub fields: Cow<'a, [u8]>,
    /// How the content came.
    pub form: Form,
    /// When it came, in milliseconds since 1970.
    pub arrived: u64,
    /// The session that it came in.
    pub session: QueueId,
    /// Whom it came from; none for our own reports.
    pub client: Option<IpAddr>,
    /// What the client called itself.
    pub hello: Cow<'a, str>,
    /// As whom the client was authenticated.
    pub user: Option<Cow<'a, str>>,
}

/// What is known of the content when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// It has octets above 127.
    pub eight_bit: bool,
    /// It has a CR or LF that is no line end, and may never be sent by DATA.
    pub bare_newline: bool,
}

impl Head<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.fields.len());
        out.push(match self.form {
            Form::Dotted => 0,
            Form::Plain => 1,
        });
        out.extend_from_slice(&self.arrived.to_le_bytes());
        out.extend_from_slice(&self.session.number().to_le_bytes());
        match self.client {
            None => out.push(0),
            Some(IpAddr::V4(address)) => {
                out.push(4);
                out.extend_from_slice(&u32::from(address).to_le_bytes());
            }
            Some(IpAddr::V6(address)) => {
                out.push(6);
                out.extend_from_slice(&u128::from(address).to_le_bytes());
            }
        }
        octets(&mut out, self.hello.as_bytes());
        optional(&mut out, self.user.as_deref());
        octets(&mut out, &self.fields);
        envelope(&mut out, &self.envelope);
        out
    }

    /// None where the octets are no head.
    pub fn decode(octets: &[u8]) -> Option<Head<'static>> {
        let mut rest = Reader::new(octets);
        let form = match rest.octet()? {
            0 => Form::Dotted,
            1 => Form::Plain,
            _ => return None,
        };
        let arrived = rest.long()?;
        let session = QueueId::from_number(rest.long()?);
        let client = match rest.octet()? {
            0 => None,
            4 => Some(IpAddr::V4(Ipv4Addr::from(rest.word()?))),
            6 => {
                let low = u128::from(rest.long()?);
                Some(IpAddr::V6(Ipv6Addr::from(low | u128::from(rest.long()?) << 64)))
            }
            _ => return None,
        };
        let hello = rest.text()?.to_owned();
        let user = rest.optional()?.map(|user| Cow::Owned(user.to_owned()));
        let fields = rest.octets()?.to_vec();
        let envelope = read_envelope(&mut rest)?;
        rest.is_empty().then_some(Head {
            envelope: Cow::Owned(envelope),
            fields: Cow::Owned(fields),
            form,
            arrived,
            session,
            client,
            hello: Cow::Owned(hello),
            user,
        })
    }
}

fn envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    // No mailbox is empty, so an empty one is free to mean the null path, and among recipients postmaster.
    octets(out, envelope.reverse_path.as_str().as_bytes());
    let mail = &envelope.mail;
    let body = match mail.body {
        Body::SevenBit => 0,
        Body::EightBitMime => 1,
        Body::BinaryMime => 2,
    };
    let ret = match mail.ret {
        None => 0,
        Some(Ret::Full) => 1,
        Some(Ret::Headers) => 2,
    };
    out.push(body | ret << 2 | u8::from(mail.smtputf8) << 4 | u8::from(mail.size.is_some()) << 5);
    if let Some(size) = mail.size {
        number(out, size);
    }
    optional(out, mail.envid.as_deref());
    optional(out, mail.auth.as_deref());
    number(out, envelope.recipients.len() as u64);
    for recipient in &envelope.recipients {
        let mailbox = recipient.forward_path.mailbox().map_or("", Mailbox::as_str);
        octets(out, mailbox.as_bytes());
        out.push(match recipient.parameters.notify {
            None => 0,
            Some(Notify::Never) => 1,
            Some(Notify::On {
                success,
                failure,
                delay,
            }) => 2 | u8::from(success) << 2 | u8::from(failure) << 3 | u8::from(delay) << 4,
        });
        optional(out, recipient.parameters.orcpt.as_deref());
    }
}

fn read_envelope(rest: &mut Reader<'_>) -> Option<Envelope> {
    let reverse_path = match rest.text()? {
        "" => ReversePath::Null,
        mailbox => ReversePath::Mailbox(Mailbox::parse(mailbox)?),
    };
    let flags = rest.octet()?;
    let body = match flags & 3 {
        0 => Body::SevenBit,
        1 => Body::EightBitMime,
        2 => Body::BinaryMime,
        _ => return None,
    };
    let ret = match flags >> 2 & 3 {
        0 => None,
        1 => Some(Ret::Full),
        2 => Some(Ret::Headers),
        _ => return None,
    };
    let size = match flags >> 5 {
        0 => None,
        1 => Some(rest.number()?),
        _ => return None,
    };
    let mail = MailParameters {
        size,
        body,
        ret,
        envid: rest.optional()?.map(Box::from),
        smtputf8: flags & 16 != 0,
        auth: rest.optional()?.map(Box::from),
    };
    let count = rest.number()?;
    let mut recipients = Vec::new();
    for _ in 0..count {
        recipients.push(recipient(rest)?);
    }
    Some(Envelope {
        reverse_path,
        mail,
        recipients,
    })
}

fn recipient(rest: &mut Reader<'_>) -> Option<Recipient> {
    let forward_path = match rest.text()? {
        "" => ForwardPath::Postmaster,
        mailbox => ForwardPath::Mailbox(Mailbox::parse(mailbox)?),
    };
    let flags = rest.octet()?;
    let notify = match flags & 3 {
        0 => None,
        1 => Some(Notify::Never),
        2 => Some(Notify::On {
            success: flags & 4 != 0,
            failure: flags & 8 != 0,
            delay: flags & 16 != 0,
        }),
        _ => return None,
    };
    let orcpt = rest.optional()?.map(Box::from);
    Some(Recipient {
        forward_path,
        parameters: RcptParameters { notify, orcpt },
    })
}

#[cfg(test)]
mod tests;
