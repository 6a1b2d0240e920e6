//! Passwords held against their hashes, and salted for next hops, which takes milliseconds of a core each and is meant to.
//!
//! Promises: on helper threads, two at a time for clients and one for next hops, so that the control thread answers and other
//! helpers look at files meanwhile, and no hop keeps clients waiting; beyond a bounded queue nobody waits: the client hears that
//! it should come again. Lives on the control thread.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::lookup::Match;
use crate::policy::users::hash;
use crate::smtp::sasl::{self, Secret};

/// Helpers that compare at once.
const AT_ONCE: usize = 2;
/// Passwords that wait or are compared. At 40 ms each the last one waits for less than 3 s.
const MOST: usize = 128;
/// The same for next hops: whoever waits holds one of the places that all questions share.
const MOST_FOR_HOPS: usize = 64;

/// The queue.
#[derive(Debug)]
pub struct Passwords {
    helpers: Arc<Semaphore>,
    places: Semaphore,
    for_hops: Arc<Semaphore>,
    places_for_hops: Semaphore,
}

impl Default for Passwords {
    fn default() -> Passwords {
        Passwords {
            helpers: Arc::new(Semaphore::new(AT_ONCE)),
            places: Semaphore::new(MOST),
            for_hops: Arc::new(Semaphore::new(1)),
            places_for_hops: Semaphore::new(MOST_FOR_HOPS),
        }
    }
}

impl Passwords {
    /// Whether the password is the one of the hash.
    pub async fn compare(&self, hash: Arc<Secret>, password: Secret) -> Match {
        let Ok(_place) = self.places.try_acquire() else {
            return Match::Unknown;
        };
        let Ok(helper) = self.helpers.clone().acquire_owned().await else {
            return Match::Unknown;
        };
        let compared = spawn_blocking(move || {
            // With the helper, not with the question: a helper that is busy counts until it is done.
            let _helper = helper;
            hash::is_of(&hash, password.octets())
        });
        match compared.await {
            Ok(true) => Match::Yes,
            Ok(false) => Match::No,
            Err(_) => Match::Unknown,
        }
    }

    /// SaltedPassword of SCRAM (RFC 5802 section 3). None where too many wait: the hop is tried again later.
    pub async fn salted(&self, password: Secret, salt: Box<[u8]>, iterations: u32) -> Option<Secret> {
        let _place = self.places_for_hops.try_acquire().ok()?;
        let helper = self.for_hops.clone().acquire_owned().await.ok()?;
        let salted = spawn_blocking(move || {
            let _helper = helper;
            sasl::salted_password(password.octets(), &salt, iterations)
        });
        salted.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::users::hash::{Scheme, make};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(4)
            .build()
            .unwrap()
    }

    #[test]
    fn the_right_password_matches_and_another_does_not() {
        let hash = Arc::new(Secret::new(make(Scheme::Argon2id, "secret").unwrap().as_bytes()));
        runtime().block_on(async {
            let passwords = Passwords::default();
            assert_eq!(
                passwords.compare(hash.clone(), Secret::new(b"secret")).await,
                Match::Yes
            );
            assert_eq!(passwords.compare(hash, Secret::new(b"other")).await, Match::No);
        });
    }

    #[test]
    fn a_salted_password_is_that_of_the_document_and_waits_for_no_client() {
        runtime().block_on(async {
            let passwords = Passwords::default();
            let _busy = passwords.helpers.acquire_many(AT_ONCE as u32).await.unwrap();
            let salted = passwords
                .salted(Secret::new(b"pencil"), Box::from(*b"salt"), 4096)
                .await;
            assert_eq!(salted, Some(sasl::salted_password(b"pencil", b"salt", 4096)));
        });
    }

    #[test]
    fn beyond_the_queue_for_hops_nobody_waits() {
        runtime().block_on(async {
            let passwords = Passwords::default();
            let _waiting = passwords
                .places_for_hops
                .acquire_many(MOST_FOR_HOPS as u32)
                .await
                .unwrap();
            let salted = passwords.salted(Secret::new(b"pencil"), Box::from(*b"salt"), 4096);
            assert_eq!(salted.await, None);
        });
    }

    #[test]
    fn beyond_the_queue_nobody_waits() {
        let hash = Arc::new(Secret::new(b"{PLAIN}secret"));
        runtime().block_on(async {
            let passwords = Passwords::default();
            let places = passwords.places.acquire_many(MOST as u32).await.unwrap();
            assert_eq!(
                passwords.compare(hash.clone(), Secret::new(b"secret")).await,
                Match::Unknown
            );
            drop(places);
            assert_eq!(passwords.compare(hash, Secret::new(b"secret")).await, Match::Yes);
        });
    }
}
