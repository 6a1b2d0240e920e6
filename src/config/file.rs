//! The TOML as it is written: every section, every key, every default.
//!
//! Promises: a key stands here once, with its range and its default; a [`Config`] comes out only where nothing was
//! wrong. Opens no file that the configuration names. Lives on whichever thread reads the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::error::Source;
use super::table::{Entry, Problems, Section};
use super::value::{self, Network};
use super::{
    Access, Auth, BareNewline, Binding, BindingTls, Config, ConfigError, Destination, Domains, Fleet, HopTls, Level,
    Log, LogFormat, Mechanism, Queue, Route, Tls,
};
use crate::smtp::limits::{Limits, ROWS, Value};
use crate::smtp::{Edition, Role};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Executors: no machine has more cores, and each costs memory that is locked.
const SHARDS_MAX: u64 = 1024;

/// Keywords that a binding may hide. XEXCH50 has a key of its own.
pub(super) const KEYWORDS: &[&str] = &[
    "PIPELINING",
    "STARTTLS",
    "AUTH",
    "8BITMIME",
    "BINARYMIME",
    "CHUNKING",
    "SMTPUTF8",
];

/// [MS-OXSMTP] 3.2.5: these three are always advertised.
const KEYWORDS_ALWAYS: &[&str] = &["SIZE", "DSN", "ENHANCEDSTATUSCODES"];

pub(super) const ROLES: &[(&str, Role)] = &[("gateway", Role::Gateway), ("relay", Role::Relay)];
pub(super) const EDITIONS: &[(&str, Edition)] = &[("2021", Edition::Y2021), ("2011", Edition::Y2011)];
pub(super) const BINDING_TLS: &[(&str, BindingTls)] = &[
    ("off", BindingTls::Off),
    ("starttls", BindingTls::StartTls),
    ("implicit", BindingTls::Implicit),
];
pub(super) const MECHANISMS: &[(&str, Mechanism)] = &[
    ("NTLM", Mechanism::Ntlm),
    ("LOGIN", Mechanism::Login),
    ("PLAIN", Mechanism::Plain),
    ("SCRAM-SHA-256", Mechanism::ScramSha256),
];
pub(super) const BARE_NEWLINES: &[(&str, BareNewline)] =
    &[("refuse", BareNewline::Refuse), ("normalise", BareNewline::Normalise)];
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

/// What the file says elsewhere and a binding builds on.
struct Given<'a> {
    tls: bool,
    auth: bool,
    limits: &'a [(&'static str, Value)],
}

/// What must not stand twice in one file.
#[derive(Default)]
struct Seen {
    names: Vec<String>,
    addresses: Vec<SocketAddr>,
}

impl Seen {
    /// Of the binding at this position.
    fn name(&mut self, binding: &Section<'_>, index: usize) -> String {
        let entry = binding.entry("name");
        let default = || format!("binding-{}", index + 1);
        let name = entry
            .as_ref()
            .and_then(|e| e.text("a name", value::word))
            .unwrap_or_else(default);
        if self.names.contains(&name) {
            let expected = "a name that no other binding has";
            let _: Option<()> = match &entry {
                Some(entry) => entry.wrong(expected),
                None => binding.wrong(format!("no `name`, and another binding called \"{name}\""), expected),
            };
        }
        // A binding that is read only to learn its keys has no name to take.
        if binding.present() {
            self.names.push(name.clone());
        }
        name
    }

    fn addresses(&mut self, binding: &Section<'_>) -> Vec<SocketAddr> {
        let default = SocketAddr::from(([127, 0, 0, 1], 2525));
        match binding.entry("address") {
            Some(entry) => entry.some("addresses", |e| self.address(e)).unwrap_or_default(),
            None => {
                if self.addresses.contains(&default) {
                    binding.wrong::<()>(
                        format!("no `address`, and {default} in use elsewhere in the file"),
                        "one",
                    );
                }
                if binding.present() {
                    self.addresses.push(default);
                }
                vec![default]
            }
        }
    }

    fn address(&mut self, entry: &Entry<'_>) -> Option<SocketAddr> {
        let address = entry.text("an address and port", value::socket_address)?;
        // Port 0 is a new port each time.
        if address.port() != 0 && self.addresses.contains(&address) {
            return entry.wrong("an address and port that stand nowhere else in the file");
        }
        self.addresses.push(address);
        Some(address)
    }
}

fn binding(section: &Section<'_>, index: usize, given: &Given<'_>, seen: &mut Seen) -> Binding {
    let role = section.value("role", Role::Gateway, |e| e.choice(ROLES));
    let tls_default = if given.tls {
        BindingTls::StartTls
    } else {
        BindingTls::Off
    };
    let auth_default = if given.auth {
        vec![Mechanism::Ntlm, Mechanism::Login]
    } else {
        Vec::new()
    };
    let anyone = || {
        ["0.0.0.0/0", "::/0"]
            .iter()
            .filter_map(|range| range.parse().ok())
            .collect()
    };
    let mut server = Limits::of(role);
    apply(&mut server, given.limits);
    let mut limits_here = server.clone();
    apply(&mut limits_here, &limits(&section.section("limits")));
    let tls = section.value("tls", tls_default, |e| binding_tls(e, given));
    Binding {
        name: seen.name(section, index),
        addresses: seen.addresses(section),
        role,
        tls,
        require_tls: section.value("require_tls", false, |e| require_tls(e, given, tls)),
        auth: section.value("auth", auth_default, |e| {
            distinct(e, "mechanisms", |e| e.choice(MECHANISMS))
        }),
        auth_requires_tls: section.value("auth_requires_tls", true, Entry::boolean),
        require_auth: section.value("require_auth", false, Entry::boolean),
        clients: section.optional("clients", networks).unwrap_or_else(anyone),
        users: section.value("users", Vec::new(), |e| {
            distinct(e, "user names", |e| e.text("a user name", one_line))
        }),
        xexch50: section.value("xexch50", false, Entry::boolean),
        proxy_protocol: section.value("proxy_protocol", false, Entry::boolean),
        proxy_from: section.value("proxy_from", Vec::new(), networks),
        extensions_off: section.value("extensions_off", Vec::new(), |e| {
            distinct(e, "EHLO keywords", |e| e.text("an EHLO keyword", keyword))
        }),
        bare_newline: section.value("bare_newline", BareNewline::Refuse, |e| e.choice(BARE_NEWLINES)),
        own_connections: limits_here.max_connections != server.max_connections,
        own_connections_per_source: limits_here.max_connections_per_source != server.max_connections_per_source,
        own_rate: limits_here.message_rate != server.message_rate,
        limits: limits_here,
    }
}

fn binding_tls(entry: &Entry<'_>, given: &Given<'_>) -> Option<BindingTls> {
    match entry.choice(BINDING_TLS)? {
        BindingTls::Off => Some(BindingTls::Off),
        tls if given.tls => Some(tls),
        _ => entry.wrong("\"off\", or a section `[tls]` with a certificate"),
    }
}

fn require_tls(entry: &Entry<'_>, given: &Given<'_>, tls: BindingTls) -> Option<bool> {
    match (entry.boolean()?, tls) {
        (true, BindingTls::Off) if given.tls => entry.wrong("false, or `tls` of \"starttls\" or \"implicit\""),
        (true, BindingTls::Off) => entry.wrong("false, or a section `[tls]` with a certificate"),
        (required, _) => Some(required),
    }
}

fn limits(section: &Section<'_>) -> Vec<(&'static str, Value)> {
    let mut given = Vec::new();
    for row in ROWS {
        let value = section.optional(row.key, |entry| match (row.least, row.most) {
            (Value::Span(least), Value::Span(most)) => entry.duration(least..=most).map(Value::Span),
            (Value::Size(least), Value::Size(most)) => entry.size(least..=most).map(Value::Size),
            (Value::Count(least), Value::Count(most)) => entry.count(least..=most).map(Value::Count),
            _ => entry.wrong("a row whose bounds are of one kind"),
        });
        given.extend(value.map(|value| (row.key, value)));
    }
    given
}

fn apply(limits: &mut Limits, given: &[(&'static str, Value)]) {
    for (key, value) in given {
        let known = limits.set(key, *value);
        debug_assert!(known, "a key that was read from ROWS is not in ROWS: {key}");
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
            distinct(e, "zones", |e| e.text("a zone", value::domain))
        }),
        dns_servers: section.value("dns_servers", Vec::new(), |e| {
            distinct(e, "addresses", |e| e.text("an address", value::dns_server))
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
    match (certificate, key) {
        (Some(entry), _) | (_, Some(entry)) if made => entry.contradiction(
            "it beside `self_signed = true`",
            "either the two files or `self_signed = true`",
        ),
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (certificate.path(), key.path());
            Some(Tls::Files {
                certificate: certificate?,
                key: key?,
            })
        }
        (Some(entry), None) => entry.contradiction("`certificate` without `key`", "both"),
        (None, Some(entry)) => entry.contradiction("`key` without `certificate`", "both"),
        (None, None) if made => Some(Tls::SelfSigned),
        (None, None) => section.wrong("neither", "`certificate` and `key`, or `self_signed = true`"),
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
    Route {
        domains: section.value("domains", default.domains, |e| {
            e.some("domains", |e| e.text("a domain, or \"*\"", value::domain_or_any))
        }),
        to: section.value("to", default.to, |e| {
            e.some("URLs", |e| e.text("a URL", Destination::parse))
        }),
        tls: section.value("tls", default.tls, |e| e.choice(HOP_TLS)),
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

fn networks(entry: &Entry<'_>) -> Option<Vec<Network>> {
    entry.list("ranges of addresses", |e| {
        e.text("a range of addresses", value::network)
    })
}

/// A list in which nothing stands twice.
fn distinct<T: PartialEq>(
    entry: &Entry<'_>,
    of: &str,
    mut read: impl FnMut(&Entry<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    entry.list(of, |element| {
        let value = read(element)?;
        if all.contains(&value) {
            return element.wrong(format!("each of the {of} once"));
        }
        all.push(value);
        Some(())
    })?;
    Some(all)
}

fn keyword(text: &str) -> Result<String, String> {
    let keyword = text.to_ascii_uppercase();
    match keyword.as_str() {
        k if KEYWORDS.contains(&k) => Ok(keyword),
        k if KEYWORDS_ALWAYS.contains(&k) => Err(format!(
            "one of {}; {} are always advertised",
            KEYWORDS.join(", "),
            KEYWORDS_ALWAYS.join(", ")
        )),
        _ => Err(format!("one of {}", KEYWORDS.join(", "))),
    }
}

/// For names that stand in a file with one entry a line.
fn one_line(text: &str) -> Result<String, String> {
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
