//! A walk over parsed TOML that collects problems instead of stopping at the first.
//!
//! Promises: a key that nobody asked for is a problem; a value that cannot be read is a problem at its own place, and
//! the reader goes on with the default. The code that reads a section is thereby its only description. (serde would stop
//! at the first mistake, and its errors name neither the key nor, for our own types, the place.)

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem, Source, nearest, quoted, shortened};
use super::value;

/// The keys of each section; the section as its header has it.
type Known = BTreeMap<String, Vec<&'static str>>;

/// Problems noted; each costs a look for its line, and nobody reads so many.
const PROBLEMS_MAX: usize = 100;

/// What was found wrong in one file, and which keys were asked for.
#[derive(Debug)]
pub(super) struct Problems<'s> {
    source: Source<'s>,
    found: RefCell<Vec<Problem>>,
    known: RefCell<Known>,
    /// Tables to search for unknown keys once every key has been asked for.
    walked: RefCell<Vec<(&'s DeTable<'s>, String)>>,
}

impl<'s> Problems<'s> {
    /// None yet.
    pub fn new(source: Source<'s>) -> Problems<'s> {
        Problems {
            source,
            found: RefCell::default(),
            known: RefCell::default(),
            walked: RefCell::default(),
        }
    }

    /// Ends the walk: the keys that nobody asked for are problems too.
    pub fn finish(&self) -> Result<(), ConfigError> {
        let known = self.known.take();
        for (table, section) in self.walked.take() {
            let here = known.get(&section).map(Vec::as_slice).unwrap_or_default();
            for key in table.keys().filter(|key| !here.contains(&key.as_ref().as_ref())) {
                if self.found.borrow().len() == PROBLEMS_MAX {
                    break;
                }
                self.unknown(&known, here, &section, key);
            }
        }
        match self.found.take() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(ConfigError::new(problems)),
        }
    }

    fn unknown(&self, known: &Known, here: &[&'static str], section: &str, key: &Spanned<Cow<'_, str>>) {
        let name: &str = key.as_ref();
        let elsewhere = known
            .iter()
            .find(|(_, keys)| keys.contains(&name))
            .map(|(section, _)| section.as_str());
        let expected = match (nearest(name, here.iter().copied()), elsewhere) {
            (Some(near), _) => format!("a known key; did you mean `{near}`?"),
            (None, Some("")) => "a known key; it belongs at the top, above every section".to_owned(),
            (None, Some(other)) => format!("a known key; it belongs into `{other}`"),
            (None, None) => {
                let mut here = here.to_vec();
                here.sort_unstable();
                format!("one of {}", here.join(", "))
            }
        };
        let path = join(section, &shortened(name));
        self.add(key.span(), path, format!("found an unknown key, expected {expected}"));
    }

    fn learn(&self, section: &str, key: &'static str) {
        let mut known = self.known.borrow_mut();
        match known.get_mut(section) {
            Some(keys) if keys.contains(&key) => {}
            Some(keys) => keys.push(key),
            None => drop(known.insert(section.to_owned(), vec![key])),
        }
    }

    fn add(&self, span: Range<usize>, key: String, said: String) {
        let mut found = self.found.borrow_mut();
        if found.len() < PROBLEMS_MAX {
            found.push(self.source.problem(span, key, said));
        }
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// One table, or the place where it could stand.
#[derive(Debug)]
pub(super) struct Section<'a> {
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
    path: String,
    problems: &'a Problems<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub fn root(problems: &'a Problems<'a>, table: &'a DeTable<'a>) -> Section<'a> {
        problems.walked.borrow_mut().push((table, String::new()));
        Section {
            table: Some(table),
            span: None,
            path: String::new(),
            problems,
        }
    }

    /// A section that is absent: its keys become known, its values are the defaults.
    fn absent(problems: &'a Problems<'a>, path: String) -> Section<'a> {
        Section {
            table: None,
            span: None,
            path,
            problems,
        }
    }

    /// A section from its value; a problem where that is no table.
    fn of(entry: &Entry<'a>) -> Option<Section<'a>> {
        let DeValue::Table(table) = entry.value.as_ref() else {
            return None;
        };
        entry.problems.walked.borrow_mut().push((table, entry.path.clone()));
        Some(Section {
            table: Some(table),
            span: Some(entry.value.span()),
            path: entry.path.clone(),
            problems: entry.problems,
        })
    }

    /// Whether it stands in the file.
    pub fn present(&self) -> bool {
        self.table.is_some()
    }

    /// Notes that a section which stands in the file lacks something.
    pub fn wrong<T>(&self, found: impl Display, expected: impl Display) -> Option<T> {
        if let Some(span) = self.span.clone() {
            self.problems
                .add(span, self.path.clone(), format!("found {found}, expected {expected}"));
        }
        None
    }

    /// The value of a key, where there is one.
    pub fn entry(&self, key: &'static str) -> Option<Entry<'a>> {
        self.problems.learn(&self.path, key);
        let value = self.table?.get(key)?;
        Some(Entry {
            path: join(&self.path, key),
            value,
            problems: self.problems,
        })
    }

    /// The value of a key as `read` understands it; none where the key is absent or wrong.
    pub fn optional<T>(&self, key: &'static str, read: impl FnOnce(&Entry<'a>) -> Option<T>) -> Option<T> {
        self.entry(key).and_then(|entry| read(&entry))
    }

    /// The same with a default.
    pub fn value<T>(&self, key: &'static str, default: T, read: impl FnOnce(&Entry<'a>) -> Option<T>) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// The section `[key]` below this one, present or not.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        self.optional(key, |entry| {
            Section::of(entry).or_else(|| entry.wrong(format!("a section `[{}]`", entry.path)))
        })
        .unwrap_or_else(|| Section::absent(self.problems, join(&self.path, key)))
    }

    /// The sections `[[key]]`, each read by `read`, which is told its position.
    pub fn sections<T>(&self, key: &'static str, mut read: impl FnMut(usize, &Section<'a>) -> T) -> Vec<T> {
        let path = join(&self.path, key);
        // Read once from nothing, so that its keys are known even where no such section stands in the file.
        read(0, &Section::absent(self.problems, path.clone()));
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let DeValue::Array(tables) = entry.value.as_ref() else {
            let _: Option<()> = entry.wrong(format!("sections `[[{path}]]`, with two brackets"));
            return Vec::new();
        };
        let element = |value| Entry {
            path: path.clone(),
            value,
            problems: self.problems,
        };
        let section = |value| {
            let entry = element(value);
            Section::of(&entry).or_else(|| entry.wrong(format!("a section `[[{path}]]`")))
        };
        tables
            .iter()
            .filter_map(section)
            .enumerate()
            .map(|(i, section)| read(i, &section))
            .collect()
    }
}

/// One value in its place.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    path: String,
    value: &'a Spanned<DeValue<'a>>,
    problems: &'a Problems<'a>,
}

impl<'a> Entry<'a> {
    /// Notes that the value is not what was expected.
    pub fn wrong<T>(&self, expected: impl Display) -> Option<T> {
        let found = match self.value.as_ref() {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(integer) => format!("the integer {integer}"),
            DeValue::Float(float) => format!("the number {float}"),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(time) => format!("the date {time}"),
            DeValue::Array(array) if array.is_empty() => "an empty list".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a section".to_owned(),
        };
        self.contradiction(found, expected)
    }

    /// Notes that the value does not fit other values.
    pub fn contradiction<T>(&self, found: impl Display, expected: impl Display) -> Option<T> {
        self.problems.add(
            self.value.span(),
            self.path.clone(),
            format!("found {found}, expected {expected}"),
        );
        None
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        self.value.as_ref().as_bool().or_else(|| self.wrong("true or false"))
    }

    /// A string as `read` understands it.
    pub fn text<T>(&self, what: &str, read: impl FnOnce(&'a str) -> Result<T, String>) -> Option<T> {
        match self.value.as_ref() {
            DeValue::String(text) => read(text).or_else(|expected| self.wrong(expected).ok_or(())).ok(),
            _ => self.wrong(format!("a string: {what}")),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let all = match all.as_slice() {
            [one, other] => format!("{one} or {other}"),
            _ => format!("one of {}", all.join(", ")),
        };
        self.text(&all, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, meaning)| *meaning)
                .ok_or(all.clone())
        })
    }

    /// A path; relative to the working directory.
    pub fn path(&self) -> Option<PathBuf> {
        self.text("a path", |text| match text {
            "" => Err("a path, not an empty string".to_owned()),
            _ if text.contains('\0') => Err("a path without NUL".to_owned()),
            _ => Ok(PathBuf::from(text)),
        })
    }

    /// A whole number.
    pub fn count(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        self.integer()
            .filter(|count| range.contains(count))
            .or_else(|| self.wrong(expected()))
    }

    /// A number of octets: an integer, or a string with a unit.
    pub fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let example = "an integer in bytes or a string such as \"64KiB\", \"10MiB\"";
        let octets = match self.value.as_ref() {
            DeValue::String(text) => match value::size(text) {
                Ok(octets) => octets,
                Err(expected) => return self.wrong(expected),
            },
            DeValue::Integer(_) => match self.integer() {
                Some(octets) => octets,
                None => return self.wrong(format!("a size from {} to {}", range.start(), range.end())),
            },
            _ => return self.wrong(format!("a size: {example}")),
        };
        let expected = || {
            let print = value::print_size;
            format!(
                "a size from {} to {}: {example}",
                print(*range.start()),
                print(*range.end())
            )
        };
        Some(octets)
            .filter(|octets| range.contains(octets))
            .or_else(|| self.wrong(expected()))
    }

    /// A length of time: a string with units.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let expected = || {
            let print = value::print_duration;
            format!("a duration from {} to {}", print(*range.start()), print(*range.end()))
        };
        self.text("a duration such as \"30s\", \"5m\", \"1h 30m\"", |text| {
            value::duration(text).and_then(|span| Some(span).filter(|span| range.contains(span)).ok_or_else(expected))
        })
    }

    /// A list, each element read by `read`; what it cannot read is left out, and a problem.
    pub fn list<T>(&self, of: &str, mut read: impl FnMut(&Entry<'a>) -> Option<T>) -> Option<Vec<T>> {
        let DeValue::Array(values) = self.value.as_ref() else {
            return self.wrong(format!("a list of {of}, in brackets"));
        };
        let element = |value| Entry {
            path: self.path.clone(),
            value,
            problems: self.problems,
        };
        Some(values.iter().filter_map(|value| read(&element(value))).collect())
    }

    /// The same, where an empty list makes no sense.
    pub fn some<T>(&self, of: &str, read: impl FnMut(&Entry<'a>) -> Option<T>) -> Option<Vec<T>> {
        match self.value.as_ref() {
            DeValue::Array(values) if values.is_empty() => self.wrong(format!("a list of at least one of {of}")),
            _ => self.list(of, read),
        }
    }

    /// A list in which nothing stands twice.
    pub fn distinct<T: PartialEq>(&self, of: &str, mut read: impl FnMut(&Entry<'a>) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        self.list(of, |element| {
            let value = read(element)?;
            if all.contains(&value) {
                return element.wrong(format!("each of the {of} once"));
            }
            all.push(value);
            Some(())
        })?;
        Some(all)
    }

    fn integer(&self) -> Option<u64> {
        let integer = self.value.as_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|&value| value <= i64::MAX as u64)
    }
}
