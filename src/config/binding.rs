//! `[[binding]]` as it is written, with the limits in force for it.
//!
//! Promises: names and addresses are unique in the file; the limits are the role's, then `[limits]`, then
//! `[binding.limits]`. Pure; lives on whichever thread reads the file.

use std::net::SocketAddr;

use super::file::{networks, one_line};
use super::table::{Entry, Section};
use super::{BareNewline, Binding, BindingTls, Mechanism, value};
use crate::smtp::Role;
use crate::smtp::limits::{Limits, ROWS, Value};

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

/// What the file says elsewhere and a binding builds on.
pub(super) struct Given<'a> {
    /// `[tls]` stands there.
    pub tls: bool,
    /// `[auth]` stands there.
    pub auth: bool,
    /// `[limits]`.
    pub limits: &'a [(&'static str, Value)],
}

/// What must not stand twice in one file.
#[derive(Default)]
pub(super) struct Seen {
    names: Vec<String>,
    addresses: Vec<SocketAddr>,
}

impl Seen {
    /// The name of the binding at this position.
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

    /// The addresses of a binding.
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

    /// One address and port to listen on.
    pub fn address(&mut self, entry: &Entry<'_>) -> Option<SocketAddr> {
        let address = entry.text("an address and port", value::socket_address)?;
        // Port 0 is a new port each time.
        if address.port() != 0 && self.addresses.contains(&address) {
            return entry.wrong("an address and port that stand nowhere else in the file");
        }
        self.addresses.push(address);
        Some(address)
    }
}

/// Reads the binding at this position.
pub(super) fn binding(section: &Section<'_>, index: usize, given: &Given<'_>, seen: &mut Seen) -> Binding {
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
            e.distinct("mechanisms", |e| e.choice(MECHANISMS))
        }),
        auth_requires_tls: section.value("auth_requires_tls", true, Entry::boolean),
        require_auth: section.value("require_auth", false, Entry::boolean),
        clients: section.optional("clients", networks).unwrap_or_else(anyone),
        users: section.value("users", Vec::new(), |e| {
            e.distinct("user names", |e| e.text("a user name", one_line))
        }),
        xexch50: section.value("xexch50", false, Entry::boolean),
        proxy_protocol: section.value("proxy_protocol", false, Entry::boolean),
        proxy_from: section.value("proxy_from", Vec::new(), networks),
        extensions_off: section.value("extensions_off", Vec::new(), |e| {
            e.distinct("EHLO keywords", |e| e.text("an EHLO keyword", keyword))
        }),
        bare_newline: section.value("bare_newline", BareNewline::Refuse, |e| e.choice(BARE_NEWLINES)),
        own_connections: limits_here.max_connections != server.max_connections,
        own_connections_per_source: limits_here.max_connections_per_source != server.max_connections_per_source,
        own_rate: limits_here.message_rate != server.message_rate,
        own_tls_rate: limits_here.tls_session_rate != server.tls_session_rate,
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

/// `[limits]`, or those of a binding: what is written, in the order of the rows.
pub(super) fn limits(section: &Section<'_>) -> Vec<(&'static str, Value)> {
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
