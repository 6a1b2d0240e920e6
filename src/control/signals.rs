//! Signals as events.
//!
//! Promises: SIGTERM and SIGINT ask for a drain, the second of them for an end at once; SIGHUP asks for a reload. Lives
//! on the control thread.

use tokio::signal::unix::{SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Drain, then stop.
    Stop,
    /// Stop at once: the second signal of an impatient operator.
    StopNow,
    /// Read the configuration again.
    Reload,
}

/// The signals that this process catches.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Catches them from here on, for the whole process. Needs a tokio context.
    pub fn catch() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Tells of each signal, for ever.
    pub async fn tell(mut self, mut on_signal: Box<dyn FnMut(Signal) + Send>) {
        let mut stopping = false;
        loop {
            let stop = tokio::select! {
                _ = self.terminate.recv() => true,
                _ = self.interrupt.recv() => true,
                _ = self.hangup.recv() => false,
            };
            on_signal(match (stop, stopping) {
                (false, _) => Signal::Reload,
                (true, false) => Signal::Stop,
                (true, true) => Signal::StopNow,
            });
            stopping |= stop;
        }
    }
}
