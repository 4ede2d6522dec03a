//! The engine's thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aerostat_plan::Plan;
use aerostat_text::Tokenizer;

use super::board::{Board, Listeners};
use super::{Event, Status};
use crate::Error;
use crate::engine::Engine;
use crate::machine;
use crate::model_files::ModelFiles;
use crate::need::Need;
use crate::observe::{Observer, Progress};
use crate::options::Options;
use crate::request::RunEnd;

/// Opens the model, runs what comes in, and opens it again where a request does not fit.
pub(super) struct Worker {
    pub(super) files: Arc<ModelFiles>,
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    pub(super) options: Options,
    pub(super) observer: Box<dyn Observer + Send>,
    pub(super) board: Board,
    /// What was asked for at the start.
    pub(super) first_need: Need,
    pub(super) status: Arc<Mutex<Status>>,
    /// The sweep at hand is to be left.
    pub(super) stop: Arc<AtomicBool>,
}

impl Worker {
    /// Until the session is closed and nothing is left to do.
    pub(super) fn run(mut self) {
        let mut engine = None;
        loop {
            self.board.drain();
            if self.board.stale && !(self.board.closing && self.board.is_idle()) {
                engine = self.open(engine);
            }
            if !self.board.is_idle()
                && let Some(engine) = &mut engine
            {
                self.serve(engine);
                if !self.board.is_dry() {
                    continue;
                }
            }
            if self.board.closing && self.board.is_idle() {
                break;
            }
            self.board.wait();
        }
        self.board.fail_all(&super::closed());
    }

    /// Opens the model for what is needed now. If that cannot be, what waits is told why, and what was open stays.
    fn open(&mut self, open: Option<Engine>) -> Option<Engine> {
        let before = open.as_ref().map(|engine| engine.opened_for);
        if let Some(engine) = &open
            && let Err(error) = engine.replan(&self.files, &self.options, &self.board.need)
        {
            self.board.fail_unfit(&error);
            self.board.need = engine.opened_for;
            self.board.stale = false;
            return open;
        }
        // Its memory is needed for the next, which is not to be planned around what it held.
        drop(open);
        machine::forget_peak();
        let mut telling = telling(&self.board, &self.status, &self.stop, &mut *self.observer);
        let opened = Engine::open(&self.files, &self.options, &self.board.need, &mut telling);
        self.board.stale = false;
        match opened {
            Ok(engine) => {
                self.board.tokens_max = engine.tokens_max();
                let mut status = self.status();
                status.plan = Some(engine.current_plan().clone());
                status.reopened += u64::from(before.is_some());
                drop(status);
                Some(engine)
            }
            Err(error) => {
                // What fitted before is opened for again; what nothing was open for is told why.
                match before {
                    Some(_) => self.board.fail_unfit(&error),
                    None => self.board.fail_all(&error),
                }
                self.board.need = before.unwrap_or(self.first_need);
                self.board.stale = true;
                None
            }
        }
    }

    /// Runs what is there until nothing is left, or something does not fit.
    fn serve(&mut self, engine: &mut Engine) {
        let mut telling = telling(&self.board, &self.status, &self.stop, &mut *self.observer);
        let end = engine.run(&mut self.board, self.tokenizer.as_deref(), &mut telling);
        self.board.end_sources();
        match end {
            Ok(RunEnd::Done) => {}
            Ok(RunEnd::Interrupted) => self.board.fail_all(&Error::interrupted()),
            Err(error) => self.board.fail_all(&error),
        }
        let mut status = self.status();
        status.stats = Some(engine.stats());
        status.requests = self.board.requests();
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives text to those who wait for it, and all else to the session's observer.
struct Telling<'a> {
    listeners: Listeners,
    status: Arc<Mutex<Status>>,
    stop: Arc<AtomicBool>,
    observer: &'a mut dyn Observer,
}

fn telling<'a>(
    board: &Board,
    status: &Arc<Mutex<Status>>,
    stop: &Arc<AtomicBool>,
    observer: &'a mut dyn Observer,
) -> Telling<'a> {
    let listeners = Arc::clone(&board.listeners);
    Telling { listeners, status: Arc::clone(status), stop: Arc::clone(stop), observer }
}

impl Observer for Telling<'_> {
    fn planned(&mut self, plan: &Plan) {
        self.observer.planned(plan);
    }

    fn progress(&mut self, progress: &Progress) -> bool {
        let requests = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        (status.progress, status.requests) = (Some(*progress), requests);
        drop(status);
        self.observer.progress(progress) | self.stop.load(Ordering::Relaxed)
    }

    fn enough(&mut self) -> bool {
        self.observer.enough()
    }

    fn text(&mut self, index: usize, text: &str) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = listeners.get_mut(&(index as u64)) {
            events(Event::Text(text.to_owned()));
        }
    }

    fn note(&mut self, text: &str) {
        self.observer.note(text);
    }
}
