//! The shards.
