//! Waiting without holding the interpreter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::error::lost;

/// As long as any wait, and short enough to be added to a time.
pub(crate) const FOREVER: Duration = Duration::from_secs(1 << 30);

/// How long a wait goes on before signals are looked at.
pub(crate) const MOMENT: Duration = Duration::from_millis(50);

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
        let got = py.detach(move || from.recv_timeout(left));
        py.check_signals()?;
        if !matches!(got, Err(RecvTimeoutError::Timeout)) || Instant::now() >= until {
            return Ok(got);
        }
    }
}

/// Does long work on a thread of its own. `tick` is called about ten times a second, and after the work; an error of its
/// own or of a signal sets `cancel`, and is the result once the work has ended.
pub(crate) fn background<T: Send>(
    py: Python<'_>,
    cancel: &AtomicBool,
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
                Ok(py.detach(move || wait.recv().map_err(|_| RecvTimeoutError::Disconnected)))
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
                cancel.store(true, Ordering::Relaxed);
                failed = Some(error);
            }
        }
    })
}
