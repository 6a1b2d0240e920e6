//! Starting the shards: the counters that they share, and what each is made of.
//!
//! Promises: when it returns, every shard accepts connections, or there is a sentence that says why one does not. Lives on
//! the main thread.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use super::settings::SCOPES;
use super::{Happening, preflight};
use crate::log::Log;
use crate::lookup::{Desk, Heartbeats, Inbox};
use crate::maildir::Pool;
use crate::metrics::Metrics;
use crate::policy::rate::RateTable;
use crate::policy::tally::Tally;
use crate::policy::tarpit::Owed;
use crate::shard::{self, BoundSocket, Notice, Seed, Settings};
use crate::spool::directory::Directory;

/// Sources whose message rate is remembered for a minute, on each shard.
const RATED_SOURCES: usize = 16 << 10;
/// Clients that owe a tarpit.
const OWED_CELLS: usize = 16 << 10;
/// Connections that the tally has room for at most.
const TALLY_MOST: usize = 1 << 20;

/// What all shards are made of.
pub struct Makings<'a> {
    /// The cores to run on, in turns.
    pub cores: &'a [usize],
    /// The configuration to start with.
    pub settings: &'a Arc<Settings>,
    /// The largest limit of connections.
    pub most_connections: u64,
    /// One for each shard.
    pub inboxes: &'a [Arc<Inbox<Notice>>],
    /// Where questions to the control thread go.
    pub desk: &'a Desk,
    /// The file workers.
    pub pool: &'a Pool,
    /// The log.
    pub log: &'a Log,
    /// All metrics.
    pub metrics: &'a Arc<Metrics>,
    /// The signs of life.
    pub heartbeats: &'a Arc<Heartbeats>,
    /// The moment that all shards count seconds from.
    pub epoch: Instant,
}

impl Makings<'_> {
    /// Starts a shard on each set of sockets and waits until all have started. `tell` hears of each that ends.
    ///
    /// # Errors
    ///
    /// The sentence for the operator.
    pub fn start(
        &self,
        sockets: Vec<Vec<BoundSocket>>,
        directories: Vec<Directory>,
        tell: &Sender<Happening>,
    ) -> Result<(), String> {
        let shards = self.inboxes.len();
        let connections = usize::try_from(self.most_connections).unwrap_or(usize::MAX);
        let tally = Tally::new(shards, connections.min(TALLY_MOST), SCOPES);
        let rates = RateTable::new(shards, RATED_SOURCES);
        let owed = Arc::new(Owed::new(OWED_CELLS));
        let (started, starts) = mpsc::channel();
        for (index, ((sockets, inbox), directory)) in sockets.into_iter().zip(self.inboxes).zip(directories).enumerate()
        {
            let answers = inbox.clone();
            let seed = Seed {
                index,
                cpu: self
                    .cores
                    .get(index % self.cores.len().max(1))
                    .copied()
                    .unwrap_or_default(),
                settings: self.settings.clone(),
                sockets,
                column: tally.column(index),
                rates: rates.column(index),
                owed: owed.clone(),
                pool: self.pool.clone(),
                asker: self.desk.asker(Arc::new(move |ticket, answer| {
                    answers.send(Notice::Answer(ticket, answer))
                })),
                inbox: inbox.clone(),
                lines: self.log.buffer(),
                metrics: self.metrics.clone(),
                heartbeats: self.heartbeats.clone(),
                directory,
                epoch: self.epoch,
            };
            let thread = shard::start(seed, started.clone())
                .map_err(|error| preflight::shard_failed(&error.to_string(), shards))?;
            watch(thread, index, tell.clone());
        }
        // A shard that ends without a word must not leave us waiting for it.
        drop(started);
        for _ in 0..shards {
            let result = starts.recv().unwrap_or_else(|_| Err("its thread has ended".into()));
            result.map_err(|reason| preflight::shard_failed(&reason, shards))?;
        }
        Ok(())
    }
}

/// Tells when a shard's thread ends, however it does.
fn watch(thread: JoinHandle<()>, index: usize, tell: Sender<Happening>) {
    std::thread::spawn(move || {
        let _ = thread.join();
        let _ = tell.send(Happening::ShardEnded(index));
    });
}
