//! How far requests are, how many go before them, and about how long they take still.

use std::collections::HashMap;

use aerostat::session::{RequestState, RequestStatus};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::app::App;
use crate::registry::Entry;

const POSITION: HeaderName = HeaderName::from_static("x-aerostat-queue-position");
const ETA: HeaderName = HeaderName::from_static("x-aerostat-eta-seconds");
const SWEEP: HeaderName = HeaderName::from_static("x-aerostat-sweep-seconds");

/// How the sequences of all single requests stand.
struct Outlook {
    statuses: HashMap<u64, RequestStatus>,
    /// For each place in the queue, the sweeps before those that wait there enter.
    ahead: Vec<f64>,
    rows_max: usize,
    sweep_seconds: Option<f64>,
}

impl Outlook {
    fn of(app: &App) -> Option<Self> {
        let handle = app.session.get()?;
        let list = handle.requests();
        let left = |status: &RequestStatus| status.tokens_max.saturating_sub(status.tokens) as f64;
        let running = list.iter().filter(|status| status.state != RequestState::Waiting);
        let (slots, mut sum) = running.fold((0.0, 0.0), |(n, sum), status| (n + 1.0, sum + left(status)));
        let mut waiting: Vec<&RequestStatus> =
            list.iter().filter(|s| s.state == RequestState::Waiting).collect();
        waiting.sort_by_key(|status| status.position);
        let mut ahead = Vec::with_capacity(waiting.len() + 1);
        for status in waiting {
            ahead.push(sum / f64::max(slots, 1.0));
            sum += left(status).max(1.0);
        }
        ahead.push(sum / f64::max(slots, 1.0));
        let rows_max = handle.status().plan.map_or(1, |plan| plan.rows_max).max(1);
        let statuses = list.into_iter().map(|status| (status.id.0, status)).collect();
        Some(Self { statuses, ahead, rows_max, sweep_seconds: app.metrics.sweep_seconds() })
    }

    /// What is known of a request; `behind`: the place in the queue of those that the engine was not given yet.
    fn row(&self, entry: &Entry, behind: usize) -> Row {
        let own: Vec<&RequestStatus> =
            entry.sequences.iter().filter_map(|id| self.statuses.get(&id.0)).collect();
        let waits = own.iter().all(|status| status.state == RequestState::Waiting);
        let place = match entry.sequences.is_empty() {
            true => Some(behind),
            false => {
                own.iter().filter_map(|status| status.position).min().filter(|_| waits && !own.is_empty())
            }
        };
        let prompt_done: usize = own.iter().map(|status| status.prompt_done).sum();
        let prompt_left = own.iter().map(|s| s.prompt_tokens.saturating_sub(s.prompt_done)).max();
        let answer_left = own.iter().map(|s| s.tokens_max.saturating_sub(s.tokens)).max();
        let prompt_sweeps = prompt_left.unwrap_or(entry.prompt_tokens).div_ceil(self.rows_max);
        let own_sweeps = answer_left.unwrap_or(entry.tokens_max) + prompt_sweeps.saturating_sub(1);
        let ahead =
            place.map_or(0.0, |place| self.ahead.get(place).or(self.ahead.last()).copied().unwrap_or(0.0));
        let sweeps_left = ahead.ceil() as usize + own_sweeps.max(1);
        let state = match own.iter().map(|status| status.state).max_by_key(|state| *state as u8) {
            Some(RequestState::Answering) => "decode",
            Some(RequestState::Prompt) => "prefill",
            _ => "waiting",
        };
        let eta_seconds = self.sweep_seconds.map(|seconds| seconds * sweeps_left as f64);
        Row { place, prompt_done, sweeps_left, eta_seconds, state }
    }
}

/// How far a request is.
struct Row {
    /// How many go before it, while it waits.
    place: Option<usize>,
    prompt_done: usize,
    /// At most.
    sweeps_left: usize,
    eta_seconds: Option<f64>,
    state: &'static str,
}

impl Row {
    fn show(&self, entry: &Entry) -> Value {
        json!({
            "id": entry.id,
            "class": entry.class,
            "state": self.state,
            "position": self.place,
            "prompt_tokens": entry.prompt_tokens,
            "prompt_done": self.prompt_done,
            "tokens": entry.tokens,
            "tokens_max": entry.tokens_max,
            "sweeps_left": self.sweeps_left,
            "eta_seconds": self.eta_seconds,
            "seconds": entry.arrived.elapsed().as_secs_f64(),
        })
    }
}

/// Requests under way as clients see them, in order of arrival: of those of a class, or of all where it has no name, so many
/// from a place on. And how many there are.
pub(crate) fn rows(app: &App, class: &str, (offset, limit): (usize, usize)) -> (Vec<Value>, usize) {
    let mut total = 0;
    let rows = with_rows(app, |entry, row| {
        if !class.is_empty() && entry.class != class {
            return None;
        }
        total += 1;
        (total > offset && total - offset <= limit).then(|| row.show(entry))
    });
    (rows, total)
}

/// One of them.
pub(crate) fn row(app: &App, id: &str) -> Option<Value> {
    with_rows(app, |entry, row| (entry.id == id).then(|| row.show(entry))).pop()
}

fn with_rows<T>(app: &App, mut take: impl FnMut(&Entry, &Row) -> Option<T>) -> Vec<T> {
    let Some(outlook) = Outlook::of(app) else { return Vec::new() };
    let mut behind = outlook.ahead.len().saturating_sub(1);
    let mut taken = Vec::new();
    for entry in app.registry.list() {
        let row = outlook.row(&entry, behind);
        behind += usize::from(entry.sequences.is_empty());
        taken.extend(take(&entry, &row));
    }
    taken
}

/// Tells in headers where a request stands that has just come.
pub(crate) fn add_headers(app: &App, id: &str, headers: &mut HeaderMap) {
    let told = with_rows(app, |entry, row| (entry.id == id).then_some((row.place, row.eta_seconds))).pop();
    let (place, eta) = told.unwrap_or_default();
    headers.insert(POSITION, HeaderValue::from(place.unwrap_or(0)));
    let mut seconds = |name, seconds: Option<f64>| {
        if let Some(value) = seconds.and_then(|s| HeaderValue::from_str(&format!("{s:.3}")).ok()) {
            headers.insert(name, value);
        }
    };
    seconds(ETA, eta);
    seconds(SWEEP, app.metrics.sweep_seconds());
}
