//! From what the configuration means to what a shard needs.
//!
//! Promises: all files that the configuration names are read here, at start and at a reload, with an error that names the
//! file; nothing else of the server looks at a [`Config`]. Lives on the main thread.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::certificates::{self, Certificates, Reading};
use super::routes::{self, Routes};
use crate::config::{self, Config};
use crate::control::{self, dns, resolve};
use crate::log::{Level, Log};
use crate::policy::Policy;
use crate::policy::admission::Access;
use crate::policy::binding::Binding;
use crate::policy::dynamic_list::DynamicList;
use crate::policy::network::NetworkSet;
use crate::policy::resources::Low;
use crate::policy::routing::{self, DomainSet, Recipients, Routing};
use crate::policy::users::{Seed, Users};
use crate::shard::Settings;
use crate::shard::route::Target;
use crate::smtp::extension::{Extension, Offered};
use crate::smtp::session::{Auth, Terms};

/// Groups of bindings that count connections together; the first one is that of all bindings without limits of their own.
pub const SCOPES: usize = 64;

/// Which counters belong to which binding: kept over reloads, so that a binding goes on counting where it was.
#[derive(Debug, Default)]
pub struct Scopes {
    own: HashMap<String, usize>,
    /// A session from before a reload goes on hearing what the sampler sees.
    resources: HashMap<String, Arc<Low>>,
    /// What unknown users are answered with, which must not change while somebody compares.
    seed: Option<Seed>,
    /// Those of the configuration in force, which stay where it stays the same.
    routes: Routes,
}

impl Scopes {
    /// The counters of a binding that sets its own limits. Should there be more such bindings than counters, the rest
    /// shares those of the server: that only refuses more.
    fn of(&mut self, binding: &str, own: bool) -> usize {
        if !own {
            return 0;
        }
        let next = self.own.len() + 1;
        let scope = *self.own.entry(binding.to_string()).or_insert(next);
        if scope < SCOPES { scope } else { 0 }
    }
}

impl Scopes {
    fn seed(&mut self) -> Result<Seed, String> {
        if let Some(seed) = self.seed {
            return Ok(seed);
        }
        let mut seed = Seed::default();
        getrandom::fill(&mut seed).map_err(|error| format!("the system has no random numbers: {error}"))?;
        self.seed = Some(seed);
        Ok(seed)
    }
}

/// A list that is read from a file and swapped when the file changes.
#[derive(Debug)]
pub enum List {
    /// `access.block_dynamic`.
    Dynamic(PathBuf, Arc<ArcSwap<DynamicList>>),
    /// `domains.recipients`.
    Recipients(PathBuf, Arc<ArcSwap<Recipients>>),
    /// `auth.users`.
    Users(PathBuf, Seed, Arc<ArcSwap<Users>>),
}

impl List {
    /// Where it is read from.
    pub fn path(&self) -> &Path {
        match self {
            List::Dynamic(path, _) | List::Recipients(path, _) | List::Users(path, ..) => path,
        }
    }

    /// Reads it again. Lines that are none of it are logged and left out.
    ///
    /// # Errors
    ///
    /// A sentence with the file and the system's reason; the old list stays.
    pub fn read(&self, log: &Log) -> Result<(), String> {
        match self {
            List::Dynamic(path, list) => {
                // A list that others keep may not be there yet, or not any more.
                let text = match std::fs::read_to_string(path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                    text => text.map_err(|error| unreadable(path, &error))?,
                };
                let (networks, bad) = DynamicList::parse(&text);
                for error in &bad {
                    log.event(
                        Level::Warn,
                        "a line of the dynamic list is left out",
                        &[
                            ("file", &path.display()),
                            ("line", &error.line),
                            ("reason", &error.fault),
                        ],
                    );
                }
                log.event(
                    Level::Info,
                    "dynamic list read",
                    &[("file", &path.display()), ("networks", &networks.len())],
                );
                list.store(Arc::new(networks));
            }
            List::Recipients(path, list) => {
                let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
                let (recipients, bad) = routing::parse_recipients(&text);
                for line in &bad {
                    log.event(
                        Level::Warn,
                        "a line of the recipients is no address and is left out",
                        &[("file", &path.display()), ("line", line)],
                    );
                }
                log.event(
                    Level::Info,
                    "recipients read",
                    &[("file", &path.display()), ("recipients", &recipients.len())],
                );
                list.store(Arc::new(recipients));
            }
            List::Users(path, seed, list) => read_users(path, *seed, list, log)?,
        }
        Ok(())
    }
}

fn read_users(path: &Path, seed: Seed, list: &ArcSwap<Users>, log: &Log) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let parsed = Users::parse(&text, seed);
    for fault in &parsed.faults {
        log.event(
            Level::Warn,
            "a line of the users is left out",
            &[
                ("file", &path.display()),
                ("line", &fault.line),
                ("expected", &fault.expected),
            ],
        );
    }
    if parsed.plain > 0 {
        log.event(
            Level::Warn,
            "passwords stand in the users file as they are: postern passwd makes hashes",
            &[("file", &path.display()), ("passwords", &parsed.plain)],
        );
    }
    log.event(
        Level::Info,
        "users read",
        &[("file", &path.display()), ("users", &parsed.users.len())],
    );
    list.store(Arc::new(parsed.users));
    Ok(())
}

/// What a configuration comes to.
#[derive(Debug)]
pub struct Built {
    /// For the shards.
    pub settings: Arc<Settings>,
    /// For the control thread.
    pub control: control::Settings,
    /// Read already; to be read again when their files change.
    pub lists: Vec<List>,
    /// The same, and not on show yet.
    pub certificates: Option<Reading>,
}

/// Builds the settings of a configuration for `shards` shards and at most `room` connections.
///
/// # Errors
///
/// A sentence that names what cannot be used.
pub fn build(
    config: &Config,
    in_use: Option<&Certificates>,
    room: u64,
    shards: usize,
    scopes: &mut Scopes,
    log: &Log,
) -> Result<Built, String> {
    let mut lists = Vec::new();
    let dynamic = Arc::new(ArcSwap::from_pointee(DynamicList::default()));
    if let Some(path) = &config.access.block_dynamic {
        lists.push(List::Dynamic(path.clone(), dynamic.clone()));
    }
    let recipients = config.domains.recipients.as_ref().map(|path| {
        let known = Arc::new(ArcSwap::from_pointee(Recipients::default()));
        lists.push(List::Recipients(path.clone(), known.clone()));
        known
    });
    let users = Arc::new(ArcSwap::from_pointee(Users::default()));
    if let Some(path) = config.auth.as_ref().and_then(|auth| auth.users.as_ref()) {
        lists.push(List::Users(path.clone(), scopes.seed()?, users.clone()));
    }
    // Looked at before they are read: what changes meanwhile is seen to have changed.
    let mut files: Vec<_> = lists.iter().map(|list| list.path().to_path_buf()).collect();
    files.extend(certificates::files(config));
    let watched = control::files::look(files);
    for list in &lists {
        list.read(log)?;
    }
    let certificates = Reading::of(config, in_use, log)?;
    let routes = scopes.routes.of(config)?;
    let mut disks = vec![config.data_dir.clone()];
    for route in &routes {
        disks.extend(route.targets.iter().filter_map(|target| match target {
            Target::Maildir(template) => Some(template.root().to_path_buf()),
            _ => None,
        }));
    }
    let policy = Policy {
        bindings: config
            .bindings
            .iter()
            .map(|b| Arc::new(binding(config, b, room, scopes)))
            .collect(),
        access: Access {
            allow: networks(&config.access.allow),
            block: networks(&config.access.block),
            block_text: config.access.block_text.as_str().into(),
            dynamic,
            dnsbl: !config.access.dnsbl.is_empty(),
        },
        routing: Routing {
            hostname: config.hostname.to_ascii_lowercase().into(),
            accepted: domains(&config.domains.accepted),
            recipients,
            routes: config.routes.iter().map(|route| domains(&route.domains)).collect(),
        },
        users,
    };
    let settings = Settings {
        hostname: config.hostname.as_str().into(),
        policy,
        routes,
        queue: routes::queue(config),
        tls: certificates.as_ref().map(Reading::config),
        message_memory: usize::try_from(config.queue.memory).unwrap_or(usize::MAX) / shards.max(1),
    };
    let control = control::Settings {
        block_lists: dns::Settings {
            zones: config.access.dnsbl.iter().map(|zone| zone.as_str().into()).collect(),
            servers: config.access.dns_servers.clone(),
            ..dns::Settings::default()
        },
        names: resolve::Settings {
            hostname: config.hostname.as_str().into(),
            servers: config.access.dns_servers.clone(),
            ..resolve::Settings::default()
        },
        watched,
        disks,
    };
    Ok(Built {
        settings: Arc::new(settings),
        control,
        lists,
        certificates,
    })
}

fn binding(config: &Config, binding: &config::Binding, room: u64, scopes: &mut Scopes) -> Binding {
    let mut limits = binding.limits.clone();
    limits.max_connections = limits.max_connections.min(room);
    let off: Vec<_> = binding
        .extensions_off
        .iter()
        .filter_map(|word| Extension::parse_keyword(word))
        .collect();
    let starttls = binding.tls == config::BindingTls::StartTls && !off.contains(&Extension::StartTls);
    let own_connections = binding.own_connections || binding.own_connections_per_source;
    Binding {
        name: binding.name.as_str().into(),
        role: binding.role,
        terms: Arc::new(Terms {
            hostname: config.hostname.as_str().into(),
            edition: config.edition,
            limits,
            offered: match Offered::of(config.edition, &off, binding.xexch50) {
                offered if starttls => offered.with(Extension::StartTls),
                offered => offered,
            },
            require_tls: binding.require_tls,
            auth: auth(binding, &off),
            bare_newline: binding.bare_newline,
        }),
        clients: networks(&binding.clients),
        proxy_from: networks(&binding.proxy_from),
        proxy_protocol: binding.proxy_protocol,
        implicit_tls: binding.tls == config::BindingTls::Implicit,
        connection_scope: scopes.of(&binding.name, own_connections),
        rate_scope: scopes.of(&binding.name, binding.own_rate),
        tls_rate_scope: scopes.of(&binding.name, binding.own_tls_rate),
        resources: scopes.resources.entry(binding.name.clone()).or_default().clone(),
    }
}

/// AUTH that is switched off is not known either.
fn auth(binding: &config::Binding, off: &[Extension]) -> Auth {
    let mechanisms = if off.contains(&Extension::Auth) {
        &[]
    } else {
        binding.auth.as_slice()
    };
    Auth {
        mechanisms: mechanisms.into(),
        requires_tls: binding.auth_requires_tls,
        required: binding.require_auth,
        users: binding.users.iter().map(|user| user.as_str().into()).collect(),
    }
}

fn domains(names: &[String]) -> DomainSet {
    DomainSet::new(names.iter().map(String::as_str))
}

fn networks(networks: &[config::Network]) -> NetworkSet {
    networks.iter().copied().collect()
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}
