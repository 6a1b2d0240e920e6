//! Block lists, against a name server that says what the test wants.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use postern::control::Settings as ControlSettings;
use postern::control::dns::{BlockLists, Settings};
use postern::log::Format;
use postern::lookup::{Answer, Listing, Question, Ticket};
use postern::metrics::Metrics;

use crate::name_server::{NameServer, Says, Says::*};
use crate::rig;

/// A list that passes its test and says `says` about 192.0.2.7.
fn sane(says: Says) -> impl Fn(&str) -> Says {
    move |name| match name {
        "2.0.0.127.bl.example.net." => Addresses(vec![[127, 0, 0, 2]]),
        "7.2.0.192.bl.example.net." => says.clone(),
        _ => NoSuchName,
    }
}

const CLIENT: &str = "192.0.2.7";

struct Asked {
    listed_by: Option<Arc<str>>,
    passes: bool,
    metrics: String,
    log: String,
}

/// Tests the zones, then asks for `client`, of a server that answers in the end.
fn ask(server: &NameServer, zones: &[&str], client: &str) -> Asked {
    ask_within(rig::LONG, server, zones, client)
}

fn ask_within(timeout: Duration, server: &NameServer, zones: &[&str], client: &str) -> Asked {
    let (log, writer, paper) = rig::log(Format::Text);
    let metrics = Metrics::new(0);
    let zones = zones.iter().map(|&z| z.into()).collect();
    let settings = Settings {
        zones,
        servers: vec![server.at],
        timeout,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (passes, listed_by) = runtime.block_on(async {
        let lists = BlockLists::new(&settings, &metrics, &log);
        (lists.test().await, lists.ask(client.parse().unwrap()).await)
    });
    drop(writer);
    Asked {
        listed_by,
        passes,
        metrics: metrics.render(),
        log: paper.text(),
    }
}

#[test]
fn a_listed_client_is_found_with_the_zone_that_lists_it() {
    let server = NameServer::start(sane(Addresses(vec![[127, 0, 0, 4]])));
    let asked = ask(&server, &["bl.example.net"], CLIENT);
    assert_eq!(asked.listed_by.as_deref(), Some("bl.example.net"));
    assert!(
        asked.passes && asked.log.contains("block list passes its test zone=bl.example.net"),
        "{}",
        asked.log
    );
    assert!(
        asked
            .metrics
            .contains("postern_dnsbl_listed_total{zone=\"bl.example.net\"} 1\n")
    );
    assert!(
        asked
            .metrics
            .contains("postern_dnsbl_errors_total{zone=\"bl.example.net\"} 0\n")
    );
    assert!(
        asked
            .metrics
            .contains("postern_dnsbl_failing{zone=\"bl.example.net\"} 0\n")
    );
}

#[test]
fn a_client_on_no_list_is_clear_and_that_is_no_error() {
    for says in [NoSuchName, NoAddress] {
        let server = NameServer::start(sane(says));
        let asked = ask(&server, &["bl.example.net"], CLIENT);
        assert_eq!(asked.listed_by, None);
        assert!(
            asked
                .metrics
                .contains("postern_dnsbl_errors_total{zone=\"bl.example.net\"} 0\n")
        );
    }
}

#[test]
fn an_answer_that_is_none_never_refuses_and_is_counted() {
    // The last two keep the question open until its time is over.
    let (long, short) = (rig::LONG, Duration::from_millis(300));
    let doubtful = [
        (long, Addresses(vec![[127, 255, 255, 254]])),
        (long, Addresses(vec![[127, 255, 255, 252]])),
        (long, Addresses(vec![[127, 0, 0, 1]])),
        (long, Addresses(vec![[198, 51, 100, 1]])),
        (long, Addresses(vec![[127, 0, 0, 2], [198, 51, 100, 1]])),
        (long, ServerFailure),
        (long, Refused),
        (short, Garbage),
        (short, Nothing),
    ];
    for (i, (timeout, says)) in doubtful.into_iter().enumerate() {
        let server = NameServer::start(sane(says));
        let asked = ask_within(timeout, &server, &["bl.example.net"], CLIENT);
        assert_eq!(asked.listed_by, None, "{i}");
        assert!(
            asked
                .metrics
                .contains("postern_dnsbl_errors_total{zone=\"bl.example.net\"} 1\n"),
            "{i}"
        );
        assert!(
            asked
                .log
                .contains("warn block list gives no usable answer zone=bl.example.net reason="),
            "{i}"
        );
    }
}

#[test]
fn one_list_that_fails_does_not_hide_another_that_answers() {
    let server = NameServer::start(|name| match name {
        _ if name.ends_with(".silent.example.net.") => Nothing,
        "2.0.0.127.bl.example.net." | "7.2.0.192.bl.example.net." => Addresses(vec![[127, 0, 0, 2]]),
        _ => NoSuchName,
    });
    let asked = ask_within(
        Duration::from_secs(2),
        &server,
        &["silent.example.net", "bl.example.net"],
        CLIENT,
    );
    assert_eq!(asked.listed_by.as_deref(), Some("bl.example.net"));
    assert!(!asked.passes);
}

#[test]
fn a_list_of_everybody_is_ignored_and_alarmed() {
    let server = NameServer::start(|_| Addresses(vec![[127, 0, 0, 2]]));
    let asked = ask(&server, &["bl.example.net"], CLIENT);
    assert_eq!(asked.listed_by, None);
    assert!(
        asked
            .metrics
            .contains("postern_dnsbl_failing{zone=\"bl.example.net\"} 1\n")
    );
    assert!(
        asked
            .log
            .contains("error block list fails its test zone=bl.example.net"),
        "{}",
        asked.log
    );
    assert!(asked.log.contains("ignored=yes"), "{}", asked.log);
}

#[test]
fn a_list_without_its_test_entry_is_alarmed_and_still_believed() {
    let server = NameServer::start(|name| match name {
        "7.2.0.192.bl.example.net." => Addresses(vec![[127, 0, 0, 2]]),
        _ => NoSuchName,
    });
    let asked = ask(&server, &["bl.example.net"], CLIENT);
    assert_eq!(asked.listed_by.as_deref(), Some("bl.example.net"));
    assert!(
        asked
            .metrics
            .contains("postern_dnsbl_failing{zone=\"bl.example.net\"} 1\n")
    );
}

#[test]
fn a_client_on_the_loopback_network_is_asked_for_like_any_other() {
    let server = NameServer::start(|name| match name {
        "1.0.0.127.bl.example.net." | "9.0.0.127.bl.example.net." => Addresses(vec![[127, 0, 0, 2]]),
        _ => NoSuchName,
    });
    for client in ["127.0.0.1", "127.0.0.9"] {
        assert!(
            ask(&server, &["bl.example.net"], client).listed_by.is_some(),
            "{client}"
        );
    }
}

#[test]
fn an_ipv6_client_is_asked_for_by_its_nibbles() {
    let server = NameServer::start(|_| NoSuchName);
    ask(&server, &["bl.example.net."], "2001:db8::1");
    let name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example.net.";
    assert!(server.asked.lock().unwrap().iter().any(|asked| asked == name));
}

#[test]
fn a_zone_that_is_no_domain_name_fails_without_harm() {
    let server = NameServer::start(|_| NoSuchName);
    for zone in ["", "two..dots", &"x".repeat(300)] {
        let asked = ask(&server, &[zone], CLIENT);
        assert_eq!(asked.listed_by, None);
        assert!(!asked.passes);
    }
}

#[test]
fn a_shard_that_asks_gets_its_answer_by_ticket_and_new_settings_hold_for_the_next_question() {
    let server = NameServer::start(sane(Addresses(vec![[127, 0, 0, 4]])));
    let block_lists = Settings {
        zones: vec!["bl.example.net".into()],
        servers: vec![server.at],
        ..Settings::default()
    };
    let rig = rig::rig(
        ControlSettings {
            block_lists,
            ..ControlSettings::default()
        },
        vec![],
    );
    let (answers, answered) = channel();
    let asker = rig
        .desk
        .asker(Arc::new(move |ticket, answer| drop(answers.send((ticket, answer)))));
    let client: IpAddr = CLIENT.parse().unwrap();
    let ticket = Ticket { slot: 1, generation: 2 };
    let ask = || {
        asker.ask(Question::BlockList { client }, ticket).unwrap();
        answered.recv_timeout(rig::LONG).unwrap()
    };
    assert_eq!(
        ask(),
        (
            ticket,
            Answer::BlockList(Listing::Listed {
                zone: "bl.example.net".into()
            })
        )
    );
    rig.control.change(ControlSettings::default());
    rig::eventually("the zone is asked no more", || {
        ask().1 == Answer::BlockList(Listing::Clear)
    });
}
