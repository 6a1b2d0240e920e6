//! The mechanisms of AUTH (RFC 4954, RFC 4422): an [`Exchange`] takes the client's responses and says what to send, what to
//! find out, and how it ended.
//!
//! Promises: sans-IO: neither base64 nor lines, no clock, no randomness, no list of users; what it needs of those it asks
//! for ([`Exchange::wanted`]). Takes any octets and never panics. What is secret is compared in constant time, never
//! shown by `Debug` and wiped when it goes. A user that nobody knows is computed with like any other. Lives with its
//! session.

mod ntlm;
mod plain;
mod scram;

pub use ntlm::nt_hash;
pub use scram::{ScramKeys, client_key, prepared, salted_password};

/// The clients' sides, for [`super::client`].
pub(in crate::smtp) mod initiator {
    pub use super::ntlm::Initiator as Ntlm;
    pub use super::scram::Initiator as Scram;
}

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac as _};
use md5::Md5;
use sha2::Sha256;
use zeroize::Zeroizing;

/// A mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// [MS-SMTPNTLM], NTLMv2 only.
    Ntlm,
    /// [MS-XLOGIN].
    Login,
    /// RFC 4616.
    Plain,
    /// RFC 7677, without channel binding.
    ScramSha256,
}

impl Mechanism {
    /// Every mechanism.
    pub const ALL: [Mechanism; 4] = [
        Mechanism::Ntlm,
        Mechanism::Login,
        Mechanism::Plain,
        Mechanism::ScramSha256,
    ];

    /// The name in EHLO and AUTH.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::Ntlm => "NTLM",
            Mechanism::Login => "LOGIN",
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    /// The mechanism of a name in any case.
    pub fn parse(name: &[u8]) -> Option<Mechanism> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether the password itself travels.
    pub const fn shows_password(self) -> bool {
        matches!(self, Mechanism::Login | Mechanism::Plain)
    }
}

/// Octets that are wiped when they go, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Keeps `octets`.
    pub fn new(octets: &[u8]) -> Secret {
        Secret(Zeroizing::new(octets.into()))
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What an exchange needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Random octets and the time.
    Nonce,
    /// The NT hash of this user.
    NtHash {
        /// As the client wrote it.
        user: &'a str,
    },
    /// The keys of this user, and random octets.
    ScramKeys {
        /// As the client wrote it.
        user: &'a str,
    },
    /// Whether this is the password of this user.
    Password {
        /// As the client wrote it.
        user: &'a str,
        /// As it came.
        password: &'a Secret,
    },
}

/// Random octets for one exchange.
pub type Random = [u8; 18];

/// The answer to what was [`Wanted`]. A user that is none has what looks like one's secrets, so that time tells nothing.
#[derive(Clone, Debug)]
pub enum Found {
    /// To [`Wanted::Nonce`].
    Nonce {
        /// Never the same twice.
        random: Random,
        /// Milliseconds since 1970.
        unix_millis: u64,
    },
    /// To [`Wanted::NtHash`].
    NtHash {
        /// The user's name in the list of users; none: it is not in there, or has no NT hash.
        user: Option<Arc<str>>,
        /// Theirs, or any.
        hash: Secret,
    },
    /// To [`Wanted::ScramKeys`].
    ScramKeys {
        /// As above.
        user: Option<Arc<str>>,
        /// Theirs, or made up.
        keys: ScramKeys,
        /// Never the same twice.
        random: Random,
    },
    /// To [`Wanted::Password`]: whose it is, or nobody's.
    Password(Option<Arc<str>>),
    /// Nobody could find out now.
    Unavailable,
}

/// What comes next.
#[derive(Debug)]
pub enum Turn {
    /// Send this challenge; [`Exchange::respond`] takes the response.
    Challenge(Vec<u8>),
    /// Find out [`Exchange::wanted`]; [`Exchange::found`] takes the answer.
    Ask,
    /// The client is this user.
    Done(Arc<str>),
    /// It is not who it says, or did not say it as the mechanism has it.
    Failed,
    /// It could not be found out now.
    Unavailable,
}

/// One authentication, from AUTH to its end.
#[derive(Debug)]
pub struct Exchange(State);

#[derive(Debug)]
enum State {
    Plain(plain::Plain),
    Login(plain::Login),
    Ntlm(ntlm::Ntlm),
    Scram(scram::Scram),
}

/// Octets of a user name that are looked at; longer ones are nobody's.
const MAX_NAME: usize = 512;

impl Exchange {
    /// Begins with the initial response, where AUTH had one. `target` is what NTLM calls this server: a host name that is
    /// public anyway.
    pub fn begin(mechanism: Mechanism, target: &Arc<str>, initial: Option<&[u8]>) -> (Exchange, Turn) {
        let mut exchange = Exchange(match mechanism {
            Mechanism::Plain => State::Plain(plain::Plain::default()),
            Mechanism::Login => State::Login(plain::Login::default()),
            Mechanism::Ntlm => State::Ntlm(ntlm::Ntlm::new(target.clone())),
            Mechanism::ScramSha256 => State::Scram(scram::Scram::default()),
        });
        let turn = match (initial, mechanism) {
            (Some(response), _) => exchange.respond(response),
            (None, Mechanism::Login) => Turn::Challenge(plain::USERNAME.to_vec()),
            // The client speaks first.
            (None, _) => Turn::Challenge(Vec::new()),
        };
        (exchange, turn)
    }

    /// The client's response to the last challenge.
    pub fn respond(&mut self, response: &[u8]) -> Turn {
        match &mut self.0 {
            State::Plain(plain) => plain.respond(response),
            State::Login(login) => login.respond(response),
            State::Ntlm(ntlm) => ntlm.respond(response),
            State::Scram(scram) => scram.respond(response),
        }
    }

    /// What [`Turn::Ask`] asks for.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        match &self.0 {
            State::Plain(plain) => plain.wanted(),
            State::Login(login) => login.wanted(),
            State::Ntlm(ntlm) => ntlm.wanted(),
            State::Scram(scram) => scram.wanted(),
        }
    }

    /// The answer; one to something else is as good as none.
    pub fn found(&mut self, found: Found) -> Turn {
        match (&mut self.0, found) {
            (State::Plain(_) | State::Login(_), Found::Password(user)) => user.map_or(Turn::Failed, Turn::Done),
            (State::Ntlm(ntlm), found) => ntlm.found(found),
            (State::Scram(scram), found) => scram.found(found),
            _ => Turn::Unavailable,
        }
    }
}

/// A user name that can be looked for.
fn name(octets: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(octets).ok()?;
    ((1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control)).then_some(name)
}

/// HMAC (RFC 2104) with MD5 of pieces one after the other.
fn hmac_md5(key: &[u8], pieces: &[&[u8]]) -> [u8; 16] {
    let mut mac = keyed::<Hmac<Md5>>(key);
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().into()
}

/// The same with SHA-256.
pub(super) fn hmac_sha256(key: &[u8], pieces: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed::<Hmac<Sha256>>(key);
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().into()
}

/// A key of HMAC may have any length: it never comes to the second half.
fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).unwrap_or_else(|_| M::new(&Default::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mechanism_is_known_in_any_case() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(mechanism.name().as_bytes()), Some(mechanism));
            assert_eq!(
                Mechanism::parse(mechanism.name().to_lowercase().as_bytes()),
                Some(mechanism)
            );
        }
        for name in [&b"SCRAM-SHA-256-PLUS"[..], b"CRAM-MD5", b"", b"NTLM "] {
            assert_eq!(Mechanism::parse(name), None);
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let wanted = Wanted::Password {
            user: "alice",
            password: &Secret::new(b"hunter2"),
        };
        assert!(!format!("{wanted:?}").contains("hunter2"));
        assert!(!format!("{wanted:?}").contains("104"));
    }
}
