//! DNS block lists (RFC 5782): is a client's address on one of them?
//!
//! Promises: a list that fails never refuses mail. No answer in time, SERVFAIL, an answer outside 127.0.0.0/8, one of
//! the error codes in 127.255.255.0/24 that lists give to those whom they do not serve, an answer from a list that
//! lists everybody: all of these mean "not listed" and are counted per zone. Every zone is tested at the start and from
//! time to time. Lives on the control thread.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, ResolverBuilder, TokioResolver};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::log::{Level, Log};
use crate::metrics::{Metrics, ZoneMetrics};

/// How often a list that passes is tested again, and one that fails.
const TEST_EVERY: Duration = Duration::from_secs(600);
const TEST_FAILING_EVERY: Duration = Duration::from_secs(60);
/// How often a zone's failures are told in the log; the metric counts them all.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Answers kept, and for how long at most: a client that is delisted should not wait for a day.
const CACHED_ANSWERS: u64 = 16_384;
const CACHED_FOR: Duration = Duration::from_secs(3600);
/// Room for the second try and for handing things around, as a multiple of the timeout of one try.
pub(super) const PATIENCE: u32 = 3;

/// RFC 5782 section 5: every list has this entry,
const ALWAYS_LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// and no list has this one.
const NEVER_LISTED: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// No client can have this address. A list that has it and [`NEVER_LISTED`] has the whole world.
const NOBODY: Ipv4Addr = Ipv4Addr::BROADCAST;

/// Which lists to ask, and whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The zones, asked all at once.
    pub zones: Vec<Arc<str>>,
    /// Name servers; empty: those of the system's resolver configuration.
    pub servers: Vec<SocketAddr>,
    /// How long one try may take; there are two.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            zones: Vec::new(),
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
        }
    }
}

/// Reads a name server as the configuration writes it: "IP" or "IP:PORT" ("[IP]:PORT" for IPv6); the port is 53 if absent.
pub fn name_server(text: &str) -> Option<SocketAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)))
}

/// The lists of one configuration.
#[derive(Debug)]
pub struct BlockLists {
    zones: Vec<Arc<Zone>>,
}

impl BlockLists {
    /// Sets up, asks nothing yet. What cannot be used is logged and counts as failing.
    pub fn new(settings: &Settings, metrics: &Metrics, log: &Log) -> BlockLists {
        let mut names = settings.zones.clone();
        names.sort_unstable();
        names.dedup();
        let numbers = metrics.zones(&names);
        if names.is_empty() {
            return BlockLists { zones: Vec::new() };
        }
        let resolver = match resolver(settings) {
            Ok(resolver) => Some(resolver),
            Err(e) => {
                log.event(
                    Level::Error,
                    "no name server to ask about block lists",
                    &[("error", &e)],
                );
                None
            }
        };
        let zone = |(name, metrics)| {
            Arc::new(Zone {
                name,
                resolver: resolver.clone(),
                patience: settings.timeout * PATIENCE,
                trust: watch::Sender::new(Trust::Untested),
                metrics,
                told: Mutex::new(None),
                log: log.clone(),
            })
        };
        BlockLists {
            zones: names.into_iter().zip(numbers).map(zone).collect(),
        }
    }

    /// The first zone that answers that it lists `client`; `None` when all have answered, failed or taken too long.
    pub async fn ask(&self, client: IpAddr) -> Option<Arc<str>> {
        let mut asked = JoinSet::new(); // dropping it gives up what is still open
        for zone in &self.zones {
            let zone = zone.clone();
            asked.spawn(async move { zone.lists(client).await.then(|| zone.name.clone()) });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some(zone)) = answer {
                return Some(zone);
            }
        }
        None
    }

    /// Tests every zone now and from time to time, for ever.
    pub async fn keep_testing(&self) {
        if self.zones.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let pause = if self.test().await {
                TEST_EVERY
            } else {
                TEST_FAILING_EVERY
            };
            sleep(pause).await;
        }
    }

    /// Tests every zone once (RFC 5782 section 5). Whether all pass.
    pub async fn test(&self) -> bool {
        let mut tests = JoinSet::new();
        for zone in &self.zones {
            let zone = zone.clone();
            tests.spawn(async move { zone.test().await });
        }
        let mut all_pass = true;
        while let Some(passed) = tests.join_next().await {
            all_pass &= matches!(passed, Ok(true));
        }
        all_pass
    }
}

/// What every resolver of this thread has: these name servers, or the system's where there are none, two tries, a cache.
pub(super) fn builder(
    servers: &[SocketAddr],
    timeout: Duration,
) -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let server = |at: &SocketAddr| {
            let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
            (udp.port, tcp.port) = (at.port(), at.port());
            NameServerConfig::new(at.ip(), true, vec![udp, tcp])
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = timeout;
    options.attempts = 2;
    options.cache_size = CACHED_ANSWERS;
    options.positive_max_ttl = Some(CACHED_FOR);
    options.negative_max_ttl = Some(CACHED_FOR);
    options.max_active_requests = super::QUESTIONS_AT_ONCE;
    Ok(builder)
}

fn resolver(settings: &Settings) -> Result<TokioResolver, NetError> {
    let mut builder = builder(&settings.servers, settings.timeout)?;
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = false; // an answer of a list fits into 512 octets, and some of their servers know nothing newer
    builder.build()
}

/// What is known of a zone's sanity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// The first test is under way; whoever finds an address listed waits for its outcome.
    Untested,
    /// It may refuse mail.
    Trusted,
    /// It lists everybody: a domain that has been given up, or a list that wants its users to go away.
    Wildcarded,
}

/// What one question has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Listed,
    NotListed,
    Unusable(String),
}

#[derive(Debug)]
struct Zone {
    name: Arc<str>,
    resolver: Option<TokioResolver>,
    patience: Duration,
    trust: watch::Sender<Trust>,
    metrics: Arc<ZoneMetrics>,
    told: Mutex<Option<Instant>>,
    log: Log,
}

impl Zone {
    async fn lists(&self, client: IpAddr) -> bool {
        match self.ask(client).await {
            Finding::NotListed => false,
            Finding::Unusable(why) => {
                self.failed(&why);
                false
            }
            Finding::Listed => {
                let mut trust = self.trust.subscribe();
                let tested = timeout(self.patience, trust.wait_for(|t| *t != Trust::Untested)).await;
                let trusted = matches!(tested, Ok(Ok(trust)) if *trust == Trust::Trusted);
                if trusted {
                    self.metrics.listed.fetch_add(1, Relaxed);
                } else {
                    self.failed("it seems to list everybody");
                }
                trusted
            }
        }
    }

    async fn ask(&self, client: IpAddr) -> Finding {
        let (Some(resolver), Ok(name)) = (&self.resolver, self.question(client)) else {
            return Finding::Unusable("there is no name server, or the zone is no domain name".to_owned());
        };
        match timeout(self.patience, resolver.lookup(name, RecordType::A)).await {
            Err(_) => Finding::Unusable("no answer in time".to_owned()),
            Ok(Err(e)) if is_no(&e) => Finding::NotListed,
            Ok(Err(e)) => Finding::Unusable(e.to_string()),
            Ok(Ok(lookup)) => judge(lookup.answers().iter().filter_map(|record| match &record.data {
                RData::A(address) => Some(address.0),
                _ => None,
            })),
        }
    }

    fn question(&self, client: IpAddr) -> Result<Name, hickory_resolver::proto::ProtoError> {
        let mut name = Name::from_ascii(format!("{}{}", reversed(client), self.name.trim_end_matches('.')))?;
        name.set_fqdn(true); // no search list of the system
        Ok(name)
    }

    /// Whether the zone passes; remembers whether it can be trusted, and tells when that changes.
    async fn test(&self) -> bool {
        let (must, must_not, nobody) = tokio::join!(
            self.test_one(ALWAYS_LISTED),
            self.test_one(NEVER_LISTED),
            self.test_one(NOBODY)
        );
        let trust = match (&must_not, &nobody) {
            (Finding::Listed, Finding::Listed) => Trust::Wildcarded,
            // It says nothing today: what was known before holds.
            (Finding::Unusable(_), _) | (_, Finding::Unusable(_)) if *self.trust.borrow() == Trust::Wildcarded => {
                Trust::Wildcarded
            }
            _ => Trust::Trusted,
        };
        let verdict = match (must, must_not) {
            (Finding::Listed, Finding::NotListed) => Ok(()),
            (Finding::Unusable(why), _) | (_, Finding::Unusable(why)) => Err(why),
            (_, Finding::Listed) => Err(format!("it lists {NEVER_LISTED}, which no list may")),
            (Finding::NotListed, _) => Err(format!("it does not list {ALWAYS_LISTED}, which every list must")),
        };
        let first = self.trust.send_replace(trust) == Trust::Untested;
        let failed_before = self.metrics.failing.swap(u64::from(verdict.is_err()), Relaxed) == 1;
        let ignored = if trust == Trust::Wildcarded { "yes" } else { "no" };
        match &verdict {
            Err(why) if first || !failed_before => self.log.event(
                Level::Error,
                "block list fails its test",
                &[("zone", &self.name), ("reason", why), ("ignored", &ignored)],
            ),
            Ok(()) if first || failed_before => {
                self.log
                    .event(Level::Info, "block list passes its test", &[("zone", &self.name)]);
            }
            _ => {}
        }
        verdict.is_ok()
    }

    async fn test_one(&self, address: Ipv4Addr) -> Finding {
        if let (Some(resolver), Ok(name)) = (&self.resolver, self.question(address.into())) {
            resolver.clear_lookup_cache(name, RecordType::A);
        }
        self.ask(address.into()).await
    }

    fn failed(&self, why: &str) {
        self.metrics.errors.fetch_add(1, Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            self.log.event(
                Level::Warn,
                "block list gives no usable answer",
                &[("zone", &self.name), ("reason", &why)],
            );
        }
    }
}

/// The address as the start of a question: octets of IPv4, nibbles of IPv6, last one first (RFC 5782 sections 2.1, 2.4).
fn reversed(client: IpAddr) -> String {
    let mut name = String::with_capacity(64);
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.octets().iter().rev().for_each(|octet| {
            let _ = write!(name, "{octet}.");
        }),
        IpAddr::V6(v6) => v6.octets().iter().rev().for_each(|octet| {
            let _ = write!(name, "{:x}.{:x}.", octet & 15, octet >> 4);
        }),
    }
    name
}

/// Whether the error is the plain answer that there is no such entry.
fn is_no(error: &NetError) -> bool {
    no_records(error).is_some()
}

/// The plain answer that there is no such name, or no such record of it.
pub(super) fn no_records(error: &NetError) -> Option<&NoRecords> {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
        return None;
    };
    matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError).then_some(none)
}

/// Listed only if every address says so: one that does not belong there makes the others doubtful.
fn judge(addresses: impl Iterator<Item = Ipv4Addr>) -> Finding {
    let mut finding = Finding::NotListed;
    for address in addresses {
        match address.octets() {
            [127, 255, 255, _] => return Finding::Unusable(format!("it answers with the error code {address}")),
            [127, 0, 0, 1] => return Finding::Unusable("it answers 127.0.0.1, which has no meaning".to_owned()),
            [127, ..] => finding = Finding::Listed,
            _ => return Finding::Unusable(format!("it answers {address}, which is not in 127.0.0.0/8")),
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_for_backwards() {
        assert_eq!(reversed("192.0.2.99".parse().unwrap()), "99.2.0.192.");
        assert_eq!(reversed("::ffff:192.0.2.99".parse().unwrap()), "99.2.0.192.");
        assert_eq!(
            reversed("2001:db8:1:2:3:4:567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2."
        );
    }

    #[test]
    fn only_answers_in_127_that_are_no_error_codes_mean_listed() {
        let one = |text: &str| judge([text.parse().unwrap()].into_iter());
        for listed in ["127.0.0.2", "127.0.0.255", "127.0.1.1", "127.1.0.1", "127.255.254.1"] {
            assert_eq!(one(listed), Finding::Listed, "{listed}");
        }
        for not in [
            "127.0.0.1",
            "127.255.255.252",
            "127.255.255.254",
            "127.255.255.255",
            "192.0.2.1",
            "0.0.0.0",
        ] {
            assert!(matches!(one(not), Finding::Unusable(_)), "{not}");
        }
        assert_eq!(judge([].into_iter()), Finding::NotListed);
        let mixed = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 255, 255, 254)];
        assert!(matches!(judge(mixed.into_iter()), Finding::Unusable(_)));
    }

    #[test]
    fn a_name_server_may_come_with_a_port() {
        assert_eq!(name_server("192.0.2.53"), Some("192.0.2.53:53".parse().unwrap()));
        assert_eq!(name_server("127.0.0.1:5353"), Some("127.0.0.1:5353".parse().unwrap()));
        assert_eq!(name_server("::1"), Some("[::1]:53".parse().unwrap()));
        assert_eq!(name_server("[::1]:5353"), Some("[::1]:5353".parse().unwrap()));
        assert_eq!(name_server("ns.example.net"), None);
    }
}
