//! Dialogues: text files, one a behaviour, played against the sans-IO session. No network, no clock.
//!
//! Each file is played whole (everything between two expectations in one segment), line by line, cut in two at every octet,
//! and octet by octet; replies, their times, messages, reports and events must be the same in all of them. The words of the
//! files are explained in `script.rs`.
//!
//! To play one file only: `DIALOGUE=part_of_its_name cargo test --test dialogues`.

mod driver;
mod play;
mod script;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use play::{Cut, Outcome};
use script::Script;

/// Up to here a dialogue is cut at every octet; a longer one near its line ends, and at every 997th octet.
const CUT_EVERYWHERE: usize = 3000;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let wanted = std::env::var("DIALOGUE").unwrap_or_default();
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .filter(|path| name(path).contains(&wanted))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn scripts() -> Vec<Script> {
    files()
        .iter()
        .flat_map(|path| Script::read(name(path), &fs::read_to_string(path).unwrap()))
        .collect()
}

/// Where to cut a dialogue whose input is `input`.
fn cuts(input: &[u8]) -> Vec<usize> {
    let near_a_line_end = |n: usize| {
        let around = n.saturating_sub(6)..(n + 6).min(input.len());
        input[around].contains(&b'\n')
    };
    (1..input.len())
        .filter(|&n| input.len() <= CUT_EVERYWHERE || n % 997 == 0 || near_a_line_end(n))
        .collect()
}

/// Plays a dialogue in every way, and says where one of them differs.
fn play_in_every_way(script: &Script) -> Result<(), String> {
    let whole = play::play(script, Cut::Never)?;
    let same = |how: String, outcome: Result<Outcome, String>| match outcome {
        Ok(outcome) if outcome == whole => Ok(()),
        Ok(outcome) => Err(format!("{how}: {outcome:#?}\nis not what came of it whole: {whole:#?}")),
        Err(error) => Err(format!("{how}: {error}")),
    };
    same("line by line".into(), play::play(script, Cut::Lines))?;
    same("octet by octet".into(), play::play(script, Cut::Octets))?;
    for at in cuts(&script.input()) {
        same(format!("cut at octet {at}"), play::play(script, Cut::At(at)))?;
    }
    Ok(())
}

#[test]
fn every_dialogue_goes_as_written_however_it_is_cut() {
    let scripts = scripts();
    assert!(!scripts.is_empty());
    let (even, odd): (Vec<_>, Vec<_>) = scripts.iter().enumerate().partition(|(n, _)| n % 2 == 0);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let halves = [even, odd].map(|half| {
            scope.spawn(move || {
                half.into_iter()
                    .filter_map(|(_, script)| {
                        let failure = play_in_every_way(script).err()?;
                        Some(format!("{} ({:?}): {failure}", script.name, script.terms.edition))
                    })
                    .collect::<Vec<_>>()
            })
        });
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

#[test]
fn every_dialogue_is_named_as_a_sentence() {
    for path in files() {
        let words: Vec<&str> = name(&path).split('_').collect();
        let plain =
            |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        assert!(words.len() >= 3 && words.iter().all(plain), "{}", path.display());
    }
}
