//! `/tokenize`, `/detokenize`, `/tokenizer_info`: as vLLM has them.

use std::sync::Arc;

use aerostat::Tokenizer;
use aerostat_openai::{Endpoint, Task};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::answer::{object, receive};
use crate::app::App;
use crate::body::Body;
use crate::engine::Model;
use crate::problem::Problem;
use crate::text::json_response;

/// `/tokenize`: the tokens of a prompt or of a conversation.
pub(crate) async fn tokenize(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let (body, model, held) = receive(app, request).await?;
    let shared = Arc::clone(app);
    let work = move || {
        let mut body = object(&body)?;
        shared.check_model(body.get("model").and_then(Value::as_str))?;
        let strings = body.remove("return_token_strs").is_some_and(|wish| wish == true);
        let special = body.remove("add_special_tokens").and_then(|wish| wish.as_bool());
        let ids = match body.remove("prompt") {
            Some(Value::String(text)) => {
                let ids = tokenizer(&model)?.encode(&text, special.unwrap_or(true));
                ids.map_err(|e| Problem::value("prompt", e.to_string()))?
            }
            Some(_) => return Err(Problem::value("prompt", "`prompt` must be text")),
            None => conversation(&model, body)?,
        };
        let text = |id: &u32| model.setting.tokenizer().and_then(|t| t.token_text(*id));
        let strings = strings.then(|| ids.iter().map(text).collect::<Vec<_>>());
        drop(held);
        Ok(json!({"count": ids.len(), "max_model_len": model.context, "tokens": ids, "token_strs": strings}))
    };
    Ok(json_response(StatusCode::OK, &app.blocking(work).await?))
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
        shared.check_model(body.get("model").and_then(Value::as_str))?;
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
        "vocab_size": tokenizer.vocab_size(),
        "max_model_len": model.context,
    });
    Ok(json_response(StatusCode::OK, &body))
}
