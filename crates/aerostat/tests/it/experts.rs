//! Of a mixture of experts no more is read than the rows ask for.

use aerostat::{Draft, Engine, ModelFiles, Options, Request, Silent, Stats};
use aerostat_testkit::{Fixture, fixtures};

/// The fixtures that have experts.
pub(crate) fn mixtures() -> Vec<Fixture> {
    let mixes = |fixture: &Fixture| {
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        files.spec().blocks.iter().any(|block| block.experts.is_some())
    };
    fixtures().into_iter().filter(mixes).collect()
}

/// What generating from some prompts adds to the statistics, nothing pinned, and what one sweep reads but for experts.
fn generate(fixture: &Fixture, prompts: &[Vec<u32>]) -> (ModelFiles, Stats, Stats, u64) {
    let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
    let request =
        |prompt: &Vec<u32>| Request { token_ids: prompt.clone(), max_new_tokens: 6, ..Request::default() };
    let requests: Vec<Request> = prompts.iter().map(request).collect();
    let need = aerostat::generate::need(&requests);
    let options = Options {
        pinned_bytes_max: Some(0),
        tile_bytes: Some(3000),
        draft: Draft::None,
        ..Options::default()
    };
    let mut engine = Engine::open(&files, &options, &need, &mut Silent).expect(&fixture.name);
    let before = engine.stats();
    engine.generate(&requests, None, &mut Silent).expect(&fixture.name);
    let certain = engine.current_plan().steps.iter().map(|step| step.extent.bytes).sum();
    let after = engine.stats();
    (files, before, after, certain)
}

#[test]
fn a_row_reads_its_own_experts_and_no_others() {
    for fixture in mixtures() {
        let (files, before, after, certain) = generate(&fixture, &[vec![5]]);
        let mixtures = files.spec().blocks.iter().filter_map(|block| block.experts.as_ref());
        let gathered: u64 = files.spec().tables().map(|table| table.row_bytes()).sum();
        let (mut experts, mut bytes) = (0, certain + gathered);
        for mixture in mixtures {
            experts += mixture.routing.chosen as u64;
            bytes += mixture.routing.chosen as u64 * mixture.mlps[0].bytes();
        }
        assert_eq!(after.sweeps, 6, "{}", fixture.name);
        assert_eq!(after.experts, 6 * experts, "{}", fixture.name);
        assert_eq!(after.experts_read, after.experts, "{}", fixture.name);
        assert_eq!(after.read_bytes - before.read_bytes, 6 * bytes, "{}", fixture.name);
    }
}

#[test]
fn rows_that_choose_the_same_expert_read_it_once() {
    for fixture in mixtures() {
        let prompts: Vec<Vec<u32>> = (3..40).map(|token| vec![token]).collect();
        let (files, _, after, _) = generate(&fixture, &prompts);
        let mixtures = files.spec().blocks.iter().filter_map(|block| block.experts.as_ref());
        let (all, chosen) = mixtures.fold((0, 0), |(all, chosen), mixture| {
            (all + mixture.mlps.len() as u64, chosen + mixture.routing.chosen as u64)
        });
        assert_eq!(after.sweeps, 6, "{}", fixture.name);
        assert!(
            after.experts_read <= 6 * all && after.experts_read >= 6 * chosen,
            "{}: {after:?}",
            fixture.name
        );
    }
}

/// Bytes that keep all in memory that every sweep uses, and so many experts of every block, each tile less than a page.
fn room(files: &ModelFiles, slots: u64) -> u64 {
    let page = |bytes: u64| bytes.next_multiple_of(4096);
    let spec = files.spec();
    let certain = spec.blocks.iter().flat_map(|block| block.linears()).map(|(_, linear)| &linear.weight);
    let certain: u64 = certain.chain([&spec.head.weight]).map(|matrix| page(matrix.bytes())).sum();
    let mixtures = spec.blocks.iter().filter(|block| block.experts.is_some()).count() as u64;
    certain + mixtures * slots * 3 * 3 * 4096
}

#[test]
fn what_was_used_is_in_memory_the_next_time() {
    let fixture = mixtures().into_iter().find(|f| f.name == "qwen3_moe").unwrap();
    let files = ModelFiles::open(&fixture.path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("new/experts.json");
    let request = Request { token_ids: vec![9, 5], max_new_tokens: 30, ..Request::default() };
    let need = aerostat::generate::need(std::slice::from_ref(&request));
    let run = |expert_use: Option<&std::path::Path>| {
        let options = Options {
            pinned_bytes_max: Some(room(&files, 2)),
            expert_use: expert_use.map(Into::into),
            // How much is guessed depends on how fast reading is, and what is read on that.
            draft: Draft::None,
            ..Options::default()
        };
        let mut engine = Engine::open(&files, &options, &need, &mut Silent).unwrap();
        let loaded = engine.stats().read_bytes;
        let answers = engine.generate(std::slice::from_ref(&request), None, &mut Silent).unwrap();
        (answers.completions[0].as_ref().unwrap().token_ids.clone(), engine.stats(), loaded)
    };
    let (tokens, cold, certain) = run(None);
    assert!(cold.experts_read < cold.experts && cold.experts_read > 0, "{cold:?}");
    assert_eq!(run(Some(&table)).0, tokens);
    let (again, warm, loaded) = run(Some(&table));
    assert_eq!(again, tokens, "what is kept changes no result");
    let expert = files.spec().blocks[0].experts.as_ref().unwrap().mlps[0].bytes();
    assert_eq!(loaded - certain, 2 * 2 * expert, "the cache begins with the experts used most");
    assert!(warm.experts_read < cold.experts_read, "{} of {}", warm.experts_read, cold.experts_read);
    // A broken table is no table.
    std::fs::write(&table, b"{\"blocks\": [[1, 2").unwrap();
    assert_eq!(run(Some(&table)).1.experts_read, cold.experts_read);
}
