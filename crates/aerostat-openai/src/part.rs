//! What became of the parts of a request: the engine's outcomes, as responses need them.

use aerostat::{Completion, FinishReason, Outcome, TokenLogprobs};

use crate::refusal::Refusal;

/// A finished part of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The tokens of its answer, the one that ended it included; none where there is no answer.
    pub tokens: Vec<Token>,
    /// How it ended.
    pub result: PartResult,
}

/// A token of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token {
    /// Its id in the vocabulary.
    pub id: u32,
    /// Its natural log-probability before temperature and cuts, if that is wanted.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place with their log-probabilities, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// How a part ended, without its tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum PartResult {
    /// An answer.
    Text {
        /// Its text; `None` without a tokenizer.
        text: Option<String>,
        /// Why it ended.
        finish: Finish,
    },
    /// For each token of a text its log-probability given those before it, where it is known.
    Logprobs(Vec<Option<f32>>),
    /// The vector of a text.
    Vector(Vec<f32>),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An end token, a stop string, or the end of a grammar.
    Stop,
    /// Its length.
    Length,
}

impl Finish {
    /// What responses call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

impl PartResult {
    /// How the engine ended a part.
    ///
    /// # Errors
    /// The part failed; or a defect: the engine gave what is never asked for.
    pub fn of(outcome: Outcome) -> Result<Self, Refusal> {
        match outcome {
            Outcome::Completion(completion) => {
                let finish = match completion.finish_reason {
                    FinishReason::Stop => Finish::Stop,
                    FinishReason::Length => Finish::Length,
                    FinishReason::Interrupted => {
                        return Err(Refusal::defect("an interrupted answer was given as finished"));
                    }
                };
                Ok(Self::Text { text: completion.text, finish })
            }
            Outcome::Score(score) => Ok(Self::Logprobs(score.logprobs)),
            Outcome::Hidden(mut vectors) => match (vectors.pop(), vectors.len()) {
                (Some(vector), 0) => Ok(Self::Vector(vector)),
                (_, others) => {
                    Err(Refusal::defect(format!("{others} vectors too many for one text, or none")))
                }
            },
            Outcome::TopK(_) => Err(Refusal::defect("likeliest tokens were given and not asked for")),
            Outcome::Failed(error) => Err(Refusal::failed(error.to_string())),
        }
    }
}

impl Part {
    /// A part with all its tokens, from the engine's outcome alone.
    ///
    /// # Errors
    /// Those of [`PartResult::of`]; or a defect: there are not as many log-probabilities as tokens.
    pub fn of(outcome: Outcome) -> Result<Self, Refusal> {
        let tokens = match &outcome {
            Outcome::Completion(completion) => tokens_of(completion)?,
            _ => Vec::new(),
        };
        Ok(Self { tokens, result: PartResult::of(outcome)? })
    }
}

fn tokens_of(completion: &Completion) -> Result<Vec<Token>, Refusal> {
    let Some(logprobs) = &completion.logprobs else { return Token::zip(&completion.token_ids, &[]) };
    let tops = completion.top_logprobs.iter().flatten().cloned().chain(std::iter::repeat(Vec::new()));
    let logprobs: Vec<TokenLogprobs> =
        logprobs.iter().zip(tops).map(|(&logprob, top)| TokenLogprobs { logprob, top }).collect();
    Token::zip(&completion.token_ids, &logprobs)
}

impl Token {
    /// Tokens with their log-probabilities: one for each token, or none at all where they are not wanted.
    ///
    /// # Errors
    /// A defect: there are more or fewer log-probabilities.
    pub fn zip(ids: &[u32], logprobs: &[TokenLogprobs]) -> Result<Vec<Self>, Refusal> {
        if logprobs.is_empty() {
            return Ok(ids.iter().map(|&id| Self { id, ..Self::default() }).collect());
        }
        if logprobs.len() != ids.len() {
            let what = format!("{} tokens have {} log-probabilities", ids.len(), logprobs.len());
            return Err(Refusal::defect(what));
        }
        let token =
            |(&id, l): (&u32, &TokenLogprobs)| Self { id, logprob: Some(l.logprob), top: l.top.clone() };
        Ok(ids.iter().zip(logprobs).map(token).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::RefusalKind;

    fn completion(finish_reason: FinishReason) -> Completion {
        Completion {
            index: 0,
            prompt_token_ids: vec![1],
            token_ids: vec![5, 6],
            text: Some("ab".to_owned()),
            finish_reason,
            logprobs: Some(vec![-0.5, -1.0]),
            top_logprobs: None,
        }
    }

    #[test]
    fn an_outcome_alone_makes_a_part() {
        let part = Part::of(Outcome::Completion(completion(FinishReason::Length))).unwrap();
        let token = |id, logprob| Token { id, logprob: Some(logprob), top: Vec::new() };
        assert_eq!(part.tokens, [token(5, -0.5), token(6, -1.0)]);
        assert_eq!(part.result, PartResult::Text { text: Some("ab".to_owned()), finish: Finish::Length });
        let vector = Part::of(Outcome::Hidden(vec![vec![1.0]])).unwrap();
        assert_eq!(vector, Part { tokens: Vec::new(), result: PartResult::Vector(vec![1.0]) });
    }

    /// Each of these once became an empty vector, an answer cut short, or nothing at all.
    #[test]
    fn what_the_engine_never_gives_is_a_defect() {
        let interrupted = completion(FinishReason::Interrupted);
        let uneven = Completion { logprobs: Some(vec![-0.5]), ..completion(FinishReason::Stop) };
        for outcome in [
            Outcome::Hidden(Vec::new()),
            Outcome::Hidden(vec![vec![1.0], vec![2.0]]),
            Outcome::TopK(aerostat::TopK::default()),
            Outcome::Completion(interrupted),
            Outcome::Completion(uneven),
        ] {
            assert_eq!(Part::of(outcome).unwrap_err().kind(), RefusalKind::Defect);
        }
        let failed = Outcome::Failed(aerostat::Error::new(aerostat::ErrorKind::NotFinite, "not a number"));
        assert_eq!(Part::of(failed).unwrap_err(), Refusal::failed("not a number"));
    }
}
