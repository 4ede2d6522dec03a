//! Attention over chosen positions, and the choice.

use std::marker::PhantomData;

use aerostat_backend::numerics;
use aerostat_backend::{Attention, Index, KvElement, KvView, Placement};

use crate::attention::HEADS_MAX;
use crate::format::{BF16, F16, F32, FilledQ8_0, Format, group_at};
use crate::isa::{Kernel, Token};
use crate::rows::{Rows, dots};
use crate::vector::{LANES, Vector, store_part};

/// The best positions of one row. `scores` is valid for twice `half` elements, and `half` is at least the positions up to
/// the row's; pages and widths fit `index`.
#[derive(Clone, Copy)]
pub(crate) struct IndexRow<'a> {
    pub(crate) q: Rows,
    pub(crate) weights: Rows,
    pub(crate) out: Rows,
    pub(crate) index: &'a Index,
    pub(crate) kv: KvView<'a>,
    pub(crate) places: Placement<'a>,
    pub(crate) row: usize,
    pub(crate) scores: *mut f32,
    pub(crate) half: usize,
}

/// Some query heads of one row, at most [`HEADS_MAX`] of one KV head, over the positions `seen`. `scores` is valid for a
/// line of `pitch` elements for each head, and `pitch` at least as long as `seen`; pages and widths fit `shape`.
#[derive(Clone, Copy)]
pub(crate) struct SparseRow<'a> {
    pub(crate) q: Rows,
    pub(crate) out: Rows,
    pub(crate) shape: &'a Attention,
    pub(crate) kv: KvView<'a>,
    pub(crate) places: Placement<'a>,
    pub(crate) row: usize,
    pub(crate) head: usize,
    pub(crate) heads: usize,
    pub(crate) seen: &'a [f32],
    pub(crate) scores: *mut f32,
    pub(crate) pitch: usize,
}

/// The positions of a row, up to the first that is negative.
///
/// # Safety
/// The row exists and nobody writes it for as long as its positions are used.
pub(crate) unsafe fn chosen<'a>(selected: Rows, row: usize) -> &'a [f32] {
    // SAFETY: the caller's promise.
    let all = unsafe { std::slice::from_raw_parts(selected.at(row, 0).cast_const(), selected.cols) };
    let count = all.iter().take_while(|j| **j >= 0.0).count();
    &all[..count]
}

/// The scores of all positions up to the row's.
struct Score<'a, F>(IndexRow<'a>, PhantomData<F>);

/// Turns a [`SparseRow`]'s keys into weights; gives, for each head, the reciprocal of their sum.
struct Weigh<'a, F>(SparseRow<'a>, PhantomData<F>);

/// Weighted sums of its values, times the factor of each head.
struct Mix<'a, F>(SparseRow<'a>, [f32; HEADS_MAX], PhantomData<F>);

impl IndexRow<'_> {
    /// Does the work.
    ///
    /// # Safety
    /// What the struct says holds.
    pub(crate) unsafe fn run(self, token: Token) {
        let count = self.places.rows[self.row].position as usize + 1;
        // SAFETY: the caller's promise; the halves of `scores` do not overlap.
        let (scores, room) = unsafe {
            match self.kv.value_type {
                KvElement::F16 => token.enter(Score::<F16>(self, PhantomData)),
                KvElement::BF16 => token.enter(Score::<BF16>(self, PhantomData)),
                KvElement::F32 => token.enter(Score::<F32>(self, PhantomData)),
                KvElement::Q8 => token.enter(Score::<FilledQ8_0>(self, PhantomData)),
            }
            let all = std::slice::from_raw_parts_mut(self.scores, 2 * self.half);
            let (scores, room) = all.split_at_mut(self.half);
            (&scores[..count], &mut room[..count])
        };
        let mut given = 0;
        numerics::select(scores, room, self.out.cols, |position| {
            // SAFETY: the caller's promise; no more than `cols` are given.
            unsafe { *self.out.at(self.row, given) = position as f32 };
            given += 1;
        });
        for col in given..self.out.cols {
            // SAFETY: the caller's promise; `col` is within the row.
            unsafe { *self.out.at(self.row, col) = -1.0 };
        }
    }
}

impl<F: Format> Kernel for Score<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let IndexRow { q, weights, index, kv, places, row, scores, .. } = self.0;
        let place = places.rows[row];
        for position in 0..=place.position as usize {
            let key = kv.values.as_ptr().wrapping_add(kv.value_at(kv.slot(&places, place, position), 0));
            let mut sum = 0.0;
            for head in 0..index.heads {
                let query = q.at(row, head * index.dim).cast_const();
                // SAFETY: the promise of the struct: the page exists, and `half` holds the position.
                unsafe {
                    let [[dot]] = dots::<V, F, 1, 1>([key], [query], index.dim, 0);
                    sum = numerics::index_term(*weights.at(row, head), dot, index.scale, sum);
                }
            }
            // SAFETY: as above.
            unsafe { *scores.add(position) = sum };
        }
    }
}

impl SparseRow<'_> {
    /// Does the work.
    ///
    /// # Safety
    /// What the struct says holds.
    pub(crate) unsafe fn run(self, token: Token) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            let factors = match self.kv.key_type {
                KvElement::F16 => token.enter(Weigh::<F16>(self, PhantomData)),
                KvElement::BF16 => token.enter(Weigh::<BF16>(self, PhantomData)),
                KvElement::F32 => token.enter(Weigh::<F32>(self, PhantomData)),
                KvElement::Q8 => token.enter(Weigh::<FilledQ8_0>(self, PhantomData)),
            };
            match self.kv.value_type {
                KvElement::F16 => token.enter(Mix::<F16>(self, factors, PhantomData)),
                KvElement::BF16 => token.enter(Mix::<BF16>(self, factors, PhantomData)),
                KvElement::F32 => token.enter(Mix::<F32>(self, factors, PhantomData)),
                KvElement::Q8 => token.enter(Mix::<FilledQ8_0>(self, factors, PhantomData)),
            }
        }
    }

    #[inline(always)]
    fn slot(&self, place: usize) -> usize {
        self.kv.slot(&self.places, self.places.rows[self.row], self.seen[place] as usize)
    }

    #[inline(always)]
    fn kv_head(&self) -> usize {
        self.head / (self.shape.heads / self.shape.kv_heads)
    }
}

impl<F: Format> Kernel for Weigh<'_, F> {
    type Output = [f32; HEADS_MAX];

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) -> [f32; HEADS_MAX] {
        let mut factors = [0.0; HEADS_MAX];
        // SAFETY: the promise of the struct.
        unsafe {
            self.score::<V>();
            for head in 0..self.0.heads {
                factors[head] = self.softmax(head);
            }
        }
        factors
    }
}

impl<F: Format> Weigh<'_, F> {
    /// Raw dot products of all heads. Heads past the end repeat the last one.
    ///
    /// # Safety
    /// What the struct says holds.
    #[inline(always)]
    unsafe fn score<V: Vector>(&self) {
        let SparseRow { q, shape, kv, row, head, heads, seen, scores, pitch, .. } = self.0;
        let mut queries = [std::ptr::null(); HEADS_MAX];
        for h in 0..HEADS_MAX {
            queries[h] = q.at(row, (head + h.min(heads - 1)) * shape.key_dim).cast_const();
        }
        for i in 0..seen.len() {
            let key = kv.keys.as_ptr().wrapping_add(kv.key_at(self.0.slot(i), self.0.kv_head()));
            // SAFETY: the promise of the struct: the page exists, and `pitch` holds the place.
            unsafe {
                let [sums] = dots::<V, F, 1, HEADS_MAX>([key], queries, shape.key_dim, 0);
                for h in 0..heads {
                    *scores.add(h * pitch + i) = sums[h];
                }
            }
        }
    }

    /// Turns the dot products of a head into weights; gives the reciprocal of their sum.
    ///
    /// # Safety
    /// What the struct says holds; `head` is below `heads`.
    #[inline(always)]
    unsafe fn softmax(&self, head: usize) -> f32 {
        let SparseRow { shape, seen, scores, pitch, .. } = self.0;
        // SAFETY: the promise of the struct.
        let scores = unsafe { std::slice::from_raw_parts_mut(scores.add(head * pitch), seen.len()) };
        let mut max = f32::NEG_INFINITY;
        for s in &mut *scores {
            *s = numerics::score(*s, shape.scale, shape.softcap);
            max = if *s > max { *s } else { max };
        }
        let mut lanes = [0.0; LANES];
        for (s, position) in scores.iter_mut().zip(seen) {
            *s = numerics::exp(*s - max);
            lanes[*position as usize % LANES] += *s;
        }
        1.0 / numerics::reduce(lanes)
    }
}

impl<F: Format> Kernel for Mix<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let Self(SparseRow { out, shape, kv, row, head, heads, seen, scores, pitch, .. }, factors, _) = self;
        let dim = shape.value_dim;
        for col in (0..dim).step_by(LANES) {
            let len = LANES.min(dim - col);
            // SAFETY: the promise of the struct: the pages exist.
            unsafe {
                let mut sums = [V::splat(0.0); HEADS_MAX];
                for i in 0..seen.len() {
                    let value = kv.values.as_ptr().add(kv.value_at(self.0.slot(i), self.0.kv_head()));
                    let values: V = group_at::<V, F>(value, col, len);
                    for h in 0..HEADS_MAX {
                        let weight = V::splat(*scores.add(h.min(heads - 1) * pitch + i));
                        sums[h] = V::mul_add(weight, values, sums[h]);
                    }
                }
                for h in 0..heads {
                    let sum = V::mul(sums[h], V::splat(factors[h]));
                    store_part(sum, out.at(row, (head + h) * dim + col), len);
                }
            }
        }
    }
}
