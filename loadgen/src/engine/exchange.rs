//! What is done on one connection when it can be read or written: replies lead to the next writes and to figures.
//!
//! Promises: as `engine`. The clock is read once an event, and again where a reply comes within the event that asked for it.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::Engine;
use crate::dialogue::{Chunk, Ending, Outcome, Step};
use crate::identity::expect::Fate;
use crate::measure::record;
use crate::plan::Next;
use crate::slot::Slot;
use crate::transport::Link;

impl Engine {
    /// Does what can be done on a connection now; `Ready` when it is over.
    pub fn attend(&mut self, index: usize, link: &mut Link, context: &mut Context<'_>) -> Poll<()> {
        let mut slots = std::mem::take(&mut self.slots);
        link.wake();
        if let Some(slot) = slots.get_mut(index) {
            slot.attend(context.waker());
            let mut event = Event {
                link,
                context,
                index,
                now: Instant::now(),
            };
            self.counts.wakes += 1;
            self.take_event(slot, &mut event);
        }
        let open = slots.get(index).is_some_and(|slot| slot.open);
        self.slots = slots;
        self.settle();
        if open { Poll::Pending } else { Poll::Ready(()) }
    }

    fn take_event(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        if self.abandoned {
            return self.close_connection(slot, event.index);
        }
        let connects = slot.connecting;
        if connects && !self.established(slot, event) {
            return;
        }
        let mut sent = self.counts.sends.wrapping_sub(u64::from(connects));
        event.link.flush();
        if let Some((chunk, written)) = slot.unwritten {
            self.write(slot, chunk, written, event);
        }
        if slot.tls_due && slot.unwritten.is_none() {
            slot.tls_due = false;
            self.begin_tls(slot, event);
        } else if slot.dialogue.is_between() && !slot.parked {
            self.next_message(slot, event);
        } else if slot.parked && self.stopping {
            slot.parked = false;
            self.next_message(slot, event);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        while slot.open {
            match event.link.receive(event.context, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.disconnected(slot, event.index, "the server closed the connection".into()),
                Poll::Ready(Ok(count)) => {
                    self.counts.receives += 1;
                    // What was asked for a moment ago is here already: the server took this core in between.
                    if self.counts.sends != sent {
                        event.now = Instant::now();
                    }
                    self.last_reply = event.now;
                    self.note_handshake(slot, event);
                    sent = self.counts.sends;
                    self.take_input(slot, buffer.get(..count).unwrap_or_default(), event);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => self.disconnected(slot, event.index, error.to_string()),
            }
        }
        self.buffer = buffer;
        self.note_handshake(slot, event);
    }

    /// Whether the connection is there; a write of no octets waits for it, and takes the error of one that failed.
    fn established(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) -> bool {
        match event.link.send(event.context, &[]) {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) => self.disconnected(slot, event.index, error.to_string()),
            Poll::Ready(Ok(_)) => {
                (slot.connecting, slot.greeting_due) = (false, event.now);
                record(
                    &mut self.counts.connect,
                    event.now.saturating_duration_since(slot.opened),
                );
            }
        }
        slot.open
    }

    /// Notes what is over when this is sent.
    fn note_stage(&mut self, slot: &mut Slot, chunk: Chunk, now: Instant) {
        let since = |then| now.saturating_duration_since(then);
        match chunk {
            Chunk::Ehlo => {
                self.greeted();
                self.counts.connections += 1;
                record(&mut self.counts.greeting, since(slot.greeting_due));
                slot.ehlo_sent = now;
            }
            Chunk::StartTls => record(&mut self.counts.ehlo, since(slot.ehlo_sent)),
            // The first line of AUTH; the next ones answer challenges.
            Chunk::Spoken if slot.auth_began.is_none() => {
                record(&mut self.counts.ehlo, since(slot.ehlo_sent));
                slot.auth_began = Some(now);
            }
            Chunk::Content if !self.manner.bdat => self.content_is_due(slot, now),
            _ => {}
        }
    }

    fn note_handshake(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        if let Some(began) = slot.tls_began.filter(|_| !event.link.is_handshaking()) {
            slot.tls_began = None;
            event.now = Instant::now();
            // What was said meanwhile has waited for it.
            (slot.greeting_due, slot.ehlo_sent) = (event.now, event.now);
            record(&mut self.counts.tls, event.now.saturating_duration_since(began));
        }
    }

    fn take_input(&mut self, slot: &mut Slot, mut input: &[u8], event: &mut Event<'_, '_>) {
        while !input.is_empty() && slot.open {
            let (used, step) = slot
                .dialogue
                .receive(&self.manner, input, |code| self.counts.reply(code));
            input = input.get(used..).unwrap_or_default();
            match step {
                Step::More => {}
                Step::Send(chunk) => {
                    self.note_stage(slot, chunk, event.now);
                    self.write(slot, chunk, 0, event);
                }
                Step::StartTls => {
                    self.begin_tls(slot, event);
                    if slot.open {
                        self.write(slot, Chunk::Ehlo, 0, event);
                    }
                }
                Step::Ready => {
                    self.failures_in_a_row = 0;
                    let (histogram, began) = match slot.auth_began {
                        Some(began) => (&mut self.counts.auth, began),
                        None => (&mut self.counts.ehlo, slot.ehlo_sent),
                    };
                    record(histogram, event.now.saturating_duration_since(began));
                    self.pipelining_denied |= slot.dialogue.pipelining_denied(&self.manner);
                    self.taken += usize::from(!std::mem::replace(&mut slot.taken, true));
                    self.shut_out = None;
                    self.next_message(slot, event);
                }
                Step::Group => self.group(slot, event),
                Step::Finished(outcome) => self.finished(slot, outcome, event),
                Step::Over(ending) => self.over(slot, event.index, ending, event.now),
            }
        }
    }

    fn begin_tls(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        match self.tls.as_ref().map(|terms| event.link.start_tls(terms)) {
            Some(Err(why)) => {
                self.counts.connect_failures += 1;
                self.failed(why);
                self.close_connection(slot, event.index);
            }
            _ => {
                slot.tls_began = Some(event.now);
                event.link.flush();
            }
        }
    }

    fn finished(&mut self, slot: &mut Slot, outcome: Outcome, event: &mut Event<'_, '_>) {
        match outcome {
            Outcome::Accepted => self.accepted(slot, event.now),
            Outcome::Refused => {
                if self.manner.refusals_expected {
                    self.counts.refused_as_expected += 1;
                } else {
                    self.counts.refused += 1;
                    self.timeline.failed(event.now, 1);
                }
                // Some recipients may have been accepted.
                if self.manner.recipients > 1 {
                    self.fates.note(slot.message.serial, Fate::Uncertain);
                }
            }
        }
        self.answer(1);
        let in_content = |(chunk, written)| {
            let end = self.wire.content_end(chunk, slot.message.serial);
            end.is_some_and(|end| written < end)
        };
        if slot.unwritten.is_some_and(in_content) {
            // Refused in the middle of its content: what is still to be written would be read as commands.
            self.lost(slot, Fate::Uncertain);
            return self.close_connection(slot, event.index);
        }
        if slot.dialogue.follows_already() {
            (slot.message, slot.message_began) = slot.behind;
            return;
        }
        self.next_message(slot, event);
    }

    fn accepted(&mut self, slot: &Slot, now: Instant) {
        self.counts.accepted += 1;
        self.fates.note(slot.message.serial, Fate::Accepted);
        let since = |then| now.saturating_duration_since(then);
        record(&mut self.counts.final_reply, since(slot.content_ended));
        record(&mut self.counts.transaction, since(slot.message_began));
        let shown = slot.message.planned.unwrap_or(slot.content_ended);
        self.timeline.accepted(now, since(shown));
        if let Some(planned) = slot.message.planned {
            record(&mut self.counts.from_plan, since(planned));
            let late = slot.message_began.saturating_duration_since(planned);
            record(&mut self.counts.begun_late, late);
        }
    }

    fn answer(&mut self, messages: u64) {
        self.answered += messages;
        if messages > 0 && self.quota_met() {
            self.news();
        }
    }

    /// The next message of this connection, if it is to have another.
    fn claim_message(&mut self, slot: &mut Slot, now: Instant) -> Next {
        let next = match slot.assigned.take() {
            Some(due) => Next::Message(due),
            None if self.stopping || (self.per_connection > 0 && slot.begun >= self.per_connection) => Next::Nothing,
            None => self.plan.next(now),
        };
        slot.begun += u64::from(matches!(next, Next::Message(_)));
        next
    }

    fn content_is_due(&mut self, slot: &mut Slot, now: Instant) {
        let waited = now.saturating_duration_since(slot.message_began);
        record(&mut self.counts.envelope, waited);
        slot.content_began = now;
    }

    fn group(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        self.content_is_due(slot, event.now);
        let next = self.claim_message(slot, event.now);
        let chunk = match next {
            Next::Message(due) => {
                slot.behind = (due, event.now);
                slot.dialogue.group(true)
            }
            Next::Nothing => slot.dialogue.group(false),
            // Its time has not come: the content leaves alone.
            Next::Wait(_) => Chunk::Content,
        };
        self.write(slot, chunk, 0, event);
    }

    fn next_message(&mut self, slot: &mut Slot, event: &mut Event<'_, '_>) {
        let chunk = match self.claim_message(slot, event.now) {
            Next::Message(due) => {
                (slot.message, slot.message_began) = (due, event.now);
                slot.dialogue.begin()
            }
            Next::Nothing => slot.dialogue.quit(),
            Next::Wait(_) => {
                slot.parked = true;
                return self.park(event.index);
            }
        };
        self.write(slot, chunk, 0, event);
    }

    fn over(&mut self, slot: &mut Slot, index: usize, ending: Ending, now: Instant) {
        if self.manner.refusals_expected && matches!(ending, Ending::TurnedAway | Ending::Shutdown) {
            let refused = slot.dialogue.messages_under_way();
            self.counts.refused_as_expected += refused.max(1);
            if slot.dialogue.is_partly_taken() {
                self.fates.note(slot.message.serial, Fate::Uncertain);
            }
            self.answer(refused);
            slot.turned_away = true;
            self.close_connection(slot, index);
            if self.taken == 0 && refused == 0 {
                self.shut_out.get_or_insert(now);
            }
            return;
        }
        // Who says 421 has not taken what it was asked to take.
        let fate = match ending {
            Ending::Shutdown if !slot.dialogue.is_partly_taken() => Fate::Absent,
            _ => Fate::Uncertain,
        };
        self.lost(slot, fate);
        match ending {
            Ending::Quit => {}
            Ending::TurnedAway => {
                self.counts.turned_away += 1;
                self.failed("the server turned the connection away".into());
            }
            Ending::Lacks(what) => {
                self.counts.turned_away += 1;
                self.failed(format!("the server does not offer {what}"));
            }
            Ending::Shutdown => {}
            Ending::Malformed => {
                self.counts.malformed += 1;
                self.failed("the server sent something that is no SMTP reply".into());
            }
        }
        self.close_connection(slot, index);
    }

    /// The connection ended without the server saying so in a reply.
    fn disconnected(&mut self, slot: &mut Slot, index: usize, why: String) {
        let idle = slot.dialogue.is_quitting() || slot.dialogue.is_between();
        if !self.lost(slot, Fate::Uncertain) && !idle {
            self.counts.connect_failures += 1;
            self.failed(why);
        }
        self.close_connection(slot, index);
    }

    /// Counts the messages that a connection takes with it, and notes the fate of the first; whether there were any. Of a
    /// second one only the envelope was written, so that it cannot arrive.
    fn lost(&mut self, slot: &mut Slot, fate: Fate) -> bool {
        let lost = slot.dialogue.messages_under_way();
        if lost > 0 {
            self.fates.note(slot.message.serial, fate);
            self.timeline.failed(Instant::now(), lost);
        }
        self.counts.lost += lost;
        self.answer(lost);
        lost > 0
    }

    fn close_connection(&mut self, slot: &mut Slot, index: usize) {
        if std::mem::take(&mut slot.parked) {
            self.parked.retain(|parked| *parked != index);
        }
        if slot.dialogue.awaits_greeting() {
            self.greeted();
        }
        if std::mem::take(&mut slot.open) {
            self.open -= 1;
        }
        if std::mem::take(&mut slot.taken) {
            self.taken -= 1;
            self.shut_out = None;
        }
        slot.unwritten = None;
        if self.open == 0 && self.stopping {
            self.news();
        }
    }

    fn write(&mut self, slot: &mut Slot, chunk: Chunk, mut written: usize, event: &mut Event<'_, '_>) {
        let content_end = self
            .wire
            .content_end(chunk, slot.message.serial)
            .filter(|end| *end > written);
        let connection = self.plan.connection(event.index);
        let octets = match chunk {
            Chunk::Spoken => slot.dialogue.spoken(),
            chunk => self.wire.octets(chunk, slot.message.serial, connection),
        };
        slot.unwritten = None;
        let resumed = written > 0;
        while let Some(rest) = octets.get(written..).filter(|rest| !rest.is_empty()) {
            self.counts.sends += 1;
            match event.link.send(event.context, rest) {
                Poll::Ready(Ok(count)) => {
                    written += count;
                    if content_end.is_some_and(|end| written >= end) {
                        slot.content_ended = event.now;
                        if resumed {
                            let took = event.now.saturating_duration_since(slot.content_began);
                            record(&mut self.counts.content, took);
                        }
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // The server may have said why before it closed: let the read find out.
                Poll::Ready(Err(_)) => return,
                Poll::Pending => {
                    slot.unwritten = Some((chunk, written));
                    return;
                }
            }
        }
    }
}

/// What happens on one connection now.
struct Event<'a, 'b> {
    link: &'a mut Link,
    context: &'a mut Context<'b>,
    index: usize,
    now: Instant,
}
