//! NTLM, the client's side ([MS-NLMP] section 3.1): NEGOTIATE, and AUTHENTICATE for the server's CHALLENGE.
//!
//! Promises: NTLMv2 only; a MIC wherever the server's attributes have the time, as [MS-NLMP] section 3.1.5.1.2 asks; a
//! challenge that is broken is not answered. Lives in its exchange.

use std::fmt;

use super::authenticate::{Written, put_mic};
use super::compute::{lm_response, mic, nt_hash, nt_proof, ntowf_v2, session_base_key, utf16};
use super::message::{
    ALWAYS_SIGN, AV_CHANNEL_BINDINGS, AV_END, AV_FLAG_MIC, AV_FLAGS, AV_TARGET_NAME, AV_TIMESTAMP, Challenged,
    EXTENDED_SESSION_SECURITY, NTLM, REQUEST_TARGET, UNICODE, attributes, filetime, negotiate, put_attribute,
};
use crate::smtp::sasl::Random;

/// What we can do. Signing, sealing and key exchange protect what follows, and SMTP has TLS for that.
const CLIENT_FLAGS: u32 = UNICODE | REQUEST_TARGET | NTLM | ALWAYS_SIGN | EXTENDED_SESSION_SECURITY;
/// Octets of attributes that a server may send: far above what the longest names come to.
const MAX_TARGET_INFO: usize = 8 << 10;

/// One exchange.
pub struct Initiator {
    negotiate: Vec<u8>,
    client_challenge: [u8; 8],
    filetime: u64,
}

impl Initiator {
    /// With octets that never come twice, and the time, for a server that does not say what it is.
    pub fn new(random: &Random, unix_millis: u64) -> Initiator {
        let [a, b, c, d, e, f, g, h, ..] = *random;
        Initiator {
            negotiate: negotiate(CLIENT_FLAGS),
            client_challenge: [a, b, c, d, e, f, g, h],
            filetime: filetime(unix_millis),
        }
    }

    /// NEGOTIATE.
    pub fn first(&self) -> &[u8] {
        &self.negotiate
    }

    /// AUTHENTICATE for a CHALLENGE; none where it is no answer to what we can do. `DOMAIN\user` names a domain, `user@domain`
    /// goes as it is, for the server to take apart.
    pub fn answer(&self, challenge: &[u8], username: &str, password: &str) -> Option<Vec<u8>> {
        let challenged = Challenged::parse(challenge)?;
        if challenged.target_info.len() > MAX_TARGET_INFO {
            return None;
        }
        let (domain, user) = username.split_once('\\').unwrap_or(("", username));
        let (domain, user_utf16) = (utf16(domain), utf16(user));
        let (info, time) = own_target_info(&challenged.target_info)?;
        // [MS-NLMP] 2.2.2.7.
        let mut temp = vec![1, 1, 0, 0, 0, 0, 0, 0];
        temp.extend_from_slice(&time.unwrap_or(self.filetime.to_le_bytes()));
        temp.extend_from_slice(&self.client_challenge);
        temp.extend_from_slice(&[0; 4]);
        temp.extend_from_slice(&info);
        temp.extend_from_slice(&[0; 4]);
        let key = ntowf_v2(nt_hash(password).octets(), user, &domain);
        let proof = nt_proof(&key, &challenged.nonce, &temp);
        // With the time there, the weaker response is left out ([MS-NLMP] 3.1.5.1.2).
        let lm = match time {
            Some(_) => [0; 24],
            None => lm_response(&key, &challenged.nonce, &self.client_challenge),
        };
        let mut message = Written {
            lm_response: &lm,
            nt_response: &[proof.as_slice(), &temp].concat(),
            domain: &domain,
            user: &user_utf16,
            flags: challenged.flags & CLIENT_FLAGS | NTLM,
        }
        .encoded();
        if time.is_some() {
            let mic = mic(&session_base_key(&key, &proof), &self.negotiate, challenge, &message);
            put_mic(&mut message, &mic);
        }
        Some(message)
    }
}

/// The server's attributes as they go back to it, and the time among them. With the time comes the promise of a MIC, and that
/// neither a channel nor a name is bound to.
fn own_target_info(list: &[u8]) -> Option<(Vec<u8>, Option<[u8; 8]>)> {
    let (mut own, mut flags, mut time) = (Vec::with_capacity(list.len() + 40), 0, None);
    if list.is_empty() {
        return Some(([0; 4].to_vec(), None));
    }
    for attribute in attributes(list) {
        match attribute? {
            (AV_FLAGS, value) => flags = u32::from_le_bytes(value.try_into().ok()?),
            (AV_CHANNEL_BINDINGS | AV_TARGET_NAME, _) => {}
            (id, value) => {
                if id == AV_TIMESTAMP {
                    time = Some(value.try_into().ok()?);
                }
                put_attribute(&mut own, id, value);
            }
        }
    }
    if time.is_some() {
        flags |= AV_FLAG_MIC;
    }
    if flags != 0 {
        put_attribute(&mut own, AV_FLAGS, &flags.to_le_bytes());
    }
    if time.is_some() {
        put_attribute(&mut own, AV_TARGET_NAME, &[]);
        put_attribute(&mut own, AV_CHANNEL_BINDINGS, &[0; 16]);
    }
    put_attribute(&mut own, AV_END, &[]);
    Some((own, time))
}

/// Without the octets that nobody is to know before they are used.
impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
