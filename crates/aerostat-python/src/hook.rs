//! A Python caller's hand in a sequence.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};

use aerostat::{Error, ErrorKind, Hook, Layer};

use crate::values::array;

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
    /// Rows that will be gathered at least, so that what they take is taken once.
    pub(crate) rows: usize,
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
            let buffer = bytes_of(py, logits)?;
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
            self.gather(|gathered| append(&mut gathered.logits, logits, self.rows));
        }
        Ok(())
    }

    fn wants_processed(&self) -> bool {
        self.processed
    }

    fn processed(&mut self, _position: usize, logits: &[f32]) -> Result<(), Error> {
        self.gather(|gathered| append(&mut gathered.processed, logits, self.rows));
        Ok(())
    }

    fn hidden(&mut self, layer: Layer, _position: usize, state: &[f32]) -> Result<(), Error> {
        let layer = match layer {
            Layer::Final => None,
            Layer::After(blocks) => Some(blocks),
        };
        self.gather(|gathered| match gathered.hidden.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, states)) => states.extend_from_slice(state),
            None => {
                let mut states = Vec::new();
                append(&mut states, state, self.rows);
                gathered.hidden.push((layer, states));
            }
        });
        Ok(())
    }
}

/// A row more, after room was made for so many at the first.
fn append(rows: &mut Vec<f32>, row: &[f32], expected: usize) {
    if rows.is_empty() {
        // Where there is not so much memory, it grows as far as there is.
        let _ = rows.try_reserve_exact(row.len().saturating_mul(expected));
    }
    rows.extend_from_slice(row);
}

/// `[n]` f32 as bytes in the machine's order, which Python may write to.
fn bytes_of<'py>(py: Python<'py>, values: &[f32]) -> PyResult<Bound<'py, PyByteArray>> {
    PyByteArray::new_with(py, values.len() * 4, |bytes| {
        let places = bytes.chunks_exact_mut(4);
        places.zip(values).for_each(|(place, value)| place.copy_from_slice(&value.to_ne_bytes()));
        Ok(())
    })
}

/// The callable's exception in words: its own traceback ends here, on the engine's thread.
fn failed(what: &str, error: &PyErr) -> Error {
    Error::new(ErrorKind::Usage, format!("the {what} failed: {error}"))
}

/// What was gathered, as Python's values.
pub(crate) fn members<'py>(py: Python<'py>, gathered: &Mutex<Gathered>) -> PyResult<Bound<'py, PyDict>> {
    let gathered = std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner));
    let members = PyDict::new(py);
    members.set_item("logits", array(py, gathered.logits)?)?;
    members.set_item("processed", array(py, gathered.processed)?)?;
    let hidden = gathered.hidden.into_iter().map(|(layer, states)| Ok((layer, array(py, states)?)));
    members.set_item("hidden", hidden.collect::<PyResult<Vec<_>>>()?)?;
    Ok(members)
}
