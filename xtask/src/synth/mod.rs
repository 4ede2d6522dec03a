//! `cargo xtask synth`: a Hugging Face folder of random weights in the shape of a known model.
//!
//! For measuring and testing at full size without downloading anything. The bytes depend on the shape, the type and
//! the seed only; activations stay finite, because every matrix keeps the variance of what it is given.

mod config;
mod random;
mod shape;
mod tensors;
mod write;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use clap::builder::PossibleValuesParser;

use random::Dtype;
use shape::{Overrides, Shape};

/// What to write.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder to write; it must not exist, or be empty.
    out: PathBuf,
    /// The model whose shape to take; the flags below change it.
    #[arg(long, value_parser = PossibleValuesParser::new(shape::names()))]
    shape: String,
    #[command(flatten)]
    overrides: Overrides,
    /// The type of all tensors.
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// Another seed makes other weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The size of one file, from which on another is begun: 5GB, 512MiB, 1000000.
    #[arg(long, default_value = "5GB", value_parser = parse_bytes)]
    shard_bytes: u64,
    /// Make files of full length that are holes: headers are valid, all weights are zero, no space is taken.
    #[arg(long)]
    sparse: bool,
    /// Threads that generate; as many as the machine runs at once unless given.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

/// Writes the folder.
///
/// # Errors
/// The shape does not fit together, the folder is not empty, there is not enough space, or writing fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let shape = Shape::named(&options.shape, &options.overrides)?;
    let threads =
        options.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let job = write::Job {
        tensors: tensors::of(&shape),
        config: config::model(&shape, options.dtype),
        generation_config: config::generation(),
        dtype: options.dtype,
        seed: options.seed,
        shard_bytes: options.shard_bytes,
        sparse: options.sparse,
        threads,
    };
    write::folder(&options.out, &job)
}

/// Reads a number of bytes with an optional decimal or binary unit.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: &[(&str, u64)] = &[
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
        ("", 1),
    ];
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let bytes = unit.and_then(|(number, bytes)| number.trim().parse::<u64>().ok()?.checked_mul(*bytes));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!("{text} is no size; write 5GB, 512MiB or a number of bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("5GB", Some(5_000_000_000)), ("2 MiB", Some(2 << 20)), ("7", Some(7)), ("8B", Some(8))]
        {
            assert_eq!(parse_bytes(text).ok(), bytes, "{text}");
        }
        for text in ["", "GB", "-1", "0", "1TB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
