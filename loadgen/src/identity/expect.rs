//! What is to arrive: what became of each message of a run, as the generator saw it, in a file that the other end reads.
//!
//! The file is JSON: `run`, `recipients` (addresses; every message goes to all of them), `accepted` and `uncertain` as
//! ranges of serial numbers, both ends included. Accepted: the server said yes to every recipient and to the content, so it
//! has to arrive for each, once. Uncertain: it may arrive or not (no final reply came, or some recipients were refused).
//! Promises: an octet of memory a message while the run lasts. Pure but for reading and writing the file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ledger::recipient;

/// What became of a message, as far as its sender knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// Never offered, or refused: it must not arrive.
    #[default]
    Absent,
    /// The server took it for every recipient.
    Accepted,
    /// Nobody knows: it may arrive.
    Uncertain,
}

/// The fates of the messages of a run, noted while it lasts.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    fates: Vec<Fate>,
}

impl Fates {
    /// Notes what became of a message; `serial` is the generator's own, so that the memory is what it has sent.
    pub fn note(&mut self, serial: u64, fate: Fate) {
        let Ok(at) = usize::try_from(serial) else { return };
        if at >= self.fates.len() {
            self.fates.resize(at + 1, Fate::Absent);
        }
        if let Some(place) = self.fates.get_mut(at) {
            *place = fate;
        }
    }

    /// Puts in what another thread noted of the same run.
    pub fn absorb(&mut self, other: &Self) {
        for (serial, fate) in other
            .fates
            .iter()
            .enumerate()
            .filter(|(_, fate)| **fate != Fate::Absent)
        {
            self.note(serial as u64, *fate);
        }
    }

    /// What the other end is to expect.
    pub fn expectation(&self, run: u32, recipients: &[String]) -> Expectation {
        let with = |wanted: Fate| {
            let all = self.fates.iter().enumerate();
            all.filter(|(_, fate)| **fate == wanted)
                .map(|(serial, _)| serial as u64)
                .collect()
        };
        Expectation {
            run,
            recipients: recipients
                .iter()
                .map(|r| (r.clone(), recipient(r.as_bytes())))
                .collect(),
            accepted: with(Fate::Accepted),
            uncertain: with(Fate::Uncertain),
        }
    }
}

/// Serial numbers as ranges, both ends included, in order and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serials(Vec<(u64, u64)>);

impl FromIterator<u64> for Serials {
    /// From numbers in rising order.
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        Self(ranges)
    }
}

impl Serials {
    /// Every number.
    pub fn serials(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .map(|(first, last)| last.saturating_sub(*first).saturating_add(1))
            .sum()
    }

    fn contains(&self, number: u64) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= number);
        let range = behind.checked_sub(1).and_then(|at| self.0.get(at));
        range.is_some_and(|(_, last)| number <= *last)
    }
}

/// What is to arrive of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The run.
    pub run: u32,
    /// Each address with what the ledger knows it by; none when only the messages are to be counted.
    pub recipients: Vec<(String, u32)>,
    /// What has to arrive.
    pub accepted: Serials,
    /// What may arrive.
    pub uncertain: Serials,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Paper {
    run: String,
    messages: u64,
    recipients: Vec<String>,
    accepted: Serials,
    #[serde(default)]
    uncertain: Serials,
}

impl Expectation {
    /// What became of a message.
    pub fn fate(&self, serial: u64) -> Fate {
        match () {
            () if self.accepted.contains(serial) => Fate::Accepted,
            () if self.uncertain.contains(serial) => Fate::Uncertain,
            () => Fate::Absent,
        }
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let paper = Paper {
            run: format!("{:08x}", self.run),
            messages: self.accepted.count(),
            recipients: self.recipients.iter().map(|(address, _)| address.clone()).collect(),
            accepted: self.accepted.clone(),
            uncertain: self.uncertain.clone(),
        };
        let text = serde_json::to_string(&paper).map_err(|error| error.to_string());
        text.and_then(|text| std::fs::write(path, text + "\n").map_err(|error| error.to_string()))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let paper: Paper = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let run = u32::from_str_radix(&paper.run, 16).map_err(|_| format!("\"{}\" names no run", paper.run))?;
        for Serials(ranges) in [&paper.accepted, &paper.uncertain] {
            let in_order = ranges.iter().all(|(first, last)| first <= last)
                && ranges
                    .windows(2)
                    .all(|two| matches!(two, [(_, last), (first, _)] if last < first));
            if !in_order {
                return Err("the ranges are not in order".into());
            }
        }
        let recipients = paper.recipients.into_iter();
        Ok(Self {
            run,
            recipients: recipients.map(|r| (r.clone(), recipient(r.as_bytes()))).collect(),
            accepted: paper.accepted,
            uncertain: paper.uncertain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut fates = Fates::default();
        for serial in [0, 1, 2, 5, 6, 9] {
            fates.note(serial, Fate::Accepted);
        }
        fates.note(7, Fate::Uncertain);
        fates.note(8, Fate::Absent);
        let expectation = fates.expectation(0xabc, &["a@example.com".into()]);
        assert_eq!(expectation.accepted, Serials(vec![(0, 2), (5, 6), (9, 9)]));
        assert_eq!(expectation.accepted.count(), 6);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("expect.json");
        expectation.write(&path).unwrap();
        let read = Expectation::read(&path).unwrap();
        assert_eq!(read, expectation);
        let fates: Vec<Fate> = (0..11).map(|serial| read.fate(serial)).collect();
        use Fate::*;
        let expected = [
            Accepted, Accepted, Accepted, Absent, Absent, Accepted, Accepted, Uncertain, Absent, Accepted, Absent,
        ];
        assert_eq!(fates, expected);
    }

    #[test]
    fn threads_put_their_notes_together() {
        let (mut one, mut other) = (Fates::default(), Fates::default());
        one.note(0, Fate::Accepted);
        other.note(3, Fate::Uncertain);
        one.absorb(&other);
        assert_eq!(one.expectation(1, &[]).uncertain, Serials(vec![(3, 3)]));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        for wrong in [
            "",
            "{}",
            r#"{"run":"x","messages":1,"recipients":[],"accepted":[]}"#,
            r#"{"run":"1","messages":1,"recipients":[],"accepted":[[3,1]]}"#,
            r#"{"run":"1","messages":1,"recipients":[],"accepted":[[3,4],[4,5]]}"#,
        ] {
            assert!(Expectation::parse(wrong).is_err(), "{wrong}");
        }
    }
}
