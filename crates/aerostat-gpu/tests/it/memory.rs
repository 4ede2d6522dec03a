//! Device memory under a bound, what is sent, and what is waited for.

use aerostat_backend::{Backend, ErrorKind, Home, Mat, TileShape, Weight};
use aerostat_checkpoint::DType;
use aerostat_gpu::{Choice, Gpu, GpuConfig, UploadPath, adapters};

use crate::open;

const COLS: usize = 1024;
const ROWS: usize = 2048;

fn tile(number: usize) -> Vec<u8> {
    (0..ROWS * COLS).flat_map(|i| ((0x3c00 + (i * 7 + number) % 512) as u16).to_le_bytes()).collect()
}

/// One row of ones through so many tiles; gives what the last one is multiplied to.
fn stream(gpu: &mut Gpu, tiles: usize) -> Vec<u32> {
    let shape = TileShape { dtype: DType::BF16, rows: ROWS, cols: COLS, packed: false };
    let x = Mat::new(gpu.allocate(COLS).unwrap(), 1, COLS);
    let y = Mat::new(gpu.allocate(ROWS).unwrap(), 1, ROWS);
    gpu.write(x, &[1.0; COLS]).unwrap();
    let bytes = [tile(0), tile(1)];
    for number in 0..tiles {
        let id = gpu.upload(shape, Box::new(bytes[number % 2].clone())).unwrap();
        gpu.matmul(Weight::Arriving(id), x, y).unwrap();
        gpu.release(id);
    }
    gpu.read(y).unwrap().iter().map(|v| v.to_bits()).collect()
}

/// 480 MiB through 24 MiB, on both ways to the device, with the same bits as a tile that stays.
#[test]
fn twenty_times_the_memory_passes_through_it() {
    const MEMORY: u64 = 34 << 20;
    const TILES: usize = 170;
    let mut results = Vec::new();
    for path in [UploadPath::Mapped, UploadPath::Staged] {
        let mut gpu = open(Some(MEMORY), path);
        let before = gpu.counters().unwrap();
        results.push(stream(&mut gpu, TILES));
        let after = gpu.counters().unwrap();
        let bytes = (TILES * ROWS * COLS * 2) as u64;
        assert!(bytes >= 20 * MEMORY);
        assert_eq!(after.uploaded_bytes - before.uploaded_bytes, bytes);
        assert_eq!(after.read_backs - before.read_backs, 1);
        assert!(gpu.memory_bytes() <= MEMORY, "{}", gpu.memory_bytes());
        if path == UploadPath::Mapped {
            // One for each slot that is used again, and one for the result.
            assert!(after.waits - before.waits <= TILES as u64 + 1, "{after:?}");
            assert!(after.submissions - before.submissions <= TILES as u64 + 2, "{after:?}");
        }
        // Other tests may have devices of the same adapter open.
        if let Some(reserved) = gpu.reserved_bytes() {
            println!("{path:?}: {} bytes counted, {reserved} reserved by the allocator", gpu.memory_bytes());
        }
    }
    let mut gpu = open(None, UploadPath::Auto);
    let shape = TileShape { dtype: DType::BF16, rows: ROWS, cols: COLS, packed: false };
    let id = gpu.pin(shape, Box::new(tile((TILES - 1) % 2)), Home::Device).unwrap();
    let x = Mat::new(gpu.allocate(COLS).unwrap(), 1, COLS);
    let y = Mat::new(gpu.allocate(ROWS).unwrap(), 1, ROWS);
    gpu.write(x, &[1.0; COLS]).unwrap();
    gpu.matmul(Weight::Resident(id), x, y).unwrap();
    results.push(gpu.read(y).unwrap().iter().map(|v| v.to_bits()).collect());
    assert!(results[0].iter().any(|bits| *bits != 0));
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "bits differ");
}

#[test]
fn what_does_not_fit_is_refused_with_the_flag_that_helps() {
    let mut gpu = open(Some(20 << 20), UploadPath::Auto);
    let error = gpu.allocate(6 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("--vram"), "{error}");
    // The device is as good as before.
    assert!(gpu.allocate(16).is_ok());
}

#[test]
fn an_adapter_that_is_not_there_is_named() {
    assert!(!adapters().is_empty());
    let config = GpuConfig { adapter: Choice::Number(99), ..GpuConfig::default() };
    let error = Gpu::new(config).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("aerostat devices"), "{error}");
}

/// Bits of a row depend on neither the rows beside it, nor the cut of the matrix.
#[test]
fn rows_and_tiles_do_not_show() {
    const K: usize = 200;
    const N: usize = 130;
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        let element = dtype.block_bytes();
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let bytes: Vec<u8> = (0..N * K)
            .flat_map(|_| match dtype {
                DType::BF16 => half::bf16::from_f32(next()).to_le_bytes().to_vec(),
                DType::F16 => half::f16::from_f32(next()).to_le_bytes().to_vec(),
                _ => next().to_le_bytes().to_vec(),
            })
            .collect();
        let inputs: Vec<f32> = (0..70 * K).map(|_| next()).collect();
        let mut gpu = open(None, UploadPath::Auto);
        let x = Mat::new(gpu.allocate(70 * K).unwrap(), 70, K);
        let y = Mat::new(gpu.allocate(70 * N).unwrap(), 70, N);
        gpu.write(x, &inputs).unwrap();
        let mut all: Vec<Vec<u32>> = Vec::new();
        for (rows, outputs) in [(70, N), (1, N), (5, 7), (33, 64), (8, 1)] {
            for row in (0..70).step_by(rows) {
                let rows = rows.min(70 - row);
                for start in (0..N).step_by(outputs) {
                    let outputs = outputs.min(N - start);
                    let part = bytes[start * K * element..][..outputs * K * element].to_vec();
                    let shape = TileShape { dtype, rows: outputs, cols: K, packed: false };
                    let id = gpu.upload(shape, Box::new(part)).unwrap();
                    let to = y.row_range(row, rows).col_range(start, outputs);
                    gpu.matmul(Weight::Arriving(id), x.row_range(row, rows), to).unwrap();
                    gpu.release(id);
                }
            }
            all.push(gpu.read(y).unwrap().iter().map(|v| v.to_bits()).collect());
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{dtype:?}");
    }
}
