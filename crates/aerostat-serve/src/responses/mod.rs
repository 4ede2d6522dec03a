//! `/v1/responses`: answers as items, which can be kept, gone on with, and made in the background.
//!
//! Each response is driven by a task of its own, which tells events to a [`Hub`]; clients follow that. One that runs in the
//! background has its row before it begins, and the row knows its tokens: a server that ends goes on with it at its next
//! start.

mod drive;
mod hub;
mod read;
mod write;

use std::sync::Arc;

use aerostat_openai::{ApiRequest, Endpoint};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::answer::{self, event_stream, key_of, object, prepare, receive};
use crate::app::App;
use crate::body::Body;
use crate::engine::Model;
use crate::files::{list_response, page};
use crate::held::Held;
use crate::ids::{self, is_id};
use crate::orphans;
use crate::problem::Problem;
use crate::query;
use crate::run::{FLEXIBLE, INTERACTIVE, Prepared};
use crate::stored::ResponseRow;
use crate::text::json_response;
use drive::Drive;
pub(crate) use drive::resume;
pub(crate) use hub::Hubs;
use hub::{Events, Follower, Hub, LateObject};
use read::{Asked, add_messages};
use write::Writer;

/// Items in a list, unless another number is asked for, and at most.
const ITEMS_USUAL: usize = 20;
const ITEMS_MAX: usize = 100;

/// What a response was made of, beside the object that clients see.
struct Made {
    row: ResponseRow,
    prepared: Prepared,
    stream: bool,
    background: bool,
    store: bool,
    ignored: Vec<String>,
}

/// POST `/v1/responses`.
pub(crate) async fn create(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let key = key_of(&request);
    let headers = request.headers().clone();
    let (body, model, held) = receive(app, request).await?;
    let attempt = orphans::attempt(&headers, key, "/v1/responses", &body);
    if let Some((kept, true)) = &attempt
        && let Some(hub) = app.hubs.of_attempt(kept)
    {
        return whole(app, hub.follow(0)).await;
    }
    let shared = Arc::clone(app);
    let made = app.blocking(move || make(&shared, &model, &body, held, key)).await?;
    let Made { row, prepared, stream, background, store, ignored } = made;
    let id = row.id.clone();
    if background {
        let (keeper, row) = (Arc::clone(app.store()?), row.clone());
        app.disk(move || Ok(keeper.add_response(&row)?)).await?;
    }
    let attempt = attempt.map(|(kept, _)| kept).filter(|_| !stream && !background);
    let queued = row.object.clone();
    let drive = Drive::start(app, row, prepared, (background, store, attempt))?;
    let follower = drive.hub.follow(0);
    drive.spawn();
    let mut response = match (background, stream) {
        (_, true) => event_stream(Events::new(follower, &app.config.limits)),
        (true, false) => json_response(StatusCode::OK, &queued),
        (false, false) => whole(app, follower).await?,
    };
    if !ignored.is_empty()
        && let Ok(ignored) = HeaderValue::from_str(&ignored.join(", "))
    {
        response.headers_mut().insert(answer::IGNORED, ignored);
    }
    crate::progress::add_headers(app, &id, response.headers_mut());
    Ok(response)
}

/// The response once it has ended: with its status if that is soon, else begun and kept alive.
async fn whole(app: &App, mut follower: Follower) -> Result<Response<Body>, Problem> {
    let ended = std::future::poll_fn(|context| follower.poll_end(context));
    if timeout(app.config.limits.early_time, ended).await.is_ok() {
        return match follower.hub().problem() {
            Some(problem) => Err(problem),
            None => Ok(json_response(StatusCode::OK, &follower.hub().object())),
        };
    }
    let mut response = Response::new(Body::live(LateObject::new(follower, &app.config.limits)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Reads a request and all that it builds on.
fn make(app: &App, model: &Arc<Model>, body: &[u8], held: Vec<Held>, key: usize) -> Result<Made, Problem> {
    let body = object(body)?;
    app.check_body(&body)?;
    let flexible = answer::flexible(&body)?;
    let mut asked = Asked::of(body)?;
    let kept = asked.background || asked.store == Some(true);
    if kept {
        app.store()?;
    }
    let mut messages = match &asked.previous {
        Some(id) => conversation(app, id)?,
        None => Vec::new(),
    };
    add_messages(&asked.input, &mut messages)?;
    let mut chat = std::mem::take(&mut asked.chat);
    chat.entry("seed").or_insert_with(|| ids::seed().into());
    let name = chat.get("model").and_then(Value::as_str).unwrap_or(model.setting.model()).to_owned();
    let request = json!({
        "chat": chat, "instructions": asked.instructions, "messages": messages, "input": asked.input,
        "digest": model.digest, "flexible": flexible || asked.background, "key": key,
    });
    let read = read_chat(app, model, &request)?;
    let ignored = read.ignored.clone();
    let id = format!("resp_{}", ids::hex());
    let store = kept || asked.store != Some(false) && app.store().is_ok();
    let store = store && (asked.background || has_room(app, &request, kept)?);
    let object = response_object(&id, &name, &asked, store);
    let row = ResponseRow { id, open: true, created: ids::now(), request, object, tokens: Vec::new() };
    let prepared = prepare_chat(app, model, read, held, &row)?;
    Ok(Made { row, prepared, stream: asked.stream, background: asked.background, store, ignored })
}

/// Whether there is room for a response that is to be stored: one that must be is refused without, and one that is stored
/// since nothing was said about it is not stored, and says so. What comes of it is about as much again as its request.
fn has_room(app: &App, request: &Value, must: bool) -> Result<bool, Problem> {
    match app.store()?.check_room(2 * request.to_string().len() as u64) {
        Ok(()) => Ok(true),
        Err(fault) if must => Err(fault.into()),
        Err(fault) => {
            eprintln!("note: a response is not stored: {fault}");
            Ok(false)
        }
    }
}

/// The chat that a response is.
fn read_chat(app: &App, model: &Model, request: &Value) -> Result<ApiRequest, Problem> {
    let mut chat = request["chat"].as_object().cloned().unwrap_or_default();
    let mut messages = Vec::new();
    if let Some(text) = request["instructions"].as_str() {
        messages.push(json!({"role": "system", "content": text}));
    }
    messages.extend(request["messages"].as_array().cloned().unwrap_or_default());
    chat.insert("messages".to_owned(), messages.into());
    let read = model.setting.read(Endpoint::Chat, chat, 0)?;
    let limits = &app.config.limits;
    answer::check(&read.task, limits.parts_max, limits.grammar_bytes_max)?;
    Ok(read)
}

fn prepare_chat(
    app: &App,
    model: &Arc<Model>,
    read: ApiRequest,
    held: Vec<Held>,
    row: &ResponseRow,
) -> Result<Prepared, Problem> {
    let prepared = prepare(app, model, read, held)?;
    let priority = if row.request["flexible"] == true { FLEXIBLE } else { INTERACTIVE };
    let key = row.request["key"].as_u64().unwrap_or(0) as usize;
    Ok(Prepared { priority, key, ..prepared })
}

/// The messages up to the end of an earlier response.
fn conversation(app: &App, id: &str) -> Result<Vec<Value>, Problem> {
    let gone = || {
        let message = "there is no response of this id that was stored and has ended";
        Problem::not_found(message).about("previous_response_id")
    };
    if !is_response(id) {
        return Err(gone());
    }
    let row = app.store()?.response(id).map_err(|_| gone())?;
    if row.open {
        return Err(gone());
    }
    let mut messages = row.request["messages"].as_array().cloned().unwrap_or_default();
    let output = row.object["output"].as_array().cloned().unwrap_or_default();
    add_messages(&output, &mut messages)?;
    Ok(messages)
}

/// The response before anything of it is there.
fn response_object(id: &str, model: &str, asked: &Asked, store: bool) -> Value {
    let mut object = Map::from_iter([
        ("id".to_owned(), id.into()),
        ("object".to_owned(), "response".into()),
        ("created_at".to_owned(), ids::now().into()),
        ("status".to_owned(), if asked.background { "queued" } else { "in_progress" }.into()),
        ("model".to_owned(), model.into()),
        ("output".to_owned(), json!([])),
        ("background".to_owned(), asked.background.into()),
        ("store".to_owned(), store.into()),
        ("instructions".to_owned(), json!(asked.instructions)),
        ("previous_response_id".to_owned(), json!(asked.previous)),
        ("reasoning".to_owned(), json!({"effort": null, "summary": null})),
        ("service_tier".to_owned(), "default".into()),
        ("truncation".to_owned(), "disabled".into()),
    ]);
    for name in ["completed_at", "error", "incomplete_details", "max_tool_calls", "usage"] {
        object.insert(name.to_owned(), Value::Null);
    }
    object.extend(asked.repeated.clone());
    object.into()
}

/// Whether a text is the id of a response.
pub(crate) fn is_response(id: &str) -> bool {
    id.strip_prefix("resp_").is_some_and(|digits| is_id(&format!("resp-{digits}"), "resp"))
}

/// GET `/v1/responses/{id}`.
pub(crate) async fn one(app: &Arc<App>, id: String, query: &str) -> Result<Response<Body>, Problem> {
    let (mut stream, mut after) = (false, None);
    for (name, value) in query::pairs(query)? {
        let wrong = || Problem::value(name, format!("`{name}` cannot be {value:?}"));
        match name {
            "stream" => stream = value.parse().map_err(|_| wrong())?,
            "starting_after" => after = Some(value.parse::<usize>().map_err(|_| wrong())?),
            // What can be included, is.
            "include" | "include[]" | "include%5B%5D" | "include_obfuscation" => {}
            _ => return Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported"))),
        }
    }
    let from = after.map_or(0, |after| after.saturating_add(1));
    match app.hubs.get(&id) {
        Some(hub) if stream => Ok(event_stream(Events::new(hub.follow(from), &app.config.limits))),
        Some(hub) if hub.problem().is_none() => Ok(json_response(StatusCode::OK, &hub.object())),
        _ => {
            let store = Arc::clone(app.store()?);
            let name = id.clone();
            let mut row = app.disk(move || Ok(store.response(&name)?)).await?;
            if let Some(why) = app.hubs.why_paused(&id).filter(|_| row.open) {
                row.object["aerostat"] = json!({"paused": why});
            }
            match stream {
                true => Ok(event_stream(Events::new(told(row, from), &app.config.limits))),
                false => Ok(json_response(StatusCode::OK, &row.object)),
            }
        }
    }
}

/// A response whose events nobody remembers is told by its last one. One that has not ended is not under way here.
fn told(row: ResponseRow, from: usize) -> Follower {
    let hub = Arc::new(Hub::default());
    let object = row.object;
    let status = object["status"].as_str().unwrap_or("completed").to_owned();
    let event = json!({"type": format!("response.{status}"), "sequence_number": from, "response": object});
    hub.tell(vec![event], &object);
    match row.open {
        true => {
            let why = object["aerostat"]["paused"].as_str();
            let why = why.unwrap_or("it is not under way at the moment: ask for it again later");
            hub.break_off(Problem::unavailable("paused", why, 60));
        }
        false => hub.end(None),
    }
    hub.follow(0)
}

/// GET `/v1/responses/{id}/input_items`.
pub(crate) async fn input_items(app: &App, id: String, query: &str) -> Result<Response<Body>, Problem> {
    let page = page(query, ITEMS_USUAL, ITEMS_MAX, true)?;
    if page.purpose.is_some() {
        return Err(Problem::bad("unsupported_parameter", "`purpose` is not supported"));
    }
    let store = Arc::clone(app.store()?);
    let row = app.disk(move || Ok(store.response(&id)?)).await?;
    let items = row.request["input"].as_array().cloned().unwrap_or_default();
    let digits = row.id.trim_start_matches("resp_");
    let named = |(index, mut item): (usize, Value)| {
        if item.get("type").is_none() {
            item["type"] = "message".into();
        }
        if let Some(text) = item["content"].as_str().map(str::to_owned) {
            item["content"] = json!([{"type": "input_text", "text": text}]);
        }
        if item.get("id").is_none() {
            item["id"] = format!("item_{digits}{index}").into();
        }
        item
    };
    // The latest comes first, unless it is said otherwise.
    let mut data: Vec<Value> = items.into_iter().enumerate().map(named).collect();
    if !page.ascending {
        data.reverse();
    }
    if let Some(after) = &page.after {
        let place = data.iter().position(|item| item["id"] == after.as_str());
        let place =
            place.ok_or_else(|| Problem::value("after", "`after` is the id of no item of the input"))?;
        data.drain(..=place);
    }
    let more = data.len() > page.limit;
    data.truncate(page.limit);
    Ok(list_response(data, more))
}

/// DELETE `/v1/responses/{id}`.
pub(crate) async fn delete(app: &Arc<App>, id: String) -> Result<Response<Body>, Problem> {
    if let Some(hub) = app.hubs.get(&id) {
        hub.cancel.notify_one();
    }
    app.hubs.forget(&id);
    let store = Arc::clone(app.store()?);
    let body = json!({"id": id, "object": "response", "deleted": true});
    app.disk(move || Ok(store.delete_response(&id)?)).await?;
    Ok(json_response(StatusCode::OK, &body))
}

/// POST `/v1/responses/{id}/cancel`.
pub(crate) async fn cancel(app: &Arc<App>, id: String) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let name = id.clone();
    let row = app.disk(move || Ok(store.response(&name)?)).await?;
    if row.object["background"] != true {
        let message = "only responses that run in the background can be cancelled";
        return Err(Problem::bad("not_in_background", message));
    }
    if let Some(hub) = app.hubs.get(&id).filter(|hub| !hub.has_ended()) {
        let mut follower = hub.follow(0);
        hub.cancel.notify_one();
        let ended = std::future::poll_fn(|context| follower.poll_end(context));
        // It is told as it is, if it takes its time.
        let _ = timeout(app.config.limits.early_time, ended).await;
        return Ok(json_response(StatusCode::OK, &hub.object()));
    }
    if row.open {
        // It waits for another model.
        let store = Arc::clone(app.store()?);
        let mut object = row.object;
        object["status"] = "cancelled".into();
        let told = object.clone();
        app.hubs.forget(&id);
        app.disk(move || Ok(store.end_response(&id, &object)?)).await?;
        return Ok(json_response(StatusCode::OK, &told));
    }
    Ok(json_response(StatusCode::OK, &row.object))
}
