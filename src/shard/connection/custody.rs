//! What becomes of a connection's message: handed over, made durable or sent on, acknowledged; or refused, given up, recorded.
//!
//! Promises: a message is acknowledged only when the file workers have said that it is durable, when the queue has said who
//! answers for it, or when its routes throw mail away; each message gets one line in the log; what a refused one has written
//! is removed. Lives on its shard.

use std::time::{Duration, Instant};

use super::Connection;
use crate::maildir::{self, Done, FailureKind};
use crate::metrics::{Counter, Histogram};
use crate::relay::{Client, Refusal};
use crate::shard::clock;
use crate::shard::delivery::{Beginning, Message};
use crate::shard::record::MessageRecord;
use crate::shard::slots::{Alarm, Word};
use crate::smtp::client::HopReply;
use crate::smtp::oxsmtp::Reply;
use crate::smtp::session::{Custody, Report};

/// How long a client waits for its final reply before it is worth finding out whether it still does. Most hops are faster.
const PATIENCE: Duration = Duration::from_millis(200);

/// How a message came to its final reply.
#[derive(Debug)]
enum Fate {
    Taken(Custody),
    Refused(Reply),
    RefusedByHop(HopReply),
}

impl Connection {
    /// The current message, which begins with this where it has not begun yet.
    pub(super) fn message(&mut self, now: Instant) -> &mut Message {
        self.message.get_or_insert_with(|| {
            Message::begin(
                &self.shard,
                &Beginning {
                    session: &self.session,
                    session_id: self.record.id,
                    settings: &self.settings,
                    routes: &self.routes,
                    now,
                },
            )
        })
    }

    /// Sends a piece of a large message to the file workers, or to the spool, and waits until it has left memory.
    pub(super) async fn append(&mut self) {
        let Some(message) = &mut self.message else {
            return;
        };
        message.mend(&self.shard, &self.session);
        if let Some(parcel) = message.parcel() {
            if !parcel.is_in_spool() {
                // What was said of a message before this one is of no use any more.
                self.seat.slot().known_word();
            }
            if let Some(envelope) = self.session.envelope() {
                message.spool(&self.shard, envelope, self.seat.ticket());
            }
            self.shard.drive_spool();
            return self.shard.room_in_spool().await;
        }
        if !message.append(&self.shard, self.seat.ticket()) {
            return;
        }
        match self.seat.slot().clone().file_work().await {
            Done::Appended(Ok(draft), buffer) => message.resume(draft, buffer),
            Done::Appended(Err(error), _) => message.failure = Some(Box::new(error.into())),
            Done::Committed(..) => {}
        }
    }

    /// Hands the message over and waits until somebody answers for it, then tells the client. False where the client has
    /// gone meanwhile.
    pub(super) async fn commit(&mut self) -> bool {
        let ended = clock::now();
        let Some(message) = &mut self.message else {
            return true;
        };
        message.mend(&self.shard, &self.session);
        let fate = if message.parcel().is_some() {
            match self.send_onward(ended).await {
                Some(fate) => fate,
                None => return false,
            }
        } else {
            if message.commit(&self.shard, self.seat.ticket()) {
                match self.seat.slot().clone().file_work().await {
                    Done::Committed(Ok(_), buffer) => self.shard.keep_buffer(buffer),
                    Done::Committed(Err(failure), buffer) => {
                        self.shard.keep_buffer(buffer);
                        message.failure = Some(Box::new(failure));
                    }
                    Done::Appended(..) => {}
                }
            }
            match &message.failure {
                None => Fate::Taken(Custody::Delivered),
                Some(failure) => Fate::Refused(match failure.kind {
                    FailureKind::Full => Reply::CannotStore,
                    FailureKind::Other => Reply::TryLater,
                }),
            }
        };
        let now = clock::now();
        self.shard
            .metrics
            .observe(Histogram::Delivery, now.saturating_duration_since(ended));
        self.tell_fate(fate, ended, now);
        self.settle(now);
        true
    }

    /// The message of a route that throws mail away, or of no route at all.
    pub(super) fn acknowledge(&mut self, now: Instant) {
        self.message(now);
        self.tell_fate(Fate::Taken(Custody::Delivered), now, now);
    }

    /// To the next hops. None where the client has gone before anybody answered for the message.
    async fn send_onward(&mut self, ended: Instant) -> Option<Fate> {
        let (Some(message), Some(envelope)) = (&mut self.message, self.session.envelope()) else {
            return Some(Fate::Refused(Reply::TryLater));
        };
        let ticket = self.seat.ticket();
        if message.parcel().is_some_and(|parcel| parcel.is_in_spool()) {
            message.spool(&self.shard, envelope, ticket);
            self.shard.spool.borrow_mut().flush(message.id);
            self.shard.drive_spool();
            if let Word::Written(Err(failure)) = self.seat.slot().clone().word().await {
                message.failure = Some(Box::new(maildir::Failure {
                    kind: FailureKind::Full,
                    text: failure.text,
                }));
                return Some(Fate::Refused(Reply::CannotStore));
            }
        }
        let parcel = message.complete(&self.shard, &self.session)?;
        parcel.waiter.set(Some(ticket));
        let delay = self.binding.terms.limits.acknowledgement_delay;
        let client = if delay.is_zero() {
            Client::WaitsForDurable
        } else if self.shard.is_short_of_memory() {
            Client::Waits { acknowledge_by: ended }
        } else {
            Client::Waits {
                acknowledge_by: ended + delay,
            }
        };
        let routes = self.routes.iter().map(|route| self.settings.routes.get(*route));
        let paths = envelope.recipients.iter().map(|recipient| &recipient.forward_path);
        let groups = self.shard.groups(routes.zip(paths));
        let id = parcel.id;
        self.shard.send_onward(parcel, envelope.clone(), groups, client);
        match self.final_word().await {
            Some(Word::Acknowledged(custody)) => Some(Fate::Taken(custody)),
            Some(Word::Refused(Refusal::Hop(reply))) => Some(Fate::RefusedByHop(reply)),
            Some(Word::Refused(Refusal::CannotStore) | Word::Written(_)) => Some(Fate::Refused(Reply::CannotStore)),
            None => {
                self.shard.client_gone(id);
                None
            }
        }
    }

    /// Waits for the queue's word. None where the client goes away before.
    async fn final_word(&mut self) -> Option<Word> {
        let slot = self.seat.slot().clone();
        if let Some(word) = slot.known_word() {
            return Some(word);
        }
        self.seat.deadline(clock::now() + PATIENCE);
        let mut patient = true;
        loop {
            let heard = if patient {
                slot.word_or_alarm().await
            } else {
                self.stream.word_or_end(&slot).await?
            };
            match heard {
                Ok(word) => return Some(word),
                Err(Alarm::Deadline) => {
                    patient = false;
                    self.seat.deadline(self.session.deadline());
                }
                // The queue was told to make haste as well; this client is answered first.
                Err(alarm) => self.heed(alarm),
            }
        }
    }

    /// The final reply, and the message's line in the log. `ended` is when its content ended.
    fn tell_fate(&mut self, fate: Fate, ended: Instant, now: Instant) {
        let Some(message) = self.message.take() else {
            return self.session.refuse(Reply::TryLater, now);
        };
        let size = self.session.content_size();
        let hop_said = match &fate {
            Fate::RefusedByHop(reply) => Some(reply.to_string()),
            _ => None,
        };
        if let Some(envelope) = self.session.envelope() {
            let custody = match fate {
                Fate::Taken(custody) => Some(custody),
                _ => None,
            };
            let record = MessageRecord {
                id: Some(message.id),
                envelope,
                size,
                result: if custody.is_some() { "accepted" } else { "refused" },
                custody,
                reply: match &fate {
                    Fate::Taken(_) => None,
                    Fate::Refused(reply) => Some(reply.text()),
                    Fate::RefusedByHop(_) => hop_said.as_deref(),
                },
                limit: None,
                receiving: Some(ended.saturating_duration_since(message.begun)),
                delivering: Some(now.saturating_duration_since(ended)),
                error: message.failure.as_ref().map(|f| f.text.as_str()),
            };
            self.shard.record_message(&self.record, &self.session, &record, now);
            if custody.is_some() {
                self.shard
                    .metrics
                    .add(Counter::Recipients, envelope.recipients.len() as u64);
            }
        }
        self.shard
            .metrics
            .observe(Histogram::Message, now.saturating_duration_since(message.begun));
        match fate {
            Fate::Taken(custody) => {
                self.record.messages += 1;
                self.shard.metrics.count(Counter::MessagesReceived);
                self.shard.metrics.add(Counter::OctetsReceived, size);
                self.shard.metrics.count(match custody {
                    Custody::NextHop => Counter::AcknowledgedByNextHop,
                    Custody::Spool => Counter::AcknowledgedBySpool,
                    Custody::Delivered => Counter::AcknowledgedDelivered,
                });
                return self.session.acknowledge(custody, message.id.as_str(), now);
            }
            Fate::Refused(reply) => self.session.refuse(reply, now),
            Fate::RefusedByHop(_) => self.session.refuse_as_hop(hop_said.as_deref().unwrap_or_default(), now),
        }
        // Its line is written already.
        self.session.take_report();
        self.record.refused += 1;
    }

    /// A transaction that ended without an acknowledgement.
    pub(super) fn report(&mut self, report: &Report, now: Instant) {
        let message = self.message.take();
        self.record.refused += 1;
        let record = MessageRecord {
            id: message.as_ref().map(|m| m.id),
            envelope: &report.envelope,
            size: report.size,
            result: if report.reply.is_some() { "refused" } else { "abandoned" },
            custody: None,
            reply: report.reply.as_deref(),
            limit: report.event,
            receiving: message.as_ref().map(|m| now.saturating_duration_since(m.begun)),
            delivering: None,
            error: None,
        };
        self.shard.record_message(&self.record, &self.session, &record, now);
        if let Some(message) = message {
            message.abandon(&self.shard);
        }
    }

    pub(super) fn drop_message(&mut self) {
        if let Some(message) = self.message.take() {
            message.abandon(&self.shard);
        }
    }
}
