//! The connections of a shard to its next hops: kept, shared by all messages that go to the same address, a bounded number
//! to each.
//!
//! Promises: a group of recipients that is given to a [`Peer`] is delivered, deferred, refused or handed back, once; a hop
//! that does not answer holds as many connections as it may have and no more. Lives on its shard.

mod connect;
mod courier;
mod dispatch;
mod local;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::Shard;
use super::parcel::Parcel;
use super::route::{Place, Route};
use crate::relay::next_hop::Round;
use crate::smtp::client::{EnhancedStatusCode, HopReply, Origin, Terms, TlsUse};
use courier::{Bench, Courier};

pub(super) use dispatch::Hops;

/// A group of recipients of one message on its way to a hop.
#[derive(Debug)]
pub(super) struct Job {
    /// The message.
    pub parcel: Rc<Parcel>,
    /// The group, as the queue numbers them.
    pub group: usize,
    /// Places in the envelope.
    pub recipients: Vec<usize>,
    /// Where it goes.
    pub route: Arc<Route>,
    /// The domain whose own servers are asked for, where the route says so.
    pub domain: Option<Box<str>>,
    /// What was tried, and what came of it.
    pub round: Round<Place>,
    /// It was sent over a kept connection that had gone already.
    pub again: bool,
}

impl Job {
    /// A group that has been nowhere yet.
    pub fn new(
        parcel: Rc<Parcel>,
        group: usize,
        recipients: &[u32],
        route: Arc<Route>,
        domain: Option<Box<str>>,
    ) -> Job {
        Job {
            parcel,
            group,
            recipients: recipients.iter().map(|place| *place as usize).collect(),
            route,
            domain,
            round: Round::new(),
            again: false,
        }
    }
}

/// All connections of the shard to one address.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where it is.
    pub place: Place,
    /// The name that logs and reports call it.
    pub name: Arc<str>,
    /// How to speak to it.
    pub terms: Arc<Terms>,
    /// How TLS begins, and the name that the hop has to prove.
    pub tls: (Arc<ClientConfig>, ServerName<'static>),
    /// Its TLS does not work, and mail may go without.
    pub clear: Cell<bool>,
    limit: usize,
    open: Cell<usize>,
    waiting: RefCell<VecDeque<Job>>,
    resting: RefCell<Vec<Rc<Bench>>>,
}

impl Peer {
    fn new(
        place: Place,
        name: Arc<str>,
        terms: Arc<Terms>,
        tls: (Arc<ClientConfig>, ServerName<'static>),
        limit: usize,
    ) -> Rc<Peer> {
        Rc::new(Peer {
            place,
            name,
            terms,
            tls,
            clear: Cell::new(false),
            limit: limit.max(1),
            open: Cell::new(0),
            waiting: RefCell::default(),
            resting: RefCell::default(),
        })
    }

    /// How to speak on a new connection: in the clear where TLS has failed and is no must.
    fn terms_now(&self) -> Arc<Terms> {
        if self.clear.get() {
            let mut terms = Terms::clone(&self.terms);
            terms.tls = TlsUse::Failed;
            return Arc::new(terms);
        }
        self.terms.clone()
    }

    /// TLS could not be begun. True where the hop is to be spoken to without it from now on.
    fn gives_up_tls(&self) -> bool {
        let optional = self.terms.tls == TlsUse::Opportunistic && !self.terms.implicit_tls;
        optional && !self.clear.replace(true)
    }

    /// The next job in line.
    fn next_job(&self) -> Option<Job> {
        self.waiting.borrow_mut().pop_front()
    }

    fn sit_down(&self, bench: &Rc<Bench>) {
        self.resting.borrow_mut().push(bench.clone());
    }

    fn stand_up(&self, bench: &Rc<Bench>) {
        self.resting.borrow_mut().retain(|other| !Rc::ptr_eq(other, bench));
    }

    /// One connection less.
    fn close(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    fn has_connections(&self) -> bool {
        self.open.get() > 0
    }

    fn take_waiting(&self) -> VecDeque<Job> {
        self.waiting.take()
    }

    fn is_unused(&self) -> bool {
        self.open.get() == 0 && self.waiting.borrow().is_empty()
    }
}

impl Shard {
    /// Gives a job to a connection of the peer: one that rests, a new one, or the first that has time.
    fn dispatch_to(self: &Rc<Self>, peer: &Rc<Peer>, job: Job) {
        if self.draining.get() {
            return self.dispatch(job);
        }
        // The one that rested last is the likeliest to be alive.
        let rested = peer.resting.borrow_mut().pop();
        if let Some(bench) = rested {
            return bench.employ(job);
        }
        if peer.open.get() >= peer.limit {
            return peer.waiting.borrow_mut().push_back(job);
        }
        peer.open.set(peer.open.get() + 1);
        let peer = peer.clone();
        self.spawn(move |shard| Courier::run(shard, peer, job));
    }

    /// After a connection has ended: whoever still waits gets another one.
    fn resume_peer(self: &Rc<Self>, peer: &Rc<Peer>) {
        if peer.open.get() < peer.limit
            && let Some(job) = peer.next_job()
        {
            self.dispatch_to(peer, job);
        }
    }
}

/// What stands for a reply where nobody could be asked.
fn no_connection(text: &str) -> HopReply {
    HopReply::ours(Origin::NoConnection, 451, EnhancedStatusCode::new(4, 4, 1), text)
}

/// What stands for a reply where no route is for a recipient any more: the operator may mend it.
pub(super) fn no_route() -> HopReply {
    let status = EnhancedStatusCode::new(4, 4, 4);
    HopReply::ours(Origin::Ours, 451, status, "no route for this domain")
}

/// What this host says of a recipient itself; `class` is that of the code.
fn ours(code: u16, class: u8, text: &str) -> HopReply {
    HopReply::ours(Origin::Ours, code, EnhancedStatusCode::new(class, 0, 0), text)
}
