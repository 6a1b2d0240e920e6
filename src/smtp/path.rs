//! Reverse-paths, forward-paths, mailboxes, domains (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
//!
//! Promises: a [`Mailbox`] holds what the grammar allows and nothing else: no control characters, no invalid UTF-8, no
//! part over its limit. One allocation for each mailbox. Pure data; lives with its envelope.

use std::borrow::Cow;
use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;

pub mod grammar;

use grammar::{MAX_PATH, a_labels};

/// A checked `local-part@domain`, as it was sent (source route dropped).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    text: Box<str>,
    at: u8,
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

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It is none by the grammar, or over a limit.
    Invalid,
    /// It is one with SMTPUTF8 only (RFC 6531 section 3.3).
    NeedsUtf8,
}

impl ReversePath {
    /// Parses the path at the front of `input`; returns it and what follows. `utf8`: whether SMTPUTF8 may be used.
    pub fn parse(input: &[u8], utf8: bool) -> Result<(ReversePath, &[u8]), PathError> {
        if let Some(rest) = input.strip_prefix(b"<>") {
            return Ok((ReversePath::Null, rest));
        }
        let (mailbox, rest) = Mailbox::parse_path(input, utf8)?;
        Ok((ReversePath::Mailbox(mailbox), rest))
    }

    /// The mailbox; none for the null path.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Without the angle brackets; empty for the null path.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("", Mailbox::as_str)
    }
}

impl ForwardPath {
    /// Parses the path at the front of `input`; returns it and what follows. `utf8`: whether SMTPUTF8 is used.
    pub fn parse(input: &[u8], utf8: bool) -> Result<(ForwardPath, &[u8]), PathError> {
        const POSTMASTER: &[u8] = b"<postmaster>";
        if let Some((head, rest)) = input.split_at_checked(POSTMASTER.len())
            && head.eq_ignore_ascii_case(POSTMASTER)
        {
            return Ok((ForwardPath::Postmaster, rest));
        }
        let (mailbox, rest) = Mailbox::parse_path(input, utf8)?;
        Ok((ForwardPath::Mailbox(mailbox), rest))
    }

    /// The mailbox; none for postmaster without a domain.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ForwardPath::Postmaster => None,
            ForwardPath::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Without the angle brackets.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("postmaster", Mailbox::as_str)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl Mailbox {
    /// The whole of `text` as a mailbox, without angle brackets, UTF-8 allowed: for configuration and lists.
    pub fn parse(text: &str) -> Option<Mailbox> {
        let (at, end) = grammar::mailbox(text.as_bytes())?;
        // A mailbox that no path could carry is of no use to anyone.
        (end == text.len() && end + "<>".len() <= MAX_PATH && !has_control(text)).then(|| Mailbox {
            text: text.into(),
            at: at as u8,
        })
    }

    fn parse_path(input: &[u8], utf8: bool) -> Result<(Mailbox, &[u8]), PathError> {
        let (mailbox, rest) = Self::scan(input).ok_or(PathError::Invalid)?;
        let consumed = input.len() - rest.len();
        if !utf8 && !input.iter().take(consumed).all(u8::is_ascii) {
            return Err(PathError::NeedsUtf8);
        }
        Ok((mailbox, rest))
    }

    fn scan(input: &[u8]) -> Option<(Mailbox, &[u8])> {
        let inner = input.strip_prefix(b"<")?;
        let route = grammar::source_route(inner)?;
        let address = inner.get(route..)?;
        let (at, end) = grammar::mailbox(address)?;
        let (address, rest) = address.split_at_checked(end)?;
        let rest = rest.strip_prefix(b">")?;
        if input.len() - rest.len() > MAX_PATH {
            return None;
        }
        let text = std::str::from_utf8(address).ok()?;
        (!has_control(text)).then(|| {
            let text = text.into();
            (Mailbox { text, at: at as u8 }, rest)
        })
    }

    /// The whole, as it was sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local-part, as it was sent.
    pub fn local(&self) -> &str {
        self.text.get(..usize::from(self.at)).unwrap_or_default()
    }

    /// The domain or address literal, as it was sent.
    pub fn domain(&self) -> &str {
        self.text.get(usize::from(self.at) + 1..).unwrap_or_default()
    }

    /// The local-part that is meant: a quoted string without its quotes and backslashes, for `"a"@b` and `a@b` are the
    /// same mailbox (RFC 5321 section 4.1.2).
    pub fn local_unquoted(&self) -> Cow<'_, str> {
        let local = self.local();
        let Some(quoted) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) else {
            return Cow::Borrowed(local);
        };
        if !quoted.contains('\\') {
            return Cow::Borrowed(quoted);
        }
        let mut plain = String::with_capacity(quoted.len());
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            // The grammar has seen to it that a character follows the backslash.
            plain.extend(if character == '\\' {
                characters.next()
            } else {
                Some(character)
            });
        }
        Cow::Owned(plain)
    }

    /// The domain for comparing and for logs: A-labels in lower case, so that a name in another script shows; address
    /// literals in lower case.
    pub fn domain_key(&self) -> Cow<'_, str> {
        domain_key(self.domain())
    }

    /// Whether the domain is an address literal.
    pub fn is_literal(&self) -> bool {
        self.domain().starts_with('[')
    }

    /// Whether it can be sent without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The mailbox for comparing with others: `local@domain`, where
    /// - the local-part is unquoted, in Normalization Form C (so that the same name composed and decomposed is one key,
    ///   as RFC 6531 section 3.1 and RFC 6532 section 3.1 ask), and its ASCII letters are lower case. RFC 5321 section 2.4
    ///   leaves the case to the host that owns the mailbox; letters beyond ASCII keep theirs, because their folding
    ///   depends on the language. Nothing is folded by likeness (NFKC): `ﬁ` is not `fi`;
    /// - the domain is [`Mailbox::domain_key`].
    ///
    /// The last `@` divides the two. A key of a key is that key.
    pub fn key(&self) -> String {
        let domain = self.domain_key();
        let mut key = String::with_capacity(self.at as usize + 1 + domain.len());
        key.push_str(&self.local_unquoted());
        if !key.is_ascii() {
            let nfc = ComposingNormalizerBorrowed::new_nfc();
            key = nfc.normalize(&key).into_owned();
            // Lower case may compose where upper case does not: h with line below has a code point, H has none.
            key.make_ascii_lowercase();
            key = nfc.normalize(&key).into_owned();
        }
        key.make_ascii_lowercase();
        key.push('@');
        key.push_str(&domain);
        key
    }
}

/// A domain or address literal for comparing: A-labels, lower case. What is neither is only put in lower case.
pub fn domain_key(domain: &str) -> Cow<'_, str> {
    if !domain.is_ascii() {
        return a_labels(domain).unwrap_or_else(|| Cow::Owned(domain.to_lowercase()));
    }
    if domain.bytes().any(|octet| octet.is_ascii_uppercase()) {
        Cow::Owned(domain.to_ascii_lowercase())
    } else {
        Cow::Borrowed(domain)
    }
}

/// The grammar has kept out the ASCII ones; C1 (U+0080 to U+009F) are UTF-8 like any other.
fn has_control(text: &str) -> bool {
    !text.is_ascii() && text.chars().any(char::is_control)
}
