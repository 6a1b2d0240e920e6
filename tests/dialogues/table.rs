//! Every row of the table of replies is said in some dialogue.

use std::collections::HashSet;

use postern::smtp::oxsmtp::{Event, Reply};

use crate::play::{Cut, play};
use crate::script::Line;

/// Rows that no session can say by itself yet, and who says them. A row that is provoked must go from here.
const SAID_ELSEWHERE: [(&str, &str); 5] = [
    (
        "NewConnectionNotAvailable",
        "at connect: the shard, and the control thread for a shard that hangs",
    ),
    ("ConnectionCountExceeded", "at connect: the shard"),
    ("ConnectionCountPerSource", "at connect: the shard"),
    ("IPAddressNotAllowedStatic", "at connect: the shard"),
    ("IPAddressNotAllowedDynamic", "at connect: the shard"),
];

#[test]
fn every_row_of_the_table_is_said_in_a_dialogue() {
    let mut said: HashSet<String> = HashSet::new();
    for script in crate::scripts() {
        // A broken dialogue is told of by the other test.
        let Ok(outcome) = play(&script, Cut::Never) else {
            continue;
        };
        said.extend(outcome.events.iter().map(|name| name.to_string()));
        // Of rows with one text, those count that the script names.
        let named = script.lines.iter().filter_map(|(_, line)| match line {
            Line::Store(Some(reply)) => Some(*reply),
            Line::PolicyMail(postern::smtp::session::Verdict::Refuse(reply)) => Some(*reply),
            _ => None,
        });
        let named: HashSet<Reply> = named.collect();
        for reply in Reply::ALL {
            let alone = Reply::ALL.iter().filter(|other| other.text() == reply.text()).count() == 1;
            if (alone || named.contains(reply)) && outcome.replies.iter().any(|(_, text)| text == reply.text()) {
                said.insert(reply.name().to_owned());
            }
        }
    }
    let rows = Event::ALL
        .iter()
        .map(|e| e.name())
        .chain(Reply::ALL.iter().map(|r| r.name()));
    let rows: Vec<&str> = rows.collect();
    let excused = |name: &str| SAID_ELSEWHERE.iter().any(|(row, _)| *row == name);
    let missing: Vec<_> = rows
        .iter()
        .filter(|row| !said.contains(**row) && !excused(row))
        .collect();
    assert!(missing.is_empty(), "no dialogue provokes {missing:?}");
    for (row, reason) in SAID_ELSEWHERE {
        assert!(
            rows.contains(&row) && !reason.is_empty(),
            "{row} is no row of the table"
        );
        assert!(!said.contains(row), "{row} is provoked: take it off the list");
    }
}
