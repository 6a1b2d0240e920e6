//! The users: who may authenticate, with what, and as whom they may send.
//!
//! Promises: pure; a wrong line costs that line only and is reported by its number with what was expected; no secret is shown
//! by `Debug`. A name that nobody has is answered for like one that somebody has, with a hash to compare and a salt that
//! stays the same, so that neither replies nor time tell which names exist. Made by whoever read the file; lives on every
//! thread.

pub mod hash;
mod line;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::smtp::path::ReversePath;
use crate::smtp::sasl::{self, Found, Random, ScramKeys, Secret};
use hash::{PLAIN_ITERATIONS, SCRAM_ITERATIONS, Scheme};
use line::Line;

/// The most faults that are reported of one file.
const MOST_FAULTS: usize = 100;

/// What the answers for unknown names are made from: random, and the same as long as the process runs.
pub type Seed = [u8; 32];

/// The users of a file.
#[derive(Debug, Default)]
pub struct Users {
    /// By [`key`].
    by_name: HashMap<Box<str>, User>,
    /// Every password hash: one of them is compared where a name is nobody's.
    hashes: Vec<Arc<Secret>>,
    /// Every count of SCRAM's iterations.
    iterations: Vec<u32>,
    seed: Seed,
}

/// One user.
#[derive(Debug)]
pub struct User {
    /// As the file has it.
    pub name: Arc<str>,
    /// What PLAIN and LOGIN are held against: `{SCHEME}hash` of the first line.
    hash: Arc<Secret>,
    nt_hash: Option<Secret>,
    scram: Option<ScramKeys>,
    /// Keys of addresses, and `@domain` for each whole domain; none: anybody's.
    senders: Option<HashSet<Box<str>>>,
}

/// A line that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number, from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
}

/// What a file came to.
#[derive(Debug)]
pub struct Parsed {
    /// Everybody whose lines are right.
    pub users: Users,
    /// At most 100 of the lines that are not.
    pub faults: Vec<Fault>,
    /// How many passwords stand there as they are.
    pub plain: usize,
}

impl Users {
    /// Reads a file: `user:{SCHEME}hash`, then optionally `:senders=a@b,c@d`; empty lines and those that begin with `#` are
    /// passed over. Several lines of one user add up, so that NTLM and a strong hash go together; the first is what
    /// passwords are held against. Each `{PLAIN}` costs the milliseconds of a SCRAM derivation.
    pub fn parse(text: &str, seed: Seed) -> Parsed {
        let mut users = Users {
            seed,
            ..Users::default()
        };
        let (mut faults, mut plain) = (Vec::new(), 0);
        for (number, text) in (1..).zip(text.lines()) {
            let text = text.trim_end();
            if text.trim_start().is_empty() || text.trim_start().starts_with('#') {
                continue;
            }
            match Line::parse(text).and_then(|line| {
                plain += usize::from(line.scheme == Scheme::Plain);
                users.add(line)
            }) {
                Ok(()) => {}
                Err(expected) if faults.len() < MOST_FAULTS => faults.push(Fault { line: number, expected }),
                Err(_) => {}
            }
        }
        let by_name = users.by_name.values();
        users.hashes = by_name.clone().map(|user| user.hash.clone()).collect();
        users.iterations = by_name
            .filter_map(|u| u.scram.as_ref())
            .map(|keys| keys.iterations)
            .collect();
        Parsed { users, faults, plain }
    }

    fn add(&mut self, line: Line<'_>) -> Result<(), &'static str> {
        let key = key(line.name);
        let (nt_hash, scram) = match line.scheme {
            Scheme::Nt => (hash::nt(line.hash), None),
            Scheme::ScramSha256 => (None, hash::scram(line.hash)),
            // Of a password that is known everything can be made.
            Scheme::Plain => {
                let salt = self.made_up("salt", &key);
                let keys = ScramKeys::derive(
                    line.hash.as_bytes(),
                    salt.first_chunk::<16>().unwrap_or(&[0; 16]),
                    PLAIN_ITERATIONS,
                );
                (Some(sasl::nt_hash(line.hash)), Some(keys))
            }
            _ => (None, None),
        };
        let senders = line.senders()?;
        match self.by_name.get_mut(key.as_str()) {
            None => {
                let user = User {
                    name: line.name.into(),
                    hash: Arc::new(Secret::new(line.encoded.as_bytes())),
                    nt_hash,
                    scram,
                    senders,
                };
                self.by_name.insert(key.into(), user);
            }
            Some(user) => {
                let adds = nt_hash.is_some() && user.nt_hash.is_none() || scram.is_some() && user.scram.is_none();
                if !adds || senders.is_some() {
                    return Err(
                        "a user that no line above has, or {NT} or {SCRAM-SHA-256} beside another scheme, without senders=",
                    );
                }
                user.nt_hash = user.nt_hash.take().or(nt_hash);
                user.scram = user.scram.take().or(scram);
            }
        }
        Ok(())
    }

    /// The user whom a client calls `name`: by the whole name, then without a domain (`DOMAIN\user`, `user@domain`).
    pub fn find(&self, name: &str) -> Option<&User> {
        let key = key(name);
        let without_domain = || {
            let user = key.rsplit_once('\\').map_or(key.as_str(), |(_, user)| user);
            let bare = user.rsplit_once('@').map_or(user, |(user, _)| user);
            self.by_name.get(user).or_else(|| self.by_name.get(bare))
        };
        self.by_name.get(key.as_str()).or_else(without_domain)
    }

    /// Whether the user of this name in the list may send as `path`; reports (`<>`) are nobody's. False for one who is in
    /// the list no more.
    pub fn may_send_as(&self, name: &str, path: &ReversePath) -> bool {
        match (self.by_name.get(key(name).as_str()), path) {
            (
                Some(User {
                    senders: Some(senders), ..
                }),
                ReversePath::Mailbox(mailbox),
            ) => {
                senders.contains(mailbox.key().as_str())
                    || senders.contains(format!("@{}", mailbox.domain_key()).as_str())
            }
            (user, _) => user.is_some(),
        }
    }

    /// Whose password is held against which hash; no hash where there are no users at all.
    pub fn password(&self, name: &str) -> (Option<Arc<str>>, Option<Arc<Secret>>) {
        match self.find(name) {
            Some(user) => (Some(user.name.clone()), Some(user.hash.clone())),
            None => (None, self.one_of(&self.hashes, name).cloned()),
        }
    }

    /// The answer to [`sasl::Wanted::NtHash`].
    pub fn nt_hash(&self, name: &str) -> Found {
        let known = self.find(name).and_then(|user| Some((user, user.nt_hash.as_ref()?)));
        let made_up = self.made_up("nt", &key(name));
        Found::NtHash {
            user: known.map(|(user, _)| user.name.clone()),
            hash: known.map_or_else(
                || Secret::new(made_up.get(..16).unwrap_or_default()),
                |(_, hash)| hash.clone(),
            ),
        }
    }

    /// The answer to [`sasl::Wanted::ScramKeys`].
    pub fn scram_keys(&self, name: &str, random: Random) -> Found {
        let known = self.find(name).and_then(|user| Some((user, user.scram.as_ref()?)));
        let made_up = |what| self.made_up(what, &key(name));
        Found::ScramKeys {
            user: known.map(|(user, _)| user.name.clone()),
            keys: known.map(|(_, keys)| keys.clone()).unwrap_or_else(|| ScramKeys {
                salt: made_up("salt").get(..16).unwrap_or_default().into(),
                iterations: self.one_of(&self.iterations, name).copied().unwrap_or(SCRAM_ITERATIONS),
                stored_key: Secret::new(&made_up("stored")),
                server_key: Secret::new(&made_up("server")),
            }),
            random,
        }
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The same for one name each time, and for nobody to guess.
    fn made_up(&self, what: &str, key: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new(&{
            let mut block = [0; 64];
            block.iter_mut().zip(self.seed).for_each(|(to, from)| *to = from);
            block.into()
        });
        mac.update(what.as_bytes());
        mac.update(b"\0");
        mac.update(key.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn one_of<'a, T>(&self, all: &'a [T], name: &str) -> Option<&'a T> {
        let number = self
            .made_up("one", &key(name))
            .first_chunk()
            .map_or(0, |n| u64::from_le_bytes(*n));
        all.get(usize::try_from(number.checked_rem(all.len() as u64)?).ok()?)
    }
}

/// What makes two names the same.
fn key(name: &str) -> String {
    name.to_lowercase()
}

#[cfg(test)]
mod tests;
