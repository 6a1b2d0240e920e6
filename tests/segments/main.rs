//! Several messages in one segment, through the real binary: nothing of a message that was refused or given up gets into
//! the one behind it, and each has its line in the log. The dialogues prove it of the session, this of its driver.

#![allow(dead_code)]

#[path = "../end_to_end/client.rs"]
mod client;
#[path = "../end_to_end/edge.rs"]
mod edge;

use edge::{Edge, field};

/// One Maildir for each recipient, and no waits between commands.
const EDGE: &str = r#"
hostname = "mx.example.com"
shards = 1
EDITION
[limits]
tarpit = "0s"
max_message_size = 1000000
[[binding]]
name = "mx"
address = ["127.0.0.1:0"]
[domains]
accepted = ["*"]
[[next_hop]]
domains = ["*"]
to = ["maildir:mail/{local}"]
[admin]
listen = "ADMIN"
"#;

fn envelope(to: &str) -> String {
    format!("MAIL FROM:<a@client.test>\r\nRCPT TO:<{to}@example.com>\r\n")
}

/// Sends `first`, which is a transaction to `one` that comes to nothing, and a message to `two`, all in one piece. Only the
/// second message may be there, without an octet of the first.
fn only_the_second_arrives(edition: &str, first: &[u8], result: &str) {
    let edge = Edge::start(&EDGE.replace("EDITION", edition));
    let mut client = edge.hello();
    let second = [envelope("two").as_bytes(), b"BDAT 6 LAST\r\nsecondQUIT\r\n"].concat();
    client.send([envelope("one").as_bytes(), first, &second].concat());
    client.rest();
    edge.wait_for(" session session=");
    let lines = edge.log();
    assert_eq!(edge.mail("mail/one").len(), 0, "{}", client.transcript());
    let mail = edge.mail("mail/two");
    assert_eq!(mail.len(), 1, "{}", client.transcript());
    assert!(mail[0].ends_with(b"\nsecond"), "{}", mail[0].escape_ascii());
    assert!(!mail[0].escape_ascii().to_string().contains("FIRST"));
    let results: Vec<_> = lines.iter().filter_map(|line| field(line, "result")).collect();
    assert_eq!(results, [result, "accepted"], "{lines:#?}");
}

#[test]
fn a_message_behind_rset_between_chunks_is_alone() {
    only_the_second_arrives("", b"BDAT 5\r\nFIRSTRSET\r\n", "abandoned");
}

#[test]
fn a_message_behind_ehlo_between_large_chunks_is_alone() {
    let chunk = [b"\r\nx", &b"FIRST".repeat(120_000)[3..]].concat();
    let first = [b"BDAT 600000\r\n", &chunk[..], b"EHLO client.test\r\n"].concat();
    only_the_second_arrives("", &first, "abandoned");
}

#[test]
fn a_message_behind_one_with_bare_newlines_is_alone() {
    only_the_second_arrives("edition = \"2011\"", b"DATA\r\nFIRST\nx\r\n.\r\n", "refused");
    only_the_second_arrives("", b"DATA\r\nFIRST\nx\r\n.\r\n", "refused");
}

#[test]
fn a_message_behind_one_that_is_too_large_is_alone() {
    let first = [b"DATA\r\n\r\n", &b"FIRST\r\n".repeat(150_000)[..], b".\r\n"].concat();
    only_the_second_arrives("", &first, "refused");
}
