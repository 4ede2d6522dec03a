//! Expansion of every format, bit for bit as in Python's `gguf` (fixtures made by `formats.py`).

use aerostat_backend::{ErrorKind, formats};
use aerostat_checkpoint::DType;

#[test]
fn every_format_expands_to_the_bits_of_gguf() {
    for &dtype in DType::COMPUTABLE {
        let path = format!("{}/tests/formats/{}.bin", env!("CARGO_MANIFEST_DIR"), dtype.name());
        let fixture = std::fs::read(&path).unwrap();
        let (count, rest) = fixture.split_first_chunk::<4>().unwrap();
        let count = u32::from_le_bytes(*count) as usize;
        let (blocks, want) = rest.split_at(count * dtype.block_bytes());
        let want: Vec<u32> = want.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        assert_eq!(want.len(), count * dtype.block_len(), "{path}");
        let mut got = vec![0.0; want.len()];
        formats::expand(dtype, blocks, &mut got).unwrap();
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert_eq!(got.to_bits(), want, "{dtype} element {i}: {got} instead of {}", f32::from_bits(want));
        }
    }
}

#[test]
fn expansion_refuses_wrong_lengths_and_unknown_formats() {
    let kind = |dtype, bytes: usize, len: usize| {
        formats::expand(dtype, &vec![0; bytes], &mut vec![0.0; len]).unwrap_err().kind()
    };
    assert_eq!(kind(DType::Q4_0, 18, 31), ErrorKind::Shape);
    assert_eq!(kind(DType::Q4_0, 17, 32), ErrorKind::Shape);
    assert_eq!(kind(DType::I8, 1, 1), ErrorKind::Unsupported);
}
