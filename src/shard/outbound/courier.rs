//! Drives one [`Client`] over one connection to a next hop: takes groups of recipients from its [`Peer`], one after the
//! other, as long as there are any and the hop goes along.
//!
//! Promises: what becomes of each group is told to the queue exactly once, or the group is handed back to be tried
//! elsewhere; a courier that rests holds no buffer but the socket's; it ends by itself, on an alarm at the latest. One
//! detached task. Lives on its shard.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::connect::connect;
use super::{Job, Peer};
use crate::lookup::{Answer, Question};
use crate::shard::ids::random;
use crate::shard::parcel::Body;
use crate::shard::slots::{Alarm, Seat};
use crate::shard::stream::{COMMANDS_AT_ONCE, Stream, Wake};
use crate::shard::{Shard, clock};
use crate::smtp::client::{Client, Fault, Found, HopReply, Origin, Outcome, Outgoing, Step, Wanted};

/// How long a connection may take to come about: a hop that is alive answers within one retransmission.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a connection that has nothing to carry is kept.
const REST_TIME: Duration = Duration::from_secs(10);

/// Where a courier that rests is found: its peer leaves it a job here and wakes it.
pub(super) struct Bench {
    job: Cell<Option<Job>>,
    seat: Seat,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("seat", &self.seat)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// Gives work to a courier that rests.
    pub fn employ(&self, job: Job) {
        self.job.set(Some(job));
        self.seat.slot().wake();
    }
}

pub(super) struct Courier {
    shard: Rc<Shard>,
    peer: Rc<Peer>,
    bench: Rc<Bench>,
    stream: Stream,
    client: Client,
    /// Input that the client has not used yet.
    carry: Vec<u8>,
    job: Option<Job>,
    /// No job is taken any more.
    leaving: bool,
    /// TLS has failed, and the hop is to be tried once more without it.
    without_tls: bool,
}

impl Courier {
    /// From the first job of a connection to its end.
    pub async fn run(shard: Rc<Shard>, peer: Rc<Peer>, job: Job) {
        let now = clock::now();
        let seat = shard.slots.seat(now + CONNECT_TIME);
        match connect(&shard, &seat, &peer.place).await {
            Ok(socket) => {
                let client = Client::new(peer.terms_now(), clock::now());
                let bench = Rc::new(Bench {
                    job: Cell::new(Some(job)),
                    seat,
                });
                let courier = Box::new(Courier {
                    shard: shard.clone(),
                    peer: peer.clone(),
                    bench,
                    stream: Stream::plain(socket),
                    client,
                    carry: Vec::new(),
                    job: None,
                    leaving: false,
                    without_tls: false,
                });
                courier.serve().await;
            }
            Err(error) => {
                peer.close();
                shard.hop_failed(&peer, Some(job), &unreachable(&error));
            }
        }
    }

    async fn serve(mut self: Box<Self>) {
        let mut filled = 0;
        loop {
            let step = self.advance(filled);
            self.arm();
            // Part of what was asked has been answered. A hop that sends each reply by itself waits for our acknowledgement
            // before the next (Nagle's algorithm), which would be late without this.
            if filled > 0 && step == Step::Read {
                self.stream.acknowledge_now();
            }
            match step {
                Step::Read => {
                    if let Err(error) = self.flush().await {
                        self.client.lost(&error.to_string());
                        filled = self.load();
                        continue;
                    }
                    let wake = self
                        .stream
                        .read(&self.shard, &self.bench.seat, &self.carry, COMMANDS_AT_ONCE)
                        .await;
                    match wake {
                        Wake::Data(n) => {
                            self.carry.clear();
                            filled = n;
                            continue;
                        }
                        Wake::End => self.client.lost("the hop has closed the connection"),
                        Wake::Broken => self.client.lost("the connection broke"),
                        Wake::Alarm(alarm) => self.heed(alarm),
                    }
                }
                Step::Ready => self.ready().await,
                Step::Content => self.content().await,
                Step::Done => self.done(),
                Step::Handshake => self.secure().await,
                Step::Ask => self.find().await,
                Step::Close => break,
            }
            filled = self.load();
        }
        let _ = self.flush().await;
        self.stream.shutdown().await;
        self.leave();
    }

    /// Feeds the shard's buffer to the client. What it has not used is carried over.
    fn advance(&mut self, filled: usize) -> Step {
        let scratch = self.shard.scratch.borrow();
        let input = scratch.get(..filled).unwrap_or_default();
        let (used, step) = self.client.advance(input, clock::now());
        self.carry.clear();
        self.carry.extend_from_slice(input.get(used..).unwrap_or_default());
        step
    }

    /// Puts what was carried over back into the shard's buffer.
    fn load(&mut self) -> usize {
        let mut scratch = self.shard.scratch.borrow_mut();
        match scratch.get_mut(..self.carry.len()) {
            Some(front) => {
                front.copy_from_slice(&self.carry);
                self.carry.len()
            }
            None => 0,
        }
    }

    /// The wheel is to remind of the client's deadline, or of the end of a rest.
    fn arm(&self) {
        let deadline = self.client.deadline().unwrap_or_else(|| clock::now() + REST_TIME);
        self.bench.seat.deadline(deadline);
    }

    fn heed(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Deadline => self.client.expire(clock::now()),
            Alarm::Drain => self.leaving = true,
            Alarm::Stop => {
                self.leaving = true;
                self.client.lost("the server stops");
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let output = self.client.output();
        if output.is_empty() {
            return Ok(());
        }
        let result = self.stream.send(&self.shard, &self.bench.seat, output).await;
        self.client.sent();
        result
    }

    /// TLS, from our side.
    async fn secure(&mut self) {
        if let Err(error) = self.flush().await {
            return self.client.lost(&error.to_string());
        }
        let (config, name) = self.peer.tls.clone();
        let deadline = self.client.deadline().unwrap_or_else(clock::now);
        let upgrade = self
            .stream
            .upgrade_client(&self.shard, &self.bench.seat, &config, name, deadline);
        match Box::pin(upgrade).await {
            Ok(()) => self.client.secured(clock::now()),
            Err(failure) => {
                self.without_tls = self.peer.gives_up_tls();
                self.client.lost(&format!("TLS cannot be begun: {failure}"));
            }
        }
    }

    /// What AUTH needs to know. The costly part is done elsewhere.
    async fn find(&mut self) {
        let question = match self.client.wanted() {
            Some(Wanted::Nonce) => {
                let now = clock::now();
                let found = match random() {
                    Some(random) => Found::Nonce {
                        random,
                        unix_millis: self.shard.unix_millis(now),
                    },
                    None => Found::Unavailable,
                };
                return self.client.found(&found, now);
            }
            Some(Wanted::SaltedPassword {
                password,
                salt,
                iterations,
            }) => Question::SaltedPassword {
                password: password.clone(),
                salt: salt.into(),
                iterations,
            },
            None => return self.client.found(&Found::Unavailable, clock::now()),
        };
        let seat = &self.bench.seat;
        let answer = match self.shard.asker.ask(question, seat.ticket()) {
            Ok(()) => loop {
                match seat.slot().clone().answer().await {
                    // Waited on: it would be asked, and worked out, once more.
                    Err(Alarm::Drain) => self.leaving = true,
                    heard => break heard,
                }
            },
            Err(_) => Ok(Answer::SaltedPassword(None)),
        };
        match answer {
            Ok(Answer::SaltedPassword(Some(salted))) => {
                self.client.found(&Found::SaltedPassword(salted), clock::now());
            }
            Ok(_) => self.client.found(&Found::Unavailable, clock::now()),
            Err(alarm) => self.heed(alarm),
        }
    }

    /// The hop takes another message: the next one, or a rest, or the end.
    async fn ready(&mut self) {
        if self.client.served() == 0 {
            self.shard.hop_answers(&self.peer);
        }
        let job = match self.bench.job.take().or_else(|| self.next_job()) {
            Some(job) => Some(job),
            None => self.rest().await,
        };
        match job {
            Some(job) => self.begin(job),
            None => self.client.quit(clock::now()),
        }
    }

    fn next_job(&self) -> Option<Job> {
        if self.leaving {
            return None;
        }
        self.peer.next_job()
    }

    /// Waits for work; none when the rest is over.
    async fn rest(&mut self) -> Option<Job> {
        if self.leaving {
            return None;
        }
        self.arm();
        self.peer.sit_down(&self.bench);
        let bench = self.bench.clone();
        let job = poll_fn(|cx| {
            if let Some(job) = bench.job.take() {
                return Poll::Ready(Some(job));
            }
            match bench.seat.slot().take_alarm() {
                Some(alarm) => {
                    self.leaving |= alarm != Alarm::Deadline;
                    Poll::Ready(None)
                }
                None => {
                    bench.seat.slot().attend(cx);
                    Poll::Pending
                }
            }
        })
        .await;
        if job.is_none() {
            self.peer.stand_up(&self.bench);
        }
        job
    }

    /// Sends the envelope of a job. A message that this hop cannot take goes to another one.
    fn begin(&mut self, job: Job) {
        let now = clock::now();
        let misfit = {
            let queue = self.shard.onward.queue.borrow();
            let Some(envelope) = queue.envelope(job.parcel.id) else {
                return self.shard.hop_is_unknown(&self.peer);
            };
            let parcel = &job.parcel;
            let Some(front) = parcel.front() else {
                return self.shard.hop_is_unknown(&self.peer);
            };
            let outgoing = Outgoing {
                envelope,
                recipients: &job.recipients,
                form: parcel.form,
                size: parcel.size.get() + parcel.fields_length(),
                head: &front.fields,
                eight_bit: parcel.content.get().eight_bit,
                bare_newline: parcel.content.get().bare_newline,
            };
            self.client.send(&outgoing, now).err()
        };
        match misfit {
            None => self.job = Some(job),
            Some(misfit) => {
                self.shard.hop_is_unknown(&self.peer);
                self.shard.misfits(job, misfit.reply());
            }
        }
    }

    /// Gives the content to the client: at once where it stands in memory, piece by piece where it stands in the spool.
    async fn content(&mut self) {
        let Some(job) = &self.job else {
            return self.client.lost("a defect: content without a message");
        };
        let parcel = job.parcel.clone();
        match parcel.body() {
            Body::Memory(octets) => self.client.content(&octets, true, clock::now()),
            Body::Spool => {
                let extents = match self.shard.extents_of(parcel.id) {
                    Ok(extents) => extents,
                    Err(error) => return self.client.lost(&error.to_string()),
                };
                let last = extents.len().saturating_sub(1);
                if extents.is_empty() {
                    self.client.content(&[], true, clock::now());
                }
                for (index, extent) in extents.iter().enumerate() {
                    let octets = match self.shard.read_extent(extent).await {
                        Ok(octets) => octets,
                        Err(error) => return self.client.lost(&format!("the content cannot be read: {error}")),
                    };
                    self.client.content(&octets, index == last, clock::now());
                    self.arm();
                    // What is left of the last piece goes out with the next wait for a reply.
                    if index != last
                        && let Err(error) = self.flush().await
                    {
                        return self.client.lost(&error.to_string());
                    }
                }
            }
        }
    }

    /// A transaction is over: the queue hears of it. A kept connection that turns out to be gone says nothing about the
    /// message or the hop, so the message is sent again on a fresh one, once.
    fn done(&mut self) {
        let outcomes = self.client.take_outcomes();
        let Some(mut job) = self.job.take() else {
            return;
        };
        let stale = self.client.served() > 1 && !job.again && outcomes.iter().all(is_stale);
        if stale {
            job.again = true;
            self.leaving = true;
            return self.shard.dispatch_to(&self.peer, job);
        }
        self.shard.attempted(&self.peer, job, outcomes, self.client.offers());
    }

    /// The connection is at its end. A job that was not begun goes elsewhere.
    fn leave(&mut self) {
        self.peer.close();
        let job = self.job.take().or_else(|| self.bench.job.take());
        match self.client.failure() {
            Some(_) if self.without_tls => self.hand_back(job),
            Some(failure) if self.client.served() == 0 || failure.fault == Fault::Closing => {
                self.shard.hop_failed(&self.peer, job, &failure.reply);
            }
            _ => self.hand_back(job),
        }
    }

    /// A job that was not begun, and whoever waits, get another connection.
    fn hand_back(&self, job: Option<Job>) {
        if let Some(job) = job {
            self.shard.dispatch_to(&self.peer, job);
        }
        self.shard.resume_peer(&self.peer);
    }
}

/// Whether a kept connection had ended before the hop could have taken anything.
fn is_stale(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Deferred(HopReply {
            origin: Origin::Lost { ended: false },
            ..
        }) | Outcome::Deferred(HopReply {
            code: 421,
            origin: Origin::Hop,
            ..
        })
    )
}

/// What is said of a hop that cannot be reached.
fn unreachable(error: &io::Error) -> HopReply {
    super::no_connection(&format!("cannot connect: {error}"))
}
