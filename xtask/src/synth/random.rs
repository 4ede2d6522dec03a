//! Values from a seed: a table of samples of a bell, indexed by a hash of the position.
//!
//! Every value depends only on the seed, the tensor's name and the position in the tensor, so any part can be made
//! by any thread. Only additions, multiplications and conversions are used: the bytes are the same everywhere.

use half::{bf16, f16};

use super::tensors::Bell;

/// Values that one hash makes, a quarter of its bits each.
pub(super) const VALUES_PER_HASH: u64 = 4;

/// Samples in a table: as many as a quarter of a hash can index.
const SAMPLES: usize = 1 << 16;

/// Uniform variables whose sum is close to a bell of deviation one.
const UNIFORMS: u64 = 12;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The type of the values.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(super) enum Dtype {
    Bf16,
    F16,
    F32,
}

impl Dtype {
    /// Bytes of one value.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// As safetensors spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::F32 => "F32",
        }
    }

    /// As configurations spell it.
    pub(super) fn long_name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
            Dtype::F32 => "float32",
        }
    }
}

/// The bits of every sample of one bell in one type.
pub(super) enum Table {
    Half(Box<[u16; SAMPLES]>),
    Single(Box<[u32; SAMPLES]>),
}

impl Table {
    /// Scales the samples of [`bell`].
    pub(super) fn new(samples: &[f32], values: Bell, dtype: Dtype) -> Table {
        let scaled = samples.iter().map(|sample| sample * values.deviation + values.mean);
        match dtype {
            Dtype::Bf16 => Table::Half(collected(scaled.map(|value| bf16::from_f32(value).to_bits()))),
            Dtype::F16 => Table::Half(collected(scaled.map(|value| f16::from_f32(value).to_bits()))),
            Dtype::F32 => Table::Single(collected(scaled.map(f32::to_bits))),
        }
    }

    /// Fills `out` with the values of the tensor of this `key`, from the given hash on. Of the last hash, only
    /// the values that fit are written.
    pub(super) fn fill(&self, key: u64, hash_first: u64, out: &mut [u8]) {
        match self {
            Table::Half(table) => fill(key, hash_first, out, |bits| {
                let value = |part: usize| u64::from(table[quarter(bits, part)]);
                (value(0) | value(1) << 16 | value(2) << 32 | value(3) << 48).to_le_bytes()
            }),
            Table::Single(table) => fill(key, hash_first, out, |bits| {
                let value = |part: usize| u128::from(table[quarter(bits, part)]);
                (value(0) | value(1) << 32 | value(2) << 64 | value(3) << 96).to_le_bytes()
            }),
        }
    }
}

/// Samples of a bell of mean zero and deviation one.
pub(super) fn bell() -> Vec<f32> {
    let uniform = |index: u64| (hash(GOLDEN, index) >> 40) as f32 / (1_u64 << 24) as f32;
    let sample = |index: u64| {
        let sum: f32 = (0..UNIFORMS).map(|term| uniform(index * UNIFORMS + term)).sum();
        sum - UNIFORMS as f32 / 2.0
    };
    (0..SAMPLES as u64).map(sample).collect()
}

/// What the values of a tensor hang on.
pub(super) fn key(seed: u64, name: &str) -> u64 {
    let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, |state: u64, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash(name, seed)
}

/// Fills with groups of the values of one hash each.
fn fill<const GROUP: usize>(
    key: u64,
    hash_first: u64,
    out: &mut [u8],
    group_of: impl Fn(u64) -> [u8; GROUP],
) {
    let (groups, tail) = out.as_chunks_mut::<GROUP>();
    let mut index = hash_first;
    for group in groups {
        *group = group_of(hash(key, index));
        index += 1;
    }
    tail.copy_from_slice(&group_of(hash(key, index))[..tail.len()]);
}

/// The index that a quarter of a hash is.
fn quarter(bits: u64, part: usize) -> usize {
    usize::from((bits >> (16 * part)) as u16)
}

fn collected<T: Copy + Default>(bits: impl Iterator<Item = T>) -> Box<[T; SAMPLES]> {
    let mut table = Box::new([T::default(); SAMPLES]);
    for (place, bits) in table.iter_mut().zip(bits) {
        *place = bits;
    }
    table
}

/// The splitmix64 generator at a position of its sequence.
fn hash(key: u64, index: u64) -> u64 {
    let mut bits = key.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_has_its_mean_and_deviation() {
        let samples = bell();
        let mean = samples.iter().sum::<f32>() / SAMPLES as f32;
        let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f32>() / SAMPLES as f32;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn any_part_can_be_made_alone() {
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
            let table = Table::new(&bell(), Bell { mean: 0.0, deviation: 0.1 }, dtype);
            let group = (VALUES_PER_HASH * dtype.bytes()) as usize;
            let mut whole = vec![0; group * 10 + group / 2];
            table.fill(key(7, "a"), 0, &mut whole);
            let mut part = vec![0; group * 2 + group / 4];
            table.fill(key(7, "a"), 3, &mut part);
            assert_eq!(part, whole[group * 3..][..part.len()], "{dtype:?}");
        }
    }

    #[test]
    fn names_and_seeds_make_other_values() {
        assert_ne!(key(0, "a"), key(0, "b"));
        assert_ne!(key(0, "a"), key(1, "a"));
    }
}
