//! Who may do what: pure functions of state and `now`.
//!
//! Promises: no sockets, no files, no clock; a limit of N never admits N + 1, whichever shards ask. The tables that shards
//! share ([`tally`], [`rate`], [`tarpit`], [`resources`]) are lock-free; a [`Policy`] is an immutable snapshot of one
//! configuration, swapped whole on reload.

pub mod admission;
pub mod binding;
mod column;
pub mod dynamic_list;
pub mod network;
pub mod rate;
pub mod resources;
pub mod routing;
pub mod tally;
pub mod tarpit;
pub mod users;

use std::sync::Arc;

use arc_swap::ArcSwap;

use admission::Access;
use binding::Binding;
use routing::Routing;
use users::Users;

/// Everything that one configuration decides for the shards. New sessions take the newest; a session keeps its own.
#[derive(Debug)]
pub struct Policy {
    /// Where clients connect to.
    pub bindings: Vec<Arc<Binding>>,
    /// Which addresses may not.
    pub access: Access,
    /// Which recipients are taken, and where their mail goes.
    pub routing: Routing,
    /// Who may authenticate; swapped when their file changes.
    pub users: Arc<ArcSwap<Users>>,
}
