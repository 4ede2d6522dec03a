//! What the server says of itself: health, version, models, requests under way.

use std::sync::atomic::Ordering;

use aerostat::session::Event;
use aerostat::{Outcome, Phase, Progress};
use hyper::Response;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::body::Body;
use crate::metrics::Now;
use crate::problem::Problem;
use crate::progress;
use crate::query::pairs;
use crate::text::{json_response, whole};

/// `/health`: 200 once the model is open; before that 503 and how far it is.
pub(crate) fn health(app: &App) -> Response<Body> {
    let status = app.session.get().map(aerostat::SessionHandle::status);
    let progress = status.as_ref().and_then(|status| status.progress);
    if app.stopping() {
        return json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "stopping"}));
    }
    if app.engine_ended.load(Ordering::Relaxed) {
        let body = json!({"status": "failed", "error": "the engine has ended; start the server again"});
        return json_response(StatusCode::INTERNAL_SERVER_ERROR, &body);
    }
    if app.model().is_err() {
        let loading = progress.filter(|p| p.phase == Phase::Loading && p.tiles > 0);
        let part = loading.map(|p| p.tile as f64 / p.tiles as f64);
        let planned = status.is_some_and(|status| status.plan.is_some());
        let body = json!({"status": "loading", "planned": planned || part.is_some(), "progress": part});
        return json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
    }
    let (running, waiting) = app.registry.counts();
    let body = json!({"status": "ok", "running": running, "waiting": waiting, "sweep": progress.map(sweep)});
    json_response(StatusCode::OK, &body)
}

/// Where the sweep at hand stands.
pub(crate) fn sweep(progress: Progress) -> Value {
    json!({
        "number": progress.sweep,
        "phase": phase(progress.phase),
        "tile": progress.tile,
        "tiles": progress.tiles,
        "rows": progress.rows,
    })
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Loading => "loading",
        Phase::Prefill => "prefill",
        Phase::Decode => "decode",
        Phase::Score => "score",
    }
}

/// `/version`.
pub(crate) fn version() -> Response<Body> {
    json_response(StatusCode::OK, &json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// `/v1/models`.
pub(crate) fn models(app: &App) -> Result<Response<Body>, Problem> {
    let data = app.config.names.iter().map(|name| model(app, name)).collect::<Result<Vec<_>, _>>()?;
    Ok(json_response(StatusCode::OK, &json!({"object": "list", "data": data})))
}

/// `/v1/models/{id}`.
pub(crate) fn model_named(app: &App, name: &str) -> Result<Response<Body>, Problem> {
    app.check_model(Some(name))?;
    Ok(json_response(StatusCode::OK, &model(app, name)?))
}

fn model(app: &App, name: &str) -> Result<Value, Problem> {
    Ok(json!({
        "id": name,
        "object": "model",
        "created": app.created,
        "owned_by": "aerostat",
        "max_model_len": app.model()?.context,
    }))
}

/// What is known at the moment, for counters and for the page.
fn now(app: &App) -> Result<Now, Problem> {
    let handle = &app.model()?.handle;
    let status = handle.status();
    let (running, waiting) = app.registry.counts();
    let progress = status.progress;
    let positions = status.plan.as_ref().map_or(0, |plan| plan.kv_bytes / plan.kv_bytes_per_token.max(1));
    let stats = status.stats.as_ref();
    Ok(Now {
        running,
        waiting,
        sweeps: progress.map_or(0, |p| p.sweep),
        rows: progress.map_or(0, |p| p.rows),
        read_bytes: progress.map_or(0, |p| p.read_bytes),
        budget_bytes: status.plan.as_ref().map_or(0, |plan| plan.budget_bytes),
        cache_used: (handle.under_way().1 as f64 / positions.max(1) as f64).min(1.0),
        totals: progress.map(|p| p.totals).unwrap_or_default(),
        disk_rate: stats.map_or(0.0, |stats| stats.read_bytes_per_second),
        batches: app.worker.get().map_or([0; 3], |worker| worker.counts()),
    })
}

/// `/metrics`.
pub(crate) fn metrics(app: &App) -> Result<Response<Body>, Problem> {
    let name = app.config.names.first().map_or("", String::as_str);
    let text = app.metrics.text(name, &now(app)?);
    Ok(whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
}

/// `/v1/aerostat/status`: what the page shows.
pub(crate) fn status(app: &App) -> Result<Response<Body>, Problem> {
    Ok(json_response(StatusCode::OK, &status_of(app)?))
}

/// How the server stands.
pub(crate) fn status_of(app: &App) -> Result<Value, Problem> {
    let now = now(app)?;
    let model = app.model()?;
    let status = model.handle.status();
    let plan = status.plan.map(|plan| {
        json!({
            "budget_bytes": plan.budget_bytes,
            "kv_bytes": plan.kv_bytes,
            "pinned_bytes": plan.pinned_bytes,
            "streamed_bytes_per_sweep": plan.streamed_bytes_per_sweep,
            "rows_max": plan.rows_max,
            "rows_at_knee": plan.rows_at_knee,
        })
    });
    let sweep_seconds = app.metrics.sweep_seconds();
    Ok(json!({
        "model": app.config.names.first(),
        "context": model.context,
        "running": now.running,
        "waiting": now.waiting,
        "tokens": now.totals.answer_tokens,
        "read_bytes": now.read_bytes,
        "sweep": status.progress.filter(|p| p.phase != Phase::Loading).map(sweep),
        "plan": plan,
        "sweep_seconds": sweep_seconds,
        "disk_bytes_per_second": now.disk_rate,
        "cache_used": now.cache_used,
        "memory_bytes": status.stats.as_ref().map(|stats| stats.memory_peak_bytes),
        "data": app.store().is_ok(),
    }))
}

/// Requests in a list, unless another number is asked for.
const LIST_USUAL: usize = 100;

/// `/v1/aerostat/requests`: a page of them, of a class or of all.
pub(crate) fn requests(app: &App, query: &str) -> Result<Response<Body>, Problem> {
    let (mut limit, mut offset, mut class) = (LIST_USUAL, 0, "");
    for (name, value) in pairs(query)? {
        let number = || value.parse::<usize>().ok().filter(|n| *n <= 1 << 20);
        let wrong = || Problem::value(name, format!("`{name}` cannot be {value:?}"));
        match name {
            "limit" => limit = number().ok_or_else(wrong)?,
            "offset" => offset = number().ok_or_else(wrong)?,
            "class" if matches!(value, "" | "interactive" | "batch") => class = value,
            "class" => return Err(wrong()),
            _ => return Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported"))),
        }
    }
    let (data, total) = progress::rows(app, class, (offset, limit));
    Ok(json_response(StatusCode::OK, &json!({"object": "list", "data": data, "total": total})))
}

/// `/v1/aerostat/requests/{id}`.
pub(crate) fn request(app: &App, id: &str) -> Result<Response<Body>, Problem> {
    let found = progress::row(app, id);
    let found = found.ok_or_else(|| Problem::not_found("there is no such request under way"))?;
    Ok(json_response(StatusCode::OK, &found))
}

/// DELETE `/v1/aerostat/requests/{id}`: cancels it at the end of the sweep.
pub(crate) fn cancel(app: &App, id: &str) -> Result<Response<Body>, Problem> {
    let entry = app.registry.find(id);
    let entry = entry.ok_or_else(|| Problem::not_found("there is no such request under way"))?;
    let model = app.model()?;
    entry.sequences.into_iter().for_each(|sequence| model.handle.cancel(sequence));
    if let Some(waits) = entry.waits {
        let cancelled = aerostat::Error::new(aerostat::ErrorKind::Interrupted, "cancelled");
        // It may have had its turn just now; then it is there for the next who cancels it.
        let _ = waits.send((0, Event::Finished(Outcome::Failed(cancelled))));
    }
    Ok(json_response(StatusCode::OK, &json!({"id": id, "object": "request", "cancelled": true})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// An engine whose thread had panicked left a server that said that it was well and answered nothing.
    #[test]
    fn a_server_whose_engine_has_ended_is_not_well() {
        let app = App::new(Config::new("tiny"), None, None);
        assert_eq!(health(&app).status(), StatusCode::SERVICE_UNAVAILABLE);
        app.engine_ended.store(true, Ordering::Relaxed);
        assert_eq!(health(&app).status(), StatusCode::INTERNAL_SERVER_ERROR);
        app.stop.store(true, Ordering::Relaxed);
        assert_eq!(health(&app).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
