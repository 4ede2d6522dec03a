//! `/v1/batches`: made, looked at, cancelled. What runs them is in `worker.rs`.

use std::sync::Arc;

use aerostat_openai::{Endpoint, brief};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::answer::object;
use crate::app::App;
use crate::body::{Body, json_bytes};
use crate::files::{download, expires_after, list_response, page};
use crate::ids::{self, is_id};
use crate::problem::Problem;
use crate::store::BatchRow;
use crate::text::json_response;
use crate::worker::Worker;

/// Batches in a list, unless another number is asked for, and at most.
const LIST_USUAL: usize = 20;
const LIST_MAX: usize = 100;
/// Members of `metadata`, and characters of their names and values, as OpenAI bounds them.
const METADATA_MAX: usize = 16;
const METADATA_CHARS_MAX: (usize, usize) = (64, 512);
const MEMBERS: &[&str] =
    &["input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"];

/// POST `/v1/batches`.
pub(crate) async fn create(
    app: &Arc<App>,
    worker: &Arc<Worker>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store().map_err(Problem::closing)?);
    let model = Arc::clone(app.model().map_err(Problem::closing)?);
    let (body, _held) = json_bytes(request, &app.config.limits, &app.bytes).await?;
    let mut body = app.blocking(move || object(&body)).await?;
    let job = json!({
        "digest": model.digest,
        "context": model.context,
        "max_new_tokens": app.config.max_new_tokens,
        "lenient": app.config.lenient,
        "output_seconds": output_seconds(&mut body)?,
    });
    let batch = batch(&body, job)?;
    let answer = batch.object.clone();
    app.disk(move || Ok(store.add_batch(&batch)?)).await?;
    worker.wake();
    Ok(json_response(StatusCode::OK, &answer))
}

/// The batch that a body asks for.
fn batch(body: &Map<String, Value>, job: Value) -> Result<BatchRow, Problem> {
    let text = |name: &str| {
        let value = body.get(name).and_then(Value::as_str);
        value.ok_or_else(|| Problem::value(name, format!("`{name}` must be there, and be text")))
    };
    if let Some(name) = body.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported")));
    }
    let input = text("input_file_id")?;
    if !is_id(input, "file") {
        return Err(Problem::not_found("`input_file_id` names no file"));
    }
    let endpoint = text("endpoint")?;
    if Endpoint::at(endpoint).is_none() {
        let known = Endpoint::ALL.map(Endpoint::path).join(", ");
        return Err(Problem::value("endpoint", format!("`endpoint` must be one of {known}")));
    }
    let window = text("completion_window")?;
    let window_seconds = window_seconds(window).ok_or_else(|| {
        Problem::value("completion_window", "`completion_window` must be hours or days, such as 24h")
    })?;
    let (id, created) = (format!("batch-{}", ids::hex()), ids::now());
    let object = json!({
        "id": id,
        "object": "batch",
        "endpoint": endpoint,
        "errors": null,
        "input_file_id": input,
        "completion_window": window,
        "status": "validating",
        "output_file_id": null,
        "error_file_id": null,
        "created_at": created,
        "in_progress_at": null,
        "expires_at": created + window_seconds,
        "finalizing_at": null,
        "completed_at": null,
        "failed_at": null,
        "expired_at": null,
        "cancelling_at": null,
        "cancelled_at": null,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": metadata(body.get("metadata"))?,
    });
    Ok(BatchRow { id, open: true, input: input.to_owned(), object, job })
}

/// Seconds of `24h` or `7d`.
fn window_seconds(window: &str) -> Option<u64> {
    let (number, unit) = window.split_at_checked(window.len().checked_sub(1)?)?;
    let number = number.parse::<u64>().ok().filter(|n| (1..=100_000).contains(n))?;
    match unit {
        "h" => Some(number * 3600),
        "d" => Some(number * 86_400),
        _ => None,
    }
}

fn metadata(value: Option<&Value>) -> Result<Value, Problem> {
    let (name_max, value_max) = METADATA_CHARS_MAX;
    let fits = |name: &str, value: &Value| {
        name.chars().count() <= name_max && value.as_str().is_some_and(|v| v.chars().count() <= value_max)
    };
    match value {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::Object(map)) if map.len() <= METADATA_MAX && map.iter().all(|(n, v)| fits(n, v)) => {
            Ok(Value::Object(map.clone()))
        }
        Some(other) => {
            let other = brief(other);
            let message =
                format!("`metadata` is {other}; it maps up to {METADATA_MAX} short names to short texts");
            Err(Problem::value("metadata", message))
        }
    }
}

/// How long results are kept after the batch is made, if it says so.
fn output_seconds(body: &mut Map<String, Value>) -> Result<Option<u64>, Problem> {
    let Some(after) = body.remove("output_expires_after").filter(|after| !after.is_null()) else {
        return Ok(None);
    };
    let seconds = after.get("seconds").map(Value::to_string);
    expires_after(after.get("anchor").and_then(Value::as_str), seconds.as_deref(), 0)
}

/// GET `/v1/batches`.
pub(crate) async fn list(app: &App, worker: &Worker, query: &str) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let page = page(query, LIST_USUAL, LIST_MAX, false)?;
    let (rows, more) = app.disk(move || Ok(store.batches(&page)?)).await?;
    Ok(list_response(rows.into_iter().map(|row| worker.show(row)).collect(), more))
}

/// GET `/v1/batches/{id}`.
pub(crate) async fn one(app: &App, worker: &Worker, id: String) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let row = app.disk(move || Ok(store.batch(&id)?)).await?;
    Ok(json_response(StatusCode::OK, &worker.show(row)))
}

/// POST `/v1/batches/{id}/cancel`.
pub(crate) async fn cancel(app: &App, worker: &Arc<Worker>, id: String) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let name = id.clone();
    let change = move |row: &mut BatchRow| {
        if row.open && matches!(row.object["status"].as_str(), Some("validating" | "in_progress")) {
            row.object["status"] = "cancelling".into();
            row.object["cancelling_at"] = ids::now().into();
        }
    };
    let row = app.disk(move || Ok(store.change_batch(&name, change)?)).await?;
    if row.object["status"] != "cancelling" {
        let message = format!("the batch is {}; it cannot be cancelled any more", row.object["status"]);
        return Err(Problem::new(StatusCode::CONFLICT, "batch_ended", message));
    }
    worker.stop_batch(&id);
    Ok(json_response(StatusCode::OK, &worker.show(row)))
}

/// GET `/v1/aerostat/batches/{id}/output`: the results there are so far, in whole lines.
pub(crate) async fn output(app: &App, id: String, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let path = app.disk(move || {
        let row = store.batch(&id)?;
        Ok(match row.object["output_file_id"].as_str().filter(|_| !row.open) {
            Some(file) => store.whole_file(file)?,
            None => store.job_folder(&id).join("out.jsonl"),
        })
    });
    download(app, path.await?, headers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_hours_or_days() {
        for (window, seconds) in [("24h", Some(86_400)), ("7d", Some(604_800)), ("1h", Some(3600))] {
            assert_eq!(window_seconds(window), seconds);
        }
        for bad in ["", "h", "24", "0h", "-1h", "24m", "99999999999999d", "2é"] {
            assert_eq!(window_seconds(bad), None, "{bad}");
        }
    }
}
