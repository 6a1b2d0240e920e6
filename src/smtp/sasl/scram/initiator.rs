//! SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677), without channel binding.
//!
//! Promises: a server that cannot prove that it knows the password is not believed; the costly part is not done here
//! ([`Initiator::derivation`]), and what a server may ask for has a bound. Lives in its exchange.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{client_key, prepared};
use crate::smtp::sasl::{Random, Secret, hmac_sha256};

/// Iterations that a server may ask for: the least is that of RFC 7677 section 4, for whoever asks for fewer wants to guess
/// the password; the most takes a helper thread for a quarter of a second.
pub const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;
/// `n,,`: no channel binding, nobody to act for.
const GS2_HEADER: &str = "n,,";

/// One exchange.
pub struct Initiator {
    /// client-first-message-bare.
    bare: String,
    nonce: String,
    state: State,
}

enum State {
    /// The server-first-message is awaited.
    First,
    /// The salted password is awaited.
    Deriving { server: Server, said: String },
    /// The server-final-message is awaited.
    Final { signature: [u8; 32] },
    /// The server has proved itself.
    Proved,
}

/// The server-first-message, taken apart.
struct Server {
    nonce: Box<str>,
    salt: Box<[u8]>,
    iterations: u32,
}

impl Initiator {
    /// With octets that never come twice.
    pub fn new(username: &str, random: &Random) -> Initiator {
        let nonce = BASE64.encode(random);
        let name = String::from_utf8(prepared(username.as_bytes()).to_vec()).unwrap_or_default();
        let name = name.replace('=', "=3D").replace(',', "=2C");
        Initiator {
            bare: format!("n={name},r={nonce}"),
            nonce,
            state: State::First,
        }
    }

    /// client-first-message.
    pub fn first(&self) -> String {
        format!("{GS2_HEADER}{}", self.bare)
    }

    /// Takes the server-first-message. False where it is none, or asks for too much or too little.
    pub fn take_first(&mut self, message: &[u8]) -> bool {
        let text = std::str::from_utf8(message).ok();
        let Some((text, server)) = text.and_then(|text| Some((text, Server::parse(text, &self.nonce)?))) else {
            return false;
        };
        let is_first = matches!(self.state, State::First);
        if is_first {
            let said = format!("{},{text},", self.bare);
            self.state = State::Deriving { server, said };
        }
        is_first
    }

    /// What the salted password is made with: salt and iterations.
    pub fn derivation(&self) -> Option<(&[u8], u32)> {
        match &self.state {
            State::Deriving { server, .. } => Some((&server.salt, server.iterations)),
            _ => None,
        }
    }

    /// client-final-message; none where nothing was to be derived.
    pub fn last(&mut self, salted_password: &Secret) -> Option<String> {
        let State::Deriving { server, said } = &self.state else {
            return None;
        };
        let salted: &[u8; 32] = salted_password.octets().try_into().ok()?;
        let without_proof = format!("c={},r={}", BASE64.encode(GS2_HEADER), server.nonce);
        let auth_message = [said.as_bytes(), without_proof.as_bytes()];
        let mut proof = zeroize::Zeroizing::new(client_key(salted));
        let client_signature = hmac_sha256(&Sha256::digest(proof.as_slice()), &auth_message);
        proof
            .iter_mut()
            .zip(client_signature)
            .for_each(|(key, octet)| *key ^= octet);
        let server_key = hmac_sha256(salted, &[super::SERVER_KEY]);
        let last = format!("{without_proof},p={}", BASE64.encode(proof.as_slice()));
        let signature = hmac_sha256(&server_key, &auth_message);
        self.state = State::Final { signature };
        Some(last)
    }

    /// Takes the server-final-message. False where it does not prove that the server knows the password.
    pub fn take_last(&mut self, message: &[u8]) -> bool {
        let State::Final { signature } = &self.state else {
            return false;
        };
        let text = std::str::from_utf8(message)
            .ok()
            .and_then(|text| text.strip_prefix("v="));
        // Extensions may follow (RFC 5802 section 7).
        let verifier = text.and_then(|text| text.split(',').next());
        let proved = verifier
            .and_then(|verifier| BASE64.decode(verifier).ok())
            .is_some_and(|theirs| theirs.ct_eq(signature).into());
        if proved {
            self.state = State::Proved;
        }
        proved
    }

    /// Whether the server has proved itself.
    pub fn has_proof(&self) -> bool {
        matches!(self.state, State::Proved)
    }
}

impl Server {
    /// `r=nonce,s=salt,i=iterations[,extensions]`; `m=` before it would be an extension that must be understood. The nonce
    /// begins with ours and goes on.
    fn parse(message: &str, own_nonce: &str) -> Option<Server> {
        let mut attributes = message.split(',');
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let salt = BASE64.decode(attributes.next()?.strip_prefix("s=")?).ok()?;
        let iterations = attributes.next()?.strip_prefix("i=")?;
        let digits = iterations.bytes().all(|octet| octet.is_ascii_digit());
        let iterations = iterations.parse().ok().filter(|n| digits && ITERATIONS.contains(n))?;
        let added = nonce.strip_prefix(own_nonce)?;
        let printable = added.bytes().all(|octet| octet.is_ascii_graphic());
        (printable && !added.is_empty() && !salt.is_empty()).then(|| Server {
            nonce: nonce.into(),
            salt: salt.into(),
            iterations,
        })
    }
}

/// Without what the signature is made of.
impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ScramKeys, salted_password};
    use super::*;
    use crate::smtp::sasl::{Exchange, Found, Mechanism, Turn};

    /// RFC 7677 section 3, whose nonce we cannot make: it is set.
    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let mut client = Initiator::new("user", &[0; 18]);
        client.nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        client.bare = "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned();
        assert_eq!(client.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert!(client.take_first(first));
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(client.derivation(), Some((salt.as_slice(), 4096)));
        let salted = salted_password(b"pencil", &salt, 4096);
        assert_eq!(
            client.last(&salted).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!client.has_proof());
        assert!(client.take_last(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(client.has_proof());
    }

    #[test]
    fn our_own_server_lets_us_in_and_proves_itself() {
        for user in ["alice", "a=li,ce", "j\u{f6}rg"] {
            let mut client = Initiator::new(user, &[3; 18]);
            let target = std::sync::Arc::from("mx.test");
            let (mut server, turn) = Exchange::begin(Mechanism::ScramSha256, &target, Some(client.first().as_bytes()));
            assert!(matches!(turn, Turn::Ask), "{user}: {turn:?}");
            let found = Found::ScramKeys {
                user: Some(user.into()),
                keys: ScramKeys::derive(b"s\xc3\xbc\xc3\x9fe", b"salt", 5000),
                random: [7; 18],
            };
            let Turn::Challenge(first) = server.found(found) else {
                panic!("no challenge")
            };
            assert!(client.take_first(&first));
            let (salt, iterations) = client.derivation().unwrap();
            let salted = salted_password("s\u{fc}\u{df}e".as_bytes(), salt, iterations);
            let Turn::Challenge(last) = server.respond(client.last(&salted).unwrap().as_bytes()) else {
                panic!("no proof")
            };
            assert!(client.take_last(&last));
            assert!(matches!(server.respond(b""), Turn::Done(name) if &*name == user));
        }
    }

    #[test]
    fn a_first_message_that_is_broken_or_asks_for_too_much_or_too_little_is_refused() {
        let nonce = BASE64.encode([3; 18]);
        let good = format!("r={nonce}x,s=c2FsdA==,i=4096");
        let client = || Initiator::new("user", &[3; 18]);
        assert!(client().take_first(good.as_bytes()));
        assert!(client().take_first(format!("{good},ext=1").as_bytes()));
        for bad in [
            String::new(),
            "e=other-error".to_owned(),
            good.replace(&nonce, "abc"),
            good.replace("x,", ","),
            good.replace("x,", "\u{7f},"),
            good.replace("s=c2FsdA==", "s="),
            good.replace("s=c2FsdA==", "s=?"),
            good.replace("s=c2FsdA==,", ""),
            good.replace("4096", "4095"),
            good.replace("4096", "1000001"),
            good.replace("4096", "+4096"),
            good.replace("4096", "99999999999999999999"),
            good.replace(",i=4096", ""),
            format!("m=1,{good}"),
        ] {
            assert!(!client().take_first(bad.as_bytes()), "{bad}");
        }
        let mut twice = client();
        assert!(twice.take_first(good.as_bytes()) && !twice.take_first(good.as_bytes()));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_not_believed() {
        let nonce = BASE64.encode([3; 18]);
        let ready = || {
            let mut client = Initiator::new("user", &[3; 18]);
            assert!(client.take_first(format!("r={nonce}x,s=c2FsdA==,i=4096").as_bytes()));
            client.last(&salted_password(b"pencil", b"salt", 4096)).unwrap();
            client
        };
        for last in [
            "",
            "v=",
            "e=invalid-proof",
            "v=AAAA",
            &format!("v={}", BASE64.encode([0; 32])),
        ] {
            let mut client = ready();
            assert!(!client.take_last(last.as_bytes()) && !client.has_proof(), "{last}");
        }
        let mut early = Initiator::new("user", &[3; 18]);
        assert!(!early.take_last(b"v=AAAA") && early.last(&Secret::new(&[0; 32])).is_none());
    }
}
