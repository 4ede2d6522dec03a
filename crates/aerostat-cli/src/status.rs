//! The status line: one line on a terminal that is drawn over.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aerostat::{Phase, Progress};

use crate::output::OutputArgs;
use crate::size::token_rate;
use crate::terminal;

/// The time between two drawings of the status line.
const INTERVAL: Duration = Duration::from_millis(100);
/// Rates are those since the last mark, and marks are at least this far apart.
const WINDOW: Duration = Duration::from_secs(3);

/// A line on stderr that comes and goes; nothing where stderr is no terminal or the user wants quiet.
#[derive(Debug)]
pub(crate) struct StatusLine {
    enabled: bool,
    shown: bool,
    /// Unfinished text is on the screen: the line goes below it, and the cursor stays at its end.
    pub(crate) below_text: bool,
    /// That text has come to the right edge: there the terminal waits with its next line, and would forget that it does.
    pub(crate) at_edge: bool,
}

/// A line is on the screen.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Leaves a line of its own for what a shell writes when the process ends at once.
pub(crate) fn leave() {
    if SHOWN.swap(false, Ordering::SeqCst) {
        write("\n\r\x1b[J");
    }
}

impl StatusLine {
    pub(crate) fn new(output: &OutputArgs) -> Self {
        let enabled = !output.quiet && io::stderr().is_terminal() && !terminal::is_plain();
        Self { enabled, shown: false, below_text: false, at_edge: false }
    }

    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn draw(&mut self, line: &str) {
        if !self.enabled || self.below_text && self.at_edge {
            return;
        }
        // The terminal itself cuts what does not fit its width: it is told not to wrap.
        let line = format!("\x1b[?7l{line}\x1b[K\x1b[?7h");
        let text = if self.below_text {
            // Make room below, save the cursor, write there, come back.
            format!("\x1bD\x1b[A\x1b7\x1b[B\r{line}\x1b8")
        } else {
            format!("\r{line}")
        };
        self.shown = true;
        SHOWN.store(true, Ordering::SeqCst);
        write(&text);
    }

    /// Takes the line off the screen.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            SHOWN.store(false, Ordering::SeqCst);
            write(if self.below_text { "\x1b[J" } else { "\r\x1b[K" });
        }
    }
}

/// Writes to stderr and ignores errors: a terminal that went away is no reason to stop.
fn write(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Turns progress into lines, ten a second at most.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    drawn: Option<Duration>,
    /// The mark that rates are counted from, and the later one that will take its place.
    marks: Option<[Mark; 2]>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    phase: Phase,
    read_bytes: u64,
    tokens: u64,
    tile: usize,
}

impl Pace {
    /// The line to draw now, if it is time for one.
    pub(crate) fn line(&mut self, p: &Progress) -> Option<String> {
        if self.drawn.is_some_and(|drawn| p.elapsed < drawn + INTERVAL) {
            return None;
        }
        self.drawn = Some(p.elapsed);
        let since = self.since(p);
        let seconds = (p.elapsed - since.at).as_secs_f64();
        let rate = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let tokens = rate(p.tokens.saturating_sub(since.tokens));
        let tiles = rate(p.tile.saturating_sub(since.tile) as u64);
        let read = rate(p.read_bytes.saturating_sub(since.read_bytes)) / 1e9;
        let mut parts = match p.phase {
            Phase::Loading => vec![format!("loading {} of {} tiles", p.tile, p.tiles)],
            Phase::Prefill => vec![place("prefill", p)],
            Phase::Decode => vec![place("decode", p)],
            Phase::Score => vec![place("score", p)],
        };
        parts.push(format!("{read:.2} GB/s"));
        if p.phase == Phase::Loading {
            parts.extend(left((p.tiles - p.tile.min(p.tiles)) as f64, tiles));
        } else {
            parts.push(token_rate(tokens));
            parts.extend(left(p.tokens_left as f64, tokens));
        }
        Some(parts.join("  "))
    }

    /// The mark that rates are counted from: between one and two windows ago, in the same phase.
    fn since(&mut self, p: &Progress) -> Mark {
        let now =
            Mark { at: p.elapsed, phase: p.phase, read_bytes: p.read_bytes, tokens: p.tokens, tile: p.tile };
        let [old, new] = self.marks.filter(|[old, _]| same(old.phase, p.phase)).unwrap_or([now; 2]);
        // A slow run needs a longer window: rates stay those since the last mark with a token in between.
        let moved = p.tokens > new.tokens || p.phase == Phase::Loading;
        let marks = if moved && p.elapsed >= new.at + WINDOW { [new, now] } else { [old, new] };
        self.marks = Some(marks);
        marks[0]
    }
}

/// Whether rates may be counted over both phases. Prompts are read and answers written in turns; only loading stands apart.
fn same(a: Phase, b: Phase) -> bool {
    (a == Phase::Loading) == (b == Phase::Loading)
}

fn place(name: &str, p: &Progress) -> String {
    let block = (p.block + 1).min(p.blocks);
    format!("{name}  sweep {}  block {block}/{}  {} rows", p.sweep, p.blocks, p.rows)
}

/// The time left, if it can be told. Answers may end early, so it is an upper bound.
fn left(units: f64, per_second: f64) -> Option<String> {
    // While the last tokens are computed nothing can be told.
    if per_second <= 0.0 || units <= 0.0 {
        return None;
    }
    let seconds = (units / per_second).min(1e9) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(match hours {
        0 => format!("≤ {minutes}:{seconds:02} left"),
        _ => format!("≤ {hours}:{minutes:02}:{seconds:02} left"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(phase: Phase, millis: u64, tokens: u64, tile: usize) -> Progress {
        Progress {
            phase,
            sweep: 3,
            block: 1,
            blocks: 4,
            tile,
            tiles: 20,
            rows: 2,
            read_bytes: millis * 1_500_000,
            tokens,
            tokens_left: 90,
            totals: aerostat::Totals::default(),
            elapsed: Duration::from_millis(millis),
        }
    }

    #[test]
    fn lines_are_throttled_and_tell_rates_and_time_left() {
        let mut pace = Pace::default();
        assert!(pace.line(&progress(Phase::Loading, 0, 0, 0)).is_some());
        assert_eq!(pace.line(&progress(Phase::Loading, 50, 0, 1)), None);
        let loading = pace.line(&progress(Phase::Loading, 2000, 0, 10));
        assert_eq!(loading.as_deref(), Some("loading 10 of 20 tiles  1.50 GB/s  ≤ 0:02 left"));
        let first = pace.line(&progress(Phase::Decode, 3000, 0, 1));
        assert_eq!(first.as_deref(), Some("decode  sweep 3  block 2/4  2 rows  0.00 GB/s  0 tokens/s"));
        let decode = pace.line(&progress(Phase::Decode, 5000, 1, 5));
        let want = "decode  sweep 3  block 2/4  2 rows  1.50 GB/s  2.0 s a token  ≤ 3:00 left";
        assert_eq!(decode.as_deref(), Some(want));
    }
}
