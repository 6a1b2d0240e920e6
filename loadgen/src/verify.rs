//! `loadgen verify`: what lies in Maildirs, .eml files or an mbox, held against what was accepted.
//!
//! Promises: whatever a hop may put on top of a message, and LF in place of CRLF, is no alteration; one message at a time is
//! held in memory. Used after a run; reads files only.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::identity::expect::Expectation;
use crate::identity::ledger::{Comparison, Fault, Ledger, recipient};
use crate::identity::{Examiner, Found};
use crate::message::corpus;

/// Folders within folders that are looked into.
const DEPTH_MAX: usize = 32;
/// Examples of a fault that the text shows.
const EXAMPLES_SHOWN: usize = 5;

/// Checks what has been delivered: nothing lost, nothing twice, nothing altered.
///
/// Exit status: 0 when all is well, 1 when not.
#[derive(Clone, Debug, Args)]
pub struct VerifyFlags {
    /// A Maildir, a folder with Maildirs or .eml files anywhere below it, or an mbox; several are taken together.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// What a generator wrote with --expect. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub expect: Vec<PathBuf>,
    /// So many different messages have to be there.
    #[arg(long, value_name = "N")]
    pub expect_messages: Option<u64>,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Reads everything and prints what was found; whether all is well.
pub fn run(flags: &VerifyFlags) -> Result<bool, String> {
    let expected = flags
        .expect
        .iter()
        .map(|path| Expectation::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let mut reading = Reading {
        expected: &expected,
        ledger: Ledger::default(),
        copies: HashMap::new(),
        messages: 0,
    };
    for path in &flags.paths {
        reading.look_into(path, 0)?;
    }
    let Reading { ledger, messages, .. } = reading;
    let comparison = (!expected.is_empty()).then(|| ledger.compare(&expected));
    let missing = flags
        .expect_messages
        .unwrap_or_default()
        .saturating_sub(ledger.distinct());
    let good = missing == 0 && !ledger.has_faults() && comparison.as_ref().is_none_or(Comparison::is_clean);
    crate::say(format_args!(
        "{}",
        text(&ledger, messages, comparison.as_ref(), missing, good)
    ));
    if let Some(path) = &flags.json {
        let figures = json!({
            "files": messages, "identities": ledger.to_json(), "missing": missing, "good": good,
            "expected": comparison.as_ref().map(Comparison::to_json),
        });
        fs::write(path, format!("{figures:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(good)
}

fn text(ledger: &Ledger, messages: u64, comparison: Option<&Comparison>, missing: u64, good: bool) -> String {
    let mut text = format!(
        "{messages} messages read: {} different ones of a generator, {} others\n",
        ledger.distinct(),
        ledger.unidentified
    );
    let mut tell = |title: &str, fault: &Fault, what: &str| {
        if fault.count > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{title:<12} {} {what}", fault.count);
            for example in fault.examples.iter().take(EXAMPLES_SHOWN) {
                let _ = writeln!(text, "             {example}");
            }
        }
    };
    tell("DUPLICATED", &ledger.duplicated, "copies too many");
    tell("ALTERED", &ledger.altered, "messages");
    if let Some(comparison) = comparison {
        tell("LOST", &comparison.lost, "that were accepted are not here");
        tell(
            "UNEXPECTED",
            &comparison.unexpected,
            "are here though they were not accepted",
        );
    }
    if missing > 0 {
        let _ = writeln!(text, "LOST         {missing} messages fewer than expected");
    }
    if good {
        text.push_str(match comparison {
            Some(_) => "all that was accepted is here, once and whole, and nothing else of the run\n",
            None => "nothing is here twice or altered\n",
        });
    }
    text
}

struct Reading<'a> {
    expected: &'a [Expectation],
    ledger: Ledger,
    /// Copies seen of messages that do not say whom they are for.
    copies: HashMap<(u32, u64), usize>,
    messages: u64,
}

impl Reading<'_> {
    fn look_into(&mut self, path: &Path, depth: usize) -> Result<(), String> {
        let said = |error: std::io::Error| format!("{}: {error}", path.display());
        if !path.is_dir() {
            corpus::read(path)?.iter().for_each(|message| self.take(message));
            return Ok(());
        }
        for file in corpus::files(path).map_err(said)? {
            let content = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            self.take(&corpus::with_crlf(&content));
        }
        for entry in fs::read_dir(path).map_err(said)? {
            let below = entry.map_err(said)?.path();
            // The parts of a Maildir: cur and new are read already, tmp is not delivered.
            let is_part = ["cur", "new", "tmp"].iter().any(|part| below.ends_with(part));
            if below.is_dir() && !below.is_symlink() && !is_part && depth < DEPTH_MAX {
                self.look_into(&below, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Takes a message with CRLF.
    fn take(&mut self, content: &[u8]) {
        self.messages += 1;
        let mut examiner = Examiner::default();
        examiner.feed(content);
        let found = examiner.finish();
        let mut recipients = delivered_to(content);
        if recipients.is_empty() {
            recipients.push(self.some_recipient(&found));
        }
        self.ledger.arrived(&found, recipients, false);
    }

    /// A message that does not say whom it is for is taken to be for the next recipient of the run.
    fn some_recipient(&mut self, found: &Found) -> u32 {
        let Some(identity) = found.identity else { return 0 };
        let copies = self.copies.entry((identity.run, identity.serial)).or_default();
        let expectation = self.expected.iter().find(|expectation| expectation.run == identity.run);
        let all = expectation
            .map(|expectation| expectation.recipients.as_slice())
            .unwrap_or_default();
        let one = all
            .get(*copies)
            .or_else(|| all.first())
            .map_or(0, |(_, recipient)| *recipient);
        *copies += 1;
        one
    }
}

/// Who the message says it was delivered to: `Delivered-To` of the header, as often as it is there.
fn delivered_to(content: &[u8]) -> Vec<u32> {
    let lines = content
        .split(|octet| *octet == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let fields = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_at_checked(b"Delivered-To:".len())?;
        name.eq_ignore_ascii_case(b"Delivered-To:").then(|| value.trim_ascii())
    });
    let bare = |value: &[u8]| {
        let inside = value.strip_prefix(b"<").and_then(|value| value.strip_suffix(b">"));
        recipient(inside.unwrap_or(value))
    };
    fields.map(bare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::expect::{Fate, Fates};
    use crate::identity::{Body, Identity};

    /// A message as it lies in a Maildir.
    fn file(serial: u64, top: &str) -> String {
        let body = "first\r\nlast\r\n";
        let identity = Identity {
            run: 1,
            serial,
            connection: 0,
            body: Body::of(body.as_bytes()),
        };
        format!(
            "{top}Received: by hop\n{}\n{}",
            identity.field().replace('\r', ""),
            body.replace('\r', "")
        )
    }

    fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// Whether all is well, and the figures.
    fn verify(folder: &tempfile::TempDir, accepted: u64, recipients: &[&str]) -> (bool, serde_json::Value) {
        let mut fates = Fates::default();
        (0..accepted).for_each(|serial| fates.note(serial, Fate::Accepted));
        let recipients: Vec<String> = recipients.iter().map(|r| (*r).into()).collect();
        let aside = tempfile::tempdir().unwrap();
        let (expect, json) = (aside.path().join("expect"), aside.path().join("json"));
        fates.expectation(1, &recipients).write(&expect).unwrap();
        let good = run(&VerifyFlags {
            paths: vec![folder.path().into()],
            expect: vec![expect],
            expect_messages: None,
            json: Some(json.clone()),
        });
        let figures = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
        (good.unwrap(), figures)
    }

    #[test]
    fn maildirs_anywhere_below_are_read_and_line_ends_do_not_matter() {
        let folder = folder(&[
            ("x/a/new/1", file(0, "Delivered-To: a@x\n")),
            ("x/b/cur/2", file(0, "Delivered-To: <b@x>\n")),
            (
                "x/b/new/3",
                file(1, "Delivered-To: a@x\nDelivered-To: b@x\n").replace('\n', "\r\n"),
            ),
            ("x/b/tmp/4", file(7, "")),
        ]);
        let (good, figures) = verify(&folder, 2, &["a@x", "b@x"]);
        assert!(good, "{figures}");
        assert_eq!(figures["identities"]["distinct"], 2);
    }

    #[test]
    fn copies_without_a_recipient_are_one_for_each_and_no_more() {
        let folder_of = |copies: &[&str]| {
            let files: Vec<(&str, String)> = copies.iter().map(|name| (*name, file(0, ""))).collect();
            folder(&files)
        };
        assert!(verify(&folder_of(&["new/1", "new/2"]), 1, &["a@x", "b@x"]).0);
        assert!(!verify(&folder_of(&["new/1"]), 1, &["a@x", "b@x"]).0);
        let (good, figures) = verify(&folder_of(&["new/1", "new/2", "new/3"]), 1, &["a@x", "b@x"]);
        assert_eq!(
            (good, &figures["identities"]["duplicated"]["count"]),
            (false, &1.into())
        );
    }

    #[test]
    fn loss_alteration_and_strangers_are_found() {
        let folder = folder(&[
            ("new/1", file(0, "Delivered-To: a@x\n").replace("first", "worst")),
            ("new/2", file(9, "Delivered-To: a@x\n")),
            ("new/3", "Subject: another\n\n".into()),
        ]);
        let (good, figures) = verify(&folder, 2, &["a@x"]);
        assert!(!good);
        assert_eq!(figures["identities"]["altered"]["count"], 1);
        assert_eq!(figures["identities"]["unidentified"], 1);
        assert_eq!(figures["expected"]["lost"]["examples"][0], "00000001-000000000001");
        assert_eq!(
            figures["expected"]["unexpected"]["examples"][0],
            "00000001-000000000009"
        );
    }
}
