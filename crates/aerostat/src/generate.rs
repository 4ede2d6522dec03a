//! Answers to prompts: many at once, every sweep shared.

use aerostat_text::Tokenizer;

use crate::engine::Engine;
use crate::need::Need;
use crate::observe::Observer;
use crate::request::{Completion, FinishReason, Outcome, Request, RunEnd, Want};
use crate::{Error, ErrorKind};

/// All answers, in the order of the requests.
#[derive(Debug)]
pub struct Answers {
    /// One per request, or why it has none: an empty prompt, token ids outside the vocabulary, stop strings without a
    /// tokenizer, logits that are not numbers.
    pub completions: Vec<Result<Completion, Error>>,
    /// The observer asked to stop before all were finished.
    pub interrupted: bool,
}

/// What the plan must provide for these requests.
pub fn need(requests: &[Request]) -> Need {
    let mut need = Need::none();
    requests.iter().for_each(|r| need.add(r));
    need
}

impl Engine {
    /// Answers all requests; their ids and what else they want are not looked at. Text is given to the observer as it
    /// comes, under the request's place in the list.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Device`], [`ErrorKind::NotFinite`] where a weight is not a number. One request's
    /// failure is its own. Being asked to stop is not an error: what was generated is returned.
    pub fn generate(
        &mut self,
        requests: &[Request],
        tokenizer: Option<&Tokenizer>,
        observer: &mut dyn Observer,
    ) -> Result<Answers, Error> {
        let (outcomes, end) = self.run_list(
            requests.len(),
            &|i| Request { want: Want::Generate, ..requests[i].clone() },
            tokenizer,
            observer,
        )?;
        let untouched = |(index, request): (usize, &Request)| Completion {
            index,
            prompt_token_ids: request.token_ids.clone(),
            token_ids: Vec::new(),
            text: tokenizer.map(|_| String::new()),
            finish_reason: FinishReason::Interrupted,
            stop_reason: None,
            logprobs: request.top_logprobs.map(|_| Vec::new()),
            top_logprobs: None,
            ranks: request.top_logprobs.map(|_| Vec::new()),
            prompt_logprobs: request.prompt_logprobs.map(|_| Vec::new()),
        };
        let completion = |(outcome, request)| match outcome {
            Some(Outcome::Completion(completion)) => Ok(completion),
            Some(Outcome::Failed(error)) => Err(error),
            None => Ok(untouched(request)),
            Some(_) => Err(Error::new(ErrorKind::Defect, "an answer was asked for, and something else came")),
        };
        let completions = outcomes.into_iter().zip(requests.iter().enumerate()).map(completion).collect();
        Ok(Answers { completions, interrupted: end == RunEnd::Interrupted })
    }
}
