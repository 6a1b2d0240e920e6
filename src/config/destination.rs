//! The URLs of `next_hop.to`.
//!
//! Promises: what is printed reads back as the same destination; no name is looked up here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::{Destination, Host, value};

const EXPECTED: &str = "one of \"smtp://HOST:PORT\", \"smtps://HOST:PORT\", \"lmtp://HOST:PORT\", \"lmtp+unix:///PATH\", \
                        \"mx:\", \"maildir:PATH\", \"discard:\"";

/// Ports where the URL names none: RFC 5321 section 4.5.4.2, RFC 8314 section 7.3; LMTP has none of its own (RFC 2033
/// section 5 only forbids 25), 24 is what Dovecot and Postfix use.
const SMTP: u16 = 25;
const SMTPS: u16 = 465;
const LMTP: u16 = 24;

impl Destination {
    /// Of a URL; `Err` says what was expected.
    pub(super) fn parse(url: &str) -> Result<Destination, String> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(EXPECTED.to_owned());
        };
        match scheme {
            "smtp" => host_port(rest, SMTP).map(|(host, port)| Destination::Smtp(host, port)),
            "smtps" => host_port(rest, SMTPS).map(|(host, port)| Destination::Smtps(host, port)),
            "lmtp" => host_port(rest, LMTP).map(|(host, port)| Destination::Lmtp(host, port)),
            "lmtp+unix" => match rest.strip_prefix("//") {
                Some(path) if path.starts_with('/') && path.len() > 1 && !path.contains('\0') => {
                    Ok(Destination::LmtpUnix(PathBuf::from(path)))
                }
                _ => Err("an absolute path after three slashes: \"lmtp+unix:///run/lmtp\"".to_owned()),
            },
            "mx" if rest.is_empty() => Ok(Destination::Mx),
            "mx" => Err("\"mx:\" alone: it asks the DNS for the recipient's own servers".to_owned()),
            "discard" if rest.is_empty() => Ok(Destination::Discard),
            "discard" => Err("\"discard:\" alone".to_owned()),
            "maildir" => maildir(rest),
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

/// `//HOST[:PORT]`, and nothing after it.
fn host_port(rest: &str, port: u16) -> Result<(Host, u16), String> {
    let expected = |why: &str| format!("a host and a port such as \"//10.0.0.5:25\", \"//[2001:db8::5]:25\"{why}");
    let Some(authority) = rest.strip_prefix("//") else {
        return Err(expected(", after two slashes"));
    };
    if authority.contains('@') {
        return Err(expected("; names for AUTH go into `username` and `password_file`"));
    }
    if authority.contains('/') {
        return Err(expected(" without a path"));
    }
    let (host, digits) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((inner, after))) => {
            let address: Ipv6Addr = inner.parse().map_err(|_| expected(""))?;
            let digits = if after.is_empty() {
                None
            } else {
                Some(after.strip_prefix(':').ok_or_else(|| expected(""))?)
            };
            (Host::Address(IpAddr::V6(address)), digits)
        }
        Some(None) => return Err(expected("")),
        None => {
            let (name, digits) = match authority.split_once(':') {
                Some((name, digits)) => (name, Some(digits)),
                None => (authority, None),
            };
            let host = match name.parse::<IpAddr>() {
                Ok(address) => Host::Address(address),
                Err(_) => Host::Name(value::domain(name).map_err(|_| expected(""))?),
            };
            (host, digits)
        }
    };
    match digits {
        None => Ok((host, port)),
        Some(digits) if !digits.starts_with('+') => match digits.parse::<u16>() {
            Ok(port) if port > 0 => Ok((host, port)),
            _ => Err(expected("; ports go from 1 to 65535")),
        },
        Some(_) => Err(expected("; ports go from 1 to 65535")),
    }
}

fn maildir(template: &str) -> Result<Destination, String> {
    if template.is_empty() {
        return Err("a path: \"maildir:PATH\"".to_owned());
    }
    let plain = template.replace("{local}", "").replace("{domain}", "");
    if plain.contains(['{', '}', '\0']) {
        return Err("a path with no braces but {local} and {domain}".to_owned());
    }
    Ok(Destination::Maildir(template.to_owned()))
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Maildir(template) => write!(f, "maildir:{template}"),
            Destination::Discard => f.write_str("discard:"),
            Destination::Smtp(host, port) => write!(f, "smtp://{host}:{port}"),
            Destination::Smtps(host, port) => write!(f, "smtps://{host}:{port}"),
            Destination::Lmtp(host, port) => write!(f, "lmtp://{host}:{port}"),
            Destination::LmtpUnix(path) => write!(f, "lmtp+unix://{}", path.display()),
            Destination::Mx => f.write_str("mx:"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_url_reads_back_as_it_was_printed() {
        for (url, printed) in [
            ("smtp://10.0.0.5:2525", "smtp://10.0.0.5:2525"),
            ("smtp://Hub.Example", "smtp://hub.example:25"),
            ("smtps://[2001:db8::5]", "smtps://[2001:db8::5]:465"),
            ("lmtp://[::1]:2400", "lmtp://[::1]:2400"),
            ("lmtp://store.example", "lmtp://store.example:24"),
            ("lmtp+unix:///run/lmtp", "lmtp+unix:///run/lmtp"),
            ("mx:", "mx:"),
            ("discard:", "discard:"),
            ("maildir:var/mail/{domain}/{local}", "maildir:var/mail/{domain}/{local}"),
        ] {
            let destination = Destination::parse(url).unwrap();
            assert_eq!(destination.to_string(), printed);
            assert_eq!(Destination::parse(printed), Ok(destination));
        }
    }

    #[test]
    fn a_url_that_leads_nowhere_is_refused() {
        for url in [
            "",
            "smtp",
            "10.0.0.5",
            "10.0.0.5:25",
            "http://x",
            "SMTP://x",
            "smtp:x",
            "smtp://",
            "smtp://x:",
            "smtp://x:0",
            "smtp://x:+25",
            "smtp://x:99999",
            "smtp://x/",
            "smtp://u:p@x",
            "smtp://[::1",
            "smtp://[::1]25",
            "smtp://::1",
            "smtp://[10.0.0.5]",
            "smtp://a b",
            "lmtp+unix://run",
            "lmtp+unix:/run",
            "lmtp+unix:///",
            "mx:example.com",
            "discard:x",
            "maildir:",
            "maildir:{user}",
            "maildir:a{",
            "maildir:a}b",
        ] {
            assert!(Destination::parse(url).is_err(), "{url}");
        }
    }
}
