//! What a sink found, as text for people and as JSON for programs.
//!
//! Promises: both say the same; what did not happen is not mentioned in the text. Pure.

use std::fmt::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::Stage;
use super::tally::{Deeds, Tally};
use crate::identity::ledger::{Comparison, Fault};

/// Examples of a fault that the text shows; the JSON has more.
const EXAMPLES_SHOWN: usize = 5;

/// The findings of a run of the sink.
#[derive(Debug)]
pub struct Summary {
    pub tally: Tally,
    /// Against what was to arrive, if that was said.
    pub comparison: Option<Comparison>,
    /// Different messages that were to arrive.
    pub expected_messages: Option<u64>,
    /// How long it ran.
    pub seconds: f64,
    /// From the first message to the last.
    pub busy: Duration,
    /// CPU time of all threads.
    pub cpu: Duration,
}

/// The line that is shown while it runs.
pub fn progress(messages: u64, rate: f64, open: u64, octets: u64, faults: u64) -> String {
    let mut line = format!(
        "{messages} messages, {rate:.0}/s, {open} connections, {} in all",
        readable_octets(octets)
    );
    if faults > 0 {
        // Writing to a string does not fail.
        let _ = write!(line, ", {faults} DUPLICATED OR ALTERED");
    }
    line
}

fn readable_octets(octets: u64) -> String {
    match octets as f64 {
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

impl Summary {
    /// How many of `--expect-messages` are missing.
    fn missing(&self) -> u64 {
        let wanted = self.expected_messages.unwrap_or_default();
        wanted.saturating_sub(self.tally.ledger.distinct())
    }

    /// Whether nothing was lost, duplicated or altered, as far as it was told what to expect.
    pub fn is_good(&self) -> bool {
        let clean = self.comparison.as_ref().is_none_or(Comparison::is_clean);
        clean && self.missing() == 0 && !self.tally.ledger.has_faults()
    }

    /// Messages in a second between the first and the last.
    pub fn rate(&self) -> Option<f64> {
        (self.busy > Duration::from_millis(100)).then(|| self.tally.messages as f64 / self.busy.as_secs_f64())
    }

    fn cpu_a_message(&self) -> Option<f64> {
        (self.tally.messages > 0).then(|| self.cpu.as_secs_f64() * 1e6 / self.tally.messages as f64)
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Value {
        let tally = &self.tally;
        let deeds: serde_json::Map<_, _> = Stage::ALL
            .iter()
            .zip(&tally.deeds)
            .filter(|(_, deeds)| **deeds != Deeds::default())
            .map(|((_, name), deeds)| ((*name).into(), deeds_to_json(deeds)))
            .collect();
        json!({
            "messages": tally.messages, "recipients": tally.recipients, "octets": tally.octets,
            "connections": tally.connections, "seconds": self.seconds, "busy_seconds": self.busy.as_secs_f64(),
            "messages_per_second": self.rate(), "cpu_us_per_message": self.cpu_a_message(),
            "too_big": tally.too_big, "abandoned": tally.abandoned,
            "secured": tally.secured, "tls_failures": tally.tls_failures,
            "violations": tally.violations.to_json(), "faults": deeds,
            "identities": tally.verifying.then(|| tally.ledger.to_json()),
            "expected_messages": self.expected_messages, "missing": self.expected_messages.map(|_| self.missing()),
            "expected": self.comparison.as_ref().map(Comparison::to_json),
            "good": self.is_good(),
        })
    }
}

fn deeds_to_json(deeds: &Deeds) -> Value {
    json!({
        "delayed": deeds.delayed, "deferred": deeds.deferred, "refused": deeds.refused, "dropped": deeds.dropped,
        "stalled": deeds.stalled, "spoilt": deeds.spoilt, "falsified": deeds.falsified,
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        write!(
            f,
            "{} messages for {} recipients, {}, on {} connections in {:.2} s",
            tally.messages,
            tally.recipients,
            readable_octets(tally.octets),
            tally.connections,
            self.seconds
        )?;
        match self.rate() {
            Some(rate) => writeln!(f, ": {rate:.0} messages/s while they came")?,
            None => writeln!(f)?,
        }
        if let Some(cpu) = self.cpu_a_message() {
            let share = self.cpu.as_secs_f64() / self.busy.as_secs_f64().max(1e-9) * 100.0;
            write!(f, "sink         {cpu:.2} µs CPU a message")?;
            match self.rate() {
                Some(_) => writeln!(f, ", {share:.0} % of a core")?,
                None => writeln!(f)?,
            }
        }
        if tally.secured > 0 {
            writeln!(f, "tls          {} connections", tally.secured)?;
        }
        self.faults_on_purpose(f)?;
        for (count, what) in [
            (tally.abandoned, "connections ended within a transaction"),
            (tally.too_big, "messages were over the size limit"),
            (tally.tls_failures, "TLS handshakes failed"),
        ] {
            if count > 0 {
                writeln!(f, "note         {count} {what}")?;
            }
        }
        told(f, "VIOLATION", &tally.violations, "commands that no client should send")?;
        self.identities(f)
    }
}

impl Summary {
    fn faults_on_purpose(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((_, name), deeds) in Stage::ALL.iter().zip(&self.tally.deeds) {
            if *deeds == Deeds::default() {
                continue;
            }
            write!(f, "as told      {name}:")?;
            for (count, what) in [
                (deeds.delayed, "delayed"),
                (deeds.deferred, "deferred"),
                (deeds.refused, "refused"),
                (deeds.dropped, "dropped"),
                (deeds.stalled, "stalled"),
                (deeds.spoilt, "spoilt"),
                (deeds.falsified, "falsified"),
            ] {
                if count > 0 {
                    write!(f, " {count} {what}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn identities(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tally.verifying {
            return writeln!(f, "identities   not looked at");
        }
        let ledger = &self.tally.ledger;
        writeln!(
            f,
            "identities   {} different, {} without one, {} came again after a lost reply",
            ledger.distinct(),
            ledger.unidentified,
            ledger.repeated
        )?;
        told(f, "DUPLICATED", &ledger.duplicated, "copies")?;
        told(f, "ALTERED", &ledger.altered, "messages")?;
        if ledger.untracked > 0 {
            writeln!(
                f,
                "WARNING      {} identities were too many to be kept",
                ledger.untracked
            )?;
        }
        if let Some(comparison) = &self.comparison {
            told(f, "LOST", &comparison.lost, "that were accepted did not come")?;
            told(f, "UNEXPECTED", &comparison.unexpected, "came though not accepted")?;
            if comparison.is_clean() {
                writeln!(f, "expected     all that was accepted has come, and nothing else")?;
            }
        }
        match (self.missing(), self.expected_messages) {
            (0, _) | (_, None) => Ok(()),
            (missing, Some(wanted)) => writeln!(f, "LOST         {missing} of {wanted} messages did not come"),
        }
    }
}

fn told(f: &mut fmt::Formatter<'_>, title: &str, fault: &Fault, what: &str) -> fmt::Result {
    if fault.count == 0 {
        return Ok(());
    }
    writeln!(f, "{title:<12} {} {what}", fault.count)?;
    for example in fault.examples.iter().take(EXAMPLES_SHOWN) {
        writeln!(f, "             {example}")?;
    }
    if fault.count > EXAMPLES_SHOWN as u64 {
        writeln!(f, "             ...")?;
    }
    Ok(())
}
