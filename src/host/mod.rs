//! The host that postern runs on: what it allows, what would be better, and why.
//!
//! `advice` is the one source of what is recommended: `postern tune` judges by it, and tuning/README.md, tuning/sysctl.d and
//! tuning/limits.d are written from it. `proc` and `sync` read the live host, `facts` holds what they found, `judge` compares.
//!
//! Promises: reading changes nothing but a file of a few pages below `data_dir`, which it removes; what cannot be read is
//! said, not guessed; judging is a pure function of facts and advice. Lives on the main thread of `postern tune`.

pub mod advice;
pub mod facts;
pub mod judge;
pub mod proc;
pub mod sync;
