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
