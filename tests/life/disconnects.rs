//! Clients that go away, at every octet and in every way.

use std::time::Duration;

use crate::client::Client;
use crate::edge::{Edge, eventually, files};
use crate::{config, descriptors_of, unfinished};

const DIALOGUE: &[u8] = b"EHLO c.test\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<c@x.test>\r\nDATA\r\n\
Subject: x\r\n\r\n..dot\r\n.\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<b@x.test>\r\nBDAT 12\r\nSubject: y\r\nBDAT 3 LAST\r\nz\r\nQUIT\r\n";

#[derive(Clone, Copy, Debug)]
enum Leaving {
    /// Closes what it sends and reads to the end.
    HalfClose,
    /// Reads what it is due, then closes.
    Close,
    /// Reads what it is due, then resets.
    Reset,
    /// Resets without having read, often before the server has looked.
    ResetBlindly,
}

/// Replies that are due when so much of the dialogue has been sent, the greeting among them.
fn due(sent: usize) -> usize {
    let sent = String::from_utf8_lossy(&DIALOGUE[..sent]).into_owned();
    let (commands, rest) = sent
        .split_once("DATA\r\n")
        .map_or((sent.as_str(), None), |(c, r)| (c, Some(r)));
    let whole_lines = |text: &str| text.matches("\r\n").count();
    let Some(rest) = rest else {
        return 1 + whole_lines(commands);
    };
    let Some((_, rest)) = rest.split_once("\r\n.\r\n") else {
        return 1 + 4 + 1;
    };
    let (commands, rest) = rest
        .split_once("BDAT 12\r\n")
        .map_or((rest, None), |(c, r)| (c, Some(r)));
    let chunk = rest.is_some_and(|rest| rest.len() >= 12);
    let last = rest.and_then(|rest| rest.split_once("LAST\r\n"));
    let message = last.is_some_and(|(_, content)| content.len() >= 3);
    let quit = last.is_some_and(|(_, content)| content.ends_with("QUIT\r\n"));
    1 + 4 + 1 + 1 + whole_lines(commands) + usize::from(chunk) + usize::from(message) + usize::from(quit)
}

fn leave(mut client: Client, how: Leaving, due: usize) {
    match how {
        Leaving::HalfClose => {
            client.finish_sending();
            let said = client.rest();
            let replies = said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
            assert_eq!(replies.count(), due, "{said}");
        }
        Leaving::Close => (0..due).for_each(|_| drop(client.reply())),
        Leaving::Reset | Leaving::ResetBlindly => {
            if matches!(how, Leaving::Reset) {
                (0..due).for_each(|_| drop(client.reply()));
            }
            let socket = socket2::SockRef::from(client.stream());
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

/// A session that was cut off leaves no claim, no descriptor, no file and no count.
#[test]
fn a_client_that_goes_away_at_any_octet_leaves_nothing_behind() {
    for how in [
        Leaving::HalfClose,
        Leaving::Close,
        Leaving::Reset,
        Leaving::ResetBlindly,
    ] {
        // With one place for one source a claim that stays is seen at once: the last client would not get in.
        let limits = "max_connections = 1000\nconnection_timeout = \"1h\"\ninactivity_timeout = \"1h\"";
        let edge = Edge::start(&config("shards = 2", limits, ""));
        edge.hello().command("QUIT", "221 ");
        edge.wait_for_metric("postern_connections", 0.0);
        let before = descriptors_of(&edge);
        for cut in 0..=DIALOGUE.len() {
            let mut client = edge.connect();
            client.send(&DIALOGUE[..cut]);
            leave(client, how, due(cut));
        }
        edge.wait_for_metric("postern_connections", 0.0);
        assert!(
            eventually(|| unfinished(&edge) == 0),
            "{how:?}: {:?}",
            files(&edge.path("mail/tmp"))
        );
        assert!(
            eventually(|| descriptors_of(&edge) <= before),
            "{how:?}: {before} and {}",
            descriptors_of(&edge)
        );
        // One that was reset before it was accepted may not be there at all.
        let sessions = match how {
            Leaving::ResetBlindly => edge.log(),
            _ => edge.wait_for_number(" info session ", DIALOGUE.len() + 2),
        };
        assert!(!sessions.iter().any(|line| line.contains("panicked")), "{how:?}");
        let accepted = edge
            .log()
            .iter()
            .filter(|line| line.contains(" result=accepted "))
            .count();
        assert_eq!(edge.mail("mail").len(), accepted, "{how:?}");
        assert_eq!(
            edge.metric("postern_messages_received_total"),
            accepted as f64,
            "{how:?}"
        );
        if !matches!(how, Leaving::ResetBlindly) {
            // Whatever was whole when the client left was done.
            let end_of_data = DIALOGUE.windows(5).position(|w| w == b"\r\n.\r\n").unwrap() + 5;
            let end_of_chunks = DIALOGUE.len() - b"QUIT\r\n".len();
            assert_eq!(
                accepted,
                (DIALOGUE.len() - end_of_data + 1) + (DIALOGUE.len() - end_of_chunks + 1)
            );
        }
        only_one_place(&edge);
        edge.hello().command("QUIT", "221 ");
    }
}

/// Lets in one client at a time from now on.
fn only_one_place(edge: &Edge) {
    let text = std::fs::read_to_string(edge.path("postern.toml")).unwrap();
    let text = text.replace("max_connections = 1000", "max_connections = 1");
    let text = text.replace("max_connections_per_source = 1000", "max_connections_per_source = 1");
    edge.home().write("postern.toml", &text);
    edge.signal("HUP");
    edge.wait_for("configuration reloaded");
    // Each shard has heard of it once a second client is refused by it; which one gets a client, the kernel decides.
    let mut in_a_row = 0;
    assert!(eventually(|| {
        let mut first = edge.connect();
        let mut second = edge.connect();
        let replies = [first.reply(), second.reply()];
        let refused = replies
            .iter()
            .filter(|reply| reply.starts_with("421 4.3.2 The maximum number"))
            .count();
        in_a_row = if refused == 1 { in_a_row + 1 } else { 0 };
        drop((first, second));
        edge.wait_for_metric("postern_connections", 0.0);
        in_a_row == 4
    }));
}

#[test]
fn a_client_that_has_sent_all_and_closes_its_side_gets_every_reply_and_its_mail_is_delivered() {
    let edge = Edge::start(&config("shards = 2", "", ""));
    let without_quit = DIALOGUE.strip_suffix(b"QUIT\r\n").unwrap();
    for (dialogue, last) in [(DIALOGUE, "221 2.0.0 "), (without_quit, "250 2.6.0 ")] {
        for _ in 0..10 {
            let mut client = edge.connect();
            client.send(dialogue);
            client.finish_sending();
            let said = client.rest();
            let replies = said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
            let replies: Vec<_> = replies.collect();
            let whole = 11 + usize::from(dialogue == DIALOGUE);
            assert_eq!(replies.len(), whole, "{said}");
            assert!(replies.last().unwrap().starts_with(last), "{said}");
        }
    }
    assert_eq!(edge.mail("mail").len(), 2 * 2 * 10);
}
