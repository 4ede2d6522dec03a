//! `aerostat plan`: what a run would do, without running, and without downloading.

use std::sync::Arc;

use aerostat::{
    Engine, ErrorKind, Hidden, Layer, Machine, ModelFiles, Need, Options, Parts, Plan, Pooling, Tokenizer,
    Want, size,
};
use aerostat_pack::Codec;
use clap::{Args, value_parser};
use serde::Serialize;

use crate::encode::Encoder;
use crate::failure::Failure;
use crate::model::{self, Headers, ModelName};
use crate::options::{EngineArgs, MODEL_HELP, NEW_TOKENS_DEFAULT};
use crate::output::{self, OutputArgs};
use crate::prompts::Prompt;
use crate::verdict::{Asked, Disk, PROMPT_TOKENS, Packed, REQUESTS, Verdict, seconds};

/// Tokens of the one sequence that is planned for, unless `--context` says otherwise or the model can take fewer.
const CONTEXT_DEFAULT: usize = 512;

/// The same where the budget has no room for that: what `run` needs at the least for a short prompt.
const CONTEXT_LEAST: usize = 32 + NEW_TOKENS_DEFAULT;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// Print what `aerostat pack` would make of it, too.
    #[arg(long)]
    compare: bool,
    /// Plan for a disk that yields so much, such as 3.5GB/s; without it, for the one that the model is on, as a moment of
    /// reading shows it.
    #[arg(long, value_name = "RATE", alias = "read-rate", value_parser = crate::size::parse_rate)]
    disk: Option<u64>,
    /// Plan for a machine with so many cores of the kind that this one has.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    cores: Option<u32>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(flatten)]
    plan: &'a Plan,
    /// Whether the model is on this machine.
    downloaded: bool,
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

/// A model, and the machine it is planned for.
struct Planner<'a> {
    files: &'a ModelFiles,
    options: &'a Options,
    parts: Parts,
    /// As often as this machine the other one computes.
    cores: f64,
    /// Memory of a graphics card that it has.
    card: Option<u64>,
}

pub(crate) fn execute(args: &PlanArgs, output: &OutputArgs) -> Result<(), Failure> {
    let card = args.engine.card_bytes();
    let elsewhere = args.disk.is_some() || args.cores.is_some() || card.is_some();
    let options = args.engine.options_for(elsewhere, output)?;
    let headers = model::headers(&args.model, output)?;
    let files = headers.open(args.engine.adapter(), output)?;
    let options = model::of_model(options, &args.engine, &files);
    let mut options = model::drafting(options, &args.engine, &files, output)?;
    let disk = args.disk.map(|rate| Disk::Known(rate.max(1) as f64));
    let disk = disk.or((!headers.is_here()).then_some(Disk::Assumed));
    options.read_bytes_per_second = disk.map(Disk::rate);
    // It counts: a run would hold it, too.
    let tokenizer = model::tokenizer(&files, false, output)?;
    prompt_once(&files, tokenizer.as_ref());
    let planner = Planner { card, ..Planner::new(&files, &options, &headers, args.cores)? };
    if card.is_some() {
        output::note(output, "--vram: computing is counted as on this processor; a graphics card is faster");
    }
    let disk = disk.unwrap_or(Disk::Known(planner.parts.machine.read_bytes_per_second));

    let named = args.engine.context();
    let mut context = named.unwrap_or(files.spec().context_max.min(CONTEXT_DEFAULT));
    let mut planned = planner.plan(&Need::one(context));
    if named.is_none() && planned.as_ref().is_err_and(|e| e.kind() == ErrorKind::Budget) {
        // `run` does the same where nobody says how long answers are to be.
        context = context.min(CONTEXT_LEAST);
        planned = planner.plan(&Need::one(context));
    }
    let plan = planned?;
    let compared = match files.catalog().codec() {
        Some(_) if args.compare => {
            return Err(Failure::usage("--compare compares what is not packed yet; give the original"));
        }
        // Nothing is faster than what needs no disk.
        None if args.compare || !plan.resident => planner.compare(context, &plan, args.compare)?,
        _ => Vec::new(),
    };
    let gives_none = files.spec().looks_ahead() || files.spec().head.absent;
    let asked = if gives_none { Asked::Vectors } else { Asked::Tokens };
    let night = planner.plan(&night(asked)).ok();
    let packed: Vec<Packed> = compared.iter().skip(1).map(Compared::packed).collect();
    let verdict = Verdict::new(&plan, night.as_ref(), disk, &packed, asked);
    let shown = if args.compare { compared } else { Vec::new() };
    if output.json {
        let downloaded = headers.is_here();
        let report =
            Report { model: &args.model, verdict: &verdict, plan: &plan, downloaded, compare: shown };
        return output::json(&report);
    }
    let table: String = shown.iter().map(Compared::line).collect();
    let text = format!("{}\n\n{} with {context} tokens\n{plan}{table}", verdict.text, &*args.model);
    Ok(output::text(&text)?)
}

/// Makes tokens of a prompt, as a run does before it plans: the template and the code that it takes are part of the process.
fn prompt_once(files: &ModelFiles, tokenizer: Option<&Tokenizer>) {
    let template = files.chat_template_named(tokenizer, None).ok().flatten();
    let encoder = Encoder::plain(tokenizer).through(template.map(Arc::new)).within(files.spec().context_max);
    let prompt = Prompt::Text("Hello".to_owned());
    // What is wrong with either is told by the run.
    let _ = encoder.prompt(&prompt);
    let _ = (encoder.split_of(&prompt), files.end_tokens(tokenizer), files.sampling_notes());
}

/// The night's job.
fn night(asked: Asked) -> Need {
    let vector =
        Hidden { layer: Layer::Final, pooling: Some(Pooling::Mean), dimensions: None, normalize: false };
    let want = if asked == Asked::Tokens { Want::Generate } else { Want::Hidden(vector) };
    let mut need = Need::none();
    (0..REQUESTS).for_each(|_| need.add_tokens(PROMPT_TOKENS, asked.answer_tokens(), want));
    need
}

impl<'a> Planner<'a> {
    fn new(
        files: &'a ModelFiles,
        options: &'a Options,
        headers: &Headers,
        cores: Option<u32>,
    ) -> Result<Self, Failure> {
        let parts = Parts::of(files, options)?;
        let cores = cores.map_or(1.0, |cores| f64::from(cores) / parts.machine.threads.max(1) as f64);
        let mut planner = Self { files, options, parts, cores, card: None };
        planner.adjust();
        // Where it is not here, it takes about its file.
        let Machine { process_bytes, process_peak_bytes, .. } = &mut planner.parts.machine;
        *process_bytes += headers.tokenizer_bytes();
        *process_peak_bytes = (*process_peak_bytes).max(*process_bytes);
        Ok(planner)
    }

    /// Takes the other machine's cores for this one's.
    fn adjust(&mut self) {
        for multiply in &mut self.parts.machine.multiply {
            multiply.seconds_per_weight /= self.cores;
        }
    }

    fn plan(&self, need: &Need) -> Result<Plan, aerostat::Error> {
        match self.card {
            Some(vram) => Engine::plan_with_card(self.files, self.options, need, &self.parts, vram),
            None => Engine::plan_with(self.files, self.options, need, &self.parts),
        }
    }

    /// The cost of a sweep of the model as it is, and as each codec would make it, at the same rate of the disk. Unless they are
    /// `wanted`, what cannot be packed is left out.
    fn compare(&self, context: usize, plan: &Plan, wanted: bool) -> Result<Vec<Compared>, Failure> {
        let mut compared = vec![Compared::new("as it is", plan, plan)];
        for codec in Codec::ALL {
            let spec = match aerostat_pack::packed_spec(self.files.catalog(), self.files.spec(), codec) {
                Ok(spec) => spec,
                // What one codec can pack is compared, if others cannot.
                Err(_) if compared.len() > 1 || !wanted => continue,
                Err(error) => return Err(Failure::failed(error.to_string())),
            };
            let rate = Some(plan.cost.read_bytes_per_second);
            let options = Options { read_bytes_per_second: rate, ..self.options.clone() };
            let files = self.files.with_spec(spec);
            let parts = Parts::of(&files, &options)?;
            let (cores, card) = (self.cores, self.card);
            let mut planner = Planner { files: &files, options: &options, parts, cores, card };
            planner.adjust();
            planner.parts.machine.process_bytes = self.parts.machine.process_bytes;
            match planner.plan(&Need::one(context)) {
                Ok(packed) => compared.push(Compared::new(codec.name(), &packed, plan)),
                Err(_) if !wanted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(compared)
    }
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

    fn packed(&self) -> Packed {
        Packed { codec: self.codec, seconds: self.sweep_seconds }
    }

    fn line(&self) -> String {
        format!(
            "  {:<22}{} of weights, {} streamed; a sweep takes {} with 1 row, {} with 32\n",
            self.codec,
            size(self.weight_bytes),
            size(self.streamed_bytes_per_sweep),
            seconds(self.sweep_seconds),
            seconds(self.sweep_seconds_32)
        )
    }
}
