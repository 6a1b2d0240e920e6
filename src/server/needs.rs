//! What a configuration asks of its host, for `postern tune`.
//!
//! Promises: the same sums as a start makes; starts nothing but one ring, which ends at once. Lives on the main thread.

use crate::config::Config;
use crate::host::facts::{Found, Missing, Needs};

use super::preflight;
use crate::shard;

/// What this configuration asks of its host.
pub fn of(config: &Config) -> Needs {
    let cores = preflight::cores().len();
    let shards = if config.shards == 0 { cores } else { config.shards };
    let sockets = config.bindings.iter().map(|b| b.addresses.len()).sum();
    let connections = super::most_connections(config);
    Needs {
        shards: shards as u64,
        files: preflight::files_for(connections, shards, sockets),
        connections,
        ports: config
            .bindings
            .iter()
            .flat_map(|b| b.addresses.iter().map(std::net::SocketAddr::port))
            .filter(|port| *port != 0)
            .collect(),
        data_dir: config.data_dir.clone(),
        drain: config.drain_timeout,
    }
}

/// The cores that this process may run on.
pub fn cores() -> u64 {
    preflight::cores().len() as u64
}

/// Whether a ring can be made here, by making one.
pub fn ring() -> Found<()> {
    // glommio would end the process where io_uring is switched off.
    preflight::io_uring_is_on().map_err(|_| Missing::Absent("io_uring is switched off, see io-uring".into()))?;
    let cpu = preflight::cores().first().copied().unwrap_or_default();
    // What it panics with is in the sentence already.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let tried = std::thread::spawn(move || shard::try_ring(cpu)).join();
    std::panic::set_hook(hook);
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(Missing::Unreadable(reason)),
        Err(_) => Err(Missing::Unreadable("the thread of the ring has ended".into())),
    }
}
