//! Which sockets are open for which binding, over reloads.
//!
//! Promises: an address that stays keeps its sockets and loses no connection, also when its binding changes its name; a new
//! one is bound before anything else changes; an address that goes leaves no descriptor behind. Lives on the main thread.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::{BindingStatus, Phase, Status, preflight, role};
use crate::config::{BindingTls, Config};
use crate::control;
use crate::log::Log;
use crate::shard::{self, BoundSocket};

/// A listening address.
#[derive(Clone, Debug)]
pub struct Open {
    binding: Arc<str>,
    configured: SocketAddr,
    real: SocketAddr,
    implicit_tls: bool,
    /// A second descriptor of each shard's socket, for whoever answers when the shard does not.
    twins: Vec<Arc<TcpListener>>,
}

/// Every listening address.
#[derive(Clone, Debug, Default)]
pub struct Listening(Vec<Open>);

/// What a reload changes.
#[derive(Debug)]
pub struct Change {
    /// New sockets for each shard.
    pub sockets: Vec<Vec<BoundSocket>>,
    /// The listeners that stay or are new, with the binding that they belong to from now on.
    pub keep: Arc<[(Arc<str>, SocketAddr)]>,
    /// The addresses that are new.
    pub new: Vec<Open>,
}

impl Listening {
    /// Binds every address of the configuration, once for each shard.
    ///
    /// # Errors
    ///
    /// The sentence for the operator.
    pub fn open(&mut self, config: &Config, shards: usize, _log: &Log) -> Result<Vec<Vec<BoundSocket>>, String> {
        Ok(self.change(config, shards)?.sockets)
    }

    /// Binds the addresses that are new in the configuration, and lets go of those that are gone from it.
    ///
    /// # Errors
    ///
    /// The sentence for the operator; `self` is then to be thrown away.
    pub fn change(&mut self, config: &Config, shards: usize) -> Result<Change, String> {
        let mut sockets: Vec<Vec<BoundSocket>> = (0..shards).map(|_| Vec::new()).collect();
        let mut before = std::mem::take(&mut self.0);
        let mut new = Vec::new();
        for binding in &config.bindings {
            let name: Arc<str> = binding.name.as_str().into();
            let implicit_tls = binding.tls == BindingTls::Implicit;
            for configured in &binding.addresses {
                let same = |open: &Open| {
                    // Two ports 0 are told apart by their binding alone.
                    open.configured == *configured && (configured.port() != 0 || open.binding == name)
                };
                if let Some(at) = before.iter().position(same) {
                    let open = before.swap_remove(at);
                    self.0.push(Open {
                        binding: name.clone(),
                        implicit_tls,
                        ..open
                    });
                    continue;
                }
                let bound = shard::bind(&name, *configured, shards)
                    .map_err(|error| preflight::cannot_listen(&name, *configured, &error))?;
                let real = bound.first().map_or(*configured, |socket| socket.address);
                let open = Open {
                    binding: name.clone(),
                    configured: *configured,
                    real,
                    implicit_tls,
                    twins: twins(&bound)?,
                };
                self.0.push(open.clone());
                new.push(open);
                for (own, socket) in sockets.iter_mut().zip(bound) {
                    own.push(socket);
                }
            }
        }
        let keep = self.0.iter().map(|open| (open.binding.clone(), open.real)).collect();
        Ok(Change { sockets, keep, new })
    }

    /// The second descriptors of the sockets of each shard.
    pub fn twins(&self, shards: usize) -> control::Listeners {
        let twin = |open: &Open, shard: usize| {
            Some(control::Twin {
                socket: open.twins.get(shard)?.clone(),
                implicit_tls: open.implicit_tls,
            })
        };
        (0..shards)
            .map(|shard| self.0.iter().filter_map(|open| twin(open, shard)).collect())
            .collect()
    }

    /// Logs where every binding listens.
    pub fn announce(&self, log: &Log) {
        self.announce_new(&self.0, log);
    }

    /// Logs where these listen.
    pub fn announce_new(&self, new: &[Open], log: &Log) {
        for open in new {
            log.listening(&open.binding, open.real);
        }
    }

    /// What the status page shows.
    pub fn status(&self, config: &Config, shards: usize, phase: Phase) -> Status {
        let of = |name: &str| {
            self.0
                .iter()
                .filter(|open| &*open.binding == name)
                .map(|open| open.real)
                .collect()
        };
        Status {
            phase,
            hostname: config.hostname.clone(),
            shards,
            bindings: config
                .bindings
                .iter()
                .map(|b| BindingStatus {
                    name: b.name.clone(),
                    role: role(b.role),
                    addresses: of(&b.name),
                })
                .collect(),
        }
    }
}

fn twins(sockets: &[BoundSocket]) -> Result<Vec<Arc<TcpListener>>, String> {
    sockets
        .iter()
        .map(|bound| bound.socket.try_clone().map(|twin| Arc::new(TcpListener::from(twin))))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("cannot duplicate a listening socket: {error}"))
}
