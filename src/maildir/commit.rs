//! Delivering several messages at once, so that they share what waiting for the disk costs.
//!
//! Promises: each message succeeds or fails by itself; a panic in the work for one is that one's failure. Runs on a
//! worker.

use std::{collections::BTreeMap, io, path::PathBuf};

use super::{Delivered, Draft, Failure, directory, draft::Desk, guarded, journal::Journal};

/// One message of a batch.
#[derive(Debug)]
pub(super) struct Commit {
    draft: Draft,
    content: Vec<u8>,
    intent: Option<PathBuf>,
    failure: Option<Failure>,
}

impl Commit {
    pub(super) fn new(draft: Draft, content: Vec<u8>) -> Commit {
        Commit {
            draft,
            content,
            intent: None,
            failure: None,
        }
    }

    /// The answer, and the buffer to give back.
    pub(super) fn finish(mut self) -> (Result<Delivered, Failure>, Vec<u8>) {
        self.content.clear();
        let result = match self.failure.take() {
            None => Ok(self.draft.delivered()),
            Some(failure) => Err(failure),
        };
        (result, self.content)
    }

    /// Runs a step of the work, unless an earlier one has failed.
    fn step(&mut self, work: impl FnOnce(&mut Commit) -> io::Result<()>) {
        if self.failure.is_none() {
            self.failure = guarded(|| work(self)).err();
        }
    }
}

/// Delivers all of the batch, or says why not.
pub(super) fn deliver(batch: &mut [Commit], desk: &mut Desk<'_>, journal: &Journal) {
    for commit in batch.iter_mut() {
        commit.step(|commit| commit.draft.complete(&commit.content, desk));
    }
    for commit in batch.iter_mut() {
        commit.step(|commit| commit.draft.sync());
    }
    write_intents(batch, journal);
    for commit in batch.iter_mut() {
        commit.step(|commit| commit.draft.rename(desk.directories));
    }
    let synced = sync_destinations(batch);
    for commit in batch.iter_mut() {
        commit.step(
            |commit| match commit.draft.destinations().find_map(|new| synced.get(new)?.as_ref()) {
                Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
                None => Ok(()),
            },
        );
    }
    roll_back(batch, journal);
    for commit in batch.iter_mut() {
        if let Some(intent) = commit.intent.take() {
            // one that comes back finds its files moved and does nothing
            let _ = std::fs::remove_file(intent);
        }
    }
}

/// For the messages with more than one file.
fn write_intents(batch: &mut [Commit], journal: &Journal) {
    for commit in batch.iter_mut().filter(|commit| commit.draft.moves().nth(1).is_some()) {
        commit.step(|commit| {
            commit.intent = Some(journal.write(commit.draft.moves())?);
            Ok(())
        });
    }
    if batch.iter().any(|commit| commit.intent.is_some())
        && let Err(error) = journal.sync()
    {
        for commit in batch.iter_mut().filter(|commit| commit.intent.is_some()) {
            commit.step(|_| Err(io::Error::new(error.kind(), error.to_string())));
        }
    }
}

/// Syncs each directory that files were moved to, once; gives the errors.
fn sync_destinations(batch: &[Commit]) -> BTreeMap<PathBuf, Option<(io::ErrorKind, String)>> {
    let mut synced = BTreeMap::new();
    for commit in batch.iter().filter(|commit| commit.failure.is_none()) {
        for new in commit.draft.destinations() {
            if !synced.contains_key(new) {
                let error = directory::sync(new)
                    .err()
                    .map(|error| (error.kind(), error.to_string()));
                synced.insert(new.to_owned(), error);
            }
        }
    }
    synced
}

/// Undoes the failed messages. While an intent stands, a crash completes it, so all files must be back in `tmp`, and
/// that durable, before the intent goes; and it must be gone, and that durable, before the files are removed.
fn roll_back(batch: &mut [Commit], journal: &Journal) {
    for commit in batch.iter_mut().filter(|commit| commit.failure.is_some()) {
        let undone = guarded(|| {
            commit.draft.roll_back()?;
            let Some(intent) = commit.intent.take() else {
                return Ok(());
            };
            commit.draft.destinations().try_for_each(directory::sync)?;
            std::fs::remove_file(&intent)?;
            journal.sync()
        });
        if let (Err(undo), Some(failure)) = (undone, &mut commit.failure) {
            commit.draft.leave();
            commit.intent = None;
            failure.text.push_str("; then: ");
            failure.text.push_str(&undo.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::{FilePlan, Form, Plan, directory::Directories, draft::Host, recover};
    use std::{fs, path::Path};

    /// A data directory, Maildirs `a`, `b` and `c` beside it, and what a worker has.
    struct Bench {
        root: tempfile::TempDir,
        host: Host,
        directories: Directories,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                root: tempfile::tempdir().unwrap(),
                host: Host::this(),
                directories: Directories::default(),
            }
        }

        fn desk(&self) -> Desk<'_> {
            Desk {
                host: &self.host,
                directories: &self.directories,
                buffer: Vec::new(),
            }
        }

        fn draft(&self, maildirs: &[&str]) -> Draft {
            let mut plan = Plan::new("id", Form::Plain, false);
            plan.files = maildirs
                .iter()
                .map(|name| FilePlan {
                    maildir: self.root.path().join(name),
                    head: b"Head: x\n".to_vec(),
                })
                .collect();
            Draft::new(plan)
        }

        fn commit(&self, maildirs: &[&str]) -> Commit {
            Commit::new(self.draft(maildirs), b"text\r\n".to_vec())
        }

        fn journal(&self) -> Journal {
            Journal::open(self.root.path()).unwrap()
        }

        fn count(&self, directory: &str) -> usize {
            fs::read_dir(self.root.path().join(directory)).map_or(0, Iterator::count)
        }

        fn new_counts(&self) -> [usize; 3] {
            ["a/new", "b/new", "c/new"].map(|directory| self.count(directory))
        }
    }

    /// A commit of three files as it stands right before its first rename.
    fn about_to_rename(bench: &Bench, journal: &Journal) -> Commit {
        let mut commits = [bench.commit(&["a", "b", "c"])];
        let mut desk = bench.desk();
        commits[0].step(|commit| commit.draft.complete(&commit.content, &mut desk));
        commits[0].step(|commit| commit.draft.sync());
        write_intents(&mut commits, journal);
        let [commit] = commits;
        assert_eq!(commit.failure, None);
        commit
    }

    /// What a process leaves that ends at once: its files, but no lock.
    fn crash(mut commit: Commit, journal: Journal) {
        commit.draft.leave();
        drop(journal);
    }

    #[test]
    fn a_crash_between_renames_is_completed_at_start() {
        for renamed in 0..=3 {
            let bench = Bench::new();
            let journal = bench.journal();
            let commit = about_to_rename(&bench, &journal);
            for (tmp, new) in commit.draft.moves().take(renamed) {
                fs::rename(tmp, new).unwrap();
            }
            crash(commit, journal);
            let recovered = recover(bench.root.path()).unwrap();
            assert_eq!(
                (recovered.completed, recovered.cleared, recovered.failures.len()),
                (1, 0, 0),
                "{renamed}"
            );
            assert_eq!(bench.new_counts(), [1, 1, 1], "{renamed}");
            assert_eq!((bench.count("a/tmp"), bench.count("intents")), (0, 0));
            assert_eq!(recover(bench.root.path()).unwrap(), Default::default());
        }
    }

    #[test]
    fn what_was_read_before_the_crash_was_recovered_from_is_not_delivered_again() {
        let bench = Bench::new();
        let journal = bench.journal();
        let commit = about_to_rename(&bench, &journal);
        for (tmp, new) in commit.draft.moves() {
            fs::rename(tmp, new).unwrap();
            fs::remove_file(new).unwrap();
        }
        crash(commit, journal);
        assert_eq!(recover(bench.root.path()).unwrap().completed, 1);
        assert_eq!(bench.new_counts(), [0, 0, 0]);
    }

    #[test]
    fn an_intent_that_was_cut_short_delivers_nothing() {
        let bench = Bench::new();
        let journal = bench.journal();
        let commit = about_to_rename(&bench, &journal);
        let intent = commit.intent.clone().unwrap();
        let whole = fs::read(&intent).unwrap();
        crash(commit, journal);
        for length in 0..whole.len() {
            fs::write(&intent, &whole[..length]).unwrap();
            assert_eq!(recover(bench.root.path()).unwrap().cleared, 1, "{length}");
            assert_eq!(bench.new_counts(), [0, 0, 0]);
        }
    }

    #[test]
    fn intents_of_a_living_process_are_left_alone() {
        let bench = Bench::new();
        let journal = bench.journal();
        let _commit = about_to_rename(&bench, &journal);
        assert!(recover(bench.root.path()).unwrap().busy);
        assert_eq!((bench.new_counts(), bench.count("intents")), ([0, 0, 0], 1));
    }

    #[test]
    fn an_intent_that_cannot_be_completed_waits_for_the_next_start() {
        let bench = Bench::new();
        let journal = bench.journal();
        crash(about_to_rename(&bench, &journal), journal);
        fs::rename(bench.root.path().join("b/new"), bench.root.path().join("b/away")).unwrap();
        assert_eq!(recover(bench.root.path()).unwrap().failures.len(), 1);
        fs::rename(bench.root.path().join("b/away"), bench.root.path().join("b/new")).unwrap();
        assert_eq!(recover(bench.root.path()).unwrap().completed, 1);
        assert_eq!(bench.new_counts(), [1, 1, 1]);
    }

    #[test]
    fn one_message_that_fails_takes_back_its_files_and_no_other_message() {
        let bench = Bench::new();
        bench.directories.prepare(&bench.root.path().join("c")).unwrap();
        fs::remove_dir(bench.root.path().join("c/new")).unwrap();
        fs::write(bench.root.path().join("c/new"), "a file where a directory should be").unwrap();
        let journal = bench.journal();
        let mut batch = [
            bench.commit(&["a"]),
            bench.commit(&["a", "b", "c"]),
            bench.commit(&["b", "a"]),
        ];
        deliver(&mut batch, &mut bench.desk(), &journal);
        let results = batch.map(|commit| commit.finish().0);
        let text = &results[1].as_ref().unwrap_err().text;
        assert!(
            text.starts_with("cannot deliver to ") && text.contains("/c/new/"),
            "{text}"
        );
        assert!(results[0].is_ok() && results[2].is_ok());
        assert_eq!((bench.count("a/new"), bench.count("b/new")), (2, 1));
        assert_eq!(
            ["a/tmp", "b/tmp", "c/tmp", "intents"].map(|name| bench.count(name)),
            [0; 4]
        );
    }

    #[test]
    fn a_file_that_is_in_the_way_is_not_overwritten() {
        let bench = Bench::new();
        let journal = bench.journal();
        let mut commit = about_to_rename(&bench, &journal);
        let last = commit.draft.moves().last().unwrap().1.to_owned();
        fs::write(&last, "another").unwrap();
        commit.step(|commit| commit.draft.rename(&bench.directories));
        let mut batch = [commit];
        roll_back(&mut batch, &journal);
        assert!(batch.map(|commit| commit.finish().0)[0].is_err());
        assert_eq!(
            (fs::read_to_string(&last).unwrap().as_str(), bench.new_counts()),
            ("another", [0, 0, 1])
        );
        assert_eq!(
            ["a/tmp", "b/tmp", "c/tmp", "intents"].map(|name| bench.count(name)),
            [0; 4]
        );
    }

    #[test]
    fn files_that_cannot_be_taken_back_keep_the_intent_and_are_completed_at_start() {
        let bench = Bench::new();
        let journal = bench.journal();
        let mut commit = about_to_rename(&bench, &journal);
        commit.step(|commit| commit.draft.rename(&bench.directories));
        // a cannot go back to tmp, its place is taken
        let moves: Vec<_> = commit
            .draft
            .moves()
            .map(|(tmp, new)| (tmp.to_owned(), new.to_owned()))
            .collect();
        fs::create_dir(&moves[0].0).unwrap();
        commit.step(|_| Err(io::Error::other("the directory cannot be synced")));
        let mut batch = [commit];
        roll_back(&mut batch, &journal);
        let [commit] = batch;
        let text = commit.finish().0.unwrap_err().text;
        assert!(
            text.starts_with("the directory cannot be synced; then: cannot take back "),
            "{text}"
        );
        fs::remove_dir(&moves[0].0).unwrap();
        drop(journal);
        assert_eq!(bench.count("intents"), 1);
        assert_eq!(recover(bench.root.path()).unwrap().completed, 1);
        assert_eq!(bench.new_counts(), [1, 1, 1]);
    }

    #[test]
    fn a_panic_is_the_failure_of_one_message() {
        let bench = Bench::new();
        let journal = bench.journal();
        let mut batch = [bench.commit(&["a"]), bench.commit(&["b"])];
        batch[0].step(|_| panic!("a mistake of {}", "ours"));
        deliver(&mut batch, &mut bench.desk(), &journal);
        let [first, second] = batch.map(|commit| commit.finish().0);
        assert_eq!(first.unwrap_err().text, "panic: a mistake of ours");
        assert_eq!((second.is_ok(), bench.new_counts()), (true, [0, 1, 0]));
    }

    #[test]
    fn a_message_without_files_is_a_failure() {
        let bench = Bench::new();
        let mut batch = [bench.commit(&[])];
        deliver(&mut batch, &mut bench.desk(), &bench.journal());
        let [commit] = batch;
        assert!(commit.finish().0.is_err());
    }

    #[test]
    fn a_maildir_is_synced_up_to_the_root_even_if_it_was_there_before() {
        let bench = Bench::new();
        let maildir = bench.root.path().join("deep/er/still");
        fs::create_dir_all(&maildir).unwrap();
        bench.directories.prepare(&maildir).unwrap();
        let known = format!("{:?}", bench.directories);
        for directory in maildir.ancestors().take_while(|directory| *directory != Path::new("/")) {
            assert!(known.contains(&format!("{directory:?}")), "{directory:?} in {known}");
        }
    }
}
