//! `aerostat embed`: pooled hidden states.

use std::path::Path;

use aerostat::{Engine, Error, Hidden, Layer, Need, Outcome, Pooling, Request, Want};
use clap::{Args, ValueEnum, value_parser};
use serde_json::{Value, json};

use crate::encode::Encoder;
use crate::failure::Failure;
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::OutputArgs;
use crate::packing;
use crate::prompts::{Prompt, Prompts};
use crate::results::{Lines, Npy, Tensors, number};
use crate::table::{Row, TableArgs};
use crate::tasks::{self, Prompted, Setup, Sink, Task};
use crate::template::TemplateArgs;
use crate::watch::Watch;

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    #[arg(help = MODEL_HELP)]
    model: String,
    #[command(flatten)]
    prompts: Prompts,
    /// How the hidden states of a text become one vector.
    #[arg(long, value_name = "HOW", default_value = "mean")]
    pooling: PoolingArg,
    /// Take hidden states after N blocks, without the final norm; 0: what enters the first. Without it: after the last
    /// block and the final norm.
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// Scale vectors to a length of 1.
    #[arg(long)]
    normalize: bool,
    /// Only the first N elements, for models that are trained for it (Matryoshka).
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    dimensions: Option<u32>,
    #[command(flatten)]
    template: TemplateArgs,
    // Behind its own flags: a group's heading stands above all that follows.
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArg {
    /// Their mean.
    Mean,
    /// That of the last token.
    Last,
    /// That of the first token.
    Cls,
    /// Their mean, in which later tokens weigh more: the first one 1, the second one 2, ...
    Weighted,
}

/// The task: which hidden states are asked for, and the number of elements of a vector.
struct Embed(Hidden, usize);

/// Where the vectors of a table are written.
struct Sheet<'a> {
    table: &'a TableArgs,
    width: usize,
    vectors: Vectors,
}

enum Vectors {
    Lines(Lines),
    Npy(Npy),
    Tensors(Tensors),
}

pub(crate) fn execute(mut args: EmbedArgs, output: &OutputArgs) -> Result<(), Failure> {
    tasks::check(&args.table, &["embedding"], output)?;
    let prompts = tasks::prompts(&mut args.prompts, &args.table)?;
    let texts = tasks::texts(&prompts, &args.table);
    let setup = Setup::find(&args.model, &args.engine, texts, &args.template, output)?;
    let task = task(&args, &setup)?;
    let Some(input) = &args.table.input else {
        let json =
            |item: &Vec<u32>, found: Vec<f32>| json!({"token_ids": item, "embedding": numbers(&found)});
        let text = |_: &Vec<u32>, found: Vec<f32>| {
            let numbers: Vec<String> = found.iter().map(f32::to_string).collect();
            format!("{}\n", numbers.join(" "))
        };
        return setup.prompts(&task, &prompts, json, text);
    };
    check(&args.table, input)?;
    setup.table(task, input, &args.table, |task| Sheet::create(&args.table, input, task.1))
}

/// Refuses an output of a format that cannot be written.
fn check(table: &TableArgs, input: &Path) -> Result<(), Failure> {
    let ending = table.file().and_then(Path::extension).and_then(|e| e.to_str());
    match ending {
        Some("npy") if table.repeated().next().is_some() => Err(Failure::usage(
            "--key, --carry: a .npy file has no place for them; use .safetensors or .jsonl",
        )),
        Some("safetensors") if !table.carry.is_empty() => {
            Err(Failure::usage("--carry: a .safetensors file has no place for texts; use .jsonl or .parquet"))
        }
        Some("npy" | "safetensors") => Ok(()),
        _ => Lines::check(table.file(), table.result_format(input)?),
    }
}

/// The task as the flags describe it; an error if the model has no such layer or fewer elements.
fn task(args: &EmbedArgs, setup: &Setup<'_>) -> Result<Embed, Failure> {
    let (blocks, hidden) = (setup.files.spec().blocks.len(), setup.files.spec().hidden);
    if let Some(layer) = args.layer.filter(|layer| *layer > blocks) {
        return Err(Failure::usage(format!("--layer {layer}: this model has {blocks} blocks")));
    }
    let dimensions = args.dimensions.map(|n| n as usize);
    if let Some(n) = dimensions.filter(|n| *n > hidden) {
        return Err(Failure::usage(format!(
            "--dimensions {n}: vectors of this model have {hidden} elements"
        )));
    }
    let pooling = match args.pooling {
        PoolingArg::Mean => Pooling::Mean,
        PoolingArg::Last => Pooling::LastToken,
        PoolingArg::Cls => Pooling::Cls,
        PoolingArg::Weighted => Pooling::WeightedMean,
    };
    let layer = args.layer.map_or(Layer::Final, Layer::After);
    let wanted = Hidden { layer, pooling: Some(pooling), dimensions, normalize: args.normalize };
    Ok(Embed(wanted, dimensions.unwrap_or(hidden)))
}

impl Task for Embed {
    type Item = Vec<u32>;
    type Found = Vec<f32>;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        encoder.prompt(prompt)
    }

    fn requests(&self, item: &Vec<u32>) -> Vec<Request> {
        vec![Request { token_ids: item.clone(), want: Want::Hidden(self.0), ..Request::default() }]
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        need.add_tokens(tokens, 0, Want::Hidden(self.0));
    }

    fn result_bytes(&self, _tokens: usize) -> usize {
        self.1 * size_of::<f32>()
    }

    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>> {
        match outcome {
            Outcome::Hidden(vectors) => Some(packing::floats(vectors.into_iter().next()?)),
            _ => None,
        }
    }

    fn found(&self, parts: &[Vec<u8>]) -> Option<Vec<f32>> {
        packing::to_floats(parts.first()?).filter(|vector| vector.len() == self.1)
    }

    fn words(&self) -> String {
        format!("embed {:?}", self.0)
    }
}

impl Prompted for Embed {
    fn run(
        &self,
        engine: &mut Engine,
        items: &[Vec<u32>],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        engine.embed(items, self.0, watch)
    }
}

impl<'a> Sheet<'a> {
    fn create(table: &'a TableArgs, input: &Path, width: usize) -> Result<Self, Failure> {
        let path = table.file();
        let ending = path.and_then(|p| p.extension()).and_then(|e| e.to_str());
        let vectors = match (path, ending) {
            (Some(path), Some("npy")) => Vectors::Npy(Npy::create(path, width)?),
            (Some(path), Some("safetensors")) => {
                let mut tensors = Tensors::create(path, &[("task", "embed".to_owned())])?;
                tensors.rows(table)?;
                tensors.add("embeddings", "F32", 4, Some(width))?;
                tensors.texts(table)?;
                Vectors::Tensors(tensors)
            }
            _ => Vectors::Lines(Lines::create(path, table.result_format(input)?)?),
        };
        Ok(Self { table, width, vectors })
    }
}

impl Sink<Vec<f32>> for Sheet<'_> {
    fn give(&mut self, row: &Row, found: Option<Vec<f32>>) -> Result<(), Failure> {
        match (&mut self.vectors, found) {
            // So that row i is that of the input.
            (Vectors::Npy(npy), None) => npy.push(&vec![f32::NAN; self.width]),
            (Vectors::Npy(npy), Some(found)) => npy.push(&found),
            (_, None) => Ok(()),
            (Vectors::Lines(lines), Some(found)) => {
                let mut cells = tasks::first_cells(row, self.table);
                cells.push(("embedding", numbers(&found)));
                lines.write(&cells)
            }
            (Vectors::Tensors(tensors), Some(found)) => {
                tensors.row(row)?;
                tensors.push("embeddings", found.iter().flat_map(|v| v.to_le_bytes()))
            }
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self.vectors {
            Vectors::Lines(lines) => lines.finish(),
            Vectors::Npy(npy) => npy.finish(),
            Vectors::Tensors(tensors) => tensors.finish(),
        }
    }
}

fn numbers(vector: &[f32]) -> Value {
    vector.iter().copied().map(number).collect()
}
