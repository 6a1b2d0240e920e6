//! `postern tune`: this host held against what tuning/ recommends.
//!
//! Promises: changes nothing; every change that it asks for says why, shows its counter and the command. What comes from the
//! host is escaped. Lives on the main thread.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::Config;
use crate::host::facts::{Needs, Whose};
use crate::host::judge::{Finding, Verdict, judge};
use crate::host::proc::{Host, Tried};
use crate::host::sync;
use crate::lookup::operator::{SOCKET, to_line};
use crate::server::needs;

/// Syncs that are timed.
const SYNCS: usize = 30;

pub(super) const HELP: &str = "\
Reads kernel settings, limits, counters, cores and the device of data_dir, where it times a few syncs; changes nothing. The limits \
are those of the running edge, where one runs with this data_dir, else of this shell: say --config FILE as it was started with, in \
the same directory, as the same user or root. tuning/README.md has more about each line, by its name.
Exit status: 0 all as advised, 1 something to change, 2 wrong command line or configuration.";

/// Answers `postern tune`.
pub(super) fn run(config: &Config, json: bool) -> ExitCode {
    let whose = running(&config.data_dir).map_or(Whose::Shell, Whose::Edge);
    let mut needs = needs::of(config, whose);
    needs.data_dir = nearest(&config.data_dir);
    let tried = Tried {
        ring: needs::ring(),
        syncs: sync::measure(&needs.data_dir, SYNCS),
        cores: needs::cores(whose),
    };
    let facts = Host::new(Path::new("/"), whose).read(&needs, tried);
    let findings = judge(&facts, &needs);
    let text = if json {
        findings.iter().map(|finding| as_json(finding) + "\n").collect()
    } else {
        let paint = Paint(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
        as_text(&findings, whose, &needs, paint)
    };
    // A reader that went away has read enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    match changes(&findings) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn changes(findings: &[Finding]) -> usize {
    findings
        .iter()
        .filter(|f| matches!(f.verdict, Verdict::Change { .. }))
        .count()
}

/// The process that listens on the operator's socket: the edge with this `data_dir`.
fn running(data_dir: &Path) -> Option<u32> {
    let stream = UnixStream::connect(data_dir.join(SOCKET)).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
}

/// The directory itself, or where it would be made.
fn nearest(data_dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let there = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    there.unwrap_or(absolute)
}

/// Colours on a terminal, nothing elsewhere.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn word(self, verdict: &Verdict) -> String {
        let word = match verdict {
            Verdict::Change { .. } => "CHANGE",
            other => other.name(),
        };
        let colour = match verdict {
            Verdict::Change { .. } => "31",
            Verdict::AsAdvised { .. } => "32",
            Verdict::Note { .. } | Verdict::Unread(_) => "33",
            Verdict::NotHere(_) => "2",
        };
        if self.0 {
            format!("\x1b[{colour}m{word:<8}\x1b[0m")
        } else {
            format!("{word:<8}")
        }
    }
}

fn as_text(findings: &[Finding], whose: Whose, needs: &Needs, paint: Paint) -> String {
    let mut text = match whose {
        Whose::Edge(pid) => format!("The edge runs as process {pid}; limits are its own.\n\n"),
        Whose::Shell => "No edge runs with this data_dir; limits are those of this shell.\n\n".to_owned(),
    };
    let mut line = |first: &str, second: &str, rest: &str| text += &format!("{first}{second:<18}{}\n", escaped(rest));
    for Finding {
        advice,
        verdict,
        counters,
    } in findings
    {
        let counters: Vec<_> = counters.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let counters = counters.join(", ");
        let word = paint.word(verdict);
        let more = |name: &str| format!("        {name:<9}");
        match verdict {
            Verdict::AsAdvised { found } => line(&word, advice.id, found),
            Verdict::NotHere(why) => line(&word, advice.id, why),
            Verdict::Unread(why) => line(&word, advice.id, why),
            Verdict::Note { found, mind } => {
                line(&word, advice.id, found);
                line(&more("mind"), mind, "");
            }
            Verdict::Change { found, wanted, command } => {
                line(&word, advice.id, found);
                line(&more("wanted"), &escaped(wanted), "");
                line(&more("why"), advice.why, "");
                if !counters.is_empty() {
                    line(&more("shown by"), &counters, "");
                }
                line(&more("cost"), advice.cost, "");
                line(&more("command"), &escaped(command), "");
            }
        }
    }
    let count = |name: &str| findings.iter().filter(|f| f.verdict.name() == name).count();
    let lines = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    format!(
        "{lines}\n\n{} to change, {} as advised, {} to know, {} not on this host, {} unread; {} shards, data_dir in {}\n",
        count("change"),
        count("ok"),
        count("note"),
        count("absent"),
        count("unread"),
        needs.shards,
        escaped(&needs.data_dir.display().to_string()),
    )
}

/// One object a row, all its values texts.
fn as_json(finding: &Finding) -> String {
    let advice = finding.advice;
    let mut object = BTreeMap::from([
        ("id", advice.id.to_owned()),
        ("verdict", finding.verdict.name().to_owned()),
        ("why", advice.why.to_owned()),
        ("cost", advice.cost.to_owned()),
    ]);
    match &finding.verdict {
        Verdict::AsAdvised { found } => drop(object.insert("found", found.clone())),
        Verdict::Change { found, wanted, command } => {
            object.insert("found", found.clone());
            object.insert("wanted", wanted.clone());
            object.insert("command", command.clone());
        }
        Verdict::Note { found, mind } => {
            object.insert("found", found.clone());
            object.insert("mind", mind.clone());
        }
        Verdict::NotHere(why) | Verdict::Unread(why) => drop(object.insert("found", why.clone())),
    }
    for (name, value) in &finding.counters {
        object.insert(name, value.to_string());
    }
    to_line(&object)
}

/// What comes from a file of the host moves no cursor.
fn escaped(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::advice::rows;

    fn finding(verdict: Verdict) -> Finding {
        Finding {
            advice: rows().find(|row| row.id == "listen-queue").unwrap(),
            verdict,
            counters: vec![("TcpExtListenOverflows", 7)],
        }
    }

    fn change() -> Finding {
        finding(Verdict::Change {
            found: "it is 128".into(),
            wanted: "at least 4096".into(),
            command: "sysctl -w 'x=4096'".into(),
        })
    }

    fn needs() -> Needs {
        needs::of(&Config::embedded().unwrap(), Whose::Shell)
    }

    #[test]
    fn a_change_says_what_is_there_what_should_be_why_its_counter_its_cost_and_its_command() {
        let text = as_text(&[change()], Whose::Edge(7), &needs(), Paint(false));
        for word in [
            "CHANGE  listen-queue      it is 128",
            "at least 4096",
            "tries again",
            "TcpExtListenOverflows 7",
            "Kernel memory",
            "sysctl -w 'x=4096'",
            "process 7",
            "1 to change, 0 as advised",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn on_a_terminal_there_is_colour_and_nothing_of_the_host_moves_the_cursor() {
        let bad = finding(Verdict::Unread("a \x1b[2J name".into()));
        let text = as_text(&[change(), bad], Whose::Shell, &needs(), Paint(true));
        assert!(
            text.contains("\x1b[31mCHANGE") && text.contains("a ?[2J name"),
            "{text:?}"
        );
    }

    #[test]
    fn json_has_an_object_with_all_of_it() {
        assert_eq!(changes(&[change(), finding(Verdict::NotHere("no".into()))]), 1);
        let object: serde_json::Value = serde_json::from_str(&as_json(&change())).unwrap();
        assert_eq!(object["id"], "listen-queue");
        assert_eq!(object["verdict"], "change");
        assert_eq!(object["found"], "it is 128");
        assert_eq!(object["wanted"], "at least 4096");
        assert_eq!(object["command"], "sysctl -w 'x=4096'");
        assert_eq!(object["TcpExtListenOverflows"], "7");
    }
}
