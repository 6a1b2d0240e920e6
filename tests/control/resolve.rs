//! Hosts and exchangers, against a name server that says what the test wants.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use postern::control::Settings as ControlSettings;
use postern::control::resolve::{FRESH, MAX_ADDRESSES, MAX_EXCHANGERS, Names, Settings};
use postern::log::Format;
use postern::lookup::{Answer, Question, Resolved, Ticket};

use crate::name_server::{A, AAAA, MX, NameServer, Says, wire_name};
use crate::rig;

const V4: [u8; 4] = [192, 0, 2, 25];
const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x25];

fn settings(server: SocketAddr, timeout: Duration) -> Settings {
    Settings {
        hostname: "Edge.Example.Net".into(),
        servers: vec![server],
        timeout,
    }
}

/// Asks a new resolver with nothing in its cache.
fn look_up<T, F: Future<Output = T>>(server: &NameServer, timeout: Duration, ask: impl FnOnce(Arc<Names>) -> F) -> T {
    let (log, _writer, _) = rig::log(Format::Text);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { ask(Arc::new(Names::new(&settings(server.at, timeout), &log))).await })
}

fn addresses(server: &NameServer, host: &str) -> Resolved<Vec<IpAddr>> {
    let host = host.to_owned();
    look_up(server, rig::LONG, |names| async move { names.addresses(&host).await })
}

fn exchangers(server: &NameServer, domain: &str) -> Resolved<Vec<Arc<str>>> {
    let domain = domain.to_owned();
    look_up(
        server,
        rig::LONG,
        |names| async move { names.exchangers(&domain).await },
    )
}

/// A name server that has these MX records, and nothing else.
fn with_mx(records: &[(u16, &str)]) -> NameServer {
    let records: Vec<_> = records
        .iter()
        .map(|(preference, host)| (MX, 300, [&preference.to_be_bytes()[..], &wire_name(host)].concat()))
        .collect();
    NameServer::by_type(move |_, kind| {
        if kind == MX {
            Says::Records(records.clone())
        } else {
            Says::NoAddress
        }
    })
}

fn hosts(resolved: Resolved<Vec<Arc<str>>>) -> Vec<String> {
    match resolved {
        Resolved::Found { what, .. } => what.iter().map(|host| host.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_has_the_addresses_of_both_kinds() {
    let server = NameServer::by_type(|_, kind| match kind {
        A => Says::Records(vec![(A, 300, V4.to_vec())]),
        AAAA => Says::Records(vec![(AAAA, 300, V6.to_vec())]),
        _ => Says::Refused,
    });
    let Resolved::Found { what, ttl } = addresses(&server, "Hub.example.net") else {
        panic!("it has some");
    };
    assert_eq!(what, [IpAddr::from(V4), IpAddr::from(V6)]);
    assert!(
        (Duration::from_secs(200)..=Duration::from_secs(300)).contains(&ttl),
        "{ttl:?}"
    );
    assert!(
        server
            .asked
            .lock()
            .unwrap()
            .iter()
            .all(|name| name == "hub.example.net.")
    );
}

#[test]
fn one_kind_of_address_is_enough_whatever_becomes_of_the_other() {
    for other in [Says::NoAddress, Says::ServerFailure, Says::Refused] {
        let server = NameServer::by_type(move |_, kind| match kind {
            A => Says::Addresses(vec![V4]),
            _ => other.clone(),
        });
        let Resolved::Found { what, .. } = addresses(&server, "hub.example.net") else {
            panic!("it has one");
        };
        assert_eq!(what, [IpAddr::from(V4)]);
    }
}

#[test]
fn an_address_is_its_own_answer_and_nobody_is_asked() {
    let server = NameServer::start(|_| Says::Refused);
    for (host, address) in [
        ("192.0.2.25", IpAddr::from(V4)),
        ("2001:db8::25", V6.into()),
        ("[2001:db8::25]", V6.into()),
    ] {
        assert!(matches!(addresses(&server, host), Resolved::Found { what, .. } if *what == [address]));
    }
    assert!(server.asked.lock().unwrap().is_empty());
}

#[test]
fn what_a_name_server_denies_is_nothing_and_what_it_fails_to_tell_is_unknown() {
    let (denied, empty) = (
        NameServer::start(|_| Says::NoSuchName),
        NameServer::start(|_| Says::NoAddress),
    );
    assert_eq!(addresses(&denied, "hub.example.net"), Resolved::Absent);
    assert_eq!(exchangers(&denied, "example.net"), Resolved::Absent);
    assert_eq!(addresses(&empty, "hub.example.net"), Resolved::Absent);
    for says in [Says::ServerFailure, Says::Refused] {
        let server = NameServer::start(move |_| says.clone());
        assert_eq!(addresses(&server, "hub.example.net"), Resolved::Unknown);
        assert_eq!(exchangers(&server, "example.net"), Resolved::Unknown);
    }
    for says in [Says::Garbage, Says::Nothing] {
        let server = NameServer::start(move |_| says.clone());
        let short = Duration::from_millis(100);
        let addresses = look_up(&server, short, |names| async move {
            names.addresses("hub.example.net").await
        });
        let exchangers = look_up(
            &server,
            short,
            |names| async move { names.exchangers("example.net").await },
        );
        assert_eq!((addresses, exchangers), (Resolved::Unknown, Resolved::Unknown));
    }
    let half = NameServer::by_type(|_, kind| {
        if kind == A {
            Says::NoAddress
        } else {
            Says::ServerFailure
        }
    });
    assert_eq!(addresses(&half, "hub.example.net"), Resolved::Unknown);
    for name in ["", "a..b", &"x".repeat(300), "."] {
        assert_eq!(addresses(&empty, name), Resolved::Absent, "{name}");
    }
}

#[test]
fn exchangers_come_by_preference_and_equal_ones_take_turns() {
    let server = with_mx(&[
        (20, "c.test"),
        (5, "A.test"),
        (10, "b2.test"),
        (10, "b1.test"),
        (30, "a.test"),
    ]);
    let mut seconds = BTreeSet::new();
    for _ in 0..64 {
        let hosts = hosts(exchangers(&server, "example.net"));
        assert_eq!((&*hosts[0], &*hosts[3], hosts.len()), ("a.test", "c.test", 4));
        seconds.insert(hosts[1].clone());
    }
    assert_eq!(seconds.into_iter().collect::<Vec<_>>(), ["b1.test", "b2.test"]);
}

#[test]
fn without_mx_records_the_domain_is_its_own_exchanger() {
    let server = with_mx(&[]);
    assert_eq!(hosts(exchangers(&server, "B\u{fc}cher.test")), ["xn--bcher-kva.test"]);
    assert_eq!(server.asked.lock().unwrap()[0], "xn--bcher-kva.test.");
    assert_eq!(exchangers(&server, "edge.example.net"), Resolved::Absent);
}

#[test]
fn a_domain_that_takes_no_mail_says_so_with_the_root() {
    assert_eq!(exchangers(&with_mx(&[(0, ".")]), "example.net"), Resolved::Refuses);
    assert_eq!(
        hosts(exchangers(&with_mx(&[(0, "."), (10, "a.test")]), "example.net")),
        ["a.test"]
    );
}

#[test]
fn what_is_no_host_name_is_no_exchanger() {
    let server = with_mx(&[(1, "a b.test"), (2, "x\r\ny.test"), (3, "ok_1.test")]);
    assert_eq!(hosts(exchangers(&server, "example.net")), ["ok_1.test"]);
    assert_eq!(
        exchangers(&with_mx(&[(1, "a b.test")]), "example.net"),
        Resolved::Absent
    );
}

#[test]
fn an_exchanger_sends_only_to_better_ones() {
    let records = [(5, "a.test"), (10, "b.test"), (10, "EDGE.example.net"), (20, "c.test")];
    assert_eq!(hosts(exchangers(&with_mx(&records), "example.net")), ["a.test"]);
    let (server, (log, writer, paper)) = (with_mx(&records[1..]), rig::log(Format::Text));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let names = |log| Names::new(&settings(server.at, rig::LONG), log);
    let found = runtime.block_on(async { names(&log).exchangers("example.net").await });
    assert_eq!(found, Resolved::Absent);
    drop(writer);
    let told = "warn this host is the best exchanger of a domain and has no route for it domain=example.net";
    assert!(paper.text().contains(told), "{}", paper.text());
}

#[test]
fn an_answer_is_bounded_and_so_is_the_time_that_it_holds() {
    let names: Vec<String> = (0..40).map(|n| format!("m{n}.x")).collect();
    let records: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (n as u16, name.as_str()))
        .collect();
    let hosts = hosts(exchangers(&with_mx(&records), "example.net"));
    assert_eq!((hosts.len(), &*hosts[MAX_EXCHANGERS - 1]), (MAX_EXCHANGERS, "m15.x"));

    for (seconds, expected) in [(0, *FRESH.start()), (7 * 24 * 3600, *FRESH.end())] {
        let many = (0..40).map(|n| (A, seconds, vec![192, 0, 2, n])).collect();
        let says = Says::Records(many);
        let server = NameServer::by_type(move |_, kind| if kind == A { says.clone() } else { Says::NoAddress });
        let Resolved::Found { what, ttl } = addresses(&server, "hub.example.net") else {
            panic!("it has many");
        };
        assert_eq!(what.len(), MAX_ADDRESSES);
        assert!(ttl <= expected && ttl + Duration::from_secs(60) > expected, "{ttl:?}");
    }
}

#[test]
fn a_shard_that_asks_gets_its_answer_by_ticket_and_new_settings_hold_for_the_next_question() {
    let (old, new) = (with_mx(&[(1, "old.test")]), with_mx(&[(1, "new.test")]));
    let with = |server: &NameServer| ControlSettings {
        names: settings(server.at, rig::LONG),
        ..ControlSettings::default()
    };
    let rig = rig::rig(with(&old), vec![]);
    let (answers, answered) = channel();
    let asker = rig
        .desk
        .asker(Arc::new(move |ticket, answer| drop(answers.send((ticket, answer)))));
    let ticket = Ticket { slot: 1, generation: 2 };
    let ask = || {
        let domain = "example.net".into();
        asker.ask(Question::Exchangers { domain }, ticket).unwrap();
        match answered.recv_timeout(rig::LONG).unwrap() {
            (to, Answer::Exchangers(resolved)) if to == ticket => hosts(resolved),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(), ["old.test"]);
    rig.control.change(with(&new));
    rig::eventually("the new server is asked", || ask() == ["new.test"]);
}
