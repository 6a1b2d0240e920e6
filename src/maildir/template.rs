//! The path of a Maildir, with places for the recipient's local-part and domain.
//!
//! Promises: whatever the recipient, an expanded path stays below [`Template::root`]; two recipients share a path only
//! where the template says so (see [`Template::expand`]). Pure; lives on the shard.

use std::path::{Path, PathBuf};

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
                    Part::Domain => push_safe(&canonical(domain), &mut name),
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

/// One spelling for one domain (RFC 5321 section 2.4, RFC 5890 section 2.3.2.1).
fn canonical(domain: &str) -> String {
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase())
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
/// 128 bits keep two long names apart by chance; they need not stand up to an attacker, since a local-part (at most 64
/// octets, RFC 5321 section 4.5.3.1.1) is never long enough and the domain is one that the operator accepts.
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
