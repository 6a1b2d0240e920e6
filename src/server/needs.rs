//! What a configuration asks of its host, for `postern tune`.
//!
//! Promises: the same sums as a start makes; starts nothing but one ring, which ends at once. Lives on the main thread.

use rustix::process::Pid;

use crate::config::Config;
use crate::host::facts::{Found, Missing, Needs, Whose};

use super::preflight;
use crate::shard;

/// What this configuration asks of its host, run by this edge or from this shell.
pub fn of(config: &Config, whose: Whose) -> Needs {
    let shards = match config.shards {
        0 => cores_of(whose).len(),
        shards => shards,
    };
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

/// How many cores the edge may run on, or what is started from this shell.
pub fn cores(whose: Whose) -> u64 {
    cores_of(whose).len() as u64
}

/// Those of an edge that has just ended are not known any more.
fn cores_of(whose: Whose) -> Vec<usize> {
    let edge = match whose {
        Whose::Edge(pid) => i32::try_from(pid).ok().and_then(Pid::from_raw),
        Whose::Shell => None,
    };
    preflight::cores_of(edge).unwrap_or_else(|_| preflight::cores())
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
