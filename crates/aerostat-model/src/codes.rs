//! What lies beside matrices of codes on a device: scales that are kept, and room for those that are read with a matrix.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aerostat_arch::{Beside, Companion, Matrix, ModelSpec, Scales, State, Vector};
use aerostat_backend::quantised::{Quantised, Rounding};
use aerostat_backend::{Backend, BufferId, Error, ErrorKind, Mat, Nested, Scaling, Tile, Weight, defect};
use aerostat_checkpoint::{DType, Extent};
use aerostat_plan::Step;

use crate::constants::Read;

/// The scales of all matrices of codes that are kept, one after the other, and room for what lies beside the matrix at hand.
#[derive(Debug)]
pub(crate) struct Codes {
    buffer: BufferId,
    /// Where those of a tensor begin.
    places: HashMap<Extent, usize>,
    /// By [`Beside`].
    beside: [BufferId; 3],
    /// What tensors beside matrices say of them.
    states: HashMap<Extent, State>,
}

impl Codes {
    pub(crate) fn load<E: From<Error>>(
        b: &mut dyn Backend,
        spec: &ModelSpec,
        read: Read<'_, E>,
    ) -> Result<Self, E> {
        let (len, places, vectors) = kept(spec);
        let buffer = b.allocate(len)?;
        for (offset, vector) in vectors {
            let bytes = read(vector)?;
            let tile = Tile { dtype: vector.dtype, rows: 1, cols: vector.len, bytes: &bytes };
            let place = Mat { offset, ..Mat::new(buffer, 1, vector.len) };
            b.expand_rows(tile, &[0], place)?;
        }
        let [scales, zeros, groups] = spec.beside();
        let beside = [b.allocate(scales)?, b.allocate(zeros)?, b.allocate(groups)?];
        Ok(Self { buffer, places, beside, states: states(spec, read)? })
    }

    /// Elements on the device.
    pub(crate) fn elements(spec: &ModelSpec) -> usize {
        kept(spec).0 + spec.beside().iter().sum::<usize>()
    }

    /// Takes what is read before a matrix: a tile of a companion.
    pub(crate) fn take(
        &self,
        b: &mut dyn Backend,
        matrix: &Matrix,
        companion: &Companion,
        step: &Step,
        weight: Weight,
    ) -> Result<(), Error> {
        let (first, rows) = companion.rows_of(step.start, step.rows);
        let scales = matrix.scales.as_ref();
        let state = scales.and_then(|scales| self.state(scales));
        let nested = scales.and_then(|scales| scales.nested.as_ref());
        let nested = nested.map(|nested| {
            Ok::<_, Error>(Nested {
                values: self.kept(&nested.values)?,
                scales: self.kept(&nested.scales)?,
                len: nested.len,
                first: nested.first + first * companion.shape.1,
                offset: state.map_or(0.0, |state| state.offset),
            })
        });
        let nested = nested.transpose()?;
        let out = self.numbers(companion).row_range(first, rows);
        b.expand_numbers(weight, companion.stored, nested, out)
    }

    /// How a tile of a matrix of codes is scaled that begins with stored row `start`.
    pub(crate) fn scaling(&self, matrix: &Matrix, scales: &Scales, start: usize) -> Result<Scaling, Error> {
        let Scales { code, block_rows, block_cols, first_row, .. } = *scales;
        let rounding = match self.state(scales).map_or(scales.rounding, |state| state.rounding) {
            DType::BF16 => Rounding::BF16,
            DType::F16 => Rounding::F16,
            _ => Rounding::F32,
        };
        let beside = |what: Beside| {
            let companion = scales.companions.iter().find(|companion| companion.what == what);
            companion.map(|companion| self.numbers(companion))
        };
        let kept = scales.kept.as_ref().map(|kept| {
            let groups = matrix.cols.div_ceil(block_cols.max(1)).max(1);
            let all = self.kept(kept)?;
            Ok::<_, Error>(Mat { rows: kept.len / groups, cols: groups, stride: groups, ..all })
        });
        let found = kept.transpose()?.or(beside(Beside::Scales));
        let row = matrix.runs.map_or(start, |runs| runs.place(start));
        Ok(Scaling {
            quantised: Quantised::new(code, rounding),
            scales: found.ok_or_else(|| defect!("the codes of `{}` have no scales", matrix.name))?,
            zeros: beside(Beside::Zeros),
            groups: beside(Beside::Groups),
            block_rows,
            block_cols,
            first_row: first_row + matrix.rows_before(row),
        })
    }

    fn state(&self, scales: &Scales) -> Option<&State> {
        self.states.get(&scales.state.as_ref()?.extent)
    }

    /// What is kept of a tensor, as one row.
    fn kept(&self, vector: &Vector) -> Result<Mat, Error> {
        let offset = self.places.get(&vector.extent).copied();
        let offset = offset.ok_or_else(|| defect!("`{}` was not loaded", vector.name))?;
        Ok(Mat { offset, ..Mat::new(self.buffer, 1, vector.len) })
    }

    /// Where a companion's numbers are.
    fn numbers(&self, companion: &Companion) -> Mat {
        Mat::new(self.beside[companion.what as usize], companion.shape.0, companion.shape.1)
    }
}

/// The scales that are kept, one after the other: how many elements, where those of each tensor begin, and each with its
/// place.
fn kept(spec: &ModelSpec) -> (usize, HashMap<Extent, usize>, Vec<(usize, &Vector)>) {
    let (mut len, mut places, mut vectors) = (0, HashMap::new(), Vec::new());
    for vector in spec.scales() {
        // Parts of one tensor share its scales.
        if let Entry::Vacant(place) = places.entry(vector.extent) {
            place.insert(len);
            vectors.push((len, vector));
            len += vector.len;
        }
    }
    (len, places, vectors)
}

/// Reads what tensors say of the matrices beside them.
fn states<E: From<Error>>(spec: &ModelSpec, read: Read<'_, E>) -> Result<HashMap<Extent, State>, E> {
    const BYTES_MAX: u64 = 1 << 16;
    let mut states = HashMap::new();
    for scales in spec.matrices().filter_map(|matrix| matrix.scales.as_ref()) {
        let Some(stored) = &scales.state else { continue };
        if let Entry::Vacant(state) = states.entry(stored.extent) {
            let found = match stored.extent.bytes {
                0..=BYTES_MAX => scales.read_state(&read(stored)?),
                bytes => Err(format!("{bytes} bytes are too many")),
            };
            let bad = |why| Error::new(ErrorKind::Unsupported, format!("tensor `{}`: {why}", stored.name));
            state.insert(found.map_err(bad)?);
        }
    }
    Ok(states)
}
