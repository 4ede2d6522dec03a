//! Attention of one row: up to [`HEADS_MAX`] query heads that share a KV head read its keys and values together.

use std::marker::PhantomData;

use aerostat_backend::numerics;
use aerostat_backend::{Attention, KvType, KvView, Placement, first_visible};

use crate::elementwise::{get, put};
use crate::format::{BF16, F16, F32, Format, group_part};
use crate::isa::{Kernel, Token};
use crate::rows::{Rows, dots, prefetch};
use crate::vector::{LANES, Vector, store_part};

/// Most query heads of a task.
pub(crate) const HEADS_MAX: usize = 4;
/// Keys that are multiplied at a time.
const KEYS: usize = 4;

/// The query heads `head .. head + heads` of row `row`: at most [`HEADS_MAX`], all of one KV head. `scores` is valid for
/// [`HEADS_MAX`] rows of `pitch` elements, and `pitch` is a multiple of 16 above every position. The pages of all
/// visible positions exist; the widths of `q`, `out` and `kv` fit `shape`.
#[derive(Clone, Copy)]
pub(crate) struct Attend<'a> {
    pub(crate) q: Rows,
    pub(crate) out: Rows,
    pub(crate) shape: &'a Attention,
    pub(crate) kv: KvView<'a>,
    pub(crate) places: Placement<'a>,
    pub(crate) row: usize,
    pub(crate) head: usize,
    pub(crate) heads: usize,
    pub(crate) scores: *mut f32,
    pub(crate) pitch: usize,
}

/// Raw dot products of `H` heads; heads past [`Attend::heads`] repeat the last one.
struct Score<'a, F, const H: usize>(Attend<'a>, PhantomData<F>);

/// Turns the dot products of one head, counted from [`Attend::head`], into weights; gives the reciprocal of their sum.
struct Softmax<'a>(Attend<'a>, usize);

/// Weighted sums of the values, times the factor of each head.
struct Mix<'a, F, const H: usize>(Attend<'a>, [f32; HEADS_MAX], PhantomData<F>);

impl Attend<'_> {
    /// Does the work.
    ///
    /// # Safety
    /// What the struct says holds.
    pub(crate) unsafe fn run(self, token: Token) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match self.kv.kv_type {
                KvType::F16 => self.with_format::<F16>(token),
                KvType::BF16 => self.with_format::<BF16>(token),
                KvType::F32 => self.with_format::<F32>(token),
            }
        }
    }

    /// # Safety
    /// As `run`.
    unsafe fn with_format<F: Format>(self, token: Token) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match self.heads {
                1 => self.attend::<F, 1>(token),
                2 => self.attend::<F, 2>(token),
                _ => self.attend::<F, HEADS_MAX>(token),
            }
        }
    }

    /// # Safety
    /// As `run`.
    unsafe fn attend<F: Format, const H: usize>(self, token: Token) {
        let mut factors = [0.0; HEADS_MAX];
        // SAFETY: the caller's promise, passed on.
        unsafe {
            token.enter(Score::<F, H>(self, PhantomData));
            for head in 0..self.heads {
                factors[head] = token.enter(Softmax(self, head));
            }
            token.enter(Mix::<F, H>(self, factors, PhantomData));
        }
    }

    /// The first and the last position that the row sees.
    #[inline(always)]
    fn visible(&self) -> (usize, usize) {
        let last = self.places.rows[self.row].position as usize;
        (first_visible(last, self.shape.window), last)
    }

    /// Positions `first ..= last` that lie in one page, from `from`: how many, and the slot of the first.
    #[inline(always)]
    fn run_of_slots(&self, from: usize, last: usize) -> (usize, usize) {
        let page_tokens = self.kv.page_tokens;
        let left = page_tokens - from % page_tokens;
        (left.min(last + 1 - from), self.kv.slot(&self.places, self.places.rows[self.row], from))
    }

    /// Query head `h` of this task. Past the end the last one is computed again, for nothing.
    #[inline(always)]
    fn head_at(&self, h: usize) -> usize {
        self.head + h.min(self.heads - 1)
    }

    /// The slot after a run of slots, whose rows are fetched while the run is computed: pages lie apart, and a KV head's
    /// rows are too far from each other for the CPU to see what comes next.
    #[inline(always)]
    fn slot_after(&self, (from, run, slot): (usize, usize, usize), last: usize) -> usize {
        if from + run <= last { self.run_of_slots(from + run, last).1 } else { slot }
    }

    /// This task's KV head.
    #[inline(always)]
    fn kv_head(&self) -> usize {
        self.head / (self.shape.heads / self.shape.kv_heads)
    }

    #[inline(always)]
    fn key(&self, slot: usize) -> *const u8 {
        let element = slot * self.kv.key_width + self.kv_head() * self.shape.key_dim;
        self.kv.keys.as_ptr().wrapping_add(element * self.kv.kv_type.bytes())
    }

    #[inline(always)]
    fn value(&self, slot: usize) -> *const u8 {
        let element = slot * self.kv.value_width + self.kv_head() * self.shape.value_dim;
        self.kv.values.as_ptr().wrapping_add(element * self.kv.kv_type.bytes())
    }
}

impl<F: Format, const H: usize> Kernel for Score<'_, F, H> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let attend = &self.0;
        let (first, last) = attend.visible();
        let (row_bytes, head_bytes) =
            (attend.kv.key_width * F::PAD.len(), attend.shape.key_dim * F::PAD.len());
        let mut queries = [std::ptr::null(); H];
        for h in 0..H {
            queries[h] = attend.q.at(attend.row, attend.head_at(h) * attend.shape.key_dim).cast_const();
        }
        let mut from = first;
        while from <= last {
            let (run, slot) = attend.run_of_slots(from, last);
            let next = attend.key(attend.slot_after((from, run, slot), last));
            for i in (0..run).step_by(KEYS) {
                let count = KEYS.min(run - i);
                let mut keys = [std::ptr::null(); KEYS];
                for m in 0..KEYS {
                    // Past the end the last key is multiplied again, for nothing.
                    keys[m] = attend.key(slot + i + m.min(count - 1));
                }
                // SAFETY: the promise of the struct; the keys lie within the run.
                unsafe {
                    for m in i..i + count {
                        prefetch::<V>(next.wrapping_add(m * row_bytes), head_bytes);
                    }
                    let sums = dots::<V, F, KEYS, H>(keys, queries, attend.shape.key_dim, 0);
                    for m in 0..count {
                        for h in 0..H {
                            *attend.scores.add(h * attend.pitch + from + i + m) = sums[m][h];
                        }
                    }
                }
            }
            from += run;
        }
    }
}

impl Kernel for Softmax<'_> {
    type Output = f32;

    /// Works on whole groups of sixteen positions; those that the row does not see hold old values and are masked.
    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) -> f32 {
        let Self(attend, head) = self;
        let (first, last) = attend.visible();
        let (scale, softcap) = (attend.shape.scale, attend.shape.softcap);
        let mut max = [f32::NEG_INFINITY; LANES];
        let mut sum = [0.0; LANES];
        // SAFETY: the promise of the struct; `pitch` has whole groups.
        unsafe {
            let scores = attend.scores.add(head * attend.pitch);
            for group in first / LANES..=last / LANES {
                let at = scores.add(group * LANES);
                let mut s = get(at, LANES);
                match softcap {
                    Some(cap) => s = capped(s, scale, cap),
                    None => s = scaled(s, scale),
                }
                put(&s, at, LANES);
                mask(&mut s, group, (first, last), f32::NEG_INFINITY);
                for i in 0..LANES {
                    max[i] = if s[i] > max[i] { s[i] } else { max[i] };
                }
            }
            let mut most = f32::NEG_INFINITY;
            for m in max {
                most = if m > most { m } else { most };
            }
            for group in first / LANES..=last / LANES {
                let at = scores.add(group * LANES);
                let mut s = get(at, LANES);
                for i in 0..LANES {
                    s[i] = numerics::exp(s[i] - most);
                }
                mask(&mut s, group, (first, last), 0.0);
                put(&s, at, LANES);
                for i in 0..LANES {
                    sum[i] += s[i];
                }
            }
        }
        1.0 / numerics::reduce(sum)
    }
}

impl<F: Format, const H: usize> Kernel for Mix<'_, F, H> {
    type Output = ();

    /// `N` vectors of each head at a time.
    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let dim = self.0.shape.value_dim;
        let mut col = 0;
        // SAFETY: the promise of the struct; columns stay below `dim`.
        unsafe {
            while col + N * LANES <= dim {
                self.cols::<V, N>(col, LANES);
                col += N * LANES;
            }
            while col < dim {
                self.cols::<V, 1>(col, LANES.min(dim - col));
                col += LANES;
            }
        }
    }
}

impl<F: Format, const H: usize> Mix<'_, F, H> {
    /// `G` groups of columns from `col`; the last has `len` columns.
    ///
    /// # Safety
    /// What [`Attend`] says holds; columns `col ..` of all groups are within the value head.
    #[inline(always)]
    unsafe fn cols<V: Vector, const G: usize>(&self, col: usize, len: usize) {
        let Self(attend, factors, _) = self;
        let (first, last) = attend.visible();
        let row_bytes = attend.kv.value_width * F::PAD.len();
        // SAFETY: the promise of the struct; plain formats have no head and one group in a block.
        unsafe {
            let mut sums = [[V::splat(0.0); G]; H];
            let mut from = first;
            while from <= last {
                let (run, slot) = attend.run_of_slots(from, last);
                let values = attend.value(slot).add(col * F::PAD.len());
                let next = attend.value(attend.slot_after((from, run, slot), last)).add(col * F::PAD.len());
                for i in 0..run {
                    prefetch::<V>(next.wrapping_add(i * row_bytes), G * F::BYTES);
                    let value = values.add(i * row_bytes);
                    let mut weights = [V::splat(0.0); H];
                    for h in 0..H {
                        weights[h] = V::splat(*attend.scores.add(h * attend.pitch + from + i));
                    }
                    for g in 0..G {
                        let at = value.add(g * F::BYTES);
                        let values = match len {
                            LANES => F::group::<V>(at, &F::head::<V>(at), 0),
                            _ => group_part::<V, F>(at, len),
                        };
                        for h in 0..H {
                            sums[h][g] = V::mul_add(weights[h], values, sums[h][g]);
                        }
                    }
                }
                from += run;
            }
            for h in 0..attend.heads {
                for g in 0..G {
                    let out = attend
                        .out
                        .at(attend.row, (attend.head + h) * attend.shape.value_dim + col + g * LANES);
                    store_part(V::mul(sums[h][g], V::splat(factors[h])), out, len);
                }
            }
        }
    }
}

#[inline(always)]
fn scaled(mut s: [f32; LANES], scale: f32) -> [f32; LANES] {
    for s in &mut s {
        *s = numerics::score(*s, scale, None);
    }
    s
}

#[inline(always)]
fn capped(mut s: [f32; LANES], scale: f32, cap: f32) -> [f32; LANES] {
    for s in &mut s {
        *s = numerics::score(*s, scale, Some(cap));
    }
    s
}

/// Overwrites what lies outside of `first ..= last` in a group of positions.
#[inline(always)]
fn mask(s: &mut [f32; LANES], group: usize, (first, last): (usize, usize), with: f32) {
    if group * LANES >= first && group * LANES + LANES <= last + 1 {
        return;
    }
    for (i, s) in s.iter_mut().enumerate() {
        if !(first..=last).contains(&(group * LANES + i)) {
            *s = with;
        }
    }
}
