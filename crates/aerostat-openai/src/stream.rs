//! Chunks of responses that come as they are made: OpenAI's shapes, so that its own types read them.

use serde_json::{Map, Value, json};

use crate::part::Stamp;
use crate::part::{Finish, Token};
use crate::refusal::Refusal;
use crate::request::{ApiRequest, Generation, Task};
use crate::respond::{CALLED, usage_of};
use crate::setting::Setting;
use crate::split::{Piece, members};

/// What a chunk says of one choice.
#[derive(Clone, Copy, Debug)]
pub enum Delta<'a> {
    /// It begins: who speaks. Only chats say so.
    Begin,
    /// It gained something.
    Text {
        /// New text; it may be empty.
        text: &'a str,
        /// New tokens, with log-probabilities if those are wanted.
        tokens: &'a [Token],
        /// Characters of all its tokens before these; see [`Setting::shown_chars`].
        offset: usize,
    },
    /// It gained what a [`Splitter`](crate::Splitter) made of its text.
    Pieces {
        /// In order; there may be none.
        pieces: &'a [Piece],
        /// New tokens, with log-probabilities if those are wanted.
        tokens: &'a [Token],
    },
    /// Nothing happened: a sign of life.
    Nothing,
    /// It ended.
    End(Finish),
    /// It ended and calls functions.
    Called,
}

impl Setting {
    /// Whether the answers to a request can come in chunks.
    ///
    /// # Errors
    /// They cannot: what is told of prompts comes with whole answers only.
    pub fn check_stream(&self, request: &ApiRequest) -> Result<(), Refusal> {
        let generation = generation(request)?;
        let told =
            [("echo", generation.echo.is_some()), ("prompt_logprobs", generation.prompt_logprobs.is_some())];
        match told.iter().find(|(_, told)| *told) {
            Some((name, _)) => {
                Err(Refusal::unsupported(name, format!("`{name}` is not supported with `stream`")))
            }
            None => Ok(()),
        }
    }

    /// A chunk with one choice. All chunks of a response have the same stamp.
    ///
    /// # Errors
    /// A defect: the request has no answers, or a token lacks the log-probability that is wanted.
    pub fn chunk(
        &self,
        request: &ApiRequest,
        stamp: &Stamp,
        choice: usize,
        delta: Delta<'_>,
    ) -> Result<Value, Refusal> {
        let choice = match &request.task {
            Task::Chat(generation) => self.chat_choice(generation, stamp, choice, delta)?,
            Task::Completions(generation) => self.completion_choice(generation, choice, delta)?,
            Task::Embeddings(_) | Task::Score(_) => return Err(no_answer()),
        };
        self.chunk_of(request, stamp, vec![choice])
    }

    /// The chunk that tells the usage at the end: answers have so many tokens together.
    ///
    /// # Errors
    /// A defect: the request has no answers.
    pub fn usage_chunk(&self, request: &ApiRequest, stamp: &Stamp, tokens: usize) -> Result<Value, Refusal> {
        let mut chunk = self.chunk_of(request, stamp, Vec::new())?;
        chunk["usage"] = usage(request, tokens)?;
        Ok(chunk)
    }

    /// The usage of a request whose answers have so many tokens together.
    ///
    /// # Errors
    /// A defect: the request has no answers.
    pub fn usage(&self, request: &ApiRequest, tokens: usize) -> Result<Value, Refusal> {
        usage(request, tokens)
    }

    /// Characters that tokens of an answer are shown with, as `text_offset` counts them.
    pub fn shown_chars(&self, request: &ApiRequest, tokens: &[Token]) -> usize {
        let Ok(generation) = generation(request) else { return 0 };
        shown(generation, tokens).iter().map(|token| self.token_text(token.id).chars().count()).sum()
    }

    fn chunk_of(&self, request: &ApiRequest, stamp: &Stamp, choices: Vec<Value>) -> Result<Value, Refusal> {
        let (prefix, object) = match &request.task {
            Task::Chat(_) => ("chatcmpl", "chat.completion.chunk"),
            Task::Completions(_) => ("cmpl", "text_completion"),
            Task::Embeddings(_) | Task::Score(_) => return Err(no_answer()),
        };
        Ok(json!({
            "id": format!("{prefix}-{}", stamp.id),
            "object": object,
            "created": stamp.created,
            "model": request.model.as_deref().unwrap_or(self.model()),
            "system_fingerprint": null,
            "choices": choices,
        }))
    }

    fn chat_choice(
        &self,
        generation: &Generation,
        stamp: &Stamp,
        index: usize,
        delta: Delta<'_>,
    ) -> Result<Value, Refusal> {
        let (mut logprobs, mut finish) = (Value::Null, Value::Null);
        let tokens = match delta {
            Delta::Text { tokens, .. } | Delta::Pieces { tokens, .. } => tokens,
            _ => &[],
        };
        if let Some(k) = generation.top_logprobs.filter(|_| !tokens.is_empty()) {
            let entries = shown(generation, tokens).iter().map(|token| self.chat_logprob(token, k));
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            logprobs = json!({"content": entries, "refusal": null});
        }
        let delta = match delta {
            Delta::Begin => json!({"role": "assistant", "content": ""}),
            Delta::Nothing => json!({}),
            Delta::Text { text, .. } => json!({"content": text}),
            Delta::Pieces { pieces, .. } => {
                let id =
                    |index| generation.split.map_or_else(String::new, |split| split.call_id(stamp, index));
                delta_of(pieces, id)
            }
            Delta::Called => {
                finish = CALLED.into();
                json!({})
            }
            Delta::End(reason) => {
                finish = reason.name().into();
                json!({})
            }
        };
        Ok(json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}))
    }

    fn completion_choice(
        &self,
        generation: &Generation,
        index: usize,
        delta: Delta<'_>,
    ) -> Result<Value, Refusal> {
        let (mut logprobs, mut finish) = (Value::Null, Value::Null);
        let text = match delta {
            Delta::Begin | Delta::Nothing | Delta::Pieces { .. } | Delta::Called => "",
            Delta::Text { text, tokens, offset } => {
                if let Some(k) = generation.top_logprobs {
                    logprobs = self.completion_logprobs(shown(generation, tokens), k, offset)?;
                }
                text
            }
            Delta::End(reason) => {
                finish = reason.name().into();
                ""
            }
        };
        Ok(json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}))
    }
}

/// What pieces add to a message.
fn delta_of(pieces: &[Piece], id: impl Fn(usize) -> String) -> Value {
    let parts = members(pieces, id);
    let mut delta = Map::new();
    delta.extend(parts.content.map(|text| ("content".to_owned(), text.into())));
    delta.extend(parts.thoughts.map(|text| ("reasoning_content".to_owned(), text.into())));
    if !parts.calls.is_empty() {
        delta.insert("tool_calls".to_owned(), parts.calls.into());
    }
    delta.into()
}

/// Tokens without the one that ended the answer.
fn shown<'a>(generation: &Generation, tokens: &'a [Token]) -> &'a [Token] {
    match tokens.split_last() {
        Some((last, rest)) if generation.ends(last.id) => rest,
        _ => tokens,
    }
}

fn usage(request: &ApiRequest, tokens: usize) -> Result<Value, Refusal> {
    Ok(usage_of(generation(request)?, tokens))
}

fn generation(request: &ApiRequest) -> Result<&Generation, Refusal> {
    match &request.task {
        Task::Chat(generation) | Task::Completions(generation) => Ok(generation),
        Task::Embeddings(_) | Task::Score(_) => Err(no_answer()),
    }
}

fn no_answer() -> Refusal {
    Refusal::defect("a stream was asked of a request that has no answer")
}
