//! HELO and EHLO (RFC 5321 section 4.1.1.1, v4.1 section 3.2.5).

use std::time::Instant;

use super::{Hello, Point, Session};
use crate::smtp::{command, oxsmtp};

impl Session {
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
            let keywords: Vec<_> = self.offered().keywords(terms.limits.max_message_size).collect();
            let keywords = keywords.iter().map(|k| k.as_ref());
            oxsmtp::ehlo(&mut self.output, &terms.hostname, self.client, keywords);
        } else {
            oxsmtp::helo(&mut self.output, &terms.hostname, self.client);
        }
        self.notes.replies.push(250);
    }
}
