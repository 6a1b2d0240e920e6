//! Scripts of replies against the steps that they ask for. Pure.

use super::*;

const PIPELINED: Manner = Manner {
    pipelining: true,
    group: false,
    bdat: false,
    chunks: 1,
    start_tls: false,
    auth: None,
    lmtp: false,
    smtputf8: false,
    recipients: 2,
    refusals_expected: false,
};
const LOCKSTEP: Manner = Manner {
    pipelining: false,
    group: false,
    bdat: false,
    chunks: 1,
    start_tls: false,
    auth: None,
    lmtp: false,
    smtputf8: false,
    recipients: 2,
    refusals_expected: false,
};
const GROUPED: Manner = Manner {
    group: true,
    ..PIPELINED
};
const GREETED: &[u8] = b"220 here\r\n250-here\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 100\r\n";

/// Plays `script` cut into pieces of `cut` octets, beginning a message whenever one may begin; gives the steps.
fn play(manner: &Manner, script: &[u8], cut: usize) -> (Vec<Step>, Vec<u16>) {
    let mut dialogue = Dialogue::new();
    // Groups that have another message behind them; the next one has QUIT.
    let mut messages = 2_u32;
    let (mut steps, mut codes) = (Vec::new(), Vec::new());
    for piece in script.chunks(cut) {
        let mut rest = piece;
        while !rest.is_empty() {
            let (used, step) = dialogue.receive(manner, rest, |code| codes.push(code));
            rest = &rest[used..];
            if step != Step::More {
                steps.push(step);
            }
            match step {
                Step::Group => steps.push(Step::Send(dialogue.group(messages > 0))),
                Step::Ready => steps.push(Step::Send(dialogue.begin())),
                Step::Finished(_) if !dialogue.follows_already() => steps.push(Step::Send(dialogue.begin())),
                _ => {}
            }
            messages = messages.saturating_sub(u32::from(step == Step::Group));
        }
    }
    (steps, codes)
}

fn same_however_cut(manner: Manner, replies: &[u8], expected: &[Step]) {
    let script = [GREETED, replies].concat();
    for cut in 1..=script.len() {
        assert_eq!(play(&manner, &script, cut).0, expected, "cut into {cut}");
    }
}

#[test]
fn a_pipelined_message_takes_two_writes() {
    same_however_cut(
        PIPELINED,
        b"250 ok\r\n250 ok\r\n250-a\r\n250 ok\r\n354 go\r\n250 taken\r\n",
        &[
            Step::Send(Chunk::Ehlo),
            Step::Ready,
            Step::Send(Chunk::Envelope),
            Step::Send(Chunk::Content),
            Step::Finished(Outcome::Accepted),
            Step::Send(Chunk::Envelope),
        ],
    );
}

#[test]
fn without_pipelining_each_command_waits_for_its_reply() {
    same_however_cut(
        LOCKSTEP,
        b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250\r\n",
        &[
            Step::Send(Chunk::Ehlo),
            Step::Ready,
            Step::Send(Chunk::Mail),
            Step::Send(Chunk::Rcpt(0)),
            Step::Send(Chunk::Rcpt(1)),
            Step::Send(Chunk::Data),
            Step::Send(Chunk::Content),
            Step::Finished(Outcome::Accepted),
            Step::Send(Chunk::Mail),
        ],
    );
}

#[test]
fn pipelining_that_is_not_offered_is_not_used() {
    let script = b"220 here\r\n250 here PIPELINING\r\n";
    let (steps, _) = play(&PIPELINED, script, script.len());
    assert_eq!(steps.last(), Some(&Step::Send(Chunk::Mail)));
}

#[test]
fn bdat_without_chunking_ends_the_connection() {
    let script = b"220 here\r\n250 here\r\n";
    let (steps, _) = play(
        &Manner {
            bdat: true,
            ..PIPELINED
        },
        script,
        5,
    );
    assert_eq!(steps.last(), Some(&Step::Over(Ending::Lacks("CHUNKING"))));
}

#[test]
fn a_pipelined_bdat_message_takes_one_write() {
    let start = [Step::Send(Chunk::Ehlo), Step::Ready, Step::Send(Chunk::Envelope)];
    let end = [Step::Finished(Outcome::Accepted), Step::Send(Chunk::Envelope)];
    let expected = [&start[..], &end[..]].concat();
    let manner = Manner {
        bdat: true,
        ..PIPELINED
    };
    same_however_cut(manner, b"250 ok\r\n250 ok\r\n250 ok\r\n250 taken\r\n", &expected);
}

#[test]
fn when_no_recipient_is_accepted_only_the_dot_is_sent() {
    let (steps, codes) = play(
        &PIPELINED,
        &[GREETED, b"250 ok\r\n550 no\r\n550 no\r\n354 go\r\n554 none\r\n"].concat(),
        7,
    );
    assert!(steps.contains(&Step::Send(Chunk::LoneDot)));
    assert!(steps.contains(&Step::Finished(Outcome::Refused)));
    assert_eq!(codes, [220, 250, 250, 550, 550, 354, 554]);
}

#[test]
fn one_refused_recipient_makes_the_message_refused() {
    let replies = b"250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n250 taken\r\n";
    let (steps, _) = play(&PIPELINED, &[GREETED, replies].concat(), 1000);
    assert!(steps.contains(&Step::Send(Chunk::Content)));
    assert!(steps.contains(&Step::Finished(Outcome::Refused)));
}

#[test]
fn refused_data_is_followed_by_rset() {
    let replies = b"250 ok\r\n550 no\r\n550 no\r\n503 none\r\n250 reset\r\n";
    let (steps, _) = play(&PIPELINED, &[GREETED, replies].concat(), 3);
    assert!(steps.ends_with(&[
        Step::Send(Chunk::Reset),
        Step::Finished(Outcome::Refused),
        Step::Send(Chunk::Envelope)
    ]));
}

#[test]
fn a_refused_greeting_turns_the_client_away() {
    for script in [&b"421 later\r\n"[..], b"554 never\r\n"] {
        assert_eq!(play(&PIPELINED, script, 2).0, [Step::Over(Ending::TurnedAway)]);
    }
}

#[test]
fn a_421_in_the_middle_ends_the_connection() {
    let (steps, _) = play(&PIPELINED, &[GREETED, b"250 ok\r\n421 bye\r\n"].concat(), 1000);
    assert_eq!(steps.last(), Some(&Step::Over(Ending::Shutdown)));
}

#[test]
fn what_is_no_reply_ends_the_connection() {
    assert_eq!(
        play(&PIPELINED, b"hello\r\n", 1).0.first(),
        Some(&Step::Over(Ending::Malformed))
    );
}

#[test]
fn a_restarted_dialogue_forgets_what_the_last_server_offered() {
    let mut dialogue = Dialogue::new();
    dialogue.receive(&PIPELINED, b"220 x\r\n", |_| {});
    dialogue.receive(&PIPELINED, b"250-x\r\n250 PIPELINING\r\n", |_| {});
    assert!(!dialogue.pipelining_denied(&PIPELINED));
    dialogue.restart();
    dialogue.receive(&PIPELINED, b"220 x\r\n", |_| {});
    dialogue.receive(&PIPELINED, b"250 x\r\n", |_| {});
    assert!(dialogue.pipelining_denied(&PIPELINED));
}

/// The steps up to the content of the first message of a group.
const FIRST_GROUP: [Step; 5] = [
    Step::Send(Chunk::Ehlo),
    Step::Ready,
    Step::Send(Chunk::Envelope),
    Step::Group,
    Step::Send(Chunk::ContentAndEnvelope),
];
const ENVELOPE_ACCEPTED: &[u8] = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n";

#[test]
fn in_a_group_a_message_takes_one_write_and_the_last_one_carries_quit() {
    let message = [ENVELOPE_ACCEPTED, b"250 taken\r\n"].concat();
    let replies = [&message.repeat(3), &b"221 bye\r\n"[..]].concat();
    let rest = [
        Step::Finished(Outcome::Accepted),
        Step::Group,
        Step::Send(Chunk::ContentAndEnvelope),
        Step::Finished(Outcome::Accepted),
        Step::Group,
        Step::Send(Chunk::ContentAndQuit),
        Step::Finished(Outcome::Accepted),
        Step::Over(Ending::Quit),
    ];
    same_however_cut(GROUPED, &replies, &[&FIRST_GROUP[..], &rest].concat());
}

#[test]
fn in_a_group_each_message_has_the_outcome_of_its_own_replies() {
    // Content refused; a recipient refused; accepted.
    let second = b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n";
    let replies = [
        ENVELOPE_ACCEPTED,
        b"554 no\r\n",
        second,
        b"250 taken\r\n",
        ENVELOPE_ACCEPTED,
        b"250 taken\r\n221\r\n",
    ]
    .concat();
    let (steps, _) = play(&GROUPED, &[GREETED, &replies].concat(), 9);
    let outcomes: Vec<_> = steps.iter().filter(|step| matches!(step, Step::Finished(_))).collect();
    let [refused, accepted] = [Outcome::Refused, Outcome::Accepted].map(Step::Finished);
    assert_eq!(outcomes, [&refused, &refused, &accepted]);
}

#[test]
fn data_refused_behind_a_content_is_followed_by_rset_and_a_new_envelope() {
    let refused = b"250 taken\r\n250 ok\r\n550 no\r\n550 no\r\n503 none\r\n250 reset\r\n";
    let rest = [
        Step::Finished(Outcome::Accepted),
        Step::Send(Chunk::Reset),
        Step::Finished(Outcome::Refused),
        Step::Send(Chunk::Envelope),
    ];
    let replies = [ENVELOPE_ACCEPTED, refused].concat();
    same_however_cut(GROUPED, &replies, &[&FIRST_GROUP[..], &rest].concat());
}

#[test]
fn no_recipient_accepted_behind_a_content_leaves_only_the_dot_to_send() {
    let replies = b"250 taken\r\n250 ok\r\n550 no\r\n550 no\r\n354 go\r\n554 none\r\n";
    let rest = [
        Step::Finished(Outcome::Accepted),
        Step::Send(Chunk::LoneDot),
        Step::Finished(Outcome::Refused),
        Step::Send(Chunk::Envelope),
    ];
    let replies = [ENVELOPE_ACCEPTED, replies].concat();
    same_however_cut(GROUPED, &replies, &[&FIRST_GROUP[..], &rest].concat());
}

#[test]
fn a_message_behind_the_content_is_under_way_with_it_and_quit_is_not() {
    let mut dialogue = Dialogue::new();
    let mut under_way = Vec::new();
    let script = [GREETED, ENVELOPE_ACCEPTED].concat();
    let mut rest = &script[..];
    while !rest.is_empty() {
        let (used, step) = dialogue.receive(&GROUPED, rest, |_| {});
        rest = &rest[used..];
        if step == Step::Ready {
            dialogue.begin();
        }
    }
    under_way.push(dialogue.messages_under_way());
    dialogue.group(true);
    under_way.push(dialogue.messages_under_way());
    dialogue.receive(&GROUPED, b"250 taken\r\n", |_| {});
    under_way.push(dialogue.messages_under_way());
    dialogue.receive(&GROUPED, ENVELOPE_ACCEPTED, |_| {});
    dialogue.group(false);
    under_way.push(dialogue.messages_under_way());
    dialogue.receive(&GROUPED, b"250 taken\r\n", |_| {});
    under_way.push(dialogue.messages_under_way());
    assert_eq!(under_way, [1, 2, 1, 1, 0]);
    assert!(dialogue.is_quitting());
}

#[test]
fn groups_are_not_used_where_pipelining_is_not_offered() {
    let script = b"220 here\r\n250 here\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    let (steps, _) = play(&GROUPED, script, script.len());
    assert_eq!(steps.last(), Some(&Step::Send(Chunk::Content)));
}

#[test]
fn starttls_comes_before_everything_else_and_is_followed_by_another_ehlo() {
    let manner = Manner {
        start_tls: true,
        ..PIPELINED
    };
    let script = b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250-x\r\n250 PIPELINING\r\n";
    for cut in 1..=script.len() {
        let expected = [
            Step::Send(Chunk::Ehlo),
            Step::Send(Chunk::StartTls),
            Step::StartTls,
            Step::Ready,
            Step::Send(Chunk::Envelope),
        ];
        assert_eq!(play(&manner, script, cut).0, expected);
    }
    let (steps, _) = play(&manner, GREETED, 7);
    assert_eq!(steps.last(), Some(&Step::Over(Ending::Lacks("STARTTLS"))));
}

#[test]
fn auth_answers_what_it_is_asked_and_gives_up_when_it_is_refused() {
    let manner = Manner {
        auth: Some(Credentials {
            mechanism: crate::auth::Mechanism::Login,
            user: "u".into(),
            password: "p".into(),
        }),
        ..PIPELINED
    };
    let script = [GREETED, b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 ok\r\n"].concat();
    let spoken = Step::Send(Chunk::Spoken);
    let (steps, _) = play(&manner, &script, 5);
    let begun = [Step::Ready, Step::Send(Chunk::Envelope)];
    assert_eq!(
        steps,
        [&[Step::Send(Chunk::Ehlo), spoken, spoken, spoken][..], &begun].concat()
    );
    let (steps, _) = play(&manner, &[GREETED, b"535 no\r\n"].concat(), 5);
    assert!(matches!(steps.last(), Some(Step::Over(Ending::Lacks(_)))));
}

#[test]
fn lmtp_waits_for_a_final_reply_of_each_recipient_that_was_accepted() {
    let manner = Manner {
        lmtp: true,
        ..PIPELINED
    };
    let finished = |outcome| {
        vec![
            Step::Send(Chunk::Ehlo),
            Step::Ready,
            Step::Send(Chunk::Envelope),
            Step::Send(Chunk::Content),
            Step::Finished(outcome),
            Step::Send(Chunk::Envelope),
        ]
    };
    let envelope = "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    let both = format!("{envelope}250 one\r\n250 two\r\n");
    same_however_cut(manner.clone(), both.as_bytes(), &finished(Outcome::Accepted));
    let one = format!("{envelope}250 one\r\n452 two\r\n");
    same_however_cut(manner, one.as_bytes(), &finished(Outcome::Refused));
}

#[test]
fn chunks_leave_one_by_one_without_pipelining_and_together_with_it() {
    let chunks = |manner| Manner {
        bdat: true,
        chunks: 3,
        ..manner
    };
    let replies = b"250 ok\r\n250 ok\r\n250 ok\r\n250 1\r\n250 2\r\n250 taken\r\n";
    let sent = |steps: Vec<Step>| steps.into_iter().skip(2).collect::<Vec<_>>();
    let script = [GREETED, replies].concat();
    let over = Step::Finished(Outcome::Accepted);
    assert_eq!(
        sent(play(&chunks(PIPELINED), &script, 4).0),
        [Step::Send(Chunk::Envelope), over, Step::Send(Chunk::Envelope)]
    );
    let one_by_one = [
        Chunk::Mail,
        Chunk::Rcpt(0),
        Chunk::Rcpt(1),
        Chunk::Piece(0),
        Chunk::Piece(1),
        Chunk::Piece(2),
    ];
    let mut expected: Vec<Step> = one_by_one.into_iter().map(Step::Send).collect();
    expected.extend([over, Step::Send(Chunk::Mail)]);
    assert_eq!(sent(play(&chunks(LOCKSTEP), &script, 4).0), expected);
}
