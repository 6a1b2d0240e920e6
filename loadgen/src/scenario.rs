//! Scenarios: files with flags in them, so that a load has a name.
//!
//! A scenario is TOML: `about`, a sentence; under `[flags]` flags by their names without the dashes; and, if several loads
//! are to run at once, `[[load]]` tables: `name`, `share` (per cent of the connections and the rate of `[flags]`) and flags
//! again, which go before those of `[flags]`. Promises: what can be said in a scenario can be said by flags and the
//! reverse, for it becomes them; a flag on the command line goes before the scenario's, but `--connections` and `--rate` are
//! those of the whole. Pure but for reading the file; used before the command line is understood.

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

/// A command line with its scenario put in.
#[derive(Debug, Default)]
pub struct Expanded {
    /// The whole: what was typed and `[flags]`.
    pub arguments: Vec<OsString>,
    /// Loads that run at once; none where the whole is the load.
    pub loads: Vec<Load>,
}

/// One of several loads.
#[derive(Debug)]
pub struct Load {
    pub name: String,
    /// Per cent of the connections and of the rate of the whole.
    pub share: Option<f64>,
    /// Flags that it names itself, with their dashes.
    pub own: Vec<String>,
    /// Its command line, without the whole's connections and rate.
    pub arguments: Vec<OsString>,
}

/// Flags that are the whole's, as there is one time, one server and one set of figures.
const OF_THE_WHOLE: [&str; 14] = [
    "--messages",
    "--duration",
    "--warm-up",
    "--pid",
    "--json",
    "--report",
    "--hdr",
    "--fail-if",
    "--silent",
    "--scenario",
    "--cores",
    "--core",
    "--busy-poll",
    "--target-is-mine",
];
/// Flags that are shared out.
const SHARED_OUT: [&str; 2] = ["--connections", "--rate"];

/// A flag with its value, if it takes one.
type Flag = (String, Option<String>);

/// The command line with the flags of its `--scenario` put in, if it has one.
pub fn expand(arguments: Vec<OsString>) -> Result<Expanded, String> {
    let Some((at, taken, name)) = named(&arguments) else {
        return Ok(Expanded {
            arguments,
            loads: Vec::new(),
        });
    };
    let text = text(&name)?;
    let said = |why| format!("scenario {name}: {why}");
    let table: Table = text.parse().map_err(|error: toml::de::Error| said(error.to_string()))?;
    if let Some(key) = table
        .keys()
        .find(|key| !["about", "flags", "load"].contains(&key.as_str()))
    {
        return Err(said(format!("{key}: expected about, [flags] and [[load]] only")));
    }
    let common = match (table.get("flags"), table.contains_key("load")) {
        (Some(Value::Table(named)), _) => flags(named).map_err(said)?,
        (None, true) => Vec::new(),
        _ => return Err(said("expected [flags]".into())),
    };
    let (before, behind) = arguments.split_at(at);
    let line = Line {
        before,
        behind: behind.get(taken..).unwrap_or_default(),
    };
    let loads = match table.get("load") {
        None => Vec::new(),
        Some(Value::Array(loads)) => loads
            .iter()
            .map(|load| line.load(&common, load))
            .collect::<Result<_, _>>()
            .map_err(said)?,
        Some(_) => return Err(said("load: expected [[load]]".into())),
    };
    let common: Vec<Flag> = common.into_iter().filter(|(flag, _)| !line.has(flag)).collect();
    Ok(Expanded {
        arguments: line.with(&common, &[]),
        loads,
    })
}

/// What was typed around `--scenario`.
struct Line<'a> {
    before: &'a [OsString],
    behind: &'a [OsString],
}

impl Line<'_> {
    fn has(&self, flag: &str) -> bool {
        let mut texts = self.before.iter().chain(self.behind).filter_map(|text| text.to_str());
        texts.any(|text| is(text, flag))
    }

    /// With these flags in the place of `--scenario`, and without the `dropped` ones of the user's, which take a value.
    fn with(&self, flags: &[Flag], dropped: &[&str]) -> Vec<OsString> {
        let kept = |arguments: &[OsString]| {
            let (mut kept, mut skip) = (Vec::new(), false);
            for argument in arguments {
                let text = argument.to_str().unwrap_or_default();
                if std::mem::take(&mut skip) {
                    continue;
                }
                match dropped.iter().find(|flag| is(text, flag)) {
                    Some(flag) => skip = text == *flag,
                    None => kept.push(argument.clone()),
                }
            }
            kept
        };
        let mut all = kept(self.before);
        for (flag, value) in flags {
            all.push(flag.into());
            all.extend(value.iter().map(OsString::from));
        }
        all.extend(kept(self.behind));
        all
    }

    fn load(&self, common: &[Flag], load: &Value) -> Result<Load, String> {
        let Value::Table(table) = load else {
            return Err("load: expected [[load]] tables".into());
        };
        let name = match table.get("name") {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            _ => return Err("[[load]]: name: expected a text".into()),
        };
        let said = |why: String| format!("load \"{name}\": {why}");
        let share = match table.get("share") {
            None => None,
            Some(Value::Integer(share)) if (1..=100).contains(share) => Some(*share as f64),
            Some(Value::Float(share)) if *share > 0.0 && *share <= 100.0 => Some(*share),
            Some(other) => {
                return Err(said(format!(
                    "share: {other}: expected per cent, more than 0 and 100 at most"
                )));
            }
        };
        let mut named = table.clone();
        named.retain(|key, _| key != "name" && key != "share");
        let its = flags(&named).map_err(said)?;
        if let Some((flag, _)) = its.iter().find(|(flag, _)| OF_THE_WHOLE.contains(&flag.as_str())) {
            let key = flag.trim_start_matches('-');
            return Err(said(format!(
                "{key}: it is for all loads together: put it under [flags]"
            )));
        }
        let own: Vec<String> = its.iter().map(|(flag, _)| flag.clone()).collect();
        let sized = own.iter().any(|flag| flag == "--connections" || flag == "--idle");
        if share.is_none() && !sized {
            return Err(said(
                "share: missing; expected it, or connections or idle in its place".into(),
            ));
        }
        let mut all: Vec<Flag> = its;
        all.retain(|(flag, _)| SHARED_OUT.contains(&flag.as_str()) || !self.has(flag));
        let inherited = common.iter().filter(|(flag, _)| {
            let flag = flag.as_str();
            !own.iter().any(|own| own == flag) && !self.has(flag) && !SHARED_OUT.contains(&flag)
        });
        all.extend(inherited.cloned());
        let arguments = self.with(&all, &SHARED_OUT);
        Ok(Load {
            name,
            share,
            own,
            arguments,
        })
    }
}

fn is(text: &str, flag: &str) -> bool {
    text == flag || text.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
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

fn flags(named: &Table) -> Result<Vec<Flag>, String> {
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
        let expanded = expand(arguments)?.arguments;
        Ok(expanded.into_iter().map(|text| text.into_string().unwrap()).collect())
    }

    #[test]
    fn every_scenario_that_is_built_in_is_a_command_line_and_says_what_it_is_about() {
        for (name, text) in BUILT_IN {
            let expanded = expand(["loadgen", "--scenario", name].map(OsString::from).to_vec()).unwrap();
            let all = std::iter::once(&expanded.arguments).chain(expanded.loads.iter().map(|load| &load.arguments));
            for arguments in all {
                Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            assert!(text.starts_with("about = \""), "{name}");
        }
        assert_eq!(list().lines().count(), BUILT_IN.len());
    }

    #[test]
    fn the_readme_has_a_line_for_each_scenario() {
        let readme = include_str!("../README.md");
        for (name, text) in BUILT_IN {
            let about = text
                .lines()
                .next()
                .unwrap()
                .trim_start_matches("about = ")
                .trim_matches('"');
            assert!(readme.contains(&format!("| `{name}` | {about} |")), "{name}");
        }
    }

    #[test]
    fn a_flag_on_the_command_line_goes_before_that_of_the_scenario() {
        let arguments = expanded(&["loadgen", "--scenario=pipelined", "--connections", "3"]).unwrap();
        assert_eq!(arguments.iter().filter(|text| *text == "--connections").count(), 1);
        assert_eq!(Cli::try_parse_from(&arguments).unwrap().run.load.connections, 3);
    }

    #[test]
    fn a_load_has_its_own_flags_then_those_of_all_and_the_command_line_goes_before_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let text = "[flags]\nrate = 9\nsize = \"1k\"\nehlo = \"all\"\n[[load]]\nname = \"a\"\nshare = 50\nsize = \"2k\"\n\
                    [[load]]\nname = \"b\"\nconnections = 3\nrate = 1\n";
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let typed = [
            "loadgen",
            "--rate",
            "70",
            "--scenario",
            path,
            "--connections=9",
            "--ehlo",
            "x",
        ];
        let expanded = expand(typed.map(OsString::from).to_vec()).unwrap();
        let words = |arguments: &[OsString]| arguments.join(" ".as_ref()).into_string().unwrap();
        assert_eq!(
            words(&expanded.arguments),
            "loadgen --rate 70 --size 1k --connections=9 --ehlo x"
        );
        let [a, b] = &expanded.loads[..] else {
            panic!("two loads")
        };
        assert_eq!((a.name.as_str(), a.share), ("a", Some(50.0)));
        assert_eq!(words(&a.arguments), "loadgen --size 2k --ehlo x");
        assert_eq!((b.share, b.own.join(" ").as_str()), (None, "--connections --rate"));
        assert_eq!(
            words(&b.arguments),
            "loadgen --connections 3 --rate 1 --size 1k --ehlo x"
        );
    }

    #[test]
    fn a_scenario_may_be_a_file_and_its_faults_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let name = path.to_str().unwrap();
        std::fs::write(&path, "[flags]\nbdat = true\nrst = \"on\"\nbusy_poll = false\n").unwrap();
        let arguments = expanded(&["loadgen", "--scenario", name, "x"]).unwrap();
        assert_eq!(arguments, ["loadgen", "--bdat", "--rst", "on", "x"]);
        for (wrong, said) in [
            ("x = 1", "expected about, [flags] and [[load]]"),
            ("[flags]\nx = {}", "x: expected a text"),
            ("[flags", "expected"),
            ("", "expected [flags]"),
            ("load = 3", "expected [[load]]"),
            ("[[load]]\nshare = 3", "name: expected a text"),
            ("[[load]]\nname = \"a\"", "load \"a\": share: missing"),
            ("[[load]]\nname = \"a\"\nshare = 101", "share: 101: expected per cent"),
            (
                "[[load]]\nname = \"a\"\nshare = 1\nduration = \"1s\"",
                "duration: it is for all loads together",
            ),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let error = expanded(&["loadgen", "--scenario", name]).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
        let error = expanded(&["loadgen", "--scenario", "nothing"]).unwrap_err();
        assert!(error.contains("steady"), "{error}");
    }
}
