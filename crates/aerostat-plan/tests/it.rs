//! Plans of the fixtures' models under drawn demands and machines.

use aerostat_arch::{Matrix, ModelSpec, describe};
use aerostat_checkpoint::Checkpoint;
use aerostat_plan::{ExpertUse, Footprint, Machine, Multiply, Plan, PlanInput, Share, Step, Totals, plan};
use aerostat_testkit::fixture;
use proptest::prelude::*;

fn spec(name: &str) -> ModelSpec {
    describe(&Checkpoint::open(&fixture(name).path).unwrap()).unwrap()
}

fn input(spec: &ModelSpec) -> PlanInput {
    PlanInput {
        budget_bytes: None,
        sequence_tokens_max: 100,
        sequences: 4,
        tokens_total: 400,
        rows_useful: 300,
        rows_max: None,
        logit_rows_useful: 4,
        logit_rows_kept: 0,
        totals: Totals::default(),
        draft_rows: 0,
        draft_bytes: 0,
        kv_type: "f16",
        kv_bytes_per_token: 2 * 128,
        share: Share::default(),
        footprint: Footprint {
            fixed_bytes: 3 << 20,
            row_bytes: 5000,
            logit_row_bytes: 3000,
            state_bytes: spec.state_elements() as u64 * 4,
            position_bytes: 32,
            first_position_bytes: 48,
            first_positions: 1000,
        },
        tile_bytes: None,
        pinned_bytes_max: None,
        expert_use: None,
        device: None,
    }
}

fn machine() -> Machine {
    Machine {
        available_bytes: 8 << 30,
        process_bytes: 5 << 20,
        process_peak_bytes: 9 << 20,
        threads: 2,
        alignment: 4096,
        read_bytes_per_second: 1e9,
        multiply: vec![
            Multiply { rows: 1, seconds_per_weight: 2e-10 },
            Multiply { rows: 100, seconds_per_weight: 2e-9 },
        ],
    }
}

fn spent(plan: &Plan) -> u64 {
    plan.overhead_bytes
        + plan.activation_bytes
        + plan.kv_bytes
        + plan.state_bytes
        + plan.ring_bytes
        + plan.pinned_bytes
}

/// Every row of every matrix is in one step, in the order of use: those that every sweep uses, then each expert's.
fn check_coverage(spec: &ModelSpec, plan: &Plan) {
    let blocks = || spec.blocks.iter().enumerate();
    let certain = blocks().flat_map(|(_, b)| b.linears()).map(|(_, l)| &l.weight).chain([&spec.head.weight]);
    covers(plan, &plan.steps, certain, spec);
    let mut streamed: u64 = plan.steps.iter().filter(|s| s.is_streamed()).map(|s| s.extent.bytes).sum();
    assert_eq!(streamed, plan.certain_bytes());
    for (i, mixture) in blocks().filter_map(|(i, block)| Some((i, block.experts.as_ref()?))) {
        for (e, mlp) in mixture.mlps.iter().enumerate() {
            let steps = plan.expert_steps(spec, i, e as u32);
            covers(plan, &steps, mlp.linears().map(|(_, linear)| &linear.weight), spec);
        }
        let count = mixture.mlps.len();
        assert!(plan.expert_slots[i] <= count && plan.warm_experts[i].len() <= plan.expert_slots[i]);
        streamed += (count - plan.expert_slots[i]) as u64 * (mixture.bytes() / count as u64);
    }
    assert_eq!(plan.resident, streamed == 0);
    assert!((plan.pinned_fraction(spec) - (1.0 - streamed as f64 / spec.matrix_bytes() as f64)).abs() < 1e-9);
}

fn covers<'a>(plan: &Plan, steps: &[Step], matrices: impl Iterator<Item = &'a Matrix>, spec: &ModelSpec) {
    let mut steps = steps.iter();
    for matrix in matrices {
        // What is read before a matrix, then the matrix.
        for (i, companion) in matrix.companions().iter().enumerate() {
            let (mut row, mut numbers) = (0, 0);
            while row < companion.rows {
                let step = steps.next().expect("a step for every row");
                assert_eq!((step.companion, step.start, step.first, step.last), (Some(i), row, false, false));
                assert_eq!(step.extent.offset, companion.extent.offset + row as u64 * companion.row_bytes());
                assert_eq!(step.extent.bytes, step.rows as u64 * companion.row_bytes());
                assert_eq!(companion.rows_of(step.start, step.rows).0, numbers);
                numbers += companion.rows_of(step.start, step.rows).1;
                row += step.rows;
            }
            assert_eq!(numbers, companion.shape.0);
        }
        let mut row = 0;
        let all = matrix.stored().0;
        while row < all {
            let step = steps.next().expect("a step for every row");
            assert_eq!((step.start, step.first, step.last), (row, row == 0, row + step.rows == all));
            assert_eq!((step.companion, step.rows % matrix.unit_rows()), (None, 0));
            assert_eq!(step.extent, matrix.rows_extent(step.start, step.rows));
            assert_eq!(step.matrix(spec).unwrap().extent, matrix.extent);
            assert!(step.extent.bytes <= plan.tile_bytes.max(matrix.unit_bytes()));
            assert!(step.extent.bytes <= plan.largest_tile(spec));
            row += step.rows;
        }
    }
    assert!(steps.next().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_keeps_its_budget_and_covers_the_model(
        name in prop::sample::select(vec![
            "llama", "gemma3", "qwen2_tied", "gguf_k_mixed/twin.gguf", "qwen3_moe", "mixtral/twin.gguf", "gpt_oss_mxfp4",
            "llama_gptq_3", "phi3_w4a16", "llama_nf4", "qwen3_next",
        ]),
        above in prop_oneof![0u64..1 << 20, 0u64..64 << 20],
        sequence in 1usize..3000,
        sequences in 1usize..20,
        rows in prop::option::of(1usize..600),
        tile in prop::option::of(1u64..1 << 20),
        pinned in prop::option::of(0u64..300_000),
    ) {
        let spec = spec(name);
        let mut input = PlanInput {
            sequence_tokens_max: sequence,
            sequences,
            tokens_total: sequence * sequences,
            rows_useful: sequence,
            rows_max: rows,
            logit_rows_useful: sequences,
            tile_bytes: tile,
            pinned_bytes_max: pinned,
            budget_bytes: Some(1),
            ..input(&spec)
        };
        let minimum = plan(&spec, &input, &machine()).expect_err("one byte is too little").minimum_bytes;
        input.budget_bytes = Some(minimum - (3 << 20) - 1);
        prop_assert_eq!(plan(&spec, &input, &machine()).expect_err("too little").minimum_bytes, minimum);
        input.budget_bytes = Some(minimum + above);
        let plan = plan(&spec, &input, &machine()).expect("the minimum works");
        prop_assert!(spent(&plan) <= minimum + above, "{plan}");
        prop_assert_eq!(plan.minimum_bytes, minimum);
        prop_assert!(plan.rows_max <= rows.unwrap_or(usize::MAX).max(1) && plan.logit_rows_max <= plan.rows_max);
        prop_assert!(plan.kv_pages * 16 >= sequence);
        let states = (name == "qwen3_next").then_some(1..=sequences);
        prop_assert!(states.map_or(plan.state_slots == 0, |states| states.contains(&plan.state_slots)));
        if let Some(max) = pinned {
            prop_assert!(plan.pinned_bytes <= max);
        }
        check_coverage(&spec, &plan);
    }
}

#[test]
fn memory_goes_to_rows_and_the_cache_they_need_before_weights_stay() {
    let spec = spec("llama");
    let mut totals = Totals::default();
    (0..1000).for_each(|_| totals.add(264, 1, 64));
    assert_eq!((totals.rows, totals.logit_rows, totals.kv_pages), (327_000, 64_000, 1000 * 64 * 19));
    let job = PlanInput {
        sequence_tokens_max: 640,
        sequences: 1000,
        tokens_total: 328_000,
        rows_useful: 264_000,
        logit_rows_useful: 1000,
        totals,
        kv_bytes_per_token: 16 << 10,
        pinned_bytes_max: Some(100_000),
        ..input(&spec)
    };
    let above = |bytes: u64| {
        let least = plan(&spec, &PlanInput { budget_bytes: Some(1), ..job.clone() }, &machine()).unwrap_err();
        plan(&spec, &PlanInput { budget_bytes: Some(least.minimum_bytes + bytes), ..job.clone() }, &machine())
            .unwrap()
    };
    let tight = above(64 << 20);
    assert!(tight.kv_bytes > 40 << 20 && tight.rows_max > 100, "{tight}");
    let ample = above(2 << 30);
    // Twice what 512 rows hold on average, 1,903.9 pages.
    assert_eq!((ample.rows_max, ample.kv_pages), (512, 3808), "{ample}");
    assert!(ample.logit_rows_max >= 512 * 64 / 327, "{ample}");
}

/// A server once took its part off the budget first, and told a minimum that did not do.
#[test]
fn the_stated_minimum_has_room_for_what_is_kept_for_others() {
    let spec = spec("llama");
    let share = Share { parts: 4, bytes_max: 1 << 30 };
    let with = |budget: u64, share| {
        plan(&spec, &PlanInput { budget_bytes: Some(budget), share, ..input(&spec) }, &machine())
    };
    let alone = with(1, Share::default()).unwrap_err().minimum_bytes;
    for budget in [1, alone / 2, alone] {
        let error = with(budget, share).unwrap_err();
        assert!(error.minimum_bytes >= alone / 3 * 4 && error.budget_bytes == budget);
        let least = with(error.minimum_bytes, share).unwrap();
        assert_eq!(least.minimum_bytes, error.minimum_bytes);
    }
    // `plan` once named a budget that it had just accepted, and a larger one as the smallest.
    let less = alone - (1 << 20);
    assert_eq!(with(less, Share::default()).unwrap().minimum_bytes, less);
    let (bare, kept) = (with(1 << 30, Share::default()).unwrap(), with(1 << 30, share).unwrap());
    assert_eq!(kept.overhead_bytes - bare.overhead_bytes, 256 << 20);
    let bounded = with(1 << 30, Share { bytes_max: 8 << 20, ..share }).unwrap();
    assert_eq!(bounded.overhead_bytes - bare.overhead_bytes, 8 << 20);
}

#[test]
fn without_a_budget_a_model_that_fits_stays() {
    let spec = spec("llama");
    let fits = plan(&spec, &input(&spec), &machine()).unwrap();
    assert!(fits.resident && fits.streamed_bytes_per_sweep == 0);
    assert!(fits.budget_bytes < 100 << 20, "it says what it needs, not what there is");
    let tight = Machine { available_bytes: 1 << 20, ..machine() };
    let least = plan(&spec, &input(&spec), &tight).unwrap();
    assert_eq!(least.budget_bytes, least.minimum_bytes, "never less than what works");
}

#[test]
fn reading_and_computing_hide_each_other() {
    let spec = spec("llama");
    let input = PlanInput { pinned_bytes_max: Some(0), ..input(&spec) };
    let slow_disk = Machine { read_bytes_per_second: 1e6, ..machine() };
    let plan = plan(&spec, &input, &slow_disk).unwrap();
    let seconds = plan.streamed_bytes_per_sweep as f64 / 1e6;
    assert!((plan.cost.sweep_seconds - seconds).abs() < 1e-9);
    assert!((plan.cost.tokens_per_second[&50] - 50.0 / seconds).abs() < 1e-6, "rows below the knee are free");
    assert!(plan.rows_at_knee > 50);
}

#[test]
fn a_plan_prints_what_it_holds() {
    let text = plan(&spec("gemma3"), &input(&spec("gemma3")), &machine()).unwrap().to_string();
    for word in ["gemma3", "budget", "KV cache", "ring", "pinned", "read once", "tokens/s"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(!text.contains("experts") && !text.contains("states"), "{text}");
    assert!(
        plan(&spec("qwen3_5"), &input(&spec("qwen3_5")), &machine())
            .unwrap()
            .to_string()
            .contains("(4 sequences, ")
    );
    let text = plan(&spec("mixtral"), &input(&spec("mixtral")), &machine()).unwrap().to_string();
    assert!(
        text.contains("8 in memory at once, up to 4 of a block; a sweep is expected to read 0 B with 1 rows"),
        "{text}"
    );
}

#[test]
fn experts_have_as_many_slots_in_every_block_and_begin_with_those_used_most() {
    let spec = spec("qwen3_moe");
    let mut uses = ExpertUse::default();
    (0..100).for_each(|_| uses.add(1, 6));
    (0..90).for_each(|_| uses.add(0, 3));
    let certain = plan(&spec, &input(&spec), &machine()).unwrap().steps;
    let certain: u64 = certain.iter().map(|s| s.extent.bytes.next_multiple_of(4096)).sum();
    // A tile of less than a page takes one, and what reading aligned to pages adds at both ends.
    let expert = 3 * 3 * 4096;
    let with = |experts: u64, uses: Option<ExpertUse>| {
        let pinned_bytes_max = Some(certain + experts * expert);
        let input = PlanInput { pinned_bytes_max, expert_use: uses, ..input(&spec) };
        plan(&spec, &input, &machine()).unwrap()
    };
    for (experts, slots) in [(0, [0, 0]), (1, [1, 0]), (2, [1, 1]), (3, [2, 1]), (4, [2, 2])] {
        let plan = with(experts, None);
        assert_eq!(plan.expert_slots, slots);
        assert!(!plan.resident && plan.pinned_bytes == certain + experts * expert);
        assert!(plan.to_string().contains("as in published figures of Qwen3-235B-A22B"), "{plan}");
    }
    assert_eq!(with(2, None).warm_experts, [[], [] as [u32; 0]]);
    let learned = with(2, Some(uses.clone()));
    assert_eq!(learned.warm_experts, [[3], [6]]);
    assert!(
        learned.cost.read_bytes(8, 1) < with(2, None).cost.read_bytes(8, 1),
        "they are the likelier ones"
    );
    // What came again soon is foretold to be found, and what came again late is not.
    let after = |since: usize| {
        let mut uses = ExpertUse::default();
        (0..5000).for_each(|_| uses.reused(Some(since), 7));
        with(4, Some(uses))
    };
    assert!(after(0).to_string().contains("as in earlier runs of this model"), "{}", after(0));
    let (soon, late) = (after(0).cost.read_bytes(1, 1), after(6).cost.read_bytes(1, 1));
    assert!(soon < 0.1 * late && late < with(0, None).cost.read_bytes(1, 1), "{soon} {late}");
}
