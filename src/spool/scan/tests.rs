//! Segments with gaps, tears and damage.

use super::*;
use crate::spool::batch::{Batch, Place};
use crate::spool::record::{Seal, tag};
use proptest::prelude::*;

const ALIGNMENT: usize = 512;

/// A segment of groups that each hold one message's octets; every group was durable when the next was made.
struct Log {
    octets: Vec<u8>,
    sequence: u32,
    durable: u64,
}

impl Log {
    fn new() -> Log {
        Log {
            octets: Vec::new(),
            sequence: 0,
            durable: 0,
        }
    }

    fn group(&mut self, ids: &[u64], synced: bool) -> &mut Log {
        let mut batch = Batch::new();
        for id in ids {
            batch.push(Header::new(Kind::Chunk, *id), &[*id as u8; 300]);
        }
        let place = Place {
            segment: 1,
            tag: tag(7, 1),
            offset: self.octets.len() as u64,
            sequence: self.sequence,
            durable: self.durable,
            alignment: ALIGNMENT as u32,
            seals: &[],
        };
        let (octets, sequence) = batch.seal(place, |_, _| {});
        self.octets.extend(octets);
        self.sequence = sequence;
        if synced {
            self.durable = self.octets.len() as u64;
        }
        self
    }
}

/// A seal behind so many groups.
fn seal(end: u64, records: u32) -> Seal {
    Seal {
        segment: 1,
        end,
        records,
        poisoned: false,
    }
}

fn read(octets: &[u8], end: Option<&Seal>) -> (Vec<u64>, Scan) {
    let mut ids = Vec::new();
    let found = scan(octets, tag(7, 1), end, &mut |header, offset, payload| {
        if header.kind == Kind::Chunk {
            assert_eq!(&octets[offset as usize..][..payload.len()], payload);
            ids.push(header.id);
        }
    });
    (ids, found)
}

#[test]
fn every_record_of_an_untouched_segment_counts() {
    let mut log = Log::new();
    log.group(&[1, 2], true).group(&[3], true).group(&[4, 5, 6], false);
    let mut octets = log.octets.clone();
    octets.resize(octets.len() + 10_000, 0);
    let (ids, found) = read(&octets, None);
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    assert_eq!((found.damaged, found.torn), (0, false));
    assert_eq!(read(&octets, Some(&seal(log.octets.len() as u64, 9))), (ids, found));
}

#[test]
fn an_empty_segment_and_one_with_records_of_another_use_hold_nothing() {
    assert_eq!(read(&[], None), (vec![], Scan::default()));
    assert_eq!(read(&[0; 5000], None), (vec![], Scan::default()));
    let mut log = Log::new();
    log.group(&[1], true).group(&[2], true);
    assert_eq!(
        scan(&log.octets, tag(7, 2), None, &mut |_, _, _| panic!("a stale record")),
        Scan::default()
    );
}

#[test]
fn a_gap_in_what_was_never_synced_ends_the_segment() {
    let mut log = Log::new();
    log.group(&[1], true).group(&[2], false).group(&[3], false);
    let second = ALIGNMENT;
    log.octets[second + 100] ^= 1;
    let (ids, found) = read(&log.octets, None);
    assert_eq!(ids, [1]);
    assert_eq!((found.damaged, found.torn), (0, true));
    assert!(found.end as usize <= second + 56);
}

#[test]
fn a_gap_in_what_a_later_mark_calls_durable_is_damage_and_passed_over() {
    let mut log = Log::new();
    log.group(&[1, 2, 3], true).group(&[4], true).group(&[5], false);
    let mut octets = log.octets.clone();
    octets[56 + 340 + 100] ^= 1;
    let (ids, found) = read(&octets, None);
    assert_eq!(ids, [1, 3, 4, 5]);
    assert_eq!((found.damaged, found.torn), (340, false));
    let sector = log.octets.len() - 2 * ALIGNMENT;
    let mut octets = log.octets.clone();
    octets[sector..sector + ALIGNMENT].fill(0);
    let (ids, found) = read(&octets, None);
    assert_eq!(ids, [1, 2, 3, 5]);
    assert!(found.damaged > 0);
}

#[test]
fn damage_in_the_last_durable_group_leaves_the_one_behind_it() {
    let mut log = Log::new();
    log.group(&[1], true).group(&[2], true);
    for change in [0, 1] {
        let mut octets = log.octets.clone();
        // A record changed, or become zeros like the padding behind it.
        match change {
            0 => octets[200] ^= 1,
            _ => octets[56..ALIGNMENT].fill(0),
        }
        let (ids, found) = read(&octets, None);
        assert_eq!(
            (ids, found.damaged, found.torn),
            (vec![2], ALIGNMENT as u64 - 56, false)
        );
    }
}

#[test]
fn damage_that_reaches_into_what_was_never_synced_leaves_no_tail_to_count() {
    let mut log = Log::new();
    log.group(&[1], true).group(&[2], false).group(&[3], false);
    let mut octets = log.octets.clone();
    octets[200] ^= 1;
    octets[ALIGNMENT + 20] ^= 1;
    let (ids, found) = read(&octets, None);
    assert_eq!(ids, [] as [u64; 0]);
    assert!(found.damaged > 0 && found.torn);
}

#[test]
fn what_a_seal_says_must_be_there_is_damage_when_it_is_not() {
    let mut log = Log::new();
    log.group(&[1], true).group(&[2], true);
    let end = log.octets.len() as u64;
    let (ids, found) = read(&log.octets[..ALIGNMENT], Some(&seal(end, 4)));
    assert_eq!((ids, found.damaged), (vec![1], end - 56 - 340));
    assert_eq!(read(&[], Some(&seal(end, 4))).1.damaged, end);
    // Records that became zeros are no padding.
    let mut octets = log.octets.clone();
    octets[ALIGNMENT + 56..].fill(0);
    let (ids, found) = read(&octets, Some(&seal(end, 4)));
    assert_eq!((ids, found.damaged), (vec![1], end - ALIGNMENT as u64 - 56));
}

#[test]
fn nothing_behind_a_seal_counts() {
    let mut log = Log::new();
    log.group(&[1], true).group(&[2], true);
    let (ids, found) = read(&log.octets, Some(&seal(ALIGNMENT as u64, 2)));
    assert_eq!((ids, found.damaged), (vec![1], 0));
}

#[test]
fn content_that_looks_like_records_of_another_segment_is_content() {
    let mut forged = Log::new();
    forged.group(&[8, 9], true);
    let hostile = forged.octets.clone();
    let mut batch = Batch::new();
    batch.push(Header::new(Kind::Chunk, 1), &hostile);
    let place = Place {
        segment: 1,
        tag: tag(99, 1),
        offset: 0,
        sequence: 0,
        durable: 0,
        alignment: 1,
        seals: &[],
    };
    let (mut octets, _) = batch.seal(place, |_, _| {});
    octets[60] ^= 1;
    let mut ids = Vec::new();
    scan(&octets, tag(99, 1), None, &mut |header, _, _| ids.push(header.id));
    assert_eq!(ids, [1], "the mark alone");
}

proptest! {
    #[test]
    fn no_octets_panic_and_none_that_was_changed_is_shown(
        groups in prop::collection::vec((prop::collection::vec(1..9u64, 1..4), any::<bool>()), 1..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in prop::option::of((0..4000u64, 0..20u32)),
    ) {
        let mut log = Log::new();
        for (ids, synced) in &groups {
            log.group(ids, *synced);
        }
        for (at, octet) in changes {
            let at = at.index(log.octets.len());
            log.octets[at] = octet;
        }
        let end = end.map(|(end, records)| seal(end, records));
        scan(&log.octets, tag(7, 1), end.as_ref(), &mut |header, _, payload| {
            if header.kind == Kind::Chunk {
                assert_eq!(payload, [header.id as u8; 300]);
            }
        });
    }
}
