//! A caller's hand in a sequence: its logits and hidden states as they come, processors of logits, and ends of its own.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Error;
use crate::request::Layer;

/// What a caller does with one sequence, called on the engine's thread between and during sweeps. Nothing of what it is given
/// is kept. An error fails the request alone.
///
/// Positions count from the first token of the prompt. Each position's row is given once, in order of positions (hidden
/// states: layer by layer, each in order of positions).
pub trait Hook: Send {
    /// Changes the logits of the next token of an answer: after biases, penalties and rules, and before temperature and cuts.
    /// `tokens` are the prompt and the answer so far.
    ///
    /// # Errors
    /// The caller's own.
    fn process(&mut self, _tokens: &[u32], _logits: &mut [f32]) -> Result<(), Error> {
        Ok(())
    }

    /// Whether an answer is to end with the token that came last; asked after each of its tokens.
    ///
    /// # Errors
    /// The caller's own.
    fn stops(&mut self, _tokens: &[u32]) -> Result<bool, Error> {
        Ok(false)
    }

    /// The model's own logits after a position, `[vocab]`: of [`Want::Logits`](crate::Want::Logits) all that are asked for,
    /// of an answer those that a token was chosen from.
    ///
    /// # Errors
    /// The caller's own.
    fn logits(&mut self, _position: usize, _logits: &[f32]) -> Result<(), Error> {
        Ok(())
    }

    /// Whether [`processed`](Self::processed) is called.
    fn wants_processed(&self) -> bool {
        false
    }

    /// What a token was drawn from, `[vocab]`: the logits after all processors and, if it was sampled, divided by the
    /// temperature, with minus infinity for those that were cut.
    ///
    /// # Errors
    /// The caller's own.
    fn processed(&mut self, _position: usize, _logits: &[f32]) -> Result<(), Error> {
        Ok(())
    }

    /// The hidden state at a position, `[hidden]`, at each layer of [`Request::layers`](crate::Request::layers).
    ///
    /// # Errors
    /// The caller's own.
    fn hidden(&mut self, _layer: Layer, _position: usize, _state: &[f32]) -> Result<(), Error> {
        Ok(())
    }
}

/// A [`Hook`] that requests can hold. Clones are the same hook.
#[derive(Clone)]
pub struct SharedHook(Arc<Mutex<dyn Hook>>);

impl SharedHook {
    /// Wraps a hook; one that is to be looked at afterwards keeps what it gathers behind an [`Arc`] of its own.
    pub fn new(hook: impl Hook + 'static) -> Self {
        Self(Arc::new(Mutex::new(hook)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, dyn Hook + 'static> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedHook").finish_non_exhaustive()
    }
}
