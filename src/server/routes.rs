//! From `[[next_hop]]` and `[queue]` to what the onward side of a shard needs.
//!
//! Promises: the password of a hop is read here and shown to nobody; no name is looked up. Lives on the main thread.

use std::sync::Arc;

use super::settings::unreadable;
use crate::config::{self, Config};
use crate::maildir::Template;
use crate::relay;
use crate::shard::route::{Host, Route, Target};
use crate::smtp::client::{self, Credentials, Dialect, TlsUse};
use crate::tls::{self, Trust};

/// Messages of one route that a shard tries to deliver at once, of those for which no client waits.
const ATTEMPTS: usize = 128;

/// The route of one `[[next_hop]]`.
///
/// # Errors
///
/// A sentence that names what cannot be used.
pub fn route(route: &config::Route, config: &Config) -> Result<Route, String> {
    let credentials = credentials(route)?;
    let (tls_use, trust) = match route.tls {
        config::HopTls::Off => (TlsUse::Off, Trust::Anyone),
        config::HopTls::Opportunistic => (TlsUse::Opportunistic, Trust::Anyone),
        config::HopTls::Required => (TlsUse::Required, Trust::Roots(tls::system_roots().0)),
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
    })
}

/// Whom this edge is towards a next hop.
fn credentials(route: &config::Route) -> Result<Option<Arc<Credentials>>, String> {
    let (Some(username), Some(path)) = (&route.username, &route.password_file) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        return Err(format!(
            "{}: its first line is to be the password, and is empty",
            path.display()
        ));
    }
    Ok(Some(Arc::new(Credentials::new(username, password))))
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
