//! A table as a job: its files, its rows as the job reads them, and its results put where they belong.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, process};

use aerostat::{Engine, Outcome, Request, Stats, Tokenizer};
use aerostat_jobs::disk::System;
use aerostat_jobs::{
    Counts, ErrorKind, Job, JobPaths, Named, RowTask, Table, TableOptions, TableResults, files_digest,
    survey_table,
};
use serde::Serialize;

use crate::encode::{Chat, Encoder};
use crate::failure::Failure;
use crate::fit::Fit;
use crate::output::tell;
use crate::prompts::Prompt;
use crate::signs::Signs;
use crate::table::{Format, Making, Rows, TableArgs};
use crate::tasks::{Setup, Sink, Task};
use crate::watch::Watch;
use crate::{apart, dry, interrupt, output};

/// The fact of a job that holds what its task prepared.
const PREPARED: &str = "prepared";

/// What `--json` prints about a table.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    input: &'a Path,
    output: Option<&'a Path>,
    rows: u64,
    failed: u64,
    /// The file that tells of rows that failed, if some did.
    errors: Option<&'a Path>,
    stats: Option<Stats>,
}

/// Where the files of a table's job are.
struct Place {
    paths: JobPaths,
    /// A folder for the time of the run, where results go to stdout.
    folder: Option<PathBuf>,
}

impl Place {
    fn new(input: &Path, args: &TableArgs) -> Result<Self, Failure> {
        if let Some(output) = args.file() {
            let mut paths = JobPaths::of_table(input, output);
            if let Some(errors) = &args.errors {
                paths.errors.clone_from(errors);
            }
            return Ok(Self { paths, folder: None });
        }
        let folder = env::temp_dir().join(format!("aerostat-{}", process::id()));
        let failed = |e: io::Error| {
            Failure::failed(format!("cannot make a folder for results, {}: {e}", folder.display()))
        };
        fs::create_dir(&folder).map_err(failed)?;
        Ok(Self { paths: JobPaths::of_table(input, &folder.join("stdout")), folder: Some(folder) })
    }

    /// Takes the input as it lies there; what comes once is copied first.
    fn take_input(&mut self, args: &TableArgs) -> Result<(), Failure> {
        let stdin = self.paths.input == Path::new("-");
        if !stdin && !aerostat_jobs::is_pipe(&self.paths.input) {
            return Ok(());
        }
        let copy = JobPaths::copy_of_input(&self.paths.output);
        match stdin {
            true if io::stdin().is_terminal() => {
                return Err(Failure::usage("-i -: nothing is piped into stdin"));
            }
            true => aerostat_jobs::keep_input(io::stdin().lock(), &copy, args.restart)?,
            false => aerostat_jobs::keep_pipe(&self.paths.input, &copy, args.restart)?,
        }
        self.paths.input = copy;
        Ok(())
    }

    /// Takes the copy of an input away that no job was begun with: the next one would be compared with it.
    fn forget_input(&self, input: &Path) {
        if self.paths.input != *input && !self.paths.database().exists() {
            // What stays is named by the command that finds it.
            let _ = fs::remove_file(&self.paths.input);
        }
    }

    /// What is written beside the output and the error file.
    fn written(&self) -> Vec<Named> {
        let copy = JobPaths::copy_of_input(&self.paths.output);
        let mut written = vec![
            Named::new("the results so far", self.paths.rows()),
            Named::new("a copy of the input", &copy),
            Named::new("its draft", copy.with_added_extension("part")),
        ];
        written.extend(apart::drafts(&self.paths.output));
        written
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // It is of no use to anybody.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A task as its job sees it.
struct OfRows<T> {
    task: Arc<T>,
    tokenizer: Option<Arc<Tokenizer>>,
    chat: Option<Chat>,
    context: usize,
    vocab: usize,
}

impl<T: Task> OfRows<T> {
    /// What is wrong with a sequence.
    fn check(&self, tokens: &[u32]) -> Result<(), String> {
        if tokens.is_empty() {
            return Err("the text is empty: it has no tokens".to_owned());
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= self.vocab) {
            return Err(format!("token id {id} is outside the vocabulary of {}", self.vocab));
        }
        let answer = aerostat_openai::AnswerTokens::Exactly(self.task.new_tokens());
        aerostat_openai::answer_tokens(self.context, tokens.len(), answer)
            .map(drop)
            .map_err(|e| format!("{} tokens do not fit a context of {}; see --context", e.needed, e.context))
    }
}

impl<T: Task> RowTask for OfRows<T> {
    fn requests(&self, prompt: &Prompt) -> Result<Vec<Request>, String> {
        let encoder = Encoder::plain(self.tokenizer.as_deref()).within(self.context);
        let encoder = encoder.through(self.chat.clone());
        let item = self.task.item(&encoder, prompt).map_err(Failure::message)?;
        let requests = self.task.requests(&item);
        requests.iter().try_for_each(|request| self.check(&request.token_ids))?;
        Ok(requests)
    }

    fn generates(&self) -> Option<usize> {
        Some(self.task.new_tokens()).filter(|tokens| *tokens > 0)
    }

    fn then(&self, token_ids: &[u32], answer: &[u32]) -> Option<Request> {
        self.task.then(token_ids, answer)
    }

    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>> {
        self.task.pack(outcome)
    }

    fn need(&self, tokens: usize, need: &mut aerostat::Need) {
        self.task.need(tokens, need);
    }

    fn result_bytes(&self, tokens: usize) -> usize {
        self.task.result_bytes(tokens)
    }
}

impl Setup<'_> {
    /// Runs the task on a table, durably: given again, the same command goes on where it was stopped.
    pub(crate) fn table<T: Task, S: Sink<T::Found>>(
        &self,
        task: T,
        input: &Path,
        args: &TableArgs,
        sink: impl FnOnce(&T) -> Result<S, Failure>,
    ) -> Result<(), Failure> {
        let mut place = Place::new(input, args)?;
        apart::table(&place.paths, args.file(), &place.written(), &self.read)?;
        let _graceful = interrupt::graceful();
        place.take_input(args)?;
        let (paths, task) = (&place.paths, Arc::new(task));
        let shown = if input == Path::new("-") { Path::new("stdin") } else { input };
        let signs = Signs::new(self.output, Some(shown));
        let table = self.of_rows(&task, &paths.input, args).inspect_err(|_| place.forget_input(input))?;
        if args.dry_run {
            return self.dry_run(table, args, &signs);
        }
        let options = TableOptions {
            model: self.name.to_owned(),
            model_digest: files_digest(&self.files)?,
            words: format!("{}; {}; {}", task.words(), args.words(), self.words()),
            restart: args.restart,
            retry_errors: args.retry_errors,
        };
        let job = Job::open_table(Box::new(System), paths.clone(), table, options, &signs);
        let mut job = job.map_err(|e| interrupted(e, args))?;
        signs.clear();
        self.tell_opened(&job, args);
        let (mut counts, assembled) = (job.counts(), job.assembled()?);
        let mut stats = None;
        if counts.left() > 0 {
            let mut engine = match self.engine(&*task, &mut job, args) {
                Ok(engine) => engine,
                Err(failure) => {
                    let failure = failure.before(job);
                    place.forget_input(input);
                    return Err(failure);
                }
            };
            let ended = job.run(&mut engine, &signs);
            signs.clear();
            stats = Some(engine.stats());
            counts = ended.map_err(|e| interrupted(e, args))?;
        } else {
            if let Some(text) = job.noted(PREPARED)? {
                task.prepared(&text)?;
            }
            job.leave()?;
        }
        if !assembled || stats.is_some() {
            // Prompts are made as before, though nobody reads them: of the columns that there are.
            let making = Making { template: self.template.clone(), fit: None, chat: self.chat.is_some() };
            let rows = Rows::open(&paths.input, args, making, self.options.memory_bytes);
            rows.and_then(|rows| assemble(&*task, paths, rows, counts, sink(&task)?))
                .map_err(|failure| told(failure, args))?;
        }
        self.report(input, args, paths, &counts, stats)
    }

    /// The engine with room for what is left, and what the task needs of it before.
    fn engine<T: Task>(&self, task: &T, job: &mut Job, args: &TableArgs) -> Result<Engine, Failure> {
        let mut need = job.need();
        need.hold_results(written_bytes(args));
        task.need_before(&mut need);
        let mut watch = Watch::new(self.output, false);
        let mut engine = Engine::open(&self.files, &self.options, &need, &mut watch)?;
        output::opened(self.output, &engine.stats());
        let prepared = match job.noted(PREPARED)? {
            Some(text) => Some(text),
            None => task.prepare(&mut engine, &mut watch)?,
        };
        watch.finish()?;
        if let Some(text) = prepared {
            task.prepared(&text)?;
            job.note(PREPARED, text)?;
        }
        Ok(engine)
    }

    fn of_rows<T: Task>(&self, task: &Arc<T>, input: &Path, args: &TableArgs) -> Result<Table, Failure> {
        let of_rows = OfRows {
            task: Arc::clone(task),
            tokenizer: self.tokenizer.clone(),
            chat: self.chat.clone(),
            context: self.context,
            vocab: self.files.spec().vocab,
        };
        let fit = args.truncate.map(|truncate| {
            let room = self.context.saturating_sub(task.tokens_after());
            Arc::new(Fit { truncate, room, tokenizer: self.tokenizer.clone(), chat: self.chat.clone() })
        });
        let making = Making { template: self.template.clone(), fit, chat: self.chat.is_some() };
        let rows = Box::new(Rows::open(input, args, making, self.options.memory_bytes)?);
        let memory_bytes = self.options.memory_bytes;
        Ok(Table { rows, task: Arc::new(of_rows), tokenizer: self.tokenizer.clone(), memory_bytes })
    }

    fn dry_run(&self, table: Table, args: &TableArgs, signs: &Signs<'_>) -> Result<(), Failure> {
        let survey = survey_table(table, signs)?;
        signs.clear();
        let mut need = survey.need();
        need.hold_results(dry::JOB_BYTES + written_bytes(args));
        let plan = Engine::plan(&self.files, &self.options, &need)?;
        let tokens = format!("{} tokens", survey.lengths.total);
        dry::tell(&plan, &survey, "rows", &tokens, self.output)
    }

    fn tell_opened(&self, job: &Job, args: &TableArgs) {
        if let (true, Some(file)) = (job.resumed(), args.file()) {
            let Counts { total, done, failed } = job.counts();
            let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            let message = format!("going on with {}: {done} of {total} rows done{failed}", file.display());
            output::note(self.output, &message);
        }
    }

    /// Tells the user how it went; an error if some rows failed.
    fn report(
        &self,
        input: &Path,
        args: &TableArgs,
        paths: &JobPaths,
        counts: &Counts,
        stats: Option<Stats>,
    ) -> Result<(), Failure> {
        let Counts { total, done, failed } = *counts;
        let errors = Some(&*paths.errors).filter(|_| failed > 0 && args.file().is_some());
        if self.output.json {
            output::json(&Report {
                model: self.name,
                input,
                output: args.file(),
                rows: total,
                failed,
                errors,
                stats: stats.clone(),
            })?;
        }
        if let Some(stats) = stats {
            output::summary(self.output, &stats);
        }
        if let Some(file) = args.file() {
            output::note(self.output, &format!("{done} rows to {}", file.display()));
        }
        let there = errors.map_or_else(String::new, |errors| {
            let why = "--retry-errors tries those again that failed while they ran";
            format!("; they are in {} ({why})", errors.display())
        });
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Partly(format!("{failed} of {total} rows failed{there}"))),
        }
    }
}

/// What writing the results takes, beside those of a row.
fn written_bytes(args: &TableArgs) -> u64 {
    /// A group of rows, a column of it once more with its levels, packed pages, and what packs them.
    const GROUPS: u64 = 5 << 20;
    let parquet = args.file().is_some_and(|file| matches!(Format::of(file), Ok(Format::Parquet)));
    if parquet { GROUPS } else { 0 }
}

/// Puts the results of all rows where they belong, in the order of the table.
fn assemble<T: Task, S: Sink<T::Found>>(
    task: &T,
    paths: &JobPaths,
    mut rows: Rows,
    counts: Counts,
    mut sink: S,
) -> Result<(), Failure> {
    let mut results = TableResults::open(paths)?;
    let broken =
        || Failure::failed(format!("{}: cannot be read; --restart begins anew", paths.rows().display()));
    while let Some(row) = rows.next()? {
        interrupt::check()?;
        let parts = results.row(row.number)?;
        let found = parts.map(|parts| task.found(&parts).ok_or_else(broken)).transpose()?;
        sink.give(&row, found)?;
    }
    sink.finish()?;
    Ok(results.finish(counts.failed)?)
}

/// A job's error as a failure of this command; one that was interrupted tells how it goes on.
fn interrupted(error: aerostat_jobs::Error, args: &TableArgs) -> Failure {
    match error.kind() {
        ErrorKind::Interrupted => told(Failure::Interrupted, args),
        _ => Failure::from(error),
    }
}

/// Tells how a command goes on that was interrupted.
fn told(failure: Failure, args: &TableArgs) -> Failure {
    if let (Failure::Interrupted, Some(file)) = (&failure, args.file()) {
        tell!("everything so far is saved; the same command goes on with {}", file.display());
    } else if matches!(failure, Failure::Interrupted) {
        tell!(
            "nothing is kept of a table without an output: with -o FILE, the same command goes on where it was"
        );
    }
    failure
}
