//! What a job would be, without beginning it.

use std::io::Read;
use std::path::Path;

use aerostat::Plan;
use serde::Serialize;

use crate::database::LineRow;
use crate::forecast::{Endings, Left, forecast};
use crate::job::{Counts, Lengths, lengths, now};
use crate::request::Setting;
use crate::runner::pace;
use crate::validate::{LazyGrammars, Verdict, validate};
use crate::{Error, ErrorKind, Watcher, input};

/// Bad lines that are named.
const NAMED_MAX: usize = 20;

/// What the lines of an input ask for.
#[derive(Debug, Serialize)]
pub struct Survey {
    /// Lines, and how many of them are bad.
    pub counts: Counts,
    /// Tokens.
    pub lengths: Lengths,
    /// The first bad lines, counted from 1, and what is wrong with them.
    pub first_errors: Vec<(u64, String)>,
    #[serde(skip)]
    rows: Vec<LineRow>,
}

impl Survey {
    /// Sweeps and seconds that the job takes at most, if no answer ends early.
    pub fn forecast(&self, plan: &Plan) -> (f64, f64) {
        let seconds = |rows, logit_rows| plan.cost.seconds(rows, logit_rows);
        let left = self.rows.iter().flat_map(|row| {
            let parts = row.parts.max(1) as usize;
            let left = Left {
                prompt: row.prompt as usize / parts,
                answer: row.answer as usize,
                positions: row.longest as usize,
            };
            std::iter::repeat_n(left, parts)
        });
        let forecast = forecast(left, Endings::default(), &pace(plan, &seconds));
        (forecast.sweeps, forecast.seconds)
    }
}

/// Reads and checks a whole input.
///
/// # Errors
/// [`ErrorKind::Input`] if it cannot be read, [`ErrorKind::Interrupted`] if the watcher asks to stop.
pub fn survey(input: &Path, mut setting: Setting, watcher: &dyn Watcher) -> Result<Survey, Error> {
    setting.stop_clock(now());
    let mut survey = Survey {
        counts: Counts::default(),
        lengths: Lengths::default(),
        first_errors: Vec::new(),
        rows: Vec::new(),
    };
    let mut grammars = LazyGrammars::default();
    validate(input, &setting, &mut grammars, watcher, |verdict| {
        survey.counts.total += 1;
        match verdict {
            Verdict::Good(row) => survey.rows.push(row),
            Verdict::Bad { number, refusal, .. } => {
                survey.counts.failed += 1;
                if survey.first_errors.len() < NAMED_MAX {
                    survey.first_errors.push((number + 1, refusal.message));
                }
            }
        }
        Ok(())
    })?;
    survey.lengths = lengths(survey.rows.iter());
    Ok(survey)
}

/// Keeps a copy of an input that comes once; an empty one stands for the copy that is there.
///
/// # Errors
/// [`ErrorKind::Changed`] if a copy with other contents is there and not to be replaced; [`ErrorKind::Input`].
pub fn keep_input(pipe: impl Read, copy: &Path, replace: bool) -> Result<(), Error> {
    input::spool(pipe, copy, replace)
}

/// The same from a named pipe.
///
/// # Errors
/// As [`keep_input`].
pub fn keep_pipe(path: &Path, copy: &Path, replace: bool) -> Result<(), Error> {
    let pipe = std::fs::File::open(path).map_err(|e| Error::file(ErrorKind::Input, "read", path, &e))?;
    input::spool(pipe, copy, replace)
}

/// Whether something can be read once only.
pub fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir())
}
