//! Lines of the output: OpenAI's shapes, so that its own types read them.

use aerostat::Tokenizer;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::fields::Refusal;
use crate::journal::{Finish, PartResult, Token};
use crate::request::{Embedding, Generation, Item, Scoring, Setting, Task};

/// What OpenAI writes for a probability of nothing.
const LOGPROB_MIN: f32 = -9999.0;

/// A finished sequence of a line.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) tokens: Vec<Token>,
    pub(crate) result: PartResult,
}

/// The `id` of a line of the output: the line's number in the input, by which a resumed job knows it again.
pub(crate) fn id(number: u64) -> String {
    format!("batch_req_{:010}", number + 1)
}

/// The line's number that an `id` holds.
pub(crate) fn number(id: &str) -> Option<u64> {
    id.strip_prefix("batch_req_")?.parse::<u64>().ok()?.checked_sub(1)
}

/// The output line of a request that was served.
pub(crate) fn success(
    setting: &Setting,
    created: u64,
    number: u64,
    item: &Item,
    parts: &[Finished],
) -> Value {
    let mut body = match &item.task {
        Task::Chat(generation) => chat(setting, number, generation, parts),
        Task::Completions(generation) => completions(setting, number, generation, parts),
        Task::Embeddings(embedding) => embeddings(embedding, parts),
        Task::Score(scoring) => scores(setting, number, scoring, parts),
    };
    if !matches!(item.task, Task::Embeddings(_)) {
        body.insert("created".to_owned(), created.into());
    }
    body.insert("model".to_owned(), item.model.as_deref().unwrap_or(&setting.model).into());
    json!({
        "id": id(number),
        "custom_id": item.custom_id,
        "response": {"status_code": 200, "request_id": request_id(number), "body": body},
        "error": null,
    })
}

/// The line of a request that failed, for the error file. `line` is there for lines without a custom_id.
pub(crate) fn failure(number: u64, custom_id: Option<&str>, status: u16, refusal: &Refusal) -> Value {
    let kind = if status == 400 { "invalid_request_error" } else { "server_error" };
    let error = json!({
        "message": refusal.message,
        "type": kind,
        "param": refusal.param,
        "code": refusal.code,
    });
    json!({
        "id": id(number),
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": request_id(number), "body": {"error": error}},
        "error": {"code": refusal.code, "message": refusal.message, "line": number + 1},
    })
}

fn request_id(number: u64) -> String {
    format!("req_{:010}", number + 1)
}

type Object = Map<String, Value>;

fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn chat(setting: &Setting, number: u64, generation: &Generation, parts: &[Finished]) -> Object {
    let choice = |(index, part): (usize, &Finished)| {
        let (text, finish) = answer(part);
        let logprobs = generation.top_logprobs.map(|k| {
            let shown = shown_tokens(generation, part);
            let entries: Vec<Value> = shown.iter().map(|token| chat_logprob(setting, token, k)).collect();
            json!({"content": entries, "refusal": null})
        });
        json!({
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": logprobs,
            "finish_reason": finish,
        })
    };
    let choices: Vec<Value> = parts.iter().enumerate().map(choice).collect();
    object(json!({
        "id": format!("chatcmpl-{:010}", number + 1),
        "object": "chat.completion",
        "choices": choices,
        "usage": usage(generation, parts),
        "system_fingerprint": null,
    }))
}

fn completions(setting: &Setting, number: u64, generation: &Generation, parts: &[Finished]) -> Object {
    let choice = |(index, part): (usize, &Finished)| {
        let (text, finish) = answer(part);
        let logprobs =
            generation.top_logprobs.map(|k| completion_logprobs(setting, shown_tokens(generation, part), k));
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
    };
    let choices: Vec<Value> = parts.iter().enumerate().map(choice).collect();
    object(json!({
        "id": format!("cmpl-{:010}", number + 1),
        "object": "text_completion",
        "choices": choices,
        "usage": usage(generation, parts),
        "system_fingerprint": null,
    }))
}

fn answer(part: &Finished) -> (String, &'static str) {
    match &part.result {
        PartResult::Text { text, finish } => {
            // Without a tokenizer the tokens are the answer.
            let ids = || part.tokens.iter().map(|t| t.id.to_string()).collect::<Vec<_>>().join(",");
            (text.clone().unwrap_or_else(ids), finish.name())
        }
        _ => (String::new(), Finish::Stop.name()),
    }
}

/// The tokens of an answer without the one that ended it.
fn shown_tokens<'a>(generation: &Generation, part: &'a Finished) -> &'a [Token] {
    match part.tokens.split_last() {
        Some((last, rest)) if generation.end_tokens.contains(&last.id) => rest,
        _ => &part.tokens,
    }
}

fn usage(generation: &Generation, parts: &[Finished]) -> Value {
    let prompt: usize = generation.prompts.iter().map(Vec::len).sum();
    let answers: usize = parts.iter().map(|p| p.tokens.len()).sum();
    json!({"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers})
}

fn chat_logprob(setting: &Setting, token: &Token, k: usize) -> Value {
    let entry = |id: u32, logprob: f32| {
        let mut entry = Map::new();
        entry.insert("token".to_owned(), token_text(setting, id).into());
        entry.insert("logprob".to_owned(), decimal(logprob));
        entry.insert("bytes".to_owned(), token_bytes(setting, id));
        entry
    };
    let mut one = entry(token.id, token.logprob.unwrap_or(LOGPROB_MIN));
    let top: Vec<Value> = token.top.iter().take(k).map(|(id, l)| entry(*id, *l).into()).collect();
    one.insert("top_logprobs".to_owned(), top.into());
    one.into()
}

fn completion_logprobs(setting: &Setting, tokens: &[Token], k: usize) -> Value {
    let texts: Vec<String> = tokens.iter().map(|t| token_text(setting, t.id)).collect();
    let mut offset = 0;
    let offsets: Vec<usize> = texts
        .iter()
        .map(|text| {
            let start = offset;
            offset += text.chars().count();
            start
        })
        .collect();
    let top = |token: &Token| {
        let pairs = token.top.iter().take(k);
        pairs.map(|(id, l)| (token_text(setting, *id), decimal(*l))).collect::<Map<String, Value>>()
    };
    json!({
        "tokens": texts,
        "token_logprobs": tokens.iter().map(|t| decimal(t.logprob.unwrap_or(LOGPROB_MIN))).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(|t| Value::from(top(t))).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

fn token_text(setting: &Setting, id: u32) -> String {
    setting
        .tokenizer
        .as_ref()
        .map_or_else(|| id.to_string(), |t: &std::sync::Arc<Tokenizer>| t.decode(&[id], false))
}

fn token_bytes(setting: &Setting, id: u32) -> Value {
    setting.tokenizer.as_ref().and_then(|t| t.token_bytes(id)).map_or(Value::Null, Value::from)
}

fn embeddings(embedding: &Embedding, parts: &[Finished]) -> Object {
    let one = |(index, part): (usize, &Finished)| {
        let PartResult::Vector(vector) = &part.result else { return Value::Null };
        let value = if embedding.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            BASE64_STANDARD.encode(bytes).into()
        } else {
            Value::from(vector.iter().map(|x| decimal(*x)).collect::<Vec<_>>())
        };
        json!({"object": "embedding", "index": index, "embedding": value})
    };
    let data: Vec<Value> = parts.iter().enumerate().map(one).collect();
    let tokens: usize = embedding.inputs.iter().map(Vec::len).sum();
    object(json!({
        "object": "list",
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

fn scores(setting: &Setting, number: u64, scoring: &Scoring, parts: &[Finished]) -> Object {
    let one = |(index, ((ids, start), part)): (usize, (&(Vec<u32>, usize), &Finished))| {
        let PartResult::Logprobs(logprobs) = &part.result else { return Value::Null };
        let known: Vec<f32> = logprobs.iter().skip(*start).map(|l| l.unwrap_or(LOGPROB_MIN)).collect();
        let sum: f64 = known.iter().map(|l| f64::from(*l)).sum();
        let tokens: Vec<String> = ids.iter().skip(*start).map(|id| token_text(setting, *id)).collect();
        json!({
            "object": "score",
            "index": index,
            "score": sum,
            "tokens": tokens,
            "token_logprobs": known.iter().map(|l| decimal(*l)).collect::<Vec<_>>(),
        })
    };
    let data: Vec<Value> = scoring.sequences.iter().zip(parts).enumerate().map(one).collect();
    let tokens: usize = scoring.sequences.iter().map(|(ids, _)| ids.len()).sum();
    object(json!({
        "id": format!("score-{:010}", number + 1),
        "object": "list",
        "data": data,
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }))
}

/// A number as short as it can be written without losing a bit; what JSON cannot write is far below any probability.
fn decimal(number: f32) -> Value {
    let number = if number.is_finite() { number } else { LOGPROB_MIN };
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
