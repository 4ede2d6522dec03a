//! What sweeps ask of the device, counted, against what the plan says: on a software driver times say little.

use aerostat::{Device, Engine, GpuStats, ModelFiles, Options, Parts, Plan, Request, Silent, Stats};
use aerostat_backend::Backend;
use aerostat_gpu::UploadPath;
use aerostat_testkit::fixture;

use crate::models::options;

const NEW_TOKENS: usize = 12;
const WORD: u64 = 4;

/// Streams everything, and one prompt to its end: the first sweep carries the prompt, each further one a row.
fn run(name: &str, options: &Options, path: UploadPath) -> (Plan, Stats) {
    let fixture = fixture(name);
    let files = ModelFiles::open(&fixture.path).expect(name);
    let token_ids = fixture.prompts[0].ids.clone();
    let request = Request { token_ids, max_new_tokens: NEW_TOKENS, ignore_eos: true, ..Request::default() };
    let need = aerostat::generate::need(std::slice::from_ref(&request));
    let backend = Box::new(crate::open(options.vram_bytes, path)) as Box<dyn Backend>;
    // Its figures are measured on the device that options name, and that is another.
    let parts = Parts { backend, ..Parts::of(&files, options).expect(name) };
    let mut engine = Engine::open_with(&files, options, &need, parts, &mut Silent).expect(name);
    let answers = engine.generate(&[request], None, &mut Silent).expect(name);
    answers.completions.into_iter().for_each(|answer| assert!(answer.is_ok(), "{name}"));
    let stats = engine.stats();
    assert_eq!(stats.sweeps, NEW_TOKENS as u64);
    (engine.current_plan().clone(), stats)
}

fn counted(stats: &Stats) -> GpuStats {
    let gpu = stats.gpu.expect("a device that counts");
    println!("{} sweeps of {} rows: {gpu:?}", stats.sweeps, stats.rows);
    // Whatever host and device use in turns is waited for once at most, and so is whatever is read.
    assert!(gpu.waits <= gpu.turns + gpu.read_backs, "{gpu:?}");
    gpu
}

/// What is sent are the bytes that the plan streams, and the rows; what is read are logits, once a sweep.
#[test]
fn a_sweep_sends_what_the_plan_streams_and_reads_back_once() {
    const HIDDEN: u64 = 40;
    const HEAD_DIM: u64 = 10;
    /// What says where a row stands.
    const PLACE: u64 = 5;
    for path in [UploadPath::Mapped, UploadPath::Staged] {
        for tile_bytes in [None, Some(3000)] {
            let options = Options { pinned_bytes_max: Some(0), tile_bytes, ..options() };
            let (plan, stats) = run("llama", &options, path);
            let gpu = counted(&stats);
            assert!(plan.streamed_bytes_per_sweep > 0 && plan.device_pinned_bytes == 0);
            assert_eq!(gpu.uploaded_bytes, stats.sweeps * plan.streamed_bytes_per_sweep);
            assert_eq!(gpu.read_backs, stats.sweeps);
            // Embeddings, angles and places of rows; each sweep the number of the row with logits, and a table of pages.
            let rows = stats.rows * (HIDDEN + HEAD_DIM + PLACE) * WORD;
            let tables = gpu.written_bytes.checked_sub(rows + stats.sweeps * WORD).expect("rows are sent");
            assert!((stats.sweeps * WORD..=stats.sweeps * WORD * 2).contains(&tables), "{tables}");
            // Each tile ends a batch, and so does a read-back; the first batch has what was sent at open, too.
            let tiles = plan.steps.len() as u64 * stats.sweeps;
            let batches = tiles + gpu.read_backs;
            assert!((tiles..=batches + 1).contains(&gpu.submissions), "{gpu:?}, {tiles} tiles");
            // A slot for each tile (memory to copy from, elsewhere), and memory that rows go through: embeddings, angles,
            // places, the row with logits.
            assert!(gpu.turns <= tiles + 4 * stats.sweeps, "{gpu:?}, {tiles} tiles");
        }
    }
}

/// What stays on the device is not sent again, and nobody waits but for logits.
#[test]
fn a_sweep_over_resident_weights_sends_rows_only() {
    let (plan, stats) = run("llama", &Options { vram_bytes: Some(256 << 20), ..options() }, UploadPath::Auto);
    let gpu = counted(&stats);
    assert_eq!(plan.streamed_bytes_per_sweep, 0);
    assert_eq!(gpu.uploaded_bytes, 0);
    assert_eq!(gpu.read_backs, stats.sweeps);
    // One for the logits of each sweep, and one for what was sent at open.
    assert!((stats.sweeps..=stats.sweeps + 1).contains(&gpu.waits), "{gpu:?}");
    assert!(gpu.submissions <= 2 * stats.sweeps, "{gpu:?}");
    assert!(gpu.memory_peak_bytes <= 256 << 20);
}

/// A router's scores are read back, and the experts that it chose are sent, wherever they were.
#[test]
fn a_router_costs_a_read_back_and_the_experts_that_it_chose() {
    const BLOCKS: u64 = 2;
    /// Gate, up and down of 24 x 40 in BF16.
    const EXPERT_BYTES: u64 = 3 * 24 * 40 * 2;
    let (plan, stats) =
        run("qwen3_moe", &Options { pinned_bytes_max: Some(0), ..options() }, UploadPath::Auto);
    let gpu = counted(&stats);
    assert_eq!(gpu.read_backs, stats.sweeps * (1 + BLOCKS));
    assert!(stats.experts >= stats.sweeps * BLOCKS * 3);
    assert_eq!(gpu.uploaded_bytes, stats.sweeps * plan.certain_bytes() + stats.experts * EXPERT_BYTES);
}

/// The CPU has no such numbers.
#[test]
fn a_device_without_memory_of_its_own_counts_nothing() {
    let fixture = fixture("llama");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let options = Options { device: Device::Cpu, ..options() };
    let need = aerostat::Need::one(8);
    let engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
    assert!(engine.stats().gpu.is_none());
}
