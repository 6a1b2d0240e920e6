//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding.
//!
//! Promises: the password is never here; an unknown user gets a salt and an iteration count like others (RFC 5802 section
//! 9, by [`Found::ScramKeys`]) and fails at the end. Lives in its [`Exchange`](super::Exchange).

mod initiator;

pub use initiator::Initiator;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use icu_normalizer::ComposingNormalizerBorrowed;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Found, Random, Secret, Turn, Wanted, hmac_sha256, name};

/// What ServerKey is made of (RFC 5802 section 3).
const SERVER_KEY: &[u8] = b"Server Key";

/// What a server keeps of a password (RFC 5802 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramKeys {
    /// Of this user alone.
    pub salt: Box<[u8]>,
    /// Of PBKDF2.
    pub iterations: u32,
    /// H(ClientKey).
    pub stored_key: Secret,
    /// What the server proves itself with.
    pub server_key: Secret,
}

impl ScramKeys {
    /// The keys of a password. Takes milliseconds: not on a shard.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
        let salted = salted(password, salt, iterations);
        let stored_key = Sha256::digest(client_key(&salted));
        ScramKeys {
            salt: salt.into(),
            iterations,
            stored_key: Secret::new(&stored_key),
            server_key: Secret::new(&hmac_sha256(salted.as_slice(), &[SERVER_KEY])),
        }
    }

    /// Whether they are those of this password, in constant time but for the derivation.
    pub fn are_of(&self, password: &[u8]) -> bool {
        let theirs = ScramKeys::derive(password, &self.salt, self.iterations);
        theirs.stored_key.octets().ct_eq(self.stored_key.octets()).into()
    }
}

/// SaltedPassword of RFC 5802 section 3. Takes milliseconds: not on a shard.
pub fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Secret {
    Secret::new(salted(password, salt, iterations).as_slice())
}

fn salted(password: &[u8], salt: &[u8], iterations: u32) -> zeroize::Zeroizing<[u8; 32]> {
    let mut salted = zeroize::Zeroizing::new([0; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(&prepared(password), salt, iterations, salted.as_mut_slice());
    salted
}

/// ClientKey of RFC 5802 section 3.
pub fn client_key(salted_password: &[u8; 32]) -> [u8; 32] {
    hmac_sha256(salted_password, &[b"Client Key"])
}

/// A password as SASLprep has it (RFC 4013) as far as passwords that people type go: in normalisation form KC. Octets that
/// are no text stay.
pub fn prepared(password: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(match std::str::from_utf8(password) {
        Ok(text) if !text.is_ascii() => ComposingNormalizerBorrowed::new_nfkc()
            .normalize(text)
            .into_owned()
            .into_bytes(),
        _ => password.to_vec(),
    })
}

/// How far the exchange is.
#[derive(Debug, Default)]
pub enum Scram {
    /// Waiting for the client-first-message, or it was wrong.
    #[default]
    First,
    /// Its user is looked for.
    Asking(First),
    /// The server-first-message is sent.
    Final(Final),
    /// The server has proved itself; the client says nothing more.
    Last(Arc<str>),
}

/// The client-first-message, taken apart.
#[derive(Debug)]
pub struct First {
    gs2_header: Box<str>,
    bare: Box<str>,
    user: Box<str>,
    nonce: Box<str>,
}

/// What the client-final-message is held against.
#[derive(Debug)]
pub struct Final {
    gs2_header: Box<str>,
    /// client-first-message-bare and server-first-message, each with its comma.
    said: String,
    nonce: String,
    user: Option<Arc<str>>,
    keys: ScramKeys,
}

impl Scram {
    pub fn respond(&mut self, response: &[u8]) -> Turn {
        match std::mem::take(self) {
            Scram::First => match std::str::from_utf8(response).ok().and_then(First::parse) {
                Some(first) => {
                    *self = Scram::Asking(first);
                    Turn::Ask
                }
                None => Turn::Failed,
            },
            Scram::Final(expected) => match std::str::from_utf8(response).ok().and_then(|r| expected.proved(r)) {
                Some((user, signature)) => {
                    *self = Scram::Last(user);
                    Turn::Challenge(format!("v={}", BASE64.encode(signature)).into_bytes())
                }
                None => Turn::Failed,
            },
            Scram::Last(user) if response.is_empty() => Turn::Done(user),
            Scram::Last(_) | Scram::Asking(_) => Turn::Failed,
        }
    }

    pub fn wanted(&self) -> Option<Wanted<'_>> {
        match self {
            Scram::Asking(first) => Some(Wanted::ScramKeys { user: &first.user }),
            _ => None,
        }
    }

    pub fn found(&mut self, found: Found) -> Turn {
        let (Scram::Asking(first), Found::ScramKeys { user, keys, random }) = (std::mem::take(self), found) else {
            return Turn::Unavailable;
        };
        let nonce = format!("{}{}", first.nonce, server_nonce(random));
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
        *self = Scram::Final(Final {
            said: format!("{},{challenge},", first.bare),
            gs2_header: first.gs2_header,
            nonce,
            user,
            keys,
        });
        Turn::Challenge(challenge.into_bytes())
    }
}

/// 24 letters of base64, which has no comma.
fn server_nonce(random: Random) -> String {
    BASE64.encode(random)
}

impl First {
    /// `gs2-header [m=…,] n=user,r=nonce[,extensions]` (RFC 5802 section 7). A client that binds to a channel (`p=`) was
    /// not offered that; one that could have (`y`) saw that it was not offered.
    fn parse(message: &str) -> Option<First> {
        let (binding, rest) = message.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let gs2_header = message.strip_suffix(bare)?;
        let mut attributes = bare.split(',');
        // `m=` before it would be an extension that must be understood.
        let user = decoded(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let names_another = match authzid.strip_prefix("a=") {
            Some(authzid) => decoded(authzid)? != user,
            None => !authzid.is_empty(),
        };
        if names_another || nonce.is_empty() || !nonce.bytes().all(|octet| octet.is_ascii_graphic()) {
            return None;
        }
        Some(First {
            gs2_header: gs2_header.into(),
            bare: bare.into(),
            user: name(user.as_bytes())?.into(),
            nonce: nonce.into(),
        })
    }
}

/// `=2C` is a comma and `=3D` an equals sign; no other `=` may stand in a name.
fn decoded(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let rest = if let Some(rest) = part.strip_prefix("2C") {
            decoded.push(',');
            rest
        } else {
            decoded.push('=');
            part.strip_prefix("3D")?
        };
        decoded.push_str(rest);
    }
    Some(decoded)
}

impl Final {
    /// `c=…,r=…[,extensions],p=proof`: the user and the server's signature, where the proof is right.
    fn proved(&self, message: &str) -> Option<(Arc<str>, [u8; 32])> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let binding = BASE64.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let proof: [u8; 32] = BASE64.decode(proof).ok()?.try_into().ok()?;
        if binding != self.gs2_header.as_bytes() || nonce != self.nonce {
            return None;
        }
        let said = self.said.as_bytes();
        let signature = hmac_sha256(self.keys.stored_key.octets(), &[said, without_proof.as_bytes()]);
        let mut client_key = proof;
        client_key
            .iter_mut()
            .zip(signature)
            .for_each(|(key, octet)| *key ^= octet);
        let right = Sha256::digest(client_key)
            .as_slice()
            .ct_eq(self.keys.stored_key.octets());
        if !bool::from(right) {
            return None;
        }
        let server = hmac_sha256(self.keys.server_key.octets(), &[said, without_proof.as_bytes()]);
        Some((self.user.clone()?, server))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Exchange, Mechanism};
    use super::*;

    /// RFC 7677 section 3, but for the server's part of the nonce, which is random octets in base64 here.
    fn keys() -> ScramKeys {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        ScramKeys::derive(b"pencil", &salt, 4096)
    }

    fn random() -> Random {
        [7; 18]
    }

    fn begin(first: &str) -> (Exchange, Turn) {
        Exchange::begin(Mechanism::ScramSha256, &Arc::from("mx.test"), Some(first.as_bytes()))
    }

    fn answered(exchange: &mut Exchange, user: Option<&str>) -> String {
        let found = Found::ScramKeys {
            user: user.map(Arc::from),
            keys: keys(),
            random: random(),
        };
        match exchange.found(found) {
            Turn::Challenge(challenge) => String::from_utf8(challenge).unwrap(),
            turn => panic!("{turn:?}"),
        }
    }

    /// The client's last message for a server-first-message.
    fn client_final(gs2: &str, bare: &str, server: &str, password: &[u8]) -> String {
        let nonce = server.split(',').next().unwrap();
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &keys().salt, 4096, &mut salted);
        let without_proof = format!("c={},{nonce}", BASE64.encode(gs2));
        let auth = format!("{bare},{server},{without_proof}");
        let mut proof = client_key(&salted);
        let signature = hmac_sha256(&Sha256::digest(proof), &[auth.as_bytes()]);
        proof.iter_mut().zip(signature).for_each(|(key, octet)| *key ^= octet);
        format!("{without_proof},p={}", BASE64.encode(proof))
    }

    #[test]
    fn the_example_of_rfc_7677_is_proved() {
        let expected = Final {
            gs2_header: "n,,".into(),
            said: "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                   s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
                .into(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into(),
            user: Some("user".into()),
            keys: keys(),
        };
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (user, signature) = expected.proved(last).unwrap();
        assert_eq!(&*user, "user");
        assert_eq!(BASE64.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(keys().are_of(b"pencil") && !keys().are_of(b"pencils"));
    }

    #[test]
    fn the_right_password_is_taken_and_the_server_proves_itself() {
        for gs2 in ["n,,", "y,,", "n,a=us=2Cer,"] {
            let bare = "n=us=2Cer,r=abc";
            let (mut exchange, turn) = begin(&format!("{gs2}{bare}"));
            assert!(matches!(turn, Turn::Ask));
            assert_eq!(exchange.wanted(), Some(Wanted::ScramKeys { user: "us,er" }));
            let server = answered(&mut exchange, Some("us,er"));
            assert!(server.starts_with("r=abcBwcHBwcH"), "{server}");
            let last = client_final(gs2, bare, &server, b"pencil");
            assert!(matches!(exchange.respond(last.as_bytes()), Turn::Challenge(v) if v.starts_with(b"v=")));
            assert!(matches!(exchange.respond(b""), Turn::Done(user) if &*user == "us,er"));
        }
    }

    #[test]
    fn a_wrong_password_an_unknown_user_and_every_bent_message_fail() {
        let bare = "n=user,r=abc";
        let play = |user, password: &[u8], bend: fn(String) -> String| {
            let (mut exchange, _) = begin(&format!("n,,{bare}"));
            let server = answered(&mut exchange, user);
            let last = bend(client_final("n,,", bare, &server, password));
            exchange.respond(last.as_bytes())
        };
        let same = |message| message;
        assert!(matches!(play(Some("user"), b"pencil", same), Turn::Challenge(_)));
        assert!(matches!(play(Some("user"), b"pencils", same), Turn::Failed));
        assert!(matches!(play(None, b"pencil", same), Turn::Failed));
        let bends: [fn(String) -> String; 6] = [
            |m| m.replace("c=biws", "c=eSws"),
            |m| m.replace("r=abc", "r=abd"),
            |m| m.replace(",p=", ",x=1,p="),
            |m| m.replace(",p=", ",q="),
            |m| m.replace("c=biws,", ""),
            |m| m[..m.len() - 1].to_owned(),
        ];
        for bend in bends {
            assert!(matches!(play(Some("user"), b"pencil", bend), Turn::Failed));
        }
    }

    #[test]
    fn a_first_message_that_binds_acts_for_another_or_is_broken_fails() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=,r=abc",
            "n,,r=abc,n=user",
            "n,,m=1,n=user,r=abc",
            "n,,n=us=2xer,r=abc",
            "n,,n=user,r=a bc",
            "n,a=other,n=user,r=abc",
            "n,other,n=user,r=abc",
            "p=tls-exporter,,n=user,r=abc",
            "x,,n=user,r=abc",
        ] {
            assert!(matches!(begin(first).1, Turn::Failed), "{first}");
        }
    }

    #[test]
    fn what_answers_another_question_is_no_answer() {
        let (mut exchange, _) = begin("n,,n=user,r=abc");
        assert!(matches!(
            exchange.found(Found::Password(Some("user".into()))),
            Turn::Unavailable
        ));
    }
}
