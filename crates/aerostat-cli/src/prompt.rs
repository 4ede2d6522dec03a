//! `aerostat prompt`: what a model sees of a conversation.

use std::path::{Path, PathBuf};

use aerostat::Message;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::model::ModelName;
use crate::output::{self, OutputArgs};
use crate::small_file;
use crate::tokenize::{VOCABULARY_HELP, stdin, vocabulary};

/// The size of a file of messages beyond which it is not read.
const MESSAGES_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    #[arg(help = VOCABULARY_HELP)]
    model: ModelName,
    /// A JSON file with the messages, a list or an object with `messages` and variables beside them; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    messages: PathBuf,
    /// Variables of the template, a JSON object, such as '{"enable_thinking": false}'.
    #[arg(long, value_name = "JSON")]
    kwargs: Option<String>,
    /// Leave out what asks for an answer.
    #[arg(long)]
    no_generation_prompt: bool,
    /// The chat template of that name, of a model that has several.
    #[arg(long, value_name = "NAME")]
    template_name: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    text: String,
    token_ids: Vec<u32>,
}

pub(crate) fn execute(args: &PromptArgs, output: &OutputArgs) -> Result<(), Failure> {
    let (messages, mut variables) = messages(&args.messages)?;
    if let Some(kwargs) = &args.kwargs {
        let kwargs: Map<String, Value> = serde_json::from_str(kwargs)
            .map_err(|error| Failure::usage(format!("--kwargs is not a JSON object: {error}")))?;
        variables.extend(kwargs);
    }
    let (vocabulary, tokenizer) = vocabulary(&args.model, output)?;
    let template = vocabulary.chat_template(Some(&tokenizer), args.template_name.as_deref())?;
    let template = template.ok_or_else(|| {
        Failure::failed(format!("{}: the model has no chat template", vocabulary.path().display()))
    })?;
    let text = template.render(&messages, !args.no_generation_prompt, variables);
    let text = text.map_err(aerostat::Error::from)?;
    if !output.json {
        return Ok(output::text(&text)?);
    }
    // The template writes the special tokens out.
    let token_ids = tokenizer.encode(&text, false).map_err(aerostat::Error::from)?;
    output::json(&Report { text, token_ids })
}

/// The messages of a file, and what is beside them: variables of the template, such as `tools`.
fn messages(file: &Path) -> Result<(Vec<Message>, Map<String, Value>), Failure> {
    let name = file.display();
    let text = match file.as_os_str() == "-" {
        true => stdin()?,
        false => small_file::read(file, MESSAGES_BYTES_MAX)
            .map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?,
    };
    let wrong =
        |error: serde_json::Error| Failure::failed(format!("{name}: not a list of messages: {error}"));
    let mut variables = Map::new();
    let list = match serde_json::from_str(&text).map_err(wrong)? {
        Value::Object(mut members) => {
            let list = members.remove("messages").unwrap_or_default();
            variables = members;
            list
        }
        list => list,
    };
    Ok((serde_json::from_value(list).map_err(wrong)?, variables))
}
