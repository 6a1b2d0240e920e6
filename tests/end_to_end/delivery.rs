//! What lies in the Maildir after the 250.

use crate::edge::Edge;

/// One binding, two shards, any domain into `mail`.
const PLAIN: &str = r#"
hostname = "mx.example.com"
shards = 2
[limits]
tarpit = "0s"
[[binding]]
name = "mx"
address = ["127.0.0.1:0"]
[domains]
accepted = ["*"]
[[next_hop]]
domains = ["*"]
to = ["maildir:mail"]
[admin]
listen = "ADMIN"
"#;

#[test]
fn a_message_lies_in_the_maildir_as_it_was_sent_below_the_fields_of_this_hop() {
    let edge = Edge::start(PLAIN);
    let mut client = edge.hello();
    let id = client.accepted(
        "a@client.test",
        &["b@example.com"],
        "Subject: x\r\n\r\nhello\r\n.dot\r\n",
    );
    let mail = edge.mail("mail");
    assert_eq!(mail.len(), 1);
    println!("{}", String::from_utf8_lossy(&mail[0]));
    println!("{id} {:#?}", edge.log());
    edge.wait_for_metric("postern_connections", 1.0);
    client.command("QUIT", "221");
    client.expect_close();
    let (status, log) = edge.drain();
    println!("{log:#?}");
    assert!(status.success());
}
