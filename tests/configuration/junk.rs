//! Texts that nobody would write: bounded, never a panic, and whatever is valid prints itself.

use super::*;
use proptest::prelude::*;

#[test]
fn depth_and_length_without_measure_are_refused() {
    let depth = 100_000;
    for text in [
        format!("x = {}", "[".repeat(depth)),
        format!("x = {}", "{a = ".repeat(depth)),
        format!("{}x = 1", "a.".repeat(depth)),
        format!("[{}", "a.".repeat(depth)),
        (0..depth).map(|i| format!("k{i} = 1\n")).collect(),
        format!("hostname = \"{}\"", "a".repeat(depth)),
        format!("{} = 1", "k".repeat(depth)),
    ] {
        let shown = Config::parse(&text, "test").unwrap_err().to_string();
        assert!(shown.len() < 20_000, "{} octets", shown.len());
    }
}

/// Reads it; what is valid prints itself, what is not shows its mistakes.
fn try_all(text: &str) {
    match Config::parse(text, "junk") {
        Ok(config) => {
            let printed = config.effective();
            let _ = (config.warnings(), config.unsupported());
            assert_eq!(
                Config::parse(&printed, "printed").map_err(|error| error.to_string()),
                Ok(config),
                "{text}"
            );
        }
        Err(error) => {
            assert!(!error.problems().is_empty() && !error.to_string().is_empty());
            assert_eq!(error.one_line().lines().count(), 1, "{error}");
        }
    }
}

fn junk_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        "[-0-9xob_.eE:TZ]{1,12}",
        "\"[^\"\\\\\\x00-\\x1f]{0,20}\"",
        "\"[0-9]{1,20}[a-zA-Z]{0,3}\"",
        "\"(smtp|lmtp|maildir|mx|discard|lmtp[+]unix):[/\\[\\]:{}a-z0-9]{0,12}\"",
        "\\[(\"[-0-9a-f:./*]{0,12}\", ?){0,3}\\]",
        Just("{ a = 1 }".to_owned()),
        Just("true".to_owned()),
        Just("[[[]]]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        try_all(&text);
    }

    #[test]
    fn no_value_of_any_key_panics(values in prop::collection::vec((0..200usize, junk_value()), 1..4)) {
        let keys: Vec<_> = keys().collect();
        let mut lines: Vec<String> = WHOLE.lines().map(str::to_owned).collect();
        for (which, value) in values {
            let (line, key, _) = keys[which % keys.len()];
            lines[line] = format!("{key} = {value}");
        }
        try_all(&lines.join("\n"));
    }

    #[test]
    fn no_damage_to_a_valid_file_panics(cuts in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]\"=\n{}#.,ü\\\\]{0,2}"), 1..4)) {
        let mut characters: Vec<char> = WHOLE.chars().collect();
        for (at, with) in cuts {
            let at = at.index(characters.len());
            characters.splice(at..at + 1, with.chars());
        }
        try_all(&characters.into_iter().collect::<String>());
    }
}
