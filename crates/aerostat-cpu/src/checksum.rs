//! CRC-32C, twice as fast as the processor's own instruction, where products of polynomials come in 512 bits.

use crate::isa::Token;

/// The checksum of some bytes.
pub(crate) fn crc32c(token: Token, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if token.isa() == crate::isa::Isa::Avx512 && is_x86_feature_detected!("vpclmulqdq") {
        // SAFETY: the instructions exist.
        return unsafe { x86::crc32c(bytes) };
    }
    let _ = token;
    ::crc32c::crc32c(bytes)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Bytes that are folded together: four registers, so that products do not wait for each other.
    const RUN: usize = 256;
    /// What the two halves of 128 bits are multiplied with to stand [`RUN`] bytes further on.
    const FACTORS: [u64; 2] = [power(8 * RUN + 32), power(8 * RUN - 32)];

    /// `x` to the power of `n`, modulo the polynomial, lowest bit first and shifted as products of such numbers want it.
    const fn power(n: usize) -> u64 {
        let (mut value, mut i) = (1u32 << 31, 0);
        while i < n {
            value = (value >> 1) ^ if value & 1 == 1 { 0x82f6_3b78 } else { 0 };
            i += 1;
        }
        (value as u64) << 1
    }

    /// Folds runs into one that has the same remainder, and leaves that and what follows to the instruction.
    ///
    /// # Safety
    /// The instructions exist.
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) unsafe fn crc32c(bytes: &[u8]) -> u32 {
        let (runs, rest) = bytes.as_chunks::<RUN>();
        let Some((first, runs)) = runs.split_first() else { return ::crc32c::crc32c(bytes) };
        let mut folded = [0u8; RUN];
        // SAFETY: a run is four registers.
        unsafe {
            let load = |run: &[u8; RUN], i: usize| _mm512_loadu_si512(run.as_ptr().add(64 * i).cast());
            let [low, high] = FACTORS.map(|factor| factor as i64);
            let factors = _mm512_setr_epi64(low, high, low, high, low, high, low, high);
            let mut all = [load(first, 0), load(first, 1), load(first, 2), load(first, 3)];
            // The register starts with ones.
            all[0] = _mm512_xor_si512(all[0], _mm512_setr_epi64(0xffff_ffff, 0, 0, 0, 0, 0, 0, 0));
            for run in runs {
                for i in 0..4 {
                    let low = _mm512_clmulepi64_epi128::<0x00>(all[i], factors);
                    let high = _mm512_clmulepi64_epi128::<0x11>(all[i], factors);
                    all[i] = _mm512_ternarylogic_epi64::<0x96>(low, high, load(run, i));
                }
            }
            for i in 0..4 {
                _mm512_storeu_si512(folded.as_mut_ptr().add(64 * i).cast(), all[i]);
            }
        }
        // All ones in, so that the register starts with zeros: its ones are part of the first run.
        ::crc32c::crc32c_append(::crc32c::crc32c_append(u32::MAX, &folded), rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn every_length_gives_the_checksum_of_the_library() {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for isa in Isa::available() {
            let token = Token::require(isa).unwrap();
            for start in [0, 1, 64] {
                for end in start..bytes.len() {
                    let part = &bytes[start..end];
                    assert_eq!(crc32c(token, part), ::crc32c::crc32c(part), "{start}..{end} on {isa}");
                }
            }
        }
    }
}
