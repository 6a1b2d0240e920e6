//! The tasks of an executor: one for each place, one that keeps to the plan, and the keeper that goes through the phases.
//!
//! Promises: a task is never cancelled (glommio would not free it): it ends by itself when the engine says so. Lives on
//! its executor.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::timer::Timer;

use crate::engine::{Engine, Place};
use crate::news::News;
use crate::transport::Link;

/// The plan is looked at no more often: a task that sleeps and wakes costs some 50 µs.
const PACE: Duration = Duration::from_micros(100);
/// How long a place rests when no connection could be had.
const REST: Duration = Duration::from_millis(1);
/// How long it rests when the server was expected to have no place for it.
const TURNED_AWAY_REST: Duration = Duration::from_secs(1);

/// Lets every place send until the engine has no more to do; a place begins every `apart`.
pub fn start(engine: &Rc<RefCell<Engine>>, news: &Rc<News>, apart: Duration) {
    let places = engine.borrow().places();
    for index in 0..places {
        let (engine, news) = (Rc::clone(engine), Rc::clone(news));
        glommio::spawn_local(async move {
            let wait = apart.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
            if !wait.is_zero() {
                Timer::new(wait).await;
            }
            occupy(&engine, &news, index).await;
        })
        .detach();
    }
}

async fn occupy(engine: &RefCell<Engine>, news: &Rc<News>, index: usize) {
    loop {
        match poll_fn(|context| engine.borrow_mut().poll_place(index, context)).await {
            Place::Done => return,
            Place::Failed => {
                Timer::new(REST).await;
            }
            Place::TurnedAway => {
                Timer::new(TURNED_AWAY_REST).await;
            }
            Place::Open(socket) => {
                let mut link = Link::new(socket, news);
                poll_fn(|context| engine.borrow_mut().attend(index, &mut link, context)).await;
            }
        }
    }
}

/// Hands out messages at their times.
pub fn pace(engine: &Rc<RefCell<Engine>>) {
    let engine = Rc::clone(engine);
    glommio::spawn_local(async move {
        while let Some(at) = poll_fn(|context| engine.borrow_mut().poll_release(context)).await {
            Timer::new(at.saturating_duration_since(Instant::now()).max(PACE)).await;
        }
    })
    .detach();
}

/// Waits until `until`, or until the engine has news, whichever is first, and no longer than `tick`.
pub async fn watch(engine: &RefCell<Engine>, until: Option<Instant>, tick: Duration) {
    let wait = until.map_or(tick, |at| at.saturating_duration_since(Instant::now()).min(tick));
    let news = poll_fn(|context| engine.borrow_mut().poll_news(context));
    let time = async {
        Timer::new(wait).await;
    };
    news.or(time).await;
}
