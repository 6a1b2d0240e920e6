//! The TOML as it is written: every section, every key, every default.
//!
//! Promises: a key stands here once, with its range and its default; a [`Config`] comes out only where nothing was
//! wrong. Opens no file that the configuration names. Lives on whichever thread reads the file.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::binding::{Given, Seen, binding, limits};
use super::error::Source;
use super::table::{Entry, Problems, Section};
use super::value;
use super::{
    Access, Auth, Certificate, CertificateFiles, Config, ConfigError, Destination, Domains, Fleet, HopTls, Level, Log,
    LogFormat, Queue, Route, Tls,
};
use crate::policy::network::Network;
use crate::smtp::Edition;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Executors: no machine has more cores, and each costs memory that is locked.
const SHARDS_MAX: u64 = 1024;

pub(super) const EDITIONS: &[(&str, Edition)] = &[("2021", Edition::Y2021), ("2011", Edition::Y2011)];
pub(super) const HOP_TLS: &[(&str, HopTls)] = &[
    ("off", HopTls::Off),
    ("opportunistic", HopTls::Opportunistic),
    ("required", HopTls::Required),
];
pub(super) const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];
pub(super) const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Reads a whole file.
pub(super) fn read(text: &str, name: &str) -> Result<Config, ConfigError> {
    let source = Source { name, text };
    let root = DeTable::parse(text).map_err(|error| ConfigError::new(vec![source.syntax(&error)]))?;
    let problems = Problems::new(source);
    let config = top(&Section::root(&problems, root.get_ref()));
    problems.finish()?;
    Ok(config)
}

fn top(top: &Section<'_>) -> Config {
    let data_dir = top.value("data_dir", PathBuf::from("var"), data_dir);
    let tls_section = top.section("tls");
    let tls = tls(&tls_section);
    let auth = auth(&top.section("auth"));
    let limits = limits(&top.section("limits"));
    let mut seen = Seen::default();
    let given = Given {
        tls: tls_section.present(),
        auth: auth.is_some(),
        limits: &limits,
    };
    let bindings = top.sections("binding", |i, section| binding(section, i, &given, &mut seen));
    let home = Destination::Maildir(data_dir.join("mail").display().to_string());
    let mut routes = top.sections("next_hop", |_, section| route(section, &home));
    if routes.is_empty() {
        routes.push(default_route(home));
    }
    Config {
        hostname: top
            .optional("hostname", |entry| entry.text("a domain name", value::domain))
            .unwrap_or_else(hostname_of_this_host),
        data_dir,
        drain_timeout: top.value("drain_timeout", Duration::from_secs(30), |e| {
            e.duration(Duration::ZERO..=DAY)
        }),
        shards: top.value("shards", 0, |e| e.count(0..=SHARDS_MAX)) as usize,
        edition: top.value("edition", Edition::Y2021, |e| e.choice(EDITIONS)),
        bindings,
        access: access(&top.section("access")),
        domains: domains(&top.section("domains")),
        routes,
        auth,
        tls,
        queue: queue(&top.section("queue")),
        admin: top.section("admin").optional("listen", |e| seen.address(e)),
        log: log(&top.section("log")),
        fleet: top
            .section("fleet")
            .optional("redis", redis)
            .map(|redis| Fleet { redis }),
        limits,
    }
}

/// The default route makes a `maildir:` template of it, in which braces have a meaning.
fn data_dir(entry: &Entry<'_>) -> Option<PathBuf> {
    let path = entry.path()?;
    match path.display().to_string().contains(['{', '}']) {
        true => entry.wrong("a path without braces"),
        false => Some(path),
    }
}

fn access(section: &Section<'_>) -> Access {
    const TEXT: &str = "Visit http://support.microsoft.com/kb/928123 for more information";
    Access {
        allow: section.value("allow", Vec::new(), networks),
        block: section.value("block", Vec::new(), networks),
        block_text: section.value("block_text", TEXT.to_owned(), |e| e.text("a sentence", sentence)),
        block_dynamic: section.optional("block_dynamic", Entry::path),
        dnsbl: section.value("dnsbl", Vec::new(), |e| {
            e.distinct("zones", |e| e.text("a zone", value::domain))
        }),
        dns_servers: section.value("dns_servers", Vec::new(), |e| {
            e.distinct("addresses", |e| e.text("an address", value::dns_server))
        }),
    }
}

fn domains(section: &Section<'_>) -> Domains {
    Domains {
        accepted: section.value("accepted", Vec::new(), |e| {
            e.list("domains", |e| e.text("a domain, or \"*\"", value::domain_or_any))
        }),
        recipients: section.optional("recipients", Entry::path),
    }
}

fn auth(section: &Section<'_>) -> Option<Auth> {
    let users = section.optional("users", Entry::path);
    section.present().then_some(Auth { users })
}

fn tls(section: &Section<'_>) -> Option<Tls> {
    let certificate = section.entry("certificate");
    let key = section.entry("key");
    let self_signed = section.entry("self_signed");
    let made = self_signed.as_ref().is_some_and(|entry| entry.boolean() == Some(true));
    let default = match (certificate, key) {
        (Some(entry), _) | (_, Some(entry)) if made => entry.contradiction(
            "it beside `self_signed = true`",
            "either the two files or `self_signed = true`",
        ),
        (None, None) if made => Some(Certificate::SelfSigned),
        (None, None) => section.wrong("neither", "`certificate` and `key`, or `self_signed = true`"),
        (certificate, key) => certificate_files(certificate, key).map(Certificate::Files),
    };
    let certificates = section.sections("certificates", |_, section| {
        match (section.entry("certificate"), section.entry("key")) {
            (None, None) => section.wrong("neither", "`certificate` and `key`"),
            (certificate, key) => certificate_files(certificate, key),
        }
    });
    Some(Tls {
        default: default?,
        certificates: certificates.into_iter().flatten().collect(),
    })
}

fn certificate_files(certificate: Option<Entry<'_>>, key: Option<Entry<'_>>) -> Option<CertificateFiles> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (certificate.path(), key.path());
            Some(CertificateFiles {
                certificate: certificate?,
                key: key?,
            })
        }
        (Some(entry), None) => entry.contradiction("`certificate` without `key`", "both"),
        (None, Some(entry)) => entry.contradiction("`key` without `certificate`", "both"),
        (None, None) => None,
    }
}

fn route(section: &Section<'_>, home: &Destination) -> Route {
    let default = default_route(home.clone());
    let username = section.entry("username");
    let password_file = section.entry("password_file");
    match (&username, &password_file) {
        (Some(entry), None) => entry.contradiction("`username` without `password_file`", "both or none"),
        (None, Some(entry)) => entry.contradiction("`password_file` without `username`", "both or none"),
        _ => Some(()),
    };
    let to = section.value("to", default.to, |e| {
        e.some("URLs", |e| e.text("a URL", Destination::parse))
    });
    // Whoever says whom to believe wants nobody else to be believed.
    let default_tls = match section.entry("tls_ca") {
        Some(_) => HopTls::Required,
        None => default.tls,
    };
    let tls = section.value("tls", default_tls, |e| e.choice(HOP_TLS));
    Route {
        domains: section.value("domains", default.domains, |e| {
            e.some("domains", |e| e.text("a domain, or \"*\"", value::domain_or_any))
        }),
        tls_ca: section.optional("tls_ca", |e| match tls {
            HopTls::Required => e.path(),
            _ => e.contradiction(
                "it beside another `tls` than \"required\"",
                "`tls = \"required\"`: nothing is verified otherwise",
            ),
        }),
        tls_name: section.optional("tls_name", |e| match tls {
            HopTls::Off => e.contradiction("it beside `tls = \"off\"`", "one of them"),
            _ if to.contains(&Destination::Mx) => e.contradiction(
                "it beside \"mx:\"",
                "one of them: each of those servers has a name of its own",
            ),
            _ => e.text("a domain name", value::domain),
        }),
        to,
        tls,
        username: username.and_then(|e| e.text("a user name", one_line)),
        password_file: password_file.and_then(|e| e.path()),
        max_connections: section.value("max_connections", default.max_connections as u64, |e| {
            e.count(1..=65_535)
        }) as usize,
    }
}

fn default_route(home: Destination) -> Route {
    Route {
        domains: vec!["*".to_owned()],
        to: vec![home],
        tls: HopTls::Opportunistic,
        tls_ca: None,
        tls_name: None,
        username: None,
        password_file: None,
        max_connections: 32,
    }
}

fn queue(section: &Section<'_>) -> Queue {
    let least = Duration::from_secs(1);
    let retry = || [15, 60, 5 * 60, 15 * 60, 3600].map(Duration::from_secs).to_vec();
    Queue {
        retry: section
            .optional("retry", |e| e.some("durations", |e| e.duration(least..=30 * DAY)))
            .unwrap_or_else(retry),
        expire: section.value("expire", 2 * DAY, |e| e.duration(least..=365 * DAY)),
        delay_notice: section.value("delay_notice", DAY / 6, |e| e.duration(least..=365 * DAY)),
        memory: section.value("memory", 256 << 20, |e| e.size(0..=1 << 50)),
    }
}

fn log(section: &Section<'_>) -> Log {
    Log {
        level: section.value("level", Level::Info, |e| e.choice(LEVELS)),
        format: section.value("format", LogFormat::Text, |e| e.choice(FORMATS)),
    }
}

fn redis(entry: &Entry<'_>) -> Option<String> {
    entry.text("a URL", |url| {
        let rest = url
            .strip_prefix("redis://")
            .or_else(|| url.strip_prefix("rediss://"))
            .unwrap_or_default();
        let printable = rest.bytes().all(|b| b.is_ascii_graphic());
        match rest.is_empty() || rest.starts_with(['/', ':']) || !printable {
            true => Err("a URL such as \"redis://127.0.0.1:6379\"".to_owned()),
            false => Ok(url.to_owned()),
        }
    })
}

pub(super) fn networks(entry: &Entry<'_>) -> Option<Vec<Network>> {
    entry.list("ranges of addresses", |e| {
        e.text("a range of addresses", value::network)
    })
}

/// For names that stand in a file with one entry a line.
pub(super) fn one_line(text: &str) -> Result<String, String> {
    match text.len() {
        1..=255 if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("a name of 1 to 255 octets without control characters".to_owned()),
    }
}

/// For the end of a reply line, which has 512 octets in all (RFC 5321 section 4.5.3.1.5), about 150 of them taken.
fn sentence(text: &str) -> Result<String, String> {
    match text.len() {
        0..=300 if text.bytes().all(|b| matches!(b, b' '..=b'~')) => Ok(text.to_owned()),
        _ => Err("at most 300 printable ASCII characters".to_owned()),
    }
}

/// What `uname -n` says, where it can stand in a reply.
fn hostname_of_this_host() -> String {
    let names = rustix::system::uname();
    let name = names.nodename().to_str().unwrap_or_default();
    value::domain(name).unwrap_or_else(|_| "localhost".to_owned())
}
