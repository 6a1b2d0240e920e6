//! What [MS-NLMP] section 3.3 computes.
//!
//! Promises: pure. MD4, MD5 and RC4 are the protocol's choice, not ours: what they protect is a nonce's answer within TLS.

use md4::{Digest as _, Md4};

use crate::smtp::sasl::{Secret, hmac_md5};

/// NTOWFv1: MD4 of the password in UTF-16. What `{NT}` in a users file holds.
pub fn nt_hash(password: &str) -> Secret {
    let utf16 = zeroize::Zeroizing::new(utf16(password));
    Secret::new(&Md4::digest(utf16.as_slice()))
}

/// NTOWFv2: `domain` as it came, in UTF-16.
pub fn ntowf_v2(nt_hash: &[u8], user: &str, domain: &[u8]) -> [u8; 16] {
    let upper: String = user.chars().map(upper).collect();
    hmac_md5(nt_hash, &[&utf16(&upper), domain])
}

/// Windows maps a character to one: `ß` stays what it is.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// NTProofStr: `client_challenge` is the structure that follows it in the response.
pub fn nt_proof(key: &[u8; 16], nonce: &[u8; 8], client_challenge: &[u8]) -> [u8; 16] {
    hmac_md5(key, &[nonce, client_challenge])
}

/// LMv2 of [MS-NLMP] 3.3.2, for servers that do not say the time.
pub fn lm_response(key: &[u8; 16], nonce: &[u8; 8], client_challenge: &[u8; 8]) -> [u8; 24] {
    let proof = hmac_md5(key, &[nonce, client_challenge]);
    let mut response = [0; 24];
    let (front, back) = response.split_at_mut(proof.len());
    front.copy_from_slice(&proof);
    back.copy_from_slice(client_challenge);
    response
}

/// SessionBaseKey, which is the KeyExchangeKey of NTLMv2.
pub fn session_base_key(key: &[u8; 16], proof: &[u8; 16]) -> [u8; 16] {
    hmac_md5(key, &[proof])
}

/// The MIC over the three messages, its own place in the last one zeroed.
pub fn mic(exported_session_key: &[u8; 16], negotiate: &[u8], challenge: &[u8], authenticate: &[u8]) -> [u8; 16] {
    hmac_md5(exported_session_key, &[negotiate, challenge, authenticate])
}

/// RC4, which only unwraps the session key that the MIC is made with.
pub fn rc4(key: &[u8; 16], data: &[u8; 16]) -> [u8; 16] {
    let mut state: [u8; 256] = std::array::from_fn(|n| n as u8);
    let mut j = 0_u8;
    for i in 0..=255_u8 {
        j = j
            .wrapping_add(state[usize::from(i)])
            .wrapping_add(key[usize::from(i % 16)]);
        state.swap(usize::from(i), usize::from(j));
    }
    let (mut i, mut j) = (0_u8, 0_u8);
    data.map(|octet| {
        i = i.wrapping_add(1);
        j = j.wrapping_add(state[usize::from(i)]);
        state.swap(usize::from(i), usize::from(j));
        octet ^ state[usize::from(state[usize::from(i)].wrapping_add(state[usize::from(j)]))]
    })
}

/// UTF-16, little-endian.
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Octets as the document writes them.
    pub fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| b.is_ascii_hexdigit()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// [MS-NLMP] 4.2.1, 4.2.4: User, Domain, Password, Server; time 0, nonces 0123456789abcdef and aa….
    #[test]
    fn the_values_of_the_document_come_out() {
        let nonce: [u8; 8] = hex("0123456789abcdef").try_into().unwrap();
        let hash = nt_hash("Password");
        assert_eq!(hash.octets(), hex("a4f49c406510bdcab6824ee7c30fd852"));
        let key = ntowf_v2(hash.octets(), "User", &utf16("Domain"));
        assert_eq!(key.to_vec(), hex("0c868a403bfd7a93a3001ef22ef02e3f"));
        let temp = hex("0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000 \
                        02000c0044006f006d00610069006e00 01000c005300650072007600650072000000000000000000");
        let proof = nt_proof(&key, &nonce, &temp);
        assert_eq!(proof.to_vec(), hex("68cd0ab851e51c96aabc927bebef6a1c"));
        let lm = lm_response(&key, &nonce, &[0xaa; 8]);
        assert_eq!(
            lm.to_vec(),
            hex("86c35097ac9cec102554764a57cccc19 aaaaaaaaaaaaaaaa"),
            "LMv2"
        );
        let base = session_base_key(&key, &proof);
        assert_eq!(base.to_vec(), hex("8de40ccadbc14a82f15cb0ad0de95ca3"));
        assert_eq!(
            rc4(&base, &[0x55; 16]).to_vec(),
            hex("c5dad2544fc9799094ce1ce90bc9d03e"),
            "EncryptedRandomSessionKey"
        );
        assert_eq!(
            rc4(&base, &rc4(&base, &[0x55; 16])),
            [0x55; 16],
            "it is its own reverse"
        );
    }

    #[test]
    fn a_name_is_raised_letter_by_letter() {
        let raised = |name: &str| name.chars().map(upper).collect::<String>();
        assert_eq!(raised("user"), "USER");
        assert_eq!(raised("j\u{f6}rg"), "J\u{d6}RG");
        assert_eq!(raised("stra\u{df}e"), "STRA\u{df}E");
    }
}
