//! The client's side of AUTH (RFC 4954, [MS-OXSMTP] section 3.1): which mechanism, and what it says.
//!
//! Promises: what it writes goes into the output and nowhere else; an exchange has a bounded number of rounds. Lives with
//! its connection.
//!
//! A hop asks for the first response in one of two forms: `334` without data (RFC 4954 section 4), or `334 MECHANISM
//! supported` ([MS-OXSMTP] section 2.2.1), which is checked to name the mechanism that was asked for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::terms::Credentials;

/// Octets of an AUTH command with its line end; a longer initial response waits for its challenge (RFC 4954 section 4).
const MAX_COMMAND: usize = 512;
/// Challenges that one exchange may have.
const MAX_ROUNDS: u8 = 4;

/// How to authenticate. The order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// [MS-XLOGIN].
    Login,
}

impl Mechanism {
    /// Every mechanism, the best first.
    pub const ALL: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

    /// The name in the EHLO reply and in AUTH.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// The mechanism of a name in any case.
    pub(super) fn parse(name: &[u8]) -> Option<Mechanism> {
        Self::ALL
            .into_iter()
            .find(|m| m.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether whoever hears it has the password, so that it needs TLS.
    pub const fn shows_password(self) -> bool {
        match self {
            Mechanism::Plain | Mechanism::Login => true,
        }
    }
}

/// One AUTH that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub mechanism: Mechanism,
    rounds: u8,
    /// LOGIN: the name has been sent.
    named: bool,
}

impl Exchange {
    /// Writes AUTH.
    pub fn begin(mechanism: Mechanism, credentials: &Credentials, output: &mut Vec<u8>) -> Exchange {
        output.extend_from_slice(b"AUTH ");
        output.extend_from_slice(mechanism.name().as_bytes());
        if mechanism == Mechanism::Plain {
            let response = STANDARD.encode(plain(credentials).as_slice());
            let response = Zeroizing::new(response);
            if "AUTH PLAIN \r\n".len() + response.len() <= MAX_COMMAND {
                output.push(b' ');
                output.extend_from_slice(response.as_bytes());
            }
        }
        output.extend_from_slice(b"\r\n");
        Exchange {
            mechanism,
            rounds: 0,
            named: false,
        }
    }

    /// Answers `334` with this text; false where the hop asks for what this mechanism does not have.
    pub fn challenge(&mut self, text: &[u8], credentials: &Credentials, output: &mut Vec<u8>) -> bool {
        self.rounds += 1;
        let text = text.trim_ascii();
        let first = text.is_empty() || self.is_supported_message(text);
        let of_another = !first && text.to_ascii_lowercase().ends_with(b" supported");
        if self.rounds > MAX_ROUNDS || of_another {
            return false;
        }
        let response = match self.mechanism {
            Mechanism::Plain if first => Some(plain(credentials)),
            Mechanism::Plain => None,
            Mechanism::Login => self.login(text, credentials),
        };
        let Some(response) = response else {
            return false;
        };
        let encoded = Zeroizing::new(STANDARD.encode(response.as_slice()));
        output.extend_from_slice(encoded.as_bytes());
        output.extend_from_slice(b"\r\n");
        true
    }

    /// `Username:` and `Password:` in base64, or whatever the hop calls them: the order is the same everywhere.
    fn login(&mut self, text: &[u8], credentials: &Credentials) -> Option<Zeroizing<Vec<u8>>> {
        let prompt = STANDARD.decode(text).unwrap_or_default().to_ascii_lowercase();
        let name = if prompt.starts_with(b"user") {
            true
        } else if prompt.starts_with(b"pass") {
            false
        } else {
            !self.named
        };
        // The password is told once, after the name.
        if !name && !self.named {
            return None;
        }
        self.named = true;
        let said = if name {
            &credentials.username
        } else {
            &credentials.password
        };
        Some(Zeroizing::new(said.as_bytes().to_vec()))
    }

    /// `MECHANISM supported`.
    fn is_supported_message(&self, text: &[u8]) -> bool {
        let name = self.mechanism.name().as_bytes();
        text.split_at_checked(name.len())
            .is_some_and(|(word, rest)| word.eq_ignore_ascii_case(name) && rest.eq_ignore_ascii_case(b" supported"))
    }
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
