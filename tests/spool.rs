//! The spool from outside: power cuts at every step, damage, full disks, and folders on a real disk.

mod disk;

use std::fs;
use std::path::Path;

use disk::files::Files;
use disk::model::{Rig, Stage, head};
use disk::{Chance, MemoryDisk, take_up};
use postern::spool::directory::{self, Directory, segment_name};
use postern::spool::{
    Content, DirectoryId, Failure, FailureKind, News, Progress, QueueId, Recovered, Settings, Spool, Task,
};

const SMALL: Settings = Settings {
    segment_size: 32 << 10,
    adopted_segment_size: 32 << 10,
    alignment: 512,
    spares: 1,
};

/// A day in the life of a spool, in steps; each ends with some work under way.
fn day(rig: &mut Rig, steps: usize) {
    let mut done = 0;
    for round in 0..12 {
        let large = rig.begin(1 + round * 20);
        for _ in 0..4 {
            rig.append(large, 2500);
            let small = rig.send(700);
            rig.update(small);
        }
        rig.flush(large);
        rig.commit(large);
        for id in rig.living().into_iter().filter(|id| id % 3 != 0) {
            rig.update(id);
            rig.abandon(id);
        }
        if round % 3 == 0 {
            rig.idle();
        }
        for _ in 0..8 {
            if done == steps {
                return;
            }
            rig.step(done);
            done += 1;
        }
    }
}

#[test]
fn the_power_may_be_cut_after_any_write_and_sync() {
    for alignment in [1, 4096] {
        for steps in 0..=96 {
            let mut rig = Rig::new(Settings { alignment, ..SMALL }, steps as u64);
            day(&mut rig, steps);
            rig.cut();
            // What was found is found again, also when the power goes while the settled are cleared away.
            let living = rig.living();
            rig.idle();
            rig.step(0);
            rig.cut();
            assert_eq!(rig.living(), living);
        }
    }
}

#[test]
fn what_was_settled_durably_never_comes_back_however_the_segments_go() {
    let mut rig = Rig::new(SMALL, 5);
    let stuck: Vec<u64> = (0..3).map(|_| rig.send(3000)).collect();
    for round in 0..60 {
        for _ in 0..6 {
            rig.send(2000);
        }
        rig.quiet();
        for id in rig.living() {
            if !stuck.contains(&id) {
                rig.abandon(id);
            } else {
                rig.update(id);
            }
        }
        rig.quiet();
        if round % 7 == 0 {
            rig.cut();
            assert_eq!(rig.living(), stuck);
        }
    }
    // Three small messages hold up what they stand in, not all that came after them.
    let files: usize = rig.disk.salts().iter().map(|salt| rig.disk.names(*salt).len()).sum();
    assert!(files < 20, "{files} files");
    stuck.iter().for_each(|id| rig.abandon(*id));
    rig.quiet();
    assert_eq!(rig.disk.salts().len(), 1);
}

#[test]
fn a_message_of_any_size_may_pass_through_many_segments() {
    let mut rig = Rig::new(SMALL, 6);
    let id = rig.begin(2000);
    for _ in 0..30 {
        rig.append(id, 10_000);
        while rig.step(0) {}
    }
    rig.commit(id);
    rig.quiet();
    rig.update(id);
    rig.quiet();
    rig.cut();
    assert_eq!(rig.living(), [id]);
    rig.quiet();
    rig.abandon(id);
    rig.quiet();
    rig.cut();
    assert_eq!(rig.living(), [0; 0]);
}

#[test]
fn a_full_disk_refuses_what_comes_and_keeps_what_is_there() {
    let mut rig = Rig::new(SMALL, 7);
    rig.disk.room = Some(6 * (32 << 10));
    let mut refused = 0;
    for _ in 0..100 {
        let id = rig.send(5000);
        rig.quiet();
        refused += usize::from(rig.messages[&id].stage == Stage::Failed);
    }
    let kept = rig.living();
    assert!(
        refused > 50 && kept.len() > 10,
        "{refused} refused, {} kept",
        kept.len()
    );
    rig.cut();
    assert_eq!(rig.living(), kept);
    kept.iter().for_each(|id| rig.abandon(*id));
    rig.disk.room = None;
    rig.quiet();
    let id = rig.send(5000);
    rig.quiet();
    assert_eq!(rig.living(), [id]);
}

/// Forty messages in several segments, and what recovery makes of them after `harm`.
fn recovered_after(harm: impl FnOnce(&mut MemoryDisk, u64)) -> (Vec<u64>, postern::spool::Report, usize) {
    let mut rig = Rig::new(SMALL, 8);
    for _ in 0..40 {
        rig.send(2000);
        rig.quiet();
    }
    let salt = rig.disk.salts()[0];
    harm(&mut rig.disk, salt);
    let (_, report, messages) = take_up(&rig.disk.view(salt), &mut Spool::new(SMALL, salt + 1), 8);
    let found = messages.iter().map(|one| one.id.number()).collect();
    (found, report, rig.disk.aside.get())
}

#[test]
fn damage_costs_the_message_that_it_hits_and_is_reported_and_kept_aside() {
    let (found, report, aside) = recovered_after(|_, _| {});
    assert_eq!(
        (found.len(), report.messages, report.damaged_octets, aside),
        (40, 40, 0, 0)
    );
    // The first message begins at 56 octets and has its content behind its head.
    let (found, report, aside) = recovered_after(|disk, salt| disk.damage(salt, 1, 1000, b"oops"));
    assert_eq!(found, (2..=40).collect::<Vec<u64>>());
    assert_eq!(
        (report.damaged_segments, report.damaged_messages),
        (vec![1], vec![QueueId::from_number(1)])
    );
    assert!(report.damaged_octets >= 2000 && aside > 0);
}

#[test]
fn a_whole_segment_that_is_zeros_costs_only_its_own() {
    let (found, report, aside) = recovered_after(|disk, salt| disk.damage(salt, 2, 0, &[0; 32 << 10]));
    assert!(found.len() > 20 && found.len() < 40);
    assert_eq!(report.damaged_segments, [2]);
    assert!(aside > 0);
}

// Folders

fn progress() -> Progress {
    Progress {
        held: true,
        ..Progress::default()
    }
}

/// A spool in a folder, run by hand.
struct Run {
    spool: Spool,
    places: Vec<(Files, Option<Directory>)>,
    news: Vec<News>,
}

impl Run {
    /// Starts as a shard does: adopts what nobody holds, makes a directory of its own.
    fn start(root: &Path) -> (Run, Vec<Recovered>) {
        let old = directory::adoptable(root).unwrap();
        let own = directory::create(root).unwrap();
        let mut spool = Spool::new(SMALL, own.salt());
        let mut places = vec![(Files::new(own.path()), Some(own))];
        let mut found = Vec::new();
        for directory in old {
            let (id, _, messages) = take_up(&directory, &mut spool, 2);
            assert_eq!(id, DirectoryId(places.len() as u32));
            found.extend(messages);
            places.push((Files::new(directory.path()), Some(directory)));
        }
        (
            Run {
                spool,
                places,
                news: Vec::new(),
            },
            found,
        )
    }

    fn run(&mut self) {
        self.spool.idle();
        while let Some(work) = self.spool.next_work() {
            let (files, directory) = &mut self.places[work.directory.0 as usize];
            let result = match &work.task {
                Task::RemoveDirectory => directory.take().unwrap().remove(),
                task => files.perform(task),
            };
            self.spool.done(work.id, result.map_err(Failure::from));
            self.news.extend(std::iter::from_fn(|| self.spool.next_news()));
            self.spool.idle();
        }
    }

    fn send(&mut self, id: u64, content: &[u8]) {
        self.spool.begin(QueueId::from_number(id), &head(id, 2));
        self.spool.append(QueueId::from_number(id), content);
        self.spool.commit(QueueId::from_number(id), Content::default());
        self.run();
        assert_eq!(self.news.pop(), Some(News::Durable(QueueId::from_number(id))));
    }

    fn content(&self, id: u64) -> Vec<u8> {
        let mut content = Vec::new();
        for extent in self.spool.extents(QueueId::from_number(id)).unwrap() {
            let directory = self.places[extent.directory.0 as usize].1.as_ref().unwrap();
            let file = fs::read(directory.path().join(segment_name(extent.segment))).unwrap();
            let octets = &file[extent.offset as usize..][..extent.length as usize];
            let mut verifier = extent.verifier();
            verifier.update(octets);
            assert!(verifier.finish());
            content.extend_from_slice(octets);
        }
        content
    }
}

fn folders(root: &Path) -> usize {
    fs::read_dir(root).unwrap().count()
}

#[test]
fn a_run_finds_what_an_earlier_one_left_and_clears_it_away_when_it_is_done() {
    let root = tempfile::tempdir().unwrap();
    let (mut first, found) = Run::start(root.path());
    assert!(found.is_empty());
    first.send(1, b"one");
    first.send(2, &[b'2'; 30_000]);
    first.send(3, b"three");
    first.spool.update(QueueId::from_number(2), &progress());
    first.spool.settle(QueueId::from_number(3));
    first.run();
    // While the first lives its directory is its own.
    assert!(directory::adoptable(root.path()).unwrap().is_empty());
    drop(first);
    let (mut second, found) = Run::start(root.path());
    assert_eq!(found.iter().map(|one| one.id.number()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found[0].head, head(1, 2));
    assert_eq!((found[1].octets, found[1].progress.clone()), (30_000, Some(progress())));
    assert_eq!(second.content(1), b"one");
    assert_eq!(second.content(2), [b'2'; 30_000]);
    second.spool.settle(QueueId::from_number(1));
    second.run();
    drop(second);
    let (mut third, found) = Run::start(root.path());
    assert_eq!(found.iter().map(|one| one.id.number()).collect::<Vec<_>>(), [2]);
    third.spool.settle(QueueId::from_number(2));
    third.run();
    assert_eq!(folders(root.path()), 1, "only its own is left");
    let (_, found) = {
        drop(third);
        Run::start(root.path())
    };
    assert!(found.is_empty());
}

#[test]
fn two_runs_that_overlap_never_share_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let (mut old, _) = Run::start(root.path());
    old.send(1, b"one");
    let (mut new, found) = Run::start(root.path());
    assert!(found.is_empty());
    new.send(2, b"two");
    old.send(3, b"three");
    drop(old);
    let mut adopted = directory::adoptable(root.path()).unwrap();
    assert_eq!(adopted.len(), 1);
    let (_, _, messages) = take_up(&adopted.remove(0), &mut Spool::new(SMALL, 1), 1);
    let found: Vec<u64> = messages.iter().map(|one| one.id.number()).collect();
    assert_eq!(found, [1, 3]);
}

#[test]
fn a_damaged_segment_outlives_its_directory_in_quarantine() {
    let root = tempfile::tempdir().unwrap();
    let (mut first, _) = Run::start(root.path());
    first.send(1, &[b'1'; 5000]);
    first.send(2, &[b'2'; 5000]);
    let path = first.places[0].1.as_ref().unwrap().path().join(segment_name(1));
    drop(first);
    let mut octets = fs::read(&path).unwrap();
    octets[2000] ^= 0x55;
    fs::write(&path, &octets).unwrap();
    let (mut second, found) = Run::start(root.path());
    assert_eq!(found.iter().map(|one| one.id.number()).collect::<Vec<_>>(), [2]);
    second.spool.settle(QueueId::from_number(2));
    second.run();
    assert!(!path.exists());
    let kept: Vec<_> = fs::read_dir(root.path().join("quarantine"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read(&kept[0]).unwrap(), octets);
}

#[test]
fn what_is_no_directory_of_a_spool_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    assert!(directory::adoptable(&root.path().join("missing")).unwrap().is_empty());
    fs::create_dir(root.path().join("quarantine")).unwrap();
    fs::create_dir(root.path().join("0123456789ABCDEF")).unwrap();
    fs::write(root.path().join("0123456789abcdef"), "a file").unwrap();
    assert!(directory::adoptable(root.path()).unwrap().is_empty());
    let own = directory::create(root.path()).unwrap();
    fs::write(own.path().join("note.txt"), "somebody's").unwrap();
    let path = own.path().to_owned();
    assert!(own.remove().is_err());
    assert!(path.join("note.txt").exists());
}

#[test]
fn a_failure_knows_a_full_disk() {
    let kind = |kind: std::io::ErrorKind| Failure::from(std::io::Error::from(kind)).kind;
    assert_eq!(kind(std::io::ErrorKind::StorageFull), FailureKind::Full);
    assert_eq!(kind(std::io::ErrorKind::QuotaExceeded), FailureKind::Full);
    assert_eq!(kind(std::io::ErrorKind::Other), FailureKind::Other);
    assert_ne!(Chance(1).next(), Chance(2).next());
}
