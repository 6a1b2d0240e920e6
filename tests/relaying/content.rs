//! What the hop gets is what the client has sent, behind our Received field.

use crate::client::queue_id;
use crate::edge::Edge;
use crate::hop::{Act, Heard, Hop, Plan, say};
use crate::{FROM, behind_received, custody, edge, is_spooled, to};

#[test]
fn a_message_that_the_hop_takes_within_the_delay_touches_no_disk() {
    let hop = Hop::up();
    let edge = edge(&hop);
    let mut client = edge.hello();
    let id = client.accepted(FROM, &["b@example.com"], "Subject: x\r\n\r\nunmistakable\r\n");
    assert_eq!(custody(&edge, &id), "next_hop");
    edge.wait_for(&format!("delivery id={id} ..status=sent"));
    let taken = hop.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(
        behind_received(&taken[0].content),
        b"Subject: x\r\n\r\nunmistakable\r\n"
    );
    assert!(
        taken[0].mail.starts_with("MAIL FROM:<a@client.test>"),
        "{}",
        taken[0].mail
    );
    assert_eq!(taken[0].recipients, ["b@example.com"]);
    assert!(!is_spooled(&edge, "unmistakable"));
    for metric in ["messages", "octets_written", "syncs"] {
        assert_eq!(edge.metric(&format!("postern_spool_{metric}_total")), 0.0, "{metric}");
    }
    assert_eq!(edge.metric("postern_acknowledgements_total{custody=\"next_hop\"}"), 1.0);
    assert_eq!(edge.metric("postern_queue_messages"), 0.0);
}

#[test]
fn dots_and_octets_above_127_arrive_as_they_were_sent() {
    for lacking in [&["CHUNKING", "BINARYMIME"][..], &[]] {
        let hop = Plan::new().lacks(lacking).up();
        let edge = edge(&hop);
        let mut client = edge.hello();
        let content = b"Subject: \xfc\r\n\r\n.\r\n..two\r\nno. dot.\r\n\x80\xff\r\n.last\r\n";
        client.accepted(FROM, &["b@example.com"], content);
        // Chunks need no dots.
        client.envelope(FROM, &["b@example.com"]);
        let (first, second) = content.split_at(17);
        client.send(format!("BDAT {}\r\n", first.len()));
        client.send(first);
        client.expect_reply("250 ");
        client.send(format!("BDAT {} LAST\r\n", second.len()));
        client.send(second);
        queue_id(&client.reply());
        let taken = hop.taken();
        assert_eq!(taken.len(), 2);
        for message in taken {
            assert_eq!(behind_received(&message.content), content, "by {}", message.verb);
        }
    }
}

#[test]
fn large_messages_arrive_whole() {
    let hop = Hop::up();
    let edge = edge(&hop);
    let mut client = edge.hello();
    for size in [300 << 10, 5 << 20] {
        let mut content = b"Subject: large\r\n\r\n".to_vec();
        let mut line = 0;
        while content.len() < size {
            content.extend_from_slice(format!(".{line} is a line that begins with a dot\r\n").as_bytes());
            line += 1;
        }
        let id = client.accepted(FROM, &["b@example.com"], &content);
        assert_eq!(custody(&edge, &id), "next_hop");
        let taken = hop.taken();
        let last = behind_received(&taken.last().unwrap().content);
        assert!(last == content, "{} octets of {}", last.len(), content.len());
    }
    edge.wait_for_metric("postern_queue_messages", 0.0);
}

#[test]
fn what_a_hop_cannot_carry_is_refused_with_the_code_that_says_so() {
    // 8-bit content, RFC 6152; binary content, RFC 3030; addresses beyond ASCII, RFC 6531.
    let hop = Plan::new()
        .lacks(&["8BITMIME", "BINARYMIME", "SMTPUTF8", "CHUNKING"])
        .up();
    let edge = edge(&hop);
    let mut client = edge.hello();
    client.command("MAIL FROM:<a@client.test> BODY=8BITMIME", "250 ");
    client.command("RCPT TO:<b@example.com>", "250 ");
    let reply = client.data(b"Subject: x\r\n\r\n\xff\r\n");
    assert!(reply.starts_with('5') && reply.contains(" 5.6."), "{reply}");
    client.command("MAIL FROM:<a@client.test> BODY=BINARYMIME", "250 ");
    client.command("RCPT TO:<b@example.com>", "250 ");
    client.send(b"BDAT 9 LAST\r\nx: y\r\n\r\n\0");
    let reply = client.reply();
    assert!(reply.starts_with('5') && reply.contains(" 5.6.1 "), "{reply}");
    client.command("MAIL FROM:<jörg@client.test> SMTPUTF8", "250 ");
    client.command("RCPT TO:<b@example.com>", "250 ");
    let reply = client.data("Subject: x\r\n\r\nx\r\n");
    assert!(reply.starts_with('5') && reply.contains(" 5.6.7 "), "{reply}");
    assert_eq!(hop.seen().len(), 0);
    assert!(
        !hop.commands().iter().any(|line| line.starts_with("MAIL")),
        "{:?}",
        hop.commands()
    );
    // What it can carry, it is given.
    client.accepted(FROM, &["b@example.com"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(hop.taken().len(), 1);
}

#[test]
fn a_reply_of_several_lines_to_the_end_of_data_is_one_reply() {
    let hop = Plan::new()
        .script(|heard| match heard {
            Heard::End(_) => say("250-2.0.0 one\r\n250-2.0.0 two\r\n250 2.0.0 three"),
            Heard::Rcpt(_) => say("250-2.1.5 one\r\n250 2.1.5 two"),
            Heard::Connection => say("220-hop.test\r\n220 welcome"),
            _ => Act::Usual,
        })
        .up();
    let edge = Edge::start(&to(&[hop.target()]).toml());
    let id = edge.hello().accepted(FROM, &["b@example.com"], "x\r\n");
    assert_eq!(custody(&edge, &id), "next_hop");
}
