//! What became of the parts of a request: the engine's outcomes, as responses need them.

use aerostat::{Completion, FinishReason, Outcome, StopReason, TokenLogprobs};

use crate::refusal::Refusal;

/// Sequences of one request at most.
pub const PARTS_MAX: usize = 1 << 16;

/// What a response says of itself.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// What its id ends with; `chatcmpl-` or the like goes before it.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

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
        /// What few requests ask for.
        more: More,
    },
    /// For each token of a text its log-probability given those before it, where it is known.
    Logprobs(Vec<Option<f32>>),
    /// The vector of a text.
    Vector(Vec<f32>),
}

/// What few answers have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct More {
    /// The stop string, or the token of `stop_token_ids`, that ended it.
    pub stop_reason: Option<StopReason>,
    /// For each token of the prompt what is known of it, if that was asked for: `None` for the first.
    pub prompt_logprobs: Option<Vec<Option<TokenLogprobs>>>,
}

impl More {
    /// As bytes: numbers are little-endian, NaN stands for no log-probability.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut number = |n: usize| bytes.extend((n as u32).to_le_bytes());
        match &self.stop_reason {
            None => number(0),
            Some(StopReason::Token(id)) => [1, *id as usize].into_iter().for_each(number),
            Some(StopReason::Text(text)) => {
                [2, text.len()].into_iter().for_each(number);
                bytes.extend(text.as_bytes());
            }
        }
        let all = self.prompt_logprobs.as_deref();
        bytes.extend((all.map_or(u32::MAX, |all| all.len() as u32)).to_le_bytes());
        for known in all.unwrap_or_default() {
            let Some(known) = known else {
                bytes.extend(f32::NAN.to_le_bytes());
                continue;
            };
            bytes.extend(known.logprob.to_le_bytes());
            bytes.extend(known.rank.to_le_bytes());
            bytes.extend((known.top.len() as u32).to_le_bytes());
            for (id, logprob) in &known.top {
                bytes.extend(id.to_le_bytes());
                bytes.extend(logprob.to_le_bytes());
            }
        }
        bytes
    }

    /// Back again; `None` if the bytes are not what [`to_bytes`](Self::to_bytes) wrote.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let stop_reason = match number(&mut bytes)? {
            0 => None,
            1 => Some(StopReason::Token(number(&mut bytes)?)),
            2 => {
                let length = number(&mut bytes)? as usize;
                let (text, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Some(StopReason::Text(String::from_utf8(text.to_vec()).ok()?))
            }
            _ => return None,
        };
        let mut prompt_logprobs = None;
        let count = number(&mut bytes)?;
        if count != u32::MAX {
            let all: Option<Vec<_>> = (0..count).map(|_| known(&mut bytes)).collect();
            prompt_logprobs = Some(all?);
        }
        bytes.is_empty().then_some(Self { stop_reason, prompt_logprobs })
    }
}

/// What is known of a token, or that nothing is; `None` if the bytes end.
fn known(bytes: &mut &[u8]) -> Option<Option<TokenLogprobs>> {
    let logprob = f32::from_bits(number(bytes)?);
    if logprob.is_nan() {
        return Some(None);
    }
    let (rank, count) = (number(bytes)?, number(bytes)?);
    let top = (0..count).map(|_| Some((number(bytes)?, f32::from_bits(number(bytes)?))));
    let top = top.collect::<Option<_>>()?;
    Some(Some(TokenLogprobs { logprob, rank, top }))
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*head))
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
                let Completion { text, stop_reason, prompt_logprobs, .. } = completion;
                Ok(Self::Text { text, finish, more: More { stop_reason, prompt_logprobs } })
            }
            Outcome::Score(score) => Ok(Self::Logprobs(score.logprobs)),
            Outcome::Hidden(mut vectors) => match (vectors.pop(), vectors.len()) {
                (Some(vector), 0) => Ok(Self::Vector(vector)),
                (_, others) => {
                    Err(Refusal::defect(format!("{others} vectors too many for one text, or none")))
                }
            },
            Outcome::Given => Err(Refusal::defect("logits were given and not asked for")),
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
        logprobs.iter().zip(tops).map(|(&logprob, top)| TokenLogprobs { logprob, rank: 0, top }).collect();
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
            stop_reason: None,
            logprobs: Some(vec![-0.5, -1.0]),
            top_logprobs: None,
            ranks: None,
            prompt_logprobs: None,
        }
    }

    #[test]
    fn an_outcome_alone_makes_a_part() {
        let part = Part::of(Outcome::Completion(completion(FinishReason::Length))).unwrap();
        let token = |id, logprob| Token { id, logprob: Some(logprob), top: Vec::new() };
        assert_eq!(part.tokens, [token(5, -0.5), token(6, -1.0)]);
        let (text, finish, more) = (Some("ab".to_owned()), Finish::Length, More::default());
        assert_eq!(part.result, PartResult::Text { text, finish, more });
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

    #[test]
    fn what_few_answers_have_comes_back_from_bytes() {
        let known = TokenLogprobs { logprob: f32::NEG_INFINITY, rank: 7, top: vec![(1, -0.5), (9, -2.0)] };
        let prompts = [None, Some(Vec::new()), Some(vec![None, Some(known), Some(TokenLogprobs::default())])];
        let reasons = [None, Some(StopReason::Token(7)), Some(StopReason::Text("é\n".to_owned()))];
        for (stop_reason, prompt_logprobs) in reasons.into_iter().zip(prompts) {
            let more = More { stop_reason, prompt_logprobs };
            let bytes = more.to_bytes();
            assert_eq!(More::from_bytes(&bytes), Some(more));
            assert_eq!(More::from_bytes(&bytes[..bytes.len() - 1]), None);
        }
    }
}
