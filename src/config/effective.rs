//! The effective configuration, printed as TOML.
//!
//! Promises: every default is filled in, the limits in force stand under each binding, and what is printed is itself a
//! configuration that means the same. Pure.

use std::fmt::{Display, Write};
use std::path::Path;

use super::binding::{BARE_NEWLINES, BINDING_TLS, MECHANISMS, ROLES};
use super::file::{EDITIONS, FORMATS, HOP_TLS, LEVELS};
use super::value::{print_duration, print_size};
use super::{Binding, Certificate, CertificateFiles, Config, Route};
use crate::smtp::limits::{ROWS, Value};

/// As the file writes it.
pub(super) fn print(config: &Config) -> String {
    let mut out = Printer::default();
    out.text("hostname", &config.hostname);
    out.path("data_dir", &config.data_dir);
    out.text("drain_timeout", print_duration(config.drain_timeout));
    out.bare("shards", config.shards);
    out.text("edition", word(EDITIONS, config.edition));
    for each in &config.bindings {
        binding(&mut out, each);
    }
    // Only what was written: it is in force already above, and the defaults of the two roles differ.
    if !config.limits.is_empty() {
        out.header("[limits]");
        for (key, value) in &config.limits {
            out.limit(key, *value);
        }
    }
    access_and_domains(&mut out, config);
    for each in &config.routes {
        route(&mut out, each);
    }
    the_rest(&mut out, config);
    out.text
}

fn binding(out: &mut Printer, binding: &Binding) {
    out.header("[[binding]]");
    out.text("name", &binding.name);
    out.list("address", &binding.addresses);
    out.text("role", word(ROLES, binding.role));
    out.text("tls", word(BINDING_TLS, binding.tls));
    out.bare("require_tls", binding.require_tls);
    out.list(
        "auth",
        binding.auth.iter().map(|mechanism| word(MECHANISMS, *mechanism)),
    );
    out.bare("auth_requires_tls", binding.auth_requires_tls);
    out.bare("require_auth", binding.require_auth);
    out.list("clients", &binding.clients);
    out.list("users", &binding.users);
    out.bare("xexch50", binding.xexch50);
    out.bare("proxy_protocol", binding.proxy_protocol);
    out.list("proxy_from", &binding.proxy_from);
    out.list("extensions_off", &binding.extensions_off);
    out.text("bare_newline", word(BARE_NEWLINES, binding.bare_newline));
    out.header("[binding.limits]");
    for row in ROWS {
        if let Some(value) = binding.limits.value(row.key) {
            out.limit(row.key, value);
        }
    }
}

fn access_and_domains(out: &mut Printer, config: &Config) {
    let access = &config.access;
    out.header("[access]");
    out.list("allow", &access.allow);
    out.list("block", &access.block);
    out.text("block_text", &access.block_text);
    if let Some(path) = &access.block_dynamic {
        out.path("block_dynamic", path);
    }
    out.list("dnsbl", &access.dnsbl);
    out.list("dns_servers", &access.dns_servers);
    out.header("[domains]");
    out.list("accepted", &config.domains.accepted);
    if let Some(path) = &config.domains.recipients {
        out.path("recipients", path);
    }
}

fn route(out: &mut Printer, route: &Route) {
    out.header("[[next_hop]]");
    out.list("domains", &route.domains);
    out.list("to", &route.to);
    out.text("tls", word(HOP_TLS, route.tls));
    if let Some(path) = &route.tls_ca {
        out.path("tls_ca", path);
    }
    if let Some(name) = &route.tls_name {
        out.text("tls_name", name);
    }
    if let Some(username) = &route.username {
        out.text("username", username);
    }
    if let Some(path) = &route.password_file {
        out.path("password_file", path);
    }
    out.bare("max_connections", route.max_connections);
}

fn the_rest(out: &mut Printer, config: &Config) {
    if let Some(auth) = &config.auth {
        out.header("[auth]");
        if let Some(path) = &auth.users {
            out.path("users", path);
        }
    }
    if let Some(tls) = &config.tls {
        out.header("[tls]");
        match &tls.default {
            Certificate::Files(files) => certificate(out, files),
            Certificate::SelfSigned => out.bare("self_signed", true),
        }
        for files in &tls.certificates {
            out.header("[[tls.certificates]]");
            certificate(out, files);
        }
    }
    out.header("[queue]");
    out.list("retry", config.queue.retry.iter().map(|wait| print_duration(*wait)));
    out.text("expire", print_duration(config.queue.expire));
    out.text("delay_notice", print_duration(config.queue.delay_notice));
    out.size("memory", config.queue.memory);
    if let Some(address) = config.admin {
        out.header("[admin]");
        out.text("listen", address);
    }
    out.header("[log]");
    out.text("level", word(LEVELS, config.log.level));
    out.text("format", word(FORMATS, config.log.format));
    if let Some(fleet) = &config.fleet {
        out.header("[fleet]");
        out.text("redis", &fleet.redis);
    }
}

fn certificate(out: &mut Printer, files: &CertificateFiles) {
    out.path("certificate", &files.certificate);
    out.path("key", &files.key);
}

/// The word that the file has for a meaning. Each meaning has one: the reader made it of a word.
fn word<'w, T: PartialEq>(words: &[(&'w str, T)], meaning: T) -> &'w str {
    words
        .iter()
        .find(|(_, other)| *other == meaning)
        .map_or("", |(word, _)| word)
}

#[derive(Debug, Default)]
struct Printer {
    text: String,
}

impl Printer {
    fn header(&mut self, header: &str) {
        self.text.push('\n');
        self.text.push_str(header);
        self.text.push('\n');
    }

    /// A number or a truth.
    fn bare(&mut self, key: &str, value: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{key} = {value}");
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.bare(key, quoted(value));
    }

    fn path(&mut self, key: &str, path: &Path) {
        self.text(key, path.display());
    }

    fn list<T: Display>(&mut self, key: &str, values: impl IntoIterator<Item = T>) {
        let values: Vec<String> = values.into_iter().map(quoted).collect();
        self.bare(key, format!("[{}]", values.join(", ")));
    }

    fn size(&mut self, key: &str, octets: u64) {
        match print_size(octets) {
            plain if plain.bytes().all(|b| b.is_ascii_digit()) => self.bare(key, plain),
            with_unit => self.text(key, with_unit),
        }
    }

    fn limit(&mut self, key: &str, value: Value) {
        match value {
            Value::Span(span) => self.text(key, print_duration(span)),
            Value::Size(octets) => self.size(key, octets),
            Value::Count(count) => self.bare(key, count),
        }
    }
}

fn quoted(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::binding::KEYWORDS;

    fn read(text: &str) -> Config {
        Config::parse(text, "test").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_is_printed_means_the_same() {
        let extensions = format!("[[binding]]\nextensions_off = {KEYWORDS:?}");
        let texts = [
            "",
            "data_dir = '''quote\" and \\ and \u{1F600}'''",
            "[limits]\nmessage_rate = 7\n[[binding]]\nrole = \"relay\"\n[binding.limits]\nmax_connections = 3",
            "[limits]\nmax_header_size = 1000\n[[binding]]\naddress = [\"[::1]:0\"]\ntls = \"implicit\"\n[tls]\nself_signed = true",
            "[auth]\n[[binding]]\nauth = [\"SCRAM-SHA-256\", \"PLAIN\"]\nusers = [\"a \\\"b\\\"\"]\nproxy_from = [\"10.0.0.0/8\"]",
            "[[next_hop]]\n[[next_hop]]\nto = [\"mx:\", \"lmtp+unix:///x y\"]\nusername = \"u\"\npassword_file = \"p\"",
            "[[next_hop]]\nto = [\"smtp://h\"]\ntls = \"required\"\ntls_ca = \"ca\"\ntls_name = \"Hub.example\"",
            "[tls]\nself_signed = true\n[[tls.certificates]]\ncertificate = \"a\"\nkey = \"b\"\n[[tls.certificates]]\n\
             certificate = \"c\"\nkey = \"d\"",
            &extensions,
        ];
        for text in texts {
            let config = read(text);
            let printed = config.effective();
            assert_eq!(read(&printed), config, "{printed}");
            assert_eq!(read(&printed).effective(), printed);
        }
        let embedded = Config::embedded().unwrap();
        assert_eq!(read(&embedded.effective()), embedded);
    }

    #[test]
    fn a_binding_counts_apart_where_its_limit_differs_from_the_servers() {
        let config = read(
            "[limits]\nmax_connections = 10\n[[binding]]\n[[binding]]\naddress = [\"[::1]:25\"]\n\
             [binding.limits]\nmax_connections = 3\nmessage_rate = 600\ntls_session_rate = 7",
        );
        let own: Vec<_> = config
            .bindings
            .iter()
            .map(|b| {
                (
                    b.own_connections,
                    b.own_connections_per_source,
                    b.own_rate,
                    b.own_tls_rate,
                )
            })
            .collect();
        assert_eq!(own, [(false, false, false, false), (true, false, false, true)]);
        assert_eq!(config.bindings[0].limits.max_connections, 10);
        assert_eq!(config.bindings[1].limits.max_connections, 3);
    }
}
