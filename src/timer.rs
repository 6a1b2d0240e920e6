//! The timer wheel: whom to look at, and when.
//!
//! The wheel holds reminders, not alarms: on its turn a connection is asked for its true deadline and, if that is later,
//! put back. So a deadline that moves later (every command does that) costs nothing. One glommio timer a shard turns it.
//!
//! Promises: nobody is reminded before the deadline that was armed, nor later than one slot (100 ms) plus the time
//! between two turns; a key has at most one reminder, so memory is 24 octets for each key up to the highest; arming is
//! O(1). No clock is read. Lives on the thread of its shard.

use std::time::{Duration, Instant};

/// The resolution.
pub const SLOT: Duration = Duration::from_millis(100);

/// 4096 slots of 100 ms are 6 min 50 s. A deadline behind that horizon is looked at on the horizon and put back, which
/// is what happens to most reminders anyway; a second wheel for it would be code without a gain.
const SLOTS: u64 = 4096;

/// No key.
const NONE: usize = usize::MAX;

/// What a look at a connection gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Its deadline has come and was dealt with: the reminder is gone.
    Fired,
    /// There is no such connection any more: the reminder is gone.
    Gone,
    /// Its deadline is later: it is put back.
    At(Instant),
}

/// Reminders to look at connections, by the key of the connection in its slab (dense, small numbers).
#[derive(Debug)]
pub struct TimerWheel {
    epoch: Instant,
    /// The last slot that has been turned, in slots since the epoch.
    turned: u64,
    /// The first key of each slot.
    heads: Box<[usize]>,
    /// By key: a doubly linked list through each slot.
    reminders: Vec<Reminder>,
    armed: usize,
    /// The keys of one turn; kept for its memory.
    due: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Reminder {
    /// The slot, in slots since the epoch; 0 is not armed, as slot 0 is turned from the start.
    slot: u64,
    previous: usize,
    next: usize,
}

const UNARMED: Reminder = Reminder {
    slot: 0,
    previous: NONE,
    next: NONE,
};

impl TimerWheel {
    /// An empty wheel whose slots begin at `epoch`.
    pub fn new(epoch: Instant) -> TimerWheel {
        TimerWheel {
            epoch,
            turned: 0,
            heads: vec![NONE; SLOTS as usize].into_boxed_slice(),
            reminders: Vec::new(),
            armed: 0,
            due: Vec::new(),
        }
    }

    /// Sees to it that `key` is looked at soon after `deadline`. Needed for a new connection and for a deadline that moved
    /// earlier; for one that moved later it does nothing, the look at the earlier time will find out.
    pub fn arm(&mut self, key: usize, deadline: Instant) {
        if key >= self.reminders.len() {
            self.reminders.resize(key + 1, UNARMED);
        }
        let slot = self.slot(deadline);
        match self.reminders[key].slot {
            0 => self.link(key, slot),
            armed if slot < armed => {
                self.unlink(key);
                self.link(key, slot);
            }
            _ => {}
        }
    }

    /// Looks at everybody whose slot has passed at `now`. Not more often than once a slot is of use.
    pub fn turn(&mut self, now: Instant, mut look: impl FnMut(usize) -> Look) {
        let passed = slots(now.saturating_duration_since(self.epoch));
        if passed <= self.turned {
            return;
        }
        // After a pause longer than the wheel every slot is due, once. Collected first, because those put back belong to
        // slots that this turn empties.
        let mut due = std::mem::take(&mut self.due);
        for slot in passed.saturating_sub(SLOTS - 1).max(self.turned + 1)..=passed {
            let mut key = std::mem::replace(&mut self.heads[(slot % SLOTS) as usize], NONE);
            while key != NONE {
                due.push(key);
                key = std::mem::replace(&mut self.reminders[key], UNARMED).next;
            }
        }
        self.turned = passed;
        self.armed -= due.len();
        for key in due.drain(..) {
            if let Look::At(deadline) = look(key) {
                let slot = self.slot(deadline);
                self.link(key, slot);
            }
        }
        self.due = due;
    }

    /// When the next turn will find somebody to look at; none for an empty wheel.
    pub fn next(&self) -> Option<Instant> {
        if self.armed == 0 {
            return None;
        }
        let slot = (self.turned + 1..=self.turned + SLOTS).find(|slot| self.heads[(slot % SLOTS) as usize] != NONE)?;
        self.epoch
            .checked_add(Duration::from_millis(slot.saturating_mul(SLOT.as_millis() as u64)))
    }

    /// How many reminders there are.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether there is no reminder.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// The slot at whose passing `deadline` has come (rounded up: never early), within what the wheel can hold.
    fn slot(&self, deadline: Instant) -> u64 {
        let wait = deadline.saturating_duration_since(self.epoch);
        let slot = slots(wait.saturating_add(SLOT - Duration::from_nanos(1)));
        slot.clamp(self.turned + 1, self.turned + SLOTS)
    }

    fn link(&mut self, key: usize, slot: u64) {
        let head = &mut self.heads[(slot % SLOTS) as usize];
        let next = std::mem::replace(head, key);
        if let Some(reminder) = self.reminders.get_mut(next) {
            reminder.previous = key;
        }
        self.reminders[key] = Reminder {
            slot,
            previous: NONE,
            next,
        };
        self.armed += 1;
    }

    fn unlink(&mut self, key: usize) {
        let Reminder { slot, previous, next } = std::mem::replace(&mut self.reminders[key], UNARMED);
        match self.reminders.get_mut(previous) {
            Some(reminder) => reminder.next = next,
            None => self.heads[(slot % SLOTS) as usize] = next,
        }
        if let Some(reminder) = self.reminders.get_mut(next) {
            reminder.previous = previous;
        }
        self.armed -= 1;
    }
}

/// Whole slots in `span`.
fn slots(span: Duration) -> u64 {
    u64::try_from(span.as_nanos() / SLOT.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn looked_at(wheel: &mut TimerWheel, now: Instant) -> Vec<usize> {
        let mut keys = Vec::new();
        wheel.turn(now, |key| {
            keys.push(key);
            Look::Fired
        });
        keys.sort_unstable();
        keys
    }

    #[test]
    fn nobody_is_looked_at_before_the_deadline_or_a_slot_after() {
        let epoch = Instant::now();
        let mut wheel = TimerWheel::new(epoch);
        for (key, wait) in [0, 1, 99, 100, 101, 200].into_iter().enumerate() {
            wheel.arm(key, epoch + wait * MS);
        }
        assert_eq!(looked_at(&mut wheel, epoch + 99 * MS), [0; 0]);
        assert_eq!(looked_at(&mut wheel, epoch + 100 * MS), [0, 1, 2, 3]);
        assert_eq!(looked_at(&mut wheel, epoch + 199 * MS), [0; 0]);
        assert_eq!(looked_at(&mut wheel, epoch + 200 * MS), [4, 5]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_that_moved_later_costs_a_look_and_is_put_back() {
        let epoch = Instant::now();
        let mut wheel = TimerWheel::new(epoch);
        wheel.arm(7, epoch + 100 * MS);
        wheel.arm(7, epoch + 900 * MS);
        assert_eq!(wheel.len(), 1);
        let mut looks = 0;
        wheel.turn(epoch + 100 * MS, |key| {
            looks += 1;
            assert_eq!(key, 7);
            Look::At(epoch + 900 * MS)
        });
        assert_eq!((looks, wheel.len(), wheel.next()), (1, 1, Some(epoch + 900 * MS)));
        assert_eq!(looked_at(&mut wheel, epoch + 899 * MS), [0; 0]);
        assert_eq!(looked_at(&mut wheel, epoch + 900 * MS), [7]);
    }

    #[test]
    fn a_deadline_that_moved_earlier_holds_when_armed_again() {
        let epoch = Instant::now();
        let mut wheel = TimerWheel::new(epoch);
        for key in 0..3 {
            wheel.arm(key, epoch + 500 * MS);
        }
        wheel.arm(1, epoch + 200 * MS);
        assert_eq!(wheel.len(), 3);
        assert_eq!(looked_at(&mut wheel, epoch + 200 * MS), [1]);
        assert_eq!(looked_at(&mut wheel, epoch + 500 * MS), [0, 2]);
        assert_eq!(looked_at(&mut wheel, epoch + 5000 * MS), [0; 0]);
    }

    #[test]
    fn a_deadline_behind_the_horizon_is_looked_at_on_the_horizon_and_put_back() {
        let epoch = Instant::now();
        let week = Duration::from_secs(7 * 24 * 3600);
        let mut wheel = TimerWheel::new(epoch);
        wheel.arm(0, epoch + week);
        let (mut now, mut looks) = (epoch, 0);
        while let Some(next) = wheel.next() {
            now = next;
            wheel.turn(now, |_| {
                looks += 1;
                if now >= epoch + week {
                    Look::Fired
                } else {
                    Look::At(epoch + week)
                }
            });
        }
        assert_eq!(now, epoch + week);
        assert_eq!(looks, (10 * week.as_secs()).div_ceil(SLOTS));
    }

    #[test]
    fn a_turn_that_comes_years_late_still_looks() {
        let epoch = Instant::now();
        let century = Duration::from_secs(100 * 365 * 24 * 3600);
        let mut wheel = TimerWheel::new(epoch);
        wheel.arm(0, epoch + century);
        assert_eq!(looked_at(&mut wheel, epoch + century), [0]);
        wheel.arm(0, epoch + century + 2 * SLOT);
        assert_eq!(wheel.next(), Some(epoch + century + 2 * SLOT));
    }

    #[test]
    fn a_turn_after_a_long_pause_looks_at_everybody_once() {
        let epoch = Instant::now();
        let mut wheel = TimerWheel::new(epoch);
        for key in 0..1000 {
            wheel.arm(key, epoch + (key as u32 * 400) * MS);
        }
        let late = epoch + Duration::from_secs(3600);
        let mut keys = Vec::new();
        wheel.turn(late, |key| {
            keys.push(key);
            Look::At(late)
        });
        keys.sort_unstable();
        assert_eq!(keys, (0..1000).collect::<Vec<_>>());
        assert_eq!(wheel.len(), 1000);
        assert_eq!(
            looked_at(&mut wheel, late + SLOT).len(),
            1000,
            "a deadline not dealt with is looked at on the next turn"
        );
    }

    #[test]
    fn a_connection_that_is_gone_leaves_no_reminder() {
        let epoch = Instant::now();
        let mut wheel = TimerWheel::new(epoch);
        wheel.arm(3, epoch);
        wheel.turn(epoch + SLOT, |_| Look::Gone);
        assert_eq!((wheel.len(), wheel.next()), (0, None));
        wheel.arm(3, epoch + 2 * SLOT);
        assert_eq!(looked_at(&mut wheel, epoch + 2 * SLOT), [3]);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_does_nothing() {
        let epoch = Instant::now();
        let mut wheel = TimerWheel::new(epoch + 10 * SLOT);
        wheel.arm(0, epoch);
        assert_eq!(looked_at(&mut wheel, epoch), [0; 0]);
        assert_eq!(looked_at(&mut wheel, epoch + 11 * SLOT), [0]);
        assert_eq!(looked_at(&mut wheel, epoch + 11 * SLOT), [0; 0]);
    }
}
