//! What the log says of a session and of a message: one line each.
//!
//! Promises: every value from the network goes through the log's escaping; one line costs no allocation once the buffer has
//! grown. Lives on its shard.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shard;
use super::tls::Secured;
use crate::log::Level;
use crate::policy::binding::Binding;
use crate::smtp::envelope::Envelope;
use crate::smtp::oxsmtp::Event;
use crate::smtp::path::{ForwardPath, ReversePath};
use crate::smtp::session::{Custody, Session};
use crate::spool::QueueId;

/// Recipients that one line names; the rest is counted.
const RECIPIENTS_NAMED: usize = 20;

/// The facts of a session that its line tells.
#[derive(Debug)]
pub struct SessionRecord {
    /// Its name in the log.
    pub id: QueueId,
    /// The binding it came to.
    pub binding: Arc<Binding>,
    /// Where it came from.
    pub client: IpAddr,
    /// The same as text: it stands in the line of each message.
    pub client_text: Box<str>,
    /// The client's port.
    pub port: u16,
    /// When it was accepted.
    pub opened: Instant,
    /// Messages acknowledged.
    pub messages: u32,
    /// Messages refused or given up.
    pub refused: u32,
    /// What the handshake has agreed on, or why there was none.
    pub tls: Option<Box<Result<Secured, String>>>,
    /// The last limit that was passed.
    pub limit: Option<Event>,
    /// How it ended.
    pub end: End,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We closed after a last reply: QUIT, a closing limit, a drain.
    Closed,
    /// The client went away.
    Disconnected,
    /// The client did not take our replies.
    Stalled,
    /// The connection broke.
    Broken,
    /// The client wanted TLS, and there was none.
    NoTls,
    /// Plaintext came behind STARTTLS.
    Injected,
    /// A defect of ours.
    Panicked,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Disconnected => "disconnected",
            End::Stalled => "stalled",
            End::Broken => "broken",
            End::NoTls => "no TLS",
            End::Injected => "plaintext behind STARTTLS",
            End::Panicked => "panicked",
        }
    }
}

/// The facts of a message that its line tells.
#[derive(Debug)]
pub struct MessageRecord<'a> {
    /// The queue id, where it got one.
    pub id: Option<QueueId>,
    /// Who to whom.
    pub envelope: &'a Envelope,
    /// Octets of content.
    pub size: u64,
    /// `accepted`, `refused` or `abandoned`.
    pub result: &'static str,
    /// Who answers for an accepted one.
    pub custody: Option<Custody>,
    /// The refusal.
    pub reply: Option<&'a str>,
    /// The limit that refused.
    pub limit: Option<Event>,
    /// From the first octet of content to its end.
    pub receiving: Option<Duration>,
    /// From the end of content to the final reply.
    pub delivering: Option<Duration>,
    /// What the file system said.
    pub error: Option<&'a str>,
}

impl Shard {
    /// One line for a session that has ended.
    pub(super) fn record_session(&self, record: &SessionRecord, session: &Session, now: Instant) {
        let level = match record.end {
            End::Injected => Level::Warn,
            _ => Level::Info,
        };
        let mut lines = self.lines.borrow_mut();
        let mut line = lines
            .line(self.wall(now), level, "session")
            .field("session", record.id.as_str())
            .field("binding", record.binding.name.as_bytes())
            .field("client", &*record.client_text)
            .number("port", u64::from(record.port))
            .field("helo", session.hello_name());
        line = match record.tls.as_deref() {
            None => line,
            Some(Ok(tls)) => {
                let line = line.field("tls", tls.version).field("cipher", tls.cipher);
                match &tls.sni {
                    Some(sni) => line.field("sni", &**sni),
                    None => line,
                }
            }
            Some(Err(error)) => line.field("tls_error", error.as_str()),
        };
        if let Some(user) = session.user() {
            line = line.field("user", &**user);
        }
        if session.logon_errors() > 0 {
            line = line.number("logon_errors", session.logon_errors());
        }
        line = line
            .number("messages", u64::from(record.messages))
            .number("refused", u64::from(record.refused))
            .seconds("duration", now.saturating_duration_since(record.opened))
            .field("end", record.end.name());
        if let Some(limit) = record.limit {
            line = line.field("limit", limit.name());
        }
        line.done();
    }

    /// One line for a connection that was refused before it became a session.
    pub(super) fn record_refusal(&self, binding: &str, client: IpAddr, event: Event, now: Instant) {
        let mut lines = self.lines.borrow_mut();
        lines
            .line(self.wall(now), Level::Info, "session")
            .field("binding", binding)
            .display("client", client)
            .field("end", "refused")
            .field("limit", event.name())
            .done();
    }

    /// One line for a proxy that did not say whom it speaks for.
    pub(super) fn record_no_proxy_header(&self, binding: &str, proxy: IpAddr, now: Instant) {
        let mut lines = self.lines.borrow_mut();
        lines
            .line(self.wall(now), Level::Warn, "session")
            .field("binding", binding)
            .display("proxy", proxy)
            .field("end", "no PROXY header")
            .field("limit", Event::BindingNotConfigured.name())
            .done();
    }

    /// One line for a message, whatever became of it.
    pub(super) fn record_message(
        &self,
        session: &SessionRecord,
        dialogue: &Session,
        message: &MessageRecord<'_>,
        now: Instant,
    ) {
        let mut lines = self.lines.borrow_mut();
        let mut line = lines
            .line(self.wall(now), Level::Info, "message")
            .field("id", message.id.as_ref().map_or("-", QueueId::as_str))
            .field("session", session.id.as_str())
            .field("client", &*session.client_text)
            .field("helo", dialogue.hello_name());
        if let Some(user) = dialogue.user() {
            line = line.field("user", &**user);
        }
        line = line.field("from", reverse(&message.envelope.reverse_path));
        for recipient in message.envelope.recipients.iter().take(RECIPIENTS_NAMED) {
            line = line.field("to", forward(&recipient.forward_path));
        }
        line = line
            .number("recipients", message.envelope.recipients.len() as u64)
            .number("size", message.size)
            .field("result", message.result);
        if let Some(custody) = message.custody {
            line = line.field("custody", custody.name());
        }
        if let Some(reply) = message.reply {
            line = line.field("reply", reply);
        }
        if let Some(limit) = message.limit {
            line = line.field("limit", limit.name());
        }
        if let Some(error) = message.error {
            line = line.field("error", error);
        }
        if let Some(receiving) = message.receiving {
            line = line.seconds("receiving", receiving);
        }
        if let Some(delivering) = message.delivering {
            line = line.seconds("delivering", delivering);
        }
        line.done();
    }
}

fn reverse(path: &ReversePath) -> &str {
    match path {
        ReversePath::Null => "",
        ReversePath::Mailbox(mailbox) => mailbox.as_str(),
    }
}

fn forward(path: &ForwardPath) -> &str {
    match path {
        ForwardPath::Postmaster => "postmaster",
        ForwardPath::Mailbox(mailbox) => mailbox.as_str(),
    }
}
