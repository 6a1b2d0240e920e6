//! What is wrong with a configuration, shown in its place.
//!
//! Promises: every mistake names file, line, column and key, what was found and what was expected, and shows the line
//! with a caret below; what the file holds reaches a terminal only without control characters, and cut to a bounded
//! length. Pure; lives on whichever thread read the file.

use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::str::Utf8Error;

/// Mistakes shown; a file that is no configuration at all makes one for each of its lines.
const SHOWN_MAX: usize = 20;

/// Characters of a source line that are shown.
const WIDTH_MAX: usize = 160;

/// Why a configuration is refused: one problem or more, in the order of the file.
#[derive(Clone, Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as the operator named it.
    pub file: String,
    /// Line and column (in characters), both counted from 1; none where the whole file is meant.
    pub place: Option<(usize, usize)>,
    /// The key with its sections, such as `binding.limits.tarpit`; empty where there is none.
    pub key: String,
    /// What was found and what was expected.
    pub said: String,
    /// The source line and a caret below what is meant.
    snippet: String,
}

impl ConfigError {
    /// Of problems found in a file; there is at least one.
    pub(super) fn new(mut problems: Vec<Problem>) -> ConfigError {
        debug_assert!(!problems.is_empty(), "an error without a problem");
        problems.sort_by_key(|problem| problem.place);
        ConfigError { problems }
    }

    /// The file cannot be read at all.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => ", expected a configuration file (see `postern check` for a first one)",
            io::ErrorKind::PermissionDenied => ", expected a file that this user may read",
            io::ErrorKind::IsADirectory => ", expected a file",
            _ => "",
        };
        Self::whole_file(&path.display().to_string(), format!("cannot be read: {error}{advice}"))
    }

    /// The file is larger than any configuration.
    pub(super) fn too_large(name: &str, octets_max: u64) -> ConfigError {
        Self::whole_file(
            name,
            format!("found more than {octets_max} octets, expected a configuration in TOML"),
        )
    }

    /// The file is no text.
    pub(super) fn not_utf8(name: &str, bytes: &[u8], error: &Utf8Error) -> ConfigError {
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        let text = String::from_utf8_lossy(valid);
        let said = format!(
            "found the octet 0x{:02x}, expected UTF-8",
            rest.first().copied().unwrap_or_default()
        );
        ConfigError::new(vec![Source { name, text: &text }.problem(
            text.len()..text.len(),
            String::new(),
            said,
        )])
    }

    fn whole_file(name: &str, said: String) -> ConfigError {
        ConfigError::new(vec![Problem {
            file: printable(name),
            place: None,
            key: String::new(),
            said,
            snippet: String::new(),
        }])
    }

    /// Each mistake, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The first mistake without its source line: for a log, and for a service manager.
    pub fn one_line(&self) -> String {
        let first = self.problems.first().map(Problem::head).unwrap_or_default();
        match self.problems.len() {
            0 | 1 => first,
            n => format!("{first} (and {} more: see `postern check`)", n - 1),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().take(SHOWN_MAX).enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            write!(f, "{gap}{problem}")?;
        }
        // Not how many: they are not counted to the end either.
        if self.problems.len() > SHOWN_MAX {
            f.write_str("\nand more")
        } else {
            Ok(())
        }
    }
}

impl std::error::Error for ConfigError {}

impl Problem {
    /// `FILE:LINE:COLUMN: KEY: what was found and expected`, the form that editors and terminals can follow.
    fn head(&self) -> String {
        let place = self
            .place
            .map(|(line, column)| format!(":{line}:{column}"))
            .unwrap_or_default();
        let colon = if self.key.is_empty() { "" } else { ": " };
        format!("{}{place}: {}{colon}{}", self.file, self.key, self.said)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.head(), self.snippet)
    }
}

/// The text of a file, to find places in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'s> {
    /// What errors call the file.
    pub name: &'s str,
    /// All of it.
    pub text: &'s str,
}

impl Source<'_> {
    /// A mistake at these octets of the text.
    pub fn problem(self, span: Range<usize>, key: String, said: String) -> Problem {
        let (number, line, from) = self.line_at(span.start);
        let before = self.text.get(from..span.start).unwrap_or_default().chars().count();
        let marked = self.text.get(span).unwrap_or_default();
        let marked = marked.lines().next().unwrap_or_default().chars().count().max(1);
        Problem {
            file: printable(self.name),
            place: Some((number, before + 1)),
            key,
            said,
            snippet: snippet(number, line, before, marked),
        }
    }

    /// A mistake against TOML itself. The parser does not say which key it was at, so the line must.
    pub fn syntax(self, error: &toml::de::Error) -> Problem {
        let span = error.span().unwrap_or(0..0);
        let found = match self
            .text
            .get(span.clone())
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
        {
            "" if span.start >= self.text.trim_end().len() => "the end of the file".to_owned(),
            "" => "the end of a line, or nothing".to_owned(),
            text => quoted(text),
        };
        let message = printable(&error.message().replace('\n', ", "));
        let expected = match message.as_str() {
            "duplicate key" => ", expected each key once",
            message if message.contains("expected") => "",
            _ => ", expected TOML",
        };
        let said = format!("found {found}: {message}{expected}");
        let key = self.key_at(span.start);
        self.problem(span, key, said)
    }

    /// The line that holds an octet: its number, its text, and where it begins.
    fn line_at(&self, at: usize) -> (usize, &str, usize) {
        let at = at.min(self.text.len());
        let head = self.text.get(..at).unwrap_or_default();
        let from = head.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self
            .text
            .get(from..)
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default();
        (head.matches('\n').count() + 1, line, from)
    }

    /// The key whose line holds an octet, with the section above it.
    fn key_at(&self, at: usize) -> String {
        let (_, line, from) = self.line_at(at);
        let name = |text: &str| shortened(text.trim().trim_matches(['[', ']', ' ']));
        let header = |line: &&str| line.trim_start().starts_with('[') && !line.contains('=');
        if header(&line) {
            return name(line);
        }
        let section = self
            .text
            .get(..from)
            .unwrap_or_default()
            .lines()
            .rev()
            .find(header)
            .map(name);
        match (
            section,
            line.split_once('=')
                .map(|(key, _)| name(key))
                .filter(|key| !key.is_empty()),
        ) {
            (Some(section), Some(key)) => format!("{section}.{key}"),
            (section, key) => section.or(key).unwrap_or_default(),
        }
    }
}

/// The line under its number, with carets under `marked` characters after the first `before`.
fn snippet(number: usize, line: &str, before: usize, marked: usize) -> String {
    // A window, so that the line of a list with a thousand entries still fits a screen.
    let from = before.saturating_sub(WIDTH_MAX / 2);
    let line: String = printable(line).chars().skip(from).take(WIDTH_MAX).collect();
    let before = before - from;
    // A tab stays a tab, else the caret would stand elsewhere.
    let indent: String = line
        .chars()
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .chain(std::iter::repeat(' '))
        .take(before)
        .collect();
    let carets = "^".repeat(marked.min(line.chars().count().saturating_sub(before)).max(1));
    let margin = " ".repeat(number.to_string().len());
    format!("\n{margin} |\n{number} | {line}\n{margin} | {indent}{carets}")
}

/// As a quoted string, cut short.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// Printable, and cut to a length that leaves room for the rest of the sentence.
pub(super) fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let cut: String = text.chars().take(CHARACTERS_MAX).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{dots}", printable(&cut))
}

/// Without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// The candidate nearest to what was typed, where one is near enough to be meant.
pub(super) fn nearest<'c>(typed: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // One slip in three letters; more, and the guess would be noise.
    let near = |candidate: &str| candidate.len().max(3) / 3;
    let typed = typed.get(..typed.len().min(64))?.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (distance(&typed, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= near(candidate))
        // Of two that are as near, the one that begins alike: the first letters are rarely the slip.
        .min_by_key(|(distance, candidate)| {
            let alike = candidate.chars().zip(typed.chars()).take_while(|(a, b)| a == b).count();
            (*distance, Reverse(alike))
        })
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace (Levenshtein), a row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().zip(std::iter::once(None).chain(b.chars().map(Some))) {
            let Some(y) = y else {
                *cell = left;
                continue;
            };
            let up = *cell;
            left = (diagonal + usize::from(x != y)).min(up + 1).min(left + 1);
            diagonal = up;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_what_is_meant() {
        let text = "a = 1\n\tname = \"ü\" \nb = 2";
        let source = Source { name: "f.toml", text };
        let at = text.find('"').unwrap();
        let problem = source.problem(at..at + 4, "name".into(), "found x".into());
        assert_eq!(problem.place, Some((2, 9)));
        assert_eq!(
            problem.to_string(),
            "f.toml:2:9: name: found x\n  |\n2 | \tname = \"ü\" \n  | \t       ^^^"
        );
    }

    #[test]
    fn a_place_past_the_end_is_the_end() {
        let problem = Source { name: "f", text: "" }.problem(0..0, String::new(), "x".into());
        assert_eq!(problem.place, Some((1, 1)));
        let problem = Source { name: "f", text: "a =" }.problem(3..9, String::new(), "x".into());
        assert_eq!(problem.place, Some((1, 4)));
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_place() {
        let text = format!("a = [{}]", "\"x\", ".repeat(10_000));
        let problem = Source { name: "f", text: &text }.problem(25_000..25_003, "a".into(), "x".into());
        assert!(problem.to_string().len() < 600);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let problem = Source {
            name: "f\x1b",
            text: "a = \x1b[31m",
        }
        .problem(4..5, "a".into(), quoted("\x1b"));
        assert!(!problem.to_string().contains('\x1b'));
    }

    #[test]
    fn the_nearest_key_is_one_that_could_be_meant() {
        let keys = ["max_recipients", "max_connections", "tarpit", "to"];
        assert_eq!(nearest("max_rcpts", keys), None);
        assert_eq!(nearest("max_recipient", keys), Some("max_recipients"));
        assert_eq!(nearest("max-connections", keys), Some("max_connections"));
        assert_eq!(nearest("trapit", keys), Some("tarpit"));
        assert_eq!(nearest("tu", keys), Some("to"));
        assert_eq!(nearest("tos", ["tls", "to"]), Some("to"));
        assert_eq!(nearest("zz", keys), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
