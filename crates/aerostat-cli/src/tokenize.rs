//! `aerostat tokenize`: the token ids of a text.

use std::fmt::Write;
use std::io::{self, Read};
use std::path::Path;

use aerostat::{Tokenizer, Vocabulary};
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::output;
use crate::output::OutputArgs;

/// The longest text that is read from stdin, in bytes.
const STDIN_BYTES_MAX: u64 = 64 << 20;

/// What MODEL may be where a tokenizer is enough.
pub(crate) const VOCABULARY_HELP: &str = "A model, or a file of vocabulary alone: tokenizer.json, tokenizer.model, \
    tekken.json, *.tiktoken, vocab.json or *.gguf";

#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    #[arg(help = VOCABULARY_HELP)]
    model: ModelName,
    /// The text; without one, or as `-`, all of stdin, line ends included.
    text: Option<String>,
    /// Add none of the special tokens that the model wants around a text.
    #[arg(long)]
    no_special: bool,
    /// Show each token as the vocabulary writes it.
    #[arg(long)]
    pieces: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    token_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces: Option<Vec<Option<String>>>,
}

pub(crate) fn execute(args: TokenizeArgs, output: &OutputArgs) -> Result<(), Failure> {
    let (_, tokenizer) = vocabulary(&args.model, output)?;
    let text = match args.text {
        Some(text) if text != "-" => text,
        _ => stdin()?,
    };
    let token_ids = tokenizer.encode(&text, !args.no_special).map_err(aerostat::Error::from)?;
    let pieces: Vec<Option<String>> = match args.pieces {
        true => token_ids.iter().map(|id| tokenizer.token_text(*id)).collect(),
        false => Vec::new(),
    };
    if output.json {
        return output::json(&Report { token_ids, pieces: args.pieces.then_some(pieces) });
    }
    let mut lines = String::new();
    if args.pieces {
        for (id, piece) in token_ids.iter().zip(pieces) {
            let _ = writeln!(lines, "{id}\t{}", piece.as_deref().unwrap_or_default().escape_debug());
        }
    } else {
        let ids: Vec<String> = token_ids.iter().map(u32::to_string).collect();
        let _ = writeln!(lines, "{}", ids.join(","));
    }
    Ok(output::text(&lines)?)
}

/// The vocabulary of a model, or of a file that holds nothing else, and its tokenizer.
pub(crate) fn vocabulary(name: &ModelName, output: &OutputArgs) -> Result<(Vocabulary, Tokenizer), Failure> {
    let path = match Path::new(name) {
        path if path.exists() => path.to_owned(),
        _ => model::find(name, output)?,
    };
    let vocabulary = Vocabulary::open(&path)?;
    let tokenizer = vocabulary.tokenizer()?;
    let tokenizer =
        tokenizer.ok_or_else(|| Failure::failed(format!("{}: there is no tokenizer", path.display())))?;
    Ok((vocabulary, tokenizer))
}

/// All of stdin as it is.
pub(crate) fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().lock().take(STDIN_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format!("cannot read from stdin: {error}")))?;
    if text.len() as u64 > STDIN_BYTES_MAX {
        return Err(Failure::failed(format!("stdin is longer than {STDIN_BYTES_MAX} bytes")));
    }
    Ok(text)
}
