//! `aerostat plan`: what a run would do, without running.

use aerostat::{Engine, ErrorKind, ModelFiles, Need, Options, Plan, size};
use aerostat_pack::Codec;
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::options::{EngineArgs, MODEL_HELP, NEW_TOKENS_DEFAULT};
use crate::output::OutputArgs;
use crate::{model, output};

/// Tokens of the one sequence that is planned for, unless `--context` says otherwise or the model can take fewer.
const CONTEXT_DEFAULT: usize = 512;

/// The same where the budget has no room for that: what `run` needs at the least for a short prompt.
const CONTEXT_LEAST: usize = 32 + NEW_TOKENS_DEFAULT;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[arg(help = MODEL_HELP)]
    model: String,
    /// Print what `aerostat pack` would make of it, too.
    #[arg(long)]
    compare: bool,
    /// Plan for a disk that yields so much, such as 3.5GB/s; without it, for the one that the model is on, as a moment of
    /// reading shows it.
    #[arg(long, value_name = "RATE", alias = "read-rate", value_parser = crate::size::parse_rate)]
    disk: Option<u64>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compare: Vec<Compared>,
}

/// What the model would need and take if it were packed with a codec.
#[derive(Serialize)]
struct Compared {
    codec: &'static str,
    weight_bytes: u64,
    streamed_bytes_per_sweep: u64,
    sweep_seconds: f64,
    /// The same with 32 rows in the sweep.
    sweep_seconds_32: f64,
}

pub(crate) fn execute(args: &PlanArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::learning(options, &args.engine, &files);
    let mut options = model::drafting(options, &args.engine, &files, output)?;
    options.read_bytes_per_second = args.disk.map(|rate| rate.max(1) as f64);
    // It counts: a run would hold it, too.
    let _tokenizer = model::tokenizer(&files, false, output)?;
    let named = args.engine.context();
    let mut context = named.unwrap_or(files.spec().context_max.min(CONTEXT_DEFAULT));
    let mut planned = Engine::plan(&files, &options, &Need::one(context));
    if named.is_none() && planned.as_ref().is_err_and(|e| e.kind() == ErrorKind::Budget) {
        // `run` does the same where nobody says how long answers are to be.
        context = context.min(CONTEXT_LEAST);
        planned = Engine::plan(&files, &options, &Need::one(context));
    }
    let plan = planned?;
    let compared = if args.compare { compare(&files, &options, context, &plan)? } else { Vec::new() };
    if output.json {
        return output::json(&Report { model: &args.model, plan: &plan, compare: compared });
    }
    let table: String = compared.iter().map(Compared::line).collect();
    Ok(output::text(&format!("{} with {context} tokens\n{plan}{table}", args.model))?)
}

/// The cost of a sweep of the model as it is, and as each codec would make it, at the same rate of the disk.
fn compare(
    files: &ModelFiles,
    options: &Options,
    context: usize,
    plan: &Plan,
) -> Result<Vec<Compared>, Failure> {
    let catalog = files.catalog();
    if catalog.codec().is_some() {
        return Err(Failure::usage("--compare compares what is not packed yet; give the original"));
    }
    let mut compared = vec![Compared::new("as it is", plan, plan)];
    for codec in Codec::ALL {
        let spec = match aerostat_pack::packed_spec(catalog, files.spec(), codec) {
            Ok(spec) => spec,
            // What one codec can pack is compared, if others cannot.
            Err(_) if compared.len() > 1 => continue,
            Err(error) => return Err(Failure::failed(error.to_string())),
        };
        let packed = Engine::plan(&files.with_spec(spec), options, &Need::one(context))?;
        compared.push(Compared::new(codec.name(), &packed, plan));
    }
    Ok(compared)
}

impl Compared {
    fn new(codec: &'static str, plan: &Plan, raw: &Plan) -> Self {
        let cost = |plan: &Plan| plan.cost.at_read_rate(raw.cost.read_bytes_per_second);
        let cost = cost(plan);
        Self {
            codec,
            weight_bytes: plan.weight_bytes,
            streamed_bytes_per_sweep: plan.streamed_bytes_per_sweep,
            sweep_seconds: cost.seconds(1, 1),
            sweep_seconds_32: cost.seconds(32, 32),
        }
    }

    fn line(&self) -> String {
        format!(
            "  {:<22}{} of weights, {} streamed; sweep {:.3} s with 1 row, {:.3} s with 32\n",
            self.codec,
            size(self.weight_bytes),
            size(self.streamed_bytes_per_sweep),
            self.sweep_seconds,
            self.sweep_seconds_32
        )
    }
}
