//! AUTHENTICATE of [MS-NLMP] section 2.2.1.3, octet by octet: read by the server's side, written by the client's.
//!
//! Promises: takes any octets and never panics; every offset is checked against the message, may not point into the fixed
//! part, and no two fields may share an octet. Lives in its exchange.

use std::ops::Range;

use super::compute::{rc4, utf16};
use super::message::{
    ANONYMOUS, AV_FLAG_MIC, AV_FLAGS, KEY_EXCHANGE, UNICODE, VERSION, attributes, begin, field, is_type, overlap,
    range_at, text, u32_at,
};
use crate::smtp::sasl::name;

/// Where the fixed part of AUTHENTICATE ends, without version and MIC.
const FIXED: usize = 64;
/// Where the MIC stands: behind the version, which Windows always writes; others leave it out where it is not negotiated.
const MIC: Range<usize> = 72..88;
const MIC_WITHOUT_VERSION: Range<usize> = 64..80;
/// NTProofStr, then at least the fixed part of NTLMv2_CLIENT_CHALLENGE and its end.
const PROOF: usize = 16;
const CLIENT_CHALLENGE_FIXED: usize = 28;

/// What a client has to say, each name in UTF-16.
#[derive(Debug)]
pub struct Written<'a> {
    pub lm_response: &'a [u8; 24],
    /// The proof, and what it covers.
    pub nt_response: &'a [u8],
    pub domain: &'a [u8],
    pub user: &'a [u8],
    pub flags: u32,
}

impl Written<'_> {
    /// The message, with zeros in the place of its version and of its MIC, for which there is one always.
    pub fn encoded(&self) -> Vec<u8> {
        let payloads = [self.lm_response, self.nt_response, self.domain, self.user];
        let mut out = Vec::with_capacity(MIC.end + payloads.iter().map(|payload| payload.len()).sum::<usize>());
        begin(&mut out, 3);
        let mut offset = MIC.end;
        for payload in payloads {
            field(&mut out, payload.len(), offset);
            offset += payload.len();
        }
        // No workstation, and no session key, which only signing and sealing need.
        field(&mut out, 0, offset);
        field(&mut out, 0, offset);
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.resize(MIC.end, 0);
        payloads.iter().for_each(|payload| out.extend_from_slice(payload));
        out
    }
}

/// Writes the MIC into its place.
pub fn put_mic(message: &mut [u8], mic: &[u8; 16]) {
    if let Some(place) = message.get_mut(MIC) {
        place.copy_from_slice(mic);
    }
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

/// MsvAvFlags of a list of attributes, 0 where it is not there; none where the list has no end.
fn av_flags(list: &[u8]) -> Option<u32> {
    attributes(list).try_fold(0, |flags, attribute| match attribute? {
        (AV_FLAGS, value) => Some(flags | u32_at(value, 0)?),
        _ => Some(flags),
    })
}
