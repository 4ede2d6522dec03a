//! Packed tiles: the thread that multiplies a group of rows checks and expands it first, to scratch that stays in its
//! second-level cache. What follows is the kernel for their format, so the bits are those of unpacked weights.

use std::sync::OnceLock;

use aerostat_backend::packed::exponents::{BLOCK_LEN, Parts, Split};
use aerostat_backend::packed::{GroupFormat, PackedTile, SLACK_BYTES};
use aerostat_backend::{Error, ErrorKind, Tile, defect};
use aerostat_checkpoint::DType;

use crate::checksum::crc32c;
use crate::format::{BF16, F16, F32};
use crate::isa::Token;
use crate::matmul::Matmul;
use crate::memory::{Line, grow};
use crate::rows::Rows;
use crate::scaled::{self, Expand, Expanded};
use crate::vector::LANES;

/// Weight rows of a task.
const TASK_ROWS: usize = 48;
/// Expanded bytes of a task's step, unless one group has more: with the activations and what is fetched ahead they stay in
/// the second-level cache.
pub(crate) const STEP_BYTES: usize = 64 << 10;

/// Coded tiles times all rows of `x`, to the columns of `y`. The shapes fit.
pub(crate) struct PackedMatmul<'a> {
    parts: &'a [PackedTile<'a>],
    tasks: Vec<Task>,
    checked: bool,
    /// How rows are expanded once more that are codes with scales, from the first of the tiles on.
    scaled: Option<Expand<'a>>,
    x: Rows,
    y: Rows,
    failed: OnceLock<Error>,
}

/// Groups of one of the tiles.
#[derive(Clone, Copy)]
struct Task {
    part: usize,
    groups: (usize, usize),
    /// The first column of `y`.
    row: usize,
}

impl<'a> PackedMatmul<'a> {
    /// Of tiles with coded exponents, for so many threads. Tasks get smaller towards the end, so that all threads end at
    /// about the same time.
    pub(crate) fn new(
        parts: &'a [PackedTile<'a>],
        checked: bool,
        scaled: Option<Expand<'a>>,
        (x, y): (Rows, Rows),
        threads: usize,
    ) -> Self {
        let (mut tasks, mut row) = (Vec::new(), 0);
        let rows: usize = parts.iter().map(|tile| tile.rows).sum();
        for (part, tile) in parts.iter().enumerate() {
            let mut group = 0;
            while group < tile.groups {
                let fair = TASK_ROWS.min((rows - row) / (2 * threads));
                let end = tile.groups.min(group + (fair / tile.group_rows).max(1));
                tasks.push(Task { part, groups: (group, end), row });
                row += (group..end).map(|group| tile.rows_of(group)).sum::<usize>();
                group = end;
            }
        }
        Self { parts, tasks, checked, scaled, x, y, failed: OnceLock::new() }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Runs a task; after an error, nothing.
    ///
    /// # Safety
    /// `x` and `y` have the columns and rows of the tiles, and no other thread writes the task's columns of `y`.
    /// `scratch` is valid for what [`Matmul`] needs.
    pub(crate) unsafe fn run(&self, task: usize, token: Token, expanded: &mut Vec<Line>, scratch: *mut f32) {
        if self.failed.get().is_none()
            // SAFETY: the caller's promise.
            && let Err(error) = unsafe { self.multiply(self.tasks[task], token, expanded, scratch) }
        {
            let _ = self.failed.set(error);
        }
    }

    /// The first error.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.failed.into_inner().map_or(Ok(()), Err)
    }

    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn multiply(
        &self,
        task: Task,
        token: Token,
        expanded: &mut Vec<Line>,
        scratch: *mut f32,
    ) -> Result<(), Error> {
        let (tile, (mut group, end), mut row) = (&self.parts[task.part], task.groups, task.row);
        let GroupFormat::ExponentCoded(split, palette) = &tile.format else {
            return Err(defect!("a stored tile is multiplied as one of coded exponents"));
        };
        let row_bytes = tile.row_bytes();
        let group_bytes = tile.group_rows * row_bytes;
        let step = (STEP_BYTES / group_bytes).clamp(1, end - group);
        let lines = (step * group_bytes + split.bytes * BLOCK_LEN).div_ceil(size_of::<Line>());
        let floats =
            self.scaled.map_or(0, |_| scaled::task_rows(tile.cols).min(step * tile.group_rows) * tile.cols);
        let needed = lines + floats.div_ceil(LANES);
        if expanded.len() < needed {
            grow(expanded, needed * LANES)?;
        }
        let to: *mut u8 = expanded.as_mut_ptr().cast();
        let floats: *mut f32 = expanded.as_mut_ptr().wrapping_add(lines).cast();
        while group < end {
            let mut rows = 0;
            for group in group..end.min(group + step) {
                let bytes = self.bytes(tile, group);
                if !self.checked && crc32c(token, bytes) != tile.place(group).1 {
                    // Checks once more, for the error.
                    tile.check_group(group, bytes)?;
                }
                let len = tile.rows_of(group) * tile.cols;
                let ahead = if group + 1 < end { self.bytes(tile, group + 1) } else { bytes };
                // SAFETY: there is room for the step's groups and a block; the parts lie within the tile, which goes on
                // behind them.
                unsafe {
                    let parts = parts_within(tile, *split, bytes, len)?;
                    if !expand(token, *split, palette, &parts, ahead, to.add(rows * row_bytes)) {
                        return Err(broken());
                    }
                }
                rows += tile.rows_of(group);
            }
            // SAFETY: so many rows have been written.
            let bytes = unsafe { std::slice::from_raw_parts(to.cast_const(), rows * row_bytes) };
            let w = Tile { dtype: tile.dtype, rows, cols: tile.cols, bytes };
            let next = self.bytes(tile, (group + step).min(end - 1)).as_ptr().addr();
            let ahead = Some(next.wrapping_sub(bytes.as_ptr().addr()));
            let y = self.y.columns_from(row);
            let matmul = Matmul { w, x: self.x, y, start: 0, end: rows, scratch, ahead };
            // SAFETY: the caller's promise: `y` has these rows as columns from `row` on. The format is the tile's. Codes were
            // checked to have scales and one byte each.
            unsafe {
                match (tile.dtype, &self.scaled) {
                    (DType::BF16, None) => matmul.run::<BF16>(token),
                    (DType::F16, None) => matmul.run::<F16>(token),
                    (_, Some(from)) => scale(*from, matmul, row, token, floats),
                    (dtype, None) => {
                        return Err(defect!("packed codes in {dtype} are multiplied without scales"));
                    }
                }
            }
            (group, row) = (group + step, row + rows);
        }
        Ok(())
    }

    fn bytes(&self, tile: &PackedTile<'a>, group: usize) -> &'a [u8] {
        &tile.bytes()[tile.place(group).0]
    }
}

/// Multiplies rows that are codes with scales, the first of which is row `row` of the tiles: some at a time are expanded to
/// `floats`.
///
/// # Safety
/// As [`Matmul::run`]; the scales are those of the tiles, which have one byte for each element, and `floats` is valid for as
/// many of the rows as a task expands.
unsafe fn scale(from: Expand<'_>, codes: Matmul<'_>, row: usize, token: Token, floats: *mut f32) {
    let Matmul { w, y, scratch, .. } = codes;
    let from = Expand { w, first_row: from.first_row + row, ..from };
    let task_rows = scaled::task_rows(w.cols);
    for start in (0..w.rows).step_by(task_rows) {
        let rows = start..w.rows.min(start + task_rows);
        let end = rows.len();
        // SAFETY: the caller's promise.
        unsafe {
            let w = Expanded { from, rows, cols: 0..w.cols, out: floats }.tile(token);
            let y = y.columns_from(start);
            Matmul { w, x: codes.x, y, start: 0, end, scratch, ahead: None }.run::<F32>(token);
        }
    }
}

/// The parts of a group, which end [`SLACK_BYTES`] before the tile does.
fn parts_within<'a>(
    tile: &PackedTile<'a>,
    split: Split,
    bytes: &'a [u8],
    len: usize,
) -> Result<Parts<'a>, Error> {
    let parts = split.parts(bytes, len)?;
    let end = tile.bytes().as_ptr_range().end as usize;
    if end - parts.raw.as_ptr_range().end as usize >= SLACK_BYTES { Ok(parts) } else { Err(broken()) }
}

fn broken() -> Error {
    let message = "a packed weight tile is malformed; pack the model again from its original";
    Error::new(ErrorKind::Corrupt, message)
}

/// Expands a group, whole blocks, and asks for the bytes of another one; whether its streams held all bits.
///
/// # Safety
/// `parts` are those of one group of this split, with [`SLACK_BYTES`] readable behind them; `to` is valid for all blocks.
unsafe fn expand(
    token: Token,
    split: Split,
    palette: &[u8; 16],
    parts: &Parts<'_>,
    ahead: &[u8],
    to: *mut u8,
) -> bool {
    let expand: unsafe fn(Token, &[u8; 16], &Parts<'_>, &[u8], *mut u8) -> bool = match split {
        Split::BF16 => expand_as::<{ Split::BF16.bytes }, { Split::BF16.exponent }>,
        Split::F16 => expand_as::<{ Split::F16.bytes }, { Split::F16.exponent }>,
        Split::E4M3 => expand_as::<{ Split::E4M3.bytes }, { Split::E4M3.exponent }>,
        Split::E5M2 => expand_as::<{ Split::E5M2.bytes }, { Split::E5M2.exponent }>,
        _ => return false,
    };
    // SAFETY: the caller's promise; the constants are those of the split.
    unsafe { expand(token, palette, parts, ahead, to) }
}

/// [`expand`] of elements of so many bytes, with their exponents in these bits of the last.
///
/// # Safety
/// As [`expand`].
unsafe fn expand_as<const BYTES: usize, const EXPONENT: u8>(
    token: Token,
    palette: &[u8; 16],
    parts: &Parts<'_>,
    ahead: &[u8],
    to: *mut u8,
) -> bool {
    let palette = &spread(palette);
    // SAFETY: the caller's promise; instructions that a token does not prove are detected.
    unsafe {
        match token.isa() {
            #[cfg(target_arch = "x86_64")]
            crate::isa::Isa::Avx512 if x86::has_vbmi() => {
                x86::expand_avx512::<BYTES, EXPONENT>(palette, parts, ahead, to)
            }
            #[cfg(target_arch = "x86_64")]
            crate::isa::Isa::Avx512 | crate::isa::Isa::Avx2 if x86::has_bmi() => {
                x86::expand_avx2::<BYTES, EXPONENT>(palette, parts, ahead, to)
            }
            _ => blocks::<BYTES, EXPONENT>(parts, to, deposit, |_, masks, places| {
                expand_portable::<BYTES, EXPONENT>(palette, masks, places)
            }),
        }
    }
}

/// The bits of a coded byte that are no exponent, the lowest first, and zeros.
const fn others(exponent: u8) -> [u8; 4] {
    let (mut others, mut rest, mut i) = ([0; 4], !exponent, 0);
    while rest != 0 {
        others[i] = rest & rest.wrapping_neg();
        (rest, i) = (rest & (rest - 1), i + 1);
    }
    others
}

/// The symbols of a block as planes of bits: 0 to 2 of level 1, 4 to 6 of level 2, 8 to 14 of level 3, and 15, which is
/// raw.
struct Masks {
    planes: [u64; 4],
    raw: u64,
}

/// Where the rest of a block lies.
struct Places {
    /// The raw exponents.
    raw: *const u8,
    /// The planes of other bits, at any alignment.
    others: *const u64,
    /// What is stored as it is, of elements of two bytes.
    plain: *const u8,
    /// Where the block goes.
    to: *mut u8,
}

const RAW_SYMBOL: u8 = 15;

/// The palette, by the symbols of [`Masks`].
fn spread(palette: &[u8; 16]) -> [u8; 16] {
    let mut out = [0; 16];
    for (from, to, len) in [(0, 0, 3), (3, 4, 3), (6, 8, 7)] {
        out[to..to + len].copy_from_slice(&palette[from..from + len]);
    }
    out
}

/// Goes through the blocks of a group: finds the planes of each and gives them to `block`, with its number. `false`: a
/// stream ends early, or late.
///
/// # Safety
/// As [`expand`]; `pdep` deposits the low bits of the first word at the ones of the second.
#[inline(always)]
unsafe fn blocks<const BYTES: usize, const EXPONENT: u8>(
    parts: &Parts<'_>,
    to: *mut u8,
    pdep: impl Fn(u64, u64) -> u64,
    block: impl Fn(usize, &Masks, Places),
) -> bool {
    let plane_bytes = const { Split { bytes: BYTES, exponent: EXPONENT }.plane_bytes() };
    let (mut second_at, mut third_at, mut raw_at) = (0, 0, 0);
    for (i, planes) in parts.planes.chunks_exact(plane_bytes).enumerate() {
        let Some((planes, others)) = planes.split_first_chunk::<16>() else { return false };
        let both = u128::from_le_bytes(*planes);
        let (low, high) = (both as u64, (both >> 64) as u64);
        let seconds = low & high;
        let count = seconds.count_ones() as usize;
        if second_at + 2 * count > 8 * parts.second.len() {
            return false;
        }
        // SAFETY: the bits are within the stream, with slack behind it.
        let [second_low, second_high] =
            unsafe { level(parts.second.as_ptr(), second_at, count) }.map(|bits| pdep(bits, seconds));
        second_at += 2 * count;
        let thirds = second_low & second_high;
        let count = thirds.count_ones() as usize;
        if third_at + 3 * count > 8 * parts.third.len() {
            return false;
        }
        // SAFETY: as above.
        let [a, b, c] =
            unsafe { level(parts.third.as_ptr(), third_at, count) }.map(|bits| pdep(bits, thirds));
        third_at += 3 * count;
        // Each level's ones lie within those of the level above.
        let second_only = seconds ^ thirds;
        let planes = [
            low ^ second_low ^ second_only ^ a,
            high ^ second_high ^ second_only ^ b,
            second_only | c,
            thirds,
        ];
        let masks = Masks { planes, raw: a & b & c };
        let raw = parts.raw.as_ptr().wrapping_add(raw_at);
        if masks.raw != 0 {
            raw_at += masks.raw.count_ones() as usize;
            if raw_at > parts.raw.len() {
                return false;
            }
        }
        let at = i * BLOCK_LEN;
        let (plain, to) = (parts.plain.as_ptr().wrapping_add(at), to.wrapping_add(at * BYTES));
        block(i, &masks, Places { raw, others: others.as_ptr().cast(), plain, to });
    }
    // All of each stream was used.
    (second_at.div_ceil(8), third_at.div_ceil(8), raw_at)
        == (parts.second.len(), parts.third.len(), parts.raw.len())
}

/// `N` planes of `count` bits each from bit `at` on; what stands above the bits is left.
///
/// # Safety
/// The bits are within a stream with [`SLACK_BYTES`] behind it.
#[inline(always)]
unsafe fn level<const N: usize>(from: *const u8, at: usize, count: usize) -> [u64; N] {
    let mut planes = [0; N];
    // SAFETY: the caller's promise; at most nine bytes from that of a bit are read.
    unsafe {
        // One word nearly always holds them all.
        if at % 8 + N * count <= 64 {
            let word = bits(from, at, 0);
            for (k, plane) in planes.iter_mut().enumerate() {
                *plane = word >> (k * count);
            }
        } else {
            for (k, plane) in planes.iter_mut().enumerate() {
                *plane = bits(from, at + k * count, count);
            }
        }
    }
    planes
}

/// At least `count` bits from bit `at`; what stands above them is left.
///
/// # Safety
/// Nine bytes from the first bit's are readable.
#[inline(always)]
unsafe fn bits(from: *const u8, at: usize, count: usize) -> u64 {
    let (from, shift) = (from.wrapping_add(at / 8), at % 8);
    // SAFETY: the caller's promise.
    unsafe {
        let low = u64::from_le(from.cast::<u64>().read_unaligned()) >> shift;
        if count + shift > 64 { low | u64::from(from.add(8).read()) << (64 - shift) } else { low }
    }
}

/// `pdep` in plain Rust.
fn deposit(bits: u64, mut mask: u64) -> u64 {
    let (mut out, mut i) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        out |= if bits >> i & 1 == 1 { lowest } else { 0 };
        (mask, i) = (mask ^ lowest, i + 1);
    }
    out
}

/// A block in plain Rust.
///
/// # Safety
/// There are as many raw exponents as the mask says, a plane for each other bit, 64 plain bytes where elements have two, and
/// room for 64 elements.
#[inline(always)]
unsafe fn expand_portable<const BYTES: usize, const EXPONENT: u8>(
    palette: &[u8; 16],
    masks: &Masks,
    places: Places,
) {
    let Places { mut raw, others: planes, plain, to } = places;
    let mut coded = [0u8; BLOCK_LEN];
    for (plane, weight) in masks.planes.into_iter().zip([1, 2, 4, 8]) {
        for (at, symbol) in coded.iter_mut().enumerate() {
            *symbol |= (plane >> at & 1) as u8 * weight;
        }
    }
    for coded in &mut coded {
        // SAFETY: the caller's promise.
        unsafe {
            *coded = if *coded == RAW_SYMBOL {
                raw = raw.add(1);
                raw.sub(1).read()
            } else {
                palette[usize::from(*coded) % 16]
            };
        }
    }
    for k in 0..EXPONENT.count_zeros() as usize {
        // SAFETY: the caller's promise.
        let plane = u64::from_le(unsafe { planes.add(k).read_unaligned() });
        for (at, coded) in coded.iter_mut().enumerate() {
            *coded = coded.wrapping_add((plane >> at & 1) as u8 * others(EXPONENT)[k]);
        }
    }
    let split = Split { bytes: BYTES, exponent: EXPONENT };
    for at in 0..BLOCK_LEN {
        // SAFETY: the caller's promise; the order of planes is a permutation.
        unsafe {
            if BYTES == 1 {
                to.add(split.element(at)).write(coded[at]);
                continue;
            }
            let value = u16::from(coded[at]) << 8 | u16::from(plain.add(at).read());
            let value = if EXPONENT == 0xff { value.rotate_right(1) } else { value };
            to.cast::<u16>().add(split.element(at)).write_unaligned(value.to_le());
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use super::*;

    /// What expanding takes beyond what [`Isa::Avx512`](crate::isa::Isa::Avx512) says.
    pub(super) fn has_vbmi() -> bool {
        has_bmi() && is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512vbmi2")
    }

    /// What expanding takes beyond what [`Isa::Avx2`](crate::isa::Isa::Avx2) says.
    pub(super) fn has_bmi() -> bool {
        is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("popcnt")
    }

    /// Asks for the cache lines of `len` bytes, at most two.
    #[inline(always)]
    fn fetch(from: *const u8, len: usize) {
        // SAFETY: the address need not be valid; all x86-64 has the instruction.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(from.cast());
            if len > 64 {
                _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(64).cast());
            }
        }
    }

    /// A plane in a mask register. By way of memory, which takes half as long as from a general register.
    ///
    /// # Safety
    /// The CPU has AVX-512 BW; `plane` is readable, at any alignment.
    #[inline]
    #[target_feature(enable = "avx512bw")]
    unsafe fn mask(plane: *const u64) -> __mmask64 {
        let mask: u64;
        // SAFETY: the assembly reads what `plane` points to.
        unsafe {
            asm!("kmovq {0}, qword ptr [{1}]", out(kreg) mask, in(reg) plane,
                options(pure, readonly, nostack, preserves_flags));
        }
        mask
    }

    /// # Safety
    /// As [`expand`]; the instructions exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    pub(super) unsafe fn expand_avx512<const BYTES: usize, const EXPONENT: u8>(
        palette: &[u8; 16],
        parts: &Parts<'_>,
        ahead: &[u8],
        to: *mut u8,
    ) -> bool {
        let each = ahead.len() / (parts.planes.len() / (16 + 8 * EXPONENT.count_zeros() as usize)).max(1);
        // SAFETY: the caller's promise; `blocks` keeps to the parts.
        unsafe {
            let palette = _mm512_broadcast_i32x4(_mm_loadu_si128(palette.as_ptr().cast()));
            // Known numbers would be added by longer ways than masks.
            let weights = std::hint::black_box([1, 2, 4, 8].map(|weight| _mm512_set1_epi8(weight)));
            let other_weights = match EXPONENT {
                0xff => weights,
                _ => std::hint::black_box(others(EXPONENT).map(|weight| _mm512_set1_epi8(weight as i8))),
            };
            blocks::<BYTES, EXPONENT>(
                parts,
                to,
                |bits, mask| _pdep_u64(bits, mask),
                |i, masks, Places { raw, others, plain, to }| {
                    fetch(ahead.as_ptr().wrapping_add(i * each), each);
                    let mut symbols = _mm512_maskz_mov_epi8(mask(&masks.planes[0]), weights[0]);
                    for (plane, weight) in masks.planes.iter().zip(weights).skip(1) {
                        symbols = _mm512_mask_add_epi8(symbols, mask(plane), symbols, weight);
                    }
                    let mut coded = _mm512_shuffle_epi8(palette, symbols);
                    if masks.raw != 0 {
                        coded = _mm512_mask_expand_epi8(coded, masks.raw, _mm512_loadu_si512(raw.cast()));
                    }
                    for k in 0..EXPONENT.count_zeros() as usize {
                        coded = _mm512_mask_add_epi8(coded, mask(others.add(k)), coded, other_weights[k]);
                    }
                    if BYTES == 1 {
                        _mm512_storeu_si512(to.cast(), coded);
                        return;
                    }
                    let plain = _mm512_loadu_si512(plain.cast());
                    let halves = [_mm512_unpacklo_epi8(plain, coded), _mm512_unpackhi_epi8(plain, coded)];
                    for (half, words) in halves.into_iter().enumerate() {
                        let turned = _mm512_shrdi_epi16::<1>(words, words);
                        let words = if EXPONENT == 0xff { turned } else { words };
                        _mm512_storeu_si512(to.add(64 * half).cast(), words);
                    }
                },
            )
        }
    }

    /// # Safety
    /// As [`expand`]; the instructions exist.
    #[target_feature(enable = "avx2,bmi2,popcnt")]
    pub(super) unsafe fn expand_avx2<const BYTES: usize, const EXPONENT: u8>(
        palette: &[u8; 16],
        parts: &Parts<'_>,
        ahead: &[u8],
        to: *mut u8,
    ) -> bool {
        let each = ahead.len() / (parts.planes.len() / (16 + 8 * EXPONENT.count_zeros() as usize)).max(1);
        // SAFETY: the caller's promise; `blocks` keeps to the parts.
        unsafe {
            let palette = _mm256_broadcastsi128_si256(_mm_loadu_si128(palette.as_ptr().cast()));
            let spread =
                _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            // Adds a weight where half a plane has ones.
            let add = |sum, plane: u64, half: usize, weight: u8| {
                let bytes = _mm256_set1_epi32((plane >> (32 * half)) as i32);
                let ones = _mm256_and_si256(_mm256_shuffle_epi8(bytes, spread), bit);
                let ones = _mm256_cmpeq_epi8(ones, bit);
                _mm256_add_epi8(sum, _mm256_and_si256(ones, _mm256_set1_epi8(weight as i8)))
            };
            blocks::<BYTES, EXPONENT>(
                parts,
                to,
                |bits, mask| _pdep_u64(bits, mask),
                |i, masks, Places { raw, others: planes, plain, to }| {
                    fetch(ahead.as_ptr().wrapping_add(i * each), each);
                    let mut coded = [_mm256_setzero_si256(); 2];
                    for half in 0..2 {
                        let mut symbols = _mm256_setzero_si256();
                        for (plane, weight) in masks.planes.into_iter().zip([1, 2, 4, 8]) {
                            symbols = add(symbols, plane, half, weight);
                        }
                        coded[half] = _mm256_shuffle_epi8(palette, symbols);
                    }
                    if masks.raw != 0 {
                        let bytes: *mut u8 = coded.as_mut_ptr().cast();
                        let (mut rest, mut raw) = (masks.raw, raw);
                        while rest != 0 {
                            bytes.add(rest.trailing_zeros() as usize).write(raw.read());
                            (rest, raw) = (rest & (rest - 1), raw.add(1));
                        }
                    }
                    for half in 0..2 {
                        for k in 0..EXPONENT.count_zeros() as usize {
                            let plane = planes.add(k).read_unaligned();
                            coded[half] = add(coded[half], plane, half, others(EXPONENT)[k]);
                        }
                        if BYTES == 1 {
                            _mm256_storeu_si256(to.add(32 * half).cast(), coded[half]);
                            continue;
                        }
                        let plain = _mm256_loadu_si256(plain.add(32 * half).cast());
                        let low = _mm256_unpacklo_epi8(plain, coded[half]);
                        let high = _mm256_unpackhi_epi8(plain, coded[half]);
                        for (at, words) in [(0, low), (32, high)] {
                            let turned = _mm256_or_si256(
                                _mm256_srli_epi16::<1>(words),
                                _mm256_slli_epi16::<15>(words),
                            );
                            let words = if EXPONENT == 0xff { turned } else { words };
                            _mm256_storeu_si256(to.cast::<u16>().add(16 * half + at).cast(), words);
                        }
                    }
                },
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    /// With more exponents planes get longer than words, and more of them are raw.
    #[test]
    fn groups_of_any_mix_of_exponents_expand_to_what_they_were() {
        let mut state = 1u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16
        };
        for (dtype, shift, all) in
            [(DType::BF16, 7, 256), (DType::F16, 10, 32), (DType::F8_E4M3, 3, 16), (DType::F8_E5M2, 2, 32)]
        {
            let split = Split::of(dtype).unwrap();
            for exponents in [1, 3, 4, 6, 7, 9, 13, 14, 20, 100, 256].map(|n: u16| n.min(all)) {
                for len in [1, 64, 65, 1000, 1024, 5000] {
                    let mut weight = || {
                        let exponent = (all / 4 + random() % exponents) % all;
                        (random() & !((all - 1) << shift)) | exponent << shift
                    };
                    let weights: Vec<u8> =
                        (0..len).flat_map(|_| weight().to_le_bytes().into_iter().take(split.bytes)).collect();
                    let palette = split.palette(&weights);
                    let mut group = Vec::new();
                    split.code(&palette, &weights, &mut group);
                    let coded = group.len();
                    group.resize(coded + SLACK_BYTES, 0xff);
                    let parts = split.parts(&group[..coded], len).unwrap();
                    let mut plain = Vec::new();
                    split.expand(&palette, &group[..coded], len, &mut plain).unwrap();
                    assert!(plain == weights, "{exponents} exponents, {len} weights in {dtype}");
                    for isa in Isa::available() {
                        let mut out = vec![0u8; split.bytes * len.next_multiple_of(BLOCK_LEN)];
                        let token = Token::require(isa).unwrap();
                        // SAFETY: the slack lies behind the parts, and there is room for whole blocks.
                        let whole =
                            unsafe { expand(token, split, &palette, &parts, &group, out.as_mut_ptr()) };
                        let same = out[..weights.len()] == weights;
                        assert!(whole && same, "{exponents} exponents, {len} weights in {dtype}, {isa}");
                    }
                }
            }
        }
    }
}
