//! The connections of a shard, by number: where answers, alarms and timers find them.
//!
//! Promises: an answer for a connection that is gone finds nobody; each number has at most one live reminder in the wheel
//! however many connections use it in turn, so a flood of short connections leaves none behind. Lives on its shard.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::lookup::{Answer, Listing, Ticket};
use crate::maildir::Done;
use crate::timer::{Look, TimerWheel};

/// Why a connection that waits must look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Its deadline is reached.
    Deadline,
    /// The server drains: idle sessions end.
    Drain,
    /// The server stops: every session ends.
    Stop,
}

/// What others may tell a connection.
#[derive(Debug)]
pub struct Slot {
    waker: RefCell<Option<Waker>>,
    alarm: Cell<Option<Alarm>>,
    deadline: Cell<Instant>,
    listing: RefCell<Option<Listing>>,
    answer: RefCell<Option<Answer>>,
    done: RefCell<Option<Box<Done>>>,
}

/// How long after an alarm a connection that is busy otherwise is reminded again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Entry {
    slot: Option<Rc<Slot>>,
    generation: u32,
    /// The earliest reminder for this number that the wheel holds.
    reminder: Option<Instant>,
}

#[derive(Debug)]
struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    wheel: TimerWheel,
    live: usize,
}

/// The table of a shard.
#[derive(Debug)]
pub struct Slots(RefCell<Table>);

/// A place in the table; dropping it gives the place away.
#[derive(Debug)]
pub struct Seat {
    slots: Rc<Slots>,
    slot: Rc<Slot>,
    ticket: Ticket,
}

impl Slots {
    /// An empty table whose wheel starts at `now`.
    pub fn new(now: Instant) -> Rc<Slots> {
        Rc::new(Slots(RefCell::new(Table {
            entries: Vec::new(),
            free: Vec::new(),
            wheel: TimerWheel::new(now),
            live: 0,
        })))
    }

    /// A place for a new connection that must look up at `deadline` at the latest.
    pub fn seat(self: &Rc<Self>, deadline: Instant) -> Seat {
        let slot = Rc::new(Slot {
            waker: RefCell::new(None),
            alarm: Cell::new(None),
            deadline: Cell::new(deadline),
            listing: RefCell::new(None),
            answer: RefCell::new(None),
            done: RefCell::new(None),
        });
        let mut table = self.0.borrow_mut();
        let table = &mut *table;
        let number = table.free.pop().unwrap_or_else(|| {
            table.entries.push(Entry::default());
            (table.entries.len() - 1) as u32
        });
        table.live += 1;
        let mut generation = 0;
        if let Some(entry) = table.entries.get_mut(number as usize) {
            entry.slot = Some(slot.clone());
            generation = entry.generation;
        }
        table.remind(number, deadline);
        Seat {
            slots: self.clone(),
            slot,
            ticket: Ticket {
                slot: number,
                generation,
            },
        }
    }

    /// How many connections there are.
    pub fn live(&self) -> usize {
        self.0.borrow().live
    }

    /// The connection that holds `ticket`, if it still does.
    pub fn find(&self, ticket: Ticket) -> Option<Rc<Slot>> {
        let table = self.0.borrow();
        let entry = table
            .entries
            .get(ticket.slot as usize)
            .filter(|e| e.generation == ticket.generation)?;
        entry.slot.clone()
    }

    /// Raises an alarm for every connection.
    pub fn raise(&self, alarm: Alarm) {
        let slots: Vec<_> = self.0.borrow().entries.iter().filter_map(|e| e.slot.clone()).collect();
        for slot in slots {
            slot.raise(alarm);
        }
    }

    /// Turns the wheel to `now`: whose deadline is reached is alarmed.
    pub fn turn(&self, now: Instant) {
        let mut table = self.0.borrow_mut();
        let Table { entries, wheel, .. } = &mut *table;
        wheel.turn(now, |number| {
            let Some(entry) = entries.get_mut(number) else {
                return Look::Gone;
            };
            // An earlier reminder took over from this one, or the number is not in use.
            if entry.reminder.is_some_and(|at| at > now) {
                return Look::Gone;
            }
            let Some(slot) = &entry.slot else {
                entry.reminder = None;
                return Look::Gone;
            };
            let deadline = slot.deadline.get();
            let again = if deadline <= now {
                slot.raise(Alarm::Deadline);
                now + AGAIN
            } else {
                deadline
            };
            entry.reminder = Some(again);
            Look::At(again)
        });
    }
}

impl Table {
    fn remind(&mut self, number: u32, deadline: Instant) {
        let Some(entry) = self.entries.get_mut(number as usize) else {
            return;
        };
        if entry.reminder.is_none_or(|at| deadline < at) {
            entry.reminder = Some(deadline);
            self.wheel.arm(number as usize, deadline);
        }
    }
}

impl Slot {
    /// Tells the connection that it must look up; a graver alarm is never replaced by a lesser one.
    fn raise(&self, alarm: Alarm) {
        let gravity = |a: Alarm| match a {
            Alarm::Deadline => 0,
            Alarm::Drain => 1,
            Alarm::Stop => 2,
        };
        if self.alarm.get().is_none_or(|old| gravity(old) < gravity(alarm)) {
            self.alarm.set(Some(alarm));
        }
        self.wake();
    }

    /// The block lists' word on the client.
    pub fn listed(&self, listing: Listing) {
        *self.listing.borrow_mut() = Some(listing);
        self.wake();
    }

    /// What the control thread has found out.
    pub fn answered(&self, answer: Answer) {
        *self.answer.borrow_mut() = Some(answer);
        self.wake();
    }

    /// The file workers' word on the message.
    pub fn done(&self, done: Done) {
        *self.done.borrow_mut() = Some(Box::new(done));
        self.wake();
    }

    /// Makes whoever waits here look again.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Remembers whom to wake.
    pub fn attend(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
    }

    /// The alarm that was raised, once.
    pub fn take_alarm(&self) -> Option<Alarm> {
        self.alarm.take()
    }

    /// Whether an alarm is raised that a blocked writer must heed.
    pub fn is_alarmed(&self) -> bool {
        matches!(self.alarm.get(), Some(Alarm::Deadline | Alarm::Stop))
    }

    /// Waits for an alarm.
    pub async fn alarm(&self) -> Alarm {
        poll_fn(|cx| self.wait_for(cx, || self.alarm.take())).await
    }

    /// Waits for the file workers.
    pub async fn file_work(&self) -> Done {
        *poll_fn(|cx| self.wait_for(cx, || self.done.borrow_mut().take())).await
    }

    /// Waits for the control thread's answer or an alarm.
    pub async fn answer(&self) -> Result<Answer, Alarm> {
        poll_fn(|cx| {
            self.wait_for(cx, || {
                let answer = self.answer.borrow_mut().take();
                answer.map(Ok).or_else(|| self.alarm.take().map(Err))
            })
        })
        .await
    }

    /// Waits for the block lists or an alarm.
    pub async fn listing(&self) -> Result<Listing, Alarm> {
        poll_fn(|cx| {
            self.wait_for(cx, || {
                self.known_listing().map(Ok).or_else(|| self.alarm.take().map(Err))
            })
        })
        .await
    }

    /// The block lists' word, where it is in.
    pub fn known_listing(&self) -> Option<Listing> {
        self.listing.borrow().clone()
    }

    fn wait_for<T>(&self, cx: &Context<'_>, mut look: impl FnMut() -> Option<T>) -> Poll<T> {
        match look() {
            Some(found) => Poll::Ready(found),
            None => {
                self.attend(cx);
                Poll::Pending
            }
        }
    }
}

impl Seat {
    /// What others tell this connection.
    pub fn slot(&self) -> &Rc<Slot> {
        &self.slot
    }

    /// How answers find it.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The connection must look up at `deadline` at the latest. Later than before costs a store; earlier, an entry.
    pub fn deadline(&self, deadline: Instant) {
        let before = self.slot.deadline.replace(deadline);
        if deadline < before {
            self.slots.0.borrow_mut().remind(self.ticket.slot, deadline);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.slots.0.borrow_mut();
        table.live -= 1;
        if let Some(entry) = table.entries.get_mut(self.ticket.slot as usize) {
            entry.slot = None;
            entry.generation = entry.generation.wrapping_add(1);
        }
        table.free.push(self.ticket.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_for_a_connection_that_is_gone_finds_nobody() {
        let now = Instant::now();
        let slots = Slots::new(now);
        let seat = slots.seat(now + MINUTE);
        let ticket = seat.ticket();
        assert!(slots.find(ticket).is_some());
        drop(seat);
        assert!(slots.find(ticket).is_none());
        let next = slots.seat(now + MINUTE);
        assert_eq!(next.ticket().slot, ticket.slot, "the number is used again");
        assert!(slots.find(ticket).is_none());
        assert_eq!(slots.live(), 1);
    }

    #[test]
    fn a_deadline_that_moved_later_does_not_ring_and_one_that_moved_earlier_does() {
        let start = Instant::now();
        let slots = Slots::new(start);
        let seat = slots.seat(start + MINUTE);
        seat.deadline(start + 2 * MINUTE);
        slots.turn(start + MINUTE + AGAIN);
        assert_eq!(seat.slot().take_alarm(), None);
        seat.deadline(start + MINUTE + 5 * AGAIN);
        slots.turn(start + MINUTE + 6 * AGAIN);
        assert_eq!(seat.slot().take_alarm(), Some(Alarm::Deadline));
    }

    #[test]
    fn a_connection_that_does_not_end_is_reminded_again() {
        let start = Instant::now();
        let slots = Slots::new(start);
        let seat = slots.seat(start + MINUTE);
        for second in 1..5 {
            slots.turn(start + MINUTE + second * 2 * AGAIN);
            assert_eq!(seat.slot().take_alarm(), Some(Alarm::Deadline), "{second}");
        }
    }

    #[test]
    fn a_flood_of_short_connections_leaves_one_reminder() {
        let start = Instant::now();
        let slots = Slots::new(start);
        for n in 0..10_000 {
            drop(slots.seat(start + MINUTE + Duration::from_millis(n)));
        }
        assert_eq!(slots.0.borrow().wheel.len(), 1);
    }

    #[test]
    fn a_stop_outranks_a_drain_and_a_drain_a_deadline() {
        let start = Instant::now();
        let slots = Slots::new(start);
        let seat = slots.seat(start);
        for (alarm, holds) in [
            (Alarm::Drain, Alarm::Drain),
            (Alarm::Deadline, Alarm::Drain),
            (Alarm::Stop, Alarm::Stop),
            (Alarm::Drain, Alarm::Stop),
        ] {
            slots.raise(alarm);
            assert_eq!(seat.slot().alarm.get(), Some(holds));
        }
    }
}
