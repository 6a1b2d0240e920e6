//! DNS block lists, asked of a name server that says what the test wants.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::edge::{Edge, eventually};
use crate::settings::Settings;

const LISTED: &str = "550 5.7.1 Recipient not authorized, your IP has been found on a block list";

/// What the name server says of a client.
#[derive(Clone, Copy)]
enum Says {
    Listed([u8; 4]),
    NotListed,
    Nothing,
}

/// A name server for the zone bl.test: it passes the test of RFC 5782 section 5, whatever it says of clients.
struct NameServer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// `says` gets the address of the client as it is asked for, reversed: `7.0.0.127`.
    fn start(says: impl Fn(&str) -> Says + Send + 'static) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, stopped) = (asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while !stopped.load(Ordering::SeqCst) {
                let Ok((n, from)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                let (name, end) = question(&packet[..n]);
                let says = match name.strip_suffix(".bl.test").unwrap_or_default() {
                    "2.0.0.127" => Says::Listed([127, 0, 0, 2]),
                    "1.0.0.127" | "255.255.255.255" => Says::NotListed,
                    client => {
                        count.fetch_add(1, Ordering::SeqCst);
                        says(client)
                    }
                };
                if let Some(reply) = answer(&packet[..end], says) {
                    socket.send_to(&reply, from).unwrap();
                }
            }
        });
        NameServer {
            address,
            asked,
            stop,
            thread: Some(thread),
        }
    }

    fn edge(&self) -> Edge {
        let edge = Edge::start(&self.settings().toml());
        edge.wait_for("block list passes its test");
        edge
    }

    fn settings(&self) -> Settings {
        Settings::new().sections(&format!(
            "[access]\ndnsbl = [\"bl.test\"]\ndns_servers = [\"{}\"]\nallow = [\"127.0.0.99\"]",
            self.address
        ))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// The name in a question, and where the question ends (RFC 1035 section 4.1.2).
fn question(packet: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(String::from_utf8_lossy(&packet[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    (labels.join("."), at + 5)
}

fn answer(question: &[u8], says: Says) -> Option<Vec<u8>> {
    let (code, count, address) = match says {
        Says::Listed(address) => (0, 1, address),
        Says::NotListed => (3, 0, [0; 4]),
        Says::Nothing => return None,
    };
    let mut packet = question[..2].to_vec();
    packet.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    packet.extend(&question[12..]);
    if count == 1 {
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        packet.extend(address);
    }
    Some(packet)
}

#[test]
fn a_client_on_a_list_is_refused_at_its_first_recipient_and_others_are_not() {
    let server = NameServer::start(|client| match client {
        "7.0.0.127" => Says::Listed([127, 0, 0, 4]),
        _ => Says::NotListed,
    });
    let edge = server.edge();
    let mut listed = edge.connect_from("127.0.0.7").hello();
    listed.command("MAIL FROM:<a@client.test>", "250 2.1.0 Sender OK");
    assert_eq!(listed.ask("RCPT TO:<b@example.com>"), LISTED);
    listed.expect_close();
    let line = edge.wait_for("message id= .. IPAddressNotAllowedBlockList");
    assert!(
        line.contains("from=a@client.test to=b@example.com") && line.contains("client=127.0.0.7"),
        "{line}"
    );
    edge.connect_from("127.0.0.8")
        .hello()
        .accepted("a@client.test", &["b@example.com"], "x\r\n");
    assert_eq!(edge.metric("postern_dnsbl_listed_total{zone=\"bl.test\"}"), 1.0);
    assert_eq!(edge.mail("mail").len(), 1);
}

#[test]
fn a_client_that_pipelines_waits_for_the_answer_of_the_list() {
    let slow = |client: &str| {
        if client == "7.0.0.127" {
            std::thread::sleep(Duration::from_millis(300));
            return Says::Listed([127, 0, 0, 2]);
        }
        Says::NotListed
    };
    let server = NameServer::start(slow);
    let edge = server.edge();
    let mut client = edge.connect_from("127.0.0.7");
    client.send("EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n");
    client.expect_reply("220 ");
    client.expect_reply("250-");
    client.expect_reply("250 2.1.0 ");
    assert_eq!(client.reply(), LISTED);
    client.expect_close();
}

#[test]
fn whoever_is_allowed_or_comes_to_a_relay_is_not_asked_about() {
    let server = NameServer::start(|_| Says::Listed([127, 0, 0, 2]));
    let settings = server
        .settings()
        .binding("name = \"mx\"")
        .binding("name = \"relay\"\nrole = \"relay\"");
    let edge = Edge::start(&settings.toml());
    edge.wait_for("block list passes its test");
    edge.connect_from("127.0.0.99")
        .hello()
        .accepted("a@client.test", &["b@example.com"], "x\r\n");
    let relay = edge.addresses("relay")[0];
    crate::client::Client::connect_from("127.0.0.7", relay)
        .hello()
        .accepted("a@client.test", &["b@example.com"], "x\r\n");
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn an_error_code_of_a_list_is_no_listing() {
    let server = NameServer::start(|client| match client {
        "7.0.0.127" => Says::Listed([127, 255, 255, 254]),
        _ => Says::Listed([192, 0, 2, 1]),
    });
    let edge = server.edge();
    for source in ["127.0.0.7", "127.0.0.8"] {
        edge.connect_from(source)
            .hello()
            .accepted("a@client.test", &["b@example.com"], "x\r\n");
    }
    assert_eq!(edge.metric("postern_dnsbl_errors_total{zone=\"bl.test\"}"), 2.0);
}

#[test]
fn a_name_server_that_is_silent_delays_mail_and_does_not_stop_it() {
    let server = NameServer::start(|_| Says::Nothing);
    let edge = server.edge();
    let began = Instant::now();
    let mut client = edge.connect_from("127.0.0.7").hello();
    client.accepted("a@client.test", &["b@example.com"], "x\r\n");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // Heard once, it does not wait again.
    client.accepted("a@client.test", &["b@example.com"], "x\r\n");
    assert!(eventually(|| edge
        .metric("postern_dnsbl_errors_total{zone=\"bl.test\"}")
        == 1.0));
}
