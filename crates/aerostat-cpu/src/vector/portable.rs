//! Plain Rust, for every target.

use half::{bf16, f16};

use super::{LANES, Steps, Vector, vector_functions};

#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Vector for Portable {
    const REGISTERS: usize = 4;

    type Ints = [i32; LANES];
    type Table = Steps<Self>;

    vector_functions! {
        fn splat(x: f32) -> Self {
            Self([x; LANES])
        }
        fn load(from: *const f32) -> Self {
            Self(from.cast::<[f32; LANES]>().read_unaligned())
        }
        fn store(a: Self, to: *mut f32) {
            to.cast::<[f32; LANES]>().write_unaligned(a.0)
        }
        fn add(a: Self, b: Self) -> Self {
            Self(std::array::from_fn(|i| a.0[i] + b.0[i]))
        }
        fn mul(a: Self, b: Self) -> Self {
            Self(std::array::from_fn(|i| a.0[i] * b.0[i]))
        }
        fn mul_add(a: Self, b: Self, c: Self) -> Self {
            Self(mul_add(&a.0, &b.0, &c.0))
        }
        fn reduce(a: Self) -> f32 {
            aerostat_backend::numerics::reduce(a.0)
        }
        fn reduce_four(a: [Self; 4]) -> [f32; 4] {
            a.map(|a| aerostat_backend::numerics::reduce(a.0))
        }
        fn prefetch(_from: *const u8) {}
        fn load_f16(from: *const u8) -> Self {
            let halves = from.cast::<[u16; LANES]>().read_unaligned();
            Self(halves.map(|h| f16::from_bits(u16::from_le(h)).to_f32()))
        }
        fn load_bf16(from: *const u8) -> Self {
            let halves = from.cast::<[u16; LANES]>().read_unaligned();
            Self(halves.map(|h| bf16::from_bits(u16::from_le(h)).to_f32()))
        }
        fn half(bits: u16) -> f32 {
            f16::from_bits(bits).to_f32()
        }
        fn two_halves(from: *const u8) -> [f32; 2] {
            let halves = from.cast::<[u16; 2]>().read_unaligned();
            halves.map(|h| f16::from_bits(u16::from_le(h)).to_f32())
        }
        fn settle[T](_at: *mut T) {}
        fn unsigned(from: *const u8) -> Self::Ints {
            from.cast::<[u8; LANES]>().read_unaligned().map(i32::from)
        }
        fn signed(from: *const u8) -> Self::Ints {
            from.cast::<[i8; LANES]>().read_unaligned().map(i32::from)
        }
        fn with_fifth(q: Self::Ints, fifth: u16) -> Self::Ints {
            std::array::from_fn(|i| q[i] & 15 | i32::from(fifth >> i & 1) << 4)
        }
        fn table[const BITS: u32](scale: &f32, offset: i32, addend: Option<&f32>) -> Self::Table {
            Steps::new(scale, offset, addend)
        }
        fn look_up[const BITS: u32](table: Self::Table, q: Self::Ints) -> Self {
            table.at(Self::and(q, (1 << BITS) - 1))
        }
        fn choose(from: Self, q: Self::Ints) -> Self {
            Self(q.map(|q| from.0[q as usize % LANES]))
        }
        fn shift_right(a: Self::Ints, by: usize) -> Self::Ints {
            a.map(|a| (a as u32 >> by) as i32)
        }
        fn and(a: Self::Ints, mask: i32) -> Self::Ints {
            a.map(|a| a & mask)
        }
        fn add_int(a: Self::Ints, b: i32) -> Self::Ints {
            a.map(|a| a + b)
        }
        fn floats(a: Self::Ints) -> Self {
            Self(a.map(|a| a as f32))
        }
    }
}

/// Out of line where it is sixteen calls of a library function.
#[cfg_attr(any(target_feature = "fma", target_arch = "aarch64"), inline(always))]
#[cfg_attr(not(any(target_feature = "fma", target_arch = "aarch64")), inline(never))]
fn mul_add(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
}
