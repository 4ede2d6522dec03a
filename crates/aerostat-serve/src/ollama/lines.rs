//! Answers in Ollama's words: a line of JSON for each piece, or all in one.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Instant;

use aerostat_openai::{Finish, Piece, Splitter};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::alarm::Alarm;
use crate::body::{Body, Broken, Live};
use crate::config::Limits;
use crate::ids;
use crate::problem::Problem;
use crate::run::{Change, Run};
use crate::text::{json_response, line};

/// An answer on its way.
pub(super) struct Lines {
    run: Option<Run>,
    name: String,
    chat: bool,
    stream: bool,
    splitter: Option<Splitter>,
    /// All there is so far.
    so_far: Gathered,
    /// The call at hand: its name and its arguments so far.
    call: Option<(String, String)>,
    sign: Alarm,
    ready: VecDeque<Bytes>,
    begun: Instant,
    first: Option<Instant>,
    finish: Finish,
    /// The last line was told.
    over: bool,
}

/// What a message is made of.
#[derive(Default)]
struct Gathered {
    text: String,
    thinking: String,
    calls: Vec<Value>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.thinking.is_empty() && self.calls.is_empty()
    }
}

impl Lines {
    pub(super) fn new(run: Run, name: String, chat: bool, stream: bool, limits: &Limits) -> Self {
        Self {
            splitter: run.request.task.splitter(),
            run: Some(run),
            name,
            chat,
            stream,
            so_far: Gathered::default(),
            call: None,
            sign: Alarm::new(limits.sign_time),
            ready: VecDeque::new(),
            begun: Instant::now(),
            first: None,
            finish: Finish::Stop,
            over: false,
        }
    }

    /// All of it in one body, which begins early if it takes long.
    pub(super) async fn whole(mut self, limits: &Limits) -> Result<Response<Body>, Problem> {
        let soon = timeout(limits.early_time, std::future::poll_fn(|context| self.poll_all(context)));
        if let Ok(ended) = soon.await {
            ended?;
            return Ok(json_response(StatusCode::OK, &self.last()));
        }
        let mut response = Response::new(Body::live(self));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// Waits for the end of the answer.
    fn poll_all(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        loop {
            let Some(run) = &mut self.run else { return Poll::Ready(Ok(())) };
            match std::task::ready!(run.poll_change(context)) {
                Ok(Some((_, change))) => self.take(change),
                Ok(None) => {
                    self.end();
                    return Poll::Ready(Ok(()));
                }
                Err(problem) => return Poll::Ready(Err(problem)),
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Text(text) => {
                let pieces = match &mut self.splitter {
                    Some(splitter) => splitter.push(&text),
                    None => vec![Piece::Content(text)],
                };
                self.gain(pieces);
            }
            Change::Tokens(_) => drop(self.first.get_or_insert_with(Instant::now)),
            Change::End(finish) => self.finish = finish.unwrap_or(Finish::Stop),
        }
    }

    fn gain(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Thoughts(text) => self.so_far.thinking += &text,
                Piece::Content(text) => self.so_far.text += &text,
                Piece::Call(_, name) => {
                    self.end_call();
                    self.call = Some((name, String::new()));
                }
                Piece::Arguments(_, text) => {
                    if let Some((_, arguments)) = &mut self.call {
                        *arguments += &text;
                    }
                }
            }
        }
        if self.stream && !self.so_far.is_empty() {
            let gathered = std::mem::take(&mut self.so_far);
            let line = self.line(&gathered);
            self.push(&line);
        }
    }

    /// Calls are told whole here.
    fn end_call(&mut self) {
        if let Some((name, arguments)) = self.call.take() {
            let arguments = serde_json::from_str(&arguments).unwrap_or_else(|_| json!({}));
            let index = self.so_far.calls.len();
            self.so_far
                .calls
                .push(json!({"function": {"index": index, "name": name, "arguments": arguments}}));
        }
    }

    fn end(&mut self) {
        let held = self.splitter.as_mut().map(Splitter::finish).unwrap_or_default();
        self.gain(held);
        self.end_call();
        self.gain(Vec::new());
    }

    fn push(&mut self, value: &Value) {
        self.ready.push_back(format!("{}\n", line(value)).into());
    }

    /// A line that is not the last.
    fn line(&self, gathered: &Gathered) -> Value {
        let mut line = json!({"model": self.name, "created_at": time(ids::now()), "done": false});
        match self.chat {
            true => {
                let mut message = json!({"role": "assistant", "content": gathered.text});
                if !gathered.thinking.is_empty() {
                    message["thinking"] = gathered.thinking.as_str().into();
                }
                if !gathered.calls.is_empty() {
                    message["tool_calls"] = gathered.calls.clone().into();
                }
                line["message"] = message;
            }
            false => {
                line["response"] = gathered.text.as_str().into();
                if !gathered.thinking.is_empty() {
                    line["thinking"] = gathered.thinking.as_str().into();
                }
            }
        }
        line
    }

    /// The last line: what there is that was not told, and what it took. The answer is over with it.
    fn last(&mut self) -> Value {
        let gathered = std::mem::take(&mut self.so_far);
        let mut line = self.line(&gathered);
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        let (mut prompt, mut answer) = (0, 0);
        if let Some(run) = self.run.take() {
            (prompt, answer) = (run.prompt_tokens, run.tokens);
        }
        line["done"] = true.into();
        line["done_reason"] = self.finish.name().into();
        line["total_duration"] = nanos(now - self.begun);
        line["load_duration"] = 0.into();
        line["prompt_eval_count"] = prompt.into();
        line["prompt_eval_duration"] = nanos(first - self.begun);
        line["eval_count"] = answer.into();
        line["eval_duration"] = nanos(now - first);
        self.over = true;
        line
    }
}

/// The answer to one who asks nothing: the model is there, and stays.
pub(super) fn loaded(name: &str, body: &Map<String, Value>, chat: bool) -> Value {
    let unload =
        body.get("keep_alive").is_some_and(|time| matches!(time.as_str(), Some("0" | "0s")) || *time == 0);
    let mut line = json!({"model": name, "created_at": time(ids::now()), "done": true});
    line["done_reason"] = if unload { "unload" } else { "load" }.into();
    match chat {
        true => line["message"] = json!({"role": "assistant", "content": ""}),
        false => line["response"] = "".into(),
    }
    line
}

fn nanos(time: std::time::Duration) -> Value {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into()
}

impl Live for Lines {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.sign.reset();
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            let Some(run) = &mut self.run else { return Poll::Ready(None) };
            match run.poll_change(context) {
                Poll::Ready(Ok(Some((_, change)))) => self.take(change),
                Poll::Ready(Ok(None)) => {
                    self.end();
                    let last = self.last();
                    self.push(&last);
                }
                // What comes whole cannot tell of it any more.
                Poll::Ready(Err(_)) if !self.stream => {
                    self.over = true;
                    return Poll::Ready(Some(Err(Broken)));
                }
                Poll::Ready(Err(problem)) => {
                    self.over = true;
                    self.run = None;
                    self.push(&json!({"error": problem.message()}));
                }
                Poll::Pending if self.sign.poll(context) => {
                    let sign = if self.stream { self.line(&Gathered::default()) } else { Value::Null };
                    match self.stream {
                        true => self.push(&sign),
                        false => self.ready.push_back(Bytes::from_static(b"\n")),
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A time as RFC 3339 writes it.
pub(super) fn time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days of the civil calendar, by Howard Hinnant: years begin in March, 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month, late) = (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1, month >= 10);
    let year = year + era * 400 + u64::from(late);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
