//! A prompt that was computed once is read the next time, and nothing shows.

use std::fs;
use std::path::Path;

use aerostat::{
    Completion, Draft, Engine, KvType, ModelFiles, Observer, Options, PromptCache, Request, Sampling, Stats,
};
use aerostat_testkit::fixture;

use crate::all;

/// Keeps what it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

fn run(name: &str, options: &Options, requests: &[Request]) -> (Vec<Completion>, Stats, Vec<String>) {
    let files = ModelFiles::open(&fixture(name).path).unwrap();
    let mut notes = Notes::default();
    let mut engine = Engine::open(&files, options, &aerostat::generate::need(requests), &mut notes).unwrap();
    let answers = engine.generate(requests, None, &mut notes).unwrap();
    (all(answers.completions), engine.stats(), notes.0)
}

fn kept(folder: &Path, identity: &str) -> Options {
    let (folder, identity) = (folder.to_owned(), identity.to_owned());
    let cache = PromptCache { folder, bytes_max: 1 << 30, identity };
    Options { prompt_cache: Some(cache), draft: Draft::None, ..Options::default() }
}

fn request(name: &str, tokens: usize) -> Request {
    let ids = fixture(name).prompts[0].ids.clone();
    Request {
        token_ids: ids.into_iter().cycle().take(tokens).collect(),
        max_new_tokens: 6,
        ..Request::default()
    }
}

fn bits(answers: &[Completion]) -> String {
    format!("{answers:?}")
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_prompt_is_read_the_second_time_with_the_same_bits() {
    for name in ["llama", "gemma3", "qwen3_moe", "deepseek_v3", "gpt_oss"] {
        for &kv in KvType::ALL {
            let folder = tempfile::tempdir().unwrap();
            let options = Options { kv, ..kept(folder.path(), name) };
            let warm = Sampling { temperature: 0.8, seed: 3, ..Sampling::default() };
            let request = Request { top_logprobs: Some(1), sampling: warm, ..request(name, 90) };
            let requests = std::slice::from_ref(&request);
            let (want, plain, _) = run(name, &Options { prompt_cache: None, ..options.clone() }, requests);
            let (first, once, _) = run(name, &options, requests);
            let (second, again, notes) = run(name, &options, requests);
            assert_eq!((bits(&first), bits(&second)), (bits(&want), bits(&want)), "{name} {kv:?}");
            assert_eq!(plain.rows, once.rows);
            assert_eq!((again.shared_rows, notes), (80, vec![]), "{name} {kv:?}");
            // Another type of keys and values finds nothing.
            let other = KvType::ALL.iter().find(|other| **other != kv).unwrap();
            let (_, other, _) = run(name, &Options { kv: *other, ..options.clone() }, requests);
            assert_eq!(other.shared_rows, 0);
        }
    }
}

#[test]
fn a_longer_text_begins_with_what_a_shorter_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let options = kept(folder.path(), "llama");
    run("llama", &options, &[request("llama", 70)]);
    assert_eq!(files(folder.path()).len(), 1);
    let (_, stats, _) = run("llama", &options, &[request("llama", 130)]);
    assert_eq!(stats.shared_rows, 64);
    // The longer one has all of the shorter one, which is gone.
    assert_eq!(files(folder.path()).len(), 1);
    let (_, stats, _) = run("llama", &options, &[request("llama", 100)]);
    assert_eq!((stats.shared_rows, files(folder.path()).len()), (96, 1));
    // A text with a salt neither finds it nor leaves anything to others.
    let salted = Request { cache_salt: 7, ..request("llama", 100) };
    let (_, stats, _) = run("llama", &options, &[salted]);
    assert_eq!((stats.shared_rows, files(folder.path()).len()), (0, 1));
    let salted = Request { token_ids: vec![5; 90], cache_salt: 7, ..request("llama", 90) };
    run("llama", &options, &[salted]);
    assert_eq!(files(folder.path()).len(), 1);
    // Another model's, by what the caller says, and short texts, are nobody's.
    let (_, stats, _) = run("llama", &kept(folder.path(), "another"), &[request("llama", 100)]);
    assert_eq!(stats.shared_rows, 0);
    run("llama", &options, &[Request { token_ids: vec![3; 30], ..request("llama", 30) }]);
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn what_is_damaged_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let options = kept(folder.path(), "llama");
    let request = [request("llama", 100)];
    let (want, ..) = run("llama", &options, &request);
    let path = files(folder.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for (place, flip) in [(0, 1u8), (9, 1), (40, 128), (whole.len() / 2, 4), (whole.len() - 1, 1)] {
        let mut bytes = whole.clone();
        bytes[place] ^= flip;
        fs::write(&path, bytes).unwrap();
        assert_eq!(bits(&run("llama", &options, &request).0), bits(&want), "byte {place}");
    }
    for length in [0, 7, 30, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let (found, _, notes) = run("llama", &options, &request);
        assert_eq!(bits(&found), bits(&want), "{length} bytes");
        assert!(notes.len() <= 1, "{notes:?}");
        files(folder.path())
            .iter()
            .filter(|other| **other != path)
            .for_each(|other| fs::remove_file(other).unwrap());
    }
    // A folder that cannot be made is told, and the prompt computed.
    fs::write(folder.path().join("file"), "").unwrap();
    let (found, _, notes) = run("llama", &kept(&folder.path().join("file"), "llama"), &request);
    assert_eq!(bits(&found), bits(&want));
    assert!(notes.len() == 1 && notes[0].contains("could not be used"), "{notes:?}");
}

#[test]
fn the_oldest_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = kept(folder.path(), "llama");
    let texts = |first: u32| Request {
        token_ids: (0..80).map(|i| (first * 7 + i) % 60 + 1).collect(),
        ..request("llama", 1)
    };
    run("llama", &options, &[texts(1)]);
    let bytes = fs::metadata(&files(folder.path())[0]).unwrap().len();
    options.prompt_cache.as_mut().unwrap().bytes_max = 2 * bytes + bytes / 2;
    for first in 2..6 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        run("llama", &options, &[texts(first)]);
        assert!(files(folder.path()).len() <= 2);
    }
    let shared = |first| run("llama", &options, &[texts(first)]).1.shared_rows;
    assert_eq!((shared(5), shared(4), shared(1)), (64, 64, 0));
}

/// Several at once, of the same texts and of others, with room for few: whoever finds what, answers are the same.
#[test]
fn engines_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = kept(folder.path(), "llama");
    let one = |first: u32| Request {
        token_ids: (0..100).map(|i| (first % 3 * 11 + i) % 60 + 1).collect(),
        ..request("llama", 1)
    };
    let plain = Options { prompt_cache: None, ..options.clone() };
    let want: Vec<String> = (0..4).map(|first| bits(&run("llama", &plain, &[one(first)]).0)).collect();
    run("llama", &options, &[one(0)]);
    let bytes = fs::metadata(&files(folder.path())[0]).unwrap().len();
    options.prompt_cache.as_mut().unwrap().bytes_max = bytes * 5 / 2;
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (options, want) = (&options, &want);
            scope.spawn(move || {
                for which in (0..6).map(|turn| (first + turn) % 4) {
                    let (found, ..) = run("llama", options, &[one(which)]);
                    assert_eq!(bits(&found), want[which as usize]);
                }
            });
        }
    });
    assert!(files(folder.path()).iter().all(|path| path.extension().is_some_and(|e| e == "kv")));
}
