//! Scenarios: files with flags in them, so that a load has a name.
//!
//! A scenario is TOML: `about`, a sentence, and under `[flags]` flags by their names without the dashes. Promises: what can
//! be said in a scenario can be said by flags and the reverse, for it becomes them; a flag on the command line goes before
//! the scenario's. Pure but for reading the file; used before the command line is understood.

use std::ffi::OsString;

use toml::{Table, Value};

/// The scenarios that are built in, by name.
const BUILT_IN: [(&str, &str); 13] = [
    ("steady", include_str!("../scenarios/steady.toml")),
    ("burst", include_str!("../scenarios/burst.toml")),
    (
        "connection-per-message",
        include_str!("../scenarios/connection-per-message.toml"),
    ),
    ("pipelined", include_str!("../scenarios/pipelined.toml")),
    ("bdat", include_str!("../scenarios/bdat.toml")),
    ("tls", include_str!("../scenarios/tls.toml")),
    ("large", include_str!("../scenarios/large.toml")),
    ("idle", include_str!("../scenarios/idle.toml")),
    ("slow", include_str!("../scenarios/slow.toml")),
    ("many-sources", include_str!("../scenarios/many-sources.toml")),
    ("over-limit", include_str!("../scenarios/over-limit.toml")),
    ("abusive", include_str!("../scenarios/abusive.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
];

/// The command line with the flags of its `--scenario` put in, if it has one.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let Some((at, taken, name)) = named(&arguments) else {
        return Ok(arguments);
    };
    let mut expanded: Vec<OsString> = arguments.iter().take(at).cloned().collect();
    let given = |flag: &str| {
        let mut texts = arguments.iter().filter_map(|argument| argument.to_str());
        texts.any(|text| text == flag || text.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
    };
    for (flag, value) in flags(&text(&name)?).map_err(|why| format!("scenario {name}: {why}"))? {
        if given(&flag) {
            continue;
        }
        expanded.push(flag.into());
        expanded.extend(value.map(OsString::from));
    }
    expanded.extend(arguments.into_iter().skip(at + taken));
    Ok(expanded)
}

/// The names of the scenarios that are built in, with what each is about.
pub fn list() -> String {
    let about = |text: &str| text.parse::<Table>().ok()?.get("about")?.as_str().map(str::to_owned);
    BUILT_IN
        .iter()
        .map(|(name, text)| format!("  {name:<24}{}\n", about(text).unwrap_or_default()))
        .collect()
}

/// Where `--scenario` stands, how many arguments it takes, and what it names.
fn named(arguments: &[OsString]) -> Option<(usize, usize, String)> {
    arguments.iter().enumerate().find_map(|(at, argument)| {
        let rest = argument.to_str()?.strip_prefix("--scenario")?;
        match rest.strip_prefix('=') {
            Some(name) => Some((at, 1, name.to_owned())),
            None if rest.is_empty() => Some((at, 2, arguments.get(at + 1)?.to_str()?.to_owned())),
            None => None,
        }
    })
}

fn text(name: &str) -> Result<String, String> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok((*text).to_owned());
    }
    std::fs::read_to_string(name)
        .map_err(|error| format!("--scenario {name}: {error}; these are built in:\n{}", list()))
}

fn flags(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    if let Some(key) = table.keys().find(|key| !["about", "flags"].contains(&key.as_str())) {
        return Err(format!("{key}: expected about and [flags] only"));
    }
    let Some(Value::Table(named)) = table.get("flags") else {
        return Err("expected [flags]".into());
    };
    let mut flags = Vec::new();
    for (key, value) in named {
        let flag = format!("--{}", key.replace('_', "-"));
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            match value {
                Value::Boolean(true) => flags.push((flag.clone(), None)),
                Value::Boolean(false) => {}
                Value::String(text) => flags.push((flag.clone(), Some(text.clone()))),
                Value::Integer(number) => flags.push((flag.clone(), Some(number.to_string()))),
                Value::Float(number) => flags.push((flag.clone(), Some(number.to_string()))),
                _ => {
                    return Err(format!(
                        "{key}: expected a text, a number, true or false, or a list of them"
                    ));
                }
            }
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::flags::Cli;

    fn expanded(arguments: &[&str]) -> Result<Vec<String>, String> {
        let arguments = arguments.iter().map(OsString::from).collect();
        let expanded = expand(arguments)?;
        Ok(expanded.into_iter().map(|text| text.into_string().unwrap()).collect())
    }

    #[test]
    fn every_scenario_that_is_built_in_is_a_command_line_and_says_what_it_is_about() {
        for (name, text) in BUILT_IN {
            let arguments = expanded(&["loadgen", "--scenario", name]).unwrap();
            Cli::try_parse_from(&arguments).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(text.starts_with("about = \""), "{name}");
        }
        assert_eq!(list().lines().count(), BUILT_IN.len());
    }

    #[test]
    fn a_flag_on_the_command_line_goes_before_that_of_the_scenario() {
        let arguments = expanded(&["loadgen", "--scenario=pipelined", "--connections", "3"]).unwrap();
        assert_eq!(arguments.iter().filter(|text| *text == "--connections").count(), 1);
        assert_eq!(Cli::try_parse_from(&arguments).unwrap().run.load.connections, 3);
    }

    #[test]
    fn a_scenario_may_be_a_file_and_its_faults_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let name = path.to_str().unwrap();
        std::fs::write(&path, "[flags]\nbdat = true\nrst = \"on\"\nbusy_poll = false\n").unwrap();
        let arguments = expanded(&["loadgen", "--scenario", name, "x"]).unwrap();
        assert_eq!(arguments, ["loadgen", "--bdat", "--rst", "on", "x"]);
        for wrong in ["x = 1", "[flags]\nx = {}", "[flags", ""] {
            std::fs::write(&path, wrong).unwrap();
            assert!(expanded(&["loadgen", "--scenario", name]).is_err(), "{wrong}");
        }
        let error = expanded(&["loadgen", "--scenario", "nothing"]).unwrap_err();
        assert!(error.contains("steady"), "{error}");
    }
}
