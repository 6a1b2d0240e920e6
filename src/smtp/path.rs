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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`
    #[default]
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
    /// - the local-part is unquoted, in Normalization Form C (so that the same name composed and decomposed is one key;
    ///   RFC 6532 section 3.1 advises that form), and its ASCII letters are lower case. RFC 5321 section 2.4
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap_or_else(|| panic!("{text:?} is a mailbox"))
    }

    fn parsed(path: &str) -> Result<String, PathError> {
        ForwardPath::parse(path.as_bytes(), true)
            .map(|(path, rest)| format!("{}|{}", path.as_str(), String::from_utf8_lossy(rest)))
    }

    #[test]
    fn a_source_route_is_checked_and_dropped() {
        assert_eq!(parsed("<@a:u@b>").unwrap(), "u@b|");
        assert_eq!(parsed("<@a.test,@b.test:u@c> X").unwrap(), "u@c| X");
        for path in [
            "<@a,b:u@c>",
            "<@a:@b:u@c>",
            "<@a,:u@c>",
            "<@:u@c>",
            "<@a u@c>",
            "<@a,@b>",
            "<@[192.0.2.1]:u@c>",
            "<@a:>",
            "<@a:postmaster>",
            "<@-a:u@b>",
        ] {
            assert_eq!(parsed(path), Err(PathError::Invalid), "{path}");
        }
    }

    #[test]
    fn the_null_path_is_for_senders_and_postmaster_for_recipients() {
        assert_eq!(ReversePath::parse(b"<> X", true), Ok((ReversePath::Null, &b" X"[..])));
        assert!(ReversePath::parse(b"<postmaster>", true).is_err());
        assert_eq!(
            ForwardPath::parse(b"<PostMaster>", true),
            Ok((ForwardPath::Postmaster, &b""[..]))
        );
        assert_eq!(parsed("<PostMaster@b>").unwrap(), "PostMaster@b|");
        for path in [
            "<>",
            "< >",
            "<",
            "",
            "a@b",
            "<a@b",
            "a@b>",
            "<<a@b>>",
            "< a@b>",
            "<a@b >",
            "<postmaster",
            "<postmasters>",
        ] {
            assert_eq!(parsed(path), Err(PathError::Invalid), "{path}");
        }
    }

    #[test]
    fn octets_above_127_are_utf8_and_need_smtputf8_wherever_they_stand() {
        for path in ["<\u{e9}@b>", "<a@\u{fc}.test>", "<@\u{fc}.test:a@b>"] {
            assert!(ForwardPath::parse(path.as_bytes(), true).is_ok(), "{path}");
            assert_eq!(
                ForwardPath::parse(path.as_bytes(), false),
                Err(PathError::NeedsUtf8),
                "{path}"
            );
        }
        for path in [
            &b"<\xe9@b>"[..],
            b"<\xc3@b>",
            b"<a@\xfc.test>",
            b"<\xc0\xaf@b>",
            b"<\xed\xa0\x80@b>",
            b"<\"\xff\"@b>",
            b"<@\xff:a@b>",
        ] {
            for utf8 in [true, false] {
                assert_eq!(ForwardPath::parse(path, utf8), Err(PathError::Invalid), "{path:?}");
            }
        }
    }

    #[test]
    fn a_mailbox_knows_its_parts_and_its_key() {
        for (text, local, key) in [
            ("Jo.Doe@EXAMPLE.test", "Jo.Doe", "jo.doe@example.test"),
            (r#""Jo\ Doe\""@B"#, "Jo Doe\"", "jo doe\"@b"),
            ("\"jo\"@b", "jo", "jo@b"),
            ("\"a@b\"@c", "a@b", "a@b@c"),
            ("a@[IPv6:2001:DB8::1]", "a", "a@[ipv6:2001:db8::1]"),
            ("a@B\u{dc}CHER.test", "a", "a@xn--bcher-kva.test"),
            ("a@XN--BCHER-KVA.test", "a", "a@xn--bcher-kva.test"),
            ("a@bu\u{308}cher.test", "a", "a@xn--bcher-kva.test"),
            ("Rene\u{301}@b", "Rene\u{301}", "ren\u{e9}@b"),
            ("Ren\u{e9}@b", "Ren\u{e9}", "ren\u{e9}@b"),
            ("\"Re\\ne\u{301}\"@b", "Rene\u{301}", "ren\u{e9}@b"),
            ("H\u{331}@b", "H\u{331}", "\u{1e96}@b"),
            ("\u{c9}@b", "\u{c9}", "\u{c9}@b"),
            ("\u{fb01}@b", "\u{fb01}", "\u{fb01}@b"),
        ] {
            let mailbox = mailbox(text);
            assert_eq!(mailbox.local_unquoted(), local);
            assert_eq!(mailbox.key(), key);
            assert_eq!(format!("{}@{}", mailbox.local(), mailbox.domain()), text);
            assert_eq!(mailbox.is_ascii(), text.is_ascii());
            assert_eq!(mailbox.is_literal(), text.contains('['));
        }
    }

    #[test]
    fn a_domain_of_another_script_shows_in_its_key() {
        assert_eq!(mailbox("a@\u{430}pple.test").domain_key(), "xn--pple-43d.test");
        assert!(matches!(mailbox("a@b.test").domain_key(), Cow::Borrowed("b.test")));
    }
}
