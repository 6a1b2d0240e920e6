//! Content: DATA (RFC 5321 section 4.1.1.4), BDAT (RFC 3030), and the octets of XEXCH50.
//!
//! Promises: what is announced is consumed, whatever becomes of it, so the next command is found where it really begins.

use std::time::Instant;

use super::{Line, Phase, Point, Session, Step};
use crate::smtp::BareNewline;
use crate::smtp::command;
use crate::smtp::envelope::Body;
use crate::smtp::extension::Extension;
use crate::smtp::oxsmtp::{self, Event, Reply};

/// A chunk whose octets are still coming.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenChunk {
    /// Octets announced.
    size: u64,
    /// Octets still to come.
    left: u64,
    /// `BDAT n LAST`.
    last: bool,
    /// The reply that waits for the end of the octets, where they are not part of a message.
    refusal: Option<Reply>,
}

/// Why complete content is not taken.
enum Fault {
    Limit(Event),
    Reply(Reply),
}

impl Session {
    pub(super) fn data(&mut self, args: &[u8], now: Instant) {
        let refusal = match &self.transaction {
            Some(t) if t.chunked => Some(Reply::BadSequence),
            Some(t) if t.envelope.recipients.is_empty() => Some(Reply::NeedRcpt),
            // RFC 3030 section 3: lines are no lines in BINARYMIME, so there is no end to look for.
            Some(t) if t.envelope.mail.body == Body::BinaryMime => Some(Reply::BadSequence),
            None => Some(Reply::NeedRcpt),
            Some(_) => command::no_arguments(args).err(),
        };
        if let Some(reply) = refusal {
            return self.error(reply, Point::Command, now);
        }
        self.scanner.reset();
        self.phase = Phase::Content { ended: false };
        self.say(Reply::StartMailInput);
    }

    pub(super) fn content(&mut self, input: &[u8], ended: bool, now: Instant) -> (usize, Option<Step>) {
        if ended {
            return (0, self.end_of_content(now));
        }
        let scan = self.scanner.data(input);
        if scan.used > 0 {
            self.heard = now;
        }
        if scan.ended {
            self.phase = Phase::Content { ended: true };
        }
        let step = self.store(scan.content);
        match step {
            None if !scan.ended => (scan.used, Some(Step::Read)),
            step => (scan.used, step),
        }
    }

    pub(super) fn bdat(&mut self, args: &[u8], now: Instant) {
        let offered = self.terms.offered.has(Extension::Chunking);
        let chunk = match command::bdat(args) {
            Ok(chunk) => chunk,
            // Without a size there is nothing to skip.
            Err(reply) if offered => return self.error(reply, Point::Command, now),
            Err(_) => return self.error(Reply::UnrecognizedCommand, Point::Command, now),
        };
        let refusal = match &mut self.transaction {
            // What a client announces to a server that takes no chunks is still no command.
            _ if !offered => Some(Reply::UnrecognizedCommand),
            Some(t) if t.envelope.recipients.is_empty() => Some(Reply::NeedRcpt),
            None => Some(Reply::NeedRcpt),
            Some(t) => {
                if !t.chunked {
                    t.chunked = true;
                    self.scanner.reset();
                }
                None
            }
        };
        self.phase = Phase::Chunk(OpenChunk {
            size: chunk.size,
            left: chunk.size,
            last: chunk.last,
            refusal,
        });
    }

    pub(super) fn chunk(&mut self, input: &[u8], mut chunk: OpenChunk, now: Instant) -> (usize, Option<Step>) {
        if chunk.left == 0 {
            return (0, self.end_of_chunk(chunk, now));
        }
        let taken = usize::try_from(chunk.left).unwrap_or(usize::MAX).min(input.len());
        let Some(octets) = input.get(..taken).filter(|octets| !octets.is_empty()) else {
            return (0, Some(Step::Read));
        };
        self.heard = now;
        chunk.left -= taken as u64;
        self.phase = Phase::Chunk(chunk);
        if chunk.refusal.is_some() {
            return (taken, None);
        }
        self.scanner.chunk(octets);
        (taken, self.store(taken))
    }

    pub(super) fn xexch50(&mut self, args: &[u8], now: Instant) {
        let size = match (&self.transaction, command::xexch50(args)) {
            _ if !self.terms.offered.has(Extension::Xexch50) => Err(Reply::UnrecognizedCommand),
            (Some(t), _) if t.chunked => Err(Reply::BadSequence),
            (Some(t), _) if t.envelope.recipients.is_empty() => Err(Reply::NeedRcpt),
            (None, _) => Err(Reply::NeedRcpt),
            (Some(_), Ok(size)) if size > self.terms.limits.max_message_size => {
                return self.limit(Event::MessageSizeExceeded, Point::Command, now);
            }
            (Some(_), size) => size,
        };
        match size {
            Ok(size) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.blob = true;
                }
                self.phase = Phase::Blob { left: size };
                self.say(Reply::SendBinaryData);
            }
            Err(reply) => self.error(reply, Point::Command, now),
        }
    }

    pub(super) fn blob(&mut self, input: &[u8], left: u64, now: Instant) -> (usize, Option<Step>) {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let left = left - taken as u64;
        if taken > 0 {
            self.heard = now;
        }
        if left == 0 {
            self.phase = Phase::Command;
            self.say(Reply::BlobTaken);
            return (taken, None);
        }
        self.phase = Phase::Blob { left };
        (taken, Some(Step::Read))
    }

    /// `content` octets at the front of the input belong to the message. Past the size limit they are thrown away, and
    /// so is what came before them.
    fn store(&mut self, content: usize) -> Option<Step> {
        let over = self.scanner.size() > self.terms.limits.max_message_size;
        let transaction = self.transaction.as_mut()?;
        if transaction.discarding {
            return None;
        }
        if over {
            transaction.discarding = true;
            return Some(Step::Discard);
        }
        (content > 0).then_some(Step::Store(0..content))
    }

    fn end_of_content(&mut self, now: Instant) -> Option<Step> {
        self.scanner.finish();
        match self.fault() {
            Some(fault) => {
                self.phase = Phase::Command;
                self.refuse_content(fault, now);
                None
            }
            None => {
                self.phase = Phase::Committing;
                Some(Step::Commit)
            }
        }
    }

    fn end_of_chunk(&mut self, chunk: OpenChunk, now: Instant) -> Option<Step> {
        self.phase = Phase::Command;
        if let Some(reply) = chunk.refusal {
            self.error(reply, Point::Command, now);
            return None;
        }
        if chunk.last {
            return self.end_of_content(now);
        }
        // Only what can no longer be mended by later chunks is refused before the last one.
        let limits = &self.terms.limits;
        let early = if self.scanner.size() > limits.max_message_size {
            Some(Event::MessageSizeExceeded)
        } else {
            (self.scanner.header_size() > limits.max_header_size).then_some(Event::HeaderSizeExceeded)
        };
        match early {
            Some(event) => self.refuse_content(Fault::Limit(event), now),
            None => {
                oxsmtp::chunk_received(&mut self.output, chunk.size);
                self.notes.replies.push(250);
            }
        }
        None
    }

    /// The verdict on complete content.
    fn fault(&self) -> Option<Fault> {
        let (limits, scanner) = (&self.terms.limits, &self.scanner);
        let bare_newline_matters = self.terms.bare_newline == BareNewline::Refuse && !self.is_chunked();
        if scanner.size() > limits.max_message_size {
            Some(Fault::Limit(Event::MessageSizeExceeded))
        } else if scanner.header_size() > limits.max_header_size {
            Some(Fault::Limit(Event::HeaderSizeExceeded))
        } else if scanner.bare_newline() && bare_newline_matters {
            Some(Fault::Reply(Reply::BareNewline))
        } else if scanner.received() > limits.max_hop_count {
            Some(Fault::Limit(Event::MaxHopCount))
        } else if scanner.received_local() > limits.max_local_hop_count {
            Some(Fault::Limit(Event::MaxLocalHopCount))
        } else {
            None
        }
    }

    fn refuse_content(&mut self, fault: Fault, now: Instant) {
        match fault {
            Fault::Limit(event) => {
                self.end_transaction(Some(Line::Event(event)), Some(event));
                self.limit(event, Point::Command, now);
            }
            Fault::Reply(reply) => {
                self.end_transaction(Some(Line::Reply(reply)), None);
                self.error(reply, Point::Command, now);
            }
        }
    }
}
