//! A job: begun, taken up again, and what is left of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aerostat::Need;
use aerostat_openai::Setting;
use serde::Deserialize;

use crate::batch_file::BatchFile;
use crate::counts::{Counts, Kinds, Lengths, lengths};
use crate::database::{Batch, Database, LineRow, State};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind};
use crate::input;
use crate::line;
use crate::options::{JobOptions, JobPaths, sibling};
use crate::output::Appender;
use crate::requests::{Requests, Verdict, check_all};
use crate::watch::Watcher;

/// Error lines are written when this much of them is there.
const ERROR_BYTES_HELD: usize = 1 << 20;

/// Errors of bad lines are written up to about this size: a small packed file can hold millions of bad lines.
const ERROR_BYTES_MAX: usize = 64 << 20;

/// A fact about a job that works through a table, and one whose results have been put together.
pub(crate) const TABLE: &str = "table";
pub(crate) const ASSEMBLED: &str = "assembled";
/// How many bytes they have there.
pub(crate) const ASSEMBLED_BYTES: &str = "assembled_bytes";

/// The state of a job of which nothing is left to do.
pub(crate) const FINISHED: &str = "finished";

/// What a job was begun with, and how it is to be taken up.
pub(crate) struct Begun {
    /// The file that results are appended to.
    pub(crate) appended: PathBuf,
    /// By what name the model was called.
    pub(crate) model: String,
    pub(crate) model_digest: String,
    /// What of the options changes results.
    pub(crate) words: String,
    pub(crate) table: bool,
    pub(crate) restart: bool,
    pub(crate) retry_errors: bool,
}

/// A job that is open for work: its files are this process's alone.
pub struct Job {
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) paths: JobPaths,
    pub(crate) requests: Box<dyn Requests>,
    pub(crate) database: Database,
    pub(crate) output: Appender,
    pub(crate) errors: Appender,
    /// All good lines and those that failed, by number.
    pub(crate) rows: Vec<LineRow>,
    /// When it was begun, in seconds since 1970.
    pub(crate) created: u64,
    kinds: Kinds,
    /// Bad lines that the error file has no room for.
    untold: u64,
    resumed: bool,
}

impl Job {
    /// Begins a job, or takes it up where it was left.
    ///
    /// `model_digest` is [`crate::model_digest`]'s.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], [`ErrorKind::Changed`], [`ErrorKind::Input`], [`ErrorKind::Disk`],
    /// [`ErrorKind::Database`]; [`ErrorKind::Interrupted`] if the watcher asks to stop.
    pub fn open(
        disk: Box<dyn Disk>,
        paths: JobPaths,
        setting: Setting,
        model_digest: &str,
        options: &JobOptions,
        watcher: &dyn Watcher,
    ) -> Result<Self, Error> {
        paths.check(&[], &[])?;
        let begun = Begun {
            appended: paths.output.clone(),
            model: setting.model().to_owned(),
            model_digest: model_digest.to_owned(),
            words: options.words(),
            table: false,
            restart: options.restart,
            retry_errors: options.retry_errors,
        };
        let requests = Box::new(BatchFile::new(&paths.input, setting, options.shard));
        Self::open_with(disk, paths, requests, begun, watcher)
    }

    /// The same for whatever a job may work through. One that is refused leaves no empty files.
    pub(crate) fn open_with(
        disk: Box<dyn Disk>,
        paths: JobPaths,
        requests: Box<dyn Requests>,
        begun: Begun,
        watcher: &dyn Watcher,
    ) -> Result<Self, Error> {
        let files = [begun.appended.clone(), paths.errors.clone()];
        let absent = files.into_iter().filter(|path| !path.exists()).collect::<Vec<_>>();
        Self::opened(disk, paths, requests, begun, watcher).inspect_err(|_| {
            let empty = |path: &&PathBuf| path.metadata().is_ok_and(|meta| meta.len() == 0);
            // What cannot be removed is as harmless as before.
            absent.iter().filter(empty).map(fs::remove_file).for_each(drop);
        })
    }

    fn opened(
        disk: Box<dyn Disk>,
        paths: JobPaths,
        requests: Box<dyn Requests>,
        begun: Begun,
        watcher: &dyn Watcher,
    ) -> Result<Self, Error> {
        let digest = input::digest(&paths.input)?;
        let mut output = Appender::open(&*disk, &begun.appended)?;
        let mut errors = Appender::open(&*disk, &paths.errors)?;
        let path = paths.database();
        if begun.restart {
            remove(&path)?;
            output.cut(0)?;
            errors.cut(0)?;
        }
        let is_new = !path.exists();
        if is_new && output.size()? + errors.size()? > 0 {
            return Err(taken(&paths, output.size()? > 0));
        }
        let database = Database::open(&path)?;
        let identity = [
            ("input", paths.input.display().to_string(), false),
            ("input_digest", digest, true),
            ("model", begun.model.clone(), false),
            ("model_digest", begun.model_digest.clone(), true),
            ("options", begun.words.clone(), true),
            ("errors", paths.errors.display().to_string(), false),
        ];
        let state = database.fact("state")?;
        let validated = !matches!(state.as_deref(), None | Some("validating"));
        // Before its input is checked a job has no results; errors it has only while it checks.
        if !validated && output.size()? > 0 || state.is_none() && errors.size()? > 0 {
            return Err(unknown(&begun.appended, &path));
        }
        let mut job = Self {
            disk,
            paths,
            requests,
            database,
            output,
            errors,
            rows: Vec::new(),
            created: 0,
            kinds: Kinds::default(),
            untold: 0,
            resumed: validated,
        };
        if validated {
            job.check_identity(&identity)?;
            job.created = job.database.must_number("created")?;
            job.requests.begun(job.created);
            job.take_up(begun.retry_errors)?;
        } else {
            job.begin(&identity, begun.table, watcher)?;
        }
        if job.counts().left() == 0 {
            // Nobody will run it: all lines are bad, or the last result was there when it was killed.
            job.database.set(&*job.disk, &[("state", FINISHED.to_owned())])?;
        }
        Ok(job)
    }

    fn begin(
        &mut self,
        identity: &[(&'static str, String, bool)],
        table: bool,
        watcher: &dyn Watcher,
    ) -> Result<(), Error> {
        self.created = now();
        let mut facts: Vec<(&'static str, String)> =
            identity.iter().map(|(key, value, _)| (*key, value.clone())).collect();
        facts.extend([("created", self.created.to_string()), ("state", "validating".to_owned())]);
        facts.extend(table.then(|| (TABLE, "1".to_owned())));
        self.database.set(&*self.disk, &facts)?;
        // What an earlier attempt at this left.
        self.output.cut(0)?;
        self.errors.cut(0)?;
        self.requests.begun(self.created);
        let Self { database, errors, rows, requests, disk, kinds, untold, .. } = self;
        let new = database.begin()?;
        let (mut held, mut told) = (0, 0);
        check_all(&mut **requests, watcher, |number, verdict, requests| {
            let row = match verdict {
                Verdict::Good(row, asked) => {
                    *kinds = kinds.and(asked);
                    row
                }
                Verdict::Bad(_) if told > ERROR_BYTES_MAX => {
                    *untold += 1;
                    LineRow::bad(number)
                }
                Verdict::Bad(unserved) => {
                    watcher.failed(unserved.name.as_deref(), unserved.refusal.message());
                    let line = requests.failure(number, &unserved);
                    held += line.len();
                    told += line.len();
                    errors.push(line.as_bytes())?;
                    if held > ERROR_BYTES_HELD {
                        errors.commit()?;
                        held = 0;
                    }
                    LineRow::bad(number)
                }
            };
            new.add(&row)?;
            rows.push(row);
            Ok(())
        })?;
        let bytes = errors.commit()?;
        let facts = [
            ("state", "running".to_owned()),
            ("errors_bytes", bytes.to_string()),
            ("bad_bytes", bytes.to_string()),
            ("output_bytes", "0".to_owned()),
            ("kinds", kinds.words()),
            ("untold", untold.to_string()),
            ("lines", rows.len().to_string()),
        ];
        new.commit(&**disk, &facts)
    }

    /// Refuses to go on with something else.
    fn check_identity(&self, identity: &[(&'static str, String, bool)]) -> Result<(), Error> {
        for (key, value, binding) in identity {
            let was = self.database.must_fact(key)?;
            if !binding || was == *value {
                continue;
            }
            let what = match *key {
                "input_digest" => {
                    format!("the input {} is not what this job was begun with", self.paths.input.display())
                }
                "model_digest" => "the model is not the one that this job was begun with".to_owned(),
                _ => format!("the options ({value}) are not those that this job was begun with ({was})"),
            };
            let message = format!("{what}; --restart begins anew and gives up what is done");
            return Err(Error::new(ErrorKind::Changed, message));
        }
        Ok(())
    }

    /// Brings files and database together after a stop of any kind.
    fn take_up(&mut self, retry_errors: bool) -> Result<(), Error> {
        self.kinds = Kinds::of_words(self.database.fact("kinds")?.as_deref());
        self.untold = self.database.number("untold")?.unwrap_or(0);
        let rows = &mut self.rows;
        self.database.lines(|row| rows.push(row))?;
        // Results that were not counted yet are known by their lines, and cut where there are none.
        if self.database.number("lines")?.is_some_and(|lines| lines != rows.len() as u64) {
            return Err(unknown(&self.paths.output, &self.paths.database()));
        }
        let interrupted_retry = self.database.number("retrying")?.is_some_and(|n| n > 0);
        let retries = retry_errors || interrupted_retry;
        // Of a table whose results are where they belong nothing else need be there.
        if self.is_assembled()? && !(retries && self.rows.iter().any(|r| r.state == State::Failed)) {
            return Ok(());
        }
        let (rows, counted) = (&self.rows, self.database.must_number("output_bytes")?);
        let left = self.output.recover(counted, |lines| {
            // A line that counts and is not among those that were counted would be lost, and so would somebody else's.
            let keeps = |line: &Vec<u8>| match row_of(rows, line) {
                Some((index, _)) => rows[index].state == State::Done,
                None => serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok(),
            };
            match lines.iter().any(keeps) {
                true => Err(unknown(&self.paths.output, &self.paths.database())),
                false => Ok(()),
            }
        })?;
        self.adopt(left, State::Done)?;
        if retries {
            self.database.set(&*self.disk, &[(ASSEMBLED, "0".to_owned())])?;
            return self.retry();
        }
        let left = self.errors.recover(self.database.must_number("errors_bytes")?, |_| Ok(()))?;
        self.adopt(left, State::Failed)
    }

    /// Counts lines that were written but not counted yet. They are written again, since a line that can be read is not
    /// always on the disk: after a failed fsync it is in memory only.
    fn adopt(&mut self, lines: Vec<Vec<u8>>, state: State) -> Result<(), Error> {
        let mut batch = Batch::default();
        let file = if state == State::Done { &mut self.output } else { &mut self.errors };
        for line in lines {
            // What follows a hole is no result.
            let Some((index, head)) = row_of(&self.rows, &line) else { break };
            let row = &mut self.rows[index];
            if row.state == State::ToDo {
                row.state = state;
                row.generated = head.generated();
                batch.settled.push((row.number, state, row.generated));
                file.push(&line)?;
            }
        }
        let key = if state == State::Done { "output_bytes" } else { "errors_bytes" };
        batch.facts.push((key, file.commit()?.to_string()));
        self.database.commit(&*self.disk, &batch)
    }

    /// Puts lines that failed when they were run back among those to do; what a crash interrupts here is repeated by the next start.
    fn retry(&mut self) -> Result<(), Error> {
        self.database.set(&*self.disk, &[("retrying", "1".to_owned())])?;
        self.errors.cut(self.database.must_number("bad_bytes")?)?;
        self.database.retry_failed(&*self.disk)?;
        self.rows.iter_mut().filter(|r| r.state == State::Failed).for_each(|r| r.state = State::ToDo);
        Ok(())
    }

    /// What is known of a line.
    pub(crate) fn row(&self, number: u64) -> Option<&LineRow> {
        self.rows.binary_search_by_key(&number, |r| r.number).ok().and_then(|i| self.rows.get(i))
    }

    /// The same, to be changed.
    pub(crate) fn row_mut(&mut self, number: u64) -> Option<&mut LineRow> {
        self.rows.binary_search_by_key(&number, |r| r.number).ok().and_then(|i| self.rows.get_mut(i))
    }

    /// Whether this is a table whose results have been put together.
    pub(crate) fn is_assembled(&self) -> Result<bool, Error> {
        Ok(self.database.number(ASSEMBLED)? == Some(1))
    }

    /// Where the job's files are.
    pub fn paths(&self) -> &JobPaths {
        &self.paths
    }

    /// Bad lines that are counted as failed and not in the error file, since that is large enough to tell of them.
    pub fn untold(&self) -> u64 {
        self.untold
    }

    /// Gives a job up that could not be run: if it began now, its files go, as if it had never been begun. What was wrong with
    /// its input is told again by the next, which may have more memory for it.
    pub fn forget(self) {
        let Self { paths, output, errors, database, resumed, .. } = self;
        if resumed || output.size().map_or(true, |bytes| bytes > 0) {
            return;
        }
        drop(database);
        // Those files are this process's until the end. What cannot be removed is found by the next that is begun here.
        if remove(&paths.database()).is_ok() {
            [output.path(), errors.path()].map(fs::remove_file).into_iter().for_each(drop);
        }
    }

    /// Whether the job goes on from an earlier run.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// How many lines of the input are done, failed and left.
    pub fn counts(&self) -> Counts {
        let count = |state| self.rows.iter().filter(|r| r.state == state).count() as u64;
        let failed = count(State::Failed) + count(State::Bad);
        Counts { total: self.rows.len() as u64, done: count(State::Done), failed }
    }

    /// What an engine must have room for, so that all that is left is done together.
    pub fn need(&self) -> Need {
        let mut rows = self.rows.iter().filter(|r| r.state == State::ToDo).copied();
        self.requests.need(&mut rows, self.kinds)
    }

    /// What is left to do, in sequences and tokens.
    pub fn lengths(&self) -> Lengths {
        lengths(self.rows.iter().filter(|r| r.state == State::ToDo))
    }
}

impl LineRow {
    pub(crate) fn bad(number: u64) -> Self {
        Self {
            number,
            state: State::Bad,
            parts: 1,
            prompt: 0,
            answer: 0,
            longest: 0,
            generated: 0,
            mark: [0; 3],
        }
    }
}

/// The row of a line that was written, by its place, and what the line says.
fn row_of(rows: &[LineRow], line: &[u8]) -> Option<(usize, Written)> {
    let head: Written = serde_json::from_slice(line).ok()?;
    let number = line::number(&head.id)?;
    Some((rows.binary_search_by_key(&number, |row| row.number).ok()?, head))
}

/// What must be known of a line that was written.
#[derive(Deserialize)]
struct Written {
    id: String,
    #[serde(default)]
    response: serde_json::Value,
}

impl Written {
    fn generated(&self) -> u32 {
        let tokens = self.response.pointer("/body/usage/completion_tokens");
        tokens.and_then(serde_json::Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }
}

/// Removes a database with its log.
fn remove(path: &Path) -> Result<(), Error> {
    for path in [path.to_owned(), sibling(path, "-wal"), sibling(path, "-shm")] {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file(ErrorKind::Disk, "remove", &path, &e));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

/// There is something where a new job is to write: results, or else failures.
pub(crate) fn taken(paths: &JobPaths, results: bool) -> Error {
    let (path, what) = match results {
        true => (&paths.output, "belongs to no job; name another output"),
        false => (&paths.errors, "tells of failures of another job; name another error file with --errors"),
    };
    let message = format!("{} is not empty and {what}, or --restart to overwrite it", path.display());
    Error::new(ErrorKind::Changed, message)
}

/// What is told where an output holds results and its database none.
fn unknown(output: &Path, database: &Path) -> Error {
    let message = format!(
        "{} is not empty, and the job's database {} knows nothing of it, or not all: was it copied without its -wal, or emptied? Put it \
         back, name another output, or --restart to overwrite the results",
        output.display(),
        database.display()
    );
    Error::new(ErrorKind::Changed, message)
}
