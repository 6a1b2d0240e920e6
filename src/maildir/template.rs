//! The path of a Maildir, with places for the recipient's local-part and domain.
//!
//! Promises: whatever the recipient, an expanded path stays below [`Template::root`]; two recipients share a path only
//! where the template says so (see [`Template::expand`]). Pure; lives on the shard.

use std::path::{Path, PathBuf};

use crate::smtp::path::domain_key;

/// Longest file name that an expansion makes, in octets; Linux takes 255 and a Maildir owner may add a suffix.
const NAME_MOST: usize = 200;

/// A parsed path such as `/mail/{domain}/{local}/Maildir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The components before the first that has a place in it.
    root: PathBuf,
    /// The components from there on.
    names: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Local,
    Domain,
}

impl Template {
    /// Reads a path from the configuration; the error says what is wrong with it, for the one who wrote it.
    pub fn parse(text: &str) -> Result<Template, String> {
        if text.chars().any(char::is_control) {
            return Err("the path of a Maildir may not contain control characters".into());
        }
        let (mut root, mut names) = (PathBuf::new(), Vec::new());
        if text.starts_with('/') {
            root.push("/");
        }
        for component in text.split('/').filter(|component| !matches!(*component, "" | ".")) {
            if component == ".." {
                return Err(format!("write the path of the Maildir without `..`: {text}"));
            }
            let parts = parse_component(component)?;
            match parts.as_slice() {
                [Part::Text(name)] if names.is_empty() => root.push(name),
                _ => names.push(parts),
            }
        }
        if names.is_empty() && root.file_name().is_none() {
            return Err("expected the path of a Maildir, such as \"mail\" or \"/mail/{domain}/{local}\"".into());
        }
        Ok(Template { root, names })
    }

    /// The directory that all expansions lie in (or are, without places): for free disk space and for confinement.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True where each recipient has a Maildir, or at least a file, of its own.
    pub fn per_recipient(&self) -> bool {
        !self.names.is_empty()
    }

    /// The Maildir of a recipient. Local-part and domain become safe as file names: letters, digits and `-_+=.` stay,
    /// all other octets (and a leading `.` or `-`) become `%xx`; nothing becomes a lone `%`; the domain is lower-cased,
    /// an internationalised one goes by its A-labels. So distinct recipients get distinct names as long as what stands
    /// between two places is itself an octet that would be encoded, such as `@`. A name over 200 octets keeps its
    /// first ones and ends in `~` and a hash of the whole.
    pub fn expand(&self, local: &str, domain: &str) -> PathBuf {
        let mut path = self.root.clone();
        for parts in &self.names {
            let mut name = String::new();
            for part in parts {
                match part {
                    Part::Text(text) => name.push_str(text),
                    Part::Local => push_safe(local, &mut name),
                    Part::Domain => push_safe(&domain_key(domain), &mut name),
                }
            }
            shorten(&mut name);
            path.push(name);
        }
        path
    }
}

fn parse_component(component: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = component;
    while !rest.is_empty() {
        let (part, after) = if let Some(after) = rest.strip_prefix("{local}") {
            (Part::Local, after)
        } else if let Some(after) = rest.strip_prefix("{domain}") {
            (Part::Domain, after)
        } else if rest.starts_with(['{', '}']) {
            return Err(format!("expected {{local}} or {{domain}} at `{rest}`"));
        } else {
            let (text, after) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
            (Part::Text(text.to_owned()), after)
        };
        let side_by_side = |last: &Part| !matches!(last, Part::Text(_)) && !matches!(part, Part::Text(_));
        if parts.last().is_some_and(side_by_side) {
            return Err(format!(
                "put something between the two places of `{component}`, such as `@`"
            ));
        }
        parts.push(part);
        rest = after;
    }
    Ok(parts)
}

fn push_safe(text: &str, name: &mut String) {
    if text.is_empty() {
        name.push('%');
    }
    for (i, octet) in text.bytes().enumerate() {
        let safe = octet.is_ascii_alphanumeric() || b"_+=".contains(&octet) || (i > 0 && b"-.".contains(&octet));
        if safe {
            name.push(char::from(octet));
        } else {
            name.push('%');
            name.extend([octet >> 4, octet & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        }
    }
}

/// Keeps a name within [`NAME_MOST`]. `~` is never the outcome of [`push_safe`], so a shortened name is no other's.
/// 128 bits keep two long names apart by chance. They need not stand up to an attacker: who makes two collide can send
/// to a mailbox that he could have sent to anyway.
fn shorten(name: &mut String) {
    if name.len() <= NAME_MOST {
        return;
    }
    let hash = format!("~{:032x}", fnv1a(name.as_bytes()));
    name.truncate(name.floor_char_boundary(NAME_MOST - hash.len()));
    name.push_str(&hash);
}

/// FNV-1a with 128 bits; offset and prime from <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn fnv1a(octets: &[u8]) -> u128 {
    octets
        .iter()
        .fold(0x6c62272e07bb014262b821756295c58d, |hash: u128, octet| {
            (hash ^ u128::from(*octet)).wrapping_mul(0x0000000001000000000000000000013b)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    fn expanded(template: &str, local: &str, domain: &str) -> String {
        Template::parse(template)
            .unwrap()
            .expand(local, domain)
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_plain_recipient_reads_as_it_is() {
        assert_eq!(
            expanded("/mail/{domain}/{local}/Maildir", "a.b+c", "Example.COM"),
            "/mail/example.com/a.b+c/Maildir"
        );
        assert_eq!(
            expanded("mail/{local}@{domain}", "bob", "bücher.example"),
            "mail/bob@xn--bcher-kva.example"
        );
        assert_eq!(expanded("./mail//", "bob", "x"), "mail");
    }

    #[test]
    fn an_odd_recipient_is_encoded() {
        assert_eq!(expanded("{local}", "..", "x"), "%2e.");
        assert_eq!(expanded("{local}", "-rf /\0", "x"), "%2drf%20%2f%00");
        assert_eq!(expanded("{local}/{domain}", "", ""), "%/%");
        assert_eq!(expanded("{local}", "%", "x"), "%25");
        assert_eq!(expanded("{domain}", "x", "[IPv6:::1]"), "%5bipv6%3a%3a%3a1%5d");
    }

    #[test]
    fn a_template_that_could_leave_its_place_is_refused() {
        for text in [
            "",
            "/",
            ".",
            "a/../b",
            "..",
            "{user}",
            "a{",
            "}",
            "a\0b",
            "a\nb",
            "{local}{domain}",
        ] {
            assert!(Template::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_root_is_what_all_recipients_share() {
        let template = Template::parse("/mail/{domain}/{local}/Maildir").unwrap();
        assert!(template.per_recipient());
        assert_eq!(template.root(), Path::new("/mail"));
        let template = Template::parse("var/mail").unwrap();
        assert!(!template.per_recipient());
        assert_eq!(template.root(), Path::new("var/mail"));
    }

    proptest! {
        #[test]
        fn an_expanded_path_stays_below_the_root(
            local in prop_oneof![any::<String>(), "[./\\\\%~@\0 a-]{0,8}", "[é./]{60,300}"],
            domain in prop_oneof![any::<String>(), "[./~\0A-]{0,8}", "[a./]{200,300}"],
            template in prop_oneof![
                Just("/mail/{domain}/{local}/Maildir"), Just("mail/{local}@{domain}"), Just("{local}"), Just("m/x{domain}.d/.{local}"),
            ],
        ) {
            let template = Template::parse(template).unwrap();
            let path = template.expand(&local, &domain);
            let below = path.strip_prefix(template.root()).unwrap();
            prop_assert_eq!(below.components().count(), template.names.len());
            for component in below.components() {
                let Component::Normal(name) = component else { panic!("{path:?}") };
                let name = name.to_str().unwrap();
                prop_assert!(name.len() <= NAME_MOST && name.bytes().all(|octet| octet.is_ascii_graphic()), "{}", name);
            }
            prop_assert_eq!(path.to_str().unwrap().matches('/').count() - template.root().to_str().unwrap().matches('/').count(),
                template.names.len() - usize::from(template.root().as_os_str().is_empty()));
        }

        #[test]
        fn distinct_recipients_have_distinct_maildirs(
            one in ("[.%~@A-b-]{0,4}|[a.]{190,210}", "[.%~@a-b-]{0,4}|[a.]{190,210}"),
            other in ("[.%~@A-b-]{0,4}|[a.]{190,210}", "[.%~@a-b-]{0,4}|[a.]{190,210}"),
        ) {
            for template in ["{domain}/{local}", "{local}@{domain}"] {
                let template = Template::parse(template).unwrap();
                let same = one == other;
                prop_assert_eq!(template.expand(&one.0, &one.1) == template.expand(&other.0, &other.1), same);
            }
        }
    }
}
