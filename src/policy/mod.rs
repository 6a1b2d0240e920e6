//! Who may do what: pure functions of state and `now`.

pub mod admission;
pub mod binding;
mod column;
mod dynamic_list;
pub mod network;
pub mod rate;
pub mod resources;
pub mod routing;
pub mod tally;
pub mod tarpit;
