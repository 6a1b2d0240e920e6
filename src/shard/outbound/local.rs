//! A Maildir as one hop among others: for messages that also go elsewhere, or that wait in the spool.
//!
//! Promises: the file workers write and sync; the queue hears of it when the files are durable. Lives on its shard.

use std::rc::Rc;

use super::dispatch::taken;
use super::{Job, ours};
use crate::maildir::{Done, Draft, Failure, FailureKind, Plan, Request, Template};
use crate::shard::parcel::Body;
use crate::shard::route::Target;
use crate::shard::slots::Seat;
use crate::shard::{Shard, clock};
use crate::smtp::Form;
use crate::smtp::client::Outcome;

/// The file workers are waited for however long they take; the wheel only wants to know when to look.
const LOOK: std::time::Duration = std::time::Duration::from_secs(3600);

impl Shard {
    /// Writes the files of a group, and tells the queue.
    pub(super) async fn deliver_to_maildir(self: Rc<Self>, job: Job, target: usize) {
        let route = job.route.clone();
        let Some(Target::Maildir(template)) = route.targets.get(target) else {
            return self.dispatch(job);
        };
        let seat = self.slots.seat(clock::now() + LOOK);
        match self.write_files(&seat, &job, template).await {
            Ok(()) => {
                let outcome = Outcome::Delivered(ours(250, 2, "written"));
                self.settle_attempt(&job, &taken("maildir:"), outcome);
            }
            Err(failure) => {
                let code = match failure.kind {
                    FailureKind::Full => 452,
                    FailureKind::Other => 451,
                };
                self.try_elsewhere(job, ours(code, 4, &failure.text));
            }
        }
    }

    async fn write_files(&self, seat: &Seat, job: &Job, template: &Template) -> Result<(), Failure> {
        let parcel = &job.parcel;
        let mut plan = Plan::new(
            &format!("{}-{}", parcel.id, job.group),
            parcel.form,
            parcel.form == Form::Dotted && parcel.content.get().bare_newline,
        );
        let front = match parcel.front() {
            Some(front) => front,
            None => Rc::new(self.read_front(parcel).await?),
        };
        {
            let queue = self.onward.queue.borrow();
            let Some(envelope) = queue.envelope(parcel.id) else {
                return Err(gone());
            };
            let recipients = job
                .recipients
                .iter()
                .filter_map(|at| envelope.recipients.get(*at))
                .map(|recipient| &recipient.forward_path);
            let hostname = self.settings().hostname.clone();
            plan.deliver(template, &envelope.reverse_path, recipients, &hostname, |_| {
                front.fields.to_vec()
            });
        }
        let mut draft = Draft::new(plan);
        let last = match parcel.body() {
            Body::Memory(octets) => octets.to_vec(),
            Body::Spool => {
                let extents = self.extents_of(parcel.id)?;
                let mut piece = Vec::new();
                for extent in &extents {
                    if !piece.is_empty() {
                        draft = self.append_piece(seat, draft, std::mem::take(&mut piece)).await?;
                    }
                    piece = self.read_extent(extent).await?;
                }
                piece
            }
        };
        self.submit(Request::Commit(draft, last), seat.ticket());
        match seat.slot().clone().file_work().await {
            Done::Committed(result, buffer) => {
                self.keep_buffer(buffer);
                result.map(drop)
            }
            Done::Appended(..) => Err(gone()),
        }
    }

    async fn append_piece(&self, seat: &Seat, draft: Draft, piece: Vec<u8>) -> Result<Draft, Failure> {
        self.submit(Request::Append(draft, piece), seat.ticket());
        match seat.slot().clone().file_work().await {
            Done::Appended(Ok(draft), _) => Ok(draft),
            Done::Appended(Err(error), _) => Err(error.into()),
            Done::Committed(..) => Err(gone()),
        }
    }
}

/// A defect of ours: what was to be written is not there.
fn gone() -> Failure {
    Failure {
        kind: FailureKind::Other,
        text: "the message is gone".to_owned(),
    }
}
