//! Sixteen f32 in registers: the small vector trait that all kernels are written over, and its instances.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub(crate) mod neon;
mod portable;

pub(crate) use portable::Portable;

use crate::format::{self, Bytes};

/// Elements of a vector: the lanes of a canonical sum.
pub(crate) const LANES: usize = aerostat_backend::numerics::LANES;

/// Sixteen f32 and what kernels do with them. Arithmetic is IEEE, round to nearest even, without contraction.
///
/// # Safety
/// Every function needs the instructions of its implementation, which hold beneath
/// [`Token::enter`](crate::isa::Token::enter). Pointers need no alignment; they must be valid for 16 elements of the
/// named type. Implementations are `#[inline(always)]` without a `target_feature` of their own: they take on the
/// caller's. For the same reason kernels do not pass closures.
pub(crate) trait Vector: Copy {
    /// How many of these the registers hold.
    const REGISTERS: usize;
    /// Sixteen i32.
    type Ints: Copy;
    /// What `scale * (q + offset) + addend` is for each small `q`.
    type Table: Copy;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(a: Self, to: *mut f32);
    unsafe fn add(a: Self, b: Self) -> Self;
    unsafe fn mul(a: Self, b: Self) -> Self;
    /// `a` times a number in memory.
    #[inline(always)]
    unsafe fn mul_copies(a: Self, b: &f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::mul(a, Self::splat(*b)) }
    }
    /// `a` times a number in memory, plus another; the product is exact.
    #[inline(always)]
    unsafe fn mul_add_copies(a: Self, b: &f32, c: &f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::mul_add(a, Self::splat(*b), Self::splat(*c)) }
    }
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self, b: Self, c: Self) -> Self;
    /// Adds the lanes as `numerics::reduce` does.
    unsafe fn reduce(a: Self) -> f32;
    /// [`reduce`](Self::reduce) of four vectors.
    unsafe fn reduce_four(a: [Self; 4]) -> [f32; 4];

    /// Asks for the cache line at an address, which need not be valid.
    unsafe fn prefetch(from: *const u8);

    /// Sixteen f16.
    unsafe fn load_f16(from: *const u8) -> Self;
    /// Sixteen bf16.
    unsafe fn load_bf16(from: *const u8) -> Self;
    /// One f16.
    unsafe fn half(bits: u16) -> f32;
    /// The first two of four f16.
    unsafe fn two_halves(from: *const u8) -> [f32; 2];
    /// Brings what lies behind a pointer to memory. From there a value is copied to all lanes for nothing, from a register
    /// by a shuffle, of which there are too many.
    unsafe fn settle<T>(at: *mut T);

    /// Sixteen u8.
    unsafe fn unsigned(from: *const u8) -> Self::Ints;
    /// Sixteen i8.
    unsafe fn signed(from: *const u8) -> Self::Ints;
    /// The low four bits of each `q`, and a fifth.
    unsafe fn with_fifth(q: Self::Ints, fifth: u16) -> Self::Ints;
    /// `q` has up to four `BITS`. `scale * (q + offset)` is exact, adding is rounded; `None` adds nothing.
    unsafe fn table<const BITS: u32>(scale: &f32, offset: i32, addend: Option<&f32>) -> Self::Table;
    /// Of each `q` only the low `BITS` count.
    unsafe fn look_up<const BITS: u32>(table: Self::Table, q: Self::Ints) -> Self;
    /// Element `q` of the sixteen for each `q`, of which only the low four bits count.
    unsafe fn choose(from: Self, q: Self::Ints) -> Self;
    /// Logical shift; `by` is below 32.
    unsafe fn shift_right(a: Self::Ints, by: usize) -> Self::Ints;
    /// The same for `a` below 256 and `by` below 8; what stands above the eight bits may be anything.
    #[inline(always)]
    unsafe fn shift_bytes(a: Self::Ints, by: usize) -> Self::Ints {
        // SAFETY: the caller's promise.
        unsafe { Self::shift_right(a, by) }
    }
    /// The elements of a block of Q5_K before they are scaled, from 128 bytes and 32.
    #[inline(always)]
    unsafe fn five_bits(low: *const u8, high: *const u8) -> Bytes {
        // SAFETY: the caller's promise.
        unsafe { format::five_bits(&*low.cast(), &*high.cast()) }
    }
    unsafe fn and(a: Self::Ints, mask: i32) -> Self::Ints;
    unsafe fn add_int(a: Self::Ints, b: i32) -> Self::Ints;
    unsafe fn floats(a: Self::Ints) -> Self;
}

/// The first `len` of 16 elements, the others `fill`.
///
/// # Safety
/// As [`Vector`]; `from` is valid for `len ≤ 16` elements.
#[inline(always)]
pub(crate) unsafe fn load_part<V: Vector>(from: *const f32, len: usize, fill: f32) -> V {
    if len == LANES {
        // SAFETY: the caller's promise.
        return unsafe { V::load(from) };
    }
    let mut all = [fill; LANES];
    // SAFETY: the caller's promise; `all` has 16 elements.
    unsafe {
        std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), len);
        V::load(all.as_ptr())
    }
}

/// Stores the first `len` of 16 elements.
///
/// # Safety
/// As [`Vector`]; `to` is valid for `len ≤ 16` elements.
#[inline(always)]
pub(crate) unsafe fn store_part<V: Vector>(a: V, to: *mut f32, len: usize) {
    if len == LANES {
        // SAFETY: the caller's promise.
        return unsafe { V::store(a, to) };
    }
    let mut all = [0.0; LANES];
    // SAFETY: the caller's promise; `all` has 16 elements.
    unsafe {
        V::store(a, all.as_mut_ptr());
        std::ptr::copy_nonoverlapping(all.as_ptr(), to, len);
    }
}

/// Tables for instruction sets that compute what they would hold: the factor, the offset and the summand.
#[derive(Clone, Copy)]
pub(crate) struct Steps<V> {
    scale: V,
    offset: i32,
    addend: Option<V>,
}

impl<V: Vector> Steps<V> {
    /// # Safety
    /// As [`Vector`].
    #[inline(always)]
    #[allow(clippy::manual_map, reason = "a closure would not take on the caller's instructions")]
    unsafe fn new(scale: &f32, offset: i32, addend: Option<&f32>) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let addend = match addend {
                Some(addend) => Some(V::splat(*addend)),
                None => None,
            };
            Self { scale: V::splat(*scale), offset, addend }
        }
    }

    /// # Safety
    /// As [`Vector`].
    #[inline(always)]
    unsafe fn at(self, q: V::Ints) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let q = if self.offset == 0 { q } else { V::add_int(q, self.offset) };
            match self.addend {
                Some(addend) => V::mul_add(self.scale, V::floats(q), addend),
                None => V::mul(self.scale, V::floats(q)),
            }
        }
    }
}

/// Writes the functions of a [`Vector`] instance.
///
/// # Safety
/// The promise of the trait.
macro_rules! vector_functions {
    ($(fn $name:ident$([$($generic:tt)*])?($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            unsafe fn $name$(<$($generic)*>)?($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the promise of the trait: the instructions exist, pointers are valid for 16 elements.
                #[allow(unused_unsafe, reason = "some bodies are plain Rust")]
                unsafe { $body }
            }
        )*
    };
}
pub(crate) use vector_functions;
