//! Weights with coded exponents.
//!
//! Sign and mantissa of a weight are as good as random, and the exponent carries 2.6 bits, whatever it is stored in. An
//! exponent is one of thirteen symbols, or raw: two bits for each element say one of the three likeliest, or that it is
//! another; two bits for each of those say one of the next three, or another; three bits for each of those say one of
//! the next seven, or that the exponent stands in a list of bytes. All bits lie in planes of up to 64, so that a level
//! deposits its bits where the level above left ones (`pdep`), and the sum of the levels is the symbol's number.
//!
//! What an exponent stands in is one byte of an element ([`Split`]). Its other bits, if it has some, lie in planes of 64
//! bits, one plane for each; the other byte of a format of two is stored as it is.
//!
//! A group is `level 2 bytes u32, level 3 bytes u32, raw bytes u32, 0 u32`; then for each block of 64 elements the bytes
//! that are stored as they are; then for each block two words of 64 bits, the planes of level 1, and one for each other
//! bit of the coded byte; then the bits of level 2 (block by block its low plane, then its high one) in whole bytes, those
//! of level 3 (three planes), and the raw exponents. A last block that is not full is filled up with the likeliest
//! exponent and zeros.

use aerostat_checkpoint::DType;

use super::bytes::{corrupt, put, word};
use crate::Error;

/// Elements of a block.
pub const BLOCK_LEN: usize = 64;
/// Bytes before the bytes that are stored as they are.
pub const GROUP_HEADER_BYTES: usize = 16;
/// Symbols that stand for an exponent.
pub const SYMBOLS: usize = 13;
/// The symbol of an exponent that stands in the list.
pub const RAW: u8 = SYMBOLS as u8;

/// Which bits of an element are its exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Bytes of an element. Of two the second is the coded one.
    pub bytes: usize,
    /// The exponent's bits in the coded byte. Where they are all, which is BF16, elements are first turned left by one bit.
    pub exponent: u8,
}

impl Split {
    /// Of `DType::BF16`: the coded byte is the exponent; mantissa and sign are the other one.
    pub const BF16: Self = Self { bytes: 2, exponent: 0xff };
    /// Of `DType::F16`.
    pub const F16: Self = Self { bytes: 2, exponent: 0x7c };
    /// Of `DType::F8_E4M3`.
    pub const E4M3: Self = Self { bytes: 1, exponent: 0x78 };
    /// Of `DType::F8_E5M2`.
    pub const E5M2: Self = Self { bytes: 1, exponent: 0x7c };

    /// That of a format, if its exponents can be coded.
    pub const fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::BF16 => Some(Self::BF16),
            DType::F16 => Some(Self::F16),
            DType::F8_E4M3 => Some(Self::E4M3),
            DType::F8_E5M2 => Some(Self::E5M2),
            _ => None,
        }
    }

    /// The other bits of the coded byte, the lowest first; a plane each.
    pub fn others(self) -> impl Iterator<Item = u8> {
        (0..8).map(|bit| 1 << bit).filter(move |bit| self.exponent & bit == 0)
    }

    /// Bytes of a block's planes: of level 1, and of the other bits.
    pub const fn plane_bytes(self) -> usize {
        16 + 8 * self.exponent.count_zeros() as usize
    }

    /// Which element of a block byte or bit `at` of its planes belongs to. Registers are unpacked by halves of 16 bytes:
    /// with this order elements of two bytes come out in order.
    #[inline(always)]
    pub const fn element(self, at: usize) -> usize {
        let (lane, within) = (at / 16, at % 16);
        match self.bytes {
            1 => at,
            _ if within < 8 => 8 * lane + within,
            _ => 24 + 8 * lane + within,
        }
    }

    /// The byte of an element that is stored as it is, 0 if it has none, and the coded one.
    #[inline(always)]
    fn apart<const BYTES: usize>(self, element: [u8; BYTES]) -> (u8, u8) {
        let (first, last) = (element[0], element[BYTES - 1]);
        match (BYTES, self.exponent) {
            (1, _) => (0, last),
            (_, 0xff) => (first << 1 | last >> 7, last << 1 | first >> 7),
            _ => (first, last),
        }
    }

    /// Takes [`apart`](Self::apart) back.
    #[inline(always)]
    fn together<const BYTES: usize>(self, plain: u8, coded: u8) -> [u8; BYTES] {
        let (first, last) = match self.exponent {
            0xff => (plain >> 1 | coded << 7, coded >> 1 | plain << 7),
            _ => (plain, coded),
        };
        std::array::from_fn(|i| if i == BYTES - 1 { last } else { first })
    }

    /// The thirteen commonest exponents of elements, the commonest first; of equals the smaller.
    pub fn palette(self, bytes: &[u8]) -> [u8; 16] {
        let mut counts = [0u32; 256];
        let mut count = |coded: u8| counts[usize::from(coded & self.exponent)] += 1;
        match self.bytes {
            1 => bytes.iter().for_each(|byte| count(*byte)),
            _ => bytes.as_chunks::<2>().0.iter().for_each(|pair| count(self.apart(*pair).1)),
        }
        let mut order: Vec<u8> = (0..=255).filter(|e| e & !self.exponent == 0).collect();
        order.sort_by_key(|&e| std::cmp::Reverse(counts[usize::from(e)]));
        let mut palette = [0; 16];
        palette[..SYMBOLS].copy_from_slice(&order[..SYMBOLS]);
        palette
    }

    /// Appends a group to `out`.
    pub fn code(self, palette: &[u8; 16], bytes: &[u8], out: &mut Vec<u8>) {
        match self.bytes {
            1 => self.code_elements(palette, bytes.as_chunks::<1>().0, out),
            _ => self.code_elements(palette, bytes.as_chunks::<2>().0, out),
        }
    }

    fn code_elements<const BYTES: usize>(
        self,
        palette: &[u8; 16],
        elements: &[[u8; BYTES]],
        out: &mut Vec<u8>,
    ) {
        let mut symbols = [RAW; 256];
        for (symbol, &e) in palette[..SYMBOLS].iter().enumerate().rev() {
            symbols[usize::from(e)] = symbol as u8;
        }
        let blocks = elements.len().div_ceil(BLOCK_LEN);
        let header = out.len();
        out.resize(header + GROUP_HEADER_BYTES, 0);
        let mut planes = Vec::with_capacity(self.plane_bytes() * blocks);
        let (mut second, mut third, mut raw) = (BitWriter::default(), BitWriter::default(), Vec::new());
        let filler = self.together(0, palette[0]);
        for block in elements.chunks(BLOCK_LEN) {
            let (mut of, mut coded) = ([0u8; BLOCK_LEN], [0u8; BLOCK_LEN]);
            for (at, (symbol, coded)) in of.iter_mut().zip(&mut coded).enumerate() {
                let plain;
                (plain, *coded) = self.apart(block.get(self.element(at)).copied().unwrap_or(filler));
                if BYTES == 2 {
                    out.push(plain);
                }
                let exponent = *coded & self.exponent;
                *symbol = symbols[usize::from(exponent)];
                if *symbol == RAW {
                    raw.push(exponent);
                }
            }
            let levels = Levels::of(&of);
            let others = self.others().map(|bit| {
                coded.iter().rev().fold(0, |plane, coded| plane << 1 | u64::from(coded & bit != 0))
            });
            let words = levels.first.into_iter().chain(others);
            words.for_each(|plane| planes.extend_from_slice(&plane.to_le_bytes()));
            levels.second.iter().for_each(|&plane| second.push(plane, levels.seconds));
            levels.third.iter().for_each(|&plane| third.push(plane, levels.thirds));
        }
        let (second, third) = (second.finish(), third.finish());
        for (i, length) in [second.len(), third.len(), raw.len(), 0].into_iter().enumerate() {
            put(out, header + 4 * i, length as u32);
        }
        for part in [&planes, &second, &third, &raw] {
            out.extend_from_slice(part);
        }
    }

    /// Finds the parts of a group of `len` elements.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn parts(self, bytes: &[u8], len: usize) -> Result<Parts<'_>, Error> {
        let short = || corrupt("a group is shorter than its parts");
        let (header, rest) = bytes.split_at_checked(GROUP_HEADER_BYTES).ok_or_else(short)?;
        let blocks = len.div_ceil(BLOCK_LEN);
        let (plain, rest) = rest.split_at_checked(blocks * BLOCK_LEN * (self.bytes - 1)).ok_or_else(short)?;
        let (planes, rest) = rest.split_at_checked(blocks * self.plane_bytes()).ok_or_else(short)?;
        let (second, rest) = rest.split_at_checked(word(header, 0) as usize).ok_or_else(short)?;
        let (third, rest) = rest.split_at_checked(word(header, 4) as usize).ok_or_else(short)?;
        let raw = rest.get(..word(header, 8) as usize).ok_or_else(short)?;
        Ok(Parts { plain, planes, second, third, raw })
    }

    /// Appends the `len` elements of a group to `out`, in the plainest way.
    ///
    /// # Errors
    /// `Corrupt`: a part ends early, or late.
    pub fn expand(
        self,
        palette: &[u8; 16],
        bytes: &[u8],
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let parts = self.parts(bytes, len)?;
        let (mut second, mut third) =
            (BitReader { bytes: parts.second, at: 0 }, BitReader { bytes: parts.third, at: 0 });
        let mut raw = parts.raw.iter();
        let end = out.len() + self.bytes * len;
        for (i, planes) in parts.planes.chunks(self.plane_bytes()).enumerate() {
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
            for (at, &symbol) in of.iter().enumerate() {
                let mut coded = match symbol {
                    RAW => *raw.next().ok_or_else(|| corrupt("a group has too few exponents"))?,
                    _ => palette[usize::from(symbol)],
                };
                for (plane, weight) in self.others().enumerate() {
                    coded = coded.wrapping_add(bit(2 + plane, at) * weight);
                }
                let plain = parts.plain.get(i * BLOCK_LEN + at).copied().unwrap_or(0);
                block[self.element(at)] = self.together(plain, coded);
            }
            match self.bytes {
                1 => out.extend(block.map(|[_, coded]| coded)),
                _ => out.extend(block.as_flattened()),
            }
        }
        out.truncate(end);
        let used = [&second, &third].map(|bits| bits.at.div_ceil(8) == bits.bytes.len());
        if used != [true; 2] || !raw.as_slice().is_empty() {
            return Err(corrupt("a group has more bits than its elements"));
        }
        Ok(())
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

/// The parts of a group.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What is stored as it is of elements of two bytes, of as many as planes have.
    pub plain: &'a [u8],
    /// [`Split::plane_bytes`] for each block.
    pub planes: &'a [u8],
    /// Bits.
    pub second: &'a [u8],
    /// Bits.
    pub third: &'a [u8],
    /// Exponents.
    pub raw: &'a [u8],
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
    fn formats_that_are_said_to_have_coded_exponents_do() {
        for &dtype in DType::PACKED {
            assert_eq!(Split::of(dtype).is_some(), dtype.has_coded_exponents(), "{dtype}");
        }
    }

    #[test]
    fn the_order_of_planes_is_a_permutation() {
        for split in [Split::BF16, Split::E4M3] {
            let mut seen = [false; BLOCK_LEN];
            (0..BLOCK_LEN).for_each(|at| seen[split.element(at)] = true);
            assert_eq!(seen, [true; BLOCK_LEN]);
        }
    }
}
