//! `aerostat bench speculate`: what guessing tokens brings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aerostat::bench::{self, SpeculatePoint};
use aerostat::{Draft, Message, Request};
use clap::{Args, value_parser};
use serde::{Deserialize, Serialize};

use crate::bench::report as bench_report;
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::{EngineArgs, GenerationArgs, MODEL_HELP};
use crate::output::{self, OutputArgs};
use crate::watch::Watch;
use crate::{interrupt, small_file};

/// The size of a file of prompts beyond which it is not read.
const PROMPTS_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct BenchSpeculateArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// Lines of JSON: {"prompt": TEXT} or {"messages": [...]}, each with a "task" that names its kind.
    #[arg(value_name = "PROMPTS")]
    prompts: PathBuf,
    /// Time answers without guesses over their first N tokens alone, and take their time for that of all; the rest of them, to
    /// compare with, is computed for eight prompts at a time. Good for large models, whose sweeps are alike.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    timed_tokens: Option<u32>,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// A line of the file of prompts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    task: String,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
}

/// Beside what every benchmark tells.
#[derive(Serialize)]
struct Results<'a> {
    draft: Option<&'a str>,
    points: &'a [SpeculatePoint],
    tasks: &'a [Task],
}

/// The prompts of one task together: medians, and the quartiles beside them.
#[derive(Debug, Serialize)]
struct Task {
    task: String,
    prompts: usize,
    /// Of them, answers that repeat themselves, which the numbers leave out.
    loops: usize,
    /// Tokens for each sweep, with guesses.
    tokens_per_sweep: [f64; 3],
    /// Seconds for each token without guesses over those with them.
    faster: [f64; 3],
    /// The same in sweeps.
    fewer_sweeps: [f64; 3],
    drafted: u64,
    accepted: u64,
}

pub(crate) fn execute(args: &BenchSpeculateArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::of_model(options, &args.engine, &files);
    let options = model::drafting(options, &args.engine, &files, output)?;
    let tokenizer = model::tokenizer(&files, true, output)?;
    let encoder = Encoder::new(&files, tokenizer.as_ref(), &args.generation, output)?;
    let generation = &args.generation;
    let end_tokens = if generation.ignore_eos { Vec::new() } else { files.end_tokens(tokenizer.as_ref()) };
    let mut requests = Vec::new();
    for (task, messages) in read(&args.prompts)? {
        let messages = [encoder.opening(), messages].concat();
        let request = Request {
            token_ids: encoder.messages(&messages)?,
            max_new_tokens: generation.max_new_tokens().unwrap_or(256),
            sampling: generation.sampling(files.sampling()),
            end_tokens: end_tokens.clone(),
            ..Request::default()
        };
        requests.push((task, request));
    }
    let _graceful = interrupt::graceful();
    let mut watch = Watch::new(output, false);
    let timed = args.timed_tokens.map(|n| n as usize);
    let points = bench::speculate(&files, &options, &requests, timed, &mut watch)?;
    watch.finish()?;
    let tasks = tasks(&points);
    if output.json {
        let found = match &options.draft {
            Draft::Model(small) => Some(small.path().to_string_lossy()),
            _ => None,
        };
        let draft = args.engine.draft_model().or(found.as_deref());
        let results = Results { draft, points: &points, tasks: &tasks };
        return bench_report(Some(&args.model), results);
    }
    let mut text = format!(
        "{:<16} {:>7} {:>6} {:>18} {:>18} {:>18} {:>8} {:>8}\n",
        "task", "prompts", "loops", "tokens a sweep", "fewer sweeps", "faster", "guessed", "right"
    );
    let three = |[low, middle, high]: [f64; 3]| format!("{middle:.2} ({low:.2}-{high:.2})");
    for task in &tasks {
        text += &format!(
            "{:<16} {:>7} {:>6} {:>18} {:>18} {:>18} {:>8} {:>8}\n",
            task.task,
            task.prompts,
            task.loops,
            three(task.tokens_per_sweep),
            three(task.fewer_sweeps),
            three(task.faster),
            task.drafted,
            task.accepted
        );
    }
    Ok(output::text(&text)?)
}

/// The tasks and conversations of a file of prompts.
fn read(path: &Path) -> Result<Vec<(String, Vec<Message>)>, Failure> {
    let name = path.display();
    let text = small_file::read(path, PROMPTS_BYTES_MAX)
        .map_err(|error| Failure::failed(format!("{name}: {error}")))?;
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |why: String| Failure::usage(format!("{name}, line {number}: {why}"));
        let line: Line = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let messages = match (line.prompt, line.messages) {
            (Some(prompt), None) => vec![Message::new("user", prompt)],
            (None, Some(messages)) => messages,
            _ => return Err(bad("either a prompt or messages".to_owned())),
        };
        all.push((line.task, messages));
    }
    match all.is_empty() {
        true => Err(Failure::usage(format!("{name}: there are no prompts"))),
        false => Ok(all),
    }
}

fn tasks(points: &[SpeculatePoint]) -> Vec<Task> {
    let mut by_task: BTreeMap<&str, Vec<&SpeculatePoint>> = BTreeMap::new();
    points.iter().for_each(|point| by_task.entry(&point.task).or_default().push(point));
    let task = |(task, points): (&str, Vec<&SpeculatePoint>)| {
        let told: Vec<&&SpeculatePoint> = points.iter().filter(|point| !point.loops).collect();
        let of = |value: &dyn Fn(&SpeculatePoint) -> f64| quartiles(told.iter().map(|p| value(p)).collect());
        Task {
            task: task.to_owned(),
            prompts: points.len(),
            loops: points.len() - told.len(),
            tokens_per_sweep: of(&|p| p.tokens as f64 / p.sweeps.1.max(1) as f64),
            faster: of(&|p| p.seconds.0 / p.seconds.1),
            fewer_sweeps: of(&|p| p.sweeps.0 as f64 / p.sweeps.1.max(1) as f64),
            drafted: told.iter().map(|p| p.drafted).sum(),
            accepted: told.iter().map(|p| p.accepted).sum(),
        }
    };
    by_task.into_iter().map(task).collect()
}

/// A quarter, half, and three quarters of the way through what is sorted; zeros where there is nothing.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3]
        .map(|quarter| values.get((values.len() * quarter / 4).min(values.len().saturating_sub(1))))
        .map(|value| value.copied().unwrap_or(0.0))
}
