//! Measures the kernels against what the machine can do:
//! `cargo run --release -p aerostat-cpu --example kernels [THREADS] [ISA] [ceilings|one|cached|many|attention|small ...]`.
//!
//! The ceilings are measured first: fused multiply-adds in registers, and reads of memory far larger than the caches.
//! Every figure is the median of many short runs; the spread is that from the tenth to the ninetieth percentile.
//! Formats take turns, so that a busy machine does not fall on one of them.

use std::error::Error;
use std::time::{Duration, Instant};

use aerostat_backend::{
    Activation, Attention, Backend, KvLayout, KvType, Mat, Placement, Rope, RopeStyle, RowPlace, Tile,
    Weight, WeightId, formats,
};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig, Isa, peaks};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Columns of all weights; rows of a tile.
const SIZE: usize = 4096;
const TILE_ROWS: usize = 512;
const ROWS: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];
/// Bytes of the weights that one row is multiplied with: far larger than the caches.
const COLD_BYTES: usize = 320 << 20;
/// Time given to each figure.
const TIME: Duration = Duration::from_millis(400);

/// What the machine can do with the threads in use.
struct Ceilings {
    gflops: f64,
    gigabytes: f64,
}

/// Median and spread of some runs, in seconds.
#[derive(Clone, Copy)]
struct Seconds {
    median: f64,
    low: f64,
    high: f64,
}

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(Ok(1), |threads| threads.parse())?;
    let isa = args.next().map_or(Ok(Isa::detect()), |isa| isa.parse())?;
    let parts: Vec<String> = args.collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let config = CpuConfig { threads, isa: Some(isa) };
    let mut cpu = Cpu::new(config)?;
    let ceilings = Ceilings {
        gflops: peaks::fma_peak(threads, isa)? / 1e9,
        gigabytes: peaks::read_peak(threads, COLD_BYTES)? / 1e9,
    };
    println!(
        "{threads} threads, {isa}: {:.1} GFLOP/s of f32, {:.1} GB/s of reads",
        ceilings.gflops, ceilings.gigabytes
    );
    if wanted("small") {
        small(&mut cpu)?;
    }
    if wanted("one") {
        one_row(config, &ceilings, false)?;
    }
    if wanted("cached") {
        one_row(config, &ceilings, true)?;
    }
    if wanted("many") {
        many_rows(&mut cpu, &ceilings)?;
    }
    if wanted("attention") {
        attention(&mut cpu, &ceilings)?;
    }
    Ok(())
}

/// One activation row: weights from memory, or from the second-level cache, where only computing takes time.
fn one_row(config: CpuConfig, ceilings: &Ceilings, cached: bool) -> Outcome {
    for &dtype in formats::SUPPORTED {
        // Pinned tiles live as long as the device.
        let cpu = &mut Cpu::new(config)?;
        let (x, y) = operands(cpu, 1)?;
        let rows = if cached { 64 * config.threads } else { TILE_ROWS };
        let bytes = &tile_bytes(dtype)[..SIZE / dtype.block_len() * dtype.block_bytes() * rows];
        let tile = Tile { dtype, rows, cols: SIZE, bytes };
        let count = if cached { 1 } else { COLD_BYTES / bytes.len() };
        let tiles: Vec<WeightId> = (0..count).map(|_| cpu.pin(tile)).collect::<Result<_, _>>()?;
        let mut next = tiles.iter().cycle();
        let y = Mat { cols: rows, stride: rows, ..y };
        let time = measure(cpu.capabilities().threads, || match next.next() {
            Some(&tile) => cpu.matmul(Weight::Pinned(tile), x, y),
            None => Ok(()),
        })?;
        let gigabytes = |seconds: f64| bytes.len() as f64 / seconds / 1e9;
        let place = if cached { "1 row cached" } else { "1 row" };
        report(&format!("{dtype:>5} {place:12}"), "GB/s", gigabytes, time, Some(ceilings.gigabytes));
    }
    Ok(())
}

fn many_rows(cpu: &mut Cpu, ceilings: &Ceilings) -> Outcome {
    let mut tiles = Vec::new();
    for &dtype in formats::SUPPORTED {
        let tile = Tile { dtype, rows: TILE_ROWS, cols: SIZE, bytes: &tile_bytes(dtype) };
        tiles.push((dtype, cpu.pin(tile)?));
    }
    for rows in ROWS {
        let (x, y) = operands(cpu, rows)?;
        for &(dtype, tile) in &tiles {
            let time = measure(cpu.capabilities().threads, || cpu.matmul(Weight::Pinned(tile), x, y))?;
            let gflops = |seconds: f64| 2.0 * (rows * TILE_ROWS * SIZE) as f64 / seconds / 1e9;
            report(&format!("{dtype:>5} {rows:4} rows"), "GFLOP/s", gflops, time, Some(ceilings.gflops));
        }
    }
    Ok(())
}

/// Rows at the end of a sequence, 32 heads of 128 over 8 KV heads, f16.
fn attention(cpu: &mut Cpu, ceilings: &Ceilings) -> Outcome {
    let shape = Attention {
        heads: 32,
        kv_heads: 8,
        key_dim: 128,
        value_dim: 128,
        scale: 0.1,
        softcap: None,
        window: None,
        alibi: false,
    };
    let (key_widths, value_widths) = (vec![1024; 2], vec![1024; 2]);
    cpu.kv_allocate(&KvLayout {
        kv_type: KvType::F16,
        key_widths,
        value_widths,
        heads: vec![8; 2],
        page_tokens: 16,
        pages: 2048,
    })?;
    let pages: Vec<u32> = (0..2048).map(|page| page * 5 % 2048).collect();
    let all: Vec<RowPlace> = (0..32768).map(|position| RowPlace { position, table: 0 }).collect();
    let ones = cpu.allocate(512 * 1024)?;
    cpu.write(Mat::new(ones, 1, 512 * 1024), &vec![0.5; 512 * 1024])?;
    for rows in all.chunks(512) {
        let kv = Mat::new(ones, rows.len(), 1024);
        for layer in 0..2 {
            cpu.kv_write(layer, kv, kv, Placement { rows, pages: &pages })?;
        }
    }
    for (rows, context) in
        [(1, 64), (1, 1024), (1, 4096), (1, 32768), (8, 4096), (128, 128), (128, 1024), (512, 4096)]
    {
        let (q, out) = operands(cpu, rows)?;
        let places = Placement { rows: &all[context - rows..context], pages: &pages };
        let mut layer = 0;
        let time = measure(cpu.capabilities().threads, || {
            layer = 1 - layer;
            cpu.attention(layer, q, Mat { cols: SIZE, stride: SIZE, ..out }, &shape, places)
        })?;
        let name = format!("attention {rows:3} rows at {context:5}");
        if rows == 1 {
            let gigabytes = |seconds: f64| (context * 4096) as f64 / seconds / 1e9;
            report(&name, "GB/s", gigabytes, time, Some(ceilings.gigabytes));
        } else {
            let pairs = rows * context - rows * (rows - 1) / 2;
            let gflops = |seconds: f64| 4.0 * (pairs * SIZE) as f64 / seconds / 1e9;
            report(&name, "GFLOP/s", gflops, time, Some(ceilings.gflops));
        }
    }
    Ok(())
}

/// What an op costs beside its work: ops on the shapes of a small model, one row, everything in the caches.
fn small(cpu: &mut Cpu) -> Outcome {
    let buffer = cpu.allocate(16 * SIZE)?;
    let at = |i: usize, cols: usize| Mat { offset: i * SIZE, ..Mat::new(buffer, 1, cols) };
    let bytes = vec![0x3cu8; 576 * 1536 * 2];
    let tile = |rows: usize| Tile { dtype: DType::BF16, rows, cols: 576, bytes: &bytes[..rows * 576 * 2] };
    let rope = Rope { head_dim: 64, rotary: 64, style: RopeStyle::Half };
    let micros = |seconds: f64| seconds * 1e6;
    type Op<'a> = Box<dyn Fn(&mut Cpu) -> Result<(), aerostat_backend::Error> + 'a>;
    let ops: [(&str, Op<'_>); 8] = [
        ("matmul 24 x 576", Box::new(|cpu| cpu.matmul(Weight::Streamed(tile(24)), at(0, 576), at(1, 24)))),
        ("matmul 48 x 576", Box::new(|cpu| cpu.matmul(Weight::Streamed(tile(48)), at(0, 576), at(1, 48)))),
        ("matmul 192 x 576", Box::new(|cpu| cpu.matmul(Weight::Streamed(tile(192)), at(0, 576), at(1, 192)))),
        (
            "matmul 1536 x 576",
            Box::new(|cpu| cpu.matmul(Weight::Streamed(tile(1536)), at(0, 576), at(1, 1536))),
        ),
        ("norm 576", Box::new(|cpu| cpu.rms_norm(at(0, 576), at(1, 576), 1e-6, at(2, 576)))),
        ("rope 576", Box::new(|cpu| cpu.rope(at(0, 576), rope, at(1, 64)))),
        ("glu 1536", Box::new(|cpu| cpu.glu(at(0, 1536), at(1, 1536), Activation::Silu, at(2, 1536)))),
        ("add 576", Box::new(|cpu| cpu.add(at(0, 576), at(1, 576)))),
    ];
    for (name, op) in ops {
        let time = measure(cpu.capabilities().threads, || op(cpu))?;
        report(&format!("{name:>17}"), "us", micros, time, None);
    }
    Ok(())
}

/// Activations of `rows` rows, and room for their products with a tile or for attention.
fn operands(cpu: &mut Cpu, rows: usize) -> Outcome<(Mat, Mat)> {
    let (x, y) = (cpu.allocate(SIZE * rows)?, cpu.allocate(SIZE * rows)?);
    let x = Mat::new(x, rows, SIZE);
    cpu.write(x, &vec![0.5; SIZE * rows])?;
    Ok((x, Mat::new(y, rows, TILE_ROWS)))
}

fn tile_bytes(dtype: DType) -> Vec<u8> {
    vec![0x3cu8; TILE_ROWS * SIZE / dtype.block_len() * dtype.block_bytes()]
}

/// Runs for [`TIME`], at least five times.
fn measure(threads: usize, mut run: impl FnMut() -> Result<(), aerostat_backend::Error>) -> Outcome<Seconds> {
    let (mut times, begin) = (Vec::new(), Instant::now());
    run()?;
    while times.len() < 5 || begin.elapsed() < TIME {
        let start = now(threads);
        run()?;
        times.push(now(threads) - start);
    }
    Ok(quantiles(times))
}

/// Seconds: of this thread's own time where it works alone, which leaves out what other processes take.
fn now(threads: usize) -> f64 {
    let clock = if threads == 1 { ClockId::ThreadCPUTime } else { ClockId::Monotonic };
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn quantiles(mut times: Vec<f64>) -> Seconds {
    times.sort_by(f64::total_cmp);
    let at = |tenths: usize| times[(times.len() - 1) * tenths / 10];
    Seconds { median: at(5), low: at(1), high: at(9) }
}

fn report(name: &str, unit: &str, figure: impl Fn(f64) -> f64, time: Seconds, ceiling: Option<f64>) {
    let Seconds { median, low, high } = time;
    let (median, low, high) = (figure(median), figure(low), figure(high));
    let share = ceiling.map_or(String::new(), |ceiling| format!("{:5.1} %", 100.0 * median / ceiling));
    println!("{name} {median:8.2} {unit} {share}  (spread {:.2} to {:.2})", low.min(high), high.max(low));
}
