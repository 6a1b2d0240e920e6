//! What each command does, says and exits with.

use std::os::unix::fs::PermissionsExt;

use super::hop::Hop;
use super::*;
use crate::edge::free_address;

fn send(edge: &Edge, to: &[&str], subject: &str) {
    let text = format!("Subject: {subject}\r\n\r\nHello.\r\n");
    edge.hello().accepted("me@client.test", to, &text);
}

#[test]
fn a_message_whose_hop_is_dead_is_listed_and_shown_and_delivered_by_a_retry_once_the_hop_is_back() {
    let address = free_address();
    let edge = Edge::start(&config(&format!("smtp://{address}")));
    assert_eq!(ok(&edge, &["list"]), "The queue is empty.\n");
    assert_eq!(ok(&edge, &["list", "--json"]), "");
    send(&edge, &["you@b.test", "her@c.test"], "first light");
    let ids = deferred(&edge, 1);
    let id = ids[0].as_str();

    let table = ok(&edge, &["list"]);
    for part in [
        "STATUS",
        id,
        "deferred",
        "me@client.test",
        "you@b.test, her@c.test",
        "1 message\n",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let verbose = ok(&edge, &["list", "-v"]);
    assert!(verbose.contains("    you@b.test: next in "), "{verbose}");
    assert!(verbose.contains(": 451 4.4.1 "), "{verbose}");

    let message = &listed(&edge)[0];
    assert_eq!(message["sender"], "me@client.test");
    assert_eq!(
        (message["attempts"].as_u64(), message["recipient_count"].as_u64()),
        (Some(1), Some(2))
    );
    assert_eq!(message["recipients"][1]["address"], "her@c.test");
    assert_eq!(message["recipients"][1]["state"], "waiting");
    assert!(message["next"].as_u64() > message["arrived"].as_u64(), "{message}");

    let shown = ok(&edge, &["show", &id.to_ascii_lowercase()]);
    for part in [
        id,
        "from      me@client.test",
        "her@c.test: next in ",
        "Received: from ",
        "Subject: first light\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("Hello."), "{shown}");
    let shown: serde_json::Value = serde_json::from_str(&ok(&edge, &["show", id, "--json"])).unwrap();
    assert!(shown["header"].as_str().unwrap().contains("Subject: first light\r\n"));
    edge.wait_for_metric("postern_queue_messages", 1.0);

    let hop = Hop::at(address);
    assert_eq!(ok(&edge, &["retry", id]), format!("{id}: tried now\n"));
    edge.wait_for_metric("postern_queue_messages", 0.0);
    let taken = hop.messages();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(
        taken[0].contains("RCPT TO:<her@c.test>") && taken[0].contains("\nSubject: first light\n"),
        "{taken:?}"
    );
    assert_eq!(ok(&edge, &["list"]), "The queue is empty.\n");
    let said = fails(edge.home(), &["show", id]);
    assert!(
        said.contains(&format!("there is no message {id} in the queue")),
        "{said}"
    );
}

#[test]
fn a_held_message_stays_over_a_restart_and_a_retry_and_goes_when_it_is_released() {
    let address = free_address();
    let mut edge = Edge::start(&config(&format!("smtp://{address}")));
    for number in 0..4 {
        send(&edge, &["you@b.test"], &number.to_string());
    }
    let ids = deferred(&edge, 4);
    let (held, removed) = (ids[1].as_str(), ids[2].as_str());
    assert_eq!(
        ok(&edge, &["hold", held]),
        format!("{held}: held until it is released\n")
    );
    assert_eq!(
        ok(&edge, &["remove", removed]),
        format!("{removed}: removed, nobody is told\n")
    );
    edge.wait_for(&format!("delivery id={removed} .. status=dropped"));

    let home = edge.stop_and_keep_home();
    let edge = Edge::start_in(home, &config(&format!("smtp://{address}")));
    let mut statuses = Vec::new();
    assert!(
        eventually(|| {
            let all = listed(&edge);
            statuses = all
                .iter()
                .map(|m| (m["id"].as_str().unwrap().to_owned(), m["status"].clone()))
                .collect();
            statuses.len() == 3 && statuses.iter().all(|(_, status)| status != "active")
        }),
        "{statuses:?}"
    );
    let expected = [(&ids[0], "deferred"), (&ids[1], "held"), (&ids[3], "deferred")];
    assert!(
        statuses
            .iter()
            .zip(expected)
            .all(|(is, should)| is.0 == *should.0 && is.1 == should.1),
        "{statuses:?}"
    );
    assert!(ok(&edge, &["list"]).ends_with("3 messages, 1 held\n"));

    let hop = Hop::at(address);
    let said = ok(&edge, &["retry", "--all"]);
    assert_eq!(said, "3 messages are tried now, but for those that are held\n");
    edge.wait_for_metric("postern_queue_messages", 1.0);
    assert_eq!(hop.messages().len(), 2);
    assert_eq!(ok(&edge, &["release", held]), format!("{held}: released, tried now\n"));
    edge.wait_for_metric("postern_queue_messages", 0.0);
    let subjects: Vec<_> = hop.messages().iter().map(|m| m.contains("\nSubject: 1\n")).collect();
    assert_eq!(subjects, [false, false, true], "no report, and the removed one is gone");
}

#[test]
fn a_list_of_more_than_a_page_names_everybody_once_in_order_also_after_a_restart() {
    let toml = config(&format!("smtp://{}", free_address()));
    let mut edge = Edge::start(&toml);
    let mut clients: Vec<_> = (0..8).map(|_| edge.hello()).collect();
    for number in 0..600 {
        clients[number % 8].accepted("me@client.test", &["you@b.test"], "Subject: x\r\n\r\nHello.\r\n");
    }
    let mut ids = Vec::new();
    assert!(eventually(|| {
        ids = listed(&edge)
            .iter()
            .map(|m| m["id"].as_str().unwrap().to_owned())
            .collect();
        ids.len() == 600
    }));
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert!(ok(&edge, &["list"]).ends_with("600 messages\n"));
    drop(clients);

    let edge = Edge::start_in(edge.stop_and_keep_home(), &toml);
    let mut again = Vec::new();
    assert!(eventually(|| {
        let all = listed(&edge);
        again = all.iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
        again.len() == 600 && all.iter().all(|m| m["status"] == "deferred")
    }));
    assert_eq!(again, ids);
    // The fields that this hop has put on top are read from the spool.
    let shown = ok(&edge, &["show", &ids[0]]);
    assert!(
        shown.contains("Received: from ") && shown.contains("Subject: x\n"),
        "{shown}"
    );
}

#[test]
fn what_is_not_there_is_said_in_a_sentence_and_fails() {
    let edge = Edge::start(&config("discard:"));
    let mode = std::fs::metadata(edge.path("var/admin.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for id in ["0AKJXS5P40000", "nonsense", "\u{1b}[2J"] {
        for command in ["show", "retry", "hold", "release", "remove"] {
            let said = fails(edge.home(), &[command, id]);
            assert!(
                said.contains("there is no message ") && !said.contains('\u{1b}'),
                "{said}"
            );
        }
    }
    for wrong in [
        &["retry"][..],
        &["hold"],
        &["retry", "--all", "0AKJXS5P40000"],
        &["burn"],
    ] {
        assert_eq!(queue(edge.home(), wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn where_no_edge_runs_the_socket_and_what_to_do_are_named() {
    let mut edge = Edge::start(&config("discard:"));
    let socket = edge.path("var/admin.sock");
    let home = edge.stop_and_keep_home();
    assert!(!socket.exists(), "it goes with its edge");
    let said = fails(&home, &["list"]);
    let path = home.path().canonicalize().unwrap().join("var/admin.sock");
    assert!(
        said.contains(path.to_str().unwrap()) && said.contains("--config FILE"),
        "{said}"
    );
}

#[test]
fn a_stale_socket_is_replaced_at_the_next_start() {
    let mut edge = Edge::start(&config("discard:"));
    edge.signal("KILL");
    let home = edge.stop_and_keep_home();
    assert!(home.path().join("var/admin.sock").exists());
    assert!(fails(&home, &["list"]).contains("no edge runs"));
    let edge = Edge::start_in(home, &config("discard:"));
    assert_eq!(ok(&edge, &["list"]), "The queue is empty.\n");
}
