//! A line of the users file: `user:{SCHEME}hash`, then optionally `:senders=a@b,c@d`.
//!
//! Promises: pure; what comes out can be used as it is: the hash is one of its scheme, and not too costly to compare.

use std::collections::HashSet;

use super::hash::{self, Scheme};
use crate::smtp::path::{Mailbox, domain_key};

/// A line, taken apart.
#[derive(Debug)]
pub struct Line<'a> {
    pub name: &'a str,
    pub scheme: Scheme,
    /// What follows the scheme.
    pub hash: &'a str,
    /// The two together.
    pub encoded: &'a str,
    /// What follows `senders=`.
    senders: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// The line, or what should stand there. Fields of Dovecot's that mean nothing here must be empty: a colon in a password
    /// would look like one.
    pub fn parse(text: &'a str) -> Result<Line<'a>, &'static str> {
        let (name, rest) = text.split_once(':').ok_or("user:{SCHEME}hash")?;
        if name.is_empty() || name.len() > 255 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("the name of a user before the first colon, without spaces");
        }
        let mut fields = rest.split(':');
        let encoded = fields.next().unwrap_or_default();
        let (word, hash) = encoded
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
            .ok_or("{SCHEME} before the hash")?;
        let scheme = Scheme::parse(word).ok_or(hash::SCHEMES)?;
        hash::check(scheme, hash)?;
        let mut senders = None;
        for field in fields.filter(|field| !field.is_empty()) {
            let list = field.strip_prefix("senders=");
            if list.is_none() || senders.is_some() {
                return Err("nothing but :senders=a@b,c@d behind the hash");
            }
            senders = list;
        }
        Ok(Line {
            name,
            scheme,
            hash,
            encoded,
            senders,
        })
    }

    /// The addresses that the user may send as, as keys.
    pub fn senders(&self) -> Result<Option<HashSet<Box<str>>>, &'static str> {
        let Some(list) = self.senders else { return Ok(None) };
        let address = |word: &str| match word.trim().split_once('@') {
            Some(("", domain)) => Some(format!(
                "@{}",
                domain_key(Mailbox::parse(&format!("x@{domain}"))?.domain())
            )),
            _ => Some(Mailbox::parse(word.trim())?.key()),
        };
        let addresses: Option<HashSet<_>> = list.split(',').map(|word| address(word).map(Box::from)).collect();
        addresses
            .map(Some)
            .ok_or("senders= and addresses, divided by commas; @domain for all of a domain")
    }
}
