//! What watches a run: the status line, text as it comes, and Ctrl-C.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use aerostat::{Observer, Plan, Progress};
use aerostat_openai::{Piece, Split, Splitter};
use unicode_width::UnicodeWidthChar;

use crate::failure::Failure;
use crate::interrupt;
use crate::output::{self, OutputArgs};
use crate::status::{Pace, StatusLine};
use crate::terminal;

/// How long a sweep under way may go on after Ctrl-C where it is worth something to end between two.
const PATIENCE: Duration = Duration::from_secs(2);

/// The observer of a run: draws the status line, prints text as it comes, and passes on a wish to stop.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    output: &'a OutputArgs,
    line: StatusLine,
    pace: Pace,
    /// Whether text goes to stdout as it comes.
    streams: bool,
    /// Whether the last text on stdout has no line end.
    unfinished: bool,
    /// Columns of that line on the terminal, which begins anew at its right edge.
    column: usize,
    failed: Option<io::Error>,
    /// Where thoughts are told from what is said: they are dimmed.
    thoughts: Option<Splitter>,
    /// The last text was a thought.
    thought: bool,
    /// Sweeps under way are waited for, as long as somebody has the patience.
    patient: bool,
    asked: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// Begins to watch; `streams` says that text goes to stdout as it comes.
    pub(crate) fn new(output: &'a OutputArgs, streams: bool) -> Self {
        let line = StatusLine::new(output);
        Self {
            output,
            line,
            pace: Pace::default(),
            streams,
            unfinished: false,
            column: 0,
            failed: None,
            thoughts: None,
            thought: false,
            patient: false,
            asked: None,
        }
    }

    /// Dims thoughts where stdout is a terminal. Anything else gets the text as the model wrote it.
    pub(crate) fn dimming(mut self, split: Option<Split>) -> Self {
        self.thoughts = split.filter(|_| self.streams && terminal::dims()).map(Split::splitter);
        self
    }

    /// Gives a sweep under way some time to end after Ctrl-C: something else ends the run then, with nothing half done.
    pub(crate) fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Ends the text on stdout with a line end, takes the status line away, and says whether stdout took it all.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if let Some(mut thoughts) = self.thoughts.take() {
            self.pieces(thoughts.finish());
        }
        self.end_line();
        match self.failed.take() {
            Some(e) => Err(e.into()),
            None => Ok(()),
        }
    }

    fn pieces(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Thoughts(text) => {
                    self.thought = true;
                    self.print(&text, true);
                }
                Piece::Content(text) => {
                    if std::mem::take(&mut self.thought) {
                        self.print("\n\n", false);
                    }
                    self.print(&text, false);
                }
                // None are looked for.
                Piece::Call(..) | Piece::Arguments(..) => {}
            }
        }
    }

    fn print(&mut self, text: &str, dim: bool) {
        self.line.clear();
        if self.failed.is_none() {
            self.failed = match dim {
                true => output::text(&format!("\x1b[2m{text}\x1b[22m")).err(),
                false => output::text(text).err(),
            };
        }
        self.unfinished = !text.ends_with('\n');
        self.line.below_text = self.unfinished && io::stdout().is_terminal();
        if self.line.below_text
            && self.line.enabled()
            && let Some(columns) = terminal::columns()
        {
            self.column = text.chars().fold(self.column, |column, c| after(column, c, columns));
            self.line.at_edge = self.column + 1 >= columns;
        } else {
            self.column = 0;
        }
    }

    fn end_line(&mut self) {
        self.line.clear();
        if self.unfinished {
            self.print("\n", false);
        }
    }
}

/// Where the cursor of a terminal of so many columns is after a character; at the right edge it waits.
fn after(column: usize, c: char, columns: usize) -> usize {
    const TAB: usize = 8;
    match c {
        '\n' | '\r' => 0,
        '\t' => ((column / TAB + 1) * TAB).min(columns.saturating_sub(1)),
        c => {
            let width = c.width().unwrap_or(0);
            if column + width > columns { width } else { column + width }
        }
    }
}

impl Observer for Watch<'_> {
    fn planned(&mut self, plan: &Plan) {
        output::plan(self.output, plan);
    }

    fn progress(&mut self, progress: &Progress) -> bool {
        if self.line.enabled()
            && let Some(line) = self.pace.line(progress)
        {
            self.line.draw(&line);
        }
        let asked = interrupt::requested().then(|| *self.asked.get_or_insert_with(Instant::now));
        asked.is_some_and(|asked| !self.patient || asked.elapsed() > PATIENCE) || self.failed.is_some()
    }

    fn text(&mut self, _index: usize, text: &str) {
        if !self.streams {
            return;
        }
        match self.thoughts.as_mut().map(|thoughts| thoughts.push(text)) {
            Some(pieces) => self.pieces(pieces),
            None => self.print(text, false),
        }
    }

    fn note(&mut self, text: &str) {
        self.end_line();
        output::note(self.output, text);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A status line that was drawn while the cursor waited at the edge took the character there away.
    #[test]
    fn the_edge_of_a_terminal_is_known() {
        let end = |text: &str| text.chars().fold(0, |column, c| after(column, c, 10));
        for (text, column) in [
            ("", 0),
            ("0123456789", 10),
            ("0123456789a", 1),
            ("01234\n0", 1),
            ("漢字漢字漢", 10),
            ("0漢字漢字漢", 2),
            ("e\u{301}", 1),
            ("a\tb", 9),
        ] {
            assert_eq!(end(text), column, "{text:?}");
        }
    }
}
