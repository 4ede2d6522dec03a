//! One tile after the other: multiplied by the rows of a sweep, whichever way it is stored.

use aerostat_arch::Role;
use aerostat_backend::{Backend, Error, Mat, Weight, numerics};
use aerostat_plan::Step;

use crate::forward::Model;

impl Model {
    /// Multiplies one tile; `y` is the whole output of its matrix.
    pub(crate) fn multiply(
        &self,
        b: &mut dyn Backend,
        step: &Step,
        weight: Weight<'_>,
        x: Mat,
        y: Mat,
    ) -> Result<(), Error> {
        let matrix = step.matrix(&self.spec);
        if !matrix.k_major {
            return self.by_outputs(b, step, weight, x, y.col_range(step.start, step.rows));
        }
        let lanes = Mat::new(self.buffers.lanes, x.rows, 16 * y.cols);
        self.by_inputs(b, step, weight, x, lanes, matrix.rows_before(step.start))?;
        if step.last { b.sum_lanes(lanes, y) } else { Ok(()) }
    }

    /// Multiplies a tile of rows that are outputs; `y` is theirs.
    pub(crate) fn by_outputs(
        &self,
        b: &mut dyn Backend,
        step: &Step,
        weight: Weight<'_>,
        x: Mat,
        y: Mat,
    ) -> Result<(), Error> {
        let matrix = step.matrix(&self.spec);
        match &matrix.scales {
            Some(scales) => b.matmul_scaled(weight, &self.scales.scaling(matrix, scales, step.start), x, y),
            None => b.matmul(weight, x, y),
        }
    }

    /// Multiplies a tile of rows that are inputs, from the `k0`-th of `x` on.
    pub(crate) fn by_inputs(
        &self,
        b: &mut dyn Backend,
        step: &Step,
        weight: Weight<'_>,
        x: Mat,
        lanes: Mat,
        k0: usize,
    ) -> Result<(), Error> {
        let matrix = step.matrix(&self.spec);
        match &matrix.scales {
            Some(scales) => {
                let scaling = self.scales.scaling(matrix, scales, step.start);
                b.matmul_scaled_k_major(weight, &scaling, x, lanes, k0)
            }
            None => b.matmul_k_major(weight, x, lanes, k0),
        }
    }

    /// Takes the tile if it is of what is read before a matrix.
    pub(crate) fn take_companion(
        &self,
        b: &mut dyn Backend,
        step: &Step,
        weight: Weight<'_>,
    ) -> Result<bool, Error> {
        let Some(companion) = step.companion(&self.spec) else { return Ok(false) };
        self.scales.take(b, step.matrix(&self.spec), companion, step, weight)?;
        Ok(true)
    }

    /// The norms of a tile of a normalised head, the first time it passes.
    pub(crate) fn measure_head(
        &mut self,
        b: &mut dyn Backend,
        step: &Step,
        weight: Weight<'_>,
    ) -> Result<(), Error> {
        if step.role != Role::Head || !self.spec.head.normalised || step.start < self.head_rows_known {
            return Ok(());
        }
        let row = Mat::new(self.buffers.head_row, 1, self.spec.hidden);
        let mut inverse = Vec::with_capacity(step.rows);
        for i in 0..step.rows as u32 {
            b.expand_rows(weight, &[i], row)?;
            let row = b.read(row)?;
            inverse.push(1.0 / numerics::dot(row, row).sqrt().max(1e-12));
        }
        b.write(
            Mat::new(self.buffers.head_norms, 1, self.spec.vocab).col_range(step.start, step.rows),
            &inverse,
        )?;
        self.head_rows_known = step.start + step.rows;
        Ok(())
    }
}
