//! BF16 with coded exponents.
//!
//! Of the sixteen bits of a weight, sign and mantissa are as good as random, and the exponent carries 2.6 bits. An
//! exponent is one of thirteen symbols, or raw: two bits for each element say one of the three likeliest, or that it is
//! another; two bits for each of those say one of the next three, or another; three bits for each of those say one of
//! the next seven, or that the exponent stands in a list of bytes. All bits lie in planes of up to 64, so that a level
//! deposits its bits where the level above left ones (`pdep`), and the sum of the levels is the symbol's number.
//!
//! A group is `level 2 bytes u32, level 3 bytes u32, raw bytes u32, 0 u32`, then for each block of 64 elements a byte of
//! sign and mantissa each, then for each block two words of 64 bits: the planes of level 1; then the bits of level 2
//! (block by block its low plane, then its high one) in whole bytes, those of level 3 (three planes), and the raw
//! exponents. A last block that is not full is filled up with +0 mantissas and the likeliest exponent.

use super::{corrupt, word};
use crate::Error;

/// Elements of a block.
pub const BLOCK_LEN: usize = 64;
/// Bytes before the mantissas.
pub const GROUP_HEADER_BYTES: usize = 16;
/// Symbols that stand for an exponent.
pub const SYMBOLS: usize = 13;
/// The symbol of an exponent that stands in the list.
pub const RAW: u8 = SYMBOLS as u8;

/// Which element of a block byte `at` of its planes belongs to. Registers are unpacked by halves of 16 bytes: with this
/// order what comes out lies in the order of elements.
#[inline(always)]
pub const fn element(at: usize) -> usize {
    let (lane, within) = (at / 16, at % 16);
    if within < 8 { 8 * lane + within } else { 24 + 8 * lane + within }
}

/// The thirteen commonest exponents of BF16 bytes, the commonest first; of equals the smaller.
pub fn palette(bytes: &[u8]) -> [u8; 16] {
    let mut counts = [0u32; 256];
    for pair in bytes.as_chunks::<2>().0 {
        counts[usize::from(exponent(*pair))] += 1;
    }
    let mut order: Vec<u8> = (0..=255).collect();
    order.sort_by_key(|&e| std::cmp::Reverse(counts[usize::from(e)]));
    let mut palette = [0; 16];
    palette[..SYMBOLS].copy_from_slice(&order[..SYMBOLS]);
    palette
}

/// Appends a group of BF16 to `out`.
pub fn code(palette: &[u8; 16], bytes: &[u8], out: &mut Vec<u8>) {
    let mut symbols = [RAW; 256];
    for (symbol, &e) in palette[..SYMBOLS].iter().enumerate().rev() {
        symbols[usize::from(e)] = symbol as u8;
    }
    let pairs = bytes.as_chunks::<2>().0;
    let blocks = pairs.len().div_ceil(BLOCK_LEN);
    let header = out.len();
    out.resize(header + GROUP_HEADER_BYTES, 0);
    let mut planes = Vec::with_capacity(16 * blocks);
    let (mut second, mut third, mut raw) = (BitWriter::default(), BitWriter::default(), Vec::new());
    let filler = [palette[0] << 7, palette[0] >> 1];
    for block in pairs.chunks(BLOCK_LEN) {
        let mut of = [0u8; BLOCK_LEN];
        for (at, symbol) in of.iter_mut().enumerate() {
            let pair = block.get(element(at)).copied().unwrap_or(filler);
            *symbol = symbols[usize::from(exponent(pair))];
            out.push((pair[0] << 1) | (pair[1] >> 7));
            if *symbol == RAW {
                raw.push(exponent(pair));
            }
        }
        let levels = Levels::of(&of);
        levels.first.iter().for_each(|plane| planes.extend_from_slice(&plane.to_le_bytes()));
        levels.second.iter().for_each(|&plane| second.push(plane, levels.seconds));
        levels.third.iter().for_each(|&plane| third.push(plane, levels.thirds));
    }
    let (second, third) = (second.finish(), third.finish());
    for (i, length) in [second.len(), third.len(), raw.len(), 0].into_iter().enumerate() {
        super::put(out, header + 4 * i, length as u32);
    }
    for part in [&planes, &second, &third, &raw] {
        out.extend_from_slice(part);
    }
}

/// The planes of a block's symbols.
#[derive(Default)]
struct Levels {
    first: [u64; 2],
    second: [u64; 2],
    seconds: u32,
    third: [u64; 3],
    thirds: u32,
}

impl Levels {
    /// Without branches, which nobody could predict.
    fn of(symbols: &[u8; BLOCK_LEN]) -> Self {
        let mut levels = Self::default();
        for (at, &symbol) in symbols.iter().enumerate() {
            let (a, is_second, is_third) = (symbol.min(3), symbol >= 3, symbol >= 6);
            let b = symbol.saturating_sub(3).min(3);
            let c = symbol.saturating_sub(6).min(7);
            for (bit, plane) in levels.first.iter_mut().enumerate() {
                *plane |= u64::from(a >> bit & 1) << at;
            }
            // Where a level has no bits, what would be set is 0.
            for (bit, plane) in levels.second.iter_mut().enumerate() {
                *plane |= u64::from(b >> bit & 1) << (levels.seconds & 63);
            }
            for (bit, plane) in levels.third.iter_mut().enumerate() {
                *plane |= u64::from(c >> bit & 1) << (levels.thirds & 63);
            }
            levels.seconds += u32::from(is_second);
            levels.thirds += u32::from(is_third);
        }
        levels
    }
}

/// The parts of a group of `len` elements.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Sign and mantissa, `mantissa * 2 + sign`; as many as planes have elements.
    pub mantissas: &'a [u8],
    /// Sixteen bytes for each block.
    pub planes: &'a [u8],
    /// Bits.
    pub second: &'a [u8],
    /// Bits.
    pub third: &'a [u8],
    /// Exponents.
    pub raw: &'a [u8],
}

/// Finds the parts of a group of `len` elements.
///
/// # Errors
/// `Corrupt`.
pub fn parts(bytes: &[u8], len: usize) -> Result<Parts<'_>, Error> {
    let short = || corrupt("a group is shorter than its parts");
    let (header, rest) = bytes.split_at_checked(GROUP_HEADER_BYTES).ok_or_else(short)?;
    let blocks = len.div_ceil(BLOCK_LEN);
    let (mantissas, rest) = rest.split_at_checked(blocks * BLOCK_LEN).ok_or_else(short)?;
    let (planes, rest) = rest.split_at_checked(blocks * 16).ok_or_else(short)?;
    let (second, rest) = rest.split_at_checked(word(header, 0) as usize).ok_or_else(short)?;
    let (third, rest) = rest.split_at_checked(word(header, 4) as usize).ok_or_else(short)?;
    let raw = rest.get(..word(header, 8) as usize).ok_or_else(short)?;
    Ok(Parts { mantissas, planes, second, third, raw })
}

/// Appends the `len` elements of a group to `out` as BF16, in the plainest way.
///
/// # Errors
/// `Corrupt`: a part ends early.
pub fn expand(palette: &[u8; 16], bytes: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    let parts = parts(bytes, len)?;
    let (mut second, mut third) =
        (BitReader { bytes: parts.second, at: 0 }, BitReader { bytes: parts.third, at: 0 });
    let mut raw = parts.raw.iter();
    let end = out.len() + 2 * len;
    for (mantissas, planes) in parts.mantissas.chunks(BLOCK_LEN).zip(parts.planes.chunks(16)) {
        let mut of = [0u8; BLOCK_LEN];
        let bit = |plane: usize, at: usize| planes[8 * plane + at / 8] >> (at % 8) & 1;
        for (at, symbol) in of.iter_mut().enumerate() {
            *symbol = bit(0, at) + 2 * bit(1, at);
        }
        for (bits, first, width) in [(&mut second, 3, 2), (&mut third, 6, 3)] {
            let level = of.map(|symbol| symbol == first);
            for bit in 0..width {
                for (symbol, _) in of.iter_mut().zip(level).filter(|(_, of_level)| *of_level) {
                    *symbol += bits.next().ok_or_else(|| corrupt("a group has too few bits"))? << bit;
                }
            }
        }
        let mut block = [[0; 2]; BLOCK_LEN];
        for (at, (&symbol, &mantissa)) in of.iter().zip(mantissas).enumerate() {
            let e = match symbol {
                RAW => *raw.next().ok_or_else(|| corrupt("a group has too few exponents"))?,
                _ => palette[usize::from(symbol)],
            };
            block[element(at)] = [(mantissa >> 1) | (e << 7), (e >> 1) | (mantissa << 7)];
        }
        out.extend(block.as_flattened());
    }
    out.truncate(end);
    Ok(())
}

#[inline(always)]
fn exponent(pair: [u8; 2]) -> u8 {
    (pair[1] << 1) | (pair[0] >> 7)
}

/// Bits to bytes, the lowest first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Fewer than eight bits that are not written yet.
    held: u128,
    count: u32,
}

impl BitWriter {
    /// Writes the low `count` bits, above which there are none.
    fn push(&mut self, bits: u64, count: u32) {
        self.held |= u128::from(bits) << self.count;
        self.count += count;
        let whole = self.count / 8;
        self.bytes.extend(self.held.to_le_bytes().iter().take(whole as usize));
        self.held >>= 8 * whole;
        self.count %= 8;
    }

    fn finish(mut self) -> Vec<u8> {
        let rest = if self.count > 0 { 8 - self.count } else { 0 };
        self.push(0, rest);
        self.bytes
    }
}

/// Bits out of bytes, the lowest first.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn next(&mut self) -> Option<u8> {
        let bit = self.bytes.get(self.at / 8)? >> (self.at % 8) & 1;
        self.at += 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_planes_is_a_permutation() {
        let mut seen = [false; BLOCK_LEN];
        (0..BLOCK_LEN).for_each(|at| seen[element(at)] = true);
        assert_eq!(seen, [true; BLOCK_LEN]);
    }
}
