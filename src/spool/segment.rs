//! Which segments of a directory there are, and which may go.
//!
//! A segment holds records of messages (their content) and records about messages that were begun in other segments
//! (progress, settled, seals). It may go when
//! - no message that lives has content in it, and
//! - what it says about messages of other segments is said again, later, in a summary of those, or they are gone.
//!
//! So a message whose settling was synced never comes back: as long as any of its records could be found, something is
//! found that ends it. What refers to a segment that is gone is dead: it went because nothing in it lived.
//!
//! Promises: plain bookkeeping. Lives on its shard.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use super::record::Seal;

/// One segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Segment {
    /// Octets of its file.
    pub(super) size: u64,
    /// Messages, not yet durably settled, with content in it.
    pub(super) pins: usize,
    /// The messages that begin in it, in order.
    pub(super) begun: Vec<u64>,
    /// The segments about whose messages it says something.
    pub(super) about: BTreeSet<u32>,
    /// Poisoned segments of which only this one says where they end.
    pub(super) holds: Vec<u32>,
    /// The segment with the last durable summary of this one.
    pub(super) summary: Option<u32>,
    /// The segment with the first part of the last summary, durable or not.
    pub(super) summary_begins: Option<u32>,
    /// A summary is on its way.
    pub(super) summarising: bool,
    /// Its removal is under way.
    pub(super) leaving: bool,
    /// A write or a sync failed: it is not to be used again.
    pub(super) poisoned: bool,
    /// It stays as it is, whatever happens.
    pub(super) kept: bool,
}

/// All segments of a directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments {
    all: BTreeMap<u32, Segment>,
    /// Those that might go; none that is being written.
    candidates: BTreeSet<u32>,
    /// Something has changed since they were looked through.
    changed: bool,
}

/// What [`Segments::reap`] finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reaped {
    /// These may go.
    pub(super) free: Vec<u32>,
    /// These could go if there were a summary of each of the `homes`.
    pub(super) blocked: Vec<u32>,
    /// Octets of the files of those.
    pub(super) octets: u64,
    pub(super) homes: BTreeSet<u32>,
}

impl Segments {
    pub(super) fn insert(&mut self, number: u32, segment: Segment) {
        self.all.insert(number, segment);
    }

    pub(super) fn find(&mut self, number: u32) -> Option<&mut Segment> {
        self.all.get_mut(&number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn highest(&self) -> Option<u32> {
        self.all.keys().next_back().copied()
    }

    /// Nothing is written into it any more.
    pub(super) fn retire(&mut self, number: u32) {
        if self.all.contains_key(&number) {
            self.candidates.insert(number);
            self.changed = true;
        }
    }

    /// All of them, for a directory into which nothing is written.
    pub(super) fn retire_all(&mut self) {
        self.candidates.extend(self.all.keys());
        self.changed = true;
    }

    /// A message that was found lives in them.
    pub(super) fn count_in(&mut self, id: u64, entry: &Entry) {
        for number in &entry.segments {
            self.pin(*number);
        }
        if let Some(home) = self.find(entry.home) {
            home.begun.push(id);
        }
    }

    /// A message with content in it begins to live.
    pub(super) fn pin(&mut self, number: u32) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.pins += 1;
        }
    }

    /// A message with content in it is durably done with. `written`: the segment that is being written.
    pub(super) fn unpin(&mut self, number: u32, written: Option<u32>) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.pins = segment.pins.saturating_sub(1);
            if segment.pins == 0 && written != Some(number) {
                self.candidates.insert(number);
                self.changed = true;
            }
        }
    }

    /// Notes the seals that stand in a segment.
    pub(super) fn hold(&mut self, number: u32, seals: &[Seal]) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment
                .holds
                .extend(seals.iter().filter(|seal| seal.poisoned).map(|seal| seal.segment));
        }
    }

    /// A write or sync has failed. `void`: nothing in it was durable, so it says nothing about others either.
    pub(super) fn poison(&mut self, number: u32, void: bool) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.poisoned = true;
            if void {
                segment.about.clear();
                segment.holds.clear();
            }
        }
        self.retire(number);
    }

    /// The segment, if it says nothing and holds nothing; it then counts as leaving.
    pub(super) fn free_if_empty(&mut self, number: u32) -> Option<u32> {
        let segment = self.all.get_mut(&number)?;
        let empty = segment.pins == 0 && segment.about.is_empty() && segment.holds.is_empty();
        let free = empty && !segment.leaving && !segment.kept;
        segment.leaving |= free;
        free.then_some(number)
    }

    pub(super) fn is_poisoned(&self, number: u32) -> bool {
        self.all.get(&number).is_some_and(|segment| segment.poisoned)
    }

    /// Whether any stays whatever happens.
    pub(super) fn are_kept(&self) -> bool {
        self.all.values().any(|segment| segment.kept)
    }

    /// It is gone, durably.
    pub(super) fn gone(&mut self, number: u32) {
        self.all.remove(&number);
        self.changed = true;
    }

    /// It could not be removed.
    pub(super) fn stays(&mut self, number: u32) {
        if let Some(segment) = self.all.get_mut(&number) {
            segment.leaving = false;
            segment.kept = true;
            self.changed = true;
        }
    }

    /// The last summary of a segment is durable.
    pub(super) fn summarised(&mut self, number: u32) {
        if let Some(segment) = self.all.get_mut(&number) {
            (segment.summary, segment.summarising) = (segment.summary_begins, false);
            self.changed = true;
        }
    }

    /// Whether something has changed since the last [`Segments::reap`].
    pub(super) fn have_changed(&self) -> bool {
        self.changed
    }

    /// Looks through the candidates. To be called when all that was written is durable.
    pub(super) fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped::default();
        self.changed = false;
        let candidates: Vec<u32> = self.candidates.iter().copied().collect();
        for number in candidates {
            let Some(segment) = self.all.get(&number) else {
                self.candidates.remove(&number);
                continue;
            };
            if segment.pins > 0 || segment.kept || segment.leaving {
                self.candidates.remove(&number);
                continue;
            }
            let held = segment.holds.iter().any(|held| self.all.contains_key(held));
            let needed = segment.about.iter().copied().filter(|home| self.needs(*home, number));
            let needed: BTreeSet<u32> = needed.collect();
            if held {
                continue;
            }
            if needed.is_empty() {
                self.candidates.remove(&number);
                reaped.free.push(number);
            } else if needed.iter().all(|home| self.is_to_be_summarised(*home)) {
                reaped.blocked.push(number);
                reaped.octets += segment.size;
                reaped.homes.extend(needed);
            }
        }
        for number in &reaped.free {
            if let Some(segment) = self.all.get_mut(number) {
                segment.leaving = true;
            }
        }
        reaped
    }

    /// Whether it will stay for a while, and no summary of it is on its way.
    fn is_to_be_summarised(&self, home: u32) -> bool {
        self.all
            .get(&home)
            .is_some_and(|home| (home.pins > 0 || home.kept) && !home.summarising)
    }

    /// Whether what `number` says about messages of `home` is still needed.
    fn needs(&self, home: u32, number: u32) -> bool {
        home != number
            && self
                .all
                .get(&home)
                .is_some_and(|home| home.summary.is_none_or(|summary| summary <= number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(count: u32) -> Segments {
        let mut segments = Segments::default();
        (1..=count).for_each(|number| {
            segments.insert(
                number,
                Segment {
                    size: 100,
                    ..Segment::default()
                },
            )
        });
        segments
    }

    fn free(numbers: &[u32]) -> Reaped {
        Reaped {
            free: numbers.to_vec(),
            ..Reaped::default()
        }
    }

    fn blocked(number: u32, home: u32) -> Reaped {
        Reaped {
            free: Vec::new(),
            blocked: vec![number],
            octets: 100,
            homes: BTreeSet::from([home]),
        }
    }

    #[test]
    fn a_segment_goes_when_nothing_in_it_lives() {
        let mut segments = segments(2);
        segments.pin(1);
        segments.retire(1);
        assert_eq!(segments.reap(), free(&[]));
        segments.unpin(1, Some(2));
        assert_eq!(segments.reap(), free(&[1]));
        assert_eq!(segments.reap(), free(&[]));
    }

    #[test]
    fn the_segment_that_is_written_stays() {
        let mut segments = segments(1);
        segments.pin(1);
        segments.unpin(1, Some(1));
        assert_eq!(segments.reap(), free(&[]));
        segments.retire(1);
        assert_eq!(segments.reap(), free(&[1]));
    }

    #[test]
    fn what_ends_the_messages_of_another_segment_stays_until_that_is_gone() {
        let mut segments = segments(3);
        segments.find(2).unwrap().about.insert(1);
        segments.retire(1);
        segments.retire(2);
        assert_eq!(segments.reap(), free(&[1]));
        assert_eq!(segments.reap(), free(&[]));
        segments.gone(1);
        assert_eq!(segments.reap(), free(&[2]));
    }

    #[test]
    fn a_summary_of_a_segment_with_living_messages_lets_a_later_one_go() {
        let mut segments = segments(4);
        segments.pin(1);
        segments.find(2).unwrap().about.insert(1);
        segments.retire(1);
        segments.retire(2);
        assert_eq!(segments.reap(), blocked(2, 1));
        segments.find(1).unwrap().summarising = true;
        assert_eq!(segments.reap(), free(&[]));
        let first = segments.find(1).unwrap();
        (first.summary, first.summarising) = (Some(3), false);
        segments.find(3).unwrap().about.insert(1);
        assert_eq!(segments.reap(), free(&[2]));
        segments.retire(3);
        assert_eq!(segments.reap(), blocked(3, 1));
    }

    #[test]
    fn the_end_of_a_poisoned_segment_is_kept_as_long_as_that() {
        let mut segments = segments(3);
        segments.pin(1);
        let seal = |segment, poisoned| Seal {
            segment,
            end: 0,
            records: 0,
            poisoned,
        };
        segments.hold(2, &[seal(1, true)]);
        segments.hold(3, &[seal(2, false)]);
        segments.retire(2);
        segments.retire(3);
        assert_eq!(segments.reap(), free(&[3]));
        segments.gone(1);
        assert_eq!(segments.reap(), free(&[2]));
    }

    #[test]
    fn what_could_not_be_removed_stays_and_holds_nobody_up() {
        let mut segments = segments(2);
        segments.find(2).unwrap().about.insert(1);
        segments.retire(1);
        segments.retire(2);
        assert_eq!(segments.reap(), free(&[1]));
        segments.stays(1);
        assert_eq!(segments.reap(), blocked(2, 1));
    }
}
