//! PLAIN (RFC 4616) and LOGIN ([MS-XLOGIN]): the password itself travels.
//!
//! Promises: the password is kept in a [`Secret`] only; nothing is said of a name before the password is there. Lives in
//! its [`Exchange`](super::Exchange).

use super::{Secret, Turn, Wanted, name};

/// LOGIN's two challenges ([MS-XLOGIN] section 2.2): `VXNlcm5hbWU6` and `UGFzc3dvcmQ6` on the wire.
pub const USERNAME: &[u8] = b"Username:";
const PASSWORD: &[u8] = b"Password:";

/// Who says to be whom.
#[derive(Debug)]
struct Claim {
    user: Box<str>,
    password: Secret,
}

impl Claim {
    /// None where it cannot be anybody's.
    fn new(user: &[u8], password: &[u8]) -> Option<Claim> {
        let user = name(user)?.into();
        (!password.is_empty() && !password.contains(&0)).then(|| Claim {
            user,
            password: Secret::new(password),
        })
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted::Password {
            user: &self.user,
            password: &self.password,
        }
    }
}

/// RFC 4616: one message.
#[derive(Debug, Default)]
pub struct Plain(Option<Claim>);

impl Plain {
    /// `[authzid] NUL authcid NUL passwd`. To act for somebody else is nobody's right here.
    pub fn respond(&mut self, response: &[u8]) -> Turn {
        let mut parts = response.splitn(3, |&octet| octet == 0);
        let (Some(authzid), Some(authcid), Some(password)) = (parts.next(), parts.next(), parts.next()) else {
            return Turn::Failed;
        };
        if !authzid.is_empty() && authzid != authcid {
            return Turn::Failed;
        }
        self.0 = Claim::new(authcid, password);
        self.0.as_ref().map_or(Turn::Failed, |_| Turn::Ask)
    }

    pub fn wanted(&self) -> Option<Wanted<'_>> {
        self.0.as_ref().map(Claim::wanted)
    }
}

/// [MS-XLOGIN]: a name, then a password.
#[derive(Debug, Default)]
pub struct Login {
    user: Option<Box<[u8]>>,
    claim: Option<Claim>,
}

impl Login {
    pub fn respond(&mut self, response: &[u8]) -> Turn {
        let Some(user) = self.user.take() else {
            self.user = Some(response.into());
            return Turn::Challenge(PASSWORD.to_vec());
        };
        self.claim = Claim::new(&user, response);
        self.claim.as_ref().map_or(Turn::Failed, |_| Turn::Ask)
    }

    pub fn wanted(&self) -> Option<Wanted<'_>> {
        self.claim.as_ref().map(Claim::wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Exchange, Found, Mechanism};
    use super::*;

    fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Exchange, Turn) {
        Exchange::begin(mechanism, &Arc::from("mx.test"), initial)
    }

    #[test]
    fn plain_takes_one_message_with_the_response_or_after_an_empty_challenge() {
        let message = b"\0alice\0secret";
        let (mut exchange, turn) = begin(Mechanism::Plain, None);
        assert!(matches!(turn, Turn::Challenge(text) if text.is_empty()));
        assert!(matches!(exchange.respond(message), Turn::Ask));
        let (mut initial, turn) = begin(Mechanism::Plain, Some(message));
        assert!(matches!(turn, Turn::Ask));
        let wanted = Wanted::Password {
            user: "alice",
            password: &Secret::new(b"secret"),
        };
        assert_eq!(exchange.wanted(), Some(wanted));
        assert_eq!(initial.wanted(), Some(wanted));
        assert!(matches!(exchange.found(Found::Password(Some("alice".into()))), Turn::Done(user) if &*user == "alice"));
        assert!(matches!(initial.found(Found::Password(None)), Turn::Failed));
        assert!(matches!(initial.found(Found::Unavailable), Turn::Unavailable));
    }

    #[test]
    fn plain_that_is_not_as_the_grammar_has_it_or_acts_for_another_fails() {
        for message in [
            &b""[..],
            b"alice",
            b"\0alice",
            b"\0alice\0",
            b"\0\0secret",
            b"bob\0alice\0secret",
            b"\0alice\0sec\0ret",
            b"\0\xff\0secret",
            b"\0al\nice\0secret",
        ] {
            let (exchange, turn) = begin(Mechanism::Plain, Some(message));
            assert!(matches!(turn, Turn::Failed), "{}", message.escape_ascii());
            assert!(exchange.wanted().is_none() || !message.starts_with(b"bob"));
        }
        let (_, turn) = begin(Mechanism::Plain, Some(b"alice\0alice\0secret"));
        assert!(matches!(turn, Turn::Ask));
        let long = [b"\0", "a".repeat(513).as_bytes(), b"\0x"].concat();
        assert!(matches!(begin(Mechanism::Plain, Some(&long)).1, Turn::Failed));
    }

    #[test]
    fn login_asks_for_a_name_unless_it_is_there_and_then_for_a_password() {
        let (mut exchange, turn) = begin(Mechanism::Login, None);
        assert!(matches!(turn, Turn::Challenge(text) if text == b"Username:"));
        assert!(matches!(exchange.respond(b"alice"), Turn::Challenge(text) if text == b"Password:"));
        assert!(matches!(exchange.respond(b"secret"), Turn::Ask));
        let (mut exchange, turn) = begin(Mechanism::Login, Some(b""));
        assert!(matches!(turn, Turn::Challenge(text) if text == b"Password:"));
        assert!(
            matches!(exchange.respond(b"secret"), Turn::Failed),
            "an empty name is nobody's"
        );
    }
}
