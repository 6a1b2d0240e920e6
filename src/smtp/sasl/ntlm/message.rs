//! NEGOTIATE and CHALLENGE of [MS-NLMP] section 2.2.1, octet by octet, and what all three messages are made of; both sides
//! write and read here.
//!
//! Promises: takes any octets and never panics; every offset is checked against the message, may not point into the fixed
//! part, and no two fields may share an octet. Lives in its exchange.

use std::ops::Range;

use super::compute::utf16;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

// [MS-NLMP] 2.2.2.5.
pub(super) const UNICODE: u32 = 0x0000_0001;
pub(super) const REQUEST_TARGET: u32 = 0x0000_0004;
pub(super) const NTLM: u32 = 0x0000_0200;
pub(super) const ANONYMOUS: u32 = 0x0000_0800;
pub(super) const ALWAYS_SIGN: u32 = 0x0000_8000;
pub(super) const TARGET_TYPE_SERVER: u32 = 0x0002_0000;
pub(super) const EXTENDED_SESSION_SECURITY: u32 = 0x0008_0000;
pub(super) const TARGET_INFO: u32 = 0x0080_0000;
pub(super) const VERSION: u32 = 0x0200_0000;
pub(super) const KEY_EXCHANGE: u32 = 0x4000_0000;

// [MS-NLMP] 2.2.2.1.
pub(super) const AV_END: u16 = 0;
const AV_COMPUTER: u16 = 1;
const AV_DOMAIN: u16 = 2;
const AV_DNS_COMPUTER: u16 = 3;
pub(super) const AV_FLAGS: u16 = 6;
pub(super) const AV_TIMESTAMP: u16 = 7;
pub(super) const AV_TARGET_NAME: u16 = 9;
pub(super) const AV_CHANNEL_BINDINGS: u16 = 10;
/// In the value of `AV_FLAGS`: the message has a MIC.
pub(super) const AV_FLAG_MIC: u32 = 2;

/// Where the fixed parts end, without the version.
const NEGOTIATE_FIXED: usize = 32;
const CHALLENGE_FIXED: usize = 48;
/// Seconds from 1601, where FILETIME begins, to 1970.
const FILETIME_EPOCH: u64 = 11_644_473_600;

/// Whether a message is NEGOTIATE ([MS-NLMP] 2.2.1.1). Nothing in it is needed but its flags.
pub fn is_negotiate(message: &[u8]) -> bool {
    is_type(message, 1) && u32_at(message, 12).is_some_and(|flags| flags & NTLM != 0)
}

/// The flags of a NEGOTIATE message.
pub fn flags_of(negotiate: &[u8]) -> u32 {
    u32_at(negotiate, 12).unwrap_or_default()
}

/// The NEGOTIATE message of a client that can do this. It names no domain and no workstation.
pub fn negotiate(flags: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(NEGOTIATE_FIXED);
    begin(&mut out, 1);
    out.extend_from_slice(&flags.to_le_bytes());
    field(&mut out, 0, 0);
    field(&mut out, 0, 0);
    out
}

/// What CHALLENGE ([MS-NLMP] 2.2.1.2) says.
#[derive(Debug)]
pub struct Challenge<'a> {
    /// The host name.
    pub target: &'a str,
    /// To be answered.
    pub nonce: [u8; 8],
    /// With the time there, clients send a MIC ([MS-NLMP] 3.1.5.1.2).
    pub unix_millis: u64,
    /// What the client can do.
    pub client_flags: u32,
}

impl Challenge<'_> {
    /// The message. Signing, sealing and key exchange are not offered: they protect what follows, and SMTP has TLS for that.
    pub fn encoded(&self) -> Vec<u8> {
        // A NetBIOS name has 15 letters at most.
        let label = self.target.split('.').next().unwrap_or_default();
        let short: String = label.chars().take(15).map(|c| c.to_ascii_uppercase()).collect();
        let short = utf16(&short);
        let mut info = Vec::new();
        for (id, value) in [
            (AV_DOMAIN, short.as_slice()),
            (AV_COMPUTER, &short),
            (AV_DNS_COMPUTER, &utf16(self.target)),
            (AV_TIMESTAMP, &filetime(self.unix_millis).to_le_bytes()),
            (AV_END, &[]),
        ] {
            put_attribute(&mut info, id, value);
        }
        let offered = UNICODE | REQUEST_TARGET | NTLM | TARGET_TYPE_SERVER | TARGET_INFO;
        let flags = offered | self.client_flags & (ALWAYS_SIGN | EXTENDED_SESSION_SECURITY);
        let payload = 56;
        let mut out = Vec::with_capacity(payload + short.len() + info.len());
        begin(&mut out, 2);
        field(&mut out, short.len(), payload);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&[0; 8]);
        field(&mut out, info.len(), payload + short.len());
        out.extend_from_slice(&[0; 8]); // the version, which is nobody's business
        out.extend_from_slice(&short);
        out.extend_from_slice(&info);
        out
    }
}

/// A CHALLENGE message, as a client reads it.
#[derive(Debug)]
pub struct Challenged {
    /// What the server can do.
    pub flags: u32,
    /// To be answered.
    pub nonce: [u8; 8],
    /// What the server says of itself: attributes with their end, or nothing at all.
    pub target_info: Box<[u8]>,
}

impl Challenged {
    /// None where it is broken, or of a server that speaks no Unicode.
    pub fn parse(message: &[u8]) -> Option<Challenged> {
        if !is_type(message, 2) {
            return None;
        }
        let flags = u32_at(message, 20)?;
        let nonce = *message.get(24..)?.first_chunk()?;
        let target = range_at(message, 12)?;
        // An old server's message ends before the second field.
        let info = match flags & TARGET_INFO {
            0 => 0..0,
            _ => range_at(message, 40)?,
        };
        let fixed = if flags & TARGET_INFO == 0 { 32 } else { CHALLENGE_FIXED };
        let fields = [target, info.clone()];
        if overlap(&fields) || fields.iter().any(|f| !f.is_empty() && f.start < fixed) || flags & UNICODE == 0 {
            return None;
        }
        let target_info = message.get(info)?;
        if !target_info.is_empty() {
            attributes(target_info).try_for_each(|attribute| attribute.map(drop))?;
        }
        Some(Challenged {
            flags,
            nonce,
            target_info: target_info.into(),
        })
    }
}

/// Octets of 100 ns since 1601 ([MS-DTYP] section 2.3.3) for milliseconds since 1970.
pub(super) fn filetime(unix_millis: u64) -> u64 {
    (unix_millis / 1000 + FILETIME_EPOCH) * 10_000_000 + unix_millis % 1000 * 10_000
}

/// Signature and type of a message.
pub(super) fn begin(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends an attribute, which is shorter than 64 KiB.
pub(super) fn put_attribute(list: &mut Vec<u8>, id: u16, value: &[u8]) {
    list.extend_from_slice(&id.to_le_bytes());
    list.extend_from_slice(&(value.len() as u16).to_le_bytes());
    list.extend_from_slice(value);
}

/// The attributes of a list before its end; the last item is none where the list has no end.
pub(super) fn attributes(mut list: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let first = attribute(list);
        over = first.is_none();
        let (id, value, rest) = match first {
            Some((AV_END, ..)) => {
                over = true;
                return None;
            }
            Some(first) => first,
            None => return Some(None),
        };
        list = rest;
        Some(Some((id, value)))
    })
}

fn attribute(list: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (id, length) = (u16_at(list, 0)?, usize::from(u16_at(list, 2)?));
    let (value, rest) = list.get(4..)?.split_at_checked(length)?;
    Some((id, value, rest))
}

/// Length, allocated length, offset. Whatever is written here is short, so all of them fit.
pub(super) fn field(out: &mut Vec<u8>, length: usize, offset: usize) {
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(&(offset as u32).to_le_bytes());
}

pub(super) fn is_type(message: &[u8], number: u32) -> bool {
    message.starts_with(SIGNATURE) && u32_at(message, 8) == Some(number)
}

pub(super) fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*message.get(at..)?.first_chunk()?))
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*message.get(at..)?.first_chunk()?))
}

/// The octets that a field names; an empty field names none, wherever it points.
pub(super) fn range_at(message: &[u8], at: usize) -> Option<Range<usize>> {
    let length = usize::from(u16_at(message, at)?);
    let start = usize::try_from(u32_at(message, at + 4)?).ok()?;
    if length == 0 {
        return Some(0..0);
    }
    let end = start.checked_add(length)?;
    (end <= message.len()).then_some(start..end)
}

pub(super) fn overlap(fields: &[Range<usize>]) -> bool {
    fields.iter().enumerate().any(|(n, one)| {
        let others = fields.iter().skip(n + 1);
        others
            .into_iter()
            .any(|other| one.start.max(other.start) < one.end.min(other.end))
    })
}

/// UTF-16, little-endian; none for an odd octet or half a character.
pub(super) fn text(octets: &[u8]) -> Option<String> {
    let (pairs, []) = octets.as_chunks::<2>() else {
        return None;
    };
    char::decode_utf16(pairs.iter().map(|pair| u16::from_le_bytes(*pair)))
        .collect::<Result<String, _>>()
        .ok()
}
