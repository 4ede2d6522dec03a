//! `aerostat run`: answers to prompts.

use std::fmt::Write;

use aerostat::{Completion, Engine, ModelFiles, Request, Stats, Tokenizer, generate};
use clap::{Args, value_parser};
use serde::Serialize;

use crate::encode::{self, Encoder};
use crate::failure::Failure;
use crate::list::{self, Told};
use crate::options::{EngineArgs, GenerationArgs, MODEL_HELP};
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::watch::Watch;
use crate::{interrupt, model, output};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[arg(help = MODEL_HELP)]
    model: String,
    #[command(flatten)]
    prompts: Prompts,
    /// Answers to each prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=65_536))]
    n: u32,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Bytes of text that a token stands for, on average; a text's buffer is twice as large.
const TEXT_BYTES: usize = 8;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    results: &'a [Told<Completion>],
    stats: Stats,
}

pub(crate) fn execute(mut args: RunArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let prompts = std::mem::take(&mut args.prompts).or_stdin()?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::learning(options, &args.engine, &files);
    let options = model::drafting(options, &args.engine, &files, output)?;
    let options = model::keeping(options, &args.engine, &files, false)?;
    let texts = prompts.iter().any(|p| matches!(p, Prompt::Text(_)));
    let tokenizer = model::tokenizer(&files, texts || !args.generation.stop.is_empty(), output)?;
    let requests = requests(&args, &prompts, &files, tokenizer.as_ref(), output)?;
    let streams = requests.len() == 1 && !output.json;
    if args.generation.logprobs && !output.json {
        output::note(output, "--logprobs shows with --json only");
    }

    let _graceful = interrupt::graceful();
    let mut watch = Watch::new(output, streams);
    let mut need = generate::need(&requests);
    need.hold_results(requests.iter().map(held_bytes).sum());
    let mut engine = Engine::open(&files, &options, &need, &mut watch)?;
    output::opened(output, &engine.stats());
    let answers = engine.generate(&requests, tokenizer.as_ref(), &mut watch)?;
    watch.finish()?;
    let stats = engine.stats();
    let (results, end) = list::tell(answers.completions)?;
    if output.json {
        output::json(&Report { model: &args.model, results: &results, stats: stats.clone() })?;
    } else {
        output::text(&rest(&results, streams))?;
    }
    output::summary(output, &stats);
    if answers.interrupted { Err(Failure::Interrupted) } else { end }
}

/// Bytes that an answer takes at most: the tokens of the prompt and its own, its text, its log-probabilities.
fn held_bytes(request: &Request) -> u64 {
    let logprobs = request.top_logprobs.map_or(0, |_| 40);
    let each = (size_of::<u32>() + TEXT_BYTES + logprobs) * request.max_new_tokens;
    (each + size_of_val(&*request.token_ids)) as u64
}

/// One request for each answer to each prompt.
fn requests(
    args: &RunArgs,
    prompts: &[Prompt],
    files: &ModelFiles,
    tokenizer: Option<&Tokenizer>,
    output: &OutputArgs,
) -> Result<Vec<Request>, Failure> {
    let generation = &args.generation;
    let encoder = if prompts.iter().any(|p| matches!(p, Prompt::Text(_))) {
        Encoder::new(files, tokenizer, generation, output)?
    } else {
        Encoder::plain(tokenizer)
    };
    files.sampling_notes().iter().for_each(|text| output::note(output, text));
    let sampling = generation.sampling(files.sampling());
    let end_tokens = if generation.ignore_eos { Vec::new() } else { files.end_tokens(tokenizer) };
    let mut requests = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let token_ids = encoder.prompt(prompt)?;
        // Among several a bad one is refused alone, by the engine.
        if prompts.len() == 1 {
            files.check_tokens(i as u64, &token_ids)?;
        }
        let max_new_tokens =
            encode::answer_tokens_max(token_ids.len(), generation.max_new_tokens(), args.engine.context())?;
        let request = Request {
            token_ids,
            max_new_tokens,
            sampling: sampling.clone(),
            end_tokens: end_tokens.clone(),
            stop: generation.stop.clone(),
            top_logprobs: generation.logprobs.then_some(0),
            ..Request::default()
        };
        requests.extend((0..u64::from(args.n)).map(|stream| Request { stream, ..request.clone() }));
    }
    let prompt_tokens_max = requests.iter().map(|r| r.token_ids.len()).max().unwrap_or(0);
    let (tokens, context_max) = (prompt_tokens_max + generation.new_tokens_asked(), files.spec().context_max);
    if tokens > context_max {
        let message = format!("up to {tokens} tokens in a sequence; the model was made for {context_max}");
        output::note(output, &message);
    }
    Ok(requests)
}

/// What is left to print for people: all answers if there are several, token ids where there is no text.
fn rest(results: &[Told<Completion>], streamed: bool) -> String {
    let mut text = String::new();
    for completion in results.iter().filter_map(Told::found) {
        if streamed && completion.text.is_some() {
            continue;
        }
        if results.len() > 1 {
            let _ = write!(text, "[{}] ", completion.index);
        }
        match &completion.text {
            Some(answer) => text.push_str(answer),
            None => {
                let ids: Vec<String> = completion.token_ids.iter().map(u32::to_string).collect();
                text.push_str(&ids.join(","));
            }
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}
