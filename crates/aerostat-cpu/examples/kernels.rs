//! Measures what `aerostat bench kernels` does not: weights that lie in the cache, attention, small ops.
//! `cargo run --release -p aerostat-cpu --example kernels [THREADS] [ISA] [cached|attention|small ...]`.
//!
//! The ceilings are measured first: fused multiply-adds in registers, and reads of memory far larger than the caches.
//! Every figure is the median of many short runs; the spread is that from the tenth to the ninetieth percentile.

use std::error::Error;
use std::time::{Duration, Instant};

use aerostat_backend::{
    Activation, Attention, Backend, Extras, Home, KvElement, KvLayout, Mat, Placement, Rope, RopeStyle, RowPlace,
    SweepRows, TileShape, Weight,
};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig, Isa, peaks};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Columns of weights and of queries.
const SIZE: usize = 4096;
/// Rows of weights that the second-level cache of a thread holds in every format.
const CACHED_ROWS: usize = 64;
/// Bytes that are read for the ceiling: far more than the caches hold.
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
    let mut cpu = Cpu::new(CpuConfig { threads, isa: Some(isa) })?;
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
    if wanted("cached") {
        cached(&mut cpu, &ceilings)?;
    }
    if wanted("attention") {
        attention(&mut cpu, &ceilings)?;
    }
    Ok(())
}

/// One activation row, weights in the second-level cache, where only computing takes time.
fn cached(cpu: &mut Cpu, ceilings: &Ceilings) -> Outcome {
    let threads = cpu.capabilities().threads;
    let rows = CACHED_ROWS * threads;
    let (x, y) = (operand(cpu, 1, SIZE)?, operand(cpu, 1, rows)?);
    for &dtype in DType::COMPUTABLE {
        let bytes = vec![0x3cu8; rows * SIZE / dtype.block_len() * dtype.block_bytes()];
        let len = bytes.len();
        let shape = TileShape { dtype, rows, cols: SIZE, packed: false };
        let tile = Weight::Resident(cpu.pin(shape, Box::new(bytes), Home::Device)?);
        let time = measure(threads, || cpu.matmul(tile, x, y))?;
        let gigabytes = |seconds: f64| len as f64 / seconds / 1e9;
        report(&format!("{dtype:>5} cached"), "GB/s", gigabytes, time, Some(ceilings.gigabytes));
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
        values_in_keys: false,
        ahead: false,
        alibi: None,
    };
    let (key_widths, value_widths) = (vec![1024; 2], vec![1024; 2]);
    cpu.kv_allocate(&KvLayout {
        keys: KvElement::F16,
        values: KvElement::F16,
        key_widths,
        value_widths,
        heads: vec![8; 2],
        page_tokens: 16,
        pages: 2048,
    })?;
    let pages: Vec<u32> = (0..2048).map(|page| page * 5 % 2048).collect();
    let all: Vec<RowPlace> = (0..32768).map(|position| RowPlace::new(position, 0)).collect();
    let ones = operand(cpu, 512, 1024)?;
    for rows in all.chunks(512) {
        let kv = Mat { rows: rows.len(), ..ones };
        set_places(cpu, rows, &pages)?;
        for layer in 0..2 {
            cpu.kv_write(layer, kv, kv)?;
        }
    }
    for (rows, context) in
        [(1, 64), (1, 1024), (1, 4096), (1, 32768), (8, 4096), (128, 128), (128, 1024), (512, 4096)]
    {
        let (q, out) = (operand(cpu, rows, SIZE)?, operand(cpu, rows, SIZE)?);
        set_places(cpu, &all[context - rows..context], &pages)?;
        let mut layer = 0;
        let time = measure(cpu.capabilities().threads, || {
            layer = 1 - layer;
            cpu.attention(layer, q, out, &shape, Extras::NONE)
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
    let mut weight = |rows: usize| -> Outcome<Weight> {
        let shape = TileShape { dtype: DType::BF16, rows, cols: 576, packed: false };
        Ok(Weight::Arriving(cpu.upload(shape, Box::new(vec![0x3cu8; rows * 576 * 2]))?))
    };
    let (w24, w48, w192, w1536) = (weight(24)?, weight(48)?, weight(192)?, weight(1536)?);
    let rope = Rope { head_dim: 64, start: 0, rotary: 64, style: RopeStyle::Half };
    let micros = |seconds: f64| seconds * 1e6;
    type Op<'a> = Box<dyn Fn(&mut Cpu) -> Result<(), aerostat_backend::Error> + 'a>;
    let ops: [(&str, Op<'_>); 8] = [
        ("matmul 24 x 576", Box::new(|cpu| cpu.matmul(w24, at(0, 576), at(1, 24)))),
        ("matmul 48 x 576", Box::new(|cpu| cpu.matmul(w48, at(0, 576), at(1, 48)))),
        ("matmul 192 x 576", Box::new(|cpu| cpu.matmul(w192, at(0, 576), at(1, 192)))),
        ("matmul 1536 x 576", Box::new(|cpu| cpu.matmul(w1536, at(0, 576), at(1, 1536)))),
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

fn set_places(cpu: &mut Cpu, rows: &[RowPlace], pages: &[u32]) -> Result<(), aerostat_backend::Error> {
    cpu.set_rows(SweepRows { places: Placement { rows, pages, slots: &[] }, states: &[] })
}

fn operand(cpu: &mut Cpu, rows: usize, cols: usize) -> Outcome<Mat> {
    let mat = Mat::new(cpu.allocate(rows * cols)?, rows, cols);
    cpu.write(mat, &vec![0.5; rows * cols])?;
    Ok(mat)
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
