//! Ctrl-C and requests to terminate.
//!
//! Where there is something to keep, the first one asks the work to stop and the second one ends the process; anywhere
//! else (headers, tokenizer, waiting for input) the first one ends it.

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use crate::failure::{Failure, INTERRUPTED};
use crate::{status, terminal};

/// The time a download has to come to a stop; what it has is kept, however it ends.
const SOON: Duration = Duration::from_secs(1);

/// The values of `MODE`: how an interrupt ends the process.
const AT_ONCE: u8 = 0;
const WITHIN_A_MOMENT: u8 = 1;
const BY_ITSELF: u8 = 2;

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// What asked to stop was more than Ctrl-C: the process is to end.
static TERMINATED: AtomicBool = AtomicBool::new(false);
static MODE: AtomicU8 = AtomicU8::new(AT_ONCE);

/// While this guard lives, an interrupt is a request to stop and does not end the process.
#[derive(Debug)]
pub(crate) struct Graceful(());

/// Puts the handler in place; once, before anything else. Signals that were ignored when the process began, as `nohup` and
/// shells without job control have it, stay ignored.
#[cfg(target_os = "linux")]
pub(crate) fn install() -> Result<(), Failure> {
    use nix::sys::signal::{SigSet, Signal};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let ignored = |signal: &Signal| ignored & (1 << (*signal as u64 - 1)) != 0;
    let caught = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    // Blocked in this thread and in those that it starts: they come to the one that waits for them, and to no handler, such as
    // a line editor's.
    let blocked: SigSet = caught.into_iter().collect();
    let waited: SigSet = caught.into_iter().filter(|signal| !ignored(signal)).collect();
    let failed = |e: std::io::Error| Failure::failed(format!("cannot watch for Ctrl-C: {e}"));
    blocked.thread_block().map_err(|e| failed(e.into()))?;
    let watch = move || {
        while let Ok(signal) = waited.wait() {
            asked(signal != Signal::SIGINT);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop).map_err(failed)
}

/// Puts the handler in place; once, before anything else.
#[cfg(not(target_os = "linux"))]
pub(crate) fn install() -> Result<(), Failure> {
    ctrlc::set_handler(|| asked(false)).map_err(|e| Failure::failed(format!("cannot watch for Ctrl-C: {e}")))
}

/// Somebody asks to stop, or to end the process.
fn asked(terminates: bool) {
    TERMINATED.fetch_or(terminates, Ordering::SeqCst);
    match MODE.load(Ordering::SeqCst) {
        AT_ONCE => exit(),
        _ if REQUESTED.swap(true, Ordering::SeqCst) => exit(),
        BY_ITSELF => {}
        // It may hang in a connection to a server that does not answer.
        _ => drop(thread::spawn(|| {
            thread::sleep(SOON);
            exit()
        })),
    }
}

/// From here on until the guard drops, work stops by itself when [`requested`] says so.
pub(crate) fn graceful() -> Graceful {
    MODE.store(BY_ITSELF, Ordering::SeqCst);
    Graceful(())
}

/// As [`graceful`], for downloads: since these may hang, the process ends a moment later in any case.
pub(crate) fn graceful_for_a_moment() -> Graceful {
    MODE.store(WITHIN_A_MOMENT, Ordering::SeqCst);
    Graceful(())
}

impl Drop for Graceful {
    fn drop(&mut self) {
        MODE.store(AT_ONCE, Ordering::SeqCst);
    }
}

fn exit() {
    status::leave();
    terminal::restore();
    process::exit(i32::from(INTERRUPTED));
}

/// Whether the user asked to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// The flag that an interrupt sets, for code that takes a flag instead of calling [`requested`].
pub(crate) fn flag() -> &'static AtomicBool {
    &REQUESTED
}

/// Forgets that somebody asked to stop, where that was about one answer; false if the process is to end.
pub(crate) fn forgive() -> bool {
    let ends = TERMINATED.load(Ordering::SeqCst);
    if !ends {
        REQUESTED.store(false, Ordering::SeqCst);
    }
    !ends
}

/// An error if the user asked to stop.
pub(crate) fn check() -> Result<(), Failure> {
    if requested() { Err(Failure::Interrupted) } else { Ok(()) }
}
