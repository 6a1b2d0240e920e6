//! The rules of the log, one by one.

use std::borrow::Cow;

use super::*;
use crate::smtp::Form;
use crate::smtp::envelope::{Envelope, MailParameters};
use crate::smtp::path::ReversePath;

/// A spool whose driver does what it is told.
struct Driven {
    spool: Spool,
    /// Everything that was handed out and is not done.
    works: VecDeque<Work>,
    news: Vec<News>,
}

impl Driven {
    fn new() -> Driven {
        Driven::with(Settings {
            segment_size: 32 << 10,
            alignment: 1,
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Driven {
        let mut driven = Driven {
            spool: Spool::new(settings, 7),
            works: VecDeque::new(),
            news: Vec::new(),
        };
        driven.look();
        driven
    }

    fn look(&mut self) {
        self.works.extend(std::iter::from_fn(|| self.spool.next_work()));
        self.news.extend(std::iter::from_fn(|| self.spool.next_news()));
    }

    /// Finishes the first work of a kind; what it was.
    fn finish(&mut self, kind: fn(&Task) -> bool, result: Result<(), Failure>) -> Task {
        let place = self
            .works
            .iter()
            .position(|work| kind(&work.task))
            .expect("no such work");
        let work = self.works.remove(place).unwrap();
        self.spool.done(work.id, result);
        self.look();
        work.task
    }

    fn has(&self, kind: fn(&Task) -> bool) -> bool {
        self.works.iter().any(|work| kind(&work.task))
    }

    fn run(&mut self) {
        while let Some(work) = self.works.pop_front() {
            self.spool.done(work.id, Ok(()));
            self.look();
        }
    }

    fn send(&mut self, id: u64, length: usize) {
        self.spool.begin(QueueId::from_number(id), &head());
        self.spool.append(QueueId::from_number(id), &vec![b'x'; length]);
        self.spool.commit(QueueId::from_number(id), Content::default());
        self.look();
    }

    fn heard(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }
}

fn head() -> Head<'static> {
    Head {
        envelope: Cow::Owned(Envelope {
            reverse_path: ReversePath::Null,
            mail: MailParameters::default(),
            recipients: Vec::new(),
        }),
        fields: Cow::Borrowed(b"Received: x\r\n"),
        form: Form::Plain,
        arrived: 0,
        session: QueueId::from_number(1),
        client: None,
        hello: Cow::Borrowed("x"),
        user: None,
    }
}

fn is_create(task: &Task) -> bool {
    matches!(task, Task::Create { .. })
}

fn is_write(task: &Task) -> bool {
    matches!(task, Task::Write { .. })
}

fn is_sync(task: &Task) -> bool {
    matches!(task, Task::Sync { .. })
}

fn is_removal(task: &Task) -> bool {
    matches!(task, Task::Remove { .. } | Task::Recycle { .. })
}

fn broken() -> Failure {
    Failure {
        kind: FailureKind::Other,
        text: "broken".to_owned(),
    }
}

fn durable(ids: &[u64]) -> Vec<News> {
    ids.iter().map(|id| News::Durable(QueueId::from_number(*id))).collect()
}

fn failed(id: u64, failure: Failure) -> News {
    News::Failed {
        id: QueueId::from_number(id),
        failure,
    }
}

#[test]
fn a_message_is_durable_after_one_write_and_one_sync_and_not_before() {
    let mut driven = Driven::new();
    driven.finish(is_create, Ok(()));
    driven.send(1, 100);
    driven.finish(is_write, Ok(()));
    assert_eq!(driven.heard(), []);
    driven.finish(is_sync, Ok(()));
    assert_eq!(driven.heard(), durable(&[1]));
    assert!(!driven.has(is_write) && !driven.has(is_sync));
}

#[test]
fn what_was_said_of_a_message_is_confirmed_after_the_sync_that_covers_it() {
    let mut driven = Driven::new();
    driven.finish(is_create, Ok(()));
    driven.send(1, 100);
    driven.finish(is_write, Ok(()));
    driven.finish(is_sync, Ok(()));
    driven.heard();
    let id = QueueId::from_number(1);
    driven.spool.confirm(id, Ticket(1));
    driven.look();
    assert_eq!(driven.heard(), [News::Confirmed(Ticket(1))], "nothing waits");

    driven.spool.update(id, &Progress::default());
    driven.spool.confirm(id, Ticket(2));
    driven.look();
    driven.finish(is_write, Ok(()));
    assert_eq!(driven.heard(), []);
    // The sync has begun, and covers this one too.
    driven.spool.confirm(id, Ticket(3));
    driven.look();
    driven.finish(is_sync, Ok(()));
    assert_eq!(driven.heard(), [2, 3].map(|ticket| News::Confirmed(Ticket(ticket))));

    driven.spool.settle(id);
    driven.spool.confirm(id, Ticket(4));
    driven.look();
    driven.finish(is_write, Err(broken()));
    let unconfirmed = News::Unconfirmed {
        ticket: Ticket(4),
        failure: broken(),
    };
    assert!(driven.heard().contains(&unconfirmed));
    driven.spool.confirm(id, Ticket(5));
    driven.look();
    driven.run();
    assert_eq!(driven.heard(), [News::Confirmed(Ticket(5))], "it was said again");
    assert_eq!(driven.spool.messages(), 0);
}

#[test]
fn all_that_gathers_during_a_sync_shares_the_next() {
    let mut driven = Driven::new();
    driven.finish(is_create, Ok(()));
    driven.send(1, 100);
    for id in 2..10 {
        driven.send(id, 100);
        assert_eq!(
            driven
                .works
                .iter()
                .filter(|work| is_write(&work.task) || is_sync(&work.task))
                .count(),
            1
        );
    }
    driven.finish(is_write, Ok(()));
    driven.finish(is_sync, Ok(()));
    assert_eq!(driven.heard(), durable(&[1]));
    driven.finish(is_write, Ok(()));
    driven.finish(is_sync, Ok(()));
    assert_eq!(driven.heard(), durable(&[2, 3, 4, 5, 6, 7, 8, 9]));
}

#[test]
fn content_that_nobody_waits_for_is_not_written_until_there_is_enough_of_it() {
    let mut driven = Driven::with(Settings::default());
    driven.finish(is_create, Ok(()));
    let id = QueueId::from_number(1);
    driven.spool.begin(id, &head());
    driven.spool.append(id, &[0; 200 << 10]);
    driven.look();
    assert!(!driven.has(is_write));
    assert!(driven.spool.waiting_octets() > 200 << 10);
    driven.spool.append(id, &[0; 100 << 10]);
    driven.look();
    driven.finish(is_write, Ok(()));
    assert!(!driven.has(is_sync));
    assert_eq!(driven.spool.waiting_octets(), 0);
    let extents = driven.spool.extents(id).unwrap();
    assert_eq!(
        extents.iter().map(|extent| extent.length as usize).sum::<usize>(),
        300 << 10
    );
    assert!(extents.iter().all(|extent| extent.length <= 64 << 10));
}

#[test]
fn a_flush_is_answered_when_all_can_be_read_back() {
    let mut driven = Driven::new();
    driven.finish(is_create, Ok(()));
    let id = QueueId::from_number(1);
    driven.spool.begin(id, &head());
    driven.spool.append(id, b"content");
    driven.spool.flush(id);
    driven.look();
    assert_eq!(driven.heard(), []);
    driven.finish(is_write, Ok(()));
    assert_eq!(driven.heard(), [News::Written(id)]);
    assert!(!driven.has(is_sync));
    driven.spool.flush(id);
    driven.look();
    assert_eq!(driven.heard(), [News::Written(id)]);
    driven.spool.commit(id, Content::default());
    driven.look();
    driven.run();
    assert_eq!(driven.heard(), durable(&[1]));
}

#[test]
fn a_write_that_fails_fails_its_messages_and_ends_the_segment() {
    for kind in [is_write as fn(&Task) -> bool, is_sync] {
        let mut driven = Driven::new();
        driven.finish(is_create, Ok(()));
        driven.send(1, 100);
        driven.finish(is_write, Ok(()));
        driven.finish(is_sync, Ok(()));
        driven.heard();
        driven.send(2, 100);
        if kind(&Task::Sync { segment: 1 }) {
            driven.finish(is_write, Ok(()));
        }
        driven.send(3, 100);
        driven.finish(kind, Err(broken()));
        let poisoned = News::Poisoned {
            directory: DirectoryId::OWN,
            segment: 1,
            failure: broken(),
        };
        assert_eq!(driven.heard(), [poisoned, failed(2, broken())]);
        // The third had nothing in what failed; it goes into the next segment, and the first lives on.
        driven.finish(is_create, Ok(()));
        let Task::Write { segment, offset, .. } = driven.finish(is_write, Ok(())) else {
            unreachable!()
        };
        assert_eq!((segment, offset), (2, 0));
        driven.finish(is_sync, Ok(()));
        assert_eq!(driven.heard(), durable(&[3]));
        assert_eq!(driven.spool.messages(), 2);
        assert_eq!(driven.spool.extents(QueueId::from_number(2)), None);
        assert!(!driven.has(is_removal));
    }
}

#[test]
fn the_end_of_a_poisoned_segment_is_said_though_no_more_mail_comes() {
    let mut driven = Driven::new();
    driven.finish(is_create, Ok(()));
    driven.send(1, 100);
    driven.finish(is_create, Ok(()));
    driven.finish(is_write, Ok(()));
    driven.finish(is_sync, Err(broken()));
    assert!(driven.heard().contains(&failed(1, broken())));
    assert!(!driven.has(is_write));
    driven.spool.idle();
    driven.look();
    let Task::Write { segment, offset, .. } = driven.finish(is_write, Ok(())) else {
        unreachable!()
    };
    assert_eq!((segment, offset), (2, 0));
    driven.finish(is_sync, Ok(()));
    driven.spool.idle();
    driven.look();
    assert!(!driven.has(is_write) && !driven.has(is_sync), "once");
}

#[test]
fn a_flush_that_was_to_ride_along_with_a_message_that_fails_is_answered() {
    let mut driven = Driven::new();
    driven.finish(is_create, Ok(()));
    let (first, second) = (QueueId::from_number(1), QueueId::from_number(2));
    driven.spool.begin(first, &head());
    driven.spool.append(first, &[b'x'; 28 << 10]);
    driven.spool.flush(first);
    driven.look();
    driven.finish(is_create, Err(broken()));
    while driven.has(is_write) {
        driven.finish(is_write, Ok(()));
    }
    assert_eq!(driven.heard(), [News::Written(first)]);
    // There is no room for the second, and no other segment can be had.
    driven.spool.begin(second, &head());
    driven.spool.append(second, &[b'x'; 6 << 10]);
    driven.spool.flush(first);
    driven.look();
    driven.finish(is_sync, Ok(()));
    driven.finish(is_create, Err(broken()));
    assert_eq!(driven.heard(), [failed(2, broken()), News::Written(first)]);
}

#[test]
fn a_disk_that_is_full_fails_what_waits_and_is_asked_again_only_for_new_mail() {
    let full = || Failure {
        kind: FailureKind::Full,
        text: "full".to_owned(),
    };
    let mut driven = Driven::new();
    driven.finish(is_create, Err(full()));
    assert!(!driven.has(is_create));
    driven.send(1, 100);
    driven.finish(is_create, Err(full()));
    assert_eq!(driven.heard(), [failed(1, full())]);
    assert!(driven.works.is_empty());
    driven.send(2, 100);
    driven.finish(is_create, Ok(()));
    driven.run();
    assert_eq!(driven.heard(), durable(&[2]));
}

#[test]
fn an_update_rides_along_or_is_written_when_the_driver_is_idle() {
    let mut driven = Driven::new();
    driven.send(1, 100);
    driven.run();
    driven.heard();
    let id = QueueId::from_number(1);
    driven.spool.update(id, &Progress::default());
    driven.look();
    assert!(driven.works.is_empty());
    assert!(!driven.spool.is_quiet());
    driven.send(2, 100);
    assert_eq!(driven.works.iter().filter(|work| is_write(&work.task)).count(), 1);
    driven.run();
    assert!(driven.spool.is_quiet());
    driven.spool.settle(id);
    driven.look();
    assert!(driven.works.is_empty());
    driven.spool.idle();
    driven.look();
    driven.finish(is_write, Ok(()));
    driven.finish(is_sync, Ok(()));
    assert!(driven.spool.is_quiet());
    assert_eq!(driven.spool.messages(), 1);
}

#[test]
fn a_segment_without_living_messages_is_used_again_or_removed() {
    let mut driven = Driven::new();
    let mut removals = Vec::new();
    for id in 0..40 {
        driven.send(id, 10_000);
        driven.spool.settle(QueueId::from_number(id));
        driven.look();
        while let Some(work) = driven.works.pop_front() {
            if is_removal(&work.task) || is_create(&work.task) {
                removals.push(work.task.clone());
            }
            driven.spool.done(work.id, Ok(()));
            driven.look();
        }
    }
    let recycled = removals
        .iter()
        .filter(|task| matches!(task, Task::Recycle { .. }))
        .count();
    let reused = removals
        .iter()
        .filter(|task| matches!(task, Task::Create { spare: Some(_), .. }))
        .count();
    assert!(recycled > 5, "{removals:?}");
    assert!(reused + 1 >= recycled, "{removals:?}");
}

#[test]
fn a_message_given_up_is_not_heard_of_again() {
    let mut driven = Driven::new();
    driven.send(1, 100);
    driven.spool.abandon(QueueId::from_number(1));
    driven.look();
    driven.run();
    assert_eq!(driven.heard(), []);
    assert_eq!(driven.spool.messages(), 0);
    let id = QueueId::from_number(2);
    driven.spool.begin(id, &head());
    driven.spool.append(id, b"half");
    driven.spool.abandon(id);
    driven.spool.commit(id, Content::default());
    driven.look();
    driven.run();
    assert_eq!(driven.heard(), []);
    assert_eq!(driven.spool.extents(id), None);
}

#[test]
fn what_is_not_known_is_ignored() {
    let mut driven = Driven::new();
    driven.run();
    let id = QueueId::from_number(9);
    driven.spool.append(id, b"x");
    driven.spool.flush(id);
    driven.spool.commit(id, Content::default());
    driven.spool.update(id, &Progress::default());
    driven.spool.settle(id);
    driven.spool.done(WorkId(99), Ok(()));
    driven.look();
    assert!(driven.works.is_empty() && driven.heard().is_empty());
    assert_eq!((driven.spool.messages(), driven.spool.waiting_octets()), (0, 0));
}

#[test]
fn writes_are_aligned_in_offset_and_length() {
    for alignment in [512, 4096] {
        let mut driven = Driven::with(Settings {
            alignment,
            ..Settings::default()
        });
        let mut end = 0;
        for id in 0..5 {
            driven.send(id, 1000);
            while let Some(work) = driven.works.pop_front() {
                if let Task::Write { offset, octets, .. } = &work.task {
                    assert_eq!((*offset, octets.len() as u64 % u64::from(alignment)), (end, 0));
                    end = offset + octets.len() as u64;
                }
                driven.spool.done(work.id, Ok(()));
                driven.look();
            }
        }
        assert!(end >= 5 * 1000);
    }
}
