//! Answers in place of a shard that hangs or has died, so that its clients hear 421 and try again elsewhere at once
//! instead of waiting for a greeting until they time out.
//!
//! Promises: takes connections only while the shard is silent; a bounded number at once; never blocks. Where TLS begins with
//! the connection it closes without a word, which sends the client elsewhere too. Lives on the control thread, on duplicates
//! of the shard's listening sockets. A duplicate shares its flags with the original, so nothing here changes them.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::log::{Level, Log};
use crate::lookup::Heartbeats;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::smtp::oxsmtp::Event;

/// How often the heartbeats are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Connections held at once, for each listening socket; more wait in its backlog.
const AT_ONCE: usize = 64;
/// How long a client may take to read the reply and close.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a client may send meanwhile.
const IGNORED_OCTETS: usize = 4096;

/// A beat later than this may be a shard that sleeps with work to do: glommio 0.9 throws a wake-up away when the thread
/// loses its core for longer than the preemption timer at the wrong moment. Such a shard is nudged, which is all it needs.
const LATE: Duration = Duration::from_millis(350);

/// Watches the heartbeats and stands in where one stops, for ever. `open` are the listeners of each shard at the moment.
pub async fn supervise(
    heartbeats: Arc<Heartbeats>,
    open: watch::Receiver<super::Listeners>,
    silence: Duration,
    mut on_late: Box<dyn FnMut(usize) + Send>,
    metrics: Arc<Metrics>,
    log: Log,
) {
    let shards = open.borrow().len();
    for shard in 0..shards {
        let (hearts, metrics, log) = (heartbeats.clone(), metrics.clone(), log.clone());
        tokio::spawn(supervise_one(shard, hearts, open.clone(), silence, metrics, log));
    }
    let mut ticks = super::ticks(LOOK_EVERY);
    loop {
        ticks.tick().await;
        for shard in heartbeats.stale(Instant::now(), LATE) {
            metrics.count(Counter::Nudges);
            on_late(shard);
        }
        metrics.set(
            Gauge::StaleShards,
            heartbeats.stale(Instant::now(), silence).count() as u64,
        );
    }
}

async fn supervise_one(
    shard: usize,
    heartbeats: Arc<Heartbeats>,
    open: watch::Receiver<super::Listeners>,
    silence: Duration,
    metrics: Arc<Metrics>,
    log: Log,
) {
    let mut ticks = super::ticks(LOOK_EVERY);
    loop {
        ticks.tick().await;
        if !heartbeats.is_stale(shard, Instant::now(), silence) {
            continue;
        }
        log.event(
            Level::Error,
            "a shard is silent; its clients are sent away",
            &[("shard", &shard)],
        );
        let mut posts = tokio::task::JoinSet::new();
        let listeners = open.borrow().get(shard).cloned().unwrap_or_default();
        for listener in &listeners {
            let reply = match listener.implicit_tls {
                true => &[],
                false => Event::NewConnectionNotAvailable.wire(),
            };
            match listener.socket.try_clone() {
                Ok(listener) => {
                    let (hearts, count) = (heartbeats.clone(), metrics.clone());
                    let until = move || !hearts.is_stale(shard, Instant::now(), silence);
                    let counted = move || {
                        count.count(Counter::StandInReplies);
                        count.event(Event::NewConnectionNotAvailable);
                        if !reply.is_empty() {
                            count.reply(421);
                        }
                    };
                    posts.spawn(answer_for(listener, reply, until, counted));
                }
                Err(e) => log.event(
                    Level::Error,
                    "cannot stand in for a shard",
                    &[("shard", &shard), ("error", &e)],
                ),
            }
        }
        drop(listeners);
        while let Some(post) = posts.join_next().await {
            if let Ok(Err(e)) = post {
                log.event(
                    Level::Error,
                    "cannot stand in for a shard",
                    &[("shard", &shard), ("error", &e)],
                );
            }
        }
        while heartbeats.is_stale(shard, Instant::now(), silence) {
            ticks.tick().await;
        }
        log.event(Level::Warn, "a shard is back", &[("shard", &shard)]);
    }
}

/// Accepts on `listener`, which must be non-blocking, and sends `reply`, which may be empty, to everyone until `until` holds;
/// `counted` is called for each.
pub async fn answer_for(
    listener: TcpListener,
    reply: &'static [u8],
    until: impl Fn() -> bool,
    counted: impl Fn(),
) -> std::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&listener)?;
    if !flags.contains(rustix::fs::OFlags::NONBLOCK) {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "the listening socket is in blocking mode",
        ));
    }
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut ticks = super::ticks(LOOK_EVERY);
    while !until() {
        let turn = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            (accepted, place) = turn => match accepted {
                Ok((stream, _)) => {
                    counted();
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(PATIENCE, send_away(stream, reply)).await;
                        drop(place);
                    });
                }
                // Out of descriptors, or the client has gone: look again at the next tick.
                Err(_) => { ticks.tick().await; }
            }
        }
    }
    Ok(())
}

/// Closes only after the client has: unread input would turn the close into a reset, and that can overtake the reply.
async fn send_away(mut stream: TcpStream, reply: &[u8]) -> std::io::Result<()> {
    stream.write_all(reply).await?;
    stream.shutdown().await?;
    let (mut ignored, mut sink) = (0, [0; 512]);
    while ignored < IGNORED_OCTETS {
        match stream.read(&mut sink).await? {
            0 => break,
            n => ignored += n,
        }
    }
    Ok(())
}
