//! Four 128-bit registers: lanes 0 to 3, 4 to 7, 8 to 11, 12 to 15. Little-endian aarch64 only.

use std::arch::aarch64::*;

use half::f16;

use super::{Steps, Vector, vector_functions};

#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 4]);

impl Vector for Neon {
    const REGISTERS: usize = 8;

    type Ints = [int32x4_t; 4];
    type Table = Steps<Self>;

    vector_functions! {
        fn splat(x: f32) -> Self {
            Self([vdupq_n_f32(x); 4])
        }
        fn load(from: *const f32) -> Self {
            Self([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))])
        }
        fn store(a: Self, to: *mut f32) {
            for i in 0..4 {
                vst1q_f32(to.add(4 * i), a.0[i]);
            }
        }
        fn add(a: Self, b: Self) -> Self {
            let (a, b) = (a.0, b.0);
            Self([vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])])
        }
        fn mul(a: Self, b: Self) -> Self {
            let (a, b) = (a.0, b.0);
            Self([vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1]), vmulq_f32(a[2], b[2]), vmulq_f32(a[3], b[3])])
        }
        fn mul_add(a: Self, b: Self, c: Self) -> Self {
            let mut sum = c.0;
            for i in 0..4 {
                sum[i] = vfmaq_f32(sum[i], a.0[i], b.0[i]);
            }
            Self(sum)
        }
        fn reduce(a: Self) -> f32 {
            // `i` with `i + 8` and `i + 4`, lane by lane, then `i + 2` and `i + 1`.
            let four = vaddq_f32(vaddq_f32(a.0[0], a.0[2]), vaddq_f32(a.0[1], a.0[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
        fn reduce_four(a: [Self; 4]) -> [f32; 4] {
            [Self::reduce(a[0]), Self::reduce(a[1]), Self::reduce(a[2]), Self::reduce(a[3])]
        }
        fn prefetch(from: *const u8) {
            std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) from, options(readonly, nostack, preserves_flags))
        }
        fn load_f16(from: *const u8) -> Self {
            Self([
                four_halves(from),
                four_halves(from.add(8)),
                four_halves(from.add(16)),
                four_halves(from.add(24)),
            ])
        }
        fn load_bf16(from: *const u8) -> Self {
            let mut all = [vdupq_n_f32(0.0); 4];
            for i in 0..4 {
                let four = vld1_u16(from.add(8 * i).cast());
                all[i] = vreinterpretq_f32_u32(vshll_n_u16::<16>(four));
            }
            Self(all)
        }
        fn half(bits: u16) -> f32 {
            f16::from_bits(bits).to_f32()
        }
        fn two_halves(from: *const u8) -> [f32; 2] {
            let four = four_halves(from);
            [vgetq_lane_f32::<0>(four), vgetq_lane_f32::<1>(four)]
        }
        fn settle[T](_at: *mut T) {}
        fn unsigned(from: *const u8) -> Self::Ints {
            let bytes = vld1q_u8(from);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
                vreinterpretq_s32_u32(vmovl_high_u16(low)),
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
                vreinterpretq_s32_u32(vmovl_high_u16(high)),
            ]
        }
        fn signed(from: *const u8) -> Self::Ints {
            let bytes = vld1q_s8(from.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        }
        fn with_fifth(q: Self::Ints, fifth: u16) -> Self::Ints {
            // Bit `i` moves to bit 4: up by `4 - i`, which is down where it is negative.
            let all = vdupq_n_s32(i32::from(fifth));
            let mut out = Self::and(q, 15);
            for i in 0..4 {
                let first = 4 - 4 * i as i32;
                let by = [first, first - 1, first - 2, first - 3];
                let bits = vshlq_s32(all, vld1q_s32(by.as_ptr()));
                out[i] = vorrq_s32(out[i], vandq_s32(bits, vdupq_n_s32(16)));
            }
            out
        }
        fn table[const BITS: u32](scale: &f32, offset: i32, addend: Option<&f32>) -> Self::Table {
            Steps::new(scale, offset, addend)
        }
        fn look_up[const BITS: u32](table: Self::Table, q: Self::Ints) -> Self {
            table.at(Self::and(q, (1 << BITS) - 1))
        }
        fn choose(from: Self, q: Self::Ints) -> Self {
            let [a, b, c, d] = from.0;
            let bytes = uint8x16x4_t(
                vreinterpretq_u8_f32(a),
                vreinterpretq_u8_f32(b),
                vreinterpretq_u8_f32(c),
                vreinterpretq_u8_f32(d),
            );
            let mut out = from.0;
            for i in 0..4 {
                // The four bytes of element `q`.
                let first = vmulq_n_s32(vandq_s32(q[i], vdupq_n_s32(15)), 0x0404_0404);
                let at = vreinterpretq_u8_s32(vaddq_s32(first, vdupq_n_s32(0x0302_0100)));
                out[i] = vreinterpretq_f32_u8(vqtbl4q_u8(bytes, at));
            }
            Self(out)
        }
        fn shift_right(a: Self::Ints, by: usize) -> Self::Ints {
            let (mut out, by) = (a, vdupq_n_s32(-(by as i32)));
            for i in 0..4 {
                out[i] = vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[i]), by));
            }
            out
        }
        fn and(a: Self::Ints, mask: i32) -> Self::Ints {
            let m = vdupq_n_s32(mask);
            [vandq_s32(a[0], m), vandq_s32(a[1], m), vandq_s32(a[2], m), vandq_s32(a[3], m)]
        }
        fn add_int(a: Self::Ints, b: i32) -> Self::Ints {
            let b = vdupq_n_s32(b);
            [vaddq_s32(a[0], b), vaddq_s32(a[1], b), vaddq_s32(a[2], b), vaddq_s32(a[3], b)]
        }
        fn floats(a: Self::Ints) -> Self {
            Self([vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1]), vcvtq_f32_s32(a[2]), vcvtq_f32_s32(a[3])])
        }
    }
}

/// Four f16. The intrinsics take a type that is not stable, so the instruction is written out.
///
/// # Safety
/// The CPU has NEON; the pointer is valid for eight bytes.
#[inline(always)]
unsafe fn four_halves(from: *const u8) -> float32x4_t {
    let four: float32x4_t;
    // SAFETY: the caller's promise; converting has no effect but its result.
    unsafe {
        let halves = vld1_u16(from.cast());
        std::arch::asm!(
            "fcvtl {out:v}.4s, {halves:v}.4h",
            out = lateout(vreg) four,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    four
}
