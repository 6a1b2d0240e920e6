//! SIGHUP.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::client::Client;
use crate::edge::{Edge, eventually};
use crate::{config, descriptors_of};

const BINDING: &str = "[[binding]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\n";

impl Edge {
    /// A reload with a new text, which keeps the admin address.
    fn reload(&mut self, text: &str) {
        let before = self.count("configuration reloaded");
        self.rewrite(text);
        self.signal("HUP");
        self.wait_for_number("configuration reloaded", before + 1);
        self.learn_addresses();
    }

    /// A reload that is refused: the line that says why.
    fn reload_in_vain(&mut self) -> String {
        let before = self.count("configuration not reloaded");
        self.signal("HUP");
        self.wait_for_number("configuration not reloaded", before + 1)
            .remove(before)
    }

    fn rewrite(&self, text: &str) {
        let admin = self.admin().expect("an admin address").to_string();
        self.home().write("postern.toml", &text.replace("ADMIN", &admin));
    }

    fn count(&self, words: &str) -> usize {
        self.log().iter().filter(|line| line.contains(words)).count()
    }
}

/// The shards have taken a reload over when all of these connections are greeted with the new name.
fn wait_for_greeting(address: SocketAddr, hostname: &str) {
    let mut in_a_row = 0;
    assert!(eventually(|| {
        let new = Client::connect(address)
            .reply()
            .starts_with(&format!("220 {hostname} "));
        in_a_row = if new { in_a_row + 1 } else { 0 };
        in_a_row == 8
    }));
}

#[test]
fn a_reload_holds_for_new_sessions_and_old_ones_keep_what_they_had() {
    let before =
        config("shards = 2", "max_recipients = 2", "").replace("accepted = [\"*\"]", "accepted = [\"old.test\"]");
    let after = config(
        "shards = 2",
        "max_recipients = 1\nmax_message_size = 4242",
        "[access]\nblock = [\"127.0.0.66\"]\n",
    )
    .replace("accepted = [\"*\"]", "accepted = [\"new.test\"]")
    .replace("mx.example.com", "mail.example.org");
    let mut edge = Edge::start(&before);
    let mut old = edge.hello();
    old.command("MAIL FROM:<a@client.test>", "250 ");
    old.command("RCPT TO:<a@old.test>", "250 ");
    let mut blocked_later = edge.connect_from("127.0.0.66").hello();
    edge.reload(&after);
    wait_for_greeting(edge.address(), "mail.example.org");

    old.command("RCPT TO:<a@new.test>", "550 5.7.1 Unable to relay");
    old.command("RCPT TO:<b@old.test>", "250 ");
    old.command("RCPT TO:<c@old.test>", "452 4.5.3 Too many recipients");
    assert!(old.data("Subject: x\r\n\r\nold\r\n").starts_with("250 2.6.0 "));
    assert!(old.ask("EHLO again.test").starts_with("250-mx.example.com Hello"));
    blocked_later.accepted("a@client.test", &["a@old.test"], "Subject: x\r\n\r\nstill here\r\n");

    let mut new = edge.connect();
    new.expect_reply("220 mail.example.org ");
    let ehlo = new.ask("EHLO client.test");
    assert!(
        ehlo.starts_with("250-mail.example.org Hello") && ehlo.contains("SIZE 4242"),
        "{ehlo}"
    );
    new.command("MAIL FROM:<a@client.test>", "250 ");
    new.command("RCPT TO:<a@old.test>", "550 5.7.1 Unable to relay");
    new.command("RCPT TO:<a@new.test>", "250 ");
    new.command("RCPT TO:<b@new.test>", "452 4.5.3 Too many recipients");
    edge.connect_from("127.0.0.66")
        .expect_reply("550 5.7.1 External client with IP address 127.0.0.66 ");
}

/// What a reading comes to once the work of the start is over: the same ten times in a row.
fn settled(read: impl Fn() -> usize) -> usize {
    let (mut last, mut same) = (read(), 0);
    let calm = eventually(|| {
        let now = read();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same == 10
    });
    assert!(calm, "never the same for long: {last}");
    last
}

#[test]
fn bindings_come_and_go_while_a_client_of_another_one_keeps_sending() {
    let kept = config("shards = 2", "", "");
    let two = format!("{kept}{}", BINDING.replace("mx", "two"));
    let renamed = kept.replace("name = \"mx\"", "name = \"inbound\"");
    // Where the port is 0 a binding is known by its name alone, so the one that stays has a port of its own.
    let port = crate::edge::free_address();
    let at_port = |text: &str| text.replacen("127.0.0.1:0", &port.to_string(), 1);
    let mut edge = Edge::start(&at_port(&kept));
    let address = edge.address();
    let mut first = edge.hello();
    let descriptors = settled(|| descriptors_of(&edge));
    let enough = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            let mut staying = Client::connect(address).hello();
            while !enough.load(Relaxed) || sent < 10 {
                staying.accepted("a@client.test", &["b@example.com"], "Subject: x\r\n\r\non and on\r\n");
                Client::connect(address).hello().accepted(
                    "a@client.test",
                    &["b@example.com"],
                    "Subject: x\r\n\r\nnew\r\n",
                );
                sent += 2;
            }
            staying.command("QUIT", "221 ");
            sent
        });
        for _ in 0..3 {
            edge.reload(&at_port(&two));
            let second = *edge.addresses("two").last().unwrap();
            for _ in 0..8 {
                Client::connect(second).hello().command("QUIT", "221 ");
            }
            let mut of_second = Client::connect(second).hello();
            edge.reload(&at_port(&renamed));
            assert!(
                eventually(|| TcpStream::connect(second).is_err()),
                "the old port is closed"
            );
            of_second.accepted(
                "a@client.test",
                &["b@example.com"],
                "Subject: x\r\n\r\nits binding is gone\r\n",
            );
            edge.reload(&at_port(&kept));
        }
        enough.store(true, Relaxed);
        sender.join().unwrap()
    });
    first.accepted(
        "a@client.test",
        &["b@example.com"],
        "Subject: x\r\n\r\nfrom the beginning\r\n",
    );
    assert_eq!(edge.mail("mail").len(), sent + 3 + 1);
    assert!(
        eventually(|| descriptors_of(&edge) == descriptors),
        "closed sockets leave descriptors: {} and {}",
        descriptors,
        descriptors_of(&edge)
    );
    assert_eq!(edge.count("panic"), 0);
}

#[test]
fn a_new_name_for_a_binding_keeps_its_sockets_and_shows_in_the_log() {
    let port = crate::edge::free_address();
    let text = config("shards = 1", "", "").replacen("127.0.0.1:0", &port.to_string(), 1);
    let mut edge = Edge::start(&text);
    edge.reload(
        &text
            .replace("name = \"mx\"", "name = \"inbound\"")
            .replace("mx.example.com", "renamed.test"),
    );
    wait_for_greeting(port, "renamed.test");
    let mut client = Client::connect(port).hello();
    client.command("QUIT", "221 ");
    edge.wait_for(" info session .. binding=inbound .. helo=client.test");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason_and_changes_nothing() {
    let text = config("shards = 1", "", "");
    let mut edge = Edge::start(&text);
    let mut client = edge.hello();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    let elsewhere = format!(
        "{text}{}",
        BINDING.replace("mx", "two").replace("127.0.0.1:0", &taken_address)
    );
    for (new, reason) in [
        (format!("nonsense = 1\n{text}"), "nonsense"),
        (text.replace("tarpit = \"0s\"", "tarpit = 7"), "tarpit"),
        ("[limits".to_owned(), "postern.toml"),
        (
            format!("{text}[tls]\ncertificate = \"gone.pem\"\nkey = \"gone.pem\"\n"),
            "gone.pem",
        ),
        (elsewhere, taken_address.as_str()),
        (
            text.replace("accepted = [\"*\"]", "accepted = [\"*\"]\nrecipients = \"gone.txt\""),
            "gone.txt",
        ),
    ] {
        edge.rewrite(&new.replace("mx.example.com", "never.test"));
        let line = edge.reload_in_vain();
        assert!(line.contains(" error ") && line.contains(reason), "{line}");
        edge.connect().expect_reply("220 mx.example.com ");
    }
    std::fs::remove_file(edge.path("postern.toml")).unwrap();
    let line = edge.reload_in_vain();
    assert!(line.contains("postern.toml") && line.contains("No such file"), "{line}");
    edge.connect().expect_reply("220 mx.example.com ");
    client.accepted("a@client.test", &["b@example.com"], "Subject: x\r\n\r\nstill here\r\n");
}

#[test]
fn the_level_of_the_log_changes_with_a_reload() {
    let text = config("shards = 1", "", "");
    let mut edge = Edge::start(&text);
    let visit = |edge: &Edge, name: &str| {
        let mut client = edge.connect();
        client.expect_reply("220 ");
        client.command(&format!("EHLO {name}"), "250");
        client.command("QUIT", "221 ");
        client.expect_close();
    };
    // Nothing is logged about it, so the greeting shows that it is done.
    edge.rewrite(&format!(
        "{}[log]\nlevel = \"error\"\n",
        text.replace("mx.example.com", "quiet.test")
    ));
    edge.signal("HUP");
    wait_for_greeting(edge.address(), "quiet.test");
    visit(&edge, "unseen.test");
    edge.reload(&text);
    visit(&edge, "seen.test");
    edge.wait_for(" info session .. helo=seen.test");
    assert_eq!(edge.count("unseen.test"), 0);
}
