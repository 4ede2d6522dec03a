//! `aerostat batch`: an OpenAI Batch file in, an OpenAI Batch file out, resumed by itself.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use aerostat::{Engine, Options, Stats};
use aerostat_jobs::disk::System;
use aerostat_jobs::{Counts, ErrorKind, Job, JobOptions, JobPaths, Named, Setting, Shard, files_digest};
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::{EngineArgs, MODEL_HELP, NEW_TOKENS_DEFAULT};
use crate::output::{OutputArgs, tell};
use crate::signs::Signs;
use crate::watch::Watch;
use crate::{apart, dry, interrupt, output, shard};

#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    #[arg(short, long, help = MODEL_HELP)]
    model: ModelName,
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
    /// Work through every N-th line alone, those whose number, counted from 0, leaves the rest I: N machines share a file
    /// so, and `aerostat merge` puts their outputs together. `auto` takes I and N from the environment of a Slurm array or an
    /// indexed job of Kubernetes (with AEROSTAT_SHARDS).
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
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
    #[serde(serialize_with = "output::path")]
    output: &'a Path,
    #[serde(serialize_with = "output::path")]
    errors: &'a Path,
    total: u64,
    done: u64,
    failed: u64,
    stats: Option<Stats>,
}

pub(crate) fn execute(args: &BatchArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::of_model(options, &args.engine, &files);
    let job_options = JobOptions {
        context: args.engine.context(),
        max_new_tokens: args.max_new_tokens,
        seed: args.seed,
        lenient: args.lenient,
        engine: aerostat::result_identity(&options),
        restart: args.restart,
        retry_errors: args.retry_errors,
        shard: args.shard()?,
    };
    let options = model::drafting(options, &args.engine, &files, output)?;
    let options = model::keeping(options, &args.engine, &files, false)?;
    files.sampling_notes().iter().for_each(|text| output::note(output, text));
    let setting = Setting::new(&files, &args.model, &job_options)?;
    let setting = match options.memory_bytes {
        Some(bytes) => setting.within(bytes),
        None => setting,
    };
    let _graceful = interrupt::graceful();
    let paths = args.paths(files.path(), output)?;
    let signs = Signs::new(output, None);
    if args.dry_run {
        let options = Options { read_bytes_per_second: args.disk.map(|rate| rate as f64), ..options };
        return dry_run(args, &files, &options, &paths, (setting, job_options.shard), &signs, output);
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
        let mut engine = match Engine::open(&files, &options, &job.need(), &mut watch) {
            Ok(engine) => engine,
            Err(error) => return Err(Failure::from(error).before(job)),
        };
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
    /// The lines that are worked through.
    fn shard(&self) -> Result<Shard, Failure> {
        match self.shard.as_deref() {
            None => Ok(Shard::default()),
            Some("auto") => shard::of_environment(),
            Some(text) => text.parse().map_err(|why| Failure::usage(format!("--shard: {why}"))),
        }
    }

    /// Paths of the job's files. An input that comes through a pipe is copied to a file first.
    fn paths(&self, model: &Path, output: &OutputArgs) -> Result<JobPaths, Failure> {
        if self.output == Path::new("-") {
            return Err(Failure::usage("-o -: results of a batch need a file, which a job can go on with"));
        }
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
        paths.check(&apart::read(model, &self.engine), if piped { &spooled } else { &[] })?;
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
    (setting, shard): (Setting, Shard),
    signs: &Signs<'_>,
    output: &OutputArgs,
) -> Result<(), Failure> {
    let survey = aerostat_jobs::survey(&paths.input, setting, shard, signs).map_err(|e| args.failure(&e))?;
    signs.clear();
    let mut need = survey.need();
    need.hold_results(dry::JOB_BYTES);
    let plan = Engine::plan(files, options, &need)?;
    if !output.json {
        for (line, message) in &survey.first_errors {
            tell!("line {line}: {message}");
        }
    }
    let lengths = &survey.lengths;
    let answers = lengths.total - lengths.prompts;
    let tokens = format!("{} tokens in prompts, {answers} in answers at most", lengths.prompts);
    dry::tell(&plan, &survey, "requests", &tokens, output)
}
