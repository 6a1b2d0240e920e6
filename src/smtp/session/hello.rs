//! HELO and EHLO (RFC 5321 section 4.1.1.1, v4.1 section 3.2.5).

use std::time::Instant;

use super::{Hello, Point, Session};
use crate::smtp::extension::Extension;
use crate::smtp::received::Protocol;
use crate::smtp::{command, oxsmtp};

impl Session {
    /// How the current message came, for its Received field.
    pub fn protocol(&self) -> Protocol {
        let utf8 = self.envelope().is_some_and(|e| e.mail.smtputf8);
        Protocol::of(
            self.hello.as_ref().is_some_and(|h| h.esmtp),
            self.tls,
            self.user.is_some(),
            utf8,
        )
    }

    /// A greeting opens the dialogue anew: whatever transaction there was is gone (RFC 5321 section 4.1.4).
    pub(super) fn hello(&mut self, args: &[u8], esmtp: bool, now: Instant) {
        let name = match command::hello(args, esmtp) {
            Ok(name) => name,
            Err(reply) => return self.error(reply, Point::Command, now),
        };
        self.hello = Some(Hello {
            name: name.into(),
            esmtp,
        });
        self.end_transaction(None, None);
        let terms = self.terms.clone();
        if esmtp {
            let auth = self.auth_keyword();
            let offered = match auth {
                Some(_) => self.offered().with(Extension::Auth),
                None => self.offered(),
            };
            let keywords: Vec<_> = offered.keywords(terms.limits.max_message_size).collect();
            let keywords = keywords.iter().map(|keyword| match &auth {
                Some(auth) if keyword == Extension::Auth.keyword() => auth.as_str(),
                _ => keyword,
            });
            oxsmtp::ehlo(&mut self.output, &terms.hostname, self.client, keywords);
        } else {
            oxsmtp::helo(&mut self.output, &terms.hostname, self.client);
        }
        self.notes.replies.push(250);
    }
}
