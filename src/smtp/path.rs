//! Reverse-paths, forward-paths, mailboxes, domains (RFC 5321 section 4.1.2, RFC 6531 section 3.3).

/// A checked `local-part@domain`, as it was sent (source route dropped).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    text: Box<str>,
    at: usize,
}

/// Where reports go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`
    Null,
    /// `<mailbox>`
    Mailbox(Mailbox),
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
    /// `<mailbox>`
    Mailbox(Mailbox),
}

impl Mailbox {
    /// The whole, as it was sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The local-part, as it was sent.
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }
    /// The domain or address literal, as it was sent.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }
}
