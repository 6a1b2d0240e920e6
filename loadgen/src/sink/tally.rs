//! What one thread of the sink has counted.
//!
//! Promises: counting allocates nothing a message beyond what the ledger keeps. Each thread has its own; they are put together
//! at the end. Pure.

use super::fault::{Act, Stage, Verdict};
use crate::identity::Found;
use crate::identity::ledger::{Fault, Ledger};

/// What was done to commands of one stage on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    pub delayed: u64,
    pub deferred: u64,
    pub refused: u64,
    /// Dropped or reset without a reply.
    pub dropped: u64,
    pub stalled: u64,
    /// Replied to in a way that a client need not understand, or may not get.
    pub spoilt: u64,
    /// Forgotten, doubled or altered.
    pub falsified: u64,
}

/// The counters of a thread.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub connections: u64,
    /// Messages taken: said yes to.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Octets of their content.
    pub octets: u64,
    /// Messages over the size limit.
    pub too_big: u64,
    /// Connections that ended within a transaction.
    pub abandoned: u64,
    /// Connections on which TLS was established, and on which it failed.
    pub secured: u64,
    pub tls_failures: u64,
    /// What clients should not have done.
    pub violations: Fault,
    /// What was done on purpose, by stage, in the order of `Stage::ALL`.
    pub deeds: [Deeds; Stage::ALL.len()],
    /// Who has arrived; nothing is put into it unless `verifying`.
    pub ledger: Ledger,
    pub verifying: bool,
}

impl Tally {
    /// A message has been judged as a whole.
    pub fn settle(&mut self, found: &Found, recipients: &[u32], act: Act) {
        if !act.takes() {
            return;
        }
        self.messages += 1;
        self.octets += found.octets;
        self.recipients += recipients.len() as u64;
        self.enter(found, recipients, act);
    }

    /// A message has been judged for one of its recipients; `first` unless it was taken for another.
    pub fn settle_one(&mut self, found: &Found, recipient: u32, act: Act, first: bool) {
        if !act.takes() {
            return;
        }
        if first {
            self.messages += 1;
            self.octets += found.octets;
        }
        self.recipients += 1;
        self.enter(found, &[recipient], act);
    }

    fn enter(&mut self, found: &Found, recipients: &[u32], act: Act) {
        if !self.verifying || act == Act::Forget {
            return;
        }
        let copies = if act == Act::Twice { 2 } else { 1 };
        for _ in 0..copies {
            self.ledger
                .arrived(found, recipients.iter().copied(), act.spoils_the_reply());
        }
    }

    /// A stage was not answered properly.
    pub fn drew(&mut self, stage: Stage, verdict: Verdict) {
        let place = Stage::ALL
            .iter()
            .position(|(other, _)| *other == stage)
            .unwrap_or_default();
        let Some(deeds) = self.deeds.get_mut(place) else { return };
        deeds.delayed += u64::from(!verdict.delay.is_zero());
        match verdict.act {
            Act::Take | Act::Lines(_) => {}
            Act::Defer(_) => deeds.deferred += 1,
            Act::Refuse(_) => deeds.refused += 1,
            Act::Drop | Act::Reset => deeds.dropped += 1,
            Act::Stall => deeds.stalled += 1,
            Act::Cut | Act::Garbage | Act::DropAfter | Act::ResetAfter => deeds.spoilt += 1,
            Act::Forget | Act::Twice | Act::Alter => deeds.falsified += 1,
        }
    }

    /// Takes up the figures of another thread.
    pub fn absorb(&mut self, other: Self) {
        self.connections += other.connections;
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.octets += other.octets;
        self.too_big += other.too_big;
        self.abandoned += other.abandoned;
        self.secured += other.secured;
        self.tls_failures += other.tls_failures;
        self.violations.absorb(other.violations);
        for (ours, theirs) in self.deeds.iter_mut().zip(other.deeds) {
            ours.delayed += theirs.delayed;
            ours.deferred += theirs.deferred;
            ours.refused += theirs.refused;
            ours.dropped += theirs.dropped;
            ours.stalled += theirs.stalled;
            ours.spoilt += theirs.spoilt;
            ours.falsified += theirs.falsified;
        }
        self.ledger.absorb(other.ledger);
        self.verifying |= other.verifying;
    }
}
