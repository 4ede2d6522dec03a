//! Answers to prompts: many at once, every sweep shared.

use aerostat_text::{Detokenizer, Stops, Tokenizer};
use serde::Serialize;

use crate::engine::Engine;
use crate::logits::{Sampler, has_nan, log_probability};
use crate::model_files::check_tokens;
use crate::observe::{Observer, Phase};
use crate::schedule::{Rows, Schedule, Sequence, Want};
use crate::{Error, ErrorKind, Need, Sampling};

/// One prompt and how to answer it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The prompt; at least one token.
    pub token_ids: Vec<u32>,
    /// Tokens of the answer at most.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Which of several answers to the same prompt this is.
    pub stream: u64,
    /// Tokens that end the answer; empty: only its length does.
    pub end_tokens: Vec<u32>,
    /// Strings that end the answer; they are not part of it. They need a tokenizer.
    pub stop: Vec<String>,
    /// Report the log-probability of every token of the answer.
    pub logprobs: bool,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// Its length.
    Length,
    /// The run was interrupted.
    Interrupted,
}

/// An answer.
#[derive(Clone, Debug, Serialize)]
pub struct Completion {
    /// Which request it answers.
    pub index: usize,
    /// The prompt.
    pub prompt_token_ids: Vec<u32>,
    /// The answer, the end token included.
    pub token_ids: Vec<u32>,
    /// The answer as text, without special tokens and without the stop string; `None` without a tokenizer.
    pub text: Option<String>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Log-probabilities of the answer's tokens before temperature and cuts, if asked for.
    pub logprobs: Option<Vec<f32>>,
}

/// All answers, in the order of the requests.
#[derive(Clone, Debug)]
pub struct Answers {
    /// One per request.
    pub completions: Vec<Completion>,
    /// The observer asked to stop before all were finished.
    pub interrupted: bool,
}

/// What the plan must provide for these requests.
pub fn demand(requests: &[Request]) -> Need {
    let tokens = |r: &Request| r.token_ids.len() + r.max_new_tokens;
    Need {
        sequence_tokens_max: requests.iter().map(tokens).max().unwrap_or(1),
        sequences: requests.len(),
        tokens_total: requests.iter().map(tokens).sum(),
        rows_useful: requests.iter().map(|r| r.token_ids.len()).sum(),
        logit_rows_useful: requests.len(),
        logit_rows_kept: 0,
    }
}

impl Engine {
    /// Answers all requests. Text is given to the observer as it comes.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an empty prompt, token ids outside the vocabulary, or stop strings without a
    /// tokenizer; [`ErrorKind::Io`], [`ErrorKind::Device`], [`ErrorKind::NotFinite`]. Being asked to stop is not an
    /// error: what was generated is returned.
    pub fn generate(
        &mut self,
        requests: &[Request],
        tokenizer: Option<&Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<Answers, Error> {
        for (i, request) in requests.iter().enumerate() {
            check_tokens(self.model().spec(), i, &request.token_ids, request.max_new_tokens)?;
            if !request.stop.is_empty() && tokenizer.is_none() {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "stop strings need a tokenizer; this model has none",
                ));
            }
        }
        let mut answers: Vec<Answer<'_>> = requests.iter().map(|r| Answer::new(r, tokenizer)).collect();
        let sequences = requests.iter().enumerate().filter(|(_, r)| r.max_new_tokens > 0);
        let mut schedule = Schedule::new(
            sequences.map(|(i, r)| Sequence::new(i, r.token_ids.clone(), r.max_new_tokens, Want::Last)),
        );
        self.clock().tokens_left = requests.iter().map(|r| r.max_new_tokens as u64).sum();
        let result = self.generate_all(&mut schedule, &mut answers, observer);
        self.stop_reading();
        for sequence in std::mem::take(&mut schedule.active) {
            self.pages.release(sequence.into_pages());
        }
        let interrupted = match result {
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            other => other.map(|()| false)?,
        };
        let completions =
            answers.into_iter().enumerate().map(|(i, a)| a.finish(i, interrupted, observer)).collect();
        Ok(Answers { completions, interrupted })
    }

    fn generate_all(
        &mut self,
        schedule: &mut Schedule,
        answers: &mut [Answer<'_>],
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let mut rows = Rows::default();
        let mut sampler = Sampler::default();
        let limits = self.model().limits();
        let vocab = self.model().spec().vocab;
        loop {
            let chunk = self.prefill_chunk;
            if !schedule.fill(&mut rows, limits, &mut self.pages, chunk) {
                return Ok(());
            }
            let phase = if rows.decodes { Phase::Decode } else { Phase::Prefill };
            let logits = self.sweep(&rows, phase, schedule.more(), observer)?;
            let mut finished = Vec::new();
            let mut bad = None;
            for (row, &(request, _)) in logits.chunks_exact(vocab).zip(&rows.owners) {
                let Some(sequence) = schedule.sequence(request) else { continue };
                if has_nan(row) {
                    bad = Some((request, sequence.tokens.clone()));
                    break;
                }
                let answer = &mut answers[request];
                let token =
                    sampler.choose(row, &sequence.tokens, &answer.request.sampling, answer.request.stream);
                sequence.tokens.push(token);
                if answer.push(request, token, row, observer) {
                    finished.push(request);
                }
            }
            if let Some((request, tokens)) = bad {
                return Err(self.not_finite(request, &tokens));
            }
            self.clock().tokens += rows.owners.len() as u64;
            for request in finished {
                schedule.finish(request, &mut self.pages);
            }
            self.clock().tokens_left = answers.iter().map(Answer::left).sum();
        }
    }
}

/// An answer in the making.
struct Answer<'a> {
    request: &'a Request,
    token_ids: Vec<u32>,
    logprobs: Vec<f32>,
    text: Option<Text<'a>>,
    reason: Option<FinishReason>,
}

/// Its text.
struct Text<'a> {
    detokenizer: Detokenizer<'a>,
    stops: Stops,
    shown: String,
}

impl<'a> Answer<'a> {
    fn new(request: &'a Request, tokenizer: Option<&'a Tokenizer>) -> Self {
        let text = tokenizer.map(|t| Text {
            detokenizer: t.stream(true),
            stops: Stops::new(request.stop.iter().cloned()),
            shown: String::new(),
        });
        let reason = (request.max_new_tokens == 0).then_some(FinishReason::Length);
        Self { request, token_ids: Vec::new(), logprobs: Vec::new(), text, reason }
    }

    /// Takes the next token; true if it is the last.
    fn push(&mut self, index: usize, token: u32, logits: &[f32], observer: &mut dyn Observer) -> bool {
        self.token_ids.push(token);
        if self.request.logprobs {
            self.logprobs.push(log_probability(logits, token));
        }
        let ends = self.request.end_tokens.contains(&token);
        if ends || self.text.as_mut().is_some_and(|t| t.push(index, token, observer)) {
            self.reason = Some(FinishReason::Stop);
        } else if self.token_ids.len() >= self.request.max_new_tokens {
            self.reason = Some(FinishReason::Length);
        }
        self.reason.is_some()
    }

    fn left(&self) -> u64 {
        if self.reason.is_some() { 0 } else { (self.request.max_new_tokens - self.token_ids.len()) as u64 }
    }

    fn finish(self, index: usize, interrupted: bool, observer: &mut dyn Observer) -> Completion {
        let reason =
            self.reason.unwrap_or(if interrupted { FinishReason::Interrupted } else { FinishReason::Length });
        Completion {
            index,
            prompt_token_ids: self.request.token_ids.clone(),
            token_ids: self.token_ids,
            text: self.text.map(|t| t.finish(index, observer)),
            finish_reason: reason,
            logprobs: self.request.logprobs.then_some(self.logprobs),
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
