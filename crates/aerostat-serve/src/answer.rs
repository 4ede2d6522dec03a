//! Requests for what the model computes: read, handed over, answered at once, late or in chunks.

use std::sync::Arc;

use aerostat::Hidden;
use aerostat_openai::{ApiRequest, Endpoint, Scoring, Shape, Stamp, Task, json};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::app::App;
use crate::body::{Body, Json, Live, json_bytes};
use crate::engine::Model;
use crate::gate::KeyPlace;
use crate::held::{Held, Holder};
use crate::ids;
use crate::orphans::{self, Kept};
use crate::problem::Problem;
use crate::progress;
use crate::run::{FLEXIBLE, INTERACTIVE, Prepared, Run, parts};
use crate::text::json_body;
use crate::wait::{Chunks, Late, Wishes};

/// Names of members that were ignored.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-aerostat-ignored");
/// Tells nginx to pass on what comes as it comes.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What the server itself reads of a body.
struct Asked {
    stream: bool,
    wishes: Wishes,
    flexible: bool,
}

/// Answers a request to one of the endpoints that a batch has, too.
pub(crate) async fn answer(
    app: &Arc<App>,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let key = key_of(&request);
    let (headers, path) = (request.headers().clone(), endpoint.path());
    let (body, model, held) = receive(app, request).await?;
    let attempt = orphans::attempt(&headers, key, path, &body);
    if let Some((kept, true)) = &attempt
        && let Some(run) = app.orphans.take(kept)
    {
        let home = Some((Arc::clone(app), *kept));
        return finish(app, Kept::new(run, home)).await;
    }
    let (limits, shared) = (app.config.limits.clone(), Arc::clone(app));
    let (prepared, asked) = app
        .blocking(move || {
            let mut body = object(&body)?;
            let asked = Asked::of(&mut body, endpoint)?;
            shared.check_body(&body)?;
            let seed = body.get("seed").is_none_or(Value::is_null).then(ids::seed);
            let request = model.setting.read(endpoint, body, seed.unwrap_or(0))?;
            check(&request.task, limits.parts_max, limits.grammar_bytes_max)?;
            if asked.stream {
                model.setting.check_stream(&request)?;
            }
            let prepared = prepare(&shared, &model, request, held)?;
            let seed = seed.filter(|_| matches!(prepared.request.task, Task::Chat(_) | Task::Completions(_)));
            let priority = if asked.flexible { FLEXIBLE } else { INTERACTIVE };
            Ok((Prepared { seed, priority, key, ..prepared }, asked))
        })
        .await?;
    let run = Run::start(app, prepared)?;
    let ignored = run.request.ignored.join(", ");
    let mut response = match asked.stream {
        true => {
            let id = run.id();
            let mut response = event_stream(Chunks::new(run, asked.wishes, app));
            progress::add_headers(app, &id, response.headers_mut());
            response
        }
        false => {
            let home = attempt.map(|(kept, _)| (Arc::clone(app), kept));
            finish(app, Kept::new(run, home)).await?
        }
    };
    if let Ok(ignored) = HeaderValue::from_str(&ignored)
        && !ignored.is_empty()
    {
        response.headers_mut().insert(IGNORED, ignored);
    }
    Ok(response)
}

/// Takes a place and the body of a request of JSON.
pub(crate) async fn receive(
    app: &Arc<App>,
    request: Request<Incoming>,
) -> Result<(Json, Arc<Model>, Vec<Held>), Problem> {
    let model = Arc::clone(app.model().map_err(Problem::closing)?);
    let place = app.requests.hold(1)?;
    let (body, bytes) = json_bytes(request, &app.config.limits, &app.bytes).await?;
    Ok((body, model, vec![place, bytes]))
}

/// The object that a body is.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    match json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Problem::bad("invalid_json", "the body is JSON, but no object")),
        Err(e) => Err(Problem::bad("invalid_json", json::told("the body", &e))),
    }
}

/// Refuses what would take more than its share.
pub(crate) fn check(task: &Task, parts_max: usize, grammar_bytes_max: usize) -> Result<(), Problem> {
    let parts = task.parts();
    if parts > parts_max {
        let message = format!("the request has {parts} sequences; {parts_max} are allowed");
        return Err(Problem::bad("too_many_sequences", message));
    }
    let bytes = match task.shape() {
        Some(Shape::Schema(schema)) => schema.to_string().len(),
        Some(Shape::Regex(text) | Shape::Lark(text) | Shape::Calls(text)) => text.len(),
        Some(Shape::Choice(texts)) => texts.iter().map(String::len).sum(),
        Some(Shape::JsonObject) | None => 0,
    };
    if bytes > grammar_bytes_max {
        let message = format!("the grammar has {bytes} bytes; {grammar_bytes_max} are allowed");
        let param = if matches!(task.shape(), Some(Shape::Calls(_))) { "tools" } else { "response_format" };
        return Err(Problem::value(param, message));
    }
    Ok(())
}

/// Makes the engine's requests, and holds the memory that their prompts take until they are answered.
pub(crate) fn prepare(
    app: &App,
    model: &Arc<Model>,
    request: ApiRequest,
    mut held: Vec<Held>,
) -> Result<Prepared, Problem> {
    held.push(hold_prompts(&app.bytes, &request.task)?);
    let (needed, most) = (model.setting.answer_bytes_max(&request.task), app.turns.bytes_max());
    if needed > most {
        let message = format!(
            "the answer may take {needed} bytes of memory, and {most} are kept for answers: ask for fewer tokens, answers, \
             log-probabilities or texts at once, or start the server with a larger --memory"
        );
        return Err(Problem::bad("answer_too_large", message));
    }
    let parts = parts(model, &request)?;
    let stamp = Stamp { id: ids::hex(), created: ids::now() };
    Ok(Prepared { request, parts, seed: None, stamp, name: None, priority: INTERACTIVE, key: 0, held })
}

/// Four bytes for each token of each sequence.
fn hold_prompts(bytes: &Arc<Holder>, task: &Task) -> Result<Held, Problem> {
    let tokens: usize = match task {
        Task::Chat(g) | Task::Completions(g) => g.prompts.iter().map(Vec::len).sum::<usize>() * (g.n + 1),
        Task::Embeddings(e) => e.inputs.iter().map(Vec::len).sum::<usize>() * 2,
        Task::Score(s) => s.sequences.iter().map(|(ids, _)| ids.len()).sum::<usize>() * 2,
    };
    let needed = tokens.saturating_mul(size_of::<u32>());
    if needed > bytes.max() {
        let message = format!("the prompts of this request take {needed} bytes; send fewer at once");
        return Err(Problem::bad("too_many_tokens", message));
    }
    bytes.hold(needed)
}

/// Whose request it is.
pub(crate) fn key_of(request: &Request<Incoming>) -> usize {
    request.extensions().get::<KeyPlace>().copied().unwrap_or_default().0
}

/// The answer as one body: with its status if it comes soon, else begun and kept alive.
pub(crate) async fn whole(app: &App, run: Run) -> Result<Response<Body>, Problem> {
    finish(app, Kept::new(run, None)).await
}

async fn finish(app: &App, mut kept: Kept) -> Result<Response<Body>, Problem> {
    let id = kept.run().map(|run| run.id()).unwrap_or_default();
    let soon = timeout(app.config.limits.early_time, std::future::poll_fn(|context| kept.poll_body(context)));
    match soon.await {
        Ok(body) => Ok(json_body(body?)),
        Err(_) => {
            let mut response = Response::new(Body::live(Late::new(kept, &app.config.limits)));
            let headers = response.headers_mut();
            progress::add_headers(app, &id, headers);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
            Ok(response)
        }
    }
}

/// A response of server-sent events.
pub(crate) fn event_stream(live: impl Live + 'static) -> Response<Body> {
    let mut response = Response::new(Body::live(live));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
    response
}

impl Asked {
    /// Takes out what concerns the way of the answer only.
    fn of(body: &mut Map<String, Value>, endpoint: Endpoint) -> Result<Self, Problem> {
        let answers = matches!(endpoint, Endpoint::Chat | Endpoint::Completions);
        let flexible = flexible(body)?;
        if !answers {
            return Ok(Self { stream: false, wishes: Wishes::default(), flexible });
        }
        let stream = flag(body, "stream", false)?;
        let progress = flag(body, "return_progress", false)?;
        let option = |name: &str| {
            let options = body.get("stream_options");
            options.and_then(|o| o.get(name)).and_then(Value::as_bool).unwrap_or(false)
        };
        let wishes = Wishes {
            usage: option("include_usage"),
            usage_always: option("continuous_usage_stats"),
            progress,
        };
        Ok(Self { stream, wishes, flexible })
    }
}

/// Whether a request says that it can wait. There is no tier that makes one faster than others.
pub(crate) fn flexible(body: &Map<String, Value>) -> Result<bool, Problem> {
    match body.get("service_tier") {
        None | Some(Value::Null) => Ok(false),
        Some(tier) if tier == "auto" || tier == "default" => Ok(false),
        Some(tier) if tier == "flex" => Ok(true),
        Some(other) => {
            let other = aerostat_openai::brief(other);
            let message = format!("`service_tier` is {other}; it must be \"auto\", \"default\" or \"flex\"");
            Err(Problem::value("service_tier", message))
        }
    }
}

/// Takes a member that is true or false; null and nothing are as usual.
pub(crate) fn flag(body: &mut Map<String, Value>, name: &str, usual: bool) -> Result<bool, Problem> {
    match body.remove(name) {
        None | Some(Value::Null) => Ok(usual),
        Some(Value::Bool(yes)) => Ok(yes),
        Some(other) => {
            let other = aerostat_openai::brief(&other);
            Err(Problem::value(name, format!("`{name}` is {other}; it must be true or false")))
        }
    }
}

/// `/v1/rerank`: documents in the order in which the model's head finds that they answer the query; without a head, in which
/// they make it likely, as log-probabilities of its tokens.
pub(crate) async fn rerank(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let key = key_of(&request);
    let (body, model, held) = receive(app, request).await?;
    let (shared, limits) = (Arc::clone(app), app.config.limits.clone());
    let read = app.blocking(move || {
        let mut body = object(&body)?;
        shared.check_body(&body)?;
        let asked = Ranking::of(&mut body, &model, limits.parts_max)?;
        let task = Task::Score(Scoring { sequences: asked.sequences.clone(), head: asked.head });
        let name = body.get("model").and_then(Value::as_str).map(str::to_owned);
        let request = ApiRequest { model: name, task, ignored: Vec::new() };
        check(&request.task, limits.parts_max, limits.grammar_bytes_max)?;
        Ok((Prepared { key, ..prepare(&shared, &model, request, held)? }, asked))
    });
    let (prepared, asked) = read.await?;
    let mut run = Run::start(app, prepared)?;
    run.reshape = Some(Box::new(move |scores| asked.body(&scores)));
    whole(app, run).await
}

/// What a ranking asks for.
struct Ranking {
    documents: Vec<String>,
    sequences: Vec<(Vec<u32>, usize)>,
    /// What the model's head reads, if it has one.
    head: Option<Hidden>,
    top_n: usize,
    /// Documents are told, too.
    documents_too: bool,
}

impl Ranking {
    fn of(body: &mut Map<String, Value>, model: &Model, parts_max: usize) -> Result<Self, Problem> {
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Object(map)) => map.get("text").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        let query = text(body.get("query")).filter(|query| !query.is_empty());
        let query = query.ok_or_else(|| Problem::value("query", "`query` must be text that is not empty"))?;
        let list = body.get("documents").and_then(Value::as_array);
        let documents: Option<Vec<String>> =
            list.and_then(|list| list.iter().map(|document| text(Some(document))).collect());
        let documents = documents.filter(|list| (1..=parts_max).contains(&list.len())).ok_or_else(|| {
            Problem::value("documents", format!("`documents` must be a list of 1 to {parts_max} texts"))
        })?;
        let number = |name: &str| match body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(|n| Some(n as usize)).ok_or_else(|| {
                Problem::value(name, format!("`{name}` must be a whole number of at least 0"))
            }),
        };
        let top_n = number("top_n")?.filter(|n| *n > 0).unwrap_or(documents.len());
        let known =
            ["model", "query", "documents", "top_n", "return_documents", "user", "max_tokens_per_doc"];
        if let Some(name) = body.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported")));
        }
        number("max_tokens_per_doc")?;
        let documents_too = flag(body, "return_documents", true)?;
        let mut sequences = Vec::with_capacity(documents.len());
        let mut head = None;
        for document in &documents {
            // A head reads the query first; what makes a query likely stands before it.
            let (first, second) = match model.setting.has_scorer() {
                true => (query.clone(), document.clone()),
                false => (format!("{document}\n"), query.clone()),
            };
            let mut one = Map::new();
            one.insert("text_1".to_owned(), first.into());
            one.insert("text_2".to_owned(), second.into());
            let Task::Score(scoring) = model.setting.read(Endpoint::Score, one, 0)?.task else {
                return Err(Problem::internal("a score was read as something else"));
            };
            sequences.extend(scoring.sequences);
            head = scoring.head;
        }
        Ok(Self { documents, sequences, head, top_n, documents_too })
    }

    fn body(&self, scores: &Value) -> Value {
        let none = Vec::new();
        let data = scores["data"].as_array().unwrap_or(&none);
        let score = |entry: &Value| {
            let tokens = entry["token_logprobs"].as_array().map_or(0, Vec::len).max(1);
            entry["score"].as_f64().unwrap_or(f64::NEG_INFINITY) / tokens as f64
        };
        let mut ranked: Vec<(usize, f64)> = data.iter().map(score).enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked.truncate(self.top_n);
        let result = |&(index, score): &(usize, f64)| {
            let mut result = serde_json::json!({"index": index, "relevance_score": score});
            if self.documents_too {
                result["document"] = serde_json::json!({"text": self.documents.get(index)});
            }
            result
        };
        serde_json::json!({
            "id": scores["id"].as_str().unwrap_or("").replace("score-", "rerank-"),
            "model": scores["model"],
            "usage": {"prompt_tokens": scores["usage"]["prompt_tokens"], "total_tokens": scores["usage"]["total_tokens"]},
            "results": ranked.iter().map(result).collect::<Vec<Value>>(),
        })
    }
}
