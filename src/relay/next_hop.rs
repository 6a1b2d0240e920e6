//! Which address to try next, and which are dead.
//!
//! Promises: a dead address is passed over until its probe is due, and then one caller probes it; the table is bounded. Pure.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where a next hop listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// By IP.
    Inet(SocketAddr),
    /// A socket on this host.
    Local(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Local(path) => path.display().fmt(f),
        }
    }
}

/// What is known of addresses.
#[derive(Debug, Default)]
pub struct Health {
    dead: HashMap<Address, (u32, Instant)>,
    turn: usize,
}

impl Health {
    /// Which to try.
    pub fn choose(&mut self, addresses: &[Address], tried: &[Address], now: Instant) -> Option<Address> {
        self.turn = self.turn.wrapping_add(1);
        for step in 0..addresses.len() {
            let at = (self.turn + step) % addresses.len();
            let address = addresses.get(at)?;
            if tried.contains(address) {
                continue;
            }
            match self.dead.get_mut(address) {
                Some((_, probe)) if *probe > now => continue,
                Some((_, probe)) => *probe = now + Duration::from_secs(30),
                None => {}
            }
            return Some(address.clone());
        }
        None
    }

    /// It greeted us.
    pub fn answers(&mut self, address: &Address) {
        self.dead.remove(address);
    }

    /// It did not.
    pub fn failed(&mut self, address: &Address, now: Instant) {
        let entry = self.dead.entry(address.clone()).or_insert((0, now));
        entry.0 += 1;
        entry.1 = now + Duration::from_secs(1 << entry.0.min(6));
    }
}
