//! Who has something to be read, or room to be written to: one epoll set a shard, looked into between its tasks.
//!
//! Promises: nobody is forgotten and nobody who is gone is told; a busy shard asks the set and never the ring, a quiet one
//! sleeps in the ring until the set has news; nobody's talking keeps the others, or timers and notices, from being heard.
//! Lives on its shard.
//!
//! Why the ring does not wait for each socket: glommio asks it anew for every wait, and not to keep its completions until it
//! looks (IORING_SETUP_COOP_TASKRUN), so each arrival interrupts the shard's core; on a virtual machine that costs more than
//! the reply. A socket joins the set once, and while the shard is busy its news are an entry in a list.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::TcpStream as AnyStream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::{AsyncRead, future};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
// glommio takes descriptors by this version's type, which spares `unsafe`.
use socket2_of_glommio::Socket as Descriptor;

use super::clock;

/// News taken at once.
const NEWS_AT_ONCE: usize = 256;
/// How long a shard that has run out of news looks for more before it sleeps: going to sleep and waking costs seven system
/// calls and more time than this.
const SPIN: Duration = Duration::from_micros(20);
/// How often somebody may find something before everybody rests.
const FINDS: usize = 256;
/// Short enough to be over when the ring has been asked.
const REST: Duration = Duration::from_micros(1);
/// How often a shard looks that cannot wait.
const NAP: Duration = Duration::from_millis(10);

/// The sockets of a shard and who waits for them.
#[derive(Debug)]
pub struct Readiness {
    set: OwnedFd,
    watched: RefCell<Vec<Watched>>,
    /// Numbers that nobody uses.
    free: RefCell<Vec<usize>>,
    /// Finds since everybody rested.
    finds: Cell<usize>,
}

/// What is known of one socket.
#[derive(Debug, Default)]
struct Watched {
    readable: bool,
    writable: bool,
    /// An end, an error or an urgent octet was told, at which a read stops short and which is not told again: there may be
    /// more to read until there is nothing.
    read_on: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A socket's place in the set. The descriptor is to be closed with it, which takes it out of the set. Where it has a twin (a
/// listening socket of the stand-in), its news may reach whoever has the number next: that is a look in vain, no more.
#[derive(Debug)]
pub struct Place {
    readiness: Rc<Readiness>,
    number: usize,
    /// Whether the set tells of room to write, too.
    writes: Cell<bool>,
}

/// What a socket is watched for from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Input, and the end.
    Read,
    /// These, and room to write; a connection that is being made has room when it is there.
    Both,
}

impl Readiness {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn new() -> io::Result<Rc<Readiness>> {
        Ok(Rc::new(Readiness {
            set: epoll::create(CreateFlags::CLOEXEC)?,
            watched: RefCell::default(),
            free: RefCell::default(),
            finds: Cell::new(0),
        }))
    }

    /// Watches a socket from here on.
    ///
    /// # Errors
    ///
    /// What the system said: no memory, or more sockets than fs.epoll.max_user_watches.
    pub fn watch(self: &Rc<Self>, socket: impl AsFd, interest: Interest) -> io::Result<Place> {
        let number = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut watched = self.watched.borrow_mut();
            watched.push(Watched::default());
            watched.len() - 1
        });
        let place = Place {
            readiness: self.clone(),
            number,
            writes: Cell::new(interest == Interest::Both),
        };
        place.with(|watched| *watched = Watched::default());
        epoll::add(&self.set, socket, place.data(), place.flags())?;
        Ok(place)
    }

    /// Tells whoever waits, for as long as the shard lives.
    pub async fn run(&self) {
        let mut news = Vec::with_capacity(NEWS_AT_ONCE);
        let (mut quiet, mut finds) = (None, 0);
        loop {
            // Whoever always has input finds something without news.
            let others_found = self.finds.get() != finds;
            let told = self.tell(&mut news);
            finds = self.finds.get();
            if told > 0 || others_found {
                quiet = None;
                self.let_others_go_first().await;
                continue;
            }
            let since = *quiet.get_or_insert_with(clock::now);
            if clock::now().saturating_duration_since(since) < SPIN {
                future::yield_now().await;
            } else {
                self.sleep().await;
                quiet = None;
            }
        }
    }

    /// Looks into the set; returns how many sockets have news.
    fn tell(&self, news: &mut Vec<Event>) -> usize {
        news.clear();
        // It fails where a signal comes first; the other errors are of sets that are none.
        let _ = epoll::wait(&self.set, spare_capacity(news), Some(&Timespec::default()));
        let mut watched = self.watched.borrow_mut();
        for event in news.iter() {
            let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            if let Some(watched) = watched.get_mut(number) {
                watched.hear(event.flags);
            }
        }
        self.found(news.len());
        news.len()
    }

    /// Waits in the ring until the set has news. glommio waits for streams only and gets one that is none: its wait ends
    /// with an error, and nothing was read. It is used up then, so each wait has a twin of its own.
    async fn sleep(&self) {
        let Ok(twin) = self.set.try_clone() else {
            // No descriptor is left. That passes, and until then a look now and then will do.
            Timer::new(NAP).await;
            return;
        };
        let mut waiting = TcpStream::from(Descriptor::from(AnyStream::from(twin)));
        let _ = poll_fn(|cx| Pin::new(&mut waiting).poll_read(cx, &mut [])).await;
    }

    /// Lets everybody run who can, before the caller does what it could do at once.
    ///
    /// A shard where somebody always can do something would come to the end of its work only when the preemption timer says
    /// so; the ring is asked for timers and notices then. So after some finds all wait for a timer instead.
    pub async fn let_others_go_first(&self) {
        if self.is_tired() {
            rest(REST).await;
            self.finds.set(0);
        } else {
            future::yield_now().await;
        }
    }

    fn is_tired(&self) -> bool {
        self.finds.get() >= FINDS
    }

    /// Counts finds.
    pub fn found(&self, finds: usize) {
        self.finds.set(self.finds.get().saturating_add(finds));
    }

    /// How many sockets are watched.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.watched.borrow().len() - self.free.borrow().len()
    }
}

/// Waits until the ring was asked. A timer that is over before it is waited for does not wait at all, so it takes one that is
/// not.
fn rest(mut time: Duration) -> impl Future<Output = ()> {
    let mut timer = None;
    poll_fn(move |cx| {
        while timer.is_none() {
            let waits = timer.insert(Timer::new(time));
            if Pin::new(waits).poll(cx).is_pending() {
                return Poll::Pending;
            }
            (timer, time) = (None, 2 * time);
        }
        Poll::Ready(())
    })
}

impl Watched {
    fn hear(&mut self, flags: EventFlags) {
        let stops_short = EventFlags::PRI | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(EventFlags::IN | stops_short) {
            self.readable = true;
            self.read_on |= flags.intersects(stops_short);
            if let Some(waker) = self.reader.take() {
                waker.wake();
            }
        }
        if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            self.writable = true;
            if let Some(waker) = self.writer.take() {
                waker.wake();
            }
        }
    }
}

impl Place {
    /// Has a socket watched no more that is to stay open; its place is to be dropped then.
    pub fn leave(&self, socket: impl AsFd) {
        let _ = epoll::delete(&self.readiness.set, socket);
    }

    /// Whether there may be something to read, or an end.
    pub fn is_readable(&self) -> bool {
        self.with(|watched| watched.readable).unwrap_or_default()
    }

    /// Waits until there may be something to read, or an end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|watched| poll(watched.readable, &mut watched.reader, cx))
            .unwrap_or(Poll::Pending)
    }

    /// Waits until there may be room to write, or an error. `socket` is the one whose place this is.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn poll_writable(&self, socket: impl AsFd, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.writes.replace(true) {
            // The set looks at once, so room that came in the meantime is not missed.
            epoll::modify(&self.readiness.set, socket, self.data(), self.flags())?;
        }
        self.with(|watched| poll(watched.writable, &mut watched.writer, cx))
            .unwrap_or(Poll::Pending)
            .map(Ok)
    }

    /// Something was read. Where there was room for more, that was all, and news come for what follows; unless something was
    /// told at which a read stops short.
    pub fn has_read(&self, room_left: bool) {
        self.with(|watched| watched.readable &= !room_left || watched.read_on);
    }

    /// There was nothing to read after all.
    pub fn nothing_to_read(&self) {
        self.with(|watched| (watched.readable, watched.read_on) = (false, false));
    }

    /// There was no room to write.
    pub fn no_room_to_write(&self) {
        self.with(|watched| watched.writable = false);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Watched) -> T) -> Option<T> {
        self.readiness.watched.borrow_mut().get_mut(self.number).map(act)
    }

    fn data(&self) -> EventData {
        EventData::new_u64(self.number as u64)
    }

    fn flags(&self) -> EventFlags {
        let mut flags = EventFlags::ET | EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP;
        flags.set(EventFlags::OUT, self.writes.get());
        flags
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.with(|watched| *watched = Watched::default());
        self.readiness.free.borrow_mut().push(self.number);
    }
}

fn poll(ready: bool, waits: &mut Option<Waker>, cx: &mut Context<'_>) -> Poll<()> {
    if ready {
        return Poll::Ready(());
    }
    match waits {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waits = Some(cx.waker().clone()),
    }
    Poll::Pending
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn a_rest_is_one_however_long_it_takes_to_begin() {
        let waits = in_an_executor(async |_| {
            // Over before anybody can wait for it.
            let short = Duration::from_nanos(1);
            let timer = future::poll_once(Timer::new(short)).await;
            (timer.is_none(), future::poll_once(rest(short)).await.is_none())
        });
        assert_eq!(waits, (false, true));
    }

    #[test]
    fn a_shard_that_always_finds_something_rests_in_turns() {
        let rested = in_an_executor(async |readiness| {
            let mut rested = 0;
            for _ in 0..10 * FINDS {
                rested += u32::from(readiness.is_tired());
                readiness.let_others_go_first().await;
                readiness.found(1);
            }
            rested
        });
        assert_eq!(rested, 9);
    }

    #[test]
    fn looks_in_vain_tire_nobody() {
        let tired = in_an_executor(async |readiness| {
            for _ in 0..10 * FINDS {
                readiness.let_others_go_first().await;
            }
            readiness.is_tired()
        });
        assert!(!tired);
    }

    #[test]
    fn who_waits_in_the_ring_is_heard_beside_those_who_always_find_something() {
        let heard = in_an_executor(async |readiness| {
            let (mut ours, mut theirs) = glommio::net::UnixStream::pair().unwrap();
            let waits =
                glommio::spawn_local(
                    async move { futures_lite::AsyncReadExt::read(&mut theirs, &mut [0]).await.unwrap() },
                )
                .detach();
            let heard = future::or(async { Some(waits.await) }, async {
                for n in 0..20 * FINDS {
                    if n == FINDS {
                        futures_lite::AsyncWriteExt::write_all(&mut ours, b"x").await.unwrap();
                    }
                    readiness.let_others_go_first().await;
                    readiness.found(1);
                }
                None
            });
            heard.await.flatten()
        });
        assert_eq!(heard, Some(1));
    }

    #[test]
    fn news_are_heard_in_turn_with_one_who_always_finds_something() {
        let turns = in_an_executor(async |readiness| {
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let place = readiness.watch(&ours, Interest::Read).unwrap();
            let heard = Rc::new(Cell::new(false));
            let hears = heard.clone();
            glommio::spawn_local(async move {
                poll_fn(|cx| place.poll_readable(cx)).await;
                hears.set(true);
            })
            .detach();
            for turn in 0..FINDS {
                if turn == FINDS / 2 {
                    std::io::Write::write_all(&mut theirs, b"x").unwrap();
                }
                if heard.get() {
                    return turn - FINDS / 2;
                }
                // Longer than the time after which a quiet shard sleeps.
                let began = clock::now();
                while clock::now().saturating_duration_since(began) < 3 * SPIN {}
                readiness.found(1);
                readiness.let_others_go_first().await;
            }
            FINDS
        });
        assert!(turns < 4, "heard after {turns} turns");
    }

    #[test]
    fn a_number_that_is_used_again_has_heard_nothing() {
        in_an_executor(async |readiness| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let place = readiness.watch(&ours, Interest::Read).unwrap();
            drop(theirs);
            poll_fn(|cx| place.poll_readable(cx)).await;
            let number = place.number;
            drop((place, ours));
            assert_eq!(readiness.len(), 0);

            let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let place = readiness.watch(&ours, Interest::Read).unwrap();
            assert_eq!((place.number, readiness.len()), (number, 1));
            Timer::new(Duration::from_millis(1)).await;
            assert!(!place.is_readable());
        });
    }

    #[test]
    fn what_cannot_be_watched_leaves_no_trace() {
        in_an_executor(async |readiness| {
            let file = std::fs::File::open("/proc/self/stat").unwrap();
            assert!(readiness.watch(&file, Interest::Read).is_err());
            assert_eq!(readiness.len(), 0);
        });
    }

    /// Runs a test beside the task that tells of news.
    pub fn in_an_executor<T: Send + 'static>(test: impl AsyncFnOnce(Rc<Readiness>) -> T + Send + 'static) -> T {
        glommio::LocalExecutorBuilder::default()
            .spawn(|| async move {
                let readiness = Readiness::new().unwrap();
                let watcher = readiness.clone();
                glommio::spawn_local(async move { watcher.run().await }).detach();
                test(readiness).await
            })
            .unwrap()
            .join()
            .unwrap()
    }
}
