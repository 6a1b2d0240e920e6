//! Who may write a column: the shape that [`tally`](super::tally) and [`rate`](super::rate) share.
//!
//! A table for several shards is cut into columns. Exactly one thread writes a column, every thread reads all of them,
//! so a change is a plain store and no shard ever waits for another. This file keeps the "exactly one": a column is
//! handed out once until it comes back. Used when a shard starts and ends, never on the way of a message.

use std::sync::atomic::{AtomicBool, Ordering};

/// One mark for each column: whether a shard holds it.
#[derive(Debug)]
pub(super) struct Ownership(Box<[AtomicBool]>);

impl Ownership {
    /// Nobody holds any of `columns` columns.
    pub(super) fn new(columns: usize) -> Ownership {
        Ownership((0..columns).map(|_| AtomicBool::new(false)).collect())
    }

    /// Whether `column` exists and was free; it is held from now on. `Acquire` pairs with [`Ownership::give_back`]: what
    /// the last holder stored is seen by the next one.
    pub(super) fn take(&self, column: usize) -> bool {
        self.0
            .get(column)
            .is_some_and(|held| !held.swap(true, Ordering::Acquire))
    }

    /// The holder writes no more.
    pub(super) fn give_back(&self, column: usize) {
        if let Some(held) = self.0.get(column) {
            held.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_handed_out_once_until_it_comes_back() {
        let ownership = Ownership::new(2);
        assert!(ownership.take(0));
        assert!(!ownership.take(0));
        assert!(ownership.take(1));
        ownership.give_back(0);
        assert!(ownership.take(0));
        assert!(!ownership.take(2), "there is no such column");
    }
}
