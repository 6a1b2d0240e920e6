//! Durability: what was acknowledged is found again after a crash.
//!
//! Promises: plain logic over files that others write and sync for it; the name of a message, [`QueueId`], lives here because
//! it is how a message is found again.

mod progress;
mod queue_id;

pub use progress::{Answer, Fate, Progress};
pub use queue_id::QueueId;
