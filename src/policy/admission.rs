//! The checks at connect, in their order (EVENTS: draining, resources, binding, address lists, connection counts).
//!
//! Promises: pure but for the claim it takes; no session is built for a connection that is refused.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::binding::Binding;
use super::dynamic_list::DynamicList;
use super::network::{NetworkSet, Source};
use super::tally::{Claim, Column, Refusal};
use crate::smtp::Role;
use crate::smtp::oxsmtp::Event;

/// The address lists.
#[derive(Debug)]
pub struct Access {
    /// Goes before every block list.
    pub allow: NetworkSet,
    /// Static ranges.
    pub block: NetworkSet,
    /// The last sentence of the static refusal.
    pub block_text: Box<str>,
    /// Dynamic ranges, swapped when their file changes.
    pub dynamic: Arc<ArcSwap<DynamicList>>,
    /// Whether DNS block lists are asked.
    pub dnsbl: bool,
}

/// What admission knows about the moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The server takes no newcomers.
    pub draining: bool,
    /// Seconds since 1970, for entries that expire.
    pub unix_seconds: i64,
}

/// Admits a connection to a binding, or names the event that refuses it.
pub fn admit(
    access: &Access,
    binding: &Binding,
    column: &Rc<Column>,
    client: IpAddr,
    moment: Moment,
) -> Result<Claim, Event> {
    if moment.draining {
        return Err(Event::NewConnectionNotAvailable);
    }
    if binding.resources.is_low() {
        return Err(Event::OutOfResources);
    }
    if !binding.clients.contains(client) {
        return Err(Event::BindingNotConfigured);
    }
    if binding.role == Role::Gateway && !access.allow.contains(client) {
        if access.block.contains(client) {
            return Err(Event::IPAddressNotAllowedStatic);
        }
        if access.dynamic.load().contains(client, moment.unix_seconds) {
            return Err(Event::IPAddressNotAllowedDynamic);
        }
    }
    let limits = &binding.terms.limits;
    column
        .claim(
            binding.connection_scope,
            Source::of(client),
            limits.max_connections,
            limits.max_connections_per_source,
        )
        .map_err(|refusal| match refusal {
            Refusal::Total => Event::ConnectionCountExceeded,
            Refusal::PerSource => Event::ConnectionCountPerSource,
        })
}

/// Whether the DNS block lists are asked about a client.
pub fn asks_block_lists(access: &Access, binding: &Binding, client: IpAddr) -> bool {
    access.dnsbl && binding.role == Role::Gateway && !access.allow.contains(client)
}
