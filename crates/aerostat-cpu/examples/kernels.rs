//! Measures matmul: `cargo run --release -p aerostat-cpu --example kernels [THREADS] [ISA]`.

use std::time::Instant;

use aerostat_backend::{Backend, Mat, Tile, Weight};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig};

const SIZE: usize = 4096;
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 32, 128];
const DTYPES: [DType; 9] = [
    DType::BF16,
    DType::F16,
    DType::F32,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q5_1,
    DType::Q2_K,
    DType::Q4_K,
    DType::Q6_K,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(Ok(1), |threads| threads.parse())?;
    let isa = args.next().map(|isa| isa.parse()).transpose()?;
    let mut cpu = Cpu::new(CpuConfig { threads, isa })?;
    println!("{:?}, {SIZE} x {SIZE}", cpu.capabilities());
    let (x, y) = (cpu.allocate(SIZE * 128)?, cpu.allocate(SIZE * 128)?);
    cpu.write(Mat::new(x, 128, SIZE), &vec![0.5; SIZE * 128])?;
    for dtype in DTYPES {
        let bytes = vec![0x3cu8; SIZE * SIZE / dtype.block_len() * dtype.block_bytes()];
        let weight = Weight::Streamed(Tile { dtype, rows: SIZE, cols: SIZE, bytes: &bytes });
        for rows in ROWS {
            let (x, y) = (Mat::new(x, rows, SIZE), Mat::new(y, rows, SIZE));
            let mut best = f64::INFINITY;
            for _ in 0..5 {
                let start = Instant::now();
                cpu.matmul(weight, x, y)?;
                best = best.min(start.elapsed().as_secs_f64());
            }
            let flops = 2.0 * (rows * SIZE * SIZE) as f64;
            let (gflops, gigabytes) = (flops / best / 1e9, bytes.len() as f64 / best / 1e9);
            println!("{dtype:>5} {rows:4} rows {gflops:7.1} GFLOP/s {gigabytes:6.2} GB/s of weights");
        }
    }
    Ok(())
}
