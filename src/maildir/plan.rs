//! Which files a message becomes, and what stands at their top.
//!
//! Promises: pure; a head never has a line that the envelope smuggled in. Lives on the shard.

use std::{collections::HashSet, path::PathBuf};

use super::{Conversion, Form, Template};
use crate::smtp::path::{ForwardPath, ReversePath, domain_key};

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
    /// A recipient named twice counts once, whatever
    /// the spelling. `own_domain` is what `<postmaster>` without a domain stands for
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
            .map(|path| (path, key(path, own_domain)))
            .filter(|(_, key)| seen.insert(key.clone()))
            .collect();
        if template.per_recipient() {
            for (path, key) in recipients {
                let (local, domain) = key.rsplit_once('@').unwrap_or((&key, own_domain));
                let head = head(reverse_path, [path], &received(Some(path)));
                self.files.push(FilePlan {
                    maildir: template.expand(local, domain),
                    head,
                });
            }
        } else if !recipients.is_empty() {
            let only = if let [(path, _)] = recipients.as_slice() {
                Some(*path)
            } else {
                None
            };
            let head = head(reverse_path, recipients.iter().map(|(path, _)| *path), &received(only));
            self.files.push(FilePlan {
                maildir: template.root().to_owned(),
                head,
            });
        }
    }
}

/// What makes two recipients the same, and names the Maildir: that of [`crate::smtp::path::Mailbox::key`], so that
/// `Bob@Example.com`, which the list of recipients takes for `bob@example.com`, does not get a Maildir that nobody reads.
fn key(path: &ForwardPath, own_domain: &str) -> String {
    match path {
        ForwardPath::Postmaster => format!("postmaster@{}", domain_key(own_domain)),
        ForwardPath::Mailbox(mailbox) => mailbox.key(),
    }
}

fn head<'a>(
    reverse_path: &ReversePath,
    recipients: impl IntoIterator<Item = &'a ForwardPath>,
    received: &[u8],
) -> Vec<u8> {
    let mut head = Vec::with_capacity(192 + received.len());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ForwardPath {
        ForwardPath::parse(format!("<{text}>").as_bytes(), true).unwrap().0
    }

    fn planned(template: &str, recipients: &[&str]) -> Vec<(String, String)> {
        let sender = ReversePath::parse(b"<s@example.org>", true).unwrap().0;
        let recipients: Vec<_> = recipients.iter().map(|text| path(text)).collect();
        let mut plan = Plan::new("7F", Form::Dotted, false);
        plan.deliver(
            &Template::parse(template).unwrap(),
            &sender,
            &recipients,
            "mx.example",
            |only| {
                format!(
                    "Received: by mx\r\n\tfor {only:?}\r\n",
                    only = only.map(ForwardPath::as_str)
                )
                .into_bytes()
            },
        );
        let text = |file: FilePlan| {
            (
                file.maildir.to_str().unwrap().to_owned(),
                String::from_utf8(file.head).unwrap(),
            )
        };
        plan.files.into_iter().map(text).collect()
    }

    #[test]
    fn without_places_all_recipients_share_one_file_with_a_line_for_each() {
        let head = "Return-Path: <s@example.org>\nDelivered-To: a@x.example\nDelivered-To: b@y.example\n\
                    Received: by mx\n\tfor None\n";
        assert_eq!(
            planned("mail", &["a@x.example", "b@y.example", "a@x.example"]),
            [("mail".into(), head.into())]
        );
        assert!(
            planned("mail", &["a@x.example", "A@X.example"])[0]
                .1
                .ends_with("for Some(\"a@x.example\")\n")
        );
        assert_eq!(planned("mail", &[]), []);
    }

    #[test]
    fn with_places_each_recipient_has_a_file_and_its_name_in_it() {
        let files = planned(
            "/m/{domain}/{local}",
            &["Bob@X.example", "\"bob\"@x.example", "postmaster"],
        );
        let maildirs: Vec<_> = files.iter().map(|(maildir, _)| maildir.as_str()).collect();
        assert_eq!(maildirs, ["/m/x.example/bob", "/m/mx.example/postmaster"]);
        let head = "Return-Path: <s@example.org>\nDelivered-To: Bob@X.example\nReceived: by mx\n\t\
                    for Some(\"Bob@X.example\")\n";
        assert_eq!(files[0].1, head);
    }

    #[test]
    fn two_recipients_of_one_maildir_keep_a_file_each() {
        assert_eq!(planned("m/{domain}", &["a@x.example", "b@x.example"]).len(), 2);
    }

    #[test]
    fn the_null_reverse_path_is_written_empty() {
        let head = head(&ReversePath::Null, [&ForwardPath::Postmaster], b"Received: x");
        assert_eq!(head, b"Return-Path: <>\nDelivered-To: postmaster\nReceived: x\n");
    }
}
