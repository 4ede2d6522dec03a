//! Instruction sets, and the one place where kernels are dispatched to them.

use std::fmt;
use std::str::FromStr;

use aerostat_backend::{Error, ErrorKind};

use crate::vector::{Portable, Vector};
#[cfg(target_arch = "x86_64")]
use crate::vector::{avx2::Avx2, avx512::Avx512};

/// An instruction set that the kernels are compiled for. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What the compiler's target has; runs everywhere.
    Portable,
    /// aarch64 with Advanced SIMD, little-endian.
    Neon,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL and DQ besides.
    Avx512,
}

const ALL: [Isa; 4] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512];

impl Isa {
    /// The widest instruction set that this CPU has.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// The instruction sets that this CPU has, narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        ALL.into_iter().filter(|isa| isa.is_available())
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        match self {
            Self::Portable => true,
            Self::Neon => false,
            Self::Avx2 => avx2,
            Self::Avx512 => avx2 && avx512,
        }
    }

    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let message =
                format!("unknown instruction set {name:?}; known are portable, neon, avx2 and avx512");
            Error::new(ErrorKind::Unsupported, message)
        })
    }
}

/// Proof that the CPU has an instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Token(Isa);

/// A piece of work that is compiled once for each instruction set.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Does the work, by tiles of `M` weight rows × `N` activation rows where it multiplies matrices.
    /// Implementations are `#[inline(always)]`, so that they take on the instruction set of their caller.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`; the kernel's pointers are valid for what its documentation says.
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) -> Self::Output;
}

impl Token {
    /// The proof, if it holds.
    pub(crate) fn require(isa: Isa) -> Result<Self, Error> {
        isa.is_available().then_some(Self(isa)).ok_or_else(|| {
            let message = format!("this CPU lacks {isa}; the widest it has is {}", Isa::detect());
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    pub(crate) fn isa(self) -> Isa {
        self.0
    }

    /// Up to this many activation rows are worth multiplying without a panel (measured on Zen 4); expanding `blocks`
    /// again for each tile of rows is dearer than plain formats.
    pub(crate) fn direct_rows_max(self, blocks: bool) -> usize {
        match (self.0, blocks) {
            (Isa::Avx512, false) => usize::MAX,
            (Isa::Avx512, true) => 12,
            _ => 1,
        }
    }

    /// Runs a kernel.
    ///
    /// # Safety
    /// The kernel's pointers are valid for what its documentation says.
    pub(crate) unsafe fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: a token is made only after detection; the pointers are the caller's promise.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { enter_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { enter_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Isa::Neon => unsafe { enter_neon(kernel) },
            // SAFETY: needs no instructions of its own; the pointers are the caller's promise.
            _ => unsafe { kernel.run::<Portable, 2, 2>() },
        }
    }
}

/// 24 accumulators, 4 activations and a weight fill the 32 registers.
///
/// # Safety
/// As [`Token::enter`]; the instructions exist.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
unsafe fn enter_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise, passed on.
    unsafe { kernel.run::<Avx512, 6, 4>() }
}

/// A vector is two registers here: 12 registers of accumulators, and three for one half of activations and a weight.
///
/// # Safety
/// As [`Token::enter`]; the instructions exist.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn enter_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise, passed on.
    unsafe { kernel.run::<Avx2, 3, 2>() }
}

/// A vector is four of 32 registers here: 24 of accumulators, as many as leave room for activations and a weight.
///
/// # Safety
/// As [`Token::enter`]; the instructions exist.
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
#[target_feature(enable = "neon")]
unsafe fn enter_neon<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's promise, passed on.
    unsafe { kernel.run::<crate::vector::neon::Neon, 3, 2>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for isa in ALL {
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
        assert_eq!("sse9".parse::<Isa>().unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn detection_picks_an_available_set() {
        assert!(Isa::available().any(|isa| isa == Isa::detect()));
        assert!(Isa::available().any(|isa| isa == Isa::Portable));
    }
}
