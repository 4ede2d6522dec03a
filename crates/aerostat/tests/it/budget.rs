//! Budgets: the smallest that is stated works, for every model and any size of tiles; what is planned is what is allocated.

use aerostat::{BudgetOf, Engine, ModelFiles, Options, Parts, Score, Silent, peak_resident_bytes};
use aerostat_testkit::{Fixture, fixtures};

use crate::all;

fn bits(scores: &[Score]) -> Vec<u32> {
    let values = |s: &Score| -> Vec<u32> {
        s.logprobs.iter().flatten().chain(s.logits_last.iter().flatten()).map(|v| v.to_bits()).collect()
    };
    scores.iter().flat_map(values).collect()
}

/// Scores a fixture with the smallest budget that the plan states for these options, or `above` it.
pub(crate) fn score_within(
    fixture: &Fixture,
    options: &Options,
    sequences: &[Vec<u32>],
    above: u64,
) -> Vec<Score> {
    let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
    let need = aerostat::score::need(sequences, true);
    // What was used before is no part of this; a system that cannot forget it plans with it.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let parts = Parts::of(&files, options).expect(&fixture.name);
    let minimum = Engine::plan_with(&files, options, &need, &parts).expect(&fixture.name).minimum_bytes;
    let options = Options { memory_bytes: Some(minimum + above), ..options.clone() };
    let mut engine = Engine::open_with(&files, &options, &need, parts, &mut Silent)
        .unwrap_or_else(|e| panic!("{} with {} bytes: {e}", fixture.name, minimum + above));
    let scores = engine.score(sequences, true, &mut Silent);
    let scores = scores.unwrap_or_else(|e| panic!("{} with {} bytes: {e}", fixture.name, minimum + above));
    // In one process with other tests it is theirs, too: nextest gives each its own.
    if std::env::var_os("NEXTEST").is_some() {
        let peak = peak_resident_bytes();
        assert!(peak <= minimum + above, "{}: {peak} resident of {}", fixture.name, minimum + above);
    }
    all(scores)
}

/// The last guard of a block's dense part once held one of the two slots that its experts needed.
#[test]
fn every_model_runs_at_its_stated_minimum_with_tiles_of_any_size() {
    for fixture in fixtures() {
        let sequences: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        let need = aerostat::score::need(&sequences, true);
        let mut free = Engine::open(&files, &Options::default(), &need, &mut Silent).expect(&fixture.name);
        let want = bits(&all(free.score(&sequences, true, &mut Silent).expect(&fixture.name)));
        drop(free);
        for tile_bytes in [None, Some(1), Some(3000), Some(8 << 20)] {
            let options = Options {
                tile_bytes,
                pinned_bytes_max: Some(0),
                read_bytes_per_second: Some(1e9),
                ..Options::default()
            };
            let found = bits(&score_within(&fixture, &options, &sequences, 0));
            assert_eq!(found, want, "{} in tiles of {tile_bytes:?}", fixture.name);
        }
    }
}

/// A Llama that took 15 MiB was refused less than 28: what was kept for growth was kept twice.
#[test]
fn the_smallest_budget_is_not_stated_too_high() {
    // What the plan keeps for growth, and five MiB.
    const UNUSED_BYTES_MAX: u64 = if cfg!(debug_assertions) { 17 << 20 } else { 13 << 20 };
    // In one process with other tests their peaks hide this one's: nextest gives each its own.
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    for name in ["llama", "gemma3", "qwen3_moe", "deepseek_v3", "gpt_oss_mxfp4", "qwen3_next"] {
        let fixture = aerostat_testkit::fixture(name);
        let sequences: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
        let options = Options { threads: Some(2), read_bytes_per_second: Some(1e9), ..Options::default() };
        let files = ModelFiles::open(&fixture.path).expect(name);
        let need = aerostat::score::need(&sequences, true);
        let parts = Parts::of(&files, &options).expect(name);
        let minimum = Engine::plan_with(&files, &options, &need, &parts).expect(name).minimum_bytes;
        drop((files, parts));
        score_within(&fixture, &options, &sequences, 0);
        let unused = minimum.saturating_sub(peak_resident_bytes());
        assert!(unused <= UNUSED_BYTES_MAX, "{name}: {unused} of {minimum} bytes were not used");
    }
}

#[test]
fn what_is_planned_is_what_is_allocated() {
    for fixture in fixtures() {
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        let sequences: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
        let need = aerostat::score::need(&sequences, true);
        let options = Options { threads: Some(2), read_bytes_per_second: Some(1e9), ..Options::default() };
        let mut engine = Engine::open(&files, &options, &need, &mut Silent).expect(&fixture.name);
        engine.score(&sequences, true, &mut Silent).expect(&fixture.name);
        let (plan, found, footprint) = (engine.current_plan(), engine.allocated(), engine.footprint());
        let planned = footprint.fixed_bytes
            + plan.rows_max as u64 * footprint.row_bytes
            + plan.logit_rows_max as u64 * footprint.logit_row_bytes
            + plan.state_slots as u64 * footprint.state_bytes
            + plan.kv_pages as u64 * 16 * footprint.position_bytes
            + (plan.kv_pages * 16).min(footprint.first_positions) as u64 * footprint.first_position_bytes;
        let real = found.buffers_bytes + found.scratch_bytes;
        assert!(real <= planned, "{}: {real} allocated, {planned} planned", fixture.name);
        // What the host keeps for a row, stacks and bounds of what grows later are planned besides.
        let slack = (3 << 20) + plan.rows_max as u64 * 4096;
        assert!(planned <= real + slack, "{}: {real} allocated, {planned} planned", fixture.name);
        let kv = plan.kv_pages as u64 * 16 * plan.kv_bytes_per_token;
        let layers = 2 * files.spec().blocks.len() as u64;
        assert!((kv..=kv + layers * 128).contains(&found.kv_bytes), "{}: {kv} {found:?}", fixture.name);
        assert!(found.weights_bytes <= plan.pinned_bytes, "{}: {found:?}", fixture.name);
    }
}

/// A program that holds much itself names what the engine may add.
#[test]
fn a_budget_can_be_the_engines_alone() {
    let fixture = aerostat_testkit::fixture("llama");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let need = aerostat::score::need(&[vec![1, 2, 3]], false);
    let parts = Parts::of(&files, &Options::default()).unwrap();
    let plan = |bytes: u64, budget_of: BudgetOf| {
        let options = Options { memory_bytes: Some(bytes), budget_of, ..Options::default() };
        Engine::plan_with(&files, &options, &need, &parts)
    };
    let own = plan(64 << 20, BudgetOf::Engine).unwrap();
    assert_eq!(own.budget_bytes, (64 << 20) + parts.machine.process_bytes);
    let all = own.budget_bytes - (64 << 20) + 1;
    assert!(plan(all, BudgetOf::Process).is_err(), "the process alone takes that");
    assert_eq!(plan(own.budget_bytes, BudgetOf::Process).unwrap().kv_pages, own.kv_pages);
}
