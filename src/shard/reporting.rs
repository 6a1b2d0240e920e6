//! Messages of our own: reports to the senders of messages that were given up, are late, or have arrived.
//!
//! Promises: a report is durable before the queue hears that it is written, and it is queued like any other message from then
//! on. Lives on its shard.

use std::rc::Rc;

use super::parcel::{Body, Origin, Parcel};
use super::{Shard, clock};
use crate::log::Level;
use crate::relay::report::{Frame, MAX_RETURNED, Report, Returned};
use crate::relay::{Client, NewGroup, NewMessage};
use crate::smtp::Form;
use crate::smtp::envelope::Envelope;
use crate::spool::{Content, QueueId};

/// A report that is not durable yet.
#[derive(Debug)]
pub(super) struct Draft {
    /// What it is about.
    of: QueueId,
    parcel: Rc<Parcel>,
    envelope: Envelope,
    groups: Vec<NewGroup>,
}

impl Shard {
    /// Writes a report, after the beginning of what it is about has been read.
    pub(super) fn report_to_sender(self: &Rc<Self>, report: Report) {
        self.spawn(move |shard| async move {
            let beginning = shard.beginning_of(report.of).await;
            shard.write_report(&report, beginning);
        });
    }

    /// The first octets of a message's content, and whether that is all. None where they cannot be read.
    pub(super) async fn beginning_of(&self, id: QueueId) -> Option<(Vec<u8>, Form, bool)> {
        let parcel = self.onward.parcel(id)?;
        match parcel.body() {
            Body::Memory(octets) => {
                let first = octets.get(..MAX_RETURNED.min(octets.len()))?;
                Some((first.to_vec(), parcel.form, first.len() == octets.len()))
            }
            Body::Spool => {
                let extents = self.extents_of(id).ok()?;
                let mut first = Vec::new();
                let mut whole = true;
                for extent in &extents {
                    if first.len() >= MAX_RETURNED {
                        whole = false;
                        break;
                    }
                    first.extend_from_slice(&self.read_extent(extent).await.ok()?);
                }
                whole &= first.len() <= MAX_RETURNED;
                first.truncate(MAX_RETURNED);
                Some((first, parcel.form, whole))
            }
        }
    }

    fn write_report(self: &Rc<Self>, report: &Report, beginning: Option<(Vec<u8>, Form, bool)>) {
        let now = clock::now();
        let (settings, id, at) = (self.settings(), self.next_id(now), self.moment(now));
        let envelope = report.envelope();
        let groups = self.groups_of_today(&settings, &envelope);
        if groups.is_empty() {
            // Nothing could ever be done with it.
            self.lines
                .borrow_mut()
                .line(
                    self.wall(now),
                    Level::Warn,
                    "no route leads to the sender of a message, who is told nothing",
                )
                .field("id", report.of.as_str())
                .field("sender", report.to.as_str())
                .done();
            self.onward.queue.borrow_mut().reported(report.of, at);
            return self.act();
        }
        let frame = Frame {
            hostname: &settings.hostname,
            id,
            unix: at.unix,
        };
        let returned = beginning.as_ref().map(|(content, form, whole)| Returned {
            content,
            form: *form,
            whole: *whole,
        });
        let text = report.write(frame, returned);
        let origin = Origin {
            session: id,
            client: None,
            hello: settings.hostname.clone(),
            user: None,
        };
        let parcel = Parcel::new(id, Vec::new(), Form::Plain, self.unix_millis(now), origin);
        let content = Content {
            eight_bit: report.needs_utf8(),
            bare_newline: false,
        };
        self.hold(text.len());
        self.begin_record(&parcel, &envelope);
        self.spool.borrow_mut().append(id, &text);
        self.spool.borrow_mut().commit(id, content);
        parcel.complete(content, text.len() as u64, Some(text));
        let draft = Draft {
            of: report.of,
            parcel,
            envelope,
            groups,
        };
        self.reports.borrow_mut().insert(id, draft);
        self.drive_spool();
    }

    /// Whether the message that became durable is a report; then it joins the queue.
    pub(super) fn report_is_durable(self: &Rc<Self>, id: QueueId) -> bool {
        let Some(draft) = self.reports.borrow_mut().remove(&id) else {
            return false;
        };
        let Draft {
            of,
            parcel,
            envelope,
            groups,
        } = draft;
        parcel.durable.set(true);
        self.count_queued(&parcel, true);
        let at = self.moment(clock::now());
        let message = NewMessage {
            id,
            envelope,
            groups,
            size: parcel.size.get(),
            authenticated: false,
            client: Client::Nobody,
        };
        self.onward.keep(parcel);
        let mut queue = self.onward.queue.borrow_mut();
        queue.take(message, at);
        queue.reported(of, at);
        true
    }

    /// Whether the message that could not be written is a report.
    pub(super) fn report_has_failed(self: &Rc<Self>, id: QueueId) -> bool {
        let Some(draft) = self.reports.borrow_mut().remove(&id) else {
            return false;
        };
        self.let_go(&draft.parcel);
        let at = self.moment(clock::now());
        self.onward.queue.borrow_mut().cannot_report(draft.of, at);
        true
    }
}
