//! The three messages of [MS-NLMP] section 2.2.1, octet by octet.
//!
//! Promises: takes any octets and never panics; every offset is checked against the message, may not point into the fixed
//! part, and no two fields may share an octet. Lives in its [`Ntlm`](super::Ntlm).

use std::ops::Range;

use super::compute::{rc4, utf16};
use crate::smtp::sasl::name;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

// [MS-NLMP] 2.2.2.5.
const UNICODE: u32 = 0x0000_0001;
const REQUEST_TARGET: u32 = 0x0000_0004;
const NTLM: u32 = 0x0000_0200;
const ANONYMOUS: u32 = 0x0000_0800;
const ALWAYS_SIGN: u32 = 0x0000_8000;
const TARGET_TYPE_SERVER: u32 = 0x0002_0000;
const EXTENDED_SESSION_SECURITY: u32 = 0x0008_0000;
const TARGET_INFO: u32 = 0x0080_0000;
const VERSION: u32 = 0x0200_0000;
const KEY_EXCHANGE: u32 = 0x4000_0000;

// [MS-NLMP] 2.2.2.1.
const AV_END: u16 = 0;
const AV_COMPUTER: u16 = 1;
const AV_DOMAIN: u16 = 2;
const AV_DNS_COMPUTER: u16 = 3;
const AV_FLAGS: u16 = 6;
const AV_TIMESTAMP: u16 = 7;
/// In the value of `AV_FLAGS`: the message has a MIC.
const AV_FLAG_MIC: u32 = 2;

/// Where the fixed part of AUTHENTICATE ends, without version and MIC.
const FIXED: usize = 64;
/// Where the MIC stands: behind the version, which Windows always writes; others leave it out where it is not negotiated.
const MIC: Range<usize> = 72..88;
const MIC_WITHOUT_VERSION: Range<usize> = 64..80;
/// NTProofStr, then at least the fixed part of NTLMv2_CLIENT_CHALLENGE and its end.
const PROOF: usize = 16;
const CLIENT_CHALLENGE_FIXED: usize = 28;
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
        let time = (self.unix_millis / 1000 + FILETIME_EPOCH) * 10_000_000 + self.unix_millis % 1000 * 10_000;
        let mut info = Vec::new();
        for (id, value) in [
            (AV_DOMAIN, short.as_slice()),
            (AV_COMPUTER, &short),
            (AV_DNS_COMPUTER, &utf16(self.target)),
            (AV_TIMESTAMP, &time.to_le_bytes()),
            (AV_END, &[]),
        ] {
            info.extend_from_slice(&id.to_le_bytes());
            info.extend_from_slice(&(value.len() as u16).to_le_bytes());
            info.extend_from_slice(value);
        }
        let offered = UNICODE | REQUEST_TARGET | NTLM | TARGET_TYPE_SERVER | TARGET_INFO;
        let flags = offered | self.client_flags & (ALWAYS_SIGN | EXTENDED_SESSION_SECURITY);
        let payload = 56;
        let mut out = Vec::with_capacity(payload + short.len() + info.len());
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&2_u32.to_le_bytes());
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

/// Length, allocated length, offset. A host name has 255 octets at most, so all of them fit.
fn field(out: &mut Vec<u8>, length: usize, offset: usize) {
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(&(offset as u32).to_le_bytes());
}

/// An AUTHENTICATE message ([MS-NLMP] 2.2.1.3) with an NTLMv2 response, checked.
#[derive(Debug)]
pub struct Authenticate {
    /// As the client wrote it.
    pub user: Box<str>,
    message: Box<[u8]>,
    /// In UTF-16, whatever it came in.
    domain: Vec<u8>,
    nt_response: Range<usize>,
    session_key: Range<usize>,
    flags: u32,
    /// Where the client says that there is one.
    mic: Option<Range<usize>>,
}

impl Authenticate {
    /// None where it is broken, or is no NTLMv2 logon of a named user.
    pub fn parse(message: &[u8]) -> Option<Authenticate> {
        if !is_type(message, 3) {
            return None;
        }
        let flags = u32_at(message, 60)?;
        let mut fields: [Range<usize>; 6] = [const { 0..0 }; 6];
        for (field, at) in fields.iter_mut().zip([12, 20, 28, 36, 44, 52]) {
            *field = range_at(message, at)?;
        }
        let [_lm, nt_response, domain, user, _workstation, session_key] = fields.clone();
        if overlap(&fields) || flags & ANONYMOUS != 0 {
            return None;
        }
        let (user, domain) = if flags & UNICODE != 0 {
            let domain = message.get(domain)?;
            text(domain)?;
            (text(message.get(user)?)?, domain.to_vec())
        } else {
            // In a code page that only the client knows, so ASCII.
            let ascii = |range| std::str::from_utf8(message.get(range)?).ok().filter(|t| t.is_ascii());
            (ascii(user)?.to_owned(), utf16(ascii(domain)?))
        };
        let client_challenge = message.get(nt_response.clone())?.get(PROOF..)?;
        // 24 octets are NTLMv1's, none an anonymous logon's.
        if client_challenge.len() < CLIENT_CHALLENGE_FIXED + 4 || !client_challenge.starts_with(&[1, 1]) {
            return None;
        }
        let has_mic = av_flags(client_challenge.get(CLIENT_CHALLENGE_FIXED..)?)? & AV_FLAG_MIC != 0;
        let first = fields
            .iter()
            .filter(|range| !range.is_empty())
            .map(|range| range.start)
            .min()?;
        let mic = match has_mic {
            true if first >= MIC.end => Some(MIC),
            true if first >= MIC_WITHOUT_VERSION.end && flags & VERSION == 0 => Some(MIC_WITHOUT_VERSION),
            true => return None,
            false => None,
        };
        if first < FIXED {
            return None;
        }
        Some(Authenticate {
            user: name(user.as_bytes())?.into(),
            message: message.into(),
            domain,
            nt_response,
            session_key,
            flags,
            mic,
        })
    }

    /// The domain in UTF-16: part of the computation, of nothing else.
    pub fn domain(&self) -> &[u8] {
        &self.domain
    }

    /// NTProofStr.
    pub fn proof(&self) -> &[u8] {
        self.response().get(..PROOF).unwrap_or_default()
    }

    /// NTLMv2_CLIENT_CHALLENGE, which the proof covers.
    pub fn client_challenge(&self) -> &[u8] {
        self.response().get(PROOF..).unwrap_or_default()
    }

    /// The MIC, where the client says that there is one.
    pub fn mic(&self) -> Option<&[u8]> {
        self.mic.clone().and_then(|mic| self.message.get(mic))
    }

    /// The message with zeros in place of its MIC.
    pub fn without_mic(&self) -> Vec<u8> {
        let mut message = self.message.to_vec();
        if let Some(mic) = self.mic.clone().and_then(|mic| message.get_mut(mic)) {
            mic.fill(0);
        }
        message
    }

    /// What the MIC is made with; none where the client says that it sent a key and did not.
    pub fn exported_session_key(&self, key_exchange_key: &[u8; 16]) -> Option<[u8; 16]> {
        if self.flags & KEY_EXCHANGE == 0 {
            return Some(*key_exchange_key);
        }
        let wrapped = self.message.get(self.session_key.clone())?.try_into().ok()?;
        Some(rc4(key_exchange_key, &wrapped))
    }

    fn response(&self) -> &[u8] {
        self.message.get(self.nt_response.clone()).unwrap_or_default()
    }
}

fn is_type(message: &[u8], number: u32) -> bool {
    message.starts_with(SIGNATURE) && u32_at(message, 8) == Some(number)
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*message.get(at..)?.first_chunk()?))
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*message.get(at..)?.first_chunk()?))
}

/// The octets that a field names; an empty field names none, wherever it points.
fn range_at(message: &[u8], at: usize) -> Option<Range<usize>> {
    let length = usize::from(u16_at(message, at)?);
    let start = usize::try_from(u32_at(message, at + 4)?).ok()?;
    if length == 0 {
        return Some(0..0);
    }
    let end = start.checked_add(length)?;
    (end <= message.len()).then_some(start..end)
}

fn overlap(fields: &[Range<usize>]) -> bool {
    fields.iter().enumerate().any(|(n, one)| {
        let others = fields.iter().skip(n + 1);
        others
            .into_iter()
            .any(|other| one.start.max(other.start) < one.end.min(other.end))
    })
}

/// UTF-16, little-endian; none for an odd octet or half a character.
fn text(octets: &[u8]) -> Option<String> {
    let (pairs, []) = octets.as_chunks::<2>() else {
        return None;
    };
    char::decode_utf16(pairs.iter().map(|pair| u16::from_le_bytes(*pair)))
        .collect::<Result<String, _>>()
        .ok()
}

/// MsvAvFlags of a list of attributes, 0 where it is not there; none where the list has no end.
fn av_flags(mut list: &[u8]) -> Option<u32> {
    let mut flags = 0;
    loop {
        let (id, length) = (u16_at(list, 0)?, usize::from(u16_at(list, 2)?));
        let value = list.get(4..)?.get(..length)?;
        match id {
            AV_END => return Some(flags),
            AV_FLAGS => flags |= u32_at(value, 0)?,
            _ => {}
        }
        list = list.get(4 + length..)?;
    }
}
