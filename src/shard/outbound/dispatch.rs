//! Which hop a group of recipients goes to: the targets of its route in turn, the addresses of each as their health allows.
//!
//! Promises: every address is tried once in a round at the most; when none is left, the queue hears why the last one failed.
//! Lives on its shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;

use super::{Job, Peer, no_connection, ours};
use crate::lookup::{Question, Resolved};
use crate::relay::next_hop::{Health, Next};
use crate::relay::{Kind, Taker};
use crate::shard::route::{Host, Place, Route, Target};
use crate::shard::{Shard, clock};
use crate::smtp::client::{Dialect, EnhancedStatusCode, HopReply, Offers, Origin, Outcome, Terms};
use crate::smtp::extension::Extension;

/// Peers in the table before those that nobody uses are swept out.
const PEERS: usize = 256;
/// Where mail exchangers listen (RFC 5321 section 4.5.4.2).
const SMTP_PORT: u16 = 25;

/// The next hops that a shard knows.
#[derive(Debug, Default)]
pub(in crate::shard) struct Hops {
    peers: RefCell<HashMap<PeerKey, Rc<Peer>>>,
    health: RefCell<Health<Place>>,
}

/// Two routes that speak differently to one address do not share connections; terms are told apart by where they stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PeerKey {
    place: Place,
    terms: usize,
}

/// Where a group goes now.
enum Way {
    To(Rc<Peer>),
    Files(usize),
    Nowhere,
    /// A name has to be looked up first.
    Ask(Question),
    /// Every place was tried, or is known to be dead.
    Over(HopReply),
}

/// Places of a route that are as good as each other.
struct Equals<'a> {
    target: &'a Target,
    name: Option<Arc<str>>,
    places: Vec<Place>,
}

impl AsRef<[Place]> for Equals<'_> {
    fn as_ref(&self) -> &[Place] {
        &self.places
    }
}

/// A name has to be looked up before anything can be said.
struct Unknown(Question);

impl Shard {
    /// Sends a group on its way.
    pub(in crate::shard) fn dispatch(self: &Rc<Self>, mut job: Job) {
        if self.draining.get() {
            return self.no_hop(&job.parcel, job.group, no_connection("the server stops"));
        }
        match self.way(&mut job) {
            Way::To(peer) if job.parcel.front().is_some() => self.dispatch_to(&peer, job),
            Way::To(peer) => self.spawn(move |shard| async move { shard.fetch_and_send(peer, job).await }),
            Way::Files(target) => self.spawn(move |shard| async move { shard.deliver_to_maildir(job, target).await }),
            Way::Nowhere => self.settle_attempt(
                &job,
                &taken("discard:"),
                Outcome::Delivered(ours(250, 2, "thrown away")),
            ),
            Way::Ask(question) => self.spawn(move |shard| async move {
                shard.look_up(question).await;
                shard.dispatch(job);
            }),
            Way::Over(reply) => self.no_hop(&job.parcel, job.group, reply),
        }
    }

    /// Sends a group to a hop whose message rests: its fields are read again first, which a hop that is known to be dead does not cost.
    async fn fetch_and_send(self: Rc<Self>, peer: Rc<Peer>, job: Job) {
        let read = self.read_front(&job.parcel).await;
        match read {
            Ok(front) => job.parcel.set_front(front),
            Err(error) => {
                self.hop_is_unknown(&peer);
                let text = format!("the message cannot be read from the spool: {error}");
                return self.try_elsewhere(job, ours(451, 4, &text));
            }
        }
        if self.draining.get() {
            return self.dispatch(job);
        }
        self.dispatch_to(&peer, job);
    }

    /// The server drains: what no connection has begun is not begun any more.
    pub(in crate::shard) fn recall_jobs(self: &Rc<Self>) {
        let peers: Vec<_> = self.hops.peers.borrow().values().cloned().collect();
        for job in peers.iter().flat_map(|peer| peer.take_waiting()) {
            self.dispatch(job);
        }
    }

    /// This place could not be used now: another one may.
    pub(super) fn try_elsewhere(self: &Rc<Self>, mut job: Job, reply: HopReply) {
        job.round.failed(reply);
        self.dispatch(job);
    }

    /// This hop cannot take such a message: another one may.
    pub(super) fn misfits(self: &Rc<Self>, mut job: Job, reply: HopReply) {
        job.round.misfits(reply);
        self.dispatch(job);
    }

    /// The hop has greeted us, or has spoken of a message.
    pub(super) fn hop_answers(&self, peer: &Peer) {
        self.hops.health.borrow_mut().answers(&peer.place);
    }

    /// Nothing was heard of the hop that says whether it answers: where this was a probe, another attempt is to find out.
    pub(super) fn hop_is_unknown(&self, peer: &Peer) {
        self.hops.health.borrow_mut().is_unknown(&peer.place, clock::now());
    }

    /// The hop cannot be spoken to now. Whatever waits for it goes elsewhere.
    pub(super) fn hop_failed(self: &Rc<Self>, peer: &Rc<Peer>, job: Option<Job>, reply: &HopReply) {
        self.hops.health.borrow_mut().is_silent(&peer.place, clock::now());
        if let Some(job) = job {
            self.try_elsewhere(job, reply.clone());
        }
        // Connections that still work take the rest.
        if peer.has_connections() {
            return;
        }
        for job in peer.take_waiting() {
            self.try_elsewhere(job, reply.clone());
        }
    }

    /// The hop's word on each recipient. Where it did not come to a word, another address may do better.
    pub(super) fn attempted(self: &Rc<Self>, peer: &Rc<Peer>, job: Job, outcomes: Vec<Outcome>, offers: &Offers) {
        let unheard = |outcome: &Outcome| {
            matches!(
                outcome.reply().origin,
                Origin::NoConnection
                    | Origin::Nonsense
                    | Origin::TimedOut { ended: false }
                    | Origin::Lost { ended: false }
            )
        };
        if outcomes.iter().all(unheard)
            && let Some(first) = outcomes.first()
        {
            let reply = first.reply().clone();
            // A connection that broke in the middle of a message may be the message's doing: others may still go there.
            if matches!(reply.origin, Origin::Lost { .. }) {
                self.hop_is_unknown(peer);
            } else {
                self.hops.health.borrow_mut().is_silent(&peer.place, clock::now());
            }
            return self.try_elsewhere(job, reply);
        }
        // A probe over a kept connection ends here: there was no greeting to tell.
        if outcomes.iter().any(|outcome| outcome.reply().origin == Origin::Hop) {
            self.hop_answers(peer);
        } else {
            self.hop_is_unknown(peer);
        }
        let kind = match peer.terms.dialect {
            Dialect::Lmtp => Kind::Final,
            Dialect::Smtp => Kind::Relayed {
                dsn: offers.has(Extension::Dsn),
            },
        };
        let taker = Taker {
            hop: peer.name.clone(),
            kind,
        };
        self.tell_outcomes(&job, &taker, outcomes);
    }

    fn way(&self, job: &mut Job) -> Way {
        let now = clock::now();
        let route = job.route.clone();
        let mut equals = Vec::new();
        for (index, target) in route.targets.iter().enumerate() {
            if let Err(Unknown(question)) = self.places(target, index, job, now, &mut equals) {
                return Way::Ask(question);
            }
        }
        let place = match job.round.next(&equals, &mut self.hops.health.borrow_mut(), now) {
            Next::Try(place) => place,
            Next::Over(reply) => return Way::Over(reply),
        };
        let found = equals.iter().find(|equals| equals.places.contains(&place));
        match (&place, found.map(|equals| (equals, equals.target))) {
            (Place::Nowhere, _) => Way::Nowhere,
            (Place::Files(target), _) => Way::Files(*target),
            (
                Place::Inet(_) | Place::Local(_),
                Some((
                    equals,
                    Target::Server { terms, .. } | Target::Local { terms, .. } | Target::Exchangers { terms },
                )),
            ) => Way::To(self.hops.peer(&place, equals.name.as_ref(), terms, &route)),
            _ => Way::Over(no_connection("no next hop answers")),
        }
    }

    /// Adds the places of one target.
    fn places<'a>(
        &self,
        target: &'a Target,
        index: usize,
        job: &mut Job,
        now: Instant,
        equals: &mut Vec<Equals<'a>>,
    ) -> Result<(), Unknown> {
        let mut add = |name: Option<Arc<str>>, places: Vec<Place>| equals.push(Equals { target, name, places });
        match target {
            Target::Discard => add(None, vec![Place::Nowhere]),
            Target::Maildir(_) => add(None, vec![Place::Files(index)]),
            Target::Local { path, .. } => add(None, vec![Place::Local(path.clone())]),
            Target::Server { host, port, .. } => match host {
                Host::Address(address) => add(None, vec![Place::inet(*address, *port)]),
                Host::Name(name) => match self.host(name, *port, now)? {
                    Ok(places) => add(Some(name.clone()), places),
                    Err(reply) => job.round.failed(reply),
                },
            },
            Target::Exchangers { .. } => {
                let domain: Arc<str> = job.domain.as_deref().unwrap_or_default().into();
                if let Some(address) = literal(&domain) {
                    add(None, vec![Place::inet(address, SMTP_PORT)]);
                    return Ok(());
                }
                match self.exchangers(&domain, now)? {
                    Ok(hosts) => {
                        for host in hosts {
                            match self.host(&host, SMTP_PORT, now)? {
                                Ok(places) => add(Some(host), places),
                                Err(reply) => job.round.failed(reply),
                            }
                        }
                    }
                    Err(reply) if reply.code / 100 == 5 => job.round.misfits(reply),
                    Err(reply) => job.round.failed(reply),
                }
            }
        }
        Ok(())
    }

    /// The addresses of a host. One that has none is a mistake that may be mended: mail waits for it.
    fn host(&self, name: &Arc<str>, port: u16, now: Instant) -> Result<Result<Vec<Place>, HopReply>, Unknown> {
        match self.names.addresses(name, now) {
            None => Err(Unknown(Question::Addresses { host: name.clone() })),
            Some(Resolved::Found { what, .. }) => Ok(Ok(what.iter().map(|a| Place::inet(*a, port)).collect())),
            Some(Resolved::Absent | Resolved::Refuses) => Ok(Err(no_connection(&format!("{name} has no address")))),
            Some(Resolved::Unknown) => Ok(Err(no_connection(&format!("{name} cannot be looked up now")))),
        }
    }

    /// The hosts that take mail for a domain, best first (RFC 5321 section 5.1; RFC 7505 for the status of a null MX).
    fn exchangers(&self, domain: &Arc<str>, now: Instant) -> Result<Result<Vec<Arc<str>>, HopReply>, Unknown> {
        let never = |code, detail, text: &str| {
            let status = EnhancedStatusCode::new(5, 1, detail);
            Ok(Err(HopReply::ours(Origin::Ours, code, status, text)))
        };
        match self.names.exchangers(domain, now) {
            None => Err(Unknown(Question::Exchangers { domain: domain.clone() })),
            Some(Resolved::Found { what, .. }) => Ok(Ok(what)),
            Some(Resolved::Refuses) => never(556, 10, "the domain takes no mail"),
            Some(Resolved::Absent) => never(550, 2, "the domain does not exist"),
            Some(Resolved::Unknown) => Ok(Err(no_connection("the domain cannot be looked up now"))),
        }
    }
}

impl Hops {
    /// Every hop is tried again, also those that did not answer a moment ago.
    pub(in crate::shard) fn believe_all(&self) {
        self.health.borrow_mut().believe_all();
    }

    fn peer(&self, place: &Place, name: Option<&Arc<str>>, terms: &Arc<Terms>, route: &Route) -> Rc<Peer> {
        let key = PeerKey {
            place: place.clone(),
            terms: Arc::as_ptr(terms).addr(),
        };
        let mut peers = self.peers.borrow_mut();
        if let Some(peer) = peers.get(&key) {
            return peer.clone();
        }
        if peers.len() >= PEERS {
            peers.retain(|_, peer| !peer.is_unused());
        }
        let shown = match name {
            Some(name) => format!("{name}[{place}]"),
            None => place.to_string(),
        };
        let of_the_host = || server_name(place, name.map(|name| &**name));
        let proves = route.proves.clone().unwrap_or_else(of_the_host);
        let tls = (route.tls.clone(), proves);
        let peer = Peer::new(place.clone(), shown.into(), terms.clone(), tls, route.max_connections);
        peers.insert(key, peer.clone());
        peer
    }
}

/// What a certificate of this hop has to name.
fn server_name(place: &Place, name: Option<&str>) -> ServerName<'static> {
    let named = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
    named.unwrap_or_else(|| match place {
        Place::Inet(address) => ServerName::from(address.ip()),
        // Nobody but this host is there.
        _ => ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    })
}

/// The address of an address literal (RFC 5321 section 4.1.3), which has no servers to look up.
fn literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    let ipv6 = inside.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    if ipv6 {
        inside.get(5..)?.parse().ok()
    } else {
        inside.parse().ok()
    }
}

/// Somebody who is the end of the way.
pub(super) fn taken(hop: &str) -> Taker {
    Taker {
        hop: hop.into(),
        kind: Kind::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_literal_is_its_own_exchanger() {
        assert_eq!(literal("[192.0.2.7]"), Some(IpAddr::from([192, 0, 2, 7])));
        assert_eq!(literal("[IPv6:2001:db8::1]"), "2001:db8::1".parse().ok());
        for domain in ["192.0.2.7", "[example.com]", "[]", "example.com"] {
            assert_eq!(literal(domain), None, "{domain}");
        }
    }
}
