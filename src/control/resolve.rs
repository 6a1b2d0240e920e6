//! Where mail goes: the addresses of hosts, and the mail exchangers of domains (RFC 5321 section 5.1).
//!
//! Promises: an answer is bounded, whatever the DNS holds; "absent" is said only when a name server has said so, and
//! everything else that is no answer is "unknown", so that mail waits instead of coming back; an exchanger is a host name and
//! nothing else. Lives on the control thread.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::dns::{PATIENCE, builder, no_records};
use crate::log::{Level, Log};
use crate::lookup::Resolved;
use crate::smtp::path::domain_key;

/// Exchangers of a domain that are tried; a domain that has more names its best ones first.
pub const MAX_EXCHANGERS: usize = 16;
/// Addresses of a host that are tried.
pub const MAX_ADDRESSES: usize = 16;
/// How long an answer is relied on, whatever its record says: not so short that every message asks, not so long that a
/// host that moved is missed for hours.
pub const FRESH: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);
/// How long it is relied on that a domain has no MX record, where its zone does not say.
const NONE_FRESH: Duration = Duration::from_secs(60);

/// Whom to ask, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name of this host, by which it finds itself among the exchangers of a domain.
    pub hostname: Arc<str>,
    /// Name servers; empty: those of the system's resolver configuration.
    pub servers: Vec<SocketAddr>,
    /// How long one try may take; there are two.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hostname: "".into(),
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Looks names up.
#[derive(Debug)]
pub struct Names {
    resolver: Option<TokioResolver>,
    hostname: Box<str>,
    patience: Duration,
    log: Log,
}

/// One record type of one name.
enum Records {
    Some(Lookup),
    /// The name exists.
    NoneOfType {
        ttl: Duration,
    },
    NoName,
    Unknown,
}

impl Names {
    /// Sets up, asks nothing yet. Without a usable name server every answer is [`Resolved::Unknown`], and the log says so.
    pub fn new(settings: &Settings, log: &Log) -> Names {
        let resolver = builder(&settings.servers, settings.timeout).and_then(|mut builder| {
            builder.options_mut().use_hosts_file = ResolveHosts::Always;
            builder.build()
        });
        if let Err(e) = &resolver {
            log.event(Level::Error, "no name server to ask about next hops", &[("error", e)]);
        }
        Names {
            resolver: resolver.ok(),
            hostname: host_key(&settings.hostname).into(),
            patience: settings.timeout * PATIENCE,
            log: log.clone(),
        }
    }

    /// The addresses of a host, A before AAAA; an address is its own answer. The hosts file of the system has its say.
    pub async fn addresses(&self, host: &str) -> Resolved<Vec<IpAddr>> {
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Resolved::Found {
                what: vec![address],
                ttl: *FRESH.end(),
            };
        }
        let (v4, v6) = tokio::join!(self.ask(host, RecordType::A), self.ask(host, RecordType::AAAA));
        let mut addresses: Vec<IpAddr> = Vec::new();
        let mut fresh = *FRESH.end();
        for records in [&v4, &v6] {
            if let Records::Some(lookup) = records {
                let found = lookup.answers().iter().filter_map(|record| match &record.data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                });
                addresses.extend(found.take(MAX_ADDRESSES));
                fresh = fresh.min(freshness(lookup));
            }
        }
        if !addresses.is_empty() {
            addresses.truncate(MAX_ADDRESSES);
            return Resolved::Found {
                what: addresses,
                ttl: fresh,
            };
        }
        match (v4, v6) {
            // A name that does not exist has nothing of any kind.
            (Records::NoName, _) | (_, Records::NoName) => Resolved::Absent,
            (Records::Unknown, _) | (_, Records::Unknown) => Resolved::Unknown,
            _ => Resolved::Absent,
        }
    }

    /// The hosts that take the mail of a domain, in the order in which they are to be tried: by preference, equal ones in an
    /// order that changes each time. Without MX records it is the domain itself (the implicit MX). A host that is one of the
    /// exchangers sends only to better ones.
    pub async fn exchangers(&self, domain: &str) -> Resolved<Vec<Arc<str>>> {
        let own = |host: &str| !self.hostname.is_empty() && host == &*self.hostname;
        let (lookup, ttl) = match self.ask(domain, RecordType::MX).await {
            Records::Unknown => return Resolved::Unknown,
            Records::NoName => return Resolved::Absent,
            Records::NoneOfType { ttl } => {
                let host = host_key(domain);
                if own(&host) {
                    return self.loops(domain);
                }
                return Resolved::Found {
                    what: vec![host.into()],
                    ttl,
                };
            }
            Records::Some(lookup) => {
                let ttl = freshness(&lookup);
                (lookup, ttl)
            }
        };
        let records = lookup.answers().iter().filter_map(|record| match &record.data {
            RData::MX(mx) => Some((mx.preference, &mx.exchange)),
            _ => None,
        });
        let mut null = false;
        let mut exchangers: Vec<(u16, u32, String)> = Vec::new();
        for (preference, exchange) in records {
            // RFC 7505 section 3: the root stands for no host, and should stand alone.
            null |= exchange.is_root();
            let host = host_key(&exchange.to_ascii());
            if is_host_name(&host) {
                exchangers.push((preference, getrandom::u32().unwrap_or_default(), host));
            }
        }
        if exchangers.is_empty() {
            return if null { Resolved::Refuses } else { Resolved::Absent };
        }
        let ours = exchangers.iter().filter(|(_, _, host)| own(host)).map(|e| e.0).min();
        exchangers.retain(|(preference, ..)| ours.is_none_or(|ours| *preference < ours));
        if exchangers.is_empty() {
            return self.loops(domain);
        }
        exchangers.sort_unstable();
        let mut hosts: Vec<Arc<str>> = Vec::new();
        for (.., host) in exchangers {
            if hosts.len() < MAX_EXCHANGERS && !hosts.iter().any(|known| **known == *host) {
                hosts.push(host.into());
            }
        }
        Resolved::Found { what: hosts, ttl }
    }

    /// This host is the best exchanger of a domain for which it has no other route (RFC 5321 section 5.1): whoever runs it
    /// must hear of it, since its mail fails.
    fn loops<T>(&self, domain: &str) -> Resolved<T> {
        self.log.event(
            Level::Warn,
            "this host is the best exchanger of a domain and has no route for it",
            &[("domain", &domain)],
        );
        Resolved::Absent
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Records {
        // What is no domain name is known to nobody.
        let Ok(mut name) = Name::from_ascii(domain_key(name).trim_end_matches('.')) else {
            return Records::NoName;
        };
        let Some(resolver) = &self.resolver else {
            return Records::Unknown;
        };
        name.set_fqdn(true); // no search list of the system
        match timeout(self.patience, resolver.lookup(name, kind)).await {
            Err(_) => Records::Unknown,
            Ok(Ok(lookup)) => Records::Some(lookup),
            Ok(Err(e)) => none(&e),
        }
    }
}

fn none(error: &NetError) -> Records {
    match no_records(error) {
        None => Records::Unknown,
        Some(none) if none.response_code == ResponseCode::NXDomain => Records::NoName,
        Some(none) => Records::NoneOfType {
            ttl: none.negative_ttl.map_or(NONE_FRESH, |seconds| {
                Duration::from_secs(seconds.into()).clamp(*FRESH.start(), *FRESH.end())
            }),
        },
    }
}

fn freshness(lookup: &Lookup) -> Duration {
    let left = lookup.valid_until().saturating_duration_since(Instant::now());
    left.clamp(*FRESH.start(), *FRESH.end())
}

/// A name for comparing: lower case, A-labels, without the last dot.
fn host_key(name: &str) -> String {
    domain_key(name.trim_end_matches('.')).into_owned()
}

/// Letters, digits, hyphens and, since they are in use, underscores (RFC 5321 section 2.3.5): nothing that could break a
/// log line or a report, nor the root.
fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|o| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_has_labels_of_letters_digits_hyphens_and_underscores() {
        for name in ["a", "mx-1.example.net", "_x.example.net", "xn--bcher-kva.test", "1.2"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a\\000.b",
            "a\n",
            "\u{e9}.test",
            "*.a",
            "a/b",
        ] {
            assert!(!is_host_name(name), "{name:?}");
        }
    }

    #[test]
    fn names_are_compared_in_one_form() {
        for name in ["MX.Example.NET", "mx.example.net.", "mx.example.net"] {
            assert_eq!(host_key(name), "mx.example.net");
        }
        assert_eq!(host_key("B\u{fc}cher.test"), "xn--bcher-kva.test");
    }
}
