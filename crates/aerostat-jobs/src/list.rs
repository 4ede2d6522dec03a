//! What jobs there are, and how far they are.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::database::{Database, State};
use crate::disk::is_locked;
use crate::error::{Error, ErrorKind};
use crate::job::{ASSEMBLED, TABLE};
use crate::options::{ROWS_ENDING, added};

/// A path as text, which it need not be.
fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// A job as its database tells.
#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    /// The file that its results go to.
    #[serde(serialize_with = "shown")]
    pub output: PathBuf,
    /// `running`, `validating`, `interrupted`, `stopped`, `finished`; a job that was killed is `interrupted`, and one whose
    /// database cannot be read `unreadable`.
    pub state: String,
    /// Why it stopped, if it did not finish, or why it cannot be read.
    pub reason: Option<String>,
    /// Lines of the input.
    pub total: u64,
    /// Lines with a result in the output.
    pub done: u64,
    /// Lines in the error file.
    pub failed: u64,
    /// Seconds that are left, by the last word of its process; `None` if nothing is left, or it has not said.
    pub seconds_left: Option<u64>,
    /// When it was begun, in seconds since 1970; 0 if it has not come so far.
    pub created: u64,
    /// When it last saved something, in seconds since 1970; 0 if it has not come so far.
    pub updated: u64,
    /// The model, as it was named when the job was begun.
    pub model: String,
    /// The batch file, as it was named when the job was begun.
    pub input: String,
}

impl JobStatus {
    /// Whether its input has been read, so that all of its lines are counted.
    pub fn is_counted(&self) -> bool {
        !matches!(self.state.as_str(), "validating" | "unreadable") && self.created > 0
    }
}

/// The jobs of a folder, or the job of an output.
///
/// # Errors
/// [`ErrorKind::Input`] if there is no such folder or job, [`ErrorKind::Database`] if it cannot be read.
pub fn list_jobs(path: &Path) -> Result<Vec<JobStatus>, Error> {
    if !path.is_dir() {
        let database =
            if path.extension().is_some_and(|e| e == "job") { path.to_owned() } else { added(path, "job") };
        if !database.exists() {
            let message =
                format!("{} is no folder, and there is no job {}", path.display(), database.display());
            return Err(Error::new(ErrorKind::Input, message));
        }
        return Ok(vec![status(&database)?]);
    }
    let entries = fs::read_dir(path).map_err(|e| Error::file(ErrorKind::Input, "list", path, &e))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "job") && p.is_file());
    found.sort();
    let jobs = found.iter().filter_map(|path| match status(path) {
        Ok(job) => Some(job),
        // What is not ours is passed over; what has an output beside it is.
        Err(error) => path.with_extension("").exists().then(|| unreadable(path, &error)),
    });
    Ok(jobs.collect())
}

/// A job whose database does not say how it stands.
fn unreadable(path: &Path, error: &Error) -> JobStatus {
    JobStatus {
        output: path.with_extension(""),
        state: "unreadable".to_owned(),
        reason: Some(error.to_string()),
        total: 0,
        done: 0,
        failed: 0,
        seconds_left: None,
        created: 0,
        updated: 0,
        model: String::new(),
        input: String::new(),
    }
}

fn status(path: &Path) -> Result<JobStatus, Error> {
    let database = Database::look(path)?;
    let output = path.with_extension("");
    let rows_of = added(&output, ROWS_ENDING);
    // A job that has just been begun has said nothing yet.
    let saved = database.fact("state")?.unwrap_or_else(|| "validating".to_owned());
    let (state, reason) = match saved.split_once(": ") {
        Some((state, reason)) => (state, Some(reason.to_owned())),
        None => (saved.as_str(), None),
    };
    // Who runs says so by having the output for itself, or of a table what becomes of it.
    let (table, assembled) = (database.number(TABLE)? == Some(1), database.number(ASSEMBLED)? == Some(1));
    let locked = is_locked(if table { &rows_of } else { &output });
    let state = match state {
        "running" | "validating" if !locked => "interrupted",
        // Its results are not where they belong yet.
        "finished" if table && !assembled => {
            if locked {
                "running"
            } else {
                "interrupted"
            }
        }
        state => state,
    };
    let (done, failed) =
        (database.count(State::Done)?, database.count(State::Failed)? + database.count(State::Bad)?);
    let total = done + failed + database.count(State::ToDo)?;
    let text = |key: &str| database.fact(key).map(|fact| fact.unwrap_or_else(String::new));
    let number = |key: &str| database.number(key).map(|number| number.unwrap_or(0));
    let left = number("seconds_left")?;
    Ok(JobStatus {
        state: state.to_owned(),
        reason,
        total,
        done,
        failed,
        seconds_left: (left > 0 && total > done + failed).then_some(left),
        created: number("created")?,
        updated: number("updated")?,
        model: text("model")?,
        input: text("input")?,
        output,
    })
}
