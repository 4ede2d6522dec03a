//! `aerostat chat`: answers in turns, each from the whole conversation.

mod commands;
mod input;
mod talk;

use aerostat::{
    Completion, Engine, Error, FinishReason, Hook, Message, ModelFiles, Need, Request, SharedHook, Stats,
    Tokenizer,
};
use clap::Args;
use serde::Serialize;

use self::commands::Command;
use self::input::{Input, Typed};
use self::talk::Talk;
use crate::encode::{Encoder, NO_SWITCH, Room};
use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::{ANSWER_TOKENS_DEFAULT, EngineArgs, GenerationArgs, MODEL_HELP};
use crate::output::{OutputArgs, note, tell};
use crate::watch::Watch;
use crate::{interrupt, output, terminal};

/// Unless the user names another: the KV cache is allocated for all of it.
const CONTEXT_DEFAULT: usize = 4096;
const WELCOME: &str = "/help shows the commands, Ctrl-D ends";

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
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
    output: &'a OutputArgs,
    files: &'a ModelFiles,
    tokenizer: &'a Tokenizer,
    encoder: Encoder<'a>,
    engine: Engine,
    /// As the flags were, and as they were changed since.
    generation: GenerationArgs,
    context: usize,
    talk: Talk,
    /// With `--json` only.
    results: Vec<Completion>,
}

pub(crate) fn execute(args: &ChatArgs, output: &OutputArgs) -> Result<(), Failure> {
    let options = args.engine.options(output)?;
    // What is typed while the model is read is for the first prompt.
    let _hushed = terminal::attended().then(terminal::hush);
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    let options = model::of_model(options, &args.engine, &files);
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
    files.sampling_notes().iter().for_each(|text| note(output, text));
    let mut chat = Chat {
        output,
        files: &files,
        tokenizer: &tokenizer,
        talk: Talk::new(encoder.opening()),
        encoder: encoder.within(context),
        engine,
        generation: args.generation.clone(),
        context,
        results: Vec::new(),
    };
    let end = chat.turns();
    if matches!(end, Ok(()) | Err(Failure::Interrupted)) {
        chat.report(&args.model)?;
    }
    end
}

impl Chat<'_> {
    /// Until the end of what is typed, or `/exit`.
    fn turns(&mut self) -> Result<(), Failure> {
        let mut input = Input::new(self.output)?;
        let attended = input.attended();
        if attended && !self.output.quiet {
            tell!("{WELCOME}");
        }
        let mut interrupts = 0;
        loop {
            let text = match input.next()? {
                Typed::End => return Ok(()),
                Typed::Interrupt if interrupts > 0 => return Err(Failure::Interrupted),
                Typed::Interrupt => {
                    interrupts += 1;
                    tell!("Ctrl-C again ends the chat");
                    continue;
                }
                Typed::Text(text) => text,
            };
            interrupts = 0;
            if attended {
                // One that came when an answer had just ended is not about the next one.
                interrupt::forgive();
            }
            let done = match commands::parse(text.trim_end()) {
                None if text.trim().is_empty() => Ok(()),
                None => self.turn(text.trim(), attended),
                Some(Ok(Command::Exit)) => return Ok(()),
                Some(Ok(command)) => self.command(command),
                Some(Err(message)) => Err(Failure::Usage(message)),
            };
            match done {
                // What cannot be done is no reason to end a conversation that goes on.
                Err(failure @ (Failure::Usage(_) | Failure::Failed(_))) if attended => failure.report(),
                other => other?,
            }
        }
    }

    fn command(&mut self, command: Command<'_>) -> Result<(), Failure> {
        match command {
            Command::Help => tell!("{}", commands::help()),
            Command::Reset => self.talk.reset(),
            Command::System(text) => self.talk.set_system(text),
            Command::Think(think) => {
                self.generation.set_think(think);
                self.encoder.tell(self.generation.variables());
                if think.is_some() && !self.encoder.has_switch() {
                    note(self.output, NO_SWITCH);
                }
            }
            Command::Show => {
                tell!("{}", self.generation.settings(self.files.sampling(), self.answer_tokens()))
            }
            Command::Set(name, value) => {
                self.generation.set(name, value).map_err(|e| Failure::Usage(format!("/set {name}: {e}")))?;
            }
            Command::Save(file) => {
                self.talk.save(file)?;
                note(self.output, &format!("{} messages to {file}", self.talk.whole().len()));
            }
            Command::Load(file) => {
                self.talk = Talk::load(file)?;
                note(self.output, &format!("{} messages from {file}", self.talk.messages.len()));
            }
            Command::Exit => {}
        }
        Ok(())
    }

    /// One message and its answer. If it cannot be answered, the conversation is what it was.
    fn turn(&mut self, text: &str, attended: bool) -> Result<(), Failure> {
        let before = self.talk.clone();
        self.talk.messages.push(Message::new("user", text));
        match self.answer() {
            // Ctrl-C is about the answer, unless nobody is there to go on.
            Err(Failure::Interrupted) if attended && interrupt::forgive() => {
                note(self.output, "stopped");
                Ok(())
            }
            Err(Failure::Interrupted) => Err(Failure::Interrupted),
            Err(failure) => {
                self.talk = before;
                Err(failure)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Tokens of an answer at most, where the context has room for them.
    fn answer_tokens(&self) -> usize {
        let most = || self.files.answer_tokens().unwrap_or(ANSWER_TOKENS_DEFAULT);
        self.generation.max_new_tokens().unwrap_or_else(most)
    }

    /// The tokens of the conversation. Where it leaves an answer too little room, its oldest turns are dropped: so many that the
    /// rest fills half of the context, since what follows a gap is computed anew.
    fn fitted(&mut self) -> Result<Vec<u32>, Failure> {
        let room = self.context - self.answer_tokens().clamp(1, (self.context / 4).max(1)).min(self.context);
        let (mut talk, before) = (self.talk.clone(), self.talk.messages.len());
        let mut most = room;
        loop {
            let tokens = self.encoder.messages(&talk.messages);
            let fits = tokens.as_ref().is_ok_and(|tokens| tokens.len() <= most);
            let less = if fits { None } else { talk.without_oldest() };
            match (less, tokens) {
                (Some(less), Ok(_) | Err(Failure::Usage(_))) => {
                    (talk, most) = (less, room.min(self.context / 2))
                }
                // The last message stands alone: it may take what it needs.
                (_, Ok(tokens)) if tokens.len() < self.context => {
                    let dropped = before - talk.messages.len();
                    if dropped > 0 {
                        let context = self.context;
                        note(
                            self.output,
                            &format!(
                                "the conversation is longer than its context of {context} tokens: the oldest {dropped} messages are dropped; --context makes room for more"
                            ),
                        );
                    }
                    self.talk = talk;
                    return Ok(tokens);
                }
                (_, Ok(tokens)) => {
                    let message = format!(
                        "the message takes {} tokens, and leaves no room for an answer in a context of {}; raise --context",
                        tokens.len(),
                        self.context
                    );
                    return Err(Failure::usage(message));
                }
                (_, Err(failure)) => return Err(failure),
            }
        }
    }

    fn answer(&mut self) -> Result<(), Failure> {
        let token_ids = self.fitted()?;
        self.files.check_tokens(0, &token_ids)?;
        let (room, prompt_tokens) = (Room::new(Some(self.context), self.context), token_ids.len());
        let generation = &self.generation;
        let max_new_tokens = room.answer(prompt_tokens, generation.max_new_tokens(), self.answer_tokens())?;
        let ends =
            if generation.ignore_eos { Vec::new() } else { self.files.end_tokens(Some(self.tokenizer)) };
        let request = Request {
            token_ids,
            max_new_tokens,
            sampling: generation.sampling(self.files.sampling()),
            end_tokens: ends,
            stop: generation.stop.clone(),
            top_logprobs: generation.logprobs.then_some(0),
            hook: Some(SharedHook::new(Stops)),
            ..Request::default()
        };
        let split = self.encoder.split(&self.talk.messages);
        let _graceful = interrupt::graceful();
        let mut watch = Watch::new(self.output, !self.output.json).dimming(split).patient();
        let answers = self.engine.generate(&[request], Some(self.tokenizer), &mut watch)?;
        watch.finish()?;
        let stopped = answers.interrupted || interrupt::requested();
        for completion in answers.completions {
            let completion = completion?;
            if !stopped && completion.finish_reason == FinishReason::Length && max_new_tokens > 0 {
                note(self.output, &room.cut(prompt_tokens, completion.token_ids.len()));
            }
            self.talk.answered(completion.text.as_deref().unwrap_or_default(), split);
            if self.output.json {
                self.results.push(Completion { index: self.results.len(), ..completion });
            }
        }
        if stopped { Err(Failure::Interrupted) } else { Ok(()) }
    }

    fn report(&self, model: &str) -> Result<(), Failure> {
        let stats = self.engine.stats();
        output::summary(self.output, &stats);
        if self.output.json {
            let (messages, results) = (&*self.talk.whole(), &*self.results);
            output::json(&Report { model, messages, results, stats })?;
        }
        Ok(())
    }
}

/// Ends an answer after Ctrl-C where a sweep ends, so that nothing computed is lost to the next one.
struct Stops;

impl Hook for Stops {
    fn stops(&mut self, _: &[u32]) -> Result<bool, Error> {
        Ok(interrupt::requested())
    }
}
