//! Bodies of responses: OpenAI's shapes, so that its own types read them.

use aerostat::{Outcome, StopReason, Tokenizer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::part::{Finish, Part, PartResult, Stamp, Token};
use crate::refusal::Refusal;
use crate::request::{ApiRequest, Embedding, Generation, Scoring, Task};
use crate::setting::Setting;
use crate::split::{Split, members};

/// What OpenAI writes for a probability of nothing.
const LOGPROB_MIN: f32 = -9999.0;

/// Why an answer ended that calls functions.
pub(crate) const CALLED: &str = "tool_calls";

type Object = Map<String, Value>;

/// What a response takes while it is put together and written, about, in bytes: for each token of an answer, for each
/// log-probability that is told, and for each number of a vector.
const TOKEN_BYTES: usize = 48;
const LOGPROB_BYTES: usize = 96;
const NUMBER_BYTES: usize = 20;

impl Setting {
    /// About as many bytes as the answers to a request take at most, from the first token until they are written.
    pub fn answer_bytes_max(&self, task: &Task) -> usize {
        match task {
            Task::Chat(g) | Task::Completions(g) => {
                let told = |top: Option<usize>| top.map_or(0, |top| (top + 1) * LOGPROB_BYTES);
                let answers = (g.prompts.len() * g.n).saturating_mul(g.max_new_tokens);
                let prompts = g.n.saturating_mul(g.prompts.iter().map(Vec::len).sum());
                let answers = answers.saturating_mul(TOKEN_BYTES + told(g.top_logprobs));
                answers.saturating_add(prompts.saturating_mul(told(g.prompt_top())))
            }
            Task::Embeddings(e) => {
                let width = self.embedding.as_ref().map_or(0, |made| made.width);
                let numbers = e.inputs.len().saturating_mul(e.hidden.dimensions.unwrap_or(width));
                numbers.saturating_mul(NUMBER_BYTES)
            }
            Task::Score(s) if s.head.is_some() => {
                let width = self.embedding.as_ref().map_or(0, |made| made.width);
                s.sequences.len().saturating_mul(width.saturating_mul(size_of::<f32>()) + TOKEN_BYTES)
            }
            Task::Score(s) => {
                let tokens: usize = s.sequences.iter().map(|(ids, _)| ids.len()).sum();
                tokens.saturating_mul(TOKEN_BYTES)
            }
        }
    }

    /// The body of the response to a request whose parts are all finished, in order.
    ///
    /// # Errors
    /// A defect: the parts are not those of the request.
    pub fn respond(&self, request: &ApiRequest, parts: &[Part], stamp: &Stamp) -> Result<Value, Refusal> {
        if parts.len() != request.task.parts() {
            let what = format!("{} parts of a request that has {}", parts.len(), request.task.parts());
            return Err(Refusal::defect(what));
        }
        let mut body = match &request.task {
            Task::Chat(generation) => self.chat_body(stamp, generation, parts)?,
            Task::Completions(generation) => self.completions_body(stamp, generation, parts)?,
            Task::Embeddings(embedding) => embeddings_body(embedding, parts)?,
            Task::Score(scoring) => self.scores_body(stamp, scoring, parts)?,
        };
        if !matches!(request.task, Task::Embeddings(_)) {
            body.insert("created".to_owned(), stamp.created.into());
        }
        body.insert("model".to_owned(), request.model.as_deref().unwrap_or(self.model()).into());
        if !request.ignored.is_empty() {
            body.insert("aerostat".to_owned(), json!({"ignored": request.ignored}));
        }
        Ok(body.into())
    }

    fn chat_body(&self, stamp: &Stamp, generation: &Generation, parts: &[Part]) -> Result<Object, Refusal> {
        let choice = |(index, part): (usize, &Part)| {
            let (text, finish, stop) = answer(part)?;
            let logprobs = match generation.top_logprobs {
                None => Value::Null,
                Some(k) => {
                    let shown = shown_tokens(generation, part).iter();
                    let entries = shown.map(|token| self.chat_logprob(token, k));
                    json!({"content": entries.collect::<Result<Vec<_>, _>>()?, "refusal": null})
                }
            };
            let (message, called) = message(generation.split, &text, stamp);
            Ok(json!({
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": if called && finish == Finish::Stop.name() { CALLED } else { finish },
                "stop_reason": stop,
            }))
        };
        let choices = parts.iter().enumerate().map(choice).collect::<Result<Vec<Value>, Refusal>>()?;
        let mut body = object([
            ("id", format!("chatcmpl-{}", stamp.id).into()),
            ("object", "chat.completion".into()),
            ("choices", choices.into()),
            ("usage", usage(generation, parts)),
            ("system_fingerprint", Value::Null),
        ]);
        if let (Some(prompt), Some(part)) = (generation.prompts.first(), parts.first())
            && let Some(logprobs) = self.prompt_logprobs(generation, prompt, part)?
        {
            body.insert("prompt_logprobs".to_owned(), logprobs);
        }
        Ok(body)
    }

    fn completions_body(
        &self,
        stamp: &Stamp,
        generation: &Generation,
        parts: &[Part],
    ) -> Result<Object, Refusal> {
        let choice = |(index, part): (usize, &Part)| {
            let (mut text, finish, stop) = answer(part)?;
            let number = index.checked_div(generation.n).unwrap_or(0);
            let prompt = generation.prompts.get(number).map_or(&[][..], Vec::as_slice);
            let echo = generation.echo.as_ref().and_then(|texts| texts.get(number));
            if let Some(prompt) = echo {
                text.insert_str(0, prompt);
            }
            let logprobs = match generation.top_logprobs {
                None => Value::Null,
                Some(k) if echo.is_some() => self.echoed_logprobs(prompt, part, k)?,
                Some(k) => self.completion_logprobs(shown_tokens(generation, part), k, 0)?,
            };
            let mut choice = object([
                ("index", index.into()),
                ("text", text.into()),
                ("logprobs", logprobs),
                ("finish_reason", finish.into()),
                ("stop_reason", stop),
            ]);
            if let Some(logprobs) = self.prompt_logprobs(generation, prompt, part)? {
                choice.insert("prompt_logprobs".to_owned(), logprobs);
            }
            Ok(choice.into())
        };
        let choices = parts.iter().enumerate().map(choice).collect::<Result<Vec<Value>, Refusal>>()?;
        Ok(object([
            ("id", format!("cmpl-{}", stamp.id).into()),
            ("object", "text_completion".into()),
            ("choices", choices.into()),
            ("usage", usage(generation, parts)),
            ("system_fingerprint", Value::Null),
        ]))
    }

    pub(crate) fn chat_logprob(&self, token: &Token, k: usize) -> Result<Value, Refusal> {
        let entry = |id: u32, logprob: f32| {
            object([
                ("token", self.token_text(id).into()),
                ("logprob", decimal(logprob)),
                ("bytes", self.token_bytes(id)),
            ])
        };
        let mut one = entry(token.id, logprob(token)?);
        let top: Vec<Value> = token.top.iter().take(k).map(|(id, l)| entry(*id, *l).into()).collect();
        one.insert("top_logprobs".to_owned(), top.into());
        Ok(one.into())
    }

    /// Of tokens of which the first begins `offset` characters into the answer.
    pub(crate) fn completion_logprobs(
        &self,
        tokens: &[Token],
        k: usize,
        mut offset: usize,
    ) -> Result<Value, Refusal> {
        let texts: Vec<String> = tokens.iter().map(|t| self.token_text(t.id)).collect();
        let offsets: Vec<usize> = texts
            .iter()
            .map(|text| {
                let start = offset;
                offset += text.chars().count();
                start
            })
            .collect();
        let top = |token: &Token| self.by_text(&token.top, k);
        let logprobs = tokens.iter().map(|token| logprob(token).map(decimal));
        Ok(json!({
            "tokens": texts,
            "token_logprobs": logprobs.collect::<Result<Vec<_>, _>>()?,
            "top_logprobs": tokens.iter().map(|t| Value::from(top(t))).collect::<Vec<_>>(),
            "text_offset": offsets,
        }))
    }

    fn scores_body(&self, stamp: &Stamp, scoring: &Scoring, parts: &[Part]) -> Result<Object, Refusal> {
        let one = |(index, ((ids, start), part)): (usize, (&(Vec<u32>, usize), &Part))| {
            if let (Some(_), PartResult::Vector(vector)) = (scoring.head, &part.result) {
                return Ok(
                    json!({"object": "score", "index": index, "score": decimal(self.head_score(vector)?)}),
                );
            }
            let PartResult::Logprobs(logprobs) = &part.result else { return Err(mixed_up(part)) };
            let known: Option<Vec<f32>> = logprobs.iter().skip(*start).copied().collect();
            let known =
                known.ok_or_else(|| Refusal::defect("a token of a scored text has no log-probability"))?;
            // Of no numbers, `sum` gives -0.
            let sum = known.iter().map(|l| f64::from(*l)).sum::<f64>() + 0.0;
            let tokens: Vec<String> = ids.iter().skip(*start).map(|id| self.token_text(*id)).collect();
            Ok(json!({
                "object": "score",
                "index": index,
                "score": sum,
                "tokens": tokens,
                "token_logprobs": known.iter().map(|l| decimal(*l)).collect::<Vec<_>>(),
            }))
        };
        let pairs = scoring.sequences.iter().zip(parts).enumerate();
        let data = pairs.map(one).collect::<Result<Vec<Value>, Refusal>>()?;
        let tokens: usize = scoring.sequences.iter().map(|(ids, _)| ids.len()).sum();
        Ok(object([
            ("id", format!("score-{}", stamp.id).into()),
            ("object", "list".into()),
            ("data", data.into()),
            ("usage", json!({"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens})),
        ]))
    }

    /// The score that the model's head gives to the vector of a pair.
    fn head_score(&self, vector: &[f32]) -> Result<f32, Refusal> {
        let Some(Ok(scorer)) = &self.scorer else { return Err(Refusal::defect("a score without a head")) };
        let score = scorer.score(&[Outcome::Hidden(vec![vector.to_vec()])]);
        score.ok_or_else(|| Refusal::defect("the head gives no score to a vector"))
    }

    /// A token's text; its number where there is no tokenizer.
    pub(crate) fn token_text(&self, id: u32) -> String {
        self.tokenizer.as_deref().map_or_else(|| id.to_string(), |t: &Tokenizer| t.decode(&[id], false))
    }

    fn token_bytes(&self, id: u32) -> Value {
        self.tokenizer.as_ref().and_then(|t| t.token_bytes(id)).map_or(Value::Null, Value::from)
    }
}

fn embeddings_body(embedding: &Embedding, parts: &[Part]) -> Result<Object, Refusal> {
    let one = |(index, part): (usize, &Part)| {
        let PartResult::Vector(vector) = &part.result else { return Err(mixed_up(part)) };
        let value = if embedding.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            BASE64_STANDARD.encode(bytes).into()
        } else {
            Value::from(vector.iter().map(|x| decimal(*x)).collect::<Vec<_>>())
        };
        Ok(json!({"object": "embedding", "index": index, "embedding": value}))
    };
    let data = parts.iter().enumerate().map(one).collect::<Result<Vec<Value>, Refusal>>()?;
    let tokens: usize = embedding.inputs.iter().map(Vec::len).sum();
    Ok(object([
        ("object", "list".into()),
        ("data", data.into()),
        ("usage", json!({"prompt_tokens": tokens, "total_tokens": tokens})),
    ]))
}

/// The message of an answer, taken apart where that is wanted, and whether it calls functions.
fn message(split: Option<Split>, text: &str, stamp: &Stamp) -> (Object, bool) {
    let mut message =
        object([("role", "assistant".into()), ("content", text.into()), ("refusal", Value::Null)]);
    let Some(split) = split else { return (message, false) };
    let mut splitter = split.splitter();
    let pieces = [splitter.push(text), splitter.finish()].concat();
    let mut parts = members(&pieces, |index| split.call_id(stamp, index));
    let called = !parts.calls.is_empty();
    let content = parts.content.map_or_else(|| if called { Value::Null } else { "".into() }, Value::from);
    message.insert("content".to_owned(), content);
    if let Some(thoughts) = parts.thoughts {
        message.insert("reasoning_content".to_owned(), thoughts.into());
    }
    if called {
        for call in parts.calls.iter_mut().filter_map(Value::as_object_mut) {
            call.remove("index");
        }
        message.insert("tool_calls".to_owned(), parts.calls.into());
    }
    (message, called)
}

/// The text of an answer, why it ended, and what of the request's own ended it.
fn answer(part: &Part) -> Result<(String, &'static str, Value), Refusal> {
    let PartResult::Text { text, finish, more } = &part.result else { return Err(mixed_up(part)) };
    let stop = match &more.stop_reason {
        None => Value::Null,
        Some(StopReason::Text(text)) => text.as_str().into(),
        Some(StopReason::Token(id)) => (*id).into(),
    };
    // Without a tokenizer the tokens are the answer.
    let ids = || part.tokens.iter().map(|t| t.id.to_string()).collect::<Vec<_>>().join(",");
    Ok((text.clone().unwrap_or_else(ids), finish.name(), stop))
}

/// The tokens of an answer without the one that ended it.
fn shown_tokens<'a>(generation: &Generation, part: &'a Part) -> &'a [Token] {
    match part.tokens.split_last() {
        Some((last, rest)) if generation.ends(last.id) => rest,
        _ => &part.tokens,
    }
}

fn usage(generation: &Generation, parts: &[Part]) -> Value {
    usage_of(generation, parts.iter().map(|p| p.tokens.len()).sum())
}

/// The usage of a request whose answers have so many tokens together.
pub(crate) fn usage_of(generation: &Generation, answers: usize) -> Value {
    let prompt: usize = generation.prompts.iter().map(Vec::len).sum();
    json!({"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers})
}

/// A token's log-probability where it is wanted.
pub(crate) fn logprob(token: &Token) -> Result<f32, Refusal> {
    token.logprob.ok_or_else(|| Refusal::defect(format!("token {} has no log-probability", token.id)))
}

fn mixed_up(part: &Part) -> Refusal {
    let kind = match &part.result {
        PartResult::Text { .. } => "an answer",
        PartResult::Logprobs(_) => "log-probabilities",
        PartResult::Vector(_) => "a vector",
    };
    Refusal::defect(format!("a part of a request was answered with {kind}, which it did not ask for"))
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Object {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A number as short as it can be written without losing a bit; what JSON cannot write is far below any probability.
pub(crate) fn decimal(number: f32) -> Value {
    let number = if number.is_finite() { number } else { LOGPROB_MIN };
    // What `f32` prints is a number that `f64` reads.
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_short_as_they_can_be() {
        assert_eq!(decimal(0.1).to_string(), "0.1");
        assert_eq!(decimal(f32::NEG_INFINITY).to_string(), "-9999.0");
        assert_eq!(decimal(f32::MIN_POSITIVE).as_f64().map(|n| n as f32), Some(f32::MIN_POSITIVE));
    }
}
