//! What a panic says becomes one line of the log.
//!
//! Promises: a panicking thread does not wait for stderr (the default hook does, and a reader of stderr that stands still
//! would then hold up a shard); the line names thread and place. Installed on the main thread, runs on the thread that
//! panics.

use std::any::Any;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::log::{Level, Log};

/// Set when all shards run. Before, glommio panics where it should return an error (a kernel without io_uring): the shard
/// catches that, and the sentence of the failed start tells it.
static SERVING: AtomicBool = AtomicBool::new(false);

/// From here on panics are logged instead of printed.
pub fn log_panics(log: Log) {
    std::panic::set_hook(Box::new(move |panic| tell(&log, panic)));
}

/// From here on those of the shards too.
pub fn shards_run() {
    SERVING.store(true, Relaxed);
}

fn tell(log: &Log, panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    if name.starts_with("shard-") && !SERVING.load(Relaxed) {
        return;
    }
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    log.event(
        Level::Error,
        "panic",
        &[
            ("thread", &name),
            ("place", &place),
            ("reason", &reason(panic.payload())),
        ],
    );
}

fn reason(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
