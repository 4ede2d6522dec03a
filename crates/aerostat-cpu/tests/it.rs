//! The CPU device gives the bits of the reference, on every instruction set and number of threads.

use aerostat_backend::conformance::{self, Case, Keep, Tolerance, Values};
use aerostat_backend::quantised::{Code, Quantised, Rounding, Table};
use aerostat_backend::reference::Reference;
use aerostat_backend::{
    Alibi, Attention, Backend, Error, ErrorKind, Home, KvElement, KvLayout, KvType, Mat, Placement, RowPlace,
    Scaling, ScratchNeed, SweepRows, Tile, TileShape, Weight, WeightId, Window, packed,
};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig, Isa};
use half::f16;
use proptest::prelude::*;

fn cpu(isa: Isa, threads: usize) -> Box<dyn Backend> {
    Box::new(Cpu::new(CpuConfig { threads, isa: Some(isa) }).unwrap())
}

fn shape(tile: Tile<'_>, packed: bool) -> TileShape {
    TileShape { dtype: tile.dtype, rows: tile.rows, cols: tile.cols, packed }
}

fn upload(device: &mut dyn Backend, tile: Tile<'_>, packed: bool) -> Weight {
    Weight::Arriving(device.upload(shape(tile, packed), Box::new(tile.bytes.to_vec())).unwrap())
}

fn pin_packed(device: &mut dyn Backend, tile: Tile<'_>) -> Result<WeightId, Error> {
    device.pin(shape(tile, true), Box::new(tile.bytes.to_vec()), Home::Host)
}

fn reference() -> Box<dyn Backend> {
    Box::new(Reference::new())
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_bits_of_the_reference() {
    for isa in Isa::available() {
        for threads in 1..=3 {
            conformance::run(&|| cpu(isa, threads), &reference, Tolerance::Exact);
        }
    }
}

/// Products that vanish to -0.0 leave lanes of -0.0; padding the last columns with +0.0 would turn them to +0.0.
#[test]
fn sums_of_vanishing_products_keep_the_sign_of_zero() {
    const COLS: usize = 17;
    let bytes: Vec<u8> = [1e-30f32; 5 * COLS].iter().flat_map(|w| w.to_le_bytes()).collect();
    let tile = Tile { dtype: DType::F32, rows: 5, cols: COLS, bytes: &bytes };
    for isa in Isa::available() {
        for rows in [1, 20] {
            let mut cpu = cpu(isa, 1);
            let x = Mat::new(cpu.allocate(rows * COLS).unwrap(), rows, COLS);
            let y = Mat::new(cpu.allocate(rows * 5).unwrap(), rows, 5);
            cpu.write(x, &vec![-1e-30; rows * COLS]).unwrap();
            let w = upload(&mut *cpu, tile, false);
            cpu.matmul(w, x, y).unwrap();
            assert!(
                cpu.read(y).unwrap().iter().all(|y| y.to_bits() == (-0.0f32).to_bits()),
                "{isa}, {rows} rows"
            );
        }
    }
}

#[test]
fn capabilities_name_the_instruction_set_and_threads() {
    let capabilities = cpu(Isa::Portable, 2).capabilities();
    let got = (capabilities.device, capabilities.detail.as_str(), capabilities.threads);
    assert_eq!(got, ("cpu", "portable", 2));
}

#[test]
fn a_device_without_threads_is_refused() {
    let error = Cpu::new(CpuConfig { threads: 0, isa: None }).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

fn agree(case: Case) -> Result<(), TestCaseError> {
    for isa in Isa::available() {
        conformance::check(&case, &|| cpu(isa, 2), &reference, Tolerance::Exact)
            .map_err(TestCaseError::fail)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matmul_of_any_shape(
        format in 0..DType::COMPUTABLE.len(), rows in 1..80usize, n in 1..60usize, k in 1..1200usize, shift in 0..8usize,
    ) {
        let dtype = DType::COMPUTABLE[format];
        let k = k.next_multiple_of(dtype.block_len());
        agree(Case::Matmul { dtype, rows, n, k, weights: Keep::Arriving(shift), values: Values::Plain })?;
    }

    #[test]
    fn scaled_codes_of_any_shape(
        code in 0..4usize, rounding in 0..3usize, rows in 1..40usize, n in 1..80usize, k in 1..600usize,
        block in (1..200usize, 1..200usize), first_row in 0..300usize, shift in 0..8usize,
    ) {
        let code = [Code::E4M3, Code::LowFirst(Table::E2M1), Code::HighFirst(Table::Nf4), Code::Packed(5)][code];
        let rounding = [Rounding::BF16, Rounding::F16, Rounding::F32][rounding];
        let (groups, zeros, weights) = (shift % 3 == 1, shift % 2 == 1, Keep::Arriving(shift));
        let block = if groups { (1, block.1) } else { block };
        let quantised = Quantised::new(code, rounding);
        agree(Case::MatmulScaled {
            quantised, rows, n, k, block, zeros, groups, tile_rows: None, first_row, weights,
        })?;
    }

    #[test]
    fn scaled_codes_stored_by_inputs_of_any_shape(
        code in 0..7usize, rounding in 0..3usize, rows in 1..40usize, n in 1..40usize, k in 1..40usize,
        block in (1..200usize, 1..200usize), first_row in 0..300usize, tile_rows in 1..60usize, shift in 0..8usize,
    ) {
        let code = [
            Code::Columns(2), Code::Columns(3), Code::Columns(4), Code::Columns(8), Code::Halves, Code::E5M2,
            Code::HighFirst(Table::Fp4),
        ][code];
        let rounding = [Rounding::BF16, Rounding::F16, Rounding::F32][rounding];
        let (groups, zeros, weights) = (shift % 3 == 1, shift % 2 == 1, Keep::Arriving(shift));
        let block = if shift > 2 { (block.0, 1) } else { block };
        let block = if groups { (block.0, 1) } else { block };
        let (quantised, n, k, tile_rows) = (Quantised::new(code, rounding), 8 * n, code.run().1 * k, Some(tile_rows));
        agree(Case::MatmulScaled { quantised, rows, n, k, block, zeros, groups, tile_rows, first_row, weights })?;
    }

    #[test]
    fn attention_of_any_shape(
        kv in 0..3usize, kv_heads in 1..4usize, group in 1..7usize, key_dim in 1..140usize, value_dim in 1..140usize,
        page_tokens in 1..40usize, lengths in prop::collection::vec(1..90usize, 1..4), window in 0..60usize,
    ) {
        let kv_type = [KvType::F16, KvType::BF16, KvType::F32][kv];
        let kind = if key_dim % 3 == 1 { Window::Chunk } else { Window::Last };
        let (heads, window) = (kv_heads * group, (window > 0).then(|| kind(window)));
        let sinks = value_dim % 2 == 1;
        let (values_in_keys, alibi) = (value_dim < key_dim && page_tokens % 4 < 2, (page_tokens % 2 == 1).then_some(Alibi { most: 8, rounded: page_tokens % 3 == 0 }));
        let shape = Attention { heads, kv_heads, key_dim, value_dim, values_in_keys, scale: 0.2, softcap: None, window, ahead: false, alibi };
        agree(Case::Attention { kv_type, shape, sinks, biases: None, page_tokens, lengths, values: Values::Plain })?;
    }

    #[test]
    fn attention_both_ways_of_any_shape(
        kv in 0..3usize, kv_heads in 1..4usize, group in 1..7usize, dim in 1..140usize, page_tokens in 1..40usize,
        lengths in prop::collection::vec(1..90usize, 1..4), window in prop::option::of(0..60usize),
        reach in prop::option::of(0..100usize), slopes: bool,
    ) {
        let kv_type = [KvType::F16, KvType::BF16, KvType::F32][kv];
        let alibi = slopes.then_some(Alibi { most: 8, rounded: false });
        let shape = Attention {
            heads: kv_heads * group, kv_heads, key_dim: dim, value_dim: dim, values_in_keys: false, scale: 0.2,
            softcap: None, window: window.map(Window::Around), ahead: true, alibi,
        };
        let (sinks, biases) = (dim % 2 == 1, reach);
        agree(Case::Attention { kv_type, shape, sinks, biases, page_tokens, lengths, values: Values::Plain })?;
    }

    #[test]
    fn norm_of_any_shape(rows in 1..20usize, groups in 1..5usize, size in 1..600usize, in_place: bool) {
        agree(Case::RmsNorm { rows, groups, size, in_place, values: Values::Plain })?;
    }
}

/// Weights such as trained ones, with some of every exponent among them.
fn weights(dtype: DType, len: usize, odd_every: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // Bits of a format of two bytes, or of one in the upper byte.
    let value = |i: usize| match i % odd_every {
        0 => next() as u16 & if dtype == DType::BF16 { 0xff7f } else { 0xfbff },
        _ => {
            let sum: f32 = (0..6).map(|_| (next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).sum();
            match dtype {
                DType::BF16 => (0.03 * sum).to_bits().wrapping_shr(16) as u16,
                // Its exponents end 7, not 15, below that of 1.
                DType::F8_E4M3 => {
                    (f16::from_f32(30.0 * sum / 256.0).to_bits() & 0x3fff) << 1 | (next() as u16 & 0x8000)
                }
                _ => f16::from_f32(0.03 * sum).to_bits(),
            }
        }
    };
    let skipped = 2 - dtype.block_bytes();
    (0..len).map(value).flat_map(|bits| bits.to_le_bytes().into_iter().skip(skipped)).collect()
}

/// Multiplies `w`, and gives all of `y`.
fn product(device: &mut dyn Backend, w: Weight, rows: usize, (n, k): (usize, usize)) -> Vec<f32> {
    let x = Mat::new(device.allocate(rows * k).unwrap(), rows, k);
    let y = Mat::new(device.allocate(rows * n).unwrap(), rows, n);
    let values: Vec<f32> = (0..rows * k).map(|i| (i as f32 * 0.37).sin()).collect();
    device.write(x, &values).unwrap();
    device.matmul(w, x, y).unwrap();
    device.read(y).unwrap().to_vec()
}

#[test]
fn packed_tiles_give_the_bits_of_the_weights_they_were_made_of() {
    let shapes = [(1, 7), (8, 64), (9, 65), (57, 100), (24, 512), (130, 1030), (3, 20_000), (5, 140_000)];
    let cases = shapes.into_iter().zip([1, 2, 3, 5, 50, 1000, 64, 300]);
    for (case, dtype) in cases.flat_map(|case| [(case, DType::BF16), (case, DType::F16)]) {
        let (shape @ (n, k), odd_every) = case;
        let bytes = weights(dtype, n * k, odd_every);
        let plain = Tile { dtype, rows: n, cols: k, bytes: &bytes };
        let cut = n.div_ceil(3);
        let parts = bytes.chunks(cut * 2 * k).enumerate().flat_map(|(i, bytes)| {
            let tile = Tile { rows: bytes.len() / (2 * k), bytes, ..plain };
            packed::pack(&tile, i != 1).unwrap()
        });
        let parts: Vec<u8> = parts.collect();
        let packed = Tile { bytes: &parts, ..plain };
        for isa in Isa::available() {
            for rows in [1, 2, 7, 33] {
                if rows * k > 1_000_000 {
                    continue;
                }
                let mut cpu = cpu(isa, 2);
                let plain_tile = upload(&mut *cpu, plain, false);
                let want = product(&mut *cpu, plain_tile, rows, shape);
                let pinned = pin_packed(&mut *cpu, packed).unwrap();
                for w in [upload(&mut *cpu, packed, true), Weight::Resident(pinned)] {
                    let got = product(&mut *cpu, w, rows, shape);
                    let same = got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan());
                    assert!(same, "{dtype}, {isa}, {shape:?}, {rows} rows, {odd_every}");
                }
                let ids = [n as u32 - 1, 0];
                let out = [(); 2].map(|()| Mat::new(cpu.allocate(2 * k).unwrap(), 2, k));
                cpu.expand_rows(plain, &ids, out[0]).unwrap();
                cpu.gather_weights(&ids.map(|row| (pinned, row)), out[1]).unwrap();
                let read = out.map(|m| cpu.read(m).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>());
                assert_eq!(read[0], read[1]);
            }
        }
    }
}

/// Multiplies codes by scales in blocks of `block`, the tile's first row being the fourth of the matrix.
fn scaled_product(
    device: &mut dyn Backend,
    w: Weight,
    code: Code,
    rows: usize,
    (n, k): (usize, usize),
    block: (usize, usize),
) -> Vec<f32> {
    let mut matrix = |rows: usize, cols: usize| {
        let mat = Mat::new(device.allocate(rows * cols).unwrap(), rows, cols);
        let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin()).collect();
        device.write(mat, &values).unwrap();
        mat
    };
    let scales = matrix((n + 3).div_ceil(block.0), k.div_ceil(block.1));
    let (x, y) = (matrix(rows, k), matrix(rows, n));
    let quantised = Quantised::new(code, Rounding::BF16);
    let (block_rows, block_cols) = block;
    let scaling =
        Scaling { quantised, scales, zeros: None, groups: None, block_rows, block_cols, first_row: 3 };
    device
        .reserve(
            &ScratchNeed { k_major_outputs: 0, scaled_cols: Some(k), scaled_packed: true, packed: true },
            rows,
        )
        .unwrap();
    device.matmul_scaled(w, &scaling, x, y).unwrap();
    device.read(y).unwrap().to_vec()
}

#[test]
fn packed_codes_give_the_bits_of_the_codes_they_were_made_of() {
    let shapes = [(1, 7), (9, 65), (57, 100), (130, 1030), (40, 4096), (3, 20_000), (5, 140_000)];
    let blocks = [(1 << 20, 1 << 20), (1, 1 << 20), (128, 128), (4, 24)];
    let mut odd = [2, 7, 60, 1000].into_iter().cycle();
    for (shape @ (n, k), block) in shapes.into_iter().flat_map(|shape| blocks.map(|block| (shape, block))) {
        for (dtype, code) in [(DType::F8_E4M3, Code::E4M3), (DType::F8_E5M2, Code::E5M2)] {
            let bytes = weights(dtype, n * k, odd.next().unwrap());
            let plain = Tile { dtype, rows: n, cols: k, bytes: &bytes };
            let parts = bytes.chunks(n.div_ceil(3) * k).enumerate().flat_map(|(i, bytes)| {
                let tile = Tile { rows: bytes.len() / k, bytes, ..plain };
                packed::pack(&tile, i != 1).unwrap()
            });
            let parts: Vec<u8> = parts.collect();
            let packed = Tile { bytes: &parts, ..plain };
            for (isa, rows) in Isa::available().flat_map(|isa| [(isa, 1), (isa, 7), (isa, 33)]) {
                if rows > 1 && n * k > 200_000 {
                    continue;
                }
                let mut cpu = cpu(isa, 2);
                let plain_tile = upload(&mut *cpu, plain, false);
                let want = scaled_product(&mut *cpu, plain_tile, code, rows, shape, block);
                let pinned = pin_packed(&mut *cpu, packed).unwrap();
                for w in [upload(&mut *cpu, packed, true), Weight::Resident(pinned)] {
                    let got = scaled_product(&mut *cpu, w, code, rows, shape, block);
                    let same = got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan());
                    assert!(same, "{dtype}, {isa}, {shape:?}, {rows} rows, {block:?}");
                }
            }
        }
    }
}

#[test]
fn tiles_that_do_not_compress_are_stored() {
    let (rows, cols) = (64, 1024);
    for dtype in [DType::BF16, DType::F16, DType::F8_E4M3, DType::F8_E5M2] {
        for (odd_every, quantised) in [(1, 0), (1000, 1)] {
            let bytes = weights(dtype, rows * cols, odd_every);
            let packed = packed::pack(&Tile { dtype, rows, cols, bytes: &bytes }, true).unwrap();
            assert_eq!((packed[5], packed.len() < bytes.len()), (quantised, quantised == 1), "{dtype}");
        }
    }
}

/// What is expanded to is what is multiplied: codes of another size would read what is not there.
#[test]
fn packed_codes_of_another_shape_or_format_are_refused() {
    let (n, k) = (8, 4096);
    for (dtype, cols, code) in [
        (DType::F8_E4M3, k, Code::Packed(4)),
        (DType::F8_E4M3, k / 2, Code::E4M3),
        (DType::BF16, k, Code::E4M3),
        (DType::BF16, k / 2, Code::E4M3),
    ] {
        let bytes = weights(dtype, n * cols, 40);
        let tile = Tile { dtype, rows: n, cols, bytes: &bytes };
        let packed = packed::pack(&tile, true).unwrap();
        let mut device = cpu(Isa::Portable, 1);
        let mat = |device: &mut dyn Backend, rows, cols| {
            Mat::new(device.allocate(rows * cols).unwrap(), rows, cols)
        };
        let (x, y) = (mat(&mut *device, 1, k), mat(&mut *device, 1, n));
        let scaling = Scaling {
            quantised: Quantised::new(code, Rounding::F32),
            scales: mat(&mut *device, 1, 1),
            zeros: None,
            groups: None,
            block_rows: n,
            block_cols: k,
            first_row: 0,
        };
        let w = upload(&mut *device, Tile { bytes: &packed, ..tile }, true);
        let refused = device.matmul_scaled(w, &scaling, x, y);
        assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Shape), "{dtype} {cols} {code:?}");
        if dtype == DType::F8_E4M3 && cols == k {
            // Without its scales it is nothing.
            let refused = device.matmul(w, x, y);
            assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Unsupported));
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_in_a_packed_tile_is_refused() {
    let (n, k) = (20, 48);
    for (dtype, lossless) in [(DType::BF16, true), (DType::BF16, false), (DType::F16, true)] {
        let bytes = weights(dtype, n * k, 40);
        let tile = Tile { dtype, rows: n, cols: k, bytes: &bytes };
        let good = packed::pack(&tile, lossless).unwrap();
        for isa in Isa::available() {
            let mut cpu = cpu(isa, 2);
            let x = Mat::new(cpu.allocate(k).unwrap(), 1, k);
            let y = Mat::new(cpu.allocate(n).unwrap(), 1, n);
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                let w = Tile { bytes: &bad, ..tile };
                let Weight::Arriving(id) = upload(&mut *cpu, w, true) else { continue };
                let error = cpu.matmul(Weight::Arriving(id), x, y).expect_err("damage must be noticed");
                cpu.release(id);
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{dtype}, byte {at}");
                if at % 16 == 0 {
                    assert_eq!(pin_packed(&mut *cpu, w).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
                }
            }
        }
    }
}

/// Files may lie on purpose, with checksums that fit: nothing is read that is not there.
#[test]
fn malformed_groups_with_good_checksums_are_refused() {
    let (n, k, group) = (8, 4096, 64 + 8);
    let damages = [(group, 1u32), (group + 4, 1), (group + 8, 0), (group + 8, 1 << 30), (group, 400)];
    for (dtype, (at, value)) in [DType::BF16, DType::F16].into_iter().flat_map(|d| damages.map(|at| (d, at)))
    {
        let bytes = weights(dtype, n * k, 40);
        let tile = Tile { dtype, rows: n, cols: k, bytes: &bytes };
        let good = packed::pack(&tile, true).unwrap();
        assert_eq!(good[5], 1, "it is coded");
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let crc = crc32c::crc32c(&bad[group..]);
        bad[group - 4..group].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&bad[4..group]);
        bad[..4].copy_from_slice(&crc.to_le_bytes());
        for isa in Isa::available() {
            let mut cpu = cpu(isa, 1);
            let x = Mat::new(cpu.allocate(k).unwrap(), 1, k);
            let y = Mat::new(cpu.allocate(n).unwrap(), 1, n);
            let w = upload(&mut *cpu, Tile { bytes: &bad, ..tile }, true);
            let refused = cpu.matmul(w, x, y);
            assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Corrupt), "{isa}, {at} {value}");
        }
    }
}

/// Packed tiles of one row.
fn wide_rows(dtype: DType, widths: &[usize]) -> Vec<(TileShape, Vec<u8>)> {
    let tile = |&cols: &usize| {
        let bytes = weights(dtype, cols, 40);
        let tile = Tile { dtype, rows: 1, cols, bytes: &bytes };
        (shape(tile, true), packed::pack(&tile, true).unwrap())
    };
    widths.iter().map(tile).collect()
}

/// What the plan keeps free for the device is enough, and not much more, whatever is computed afterwards.
#[test]
fn scratch_stays_within_the_footprint() {
    let needs = [
        ScratchNeed::default(),
        ScratchNeed { packed: true, ..ScratchNeed::default() },
        ScratchNeed { k_major_outputs: 300, scaled_cols: Some(96), scaled_packed: false, packed: true },
        ScratchNeed { k_major_outputs: 0, scaled_cols: Some(20_000), scaled_packed: true, packed: true },
        ScratchNeed { k_major_outputs: 0, scaled_cols: Some(150_000), scaled_packed: true, packed: true },
    ];
    let (plain, codes) =
        (wide_rows(DType::BF16, &[64, 1 << 17]), wide_rows(DType::F8_E4M3, &[20_000, 150_000]));
    let rows_max = 40;
    for (need, pages) in needs.into_iter().flat_map(|need| [1, 33, 512, 513, 5000].map(|pages| (need, pages)))
    {
        let mut cpu = cpu(Isa::Portable, 3);
        cpu.reserve(&need, rows_max).unwrap();
        let (keys, key_widths, value_widths, heads) = (KvElement::F16, vec![4], vec![4], vec![1]);
        let layout = KvLayout { keys, values: keys, key_widths, value_widths, heads, page_tokens: 16, pages };
        cpu.kv_allocate(&layout).unwrap();
        let rows: Vec<RowPlace> = (0..rows_max.min(16 * pages) as u32)
            .map(|row| RowPlace::new(16 * pages as u32 - 1 - row, 0))
            .collect();
        let tables: Vec<u32> = (0..pages as u32).collect();
        cpu.set_rows(SweepRows {
            places: Placement { rows: &rows, pages: &tables, slots: &[] },
            states: &[],
        })
        .unwrap();
        for (shape, bytes) in plain.iter().filter(|_| need.packed) {
            let w = Weight::Arriving(cpu.upload(*shape, Box::new(bytes.clone())).unwrap());
            product(&mut *cpu, w, 1, (1, shape.cols));
        }
        let has_scales =
            |shape: &TileShape| need.scaled_packed && need.scaled_cols.is_some_and(|cols| shape.cols <= cols);
        for (shape, bytes) in codes.iter().filter(|(shape, _)| has_scales(shape)) {
            let w = Weight::Arriving(cpu.upload(*shape, Box::new(bytes.clone())).unwrap());
            scaled_product(&mut *cpu, w, Code::E4M3, 1, (1, shape.cols), (128, 128));
        }
        let scratch = cpu.allocated().scratch_bytes;
        let bound = cpu.footprint(&need).total_bytes(rows_max, 16 * pages);
        let is_near = scratch <= bound && bound - scratch < 2 << 20;
        assert!(is_near, "{need:?}, {pages} pages: {scratch} of {bound} bytes");
    }
}

/// Sweeps allocate nothing: what an op needs has been reserved, and it says so where it was not.
#[test]
fn what_was_not_reserved_is_refused() {
    let mut cpu = cpu(Isa::Portable, 2);
    let mat = |cpu: &mut dyn Backend, rows, cols| Mat::new(cpu.allocate(rows * cols).unwrap(), rows, cols);
    let (x, y, scales) = (mat(&mut *cpu, 1, 64), mat(&mut *cpu, 1, 8), mat(&mut *cpu, 1, 1));
    let quantised = Quantised::new(Code::E4M3, Rounding::F32);
    let (block_rows, block_cols) = (8, 64);
    let scaling =
        Scaling { quantised, scales, zeros: None, groups: None, block_rows, block_cols, first_row: 0 };
    let w = upload(&mut *cpu, Tile { dtype: DType::U8, rows: 8, cols: 64, bytes: &[0; 512] }, false);
    // A packed tile of one task: the one thread that expands it has scratch then, the other has none.
    let (shape, bytes) = wide_rows(DType::BF16, &[1 << 15]).remove(0);
    let packed = Weight::Arriving(cpu.upload(shape, Box::new(bytes)).unwrap());
    product(&mut *cpu, packed, 1, (1, shape.cols));
    let error = cpu.matmul_scaled(w, &scaling, x, y).unwrap_err();
    assert!(error.to_string().contains("reserved"), "{error}");
    cpu.reserve(&ScratchNeed { scaled_cols: Some(64), ..ScratchNeed::default() }, 1).unwrap();
    cpu.matmul_scaled(w, &scaling, x, y).unwrap();
}
