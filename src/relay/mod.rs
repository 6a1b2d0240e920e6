//! Onward: what is to be delivered, when and where.
//!
//! Promises: plain functions of what happened and `now`; no socket, file or clock. A [`queue::Queue`] lives on its shard
//! and is the only one to decide about attempts, acknowledgements, retries and reports.
//!
//! Start reading at [`queue`].

pub mod next_hop;
pub mod queue;
pub mod report;
pub mod retry;

pub use queue::{
    Action, Client, Delivery, Kind, Moment, NewGroup, NewMessage, Queue, Recovered, Refusal, Taker, Terms,
};
