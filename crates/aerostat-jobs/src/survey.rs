//! What a job would be, without beginning it.

use std::io::Read;
use std::path::Path;

use aerostat::{Need, Plan};
use aerostat_openai::Setting;
use serde::Serialize;

use crate::batch_file::BatchFile;
use crate::counts::{Counts, Kinds, Lengths, lengths};
use crate::database::LineRow;
use crate::error::{Error, ErrorKind};
use crate::forecast::{Endings, Left, forecast, pace};
use crate::input;
use crate::job::now;
use crate::options::Shard;
use crate::requests::{Requests, Unserved, Verdict, check_all};
use crate::watch::Watcher;

/// Bad lines that are named.
const NAMED_MAX: usize = 20;

/// What the lines of an input ask for.
#[derive(Debug, Serialize)]
pub struct Survey {
    /// Lines; those that cannot be served count as failed.
    pub counts: Counts,
    /// Sequences and tokens of the lines that can be served.
    pub lengths: Lengths,
    /// The first lines that cannot be served, at most twenty: the line's number, counted from 1, and what is wrong with
    /// it.
    pub first_errors: Vec<(u64, String)>,
    #[serde(skip)]
    rows: Vec<LineRow>,
    #[serde(skip)]
    need: Need,
}

impl Survey {
    /// What an engine must have room for, so that all of it is done together.
    pub fn need(&self) -> Need {
        self.need
    }

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

/// Sweeps and seconds that a job of so many requests takes with a plan, each of a prompt and an answer of so many tokens.
pub fn forecast_alike(plan: &Plan, requests: usize, prompt: usize, answer: usize) -> (f64, f64) {
    let seconds = |rows, logit_rows| plan.cost.seconds(rows, logit_rows);
    let left = std::iter::repeat_n(Left { prompt, answer, positions: prompt + answer }, requests);
    let forecast = forecast(left, Endings::default(), &pace(plan, &seconds));
    (forecast.sweeps, forecast.seconds)
}

/// Reads and checks a whole input without writing anything.
///
/// # Errors
/// [`ErrorKind::Input`] if it cannot be read, [`ErrorKind::Interrupted`] if the watcher asks to stop.
pub fn survey(input: &Path, setting: Setting, shard: Shard, watcher: &dyn Watcher) -> Result<Survey, Error> {
    survey_of(&mut BatchFile::new(input, setting, shard), watcher)
}

/// The same for whatever a job may work through.
pub(crate) fn survey_of(requests: &mut dyn Requests, watcher: &dyn Watcher) -> Result<Survey, Error> {
    requests.begun(now());
    let mut kinds = Kinds::default();
    let mut survey = Survey {
        counts: Counts::default(),
        lengths: Lengths::default(),
        first_errors: Vec::new(),
        rows: Vec::new(),
        need: Need::none(),
    };
    check_all(requests, watcher, |number, verdict, _| {
        survey.counts.total += 1;
        match verdict {
            Verdict::Good(row, asked) => {
                survey.rows.push(row);
                kinds = kinds.and(asked);
            }
            Verdict::Bad(Unserved { refusal, .. }) => {
                survey.counts.failed += 1;
                if survey.first_errors.len() < NAMED_MAX {
                    survey.first_errors.push((number + 1, refusal.message().to_owned()));
                }
            }
        }
        Ok(())
    })?;
    survey.lengths = lengths(survey.rows.iter());
    survey.need = requests.need(&mut survey.rows.iter().copied(), kinds);
    Ok(survey)
}

/// Keeps a copy of an input that comes once, such as stdin; an empty input stands for the copy that is there.
///
/// # Errors
/// [`ErrorKind::Changed`] if a copy with other contents is there and not to be replaced; [`ErrorKind::Input`].
pub fn keep_input(pipe: impl Read, copy: &Path, replace: bool) -> Result<(), Error> {
    input::spool(pipe, copy, replace)
}

/// Keeps a copy of an input that comes through a named pipe, as [`keep_input`] does.
///
/// # Errors
/// As [`keep_input`].
pub fn keep_pipe(path: &Path, copy: &Path, replace: bool) -> Result<(), Error> {
    if is_device(path) {
        let message = format!("{} is a device, not a file or a pipe", path.display());
        return Err(Error::new(ErrorKind::Input, message));
    }
    let pipe = std::fs::File::open(path).map_err(|e| Error::file(ErrorKind::Input, "read", path, &e))?;
    input::spool(pipe, copy, replace)
}

/// Whether what lies at a path is a device that is no terminal.
fn is_device(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::io::IsTerminal as _;
        use std::os::unix::fs::FileTypeExt as _;

        let Ok(kind) = std::fs::metadata(path).map(|data| data.file_type()) else { return false };
        let is_terminal = || std::fs::File::open(path).is_ok_and(|file| file.is_terminal());
        kind.is_block_device() || kind.is_char_device() && !is_terminal()
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Whether what lies at a path can be read once only: a pipe or a device.
pub fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir())
}
