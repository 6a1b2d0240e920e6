//! A defect in one session.
//!
//! No session is known to panic, so one is built that must: its tarpit is longer than an `Instant` can hold, which the
//! configuration would refuse. The shard is a real one, on a thread of this process.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postern::control::Twin;
use postern::control::standin::supervise;
use postern::log::{Format, Level, Log, Writer};
use postern::lookup::{Heartbeats, Inbox, desk};
use postern::maildir::{Pool, Template};
use postern::metrics::{Counter, Gauge, Metrics};
use postern::policy::Policy;
use postern::policy::admission::Access;
use postern::policy::binding::Binding;
use postern::policy::network::{Network, NetworkSet};
use postern::policy::rate::RateTable;
use postern::policy::routing::{DomainSet, Routing};
use postern::policy::tally::Tally;
use postern::policy::tarpit::Owed;
use postern::relay;
use postern::shard::route::{Route, Target};
use postern::shard::{self, Notice, Seed, Settings};
use postern::smtp::extension::Offered;
use postern::smtp::limits::Limits;
use postern::smtp::session::{Auth, Terms};
use postern::smtp::{BareNewline, Edition, Role};
use postern::spool::directory;
use postern::tls;

use crate::client::Client;
use crate::edge::{eventually, files};

#[derive(Clone, Debug, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Running {
    address: SocketAddr,
    /// A second descriptor of its socket.
    twin: Arc<TcpListener>,
    heartbeats: Arc<Heartbeats>,
    log: Log,
    metrics: Arc<Metrics>,
    tally: Arc<Tally>,
    inbox: Arc<Inbox<Notice>>,
    pool: Pool,
    thread: Option<JoinHandle<()>>,
    paper: Paper,
    _writer: Writer,
}

impl Running {
    /// A shard with one binding, delivering below `home`.
    fn start(settings: Settings, home: &Path) -> Running {
        let paper = Paper::default();
        let (log, writer) = Log::start_to(Box::new(paper.clone()), Level::Info, Format::Text).unwrap();
        let metrics = Metrics::new(1);
        let tally = Tally::new(1, 64, 1);
        let pool = Pool::start(1, &home.join("var")).unwrap();
        let inbox = Arc::new(Inbox::new());
        let epoch = Instant::now();
        let (desk, _questions) = desk(1);
        let mut sockets = shard::bind(&"mx".into(), "127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = sockets[0].address;
        let twin = Arc::new(TcpListener::from(sockets[0].socket.try_clone().unwrap()));
        let heartbeats = Arc::new(Heartbeats::new(1, epoch));
        let seed = Seed {
            index: 0,
            cpu: 0,
            settings: Arc::new(settings),
            sockets: std::mem::take(&mut sockets),
            column: tally.column(0),
            rates: RateTable::new(1, 64).column(0),
            owed: Arc::new(Owed::new(64)),
            pool: pool.clone(),
            asker: desk.asker(Arc::new(|_, _| ())),
            inbox: inbox.clone(),
            lines: log.buffer(),
            metrics: metrics.clone(),
            heartbeats: heartbeats.clone(),
            directory: directory::create(&home.join("spool")).unwrap(),
            epoch,
        };
        let (started, starts) = channel();
        let thread = shard::start(seed, started).unwrap();
        starts.recv().unwrap().unwrap();
        Running {
            address,
            twin,
            heartbeats,
            log,
            metrics,
            tally,
            inbox,
            pool,
            thread: Some(thread),
            paper,
            _writer: writer,
        }
    }

    /// What has been logged.
    fn lines(&self) -> String {
        String::from_utf8(self.paper.0.lock().unwrap().clone()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inbox.send(Notice::Stop);
        let died = self.thread.take().is_some_and(|thread| thread.join().is_err());
        self.pool.shutdown();
        assert!(std::thread::panicking() || !died, "the shard has died");
    }
}

fn settings(limits: Limits, edition: Edition, home: &Path) -> Settings {
    let any: NetworkSet = [Network::new("0.0.0.0".parse().unwrap(), 0).unwrap()]
        .into_iter()
        .collect();
    let template = Template::parse(home.join("mail").to_str().unwrap()).unwrap();
    Settings {
        hostname: "mx.test".into(),
        tls: None,
        policy: Policy {
            bindings: vec![Arc::new(Binding {
                name: "mx".into(),
                role: Role::Gateway,
                terms: Arc::new(Terms {
                    hostname: "mx.test".into(),
                    edition,
                    limits,
                    offered: Offered::of(edition, &[], false),
                    require_tls: false,
                    auth: Auth::default(),
                    bare_newline: BareNewline::Refuse,
                }),
                clients: any,
                proxy_from: NetworkSet::default(),
                proxy_protocol: false,
                implicit_tls: false,
                connection_scope: 0,
                rate_scope: 0,
                tls_rate_scope: 0,
                resources: Arc::default(),
            })],
            access: Access {
                allow: NetworkSet::default(),
                block: NetworkSet::default(),
                block_text: "".into(),
                dynamic: Arc::default(),
                dnsbl: false,
            },
            routing: Routing {
                hostname: "mx.test".into(),
                accepted: DomainSet::new(["*"]),
                recipients: None,
                routes: vec![DomainSet::new(["*"])],
            },
            users: Arc::default(),
        },
        routes: vec![Arc::new(Route {
            targets: vec![Target::Maildir(template)],
            max_connections: 1,
            tls: tls::client(tls::Trust::Anyone).unwrap(),
            proves: None,
        })],
        queue: relay::Terms {
            retry: relay::retry::Schedule::new([Duration::from_secs(60)]),
            expire: Duration::from_secs(3600),
            delay_notice: Duration::from_secs(3600),
            attempts: 8,
        },
        message_memory: 1 << 20,
    }
}

#[test]
fn a_panic_in_a_session_costs_that_session_and_nothing_of_it_stays() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits {
        tarpit: Duration::MAX,
        max_connections: 2,
        max_connections_per_source: 2,
        ..Limits::of(Role::Gateway)
    };
    let shard = Running::start(settings(limits, Edition::Y2021, home.path()), home.path());
    let mut beside = Client::connect(shard.address).hello();
    for round in 1..=20 {
        let mut victim = Client::connect(shard.address).hello();
        victim.envelope("a@client.test", &["b@example.com"]);
        // More than a piece: it has a file by now.
        victim.send(format!("BDAT 300000\r\n{}NONSENSE\r\n", "x\r\n".repeat(100_000)));
        victim.wait_for_end();
        assert!(eventually(|| shard.metrics.total(Counter::SessionPanics) == round));
        assert!(eventually(|| shard.metrics.gauge(Gauge::Connections) == 1));
        assert!(eventually(|| shard.tally.connections(0) == 1), "its claim stays");
    }
    // The one beside it has noticed nothing, and a new one gets the place.
    beside.accepted("a@client.test", &["b@example.com"], "Subject: x\r\n\r\nstill here\r\n");
    Client::connect(shard.address).hello().command("QUIT", "221 ");
    assert!(eventually(|| files(&home.path().join("mail/tmp")).is_empty()));
    assert_eq!(files(&home.path().join("mail/new")).len(), 1);
    assert!(
        eventually(|| shard.lines().matches(" end=panicked").count() == 20),
        "{}",
        shard.lines()
    );
}

/// Outside of sessions there is no fence. A refusal that waits in the tarpit of v4.1 is such a place.
#[test]
fn when_a_shard_dies_its_clients_hear_421_also_the_first_one_that_its_ring_was_waiting_for() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits {
        tarpit: Duration::MAX,
        max_connections: 1,
        ..Limits::of(Role::Gateway)
    };
    let mut shard = Running::start(settings(limits, Edition::Y2011, home.path()), home.path());
    let mut first = Client::connect(shard.address).hello();
    first.command("NOOP", "250 ");
    let _one_too_many = Client::connect(shard.address);
    assert!(shard.thread.take().unwrap().join().is_err());
    shard.heartbeats.gone(0);

    let (_open, listeners) = tokio::sync::watch::channel(vec![vec![Twin {
        socket: shard.twin.clone(),
        implicit_tls: false,
    }]]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stop = Arc::new(tokio::sync::Notify::new());
    let watching = supervise(
        shard.heartbeats.clone(),
        listeners,
        Duration::from_secs(3600),
        Box::new(|_| ()),
        shard.metrics.clone(),
        shard.log.clone(),
    );
    let stopped = stop.clone();
    let control = std::thread::spawn(move || {
        runtime.block_on(async move {
            tokio::select! {
                () = watching => {}
                () = stopped.notified() => {}
            }
        });
    });
    for _ in 0..10 {
        let mut client = Client::connect(shard.address);
        assert_eq!(client.reply(), "421 4.4.2 Connection dropped");
        client.expect_close();
    }
    assert_eq!(shard.metrics.total(Counter::StandInReplies), 10);
    stop.notify_one();
    control.join().unwrap();
}
