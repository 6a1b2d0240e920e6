//! Passwords held against their hashes, which takes milliseconds of a core each and is meant to.
//!
//! Promises: on helper threads, two at a time, so that the control thread answers and other helpers look at files meanwhile;
//! beyond a bounded queue nobody waits: the client hears that it should come again. Lives on the control thread.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::lookup::Match;
use crate::policy::users::hash;
use crate::smtp::sasl::Secret;

/// Helpers that compare at once.
const AT_ONCE: usize = 2;
/// Passwords that wait or are compared. At 40 ms each the last one waits for less than 3 s.
const MOST: usize = 128;

/// The queue.
#[derive(Debug)]
pub struct Passwords {
    helpers: Arc<Semaphore>,
    places: Semaphore,
}

impl Default for Passwords {
    fn default() -> Passwords {
        Passwords {
            helpers: Arc::new(Semaphore::new(AT_ONCE)),
            places: Semaphore::new(MOST),
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
