//! On one device the bits of a result depend on none of the ways in which it can be computed.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use aerostat::{Engine, ModelFiles, Options, Parts, Prefixes, Silent};
use aerostat_backend::Backend;
use aerostat_gpu::UploadPath;
use aerostat_testkit::fixture;
use proptest::prelude::*;

use crate::models::{all, options};

/// Heads in groups, experts, windows, delta nets, latents with chosen experts, biases by distance, state spaces; weights as they
/// were trained, in blocks, in codes with scales beside them.
const MODELS: [&str; 11] = [
    "llama",
    "qwen3_moe",
    "gemma3",
    "qwen3_next",
    "deepseek_v3",
    "gguf_k_mixed/twin.gguf",
    "gpt2",
    "bloom",
    "llama_gptq_4",
    "llama_nf4",
    "lfm2",
];
const MIB: u64 = 1 << 20;

/// One way to compute.
#[derive(Clone, Debug)]
struct Way {
    model: &'static str,
    options: Options,
    path: UploadPath,
    /// Device memory in bytes above the smallest that works; `None`: 2 GiB.
    vram_above: Option<u64>,
    /// The same of the budget; `None`: none is named.
    memory_above: Option<u64>,
    /// Other sequences in the same run, before it and after.
    company: (usize, usize),
}

fn ways() -> impl Strategy<Value = Way> {
    let path = prop::sample::select(vec![UploadPath::Mapped, UploadPath::Staged]);
    let vram = prop_oneof![2 => Just(Some(0)), 2 => (0..24 * MIB).prop_map(Some), 1 => Just(None)];
    let memory = prop_oneof![2 => Just(Some(0)), 1 => (0..32 * MIB).prop_map(Some), 2 => Just(None)];
    let pinned = prop_oneof![Just(Some(0)), (0u64..200_000).prop_map(Some), Just(None)];
    let tile = prop::sample::select(vec![None, Some(1), Some(700), Some(5_000), Some(60_000)]);
    let chunk = prop::sample::select(vec![None, Some(1), Some(7)]);
    let rows = prop::sample::select(vec![None, Some(1), Some(3), Some(20)]);
    let prefixes = prop::sample::select(vec![Prefixes::Shared, Prefixes::Apart]);
    let bounds = (path, vram, memory, pinned);
    (prop::sample::select(&MODELS[..]), bounds, (tile, chunk, rows, prefixes), (0usize..6, 0usize..6))
        .prop_map(|(model, (path, vram_above, memory_above, pinned_bytes_max), cuts, company)| {
            let (tile_bytes, prefill_chunk, rows_max, prefixes) = cuts;
            let options =
                Options { pinned_bytes_max, tile_bytes, prefill_chunk, rows_max, prefixes, ..options() };
            Way { model, options, path, vram_above, memory_above, company }
        })
}

fn parts(files: &ModelFiles, options: &Options, path: UploadPath) -> Parts {
    let backend = Box::new(crate::open(options.vram_bytes, path)) as Box<dyn Backend>;
    Parts { backend, ..Parts::of(files, options).unwrap() }
}

/// Bits of all logits of the last position, and of each token's log-probability.
fn bits(way: &Way) -> Vec<u32> {
    let fixture = fixture(way.model);
    let files = ModelFiles::open(&fixture.path).unwrap();
    let own = fixture.prompts[0].ids.clone();
    // They begin alike, and end elsewhere.
    let ends = &fixture.prompts[1].ids;
    let other = |i: usize| [&own[..1 + i % own.len()], &ends[..1 + i % ends.len().min(4)]].concat();
    let before = (0..way.company.0).map(other);
    let sequences: Vec<Vec<u32>> =
        before.chain([own.clone()]).chain((0..way.company.1).map(|i| other(i + 3))).collect();
    let need = aerostat::score::need(&sequences, true);
    let mut options = way.options.clone();
    if let Some(above) = way.vram_above {
        let fits = |vram: &u64| {
            let options = Options { vram_bytes: Some(*vram), ..options.clone() };
            Engine::plan_with(&files, &options, &need, &parts(&files, &options, way.path)).is_ok()
        };
        let least = (16..512).map(|mib| mib * MIB).find(fits).expect("some memory will do");
        assert!(least > 16 * MIB);
        options.vram_bytes = Some(least + above);
    }
    let parts = parts(&files, &options, way.path);
    if let Some(above) = way.memory_above {
        let plan = Engine::plan_with(&files, &options, &need, &parts).unwrap();
        options.memory_bytes = Some(plan.minimum_bytes + above);
    }
    let mut engine = Engine::open_with(&files, &options, &need, parts, &mut Silent).unwrap();
    let scores = all(engine.score(&sequences, true, &mut Silent).unwrap());
    if let (Some(vram), Some(gpu)) = (options.vram_bytes, engine.stats().gpu) {
        assert!(gpu.memory_peak_bytes <= vram, "{gpu:?} of {vram}");
    }
    let score = &scores[way.company.0];
    let logprobs = score.logprobs.iter().flatten();
    logprobs.chain(score.logits_last.iter().flatten()).map(|v| v.to_bits()).collect()
}

/// The bits of the plainest way, found once.
fn plain(model: &'static str) -> Vec<u32> {
    static FOUND: LazyLock<Mutex<HashMap<&'static str, Vec<u32>>>> = LazyLock::new(Mutex::default);
    let plain = Way {
        model,
        options: options(),
        path: UploadPath::Auto,
        vram_above: None,
        memory_above: None,
        company: (0, 0),
    };
    FOUND.lock().unwrap().entry(model).or_insert_with(|| bits(&plain)).clone()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("AEROSTAT_WAYS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bits_depend_on_neither_memory_nor_cuts_nor_company_nor_the_way_to_the_device(way in ways()) {
        // As long as they are open, kernels that were compiled stay so.
        static OPEN: LazyLock<Mutex<Vec<aerostat_gpu::Gpu>>> = LazyLock::new(|| {
            Mutex::new([UploadPath::Auto, UploadPath::Mapped, UploadPath::Staged].map(|path| crate::open(None, path)).into())
        });
        prop_assert_eq!(OPEN.lock().unwrap().len(), 3);
        prop_assert_eq!(bits(&way), plain(way.model));
    }
}
