//! Messages of our own: reports to the senders of messages that were given up, are late, or have arrived.
//!
//! Promises: a report is durable before the queue hears that it is written. Lives on its shard.

use std::rc::Rc;

use super::Shard;
use crate::relay::report::Report;
use crate::spool::QueueId;

impl Shard {
    /// Writes a report.
    pub(super) fn report_to_sender(self: &Rc<Self>, report: Report) {
        let _ = report;
    }

    /// Whether the message that became durable is a report.
    pub(super) fn report_is_durable(self: &Rc<Self>, _id: QueueId) -> bool {
        false
    }

    /// Whether the message that could not be written is a report.
    pub(super) fn report_has_failed(self: &Rc<Self>, _id: QueueId) -> bool {
        false
    }
}
