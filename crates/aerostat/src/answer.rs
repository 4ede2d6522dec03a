//! An answer in the making: tokens, text, log-probabilities.

use std::fmt;

use aerostat_text::{Detokenizer, Stops, Tokenizer};

use crate::hook::SharedHook;
use crate::observe::{Observer, Silent};
use crate::request::{Completion, Constraint, FinishReason, Gained, Request, StopReason, TokenLogprobs};
use crate::rules::Place;
use crate::sampler::{Choice, Sampler, token_logprobs};
use crate::{Error, Sampling};

/// An answer in the making. Its tokens follow the prompt's in the sequence.
#[derive(Debug)]
pub(crate) struct Answer<'t> {
    prompt: usize,
    max_new_tokens: usize,
    sampling: Sampling,
    stream: u64,
    /// Tokens that end it, unless they are ignored, then those that end it in any case.
    ends: Vec<u32>,
    /// How many of `ends` are the first kind.
    end_tokens: usize,
    ignore_eos: bool,
    include_stop: bool,
    top_logprobs: Option<usize>,
    prompt_logprobs: Option<PromptLogprobs>,
    constraint: Option<Box<dyn Constraint>>,
    hook: Option<SharedHook>,
    /// Of the first tokens of the answer, if wanted: those of forced tokens come a sweep later than they.
    logprobs: Vec<TokenLogprobs>,
    text: Option<Text<'t>>,
    reason: Option<FinishReason>,
    stop_reason: Option<StopReason>,
    /// Tokens that were told of.
    told: usize,
}

/// Log-probabilities of the prompt's tokens but the first, as far as they are known.
#[derive(Debug)]
struct PromptLogprobs {
    top: usize,
    known: Vec<TokenLogprobs>,
}

/// Its text.
struct Text<'t> {
    detokenizer: Detokenizer<'t>,
    stops: Stops,
    shown: String,
}

impl<'t> Answer<'t> {
    /// There is a grammar to it.
    pub(crate) fn constrained(&self) -> bool {
        self.constraint.is_some()
    }

    /// The tokens of the prompt and of the answer so far, and the answer.
    pub(crate) fn new(
        request: Request,
        tokenizer: Option<&'t Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<u32>, Self), Error> {
        let text = tokenizer.map(|t| Text {
            detokenizer: t.stream(!request.keep_special_tokens),
            stops: match request.include_stop {
                true => Stops::new(request.stop).including(),
                false => Stops::new(request.stop),
            },
            shown: String::new(),
        });
        let prompt_logprobs = request.prompt_logprobs.map(|top| PromptLogprobs { top, known: Vec::new() });
        let mut tokens = request.token_ids;
        let mut answer = Self {
            prompt: tokens.len(),
            max_new_tokens: request.max_new_tokens,
            sampling: request.sampling,
            stream: request.stream,
            end_tokens: request.end_tokens.len(),
            ends: [request.end_tokens, request.stop_token_ids].concat(),
            ignore_eos: request.ignore_eos,
            include_stop: request.include_stop,
            top_logprobs: request.top_logprobs,
            prompt_logprobs,
            constraint: request.constraint,
            hook: request.hook,
            logprobs: request.resumed_logprobs,
            text,
            reason: (request.max_new_tokens == 0).then_some(FinishReason::Length),
            stop_reason: None,
            told: request.resumed.len(),
        };
        answer.logprobs.truncate(answer.top_logprobs.map_or(0, |_| request.resumed.len()));
        for token in request.resumed {
            if answer.ended() {
                break;
            }
            answer.push(request.id, &mut tokens, token, &mut Silent)?;
        }
        if answer.constraint.as_ref().is_some_and(|c| c.ended()) {
            answer.reason.get_or_insert(FinishReason::Stop);
        }
        answer.push_forced(request.id, &mut tokens, observer)?;
        Ok((tokens, answer))
    }

    pub(crate) fn ended(&self) -> bool {
        self.reason.is_some()
    }

    /// It has ended, and all that is wanted of it is known.
    pub(crate) fn complete(&self, tokens: usize) -> bool {
        self.ended() && self.known(tokens) == tokens && self.prompt_known().is_none()
    }

    /// Tokens of the prompt whose log-probabilities are known, while some are missing.
    fn prompt_known(&self) -> Option<usize> {
        self.prompt_logprobs.as_ref().map(|p| p.known.len()).filter(|known| known + 1 < self.prompt)
    }

    /// How many of its tokens have what is wanted with them.
    fn known(&self, tokens: usize) -> usize {
        if self.top_logprobs.is_some() { self.logprobs.len() } else { tokens }
    }

    /// The first position whose logits are needed, of a sequence of `tokens`.
    pub(crate) fn logits_from(&self, tokens: usize) -> usize {
        let answer = match self.top_logprobs {
            Some(_) => self.prompt - 1 + self.logprobs.len(),
            None => tokens - 1,
        };
        self.prompt_known().map_or(answer, |known| known.min(answer))
    }

    /// Takes the logits after `position`: of the last one, to choose the next token.
    pub(crate) fn take_logits(
        &mut self,
        id: u64,
        tokens: &mut Vec<u32>,
        position: usize,
        logits: &[f32],
        sampler: &mut Sampler,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        if position + 1 < self.prompt {
            self.take_prompt(tokens, position, logits, sampler);
            return Ok(());
        }
        // Rows whose logits were taken in an earlier run come again where those of the prompt are wanted.
        let is_new = position + 1 == self.prompt + self.logprobs.len();
        let chooses = position + 1 == tokens.len() && !self.ended();
        if chooses {
            if let Some(hook) = &self.hook {
                hook.lock().logits(position, logits)?;
            }
            let token = self.choose(tokens, logits, sampler)?;
            self.push(id, tokens, token, observer)?;
            self.ask_hook(tokens)?;
        }
        if let (Some(top), Some(&token), true) = (self.top_logprobs, tokens.get(position + 1), is_new) {
            self.logprobs.push(token_logprobs(logits, token, top, sampler));
        }
        if chooses { self.push_forced(id, tokens, observer) } else { Ok(()) }
    }

    /// Takes the logits of a row of the prompt, if nobody has.
    fn take_prompt(&mut self, tokens: &[u32], position: usize, logits: &[f32], sampler: &mut Sampler) {
        if let (Some(prompt), Some(&token)) = (&mut self.prompt_logprobs, tokens.get(position + 1))
            && prompt.known.len() == position
        {
            prompt.known.push(token_logprobs(logits, token, prompt.top, sampler));
        }
    }

    /// The token that comes next.
    fn choose(&mut self, tokens: &[u32], logits: &[f32], sampler: &mut Sampler) -> Result<u32, Error> {
        let place = Place {
            tokens,
            prompt: self.prompt,
            last: tokens.len() + 1 - self.prompt >= self.max_new_tokens,
            ends: &self.ends,
            constrained: self.constraint.is_some(),
        };
        let choice =
            Choice { place, sampling: &self.sampling, stream: self.stream, hook: self.hook.as_ref() };
        sampler.choose(logits, &choice, self.constraint.as_deref_mut())
    }

    /// The token that would come next by other logits, leaving out what the grammar and the hook say, and the temperature.
    pub(crate) fn draw(&self, tokens: &[u32], logits: &[f32], sampler: &mut Sampler) -> (Option<u32>, f32) {
        let place = self.place(tokens);
        let choice = Choice { place, sampling: &self.sampling, stream: self.stream, hook: None };
        let temperature = self.sampling.temperature;
        let token = sampler.choose(logits, &choice, None).ok();
        (token, if temperature > 0.0 { temperature } else { 1.0 })
    }

    /// Where the token after `tokens` is chosen.
    fn place<'a>(&'a self, tokens: &'a [u32]) -> Place<'a> {
        Place {
            tokens,
            prompt: self.prompt,
            last: tokens.len() + 1 - self.prompt >= self.max_new_tokens,
            ends: &self.ends,
            constrained: self.constraint.is_some(),
        }
    }

    /// Lets the hook end the answer.
    fn ask_hook(&mut self, tokens: &[u32]) -> Result<(), Error> {
        if let Some(hook) = &self.hook
            && hook.lock().stops(tokens)?
        {
            self.reason.get_or_insert(FinishReason::Stop);
        }
        Ok(())
    }

    /// Takes what the grammar says must follow.
    fn push_forced(
        &mut self,
        id: u64,
        tokens: &mut Vec<u32>,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        while !self.ended() {
            let forced = self.constraint.as_mut().map_or(Ok(Vec::new()), |c| c.forced())?;
            if forced.is_empty() {
                break;
            }
            for token in forced {
                if !self.ended() {
                    self.push(id, tokens, token, observer)?;
                    self.ask_hook(tokens)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the next token.
    fn push(
        &mut self,
        id: u64,
        tokens: &mut Vec<u32>,
        token: u32,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        tokens.push(token);
        let count = tokens.len() - self.prompt;
        let mut stops = self.ends_with(token, count);
        let short = self.sampling.rules.min_tokens;
        if !stops {
            let text = self.text.as_mut();
            if text.is_some_and(|t| t.push(id as usize, token, observer, count > short)) {
                stops = true;
                let hit = self.text.as_ref().and_then(|t| t.stops.hit());
                self.stop_reason = hit.map(|stop| StopReason::Text(stop.to_owned()));
            }
            if let Some(constraint) = &mut self.constraint {
                constraint.accept(token)?;
                stops |= constraint.ended();
            }
        } else if let Some(text) = self.text.as_mut().filter(|_| self.include_stop) {
            text.push(id as usize, token, observer, false);
        }
        if stops {
            self.reason = Some(FinishReason::Stop);
        } else if count >= self.max_new_tokens {
            self.reason = Some(FinishReason::Length);
        }
        Ok(())
    }

    /// Whether a token ends the answer, which has `count` tokens with it. One that comes too early, where a hook or what is
    /// resumed brings it, is a token like any other.
    fn ends_with(&mut self, token: u32, count: usize) -> bool {
        let at = |(at, end): (usize, &u32)| {
            (*end == token && !(self.ignore_eos && at < self.end_tokens)).then_some(at)
        };
        let Some(at) = self.ends.iter().enumerate().find_map(at) else { return false };
        if self.constraint.is_none() && count < self.sampling.rules.min_tokens {
            return false;
        }
        self.stop_reason = (at >= self.end_tokens).then_some(StopReason::Token(token));
        true
    }

    /// What has not been told of the answer's `tokens`.
    pub(crate) fn gained<'a>(&'a self, id: u64, tokens: &'a [u32]) -> Option<Gained<'a>> {
        let known = self.known(tokens.len());
        let tokens = tokens.get(self.told..known).filter(|new| !new.is_empty())?;
        Some(Gained { id, tokens, logprobs: self.logprobs.get(self.told..known).unwrap_or_default() })
    }

    /// All that is known of `tokens` tokens has been told.
    pub(crate) fn reported(&mut self, tokens: usize) {
        self.told = self.told.max(self.known(tokens));
    }

    /// Tokens that may follow.
    pub(crate) fn tokens_left(&self, tokens: usize) -> usize {
        if self.ended() { 0 } else { self.max_new_tokens - tokens }
    }

    /// The answer in a sequence, as far as it came.
    pub(crate) fn finish(self, id: u64, tokens: &[u32], observer: &mut dyn Observer) -> Completion {
        let (prompt, answer) = tokens.split_at(self.prompt.min(tokens.len()));
        let known = self.known(answer.len());
        let logprobs = self.top_logprobs.map(|_| self.logprobs.iter().map(|l| l.logprob).collect());
        let ranks = self.top_logprobs.map(|_| self.logprobs.iter().map(|l| l.rank).collect());
        let top = self.top_logprobs.filter(|k| *k > 0);
        let of_prompt = |p: PromptLogprobs| [None].into_iter().chain(p.known.into_iter().map(Some)).collect();
        Completion {
            index: id as usize,
            prompt_token_ids: prompt.to_vec(),
            token_ids: answer.get(..known).unwrap_or(answer).to_vec(),
            text: self.text.map(|t| t.finish(id as usize, observer)),
            finish_reason: self.reason.unwrap_or(FinishReason::Interrupted),
            stop_reason: self.stop_reason,
            logprobs,
            top_logprobs: top.map(|_| self.logprobs.into_iter().map(|l| l.top).collect()),
            ranks,
            prompt_logprobs: self.prompt_logprobs.map(of_prompt),
        }
    }
}

impl Text<'_> {
    /// Shows what is certain; true if a stop string is complete, where one may end the answer.
    fn push(&mut self, index: usize, token: u32, observer: &mut dyn Observer, may_stop: bool) -> bool {
        let new = self.detokenizer.push(token);
        let (safe, hit) = if may_stop { self.stops.push(&new) } else { (self.stops.pass(&new), false) };
        self.show(index, &safe, observer);
        hit
    }

    fn finish(mut self, index: usize, observer: &mut dyn Observer) -> String {
        let half = self.detokenizer.finish();
        let (safe, hit) = self.stops.push(&half);
        self.show(index, &safe, observer);
        if !hit {
            let held = self.stops.finish();
            self.show(index, &held, observer);
        }
        self.shown
    }

    fn show(&mut self, index: usize, text: &str, observer: &mut dyn Observer) {
        if !text.is_empty() {
            observer.text(index, text);
            self.shown.push_str(text);
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("shown", &self.shown).finish_non_exhaustive()
    }
}
