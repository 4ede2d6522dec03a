//! What happens when disks fail, files shrink, weights are broken, or the user has enough.

use std::path::Path;

use aerostat::{Engine, ErrorKind, ModelFiles, Observer, Options, Parts, Progress, Request, Silent};
use aerostat_checkpoint::{Checkpoint, FileId};
use aerostat_stream::simulated::{self, Contents, Fault, FaultKind, Script};
use aerostat_testkit::{Fixture, fixture};

fn request(fixture: &Fixture) -> Request {
    Request { token_ids: fixture.prompts[1].ids.clone(), max_new_tokens: 8, ..Request::default() }
}

/// Generates with everything streamed from a simulated disk.
fn generate_on(fixture: &Fixture, script: Script) -> Result<Vec<u32>, aerostat::Error> {
    let files = ModelFiles::open(&fixture.path)?;
    let options = Options { pinned_bytes_max: Some(0), ..Options::default() };
    let requests = [request(fixture)];
    let catalog = Checkpoint::open(&fixture.path)?.catalog;
    let contents =
        catalog.files().iter().map(|f| Contents::Memory(std::fs::read(&f.path).unwrap())).collect();
    let source = simulated::open(contents, script)?;
    let parts = Parts { source, ..Parts::of(&files, &options)? };
    let need = aerostat::generate::need(&requests);
    let mut engine = Engine::open_with(&files, &options, &need, parts, &mut Silent)?;
    let answers = engine.generate(&requests, None, &mut Silent)?;
    answers.completions.into_iter().next().unwrap().map(|answer| answer.token_ids)
}

#[test]
fn passing_faults_and_reordered_reads_change_nothing() {
    let fixture = fixture("qwen2");
    let want = generate_on(&fixture, Script::default()).unwrap();
    for seed in 0..8 {
        let script = Script {
            seed,
            latency_ticks_max: 9,
            interrupted_percent: 20,
            short_percent: 30,
            ..Script::default()
        };
        assert_eq!(generate_on(&fixture, script).unwrap(), want);
    }
}

#[test]
fn a_failing_disk_or_shrinking_file_ends_the_run_with_the_place() {
    let fixture = fixture("qwen2");
    for (kind, words) in [(FaultKind::Failed, "error"), (FaultKind::Shrunk(FileId(0), 100), "short")] {
        // In the small tensors at open, and in mid-sweep.
        for call in [3, 60] {
            let script = Script { faults: vec![Fault { call, kind }], ..Script::default() };
            let error = generate_on(&fixture, script).expect_err("a fault ends the run");
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            let text = error.to_string();
            assert!(text.contains("offset") && text.contains(words), "{text}");
        }
    }
}

/// A disk that failed once took the answers with it that were finished before.
#[test]
fn what_was_finished_before_a_disk_failed_stays() {
    let fixture = fixture("qwen2");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let options = Options { pinned_bytes_max: Some(0), ..Options::default() };
    let short = Request { max_new_tokens: 1, ..request(&fixture) };
    let requests = [short.clone(), Request { max_new_tokens: 40, ..short }];
    let need = aerostat::generate::need(&requests);
    let catalog = Checkpoint::open(&fixture.path).unwrap().catalog;
    let mut kept = 0;
    for call in (20..400).step_by(20) {
        let contents = catalog.files().iter().map(|f| Contents::Memory(std::fs::read(&f.path).unwrap()));
        let script = Script { faults: vec![Fault { call, kind: FaultKind::Failed }], ..Script::default() };
        let source = simulated::open(contents.collect(), script).unwrap();
        let parts = Parts { source, ..Parts::of(&files, &options).unwrap() };
        let Ok(mut engine) = Engine::open_with(&files, &options, &need, parts, &mut Silent) else { continue };
        let Ok(answers) = engine.generate(&requests, None, &mut Silent) else { continue };
        let mut answers = answers.completions.into_iter();
        let (first, second) = (answers.next().unwrap(), answers.next().unwrap());
        if let Err(error) = second {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert_eq!(first.unwrap().token_ids, fixture.prompts[1].greedy[..1]);
            kept += 1;
        }
    }
    assert!(kept > 0, "some fault comes between the two ends");
}

/// Copies a fixture's folder and lets `change` edit the weights.
fn broken(name: &str, change: impl Fn(&mut Vec<u8>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&fixture(name).path).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let weights = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    change(&mut bytes);
    std::fs::write(&weights, bytes).unwrap();
    folder
}

fn run(path: &Path, request: &Request) -> Result<Vec<u32>, aerostat::Error> {
    let files = ModelFiles::open(path)?;
    let requests = [request.clone()];
    let need = aerostat::generate::need(&requests);
    let mut engine = Engine::open(&files, &Options::default(), &need, &mut Silent)?;
    let mut answers = engine.generate(&requests, None, &mut Silent)?.completions;
    answers.remove(0).map(|answer| answer.token_ids)
}

/// What a fixture answers once some bytes of a tensor are others.
fn run_changed(name: &str, tensor: &str, at: usize, with: &[u8]) -> aerostat::Error {
    let fixture = fixture(name);
    let catalog = Checkpoint::open(&fixture.path).unwrap().catalog;
    let at = catalog.get(tensor).unwrap().extent.offset as usize + at;
    let folder = broken(name, |bytes| bytes[at..at + with.len()].copy_from_slice(with));
    let error = run(folder.path(), &request(&fixture)).expect_err("broken weights give no result");
    assert!(error.to_string().contains(tensor), "{error}");
    error
}

#[test]
fn a_nan_in_the_weights_is_traced_to_its_tensor() {
    for (name, tensor) in [
        ("llama", "model.layers.1.mlp.down_proj.weight"),
        ("llama", "model.layers.0.input_layernorm.weight"),
        ("llama_gptq_4", "model.layers.1.mlp.down_proj.scales"),
        ("llama_nf4", "model.layers.0.mlp.down_proj.weight.nested_absmax"),
    ] {
        // The bytes of an f32, or of two f16: all are NaN.
        let at = if tensor.ends_with("nested_absmax") { 0 } else { 40 };
        let error = run_changed(name, tensor, at, &[0xff, 0x7f, 0xff, 0x7f]);
        assert_eq!(error.kind(), ErrorKind::NotFinite, "{error}");
    }
}

#[test]
fn what_lies_beside_codes_and_makes_no_sense_is_refused_by_name() {
    let index = run_changed("llama_gptq_4", "model.layers.1.mlp.up_proj.g_idx", 8, &7u32.to_le_bytes());
    assert!(index.to_string().contains("group 7"), "{index}");
    let state = "model.layers.0.mlp.down_proj.weight.quant_state.bitsandbytes__nf4";
    for (with, word) in [("[", "JSON"), ("{\"quant_type\": \"nf4\", \"blocksize\": 32", "blocksize")] {
        let error = run_changed("llama_nf4", state, 0, with.as_bytes());
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn requests_that_cannot_be_run_are_refused() {
    let fixture = fixture("llama");
    let refused = |token_ids: Vec<u32>, stop: Vec<String>| {
        let request = Request { token_ids, stop, max_new_tokens: 1, ..Request::default() };
        run(&fixture.path, &request).expect_err("refused").kind()
    };
    assert_eq!(refused(vec![], vec![]), ErrorKind::Usage);
    assert_eq!(refused(vec![1, 128], vec![]), ErrorKind::Usage);
    assert_eq!(refused(vec![1], vec!["x".to_owned()]), ErrorKind::Usage);
}

#[test]
fn learned_positions_end_where_their_table_ends() {
    let opt = fixture("opt").path;
    let request =
        |length: usize| Request { token_ids: vec![7; length], max_new_tokens: 5, ..Request::default() };
    assert!(run(&opt, &request(124)).is_ok(), "128 positions are there");
    let error = run(&opt, &request(125)).expect_err("129 are not");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("128"), "{error}");
}

/// Stops the run after so many tiles.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn progress(&mut self, _: &Progress) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

#[test]
fn a_run_stops_at_any_tile_and_keeps_what_it_has() {
    let fixture = fixture("llama_sharded_f16");
    let files = ModelFiles::open(&fixture.path).unwrap();
    let requests = [request(&fixture)];
    let need = aerostat::generate::need(&requests);
    let options = Options { pinned_bytes_max: Some(20_000), tile_bytes: Some(2000), ..Options::default() };
    let whole = run(&fixture.path, &requests[0]).unwrap();
    for tiles in 1..60 {
        let mut stop = StopAfter(tiles * 7);
        match Engine::open(&files, &options, &need, &mut stop) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
            Ok(mut engine) => {
                let answers = engine.generate(&requests, None, &mut stop).unwrap();
                let tokens = &answers.completions[0].as_ref().unwrap().token_ids;
                assert!(whole.starts_with(tokens));
                assert_eq!(answers.interrupted, tokens.len() < whole.len());
                // The engine is as good as new.
                let again = engine.generate(&requests, None, &mut Silent).unwrap();
                assert_eq!(again.completions[0].as_ref().unwrap().token_ids, whole);
            }
        }
    }
}
