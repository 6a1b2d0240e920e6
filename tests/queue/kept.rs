//! What a command has said holds after a crash in the next moment.

use super::*;
use crate::edge::free_address;

/// The process is killed as soon as the command has answered, and started again: how each message stands then.
fn after_a_kill(edge: Edge, toml: &str) -> (Edge, Vec<(String, String)>) {
    let mut edge = edge;
    edge.signal("KILL");
    let edge = Edge::start_in(edge.stop_and_keep_home(), toml);
    edge.wait_for("spool of an earlier run taken up");
    let mut stands = Vec::new();
    let settled = eventually(|| {
        let all = listed(&edge);
        let text = |message: &serde_json::Value, key: &str| message[key].as_str().unwrap().to_owned();
        stands = all.iter().map(|m| (text(m, "id"), text(m, "status"))).collect();
        !stands.is_empty() && stands.iter().all(|(_, status)| status != "active")
    });
    assert!(settled, "{stands:?}");
    (edge, stands)
}

#[test]
fn a_hold_a_release_and_a_removal_outlive_a_crash_right_after_their_answer() {
    let toml = config(&format!("smtp://{}", free_address()));
    let mut edge = Edge::start(&toml);
    let mut client = edge.hello();
    for number in 0..3 {
        let content = format!("Subject: {number}\r\n\r\nHello.\r\n");
        client.accepted("me@client.test", &["you@b.test"], content);
    }
    drop(client);
    let ids = deferred(&edge, 3);
    let mut expected: Vec<_> = ids.iter().map(|id| (id.clone(), "deferred".to_owned())).collect();
    // Later rounds speak of messages that an earlier run has written.
    for round in 0..3 {
        ok(&edge, &["hold", &ids[0]]);
        expected[0].1 = "held".to_owned();
        let (next, stands) = after_a_kill(edge, &toml);
        assert_eq!(stands, expected, "round {round}, held");

        ok(&next, &["release", &ids[0]]);
        expected[0].1 = "deferred".to_owned();
        let (next, stands) = after_a_kill(next, &toml);
        assert_eq!(stands, expected, "round {round}, released");
        edge = next;
    }
    ok(&edge, &["remove", &ids[1]]);
    expected.remove(1);
    let (_edge, stands) = after_a_kill(edge, &toml);
    assert_eq!(stands, expected, "removed");
}
