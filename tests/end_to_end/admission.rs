//! Who is refused in place of the greeting, with which words, and which reason goes before which.

use crate::client::Client;
use crate::edge::{Edge, Home, eventually};
use crate::settings::Settings;

const DYNAMIC: &str =
    "550 5.7.1 External client with IP address 127.0.0.7 does not have permissions to submit to this server";
/// More than any machine has.
const HUGE: &str = "4000000000000000000";

/// What a fresh connection hears first; after a refusal it is closed.
#[track_caller]
fn first_words(mut client: Client) -> String {
    let words = client.reply();
    if !words.starts_with("220 ") {
        client.expect_close();
    }
    words
}

#[test]
fn a_client_that_the_binding_does_not_serve_is_told_so() {
    let edge = Edge::start(&Settings::new().binding("clients = [\"127.0.0.8/29\", \"::1\"]").toml());
    assert_eq!(
        first_words(edge.connect_from("127.0.0.7")),
        "421 4.3.2 Service not available"
    );
    assert_eq!(
        first_words(edge.connect_from("127.0.0.16")),
        "421 4.3.2 Service not available"
    );
    for served in ["127.0.0.8", "127.0.0.15"] {
        assert_eq!(first_words(edge.connect_from(served)), "220 mx.example.com ESMTP ready");
    }
    edge.wait_for("session .. end=refused .. BindingNotConfigured");
}

#[test]
fn the_static_refusal_names_the_address_and_ends_with_the_text_of_the_operator() {
    let refused = |settings: Settings| {
        let edge = Edge::start(&settings.toml());
        assert!(first_words(edge.connect_from("127.0.0.6")).starts_with("220 "));
        // What is allowed goes before what is blocked.
        assert!(first_words(edge.connect_from("127.0.9.9")).starts_with("220 "));
        first_words(edge.connect_from("127.0.9.1"))
    };
    let lists = "[access]\nblock = [\"127.0.9.0/24\"]\nallow = [\"127.0.9.8/31\"]";
    assert_eq!(
        refused(Settings::new().sections(lists)),
        "550 5.7.1 External client with IP address 127.0.9.1 does not have permissions to submit to this server. Visit \
         http://support.microsoft.com/kb/928123 for more information"
    );
    assert_eq!(
        refused(Settings::new().sections(&format!("{lists}\nblock_text = \"See https://example.com/blocked\""))),
        "550 5.7.1 External client with IP address 127.0.9.1 does not have permissions to submit to this server. See \
         https://example.com/blocked"
    );
}

#[test]
fn a_relay_binding_does_not_look_at_the_lists() {
    let home = Home::new();
    home.write("dynamic.txt", "127.0.0.0/8\n");
    let settings = Settings::new()
        .binding("name = \"relay\"\nrole = \"relay\"")
        .binding("name = \"gateway\"")
        .sections("[access]\nblock = [\"127.0.0.0/8\"]\nblock_dynamic = \"dynamic.txt\"");
    let edge = Edge::start_in(home, &settings.toml());
    let hear = |binding: &str| first_words(Client::connect(edge.addresses(binding)[0]));
    assert!(hear("relay").starts_with("220 "));
    assert!(hear("gateway").starts_with("550 5.7.1 "));
}

#[test]
fn the_dynamic_list_is_read_when_it_appears_when_it_changes_and_its_entries_expire() {
    let settings = Settings::new().sections("[access]\nblock_dynamic = \"dynamic.txt\"\nallow = [\"127.0.0.9\"]");
    let edge = Edge::start(&settings.toml());
    let refusal =
        |source: &str| Some(first_words(edge.connect_from(source))).filter(|words| !words.starts_with("220 "));
    assert_eq!(refusal("127.0.0.7"), None);
    let in_a_minute = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(1);
    edge.home().write(
        "dynamic.txt",
        &format!("# ours\n127.0.0.6/31 {in_a_minute}\n127.0.0.9\nnonsense\n"),
    );
    assert!(eventually(|| refusal("127.0.0.7").is_some()));
    assert_eq!(refusal("127.0.0.7").as_deref(), Some(DYNAMIC));
    assert_eq!(refusal("127.0.0.8"), None);
    assert_eq!(refusal("127.0.0.9"), None, "it is allowed");
    edge.wait_for("line of the dynamic list is left out .. line=4");
    // A whole second: an entry counts until the second of its expiry.
    let soon = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 4).unwrap();
    edge.home()
        .write("dynamic.txt", &format!("127.0.0.8\n127.0.0.7 {soon}\n"));
    assert!(eventually(|| refusal("127.0.0.8").is_some()));
    assert!(
        eventually(|| refusal("127.0.0.7").is_none()),
        "it expires without another change of the file"
    );
    assert!(jiff::Timestamp::now() >= soon, "not before its time");
    assert!(refusal("127.0.0.8").is_some());
    std::fs::remove_file(edge.path("dynamic.txt")).unwrap();
    assert!(eventually(|| refusal("127.0.0.8").is_none()));
}

#[test]
fn a_change_of_the_dynamic_list_holds_within_five_seconds() {
    let edge = Edge::start(
        &Settings::new()
            .sections("[access]\nblock_dynamic = \"dynamic.txt\"")
            .toml(),
    );
    edge.home().write("dynamic.txt", "127.0.0.7\n");
    let changed = std::time::Instant::now();
    assert!(eventually(|| first_words(edge.connect_from("127.0.0.7")) == DYNAMIC));
    assert!(
        changed.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        changed.elapsed()
    );
}

#[test]
fn a_machine_that_is_low_on_disk_or_memory_takes_no_mail() {
    for limit in ["min_free_disk", "min_free_memory"] {
        let edge = Edge::start(&Settings::new().limits(&format!("{limit} = {HUGE}")).toml());
        assert_eq!(first_words(edge.connect()), "452 4.3.1 Insufficient system resources");
        edge.wait_for("resources are low");
        assert_eq!(edge.metric("postern_events_total{event=\"OutOfResources\"}"), 1.0);
    }
}

#[test]
fn resources_that_run_low_later_stop_newcomers_and_not_the_message_under_way() {
    let settings = Settings::new();
    let edge = Edge::start(&settings.toml());
    let mut client = edge.hello();
    client.envelope("a@client.test", &["b@example.com"]);
    reload(&edge, &settings.clone().limits(&format!("min_free_disk = {HUGE}")));
    assert!(eventually(
        || first_words(edge.connect()) == "452 4.3.1 Insufficient system resources"
    ));
    assert!(client.data("x\r\n").starts_with("250 "));
    reload(&edge, &settings);
    assert!(eventually(|| first_words(edge.connect()).starts_with("220 ")));
}

/// Puts another configuration in place and waits until it is taken over; a shard may see it a moment later.
fn reload(edge: &Edge, settings: &Settings) {
    let before = edge
        .log()
        .iter()
        .filter(|line| line.contains("configuration reloaded"))
        .count();
    let old = std::fs::read_to_string(edge.path("postern.toml")).unwrap();
    let admin = old
        .rsplit_once("[admin]\nlisten = ")
        .unwrap()
        .1
        .split('"')
        .nth(1)
        .unwrap();
    edge.home()
        .write("postern.toml", &settings.toml().replace("ADMIN", admin));
    edge.signal("HUP");
    edge.wait_for_number("configuration reloaded", before + 1);
}

#[test]
fn of_several_reasons_to_refuse_the_gravest_is_told() {
    const LISTS: &str = "[access]\nblock = [\"127.0.0.7\"]";
    let address = crate::edge::free_address();
    let settings = |binding: &str| Settings::new().binding(&format!("address = [\"{address}\"]\n{binding}"));
    let full = || settings("").limits("max_connections = 1");
    let edge = Edge::start(&full().toml());
    let mut held = edge.hello();
    held.command("MAIL FROM:<a@client.test>", "250 ");
    let hears = |words: &str| eventually(|| first_words(edge.connect_from("127.0.0.7")).starts_with(words));
    assert!(hears("421 4.3.2 The maximum number of concurrent server connections"));
    reload(&edge, &full().sections(LISTS));
    assert!(hears("550 5.7.1 External client"), "lists go before counts");
    let unserved = || {
        settings("clients = [\"127.0.0.1\"]")
            .limits("max_connections = 1")
            .sections(LISTS)
    };
    reload(&edge, &unserved());
    assert!(
        hears("421 4.3.2 Service not available"),
        "the binding goes before lists"
    );
    reload(&edge, &unserved().limits(&format!("min_free_memory = {HUGE}")));
    assert!(hears("452 4.3.1 "), "resources go before the binding");
    edge.signal("TERM");
    assert!(hears("421 4.4.2 Connection dropped"), "draining goes before resources");
    // Whoever has begun may finish.
    held.command("RCPT TO:<b@example.com>", "250 ");
    assert!(held.data("x\r\n").starts_with("250 "));
    held.expect_reply("421 4.3.2 Service not available");
    held.expect_close();
}
