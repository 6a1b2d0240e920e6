//! postern: an internet-facing edge MTA.
//!
//! Modules in layer order, lowest first; `tests/layers.rs` guards who may import whom.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// A panic costs a session, on other threads more: only tests may.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)
)]

pub mod smtp;

pub mod log;
pub mod lookup;
pub mod metrics;
pub mod timer;
pub mod tls;

pub mod policy;

pub mod maildir;
pub mod spool;

pub mod relay;

pub mod host;

pub mod control;
pub mod shard;

pub mod cli;
pub mod config;
pub mod server;
