//! A binding: the addresses that clients connect to, and what holds for them there (Exchange calls it a connector).
//!
//! Promises: immutable but for its watermark. Shared by all shards.

use std::sync::Arc;

use super::network::NetworkSet;
use super::resources::Low;
use crate::smtp::Role;
use crate::smtp::session::Terms;

/// One `[[binding]]`.
#[derive(Debug)]
pub struct Binding {
    /// Its name in the configuration and the log.
    pub name: Box<str>,
    /// Gateway or relay: who is refused, and by what messages are rated.
    pub role: Role,
    /// What its sessions are offered and bounded by.
    pub terms: Arc<Terms>,
    /// Who may connect.
    pub clients: NetworkSet,
    /// The peers whose PROXY header is believed; empty where the protocol is off.
    pub proxy_from: NetworkSet,
    /// Whether those peers must send a PROXY header first.
    pub proxy_protocol: bool,
    /// Whether TLS begins with the connection (RFC 8314 section 3.3).
    pub implicit_tls: bool,
    /// The counters that its connections share with the other bindings, or its own where it sets its own limits.
    pub connection_scope: usize,
    /// The same for message rates.
    pub rate_scope: usize,
    /// The same for the rates of new TLS sessions.
    pub tls_rate_scope: usize,
    /// Whether memory or disk is below this binding's limits.
    pub resources: Arc<Low>,
}
