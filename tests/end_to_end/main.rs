//! The edge as its clients see it: the real binary on loopback addresses, held to the outside contract.

mod client;
mod edge;
mod settings;

mod admission;
mod auth;
mod bindings;
mod block_lists;
mod counts;
mod delivery;
mod editions;
mod memory;
mod proxy;
mod recipients;
mod start;
mod tarpit;
mod timers;
