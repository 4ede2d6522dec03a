//! Layer norm: less the mean, divided by the standard deviation.

use aerostat_backend::numerics;

use crate::elementwise::{get, put};
use crate::format::F32;
use crate::isa::Kernel;
use crate::rows::{Rows, dots};
use crate::vector::{LANES, Vector};

/// The rows `start .. end` by groups of `size` columns; `out` has the shape of `x`.
pub(crate) struct LayerNormRows {
    pub(crate) x: Rows,
    pub(crate) size: usize,
    pub(crate) eps: f32,
    pub(crate) out: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Kernel for LayerNormRows {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        for row in self.start..self.end {
            for group in (0..self.x.cols).step_by(self.size) {
                let (x, out) = (self.x.at(row, group), self.out.at(row, group));
                // SAFETY: the promise of the struct; groups are whole.
                unsafe {
                    let mean = sum(x, self.size) / self.size as f32;
                    self.each(x, out, |v| v - mean);
                    let [[squares]] = dots::<V, F32, 1, 1>([out.cast_const().cast()], [out], self.size, 0);
                    let scale = numerics::rms_scale(squares, self.size, self.eps);
                    self.each(out, out, |v| v * scale);
                }
            }
        }
    }
}

impl LayerNormRows {
    /// Maps the elements of a group.
    ///
    /// # Safety
    /// `from` and `to` are valid for `size` elements.
    #[inline(always)]
    unsafe fn each(&self, from: *const f32, to: *mut f32, map: impl Fn(f32) -> f32) {
        for col in (0..self.size).step_by(LANES) {
            let len = LANES.min(self.size - col);
            // SAFETY: the caller's promise; `col + len` is at most `size`.
            unsafe {
                let mut all = get(from.add(col), len);
                for v in &mut all {
                    *v = map(*v);
                }
                put(&all, to.add(col), len);
            }
        }
    }
}

/// The sum in canonical order. Zeros after the end change nothing: a lane is never -0.
///
/// # Safety
/// `from` is valid for `size` elements.
#[inline(always)]
unsafe fn sum(from: *const f32, size: usize) -> f32 {
    let mut lanes = [0.0; LANES];
    for col in (0..size).step_by(LANES) {
        // SAFETY: the caller's promise; no more elements than there are.
        let all = unsafe { get(from.add(col), LANES.min(size - col)) };
        for i in 0..LANES {
            lanes[i] += all[i];
        }
    }
    numerics::reduce(lanes)
}
