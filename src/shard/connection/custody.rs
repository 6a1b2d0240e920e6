//! What becomes of a connection's message: handed over, made durable, acknowledged; or refused, given up, recorded.
//!
//! Promises: a message is acknowledged only when the file workers have said that it is durable, or when its routes throw
//! mail away; each message gets one line in the log; what a refused one has written is removed. Lives on its shard.

use std::time::Instant;

use super::Connection;
use crate::maildir::{Done, FailureKind};
use crate::metrics::{Counter, Histogram};
use crate::shard::delivery::{self, Message};
use crate::shard::record::MessageRecord;
use crate::shard::{Shard, clock};
use crate::smtp::oxsmtp::Reply;
use crate::smtp::session::{Custody, Report, Session};

impl Connection {
    /// Whether the current message has files to write, or has failed to.
    pub(super) fn is_to_be_written(&mut self) -> bool {
        let message = self
            .message
            .get_or_insert_with(|| begin(&self.shard, &self.session, &self.routes, clock::now()));
        message.is_to_be_written()
    }

    /// Sends a piece of a large message to the file workers and waits until they have it.
    pub(super) async fn append(&mut self) {
        let Some(message) = &mut self.message else {
            return;
        };
        if !message.append(&self.shard, self.seat.ticket()) {
            return;
        }
        match self.seat.slot().clone().file_work().await {
            Done::Appended(Ok(draft), buffer) => message.resume(draft, buffer),
            Done::Appended(Err(error), _) => message.failure = Some(error.into()),
            Done::Committed(..) => {}
        }
    }

    /// Hands the message over and waits until it is durable, then tells the client.
    pub(super) async fn commit(&mut self) {
        let ended = clock::now();
        let Some(message) = &mut self.message else {
            return;
        };
        if message.commit(&self.shard, self.seat.ticket()) {
            match self.seat.slot().clone().file_work().await {
                Done::Committed(Ok(_), buffer) => self.shard.keep_buffer(buffer),
                Done::Committed(Err(failure), buffer) => {
                    self.shard.keep_buffer(buffer);
                    message.failure = Some(failure);
                }
                Done::Appended(..) => {}
            }
        }
        let now = clock::now();
        self.shard
            .metrics
            .observe(Histogram::Delivery, now.saturating_duration_since(ended));
        self.acknowledge(ended, now);
        self.settle(now);
    }

    /// The final reply, and the message's line in the log. `ended` is when its content ended.
    pub(super) fn acknowledge(&mut self, ended: Instant, now: Instant) {
        let Some(message) = self.message.take() else {
            return self.session.refuse(Reply::TryLater, now);
        };
        let reply = message.failure.as_ref().map(|failure| match failure.kind {
            FailureKind::Full => Reply::CannotStore,
            FailureKind::Other => Reply::TryLater,
        });
        let size = self.session.content_size();
        if let Some(envelope) = self.session.envelope() {
            let record = MessageRecord {
                id: Some(message.id),
                envelope,
                size,
                result: if reply.is_none() { "accepted" } else { "refused" },
                reply: reply.map(Reply::text),
                limit: None,
                receiving: Some(ended.saturating_duration_since(message.begun)),
                delivering: Some(now.saturating_duration_since(ended)),
                error: message.failure.as_ref().map(|f| f.text.as_str()),
            };
            self.shard
                .record_message(&self.record, self.session.hello_name(), &record, now);
            if reply.is_none() {
                self.shard
                    .metrics
                    .add(Counter::Recipients, envelope.recipients.len() as u64);
            }
        }
        self.shard
            .metrics
            .observe(Histogram::Message, now.saturating_duration_since(message.begun));
        match reply {
            None => {
                self.record.messages += 1;
                self.shard.metrics.count(Counter::MessagesReceived);
                self.shard.metrics.add(Counter::OctetsReceived, size);
                self.shard.metrics.count(Counter::AcknowledgedDelivered);
                self.session.acknowledge(Custody::Delivered, message.id.as_str(), now);
            }
            Some(reply) => {
                self.session.refuse(reply, now);
                // Its line is written already.
                self.session.take_report();
                self.record.refused += 1;
            }
        }
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
            reply: report.reply.as_deref(),
            limit: report.event,
            receiving: message.as_ref().map(|m| now.saturating_duration_since(m.begun)),
            delivering: None,
            error: None,
        };
        self.shard
            .record_message(&self.record, self.session.hello_name(), &record, now);
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

pub(super) fn begin(shard: &Shard, session: &Session, routes: &[usize], now: Instant) -> Message {
    let normalise = delivery::normalises(session.bare_newline(), session.is_chunked());
    Message::begin(shard, session, routes, normalise, now)
}
