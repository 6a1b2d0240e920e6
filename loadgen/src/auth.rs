//! Saying who the client is: AUTH with PLAIN (RFC 4616), LOGIN, or NTLM ([MS-SMTPNTLM] around the messages of [MS-NLMP]).
//!
//! Promises: a server's challenge that makes no sense ends the attempt, never the run. NTLM is version 2 without signing
//! and sealing, which SMTP has no use for. Pure but for the nonce, which the caller gives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use md4::{Digest, Md4};
use md5::Md5;

/// Mechanisms of AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    Plain,
    Login,
    Ntlm,
}

/// Who the client is.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// How that is said.
    pub mechanism: Mechanism,
    /// NTLM takes DOMAIN\user too.
    pub user: String,
    /// In clear.
    pub password: String,
}

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
/// Unicode, request target, NTLM, always sign, extended session security ([MS-NLMP] section 2.2.2.5).
const FLAGS: u32 = 0x0000_0001 | 0x0000_0004 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
/// Octets of an AUTHENTICATE message before its payload, without version and MIC.
const FIXED: u32 = 64;

impl Credentials {
    /// The command that begins.
    pub fn command(&self) -> String {
        match self.mechanism {
            Mechanism::Plain => {
                let text = format!("\0{}\0{}", self.user, self.password);
                format!("AUTH PLAIN {}\r\n", STANDARD.encode(text))
            }
            Mechanism::Login => "AUTH LOGIN\r\n".into(),
            Mechanism::Ntlm => "AUTH NTLM\r\n".into(),
        }
    }

    /// The answer to the `number`th 334 (from 0), whose line is `challenge`; none when there is no answer to it.
    pub fn answer(&self, number: u32, challenge: &[u8], nonce: u64) -> Option<String> {
        let answer = match (self.mechanism, number) {
            (Mechanism::Login, 0) => self.user.clone().into_bytes(),
            (Mechanism::Login, 1) => self.password.clone().into_bytes(),
            (Mechanism::Ntlm, 0) => [&SIGNATURE[..], &1_u32.to_le_bytes(), &FLAGS.to_le_bytes(), &[0; 16]].concat(),
            (Mechanism::Ntlm, 1) => {
                let text = challenge.strip_prefix(b"334 ")?.trim_ascii();
                self.authenticate(&STANDARD.decode(text).ok()?, nonce)?
            }
            _ => return None,
        };
        Some(STANDARD.encode(answer) + "\r\n")
    }

    /// [MS-NLMP] section 2.2.1.3, from the CHALLENGE message of section 2.2.1.2.
    fn authenticate(&self, challenge: &[u8], nonce: u64) -> Option<Vec<u8>> {
        if challenge.get(..8)? != SIGNATURE || challenge.get(8..12)? != 2_u32.to_le_bytes() {
            return None;
        }
        let server = challenge.get(24..32)?;
        let target = match (challenge.get(40..42), challenge.get(44..48)) {
            (Some(length), Some(offset)) => {
                let length = usize::from(u16::from_le_bytes(length.try_into().ok()?));
                let offset = usize::try_from(u32::from_le_bytes(offset.try_into().ok()?)).ok()?;
                challenge.get(offset..offset.checked_add(length)?)?
            }
            _ => &[],
        };
        let (domain, user) = self.user.split_once('\\').unwrap_or(("", &self.user));
        let key = key(user, domain, &self.password)?;
        let own = nonce.to_le_bytes();
        // Section 2.2.2.7. A time of zero is what a client without a clock sends.
        let blob = [&[1, 1, 0, 0, 0, 0, 0, 0][..], &[0; 8], &own, &[0; 4], target, &[0; 4]].concat();
        let nt = [&keyed(&key, &[server, &blob])?[..], &blob].concat();
        let lm = [&keyed(&key, &[server, &own])?[..], &own].concat();
        let (domain, user) = (utf16(domain), utf16(user));
        let mut message = [&SIGNATURE[..], &3_u32.to_le_bytes()].concat();
        let mut offset = FIXED;
        // LM and NT response, domain, user, workstation, session key.
        for field in [&lm, &nt, &domain, &user, &Vec::new(), &Vec::new()] {
            let length = u16::try_from(field.len()).ok()?;
            message.extend_from_slice(&length.to_le_bytes());
            message.extend_from_slice(&length.to_le_bytes());
            message.extend_from_slice(&offset.to_le_bytes());
            offset += u32::from(length);
        }
        message.extend_from_slice(&FLAGS.to_le_bytes());
        Some([message, lm, nt, domain, user].concat())
    }
}

/// NTOWFv2 of [MS-NLMP] section 3.3.2.
fn key(user: &str, domain: &str, password: &str) -> Option<[u8; 16]> {
    let hash = Md4::digest(utf16(password));
    keyed(&hash, &[&utf16(&user.to_uppercase()), &utf16(domain)])
}

fn keyed(key: &[u8], parts: &[&[u8]]) -> Option<[u8; 16]> {
    let mut mac = Hmac::<Md5>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().into())
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(mechanism: Mechanism) -> Credentials {
        Credentials {
            mechanism,
            user: "User".into(),
            password: "Password".into(),
        }
    }

    #[test]
    fn plain_and_login_are_as_in_their_documents() {
        assert_eq!(who(Mechanism::Plain).command(), "AUTH PLAIN AFVzZXIAUGFzc3dvcmQ=\r\n");
        let login = who(Mechanism::Login);
        let answers: Vec<_> = (0..3).map(|number| login.answer(number, b"334 \r\n", 0)).collect();
        assert_eq!(
            answers,
            [Some("VXNlcg==\r\n".into()), Some("UGFzc3dvcmQ=\r\n".into()), None]
        );
    }

    /// The values of [MS-NLMP] section 4.2.4.1.1.
    #[test]
    fn the_key_of_ntlm_is_that_of_the_example() {
        let expected = [
            0x0c, 0x86, 0x8a, 0x40, 0x3b, 0xfd, 0x7a, 0x93, 0xa3, 0x00, 0x1e, 0xf2, 0x2e, 0xf0, 0x2e, 0x3f,
        ];
        assert_eq!(key("User", "Domain", "Password"), Some(expected));
    }

    #[test]
    fn a_challenge_that_makes_no_sense_has_no_answer() {
        let ntlm = who(Mechanism::Ntlm);
        for wrong in ["", "x", "TlRMTVNTUAABAAAA", "TlRMTVNTUAACAAAAAAAAAA=="] {
            assert_eq!(
                ntlm.answer(1, format!("334 {wrong}\r\n").as_bytes(), 1),
                None,
                "{wrong}"
            );
        }
        // Its target information would lie beyond the end.
        let mut far = [&SIGNATURE[..], &2_u32.to_le_bytes(), &[0; 36]].concat();
        (far[40], far[44]) = (9, 255);
        let line = format!("334 {}\r\n", STANDARD.encode(&far));
        assert_eq!(ntlm.answer(1, line.as_bytes(), 1), None);
    }
}
