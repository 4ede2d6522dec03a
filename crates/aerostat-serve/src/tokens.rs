//! `/tokenize`, `/detokenize`, `/tokenizer_info`: as vLLM has them.

use std::io::Write;
use std::sync::Arc;

use aerostat::Tokenizer;
use aerostat_openai::{Endpoint, Task};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::answer::{flag, object, receive};
use crate::app::App;
use crate::body::Body;
use crate::engine::Model;
use crate::held::{Held, Holder};
use crate::problem::Problem;
use crate::text::{json_response, line, whole};

/// Bytes of a text that is only tokenised.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// What is held for a byte of it, a third of what it may take: it is a token, and that token's number in the answer.
const TOKEN_BYTES: usize = 8;
/// And where each is told as text, too.
const STRING_BYTES: usize = 24;

/// `/tokenize`: the tokens of a prompt or of a conversation.
pub(crate) async fn tokenize(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let (body, model, held) = receive(app, request).await?;
    let shared = Arc::clone(app);
    let work = move || {
        let mut body = object(&body)?;
        shared.check_body(&body)?;
        let mut held = held;
        let strings = flag(&mut body, "return_token_strs", false)?;
        let special = flag(&mut body, "add_special_tokens", true)?;
        let ids = match body.remove("prompt") {
            Some(Value::String(text)) => {
                only(&body, &["model"])?;
                if text.len() > TEXT_BYTES_MAX {
                    let message = format!("`prompt` has {} bytes; {TEXT_BYTES_MAX} are allowed", text.len());
                    return Err(Problem::value("prompt", message));
                }
                let each = TOKEN_BYTES + if strings { STRING_BYTES } else { 0 };
                held.push(hold(&shared.bytes, text.len() * each)?);
                let ids = tokenizer(&model)?.encode(&text, special);
                ids.map_err(|e| Problem::value("prompt", e.to_string()))?
            }
            Some(_) => return Err(Problem::value("prompt", "`prompt` must be text")),
            None => conversation(&model, body)?,
        };
        let text = |id: &u32| model.setting.tokenizer().and_then(|t| t.token_text(*id));
        let strings = strings.then(|| ids.iter().map(text).collect::<Vec<_>>());
        let told = told(&ids, model.context, strings).map_err(Problem::internal)?;
        drop(held);
        Ok(told)
    };
    Ok(whole(StatusCode::OK, "application/json", app.blocking(work).await?))
}

/// What a client is told of tokens. They are written as they are: as values of JSON they would take many times as much.
fn told(ids: &[u32], context: usize, strings: Option<Vec<Option<String>>>) -> std::io::Result<Vec<u8>> {
    let mut told = Vec::with_capacity(8 * ids.len() + 128);
    write!(told, "{{\"count\":{},\"max_model_len\":{context},\"tokens\":", ids.len())?;
    serde_json::to_writer(&mut told, ids)?;
    write!(told, ",\"token_strs\":{}}}", line(&json!(strings)))?;
    Ok(told)
}

/// Holds what tokenising takes of the memory that clients share.
fn hold(bytes: &Arc<Holder>, needed: usize) -> Result<Held, Problem> {
    if needed > bytes.max() {
        let message =
            format!("tokenising it takes {needed} bytes of memory, more than there is for requests");
        return Err(Problem::value("prompt", message));
    }
    bytes.hold(needed)
}

/// Refuses members that are not known.
fn only(body: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    match body.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported"))),
        None => Ok(()),
    }
}

/// The tokens of messages, as a chat has them.
fn conversation(model: &Model, body: Map<String, Value>) -> Result<Vec<u32>, Problem> {
    let Task::Chat(mut generation) = model.setting.read(Endpoint::Chat, body, 0)?.task else {
        return Err(Problem::internal("a chat was read as something else"));
    };
    generation.prompts.pop().ok_or_else(|| Problem::internal("a chat has no prompt"))
}

fn tokenizer(model: &Model) -> Result<&Arc<Tokenizer>, Problem> {
    let none = || Problem::value("prompt", "this model has no tokenizer; it takes token ids");
    model.setting.tokenizer().ok_or_else(none)
}

/// `/detokenize`: the text of tokens.
pub(crate) async fn detokenize(
    app: &Arc<App>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let (body, model, held) = receive(app, request).await?;
    let shared = Arc::clone(app);
    let work = move || {
        let body = object(&body)?;
        shared.check_body(&body)?;
        only(&body, &["model", "tokens"])?;
        let ids: Option<Vec<u32>> = body.get("tokens").and_then(Value::as_array).and_then(|list| {
            list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
        });
        let ids = ids.ok_or_else(|| Problem::value("tokens", "`tokens` must be a list of token ids"))?;
        let text = tokenizer(&model)?.decode(&ids, false);
        drop(held);
        Ok(json!({"prompt": text}))
    };
    Ok(json_response(StatusCode::OK, &app.blocking(work).await?))
}

/// `/tokenizer_info`: the tokens that begin and end a text.
pub(crate) fn info(app: &App) -> Result<Response<Body>, Problem> {
    let model = app.model()?;
    let tokenizer = tokenizer(model)?;
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
    let body = json!({
        "tokenizer_class": "aerostat",
        "bos_token": text(tokenizer.bos()),
        "eos_token": text(tokenizer.eos()),
        "pad_token": null,
        "chat_template": model.setting.template_source(),
        "vocab_size": tokenizer.vocab_size(),
        "max_model_len": model.context,
    });
    Ok(json_response(StatusCode::OK, &body))
}
