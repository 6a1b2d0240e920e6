//! What an operator asks of this shard's queue.
//!
//! Promises: an answer lists a bounded number of messages and recipients, so that a queue of a million holds up nobody; what
//! is said to be held, released or removed is so after a crash too; each request is answered once, or dropped with the
//! shard. Lives on its shard.

use std::rc::Rc;

use super::{Shard, clock};
use crate::lookup::operator::{
    MAX_LISTED, MAX_RECIPIENTS, Message, Question, RECIPIENTS_LISTED, Recipient, Reply, ReplyTo, Request, State,
    Status, Wish,
};
use crate::relay::queue::{Listed, Refused, Stand};
use crate::spool::QueueId;

impl Shard {
    /// Does what an operator asks for, and says what came of it.
    pub(super) fn answer_operator(self: &Rc<Self>, request: Request) {
        let Request { question, reply_to } = request;
        match question {
            Question::List { after, most } => {
                let after = after.as_deref().map(QueueId::parse);
                // A name that is none is behind nothing.
                reply_to(after.map_or(self.page(None, most), |after| match after {
                    Some(after) => self.page(Some(after), most),
                    None => Reply::Misunderstood,
                }));
            }
            Question::Show { id, from } => match self.shown(&id, from) {
                Some((id, message)) if from == 0 => self.spawn(move |shard| async move {
                    let header = shard.header_of(id).await;
                    reply_to(Reply::Shown(Box::new(Message { header, ..message })));
                }),
                Some((_, message)) => reply_to(Reply::Shown(Box::new(message))),
                None => reply_to(Reply::Unknown),
            },
            Question::Ask { id, wish } => self.fulfil(&id, wish, reply_to),
            Question::RetryAll => {
                self.hops.believe_all();
                let queued = {
                    let mut queue = self.onward.queue.borrow_mut();
                    queue.retry_all();
                    queue.len() as u64
                };
                self.turn_queue(clock::now());
                reply_to(Reply::All(queued));
            }
        }
    }

    /// Those that are acknowledged: the others are gone within the acknowledgement delay.
    fn page(&self, after: Option<QueueId>, most: usize) -> Reply {
        let at = self.moment(clock::now());
        let queue = self.onward.queue.borrow();
        let mut listed = queue.list(after, at).filter(Listed::is_acknowledged).peekable();
        let (mut messages, mut named) = (Vec::new(), 0);
        while messages.len() < most.clamp(1, MAX_LISTED) && named < MAX_RECIPIENTS {
            let Some(listed) = listed.next() else {
                break;
            };
            let message = message(&listed, 0, RECIPIENTS_LISTED);
            named += message.recipients.len();
            messages.push(message);
        }
        let more = listed.peek().is_some();
        Reply::Page { messages, more }
    }

    fn shown(&self, id: &str, from: usize) -> Option<(QueueId, Message)> {
        let id = QueueId::parse(id)?;
        let at = self.moment(clock::now());
        let queue = self.onward.queue.borrow();
        let listed = queue.show(id, at).filter(Listed::is_acknowledged)?;
        Some((id, message(&listed, from, MAX_RECIPIENTS)))
    }

    fn fulfil(self: &Rc<Self>, id: &str, wish: Wish, reply_to: ReplyTo) {
        let Some(id) = QueueId::parse(id) else {
            return reply_to(Reply::Unknown);
        };
        if matches!(wish, Wish::Retry | Wish::Release) {
            // Whoever asks knows more than we do.
            self.hops.believe_all();
        }
        let at = self.moment(clock::now());
        let done = {
            let mut queue = self.onward.queue.borrow_mut();
            match wish {
                Wish::Retry => queue.retry(id, at),
                Wish::Hold => queue.hold(id, at),
                Wish::Release => queue.release(id, at),
                Wish::Remove => queue.remove(id, at),
            }
        };
        self.act();
        match done {
            Ok(()) if wish == Wish::Retry => reply_to(Reply::Done),
            Ok(()) => self.spawn(move |shard| async move {
                // What the queue says of it is with the spool when all that it wants done has been done.
                shard.has_acted().await;
                shard.confirm(id, reply_to);
            }),
            Err(Refused::Unknown) => reply_to(Reply::Unknown),
            Err(Refused::Unacknowledged) => reply_to(Reply::Unacknowledged),
        }
    }

    /// The header section of a message, the fields of this hop on top; none where its content cannot be read.
    async fn header_of(&self, id: QueueId) -> Option<String> {
        let parcel = self.onward.parcel(id)?;
        let (content, _, _) = self.beginning_of(id).await?;
        let mut header = match parcel.front() {
            Some(front) => front.fields.to_vec(),
            None => self.read_front(&parcel).await.ok()?.fields.into_vec(),
        };
        header.extend_from_slice(header_section(&content));
        Some(String::from_utf8_lossy(&header).into_owned())
    }
}

/// Up to the first empty line, or all of it. In whichever form: no field begins with a dot.
fn header_section(content: &[u8]) -> &[u8] {
    if content.starts_with(b"\r\n") {
        return &[];
    }
    let end = memchr::memmem::find(content, b"\r\n\r\n").map_or(content.len(), |at| at + 2);
    content.get(..end).unwrap_or_default()
}

fn message(listed: &Listed<'_>, from: usize, most: usize) -> Message {
    let envelope = listed.envelope();
    let next = listed.next_due();
    let status = if listed.is_held() {
        Status::Held
    } else if next.is_some() && listed.attempts() > 0 && !listed.is_being_tried() {
        Status::Deferred
    } else {
        Status::Active
    };
    let named = (from..).zip(listed.recipients().skip(from).take(most));
    let recipients = named.map(|(place, (recipient, stand, said))| {
        let (state, due) = match stand {
            Stand::Trying => (State::Trying, None),
            Stand::Due(due) => (State::Waiting, Some(due)),
            Stand::Held => (State::Held, None),
            Stand::Done => (State::Done, None),
        };
        Recipient {
            address: recipient.forward_path.as_str().to_owned(),
            state,
            attempts: listed.attempts_of(place),
            due,
            reply: said.map(|said| said.reply.to_string()),
            hop: said.map(|said| said.hop.to_string()).filter(|hop| !hop.is_empty()),
        }
    });
    Message {
        id: listed.id.as_str().to_owned(),
        status,
        arrived: listed.arrived(),
        size: listed.size(),
        attempts: listed.attempts(),
        next,
        sender: envelope.reverse_path.as_str().to_owned(),
        recipient_count: envelope.recipients.len(),
        recipients: recipients.collect(),
        envid: envelope.mail.envid.as_deref().map(str::to_owned),
        header: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_section_ends_before_the_first_empty_line() {
        for (content, header) in [
            ("A: 1\r\nB: 2\r\n\r\nbody\r\n\r\n", "A: 1\r\nB: 2\r\n"),
            ("A: 1\r\n", "A: 1\r\n"),
            ("\r\nA: 1\r\n\r\n", ""),
            ("", ""),
        ] {
            assert_eq!(header_section(content.as_bytes()), header.as_bytes(), "{content:?}");
        }
    }
}
