//! Requests as types: what is asked for, checked and in token ids.

use aerostat::{Hidden, Request, Sampling, Want};

use crate::refusal::Refusal;
use crate::shape::Shape;
use crate::split::{Split, Splitter};

/// What a request is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`: an answer to a conversation.
    Chat,
    /// `/v1/completions`: texts that go on after prompts.
    Completions,
    /// `/v1/embeddings`: a vector for each text.
    Embeddings,
    /// `/v1/score`: how likely continuations are, as vLLM names the fields.
    Score,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Score];

    /// The path of its URL, such as `/v1/completions`.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Score => "/v1/score",
        }
    }

    /// The endpoint at a path.
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }
}

/// A request that was read and found good.
#[derive(Debug)]
pub struct ApiRequest {
    /// The model as the request names it.
    pub model: Option<String>,
    /// What is asked for.
    pub task: Task,
    /// Paths of members that a lenient reading ignored since they are not known.
    pub ignored: Vec<String>,
}

/// What a request asks for. It is computed as one or several *parts*: sequences that share nothing but the response.
#[derive(Debug)]
pub enum Task {
    /// Answers to a conversation.
    Chat(Generation),
    /// Answers to plain prompts.
    Completions(Generation),
    /// Vectors.
    Embeddings(Embedding),
    /// Log-probabilities.
    Score(Scoring),
}

/// Answers to prompts: `n` to each. Part `i` is answer `i % n` to prompt `i / n`.
#[derive(Debug)]
pub struct Generation {
    /// Token ids of each prompt; a chat has one prompt.
    pub prompts: Vec<Vec<u32>>,
    /// Answers to each prompt.
    pub n: usize,
    /// Tokens of each answer at most; with the longest prompt they fit the context.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end an answer and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// They do not end it.
    pub ignore_eos: bool,
    /// More tokens that end an answer, in any case.
    pub stop_token_ids: Vec<u32>,
    /// The text of an answer holds what ended it.
    pub include_stop: bool,
    /// The text of an answer holds special tokens.
    pub keep_special_tokens: bool,
    /// Log-probabilities are wanted, and of so many of the likeliest tokens in each place.
    pub top_logprobs: Option<usize>,
    /// Log-probabilities of the prompt's tokens are wanted as vLLM gives them, and of so many of the likeliest.
    pub prompt_logprobs: Option<usize>,
    /// The texts of the prompts, if responses are to begin with them and with the log-probabilities of their tokens.
    pub echo: Option<Vec<String>>,
    /// Prompts share what is computed of them with those of the same number only.
    pub cache_salt: u64,
    /// What an answer must look like.
    pub shape: Option<Shape>,
    /// How the text of an answer is taken apart into thoughts, content and calls of functions; `None`: it is content.
    pub split: Option<Split>,
}

/// A vector for each input. Part `i` is that of input `i`.
#[derive(Debug)]
pub struct Embedding {
    /// Token ids of each input.
    pub inputs: Vec<Vec<u32>>,
    /// Which hidden states, and how they become one vector.
    pub hidden: Hidden,
    /// Vectors are written as base64 of their little-endian `f32`s, not as lists of numbers.
    pub base64: bool,
}

/// Scores of pairs of texts: by the model's own head, else log-probabilities of continuations. Part `i` is that of pair `i`.
#[derive(Debug, Default)]
pub struct Scoring {
    /// For each, the token ids of both texts, and where the second begins. Of a continuation that is at least 1, since
    /// nothing is before the first token; for a head it is 0 where the model does not tell the texts apart.
    pub sequences: Vec<(Vec<u32>, usize)>,
    /// The vector that the model's head reads; `None`: it has no such head, and log-probabilities are meant.
    pub head: Option<Hidden>,
}

impl Generation {
    /// How many of the likeliest tokens in the place of each of the prompt's are to be found; `None`: nothing about it is.
    pub(crate) fn prompt_top(&self) -> Option<usize> {
        let echoed = self.echo.as_ref().and(self.top_logprobs);
        self.prompt_logprobs.max(echoed)
    }

    /// What takes an answer apart as it comes, where that is done.
    fn splitter(&self) -> Option<Splitter> {
        self.split.map(Split::splitter)
    }

    /// Whether a token that came last ended an answer: then it is not shown.
    pub(crate) fn ends(&self, token: u32) -> bool {
        (!self.ignore_eos && self.end_tokens.contains(&token)) || self.stop_token_ids.contains(&token)
    }
}

impl Task {
    /// The sequences it takes.
    pub fn parts(&self) -> usize {
        match self {
            Self::Chat(g) | Self::Completions(g) => g.prompts.len() * g.n,
            Self::Embeddings(e) => e.inputs.len(),
            Self::Score(s) => s.sequences.len(),
        }
    }

    /// What takes an answer apart as it comes; `None` where its text is told as it is.
    pub fn splitter(&self) -> Option<Splitter> {
        match self {
            Self::Chat(g) | Self::Completions(g) => g.splitter(),
            Self::Embeddings(_) | Self::Score(_) => None,
        }
    }

    /// What an answer must look like; `None` where anything goes and where there is no answer.
    pub fn shape(&self) -> Option<&Shape> {
        match self {
            Self::Chat(g) | Self::Completions(g) => g.shape.as_ref(),
            Self::Embeddings(_) | Self::Score(_) => None,
        }
    }

    /// The engine's request for one of its parts, without an id and without its grammar, which the caller adds.
    ///
    /// # Errors
    /// A defect: there is no such part.
    pub fn part(&self, index: usize) -> Result<Request, Refusal> {
        let none = || Refusal::defect(format!("part {index} of a request that has {}", self.parts()));
        match self {
            Self::Chat(g) | Self::Completions(g) => {
                let prompt = index.checked_div(g.n).and_then(|i| g.prompts.get(i)).ok_or_else(none)?;
                Ok(Request {
                    token_ids: prompt.clone(),
                    max_new_tokens: g.max_new_tokens,
                    sampling: g.sampling.clone(),
                    stream: (index % g.n) as u64,
                    end_tokens: g.end_tokens.clone(),
                    ignore_eos: g.ignore_eos,
                    stop_token_ids: g.stop_token_ids.clone(),
                    stop: g.stop.clone(),
                    include_stop: g.include_stop,
                    keep_special_tokens: g.keep_special_tokens,
                    top_logprobs: g.top_logprobs,
                    prompt_logprobs: g.prompt_top(),
                    cache_salt: g.cache_salt,
                    want: Want::Generate,
                    ..Request::default()
                })
            }
            Self::Embeddings(e) => {
                let token_ids = e.inputs.get(index).ok_or_else(none)?.clone();
                Ok(Request { token_ids, want: Want::Hidden(e.hidden), ..Request::default() })
            }
            Self::Score(s) => {
                let (token_ids, from) = s.sequences.get(index).ok_or_else(none)?.clone();
                if let Some(hidden) = s.head {
                    let second = Some(from).filter(|from| *from > 0);
                    return Ok(Request {
                        token_ids,
                        second,
                        want: Want::Hidden(hidden),
                        ..Request::default()
                    });
                }
                let want = Want::Score { from, logits_last: false };
                Ok(Request { token_ids, want, ..Request::default() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_answers_to_each_prompt_in_turn() {
        let generation = Generation {
            prompts: vec![vec![1], vec![2, 3]],
            n: 2,
            max_new_tokens: 4,
            sampling: Sampling::default(),
            stop: Vec::new(),
            end_tokens: vec![7],
            ignore_eos: false,
            stop_token_ids: Vec::new(),
            include_stop: false,
            keep_special_tokens: false,
            top_logprobs: None,
            prompt_logprobs: None,
            echo: None,
            cache_salt: 0,
            shape: None,
            split: None,
        };
        let task = Task::Completions(generation);
        let part = |i| task.part(i).map(|r| (r.token_ids, r.stream)).unwrap();
        assert_eq!(
            [part(0), part(1), part(2), part(3)],
            [(vec![1], 0), (vec![1], 1), (vec![2, 3], 0), (vec![2, 3], 1)]
        );
        // What would be an empty prompt is told.
        assert_eq!(task.part(4).unwrap_err().kind(), crate::RefusalKind::Defect);
    }

    #[test]
    fn endpoints_are_known_by_their_paths() {
        assert!(Endpoint::ALL.into_iter().all(|e| Endpoint::at(e.path()) == Some(e)));
        assert_eq!(Endpoint::at("/v1/images"), None);
    }
}
