//! Counts the instructions of kernels: a figure without noise, on which a regression of one percent shows.
//!
//! On x86-64 with valgrind (which knows AVX2, but not AVX-512) and its companion of the version in `Cargo.toml`:
//!
//! ```text
//! cargo install gungraun-runner --version 0.20.0 --locked
//! cargo bench -- --save-baseline=before   # before a change, in this folder
//! cargo bench -- --baseline=before        # after it: fails where a count rose by more than one percent
//! ```
//!
//! Counts belong to a compiler and a libm, which does the portable kernels' fused multiply-add: compare on one machine.
//! They say nothing of memory and little of time; `aerostat bench kernels` measures these.

use aerostat_backend::{
    Attention, Backend, Error, Home, KvLayout, KvType, Mat, Placement, RowPlace, SweepRows, TileShape, Weight,
};
use aerostat_checkpoint::DType::{self, *};
use aerostat_cpu::Isa::{self, *};
use aerostat_cpu::{Cpu, CpuConfig};
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};

/// Columns of all matrices, and rows of weights: a task of many activation rows.
const COLS: usize = 1024;
const TILE_ROWS: usize = 48;
/// Attention of one row at the end of this many.
const CONTEXT: usize = 1024;
const PAGE_TOKENS: usize = 16;
const SHAPE: Attention = Attention {
    heads: 8,
    kv_heads: 2,
    key_dim: 128,
    value_dim: 128,
    scale: 0.1,
    softcap: None,
    window: None,
    alibi: None,
    values_in_keys: false,
};

/// An op that has run once: what it allocates the first time does not count.
struct Ready {
    cpu: Cpu,
    op: Box<dyn Fn(&mut Cpu) -> Result<(), Error>>,
}

library_benchmark_group!(name = kernels, benchmarks = [run]);
main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no"]).soft_limits([(EventKind::Ir, 1.0)])),
    library_benchmark_groups = kernels
);

#[library_benchmark]
#[benches::one_row_avx2(
    args = [(Avx2, F32, 1), (Avx2, BF16, 1), (Avx2, Q8_0, 1), (Avx2, Q4_0, 1), (Avx2, Q4_K, 1), (Avx2, Q6_K, 1)],
    setup = matmul
)]
#[benches::many_rows_avx2(
    args = [(Avx2, F32, 32), (Avx2, BF16, 32), (Avx2, Q8_0, 32), (Avx2, Q4_0, 32), (Avx2, Q4_K, 32), (Avx2, Q6_K, 32)],
    setup = matmul
)]
#[benches::one_row_portable(
    args = [(Portable, F32, 1), (Portable, BF16, 1), (Portable, Q8_0, 1), (Portable, Q4_0, 1), (Portable, Q4_K, 1),
        (Portable, Q6_K, 1)],
    setup = matmul
)]
#[benches::many_rows_portable(
    args = [(Portable, F32, 32), (Portable, BF16, 32), (Portable, Q8_0, 32), (Portable, Q4_0, 32), (Portable, Q4_K, 32),
        (Portable, Q6_K, 32)],
    setup = matmul
)]
#[benches::attention(args = [Avx2, Portable], setup = attention)]
#[benches::norm(args = [Avx2, Portable], setup = norm)]
fn run(mut ready: Ready) -> (Ready, Result<(), Error>) {
    let result = (ready.op)(&mut ready.cpu);
    (ready, result)
}

fn matmul(isa: Isa, dtype: DType, rows: usize) -> Ready {
    let mut cpu = open(isa);
    let bytes = vec![0x3cu8; TILE_ROWS * COLS / dtype.block_len() * dtype.block_bytes()];
    let shape = TileShape { dtype, rows: TILE_ROWS, cols: COLS, packed: false };
    let w = Weight::Resident(cpu.pin(shape, Box::new(bytes), Home::Device).unwrap());
    let (x, y) = (matrix(&mut cpu, rows, COLS), matrix(&mut cpu, rows, TILE_ROWS));
    ready(cpu, move |cpu| cpu.matmul(w, x, y))
}

fn attention(isa: Isa) -> Ready {
    let mut cpu = open(isa);
    let (width, pages) = (SHAPE.kv_heads * SHAPE.key_dim, CONTEXT / PAGE_TOKENS);
    let layout = KvLayout {
        kv_type: KvType::F16,
        key_widths: vec![width],
        value_widths: vec![width],
        heads: vec![SHAPE.kv_heads],
        page_tokens: PAGE_TOKENS,
        pages,
    };
    cpu.kv_allocate(&layout).unwrap();
    let pages: Vec<u32> = (0..pages as u32).collect();
    let rows: Vec<RowPlace> = (0..CONTEXT as u32).map(|position| RowPlace { position, table: 0 }).collect();
    let kv = matrix(&mut cpu, CONTEXT, width);
    let set = |cpu: &mut Cpu, rows: &[RowPlace]| {
        cpu.set_rows(SweepRows { places: Placement { rows, pages: &pages }, states: &[] }).unwrap();
    };
    set(&mut cpu, &rows);
    cpu.kv_write(0, kv, kv).unwrap();
    set(&mut cpu, &rows[CONTEXT - 1..]);
    let (q, out) = (matrix(&mut cpu, 1, COLS), matrix(&mut cpu, 1, COLS));
    ready(cpu, move |cpu| cpu.attention(0, q, out, &SHAPE, None))
}

fn norm(isa: Isa) -> Ready {
    let mut cpu = open(isa);
    let [x, weight, y] = [(); 3].map(|()| matrix(&mut cpu, 1, COLS));
    ready(cpu, move |cpu| cpu.rms_norm(x, weight, 1e-6, y))
}

/// One thread: valgrind counts what the calling one does.
fn open(isa: Isa) -> Cpu {
    Cpu::new(CpuConfig { threads: 1, isa: Some(isa) }).unwrap()
}

fn matrix(cpu: &mut Cpu, rows: usize, cols: usize) -> Mat {
    let mat = Mat::new(cpu.allocate(rows * cols).unwrap(), rows, cols);
    cpu.write(mat, &vec![0.5; rows * cols]).unwrap();
    mat
}

fn ready(mut cpu: Cpu, op: impl Fn(&mut Cpu) -> Result<(), Error> + 'static) -> Ready {
    op(&mut cpu).unwrap();
    Ready { cpu, op: Box::new(op) }
}
