//! How many lines there are, and how long.

use serde::Serialize;

use crate::database::LineRow;

/// How many lines of the input are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All lines.
    pub total: u64,
    /// Lines with a result in the output.
    pub done: u64,
    /// Lines in the error file.
    pub failed: u64,
}

impl Counts {
    /// Lines that are neither done nor failed.
    pub fn left(&self) -> u64 {
        self.total - self.done - self.failed
    }
}

/// What the engine must have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Sequences that are left.
    pub sequences: usize,
    /// Tokens of the longest sequence at most, prompt and answer.
    pub longest: usize,
    /// Tokens of all sequences together at most, prompts and answers.
    pub total: usize,
    /// Tokens of the prompts of all sequences together.
    pub prompts: usize,
}

pub(crate) fn lengths<'a>(rows: impl Iterator<Item = &'a LineRow>) -> Lengths {
    rows.fold(Lengths::default(), |sum, row| Lengths {
        sequences: sum.sequences + row.parts as usize,
        longest: sum.longest.max(row.longest as usize),
        total: sum.total + row.prompt as usize + row.parts as usize * row.answer as usize,
        prompts: sum.prompts + row.prompt as usize,
    })
}
