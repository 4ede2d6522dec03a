//! `aerostat classify`: the likeliest of some labels.

use std::sync::OnceLock;

use aerostat::{Choices, Classification, Engine, Error, Measure, Need, Outcome, Request, Want};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::cell::{Cell, rounded};
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::model::ModelName;
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::OutputArgs;
use crate::packing;
use crate::prompts::{Prompt, Prompts};
use crate::results::Lines;
use crate::table::{Row, TableArgs};
use crate::tasks::{self, Prompted, Setup, Sink, Task};
use crate::template::{Template, TemplateArgs};
use crate::watch::Watch;

#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    #[command(flatten)]
    prompts: Prompts,
    /// What to choose among: two or more, as a,b,"c, with a comma"; or one list after the other. Labels get a space before
    /// them, unless what they follow ends in white space.
    #[arg(long, value_name = "LIST", required = true, allow_hyphen_values = true)]
    labels: Vec<String>,
    /// A column for each label with its probability among them, in the place of `logprobs` and `scores`.
    #[arg(long)]
    probabilities: bool,
    /// Compare how much likelier the text makes each label than TEXT does, which says nothing.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, default_missing_value = "N/A")]
    calibrate: Option<String>,
    /// Compare log-probabilities for each token, so that long labels do not lose.
    #[arg(long, conflicts_with = "calibrate")]
    length_normalize: bool,
    #[command(flatten)]
    template: TemplateArgs,
    // Behind its own flags: a group's heading stands above all that follows.
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

struct Classify {
    labels: Vec<String>,
    label_ids: Vec<Vec<u32>>,
    measure: Measure,
    /// With [`Measure::Calibrated`]: of each label, its log-probability after the text that says nothing.
    plain: OnceLock<Vec<f64>>,
}

struct Sheet<'a> {
    shown: Shown,
    table: &'a TableArgs,
    lines: Lines,
}

/// Which cells a result has.
#[derive(Clone)]
struct Shown {
    labels: Vec<String>,
    /// A cell for each label with its probability.
    probabilities: bool,
    /// The scores are not the log-probabilities.
    measured: bool,
}

pub(crate) fn execute(mut args: ClassifyArgs, output: &OutputArgs) -> Result<(), Failure> {
    let labels = labels(&args.labels)?;
    let mut columns = vec!["label", "logprob", "logprobs", "scores"];
    columns.extend(labels.iter().map(String::as_str).filter(|_| args.probabilities));
    tasks::check(&args.table, &columns, output)?;
    if let Some(label) =
        labels.iter().find(|label| args.probabilities && columns[..4].contains(&label.as_str()))
    {
        return Err(Failure::usage(format!("--probabilities: the results have a column {label:?} already")));
    }
    let prompts = tasks::prompts(&mut args.prompts, &args.table, &args.engine)?;
    if let Some(input) = &args.table.input {
        Lines::check(args.table.file(), args.table.result_format(input)?)?;
    }
    let setup = Setup::find(&args.model, &args.engine, true, &args.template, output)?;
    let task = Classify::new(&args, labels, setup.template.as_ref(), &setup.encoder())?;
    let measured = task.measure != Measure::Sum;
    let shown = Shown { labels: task.labels.clone(), probabilities: args.probabilities, measured };
    match &args.table.input {
        Some(input) => {
            let format = args.table.result_format(input)?;
            let create = |_: &Classify| {
                let columns = tasks::columns(&args.table, &shown.columns());
                let lines = Lines::create(args.table.file(), format, &columns)?;
                Ok(Sheet { shown, table: &args.table, lines })
            };
            setup.table(task, input, &args.table, create)
        }
        None => setup.prompts(&task, &prompts, |_, found| shown.json(&found), |_, found| task.text(&found)),
    }
}

/// What no label is: a line after the last one.
const LABELS_END: &str = "\0";

/// The labels of lists, each written as a row of CSV is.
fn labels(lists: &[String]) -> Result<Vec<String>, Failure> {
    let mut labels: Vec<String> = Vec::new();
    for list in lists {
        // A quote that is never closed takes the last line, too, which is a row of its own otherwise.
        let text = format!("{list}\n{LABELS_END}");
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let rows: Result<Vec<_>, _> = reader.records().collect();
        let mut rows = rows.map_err(|e| Failure::usage(format!("--labels {list:?}: {e}")))?;
        if rows.pop().is_none_or(|row| row.iter().ne([LABELS_END])) {
            return Err(Failure::usage(format!("--labels {list:?}: a quote is open at its end")));
        }
        labels.extend(rows.iter().flatten().map(|label| label.trim().to_owned()));
    }
    if labels.iter().any(String::is_empty) {
        return Err(Failure::usage("--labels: one of them is empty"));
    }
    let twice = |(i, label): &(usize, &String)| labels.iter().take(*i).any(|other| other == *label);
    if let Some((_, label)) = labels.iter().enumerate().find(twice) {
        return Err(Failure::usage(format!("--labels: {label:?} is there twice")));
    }
    if labels.len() < 2 {
        return Err(Failure::usage("--labels: there is nothing to choose among: name two or more, as a,b,c"));
    }
    Ok(labels)
}

impl Classify {
    fn new(
        args: &ClassifyArgs,
        labels: Vec<String>,
        template: Option<&Template>,
        encoder: &Encoder<'_>,
    ) -> Result<Self, Failure> {
        let ends_in_space = match (encoder.chat(), template) {
            (true, _) => encoder.ends_in_space()?,
            (false, template) => template.is_some_and(Template::ends_in_space),
        };
        let space = if ends_in_space { "" } else { " " };
        let ids = |label: &String| encoder.continuation(&format!("{space}{label}"));
        let label_ids: Vec<Vec<u32>> = labels.iter().map(ids).collect::<Result<_, _>>()?;
        let mut task = Self { labels, label_ids, measure: Measure::Sum, plain: OnceLock::new() };
        if let Some((label, _)) = task.labels.iter().zip(&task.label_ids).find(|(_, ids)| ids.is_empty()) {
            return Err(Failure::usage(format!("--labels: {label:?} has no tokens")));
        }
        if args.length_normalize {
            task.measure = Measure::Mean;
        } else if let Some(text) = &args.calibrate {
            // In the place of every cell.
            let made = template.map_or_else(|| text.clone(), |template| template.fill(|_| text));
            task.measure = Measure::Calibrated(task.item(encoder, &Prompt::Text(made))?.prefix);
        }
        Ok(task)
    }

    fn text(&self, found: &Classification) -> String {
        let mut text = format!("{}\n", self.labels.get(found.best).map_or("", String::as_str));
        for (label, score) in self.labels.iter().zip(&found.scores) {
            text.push_str(&format!("{score:>10.4}  {label}\n"));
        }
        text
    }
}

impl Task for Classify {
    type Item = Choices;
    type Found = Classification;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Choices, Failure> {
        let prefix = encoder.prompt(prompt)?;
        if prefix.is_empty() {
            return Err(Failure::usage("the text is empty: at least one token is needed"));
        }
        Ok(Choices { prefix, labels: self.label_ids.clone() })
    }

    fn requests(&self, item: &Choices) -> Vec<Request> {
        let request = |label: &Vec<u32>| Request {
            token_ids: [item.prefix.as_slice(), label].concat(),
            want: Want::Score { from: item.prefix.len(), logits_last: false },
            ..Request::default()
        };
        item.labels.iter().map(request).collect()
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        let label = self.label_ids.iter().map(Vec::len).max().unwrap_or(0);
        need.add_tokens(tokens, 0, Want::Score { from: tokens.saturating_sub(label), logits_last: false });
    }

    fn result_bytes(&self, _tokens: usize) -> usize {
        self.label_ids.iter().map(|label| (label.len() + 8) * size_of::<f32>()).sum()
    }

    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>> {
        match outcome {
            Outcome::Score(score) => Some(packing::floats(score.logprobs.into_iter().flatten())),
            _ => None,
        }
    }

    fn found(&self, parts: &[Vec<u8>]) -> Option<Classification> {
        let logprobs = parts.iter().map(|part| packing::to_floats(part)).collect::<Option<Vec<_>>>()?;
        Classification::choose(logprobs, &self.measure, |i| self.plain.get()?.get(i).copied())
    }

    fn words(&self) -> String {
        let measure = match &self.measure {
            Measure::Sum => "their log-probabilities".to_owned(),
            Measure::Mean => "their mean log-probabilities".to_owned(),
            Measure::Calibrated(prefix) => {
                let ids: Vec<String> = prefix.iter().map(u32::to_string).collect();
                format!("comparison with the tokens {}", ids.join(" "))
            }
        };
        format!("labels {:?} by {measure}", self.labels)
    }

    fn tokens_after(&self) -> usize {
        self.label_ids.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn need_before(&self, need: &mut Need) {
        if let Measure::Calibrated(prefix) = &self.measure {
            self.label_ids.iter().for_each(|label| self.need(prefix.len() + label.len(), need));
        }
    }

    fn prepare(&self, engine: &mut Engine, watch: &mut Watch<'_>) -> Result<Option<String>, Failure> {
        let Measure::Calibrated(prefix) = &self.measure else { return Ok(None) };
        let item = Choices { prefix: prefix.clone(), labels: self.label_ids.clone() };
        let found = engine.classify(&[item], &Measure::Sum, watch)?.into_iter().next().transpose()?;
        let bits =
            |found: Classification| found.scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
        Ok(found.map(|found| serde_json::to_string(&bits(found))).transpose()?)
    }

    fn prepared(&self, text: &str) -> Result<(), Failure> {
        let bits: Result<Vec<u64>, _> = serde_json::from_str(text);
        let bits = bits.map_err(|e| Failure::failed(format!("what the job kept of --calibrate: {e}")))?;
        // What it holds already is the same.
        let _ = self.plain.set(bits.into_iter().map(f64::from_bits).collect());
        Ok(())
    }
}

impl Shown {
    fn json(&self, found: &Classification) -> Value {
        Value::Object(self.cells(found).into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The columns of results, those of the input aside.
    fn columns(&self) -> Vec<&str> {
        let mut columns = vec!["label", "logprob"];
        match self.probabilities {
            true => columns.extend(self.labels.iter().map(String::as_str)),
            false => columns.extend(["logprobs", "scores"].iter().take(1 + usize::from(self.measured))),
        }
        columns
    }

    /// Cells of a result: the label that was chosen and its log-probability; of each label its probability among them, or the
    /// log-probabilities of all, and the scores that were compared if these are others.
    fn cells(&self, found: &Classification) -> Vec<(&str, Value)> {
        let sums: Vec<f64> = found.logprobs.iter().map(|l| l.iter().map(|l| f64::from(*l)).sum()).collect();
        let each = |values: &[f64]| -> Value {
            let pairs = self.labels.iter().cloned().zip(values.iter().copied().map(rounded));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        let logprob = sums.get(found.best).copied().map_or(Value::Null, rounded);
        let mut cells = vec![json!(self.labels.get(found.best)), logprob];
        match self.probabilities {
            true => cells.extend(probabilities(&found.scores).into_iter().map(rounded)),
            false => cells.extend([each(&sums), each(&found.scores)]),
        }
        self.columns().into_iter().zip(cells).collect()
    }
}

/// Probabilities that are in the proportion of `exp(score)` and sum to 1.
fn probabilities(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / sum).collect()
}

impl Prompted for Classify {
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
        let mut cells = tasks::first_cells(row, self.table);
        cells.extend(self.shown.cells(&found).into_iter().map(|(name, value)| (name, Cell::Value(value))));
        self.lines.write(cells)
    }

    fn finish(self) -> Result<(), Failure> {
        self.lines.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"a, b"` once kept its space, a comma could not be said, and one label was taken.
    #[test]
    fn labels_are_trimmed_and_may_hold_commas() {
        let of = |lists: &[&str]| {
            labels(&lists.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(Failure::message)
        };
        assert_eq!(of(&["a, b ,c"]).unwrap(), ["a", "b", "c"]);
        assert_eq!(of(&["\"yes, definitely\",no", "maybe"]).unwrap(), ["yes, definitely", "no", "maybe"]);
        assert_eq!(of(&["5\" disk,3.5\" disk", "a\nb"]).unwrap(), ["5\" disk", "3.5\" disk", "a", "b"]);
        for (lists, part) in [
            (&["a"][..], "two or more"),
            (&["a,,b"], "empty"),
            (&["a, a"], "twice"),
            (&[""], "two"),
            (&["a,\"b"], "open"),
            (&["a,\"b,c", "d,e"], "open"),
        ] {
            assert!(of(lists).unwrap_err().contains(part), "{lists:?}");
        }
    }

    #[test]
    fn probabilities_sum_to_one_however_small_they_are() {
        let found = probabilities(&[-1000.0, -1001.0, f64::NEG_INFINITY]);
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((found[0] / found[1] - 1f64.exp()).abs() < 1e-9 && found[2] == 0.0);
    }
}
