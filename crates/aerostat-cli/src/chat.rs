//! `aerostat chat`: answers in turns, each from the whole conversation.

use std::io::{self, BufRead, IsTerminal, Read};

use aerostat::{
    Completion, Engine, FinishReason, Message, ModelFiles, Need, Request, Sampling, Stats, Tokenizer,
};
use clap::Args;
use serde::Serialize;

use crate::encode::{Encoder, Room};
use crate::failure::Failure;
use crate::options::{ANSWER_TOKENS_DEFAULT, EngineArgs, GenerationArgs, MODEL_HELP};
use crate::output::{OutputArgs, tell};
use crate::watch::Watch;
use crate::{interrupt, model, output};

/// Unless the user names another: the KV cache is allocated for all of it.
const CONTEXT_DEFAULT: usize = 4096;
/// The longest line that is read.
const LINE_BYTES_MAX: u64 = 16 << 20;
const HELP: &str = "/reset forgets the conversation, /exit or Ctrl-D ends it";

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[arg(help = MODEL_HELP)]
    model: String,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    messages: &'a [Message],
    results: &'a [Completion],
    stats: Stats,
}

/// A conversation.
struct Chat<'a> {
    args: &'a ChatArgs,
    output: &'a OutputArgs,
    files: &'a ModelFiles,
    tokenizer: &'a Tokenizer,
    encoder: Encoder<'a>,
    engine: Engine,
    sampling: Sampling,
    end_tokens: Vec<u32>,
    context: usize,
    messages: Vec<Message>,
    /// With `--json` only.
    results: Vec<Completion>,
}

pub(crate) fn execute(args: &ChatArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::learning(options, &args.engine, &files);
    let options = model::drafting(options, &args.engine, &files, output)?;
    let options = model::keeping(options, &args.engine, &files, true)?;
    let Some(tokenizer) = model::tokenizer(&files, true, output)? else { return Ok(()) };
    let encoder = Encoder::new(&files, Some(&tokenizer), &args.generation, output)?;
    let context = args.engine.context().unwrap_or(files.spec().context_max.min(CONTEXT_DEFAULT));
    let engine = {
        let _graceful = interrupt::graceful();
        Engine::open(&files, &options, &Need::one(context), &mut Watch::new(output, false))?
    };
    interrupt::check()?;
    output::opened(output, &engine.stats());
    files.sampling_notes().iter().for_each(|text| output::note(output, text));
    let generation = &args.generation;
    let mut chat = Chat {
        args,
        output,
        files: &files,
        tokenizer: &tokenizer,
        messages: encoder.opening(),
        encoder,
        engine,
        sampling: generation.sampling(files.sampling()),
        end_tokens: if generation.ignore_eos { Vec::new() } else { files.end_tokens(Some(&tokenizer)) },
        context,
        results: Vec::new(),
    };
    let end = chat.turns();
    if matches!(end, Ok(()) | Err(Failure::Interrupted)) {
        chat.report()?;
    }
    end
}

impl Chat<'_> {
    /// Until the end of stdin, or `/exit`.
    fn turns(&mut self) -> Result<(), Failure> {
        let interactive = io::stdin().is_terminal();
        if interactive && !self.output.quiet {
            tell!("{HELP}");
        }
        while let Some(line) = read_line(interactive)? {
            match line.trim() {
                "" => {}
                "/exit" => break,
                "/reset" => self.messages = self.encoder.opening(),
                "/help" => tell!("{HELP}"),
                text => match self.turn(text) {
                    // A message that does not fit is no reason to end a conversation that goes on.
                    Err(Failure::Usage(message)) if interactive => tell!("error: {message}"),
                    other => other?,
                },
            }
        }
        Ok(())
    }

    /// One message and its answer. If it cannot be answered, the conversation is what it was.
    fn turn(&mut self, text: &str) -> Result<(), Failure> {
        let turns = self.messages.len();
        self.messages.push(Message::new("user", text));
        let result = self.answer();
        match &result {
            Ok(answer) => self.messages.push(Message::new("assistant", answer.as_str())),
            Err(Failure::Interrupted) => {}
            Err(_) => self.messages.truncate(turns),
        }
        result.map(drop)
    }

    fn answer(&mut self) -> Result<String, Failure> {
        let token_ids = self.encoder.messages(&self.messages)?;
        self.files.check_tokens(0, &token_ids)?;
        let generation = &self.args.generation;
        let (room, prompt_tokens) = (Room::new(Some(self.context), self.context), token_ids.len());
        if prompt_tokens >= self.context {
            let message = format!(
                "the conversation of {prompt_tokens} tokens fills the context of {}; /reset it, or raise --context",
                self.context
            );
            return Err(Failure::usage(message));
        }
        let most = self.files.answer_tokens().unwrap_or(ANSWER_TOKENS_DEFAULT);
        let max_new_tokens = room.answer(prompt_tokens, generation.max_new_tokens(), most)?;
        let request = Request {
            token_ids,
            max_new_tokens,
            sampling: self.sampling.clone(),
            end_tokens: self.end_tokens.clone(),
            stop: generation.stop.clone(),
            top_logprobs: generation.logprobs.then_some(0),
            ..Request::default()
        };
        let _graceful = interrupt::graceful();
        let mut watch = Watch::new(self.output, !self.output.json);
        let answers = self.engine.generate(&[request], Some(self.tokenizer), &mut watch)?;
        watch.finish()?;
        let mut text = String::new();
        for completion in answers.completions {
            let completion = completion?;
            text.push_str(completion.text.as_deref().unwrap_or_default());
            if completion.finish_reason == FinishReason::Length && max_new_tokens > 0 {
                output::note(self.output, &room.cut(prompt_tokens, completion.token_ids.len()));
            }
            if self.output.json {
                self.results.push(Completion { index: self.results.len(), ..completion });
            }
        }
        if answers.interrupted {
            self.messages.push(Message::new("assistant", text.as_str()));
            return Err(Failure::Interrupted);
        }
        interrupt::check()?;
        Ok(text)
    }

    fn report(&self) -> Result<(), Failure> {
        let stats = self.engine.stats();
        output::summary(self.output, &stats);
        if self.output.json {
            let (messages, results) = (&self.messages, &self.results);
            output::json(&Report { model: &self.args.model, messages, results, stats })?;
        }
        Ok(())
    }
}

/// The next line of stdin; `None` at its end.
fn read_line(interactive: bool) -> Result<Option<String>, Failure> {
    if interactive {
        output::stderr(format_args!("> "));
    }
    let mut line = String::new();
    let read = io::stdin().lock().take(LINE_BYTES_MAX + 1).read_line(&mut line);
    match read.map_err(|e| Failure::failed(format!("cannot read from stdin: {e}")))? {
        0 => {
            if interactive {
                tell!("");
            }
            Ok(None)
        }
        n if n as u64 > LINE_BYTES_MAX => {
            Err(Failure::failed(format!("a line of stdin is longer than {LINE_BYTES_MAX} bytes")))
        }
        _ => Ok(Some(line)),
    }
}
