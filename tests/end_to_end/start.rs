//! What keeps the edge from starting, in one sentence each.

use crate::edge::{Edge, Home};
use crate::settings::Settings;

/// The one line that a failed start leaves, of those that are no log.
#[track_caller]
fn sentence(toml: &str) -> String {
    let (status, stderr) = Home::new().run_to_end(&toml.replace("ADMIN", "127.0.0.1:0"));
    assert_eq!(status.code(), Some(1), "{stderr}");
    let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("postern: ")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(
        !stderr.contains("postern ready") && !stderr.contains("panicked"),
        "{stderr}"
    );
    lines[0].to_owned()
}

#[test]
fn it_starts_says_where_it_listens_and_ends_when_told_to() {
    let edge = Edge::start(&Settings::new().toml());
    let mut client = edge.hello();
    let port = client.local().port();
    assert_eq!(edge.request("/readyz").0, 200);
    let (status, log) = {
        let waiting = std::thread::spawn(move || {
            client.expect_reply("421 4.3.2 Service not available");
            client.expect_close();
        });
        let ended = edge.drain();
        waiting.join().unwrap();
        ended
    };
    assert_eq!(status.code(), Some(0));
    let line = log.iter().find(|line| line.contains("info session session=")).unwrap();
    assert!(
        line.contains(&format!(" client=127.0.0.1 port={port} helo=client.test ")),
        "{line}"
    );
    assert!(log.last().unwrap().contains("postern stopped"), "{log:#?}");
}

#[test]
fn a_port_that_is_taken_is_named_with_the_command_that_shows_by_whom() {
    let edge = Edge::start(&Settings::new().toml());
    let address = edge.address();
    // Another edge, that would share the port with it if it were let.
    let said = sentence(
        &Settings::new()
            .binding(&format!("name = \"second\"\naddress = [\"{address}\"]"))
            .toml(),
    );
    let command = format!("ss -ltnp 'sport = :{}'", address.port());
    assert!(
        said.contains(&format!("cannot listen on {address}")) && said.contains("second") && said.contains(&command),
        "{said}"
    );
    // The first one has not noticed.
    edge.hello().command("NOOP", "250 ");
    // Nor does any program that is none of ours.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let said = sentence(&Settings::new().binding(&format!("address = [\"{address}\"]")).toml());
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

#[test]
fn the_port_of_the_admin_page_is_named_when_it_is_taken() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let said = sentence(
        &Settings::new()
            .sections(&format!("[admin]\nlisten = \"{address}\""))
            .toml(),
    );
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn an_address_that_the_host_does_not_have_is_named() {
    let said = sentence(&Settings::new().binding("address = [\"192.0.2.1:25252\"]").toml());
    assert!(
        said.contains("192.0.2.1:25252") && said.contains("ip address"),
        "{said}"
    );
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_place() {
    let said = sentence("shards = 2\nhostnam = \"x\"\n");
    assert!(said.contains("postern.toml:2:1") && said.contains("hostnam"), "{said}");
    let said = sentence("shards = \n");
    assert!(said.contains("postern.toml:1"), "{said}");
}

#[test]
fn a_file_that_is_named_and_not_there_is_told() {
    let said = sentence(
        &Settings::new()
            .sections("[domains]\naccepted = [\"*\"]\nrecipients = \"absent.txt\"")
            .toml(),
    );
    assert!(said.contains("absent.txt"), "{said}");
}

#[test]
fn a_data_dir_that_cannot_be_made_is_told() {
    let said = sentence(&Settings::new().top("data_dir = \"/dev/null/var\"").toml());
    assert!(said.contains("/dev/null/var"), "{said}");
}

#[test]
fn what_this_version_cannot_do_is_told_and_not_ignored() {
    for (sections, word) in [
        ("[[next_hop]]\nto = [\"smtp://192.0.2.1:25\"]", "smtp://192.0.2.1:25"),
        ("[[next_hop]]\nto = [\"mx:\"]", "mx:"),
        ("[auth]\nusers = \"users.txt\"", "[auth]"),
        ("[fleet]\nredis = \"redis://127.0.0.1\"", "[fleet]"),
    ] {
        let said = sentence(&Settings::new().sections(sections).toml());
        assert!(said.contains(word) && said.contains("this version"), "{said}");
    }
}
