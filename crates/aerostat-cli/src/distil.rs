//! `aerostat distil`: the likeliest tokens after every token, to train smaller models on.

use std::path::Path;

use std::collections::BTreeMap;

use aerostat::{Engine, Error, ErrorKind, Need, Outcome, Request, Sampling, TopK, Want};
use clap::{Args, value_parser};
use half::f16;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;

use crate::cell::{Cell, Numbers};
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::model::ModelName;
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::results::{Lines, Tensors};
use crate::table::{Format, Row, TableArgs};
use crate::tasks::{self, Prompted, Setup, Sink, Task};
use crate::template::TemplateArgs;
use crate::watch::Watch;
use crate::{columns, packing};

#[derive(Debug, Args)]
pub(crate) struct DistilArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    #[command(flatten)]
    prompts: Prompts,
    /// Tokens to tell of at each position, likeliest first.
    #[arg(short, value_name = "K", default_value_t = 20, value_parser = value_parser!(u32).range(1..=65_536))]
    k: u32,
    /// Let the model go on after each text for up to N tokens, and tell of those, too.
    #[arg(long, value_name = "N", default_value_t = 0)]
    generate: u32,
    /// Of what is generated: 0 takes the likeliest token; the default is the model's own, else 0.
    #[arg(long, value_name = "T", requires = "generate", value_parser = crate::options::not_negative)]
    temperature: Option<f32>,
    /// Of what is generated: the same seed gives the same texts.
    #[arg(long, value_name = "N", requires = "generate")]
    seed: Option<u64>,
    #[command(flatten)]
    template: TemplateArgs,
    // Behind its own flags: a group's heading stands above all that follows.
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

struct Distil {
    /// How many of the likeliest tokens are given for each position; at most the size of the vocabulary.
    k: usize,
    generate: usize,
    sampling: Sampling,
    end_tokens: Vec<u32>,
}

/// The result of one text: the likeliest tokens at each position, and how many of its tokens were given, not generated.
struct Told {
    given: usize,
    top: TopK,
}

/// As JSON; written as it is, since it may be large.
impl Serialize for Told {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let k = self.top.k.max(1);
        let ids: Vec<&[u32]> = self.top.ids.chunks(k).collect();
        let logprobs: Vec<Numbers<'_>> = self.top.logprobs.chunks(k).map(Numbers).collect();
        let mut map = to.serialize_map(Some(4))?;
        map.serialize_entry("token_ids", &self.top.token_ids)?;
        map.serialize_entry("given", &self.given)?;
        map.serialize_entry("top_ids", &ids)?;
        map.serialize_entry("top_logprobs", &logprobs)?;
        map.end()
    }
}

enum Sheet<'a> {
    /// A safetensors file, and the number of positions written so far.
    Tensors(Tensors, i64),
    Lines(Lines, &'a TableArgs),
}

pub(crate) fn execute(mut args: DistilArgs, output: &OutputArgs) -> Result<(), Failure> {
    if args.table.input.is_some() {
        check(&args.table, output)?;
    }
    let prompts = tasks::prompts(&mut args.prompts, &args.table, &args.engine)?;
    let texts = tasks::texts(&prompts, &args.table);
    let setup = Setup::find(&args.model, &args.engine, texts, &args.template, output)?;
    let sampling = setup.files.sampling();
    let task = Distil {
        k: (args.k as usize).min(setup.files.spec().vocab),
        generate: args.generate as usize,
        sampling: Sampling {
            temperature: args.temperature.unwrap_or(sampling.temperature),
            seed: args.seed.unwrap_or(sampling.seed),
            ..sampling
        },
        end_tokens: setup.files.end_tokens(setup.tokenizer.as_deref()),
    };
    match &args.table.input {
        Some(input) => {
            setup.table(task, input, &args.table, |task| Sheet::create(&args.table, &args.model, task.k))
        }
        None => setup.prompts(&task, &prompts, |_, told| told, |_, told| told.text()),
    }
}

fn check(table: &TableArgs, output: &OutputArgs) -> Result<(), Failure> {
    tasks::check(table, &["tokens", "given", "ids", "logprobs"], output)?;
    let ending = |path: &Path| path.extension().is_some_and(|e| e == "safetensors" || e == "parquet");
    match table.file() {
        Some(path) if ending(path) => match path.extension().is_some_and(|e| e == "parquet") {
            true => columns::check(path),
            false if table.carry.is_empty() => Ok(()),
            false => Err(Failure::usage("--carry: a .safetensors file has no place for texts; use .parquet")),
        },
        _ => Err(Failure::usage(
            "what is distilled from a table goes to a file of arrays: -o FILE.safetensors or FILE.parquet",
        )),
    }
}

impl Task for Distil {
    type Item = Vec<u32>;
    type Found = Told;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        encoder.prompt(prompt)
    }

    fn requests(&self, item: &Vec<u32>) -> Vec<Request> {
        vec![match self.generate {
            0 => self.top(item.clone()),
            _ => self.answer(item),
        }]
    }

    fn then(&self, token_ids: &[u32], answer: &[u32]) -> Option<Request> {
        Some(self.top([token_ids, answer].concat()))
    }

    fn new_tokens(&self) -> usize {
        self.generate
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        if self.generate > 0 {
            need.add_tokens(tokens, self.generate, Want::Generate);
        }
        need.add_tokens(tokens + self.generate, 0, Want::TopK { k: self.k, from: 0 });
    }

    fn result_bytes(&self, tokens: usize) -> usize {
        tokens * self.k * (size_of::<u32>() + size_of::<f32>())
    }

    /// Of an answer how many tokens it has; of the likeliest tokens, the text and all numbers.
    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>> {
        match outcome {
            Outcome::Completion(answer) => Some(packing::ids(&[answer.token_ids.len() as u32])),
            Outcome::TopK(top) => {
                let sizes = [top.token_ids.len() as u32, top.k as u32];
                let bytes = [packing::ids(&sizes), packing::ids(&top.token_ids), packing::ids(&top.ids)];
                Some([bytes.concat(), packing::floats(top.logprobs)].concat())
            }
            _ => None,
        }
    }

    fn found(&self, parts: &[Vec<u8>]) -> Option<Told> {
        let generated = match parts {
            [answer, _] => *packing::to_ids(answer)?.first()? as usize,
            _ => 0,
        };
        let bytes = parts.last()?;
        let sizes = packing::to_ids(bytes.get(..8)?)?;
        let (tokens, k) = (*sizes.first()? as usize, *sizes.get(1)? as usize);
        let (token_ids, rest) = bytes.get(8..)?.split_at_checked(4 * tokens)?;
        let (ids, logprobs) = rest.split_at(rest.len() / 2);
        let top = TopK {
            token_ids: packing::to_ids(token_ids)?,
            from: 0,
            k,
            ids: packing::to_ids(ids)?,
            logprobs: packing::to_floats(logprobs)?,
        };
        Some(Told { given: tokens.checked_sub(generated)?, top })
    }

    fn words(&self) -> String {
        let Self { k, generate, sampling, end_tokens } = self;
        match generate {
            0 => format!("distil {k}"),
            _ => format!("distil {k} of {generate} generated, {sampling:?}, ends {end_tokens:?}"),
        }
    }
}

impl Distil {
    /// The likeliest tokens after every token of a text.
    fn top(&self, token_ids: Vec<u32>) -> Request {
        Request { token_ids, want: Want::TopK { k: self.k, from: 0 }, ..Request::default() }
    }

    /// What the model goes on with.
    fn answer(&self, token_ids: &[u32]) -> Request {
        Request {
            token_ids: token_ids.to_vec(),
            max_new_tokens: self.generate,
            sampling: self.sampling.clone(),
            end_tokens: self.end_tokens.clone(),
            ..Request::default()
        }
    }
}

impl Prompted for Distil {
    fn run(
        &self,
        engine: &mut Engine,
        items: &[Vec<u32>],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Result<Told, Error>>, Error> {
        let (mut sequences, mut failed) = (items.to_vec(), BTreeMap::new());
        if self.generate > 0 {
            let requests: Vec<Request> = items.iter().map(|item| self.answer(item)).collect();
            let answers = engine.generate(&requests, None, watch)?;
            if answers.interrupted {
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            for (number, (sequence, answer)) in sequences.iter_mut().zip(answers.completions).enumerate() {
                match answer {
                    Ok(answer) => sequence.extend(&answer.token_ids),
                    Err(error) => drop(failed.insert(number, error)),
                }
            }
        }
        let told =
            |(number, (item, top)): (usize, (&Vec<u32>, Result<TopK, Error>))| match failed.remove(&number) {
                Some(error) => Err(error),
                None => Ok(Told { given: item.len(), top: top? }),
            };
        let tops = engine.distil(&sequences, self.k, watch)?;
        Ok(items.iter().zip(tops).enumerate().map(told).collect())
    }
}

impl Told {
    /// A row of a table: what the tensors of a safetensors file have for it.
    fn cells(self, mut first: Vec<(&str, Cell)>) -> Vec<(&str, Cell)> {
        let TopK { token_ids, k, ids, mut logprobs, .. } = self.top;
        logprobs.iter_mut().for_each(|logprob| *logprob = f16::from_f32(*logprob).to_f32());
        first.extend([
            ("given", Cell::Value(json!(self.given))),
            ("tokens", Cell::Ids(token_ids, None)),
            ("ids", Cell::Ids(ids, Some(k))),
            ("logprobs", Cell::Floats(logprobs, Some(k))),
        ]);
        first
    }

    /// For people: a line for each position with its token and the likeliest next ones.
    fn text(&self) -> String {
        let k = self.top.k.max(1);
        let rows = self.top.ids.chunks(k).zip(self.top.logprobs.chunks(k));
        let line = |(token, (ids, logprobs)): (&u32, (&[u32], &[f32]))| {
            let next: Vec<String> = ids.iter().zip(logprobs).map(|(id, l)| format!("{id}:{l:.4}")).collect();
            format!("{token:>8}  {}\n", next.join(" "))
        };
        self.top.token_ids.iter().zip(rows).map(line).collect()
    }
}

impl<'a> Sheet<'a> {
    fn create(table: &'a TableArgs, model: &str, k: usize) -> Result<Self, Failure> {
        let Some(path) = table.file() else { return Err(Failure::usage("-o is missing")) };
        if path.extension().is_some_and(|e| e == "parquet") {
            return Ok(Self::Lines(Lines::create(Some(path), Format::Parquet, &[])?, table));
        }
        let metadata = [("task", "distil".to_owned()), ("model", model.to_owned()), ("k", k.to_string())];
        let mut tensors = Tensors::create(path, &metadata)?;
        tensors.rows(table)?;
        tensors.add("offsets", "I64", 8, None)?;
        tensors.add("given", "I64", 8, None)?;
        tensors.add("tokens", "U32", 4, None)?;
        tensors.add("ids", "U32", 4, Some(k))?;
        tensors.add("logprobs", "F16", 2, Some(k))?;
        tensors.texts(table)?;
        tensors.push("offsets", 0i64.to_le_bytes())?;
        Ok(Self::Tensors(tensors, 0))
    }
}

impl Sink<Told> for Sheet<'_> {
    fn give(&mut self, row: &Row, found: Option<Told>) -> Result<(), Failure> {
        let Some(told) = found else { return Ok(()) };
        match self {
            Self::Lines(lines, table) => lines.write(told.cells(tasks::first_cells(row, table))),
            Self::Tensors(tensors, positions) => {
                let Told { given, top } = told;
                *positions += top.token_ids.len() as i64;
                tensors.row(row)?;
                tensors.push("offsets", positions.to_le_bytes())?;
                tensors.push("given", (given as i64).to_le_bytes())?;
                tensors.push("tokens", top.token_ids.iter().flat_map(|id| id.to_le_bytes()))?;
                tensors.push("ids", top.ids.iter().flat_map(|id| id.to_le_bytes()))?;
                tensors.push("logprobs", top.logprobs.iter().flat_map(|l| f16::from_f32(*l).to_le_bytes()))
            }
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Lines(lines, _) => lines.finish(),
            Self::Tensors(tensors, _) => tensors.finish(),
        }
    }
}
