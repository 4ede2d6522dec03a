//! What lossless coding gains and costs: `packed [FILE.safetensors]`, of trained F32 weights (rounded), and of Gaussian
//! ones. Bytes, and multiplying with some rows on one thread, packed beside plain.

use std::time::Instant;

use aerostat_backend::{Backend, Home, Mat, Tile, TileShape, Weight, packed};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig, Isa};
use half::{bf16, f16};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut inputs = vec![("gaussian".to_owned(), gaussian(48 << 20), 4096)];
    if let Some(path) = std::env::args().nth(1) {
        inputs.insert(0, (path.clone(), trained(&std::fs::read(path)?), 384));
    }
    for (name, values, cols) in inputs {
        for dtype in [DType::BF16, DType::F16] {
            let bytes: Vec<u8> = values.iter().flat_map(|v| round(dtype, *v)).collect();
            measure(&format!("{name} {dtype}"), dtype, &bytes, cols)?;
        }
    }
    Ok(())
}

fn measure(name: &str, dtype: DType, bytes: &[u8], cols: usize) -> Result<(), Box<dyn std::error::Error>> {
    let element = dtype.block_bytes();
    let rows = ((1 << 20) / (element * cols)) / 8 * 8;
    let tiles: Vec<&[u8]> = bytes.chunks_exact(element * cols * rows).collect();
    let tile = |bytes| Tile { dtype, rows, cols, bytes };
    let begun = Instant::now();
    let packed: Vec<Vec<u8>> =
        tiles.iter().map(|t| packed::pack(&tile(t), true)).collect::<Result<_, _>>()?;
    let seconds = begun.elapsed().as_secs_f64();
    let raw = tiles.len() * rows * cols * element;
    let coded: usize = packed.iter().map(Vec::len).sum();
    println!(
        "{name}: {raw} bytes, {:.4} packed, coded at {:.2} GB/s",
        coded as f64 / raw as f64,
        raw as f64 / seconds / 1e9
    );
    for isa in Isa::available() {
        for activations in [1usize, 32] {
            let mut line = format!("  {isa} {activations} rows:");
            for what in 0..3 {
                let mut cpu = Cpu::new(CpuConfig { threads: 1, isa: Some(isa) })?;
                let x = Mat::new(cpu.allocate(activations * cols)?, activations, cols);
                let y = Mat::new(cpu.allocate(activations * rows)?, activations, rows);
                let mut weights = Vec::new();
                for i in 0..tiles.len() {
                    let (bytes, packed) = if what == 0 { (tiles[i], false) } else { (&packed[i][..], true) };
                    let (shape, bytes) = (TileShape { dtype, rows, cols, packed }, Box::new(bytes.to_vec()));
                    weights.push(match what {
                        2 => Weight::Resident(cpu.pin(shape, bytes, Home::Host)?),
                        _ => Weight::Arriving(cpu.upload(shape, bytes)?),
                    });
                }
                let mut best = f64::INFINITY;
                for _ in 0..3 {
                    let begun = Instant::now();
                    for &w in &weights {
                        cpu.matmul(w, x, y)?;
                    }
                    best = best.min(begun.elapsed().as_secs_f64());
                }
                line += &format!(
                    "  {} {:.2} GB/s",
                    ["plain", "packed", "packed, unchecked"][what],
                    raw as f64 / best / 1e9
                );
            }
            println!("{line}");
        }
    }
    Ok(())
}

fn trained(file: &[u8]) -> Vec<f32> {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap_or_default()) as usize;
    file[8 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn gaussian(len: usize) -> Vec<f32> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut one = || {
        let radius = (-2.0 * uniform().max(1e-300).ln()).sqrt();
        (0.02 * radius * (std::f64::consts::TAU * uniform()).cos()) as f32
    };
    (0..len).map(|_| one()).collect()
}

/// To nearest, even.
fn round(dtype: DType, v: f32) -> [u8; 2] {
    match dtype {
        DType::BF16 => bf16::from_f32(v).to_le_bytes(),
        _ => f16::from_f32(v).to_le_bytes(),
    }
}
