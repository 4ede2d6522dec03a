//! `aerostat score` with a table.

use std::path::Path;

use aerostat::{Engine, Error, Need, Score, Want};
use serde_json::{Value, json};

use crate::encode::Encoder;
use crate::failure::Failure;
use crate::options::EngineArgs;
use crate::output::OutputArgs;
use crate::prompts::Prompt;
use crate::results::{Lines, number, rounded};
use crate::table::{Format, Row, TableArgs};
use crate::tasks::{self, Setup, Sink, Task};
use crate::watch::Watch;

struct Scores;

struct Sheet<'a> {
    table: &'a TableArgs,
    lines: Lines,
}

pub(crate) fn execute(
    model: &str,
    engine: &EngineArgs,
    table: &TableArgs,
    input: &Path,
    output: &OutputArgs,
) -> Result<(), Failure> {
    tasks::check(table, &["token_ids", "logprobs", "logprob", "perplexity"], output)?;
    let texts = tasks::texts(&[], table)?;
    let format = Format::of(input)?;
    if let Some(path) = &table.output {
        Format::of(path)?;
    }
    let setup = Setup::find(model, engine, texts, output)?;
    let sheet = |lines| Sheet { table, lines };
    setup.table(&Scores, input, table, || Lines::create(table.output.as_deref(), format).map(sheet))
}

impl Task for Scores {
    type Item = Vec<u32>;
    type Found = Score;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        encoder.prompt(prompt)
    }

    fn sequences(&self, item: &Vec<u32>) -> Vec<Vec<u32>> {
        vec![item.clone()]
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        need.add_tokens(tokens, 0, Want::Score { from: 1, logits_last: false });
    }

    fn result_bytes(&self, tokens: usize) -> usize {
        tokens * size_of::<Option<f32>>()
    }

    fn run(
        &self,
        engine: &mut Engine,
        items: &[Vec<u32>],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Result<Score, Error>>, Error> {
        engine.score(items, false, watch)
    }
}

impl Sink<Score> for Sheet<'_> {
    fn give(&mut self, row: &Row, found: Option<Score>) -> Result<(), Failure> {
        let Some(score) = found else { return Ok(()) };
        // Of no numbers, `sum` gives -0.
        let sum = score.logprobs.iter().flatten().map(|l| f64::from(*l)).sum::<f64>() + 0.0;
        let count = score.logprobs.iter().flatten().count();
        let perplexity = if count > 0 { rounded((-sum / count as f64).exp()) } else { Value::Null };
        let logprobs: Value = score.logprobs.iter().map(|l| l.map_or(Value::Null, number)).collect();
        self.lines.write(&[
            tasks::key(row, self.table),
            ("logprob", rounded(sum)),
            ("perplexity", perplexity),
            ("token_ids", json!(score.token_ids)),
            ("logprobs", logprobs),
        ])
    }

    fn finish(self) -> Result<(), Failure> {
        self.lines.finish()
    }
}
