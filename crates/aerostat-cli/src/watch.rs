//! What watches a run: the status line, text as it comes, and Ctrl-C.

use std::io::{self, IsTerminal};

use aerostat::{Observer, Plan, Progress};

use crate::failure::Failure;
use crate::interrupt;
use crate::output::{self, OutputArgs};
use crate::status::{Pace, StatusLine};

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
    failed: Option<io::Error>,
}

impl<'a> Watch<'a> {
    /// Begins to watch; `streams` says that text goes to stdout as it comes.
    pub(crate) fn new(output: &'a OutputArgs, streams: bool) -> Self {
        let line = StatusLine::new(output);
        Self { output, line, pace: Pace::default(), streams, unfinished: false, failed: None }
    }

    /// Ends the text on stdout with a line end, takes the status line away, and says whether stdout took it all.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.end_line();
        match self.failed.take() {
            Some(e) => Err(e.into()),
            None => Ok(()),
        }
    }

    fn print(&mut self, text: &str) {
        self.line.clear();
        if self.failed.is_none() {
            self.failed = output::text(text).err();
        }
        self.unfinished = !text.ends_with('\n');
        self.line.below_text = self.unfinished && io::stdout().is_terminal();
    }

    fn end_line(&mut self) {
        self.line.clear();
        if self.unfinished {
            self.print("\n");
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
        interrupt::requested() || self.failed.is_some()
    }

    fn text(&mut self, _index: usize, text: &str) {
        if self.streams {
            self.print(text);
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
