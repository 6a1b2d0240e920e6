//! The configuration as an operator meets it: the real binary, real files, what it says and how it ends.
//!
//! Promises: every key of the contract is accepted, optional, and refused in its place when it is wrong; what `check`
//! prints is a configuration that means the same; no text whatever makes it panic.

use std::path::PathBuf;
use std::process::{Command, Output};

use postern::config::Config;

#[path = "configuration/junk.rs"]
mod junk;
#[path = "configuration/refusals.rs"]
mod refusals;

/// Every section and every key, one a line. The files that it names do not exist.
const WHOLE: &str = include_str!("configuration/whole.toml");

/// A configuration in a folder of its own, which goes when this does.
struct Written {
    file: PathBuf,
    folder: tempfile::TempDir,
}

impl Written {
    fn new(content: impl AsRef<[u8]>) -> Written {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postern.toml");
        std::fs::write(&file, content).unwrap();
        Written { file, folder }
    }

    fn run(&self, command: &str) -> Ended {
        postern(&[command, "--config", self.file.to_str().unwrap()], self.folder.path())
    }
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn postern(words: &[&str], folder: &std::path::Path) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    let Output { status, stdout, stderr } = command.args(words).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn check(content: impl AsRef<[u8]>) -> Ended {
    Written::new(content).run("check")
}

/// The first line of each problem, after the path of the file: `LINE:COLUMN: KEY: said`.
fn problems(content: impl AsRef<[u8]>) -> Vec<String> {
    let ended = check(content);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    let heads = ended.stderr.lines().filter_map(|line| line.split_once("postern.toml:"));
    heads.map(|(_, problem)| problem.to_owned()).collect()
}

#[test]
fn every_key_of_the_contract_is_accepted_though_the_files_it_names_are_absent() {
    let ended = check(WHOLE);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for line in [
        "max_message_size = 25000000",
        "tarpit = \"250ms\"",
        "accepted = [\"example.com\", \"xn--bcher-kva.example\"]",
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
}

#[test]
fn what_check_prints_is_a_configuration_that_means_the_same() {
    for content in [
        WHOLE,
        "",
        "[[binding]]\nrole = \"relay\"\n[limits]\ntarpit = \"0s\"\n[tls]\nself_signed = true",
    ] {
        let first = check(content);
        let second = check(&first.stdout);
        assert_eq!((first.code, second.code), (Some(0), Some(0)), "{first:?} {second:?}");
        assert_eq!(first.stdout, second.stdout);
        assert_eq!(first.stderr, second.stderr);
        assert_eq!(
            Config::parse(content, "written").unwrap(),
            Config::parse(&first.stdout, "printed").unwrap()
        );
    }
}

#[test]
fn without_a_file_the_embedded_default_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let ended = postern(&["check"], folder.path());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for line in [
        "address = [\"127.0.0.1:2525\"]",
        "role = \"gateway\"",
        "accepted = [\"*\"]",
        "to = [\"maildir:var/mail\"]",
    ] {
        assert!(
            ended.stdout.lines().any(|printed| printed == line),
            "{line}: {}",
            ended.stdout
        );
    }
}

#[test]
fn limits_are_those_of_the_role_then_of_the_server_then_of_the_binding() {
    let config = Config::parse(
        "[limits]\nmax_recipients = 7\ntarpit = \"1s\"\n[[binding]]\nname = \"a\"\n[[binding]]\nname = \"b\"\n\
         address = [\"[::1]:25\"]\nrole = \"relay\"\n[binding.limits]\ntarpit = \"2s\"",
        "test",
    );
    let limits: Vec<_> = config
        .unwrap()
        .bindings
        .into_iter()
        .map(|binding| binding.limits)
        .collect();
    let shown = |i: usize| {
        (
            limits[i].message_rate,
            limits[i].max_recipients,
            limits[i].tarpit.as_secs(),
        )
    };
    assert_eq!((shown(0), shown(1)), ((600, 7, 1), (5, 7, 2)));
}

/// Line number, line, section and key of each key in [`WHOLE`].
fn keys() -> impl Iterator<Item = (usize, &'static str, String)> {
    let mut section = "";
    WHOLE.lines().enumerate().filter_map(move |(i, line)| {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
        let key = line.split_once(" = ")?.0;
        let path = if section.is_empty() {
            key.to_owned()
        } else {
            format!("{section}.{key}")
        };
        Some((i, key, path))
    })
}

/// [`WHOLE`] with another line in the place of line `number` (from 0).
fn with_line(number: usize, other: &str) -> String {
    let lines = WHOLE
        .lines()
        .enumerate()
        .map(|(i, line)| if i == number { other } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_is_optional_but_for_the_other_half_of_a_pair() {
    for (i, key, path) in keys() {
        let pair = [
            "tls.certificate",
            "tls.key",
            "tls.certificates.certificate",
            "tls.certificates.key",
            "next_hop.username",
            "next_hop.password_file",
        ]
        .contains(&path.as_str());
        let read = Config::parse(&with_line(i, ""), "test");
        assert_eq!(read.is_err(), pair, "without {key}: {read:?}");
    }
}

#[test]
fn every_key_with_a_value_of_another_type_is_refused_in_its_place() {
    for (i, key, path) in keys() {
        let error = Config::parse(&with_line(i, &format!("{key} = 1979-05-27")), "test").unwrap_err();
        let [problem] = error.problems() else {
            panic!("{path}: {error}")
        };
        assert_eq!(problem.place, Some((i + 1, key.len() + 4)), "{error}");
        assert_eq!(problem.key, path, "{error}");
        assert!(
            problem.said.starts_with("found the date 1979-05-27, expected "),
            "{error}"
        );
    }
}

#[test]
fn every_key_with_a_slip_of_the_pen_is_refused_with_the_key_that_was_meant() {
    for (i, key, path) in keys() {
        // There is a key of that name: it is told what it wants.
        if path == "tls.certificate" {
            continue;
        }
        let slip = format!("{key}s = 1");
        let error = Config::parse(&with_line(i, &slip), "test").unwrap_err();
        let problem = error
            .problems()
            .iter()
            .find(|problem| problem.place == Some((i + 1, 1)))
            .unwrap();
        assert!(problem.said.contains(&format!("did you mean `{key}`?")), "{error}");
    }
}

#[test]
fn every_limit_outside_its_range_is_refused_with_the_range() {
    use postern::smtp::limits::{ROWS, Value};
    for row in ROWS {
        let beyond = match row.most {
            Value::Span(_) => "\"366d\"",
            Value::Size(_) => "-1",
            Value::Count(_) => "10000001",
        };
        let error = Config::parse(&format!("[limits]\n{} = {beyond}", row.key), "test").unwrap_err();
        let [problem] = error.problems() else { panic!("{error}") };
        assert_eq!(problem.place, Some((2, row.key.len() + 4)));
        assert!(
            problem.said.contains(" from ") && problem.said.contains(" to "),
            "{error}"
        );
    }
}

#[test]
fn a_problem_names_file_line_column_key_and_shows_the_place() {
    let written = Written::new("shards = 1\n\n[[binding]]\nrole = \"edge\" # no\n");
    let ended = written.run("check");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    let expected = format!(
        "{}:4:8: binding.role: found \"edge\", expected \"gateway\" or \"relay\"\n  |\n4 | role = \"edge\" # no\n  |        ^^^^^^\n",
        written.file.display()
    );
    assert_eq!(ended.stderr, expected);
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let problems = problems("zzz = 1\n[log]\nlevel = 3\n[limits]\ntarpit = \"x\"\nmax_recipients = 0\n");
    let places: Vec<_> = problems
        .iter()
        .map(|problem| problem.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        places,
        [
            "1:1: zzz:",
            "3:9: log.level:",
            "5:10: limits.tarpit:",
            "6:18: limits.max_recipients:"
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_in_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    for (command, code) in [("check", 2), ("serve", 1)] {
        for (file, said) in [("absent.toml", "No such file"), (".", "directory")] {
            let ended = postern(&[command, "--config", file], folder.path());
            assert_eq!(
                (ended.code, ended.stdout.as_str(), ended.stderr.lines().count()),
                (Some(code), "", 1),
                "{ended:?}"
            );
            assert!(ended.stderr.contains(file) && ended.stderr.contains(said), "{ended:?}");
        }
    }
    refuses_bytes(
        b"shards = 1\nhostname = \"\xff\"",
        "2:13: found the octet 0xff, expected UTF-8",
    );
}

fn refuses_bytes(content: &[u8], said: &str) {
    let problems = problems(content);
    assert!(
        matches!(problems.as_slice(), [one] if one.starts_with(said)),
        "{problems:?}"
    );
}

#[test]
fn a_byte_order_mark_and_foreign_line_ends_do_no_harm() {
    refuses("\u{feff}shards = -1\r\n", "1:10: shards: ", &["the integer -1"]);
    assert_eq!(check("\u{feff}shards = 1\r\n[log]\r\n").code, Some(0));
}

#[test]
fn what_is_probably_not_meant_is_a_warning_and_no_error() {
    let ended = check("");
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .count(),
        2,
        "{ended:?}"
    );
    assert!(ended.stderr.contains("nothing listens") && !ended.stdout.is_empty());
}

#[test]
fn serve_refuses_an_invalid_file_and_a_key_of_a_later_version_in_one_line() {
    for (content, said) in [
        (
            "shards = \"x\"",
            "postern.toml:1:10: shards: found \"x\", expected a whole number",
        ),
        ("[fleet]\nredis = \"redis://127.0.0.1\"", "[fleet]"),
        (WHOLE, "yet"),
    ] {
        let ended = Written::new(content).run("serve");
        assert_eq!(
            (ended.code, ended.stdout.as_str(), ended.stderr.lines().count()),
            (Some(1), "", 1),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
}

#[track_caller]
fn refuses(content: &str, place_and_key: &str, said: &[&str]) {
    let problems = problems(content);
    let [problem] = problems.as_slice() else {
        panic!("{content}: {problems:#?}")
    };
    assert!(
        problem.starts_with(place_and_key),
        "{content}: {problem}, not {place_and_key}"
    );
    for word in said {
        assert!(problem.contains(word), "{content}: {problem}, without {word}");
    }
}
