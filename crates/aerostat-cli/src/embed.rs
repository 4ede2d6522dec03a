//! `aerostat embed`: pooled hidden states.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use aerostat::{Embedding, Engine, Error, Hidden, Layer, Need, Outcome, Pooling, Request, Want};
use clap::{Args, ValueEnum, value_parser};
use serde_json::json;

use crate::cell::Cell;
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::model::ModelName;
use crate::options::{EngineArgs, MODEL_HELP};
use crate::output::{self, OutputArgs};
use crate::packing;
use crate::prompts::{Prompt, Prompts};
use crate::results::{Lines, Npy, Tensors};
use crate::table::{Row, TableArgs};
use crate::tasks::{self, Prompted, Setup, Sink, Task};
use crate::template::TemplateArgs;
use crate::watch::Watch;

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    #[command(flatten)]
    prompts: Prompts,
    /// How the hidden states of a text become one vector. Without it: as the model's folder says, else by their mean.
    #[arg(long, value_name = "HOW")]
    pooling: Option<PoolingArg>,
    /// Put the text of this name before every text: one that the model's folder states, such as query or document.
    #[arg(long, value_name = "NAME", conflicts_with = "chat")]
    prompt_name: Option<String>,
    /// Take hidden states after N blocks, without the final norm; 0: what enters the first. Without it: after the last
    /// block and the final norm.
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// Scale vectors to a length of 1. That is done anyway unless the model's folder says otherwise, or --layer is given.
    #[arg(long)]
    normalize: bool,
    /// Leave vectors as long as they are.
    #[arg(long, conflicts_with = "normalize")]
    no_normalize: bool,
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
    /// The largest of each element.
    Max,
}

/// The task.
struct Embed {
    /// Which hidden states are asked for.
    wanted: Hidden,
    /// The number of elements of a vector.
    width: usize,
    embedding: Embedding,
    /// What is put before every text.
    prompt: String,
    /// Texts are made messages of a chat: they are no texts as the model's makers embed them.
    chat: bool,
    /// A text was cut, which was told.
    cut: AtomicBool,
    output: OutputArgs,
}

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
    let prompts = tasks::prompts(&mut args.prompts, &args.table, &args.engine)?;
    let texts = tasks::texts(&prompts, &args.table);
    let setup = Setup::find(&args.model, &args.engine, texts, &args.template, output)?;
    let task = task(&args, &setup, output)?;
    let Some(input) = &args.table.input else {
        let json = |item: &Vec<u32>, found: Vec<f32>| json!({"token_ids": item, "embedding": Cell::Floats(found, None)});
        let text = |_: &Vec<u32>, found: Vec<f32>| {
            let numbers: Vec<String> = found.iter().map(f32::to_string).collect();
            format!("{}\n", numbers.join(" "))
        };
        return setup.prompts(&task, &prompts, json, text);
    };
    check(&args.table, input)?;
    setup.table(task, input, &args.table, |task| Sheet::create(&args.table, input, task.width))
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
        _ => match (table.result_format(input), table.file()) {
            (Err(_), Some(file)) => {
                let known = ".npy, .safetensors, .parquet, .jsonl, .csv or .tsv (the last three also with .gz or .zst)";
                let name = file.display();
                Err(Failure::usage(format!("{name}: vectors cannot be written so; use {known}")))
            }
            (format, file) => Lines::check(file, format?),
        },
    }
}

/// The task as the flags describe it; an error if the model has no such layer or fewer elements.
fn task(args: &EmbedArgs, setup: &Setup<'_>, output: &OutputArgs) -> Result<Embed, Failure> {
    let embedding = setup.files.embedding()?;
    let blocks = setup.files.spec().blocks.len();
    let width = if args.layer.is_some() { setup.files.spec().hidden } else { embedding.width };
    if let Some(layer) = args.layer.filter(|layer| *layer > blocks) {
        return Err(Failure::usage(format!("--layer {layer}: this model has {blocks} blocks")));
    }
    let dimensions = args.dimensions.map(|n| n as usize);
    if let Some(n) = dimensions.filter(|n| *n > width) {
        return Err(Failure::usage(format!("--dimensions {n}: vectors of this model have {width} elements")));
    }
    let pooling = match args.pooling {
        None => embedding.pooling,
        Some(PoolingArg::Mean) => Pooling::Mean,
        Some(PoolingArg::Last) => Pooling::LastToken,
        Some(PoolingArg::Cls) => Pooling::Cls,
        Some(PoolingArg::Weighted) => Pooling::WeightedMean,
        Some(PoolingArg::Max) => Pooling::Max,
    };
    let layer = args.layer.map_or(Layer::Final, Layer::After);
    let usual = embedding.normalize && args.layer.is_none();
    let normalize = !args.no_normalize && (args.normalize || usual);
    let chat = args.template.is_chat();
    let prompt = if chat { "" } else { embedding.prompt(args.prompt_name.as_deref())? };
    Ok(Embed {
        wanted: Hidden { layer, pooling: Some(pooling), dimensions, normalize },
        width: dimensions.unwrap_or(width),
        prompt: prompt.to_owned(),
        embedding,
        chat,
        cut: AtomicBool::new(false),
        output: output.clone(),
    })
}

impl Task for Embed {
    type Item = Vec<u32>;
    type Found = Vec<f32>;

    fn item(&self, encoder: &Encoder<'_>, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        let (Prompt::Text(text), Some(tokenizer), false) = (prompt, encoder.tokenizer(), self.chat) else {
            return encoder.prompt(prompt);
        };
        if !self.embedding.cuts {
            return encoder.prompt(&Prompt::Text([self.prompt.as_str(), text].concat()));
        }
        let made = self.embedding.encode(tokenizer, &self.prompt, text)?;
        if made.cut > 0 && !self.cut.swap(true, Ordering::Relaxed) {
            let most = self.embedding.tokens_max;
            output::note(
                &self.output,
                &format!("texts of more than {most} tokens are cut, as the model's makers do"),
            );
        }
        Ok(made.token_ids)
    }

    fn requests(&self, item: &Vec<u32>) -> Vec<Request> {
        vec![Request { token_ids: item.clone(), want: Want::Hidden(self.wanted), ..Request::default() }]
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        need.add_tokens(tokens, 0, Want::Hidden(self.wanted));
    }

    fn result_bytes(&self, _tokens: usize) -> usize {
        self.width * size_of::<f32>()
    }

    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>> {
        match outcome {
            Outcome::Hidden(vectors) => Some(packing::floats(vectors.into_iter().next()?)),
            _ => None,
        }
    }

    fn found(&self, parts: &[Vec<u8>]) -> Option<Vec<f32>> {
        packing::to_floats(parts.first()?).filter(|vector| vector.len() == self.width)
    }

    fn words(&self) -> String {
        let Hidden { layer, pooling, dimensions, normalize } = self.wanted;
        let pooling =
            pooling.map_or_else(|| "none".to_owned(), |pooling| format!("{pooling:?}").to_lowercase());
        let dimensions = dimensions.map_or_else(|| "all".to_owned(), |count| count.to_string());
        let layer = format!("{layer:?}").to_lowercase();
        let prompt = &self.prompt;
        format!(
            "layer {layer}, pooling {pooling}, dimensions {dimensions}, normalize {normalize}, prompt {prompt:?}"
        )
    }
}

impl Prompted for Embed {
    fn run(
        &self,
        engine: &mut Engine,
        items: &[Vec<u32>],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        engine.embed(items, self.wanted, watch)
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
            _ => {
                let columns = tasks::columns(table, &["embedding"]);
                Vectors::Lines(Lines::create(path, table.result_format(input)?, &columns)?)
            }
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
                cells.push(("embedding", Cell::Floats(found, None)));
                lines.write(cells)
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
