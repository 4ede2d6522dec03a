//! Models that compute vectors of texts, against transformers.

use std::path::PathBuf;

use aerostat::{
    Engine, Error, ErrorKind, Hidden, ModelFiles, Need, Options, Outcome, Pooling, Request, RunEnd, Silent,
    Want, Work,
};
use aerostat_testkit::{Encoded, encoders};

/// The largest difference, as a part of the largest element.
fn error(found: &[f32], want: &[f32]) -> f32 {
    assert_eq!(found.len(), want.len());
    let largest = want.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    found.iter().zip(want).fold(0.0f32, |most, (f, w)| most.max((f - w).abs())) / largest
}

fn request(text: &Encoded, pooling: Option<Pooling>) -> Request {
    let want = Want::Hidden(Hidden { pooling, ..Hidden::default() });
    Request { token_ids: text.ids.clone(), second: text.second, want, ..Request::default() }
}

/// Requests and what became of them.
struct List(Vec<Request>, Vec<(u64, Outcome)>);

impl Work for List {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        Ok(self.0.pop())
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        self.1.push((id, outcome));
        Ok(())
    }
}

/// What becomes of requests in one run, in their order.
fn outcomes(engine: &mut Engine, requests: &[Request]) -> Vec<Outcome> {
    let numbered = requests.iter().zip(0..).map(|(request, id)| Request { id, ..request.clone() });
    let mut list = List(numbered.collect::<Vec<_>>().into_iter().rev().collect(), Vec::new());
    assert_eq!(engine.run(&mut list, None, &mut Silent).unwrap(), RunEnd::Done);
    list.1.sort_by_key(|(id, _)| *id);
    list.1.into_iter().map(|(_, outcome)| outcome).collect()
}

/// The vectors of requests, in one run.
fn vectors(files: &ModelFiles, options: &Options, requests: &[Request]) -> Vec<Vec<Vec<f32>>> {
    let mut need = Need::none();
    requests.iter().for_each(|request| need.add(request));
    let mut engine = Engine::open(files, options, &need, &mut Silent).unwrap();
    let found = outcomes(&mut engine, requests);
    let vectors = |outcome| match outcome {
        Outcome::Hidden(vectors) => vectors,
        other => panic!("{other:?}"),
    };
    found.into_iter().map(vectors).collect()
}

#[test]
fn vectors_are_those_of_transformers() {
    let mut twins = 0;
    for (path, texts) in encoders().into_iter().flat_map(with_twin) {
        let files = ModelFiles::open(&path).unwrap_or_else(|e| panic!("{e}"));
        twins += usize::from(path.is_file());
        let options = Options { kv: aerostat::KvType::F32, ..Options::default() };
        let ways = [Pooling::Cls, Pooling::Mean, Pooling::LastToken];
        let requests: Vec<Request> =
            texts.iter().flat_map(|text| ways.map(|way| request(text, Some(way)))).collect();
        let found = vectors(&files, &options, &requests);
        for (text, found) in texts.iter().zip(found.chunks(3)) {
            for (found, want) in found.iter().zip([&text.cls, &text.mean, &text.last]) {
                let error = error(&found[0], want);
                assert!(error < 1e-4, "{}: {} tokens: {error}", path.display(), text.ids.len());
            }
        }
    }
    assert_eq!(twins, 4);
}

/// A folder, and the GGUF file of the same model in it, if there is one.
fn with_twin((folder, texts): (PathBuf, Vec<Encoded>)) -> Vec<(PathBuf, Vec<Encoded>)> {
    let twin = Some(folder.join("twin.gguf")).filter(|twin| twin.is_file());
    twin.into_iter().map(|twin| (twin, texts.clone())).chain([(folder, texts.clone())]).collect()
}

/// Adapters for tasks lie among the weights of Jina's third embeddings as published.
#[test]
fn adapters_among_the_weights_are_told_and_not_applied() {
    let folder = aerostat_testkit::fixtures_dir().join("encoders/jina_v3_published");
    let files = ModelFiles::open(&folder).unwrap();
    assert!(
        files.spec().notes.iter().any(|note| note.contains("adapters for tasks")),
        "{:?}",
        files.spec().notes
    );
}

/// Scores of heads, after the sigmoid that sentence-transformers ends with.
#[test]
fn scores_are_those_of_transformers() {
    let words = aerostat_testkit::fixtures_dir().join("sentences/ranker");
    let tokenizer = ModelFiles::open(&words).unwrap().tokenizer().unwrap().unwrap();
    let mut checked = 0;
    for (folder, texts) in encoders() {
        let Some(count) = texts[0].scores.as_ref().map(Vec::len) else { continue };
        let files = ModelFiles::open(&folder).unwrap_or_else(|e| panic!("{e}"));
        let reranker = files.reranker(&tokenizer);
        if count > 1 {
            let error = reranker.unwrap_err().to_string();
            assert!(error.contains("scores, not one"), "{error}");
            continue;
        }
        let reranker = reranker.unwrap_or_else(|e| panic!("{e}"));
        let pooling = if files.spec().looks_ahead() { Pooling::Cls } else { Pooling::LastToken };
        let requests: Vec<Request> = texts.iter().map(|text| request(text, Some(pooling))).collect();
        let options = Options { kv: aerostat::KvType::F32, ..Options::default() };
        let found = vectors(&files, &options, &requests);
        for (text, found) in texts.iter().zip(found) {
            let score = reranker.score(&[Outcome::Hidden(found)]).unwrap();
            let want = 1.0 / (1.0 + (-text.scores.as_ref().unwrap()[0]).exp());
            assert!((score - want).abs() < 1e-4, "{}: {score} {want}", folder.display());
        }
        checked += 1;
    }
    assert_eq!(checked, 8);
}

/// Company, budgets, threads and chunks never show, as of all models.
#[test]
fn bits_do_not_depend_on_company_or_memory() {
    for (folder, texts) in encoders() {
        let files = ModelFiles::open(&folder).unwrap();
        let bits = |options: &Options, texts: &[Encoded]| -> Vec<u32> {
            let requests: Vec<Request> = texts.iter().map(|text| request(text, None)).collect();
            let found = vectors(&files, options, &requests);
            found.iter().flatten().flatten().map(|v| v.to_bits()).collect()
        };
        let streamed = Options { pinned_bytes_max: Some(0), threads: Some(1), ..Options::default() };
        let narrow = Options { rows_max: Some(1), prefill_chunk: Some(5), ..streamed.clone() };
        let together = bits(&Options::default(), &texts);
        let alone: Vec<u32> =
            texts.iter().flat_map(|text| bits(&narrow, std::slice::from_ref(text))).collect();
        assert!(together == alone && together == bits(&streamed, &texts), "{}", folder.display());
    }
}

#[test]
fn a_model_that_looks_ahead_answers_nothing_and_says_so() {
    let folder = aerostat_testkit::fixtures_dir().join("encoders/bert");
    let files = ModelFiles::open(&folder).unwrap();
    assert!(files.spec().looks_ahead() && files.spec().head.absent);
    let one = Request { token_ids: vec![7, 8, 9], max_new_tokens: 3, ..Request::default() };
    let mut engine = Engine::open(&files, &Options::default(), &Need::one(8), &mut Silent).unwrap();
    let answer =
        engine.generate(std::slice::from_ref(&one), None, &mut Silent).unwrap().completions.remove(0);
    let error = answer.unwrap_err();
    assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("aerostat embed"), "{error}");
    // A text that no sweep has room for is refused, not cut in two.
    let rotated = ModelFiles::open(&folder.with_file_name("eurobert")).unwrap();
    let mut engine = Engine::open(&rotated, &Options::default(), &Need::one(8), &mut Silent).unwrap();
    let rows = engine.current_plan().rows_max;
    let long =
        Request { token_ids: vec![7; rows + 1], want: Want::Hidden(Hidden::default()), ..Request::default() };
    let Outcome::Failed(error) = outcomes(&mut engine, &[long]).remove(0) else { panic!() };
    assert!(error.to_string().contains("as a whole"), "{error}");
    // Parts are told apart by models that learned to.
    let parts = Request {
        token_ids: vec![7; 3],
        second: Some(1),
        want: Want::Hidden(Hidden::default()),
        ..Request::default()
    };
    let roberta = ModelFiles::open(&folder.with_file_name("roberta")).unwrap();
    let mut engine = Engine::open(&roberta, &Options::default(), &Need::one(8), &mut Silent).unwrap();
    let Outcome::Failed(error) = outcomes(&mut engine, &[parts]).remove(0) else { panic!() };
    assert!(error.to_string().contains("parts of a text"), "{error}");
}
