//! Attempts of one route that wait for their turn.
//!
//! Promises: no more than the given number run at once; new messages and those tried before take turns, so that neither a
//! long queue nor a flood holds up the other. Attempts for which a client waits do not come here. Lives in its queue.

use std::collections::VecDeque;

use crate::spool::QueueId;

/// Groups that are due.
#[derive(Debug, Default)]
pub(super) struct Lane {
    fresh: VecDeque<(QueueId, u32)>,
    again: VecDeque<(QueueId, u32)>,
    fresh_next: bool,
    pub running: usize,
}

impl Lane {
    pub fn push(&mut self, id: QueueId, group: u32, tried_before: bool) {
        let queue = if tried_before { &mut self.again } else { &mut self.fresh };
        queue.push_back((id, group));
    }

    /// The next group. It may have been held, removed or tried since it came here.
    pub fn pop(&mut self) -> Option<(QueueId, u32)> {
        self.fresh_next = !self.fresh_next;
        let (first, second) = match self.fresh_next {
            true => (&mut self.fresh, &mut self.again),
            false => (&mut self.again, &mut self.fresh),
        };
        first.pop_front().or_else(|| second.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_messages_and_old_ones_take_turns() {
        let mut lane = Lane::default();
        for number in 0..6 {
            lane.push(QueueId::from_number(number), 0, number < 4);
        }
        let order: Vec<_> = std::iter::from_fn(|| lane.pop()).map(|(id, _)| id.number()).collect();
        assert_eq!(order, [4, 0, 5, 1, 2, 3]);
    }
}
