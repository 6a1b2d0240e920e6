//! The configuration as an operator meets it: the real binary, real files, what it says and how it ends.
//!
//! Promises: every key of the contract is accepted, optional, and refused in its place when it is wrong; what `check`
//! prints is a configuration that means the same; no text whatever makes it panic.

use std::path::PathBuf;
use std::process::{Command, Output};

use postern::config::Config;
use proptest::prelude::*;

/// Every section and every key, one a line. The files that it names do not exist.
const WHOLE: &str = r#"
hostname = "mx.example.com"
data_dir = "var"
drain_timeout = "30s"
shards = 0
edition = "2021"

[[binding]]
name = "mx"
address = ["0.0.0.0:25", "[::]:25"]
role = "gateway"
tls = "starttls"
require_tls = false
auth = ["NTLM", "LOGIN"]
auth_requires_tls = true
require_auth = false
clients = ["0.0.0.0/0", "::/0"]
users = []
xexch50 = false
proxy_protocol = false
proxy_from = []
extensions_off = []
bare_newline = "refuse"

[limits]
connection_timeout = "5m"
inactivity_timeout = "1m"
max_hop_count = 60
max_local_hop_count = 12
max_recipients = 200
message_rate = 600
max_header_size = "64KiB"
max_message_size = "10MiB"
max_protocol_errors = 5
max_logon_errors = 3
max_connections = 5000
max_connections_per_source = 20
acknowledgement_delay = "30s"
tarpit = "5s"
min_free_disk = "256MiB"
min_free_memory = "64MiB"

[[binding]]
name = "submission"
address = ["127.0.0.1:587"]
role = "relay"
[binding.limits]
connection_timeout = "15m"
inactivity_timeout = "2m"
max_hop_count = 30
max_local_hop_count = 3
max_recipients = 500
message_rate = 0
max_header_size = 32768
max_message_size = "25MB"
max_protocol_errors = 0
max_logon_errors = 0
max_connections = 100
max_connections_per_source = 10
acknowledgement_delay = "0s"
tarpit = "250ms"
min_free_disk = 0
min_free_memory = 0

[access]
allow = ["192.0.2.7"]
block = ["192.0.2.0/24"]
block_text = "Visit http://support.microsoft.com/kb/928123 for more information"
block_dynamic = "absent/dynamic.txt"
dnsbl = ["bl.example.net"]
dns_servers = ["192.0.2.53", "[2001:db8::53]:5353"]

[domains]
accepted = ["example.com", "bücher.example"]
recipients = "absent/recipients.txt"

[auth]
users = "absent/users.txt"

[tls]
certificate = "absent/cert.pem"
key = "absent/key.pem"
self_signed = false

[[next_hop]]
domains = ["*"]
to = ["smtp://10.0.0.5:25", "smtp://10.0.0.6:25"]
tls = "opportunistic"
username = "edge"
password_file = "absent/hop.password"
max_connections = 32

[queue]
retry = ["15s", "1m", "5m", "15m", "1h"]
expire = "2d"
delay_notice = "4h"
memory = "256MiB"

[admin]
listen = "127.0.0.1:8025"

[log]
level = "info"
format = "text"

[fleet]
redis = "redis://127.0.0.1:6379"
"#;

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
    for (i, key, _) in keys() {
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
fn text_that_is_no_toml_is_refused_at_the_place_where_it_ceases_to_be() {
    refuses("shards = = 3", "1:10: shards: ", &["expected"]);
    refuses(
        "shards = 3\nshards = 4",
        "2:1: shards: ",
        &["duplicate key", "expected each key once"],
    );
    refuses("[log]\nlevel = \"info\nformat = 1", "2:14: log.level: ", &["expected"]);
    refuses("[limits\ntarpit = \"1s\"", "1:8: limits: ", &["expected"]);
    refuses("hello", "1:", &["expected"]);
    refuses(
        "[access]\nallow = [\"::1\"",
        "2:15: access.allow: ",
        &["the end of the file", "expected"],
    );
}

#[test]
fn a_section_of_the_wrong_shape_is_refused() {
    refuses(
        "[binding]\nname = \"x\"",
        "1:1: binding: ",
        &["expected sections `[[binding]]`"],
    );
    refuses("[[limits]]", "1:1: limits: ", &["expected a section `[limits]`"]);
    refuses(
        "next_hop = [1]",
        "1:13: next_hop: ",
        &["the integer 1", "expected a section `[[next_hop]]`"],
    );
    refuses(
        "role = \"relay\"",
        "1:1: role: ",
        &["unknown key", "belongs into `binding`"],
    );
    refuses(
        "[log]\nhostname = \"a.example\"",
        "2:1: log.hostname: ",
        &["unknown key", "at the top"],
    );
}

#[test]
fn names_that_cannot_be_names_are_refused() {
    refuses(
        "hostname = \"a b\"",
        "1:12: hostname: ",
        &["found \"a b\"", "expected a domain name"],
    );
    refuses(
        "hostname = \"\"",
        "1:12: hostname: ",
        &["found \"\"", "expected a domain name"],
    );
    refuses("hostname = \"192.0.2.1\"", "1:12: hostname: ", &["not an address"]);
    refuses("edition = \"2014\"", "1:11: edition: ", &["\"2021\" or \"2011\""]);
    refuses("edition = 2021", "1:11: edition: ", &["the integer 2021", "a string"]);
    refuses("data_dir = \"\"", "1:12: data_dir: ", &["expected a path"]);
    refuses(
        "shards = 1025",
        "1:10: shards: ",
        &["the integer 1025", "from 0 to 1024"],
    );
    refuses(
        "[domains]\naccepted = [\"a.example\", \"a..b\"]",
        "2:26: domains.accepted: ",
        &["\"a..b\""],
    );
    refuses(
        "[access]\nblock = [\"10.0.0.0/33\"]",
        "2:10: access.block: ",
        &["\"10.0.0.0/33\"", "192.0.2.0/24"],
    );
    refuses(
        "[access]\nblock_text = \"a\\r\\nb\"",
        "2:14: access.block_text: ",
        &["printable ASCII"],
    );
    refuses(
        "[access]\ndns_servers = [\"ns.example\"]",
        "2:16: access.dns_servers: ",
        &["expected an address"],
    );
    refuses(
        "[admin]\nlisten = \"8025\"",
        "2:10: admin.listen: ",
        &["expected an address and port"],
    );
    refuses("[fleet]\nredis = \"http://x\"", "2:9: fleet.redis: ", &["redis://"]);
}

#[test]
fn bindings_that_contradict_each_other_or_themselves_are_refused() {
    let one = |line: &str| format!("[[binding]]\n{line}");
    refuses(&one("name = \"\""), "2:8: binding.name: ", &["a name of 1 to 64"]);
    refuses(
        &one("address = [\"127.0.0.1\"]"),
        "2:12: binding.address: ",
        &["did you mean \"127.0.0.1:25\"?"],
    );
    refuses(
        &one("address = []"),
        "2:11: binding.address: ",
        &["an empty list", "at least one"],
    );
    refuses(&one("address = \"[::1]:25\""), "2:11: binding.address: ", &["a list"]);
    refuses(&one("tls = \"starttls\""), "2:7: binding.tls: ", &["a section `[tls]`"]);
    refuses(
        &one("require_tls = true"),
        "2:15: binding.require_tls: ",
        &["a section `[tls]`"],
    );
    refuses(
        &one("require_tls = true\ntls = \"off\"\n[tls]\nself_signed = true"),
        "2:15: ",
        &["starttls"],
    );
    refuses(
        &one("extensions_off = [\"PIPELINING\", \"FOO\"]"),
        "2:33: binding.extensions_off: ",
        &["CHUNKING"],
    );
    for always in ["SIZE", "DSN", "ENHANCEDSTATUSCODES"] {
        let said = ["always advertised"];
        refuses(
            &one(&format!("extensions_off = [\"{always}\"]")),
            "2:19: binding.extensions_off: ",
            &said,
        );
    }
    refuses(&one("auth = [\"CRAM-MD5\"]"), "2:9: binding.auth: ", &["SCRAM-SHA-256"]);
    refuses(
        &one("auth = [\"NTLM\", \"LOGIN\", \"NTLM\"]"),
        "2:26: binding.auth: ",
        &["once"],
    );
    refuses(
        &one("name = \"a\"\n[[binding]]\nname = \"a\"\naddress = [\"[::1]:25\"]"),
        "4:8: binding.name: ",
        &["no other"],
    );
    refuses(
        &one("[[binding]]\naddress = [\"127.0.0.1:2525\"]"),
        "3:12: binding.address: ",
        &["nowhere else"],
    );
    refuses(
        &one("address = [\"127.0.0.1:2525\"]\n[[binding]]"),
        "3:1: binding: ",
        &["no `address`"],
    );
    refuses(
        &one("address = [\"[::1]:25\"]\n[admin]\nlisten = \"[::1]:25\""),
        "4:10: admin.listen: ",
        &["nowhere else"],
    );
    let ports_zero = one("address = [\"[::1]:0\", \"[::1]:0\"]\n[domains]\naccepted = [\"*\"]");
    assert_eq!(check(ports_zero).code, Some(0));
}

#[test]
fn routes_and_certificates_that_lead_nowhere_are_refused() {
    let one = |line: &str| format!("[[next_hop]]\n{line}");
    refuses(
        &one("to = [\"http://x.example\"]"),
        "2:7: next_hop.to: ",
        &["smtp://", "lmtp+unix://", "maildir:"],
    );
    refuses(&one("to = []"), "2:6: next_hop.to: ", &["at least one"]);
    refuses(
        &one("to = [\"maildir:{user}\"]"),
        "2:7: next_hop.to: ",
        &["{local} and {domain}"],
    );
    refuses(
        &one("domains = [\"*.example\"]"),
        "2:12: next_hop.domains: ",
        &["stands alone"],
    );
    refuses(
        &one("password_file = \"p\""),
        "2:17: next_hop.password_file: ",
        &["without `username`"],
    );
    refuses(
        &one("max_connections = 0"),
        "2:19: next_hop.max_connections: ",
        &["from 1"],
    );
    refuses(
        "[tls]\ncertificate = \"c\"",
        "2:15: tls.certificate: ",
        &["without `key`"],
    );
    refuses(
        "[tls]\ncertificate = \"c\"\nself_signed = true",
        "2:15: tls.certificate: ",
        &["self_signed"],
    );
    refuses("[tls]\nself_signed = false", "1:1: tls: ", &["`certificate` and `key`"]);
    refuses("[queue]\nretry = []", "2:9: queue.retry: ", &["at least one"]);
    refuses(
        "[queue]\nexpire = \"1y\"",
        "2:10: queue.expire: ",
        &["units are d, h, m, s, ms"],
    );
    refuses("[queue]\nexpire = \"-1d\"", "2:10: queue.expire: ", &["not negative"]);
    refuses(
        "[queue]\nmemory = \"10 sheets\"",
        "2:10: queue.memory: ",
        &["units are"],
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
        ("[tls]\nself_signed = true", "[tls]"),
        ("[[next_hop]]\nto = [\"mx:\"]", "mx:"),
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
