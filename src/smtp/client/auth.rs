//! The client's side of AUTH (RFC 4954, [MS-OXSMTP] section 3.1): which mechanism, and what it says.
//!
//! Promises: what it writes goes into the output and nowhere else; an exchange has a bounded number of rounds; where the
//! mechanism has the hop prove that it knows the password, one that has not is not believed. Lives with its connection.
//!
//! A hop asks for the first response in one of two forms: `334` without data (RFC 4954 section 4), or `334 MECHANISM
//! supported` ([MS-OXSMTP] section 2.2.1), which is checked to name the mechanism that was asked for. Where the first
//! response went with the command already, it is said again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::terms::Credentials;
use crate::smtp::sasl::{Mechanism, Random, Secret, initiator};

/// Octets of an AUTH command with its line end; a longer initial response waits for its challenge (RFC 4954 section 4).
const MAX_COMMAND: usize = 512;
/// Challenges that one exchange may have.
const MAX_ROUNDS: u8 = 4;

/// The order of preference.
pub(super) const PREFERENCE: [Mechanism; 4] = [
    Mechanism::Ntlm,
    Mechanism::ScramSha256,
    Mechanism::Plain,
    Mechanism::Login,
];

/// What an exchange needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Random octets and the time.
    Nonce,
    /// SaltedPassword of RFC 5802 section 3, which takes milliseconds to find out: not on a shard.
    SaltedPassword {
        /// Ours.
        password: &'a Secret,
        /// The hop's.
        salt: &'a [u8],
        /// The hop's, within bounds.
        iterations: u32,
    },
}

/// The answer to what was [`Wanted`].
#[derive(Clone, Debug)]
pub enum Found {
    /// To [`Wanted::Nonce`].
    Nonce {
        /// Never the same twice.
        random: Random,
        /// Milliseconds since 1970.
        unix_millis: u64,
    },
    /// To [`Wanted::SaltedPassword`].
    SaltedPassword(Secret),
    /// Nobody could find out now.
    Unavailable,
}

/// One AUTH that is under way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub mechanism: Mechanism,
    rounds: u8,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    /// `named`: the name has been sent.
    Login {
        named: bool,
    },
    /// NTLM or SCRAM-SHA-256, before the nonce is there.
    New,
    Ntlm(initiator::Ntlm),
    Scram {
        scram: initiator::Scram,
        password: Secret,
    },
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The output goes to the hop.
    Say,
    /// Find out [`Exchange::wanted`].
    Ask,
    /// The hop asks for what the mechanism does not have, or says what is none of it.
    Break,
}

impl Exchange {
    /// Writes AUTH, or asks for what it takes to write it.
    pub fn begin(mechanism: Mechanism, credentials: &Credentials, output: &mut Vec<u8>) -> (Exchange, Turn) {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::Login { named: false },
            Mechanism::Ntlm | Mechanism::ScramSha256 => State::New,
        };
        let exchange = Exchange {
            mechanism,
            rounds: 0,
            state,
        };
        let turn = match exchange.state {
            State::New => Turn::Ask,
            _ => exchange.say_auth(credentials, output),
        };
        (exchange, turn)
    }

    /// AUTH, with the first response where the mechanism has one and it is short enough.
    fn say_auth(&self, credentials: &Credentials, output: &mut Vec<u8>) -> Turn {
        // So that nothing is moved, and left behind, once the response stands in it.
        output.reserve(MAX_COMMAND);
        output.extend_from_slice(b"AUTH ");
        output.extend_from_slice(self.mechanism.name().as_bytes());
        if let Some(first) = self.first(credentials) {
            let response = Zeroizing::new(STANDARD.encode(first.as_slice()));
            if "AUTH  \r\n".len() + self.mechanism.name().len() + response.len() <= MAX_COMMAND {
                output.push(b' ');
                output.extend_from_slice(response.as_bytes());
            }
        }
        output.extend_from_slice(b"\r\n");
        Turn::Say
    }

    /// What the client says first; LOGIN's client is asked first.
    fn first(&self, credentials: &Credentials) -> Option<Zeroizing<Vec<u8>>> {
        match &self.state {
            State::Plain => Some(plain(credentials)),
            State::Login { .. } | State::New => None,
            State::Ntlm(ntlm) => Some(Zeroizing::new(ntlm.first().to_vec())),
            State::Scram { scram, .. } => Some(Zeroizing::new(scram.first().into_bytes())),
        }
    }

    /// Answers `334` with this text.
    pub fn challenge(&mut self, text: &[u8], credentials: &Credentials, output: &mut Vec<u8>) -> Turn {
        self.rounds += 1;
        let text = text.trim_ascii();
        let empty = text.is_empty() || self.is_supported_message(text);
        let of_another = !empty && text.to_ascii_lowercase().ends_with(b" supported");
        if self.rounds > MAX_ROUNDS || of_another {
            return Turn::Break;
        }
        let again = if empty && self.rounds == 1 {
            self.first(credentials)
        } else {
            None
        };
        let response = match (&mut self.state, again) {
            (_, Some(first)) => Some(first),
            (State::Login { named }, None) => login(named, text, credentials),
            (State::Plain | State::New, None) => None,
            (State::Ntlm(ntlm), None) => STANDARD.decode(text).ok().and_then(|challenge| {
                let answer = ntlm.answer(&challenge, &credentials.username, &credentials.password);
                answer.map(Zeroizing::new)
            }),
            (State::Scram { scram, .. }, None) => match STANDARD.decode(text) {
                Ok(message) if scram.take_first(&message) => return Turn::Ask,
                // The server's last message is answered with nothing (RFC 4954 section 4).
                Ok(message) if scram.take_last(&message) => Some(Zeroizing::default()),
                _ => None,
            },
        };
        match response {
            Some(response) => say(&response, output),
            None => Turn::Break,
        }
    }

    /// What [`Turn::Ask`] asks for.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        match &self.state {
            State::New => Some(Wanted::Nonce),
            State::Scram { scram, password } => {
                let (salt, iterations) = scram.derivation()?;
                Some(Wanted::SaltedPassword {
                    password,
                    salt,
                    iterations,
                })
            }
            _ => None,
        }
    }

    /// The answer; one to something else is as good as none.
    pub fn found(&mut self, found: &Found, credentials: &Credentials, output: &mut Vec<u8>) -> Turn {
        match (&mut self.state, found) {
            (State::New, Found::Nonce { random, unix_millis }) => {
                self.state = match self.mechanism {
                    Mechanism::Ntlm => State::Ntlm(initiator::Ntlm::new(random, *unix_millis)),
                    _ => State::Scram {
                        scram: initiator::Scram::new(&credentials.username, random),
                        password: Secret::new(credentials.password.as_bytes()),
                    },
                };
                self.say_auth(credentials, output)
            }
            (State::Scram { scram, .. }, Found::SaltedPassword(salted)) => match scram.last(salted) {
                Some(last) => say(last.as_bytes(), output),
                None => Turn::Break,
            },
            _ => Turn::Break,
        }
    }

    /// Whether AUTH has been sent.
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::New)
    }

    /// Whether a hop that says yes may say so now.
    pub fn may_end(&self) -> bool {
        match &self.state {
            State::Scram { scram, .. } => scram.has_proof(),
            _ => true,
        }
    }

    /// `MECHANISM supported`.
    fn is_supported_message(&self, text: &[u8]) -> bool {
        let name = self.mechanism.name().as_bytes();
        text.split_at_checked(name.len())
            .is_some_and(|(word, rest)| word.eq_ignore_ascii_case(name) && rest.eq_ignore_ascii_case(b" supported"))
    }
}

fn say(response: &[u8], output: &mut Vec<u8>) -> Turn {
    let encoded = Zeroizing::new(STANDARD.encode(response));
    output.reserve(encoded.len() + 2);
    output.extend_from_slice(encoded.as_bytes());
    output.extend_from_slice(b"\r\n");
    Turn::Say
}

/// `Username:` and `Password:` in base64, or whatever the hop calls them: the order is the same everywhere.
fn login(named: &mut bool, text: &[u8], credentials: &Credentials) -> Option<Zeroizing<Vec<u8>>> {
    let prompt = STANDARD.decode(text).unwrap_or_default().to_ascii_lowercase();
    let name = if prompt.starts_with(b"user") {
        true
    } else if prompt.starts_with(b"pass") {
        false
    } else {
        !*named
    };
    // The password is told once, after the name.
    if !name && !*named {
        return None;
    }
    *named = true;
    let said = if name {
        &credentials.username
    } else {
        &credentials.password
    };
    Some(Zeroizing::new(said.as_bytes().to_vec()))
}

/// RFC 4616 section 2, without an authorization identity.
fn plain(credentials: &Credentials) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(
        2 + credentials.username.len() + credentials.password.len(),
    ));
    message.push(0);
    message.extend_from_slice(credentials.username.as_bytes());
    message.push(0);
    message.extend_from_slice(credentials.password.as_bytes());
    message
}

/// Whether a text of the hop repeats what it was told.
pub(super) fn repeats(text: &str, credentials: &Credentials) -> bool {
    let secrets = [
        credentials.password.as_bytes().to_vec(),
        STANDARD.encode(credentials.password.as_bytes()).into_bytes(),
        STANDARD.encode(plain(credentials).as_slice()).into_bytes(),
    ];
    secrets.map(Zeroizing::new).iter().any(|secret| {
        let secret = secret.as_slice();
        !secret.is_empty() && memchr::memmem::find(text.as_bytes(), secret).is_some()
    })
}
