//! What a valid configuration should not be told without a word: what is probably not meant, and what this version
//! cannot do yet.
//!
//! Promises: pure; a sentence each, on one line.

use super::{Binding, BindingTls, Config, Destination, Mechanism, Route};

/// What is valid but probably not meant.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    if config.bindings.is_empty() {
        all.push("there is no [[binding]]: nothing listens".to_owned());
    }
    for binding in &config.bindings {
        let said = binding_warnings(config, binding);
        all.extend(
            said.into_iter()
                .map(|said| format!("binding \"{}\": {said}", binding.name)),
        );
    }
    if config.domains.accepted.is_empty() {
        all.push("[domains] accepted is empty: unauthenticated clients can send to nobody".to_owned());
    }
    all.extend(route_warnings(config));
    if config.queue.delay_notice >= config.queue.expire {
        all.push("[queue] delay_notice comes no earlier than expire: nobody will hear of a delay".to_owned());
    }
    all
}

fn binding_warnings(config: &Config, binding: &Binding) -> Vec<&'static str> {
    let off = |keyword: &str| binding.extensions_off.iter().any(|off| off == keyword);
    let plain_only = binding
        .auth
        .iter()
        .all(|mechanism| matches!(mechanism, Mechanism::Login | Mechanism::Plain));
    let mut all = Vec::new();
    let mut say = |holds: bool, said: &'static str| {
        if holds {
            all.push(said);
        }
    };
    say(binding.clients.is_empty(), "clients is empty: nobody may connect");
    say(
        binding.proxy_protocol && binding.proxy_from.is_empty(),
        "proxy_protocol without proxy_from: no header is believed, every client counts as itself",
    );
    say(
        !binding.proxy_protocol && !binding.proxy_from.is_empty(),
        "proxy_from without proxy_protocol = true has no effect",
    );
    say(
        binding.require_auth && binding.auth.is_empty(),
        "require_auth without auth: nobody can send",
    );
    say(
        !binding.auth.is_empty() && config.auth.as_ref().is_none_or(|auth| auth.users.is_none()),
        "auth without users in [auth]: nobody can authenticate",
    );
    say(
        !binding.auth.is_empty() && plain_only && binding.auth_requires_tls && binding.tls == BindingTls::Off,
        "auth has only mechanisms that wait for TLS (auth_requires_tls), and tls is off: none is offered",
    );
    say(
        off("CHUNKING") && !off("BINARYMIME"),
        "BINARYMIME needs CHUNKING (RFC 3030), which is in extensions_off",
    );
    say(
        open_relay(config, binding),
        "takes mail for any domain from anyone and sends it on: an open relay",
    );
    all
}

/// Strangers may send through us to strangers.
fn open_relay(config: &Config, binding: &Binding) -> bool {
    let sends_on = |to: &Destination| !matches!(to, Destination::Maildir(_) | Destination::Discard);
    let public = binding.addresses.iter().any(|address| !address.ip().is_loopback());
    let anyone = binding.clients.iter().any(|range| range.to_string().ends_with("/0"));
    public
        && anyone
        && !binding.require_auth
        && config.domains.accepted.iter().any(|domain| domain == "*")
        && config
            .routes
            .iter()
            .filter(|route| takes(route, "*"))
            .any(|route| route.to.iter().any(sends_on))
}

fn route_warnings(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    for domain in &config.domains.accepted {
        if !config.routes.iter().any(|route| takes(route, domain)) {
            let which = if domain == "*" {
                "any domain".to_owned()
            } else {
                domain.clone()
            };
            all.push(format!(
                "[domains] accepts {which}, but no [[next_hop]] has it among its domains"
            ));
        }
    }
    if let Some(last) = config.routes.iter().position(|route| takes(route, "*")) {
        for unreachable in last + 2..=config.routes.len() {
            all.push(format!(
                "[[next_hop]] number {unreachable} is never reached: number {} takes every domain",
                last + 1
            ));
        }
    }
    all
}

fn takes(route: &Route, domain: &str) -> bool {
    route
        .domains
        .iter()
        .any(|of_route| of_route == "*" || of_route == domain)
}

/// What `serve` cannot do yet.
pub(super) fn unsupported(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    if config.fleet.is_some() {
        all.push("[fleet]: this version does not share its limits with other edges yet".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        Config::parse(text, "test").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_embedded_default_needs_no_advice_and_can_run() {
        let embedded = Config::embedded().unwrap();
        assert_eq!(embedded.warnings(), Vec::<String>::new());
        assert_eq!(embedded.unsupported(), Vec::<String>::new());
    }

    #[test]
    fn what_is_probably_not_meant_is_said() {
        let one = "[[binding]]\n";
        let accepted = "[domains]\naccepted = [\"*\"]\n";
        for (text, word) in [
            ("".to_owned(), "nothing listens"),
            (one.to_owned(), "can send to nobody"),
            (format!("{one}clients = []"), "nobody may connect"),
            (format!("{one}proxy_protocol = true"), "proxy_from"),
            (format!("{one}proxy_from = [\"::1\"]"), "no effect"),
            (format!("{one}require_auth = true"), "nobody can send"),
            (format!("{one}auth = [\"NTLM\"]"), "nobody can authenticate"),
            (
                format!("{one}auth = [\"LOGIN\"]\n[auth]\nusers = \"u\""),
                "none is offered",
            ),
            (format!("{one}extensions_off = [\"CHUNKING\"]"), "BINARYMIME"),
            (
                format!("{accepted}{one}address = [\"0.0.0.0:25\"]\n[[next_hop]]\nto = [\"mx:\"]"),
                "open relay",
            ),
            (
                "[domains]\naccepted = [\"a.example\"]\n[[next_hop]]\ndomains = [\"b.example\"]".to_owned(),
                "accepts a.example",
            ),
            ("[[next_hop]]\n[[next_hop]]".to_owned(), "number 2 is never reached"),
            ("[queue]\nexpire = \"1h\"".to_owned(), "delay_notice"),
        ] {
            let warnings = read(&text).warnings();
            assert!(
                warnings.iter().any(|warning| warning.contains(word)),
                "{text}: {warnings:?}"
            );
        }
    }

    #[test]
    fn what_serve_cannot_do_yet_is_said_by_name() {
        let auth = "[auth]\nusers = \"u\"\n[[binding]]\nauth = [\"NTLM\"]\nrequire_auth = true\nusers = [\"a\"]";
        assert_eq!(read(auth).unsupported(), Vec::<String>::new());
        let unsupported = read("[fleet]\nredis = \"redis://h\"").unsupported();
        assert!(
            unsupported.len() == 1 && unsupported[0].contains("[fleet]"),
            "{unsupported:?}"
        );
    }
}
