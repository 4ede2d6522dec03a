//! The model that clients share: opened once, asked by all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aerostat::session::Event;
use aerostat::{
    Hidden, Layer, ModelFiles, Need, Observer, Options, Outcome, Phase, Plan, Pooling, Progress, Request,
    Session, SessionHandle, Want,
};
use aerostat_jobs::files_digest;
use aerostat_openai::{LazyGrammars, Refusal, Rules, Setting, Shape};
use sha2::{Digest, Sha256};

use crate::config::{Config, RESERVE};
use crate::error::{Error, ErrorKind};
use crate::metrics::{Metrics, SweepClock};

/// Tokens of a sequence that the memory is planned for beside the longest one, at most: most are short.
const USUAL_TOKENS: usize = 1024;
/// Batches fill sweeps as a job of its own would: where they are served, the same memory is for so many times as many
/// sequences, which are as much shorter.
const BATCH_CROWD: usize = 4;

/// A model that is open.
pub(crate) struct Model {
    pub(crate) setting: Setting,
    pub(crate) handle: SessionHandle,
    pub(crate) options: Options,
    /// A digest of its files.
    pub(crate) digest: String,
    /// What answers call what they were made with.
    pub(crate) fingerprint: String,
    /// Tokens of a sequence at most.
    pub(crate) context: usize,
    /// What its makers call its family, how many parameters it has and what they take.
    pub(crate) family: String,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
    grammars: Mutex<LazyGrammars>,
}

impl Model {
    /// The grammar of an answer.
    pub(crate) fn constraint(&self, shape: &Shape) -> Result<aerostat_openai::Grammar, Refusal> {
        // A grammar that made the library panic left the others as they were, or none.
        let mut grammars = self.grammars.lock().unwrap_or_else(|poisoned| {
            let mut grammars = poisoned.into_inner();
            *grammars = LazyGrammars::default();
            grammars
        });
        let made = grammars.constraint(&self.setting, shape);
        drop(grammars);
        self.grammars.clear_poison();
        made
    }
}

/// What the engine tells while it works, and the wish to stop it. It goes when the engine's thread ends, however it does.
struct Signs {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    clock: SweepClock,
    delay: Duration,
    /// The last sweep that was held up.
    held: u64,
    verbose: bool,
}

impl Signs {
    /// Makes sweeps as slow as they are to be, unless the server ends.
    fn hold_up(&mut self, progress: &Progress) {
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        if self.delay.is_zero() || progress.phase == Phase::Loading || self.held == progress.sweep {
            return;
        }
        self.held = progress.sweep;
        let begun = Instant::now();
        while begun.elapsed() < self.delay && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(LOOK_EVERY.min(self.delay));
        }
    }
}

impl Drop for Signs {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Observer for Signs {
    fn planned(&mut self, plan: &Plan) {
        if self.verbose {
            eprint!("plan\n{plan}");
        }
    }

    fn progress(&mut self, progress: &Progress) -> bool {
        if let Some((seconds, rows)) = self.clock.tick(progress) {
            self.metrics.sweep(seconds, rows);
        }
        self.hold_up(progress);
        self.stop.load(Ordering::Relaxed)
    }

    fn note(&mut self, text: &str) {
        eprintln!("note: {text}");
    }
}

/// Opens the model for a server, and waits until it is open. `early` is given the session before that.
pub(crate) fn open(
    config: &Config,
    files: Arc<ModelFiles>,
    options: &Options,
    (stop, ended, metrics): (Arc<AtomicBool>, Arc<AtomicBool>, Arc<Metrics>),
    early: impl FnOnce(SessionHandle),
) -> Result<(Session, Model), Error> {
    let context = config.context_of(files.spec().context_max);
    let rules = Rules {
        context: Some(context),
        max_new_tokens: config.max_new_tokens,
        seed: 0,
        lenient: config.lenient,
    };
    let name = config.names.first().map_or("model", String::as_str);
    let setting = Setting::new(&files, name, rules)?;
    // A grammar, or a line of a batch, may take what is kept for one request: a half of that for all.
    let setting = setting.only(&config.names);
    let setting = match options.memory_bytes {
        Some(bytes) => setting.within(2 * RESERVE.of(bytes)).of_process(bytes),
        None => setting,
    };
    let digest = files_digest(&files)?;
    let sha = Sha256::digest(format!("{digest} {}", aerostat::result_identity(options)));
    let fingerprint =
        format!("fp_{}", sha.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>());
    let (family, parameters, bytes) = described(&files);
    let signs = Box::new(Signs {
        stop,
        ended,
        metrics,
        clock: SweepClock::default(),
        delay: config.sweep_delay,
        held: 0,
        verbose: false,
    });
    let tokenizer = setting.tokenizer().cloned();
    let gives_tokens = !files.spec().head.absent && !files.spec().looks_ahead();
    let need = need(config, context, gives_tokens);
    let session = Session::start(files, tokenizer, options.clone(), need, signs)?;
    let handle = session.handle();
    early(session.handle());
    wait_until_open(&handle, gives_tokens)?;
    let grammars = Mutex::default();
    let model = Model {
        setting,
        handle,
        options: options.clone(),
        digest,
        fingerprint,
        context,
        family,
        parameters,
        bytes,
        grammars,
    };
    Ok((session, model))
}

/// A model's family, its parameters, and what its matrices take.
fn described(files: &ModelFiles) -> (String, u64, u64) {
    let spec = files.spec();
    (spec.family.to_string(), spec.parameters, spec.matrices().map(|matrix| matrix.bytes()).sum())
}

/// What a model can be asked that gives no tokens.
const VECTOR: Want = Want::Hidden(Hidden {
    layer: Layer::Final,
    pooling: Some(Pooling::Mean),
    dimensions: None,
    normalize: false,
});

/// What the memory is planned for: the longest sequence there may be, and usual ones beside it.
fn need(config: &Config, context: usize, gives_tokens: bool) -> Need {
    let (want, answer) = match gives_tokens {
        true => (Want::Generate, config.max_new_tokens.min(context.saturating_sub(1))),
        false => (VECTOR, 0),
    };
    let mut need = Need::none();
    need.keep_share(RESERVE);
    need.add_tokens(context - answer, answer, want);
    let crowd = if config.data.is_some() { BATCH_CROWD } else { 1 };
    let usual = (context.min(USUAL_TOKENS) / crowd).max(1);
    let answer = answer.min(usual / 2);
    for _ in 1..config.sequences_max.max(1) * crowd {
        need.add_tokens(usual - answer, answer, want);
    }
    need
}

/// A request that wants nothing comes back when the model is open, or says why it is not. One that gives no tokens cannot be
/// asked for nothing: it is asked for a vector, and left alone as soon as it is open.
fn wait_until_open(handle: &SessionHandle, gives_tokens: bool) -> Result<(), Error> {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let want = if gives_tokens { Want::Generate } else { VECTOR };
    let nothing = Request { token_ids: vec![0], max_new_tokens: 0, want, ..Request::default() };
    let ticket = handle.submit(nothing, -1)?;
    loop {
        match ticket.next_within(LOOK_EVERY) {
            Ok(Event::Finished(Outcome::Failed(error))) => return Err(error.into()),
            Ok(Event::Finished(_)) => return Ok(()),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) if handle.status().plan.is_some() => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(ErrorKind::Model, "the engine's thread ended while it opened"));
            }
        }
    }
}

/// The value in a mutex, whoever panicked while holding it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
