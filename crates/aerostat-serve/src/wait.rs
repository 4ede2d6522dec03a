//! Answers that are waited for: those that come whole, kept alive by white space, and those that come in chunks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use aerostat_openai::{Delta, Finish, Piece, Splitter, Task, Token};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::alarm::Alarm;
use crate::app::App;
use crate::body::{Body, Broken, Live};
use crate::config::Limits;
use crate::orphans::Kept;
use crate::problem::Problem;
use crate::progress;
use crate::run::{Change, Run};
use crate::text::line;

/// A JSON answer that has begun before it is known: line ends, then the answer. What fails breaks the connection.
pub(crate) struct Late {
    run: Option<Kept>,
    /// The answer, once it is there.
    body: Option<Body>,
    alarm: Alarm,
    /// The first line end is due at once, so that proxies see a byte.
    begun: bool,
}

impl Late {
    pub(crate) fn new(run: Kept, limits: &Limits) -> Self {
        Self { run: Some(run), body: None, alarm: Alarm::new(limits.sign_time), begun: false }
    }
}

impl Live for Late {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(body) = &mut self.body {
            return Poll::Ready(body.next_piece().map(Ok));
        }
        let Some(run) = &mut self.run else { return Poll::Ready(None) };
        if let Poll::Ready(body) = run.poll_body(context) {
            self.run = None;
            let Ok(body) = body else { return Poll::Ready(Some(Err(Broken))) };
            return Poll::Ready(self.body.insert(body).next_piece().map(Ok));
        }
        if self.begun && !self.alarm.poll(context) {
            return Poll::Pending;
        }
        self.begun = true;
        Poll::Ready(Some(Ok(Bytes::from_static(b"\n"))))
    }
}

/// What a client wants of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    /// A last chunk with the usage.
    pub(crate) usage: bool,
    /// The usage so far in every chunk.
    pub(crate) usage_always: bool,
    /// How far it is, in chunks that say nothing else.
    pub(crate) progress: bool,
}

/// An answer in chunks, as server-sent events.
pub(crate) struct Chunks {
    app: Arc<App>,
    run: Option<Run>,
    wishes: Wishes,
    choices: Vec<Choice>,
    ready: VecDeque<Bytes>,
    /// Since the last byte.
    sign: Alarm,
    /// Since the last chunk.
    chunk: Alarm,
}

#[derive(Default)]
struct Choice {
    /// Text that came since the last chunk.
    text: String,
    /// Characters that its tokens were shown with.
    offset: usize,
    /// What takes it apart, where that is wanted.
    splitter: Option<Splitter>,
}

impl Chunks {
    pub(crate) fn new(run: Run, wishes: Wishes, app: &Arc<App>) -> Self {
        let limits = &app.config.limits;
        let splitter = || run.request.task.splitter();
        let choice = |_| Choice { splitter: splitter(), ..Choice::default() };
        let choices = (0..run.request.task.parts()).map(choice).collect();
        let (sign, chunk) = (Alarm::new(limits.sign_time), Alarm::new(limits.chunk_time));
        let app = Arc::clone(app);
        let mut chunks = Self { app, run: None, wishes, choices, ready: VecDeque::new(), sign, chunk };
        let chat = matches!(run.request.task, Task::Chat(_));
        chunks.run = Some(run);
        for index in (0..chunks.choices.len()).filter(|_| chat) {
            chunks.push(index, Delta::Begin);
        }
        chunks
    }

    /// Adds a chunk of a choice.
    fn push(&mut self, index: usize, delta: Delta<'_>) {
        let Some(run) = &self.run else { return };
        match run.model.setting.chunk(&run.request, &run.stamp, index, delta) {
            Ok(chunk) => self.send(chunk),
            Err(refusal) => self.fail(&refusal.into()),
        }
    }

    fn send(&mut self, mut chunk: Value) {
        let Some(run) = &self.run else { return };
        run.complete(&mut chunk);
        let is_usage = chunk.get("usage").is_some();
        if self.wishes.usage_always && !is_usage {
            chunk["usage"] = run.model.setting.usage(&run.request, run.tokens).unwrap_or(Value::Null);
        } else if self.wishes.usage && !is_usage {
            chunk["usage"] = Value::Null;
        }
        self.ready.push_back(format!("data: {}\n\n", line(&chunk)).into());
        self.chunk.reset();
    }

    /// Tells what went wrong, and ends.
    fn fail(&mut self, problem: &Problem) {
        self.run = None;
        self.ready.push_back(format!("data: {}\n\n", line(&problem.body())).into());
    }

    fn take(&mut self, index: usize, change: Change) {
        let Some(choice) = self.choices.get_mut(index) else { return };
        match change {
            Change::Text(text) => choice.text.push_str(&text),
            Change::Tokens(tokens) => self.gain(index, &tokens),
            Change::End(finish) => {
                if !choice.text.is_empty() {
                    self.gain(index, &[]);
                }
                self.finish(index, finish.unwrap_or(Finish::Stop));
            }
        }
    }

    fn gain(&mut self, index: usize, tokens: &[Token]) {
        let (Some(run), Some(choice)) = (&self.run, self.choices.get_mut(index)) else { return };
        let text = std::mem::take(&mut choice.text);
        if let Some(splitter) = &mut choice.splitter {
            let pieces = splitter.push(&text);
            return self.gain_pieces(index, &pieces, tokens);
        }
        let offset = choice.offset;
        choice.offset += run.model.setting.shown_chars(&run.request, tokens);
        self.push(index, Delta::Text { text: &text, tokens, offset });
    }

    fn gain_pieces(&mut self, index: usize, pieces: &[Piece], tokens: &[Token]) {
        let told = tokens.iter().any(|token| token.logprob.is_some());
        if !pieces.is_empty() || told {
            self.push(index, Delta::Pieces { pieces, tokens });
        }
    }

    fn finish(&mut self, index: usize, finish: Finish) {
        let splitter = self.choices.get_mut(index).and_then(|choice| choice.splitter.as_mut());
        let (held, calls) = match splitter {
            Some(splitter) => (splitter.finish(), splitter.calls()),
            None => (Vec::new(), 0),
        };
        self.gain_pieces(index, &held, &[]);
        let called = calls > 0 && finish == Finish::Stop;
        self.push(index, if called { Delta::Called } else { Delta::End(finish) });
    }

    fn end(&mut self) {
        if let Some(run) = self.run.as_ref().filter(|_| self.wishes.usage || self.wishes.usage_always) {
            match run.model.setting.usage_chunk(&run.request, &run.stamp, run.tokens) {
                Ok(chunk) => self.send(chunk),
                Err(refusal) => return self.fail(&refusal.into()),
            }
        }
        self.run = None;
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    /// A chunk that says nothing, for clients that wait for chunks.
    fn sign_of_life(&mut self) {
        let Some(run) = &self.run else { return };
        let Ok(mut chunk) = run.model.setting.chunk(&run.request, &run.stamp, 0, Delta::Nothing) else {
            return;
        };
        if self.wishes.progress {
            let sweep = run.model.handle.status().progress;
            let mut told = progress::row(&self.app, &run.id()).unwrap_or_else(|| json!({}));
            told["sweep"] = sweep.map(|p| p.sweep).into();
            told["tile"] = sweep.map(|p| p.tile).into();
            told["tiles"] = sweep.map(|p| p.tiles).into();
            chunk["prompt_progress"] = told;
        }
        self.send(chunk);
    }
}

impl Live for Chunks {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.sign.reset();
                return Poll::Ready(Some(Ok(bytes)));
            }
            let Some(run) = &mut self.run else { return Poll::Ready(None) };
            match run.poll_change(context) {
                Poll::Ready(Ok(Some((index, change)))) => self.take(index, change),
                Poll::Ready(Ok(None)) => self.end(),
                Poll::Ready(Err(problem)) => self.fail(&problem),
                Poll::Pending if self.chunk.poll(context) => self.sign_of_life(),
                // One line end: a comment that ends with an empty line is an event to some clients.
                Poll::Pending if self.sign.poll(context) => self.ready.push_back(Bytes::from_static(b":\n")),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
