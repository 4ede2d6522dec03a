//! Measures matmul and attention: `cargo run --release -p aerostat-cpu --example kernels [THREADS] [ISA]`.

use std::error::Error;
use std::time::Instant;

use aerostat_backend::{Attention, Backend, KvLayout, KvType, Mat, Placement, RowPlace, Tile, Weight};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig};

const SIZE: usize = 4096;
const ROWS: [usize; 5] = [1, 4, 8, 32, 128];
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(Ok(1), |threads| threads.parse())?;
    let isa = args.next().map(|isa| isa.parse()).transpose()?;
    let mut cpu = Cpu::new(CpuConfig { threads, isa })?;
    println!("{:?}, {SIZE} x {SIZE}", cpu.capabilities());
    matmul(&mut cpu)?;
    attention(&mut cpu)
}

fn matmul(cpu: &mut Cpu) -> Result<(), Box<dyn Error>> {
    let (x, y) = (cpu.allocate(SIZE * 128)?, cpu.allocate(SIZE * 128)?);
    cpu.write(Mat::new(x, 128, SIZE), &vec![0.5; SIZE * 128])?;
    for dtype in DTYPES {
        let bytes = vec![0x3cu8; SIZE * SIZE / dtype.block_len() * dtype.block_bytes()];
        let weight = Weight::Streamed(Tile { dtype, rows: SIZE, cols: SIZE, bytes: &bytes });
        for rows in ROWS {
            let (x, y) = (Mat::new(x, rows, SIZE), Mat::new(y, rows, SIZE));
            let seconds = best(|| cpu.matmul(weight, x, y))?;
            let gflops = 2.0 * (rows * SIZE * SIZE) as f64 / seconds / 1e9;
            let gigabytes = bytes.len() as f64 / seconds / 1e9;
            println!("{dtype:>5} {rows:4} rows {gflops:7.1} GFLOP/s {gigabytes:6.2} GB/s of weights");
        }
    }
    Ok(())
}

/// Rows at the end of a sequence of 4096 positions, 32 heads of 128 over 8 KV heads.
fn attention(cpu: &mut Cpu) -> Result<(), Box<dyn Error>> {
    let shape = Attention {
        heads: 32,
        kv_heads: 8,
        key_dim: 128,
        value_dim: 128,
        scale: 0.1,
        softcap: None,
        window: None,
    };
    let (key_widths, value_widths) = (vec![1024], vec![1024]);
    cpu.kv_allocate(&KvLayout {
        kv_type: KvType::F16,
        key_widths,
        value_widths,
        page_tokens: 16,
        pages: 256,
    })?;
    let pages: Vec<u32> = (0..256).collect();
    let (q, out) = (cpu.allocate(SIZE * 128)?, cpu.allocate(SIZE * 128)?);
    for rows in [1, 8, 128] {
        let places: Vec<RowPlace> =
            (4096 - rows as u32..4096).map(|position| RowPlace { position, table: 0 }).collect();
        let (q, out) = (Mat::new(q, rows, SIZE), Mat::new(out, rows, SIZE));
        let seconds = best(|| cpu.attention(0, q, out, &shape, Placement { rows: &places, pages: &pages }))?;
        let gflops = 4.0 * (rows * 4096 * SIZE) as f64 / seconds / 1e9;
        println!("attention {rows:4} rows {gflops:7.1} GFLOP/s, {:.2} ms", seconds * 1e3);
    }
    Ok(())
}

/// Seconds of the fastest of five runs.
fn best(
    mut run: impl FnMut() -> Result<(), aerostat_backend::Error>,
) -> Result<f64, aerostat_backend::Error> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
