//! Shards that fall silent, signals, samples and watched files.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use postern::control::signals::Signal;
use postern::control::standin::answer_for;
use postern::control::{Settings, files, sampler};
use postern::lookup::Heartbeats;
use postern::metrics::{Counter, Gauge};
use rustix::process::{Signal as Unix, getpid, kill_process};

use crate::rig::{LONG, eventually, rig, rig_with};

const DROPPED: &str = "421 4.4.2 Connection dropped\r\n";

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn read_all(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    heard
}

#[test]
fn clients_of_a_shard_that_died_hear_421_on_each_of_its_sockets() {
    let (one, two) = (listener(), listener());
    let rig = rig(
        Settings::default(),
        vec![vec![], vec![one.try_clone().unwrap(), two.try_clone().unwrap()]],
    );
    rig.heartbeats.beat(0, Instant::now());
    rig.heartbeats.gone(1);
    for of in [&one, &two, &one] {
        assert_eq!(read_all(TcpStream::connect(of.local_addr().unwrap()).unwrap()), DROPPED);
    }
    assert_eq!(rig.metrics.total(Counter::StandInReplies), 3);
    assert!(rig.metrics.replies().contains(&(421, 3)));
}

#[test]
fn where_tls_begins_with_the_connection_nothing_is_said_in_the_clear() {
    let (implicit, plain) = (listener(), listener());
    let sockets = vec![
        (implicit.try_clone().unwrap(), true),
        (plain.try_clone().unwrap(), false),
    ];
    let rig = rig_with(Settings::default(), vec![sockets]);
    rig.heartbeats.gone(0);
    assert_eq!(
        read_all(TcpStream::connect(implicit.local_addr().unwrap()).unwrap()),
        ""
    );
    assert_eq!(
        read_all(TcpStream::connect(plain.local_addr().unwrap()).unwrap()),
        DROPPED
    );
    assert_eq!(rig.metrics.total(Counter::StandInReplies), 2);
    assert!(rig.metrics.replies().contains(&(421, 1)));
}

#[test]
fn a_stand_in_leaves_when_the_shard_is_back_and_the_shard_gets_the_next_client() {
    let shard = listener();
    let address = shard.local_addr().unwrap();
    let limit = Duration::from_secs(1);
    let start = Instant::now();
    let hearts = Heartbeats::new(1, start);
    hearts.beat(0, start);
    let now = start + 2 * limit;
    let client = std::thread::spawn(move || read_all(TcpStream::connect(address).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut answered = 0;
    let counted = std::cell::Cell::new(0);
    runtime.block_on(async {
        let post = shard.try_clone().unwrap();
        let count = || {
            counted.set(counted.get() + 1);
            hearts.beat(0, now); // the shard comes back to life
        };
        answer_for(post, DROPPED.as_bytes(), || !hearts.is_stale(0, now, limit), count)
            .await
            .unwrap();
        answered = counted.get();
        let heard = tokio::task::spawn_blocking(move || client.join().unwrap())
            .await
            .unwrap();
        assert_eq!(heard, DROPPED);
    });
    assert_eq!(answered, 1);
    let _next = TcpStream::connect(address).unwrap();
    eventually("the shard accepts", || shard.accept().is_ok());
}

#[test]
fn a_socket_in_blocking_mode_is_left_alone() {
    let blocking = TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime
        .block_on(answer_for(blocking, b"", || false, || {}))
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn signals_ask_for_reload_then_drain_then_an_end_at_once() {
    let rig = rig(Settings::default(), vec![]);
    for (signal, asked) in [
        (Unix::HUP, Signal::Reload),
        (Unix::TERM, Signal::Stop),
        (Unix::HUP, Signal::Reload),
        (Unix::INT, Signal::StopNow),
    ] {
        kill_process(getpid(), signal).unwrap();
        assert_eq!(rig.signals.recv_timeout(LONG), Ok(asked));
    }
}

#[test]
fn disk_and_memory_are_sampled_and_shown() {
    let disks = vec![std::env::temp_dir().join("not/made/yet")];
    let before = sampler::sample_once(&disks);
    let rig = rig(
        Settings {
            disks,
            ..Settings::default()
        },
        vec![],
    );
    let sample = rig.samples.recv_timeout(LONG).unwrap();
    assert!(sample.free_disk < u64::MAX && before.free_disk < u64::MAX);
    for shown in [rig.metrics.gauge(Gauge::FreeDisk), rig.metrics.gauge(Gauge::FreeMemory)] {
        assert!((1..u64::MAX).contains(&shown));
    }
    assert!(rig.control.silence(Instant::now()) < LONG);
}

#[test]
fn a_change_of_a_watched_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dynamic.txt");
    let rig = rig(
        Settings {
            watched: files::look(vec![file.clone()]),
            ..Settings::default()
        },
        vec![],
    );
    // Even when the first look of the control thread comes after it.
    std::fs::write(&file, "192.0.2.1\n").unwrap();
    assert_eq!(rig.changes.recv_timeout(LONG), Ok(file));
}
