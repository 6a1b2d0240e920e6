//! Which connections of an executor have something to be read, or room to be written to.
//!
//! Promises: while there are news the executor takes them from an epoll set, with one call for all that have some, and
//! never asks the ring; without any it sleeps in the ring until the set has some; timers are heard however many news there
//! are. Waiting for each reply in the ring cost a request, a completion and an interrupt between cores. Lives on its
//! executor.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::TcpStream as AnyStream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, future};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
// glommio takes descriptors by this version's type, which spares `unsafe` here.
use socket2_of_glommio::Socket;

/// News taken with one call.
const AT_ONCE: usize = 256;
/// How many of them before everybody waits for a timer: timers and the ring are heard only when nothing is left to do.
const REST_AFTER: usize = 256;
/// Short enough to be over when the ring has been asked.
const REST: Duration = Duration::from_micros(1);
/// How often the set is looked at where it cannot be waited for.
const NAP: Duration = Duration::from_millis(10);

/// The connections of an executor.
#[derive(Debug)]
pub struct News {
    set: OwnedFd,
    waiting: RefCell<Vec<Waiting>>,
    free: RefCell<Vec<usize>>,
    /// How long the executor looks for news before it sleeps.
    spin: Duration,
    in_vain: Cell<Duration>,
    over: Cell<bool>,
    teller: RefCell<Option<Waker>>,
}

/// What is known of one connection.
#[derive(Debug, Default)]
struct Waiting {
    waker: Option<Waker>,
    /// The peer has ended its side, or there was an error.
    ended: bool,
}

/// A connection's place among the others; to be dropped with it.
#[derive(Debug)]
pub struct Place {
    news: Rc<News>,
    number: usize,
}

impl News {
    /// Of an executor that has no connections yet, and of which this is called.
    pub fn start(spin: Duration) -> io::Result<Rc<Self>> {
        let news = Rc::new(Self {
            set: epoll::create(CreateFlags::CLOEXEC)?,
            waiting: RefCell::default(),
            free: RefCell::default(),
            spin,
            in_vain: Cell::default(),
            over: Cell::new(false),
            teller: RefCell::default(),
        });
        let teller = Rc::clone(&news);
        glommio::spawn_local(async move { teller.tell_all().await }).detach();
        Ok(news)
    }

    /// Nobody is told any more; the task that did it ends in the executor's next round.
    pub fn end(&self) {
        self.over.set(true);
        self.teller.take().into_iter().for_each(Waker::wake);
    }

    /// Has a connection watched from here on.
    pub fn watch(self: &Rc<Self>, socket: impl AsFd) -> io::Result<Place> {
        let number = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut waiting = self.waiting.borrow_mut();
            waiting.push(Waiting::default());
            waiting.len() - 1
        });
        let place = Place {
            news: Rc::clone(self),
            number,
        };
        // Told of once, when it comes: whoever reads and writes until there is no more misses nothing.
        let flags = EventFlags::ET | EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        epoll::add(&self.set, socket, EventData::new_u64(number as u64), flags)?;
        Ok(place)
    }

    /// How long the executor has looked for news in vain, all in all.
    pub fn in_vain(&self) -> Duration {
        self.in_vain.get()
    }

    async fn tell_all(&self) {
        let (mut told, mut quiet) = (0, None);
        let mut events = Vec::with_capacity(AT_ONCE);
        while !self.over.get() {
            let news = self.tell(&mut events);
            if news == 0 {
                if quiet.get_or_insert_with(Instant::now).elapsed() < self.spin {
                    future::yield_now().await;
                } else {
                    self.note_quiet(quiet.take());
                    self.sleep().await;
                }
                continue;
            }
            self.note_quiet(quiet.take());
            told += news;
            if told < REST_AFTER {
                future::yield_now().await;
            } else {
                told = 0;
                rest().await;
            }
        }
    }

    fn note_quiet(&self, since: Option<Instant>) {
        let looked = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.in_vain.set(self.in_vain.get() + looked);
    }

    /// Wakes whoever has news; how many there were.
    fn tell(&self, news: &mut Vec<Event>) -> usize {
        news.clear();
        // An error is that of a signal that came first.
        let _ = epoll::wait(&self.set, spare_capacity(news), Some(&Timespec::default()));
        let mut waiting = self.waiting.borrow_mut();
        for event in news.iter() {
            let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            if let Some(waiting) = waiting.get_mut(number) {
                let flags = event.flags;
                waiting.ended |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                waiting.waker.take().into_iter().for_each(Waker::wake);
            }
        }
        news.len()
    }

    /// Waits in the ring until the set has news. glommio waits for streams only and gets a twin of the set as one: the wait
    /// ends with an error, and the twin is used up.
    async fn sleep(&self) {
        let Ok(twin) = self.set.try_clone() else {
            Timer::new(NAP).await;
            return;
        };
        let mut twin = TcpStream::from(Socket::from(AnyStream::from(twin)));
        poll_fn(|context| {
            if self.over.get() || Pin::new(&mut twin).poll_read(context, &mut []).is_ready() {
                return Poll::Ready(());
            }
            self.teller.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Waits until the ring was asked: a timer that is over before it is waited for would not wait at all.
async fn rest() {
    let mut timer = None;
    poll_fn(|context| {
        let mut time = REST;
        while timer.is_none() {
            let waits = timer.insert(Timer::new(time));
            if Pin::new(waits).poll(context).is_pending() {
                return Poll::Pending;
            }
            (timer, time) = (None, 2 * time);
        }
        Poll::Ready(())
    })
    .await;
}

impl Place {
    /// Has the task run when there are news. There are none of what came before the last read or write that found nothing, or
    /// before a read that left room.
    pub fn wait(&self, context: &Context<'_>) {
        if let Some(waiting) = self.news.waiting.borrow_mut().get_mut(self.number) {
            match &mut waiting.waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => waiting.waker = Some(context.waker().clone()),
            }
        }
    }

    /// Whether the end was told already: it may have come with the octets that were read last, and is not told again.
    pub fn has_ended(&self) -> bool {
        let waiting = self.news.waiting.borrow();
        waiting.get(self.number).is_none_or(|waiting| waiting.ended)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(waiting) = self.news.waiting.borrow_mut().get_mut(self.number) {
            *waiting = Waiting::default();
        }
        self.news.free.borrow_mut().push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn timers_are_heard_beside_connections_that_always_have_news() {
        let rounds = in_an_executor(async |news| {
            let (ours, mut theirs) = pair();
            let place = news.watch(&ours).unwrap();
            let talk = async {
                loop {
                    theirs.write_all(b"x").unwrap();
                    poll_fn(|context| match (&ours).read(&mut [0; 8]) {
                        Ok(_) => Poll::Ready(()),
                        Err(_) => {
                            place.wait(context);
                            Poll::Pending
                        }
                    })
                    .await;
                    future::yield_now().await;
                }
            };
            let mut rounds = 0;
            let timers = async {
                for _ in 0..20 {
                    Timer::new(Duration::from_millis(1)).await;
                    rounds += 1;
                }
            };
            future::or(timers, talk).await;
            rounds
        });
        assert_eq!(rounds, 20);
    }

    #[test]
    fn an_end_that_comes_with_the_last_octets_is_known_when_they_are_read() {
        let (read, ended) = in_an_executor(async |news| {
            let (ours, mut theirs) = pair();
            let place = news.watch(&ours).unwrap();
            theirs.write_all(b"221 bye\r\n").unwrap();
            drop(theirs);
            // Both have come when the set is first looked at.
            std::thread::sleep(Duration::from_millis(20));
            let mut told = false;
            poll_fn(|context| {
                if std::mem::replace(&mut told, true) {
                    return Poll::Ready(());
                }
                place.wait(context);
                Poll::Pending
            })
            .await;
            ((&ours).read(&mut [0; 64]).unwrap(), place.has_ended())
        });
        assert_eq!((read, ended), (9, true));
    }

    #[test]
    fn the_task_that_tells_ends_when_nobody_is_to_be_told() {
        in_an_executor(async |news| {
            // It sleeps by then.
            Timer::new(Duration::from_millis(2)).await;
            assert_eq!(Rc::strong_count(&news), 2);
            news.end();
            Timer::new(Duration::from_millis(1)).await;
            assert_eq!(Rc::strong_count(&news), 1);
        });
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    fn in_an_executor<T: Send + 'static>(test: impl AsyncFnOnce(Rc<News>) -> T + Send + 'static) -> T {
        glommio::LocalExecutorBuilder::default()
            .spawn(|| async move { test(News::start(Duration::ZERO).unwrap()).await })
            .unwrap()
            .join()
            .unwrap()
    }
}
