//! Two 256-bit registers: lanes 0 to 7, lanes 8 to 15.

use std::arch::x86_64::*;

use super::{Steps, Vector, vector_functions};

#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

impl Vector for Avx2 {
    const REGISTERS: usize = 8;

    type Ints = (__m256i, __m256i);
    type Table = Steps<Self>;

    vector_functions! {
        fn splat(x: f32) -> Self {
            Self(_mm256_set1_ps(x), _mm256_set1_ps(x))
        }
        fn load(from: *const f32) -> Self {
            Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
        }
        fn store(a: Self, to: *mut f32) {
            _mm256_storeu_ps(to, a.0);
            _mm256_storeu_ps(to.add(8), a.1);
        }
        fn add(a: Self, b: Self) -> Self {
            Self(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1))
        }
        fn mul(a: Self, b: Self) -> Self {
            Self(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1))
        }
        fn mul_add(a: Self, b: Self, c: Self) -> Self {
            Self(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1))
        }
        fn reduce(a: Self) -> f32 {
            reduce_eight(_mm256_add_ps(a.0, a.1))
        }
        fn reduce_four(a: [Self; 4]) -> [f32; 4] {
            let (first, second) = (quarters(a[0], a[1]), quarters(a[2], a[3]));
            let low = _mm256_shuffle_ps::<0b01_00_01_00>(first, second);
            let two = _mm256_add_ps(low, _mm256_shuffle_ps::<0b11_10_11_10>(first, second));
            let one = _mm256_add_ps(two, _mm256_permute_ps::<0b10_11_00_01>(two));
            let mut out = [0.0; 8];
            _mm256_storeu_ps(out.as_mut_ptr(), one);
            [out[0], out[4], out[2], out[6]]
        }
        fn prefetch(from: *const u8) {
            _mm_prefetch::<_MM_HINT_T1>(from.cast())
        }
        fn load_f16(from: *const u8) -> Self {
            let (low, high) = (_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(16).cast()));
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
        fn load_bf16(from: *const u8) -> Self {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(16).cast()));
            Self(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
        fn half(bits: u16) -> f32 {
            one_half(bits)
        }
        fn two_halves(from: *const u8) -> [f32; 2] {
            two_halves(from)
        }
        fn settle[T](at: *mut T) {
            settle(at)
        }
        fn unsigned(from: *const u8) -> Self::Ints {
            let bytes = _mm_loadu_si128(from.cast());
            (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)))
        }
        fn signed(from: *const u8) -> Self::Ints {
            let bytes = _mm_loadu_si128(from.cast());
            (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)))
        }
        fn with_fifth(q: Self::Ints, fifth: u16) -> Self::Ints {
            let (all, one) = (_mm256_set1_epi32(i32::from(fifth)), _mm256_set1_epi32(16));
            let low = _mm256_srlv_epi32(_mm256_slli_epi32::<4>(all), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            let high = _mm256_srlv_epi32(all, _mm256_setr_epi32(4, 5, 6, 7, 8, 9, 10, 11));
            let q = Self::and(q, 15);
            (
                _mm256_or_si256(q.0, _mm256_and_si256(low, one)),
                _mm256_or_si256(q.1, _mm256_and_si256(high, one)),
            )
        }
        fn table[const BITS: u32](scale: &f32, offset: i32, addend: Option<&f32>) -> Self::Table {
            Steps::new(scale, offset, addend)
        }
        fn look_up[const BITS: u32](table: Self::Table, q: Self::Ints) -> Self {
            table.at(Self::and(q, (1 << BITS) - 1))
        }
        fn choose(from: Self, q: Self::Ints) -> Self {
            Self(choose_eight(from, q.0), choose_eight(from, q.1))
        }
        fn shift_right(a: Self::Ints, by: usize) -> Self::Ints {
            let by = _mm_cvtsi32_si128(by as i32);
            (_mm256_srl_epi32(a.0, by), _mm256_srl_epi32(a.1, by))
        }
        fn and(a: Self::Ints, mask: i32) -> Self::Ints {
            let mask = _mm256_set1_epi32(mask);
            (_mm256_and_si256(a.0, mask), _mm256_and_si256(a.1, mask))
        }
        fn add_int(a: Self::Ints, b: i32) -> Self::Ints {
            let b = _mm256_set1_epi32(b);
            (_mm256_add_epi32(a.0, b), _mm256_add_epi32(a.1, b))
        }
        fn floats(a: Self::Ints) -> Self {
            Self(_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1))
        }
    }
}

/// Elements of the sixteen, by the low four bits of each `q`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn choose_eight(from: Avx2, q: __m256i) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (_mm256_permutevar8x32_ps(from.0, q), _mm256_permutevar8x32_ps(from.1, q));
        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(q)))
    }
}

/// One f16. It passes through a general register: loaded into part of a vector register, as the compiler would have it,
/// it waits for what that register held before, which may be a running sum.
///
/// # Safety
/// The CPU has F16C.
#[inline(always)]
pub(super) unsafe fn one_half(bits: u16) -> f32 {
    let mut bits = i32::from(bits);
    // SAFETY: the caller's promise; the assembly has no instruction, it only hides where the bits come from.
    unsafe {
        std::arch::asm!("/* {0:e} */", inout(reg) bits, options(pure, nomem, nostack, preserves_flags));
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
    }
}

/// The first two of four f16.
///
/// # Safety
/// The CPU has F16C; the pointer is valid for eight bytes.
#[inline(always)]
pub(super) unsafe fn two_halves(from: *const u8) -> [f32; 2] {
    let mut out = [0.0; 2];
    // SAFETY: the caller's promise; `out` has eight bytes.
    unsafe {
        let four = _mm_cvtph_ps(_mm_loadl_epi64(from.cast()));
        _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_castps_si128(four));
    }
    out
}

/// The compiler must believe that the assembly reads and writes what lies behind the pointer.
///
/// # Safety
/// None.
#[inline(always)]
pub(super) unsafe fn settle<T>(at: *mut T) {
    // SAFETY: the assembly has no instruction.
    unsafe { std::arch::asm!("/* {0} */", in(reg) at, options(nostack, preserves_flags)) }
}

/// The last three steps of the canonical tree: `i` with `i + 4`, `i + 2`, `i + 1`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn reduce_eight(a: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// The first two steps of the canonical tree: four sums of `a`, then of `b`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn quarters(a: Avx2, b: Avx2) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (_mm256_add_ps(a.0, a.1), _mm256_add_ps(b.0, b.1));
        let low = _mm256_permute2f128_ps::<0x20>(a, b);
        _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(a, b))
    }
}
