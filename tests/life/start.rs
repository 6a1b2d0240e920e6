//! What it says when it cannot start: one sentence, with the command that mends it.

use std::net::TcpListener;

use crate::config;
use crate::edge::Home;

/// The last line of stderr, without the admin address; the process has ended with 1.
fn sentence(home: &Home, text: &str) -> String {
    let text = text.replace("[admin]\nlisten = \"ADMIN\"\n", "");
    let (status, stderr) = home.run_to_end(&text);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains("backtrace"),
        "{stderr}"
    );
    let said: Vec<_> = stderr.lines().filter(|line| line.starts_with("postern: ")).collect();
    assert_eq!(said.len(), 1, "{stderr}");
    assert!(stderr.ends_with(&format!("{}\n", said[0])), "{stderr}");
    said[0].to_owned()
}

#[test]
fn a_port_that_is_taken_is_named_with_the_command_that_shows_by_whom() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = config("", "", "").replace("127.0.0.1:0", &address.to_string());
    let said = sentence(&Home::new(), &text);
    assert!(
        said.contains(&format!("cannot listen on {address} (binding mx)")),
        "{said}"
    );
    assert!(
        said.contains(&format!("ss -ltnp 'sport = :{}'", address.port())),
        "{said}"
    );
}

#[test]
fn two_edges_do_not_share_a_port() {
    let first = crate::Edge::start(&config("shards = 2", "", ""));
    let text = config("", "", "").replace("127.0.0.1:0", &first.address().to_string());
    assert!(sentence(&Home::new(), &text).contains("another program listens there"));
}

#[test]
fn an_address_that_is_not_of_this_host_is_named() {
    // 192.0.2.0/24 is nobody's (RFC 5737).
    let text = config("", "", "").replace("127.0.0.1:0", "192.0.2.1:0");
    let said = sentence(&Home::new(), &text);
    assert!(said.contains("192.0.2.1:0") && said.contains("ip address"), "{said}");
}

#[test]
fn a_data_dir_that_cannot_be_made_is_named() {
    let said = sentence(&Home::new(), &config("data_dir = \"postern.toml/var\"", "", ""));
    assert!(
        said.contains("cannot use data_dir postern.toml/var") && said.contains("ls -ld"),
        "{said}"
    );
}

#[test]
fn a_list_that_is_not_there_is_named() {
    let text = config("", "", "").replace("accepted = [\"*\"]", "accepted = [\"*\"]\nrecipients = \"gone.txt\"");
    let said = sentence(&Home::new(), &text);
    assert!(
        said.contains("cannot read gone.txt") && said.contains("No such file"),
        "{said}"
    );
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_named() {
    let home = Home::under(&["prlimit", "--nofile=16:16"]);
    let said = sentence(&home, &config("shards = 4", "", ""));
    assert!(
        said.contains("cannot serve with 16 open files") && said.contains("ulimit -n"),
        "{said}"
    );
}
