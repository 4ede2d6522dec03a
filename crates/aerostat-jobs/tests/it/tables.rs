//! Tables as jobs: whatever happens to the disk or to the process, all results are there in the end, once.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aerostat::{Engine, Need, Options, Outcome, Request, Silent, Want};
use aerostat_jobs::disk::{Disk, System};
use aerostat_jobs::{
    Columns, Counts, Error, ErrorKind, Job, JobPaths, Prompt, Row, RowTask, Rows, Table, TableOptions,
    TableResults, TextFormat, TextTable, Unwatched, Watcher, list_jobs, survey_table,
};

use crate::support::{Faulty, StopsAfter, model};

/// The rows of a file of JSON lines.
struct Lines(PathBuf, Option<TextTable>);

impl Rows for Lines {
    fn rewind(&mut self) -> Result<(), Error> {
        let file = fs::File::open(&self.0).unwrap();
        let columns = Columns { prompt: Some("text".to_owned()), others: Vec::new() };
        self.1 = Some(TextTable::new(file, TextFormat::Jsonl, columns).unwrap());
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Row>, Error> {
        let row = self.1.as_mut().unwrap().next_row().map_err(|e| Error::input(e.to_string()))?;
        Ok(row.map(|(line, cells)| Row {
            key: None,
            line,
            prompt: cells.and_then(|cells| cells.prompt.ok_or_else(String::new)),
        }))
    }
}

/// Scores what a text is followed by, after up to so many tokens of the model's own.
struct Scores(Option<usize>);

impl RowTask for Scores {
    fn requests(&self, prompt: &Prompt) -> Result<Vec<Request>, String> {
        let Prompt::TokenIds(ids) = prompt else { return Err("no tokens".to_owned()) };
        if ids.is_empty() {
            return Err("empty".to_owned());
        }
        let request = |token_ids: Vec<u32>, want| Request { token_ids, want, ..Request::default() };
        let score = Want::Score { from: 1, logits_last: false };
        Ok(match self.0 {
            Some(max_new_tokens) => vec![Request { max_new_tokens, ..request(ids.clone(), Want::Generate) }],
            None => vec![request(ids.clone(), score), request([ids.as_slice(), &[9, 8]].concat(), score)],
        })
    }

    fn generates(&self) -> Option<usize> {
        self.0
    }

    fn then(&self, token_ids: &[u32], answer: &[u32]) -> Option<Request> {
        let want = Want::Score { from: 1, logits_last: false };
        Some(Request { token_ids: [token_ids, answer].concat(), want, ..Request::default() })
    }

    fn pack(&self, outcome: Outcome) -> Option<Vec<u8>> {
        match outcome {
            Outcome::Score(score) => Some(format!("{:?} {:?}", score.token_ids, score.logprobs).into_bytes()),
            Outcome::Completion(answer) => Some(format!("{:?}", answer.token_ids).into_bytes()),
            _ => None,
        }
    }

    fn need(&self, tokens: usize, need: &mut Need) {
        let generated = self.0.unwrap_or(0);
        need.add_tokens(tokens, generated, Want::Generate);
        need.add_tokens(tokens + generated, 0, Want::Score { from: 1, logits_last: false });
    }

    fn result_bytes(&self, tokens: usize) -> usize {
        tokens * 8
    }
}

struct Bench {
    folder: tempfile::TempDir,
    paths: JobPaths,
    generates: Option<usize>,
    options: TableOptions,
}

impl Bench {
    fn new(rows: usize, generates: Option<usize>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.jsonl");
        let row = |i: usize| {
            let ids: Vec<u32> = (0..1 + i * 7 % 40).map(|j| 3 + ((i + j) % 300) as u32).collect();
            match i % 11 {
                5 => "{\"other\": 1}\n".to_owned(),
                // It fails when it is run.
                7 => "{\"text\": [5, 99999]}\n".to_owned(),
                _ => serde_json::json!({"text": ids}).to_string() + "\n",
            }
        };
        fs::write(&input, (0..rows).map(row).collect::<String>()).unwrap();
        let paths = JobPaths::of_table(&input, &folder.path().join("out.csv"));
        let options = TableOptions { words: "words".to_owned(), ..TableOptions::default() };
        Self { folder, paths, generates, options }
    }

    fn table(&self) -> Table {
        let rows = Box::new(Lines(self.paths.input.clone(), None));
        Table { rows, task: Arc::new(Scores(self.generates)), tokenizer: None, memory_bytes: None }
    }

    fn open(&self, disk: impl Disk + 'static, watcher: &dyn Watcher) -> Result<Job, Error> {
        Job::open_table(Box::new(disk), self.paths.clone(), self.table(), self.options.clone(), watcher)
    }

    fn run_on(&self, disk: impl Disk + 'static, watcher: &dyn Watcher) -> Result<Counts, Error> {
        let job = self.open(disk, watcher)?;
        let mut need = job.need();
        need.add_tokens(100, 0, Want::Generate);
        let options = Options { memory_bytes: Some(512 << 20), threads: Some(1), ..Options::default() };
        let options = Options { rows_max: Some(24), ..options };
        let mut engine = Engine::open(&model(), &options, &need, &mut Silent).unwrap();
        job.run(&mut engine, watcher)
    }

    fn results(&self) -> Vec<Option<Vec<Vec<u8>>>> {
        let mut results = TableResults::open(&self.paths).unwrap();
        let rows = fs::read_to_string(&self.paths.input).unwrap().lines().count() as u64;
        (0..rows).map(|number| results.row(number).unwrap()).collect()
    }

    fn failures(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.paths.errors).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

#[test]
fn interrupts_at_every_sweep_change_nothing() {
    for generates in [None, Some(6)] {
        let whole = Bench::new(60, generates);
        assert_eq!(whole.run_on(System, &Unwatched).unwrap(), Counts { total: 60, done: 50, failed: 10 });
        let want = whole.results();
        assert!(want.iter().flatten().all(|parts| parts.len() == 2), "{generates:?}");
        let bench = Bench::new(60, generates);
        let mut stops = 0;
        while let Err(e) = bench.run_on(System, &StopsAfter(Cell::new(3))) {
            assert_eq!(e.kind(), ErrorKind::Interrupted, "{e}");
            stops += 1;
            assert!(stops < 1000);
        }
        assert!(stops > 5, "{stops}");
        assert_eq!(bench.results(), want);
        assert_eq!(bench.failures(), whole.failures());
    }
}

#[test]
fn a_full_disk_and_a_failed_sync_lose_nothing() {
    let whole = Bench::new(60, None);
    whole.run_on(System, &Unwatched).unwrap();
    let bench = Bench::new(60, None);
    let mut tries = 0;
    loop {
        let disk = Faulty::default();
        match tries % 3 {
            0 => disk.plan.free.set(Some(4000)),
            1 => disk.plan.syncs.set(Some(3)),
            _ => disk.plan.commits.set(Some(5)),
        }
        disk.plan.broken.set(tries % 2 == 1);
        let Err(e) = bench.run_on(disk, &Unwatched) else { break };
        assert_eq!(e.kind(), ErrorKind::Disk, "{e}");
        tries += 1;
        assert!(tries < 200);
    }
    assert!(tries > 0);
    assert_eq!((bench.results(), bench.failures()), (whole.results(), whole.failures()));
}

#[test]
fn what_was_changed_is_refused_and_what_is_there_is_kept() {
    let mut bench = Bench::new(12, None);
    let kind = |bench: &Bench| bench.run_on(System, &Unwatched).err().map(|e| e.kind());
    fs::write(&bench.paths.output, "precious").unwrap();
    assert_eq!(kind(&bench), Some(ErrorKind::Changed));
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 2, "nothing was made beside it");
    fs::remove_file(&bench.paths.output).unwrap();
    assert_eq!(kind(&bench), None);
    bench.options.words = "other".to_owned();
    assert_eq!(kind(&bench), Some(ErrorKind::Changed));
    bench.options.words = "words".to_owned();
    bench.options.model_digest = "other".to_owned();
    assert_eq!(kind(&bench), Some(ErrorKind::Changed));
    bench.options.model_digest = String::new();
    let first = bench.open(System, &Unwatched).unwrap();
    assert_eq!(kind(&bench), Some(ErrorKind::Busy));
    drop(first);
    let text = fs::read_to_string(&bench.paths.input).unwrap();
    fs::write(&bench.paths.input, text.replacen('3', "4", 1)).unwrap();
    assert_eq!(kind(&bench), Some(ErrorKind::Changed));
    assert_eq!(TableResults::open(&bench.paths).err().map(|e| e.kind()), Some(ErrorKind::Changed));
    bench.options.restart = true;
    assert_eq!(kind(&bench), None);
}

#[test]
fn a_table_is_listed_as_finished_once_its_results_are_where_they_belong() {
    let mut bench = Bench::new(12, None);
    let survey = survey_table(bench.table(), &Unwatched).unwrap();
    assert_eq!((survey.counts.total, survey.counts.failed), (12, 1));
    let state = |bench: &Bench| list_jobs(bench.folder.path()).unwrap()[0].state.clone();
    bench.run_on(System, &Unwatched).unwrap();
    assert_eq!(state(&bench), "interrupted", "its output is not there");
    let results = TableResults::open(&bench.paths).unwrap();
    fs::write(&bench.paths.output, "results").unwrap();
    results.finish(2).unwrap();
    assert_eq!(state(&bench), "finished");
    assert!(bench.paths.rows().exists(), "rows that failed may be tried again");
    let job = bench.open(System, &Unwatched).unwrap();
    assert!(job.assembled().unwrap() && job.counts().left() == 0);
    job.leave().unwrap();
    bench.options.retry_errors = true;
    let job = bench.open(System, &Unwatched).unwrap();
    assert!(!job.assembled().unwrap());
    assert_eq!(job.counts().left(), 1);
    drop(job);
    bench.options.retry_errors = false;
    bench.run_on(System, &Unwatched).unwrap();
    TableResults::open(&bench.paths).unwrap().finish(0).unwrap();
    assert!(!bench.paths.rows().exists() && !bench.paths.errors.exists());
    bench.open(System, &Unwatched).unwrap().leave().unwrap();
    assert!(!bench.paths.rows().exists() && !bench.paths.errors.exists());
    fs::remove_file(&bench.paths.output).unwrap();
    let gone = bench.open(System, &Unwatched).unwrap().assembled().unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Changed);
    assert!(Path::new(&bench.paths.database()).exists());
}
