//! `aerostat classify`: the likeliest of some labels.

use aerostat::{Choices, Classification, Engine, Error, Measure, Need, Want};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::encode::Encoder;
use crate::failure::Failure;
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::results::{Lines, rounded};
use crate::table::{Format, Row, TableArgs};
use crate::tasks::{self, Setup, Sink, Task};
use crate::watch::Watch;

/// What stands for the text in a template.
const TEXT: &str = "{text}";

#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    #[arg(help = MODEL_HELP)]
    model: String,
    #[command(flatten)]
    prompts: Prompts,
    /// What to choose among, as a,b,c; or one at a time, repeated.
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true, allow_hyphen_values = true)]
    labels: Vec<String>,
    /// What a label follows; {text} is the text. Labels get a space before them unless this ends in white space.
    #[arg(long, value_name = "S", default_value = TEXT, allow_hyphen_values = true)]
    template: String,
    /// Compare how much likelier the text makes each label than TEXT does, which says nothing.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, default_missing_value = "N/A")]
    calibrate: Option<String>,
    /// Compare log-probabilities for each token, so that long labels do not lose.
    #[arg(long, conflicts_with = "calibrate")]
    length_normalize: bool,
    // Behind its own flags: a group's heading stands above all that follows.
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

struct Classify<'a> {
    template: &'a str,
    labels: &'a [String],
    label_ids: Vec<Vec<u32>>,
    measure: Measure,
}

struct Sheet<'a> {
    task: &'a Classify<'a>,
    table: &'a TableArgs,
    lines: Lines,
}

pub(crate) fn execute(mut args: ClassifyArgs, output: &OutputArgs) -> Result<(), Failure> {
    tasks::check(&args.table, &["label", "logprob", "logprobs", "scores"], output)?;
    check(&args)?;
    let prompts = tasks::prompts(&mut args.prompts, &args.table)?;
    if let Some(path) = &args.table.output {
        Format::of(path)?;
    }
    let setup = Setup::find(&args.model, &args.engine, true, output)?;
    let task = Classify::new(&args, &Encoder::plain(setup.tokenizer.as_ref()))?;
    match &args.table.input {
        Some(input) => {
            let format = Format::of(input)?;
            let sheet = |lines| Sheet { task: &task, table: &args.table, lines };
            let create = || Lines::create(args.table.output.as_deref(), format).map(sheet);
            setup.table(&task, input, &args.table, create)
        }
        None => setup.prompts(&task, &prompts, |_, found| task.json(&found), |_, found| task.text(&found)),
    }
}

fn check(args: &ClassifyArgs) -> Result<(), Failure> {
    if !args.template.contains(TEXT) {
        return Err(Failure::usage(format!(
            "--template {:?}: {TEXT} is missing, the place of the text",
            args.template
        )));
    }
    let twice = |(i, label): &(usize, &String)| args.labels.iter().take(*i).any(|other| other == *label);
    if let Some((_, label)) = args.labels.iter().enumerate().find(twice) {
        return Err(Failure::usage(format!("--labels: {label:?} is there twice")));
    }
    if args.labels.iter().any(|label| label.trim().is_empty()) {
        return Err(Failure::usage("--labels: one of them is empty"));
    }
    Ok(())
}

impl<'a> Classify<'a> {
    fn new(args: &'a ClassifyArgs, encoder: &Encoder<'_>) -> Result<Self, Failure> {
        let space = if args.template.ends_with(char::is_whitespace) { "" } else { " " };
        let ids = |label: &String| encoder.continuation(&format!("{space}{label}"));
        let label_ids: Vec<Vec<u32>> = args.labels.iter().map(ids).collect::<Result<_, _>>()?;
        let mut task =
            Self { template: &args.template, labels: &args.labels, label_ids, measure: Measure::Sum };
        if let Some((label, _)) = task.labels.iter().zip(&task.label_ids).find(|(_, ids)| ids.is_empty()) {
            return Err(Failure::usage(format!("--labels: {label:?} has no tokens")));
        }
        if args.length_normalize {
            task.measure = Measure::Mean;
        } else if let Some(text) = &args.calibrate {
            task.measure = Measure::Calibrated(task.item(encoder, &Prompt::Text(text.clone()))?.prefix);
        }
        Ok(task)
    }

    fn json(&self, found: &Classification) -> Value {
        Value::Object(self.cells(found).into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Cells of a result: the label that was chosen, its log-probability, the log-probabilities of all labels, and the scores
    /// that were compared if these are others.
    fn cells(&self, found: &Classification) -> Vec<(&'static str, Value)> {
        let sums: Vec<f64> = found.logprobs.iter().map(|l| l.iter().map(|l| f64::from(*l)).sum()).collect();
        let each = |values: &[f64]| -> Value {
            let pairs = self.labels.iter().cloned().zip(values.iter().copied().map(rounded));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        let logprob = sums.get(found.best).copied().map_or(Value::Null, rounded);
        let mut cells = vec![
            ("label", json!(self.labels.get(found.best))),
            ("logprob", logprob),
            ("logprobs", each(&sums)),
        ];
        if self.measure != Measure::Sum {
            cells.push(("scores", each(&found.scores)));
        }
        cells
    }

    fn text(&self, found: &Classification) -> String {
        let mut text = format!("{}\n", self.labels.get(found.best).map_or("", String::as_str));
        for (label, score) in self.labels.iter().zip(&found.scores) {
            text.push_str(&format!("{score:>10.4}  {label}\n"));
        }
        text
    }
}

impl Task for Classify<'_> {
    type Item = Choices;
    type Found = Classification;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Choices, Failure> {
        let prefix = match prompt {
            Prompt::Text(text) => encoder.prompt(&Prompt::Text(self.template.replace(TEXT, text)))?,
            ids @ Prompt::TokenIds(_) => encoder.prompt(ids)?,
        };
        if prefix.is_empty() {
            return Err(Failure::usage("the text is empty: at least one token is needed"));
        }
        Ok(Choices { prefix, labels: self.label_ids.clone() })
    }

    fn sequences(&self, item: &Choices) -> Vec<Vec<u32>> {
        item.labels.iter().map(|label| [item.prefix.as_slice(), label].concat()).collect()
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        let label = self.label_ids.iter().map(Vec::len).max().unwrap_or(0);
        need.add_tokens(tokens, 0, Want::Score { from: tokens.saturating_sub(label), logits_last: false });
    }

    fn result_bytes(&self, _tokens: usize) -> usize {
        self.label_ids.iter().map(|label| (label.len() + 8) * size_of::<f32>()).sum()
    }

    fn run(
        &self,
        engine: &mut Engine,
        items: &[Choices],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Result<Classification, Error>>, Error> {
        engine.classify(items, &self.measure, watch)
    }
}

impl Sink<Classification> for Sheet<'_> {
    fn give(&mut self, row: &Row, found: Option<Classification>) -> Result<(), Failure> {
        let Some(found) = found else { return Ok(()) };
        let mut cells = vec![tasks::key(row, self.table)];
        cells.extend(self.task.cells(&found));
        self.lines.write(&cells)
    }

    fn finish(self) -> Result<(), Failure> {
        self.lines.finish()
    }
}
