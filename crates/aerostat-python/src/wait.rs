//! Waiting without holding the interpreter.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::error::lost;

/// As long as any wait, and short enough to be added to a time.
pub(crate) const FOREVER: Duration = Duration::from_secs(1 << 30);

/// How long a wait goes on before signals are looked at.
pub(crate) const MOMENT: Duration = Duration::from_millis(50);

/// The thread that takes the interpreter down, once it does.
static LEAVING: OnceLock<ThreadId> = OnceLock::new();

/// Called by the thread that is about to take the interpreter down: from now on others that come back from work without
/// the interpreter are kept here. Before Python 3.14 the interpreter ends a thread that comes back too late by unwinding
/// it, and frames of Rust are not to be unwound so: it ended the process by a fault.
#[pyfunction]
pub(crate) fn leave(py: Python<'_>) {
    let _ = LEAVING.set(thread::current().id());
    // Those that are on their way back already get there.
    py.detach(|| thread::sleep(MOMENT));
}

/// Does work without holding the interpreter.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(move || {
        let done = work();
        while LEAVING.get().is_some_and(|leaving| *leaving != thread::current().id()) {
            thread::park();
        }
        done
    })
}

/// What comes first: a value, the end of the time, or a signal, which is an error and looked for each `moment`.
pub(crate) fn receive<T: Send>(
    py: Python<'_>,
    from: &mut Receiver<T>,
    time: Duration,
    moment: Duration,
) -> PyResult<Result<T, RecvTimeoutError>> {
    let until = Instant::now() + time.min(FOREVER);
    loop {
        let from = &mut *from;
        let left = until.saturating_duration_since(Instant::now()).min(moment);
        let got = detached(py, move || from.recv_timeout(left));
        py.check_signals()?;
        if !matches!(got, Err(RecvTimeoutError::Timeout)) || Instant::now() >= until {
            return Ok(got);
        }
    }
}

/// Interrupts of a model: each ends what is under way when it is made, and nothing that is asked for later.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    made: AtomicU64,
    /// How many had been made when one was last heeded.
    heeded: AtomicU64,
}

impl Interrupts {
    /// One more.
    pub(crate) fn make(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Whether there was one that was not heeded yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.heeded.load(Ordering::Relaxed) != self.made()
    }

    /// The same; now it is heeded.
    pub(crate) fn heed(&self) -> bool {
        let made = self.made();
        self.heeded.swap(made, Ordering::Relaxed) != made
    }
}

/// Does long work on a thread of its own. `tick` is called about ten times a second, and after the work; an error of its
/// own or of a signal has `cancel` called, and is the result once the work has ended.
pub(crate) fn background<T: Send>(
    py: Python<'_>,
    cancel: impl Fn(),
    work: impl FnOnce() -> T + Send,
    mut tick: impl FnMut() -> PyResult<()>,
) -> PyResult<T> {
    const TICK: Duration = Duration::from_millis(100);
    thread::scope(|scope| {
        let (done, mut wait) = channel();
        scope.spawn(move || {
            // Nobody waits any more: then nobody wants to know.
            let _ = done.send(work());
        });
        let mut failed = None;
        loop {
            let got = if failed.is_none() {
                receive(py, &mut wait, TICK, MOMENT)
            } else {
                let wait = &mut wait;
                Ok(detached(py, move || wait.recv().map_err(|_| RecvTimeoutError::Disconnected)))
            };
            let told = match got {
                Ok(Err(RecvTimeoutError::Disconnected)) => {
                    return Err(failed.unwrap_or_else(|| lost("a thread")));
                }
                Ok(Ok(result)) => return failed.map_or_else(|| tick().map(|()| result), Err),
                Ok(Err(RecvTimeoutError::Timeout)) => tick(),
                Err(signal) => Err(signal),
            };
            if let Err(error) = told {
                cancel();
                failed = Some(error);
            }
        }
    })
}
