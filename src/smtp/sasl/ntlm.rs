//! NTLM ([MS-NLMP], [MS-SMTPNTLM]), the server's side: NEGOTIATE, CHALLENGE, AUTHENTICATE.
//!
//! Promises: NTLMv2 only: NTLMv1, LM and anonymous logons are refused. The proof of the NT hash is compared always and in
//! constant time, whatever the client says of a MIC; a MIC is checked where the client's own attributes, which the proof
//! covers, say that there is one. The challenge names this host as its greeting does, and nothing else. Lives in its
//! [`Exchange`](super::Exchange).

mod authenticate;
mod compute;
mod initiator;
mod message;

pub use compute::nt_hash;
pub use initiator::Initiator;

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::{Found, Secret, Turn, Wanted};
use authenticate::Authenticate;
use message::Challenge;

/// Octets of a NEGOTIATE message that are kept for the MIC: it has two names at most.
const MAX_NEGOTIATE: usize = 2048;

/// One exchange.
#[derive(Debug)]
pub struct Ntlm {
    target: Arc<str>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// NEGOTIATE is awaited.
    Begun,
    /// The nonce of the challenge is asked for.
    Asking { negotiate: Box<[u8]> },
    /// AUTHENTICATE is awaited.
    Challenged(Sent),
    /// Its user is looked for.
    Judging { sent: Sent, authenticate: Authenticate },
    /// It is over.
    Ended,
}

/// What the response is held against.
#[derive(Debug)]
struct Sent {
    negotiate: Box<[u8]>,
    challenge: Box<[u8]>,
    nonce: [u8; 8],
}

impl Ntlm {
    pub fn new(target: Arc<str>) -> Ntlm {
        Ntlm {
            target,
            state: State::Begun,
        }
    }

    pub fn respond(&mut self, response: &[u8]) -> Turn {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Begun if response.len() <= MAX_NEGOTIATE && message::is_negotiate(response) => {
                self.state = State::Asking {
                    negotiate: response.into(),
                };
                Turn::Ask
            }
            State::Challenged(sent) => match Authenticate::parse(response) {
                Some(authenticate) => {
                    self.state = State::Judging { sent, authenticate };
                    Turn::Ask
                }
                None => Turn::Failed,
            },
            _ => Turn::Failed,
        }
    }

    pub fn wanted(&self) -> Option<Wanted<'_>> {
        match &self.state {
            State::Asking { .. } => Some(Wanted::Nonce),
            State::Judging { authenticate, .. } => Some(Wanted::NtHash {
                user: &authenticate.user,
            }),
            _ => None,
        }
    }

    pub fn found(&mut self, found: Found) -> Turn {
        match (std::mem::replace(&mut self.state, State::Ended), found) {
            (State::Asking { negotiate }, Found::Nonce { random, unix_millis }) => {
                let [a, b, c, d, e, f, g, h, ..] = random;
                let nonce = [a, b, c, d, e, f, g, h];
                let challenge = Challenge {
                    target: &self.target,
                    nonce,
                    unix_millis,
                    client_flags: message::flags_of(&negotiate),
                }
                .encoded();
                self.state = State::Challenged(Sent {
                    negotiate,
                    challenge: challenge.clone().into(),
                    nonce,
                });
                Turn::Challenge(challenge)
            }
            (State::Judging { sent, authenticate }, Found::NtHash { user, hash }) => {
                match (sent.is_answered_by(&authenticate, &hash), user) {
                    (true, Some(user)) => Turn::Done(user),
                    _ => Turn::Failed,
                }
            }
            _ => Turn::Unavailable,
        }
    }
}

impl Sent {
    /// [MS-NLMP] 3.3.2 and 3.2.5.1.2: the proof, and the MIC where there is one.
    fn is_answered_by(&self, authenticate: &Authenticate, nt_hash: &Secret) -> bool {
        let key = compute::ntowf_v2(nt_hash.octets(), &authenticate.user, authenticate.domain());
        let proof = compute::nt_proof(&key, &self.nonce, authenticate.client_challenge());
        let proved = proof.ct_eq(authenticate.proof());
        let whole = match authenticate.mic() {
            None => subtle::Choice::from(1),
            Some(mic) => {
                let base = compute::session_base_key(&key, &proof);
                let Some(exported) = authenticate.exported_session_key(&base) else {
                    return false;
                };
                compute::mic(&exported, &self.negotiate, &self.challenge, &authenticate.without_mic()).ct_eq(mic)
            }
        };
        (proved & whole).into()
    }
}

#[cfg(test)]
mod tests;
