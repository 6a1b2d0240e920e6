//! Clients that mean harm or know no better: a server has to bear them without harm to others.
//!
//! Promises: never against a machine that is not this one, unless the user says that it is theirs; bounded in time; says how
//! each client ended and whether a good client was served meanwhile. A task for each place on one executor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::connect::{self, Dialer};
use crate::flags::LoadFlags;
use crate::measure::{check_processes, cpu_of, latencies, record, resident_of};
use crate::news::News;
use crate::report::readable;
use crate::transport::Link;

/// What a bad client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Ends its sending in the middle of a transaction and waits.
    HalfClosed,
    /// Resets the connection in the middle of the content.
    Reset,
    /// Sends octets that are no command, without end.
    Garbage,
    /// Sends commands without end and never reads.
    Deaf,
    /// Sends an octet a second.
    Slow,
}

/// How a bad client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// No connection was made.
    Unmade,
    /// The client's own doing.
    Itself,
    /// The server closed it.
    Server,
    /// It was still there when the time was over.
    Time,
}

/// Between two tries of a good client, and between two lives of a bad one.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two writes of a client that sends without end. A socket that takes everything would never let the others of this
/// executor have their turn, and a good client would seem to wait for the server.
const BREATH: Duration = Duration::from_millis(5);
/// How long a good client waits to be greeted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets read in one call.
const BUFFER: usize = 4096;

/// Runs the bad clients for a time.
pub fn run(kinds: &[Kind], target: SocketAddr, pids: &[u32], flags: &LoadFlags) -> Result<Found, String> {
    check_processes(pids)?;
    let sources = flags.sources_for(target)?;
    let dialer = |manner| Dialer::new(target, &sources, manner, std::process::id());
    let good = dialer(connect::Manner::default());
    let bad = [false, true].map(|reset| {
        dialer(connect::Manner {
            reset,
            congestion: None,
        })
    });
    let before = (cpu_of(pids), resident_of(pids));
    let (kinds, places, duration) = (kinds.to_vec(), flags.connections, flags.duration);
    let thread = LocalExecutorBuilder::new(Placement::Unbound)
        .name("abuse")
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(move || harm(kinds, places, duration, good, bad))
        .map_err(|error| format!("an executor does not start: {error}"))?;
    let mut found = thread
        .join()
        .map_err(|error| format!("an executor ended early: {error}"))??;
    found.cpu = cpu_of(pids)
        .zip(before.0)
        .map(|(after, before)| after.saturating_sub(before));
    found.resident = before.1.zip(resident_of(pids));
    Ok(found)
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    ends: BTreeMap<(Kind, End), u64>,
    /// From connect to the greeting of good clients, nanoseconds.
    greetings: Histogram<u64>,
    ungreeted: u64,
    cpu: Option<Duration>,
    resident: Option<(u64, u64)>,
}

impl Found {
    /// Whether every good client was greeted.
    pub fn is_good(&self) -> bool {
        self.ungreeted == 0 && !self.greetings.is_empty()
    }

    /// As `--json` has it.
    pub fn to_json(&self) -> serde_json::Value {
        let ends: Vec<_> = self
            .ends
            .iter()
            .map(|((kind, end), count)| {
                json!({ "kind": format!("{kind:?}").to_lowercase(), "end": format!("{end:?}").to_lowercase(), "count": count })
            })
            .collect();
        json!({
            "ends": ends, "good_clients_greeted": self.greetings.len(), "good_clients_not_greeted": self.ungreeted,
            "greeting_median_us": self.greetings.value_at_quantile(0.5) as f64 / 1e3,
            "greeting_max_us": self.greetings.max() as f64 / 1e3,
            "server_cpu_ms": self.cpu.map(|cpu| cpu.as_secs_f64() * 1e3),
            "resident_before": self.resident.map(|(before, _)| before), "resident_after": self.resident.map(|(_, after)| after),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((kind, end), count) in &self.ends {
            let what = match end {
                End::Unmade => "found no connection",
                End::Itself => "ended it themselves",
                End::Server => "were closed by the server",
                End::Time => "were still there at the end",
            };
            writeln!(f, "{:<13}{count} {what}", format!("{kind:?}").to_lowercase())?;
        }
        if let Some(cpu) = self.cpu {
            writeln!(f, "server       {:.2} ms CPU", cpu.as_secs_f64() * 1e3)?;
        }
        if let Some((before, after)) = self.resident {
            writeln!(
                f,
                "server       {} KiB resident before, {} KiB after",
                before / 1024,
                after / 1024
            )?;
        }
        let (median, most) = (
            readable(self.greetings.value_at_quantile(0.5)),
            readable(self.greetings.max()),
        );
        let (greeted, not) = (self.greetings.len(), self.ungreeted);
        writeln!(
            f,
            "good clients {greeted} greeted: median {median}, longest {most}; {not} not greeted"
        )
    }
}

/// What the tasks share.
struct Field {
    until: Instant,
    dialers: RefCell<[Dialer; 2]>,
    ends: RefCell<BTreeMap<(Kind, End), u64>>,
    living: Cell<usize>,
    news: Rc<News>,
}

async fn harm(
    kinds: Vec<Kind>,
    places: usize,
    duration: Duration,
    mut good: Dialer,
    bad: [Dialer; 2],
) -> Result<Found, String> {
    let field = Rc::new(Field {
        until: Instant::now() + duration,
        dialers: RefCell::new(bad),
        ends: RefCell::default(),
        living: Cell::new(places),
        news: News::start(Duration::ZERO).map_err(|error| format!("no connection can be watched: {error}"))?,
    });
    for (_, &kind) in (0..places).zip(kinds.iter().cycle()) {
        let field = Rc::clone(&field);
        glommio::spawn_local(async move {
            while Instant::now() < field.until {
                let end = field.live(kind).await;
                *field.ends.borrow_mut().entry((kind, end)).or_default() += 1;
                Timer::new(PAUSE).await;
            }
            field.living.set(field.living.get() - 1);
        })
        .detach();
    }
    let (mut greetings, mut ungreeted) = (latencies(), 0);
    loop {
        let asked = Instant::now();
        match before(asked + PATIENCE, greeted(&mut good, &field.news)).await {
            Some(Ok(())) => record(&mut greetings, asked.elapsed()),
            _ => ungreeted += 1,
        }
        if Instant::now() >= field.until {
            break;
        }
        Timer::new(PAUSE).await;
    }
    while field.living.get() > 0 {
        Timer::new(PAUSE).await;
    }
    field.news.end();
    Timer::new(PAUSE).await;
    Ok(Found {
        ends: field.ends.take(),
        greetings,
        ungreeted,
        cpu: None,
        resident: None,
    })
}

impl Field {
    /// One connection of a bad client, to its end.
    async fn live(&self, kind: Kind) -> End {
        let dialed = match self.dialers.borrow_mut().get_mut(usize::from(kind == Kind::Reset)) {
            Some(dialer) => dialer.open(),
            None => return End::Unmade,
        };
        let Ok(socket) = dialed else { return End::Unmade };
        let shut = socket.try_clone();
        let mut link = Link::new(socket, &self.news);
        let life = async {
            if read(&mut link).await? == 0 {
                return Ok(End::Server);
            }
            match kind {
                Kind::HalfClosed => {
                    send(
                        &mut link,
                        b"EHLO bad.loadgen.invalid\r\nMAIL FROM:<bad@example.org>\r\nRCPT TO:<x",
                    )
                    .await?;
                    shut?.shutdown(std::net::Shutdown::Write)?;
                    while read(&mut link).await? > 0 {}
                    Ok(End::Server)
                }
                Kind::Reset => {
                    drop(shut);
                    let transaction = b"MAIL FROM:<bad@example.org>\r\nRCPT TO:<someone@example.com>\r\nDATA\r\n";
                    send(&mut link, b"EHLO bad.loadgen.invalid\r\n").await?;
                    read(&mut link).await?;
                    send(&mut link, transaction).await?;
                    read(&mut link).await?;
                    send(&mut link, b"Subject: never whole\r\n\r\nand th").await?;
                    Ok(End::Itself)
                }
                Kind::Garbage => loop {
                    // No line end in it, octets of every value.
                    let octets: Vec<u8> = (0..=255_u8).filter(|octet| !b"\r\n".contains(octet)).collect();
                    send(&mut link, &octets.repeat(16)).await?;
                    send(&mut link, b"\r\n").await?;
                    Timer::new(BREATH).await;
                },
                Kind::Deaf => loop {
                    send(&mut link, &b"NOOP\r\n".repeat(512)).await?;
                    Timer::new(BREATH).await;
                },
                Kind::Slow => {
                    for octet in b"EHLO slow.loadgen.invalid\r\n".iter().cycle() {
                        send(&mut link, std::slice::from_ref(octet)).await?;
                        Timer::new(Duration::from_secs(1)).await;
                    }
                    Ok(End::Itself)
                }
            }
        };
        match before(self.until, life).await {
            Some(Ok(end)) => end,
            Some(Err::<_, io::Error>(_)) => End::Server,
            None => End::Time,
        }
    }
}

/// A future's outcome, if it comes in time.
async fn before<T>(until: Instant, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::new(until.saturating_duration_since(Instant::now())).await;
        None
    };
    async { Some(future.await) }.or(late).await
}

async fn greeted(dialer: &mut Dialer, news: &Rc<News>) -> io::Result<()> {
    let mut link = Link::new(dialer.open()?, news);
    match read(&mut link).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn read(link: &mut Link) -> io::Result<usize> {
    let mut buffer = [0; BUFFER];
    link.wake();
    poll_fn(|context| link.receive(context, &mut buffer)).await
}

async fn send(link: &mut Link, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        let count = poll_fn(|context| link.send(context, octets)).await?;
        octets = octets.get(count..).unwrap_or_default();
    }
    Ok(())
}
