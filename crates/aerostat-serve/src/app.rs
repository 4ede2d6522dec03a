//! What all requests share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use aerostat::SessionHandle;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::engine::Model;
use crate::held::Holder;
use crate::ids;
use crate::metrics::Metrics;
use crate::orphans::Orphans;
use crate::problem::Problem;
use crate::registry::Registry;
use crate::responses::Hubs;
use crate::store::Store;
use crate::turns::Turns;
use crate::worker::Worker;

/// Requests that are read at once: templates, tokens and grammars take their time, and the engine wants the cores.
const READERS: usize = 2;
/// Requests that wait for the disk at once.
const DISKS: usize = 2;

/// Single sequences that are handed to the engine at once, for each that it was planned for, and at least: enough to choose
/// from, and few enough that keys can take turns.
const TURNS_PER_SEQUENCE: usize = 2;
const TURNS_MIN: usize = 32;

/// What all requests share.
pub(crate) struct App {
    pub(crate) config: Config,
    /// The model, once it is open.
    model: OnceLock<Arc<Model>>,
    /// The session that opens it.
    pub(crate) session: OnceLock<SessionHandle>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    /// Places for requests.
    pub(crate) requests: Arc<Holder>,
    /// Bytes of bodies and prompts.
    pub(crate) bytes: Arc<Holder>,
    readers: Arc<Semaphore>,
    disks: Arc<Semaphore>,
    /// Files and batches, where they are served.
    store: Option<Arc<Store>>,
    /// What runs batches, once the model is open.
    pub(crate) worker: OnceLock<Arc<Worker>>,
    /// The server ends.
    pub(crate) stop: Arc<AtomicBool>,
    /// The engine's thread has ended.
    pub(crate) engine_ended: Arc<AtomicBool>,
    /// Whose turn it is among those that want their answers soon, and among those that can wait.
    pub(crate) turns: Arc<Turns>,
    pub(crate) later: Arc<Turns>,
    /// Requests whose clients have gone and may come again.
    pub(crate) orphans: Orphans,
    /// Responses under way.
    pub(crate) hubs: Hubs,
    /// When it began, in seconds since 1970.
    pub(crate) created: u64,
}

impl App {
    pub(crate) fn new(config: Config, budget: Option<u64>, store: Option<Store>) -> Self {
        let (bytes, answers) = (config.held_bytes_max(budget), config.answer_bytes_max(budget));
        Self {
            turns: Turns::new(
                config.sequences_max.saturating_mul(TURNS_PER_SEQUENCE).max(TURNS_MIN),
                answers,
            ),
            later: Turns::new(usize::MAX, answers),
            requests: Holder::new(config.limits.requests_max, "the queue is full"),
            bytes: Holder::new(bytes, "requests hold as much memory as they may"),
            config,
            model: OnceLock::new(),
            session: OnceLock::new(),
            registry: Arc::default(),
            metrics: Arc::default(),
            readers: Arc::new(Semaphore::new(READERS)),
            disks: Arc::new(Semaphore::new(DISKS)),
            store: store.map(Arc::new),
            worker: OnceLock::new(),
            stop: Arc::default(),
            engine_ended: Arc::default(),
            orphans: Orphans::default(),
            hubs: Hubs::default(),
            created: ids::now(),
        }
    }

    /// The model, if it is open.
    pub(crate) fn model(&self) -> Result<&Arc<Model>, Problem> {
        if self.stopping() {
            return Err(Problem::stopping());
        }
        let loading =
            || Problem::unavailable("loading", "the model is being opened; /health tells how far", 5);
        self.model.get().ok_or_else(loading)
    }

    /// The model is open now.
    pub(crate) fn opened(&self, model: Model) -> Arc<Model> {
        Arc::clone(self.model.get_or_init(|| Arc::new(model)))
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Files and batches.
    pub(crate) fn store(&self) -> Result<&Arc<Store>, Problem> {
        let none = || {
            let message = "this server keeps no files and batches: start it with --data FOLDER";
            Problem::new(hyper::StatusCode::NOT_FOUND, "no_data", message)
        };
        self.store.as_ref().ok_or_else(none)
    }

    /// What runs batches.
    pub(crate) fn worker(&self) -> Result<&Arc<Worker>, Problem> {
        self.store()?;
        self.model()?;
        self.worker.get().ok_or_else(|| Problem::unavailable("loading", "batches are being taken up", 5))
    }

    /// Runs what takes time of the processor beside the connections, a few at once.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        beside(&self.readers, work).await
    }

    /// Runs what waits for the disk, so that nobody waits for it who does not need it.
    pub(crate) async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        beside(&self.disks, work).await
    }

    /// Refuses a body that asks for a model that is not this one.
    pub(crate) fn check_body(&self, body: &Map<String, Value>) -> Result<(), Problem> {
        match body.get("model") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(name)) => self.check_model(Some(name)),
            Some(other) => {
                let other = aerostat_openai::brief(other);
                Err(Problem::value("model", format!("`model` is {other}; it must be text")))
            }
        }
    }

    /// Refuses a model that is not this one.
    pub(crate) fn check_model(&self, name: Option<&str>) -> Result<(), Problem> {
        match name {
            Some(name) if !self.config.names.iter().any(|own| own == name) => {
                let own = self.config.names.first().map_or("", String::as_str);
                let shown: String = name.chars().take(100).collect();
                let message = format!("there is no model {shown:?} here; this server has {own:?}");
                Err(Problem::new(hyper::StatusCode::NOT_FOUND, "model_not_found", message))
            }
            _ => Ok(()),
        }
    }
}

async fn beside<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let permit = Arc::clone(places).acquire_owned().await.map_err(Problem::internal)?;
    let done = spawn_blocking(move || {
        let result = work();
        drop(permit);
        result
    });
    // What panics here is the request's doing, and costs nobody else anything.
    done.await.map_err(Problem::internal)?
}
