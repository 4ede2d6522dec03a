//! Ollama's API, for clients that speak nothing else: what reads, never what changes models.

mod lines;
mod read;

use std::sync::Arc;

use aerostat_openai::{ApiRequest, Endpoint, Task};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::answer::{self, key_of, object, prepare, receive, whole};
use crate::app::App;
use crate::body::Body;
use crate::engine::Model;
use crate::ids;
use crate::problem::Problem;
use crate::run::{Prepared, Run};
use crate::text::json_response;
use lines::Lines;
use read::Asked;

/// What a path of Ollama's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Version,
    Tags,
    Running,
    Show,
    Chat,
    Generate,
    Embed,
    /// The older one: one text, one vector.
    Embeddings,
    /// What changes models.
    Closed,
}

impl Door {
    /// What the rest of a path after `/api/` names.
    pub(crate) fn at(name: &str) -> Option<Self> {
        Some(match name {
            "version" => Self::Version,
            "tags" => Self::Tags,
            "ps" => Self::Running,
            "show" => Self::Show,
            "chat" => Self::Chat,
            "generate" => Self::Generate,
            "embed" => Self::Embed,
            "embeddings" => Self::Embeddings,
            "pull" | "push" | "create" | "copy" | "delete" => Self::Closed,
            _ => return None,
        })
    }

    pub(crate) fn methods(self) -> &'static str {
        match self {
            Self::Version | Self::Tags | Self::Running => "GET",
            Self::Closed => "POST, DELETE",
            _ => "POST",
        }
    }
}

/// Answers a request to one of them; errors are `{"error": …}`.
pub(crate) async fn handle(app: &Arc<App>, door: Door, request: Request<Incoming>) -> Response<Body> {
    let answered = match door {
        Door::Version => Ok(ok(&json!({"version": env!("CARGO_PKG_VERSION")}))),
        Door::Tags => models(app),
        Door::Running => models(app),
        Door::Show => show(app, request).await,
        Door::Chat | Door::Generate => generate(app, door, request).await,
        Door::Embed | Door::Embeddings => embed(app, door, request).await,
        Door::Closed => {
            let message = "this server does not change models";
            Err(Problem::new(StatusCode::FORBIDDEN, "read_only", message).closing())
        }
    };
    answered.unwrap_or_else(|problem| {
        let mut response = json_response(problem.status(), &json!({"error": problem.message()}));
        response.headers_mut().extend(problem.headers().into_iter().map(|(name, value)| (Some(name), value)));
        response
    })
}

fn ok(body: &Value) -> Response<Body> {
    json_response(StatusCode::OK, body)
}

/// Names have a tag here.
fn tagged(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// Refuses a model that is not this one, by its name with a tag or without.
fn check_name(app: &App, body: &Map<String, Value>) -> Result<String, Problem> {
    let given = body.get("model").or_else(|| body.get("name")).and_then(Value::as_str);
    let given = given.ok_or_else(|| Problem::value("model", "`model` must be there, and be text"))?;
    let plain = given.strip_suffix(":latest").unwrap_or(given);
    if app.config.names.iter().any(|own| own == given || own == plain) {
        return Ok(given.to_owned());
    }
    app.check_model(Some(given)).map(|()| given.to_owned())
}

fn details(model: &Model) -> Value {
    json!({
        "parent_model": "",
        "format": "aerostat",
        "family": model.family,
        "families": [model.family],
        "parameter_size": format!("{:.1}B", model.parameters as f64 / 1e9),
        "quantization_level": "",
    })
}

fn models(app: &App) -> Result<Response<Body>, Problem> {
    let model = app.model()?;
    let one = |name: &String| {
        json!({
            "name": tagged(name),
            "model": tagged(name),
            "modified_at": lines::time(app.created),
            "size": model.bytes,
            "digest": model.digest,
            "details": details(model),
            "context_length": model.context,
        })
    };
    Ok(ok(&json!({"models": app.config.names.iter().map(one).collect::<Vec<_>>()})))
}

async fn show(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let (body, model, _held) = receive(app, request).await?;
    check_name(app, &app.blocking(move || object(&body)).await?)?;
    let mut capabilities = vec!["completion", "embedding"];
    capabilities.extend(model.setting.may_call().then_some("tools"));
    capabilities.extend(model.setting.may_think().then_some("thinking"));
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), model.family.as_str().into());
    info.insert("general.parameter_count".to_owned(), model.parameters.into());
    info.insert(format!("{}.context_length", model.family), model.context.into());
    Ok(ok(&json!({
        "modelfile": "", "parameters": "", "template": "", "license": "",
        "details": details(&model), "model_info": info, "capabilities": capabilities,
        "modified_at": lines::time(app.created),
    })))
}

/// `/api/chat` and `/api/generate`.
async fn generate(app: &Arc<App>, door: Door, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let key = key_of(&request);
    let (body, model, held) = receive(app, request).await?;
    let shared = Arc::clone(app);
    let read = app.blocking(move || {
        let body = object(&body)?;
        let name = check_name(&shared, &body)?;
        if read::asks_nothing(&body, door == Door::Chat) {
            return Ok(Err(lines::loaded(&name, &body, door == Door::Chat)));
        }
        let asked = Asked::of(body, door == Door::Chat)?;
        let endpoint = if asked.raw { Endpoint::Completions } else { Endpoint::Chat };
        let mut read = model.setting.read(endpoint, asked.body.clone(), ids::seed())?;
        if let (true, Task::Chat(answers) | Task::Completions(answers)) = (asked.fills, &mut read.task) {
            let prompt = answers.prompts.iter().map(Vec::len).max().unwrap_or(0);
            answers.max_new_tokens = model.context.saturating_sub(prompt).max(answers.max_new_tokens);
        }
        let limits = &shared.config.limits;
        answer::check(&read.task, limits.parts_max, limits.grammar_bytes_max)?;
        Ok(Ok((Prepared { key, ..prepare(&shared, &model, read, held)? }, asked, name)))
    });
    let (prepared, asked, name) = match read.await? {
        Ok(read) => read,
        Err(line) => return Ok(ok(&line)),
    };
    let run = Run::start(app, prepared)?;
    let lines = Lines::new(run, name, door == Door::Chat, asked.stream, &app.config.limits);
    if asked.stream {
        let mut response = Response::new(Body::live(lines));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        return Ok(response);
    }
    lines.whole(&app.config.limits).await
}

/// `/api/embed` and `/api/embeddings`.
async fn embed(app: &Arc<App>, door: Door, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let key = key_of(&request);
    let (body, model, held) = receive(app, request).await?;
    let shared = Arc::clone(app);
    let read = app.blocking(move || {
        let mut body = object(&body)?;
        let name = check_name(&shared, &body)?;
        let input = body.remove(if door == Door::Embed { "input" } else { "prompt" }).unwrap_or(Value::Null);
        // Texts are cut at their end unless the request says that they are not.
        let cut = match body.remove("truncate") {
            None | Some(Value::Null | Value::Bool(true)) => Some(-1),
            Some(Value::Bool(false)) => None,
            Some(other) => return Err(read::wrong("truncate", &other)),
        };
        for known in ["model", "name", "options", "keep_alive"] {
            body.remove(known);
        }
        // The older door has always given vectors as they are.
        let mut asked = Map::from_iter([
            ("input".to_owned(), input),
            ("normalize".to_owned(), (door == Door::Embed).into()),
        ]);
        asked.extend(cut.map(|tokens| ("truncate_prompt_tokens".to_owned(), tokens.into())));
        asked.extend(body);
        let ApiRequest { task, ignored, .. } = model.setting.read(Endpoint::Embeddings, asked, 0)?;
        let read = ApiRequest { model: Some(name), task, ignored };
        let limits = &shared.config.limits;
        answer::check(&read.task, limits.parts_max, limits.grammar_bytes_max)?;
        if !matches!(read.task, Task::Embeddings(_)) {
            return Err(Problem::internal("a text to embed was read as something else"));
        }
        Ok(Prepared { key, ..prepare(&shared, &model, read, held)? })
    });
    let mut run = Run::start(app, read.await?)?;
    run.reshape = Some(Box::new(move |body| {
        let data = body["data"].as_array().into_iter().flatten();
        let vectors: Vec<Value> = data.map(|one| one["embedding"].clone()).collect();
        match door {
            Door::Embed => json!({"model": body["model"], "embeddings": vectors,
                "prompt_eval_count": body["usage"]["prompt_tokens"]}),
            _ => json!({"embedding": vectors.first()}),
        }
    }));
    whole(app, run).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_doors() {
        for (name, methods) in [("tags", "GET"), ("chat", "POST"), ("delete", "POST, DELETE")] {
            assert_eq!(Door::at(name).map(Door::methods), Some(methods));
        }
        assert_eq!(Door::at("blobs/sha256:1"), None);
        assert_eq!(tagged("org/name"), "org/name:latest");
    }
}
