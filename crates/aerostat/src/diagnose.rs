//! Why logits are not numbers.

use aerostat_backend::quantised::{self, Code};
use aerostat_backend::{Tile, formats, packed};
use aerostat_checkpoint::{DType, Extent};

use crate::engine::Engine;
use crate::store::{shape, tensor_name};
use crate::sweep::Sweeper;
use crate::{Error, ErrorKind};

impl Engine {
    /// Why the logits of a request are NaN: looks through the tensors that could have caused it, those that all requests
    /// share once. The error of the request alone if all are finite; if one is not, an error for all, which names it.
    pub(crate) fn not_finite(&mut self, request: u64, tokens: &[u32]) -> Result<Error, Error> {
        self.sweeper.stop_reading();
        let error = |message: &str| {
            let message = format!("the logits of prompt {request} are not numbers: {message}");
            Error::new(ErrorKind::NotFinite, message)
        };
        match self.embedding_not_finite(tokens) {
            Ok(None) => {}
            // Prompts without these tokens do not suffer from it.
            Ok(Some(name)) => {
                return Ok(error(&format!(
                    "a row of tensor `{name}` that it uses is not finite (NaN or infinity)"
                )));
            }
            Err(e) => return Err(error(&format!("looking for the cause failed too: {e}"))),
        }
        match self.find_not_finite() {
            Ok(None) => Ok(error("no weight is NaN or infinite: an activation overflowed; try --kv f32")),
            Ok(Some(name)) => {
                Err(error(&format!("tensor `{name}` holds values that are not finite (NaN or infinity)")))
            }
            Err(e) => Err(error(&format!("looking for the cause failed too: {e}"))),
        }
    }

    /// The name of a tensor that is not finite, but for the embedding.
    fn find_not_finite(&mut self) -> Result<Option<String>, Error> {
        if let Some(known) = &self.not_finite {
            return Ok(known.clone());
        }
        let found = match self.vector_not_finite()? {
            Some(name) => Some(name),
            None => self.matrix_not_finite()?,
        };
        self.not_finite = Some(found.clone());
        Ok(found)
    }

    fn embedding_not_finite(&mut self, tokens: &[u32]) -> Result<Option<String>, Error> {
        let Sweeper { model, store, embedders, .. } = &mut self.sweeper;
        for (table, embedder) in model.spec().tables().zip(embedders) {
            let tokens: Vec<u32> = tokens.iter().copied().filter(|t| (*t as usize) < table.rows).collect();
            let mut bytes = vec![0; tokens.len() * table.row_bytes() as usize];
            match embedder.packed() {
                Some(packed) => packed.read(store.ring(), &tokens, &mut bytes)?,
                None => {
                    let rows: Vec<Extent> =
                        tokens.iter().map(|&t| table.rows_extent(t as usize, 1)).collect();
                    store.ring().read_many_now(&rows, &mut bytes)?;
                }
            }
            if !finite(table.dtype, table.cols, &bytes)? {
                return Ok(Some(table.name.clone()));
            }
        }
        Ok(None)
    }

    fn vector_not_finite(&mut self) -> Result<Option<String>, Error> {
        let Sweeper { model, store, .. } = &mut self.sweeper;
        for vector in model.spec().vectors() {
            let mut bytes = vec![0; vector.extent.bytes as usize];
            store.ring().read_now(vector.extent, &mut bytes)?;
            if !finite(vector.dtype, vector.len, &bytes)? {
                return Ok(Some(vector.name.clone()));
            }
        }
        Ok(None)
    }

    fn matrix_not_finite(&mut self) -> Result<Option<String>, Error> {
        let Sweeper { model, store, plan, .. } = &mut self.sweeper;
        let spec = model.spec();
        let blocks = spec.blocks.iter().enumerate();
        let experts = blocks.filter_map(|(i, block)| Some((i, block.experts.as_ref()?)));
        let experts = experts.flat_map(|(i, experts)| experts.order.iter().map(move |e| (i, *e)));
        let experts = experts.flat_map(|(block, expert)| plan.expert_steps(spec, block, expert));
        for step in plan.steps.iter().copied().chain(experts) {
            let shape = shape(spec, &step)?;
            if !may_be_infinite(shape.dtype) {
                continue;
            }
            store.ring().request(&[step.extent])?;
            let bytes = store.ring().next()?;
            let tile = Tile { dtype: shape.dtype, rows: shape.rows, cols: shape.cols, bytes: &bytes };
            let mut unpacked = Vec::new();
            if shape.packed {
                packed::parts(&tile).try_for_each(|part| part?.expand(&mut unpacked))?;
            }
            if !finite(shape.dtype, shape.cols, if shape.packed { &unpacked } else { &bytes })? {
                return Ok(Some(tensor_name(spec, &step)));
            }
        }
        Ok(None)
    }
}

/// Whether a type has NaN or infinity: integers, and the codes and exponents stored as such, stand for numbers alone.
fn may_be_infinite(dtype: DType) -> bool {
    !matches!(dtype, DType::U8 | DType::I8 | DType::I32 | DType::F8_E8M0)
}

/// Whether all values of some rows are finite.
fn finite(dtype: DType, cols: usize, bytes: &[u8]) -> Result<bool, Error> {
    let mut row = vec![0.0; cols];
    let row_bytes = dtype.bytes_for(cols as u64).unwrap_or(0).max(1) as usize;
    for stored in bytes.chunks_exact(row_bytes) {
        match dtype {
            // The scales are looked at as tensors of their own.
            DType::F8_E4M3 => quantised::look_up(Code::E4M3, stored, 0, true, &mut row),
            DType::F8_E5M2 => quantised::look_up(Code::E5M2, stored, 0, true, &mut row),
            _ => formats::expand(dtype, stored, &mut row)?,
        }
        if row.iter().any(|v| !v.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}
