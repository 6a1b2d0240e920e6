//! Delivery into Maildirs, seen from where a shard stands: requests go in, answers come out, files are there.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use postern::maildir::{
    Delivered, Done, Draft, Failure, FailureKind, FilePlan, Form, Plan, Pool, ReplyTo, Request, Ticket,
};
use tempfile::TempDir;

/// A pool with an inbox, in a directory of its own.
struct Office {
    root: TempDir,
    pool: Pool,
    reply: ReplyTo,
    inbox: mpsc::Receiver<(Ticket, Done)>,
}

impl Office {
    fn new(threads: usize) -> Office {
        let root = tempfile::tempdir().unwrap();
        let pool = Pool::start(threads, &root.path().join("data")).unwrap();
        let (sender, inbox) = mpsc::channel();
        let callback = Arc::new(move |ticket, done| sender.send((ticket, done)).unwrap());
        Office {
            root,
            pool,
            reply: ReplyTo {
                callback,
                ticket: Ticket(7),
            },
            inbox,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn draft(&self, maildirs: &[&str], form: Form) -> Draft {
        let mut plan = Plan::new("4Yx1", form, false);
        let file = |name: &&str| FilePlan {
            maildir: self.path(name),
            head: format!("Delivered-To: {name}\n").into(),
        };
        plan.files = maildirs.iter().map(file).collect();
        Draft::new(plan)
    }

    fn append(&self, draft: Draft, piece: &[u8]) -> Draft {
        self.pool
            .submit(Request::Append(draft, piece.to_vec()), self.reply.clone());
        match self.inbox.recv().unwrap() {
            (Ticket(7), Done::Appended(Ok(draft), buffer)) if buffer.is_empty() => draft,
            answer => panic!("{answer:?}"),
        }
    }

    fn commit(&self, draft: Draft, rest: &[u8]) -> Result<Delivered, Failure> {
        self.pool
            .submit(Request::Commit(draft, rest.to_vec()), self.reply.clone());
        match self.inbox.recv().unwrap() {
            (Ticket(7), Done::Committed(result, buffer)) => {
                assert!(buffer.is_empty() && buffer.capacity() >= rest.len());
                result
            }
            answer => panic!("{answer:?}"),
        }
    }

    /// Names of the files in a directory.
    fn names(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(directory)) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// The text of the only file in `new`, checked against its name.
    fn only(&self, maildir: &str) -> Vec<u8> {
        assert_eq!(self.names(&format!("{maildir}/tmp")), [""; 0]);
        let names = self.names(&format!("{maildir}/new"));
        let [name] = names.as_slice() else { panic!("{names:?}") };
        let text = fs::read(self.path(maildir).join("new").join(name)).unwrap();
        assert!(
            name.contains("Q4Yx1") && name.ends_with(&format!(",S={}", text.len())),
            "{name}"
        );
        text
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_message_is_stored_with_its_head_without_dots_and_with_lf() {
    let office = Office::new(2);
    let delivered = office
        .commit(office.draft(&["mail"], Form::Dotted), b"A: b\r\n\r\n..x\r\n")
        .unwrap();
    let text = b"Delivered-To: mail\nA: b\n\n.x\n";
    assert_eq!(office.only("mail"), text);
    assert_eq!((delivered.files.len(), delivered.octets), (1, text.len() as u64));
    assert_eq!(fs::read(&delivered.files[0]).unwrap(), text);
}

#[test]
fn a_maildir_is_made_for_this_user_only() {
    let office = Office::new(1);
    let delivered = office.commit(office.draft(&["a/b/c"], Form::Plain), b"x").unwrap();
    for name in ["a", "a/b", "a/b/c", "a/b/c/tmp", "a/b/c/new", "a/b/c/cur"] {
        assert_eq!(mode(&office.path(name)), 0o700, "{name}");
    }
    assert_eq!(mode(&delivered.files[0]), 0o600);
}

#[test]
fn a_message_in_pieces_is_the_same_in_every_file_as_in_one_piece() {
    let office = Office::new(2);
    let mut content = Vec::new();
    for line in 0..20_000 {
        content.extend_from_slice(format!("{}line {line}\r\n", if line % 3 == 0 { ".." } else { "" }).as_bytes());
    }
    office.commit(office.draft(&["whole"], Form::Dotted), &content).unwrap();
    let stored = office.only("whole").split_off("Delivered-To: whole\n".len());
    let mut draft = office.draft(&["one", "two", "three"], Form::Dotted);
    let (pieces, rest) = content.split_at(65_537);
    for piece in pieces.chunks(9_973) {
        draft = office.append(draft, piece);
    }
    let delivered = office.commit(draft, rest).unwrap();
    for name in ["one", "two", "three"] {
        assert_eq!(
            office
                .only(name)
                .strip_prefix(format!("Delivered-To: {name}\n").as_bytes()),
            Some(stored.as_slice())
        );
    }
    assert_eq!(delivered.files.len(), 3);
    assert_eq!(office.names("data/intents"), [""; 0]);
}

#[test]
fn many_recipients_in_one_maildir_get_a_file_each() {
    let office = Office::new(1);
    let draft = office.append(office.draft(&["mail"; 100], Form::Plain), b"pieces\r\n");
    assert_eq!(office.commit(draft, b"").unwrap().files.len(), 100);
    assert_eq!(
        office
            .commit(office.draft(&["mail"; 100], Form::Plain), b"whole")
            .unwrap()
            .files
            .len(),
        100
    );
    assert_eq!(
        (office.names("mail/new").len(), office.names("mail/tmp").len()),
        (200, 0)
    );
}

#[test]
fn a_message_that_one_maildir_refuses_is_in_none() {
    let office = Office::new(2);
    fs::write(office.path("file"), "not a directory").unwrap();
    for first in [&b""[..], b"a piece"] {
        let mut draft = office.draft(&["good", "file/below"], Form::Plain);
        if !first.is_empty() {
            draft = office.append(draft, first);
        }
        let failure = office.commit(draft, b"x").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Other);
        assert!(failure.text.contains("file/below"), "{}", failure.text);
        assert_eq!((office.names("good/new").len(), office.names("good/tmp").len()), (0, 0));
    }
}

#[test]
fn a_piece_that_cannot_be_written_says_so_and_gives_the_buffer_back() {
    let office = Office::new(1);
    fs::write(office.path("file"), "not a directory").unwrap();
    office.pool.submit(
        Request::Append(office.draft(&["file"], Form::Plain), b"x".to_vec()),
        office.reply.clone(),
    );
    let (_, Done::Appended(Err(error), buffer)) = office.inbox.recv().unwrap() else {
        panic!("no error")
    };
    assert!(error.to_string().contains("file"), "{error}");
    assert!(buffer.is_empty() && buffer.capacity() > 0);
}

#[test]
fn an_abandoned_draft_leaves_nothing() {
    let office = Office::new(1);
    let draft = office.append(office.draft(&["mail"], Form::Plain), b"x");
    assert_eq!(office.names("mail/tmp").len(), 1);
    office.pool.submit(Request::Abandon(draft), office.reply.clone());
    office.pool.shutdown();
    assert_eq!((office.names("mail/tmp").len(), office.names("mail/new").len()), (0, 0));
    assert!(office.inbox.try_recv().is_err(), "an Abandon is not answered");
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    let office = Office::new(1);
    drop(office.append(office.draft(&["mail"], Form::Plain), b"x"));
    assert_eq!((office.names("mail/tmp").len(), office.names("mail/new").len()), (0, 0));
}

#[test]
fn a_maildir_that_was_removed_is_made_again() {
    let office = Office::new(1);
    office.commit(office.draft(&["a/mail"], Form::Plain), b"x").unwrap();
    fs::remove_dir_all(office.path("a")).unwrap();
    office.commit(office.draft(&["a/mail"], Form::Plain), b"y").unwrap();
    assert_eq!(office.only("a/mail"), b"Delivered-To: a/mail\ny");
}

#[test]
fn a_reply_that_panics_does_not_end_the_worker() {
    let office = Office::new(1);
    let reply = ReplyTo {
        callback: Arc::new(|_, _| panic!("the asker's mistake")),
        ticket: Ticket(0),
    };
    for _ in 0..3 {
        office.pool.submit(
            Request::Commit(office.draft(&["mail"], Form::Plain), b"x".to_vec()),
            reply.clone(),
        );
    }
    office.commit(office.draft(&["mail"], Form::Plain), b"y").unwrap();
    assert_eq!(office.names("mail/new").len(), 4);
}

#[test]
fn shutting_down_finishes_what_is_queued_and_refuses_what_comes_after() {
    let office = Office::new(3);
    for number in 0..100 {
        let reply = ReplyTo {
            ticket: Ticket(number),
            ..office.reply.clone()
        };
        let draft = office.draft(&["a", "b"][..=(number % 2) as usize], Form::Plain);
        office.pool.submit(Request::Commit(draft, b"x\r\n".to_vec()), reply);
    }
    office.pool.shutdown();
    let mut answered: Vec<u64> = office
        .inbox
        .try_iter()
        .map(|(ticket, done)| {
            assert!(matches!(done, Done::Committed(Ok(_), _)), "{done:?}");
            ticket.0
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..100).collect::<Vec<_>>());
    assert_eq!((office.names("a/new").len(), office.names("b/new").len()), (100, 50));
    assert_eq!(office.names("data/intents"), [""; 0]);
    assert!(office.commit(office.draft(&["a"], Form::Plain), b"x").is_err());
    assert_eq!(office.names("a/new").len(), 100);
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    for (code, kind) in [
        (28, FailureKind::Full),
        (122, FailureKind::Full),
        (30, FailureKind::Other),
        (13, FailureKind::Other),
    ] {
        assert_eq!(
            Failure::from(std::io::Error::from_raw_os_error(code)).kind,
            kind,
            "errno {code}"
        );
    }
}
