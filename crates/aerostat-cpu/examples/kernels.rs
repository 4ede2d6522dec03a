//! Measures the kernels against what the machine can do:
//! `cargo run --release -p aerostat-cpu --example kernels [THREADS] [ISA] [ceilings|one|many|attention|small ...]`.
//!
//! The ceilings are measured first: fused multiply-adds in registers, and reads of memory far larger than the caches.
//! Every figure is the median of many short runs; the spread is that from the tenth to the ninetieth percentile.
//! Formats take turns, so that a busy machine does not fall on one of them.

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aerostat_backend::{
    Activation, Attention, Backend, KvLayout, KvType, Mat, Placement, Rope, RopeStyle, RowPlace, Tile,
    Weight, WeightId, formats,
};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig, Isa};
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
    let ceilings = Ceilings { gflops: peak_gflops(threads, isa), gigabytes: read_gigabytes(threads) };
    println!(
        "{threads} threads, {isa}: {:.1} GFLOP/s of f32, {:.1} GB/s of reads",
        ceilings.gflops, ceilings.gigabytes
    );
    if wanted("small") {
        small(&mut cpu)?;
    }
    if wanted("one") {
        one_row(config, &ceilings)?;
    }
    if wanted("many") {
        many_rows(&mut cpu, &ceilings)?;
    }
    if wanted("attention") {
        attention(&mut cpu, &ceilings)?;
    }
    Ok(())
}

/// One activation row, weights from memory.
fn one_row(config: CpuConfig, ceilings: &Ceilings) -> Outcome {
    for &dtype in formats::SUPPORTED {
        // Pinned tiles live as long as the device.
        let cpu = &mut Cpu::new(config)?;
        let (x, y) = operands(cpu, 1)?;
        let bytes = tile_bytes(dtype);
        let tile = Tile { dtype, rows: TILE_ROWS, cols: SIZE, bytes: &bytes };
        let tiles: Vec<WeightId> =
            (0..COLD_BYTES / bytes.len()).map(|_| cpu.pin(tile)).collect::<Result<_, _>>()?;
        let mut next = tiles.iter().cycle();
        let time = measure(cpu.capabilities().threads, || match next.next() {
            Some(&tile) => cpu.matmul(Weight::Pinned(tile), x, y),
            None => Ok(()),
        })?;
        let gigabytes = |seconds: f64| bytes.len() as f64 / seconds / 1e9;
        report(&format!("{dtype:>5}    1 row "), "GB/s", gigabytes, time, Some(ceilings.gigabytes));
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

/// Fused multiply-adds on registers.
fn peak_gflops(threads: usize, isa: Isa) -> f64 {
    rate_of(threads, |_| {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a device with this instruction set was opened.
            Isa::Avx512 => unsafe { multiply_avx512() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a device with this instruction set was opened.
            Isa::Avx2 => unsafe { multiply_avx2() },
            _ => multiply_portable(),
        }
        FLOPS
    }) / 1e9
}

const FLOPS: f64 = 2e7;

/// A loop of [`FLOPS`] operations on registers.
macro_rules! multiply {
    ($lanes:literal, $vectors:literal, $splat:path, $add:path) => {{
        let (a, b) = ($splat(black_box(0.5)), $splat(black_box(0.25)));
        let mut sums = [$splat(0.0); $vectors];
        for _ in 0..FLOPS as usize / (2 * $lanes * $vectors) {
            for sum in &mut sums {
                *sum = $add(a, b, *sum);
            }
        }
        black_box(sums);
    }};
}

/// # Safety
/// The CPU has AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn multiply_avx512() {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    multiply!(16, 24, _mm512_set1_ps, _mm512_fmadd_ps)
}

/// # Safety
/// The CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_avx2() {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    multiply!(8, 12, _mm256_set1_ps, _mm256_fmadd_ps)
}

fn multiply_portable() {
    multiply!(1, 8, f32::from, f32::mul_add)
}

/// Reads of memory, each thread its own part.
fn read_gigabytes(threads: usize) -> f64 {
    const RUN: usize = 8 << 20;
    let part = COLD_BYTES / threads / RUN * RUN;
    let memory = vec![1u64; part * threads / 8];
    let next: Vec<AtomicUsize> = (0..threads).map(|thread| AtomicUsize::new(thread * part)).collect();
    rate_of(threads, |thread| {
        let at = next[thread].load(Ordering::Relaxed);
        let after = thread * part + (at - thread * part + RUN) % part;
        next[thread].store(after, Ordering::Relaxed);
        let words = &memory[at / 8..][..RUN / 8];
        black_box(match Isa::detect() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: detection found the instructions.
            Isa::Avx512 => unsafe { read_avx512(words) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: detection found the instructions.
            Isa::Avx2 => unsafe { read_avx2(words) },
            _ => read(words),
        });
        RUN as f64
    }) / 1e9
}

/// # Safety
/// The CPU has AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn read_avx512(words: &[u64]) -> u64 {
    read(words)
}

/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn read_avx2(words: &[u64]) -> u64 {
    read(words)
}

#[inline(always)]
fn read(words: &[u64]) -> u64 {
    let mut sums = [0u64; 64];
    for words in words.chunks_exact(64) {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// The rate of `work`, which says how much it did, on all threads at once: medians of short runs, summed over threads.
fn rate_of(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let run = |thread: usize| {
        let (mut times, mut done, begin) = (Vec::new(), 0.0, Instant::now());
        while begin.elapsed() < 3 * TIME {
            let start = now(1);
            done = work(thread);
            times.push(now(1) - start);
        }
        done / quantiles(times).median
    };
    std::thread::scope(|scope| {
        let run = &run;
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
    })
}
