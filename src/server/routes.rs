//! From `[[next_hop]]` and `[queue]` to what the onward side of a shard needs.
//!
//! Promises: the password of a hop is read here and shown to nobody; no name is looked up. Lives on the main thread.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{ServerName, TrustAnchor};

use super::settings::unreadable;
use crate::config::{self, Config};
use crate::maildir::Template;
use crate::relay;
use crate::shard::route::{Host, Route, Target};
use crate::smtp::client::{self, Credentials, Dialect, TlsUse};
use crate::tls::{self, Trust};

/// Messages of one route that a shard tries to deliver at once, of those for which no client waits.
const ATTEMPTS: usize = 128;

/// The routes in force. A reload that changes nothing about them leaves them as they are: messages stay where they are
/// queued, and connections to hops are kept.
#[derive(Debug, Default)]
pub struct Routes {
    made_of: Option<Makings>,
    made: Vec<Arc<Route>>,
}

/// All that routes are made of.
#[derive(Debug, PartialEq)]
struct Makings {
    hostname: String,
    routes: Vec<config::Route>,
    credentials: Vec<Option<Credentials>>,
    /// Whose certificates each route believes, where it has to know.
    roots: Vec<Option<Vec<TrustAnchor<'static>>>>,
}

impl Routes {
    /// Those of a configuration.
    ///
    /// # Errors
    ///
    /// A sentence that names what cannot be used.
    pub fn of(&mut self, config: &Config) -> Result<Vec<Arc<Route>>, String> {
        let credentials: Vec<_> = config.routes.iter().map(credentials).collect::<Result<_, _>>()?;
        let roots = roots(config)?;
        let makings = Makings {
            hostname: config.hostname.clone(),
            routes: config.routes.clone(),
            credentials: credentials.clone(),
            roots: roots
                .iter()
                .map(|roots| roots.as_ref().map(|roots| roots.roots.clone()))
                .collect(),
        };
        if self.made_of.as_ref() != Some(&makings) {
            let routes = config.routes.iter().zip(credentials).zip(roots);
            let routes =
                routes.map(|((configured, known), roots)| route(configured, config, known, roots).map(Arc::new));
            self.made = routes.collect::<Result<_, _>>()?;
            self.made_of = Some(makings);
        }
        Ok(self.made.clone())
    }
}

/// Whose certificates each route believes; none where it asks nobody who they are.
fn roots(config: &Config) -> Result<Vec<Option<Arc<RootCertStore>>>, String> {
    let mut of_the_system = None;
    let roots = config.routes.iter().map(|route| match (route.tls, &route.tls_ca) {
        (config::HopTls::Required, Some(path)) => tls::roots_of(path).map(Some),
        (config::HopTls::Required, None) => {
            let roots = of_the_system.get_or_insert_with(|| tls::system_roots().0);
            Ok(Some(roots.clone()))
        }
        _ => Ok(None),
    });
    roots.collect()
}

/// The route of one `[[next_hop]]`.
fn route(
    route: &config::Route,
    config: &Config,
    credentials: Option<Credentials>,
    roots: Option<Arc<RootCertStore>>,
) -> Result<Route, String> {
    let credentials = credentials.map(Arc::new);
    let (tls_use, trust) = match (route.tls, roots) {
        (config::HopTls::Required, Some(roots)) => (TlsUse::Required, Trust::Roots(roots)),
        (config::HopTls::Required, None) => (TlsUse::Required, Trust::Roots(Arc::new(RootCertStore::empty()))),
        (config::HopTls::Opportunistic, _) => (TlsUse::Opportunistic, Trust::Anyone),
        (config::HopTls::Off, _) => (TlsUse::Off, Trust::Anyone),
    };
    let terms = |dialect: Dialect, implicit_tls: bool| {
        Arc::new(client::Terms {
            dialect,
            hello: config.hostname.as_str().into(),
            tls: tls_use,
            implicit_tls,
            credentials: credentials.clone(),
            timeouts: client::Timeouts::default(),
        })
    };
    let server = |host: &config::Host, port: u16, terms| Target::Server {
        host: match host {
            config::Host::Address(address) => Host::Address(*address),
            config::Host::Name(name) => Host::Name(name.as_str().into()),
        },
        port,
        terms,
    };
    let targets = route.to.iter().map(|to| {
        Ok(match to {
            config::Destination::Maildir(template) => {
                Target::Maildir(Template::parse(template).map_err(|reason| format!("maildir:{template}: {reason}"))?)
            }
            config::Destination::Discard => Target::Discard,
            config::Destination::Smtp(host, port) => server(host, *port, terms(Dialect::Smtp, false)),
            config::Destination::Smtps(host, port) => server(host, *port, terms(Dialect::Smtp, true)),
            config::Destination::Lmtp(host, port) => server(host, *port, terms(Dialect::Lmtp, false)),
            config::Destination::LmtpUnix(path) => Target::Local {
                path: path.clone(),
                terms: terms(Dialect::Lmtp, false),
            },
            config::Destination::Mx => Target::Exchangers {
                terms: terms(Dialect::Smtp, false),
            },
        })
    });
    Ok(Route {
        targets: targets.collect::<Result<_, String>>()?,
        max_connections: route.max_connections,
        tls: tls::client(trust)?,
        proves: route
            .tls_name
            .as_ref()
            .and_then(|name| ServerName::try_from(name.clone()).ok()),
    })
}

/// Whom this edge is towards a next hop.
fn credentials(route: &config::Route) -> Result<Option<Credentials>, String> {
    let (Some(username), Some(path)) = (&route.username, &route.password_file) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let text = zeroize::Zeroizing::new(text);
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        return Err(format!(
            "{}: its first line is to be the password, and is empty",
            path.display()
        ));
    }
    Ok(Some(Credentials::new(username, password)))
}

/// How long and how often delivery is tried.
pub fn queue(config: &Config) -> relay::Terms {
    let queue = &config.queue;
    relay::Terms {
        retry: relay::retry::Schedule::new(queue.retry.clone()),
        expire: queue.expire,
        delay_notice: queue.delay_notice,
        attempts: ATTEMPTS,
    }
}
