//! What drives a response: events of the engine become events of the response, and what is to be kept is kept.

use std::sync::Arc;
use std::time::Duration;

use aerostat_openai::Finish;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::{Hub, Writer, prepare_chat, read_chat};
use crate::app::App;
use crate::problem::Problem;
use crate::run::{Change, Prepared, Run};
use crate::store::Store;
use crate::stored::ResponseRow;
use crate::worker::OTHER_MODEL;

/// Tokens of what runs in the background are saved at most so often.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Why a response that has ended in the background is shown as it was before, once nobody remembers its events.
const UNSTORED: &str = "it has ended and could not be stored: the server makes it again at its next start";

/// A response under way.
pub(super) struct Drive {
    app: Arc<App>,
    pub(super) hub: Arc<Hub>,
    run: Run,
    writer: Writer,
    row: ResponseRow,
    background: bool,
    store: bool,
    /// Its client may ask again.
    may_return: bool,
    /// Tokens that are not saved yet.
    unsaved: Vec<u32>,
    saved: Instant,
    finish: Option<Finish>,
    prompt_tokens: usize,
}

/// How it ended.
enum End {
    Done,
    Failed(Problem),
    Cancelled,
    /// Nobody wants it.
    Abandoned,
    /// The server ends; the next one goes on with it.
    Stopped,
}

impl Drive {
    pub(super) fn start(
        app: &Arc<App>,
        row: ResponseRow,
        mut prepared: Prepared,
        (background, store, attempt): (bool, bool, Option<[u8; 32]>),
    ) -> Result<Self, Problem> {
        let prompt_tokens = prepared.parts.iter().map(|part| part.token_ids.len()).sum();
        let splitter = prepared.request.task.splitter();
        let mut writer = Writer::new(row.object.clone(), splitter);
        let mut events = writer.begin();
        for part in &mut prepared.parts {
            part.resumed = row.tokens.clone();
        }
        prepared.name = Some(row.id.clone());
        let model = app.model()?;
        let keep = prepared.parts.first().is_some_and(|part| part.keep_special_tokens);
        let run = Run::start(app, prepared)?;
        if !row.tokens.is_empty()
            && let Some(tokenizer) = model.setting.tokenizer()
        {
            // What an earlier server told of it, but for a character that was not whole.
            let text = tokenizer.decode(&row.tokens, !keep);
            events.extend(writer.text(text.trim_end_matches('\u{fffd}')));
            writer.tokens(row.tokens.len());
        }
        let hub = app.hubs.enter(&row.id, attempt);
        hub.tell(events, &writer.object);
        let (saved, may_return) = (Instant::now(), attempt.is_some());
        let (unsaved, app) = (Vec::new(), Arc::clone(app));
        Ok(Self {
            app,
            hub,
            run,
            writer,
            row,
            background,
            store,
            may_return,
            unsaved,
            saved,
            finish: None,
            prompt_tokens,
        })
    }

    /// Lets it go on by itself.
    pub(super) fn spawn(self) {
        tokio::spawn(self.drive());
    }

    async fn drive(mut self) {
        // Whoever follows it hears of its end, even if this panics.
        let _guard =
            Guard { app: Arc::clone(&self.app), hub: Arc::clone(&self.hub), id: self.row.id.clone() };
        let end = self.follow().await;
        let Self {
            app, hub, run, mut writer, row, background, store, finish, prompt_tokens, unsaved, ..
        } = self;
        let tokens = row.tokens.len() + run.tokens;
        if let Some(text) = run.text(0).filter(|_| !row.tokens.is_empty()) {
            writer.mend(text);
        }
        // What it holds of the engine is given back first.
        drop(run);
        let mut problem = None;
        let mut events = match end {
            End::Done => writer.finish(finish.unwrap_or(Finish::Stop), (prompt_tokens, tokens)),
            End::Failed(why) => {
                let events = writer.fail(&why);
                problem = Some(why);
                events
            }
            End::Cancelled => writer.cancel(),
            End::Abandoned => Vec::new(),
            End::Stopped => {
                let keeper = app.store().ok().cloned().filter(|_| background);
                if let Some(store) = keeper {
                    let id = row.id.clone();
                    told(app.disk(move || Ok(store.add_tokens(&id, &unsaved)?)).await);
                    let message =
                        "the server ends; this response goes on when it is started again: ask for it then";
                    hub.break_off(Problem::unavailable("stopped", message, 30));
                } else {
                    let why = Problem::stopping();
                    hub.tell(writer.fail(&why), &writer.object);
                    hub.end(Some(why));
                }
                return app.hubs.leave(&row.id, false);
            }
        };
        let whole = matches!(writer.object["status"].as_str(), Some("completed" | "incomplete"));
        if let Ok(keeper) = app.store().cloned()
            && (background || (store && whole))
        {
            let ended = ResponseRow { object: writer.object.clone(), open: false, ..row.clone() };
            let kept = app.disk(move || Ok(keep(&keeper, &ended, background)?)).await;
            match &kept {
                Err(_) if background => app.hubs.pause(&row.id, UNSTORED),
                Err(_) => unstored(&mut writer.object, &mut events),
                Ok(()) => {}
            }
            told(kept);
        }
        hub.tell(events, &writer.object);
        hub.end(problem.filter(|_| !background));
        app.hubs.leave(&row.id, background);
    }

    /// Goes on until it ends, however it does.
    async fn follow(&mut self) -> End {
        let limits = self.app.config.limits.clone();
        let mut sign = Instant::now() + limits.chunk_time;
        let mut gone: Option<Instant> = None;
        loop {
            let hub = Arc::clone(&self.hub);
            let alone = gone.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            tokio::select! {
                change = std::future::poll_fn(|context| self.run.poll_change(context)) => match change {
                    Ok(Some((_, change))) => {
                        if !matches!(change, Change::End(_)) {
                            sign = Instant::now() + limits.chunk_time;
                        }
                        self.take(change).await;
                    }
                    Ok(None) => return End::Done,
                    Err(_) if self.app.stopping() => return End::Stopped,
                    Err(problem) if problem.is_stopped() => return End::Cancelled,
                    Err(problem) => return End::Failed(problem),
                },
                () = hub.cancel.notified() => return End::Cancelled,
                () = hub.left.notified() => gone = self.gone(limits.orphan_time),
                () = sleep_until(alone) => {
                    gone = None;
                    if self.hub.is_alone() {
                        return End::Abandoned;
                    }
                }
                () = sleep_until(sign) => {
                    sign = Instant::now() + limits.chunk_time;
                    let events = self.writer.sign();
                    self.hub.tell(events, &self.writer.object);
                }
            }
        }
    }

    /// When it is given up, if nobody follows it then.
    fn gone(&self, orphan_time: Duration) -> Option<Instant> {
        let alone = !self.background && self.hub.is_alone();
        alone.then(|| Instant::now() + if self.may_return { orphan_time } else { Duration::ZERO })
    }

    async fn take(&mut self, change: Change) {
        let events = match change {
            Change::Text(text) => self.writer.text(&text),
            Change::Tokens(tokens) => {
                self.writer.tokens(tokens.len());
                if self.background {
                    self.unsaved.extend(tokens.iter().map(|token| token.id));
                }
                Vec::new()
            }
            Change::End(finish) => {
                self.finish = finish;
                Vec::new()
            }
        };
        self.hub.tell(events, &self.writer.object);
        if !self.unsaved.is_empty()
            && self.saved.elapsed() >= SAVE_EVERY
            && let Ok(store) = self.app.store().cloned()
        {
            self.saved = Instant::now();
            let (id, tokens) = (self.row.id.clone(), std::mem::take(&mut self.unsaved));
            told(self.app.disk(move || Ok(store.add_tokens(&id, &tokens)?)).await);
        }
    }
}

/// Ends a response that nobody drives any more.
struct Guard {
    app: Arc<App>,
    hub: Arc<Hub>,
    id: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.hub.has_ended() {
            let message = "the response was left before it ended; the server's log says why";
            self.hub.break_off(Problem::unavailable("response_left", message, 30));
            self.app.hubs.leave(&self.id, false);
        }
    }
}

fn keep(store: &Store, row: &ResponseRow, background: bool) -> Result<(), crate::store::Fault> {
    match background {
        true => store.end_response(&row.id, &row.object),
        false => store.add_response(row),
    }
}

/// Tells with the answer that it could not be stored: the disk was filled while it was made.
fn unstored(object: &mut Value, events: &mut [Value]) {
    object["store"] = false.into();
    for event in events.iter_mut().filter(|event| event["response"].is_object()) {
        event["response"]["store"] = false.into();
    }
}

/// What the disk does not take costs no answer; the log tells of it.
fn told(result: Result<(), Problem>) {
    if let Err(problem) = result {
        eprintln!("error: a response cannot be stored: {}", problem.body()["error"]["message"]);
    }
}

/// Takes up what an earlier server left in the background, where it was made for this model.
pub(crate) async fn resume(app: Arc<App>) {
    let Ok(store) = app.store().cloned() else { return };
    let Ok(model) = app.model().cloned() else { return };
    let rows = match app.disk(move || Ok(store.open_responses()?)).await {
        Ok(rows) => rows,
        Err(problem) => return told(Err(problem)),
    };
    for row in rows {
        let id = row.id.clone();
        if row.request["digest"] != model.digest.as_str() {
            eprintln!("note: {id} waits: {OTHER_MODEL}");
            app.hubs.pause(&id, OTHER_MODEL);
            continue;
        }
        let (shared, model, own) = (Arc::clone(&app), Arc::clone(&model), row.clone());
        let read = move || {
            let read = read_chat(&shared, &model, &own.request)?;
            let place = shared.requests.hold(1)?;
            prepare_chat(&shared, &model, read, vec![place], &own)
        };
        let started = app
            .blocking(read)
            .await
            .and_then(|prepared| Drive::start(&app, row, prepared, (true, true, None)));
        match started {
            Ok(drive) => drive.spawn(),
            Err(problem) => {
                eprintln!("error: {id} waits for the next start: {}", problem.message());
                app.hubs.pause(&id, format!("it cannot go on in this server: {}", problem.message()));
            }
        }
    }
}
