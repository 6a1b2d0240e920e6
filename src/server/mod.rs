//! The composition root: builds shards and control, leads the process from start to stop, and reloads.
//!
//! Promises: the only place that knows everybody; what goes wrong at start is one sentence with the command that mends it;
//! an invalid configuration at a reload changes nothing. Lives on the main thread.

mod certificates;
mod listening;
pub mod needs;
mod operator;
mod panics;
mod preflight;
mod routes;
mod settings;
mod shards;
mod spools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config::{self, Config};
use crate::control::sampler::{self, Sample};
use crate::control::signals::Signal;
use crate::control::status::{BindingStatus, Phase, Status};
use crate::control::{self, Control};
use crate::log::{Format, Level, Log};
use crate::lookup::{Heartbeats, Inbox, desk};
use crate::maildir::{self, Pool};
use crate::metrics::Metrics;
use crate::policy::resources::Floor;
use crate::shard::{Notice, Settings};
use crate::smtp::Role;

use certificates::Certificates;
use listening::Listening;
use settings::{List, Scopes};
use shards::Makings;

/// Questions that may wait for the control thread.
const QUESTIONS: usize = 8 << 10;
/// How long a shard may show no sign of life before the control thread answers for it. A beat is 100 ms.
const SILENCE: Duration = Duration::from_secs(2);
/// After the drain: how long sessions may take to hear their last reply.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the main thread waits for.
enum Happening {
    Signal(Signal),
    FileChanged(PathBuf),
    ShardEnded(usize),
}

/// The running edge.
struct Server {
    config: Config,
    path: Option<PathBuf>,
    /// The limit of open files.
    files: u64,
    log: Log,
    inboxes: Vec<Arc<Inbox<Notice>>>,
    current: Arc<ArcSwap<Settings>>,
    status: Arc<ArcSwap<Status>>,
    scopes: Scopes,
    lists: Vec<List>,
    certificates: Option<Certificates>,
    listening: Listening,
    control: Control,
    heartbeats: Arc<Heartbeats>,
    happenings: Receiver<Happening>,
    running: Vec<bool>,
}

/// Runs the edge in the foreground until it is told to stop.
pub fn serve(config: Config, path: Option<PathBuf>) -> ExitCode {
    let format = match config.log.format {
        config::LogFormat::Text => Format::Text,
        config::LogFormat::Json => Format::Json,
    };
    let (log, writer) = match Log::start(level(config.log.level), format) {
        Ok(started) => started,
        Err(error) => {
            eprintln!("postern: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    panics::log_panics(log.clone());
    for warning in config.warnings() {
        log.event(Level::Warn, &warning, &[]);
    }
    let result = run(config, path, &log);
    // Every line is out before the last word on stderr.
    drop(log);
    drop(writer);
    match result {
        Ok(code) => code,
        Err(sentence) => {
            eprintln!("postern: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, path: Option<PathBuf>, log: &Log) -> Result<ExitCode, String> {
    preflight::io_uring_is_on()?;
    let files = preflight::raise_open_files();
    let cores = preflight::cores();
    let shards = if config.shards == 0 { cores.len() } else { config.shards };
    let metrics = Metrics::new(shards);
    let mut scopes = Scopes::default();
    let room = room(&config, files, shards, log)?;
    let built = settings::build(&config, None, room, shards, &mut scopes, log)?;
    sample(&built.settings, sampler::sample_once(&built.control.disks), log);
    let pool = file_workers(&config, log)?;
    let certificates = built.certificates.map(certificates::Reading::show);
    let mut listening = Listening::default();
    let sockets = listening.open(&config, shards, log)?;
    let admin = config.admin.map(control::http::bind).transpose()?;

    let (_socket, commands) = operator::socket(&config, log).unzip();
    let epoch = Instant::now();
    let heartbeats = Arc::new(Heartbeats::new(shards, epoch));
    let (desk, questions) = desk(QUESTIONS);
    let (tell, happenings) = mpsc::channel();
    let inboxes: Vec<_> = (0..shards).map(|_| Arc::new(Inbox::new())).collect();
    let current = Arc::new(ArcSwap::new(built.settings.clone()));
    let status = Arc::new(ArcSwap::from_pointee(listening.status(
        &config,
        shards,
        Phase::Starting,
    )));
    let shown = status.clone();
    let control = Control::start(control::Setup {
        metrics: metrics.clone(),
        log: log.clone(),
        questions,
        settings: built.control,
        admin,
        status: Arc::new(move || Status::clone(&shown.load())),
        operator: commands.map(|listener| operator::to_shards(listener, inboxes.clone())),
        heartbeats: heartbeats.clone(),
        listeners: listening.twins(shards),
        silence: SILENCE,
        callbacks: callbacks(&tell, current.clone(), inboxes.clone(), log.clone()),
    })
    .map_err(|error| format!("cannot start the control thread: {error}"))?;

    let directories = spools::create(&config.data_dir, shards)?;
    let makings = Makings {
        cores: &cores,
        settings: &built.settings,
        most_connections: most_connections(&config),
        inboxes: &inboxes,
        desk: &desk,
        pool: &pool,
        log,
        metrics: &metrics,
        heartbeats: &heartbeats,
        epoch,
    };
    makings.start(sockets, directories, &tell)?;
    spools::take_up(&config.data_dir, inboxes.clone(), log.clone())
        .map_err(|error| format!("cannot read the spool in {}: {error}", config.data_dir.display()))?;
    panics::shards_run();
    listening.announce(log);
    log.ready();
    status.store(Arc::new(listening.status(&config, shards, Phase::Serving)));
    let mut server = Server {
        config,
        path,
        files,
        log: log.clone(),
        inboxes,
        current,
        status,
        scopes,
        lists: built.lists,
        certificates,
        listening,
        control,
        heartbeats,
        happenings,
        running: vec![true; shards],
    };
    let code = server.attend();
    pool.shutdown();
    log.event(Level::Info, "postern stopped", &[]);
    Ok(code)
}

/// The largest limit of connections among the bindings.
fn most_connections(config: &Config) -> u64 {
    let limits = config.bindings.iter().map(|b| b.limits.max_connections);
    limits.max().unwrap_or(1)
}

/// Connections that there are descriptors for. A limit beyond it holds at that number: a client that is refused tries
/// again, one that waits for a descriptor in the kernel's queue hears nothing.
fn room(config: &Config, files: u64, shards: usize, log: &Log) -> Result<u64, String> {
    let sockets = config.bindings.iter().map(|b| b.addresses.len()).sum();
    let room = preflight::most_connections(files, shards, sockets)?;
    let wanted = most_connections(config);
    if wanted > room {
        log.event(
            Level::Warn,
            "max_connections is more than the limit of open files allows: raise LimitNOFILE (or ulimit -n)",
            &[
                ("max_connections", &wanted),
                ("open_files", &files),
                ("connections", &room),
            ],
        );
    }
    Ok(room)
}

/// The file workers, after the disk has been put in order.
fn file_workers(config: &Config, log: &Log) -> Result<Pool, String> {
    let data_dir = &config.data_dir;
    let unusable = |error: std::io::Error| {
        format!(
            "cannot use data_dir {}: {error}; who may: ls -ld {}",
            data_dir.display(),
            data_dir.display()
        )
    };
    std::fs::create_dir_all(data_dir).map_err(unusable)?;
    let recovered = maildir::recover(data_dir).map_err(unusable)?;
    if recovered.completed + recovered.cleared > 0 {
        log.event(
            Level::Info,
            "deliveries of the last run put in order",
            &[("completed", &recovered.completed), ("cleared", &recovered.cleared)],
        );
    }
    for failure in &recovered.failures {
        log.event(
            Level::Error,
            "a delivery of the last run cannot be completed",
            &[("reason", failure)],
        );
    }
    Pool::start(maildir::THREADS, data_dir).map_err(unusable)
}

fn callbacks(
    tell: &Sender<Happening>,
    current: Arc<ArcSwap<Settings>>,
    inboxes: Vec<Arc<Inbox<Notice>>>,
    log: Log,
) -> control::Callbacks {
    let (signals, files) = (tell.clone(), tell.clone());
    control::Callbacks {
        on_signal: Box::new(move |signal| drop(signals.send(Happening::Signal(signal)))),
        on_sample: Box::new(move |seen| sample(&current.load(), seen, &log)),
        on_change: Box::new(move |path| drop(files.send(Happening::FileChanged(path.to_path_buf())))),
        on_late: Box::new(move |shard| inboxes.get(shard).into_iter().for_each(|inbox| inbox.nudge())),
    }
}

/// Judges free disk and memory for each binding; a change is logged once.
fn sample(settings: &Settings, sample: Sample, log: &Log) {
    for binding in &settings.policy.bindings {
        let limits = &binding.terms.limits;
        let floor = Floor {
            min_free_disk: limits.min_free_disk,
            min_free_memory: limits.min_free_memory,
        };
        for change in binding.resources.update(sample, floor) {
            let message = if change.low {
                "resources are low: no mail is taken"
            } else {
                "resources suffice again"
            };
            log.event(
                Level::Warn,
                message,
                &[
                    ("binding", &binding.name),
                    ("resource", &change.resource),
                    ("free", &change.free),
                    ("limit", &change.limit),
                ],
            );
        }
    }
}

impl Server {
    /// Serves until a signal, or until a shard dies.
    fn attend(&mut self) -> ExitCode {
        loop {
            match self.happenings.recv() {
                Ok(Happening::Signal(Signal::Reload)) => match self.reload() {
                    Ok(()) => self.log.event(Level::Info, "configuration reloaded", &[]),
                    Err(reason) => {
                        self.log.event(
                            Level::Error,
                            "configuration not reloaded, the old one stays",
                            &[("reason", &reason)],
                        );
                    }
                },
                Ok(Happening::FileChanged(path)) => self.read_file(&path),
                Ok(Happening::Signal(Signal::Stop)) => return self.drain(ExitCode::SUCCESS),
                Ok(Happening::Signal(Signal::StopNow)) | Err(_) => {
                    self.tell_all(|| Notice::Stop);
                    return self.drain(ExitCode::SUCCESS);
                }
                Ok(Happening::ShardEnded(index)) => {
                    self.log.event(
                        Level::Error,
                        "a shard has died; the others finish, then the process ends",
                        &[("shard", &index)],
                    );
                    self.ended(index);
                    // From here on the control thread answers for it.
                    self.heartbeats.gone(index);
                    return self.drain(ExitCode::FAILURE);
                }
            }
        }
    }

    /// Lets transactions finish, then ends every session, then the shards.
    fn drain(&mut self, code: ExitCode) -> ExitCode {
        self.log.event(
            Level::Info,
            "draining",
            &[("timeout", &format_args!("{:?}", self.config.drain_timeout))],
        );
        self.show(Phase::Draining);
        self.tell_all(|| Notice::Drain);
        self.wait_for_shards(self.config.drain_timeout);
        if self.running.iter().any(|running| *running) {
            self.tell_all(|| Notice::Stop);
            self.wait_for_shards(LAST_WORDS);
        }
        code
    }

    fn wait_for_shards(&mut self, patience: Duration) {
        let mut deadline = Instant::now() + patience;
        while self.running.iter().any(|running| *running) {
            match self
                .happenings
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(Happening::ShardEnded(index)) => {
                    self.heartbeats.retired(index);
                    self.ended(index);
                }
                Ok(Happening::Signal(Signal::StopNow)) => {
                    self.tell_all(|| Notice::Stop);
                    deadline = deadline.min(Instant::now() + LAST_WORDS);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn ended(&mut self, index: usize) {
        if let Some(running) = self.running.get_mut(index) {
            *running = false;
        }
    }

    fn tell_all(&self, notice: impl Fn() -> Notice) {
        for inbox in &self.inboxes {
            inbox.send(notice());
        }
    }

    fn show(&self, phase: Phase) {
        self.status
            .store(Arc::new(self.listening.status(&self.config, self.inboxes.len(), phase)));
    }

    fn read_file(&self, path: &std::path::Path) {
        let certificates = self.certificates.as_ref();
        if let Some(Err(reason)) = certificates.and_then(|c| c.read_again(path, &self.log)) {
            self.log.event(
                Level::Error,
                "a certificate cannot be used, the old one stays",
                &[("reason", &reason)],
            );
        }
        for list in self.lists.iter().filter(|list| list.path() == path) {
            if let Err(reason) = list.read(&self.log) {
                self.log.event(
                    Level::Error,
                    "a list cannot be read, the old one stays",
                    &[("reason", &reason)],
                );
            }
        }
    }

    /// Takes over a new configuration: all of it or nothing.
    fn reload(&mut self) -> Result<(), String> {
        let config = match &self.path {
            Some(path) => Config::load(path),
            None => Config::embedded(),
        }
        .map_err(|error| error.one_line())?;
        if let Some(first) = config.unsupported().into_iter().next() {
            return Err(first);
        }
        let shards = self.inboxes.len();
        let room = room(&config, self.files, shards, &self.log)?;
        let in_use = self.certificates.as_ref();
        let built = settings::build(&config, in_use, room, shards, &mut self.scopes, &self.log)?;
        sample(&built.settings, sampler::sample_once(&built.control.disks), &self.log);
        let mut listening = self.listening.clone();
        let change = listening.change(&config, shards)?;
        for warning in config.warnings() {
            self.log.event(Level::Warn, &warning, &[]);
        }
        for key in stays(&self.config, &config) {
            self.log
                .event(Level::Warn, "a change of this key takes a restart", &[("key", &key)]);
        }
        // From here on nothing can fail.
        self.certificates = built.certificates.map(certificates::Reading::show);
        self.log.set_level(level(config.log.level));
        for (inbox, sockets) in self.inboxes.iter().zip(change.sockets) {
            inbox.send(Notice::Reload {
                settings: built.settings.clone(),
                sockets,
                keep: change.keep.clone(),
            });
        }
        self.control.change(built.control);
        self.control.change_listeners(listening.twins(shards));
        self.current.store(built.settings);
        self.lists = built.lists;
        self.listening = listening;
        self.listening.announce_new(&change.new, &self.log);
        // What cannot change keeps its old value, so that a later reload is held against what is in force.
        self.config = Config {
            data_dir: self.config.data_dir.clone(),
            shards: self.config.shards,
            admin: self.config.admin,
            ..config
        };
        self.show(Phase::Serving);
        Ok(())
    }
}

/// The keys that hold until a restart and differ.
fn stays(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if old.data_dir != new.data_dir {
        keys.push("data_dir");
    }
    if old.shards != new.shards {
        keys.push("shards");
    }
    if old.admin != new.admin {
        keys.push("admin.listen");
    }
    if old.log.format != new.log.format {
        keys.push("log.format");
    }
    keys
}

fn level(level: config::Level) -> Level {
    match level {
        config::Level::Error => Level::Error,
        config::Level::Warn => Level::Warn,
        config::Level::Info => Level::Info,
        config::Level::Debug | config::Level::Trace => Level::Debug,
    }
}

/// How the status page calls a role.
fn role(role: Role) -> &'static str {
    match role {
        Role::Gateway => "gateway",
        Role::Relay => "relay",
    }
}
