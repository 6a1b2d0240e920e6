//! A control thread with everything it needs, and a paper to read its log from.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postern::control::signals::Signal;
use postern::control::status::{BindingStatus, Phase, Status};
use postern::control::{Callbacks, Control, Settings, Setup, Twin, http};
use postern::log::{Format, Level, Log, Writer};
use postern::lookup::{Desk, Heartbeats, desk};
use postern::metrics::Metrics;

/// Longer than anything here takes; only a failing test waits so long.
pub const LONG: Duration = Duration::from_secs(30);

/// Collects what is written.
#[derive(Clone, Default)]
pub struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    pub fn octets(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
    pub fn text(&self) -> String {
        String::from_utf8(self.octets()).unwrap()
    }
}

pub fn log(format: Format) -> (Log, Writer, Paper) {
    let paper = Paper::default();
    let (log, writer) = Log::start_to(Box::new(paper.clone()), Level::Debug, format).unwrap();
    (log, writer, paper)
}

pub struct Rig {
    pub control: Control,
    pub desk: Desk,
    pub metrics: Arc<Metrics>,
    pub heartbeats: Arc<Heartbeats>,
    pub phase: Arc<Mutex<Phase>>,
    pub admin: SocketAddr,
    pub signals: Receiver<Signal>,
    pub samples: Receiver<postern::control::sampler::Sample>,
    pub changes: Receiver<std::path::PathBuf>,
    _writer: Writer,
}

pub fn rig(settings: Settings, listeners: Vec<Vec<TcpListener>>) -> Rig {
    let plain = |socket| (socket, false);
    let listeners = listeners
        .into_iter()
        .map(|own| own.into_iter().map(plain).collect())
        .collect();
    rig_with(settings, listeners)
}

/// The same with sockets of which some begin with TLS.
pub fn rig_with(settings: Settings, listeners: Vec<Vec<(TcpListener, bool)>>) -> Rig {
    let twin = |(socket, implicit_tls)| Twin {
        socket: Arc::new(socket),
        implicit_tls,
    };
    let (log, writer, _) = log(Format::Text);
    let (desk, questions) = desk(64);
    let metrics = Metrics::new(1);
    let heartbeats = Arc::new(Heartbeats::new(listeners.len(), Instant::now()));
    let phase = Arc::new(Mutex::new(Phase::Starting));
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let admin = listener.local_addr().unwrap();
    let shown = phase.clone();
    let (signal, signals) = channel();
    let (sample, samples) = channel();
    let (change, changes) = channel();
    let control = Control::start(Setup {
        metrics: metrics.clone(),
        log,
        questions,
        settings,
        admin: Some(listener),
        status: Arc::new(move || Status {
            phase: *shown.lock().unwrap(),
            hostname: "mx.test".to_owned(),
            shards: 1,
            bindings: vec![BindingStatus {
                name: "mx".to_owned(),
                role: "gateway",
                addresses: vec!["127.0.0.1:2525".parse().unwrap()],
            }],
        }),
        operator: None,
        heartbeats: heartbeats.clone(),
        listeners: listeners
            .into_iter()
            .map(|own| own.into_iter().map(twin).collect())
            .collect(),
        silence: LONG * 100,
        callbacks: Callbacks {
            on_signal: Box::new(move |s| _ = signal.send(s)),
            on_sample: Box::new(move |s| _ = sample.send(s)),
            on_change: Box::new(move |p| _ = change.send(p.to_owned())),
            on_late: Box::new(|_| ()),
        },
    })
    .unwrap();
    Rig {
        control,
        desk,
        metrics,
        heartbeats,
        phase,
        admin,
        signals,
        samples,
        changes,
        _writer: writer,
    }
}

/// Sends a request as it stands; returns all of the response.
pub fn request(to: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

pub fn get(to: SocketAddr, path: &str) -> String {
    request(to, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

/// Looks until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}
