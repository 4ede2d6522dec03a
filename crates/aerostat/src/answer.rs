//! An answer in the making: tokens, text, log-probabilities.

use std::fmt;

use aerostat_text::{Detokenizer, Stops, Tokenizer};

use crate::observe::{Observer, Silent};
use crate::request::{Completion, Constraint, FinishReason, Gained, Request, TokenLogprobs};
use crate::sampler::{Sampler, token_logprobs};
use crate::{Error, Sampling};

/// An answer in the making. Its tokens follow the prompt's in the sequence.
#[derive(Debug)]
pub(crate) struct Answer<'t> {
    prompt: usize,
    max_new_tokens: usize,
    sampling: Sampling,
    stream: u64,
    end_tokens: Vec<u32>,
    top_logprobs: Option<usize>,
    constraint: Option<Box<dyn Constraint>>,
    /// Of the first tokens of the answer, if wanted: those of forced tokens come a sweep later than they.
    logprobs: Vec<TokenLogprobs>,
    text: Option<Text<'t>>,
    reason: Option<FinishReason>,
    /// Tokens that were told of.
    told: usize,
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
            detokenizer: t.stream(true),
            stops: Stops::new(request.stop),
            shown: String::new(),
        });
        let mut tokens = request.token_ids;
        let mut answer = Self {
            prompt: tokens.len(),
            max_new_tokens: request.max_new_tokens,
            sampling: request.sampling,
            stream: request.stream,
            end_tokens: request.end_tokens,
            top_logprobs: request.top_logprobs,
            constraint: request.constraint,
            logprobs: request.resumed_logprobs,
            text,
            reason: (request.max_new_tokens == 0).then_some(FinishReason::Length),
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
        self.ended() && self.known(tokens) == tokens
    }

    /// How many of its tokens have what is wanted with them.
    fn known(&self, tokens: usize) -> usize {
        if self.top_logprobs.is_some() { self.logprobs.len() } else { tokens }
    }

    /// The first position whose logits are needed, of a sequence of `tokens`.
    pub(crate) fn logits_from(&self, tokens: usize) -> usize {
        match self.top_logprobs {
            Some(_) => self.prompt - 1 + self.logprobs.len(),
            None => tokens - 1,
        }
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
        let chooses = position + 1 == tokens.len();
        if chooses {
            let mask = self.constraint.as_deref_mut();
            let token = sampler.choose(logits, (tokens, self.prompt), &self.sampling, self.stream, mask)?;
            self.push(id, tokens, token, observer)?;
        }
        if let (Some(top), Some(&token)) = (self.top_logprobs, tokens.get(position + 1)) {
            self.logprobs.push(token_logprobs(logits, token, top, sampler));
        }
        if chooses { self.push_forced(id, tokens, observer) } else { Ok(()) }
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
        let mut stops = self.end_tokens.contains(&token);
        if !stops {
            stops = self.text.as_mut().is_some_and(|t| t.push(id as usize, token, observer));
            if let Some(constraint) = &mut self.constraint {
                constraint.accept(token)?;
                stops |= constraint.ended();
            }
        }
        if stops {
            self.reason = Some(FinishReason::Stop);
        } else if tokens.len() - self.prompt >= self.max_new_tokens {
            self.reason = Some(FinishReason::Length);
        }
        Ok(())
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
        let top = self.top_logprobs.filter(|k| *k > 0);
        Completion {
            index: id as usize,
            prompt_token_ids: prompt.to_vec(),
            token_ids: answer.get(..known).unwrap_or(answer).to_vec(),
            text: self.text.map(|t| t.finish(id as usize, observer)),
            finish_reason: self.reason.unwrap_or(FinishReason::Interrupted),
            logprobs,
            top_logprobs: top.map(|_| self.logprobs.into_iter().map(|l| l.top).collect()),
        }
    }
}

impl Text<'_> {
    /// Shows what is certain; true if a stop string is complete.
    fn push(&mut self, index: usize, token: u32, observer: &mut dyn Observer) -> bool {
        let new = self.detokenizer.push(token);
        let (safe, hit) = self.stops.push(&new);
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
