//! Signs of life of a job on stderr, and the wish to stop it.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::path::Path;
use std::time::{Duration, Instant};

use aerostat::Progress;
use aerostat_jobs::{JobProgress, Watcher};

use crate::interrupt;
use crate::output::{OutputArgs, tell};
use crate::size::token_rate;
use crate::status::StatusLine;

/// Rows that are told of where they fail; of those behind them no more than that there are some.
const FAILED_TOLD_MAX: usize = 100;
/// The time between two lines of progress on stderr where it is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// The time between two drawings of the status line on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// A duration for people: hours and minutes, minutes and seconds, or seconds.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e12) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

/// Shows the progress of a job on stderr: on a terminal a line that is drawn over, else a line now and then.
pub(crate) struct Signs<'a> {
    output: &'a OutputArgs,
    /// The table whose rows are told of where they fail; requests of a batch are not.
    table: Option<&'a Path>,
    /// Rows that failed so far.
    failed: Cell<usize>,
    line: RefCell<StatusLine>,
    begun: Instant,
    last: Cell<Option<Instant>>,
    told: Cell<Option<JobProgress>>,
}

impl<'a> Signs<'a> {
    pub(crate) fn new(output: &'a OutputArgs, table: Option<&'a Path>) -> Self {
        Self {
            output,
            table,
            failed: Cell::default(),
            line: RefCell::new(StatusLine::new(output)),
            begun: Instant::now(),
            last: Cell::default(),
            told: Cell::default(),
        }
    }

    pub(crate) fn clear(&self) {
        self.line.borrow_mut().clear();
    }

    fn every(&self) -> Duration {
        if self.line.borrow().enabled() { DRAW_EVERY } else { LOG_EVERY }
    }

    /// Whether enough time has passed since the last drawing or line; if so, the clock begins anew.
    fn due(&self) -> bool {
        let due = self.last.get().is_none_or(|last| last.elapsed() >= self.every());
        if due {
            self.last.set(Some(Instant::now()));
        }
        due
    }

    fn show(&self, line: &str) {
        if self.line.borrow().enabled() {
            self.line.borrow_mut().draw(line);
        } else if !self.output.quiet {
            tell!("{line}");
        }
    }
}

impl Watcher for Signs<'_> {
    fn validating(&self, lines: u64) {
        if self.line.borrow().enabled() && self.due() {
            let what = if self.table.is_some() { "rows" } else { "requests" };
            self.show(&format!("reading the input: {lines} {what}"));
        }
    }

    fn progress(&self, progress: &JobProgress) {
        self.told.set(Some(*progress));
        let last = progress.counts.left() == 0;
        if self.due() || (last && !self.line.borrow().enabled()) {
            self.show(&line(progress));
        }
    }

    fn sweeping(&self, progress: &Progress) {
        if self.last.get().unwrap_or(self.begun).elapsed() >= self.every() {
            self.last.set(Some(Instant::now()));
            self.show(&sweep_line(self.told.get().as_ref(), progress));
        }
    }

    fn failed(&self, line: Option<&str>, message: &str) {
        let Some(table) = self.table else { return };
        let count = self.failed.get() + 1;
        self.failed.set(count);
        match count.cmp(&FAILED_TOLD_MAX) {
            Ordering::Less => {
                self.clear();
                tell!("error: {}:{}: {message}", table.display(), line.unwrap_or("?"));
            }
            Ordering::Equal => {
                self.clear();
                tell!("error: more rows failed, which are not told of here");
            }
            Ordering::Greater => {}
        }
    }

    fn stops(&self) -> bool {
        interrupt::requested()
    }
}

fn line(p: &JobProgress) -> String {
    let failed = if p.counts.failed > 0 { format!(" ({} failed)", p.counts.failed) } else { String::new() };
    let left = p.seconds_left.map_or_else(String::new, |s| format!("  {} left", duration(s)));
    let settled = p.counts.done + p.counts.failed;
    let rate = match p.tokens {
        // Nothing is generated where texts are scored or embedded.
        0 => String::new(),
        tokens => format!("  {tokens} tokens  {}", token_rate(p.tokens_per_second)),
    };
    format!(
        "{settled}/{}{failed}{rate}  {:.2} GB/s  {:.0} rows/sweep{left}",
        p.counts.total,
        p.read_bytes_per_second / 1e9,
        p.rows_per_sweep,
    )
}

/// The same while a sweep is under way, which may take minutes: before the first has ended nothing else is known.
fn sweep_line(told: Option<&JobProgress>, sweep: &Progress) -> String {
    let at = format!("in block {} of {}", sweep.block + 1, sweep.blocks.max(sweep.block + 1));
    match told {
        Some(told) => format!("{}  {at}", line(told)),
        None => format!("the first sweep is {at}"),
    }
}

#[cfg(test)]
mod tests {
    use aerostat::{Phase, Totals};

    use super::*;

    /// Off a terminal nothing was once told before a sweep ended, however long it took.
    #[test]
    fn a_long_sweep_tells_where_it_is() {
        let sweep = Progress {
            phase: Phase::Prefill,
            sweep: 1,
            block: 11,
            blocks: 81,
            tile: 3,
            tiles: 900,
            rows: 8,
            read_bytes: 0,
            tokens: 0,
            tokens_left: 0,
            totals: Totals::default(),
            elapsed: Duration::ZERO,
        };
        assert_eq!(sweep_line(None, &sweep), "the first sweep is in block 12 of 81");
    }
}
