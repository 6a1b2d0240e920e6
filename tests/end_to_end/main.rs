//! The edge as its clients see it: the real binary on loopback addresses, held to the outside contract.

mod client;
mod edge;

mod delivery;
