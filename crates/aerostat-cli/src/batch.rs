//! `aerostat batch`: an OpenAI Batch file in, an OpenAI Batch file out, resumed by itself.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aerostat::{Engine, Options, Plan, Progress, Stats, size};
use aerostat_jobs::disk::System;
use aerostat_jobs::{
    Counts, ErrorKind, Job, JobOptions, JobPaths, JobProgress, Named, Setting, Survey, Watcher, files_digest,
};
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::options::{EngineArgs, MODEL_HELP, NEW_TOKENS_DEFAULT};
use crate::output::{OutputArgs, tell};
use crate::status::StatusLine;
use crate::watch::Watch;
use crate::{apart, interrupt, model, output};

/// The time between two lines of progress on stderr where it is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// The time between two drawings of the status line on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    #[arg(short, long, help = MODEL_HELP)]
    model: String,
    /// The batch file: JSON lines, also .gz or .zst; `-` reads stdin.
    #[arg(short, long, value_name = "IN.jsonl")]
    input: PathBuf,
    /// Where results go; packed if it ends in .gz or .zst.
    #[arg(short, long, value_name = "OUT.jsonl")]
    output: PathBuf,
    /// Where failed requests go; beside the output unless given.
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Take what vLLM takes and OpenAI refuses: temperatures above 2, and fields that are not known, which are ignored and
    /// named in the result under aerostat.ignored.
    #[arg(long)]
    lenient: bool,
    /// Begin anew and overwrite what is there.
    #[arg(long)]
    restart: bool,
    /// Try failed requests again.
    #[arg(long)]
    retry_errors: bool,
    /// Read and check the whole input, say how long it would take, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: for a disk that yields so much, such as 3.5GB/s.
    #[arg(long, value_name = "RATE", requires = "dry_run", value_parser = crate::size::parse_rate)]
    disk: Option<u64>,
    /// Tokens of a chat's answer at most, where the request does not say.
    #[arg(long, value_name = "N", default_value_t = NEW_TOKENS_DEFAULT)]
    max_new_tokens: usize,
    /// What the seeds of requests without one are made from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    output: &'a Path,
    errors: &'a Path,
    total: u64,
    done: u64,
    failed: u64,
    stats: Option<Stats>,
}

pub(crate) fn execute(args: &BatchArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let job_options = JobOptions {
        context: args.engine.context(),
        max_new_tokens: args.max_new_tokens,
        seed: args.seed,
        lenient: args.lenient,
        engine: aerostat::result_identity(&options),
        restart: args.restart,
        retry_errors: args.retry_errors,
    };
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::drafting(options, &args.engine, &files, output)?;
    let options = model::keeping(options, &args.engine, &files, false)?;
    files.sampling_notes().iter().for_each(|text| output::note(output, text));
    let setting = Setting::new(&files, &args.model, &job_options)?;
    let _graceful = interrupt::graceful();
    let paths = args.paths(files.path(), output)?;
    let signs = Signs::new(output);
    if args.dry_run {
        let options = Options { read_bytes_per_second: args.disk.map(|rate| rate as f64), ..options };
        return dry_run(args, &files, &options, &paths, setting, &signs, output);
    }
    let digest = files_digest(&files)?;
    let job = Job::open(Box::new(System), paths.clone(), setting, &digest, &job_options, &signs);
    let job = job.map_err(|e| args.failure(&e))?;
    signs.clear();
    opened(&job, output);
    let (mut stats, untold) = (None, job.untold());
    let mut counts = job.counts();
    if counts.left() > 0 {
        let mut watch = Watch::new(output, false);
        let mut engine = Engine::open(&files, &options, &job.need(), &mut watch)?;
        watch.finish()?;
        drop(watch);
        output::opened(output, &engine.stats());
        let ended = job.run(&mut engine, &signs);
        signs.clear();
        stats = Some(engine.stats());
        counts = ended.map_err(|e| args.failure(&e))?;
    }
    if output.json {
        let Counts { total, done, failed } = counts;
        let (to, errors) = (&*paths.output, &*paths.errors);
        output::json(&Report {
            model: &args.model,
            output: to,
            errors,
            total,
            done,
            failed,
            stats: stats.clone(),
        })?;
    }
    if let Some(stats) = &stats {
        output::summary(output, stats);
    }
    finish(&counts, untold, &paths, output)
}

/// Tells the user how a job that ran to its end went; an error if some of its requests failed.
fn finish(counts: &Counts, untold: u64, paths: &JobPaths, output: &OutputArgs) -> Result<(), Failure> {
    if counts.failed > 0 {
        let all = if untold > 0 {
            format!(" but for {untold} bad lines, of which it is too large")
        } else {
            String::new()
        };
        let message = format!(
            "{} of {} requests failed; they are in {}{all} (--retry-errors tries those again that failed while they ran)",
            counts.failed,
            counts.total,
            paths.errors.display()
        );
        return Err(Failure::Partly(message));
    }
    output::note(output, &format!("{} results in {}", counts.done, paths.output.display()));
    Ok(())
}

fn opened(job: &Job, output: &OutputArgs) {
    let counts = job.counts();
    let verb = if job.resumed() { "going on with" } else { "beginning" };
    let failed = if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() };
    let message = format!(
        "{verb} {}: {} of {} requests done{failed}, {} left with {} tokens at most",
        job.paths().output.display(),
        counts.done,
        counts.total,
        counts.left(),
        job.lengths().total
    );
    output::note(output, &message);
}

impl BatchArgs {
    /// Paths of the job's files. An input that comes through a pipe is copied to a file first.
    fn paths(&self, model: &Path, output: &OutputArgs) -> Result<JobPaths, Failure> {
        let mut paths = JobPaths::beside(&self.input, &self.output);
        if let Some(errors) = &self.errors {
            paths.errors.clone_from(errors);
        }
        let copy = JobPaths::copy_of_input(&self.output);
        let spooled = [
            Named::new("a copy of the input", &copy),
            Named::new("its draft", copy.with_added_extension("part")),
        ];
        let piped = self.input == Path::new("-") || aerostat_jobs::is_pipe(&self.input);
        paths.check(&apart::read(model, self.engine.adapter()), if piped { &spooled } else { &[] })?;
        if self.input == Path::new("-") {
            if io::stdin().is_terminal() {
                output::note(output, "reading requests from the terminal; end them with Ctrl-D");
            }
            aerostat_jobs::keep_input(io::stdin().lock(), &copy, self.restart)?;
            paths.input = copy;
        } else if piped {
            aerostat_jobs::keep_pipe(&self.input, &copy, self.restart)?;
            paths.input = copy;
        }
        Ok(paths)
    }

    /// A job's error as a failure of this command; an interrupted job tells how it goes on.
    fn failure(&self, error: &aerostat_jobs::Error) -> Failure {
        if error.kind() == ErrorKind::Interrupted {
            tell!("{error}; the same command goes on with {}", self.output.display());
            return Failure::Interrupted;
        }
        Failure::from(error)
    }
}

fn dry_run(
    args: &BatchArgs,
    files: &aerostat::ModelFiles,
    options: &Options,
    paths: &JobPaths,
    setting: Setting,
    signs: &Signs<'_>,
    output: &OutputArgs,
) -> Result<(), Failure> {
    let survey = aerostat_jobs::survey(&paths.input, setting, signs).map_err(|e| args.failure(&e))?;
    signs.clear();
    let plan = Engine::plan(files, options, &survey.need())?;
    let (sweeps, seconds) = survey.forecast(&plan);
    if output.json {
        return output::json(&Dry { plan: &plan, survey: &survey, sweeps, seconds });
    }
    for (line, message) in &survey.first_errors {
        tell!("line {line}: {message}");
    }
    let Survey { counts, lengths, .. } = &survey;
    let text = format!(
        "{plan}\n{} requests, {} of them bad\n{} tokens in prompts, {} in answers at most, {} in the longest sequence\n\
         {sweeps:.0} sweeps at most, {} at {} a sweep\n",
        counts.total,
        counts.failed,
        lengths.prompts,
        lengths.total - lengths.prompts,
        lengths.longest,
        duration(seconds),
        size(plan.streamed_bytes_per_sweep),
    );
    Ok(output::text(&text)?)
}

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct Dry<'a> {
    plan: &'a Plan,
    #[serde(flatten)]
    survey: &'a Survey,
    sweeps: f64,
    seconds: f64,
}

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
struct Signs<'a> {
    output: &'a OutputArgs,
    line: RefCell<StatusLine>,
    last: Cell<Option<Instant>>,
    told: Cell<Option<JobProgress>>,
}

impl<'a> Signs<'a> {
    fn new(output: &'a OutputArgs) -> Self {
        Self {
            output,
            line: RefCell::new(StatusLine::new(output)),
            last: Cell::default(),
            told: Cell::default(),
        }
    }

    fn clear(&self) {
        self.line.borrow_mut().clear();
    }

    /// Whether enough time has passed since the last drawing or line; if so, the clock begins anew.
    fn due(&self) -> bool {
        let every = if self.line.borrow().enabled() { DRAW_EVERY } else { LOG_EVERY };
        let due = self.last.get().is_none_or(|last| last.elapsed() >= every);
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
            self.show(&format!("reading the input: {lines} requests"));
        }
    }

    fn progress(&self, progress: &JobProgress) {
        self.told.set(Some(*progress));
        let last = progress.counts.left() == 0;
        if self.due() || (last && !self.line.borrow().enabled()) {
            self.show(&line(progress));
        }
    }

    fn sweeping(&self, _progress: &Progress) {
        if self.line.borrow().enabled()
            && let Some(progress) = self.told.get()
            && self.due()
        {
            self.show(&line(&progress));
        }
    }

    fn stops(&self) -> bool {
        interrupt::requested()
    }
}

fn line(p: &JobProgress) -> String {
    let failed = if p.counts.failed > 0 { format!(" ({} failed)", p.counts.failed) } else { String::new() };
    let left = p.seconds_left.map_or_else(String::new, |s| format!("  {} left", duration(s)));
    format!(
        "{}/{}{failed}  {} tokens  {:.1} tokens/s  {:.2} GB/s  {:.0} rows/sweep{left}",
        p.counts.done + p.counts.failed,
        p.counts.total,
        p.tokens,
        p.tokens_per_second,
        p.read_bytes_per_second / 1e9,
        p.rows_per_sweep,
    )
}

impl From<aerostat_jobs::Error> for Failure {
    fn from(e: aerostat_jobs::Error) -> Self {
        (&e).into()
    }
}

impl From<&aerostat_jobs::Error> for Failure {
    fn from(e: &aerostat_jobs::Error) -> Self {
        match e.kind() {
            ErrorKind::Usage => Self::Usage(e.to_string()),
            ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Failed(e.to_string()),
        }
    }
}
