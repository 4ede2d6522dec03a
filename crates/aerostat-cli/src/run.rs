//! `aerostat run`: answers to prompts.

use std::fmt::Write;

use aerostat::{
    Completion, Engine, ErrorKind, FinishReason, ModelFiles, Need, Options, Parts, Request, Stats, Tokenizer,
    generate,
};
use aerostat_openai::Split;
use clap::{Args, value_parser};
use serde::Serialize;

use crate::encode::{Encoder, Room};
use crate::failure::Failure;
use crate::list::{self, Told};
use crate::model::{self, ModelName};
use crate::options::{ANSWER_TOKENS_DEFAULT, EngineArgs, GenerationArgs, MODEL_HELP, NEW_TOKENS_DEFAULT};
use crate::output::OutputArgs;
use crate::prompts::{Prompt, Prompts};
use crate::watch::Watch;
use crate::{interrupt, output};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
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
    let prompts = std::mem::take(&mut args.prompts).with_stdin(args.engine.memory(), output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::of_model(options, &args.engine, &files);
    let options = model::drafting(options, &args.engine, &files, output)?;
    let options = model::keeping(options, &args.engine, &files, false)?;
    let texts = prompts.iter().any(|p| matches!(p, Prompt::Text(_)));
    let tokenizer = model::tokenizer(&files, texts || !args.generation.stop.is_empty(), output)?;
    let room = Room::new(args.engine.context(), files.spec().context_max);
    let (mut requests, split) = requests(&args, &prompts, &files, tokenizer.as_ref(), room, output)?;
    let streams = requests.len() == 1 && !output.json;
    if args.generation.logprobs && !output.json {
        output::note(output, "--logprobs shows with --json only");
    }

    let _graceful = interrupt::graceful();
    let mut watch = Watch::new(output, streams).dimming(split);
    let bound = args.generation.max_new_tokens().is_some() || args.engine.context().is_some();
    let mut engine = open(&files, &options, &mut requests, bound, &mut watch)?;
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
    tell_cuts(&results, room, output);
    output::summary(output, &stats);
    if answers.interrupted { Err(Failure::Interrupted) } else { end }
}

/// An engine for the requests. Where it has no room for them and nobody asked for answers as long as theirs, they are made
/// shorter; the process is measured once, before it took anything for a plan.
fn open(
    files: &ModelFiles,
    options: &Options,
    requests: &mut [Request],
    bound: bool,
    watch: &mut Watch<'_>,
) -> Result<Engine, Failure> {
    let (mut wanted, parts) = (need(requests), Parts::of(files, options)?);
    let mut plan = Engine::plan_with(files, options, &wanted, &parts);
    if !bound && plan.as_ref().is_err_and(|e| e.kind() == ErrorKind::Budget) {
        requests.iter_mut().for_each(|r| r.max_new_tokens = r.max_new_tokens.min(NEW_TOKENS_DEFAULT));
        wanted = need(requests);
        plan = Engine::plan_with(files, options, &wanted, &parts);
    }
    Ok(Engine::open_planned(files, options, (&wanted, plan?), parts, watch)?)
}

/// What an engine must have room for.
fn need(requests: &[Request]) -> Need {
    let mut need = generate::need(requests);
    need.hold_results(requests.iter().map(held_bytes).sum());
    need
}

/// Bytes that an answer takes at most: the tokens of the prompt and its own, its text, its log-probabilities.
fn held_bytes(request: &Request) -> u64 {
    let logprobs = request.top_logprobs.map_or(0, |_| 40);
    let each = (size_of::<u32>() + TEXT_BYTES + logprobs) * request.max_new_tokens;
    (each + size_of_val(&*request.token_ids)) as u64
}

/// Says which answers were cut, and why.
fn tell_cuts(results: &[Told<Completion>], room: Room, output: &OutputArgs) {
    let asked =
        |answer: &Completion| !answer.token_ids.is_empty() || answer.prompt_token_ids.len() == room.tokens();
    let cut = |answer: &&Completion| answer.finish_reason == FinishReason::Length && asked(answer);
    for answer in results.iter().filter_map(Told::found).filter(cut) {
        let why = room.cut(answer.prompt_token_ids.len(), answer.token_ids.len());
        match results.len() {
            1 => output::note(output, &why),
            _ => output::note(output, &format!("answer {}: {why}", answer.index)),
        }
    }
}

/// One request for each answer to each prompt, and how an answer is taken apart if it is the only one.
fn requests(
    args: &RunArgs,
    prompts: &[Prompt],
    files: &ModelFiles,
    tokenizer: Option<&Tokenizer>,
    room: Room,
    output: &OutputArgs,
) -> Result<(Vec<Request>, Option<Split>), Failure> {
    let generation = &args.generation;
    let encoder = if prompts.iter().any(|p| matches!(p, Prompt::Text(_))) {
        Encoder::new(files, tokenizer, generation, output)?
    } else {
        Encoder::plain(tokenizer)
    };
    let encoder = encoder.within(room.tokens());
    files.sampling_notes().iter().for_each(|text| output::note(output, text));
    let sampling = generation.sampling(files.sampling());
    if args.n > 1 && sampling.temperature == 0.0 {
        output::note(
            output,
            "at temperature 0 all answers to a prompt are the same: --temperature 1 makes them differ",
        );
    }
    let most = files.answer_tokens().unwrap_or(ANSWER_TOKENS_DEFAULT);
    let end_tokens = if generation.ignore_eos { Vec::new() } else { files.end_tokens(tokenizer) };
    let mut requests = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let token_ids = encoder.prompt(prompt)?;
        // Among several a bad one is refused alone, by the engine.
        if prompts.len() == 1 {
            files.check_tokens(i as u64, &token_ids)?;
        }
        let max_new_tokens = room.answer(token_ids.len(), generation.max_new_tokens(), most)?;
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
    let tokens = requests.iter().map(|r| r.token_ids.len() + r.max_new_tokens).max().unwrap_or(0);
    let context_max = files.spec().context_max;
    if tokens > context_max {
        let message = format!("up to {tokens} tokens in a sequence; the model was made for {context_max}");
        output::note(output, &message);
    }
    let split = prompts.first().filter(|_| requests.len() == 1).and_then(|prompt| encoder.split_of(prompt));
    Ok((requests, split))
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
