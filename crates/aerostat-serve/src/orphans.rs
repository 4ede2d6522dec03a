//! Requests whose clients have gone while they waited for a whole answer, and may be asking again: the retry goes on with what
//! was begun, and nothing is paid for twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::app::App;
use crate::body::Body;
use crate::engine::locked;
use crate::problem::Problem;
use crate::run::Run;

/// What OpenAI's clients count their attempts by; those that do not send it do not try again by themselves.
const ATTEMPT: &str = "x-stainless-retry-count";

/// What tells requests apart: who asks what.
type Key = [u8; 32];

/// Runs that nobody waits for at the moment.
#[derive(Default)]
pub(crate) struct Orphans(Mutex<Held>);

#[derive(Default)]
struct Held {
    runs: HashMap<Key, (u64, Run)>,
    count: u64,
}

/// A run that is kept for a while if the one who waits for it goes.
pub(crate) struct Kept {
    run: Option<Run>,
    /// Where it goes then.
    home: Option<(Arc<App>, Key)>,
}

/// Which request it is, if its client may ask again, and whether it does so now.
pub(crate) fn attempt(headers: &HeaderMap, key: usize, path: &str, body: &[u8]) -> Option<(Key, bool)> {
    let attempt = headers.get(ATTEMPT)?.to_str().ok()?.parse::<u32>().ok()?;
    let mut digest = Sha256::new();
    digest.update(key.to_le_bytes());
    digest.update(path.as_bytes());
    digest.update([0]);
    digest.update(body);
    Some((digest.finalize().into(), attempt > 0))
}

impl Orphans {
    /// The run that was begun for the same request.
    pub(crate) fn take(&self, key: &Key) -> Option<Run> {
        locked(&self.0).runs.remove(key).map(|(_, run)| run)
    }

    fn put(&self, key: Key, run: Run) -> u64 {
        let mut held = locked(&self.0);
        held.count += 1;
        let number = held.count;
        let before = held.runs.insert(key, (number, run));
        // What it cancels is cancelled outside.
        drop(held);
        drop(before);
        number
    }

    fn remove(&self, key: &Key, number: u64) {
        let mut held = locked(&self.0);
        let found = held.runs.get(key).is_some_and(|(own, _)| *own == number);
        let run = if found { held.runs.remove(key) } else { None };
        drop(held);
        drop(run);
    }

    /// The server ends.
    pub(crate) fn clear(&self) {
        let runs = std::mem::take(&mut locked(&self.0).runs);
        drop(runs);
    }
}

impl Kept {
    pub(crate) fn new(run: Run, home: Option<(Arc<App>, Key)>) -> Self {
        Self { run: Some(run), home }
    }

    pub(crate) fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// The body of the response, once it is there; what has ended is not kept.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Body, Problem>> {
        let Some(run) = &mut self.run else { return Poll::Ready(Err(Problem::stopping())) };
        let body = std::task::ready!(run.poll_body(context));
        self.run = None;
        Poll::Ready(body)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let (Some(run), Some((app, key))) = (self.run.take(), self.home.take()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // What waits for its turn has cost nothing yet, and would keep others from theirs.
        if app.stopping() || run.waits() {
            return;
        }
        let number = app.orphans.put(key, run);
        runtime.spawn(async move {
            sleep(app.config.limits.orphan_time).await;
            app.orphans.remove(&key, number);
        });
    }
}
