//! What the log says: one line a session, one a message, in text and in JSON, whatever the network sends.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::client::{Client, dotted};
use crate::config;
use crate::edge::{Edge, Home, field};

/// From octets that a log must not pass on: ESC, a right-to-left mark, quotes, a backslash, DEL, an invalid octet.
const HOSTILE: &[u8] = b"a\x1b[31mred\xe2\x80\x8fmark\"quoted\"\\\x7f\xff";

fn parsed(edge: &Edge, message: &str, number: usize) -> Vec<Value> {
    let lines = edge.wait_for_number(&format!("\"message\":\"{message}\""), number);
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_line_is_json_and_tells_what_there_is_to_tell() {
    let edge = Edge::start(&config(
        "shards = 1",
        "max_recipients = 2",
        "[log]\nformat = \"json\"\n",
    ));
    let mut client = edge.hello();
    let port = client.local().port();
    client.envelope("a@client.test", &["b@example.com", "c@example.com"]);
    client.command("RCPT TO:<d@example.com>", "452 4.5.3 ");
    let id = crate::client::queue_id(&client.data("Subject: x\r\n\r\n12345\r\n"));
    client.command("MAIL FROM:<> SIZE=99999999", "552 5.3.4 ");
    client.envelope("", &["b@example.com"]);
    client.data_refused("Subject: x\r\n\r\nbare\rreturn\r\n");
    client.command("QUIT", "221 ");

    let messages = parsed(&edge, "message", 2);
    let accepted = &messages[0];
    assert_eq!(accepted["id"], id.as_str());
    assert_eq!(accepted["from"], "a@client.test");
    assert_eq!(accepted["helo"], "client.test");
    assert_eq!(accepted["client"], "127.0.0.1");
    assert_eq!((&accepted["recipients"], &accepted["size"]), (&2.into(), &21.into()));
    assert_eq!(accepted["result"], "accepted");
    assert!(
        accepted["receiving"].is_f64() && accepted["delivering"].is_f64(),
        "{accepted}"
    );
    let refused = messages.last().unwrap();
    assert_eq!((&refused["from"], &refused["result"]), (&"".into(), &"refused".into()));
    assert!(
        refused["reply"].as_str().unwrap().starts_with("550 5.6.11 "),
        "{refused}"
    );

    let session = &parsed(&edge, "session", 1)[0];
    assert_eq!(session["session"], accepted["session"]);
    assert_eq!(
        (&session["binding"], &session["client"], &session["port"]),
        (&"mx".into(), &"127.0.0.1".into(), &port.into())
    );
    assert_eq!((&session["messages"], &session["end"]), (&1.into(), &"closed".into()));
    assert_eq!(session["limit"], "MessageSizeExceeded");
    assert!(session["duration"].is_f64(), "{session}");
    for line in edge.log() {
        assert!(
            serde_json::from_str::<Value>(&line).is_ok_and(|v| v["time"].is_string() && v["level"].is_string()),
            "{line}"
        );
    }
}

impl Client {
    /// DATA whose content is sent as it is and refused.
    fn data_refused(&mut self, content: &str) {
        self.command("DATA", "354 ");
        let mut octets = dotted(content.as_bytes());
        octets.extend_from_slice(b".\r\n");
        self.send(octets);
        self.expect_reply("550 5.6.11 ");
    }
}

#[test]
fn nothing_from_the_network_leaves_its_place_in_a_line() {
    for format in ["text", "json"] {
        let edge = Edge::start(&config(
            "shards = 1",
            "max_protocol_errors = 100",
            &format!("[log]\nformat = \"{format}\"\n"),
        ));
        let mut client = edge.connect();
        client.expect_reply("220 ");
        for verb in ["EHLO ", "HELO ", "MAIL FROM:<", "VRFY "] {
            client.send([verb.as_bytes(), HOSTILE, b"\r\n"].concat());
            client.reply();
        }
        client.command("EHLO client.test", "250");
        client.send("MAIL FROM:<\"a \\\"b\\\" c=d\"@client.test> SMTPUTF8\r\n");
        client.expect_reply("250 ");
        client.command("RCPT TO:<\u{fc}ser\u{200f}@ex\u{e4}mple.com>", "250 ");
        client.data("Subject: x\r\n\r\nx\r\n");
        client.command("QUIT", "221 ");
        edge.wait_for("session .. closed");
        let log = edge.log();
        for line in &log {
            assert!(line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line}");
        }
        let message = log.iter().find(|line| line.contains("accepted")).unwrap();
        if format == "json" {
            let message: Value = serde_json::from_str(message).unwrap();
            assert_eq!(message["from"], "\"a \\\"b\\\" c=d\"@client.test");
            assert_eq!(message["helo"], "client.test");
        } else {
            assert_eq!(field(message, "helo").as_deref(), Some("client.test"));
            assert_eq!(message.matches(" helo=").count(), 1);
        }
        let session = log.iter().find(|line| line.contains("closed")).unwrap();
        assert!(
            !session.contains("\u{1b}") && !session.contains("[31m") || session.contains("\\"),
            "{session}"
        );
    }
}

#[test]
fn a_refused_connection_has_a_line_that_names_the_limit() {
    let edge = Edge::start(&config(
        "shards = 1",
        "max_connections = 1",
        "[access]\nblock = [\"127.0.0.66\"]\n",
    ));
    let _first = edge.hello();
    edge.connect().expect_reply("421 4.3.2 ");
    edge.connect_from("127.0.0.66").expect_reply("550 5.7.1 ");
    edge.wait_for(" info session .. client=127.0.0.1 .. end=refused .. limit=ConnectionCountExceeded");
    edge.wait_for(" info session .. client=127.0.0.66 .. end=refused .. limit=IPAddressNotAllowed");
}

#[test]
fn a_reader_of_the_log_that_stands_still_stalls_nobody() {
    let home = Home::new();
    let text = config("shards = 2\ndrain_timeout = \"1s\"", "", "").replace("[admin]\nlisten = \"ADMIN\"\n", "");
    home.write("postern.toml", &text);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["serve", "--config", "postern.toml"])
        .current_dir(home.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let mut address = None;
    while !line.contains("postern ready") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0);
        address = field(line.trim(), "address").map(|a| a.parse().unwrap()).or(address);
    }
    let address = address.unwrap();
    let mut staying = Client::connect(address).hello();
    // A pipe holds 64 KiB; two lines with this name are 700 octets.
    let name = "a".repeat(250);
    for _ in 0..200 {
        let mut client = Client::connect(address).hello();
        client.command(&format!("EHLO {name}"), "250");
        client.accepted("a@client.test", &["b@example.com"], "Subject: x\r\n\r\nunheard\r\n");
        client.command("QUIT", "221 ");
        staying.command("NOOP", "250 ");
    }
    assert_eq!(crate::edge::files(&home.path().join("mail/new")).len(), 200);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    staying.expect_reply("421 4.3.2 ");
    drop(staying);
    // It does not wait for the reader for ever.
    let ended = crate::edge::eventually(|| child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
