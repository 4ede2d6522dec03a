//! Ops on rows: element by element, norms, rotations. The scalar functions of `numerics` are applied to sixteen
//! elements at a time, which the compiler turns into vector code for the instruction set at hand.

use aerostat_backend::numerics::{self, Map};
use aerostat_backend::{Activation, Rope, RopeStyle};

use crate::format::F32;
use crate::isa::Kernel;
use crate::rows::{Rows, dots};
use crate::vector::{LANES, Vector};

/// `out[r, c] = map(a[r, c], b[r, c])` for the rows `start .. end`; all have the shape of `out`.
pub(crate) struct MapRows {
    pub(crate) map: Map,
    pub(crate) a: Rows,
    pub(crate) b: Rows,
    pub(crate) out: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Kernel for MapRows {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        // One loop for each map, so that the choice is made outside of it.
        // SAFETY: the promise of the struct, passed on.
        unsafe {
            match self.map {
                Map::Add => self.each(Map::Add),
                Map::Multiply => self.each(Map::Multiply),
                Map::Scale(factor) => self.each(Map::Scale(factor)),
                Map::Softcap(cap) => self.each(Map::Softcap(cap)),
                Map::Clip(limit) => self.each(Map::Clip(limit)),
                Map::Activate(Activation::Sigmoid) => self.each(Map::Activate(Activation::Sigmoid)),
                Map::Gated(Activation::Sigmoid) => self.each(Map::Gated(Activation::Sigmoid)),
                Map::Activate(Activation::Silu) => self.each(Map::Activate(Activation::Silu)),
                Map::Activate(Activation::GeluTanh) => self.each(Map::Activate(Activation::GeluTanh)),
                Map::Activate(Activation::Relu) => self.each(Map::Activate(Activation::Relu)),
                Map::Activate(Activation::ReluSquared) => self.each(Map::Activate(Activation::ReluSquared)),
                Map::Activate(Activation::Relu6) => self.each(Map::Activate(Activation::Relu6)),
                Map::Activate(Activation::QuickGelu) => self.each(Map::Activate(Activation::QuickGelu)),
                Map::Activate(Activation::Mish) => self.each(Map::Activate(Activation::Mish)),
                Map::Activate(Activation::GeluErf) => self.each(Map::Activate(Activation::GeluErf)),
                Map::Activate(clipped @ Activation::ClippedSilu { .. }) => self.each(Map::Activate(clipped)),
                Map::Gated(clipped @ Activation::ClippedSilu { .. }) => self.each(Map::Gated(clipped)),
                Map::Gated(Activation::Silu) => self.each(Map::Gated(Activation::Silu)),
                Map::Gated(Activation::GeluTanh) => self.each(Map::Gated(Activation::GeluTanh)),
                Map::Gated(Activation::Relu) => self.each(Map::Gated(Activation::Relu)),
                Map::Gated(Activation::ReluSquared) => self.each(Map::Gated(Activation::ReluSquared)),
                Map::Gated(Activation::Relu6) => self.each(Map::Gated(Activation::Relu6)),
                Map::Gated(Activation::QuickGelu) => self.each(Map::Gated(Activation::QuickGelu)),
                Map::Gated(Activation::Mish) => self.each(Map::Gated(Activation::Mish)),
                Map::Gated(Activation::GeluErf) => self.each(Map::Gated(Activation::GeluErf)),
                Map::Activate(Activation::Tanh) => self.each(Map::Activate(Activation::Tanh)),
                Map::Activate(Activation::Exp) => self.each(Map::Activate(Activation::Exp)),
                Map::Activate(Activation::Softplus) => self.each(Map::Activate(Activation::Softplus)),
                Map::Gated(Activation::Tanh) => self.each(Map::Gated(Activation::Tanh)),
                Map::Gated(Activation::Exp) => self.each(Map::Gated(Activation::Exp)),
                Map::Gated(Activation::Softplus) => self.each(Map::Gated(Activation::Softplus)),
            }
        }
    }
}

impl MapRows {
    /// # Safety
    /// What the struct says holds.
    #[inline(always)]
    unsafe fn each(&self, map: Map) {
        for row in self.start..self.end {
            for col in (0..self.out.cols).step_by(LANES) {
                let len = LANES.min(self.out.cols - col);
                // SAFETY: the promise of the struct; `col + len` is at most `cols`.
                unsafe {
                    let (a, b) = (get(self.a.at(row, col), len), get(self.b.at(row, col), len));
                    let mut out = [0.0; LANES];
                    for i in 0..LANES {
                        out[i] = map.apply(a[i], b[i]);
                    }
                    put(&out, self.out.at(row, col), len);
                }
            }
        }
    }
}

/// RMS norm of the rows `start .. end` by groups of `weight.cols` columns; `out` has the shape of `x`.
pub(crate) struct NormRows {
    pub(crate) x: Rows,
    pub(crate) weight: Rows,
    pub(crate) eps: f32,
    pub(crate) out: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Kernel for NormRows {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let size = self.weight.cols;
        for row in self.start..self.end {
            for group in (0..self.x.cols).step_by(size) {
                let x = self.x.at(row, group);
                // SAFETY: the promise of the struct; groups are whole.
                unsafe {
                    let [[squares]] = dots::<V, F32, 1, 1>([x.cast_const().cast()], [x], size, 0);
                    let scale = numerics::rms_scale(squares, size, self.eps);
                    for col in (0..size).step_by(LANES) {
                        let len = LANES.min(size - col);
                        let (mut x, w) = (get(x.add(col), len), get(self.weight.at(0, col), len));
                        for i in 0..LANES {
                            x[i] = (x[i] * scale) * w[i];
                        }
                        put(&x, self.out.at(row, group + col), len);
                    }
                }
            }
        }
    }
}

/// Rotation of the rows `start .. end` in place; `angles` has as many rows and `rotary` columns.
pub(crate) struct RopeRows {
    pub(crate) x: Rows,
    pub(crate) rope: Rope,
    pub(crate) angles: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Kernel for RopeRows {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        for row in self.start..self.end {
            for head in (0..self.x.cols).step_by(self.rope.head_dim) {
                // SAFETY: the promise of the struct; heads are whole.
                unsafe {
                    match self.rope.style {
                        RopeStyle::Half => self.halves(row, head),
                        RopeStyle::Interleaved => self.interleaved(row, head),
                    }
                }
            }
        }
    }
}

impl RopeRows {
    /// # Safety
    /// What the struct says holds; `row` and `head` are within the matrix.
    #[inline(always)]
    unsafe fn halves(&self, row: usize, head: usize) {
        let half = self.rope.rotary / 2;
        for i in (0..half).step_by(LANES) {
            let len = LANES.min(half - i);
            let head = head + self.rope.start;
            let (first, second) = (self.x.at(row, head + i), self.x.at(row, head + half + i));
            // SAFETY: the promise of the struct; `i + len` is at most `half`.
            unsafe {
                let (mut a, mut b) = (get(first, len), get(second, len));
                let (cos, sin) = (get(self.angles.at(row, i), len), get(self.angles.at(row, half + i), len));
                for j in 0..LANES {
                    (a[j], b[j]) = numerics::rotate(a[j], b[j], cos[j], sin[j]);
                }
                put(&a, first, len);
                put(&b, second, len);
            }
        }
    }

    /// # Safety
    /// What the struct says holds; `row` and `head` are within the matrix.
    #[inline(always)]
    unsafe fn interleaved(&self, row: usize, head: usize) {
        let half = self.rope.rotary / 2;
        for i in 0..half {
            let pair = self.x.at(row, head + self.rope.start + 2 * i);
            // SAFETY: the promise of the struct; `i` is below `half`.
            unsafe {
                let (cos, sin) = (*self.angles.at(row, i), *self.angles.at(row, half + i));
                (*pair, *pair.add(1)) = numerics::rotate(*pair, *pair.add(1), cos, sin);
            }
        }
    }
}

/// Up to sixteen elements, zeros after them.
///
/// # Safety
/// `from` is valid for `len ≤ 16` elements.
#[inline(always)]
pub(crate) unsafe fn get(from: *const f32, len: usize) -> [f32; LANES] {
    // SAFETY: the caller's promise.
    unsafe {
        if len == LANES {
            return from.cast::<[f32; LANES]>().read_unaligned();
        }
        let mut all = [0.0; LANES];
        std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), len);
        all
    }
}

/// Stores the first `len` of sixteen elements.
///
/// # Safety
/// `to` is valid for `len ≤ 16` elements.
#[inline(always)]
pub(crate) unsafe fn put(all: &[f32; LANES], to: *mut f32, len: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if len == LANES {
            to.cast::<[f32; LANES]>().write_unaligned(*all);
        } else {
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, len);
        }
    }
}
