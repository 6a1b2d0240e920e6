//! Which recipients are taken, and which route their mail goes by.
//!
//! Promises: pure; the answer for a recipient is the reply of the table. The list of known recipients can be swapped while
//! sessions ask.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::smtp::oxsmtp::Reply;
use crate::smtp::path::{ForwardPath, Mailbox};

/// A set of domains, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainSet {
    any: bool,
    names: HashSet<Box<str>>,
}

/// The addresses known in the accepted domains, each as [`Mailbox::key`] gives it.
pub type Recipients = HashSet<Box<str>>;

/// The domains taken, the recipients known, and the routes in the order they are tried.
#[derive(Debug)]
pub struct Routing {
    /// This host's own name: where `<postmaster>` lives.
    pub hostname: Box<str>,
    /// Domains taken from clients that have not authenticated.
    pub accepted: DomainSet,
    /// The known recipients; none where any local-part of an accepted domain is taken.
    pub recipients: Option<Arc<ArcSwap<Recipients>>>,
    /// What each route is for.
    pub routes: Vec<DomainSet>,
}

impl DomainSet {
    /// From names in lower-case A-label form; `*` is any domain.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> DomainSet {
        let mut set = DomainSet::default();
        for name in names {
            match name {
                "*" => set.any = true,
                name => {
                    set.names.insert(name.into());
                }
            }
        }
        set
    }

    /// Whether `domain` (lower-case A-label form) is one of them.
    pub fn contains(&self, domain: &str) -> bool {
        self.any || self.names.contains(domain)
    }
}

impl Routing {
    /// The index of the route for a recipient of an unauthenticated client, or the refusal.
    pub fn judge(&self, path: &ForwardPath) -> Result<usize, Reply> {
        self.judge_for(path, false)
    }

    /// The same for an authenticated user, who may send to any domain that there is a route for.
    pub fn judge_for_user(&self, path: &ForwardPath) -> Result<usize, Reply> {
        self.judge_for(path, true)
    }

    fn judge_for(&self, path: &ForwardPath, user: bool) -> Result<usize, Reply> {
        match path {
            ForwardPath::Postmaster => self.route(&self.hostname).or(Some(0)).ok_or(Reply::UnableToRelay),
            ForwardPath::Mailbox(mailbox) => {
                let domain = mailbox.domain_key();
                let accepted = self.accepted.contains(&domain);
                if !accepted && !user {
                    return Err(Reply::UnableToRelay);
                }
                let route = self.route(&domain).ok_or(Reply::UnableToRelay)?;
                if accepted && !self.knows(mailbox) {
                    return Err(Reply::UserUnknown);
                }
                Ok(route)
            }
        }
    }

    /// The index of the route by which mail for `path` goes, whoever sends it.
    pub fn route_of(&self, path: &ForwardPath) -> Option<usize> {
        match path {
            ForwardPath::Postmaster => self.route(&self.hostname),
            ForwardPath::Mailbox(mailbox) => self.route(&mailbox.domain_key()),
        }
    }

    fn route(&self, domain: &str) -> Option<usize> {
        self.routes.iter().position(|route| route.contains(domain))
    }

    /// RFC 5321 section 4.5.1: postmaster of every domain served is always known.
    fn knows(&self, mailbox: &Mailbox) -> bool {
        let Some(recipients) = &self.recipients else {
            return true;
        };
        mailbox.local_unquoted().eq_ignore_ascii_case("postmaster")
            || recipients.load().contains(mailbox.key().as_str())
    }
}

/// Reads a list of recipients: one address a line, `#` starts a comment. Lines that are no address are given back by
/// number.
pub fn parse_recipients(text: &str) -> (Recipients, Vec<usize>) {
    let mut recipients = Recipients::new();
    let mut bad = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        match Mailbox::parse(address) {
            Some(mailbox) => {
                recipients.insert(mailbox.key().into());
            }
            None => bad.push(number),
        }
    }
    (recipients, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing(accepted: &[&str], known: Option<&str>, routes: &[&[&str]]) -> Routing {
        Routing {
            hostname: "mx.test".into(),
            accepted: DomainSet::new(accepted.iter().copied()),
            recipients: known.map(|text| Arc::new(ArcSwap::from_pointee(parse_recipients(text).0))),
            routes: routes.iter().map(|r| DomainSet::new(r.iter().copied())).collect(),
        }
    }

    fn to(address: &str) -> ForwardPath {
        ForwardPath::Mailbox(Mailbox::parse(address).unwrap())
    }

    #[test]
    fn a_domain_that_is_not_accepted_is_not_relayed_to() {
        let routing = routing(&["a.test"], None, &[&["*"]]);
        assert_eq!(routing.judge(&to("u@A.Test")), Ok(0));
        assert_eq!(routing.judge(&to("u@b.test")), Err(Reply::UnableToRelay));
        for hack in ["u%b.test@c.test", "b.test!u@c.test", "\"u@b.test\"@c.test"] {
            assert_eq!(routing.judge(&to(hack)), Err(Reply::UnableToRelay), "{hack}");
        }
    }

    #[test]
    fn the_first_route_that_knows_the_domain_is_taken() {
        let routing = routing(&["*"], None, &[&["a.test"], &["b.test", "c.test"]]);
        assert_eq!(routing.judge(&to("u@c.test")), Ok(1));
        assert_eq!(routing.judge(&to("u@d.test")), Err(Reply::UnableToRelay));
    }

    #[test]
    fn an_unknown_recipient_is_refused_but_postmaster_is_always_known() {
        let routing = routing(
            &["a.test"],
            Some("# staff\nAnn@a.test # a comment\n\nnonsense\n"),
            &[&["*"]],
        );
        assert_eq!(routing.judge(&to("ann@A.TEST")), Ok(0));
        assert_eq!(routing.judge(&to("bob@a.test")), Err(Reply::UserUnknown));
        assert_eq!(routing.judge(&to("PostMaster@a.test")), Ok(0));
        assert_eq!(routing.judge(&ForwardPath::Postmaster), Ok(0));
    }

    #[test]
    fn a_line_that_is_no_address_is_named_by_its_number() {
        assert_eq!(parse_recipients("a@b.test\nnonsense\n\n@x\n").1, vec![2, 4]);
    }
}
