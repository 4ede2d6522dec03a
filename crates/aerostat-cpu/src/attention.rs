//! Attention: up to [`QUERIES_MAX`] queries of one sequence that share a KV head read its keys and values together.

use std::marker::PhantomData;

use aerostat_backend::numerics;
use aerostat_backend::{Attention, Extras, KvElement, KvView, Placement, RowPlace, visible};

use crate::elementwise::{get, put};
use crate::format::{BF16, F16, F32, FilledQ8_0, Format, group_at};
use crate::isa::{Kernel, Token};
use crate::rows::{Rows, dots, prefetch};
use crate::vector::{LANES, Vector, load_part, store_part};

/// Most query heads of a task.
pub(crate) const HEADS_MAX: usize = 4;
/// Most queries of a task: rows times heads. Keys and values are read once for all of them.
pub(crate) const QUERIES_MAX: usize = 16;
/// Keys that are multiplied at a time.
const KEYS: usize = 4;
/// Queries that are multiplied at a time.
const QUERIES: usize = 4;
/// Pages between those that are computed and those that are fetched: one takes less time than memory needs to answer.
const PAGES_AHEAD: usize = 2;

/// The query heads `head .. head + heads` of the rows `row .. row + rows`: at most [`HEADS_MAX`] heads, all of one KV
/// head, and [`QUERIES_MAX`] queries. `scores` is valid for a line of `pitch` elements for each query, and `pitch` is
/// a multiple of 16 above the positions of the rows. The pages of all visible positions exist; the widths of `q`, `out`
/// and `kv` fit `shape`.
#[derive(Clone, Copy)]
pub(crate) struct Attend<'a> {
    pub(crate) q: Rows,
    pub(crate) out: Rows,
    pub(crate) shape: &'a Attention,
    /// Sinks are one row, of an element for each head; biases a row for each head.
    pub(crate) extras: Extras<Rows>,
    pub(crate) kv: KvView<'a>,
    pub(crate) places: Placement<'a>,
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) head: usize,
    pub(crate) heads: usize,
    pub(crate) scores: *mut f32,
    pub(crate) pitch: usize,
}

/// Raw dot products of all queries, of one sequence.
struct Score<'a, F>(Attend<'a>, PhantomData<F>);

/// Turns the dot products of one query into weights; gives the reciprocal of their sum.
struct Softmax<'a>(Attend<'a>, usize);

/// Weighted sums of the values, times the factor of each query.
struct Mix<'a, F>(Attend<'a>, [f32; QUERIES_MAX], PhantomData<F>);

impl Attend<'_> {
    /// Does the work: runs of rows of one sequence share its keys and values, but those of their branches.
    ///
    /// # Safety
    /// What the struct says holds.
    pub(crate) unsafe fn run(self, token: Token) {
        let end = self.row + self.rows;
        let mut row = self.row;
        while row < end {
            let shared = |place: &RowPlace| (place.table, place.branch.map(|branch| branch.from));
            let first = shared(&self.places.rows[row]);
            let rows = self.places.rows[row..end].iter().take_while(|place| shared(place) == first).count();
            let sequence = Self { row, rows, ..self };
            // SAFETY: the caller's promise, passed on.
            unsafe {
                sequence.attend(token);
            }
            row += rows;
        }
    }

    /// # Safety
    /// As `run`; all rows are of one sequence.
    unsafe fn attend(self, token: Token) {
        let mut factors = [0.0; QUERIES_MAX];
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match self.kv.key_type {
                KvElement::F16 => token.enter(Score::<F16>(self, PhantomData)),
                KvElement::BF16 => token.enter(Score::<BF16>(self, PhantomData)),
                KvElement::F32 => token.enter(Score::<F32>(self, PhantomData)),
                KvElement::Q8 => token.enter(Score::<FilledQ8_0>(self, PhantomData)),
            }
            for query in 0..self.queries() {
                factors[query] = token.enter(Softmax(self, query));
            }
            match self.kv.value_type {
                KvElement::F16 => token.enter(Mix::<F16>(self, factors, PhantomData)),
                KvElement::BF16 => token.enter(Mix::<BF16>(self, factors, PhantomData)),
                KvElement::F32 => token.enter(Mix::<F32>(self, factors, PhantomData)),
                KvElement::Q8 => token.enter(Mix::<FilledQ8_0>(self, factors, PhantomData)),
            }
        }
    }

    #[inline(always)]
    fn queries(&self) -> usize {
        self.rows * self.heads
    }

    /// Row and head of a query. Past the end the last one is meant, to be computed again for nothing.
    #[inline(always)]
    fn query(&self, query: usize) -> (usize, usize) {
        let query = query.min(self.queries() - 1);
        (self.row + query / self.heads, self.head + query % self.heads)
    }

    /// The first and the last position that a row sees.
    #[inline(always)]
    fn visible(&self, row: usize) -> (usize, usize) {
        visible(self.places.rows[row], self.shape)
    }

    /// The positions that any row sees, as far as they lie in pages.
    #[inline(always)]
    fn visible_in_pages(&self) -> (usize, usize) {
        let (mut first, mut last) = self.visible(self.row);
        for row in self.row + 1..self.row + self.rows {
            let (a, b) = self.visible(row);
            (first, last) = (first.min(a), last.max(b));
        }
        let branch = self.places.rows[self.row].branch;
        (first, branch.map_or(last + 1, |branch| (branch.from as usize).min(last + 1)))
    }

    /// The positions of a query's row that lie in a branch: from the first it sees to the end; none where there is none.
    #[inline(always)]
    fn visible_in_branch(&self, query: usize) -> (usize, usize) {
        let (row, _) = self.query(query);
        let (first, last) = self.visible(row);
        let from = self.places.rows[row].branch.map_or(last + 1, |branch| branch.from as usize);
        (from.max(first), last + 1)
    }

    /// Positions before `end` that lie in one page, from `from`: how many, and the slot of the first.
    #[inline(always)]
    fn run_of_slots(&self, from: usize, end: usize) -> (usize, usize) {
        let page_tokens = self.kv.page_tokens;
        let left = page_tokens - from % page_tokens;
        (left.min(end - from), self.kv.slot(&self.places, self.places.rows[self.row], from))
    }

    /// The slot that starts a page to come, whose rows are fetched while a run of slots is computed: pages lie apart.
    #[inline(always)]
    fn slot_after(&self, (from, run, slot): (usize, usize, usize), end: usize) -> usize {
        let to_come = from + run + (PAGES_AHEAD - 1) * self.kv.page_tokens;
        if to_come < end { self.run_of_slots(to_come, end).1 } else { slot }
    }

    /// The slot of a position in the branch of a query's row.
    #[inline(always)]
    fn slot_in_branch(&self, query: usize, position: usize) -> usize {
        let (row, _) = self.query(query);
        self.kv.slot(&self.places, self.places.rows[row], position)
    }

    /// This task's KV head.
    #[inline(always)]
    fn kv_head(&self) -> usize {
        self.head / (self.shape.heads / self.shape.kv_heads)
    }

    #[inline(always)]
    fn key(&self, slot: usize) -> *const u8 {
        self.kv.keys.as_ptr().wrapping_add(self.kv.key_at(slot, self.kv_head()))
    }

    #[inline(always)]
    fn value(&self, slot: usize) -> *const u8 {
        self.kv.values.as_ptr().wrapping_add(self.kv.value_at(slot, self.kv_head()))
    }

    #[inline(always)]
    fn scores(&self, query: usize) -> *mut f32 {
        self.scores.wrapping_add(query * self.pitch)
    }
}

impl<F: Format> Kernel for Score<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let (mut from, end) = self.0.visible_in_pages();
        while from < end {
            let (run, slot) = self.0.run_of_slots(from, end);
            let next = self.0.key(self.0.slot_after((from, run, slot), end));
            let page = Page { rows: self.0.key(slot), next, from, end: from + run };
            for query in (0..self.0.queries()).step_by(QUERIES) {
                // SAFETY: the promise of the struct; the run lies in a page, where keys follow each other.
                unsafe {
                    match self.0.queries() - query {
                        1 => self.page::<V, 1>(query, page),
                        2 => self.page::<V, 2>(query, page),
                        _ => self.page::<V, QUERIES>(query, page),
                    }
                }
            }
            from += run;
        }
        for query in 0..self.0.queries() {
            let (from, end) = self.0.visible_in_branch(query);
            for position in from..end {
                let rows = self.0.key(self.0.slot_in_branch(query, position));
                // SAFETY: as above, of a run of one position.
                unsafe {
                    self.page::<V, 1>(query, Page { rows, next: rows, from: position, end: position + 1 });
                }
            }
        }
    }
}

/// Keys or values of the positions `from .. end`, one after the other, and those that follow in another page.
#[derive(Clone, Copy)]
struct Page {
    rows: *const u8,
    next: *const u8,
    from: usize,
    end: usize,
}

impl<F: Format> Score<'_, F> {
    /// `H` queries from `query` times the keys of a page.
    ///
    /// # Safety
    /// What [`Attend`] says holds; the keys exist.
    #[inline(always)]
    unsafe fn page<V: Vector, const H: usize>(&self, query: usize, page: Page) {
        let run = page.end - page.from;
        let attend = &self.0;
        let dim = attend.shape.key_dim;
        let mut queries = [std::ptr::null(); H];
        for h in 0..H {
            let (row, head) = attend.query(query + h);
            queries[h] = attend.q.at(row, head * dim).cast_const();
        }
        let row_bytes = attend.kv.key_bytes();
        for i in (0..run).step_by(KEYS) {
            let count = KEYS.min(run - i);
            let mut keys = [page.rows; KEYS];
            for m in 0..KEYS {
                // Past the end the last key is multiplied again, for nothing.
                keys[m] = page.rows.wrapping_add((i + m.min(count - 1)) * row_bytes);
            }
            // SAFETY: the caller's promise; positions stay below `pitch`.
            unsafe {
                if query == 0 {
                    prefetch::<V>(page.next.wrapping_add(i * row_bytes), count * row_bytes);
                }
                let sums = dots::<V, F, KEYS, H>(keys, queries, dim, 0);
                for h in 0..H.min(attend.queries() - query) {
                    let to = attend.scores(query + h).add(page.from + i);
                    for m in 0..count {
                        *to.add(m) = sums[m][h];
                    }
                }
            }
        }
    }
}

impl Kernel for Softmax<'_> {
    type Output = f32;

    /// Works on whole groups of sixteen positions; those that the row does not see hold old values and are masked.
    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) -> f32 {
        let Self(attend, query) = self;
        let (row, head) = attend.query(query);
        let (first, last) = attend.visible(row);
        let own = attend.places.rows[row].position as usize;
        let heads = attend.shape.heads;
        let alibi = attend.shape.alibi.map(|biases| (biases, numerics::alibi_slope(biases, heads, head)));
        let (scale, softcap) = (attend.shape.scale, attend.shape.softcap);
        // SAFETY: the promise of the struct.
        let sink = attend.extras.sinks.map(|sinks| unsafe { *sinks.at(0, head) });
        let mut most = f32::NEG_INFINITY;
        let mut max = [f32::NEG_INFINITY; LANES];
        let mut sum = [0.0; LANES];
        // SAFETY: the promise of the struct; `pitch` has whole groups.
        unsafe {
            let scores = attend.scores(query);
            for group in first / LANES..=last / LANES {
                let at = scores.add(group * LANES);
                let mut s = get(at, LANES);
                match softcap {
                    Some(cap) => s = capped(s, scale, cap),
                    None => s = scaled(s, scale),
                }
                if let Some((biases, slope)) = alibi {
                    for (i, s) in s.iter_mut().enumerate() {
                        *s += numerics::alibi(biases, slope, scale, group * LANES + i, own);
                    }
                }
                if let Some(biases) = attend.extras.biases {
                    for (i, s) in s.iter_mut().enumerate() {
                        *s += *biases.at(head, numerics::bias_place(biases.cols, group * LANES + i, own));
                    }
                }
                put(&s, at, LANES);
                mask(&mut s, group, (first, last), f32::NEG_INFINITY);
                for i in 0..LANES {
                    max[i] = if s[i] > max[i] { s[i] } else { max[i] };
                }
            }
            for m in max {
                most = if m > most { m } else { most };
            }
            most = numerics::with_sink(most, sink);
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
        1.0 / numerics::sum_with_sink(numerics::reduce(sum), most, sink)
    }
}

impl<F: Format> Kernel for Mix<'_, F> {
    type Output = ();

    /// Page by page; the sums wait in `out`.
    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let (mut from, end) = self.0.visible_in_pages();
        while from < end {
            let (run, slot) = self.0.run_of_slots(from, end);
            let next = self.0.value(self.0.slot_after((from, run, slot), end));
            let page = Page { rows: self.0.value(slot), next, from, end: from + run };
            let mut query = 0;
            // SAFETY: the promise of the struct; the run lies in a page, where values follow each other.
            unsafe {
                while query < self.0.queries() {
                    if query + QUERIES <= self.0.queries() && self.seen_alike(query, page) {
                        self.page::<V, QUERIES, N>(query, page);
                        query += QUERIES;
                    } else {
                        self.page::<V, 1, N>(query, page);
                        query += 1;
                    }
                }
            }
            from += run;
        }
        for query in 0..self.0.queries() {
            let (from, end) = self.0.visible_in_branch(query);
            for position in from..end {
                let rows = self.0.value(self.0.slot_in_branch(query, position));
                // SAFETY: as above, of a run of one position.
                unsafe {
                    self.page::<V, 1, N>(query, Page { rows, next: rows, from: position, end: position + 1 });
                }
            }
        }
    }
}

impl<F: Format> Mix<'_, F> {
    /// The positions of a page that a query sees, and whether they are its first and its last ones.
    #[inline(always)]
    fn clip(&self, query: usize, page: Page) -> (usize, usize, bool, bool) {
        let (first, last) = self.0.visible(self.0.query(query).0);
        let (from, end) = (page.from.max(first), page.end.min(last + 1));
        (from, end, from == first, end == last + 1)
    }

    /// All of a tile of queries see the same positions of a page.
    #[inline(always)]
    fn seen_alike(&self, query: usize, page: Page) -> bool {
        let clip = self.clip(query, page);
        (query + 1..query + QUERIES).all(|other| self.clip(other, page) == clip)
    }

    /// `H` queries that see the same positions of a page.
    ///
    /// # Safety
    /// What [`Attend`] says holds; the values exist.
    #[inline(always)]
    unsafe fn page<V: Vector, const H: usize, const N: usize>(&self, query: usize, page: Page) {
        let dim = self.0.shape.value_dim;
        let (from, end, ..) = self.clip(query, page);
        if from >= end {
            return;
        }
        let mut col = 0;
        // SAFETY: the caller's promise; columns stay below `dim`.
        unsafe {
            // Four groups of columns of four queries fill half of 32 registers.
            while N == 4 && col + 4 * LANES <= dim {
                self.cols::<V, H, 4>(query, page, col, LANES);
                col += 4 * LANES;
            }
            while col < dim {
                self.cols::<V, H, 1>(query, page, col, LANES.min(dim - col));
                col += LANES;
            }
        }
    }

    /// `G` groups of columns from `col`; the last has `len` columns.
    ///
    /// # Safety
    /// As [`page`](Self::page); columns `col ..` of all groups are within the value head.
    #[inline(always)]
    unsafe fn cols<V: Vector, const H: usize, const G: usize>(
        &self,
        query: usize,
        page: Page,
        col: usize,
        len: usize,
    ) {
        let Self(attend, factors, _) = self;
        let dim = attend.shape.value_dim;
        let row_bytes = attend.kv.value_bytes();
        let (from, end, is_first, is_last) = self.clip(query, page);
        let mut outs = [std::ptr::null_mut(); H];
        let mut scores = [std::ptr::null(); H];
        for h in 0..H {
            let (row, head) = attend.query(query + h);
            outs[h] = attend.out.at(row, head * dim + col);
            scores[h] = attend.scores(query + h).cast_const();
        }
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[V::splat(0.0); G]; H];
            for h in 0..H {
                for g in 0..G {
                    if !is_first {
                        sums[h][g] = load_part(outs[h].add(g * LANES), len, 0.0);
                    }
                }
            }
            for position in from..end {
                let row = (position - page.from) * row_bytes;
                if query == 0 && col == 0 {
                    prefetch::<V>(page.next.wrapping_add(row), attend.kv.value_type.row_bytes(dim));
                }
                let value = page.rows.add(row);
                let mut values = [V::splat(0.0); G];
                for g in 0..G {
                    values[g] = group_at::<V, F>(value, col + g * LANES, len);
                }
                for h in 0..H {
                    let weight = V::splat(*scores[h].add(position));
                    for g in 0..G {
                        sums[h][g] = V::mul_add(weight, values[g], sums[h][g]);
                    }
                }
            }
            for h in 0..H {
                let factor = V::splat(factors[query + h]);
                for g in 0..G {
                    let sum = if is_last { V::mul(sums[h][g], factor) } else { sums[h][g] };
                    store_part(sum, outs[h].add(g * LANES), len);
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
