//! Why logits are not numbers.

use aerostat_backend::coded::{self, Code};
use aerostat_backend::{Tile, formats, packed};
use aerostat_checkpoint::{DType, Extent};

use crate::engine::Engine;
use crate::{Error, ErrorKind};

/// A tensor or a part of one.
struct Part {
    name: String,
    dtype: DType,
    cols: usize,
    extent: Extent,
}

impl Engine {
    /// Why the logits of a request are NaN: looks through the tensors that could have caused it. The error of the
    /// request alone if all are finite; if one is not, an error for all, which names it.
    pub(crate) fn not_finite(&mut self, request: u64, tokens: &[u32]) -> Result<Error, Error> {
        self.stop_reading();
        let error = |message: &str| {
            let message = format!("the logits of prompt {request} are not numbers: {message}");
            Error::new(ErrorKind::NotFinite, message)
        };
        match self.find_not_finite(tokens) {
            Ok(None) => Ok(error("no weight is NaN or infinite: an activation overflowed; try --kv f32")),
            Ok(Some(name)) => {
                Err(error(&format!("tensor `{name}` holds values that are not finite (NaN or infinity)")))
            }
            Err(e) => Err(error(&format!("looking for the cause failed too: {e}"))),
        }
    }

    fn find_not_finite(&mut self, tokens: &[u32]) -> Result<Option<String>, Error> {
        let spec = self.model().spec();
        let embedding = &spec.embedding;
        let rows = tokens.iter().map(|&t| Part {
            name: embedding.name.clone(),
            dtype: embedding.dtype,
            cols: embedding.cols,
            extent: embedding.rows_extent(t as usize, 1),
        });
        let vectors = spec.vectors().map(|v| Part {
            name: v.name.clone(),
            dtype: v.dtype,
            cols: v.len,
            extent: v.extent,
        });
        let packed = embedding.tiles.is_some();
        let row_bytes = embedding.row_bytes() as usize;
        let small: Vec<Part> = rows.filter(|_| !packed).chain(vectors).collect();
        if let (Some(packed), ring) = self.packed() {
            let mut bytes = vec![0; tokens.len() * row_bytes];
            packed.read(ring, tokens, &mut bytes)?;
            let embedding = &self.model().spec().embedding;
            if !finite(embedding.dtype, embedding.cols, &bytes)? {
                return Ok(Some(embedding.name.clone()));
            }
        }
        for part in small {
            let mut bytes = vec![0; part.extent.bytes as usize];
            self.ring().read_now(part.extent, &mut bytes)?;
            if !finite(part.dtype, part.cols, &bytes)? {
                return Ok(Some(part.name));
            }
        }
        let steps = self.current_plan().steps.clone();
        let extents: Vec<Extent> = steps.iter().map(|s| s.extent).collect();
        self.ring().request(&extents)?;
        let mut found = None;
        for step in steps {
            let spec = self.model().spec();
            let (dtype, cols) = step.stored(spec);
            let (matrix, companion) = (step.matrix(spec), step.companion(spec));
            let (name, packed) =
                (companion.map_or(&matrix.name, |companion| &companion.name).clone(), matrix.tiles.is_some());
            let bytes = self.ring().next()?;
            if !may_be_infinite(dtype) {
                continue;
            }
            let tile = Tile { dtype, rows: step.rows, cols, bytes: &bytes };
            let mut unpacked = Vec::new();
            if packed {
                packed::parts(&tile).try_for_each(|part| part?.expand(&mut unpacked))?;
            }
            if !finite(dtype, cols, if packed { &unpacked } else { &bytes })? {
                found = Some(name);
                break;
            }
        }
        self.ring().cancel();
        Ok(found)
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
            DType::F8_E4M3 => coded::look_up(Code::E4M3, stored, 0, true, &mut row),
            DType::F8_E5M2 => coded::look_up(Code::E5M2, stored, 0, true, &mut row),
            _ => formats::expand(dtype, stored, &mut row)?,
        }
        if row.iter().any(|v| !v.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}
