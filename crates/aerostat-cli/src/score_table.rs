//! `aerostat score` with a table.

use std::path::Path;

use aerostat::{Need, Outcome, Request, Want};
use serde_json::Value;

use crate::cell::{Cell, rounded};
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::model::ModelName;
use crate::options::EngineArgs;
use crate::output::OutputArgs;
use crate::packing;
use crate::prompts::Prompt;
use crate::results::Lines;
use crate::table::{Row, TableArgs};
use crate::tasks::{self, Setup, Sink, Task};
use crate::template::TemplateArgs;

/// The columns of results, those of the input aside.
const COLUMNS: [&str; 4] = ["logprob", "perplexity", "token_ids", "logprobs"];

struct Scores;

/// Tokens, and the log-probability of each given those before it.
struct Scored {
    token_ids: Vec<u32>,
    logprobs: Vec<Option<f32>>,
}

struct Sheet<'a> {
    table: &'a TableArgs,
    lines: Lines,
}

pub(crate) fn execute(
    model: &ModelName,
    engine: &EngineArgs,
    (table, template): (&TableArgs, &TemplateArgs),
    input: &Path,
    output: &OutputArgs,
) -> Result<(), Failure> {
    tasks::check(table, &COLUMNS, output)?;
    let texts = tasks::texts(&[], table);
    let format = table.result_format(input)?;
    Lines::check(table.file(), format)?;
    let setup = Setup::find(model, engine, texts, template, output)?;
    let sheet = |lines| Sheet { table, lines };
    setup.table(Scores, input, table, |_| {
        Lines::create(table.file(), format, &tasks::columns(table, &COLUMNS)).map(sheet)
    })
}

impl Task for Scores {
    type Item = Vec<u32>;
    type Found = Scored;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        encoder.prompt(prompt)
    }

    fn requests(&self, item: &Vec<u32>) -> Vec<Request> {
        let want = Want::Score { from: 1, logits_last: false };
        vec![Request { token_ids: item.clone(), want, ..Request::default() }]
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        need.add_tokens(tokens, 0, Want::Score { from: 1, logits_last: false });
    }

    fn result_bytes(&self, tokens: usize) -> usize {
        tokens * size_of::<Option<f32>>()
    }

    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>> {
        let Outcome::Score(score) = outcome else { return None };
        let logprobs = score.logprobs.iter().map(|logprob| logprob.unwrap_or(f32::NAN));
        Some([packing::ids(&score.token_ids), packing::floats(logprobs)].concat())
    }

    fn found(&self, parts: &[Vec<u8>]) -> Option<Scored> {
        let bytes = parts.first()?;
        let (token_ids, logprobs) = bytes.split_at(bytes.len() / 2);
        let logprobs = packing::to_floats(logprobs)?.into_iter();
        let logprobs = logprobs.map(|logprob| Some(logprob).filter(|l| !l.is_nan())).collect();
        Some(Scored { token_ids: packing::to_ids(token_ids)?, logprobs })
    }

    fn words(&self) -> String {
        "score".to_owned()
    }
}

impl Sink<Scored> for Sheet<'_> {
    fn give(&mut self, row: &Row, found: Option<Scored>) -> Result<(), Failure> {
        let Some(score) = found else { return Ok(()) };
        // Of no numbers, `sum` gives -0.
        let sum = score.logprobs.iter().flatten().map(|l| f64::from(*l)).sum::<f64>() + 0.0;
        let count = score.logprobs.iter().flatten().count();
        let perplexity = if count > 0 { rounded((-sum / count as f64).exp()) } else { Value::Null };
        let logprobs = score.logprobs.into_iter().map(|logprob| logprob.unwrap_or(f32::NAN)).collect();
        let mut cells = tasks::first_cells(row, self.table);
        let own = [
            rounded(sum).into(),
            perplexity.into(),
            Cell::Ids(score.token_ids, None),
            Cell::Floats(logprobs, None),
        ];
        cells.extend(COLUMNS.into_iter().zip(own));
        self.lines.write(cells)
    }

    fn finish(self) -> Result<(), Failure> {
        self.lines.finish()
    }
}
