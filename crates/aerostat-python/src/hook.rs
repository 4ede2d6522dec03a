//! A Python caller's hand in a sequence.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};

use aerostat::{Error, ErrorKind, Hook, Layer};

use crate::values::floats;

/// What was gathered of a sequence, rows in order of positions.
#[derive(Default)]
pub(crate) struct Gathered {
    logits: Vec<f32>,
    processed: Vec<f32>,
    /// By layer: blocks before it, `None` after the final norm.
    hidden: Vec<(Option<usize>, Vec<f32>)>,
}

/// What is gathered, by request.
pub(crate) type Gathering = HashMap<u64, Arc<Mutex<Gathered>>>;

/// Gathers what is wanted, and asks Python's callables.
pub(crate) struct Hand {
    pub(crate) gathered: Arc<Mutex<Gathered>>,
    pub(crate) logits: bool,
    pub(crate) processed: bool,
    /// `(tokens, logits)`: changes the logits in place.
    pub(crate) process: Option<Py<PyAny>>,
    /// `(tokens)`: whether the answer ends.
    pub(crate) stops: Option<Py<PyAny>>,
}

impl Hand {
    fn gather(&self, what: impl FnOnce(&mut Gathered)) {
        what(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Hook for Hand {
    fn process(&mut self, tokens: &[u32], logits: &mut [f32]) -> Result<(), Error> {
        let Some(process) = &self.process else { return Ok(()) };
        Python::attach(|py| {
            let buffer = floats(py, logits)?;
            process.call1(py, (tokens.to_vec(), &buffer))?;
            let bytes = buffer.to_vec();
            if bytes.len() != logits.len() * 4 {
                return Err(crate::error::usage("a logits processor changed how many logits there are"));
            }
            for (logit, bytes) in logits.iter_mut().zip(bytes.chunks_exact(4)) {
                *logit = f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            Ok(())
        })
        .map_err(|e: PyErr| failed("logits processor", &e))
    }

    fn stops(&mut self, tokens: &[u32]) -> Result<bool, Error> {
        let Some(stops) = &self.stops else { return Ok(false) };
        Python::attach(|py| stops.call1(py, (tokens.to_vec(),))?.extract(py))
            .map_err(|e: PyErr| failed("stopping criterion", &e))
    }

    fn logits(&mut self, _position: usize, logits: &[f32]) -> Result<(), Error> {
        if self.logits {
            self.gather(|gathered| gathered.logits.extend_from_slice(logits));
        }
        Ok(())
    }

    fn wants_processed(&self) -> bool {
        self.processed
    }

    fn processed(&mut self, _position: usize, logits: &[f32]) -> Result<(), Error> {
        self.gather(|gathered| gathered.processed.extend_from_slice(logits));
        Ok(())
    }

    fn hidden(&mut self, layer: Layer, _position: usize, state: &[f32]) -> Result<(), Error> {
        let layer = match layer {
            Layer::Final => None,
            Layer::After(blocks) => Some(blocks),
        };
        self.gather(|gathered| match gathered.hidden.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, states)) => states.extend_from_slice(state),
            None => gathered.hidden.push((layer, state.to_vec())),
        });
        Ok(())
    }
}

/// The callable's exception in words: its own traceback ends here, on the engine's thread.
fn failed(what: &str, error: &PyErr) -> Error {
    Error::new(ErrorKind::Usage, format!("the {what} failed: {error}"))
}

/// What was gathered, as Python's values.
pub(crate) fn members<'py>(py: Python<'py>, gathered: &Mutex<Gathered>) -> PyResult<Bound<'py, PyDict>> {
    let gathered = std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner));
    let members = PyDict::new(py);
    members.set_item("logits", floats(py, &gathered.logits)?)?;
    members.set_item("processed", floats(py, &gathered.processed)?)?;
    let hidden: PyResult<Vec<(Option<usize>, Bound<'py, PyByteArray>)>> =
        gathered.hidden.iter().map(|(layer, states)| Ok((*layer, floats(py, states)?))).collect();
    members.set_item("hidden", hidden?)?;
    Ok(members)
}
