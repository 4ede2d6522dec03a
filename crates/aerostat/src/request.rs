//! What is asked of a model, what comes of it, and who asks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hook::SharedHook;
use crate::{Error, Sampling};

/// What is asked of the model for one sequence of tokens.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The caller's name for it; of those that are active together no two are the same.
    pub id: u64,
    /// The prompt; at least one token.
    pub token_ids: Vec<u32>,
    /// Tokens of the answer that an earlier run generated. They count as generated: the answer goes on after them with
    /// the bits it would have had.
    pub resumed: Vec<u32>,
    /// What [`Work::swept`] gave with them, if log-probabilities are wanted.
    pub resumed_logprobs: Vec<TokenLogprobs>,
    /// Tokens of the answer at most, those resumed included.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Number of this answer among several to the same prompt; it is mixed into the seed. 0 for one.
    pub stream: u64,
    /// Tokens that end the answer; empty: only its length does.
    pub end_tokens: Vec<u32>,
    /// They do not end it; but answers that are too short by [`TokenRules`](crate::TokenRules) hold none of them, as in vLLM.
    pub ignore_eos: bool,
    /// More tokens that end the answer, whether or not those above do: they are told as its
    /// [`stop_reason`](Completion::stop_reason).
    pub stop_token_ids: Vec<u32>,
    /// Strings that end the answer. They need a tokenizer.
    pub stop: Vec<String>,
    /// The answer's text holds what ended it: the stop string, or the text of the token.
    pub include_stop: bool,
    /// The answer's text holds special tokens.
    pub keep_special_tokens: bool,
    /// `Some(n)`: the log-probability of every token of the answer, and of the `n` likeliest in its place; `None`: neither.
    /// For a [`Want::Score`], of the tokens that are scored: `None` is their log-probability alone.
    pub top_logprobs: Option<usize>,
    /// `Some(n)`: an answer comes with the log-probability of every token of the prompt but the first, and of the `n`
    /// likeliest in its place.
    pub prompt_logprobs: Option<usize>,
    /// Layers whose hidden states [`hook`](Self::hook) is given, of every position that is computed, whatever is wanted
    /// beside.
    pub layers: Vec<Layer>,
    /// Sees and changes logits, sees hidden states, ends the answer.
    pub hook: Option<SharedHook>,
    /// What the answer must look like.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Rows are shared with requests of the same number only, so that nobody can tell from the time it takes what others
    /// have asked. 0 as a rule.
    pub cache_salt: u64,
    /// It is one of many that are asked once, such as a line of a batch: nothing of it is kept on disk for later runs
    /// ([`PromptCache`](crate::PromptCache)), though it uses what is there.
    pub one_of_many: bool,
    /// The position from which on tokens are of the second part of the text (such as a document after a query), for models that
    /// tell parts apart; `None`: all are of the first.
    pub second: Option<usize>,
    /// What is wanted of the sequence.
    pub want: Want,
}

impl Request {
    /// Positions of the KV cache that it takes at most: the last token of an answer is never computed.
    pub fn positions(&self) -> usize {
        let answer = if self.want == Want::Generate { self.max_new_tokens } else { 0 };
        self.token_ids.len().saturating_add(answer.saturating_sub(1))
    }
}

/// What is wanted of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Want {
    /// An answer: [`Outcome::Completion`].
    #[default]
    Generate,
    /// Log-probabilities of the prompt's tokens: [`Outcome::Score`].
    Score {
        /// The first token whose log-probability is wanted; those before it have none. The first token of a prompt never
        /// has one.
        from: usize,
        /// Also the logits after the last token.
        logits_last: bool,
    },
    /// The likeliest tokens after each token of the prompt: [`Outcome::TopK`].
    TopK {
        /// How many.
        k: usize,
        /// The first position after which they are wanted.
        from: usize,
    },
    /// Hidden states of the prompt: [`Outcome::Hidden`].
    Hidden(Hidden),
    /// The logits after each token of the prompt, given to the request's hook as they come and not kept: [`Outcome::Given`].
    Logits {
        /// The first position after which they are wanted; past the last, none are, but the prompt is computed.
        from: usize,
    },
}

/// Log-probabilities where a token was chosen, before penalties, masks, temperature and cuts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// Of the token.
    pub logprob: f32,
    /// Tokens that are at least as likely, itself included: 1 for the likeliest; 0 if nobody counted.
    #[serde(default, skip_serializing_if = "uncounted")]
    pub rank: u32,
    /// Of the likeliest tokens, likeliest first.
    pub top: Vec<(u32, f32)>,
}

fn uncounted(rank: &u32) -> bool {
    *rank == 0
}

/// A grammar that an answer must follow. An error fails its request alone.
pub trait Constraint: Send + fmt::Debug {
    /// Tokens that must come next, whatever the model says. They ride on the next sweep together, without one of their
    /// own; each is then given to [`accept`](Self::accept) like any other.
    ///
    /// # Errors
    /// The grammar cannot go on.
    fn forced(&mut self) -> Result<Vec<u32>, Error>;

    /// Sets the logits of tokens that cannot come next to minus infinity; `logits[i]` is that of token `i`.
    ///
    /// # Errors
    /// The grammar cannot go on.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error>;

    /// Takes the next token of the answer.
    ///
    /// # Errors
    /// The token cannot come here.
    fn accept(&mut self, token: u32) -> Result<(), Error>;

    /// The answer is complete, and nothing may follow.
    fn ended(&self) -> bool;

    /// The same grammar at the same place.
    fn boxed_clone(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}

/// What a sweep added to a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Gained<'a> {
    /// The request.
    pub id: u64,
    /// New tokens of its answer, in order.
    pub tokens: &'a [u32],
    /// One for each of them if log-probabilities are wanted, else empty.
    pub logprobs: &'a [TokenLogprobs],
}

/// How far a request under way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// The request.
    pub id: u64,
    /// Positions of prompt and answer that were computed by the end of the last sweep, or taken over from others.
    pub computed: usize,
    /// Tokens of its answer.
    pub tokens: usize,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Want::Generate`].
    Completion(Completion),
    /// Of [`Want::Score`].
    Score(Score),
    /// Of [`Want::TopK`].
    TopK(TopK),
    /// Of [`Want::Hidden`]: one vector if they are pooled, else one for each token.
    Hidden(Vec<Vec<f32>>),
    /// Of [`Want::Logits`]: the request's hook was given everything.
    Given,
    /// It cannot be run, or failed; others go on.
    Failed(Error),
}

/// Where requests come from and where results go. An error of any method ends the run with it.
pub trait Work {
    /// The next request; `None` if there is none now. Asked between sweeps while there is room, also after `None`.
    ///
    /// # Errors
    /// The caller's own.
    fn next(&mut self) -> Result<Option<Request>, Error>;

    /// Before every sweep: the requests that are under way. Those that were taken and are not among them wait for room.
    ///
    /// # Errors
    /// The caller's own.
    fn sweeping(&mut self, _under_way: &[UnderWay]) -> Result<(), Error> {
        Ok(())
    }

    /// After every sweep: the new tokens of every answer that has some. What is kept here can be resumed.
    ///
    /// # Errors
    /// The caller's own.
    fn swept(&mut self, _gained: &[Gained<'_>]) -> Result<(), Error> {
        Ok(())
    }

    /// A request has left. Its last tokens were given to [`swept`](Self::swept) before.
    ///
    /// # Errors
    /// The caller's own.
    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error>;

    /// All that a sweep brought has been told: the moment to save it.
    ///
    /// # Errors
    /// The caller's own.
    fn sweep_over(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// An answer that an interrupted run leaves behind, as far as it came.
    ///
    /// # Errors
    /// The caller's own.
    fn unfinished(&mut self, _id: u64, _so_far: Completion) -> Result<(), Error> {
        Ok(())
    }

    /// A request that is to be handed over before those that wait, if there is one. Asked between sweeps, also where there
    /// is no room for more.
    ///
    /// # Errors
    /// The caller's own.
    fn next_urgent(&mut self) -> Result<Option<Request>, Error> {
        Ok(None)
    }

    /// Requests that are not wanted any more, by id; ids that are not under way are ignored. Asked between sweeps. Each
    /// ends as far as it came: an answer as a [`Completion`] with [`FinishReason::Interrupted`]. What its prompt left in
    /// the cache stays there for others.
    ///
    /// # Errors
    /// The caller's own.
    fn cancelled(&mut self) -> Result<Vec<u64>, Error> {
        Ok(Vec::new())
    }

    /// More requests may come while others are under way, although there are none now: the order of those that wait then
    /// does not look to an end.
    fn more_may_come(&self) -> bool {
        false
    }

    /// Tokens that requests not yet handed over may take, for progress.
    fn tokens_left(&self) -> u64 {
        0
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// There was nothing left to do.
    Done,
    /// The observer asked to stop.
    Interrupted,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token, a stop string, or the end of a grammar.
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
    /// What ended it, if that is one of the request's stop strings or [`stop_token_ids`](Request::stop_token_ids).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    /// Log-probabilities of the answer's tokens before temperature and cuts, if asked for.
    pub logprobs: Option<Vec<f32>>,
    /// For each token of the answer the likeliest tokens in its place with their log-probabilities, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<Vec<Vec<(u32, f32)>>>,
    /// Ranks of the answer's tokens, if log-probabilities were asked for; see [`TokenLogprobs::rank`].
    #[serde(skip)]
    pub ranks: Option<Vec<u32>>,
    /// For each token of the prompt its log-probability and the likeliest in its place, if asked for; `None` for the first,
    /// which nothing is before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<TokenLogprobs>>>,
}

/// What of a request's own ended its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StopReason {
    /// A stop string.
    Text(String),
    /// A token.
    Token(u32),
}

/// The log-probabilities of a sequence of tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The tokens.
    pub token_ids: Vec<u32>,
    /// For each token, the natural logarithm of its probability given those before it; `None` for the first token and for
    /// those that nobody asked for.
    pub logprobs: Vec<Option<f32>>,
    /// The logits after the last token, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits_last: Option<Vec<f32>>,
    /// Rank of each token that has a log-probability, and the likeliest in its place, if asked for by
    /// [`Request::top_logprobs`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<Option<TokenLogprobs>>>,
}

/// The likeliest tokens after each token of a text, by the model's own distribution (temperature 1).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TopK {
    /// The text.
    pub token_ids: Vec<u32>,
    /// The first position that is told of; `from = n` leaves the first n positions out.
    pub from: usize,
    /// Tokens told of for each position; fewer than asked for if the vocabulary is smaller.
    pub k: usize,
    /// `[positions, k]`, likeliest first: what the model expects after each position. The target of the row of position
    /// i is the token at i + 1.
    pub ids: Vec<u32>,
    /// `[positions, k]`: their log-probabilities.
    pub logprobs: Vec<f32>,
}

/// Where hidden states are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layer {
    /// After the last block and the final norm: transformers' `last_hidden_state`.
    #[default]
    Final,
    /// After so many blocks, as transformers counts `hidden_states`: 0 is what enters the first block. After the last
    /// block the final norm is not applied.
    After(usize),
}

impl Layer {
    /// All of them as transformers counts `hidden_states` of a model with so many blocks: what enters each block, then what
    /// leaves the final norm.
    pub fn all(blocks: usize) -> Vec<Self> {
        (0..blocks).map(Self::After).chain([Self::Final]).collect()
    }
}

/// How a text's hidden states become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// That of the last token.
    LastToken,
    /// That of the first token. In a model whose tokens see only those before them it knows of no other.
    Cls,
    /// Their mean, in which the token at position i (from 0) weighs i + 1.
    WeightedMean,
    /// The largest of each element.
    Max,
    /// Their sum over the root of their number.
    MeanSqrt,
}

/// What hidden states are wanted, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Where they are taken.
    pub layer: Layer,
    /// One vector for the text; `None`: one for each token.
    pub pooling: Option<Pooling>,
    /// Only so many of the first elements, as models trained for it allow (Matryoshka).
    pub dimensions: Option<usize>,
    /// Vectors are scaled to a length of 1, after they were cut.
    pub normalize: bool,
}
