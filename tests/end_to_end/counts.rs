//! How many connections, how many messages: exactly as many as the limit says, whichever shards they land on.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::Client;
use crate::edge::{Edge, eventually};
use crate::settings::Settings;

const TOO_MANY: &str = "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit, closing \
                        transmission channel";
const TOO_MANY_OF_ONE: &str =
    "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel";
const TOO_OFTEN: &str = "421 4.4.2 Message submission rate for this client has exceeded the configured limit";

/// Whether a fresh connection is greeted; otherwise it was refused with `refusal` and closed.
#[track_caller]
fn is_admitted(client: &mut Client, refusal: &str) -> bool {
    let first = client.reply();
    if first == "220 mx.example.com ESMTP ready" {
        return true;
    }
    assert_eq!(first, refusal);
    client.expect_close();
    false
}

#[test]
fn so_many_connections_are_admitted_as_the_limit_says_and_not_one_more() {
    let settings = Settings::new()
        .top("shards = 4")
        .limits("max_connections = 30\nmax_connections_per_source = 1000");
    let edge = Edge::start(&settings.toml());
    // 30 connections fall on one of four shards alone about once in 4^29 runs.
    let mut held: Vec<_> = (0..30)
        .map(|n| edge.connect_from(&format!("127.0.1.{}", 1 + n % 3)))
        .collect();
    assert!(held.iter_mut().all(|client| is_admitted(client, TOO_MANY)));
    for n in 0..20 {
        assert!(!is_admitted(
            &mut edge.connect_from(&format!("127.0.1.{}", 1 + n)),
            TOO_MANY
        ));
    }
    edge.wait_for_metric("postern_connections", 30.0);
    assert_eq!(
        edge.metric("postern_events_total{event=\"ConnectionCountExceeded\"}"),
        20.0
    );
    // A place that is given up is given to the next, and to one only.
    held.pop().unwrap().command("QUIT", "221 ");
    edge.wait_for_metric("postern_connections", 29.0);
    let mut next = edge.connect();
    assert!(is_admitted(&mut next, TOO_MANY));
    assert!(!is_admitted(&mut edge.connect(), TOO_MANY));
    // However they go: without QUIT, in the middle of a command, in the middle of a message.
    next.command("EHLO client.test", "250");
    next.envelope("a@client.test", &["b@example.com"]);
    next.command("DATA", "354");
    next.send("half a mess");
    held[0].send("MAIL FR");
    drop((held, next));
    edge.wait_for_metric("postern_connections", 0.0);
    assert!(is_admitted(&mut edge.connect(), TOO_MANY));
    assert_eq!(edge.mail("mail").len(), 0);
}

#[test]
fn each_source_has_its_own_number_of_connections() {
    let settings = Settings::new()
        .top("shards = 4")
        .limits("max_connections_per_source = 5");
    let edge = Edge::start(&settings.toml());
    let open = |source: &str| {
        let mut client = edge.connect_from(source);
        is_admitted(&mut client, TOO_MANY_OF_ONE).then_some(client)
    };
    let mut held: Vec<_> = (0..5).map(|_| open("127.0.0.2").unwrap()).collect();
    assert!((0..10).all(|_| open("127.0.0.2").is_none()));
    let _others: Vec<_> = (0..5).map(|_| open("127.0.0.3").unwrap()).collect();
    assert!(open("127.0.0.3").is_none());
    edge.wait_for_metric("postern_connections", 10.0);
    drop(held.remove(2));
    edge.wait_for_metric("postern_connections", 9.0);
    held.push(open("127.0.0.2").unwrap());
    assert!(open("127.0.0.2").is_none());
    edge.wait_for_metric("postern_events_total{event=\"ConnectionCountPerSource\"}", 12.0);
    edge.wait_for("session binding=mx client=127.0.0.2 end=refused limit=ConnectionCountPerSource");
}

#[test]
fn a_source_over_ipv6_counts_apart_from_those_over_ipv4() {
    let settings = Settings::new()
        .binding("address = [\"[::1]:0\", \"127.0.0.1:0\"]")
        .limits("max_connections_per_source = 2");
    let edge = Edge::start(&settings.toml());
    let [v6, v4] = edge.addresses("mx")[..] else {
        panic!("two addresses")
    };
    let open = |address| {
        let mut client = Client::connect(address);
        is_admitted(&mut client, TOO_MANY_OF_ONE).then_some(client)
    };
    let _six = [open(v6).unwrap(), open(v6).unwrap()];
    assert!(open(v6).is_none());
    let _four = [open(v4).unwrap(), open(v4).unwrap()];
    assert!(open(v4).is_none());
}

#[test]
fn a_binding_with_limits_of_its_own_counts_apart() {
    let settings = Settings::new()
        .binding("name = \"own\"\n[binding.limits]\nmax_connections = 2")
        .binding("name = \"shared-a\"")
        .binding("name = \"shared-b\"")
        .limits("max_connections = 3");
    let edge = Edge::start(&settings.toml());
    let open = |binding: &str| {
        let mut client = Client::connect(edge.addresses(binding)[0]);
        is_admitted(&mut client, TOO_MANY).then_some(client)
    };
    let _own = [open("own").unwrap(), open("own").unwrap()];
    assert!(open("own").is_none());
    // The others share one count, which has not heard of these two.
    let _shared = [
        open("shared-a").unwrap(),
        open("shared-b").unwrap(),
        open("shared-a").unwrap(),
    ];
    assert!(open("shared-a").is_none() && open("shared-b").is_none() && open("own").is_none());
}

#[test]
fn clients_that_race_never_get_more_places_than_there_are() {
    const PLACES: usize = 20;
    let settings = Settings::new()
        .top("shards = 4")
        .limits("max_connections = 20\nmax_connections_per_source = 1000");
    let edge = Edge::start(&settings.toml());
    for _ in 0..5 {
        let start = Barrier::new(4);
        let mut held: Vec<Client> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let mut clients: Vec<_> = (0..12).map(|_| edge.connect()).collect();
                        clients.retain_mut(|client| is_admitted(client, TOO_MANY));
                        clients
                    })
                })
                .collect();
            racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect()
        });
        assert!(held.len() <= PLACES, "{}", held.len());
        // Two that race for one place may both be refused; without a race it is taken.
        while held.len() < PLACES {
            let mut client = edge.connect();
            assert!(is_admitted(&mut client, TOO_MANY), "{} are held", held.len());
            held.push(client);
        }
        assert!(!is_admitted(&mut edge.connect(), TOO_MANY));
        drop(held);
        edge.wait_for_metric("postern_connections", 0.0);
    }
}

#[test]
fn a_source_may_send_so_many_messages_a_minute_over_all_its_connections() {
    let settings = Settings::new()
        .top("shards = 4")
        .limits("message_rate = 7\nmax_connections_per_source = 1000");
    let edge = Edge::start(&settings.toml());
    let mut clients: Vec<_> = (0..7).map(|_| edge.connect_from("127.0.0.5").hello()).collect();
    for client in &mut clients {
        client.command("MAIL FROM:<a@client.test>", "250 2.1.0 Sender OK");
    }
    for _ in 0..3 {
        let mut late = edge.connect_from("127.0.0.5").hello();
        assert_eq!(late.ask("MAIL FROM:<a@client.test>"), TOO_OFTEN);
        late.expect_close();
    }
    // What was begun before goes on, the next one of the same connection does not.
    let first = &mut clients[0];
    first.command("RCPT TO:<b@example.com>", "250 ");
    assert!(first.data("x\r\n").starts_with("250 2.6.0 "));
    assert_eq!(first.ask("MAIL FROM:<a@client.test>"), TOO_OFTEN);
    first.expect_close();
    edge.connect_from("127.0.0.6")
        .hello()
        .accepted("a@client.test", &["b@example.com"], "x\r\n");
    assert_eq!(
        edge.metric("postern_events_total{event=\"MessageRateLimitExceeded\"}"),
        4.0
    );
}

#[test]
fn clients_that_race_never_send_more_messages_than_the_rate() {
    const RATE: usize = 15;
    let settings = Settings::new()
        .top("shards = 4")
        .limits("message_rate = 15\nmax_connections_per_source = 1000");
    let edge = Edge::start(&settings.toml());
    let taken = AtomicUsize::new(0);
    let start = Barrier::new(6);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = edge.hello();
                start.wait();
                while client.ask("MAIL FROM:<a@client.test>").starts_with("250 ") {
                    taken.fetch_add(1, Ordering::SeqCst);
                    client.command("RSET", "250 ");
                }
            });
        }
    });
    let mut taken = taken.into_inner();
    assert!(taken <= RATE, "{taken}");
    while edge.hello().ask("MAIL FROM:<a@client.test>").starts_with("250 ") {
        taken += 1;
    }
    assert_eq!(taken, RATE);
}

#[test]
fn a_binding_with_a_rate_of_its_own_counts_apart() {
    let settings = Settings::new()
        .binding("name = \"own\"\n[binding.limits]\nmessage_rate = 1")
        .binding("name = \"shared\"")
        .binding("name = \"relay\"\nrole = \"relay\"")
        .limits("message_rate = 2");
    let edge = Edge::start(&settings.toml());
    let send = |binding: &str| {
        let mut client = Client::connect(edge.addresses(binding)[0]).hello();
        client.ask("MAIL FROM:<a@client.test>").starts_with("250 ")
    };
    assert_eq!(
        ["own", "own", "shared", "shared", "shared"].map(send),
        [true, false, true, true, false]
    );
    // A relay counts by user, and this client is none.
    assert!((0..9).all(|_| send("relay")));
}

#[test]
fn short_connections_leave_nothing_behind() {
    let settings = Settings::new().limits("max_connections = 40\nmax_connections_per_source = 40\nmessage_rate = 0");
    let edge = Edge::start(&settings.toml());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let edge = &edge;
            scope.spawn(move || {
                for n in 0..60 {
                    let mut client = edge.connect_from(&format!("127.0.2.{}", 1 + thread));
                    match n % 4 {
                        0 => drop(client),
                        1 => client.send("EHLO client.te"),
                        2 => drop(client.hello().ask("MAIL FROM:<a@client.test>")),
                        _ => drop(client.hello().ask("QUIT")),
                    }
                }
            });
        }
    });
    edge.wait_for_metric("postern_connections", 0.0);
    // Every place is free again.
    let mut held: Vec<_> = (0..40).map(|_| edge.connect()).collect();
    assert!(held.iter_mut().all(|client| is_admitted(client, TOO_MANY)));
    assert!(eventually(|| edge.metric("postern_connections") == 40.0));
}
