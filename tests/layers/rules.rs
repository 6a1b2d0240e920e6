//! The rules, one function each.
//!
//! Promises: pure; a violation is `src/FILE:LINE: what is wrong, and why or what instead`.

use super::source::{Source, item_length};

/// A longer file has more than one job.
pub const FILE_LINES: usize = 500;
/// A longer function has more than one job.
pub const FUNCTION_LINES: usize = 90;

/// What each module may use of the crate, besides itself. Lowest first, as in `lib.rs`.
const LAYERS: &[(&str, &[&str])] = &[
    ("smtp", &[]),
    ("log", &["smtp"]),
    ("lookup", &["smtp"]),
    ("metrics", &["smtp"]),
    ("timer", &["smtp"]),
    ("tls", &[]),
    ("policy", &["smtp", "metrics"]),
    ("maildir", &["smtp"]),
    ("spool", &["smtp"]),
    ("relay", &["smtp", "spool"]),
    ("host", &[]),
    ("control", &["smtp", "log", "lookup", "metrics", "policy"]),
    (
        "shard",
        &[
            "smtp", "log", "lookup", "metrics", "timer", "tls", "policy", "maildir", "spool", "relay",
        ],
    ),
    ("config", &["smtp", "policy"]),
    (
        "server",
        &[
            "smtp", "log", "lookup", "metrics", "timer", "tls", "policy", "maildir", "spool", "relay", "control",
            "shard", "config", "host",
        ],
    ),
    ("cli", &["lookup", "policy", "config", "server", "host"]),
];

/// Crates that stay in one place: the runtimes, and what comes with them.
const KEPT: &[(&str, &str)] = &[
    ("glommio", "shard"),
    ("tokio", "control"),
    ("hickory_resolver", "control"),
    ("axum", "control"),
    ("clap", "cli"),
    ("toml", "config"),
    ("serde", "lookup"),
    ("serde_json", "lookup"),
    ("rcgen", "tls"),
];

const TABLE: &str = "smtp/oxsmtp.rs";
/// Where a clock may be read: the shards in one file, other threads in their own modules.
const CLOCKS: &[&str] = &[
    "shard/clock.rs",
    "control/",
    "server/",
    "log.rs",
    "log/",
    "maildir/",
    "host/sync.rs",
];
const CLOCK_READS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    ".elapsed(",
];
/// Names that say nothing of what is in the file.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "core", "manager", "handler", "helpers", "misc",
];

/// Every rule on every file.
pub fn check(sources: &[Source]) -> Vec<String> {
    let mut found = undeclared(sources);
    for source in sources {
        // A file of tests, such as `scanner/tests.rs`, or one of several, such as `client/tests/opening.rs`.
        if source.path.ends_with("/tests.rs") || source.path.contains("/tests/") {
            continue;
        }
        for rule in [
            imports, runtimes, unsafety, literals, clocks, left_out, names, lengths, opening,
        ] {
            found.extend(rule(source).into_iter().map(|said| format!("src/{said}")));
        }
    }
    found
}

/// Who may import whom.
fn imports(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(own) = module.first().copied() else {
        return Vec::new(); // lib.rs and main.rs
    };
    let Some((_, may)) = LAYERS.iter().find(|(name, _)| *name == own) else {
        return vec![place(
            source,
            1,
            &format!("`{own}` has no layer: give it one in tests/layers/rules.rs"),
        )];
    };
    let mut found = Vec::new();
    for (line, path) in paths(source, &module) {
        let first = path.first().map_or("", String::as_str);
        if LAYERS.iter().any(|(name, _)| *name == first) && first != own && !may.contains(&first) {
            found.push(place(source, line, &format!("{own} may not use {first}")));
        }
        if own == "control" && first == "smtp" && path.get(1).is_some_and(|second| second == "session") {
            found.push(place(source, line, "control may not use smtp::session"));
        }
    }
    found
}

/// Every path of the crate that a file names, from the root of the crate, with its line.
fn paths(source: &Source, module: &[&str]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (at, word) in words(&source.shipped) {
        let after = &source.shipped[at + word.len()..];
        if !after.starts_with("::") || source.shipped[..at].ends_with("::") {
            continue;
        }
        let mut root: Vec<String> = module.iter().map(|part| part.to_string()).collect();
        match word {
            "crate" => root.clear(),
            "super" => drop(root.pop()),
            _ => continue,
        }
        let line = line_of(&source.shipped, at);
        for tail in expand(&after[2..]) {
            let mut path = root.clone();
            for part in tail {
                match part.as_str() {
                    "super" => drop(path.pop()),
                    "self" => {}
                    _ => path.push(part),
                }
            }
            found.push((line, path));
        }
    }
    found
}

/// The paths behind `crate::`: one, or each of a group in braces. Two parts deep is all that a rule asks for, after any
/// `super`.
fn expand(code: &str) -> Vec<Vec<String>> {
    if let Some(group) = code.strip_prefix('{') {
        let inside = &group[..item_length(code).saturating_sub(2)];
        let (mut depth, mut start, mut paths) = (0_usize, 0, Vec::new());
        for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    paths.extend(expand(inside[start..at].trim_start()));
                    start = at + 1;
                }
                _ => {}
            }
        }
        return paths;
    }
    let word: String = code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() {
        return Vec::new();
    }
    match code[word.len()..].strip_prefix("::").map(expand) {
        Some(tails) if !tails.is_empty() => tails
            .into_iter()
            .map(|tail| std::iter::once(word.clone()).chain(tail).collect())
            .collect(),
        _ => vec![vec![word]],
    }
}

/// Both runtimes and the libraries that only one module needs.
fn runtimes(source: &Source) -> Vec<String> {
    let own = source.module().first().copied().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for (at, word) in words(&source.shipped) {
        for (kept, home) in KEPT.iter().filter(|(kept, home)| *kept == word && *home != own) {
            let follows = &source.shipped[at + word.len()..];
            // `toml` may be a word of our own; a path or an import is the crate.
            let before = source.shipped[..at].trim_end();
            let named = follows.starts_with("::") && !before.ends_with("::") || before.ends_with("use");
            if named {
                let said = format!("{kept} appears in src/{home} only");
                found.push(place(source, line_of(&source.shipped, at), &said));
            }
        }
    }
    found
}

fn unsafety(source: &Source) -> Vec<String> {
    words(&source.code)
        .filter(|(_, word)| *word == "unsafe")
        .map(|(at, _)| place(source, line_of(&source.code, at), "unsafe appears nowhere"))
        .collect()
}

/// A reply is a row of the table.
fn literals(source: &Source) -> Vec<String> {
    if source.path == TABLE {
        return Vec::new();
    }
    let is_reply = |text: &str| {
        let b = text.as_bytes();
        b.len() > 3
            && (b'2'..=b'5').contains(&b[0])
            && (b'0'..=b'5').contains(&b[1])
            && b[2].is_ascii_digit()
            && matches!(b[3], b' ' | b'-')
    };
    source
        .literals
        .iter()
        .filter(|literal| is_reply(&literal.text))
        .map(|literal| {
            place(
                source,
                literal.line,
                &format!("a reply literal belongs into src/{TABLE}: {:?}", literal.text),
            )
        })
        .collect()
}

fn clocks(source: &Source) -> Vec<String> {
    if CLOCKS.iter().any(|home| source.path.starts_with(home)) {
        return Vec::new();
    }
    lines_with(&source.shipped, CLOCK_READS)
        .map(|(line, read)| {
            place(
                source,
                line,
                &format!("{read} reads a clock: take `now` as an argument"),
            )
        })
        .collect()
}

/// Words of work that was put off and of tests that do not run; each in two parts, so that whoever searches the tree for them
/// finds none here.
pub const LEFT_OUT: [&str; 3] = [
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("#[", "ignore"),
];

/// Work that was put off, and tests that do not run.
pub fn left_out(source: &Source) -> Vec<String> {
    lines_with(&source.code, &LEFT_OUT)
        .map(|(line, what)| place(source, line, &format!("{what} is no end of the work")))
        .collect()
}

/// Names that say what they name.
fn names(source: &Source) -> Vec<String> {
    let module = source.module().last().copied().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    if EMPTY_NAMES.contains(&module.as_str()) {
        found.push(place(source, 1, &format!("`{module}` says nothing of what is in it")));
    }
    let getter = lines_with(&source.shipped, &["fn get_"]);
    found.extend(getter.map(|(line, _)| place(source, line, "get_ says nothing: name what comes back")));
    found
}

/// Files and functions of one job.
fn lengths(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        found.push(place(source, lines, &format!("{lines} lines, more than {FILE_LINES}")));
    }
    for (at, _) in words(&source.shipped).filter(|(_, word)| *word == "fn") {
        let lines = source.shipped[at..][..item_length(&source.shipped[at..])]
            .lines()
            .count();
        if lines > FUNCTION_LINES {
            let said = format!("a function of {lines} lines, more than {FUNCTION_LINES}");
            found.push(place(source, line_of(&source.shipped, at), &said));
        }
    }
    found
}

/// A file says first what it is.
fn opening(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![place(
        source,
        1,
        "a file opens with `//!`: what it is, what it promises, where it lives",
    )]
}

/// A file that no module declares is not compiled, and nobody sees it rot.
fn undeclared(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|s| s.path != "lib.rs" && s.path != "main.rs") {
        let mut parents = source.module();
        let name = parents.pop().unwrap_or_default();
        let declares = |parent: &&Source| {
            parent.module() == parents
                && parent.path != "main.rs"
                && words(&parent.code).any(|(at, word)| {
                    let after = &parent.code[at..];
                    word == "mod"
                        && after[3..]
                            .trim_start()
                            .strip_prefix(name)
                            .is_some_and(|rest| rest.starts_with(';'))
                })
        };
        if !sources.iter().any(|parent| declares(&parent)) {
            found.push(format!("src/{}:1: no module declares it", source.path));
        }
    }
    found
}

/// The words of code, each with its place.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |n| start + n);
        at = end;
        Some((start, &code[start..end]))
    })
}

/// The lines with one of some texts in them.
fn lines_with<'a>(code: &'a str, texts: &'a [&'static str]) -> impl Iterator<Item = (usize, &'static str)> + 'a {
    code.lines().enumerate().flat_map(move |(i, line)| {
        texts
            .iter()
            .filter(move |text| line.contains(**text))
            .map(move |text| (i + 1, *text))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

fn place(source: &Source, line: usize, said: &str) -> String {
    format!("{}:{line}: {said}", source.path)
}
