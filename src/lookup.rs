//! The way between a shard and every other thread: an [`Inbox`] into the shard, a [`Desk`] for its questions.
//!
//! Promises: neither side ever blocks or waits for a lock. A question that cannot be taken is refused at once, so that
//! the session can do without; a question that was taken is answered exactly once, even when whoever works on it
//! panics. An answer names the [`Ticket`] of its session, so one that comes too late finds nobody and is dropped. No
//! runtime is named here; both ends live on whichever thread holds them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use crossbeam_queue::{ArrayQueue, SegQueue};

use crate::smtp::sasl::Secret;

mod heartbeats;
pub mod operator;

pub use heartbeats::Heartbeats;

/// Messages from any thread to one shard.
///
/// The queue has no capacity of its own, because a `send` that could fail would lose an answer that a session waits
/// for. It is bounded all the same: a session has at most one question open, and connections are limited.
///
/// Exactly one task of the shard, and one that never ends, may call [`Inbox::poll_next`]. A waker that leaves its
/// thread is the delicate part of a thread-per-core executor (its reference count is touched from outside while the
/// task may be going away); with one never-ending task per shard there is one such waker, and its task never goes.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: SegQueue<T>,
    reader: AtomicWaker,
    /// The reader once more, never taken out: `reader` is empty from a wake to the next poll.
    to_nudge: OnceLock<Waker>,
}

impl<T> Inbox<T> {
    /// An empty inbox.
    pub fn new() -> Inbox<T> {
        Inbox {
            queue: SegQueue::new(),
            reader: AtomicWaker::new(),
            to_nudge: OnceLock::new(),
        }
    }

    /// Leaves a message and wakes the reader. Any thread; never blocks.
    pub fn send(&self, message: T) {
        self.queue.push(message);
        self.reader.wake();
    }

    /// Wakes the reader without a message, however often it was woken and did not run: a shard that fell asleep with work
    /// to do is brought back by a wake from another thread, and by that alone.
    pub fn nudge(&self) {
        if let Some(reader) = self.to_nudge.get() {
            reader.wake_by_ref();
        }
    }

    /// The oldest message, or `Pending` until there is one.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<T> {
        if let Some(message) = self.queue.pop() {
            return Poll::Ready(message);
        }
        self.reader.register(cx.waker());
        self.to_nudge.get_or_init(|| cx.waker().clone());
        // Once more: a message pushed between the look and the registration has woken nobody.
        self.queue.pop().map_or(Poll::Pending, Poll::Ready)
    }

    /// The oldest message, if there is one already: to take several in one turn.
    pub fn try_next(&self) -> Option<T> {
        self.queue.pop()
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox::new()
    }
}

/// Names the session that asked. The generation of a slot changes with every session that gets it, so an answer for a
/// dead session cannot reach the one that sits in its slot now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The place of the session in its shard's table.
    pub slot: u32,
    /// How often the place had been given away before.
    pub generation: u32,
}

/// What a shard may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is this client on one of the DNS block lists?
    BlockList {
        /// The address that connected.
        client: IpAddr,
    },
    /// Which addresses has this host (A and AAAA)?
    Addresses {
        /// Its name, in A-labels.
        host: Arc<str>,
    },
    /// Which hosts take mail for this domain (RFC 5321 section 5.1)?
    Exchangers {
        /// Its name, in A-labels.
        domain: Arc<str>,
    },
    /// Is this password the one of this hash?
    Password {
        /// `{SCHEME}hash`.
        hash: Arc<Secret>,
        /// As the client sent it.
        password: Secret,
    },
    /// What is the SaltedPassword (RFC 5802 section 3) of these, for a next hop?
    SaltedPassword {
        /// Ours.
        password: Secret,
        /// The hop's.
        salt: Box<[u8]>,
        /// The hop's, within bounds.
        iterations: u32,
    },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::BlockList`].
    BlockList(Listing),
    /// To [`Question::Password`].
    Password(Match),
    /// To [`Question::SaltedPassword`]; none where nobody has made it.
    SaltedPassword(Option<Secret>),
    /// To [`Question::Addresses`]: in the order in which they are to be tried.
    Addresses(Resolved<Vec<IpAddr>>),
    /// To [`Question::Exchangers`]: the names of hosts, best first, equal ones in random order; the domain itself where it
    /// has no MX record.
    Exchangers(Resolved<Vec<Arc<str>>>),
}

/// What the DNS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved<T> {
    /// This, for as long.
    Found {
        /// Never empty.
        what: T,
        /// How long it may be believed.
        ttl: Duration,
    },
    /// There is no such name, or it has nothing of the kind: mail for it fails for good.
    Absent,
    /// The domain says that it takes no mail (null MX, RFC 7505).
    Refuses,
    /// Nobody could say. Mail for it waits.
    Unknown,
}

/// What came of comparing a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is the one.
    Yes,
    /// It is another.
    No,
    /// Nobody has compared: too many wait.
    Unknown,
}

/// Where a client stands with the block lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// On none, or none could say. A list that fails never refuses mail; the failure is counted per zone.
    Clear,
    /// On this one.
    Listed {
        /// The zone, as configured.
        zone: Arc<str>,
    },
}

impl Question {
    /// The answer when nobody could find out: it lets the session go on, and nobody in.
    pub fn unanswered(&self) -> Answer {
        match self {
            Question::BlockList { .. } => Answer::BlockList(Listing::Clear),
            Question::Addresses { .. } => Answer::Addresses(Resolved::Unknown),
            Question::Exchangers { .. } => Answer::Exchangers(Resolved::Unknown),
            Question::Password { .. } => Answer::Password(Match::Unknown),
            Question::SaltedPassword { .. } => Answer::SaltedPassword(None),
        }
    }
}

/// Brings an answer to the shard that asked, usually by [`Inbox::send`]. Called on the answering thread; must not block.
pub type ReplyTo = Arc<dyn Fn(Ticket, Answer) + Send + Sync>;

/// The question was not taken: too many wait already, or nobody answers any more. The session goes on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Makes the two ends of a queue of at most `capacity` questions.
pub fn desk(capacity: usize) -> (Desk, Questions) {
    let line = Arc::new(Line {
        queue: ArrayQueue::new(capacity.max(1)),
        reader: AtomicWaker::new(),
        closed: AtomicBool::new(false),
    });
    (Desk { line: line.clone() }, Questions { line })
}

#[derive(Debug)]
struct Line {
    queue: ArrayQueue<Asked>,
    reader: AtomicWaker,
    closed: AtomicBool,
}

/// Where shards get their [`Asker`].
#[derive(Clone, Debug)]
pub struct Desk {
    line: Arc<Line>,
}

impl Desk {
    /// The asking end of one shard, whose answers go to `reply_to`.
    pub fn asker(&self, reply_to: ReplyTo) -> Asker {
        Asker {
            line: self.line.clone(),
            reply_to,
        }
    }
}

/// The asking end of one shard.
#[derive(Clone)]
pub struct Asker {
    line: Arc<Line>,
    reply_to: ReplyTo,
}

impl Asker {
    /// Asks on behalf of the session that `ticket` names. Never blocks. The session keeps a deadline of its own: the
    /// answer is sure to be sent, not to be sent soon.
    pub fn ask(&self, question: Question, ticket: Ticket) -> Result<(), Full> {
        if self.line.closed.load(Ordering::Acquire) {
            return Err(Full);
        }
        let asked = Asked {
            question,
            ticket,
            reply_to: Some(self.reply_to.clone()),
        };
        if let Err(mut refused) = self.line.queue.push(asked) {
            refused.reply_to = None; // the caller hears it from us, not from the inbox
            return Err(Full);
        }
        self.line.reader.wake();
        Ok(())
    }
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker")
            .field("waiting", &self.line.queue.len())
            .finish_non_exhaustive()
    }
}

/// The answering end; dropping it answers whatever still waits with [`Question::unanswered`].
#[derive(Debug)]
pub struct Questions {
    line: Arc<Line>,
}

impl Questions {
    /// The oldest question, or `Pending` until there is one. One task only.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Asked> {
        if let Some(asked) = self.line.queue.pop() {
            return Poll::Ready(asked);
        }
        self.line.reader.register(cx.waker());
        self.line.queue.pop().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.line.closed.store(true, Ordering::Release);
        // One that slips in between is answered when the last asker goes; its session has a deadline of its own.
        while self.line.queue.pop().is_some() {}
    }
}

/// A question with its return address. Dropped unanswered, it answers [`Question::unanswered`].
pub struct Asked {
    question: Question,
    ticket: Ticket,
    reply_to: Option<ReplyTo>,
}

impl Asked {
    /// What is asked.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Sends the answer to the shard.
    pub fn answer(mut self, answer: Answer) {
        if let Some(reply_to) = self.reply_to.take() {
            reply_to(self.ticket, answer);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(reply_to) = self.reply_to.take() {
            reply_to(self.ticket, self.question.unanswered());
        }
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("question", &self.question)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const TICKET: Ticket = Ticket { slot: 3, generation: 9 };

    #[derive(Default)]
    struct Bell(AtomicUsize);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_message_wakes_the_reader_that_waits_and_is_read_in_order() {
        let (inbox, bell) = (Inbox::new(), Arc::new(Bell::default()));
        let waker = Waker::from(bell.clone());
        let cx = Context::from_waker(&waker);
        assert!(inbox.poll_next(&cx).is_pending());
        inbox.send(1);
        inbox.send(2);
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
        assert_eq!(inbox.poll_next(&cx), Poll::Ready(1));
        assert_eq!(inbox.try_next(), Some(2));
        assert!(inbox.poll_next(&cx).is_pending());
    }

    #[test]
    fn a_nudge_wakes_a_reader_that_was_woken_and_has_not_run() {
        struct Wakes(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let wakes = Arc::new(Wakes(Default::default()));
        let inbox = Inbox::<u8>::new();
        inbox.nudge();
        assert!(
            inbox
                .poll_next(&Context::from_waker(&wakes.clone().into()))
                .is_pending()
        );
        inbox.send(1);
        inbox.nudge();
        inbox.nudge();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn messages_of_many_threads_all_arrive_at_a_reader_that_sleeps_in_between() {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let inbox = Inbox::new();
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let cx = Context::from_waker(&waker);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let inbox = &inbox;
                scope.spawn(move || (0..1000u64).for_each(|i| inbox.send(thread * 1000 + i)));
            }
            let mut sum = 0;
            for _ in 0..4000 {
                sum += loop {
                    match inbox.poll_next(&cx) {
                        Poll::Ready(n) => break n,
                        Poll::Pending => std::thread::park(),
                    }
                };
            }
            assert_eq!(sum, (0..4000).sum::<u64>());
        });
    }

    type Heard = Arc<Mutex<Vec<(Ticket, Answer)>>>;

    fn asker(desk: &Desk) -> (Asker, Heard) {
        let heard = Heard::default();
        let ear = heard.clone();
        (
            desk.asker(Arc::new(move |ticket, answer| {
                ear.lock().unwrap().push((ticket, answer))
            })),
            heard,
        )
    }

    fn next(questions: &mut Questions) -> Option<Asked> {
        match questions.poll_next(&Context::from_waker(Waker::noop())) {
            Poll::Ready(asked) => Some(asked),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_answer_comes_back_with_the_ticket_of_its_question() {
        let (desk, mut questions) = desk(4);
        let (asker, heard) = asker(&desk);
        asker.ask(Question::BlockList { client: CLIENT }, TICKET).unwrap();
        let asked = next(&mut questions).unwrap();
        assert_eq!(asked.question(), &Question::BlockList { client: CLIENT });
        let listed = Answer::BlockList(Listing::Listed { zone: "bl.test".into() });
        asked.answer(listed.clone());
        assert_eq!(*heard.lock().unwrap(), [(TICKET, listed)]);
        assert!(next(&mut questions).is_none());
    }

    #[test]
    fn a_full_desk_refuses_at_once_and_answers_nothing() {
        let (desk, _questions) = desk(1);
        let (asker, heard) = asker(&desk);
        let question = Question::BlockList { client: CLIENT };
        assert_eq!(asker.ask(question.clone(), TICKET), Ok(()));
        assert_eq!(asker.ask(question, TICKET), Err(Full));
        assert!(heard.lock().unwrap().is_empty());
    }

    #[test]
    fn a_question_that_nobody_works_on_is_answered_clear() {
        let (desk, mut questions) = desk(4);
        let (asker, heard) = asker(&desk);
        let question = Question::BlockList { client: CLIENT };
        asker.ask(question.clone(), TICKET).unwrap();
        asker.ask(question.clone(), TICKET).unwrap();
        drop(next(&mut questions));
        assert_eq!(heard.lock().unwrap().len(), 1);
        drop(questions);
        assert_eq!(
            *heard.lock().unwrap(),
            vec![(TICKET, Answer::BlockList(Listing::Clear)); 2]
        );
        assert_eq!(asker.ask(question, TICKET), Err(Full));
    }
}
