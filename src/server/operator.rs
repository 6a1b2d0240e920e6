//! The way of an operator's commands: from the socket below `data_dir` to the shards.
//!
//! Promises: an edge that cannot make its socket says so and serves all the same. Lives on the main thread.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::config::Config;
use crate::control::operator::{Operator, Place};
use crate::log::{Level, Log};
use crate::lookup::Inbox;
use crate::lookup::operator::Request;
use crate::shard::Notice;

/// Makes the socket: its file, which goes when this is dropped, and what is to be accepted from. None where there is none.
pub fn socket(config: &Config, log: &Log) -> Option<(Place, UnixListener)> {
    match Place::bind(&config.data_dir) {
        Ok(socket) => Some(socket),
        Err(error) => {
            log.event(
                Level::Error,
                "`postern queue` cannot reach this edge",
                &[("reason", &error)],
            );
            None
        }
    }
}

/// What the control thread serves it with.
pub fn to_shards(listener: UnixListener, inboxes: Vec<Arc<Inbox<Notice>>>) -> Operator {
    Operator {
        listener,
        shards: inboxes.len(),
        ask: Arc::new(move |shard, question, reply_to| {
            if let Some(inbox) = inboxes.get(shard) {
                inbox.send(Notice::Operator(Request { question, reply_to }));
            }
        }),
    }
}
