//! One 512-bit register.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Vector, avx2, vector_functions};
use crate::format::Bytes;

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

impl Vector for Avx512 {
    const REGISTERS: usize = 32;

    type Ints = __m512i;
    type Table = Self;

    vector_functions! {
        fn splat(x: f32) -> Self {
            Self(_mm512_set1_ps(x))
        }
        fn load(from: *const f32) -> Self {
            Self(_mm512_loadu_ps(from))
        }
        fn store(a: Self, to: *mut f32) {
            _mm512_storeu_ps(to, a.0)
        }
        fn add(a: Self, b: Self) -> Self {
            Self(_mm512_add_ps(a.0, b.0))
        }
        fn mul(a: Self, b: Self) -> Self {
            Self(_mm512_mul_ps(a.0, b.0))
        }
        fn mul_copies(a: Self, b: &f32) -> Self {
            Self(mul_copies(a.0, b))
        }
        fn mul_add_copies(a: Self, b: &f32, c: &f32) -> Self {
            // One fused operation copies only one of two numbers for nothing.
            Self(add_copies(mul_copies(a.0, b), c))
        }
        fn mul_add(a: Self, b: Self, c: Self) -> Self {
            Self(_mm512_fmadd_ps(a.0, b.0, c.0))
        }
        fn reduce(a: Self) -> f32 {
            let halves = _mm256_add_ps(_mm512_castps512_ps256(a.0), _mm512_extractf32x8_ps::<1>(a.0));
            avx2::reduce_eight(halves)
        }
        fn reduce_four(a: [Self; 4]) -> [f32; 4] {
            // Quarters 0 and 2, 1 and 3 of each vector; then the two sums of each, which leaves one quarter for each.
            let (first, second) = (halves(a[0].0, a[1].0), halves(a[2].0, a[3].0));
            let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(first, second);
            let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(first, second);
            let four = _mm512_add_ps(even, odd);
            let two = _mm512_add_ps(four, _mm512_permute_ps::<0b01_00_11_10>(four));
            let one = _mm512_add_ps(two, _mm512_permute_ps::<0b10_11_00_01>(two));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, one)));
            out
        }
        fn prefetch(from: *const u8) {
            _mm_prefetch::<_MM_HINT_T1>(from.cast())
        }
        fn load_f16(from: *const u8) -> Self {
            Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast())))
        }
        fn load_bf16(from: *const u8) -> Self {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
        fn half(bits: u16) -> f32 {
            avx2::one_half(bits)
        }
        fn two_halves(from: *const u8) -> [f32; 2] {
            avx2::two_halves(from)
        }
        fn settle[T](at: *mut T) {
            avx2::settle(at)
        }
        fn unsigned(from: *const u8) -> Self::Ints {
            _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))
        }
        fn signed(from: *const u8) -> Self::Ints {
            _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))
        }
        fn with_fifth(q: Self::Ints, fifth: u16) -> Self::Ints {
            let low = Self::and(q, 15);
            _mm512_mask_or_epi32(low, fifth, low, _mm512_set1_epi32(16))
        }
        fn table[const BITS: u32](scale: &f32, offset: i32, addend: Option<&f32>) -> Self::Table {
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            // Lanes look at four bits of their `q`; what stands above `BITS` changes nothing.
            let q = Self::floats(Self::add_int(Self::and(lanes, (1 << BITS) - 1), offset));
            match addend {
                Some(addend) => Self::mul_add_copies(q, scale, addend),
                None => Self::mul_copies(q, scale),
            }
        }
        fn look_up[const BITS: u32](table: Self::Table, q: Self::Ints) -> Self {
            Self(_mm512_permutexvar_ps(q, table.0))
        }
        fn choose(from: Self, q: Self::Ints) -> Self {
            Self(_mm512_permutexvar_ps(q, from.0))
        }
        fn shift_right(a: Self::Ints, by: usize) -> Self::Ints {
            _mm512_srl_epi32(a, _mm_cvtsi32_si128(by as i32))
        }
        fn shift_bytes(a: Self::Ints, by: usize) -> Self::Ints {
            match by {
                0 => a,
                _ => Self::shift_right(opaque(a), by),
            }
        }
        fn five_bits(low: *const u8, high: *const u8) -> Bytes {
            let mut out = [_mm512_setzero_si512(); 4];
            let mut highs = _mm512_rol_epi32::<4>(twice(high, 1));
            for part in 0..4 {
                let bits = select(_mm512_set1_epi8(15), twice(low.add(32 * part), 4), highs);
                out[part] = _mm512_and_si512(bits, _mm512_set1_epi8(31));
                highs = _mm512_ror_epi32::<2>(highs);
            }
            std::mem::transmute::<[__m512i; 4], Bytes>(out)
        }
        fn and(a: Self::Ints, mask: i32) -> Self::Ints {
            _mm512_and_si512(a, _mm512_set1_epi32(mask))
        }
        fn add_int(a: Self::Ints, b: i32) -> Self::Ints {
            _mm512_add_epi32(a, _mm512_set1_epi32(b))
        }
        fn floats(a: Self::Ints) -> Self {
            Self(_mm512_cvtepi32_ps(a))
        }
    }
}

/// `a` times copies of `b`, which come from memory for nothing: the compiler would load neighbours together and copy them
/// with shuffles, of which there are too many.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn mul_copies(a: __m512, b: &f32) -> __m512 {
    let product;
    // SAFETY: the assembly reads what `b` refers to.
    unsafe {
        asm!("vmulps {0}, {1}, dword ptr [{2}]{{1to16}}", out(zmm_reg) product, in(zmm_reg) a, in(reg) b,
            options(pure, readonly, nostack, preserves_flags));
    }
    product
}

/// `a` plus copies of `b`, as [`mul_copies`].
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_copies(a: __m512, b: &f32) -> __m512 {
    let sum;
    // SAFETY: the assembly reads what `b` refers to.
    unsafe {
        asm!("vaddps {0}, {1}, dword ptr [{2}]{{1to16}}", out(zmm_reg) sum, in(zmm_reg) a, in(reg) b,
            options(pure, readonly, nostack, preserves_flags));
    }
    sum
}

/// Bits of `low` where `mask` has ones, of `high` elsewhere.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn select(mask: __m512i, low: __m512i, high: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_ternarylogic_epi64::<0xe4>(low, high, mask) }
}

/// 32 bytes, twice, each word of the second half shifted right by `by`.
///
/// # Safety
/// The CPU has AVX-512 BW; 32 bytes from `from` are readable.
#[inline(always)]
unsafe fn twice(from: *const u8, by: i64) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(from.cast()));
        let by = by * 0x0001_0001_0001_0001;
        _mm512_srlv_epi16(both, _mm512_setr_epi64(0, 0, 0, 0, by, by, by, by))
    }
}

/// The same value, of which the compiler knows nothing: it would shift bytes before they are widened, and widen them twice.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn opaque(mut a: __m512i) -> __m512i {
    // SAFETY: the assembly has no instruction.
    unsafe { asm!("/* {0} */", inout(zmm_reg) a, options(pure, nomem, nostack, preserves_flags)) };
    a
}

/// The sums of the halves of `a`, then of `b`.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn halves(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
        _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b))
    }
}
