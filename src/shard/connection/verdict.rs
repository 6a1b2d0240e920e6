//! Policy's answers to a connection: may it come, may it send, is the recipient one of ours?
//!
//! Promises: the one place where the facts of a connection and the rules of [`policy`](crate::policy) meet; only the block
//! lists are ever waited for. Lives on its shard.

use std::net::IpAddr;
use std::time::Instant;

use super::Connection;
use crate::lookup::{Listing, Question as Lookup};
use crate::metrics::Counter;
use crate::policy::admission;
use crate::policy::binding::Binding;
use crate::policy::network::Source;
use crate::policy::tally::Claim;
use crate::shard::{Current, Shard, clock};
use crate::smtp::oxsmtp::{Event, Reply};
use crate::smtp::session::{Question, Verdict};
use crate::smtp::{Edition, Role};

/// What the block lists have said of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// They were not asked.
    Unasked,
    /// They were asked when the client connected.
    Asked,
    /// It is on none.
    Clear,
    /// It is on one.
    Listed,
}

/// Whose messages or TLS sessions are counted together.
#[derive(Hash)]
pub(super) enum Who<'a> {
    Source(Source),
    User(&'a str),
    Tls(Source),
}

impl Shard {
    /// Admission of a client to a binding, at this moment.
    pub(in crate::shard) fn admit(
        &self,
        settings: &Current,
        binding: &Binding,
        client: IpAddr,
    ) -> Result<Claim, Event> {
        let moment = admission::Moment {
            draining: self.draining.get(),
            unix_seconds: (self.unix_millis(clock::now()) / 1000) as i64,
        };
        admission::admit(&settings.policy.access, binding, &self.column, client, moment)
    }
}

impl Connection {
    /// Policy's answers. None where it has to be waited for.
    pub(super) fn judge(&mut self, question: Question, now: Instant) -> Option<Verdict> {
        let verdict = match question {
            Question::Mail => self.judge_mail(now),
            Question::StartTls if self.may_begin_tls(now) => Verdict::Accept,
            Question::StartTls => {
                self.note_tls_refused();
                Verdict::Refuse(Reply::TooManyTlsSessions)
            }
            // Not a matter of policy: see [`Connection::find`].
            Question::Credentials => Verdict::Refuse(Reply::TryLater),
            Question::Rcpt => {
                if self.standing == Standing::Asked {
                    let listing = self.seat.slot().known_listing()?;
                    self.learn(listing);
                }
                self.judge_rcpt()
            }
        };
        Some(verdict)
    }

    fn judge_mail(&mut self, now: Instant) -> Verdict {
        self.routes.clear();
        if self.binding.resources.is_low() {
            return Verdict::Refuse(Reply::ResourcesLow);
        }
        if let (Some(user), Some(path)) = (self.session.user(), self.session.reverse_path_asked())
            && !self.settings.policy.users.load().may_send_as(user, path)
        {
            return Verdict::Refuse(Reply::NoPermission);
        }
        let limit = self.binding.terms.limits.message_rate;
        // A relay counts by user; a client that needs no AUTH there is known by its address, and not counted.
        let who = match (self.binding.role, self.session.user()) {
            (Role::Gateway, _) => Some(Who::Source(Source::of(self.record.client))),
            (Role::Relay, user) => user.map(|user| Who::User(user)),
        };
        if let Some(who) = who.filter(|_| limit > 0) {
            let who = (self.binding.rate_scope, who);
            if !self.shard.rates.admit(who, limit, self.shard.second(now)) {
                return Verdict::Limit(Event::MessageRateLimitExceeded);
            }
        }
        Verdict::Accept
    }

    fn judge_rcpt(&mut self) -> Verdict {
        // Whoever has authenticated sends from anywhere.
        if self.standing == Standing::Listed && self.session.user().is_none() {
            return Verdict::Limit(Event::IPAddressNotAllowedBlockList);
        }
        let Some(path) = self.session.forward_path_asked() else {
            return Verdict::Refuse(Reply::TryLater);
        };
        let routing = &self.settings.policy.routing;
        let judged = match self.session.user() {
            Some(_) => routing.judge_for_user(path),
            None => routing.judge(path),
        };
        match judged {
            Ok(route) => {
                self.routes.push(route);
                Verdict::Accept
            }
            Err(reply) => Verdict::Refuse(reply),
        }
    }

    /// The lists are asked when the client connects and heard when it names a recipient, so it hardly ever waits.
    pub(super) fn ask_block_lists(&mut self) {
        let client = self.record.client;
        if !admission::asks_block_lists(&self.settings.policy.access, &self.binding, client) {
            return;
        }
        match self.shard.asker.ask(Lookup::BlockList { client }, self.seat.ticket()) {
            Ok(()) => self.standing = Standing::Asked,
            // A list that cannot be asked never refuses mail.
            Err(_) => self.shard.metrics.count(Counter::QuestionsRefused),
        }
    }

    pub(super) fn learn(&mut self, listing: Listing) {
        self.standing = match listing {
            Listing::Clear => Standing::Clear,
            Listing::Listed { .. } => Standing::Listed,
        };
    }

    /// v17, Tarpit: once again when the same client connects.
    pub(super) fn owes_a_delay(&self) -> bool {
        let limits = &self.binding.terms.limits;
        !limits.tarpit.is_zero()
            && self.binding.terms.edition == Edition::Y2021
            && self
                .shard
                .owed
                .take(Source::of(self.record.client), self.shard.second(self.record.opened))
    }
}
