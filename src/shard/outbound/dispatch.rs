//! Which hop a group of recipients goes to: the targets of its route in turn, the addresses of each as their health allows.
//!
//! Promises: every address is tried once in a round at the most; when none is left, the queue hears why the last one failed.
//! Lives on its shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::{Job, Peer, no_connection, ours};
use crate::lookup::{Question, Resolved};
use crate::relay::next_hop::{Address, Health};
use crate::relay::{Kind, Taker};
use crate::shard::resolve::Names;
use crate::shard::route::{Host, Target};
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
    health: RefCell<Health>,
}

/// Two routes that speak differently to one address do not share connections; terms are told apart by where they stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PeerKey {
    address: Address,
    terms: usize,
}

/// Where a group goes now.
enum Way {
    To(Rc<Peer>),
    Files(usize),
    Nowhere,
    /// A name has to be looked up first.
    Ask(Question),
    /// Every address was tried, or is known to be dead.
    Exhausted(HopReply),
}

/// Where the servers of one target are.
enum Places<'a> {
    At(Vec<Address>, &'a Arc<Terms>),
    Ask(Question),
    None(HopReply),
}

impl Shard {
    /// Sends a group on its way.
    pub(in crate::shard) fn dispatch(self: &Rc<Self>, mut job: Job) {
        match self.way(&mut job) {
            Way::To(peer) => self.dispatch_to(&peer, job),
            Way::Files(target) => self.spawn(move |shard| async move { shard.deliver_to_maildir(job, target).await }),
            Way::Nowhere => self.settle_attempt(&job, &taken("discard:"), Outcome::Delivered(ours(250, 2, "thrown away"))),
            Way::Ask(question) => self.spawn(move |shard| async move {
                shard.look_up(question).await;
                shard.dispatch(job);
            }),
            Way::Exhausted(reply) => self.no_hop(&job.parcel, job.group, reply),
        }
    }

    /// This address cannot take the group: the next one may.
    pub(super) fn try_elsewhere(self: &Rc<Self>, peer: &Peer, mut job: Job, reply: HopReply) {
        job.tried.push(peer.address.clone());
        job.last = Some(reply);
        self.dispatch(job);
    }

    /// The hop has greeted us.
    pub(super) fn hop_answers(&self, peer: &Peer) {
        self.hops.health.borrow_mut().answers(&peer.address);
    }

    /// The hop cannot be spoken to now. Whatever waits for it goes elsewhere.
    pub(super) fn hop_failed(self: &Rc<Self>, peer: &Rc<Peer>, job: Option<Job>, reply: &HopReply) {
        self.hops.health.borrow_mut().failed(&peer.address, clock::now());
        if let Some(job) = job {
            self.try_elsewhere(peer, job, reply.clone());
        }
        // Connections that still work take the rest.
        if peer.has_connections() {
            return;
        }
        for job in peer.take_waiting() {
            self.try_elsewhere(peer, job, reply.clone());
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
            self.hops.health.borrow_mut().failed(&peer.address, clock::now());
            return self.try_elsewhere(peer, job, reply);
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
        for (index, target) in route.targets.iter().enumerate() {
            let places = match target {
                Target::Discard => return Way::Nowhere,
                Target::Maildir(_) if job.tried_files.contains(&index) => continue,
                Target::Maildir(_) => return Way::Files(index),
                Target::Local { path, terms } => Places::At(vec![Address::Local(path.clone())], terms),
                Target::Server { host, port, terms } => server(&self.names, host, *port, terms, now),
                Target::Exchangers { terms } => {
                    match self.exchanger(job, terms, route.max_connections, now) {
                        Some(way) => return way,
                        None => continue,
                    }
                }
            };
            match places {
                Places::At(addresses, terms) => {
                    if let Some(peer) = self.choose(job, &addresses, target_name(target), terms, route.max_connections, now) {
                        return Way::To(peer);
                    }
                }
                Places::Ask(question) => return Way::Ask(question),
                Places::None(reply) => job.last = Some(reply),
            }
        }
        Way::Exhausted(job.last.take().unwrap_or_else(|| no_connection("no next hop answers")))
    }

    /// The recipients' own servers, best first.
    fn exchanger(&self, job: &mut Job, terms: &Arc<Terms>, limit: usize, now: Instant) -> Option<Way> {
        let domain: Arc<str> = job.domain.as_deref().unwrap_or_default().into();
        if let Some(address) = literal(&domain) {
            let addresses = [Address::Inet(SocketAddr::new(address, SMTP_PORT))];
            return self.choose(job, &addresses, None, terms, limit, now).map(Way::To);
        }
        let hosts = match self.names.exchangers(&domain, now) {
            None => return Some(Way::Ask(Question::Exchangers { domain })),
            Some(Resolved::Found { what, .. }) => what,
            Some(Resolved::Refuses) => {
                job.last = Some(ours(556, 5, "the domain takes no mail"));
                job.last.as_mut()?.status = EnhancedStatusCode::new(5, 1, 10);
                return None;
            }
            Some(Resolved::Absent) => {
                job.last = Some(ours(550, 5, "the domain does not exist"));
                job.last.as_mut()?.status = EnhancedStatusCode::new(5, 1, 2);
                return None;
            }
            Some(Resolved::Unknown) => {
                job.last = Some(no_connection("the servers of the domain cannot be looked up now"));
                return None;
            }
        };
        for name in hosts {
            match server(&self.names, &Host::Name(name.clone()), SMTP_PORT, terms, now) {
                Places::At(addresses, terms) => {
                    if let Some(peer) = self.choose(job, &addresses, Some(&name), terms, limit, now) {
                        return Some(Way::To(peer));
                    }
                }
                Places::Ask(question) => return Some(Way::Ask(question)),
                // A mail exchanger without an address is a mistake that may be mended.
                Places::None(_) => job.last = Some(no_connection("a mail exchanger has no address")),
            }
        }
        None
    }

    fn choose(
        &self,
        job: &Job,
        addresses: &[Address],
        name: Option<&Arc<str>>,
        terms: &Arc<Terms>,
        limit: usize,
        now: Instant,
    ) -> Option<Rc<Peer>> {
        let address = self.hops.health.borrow_mut().choose(addresses, &job.tried, now)?;
        Some(self.hops.peer(address, name, terms, limit))
    }
}

impl Hops {
    fn peer(&self, address: Address, name: Option<&Arc<str>>, terms: &Arc<Terms>, limit: usize) -> Rc<Peer> {
        let key = PeerKey {
            address,
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
            Some(name) => format!("{name}[{}]", key.address),
            None => key.address.to_string(),
        };
        let peer = Peer::new(key.address.clone(), shown.into(), terms.clone(), limit);
        peers.insert(key, peer.clone());
        peer
    }
}

fn server<'a>(names: &Names, host: &Host, port: u16, terms: &'a Arc<Terms>, now: Instant) -> Places<'a> {
    let at = |address: &IpAddr| Address::Inet(SocketAddr::new(*address, port));
    match host {
        Host::Address(address) => Places::At(vec![at(address)], terms),
        Host::Name(name) => match names.addresses(name, now) {
            None => Places::Ask(Question::Addresses { host: name.clone() }),
            Some(Resolved::Found { what, .. }) => Places::At(what.iter().map(at).collect(), terms),
            // A name in the configuration that is not there is a mistake to mend: mail waits for it.
            Some(Resolved::Absent | Resolved::Refuses) => Places::None(no_connection("the next hop's name has no address")),
            Some(Resolved::Unknown) => Places::None(no_connection("the next hop's name cannot be looked up now")),
        },
    }
}

fn target_name(target: &Target) -> Option<&Arc<str>> {
    match target {
        Target::Server {
            host: Host::Name(name), ..
        } => Some(name),
        _ => None,
    }
}

/// The address of an address literal (RFC 5321 section 4.1.3), which has no servers to look up.
fn literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    let ipv6 = inside.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    if ipv6 { inside.get(5..)?.parse().ok() } else { inside.parse().ok() }
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
