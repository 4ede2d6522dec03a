//! A job as a source of requests: for an engine of its own, or beside others in a session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aerostat::session::{Attached, Priority};
use aerostat::{Engine, Gained, Observer, Outcome, Plan, Progress, Request, RunEnd, SessionHandle, Work};

use crate::counts::Counts;
use crate::error::{Error, ErrorKind};
use crate::job::Job;
use crate::runner::Runner;
use crate::watch::{JobProgress, Shared, Watcher};

impl Job {
    /// Does what is left, with the engine for itself. Being asked to stop ends it after a sweep with everything saved. The
    /// job's files are closed at the end, however it ends: opened again, it goes on.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] if the watcher asked to stop; [`ErrorKind::Disk`], [`ErrorKind::Database`],
    /// [`ErrorKind::Engine`].
    pub fn run(self, engine: &mut Engine, watcher: &dyn Watcher) -> Result<Counts, Error> {
        let tokenizer = self.requests.tokenizer();
        let mut source = self.source(Some(engine.current_plan().clone()))?;
        let shared = Arc::clone(&source.shared);
        let mut observer = Watch { watcher, shared: &shared, told: 0 };
        let ended = engine.run(&mut source, tokenizer.as_deref(), &mut observer);
        observer.tell_failed();
        let counts = source.end(ended.and_then(|end| match end {
            RunEnd::Done => Ok(()),
            RunEnd::Interrupted => Err(aerostat::Error::new(aerostat::ErrorKind::Interrupted, "interrupted")),
        }))?;
        watcher.progress(&shared.progress());
        Ok(counts)
    }

    /// Lets what is left ride along in a session, beside single requests and other jobs. The session must have been
    /// started with the model and tokenizer of the job's setting; results have the bits that they have alone.
    ///
    /// # Errors
    /// The session is closed; [`ErrorKind::Database`], [`ErrorKind::Disk`], [`ErrorKind::Input`].
    pub fn attach(self, session: &SessionHandle, priority: Priority) -> Result<AttachedJob, Error> {
        let need = self.need();
        let source = self.source(None)?;
        let (runner, shared) = (Arc::clone(&source.runner), Arc::clone(&source.shared));
        let attached = session.attach(Box::new(source), need, priority)?;
        Ok(AttachedJob { attached, runner, handle: JobHandle { shared } })
    }

    fn source(self, plan: Option<Plan>) -> Result<JobSource, Error> {
        let shared = Arc::<Shared>::default();
        let runner = Runner::new(self, plan, Arc::clone(&shared))?;
        Ok(JobSource { runner: Arc::new(Mutex::new(Some(runner))), shared })
    }
}

/// A job that rides along in a session; see [`Job::attach`]. Keep it and [`wait`](Self::wait): that saves the job's end
/// and closes its files.
#[must_use = "the end of a job is saved by waiting for it"]
pub struct AttachedJob {
    attached: Attached,
    runner: Arc<Mutex<Option<Runner>>>,
    handle: JobHandle,
}

impl AttachedJob {
    /// Looks at the job and may stop it, from any thread.
    pub fn handle(&self) -> JobHandle {
        self.handle.clone()
    }

    /// Waits until the job has ended, in whatever way, and closes its files: opened again, it goes on.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] if it was stopped, or the session was; [`ErrorKind::Changed`], [`ErrorKind::Disk`],
    /// [`ErrorKind::Database`], [`ErrorKind::Engine`].
    pub fn wait(self) -> Result<Counts, Error> {
        let ended = self.attached.wait().and_then(|ended| ended.result);
        end(&self.runner, ended)
    }
}

/// Looks at a job in a session and may stop it, from any thread. It holds none of the job's files.
#[derive(Clone, Debug)]
pub struct JobHandle {
    shared: Arc<Shared>,
}

impl JobHandle {
    /// Where the job stands, as of the last sweep.
    pub fn progress(&self) -> JobProgress {
        self.shared.progress()
    }

    /// Asks the job to stop after the sweep at hand, with everything saved; others in the session go on.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

/// A job's requests. Its end is taken out of it by whoever else holds the runner, since a session gives back a source
/// without its type.
struct JobSource {
    runner: Arc<Mutex<Option<Runner>>>,
    shared: Arc<Shared>,
}

impl JobSource {
    fn end(self, ended: Result<(), aerostat::Error>) -> Result<Counts, Error> {
        end(&self.runner, ended)
    }

    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Runner) -> Result<T, aerostat::Error>,
    ) -> Result<T, aerostat::Error> {
        match lock(&self.runner).as_mut() {
            Some(runner) => call(runner),
            None => Err(aerostat::Error::new(aerostat::ErrorKind::Job, "the job has ended")),
        }
    }
}

impl Work for JobSource {
    fn next(&mut self) -> Result<Option<Request>, aerostat::Error> {
        self.with(Work::next)
    }

    fn swept(&mut self, gained: &[Gained<'_>]) -> Result<(), aerostat::Error> {
        self.with(|runner| runner.swept(gained))
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), aerostat::Error> {
        self.with(|runner| runner.finished(id, outcome))
    }

    fn sweep_over(&mut self) -> Result<(), aerostat::Error> {
        self.with(Work::sweep_over)
    }

    fn more_may_come(&self) -> bool {
        lock(&self.runner).as_ref().is_some_and(Work::more_may_come)
    }

    fn tokens_left(&self) -> u64 {
        lock(&self.runner).as_ref().map_or(0, Work::tokens_left)
    }
}

fn end(runner: &Mutex<Option<Runner>>, ended: Result<(), aerostat::Error>) -> Result<Counts, Error> {
    let runner = lock(runner).take();
    runner.ok_or_else(|| Error::new(ErrorKind::Defect, "a job has ended twice"))?.end(ended)
}

fn lock(runner: &Mutex<Option<Runner>>) -> MutexGuard<'_, Option<Runner>> {
    // A panic has been told; what the job has not counted is done again.
    runner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The observer of an engine that a job has for itself.
struct Watch<'a> {
    watcher: &'a dyn Watcher,
    shared: &'a Shared,
    /// The last sweep that the watcher was told of.
    told: u64,
}

impl Watch<'_> {
    fn tell_failed(&self) {
        for (name, message) in self.shared.failed() {
            self.watcher.failed(name.as_deref(), &message);
        }
    }
}

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: &Progress) -> bool {
        self.shared.see(*progress);
        self.watcher.sweeping(progress);
        false
    }

    /// Asked between sweeps, after the job has counted what the last one brought.
    fn enough(&mut self) -> bool {
        self.tell_failed();
        let progress = self.shared.progress();
        if progress.sweeps > self.told {
            self.told = progress.sweeps;
            self.watcher.progress(&progress);
        }
        self.watcher.stops()
    }
}
