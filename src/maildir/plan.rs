//! Which files a message becomes, and what stands at their top.
//!
//! Promises: pure; a head never has a line that the envelope smuggled in. Lives on the shard.

use std::{borrow::Cow, collections::HashSet, path::PathBuf};

use super::{Conversion, Form, Template};
use crate::smtp::path::{ForwardPath, ReversePath};

/// Where a message's files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Part of the files' names.
    pub queue_id: Box<str>,
    /// At least one; else committing fails.
    pub files: Vec<FilePlan>,
    /// How the content comes.
    pub form: Form,
    /// A bare CR or LF becomes a line end; else it stays.
    pub normalise: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan {
    /// The directory that has (or gets) `tmp`, `new` and `cur`.
    pub maildir: PathBuf,
    /// Return-Path, Delivered-To, Received: with LF line ends.
    pub head: Vec<u8>,
}

impl Plan {
    /// A message without files as yet.
    pub fn new(queue_id: &str, form: Form, normalise: bool) -> Plan {
        Plan {
            queue_id: queue_id.into(),
            files: Vec::new(),
            form,
            normalise,
        }
    }

    /// Adds the files of one route: one file for all its recipients, or, by a template with places, one for each.
    /// The same recipient named twice counts once. `own_domain` is what `<postmaster>` without a domain stands for
    /// (RFC 5321 section 4.5.1). `received` gives the Received field with CRLF line ends, once for each file; it is
    /// told the recipient where the file has only one, for the `for` clause (RFC 5321 section 4.4: never more).
    pub fn deliver<'a>(
        &mut self,
        template: &Template,
        reverse_path: &ReversePath,
        recipients: impl IntoIterator<Item = &'a ForwardPath>,
        own_domain: &str,
        mut received: impl FnMut(Option<&ForwardPath>) -> Vec<u8>,
    ) {
        let mut seen = HashSet::new();
        let recipients: Vec<_> = recipients
            .into_iter()
            .filter(|path| seen.insert(canonical(path)))
            .collect();
        if template.per_recipient() {
            for path in recipients {
                let (local, domain) = match path {
                    ForwardPath::Postmaster => (Cow::Borrowed("postmaster"), own_domain),
                    ForwardPath::Mailbox(mailbox) => (unquoted(mailbox.local()), mailbox.domain()),
                };
                let head = head(reverse_path, &[path], &received(Some(path)));
                self.files.push(FilePlan {
                    maildir: template.expand(&local, domain),
                    head,
                });
            }
        } else if !recipients.is_empty() {
            let only = if let [path] = recipients.as_slice() {
                Some(*path)
            } else {
                None
            };
            let head = head(reverse_path, &recipients, &received(only));
            self.files.push(FilePlan {
                maildir: template.root().to_owned(),
                head,
            });
        }
    }
}

/// What makes two recipients the same: the local-part exactly, the domain in any case (RFC 5321 section 2.4).
fn canonical(path: &ForwardPath) -> (&str, String) {
    match path {
        ForwardPath::Postmaster => ("postmaster", String::new()),
        ForwardPath::Mailbox(mailbox) => (mailbox.local(), mailbox.domain().to_ascii_lowercase()),
    }
}

/// A quoted local-part names the same mailbox as the unquoted one (RFC 5321 section 4.1.2).
fn unquoted(local: &str) -> Cow<'_, str> {
    let Some(inside) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(local);
    };
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    Cow::Owned(text)
}

fn head(reverse_path: &ReversePath, recipients: &[&ForwardPath], received: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(64 + 64 * recipients.len() + received.len());
    head.extend_from_slice(b"Return-Path: <");
    if let ReversePath::Mailbox(mailbox) = reverse_path {
        push_text(mailbox.as_str(), &mut head);
    }
    head.extend_from_slice(b">\n");
    for path in recipients {
        head.extend_from_slice(b"Delivered-To: ");
        match path {
            ForwardPath::Postmaster => head.extend_from_slice(b"postmaster"),
            ForwardPath::Mailbox(mailbox) => push_text(mailbox.as_str(), &mut head),
        }
        head.push(b'\n');
    }
    let mut conversion = Conversion::new(Form::Plain, true);
    conversion.push(received, &mut head);
    conversion.finish(&mut head);
    if head.last() != Some(&b'\n') {
        head.push(b'\n');
    }
    head
}

/// The parser lets no control character through; this is the second lock before a header field.
fn push_text(text: &str, head: &mut Vec<u8>) {
    head.extend(
        text.bytes()
            .map(|octet| if octet.is_ascii_control() { b'?' } else { octet }),
    );
}
