//! The sending side of one connection.
//!
//! Promises: plain logic, as the receiving side is.

mod outcome;

pub use outcome::*;
