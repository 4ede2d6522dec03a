//! Expansion of every format, bit for bit as in Python's `gguf` (fixtures made by `formats.py`).

use aerostat_backend::{ErrorKind, KvLayout, KvType, formats};
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

#[test]
fn q8_0_rounds_to_the_nearest_step_of_its_run() {
    let run: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
    let expand = |run: &[f32]| {
        let (mut block, mut out) = ([0; 34], [0.0; 32]);
        formats::q8_0(run, &mut block);
        formats::expand(DType::Q8_0, &block, &mut out).unwrap();
        out
    };
    // Half a step, and what rounding the step to f16 moves the largest by.
    let largest = run.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let bound = largest / 127.0 / 2.0 + largest / 2048.0;
    for (found, want) in expand(&run).into_iter().zip(&run) {
        assert!((found - want).abs() <= bound, "{found} for {want}");
    }
    assert_eq!(expand(&[0.0; 32]), [0.0; 32]);
    assert_eq!(expand(&[-127.0; 32]), [-127.0; 32]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let mut run = run.clone();
        run[5] = bad;
        assert!(expand(&run)[5].is_nan(), "{bad}");
    }
}

#[test]
fn a_token_of_the_kv_cache_takes_the_bytes_of_its_heads() {
    let bytes = |kv_type: KvType, key: usize, value: usize, heads: usize| {
        let (key_widths, value_widths) = (vec![heads * key; 3], vec![heads * value; 3]);
        let layout = KvLayout {
            keys: kv_type.keys(),
            values: kv_type.values(),
            key_widths,
            value_widths,
            heads: vec![heads; 3],
            page_tokens: 16,
            pages: 5,
        };
        layout.token_bytes()
    };
    assert_eq!(bytes(KvType::F16, 80, 64, 2), 3 * 2 * (160 + 128));
    assert_eq!(bytes(KvType::F32, 80, 64, 2), 3 * 2 * (320 + 256));
    // Runs of 32 that a head does not fill are whole.
    assert_eq!(bytes(KvType::Q8, 80, 64, 2), 3 * 2 * (160 + 2 * 34));
    assert_eq!(bytes(KvType::Q8All, 80, 64, 2), 3 * 2 * (3 * 34 + 2 * 34));
    assert_eq!(bytes(KvType::Q8All, 576, 0, 1), 3 * 18 * 34);
}
