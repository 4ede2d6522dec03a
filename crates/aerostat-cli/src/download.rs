//! How a download goes: a bar on a terminal, a line every tenth otherwise.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aerostat::{Download, size};

use crate::output::{self, OutputArgs, tell};
use crate::status::StatusLine;

const INTERVAL: Duration = Duration::from_millis(100);
const BAR_CHARS: u64 = 24;

/// Shows the progress of a download on stderr.
#[derive(Debug)]
pub(crate) struct Bar<'a> {
    output: &'a OutputArgs,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    line: StatusLine,
    begun: Instant,
    drawn: Instant,
    total: u64,
    present: u64,
    done: u64,
    /// Tenths of the download that were printed so far; used where stderr is no terminal.
    tenths: u64,
}

impl<'a> Bar<'a> {
    pub(crate) fn new(output: &'a OutputArgs) -> Self {
        let now = Instant::now();
        let line = StatusLine::new(output);
        let state = State { line, begun: now, drawn: now, total: 0, present: 0, done: 0, tenths: 0 };
        Self { output, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Download for Bar<'_> {
    fn started(&self, files: usize, bytes_total: u64, bytes_present: u64) {
        let mut state = self.state();
        state.line.clear();
        (state.total, state.present, state.done) = (bytes_total, bytes_present, bytes_present);
        state.tenths = tenths(bytes_present, bytes_total);
        state.begun = Instant::now();
        if bytes_present < bytes_total && !self.output.quiet {
            let (total, present) = (size(bytes_total), size(bytes_present));
            let files = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
            tell!("downloading {files}, {total} ({present} here already)");
        }
    }

    fn advanced(&self, bytes: u64) {
        let mut state = self.state();
        state.done += bytes;
        let tenths = tenths(state.done, state.total);
        if state.line.enabled() {
            if state.drawn.elapsed() >= INTERVAL {
                state.drawn = Instant::now();
                let line = state.bar();
                state.line.draw(&line);
            }
        } else if tenths > state.tenths && !self.output.quiet {
            state.tenths = tenths;
            tell!("{} % of {}", tenths * 10, size(state.total));
        }
    }

    fn note(&self, text: &str) {
        self.state().line.clear();
        output::note(self.output, text);
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.state().line.clear();
    }
}

impl State {
    fn bar(&self) -> String {
        let full = BAR_CHARS * self.done.min(self.total) / self.total.max(1);
        let bar = "#".repeat(full as usize) + &".".repeat((BAR_CHARS - full) as usize);
        let rate = (self.done - self.present) as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
        let left = if rate > 0.0 { self.total.saturating_sub(self.done) as f64 / rate } else { 0.0 };
        let (done, total) = (size(self.done), size(self.total));
        format!("[{bar}] {done} of {total}  {:.1} MB/s  {:.0} s left", rate / 1e6, left)
    }
}

fn tenths(done: u64, total: u64) -> u64 {
    (u128::from(done.min(total)) * 10 / u128::from(total.max(1))) as u64
}
