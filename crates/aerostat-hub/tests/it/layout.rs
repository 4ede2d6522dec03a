//! What is fetched, where it is put, and what is found again.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aerostat_hub::ErrorKind;

use crate::server::{COMMIT, Server, Watch, bytes_asked, content, etag, id};

static GO: AtomicBool = AtomicBool::new(false);
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX: &str = "model.safetensors.index.json";

/// A sharded model with files around it that are not to be fetched.
fn sharded() -> Server {
    let index = format!(r#"{{"metadata":{{}},"weight_map":{{"a":"{}","b":"{}"}}}}"#, SHARDS[0], SHARDS[1]);
    Server::start(&[
        ("README.md", content(1, 50)),
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", content(2, 2000)),
        (INDEX, index.into_bytes()),
        (SHARDS[0], content(3, 200_000)),
        (SHARDS[1], content(4, 70_001)),
        ("model-extra.safetensors", content(5, 10)),
        ("consolidated.safetensors", content(6, 10)),
        ("onnx/model.onnx", content(7, 10)),
        ("original/consolidated.00.pth", content(8, 10)),
    ])
}

fn names_below(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_pull_leaves_the_layout_python_leaves() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let model = id("org/name@refs/pr/1");
    assert_eq!(hub.cached(&model).unwrap(), None);
    let watch = Watch::default();
    let snapshot = hub.pull(&model, &watch, &watch.cancel).unwrap();

    let root = cache.path().join("models--org--name");
    assert_eq!(snapshot, root.join("snapshots").join(COMMIT));
    assert_eq!(names_below(&snapshot), ["config.json", SHARDS[0], SHARDS[1], INDEX, "tokenizer.json"]);
    assert_eq!(fs::read_to_string(root.join("refs/refs/pr/1")).unwrap(), COMMIT);
    assert_eq!(names_below(&root), ["blobs", "refs", "snapshots"]);
    let blob = etag(&content(3, 200_000));
    assert_eq!(fs::read_link(snapshot.join(SHARDS[0])).unwrap(), Path::new("../../blobs").join(blob));
    assert_eq!(fs::read(snapshot.join(SHARDS[0])).unwrap(), content(3, 200_000));
    assert_eq!(names_below(&root.join("blobs")).len(), 5, "nothing but whole blobs is left");
    assert!(cache.path().join(".locks/models--org--name").is_dir());

    let total = watch.total.load(Ordering::Relaxed);
    assert!(total > 272_001 && total < 273_000);
    let index_bytes = fs::metadata(snapshot.join(INDEX)).unwrap().len();
    assert_eq!(watch.present.load(Ordering::Relaxed), index_bytes);
    assert_eq!(watch.present.load(Ordering::Relaxed) + watch.advanced.load(Ordering::Relaxed), total);
    assert_eq!(hub.cached(&model).unwrap(), Some(snapshot));
}

#[test]
fn a_second_pull_asks_for_the_listing_alone() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let first = hub.pull(&id("org/name"), &(), &GO).unwrap();
    server.take_log();
    assert_eq!(hub.pull(&id("org/name"), &(), &GO).unwrap(), first);
    let paths: Vec<String> = server.take_log().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/api/models/org/name/revision/main?blobs=true"]);
}

#[test]
fn a_snapshot_without_a_shard_is_not_complete_and_gets_only_that_one() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let snapshot = hub.pull(&id("org/name"), &(), &GO).unwrap();
    let blob = fs::canonicalize(snapshot.join(SHARDS[1])).unwrap();
    fs::remove_file(blob).unwrap();
    assert_eq!(hub.cached(&id("org/name")).unwrap(), None);
    server.take_log();
    hub.pull(&id("org/name"), &(), &GO).unwrap();
    let log = server.take_log();
    assert_eq!((bytes_asked(&log, SHARDS[0]), bytes_asked(&log, SHARDS[1])), (0, 70_001));
    assert_eq!(hub.cached(&id("org/name")).unwrap(), Some(snapshot));
}

/// Disks and people cut files; a blob with the right name was whole, whatever was left of it.
#[test]
fn a_blob_of_another_size_is_not_here_and_is_repaired() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let snapshot = hub.pull(&id("org/name"), &(), &GO).unwrap();
    let blob = fs::canonicalize(snapshot.join(SHARDS[1])).unwrap();
    let whole = content(4, 70_001);
    for damaged in [whole[..1000].to_vec(), Vec::new(), [&whole[..], b"x"].concat()] {
        fs::write(&blob, &damaged).unwrap();
        server.take_log();
        let watch = Watch::default();
        hub.pull(&id("org/name"), &watch, &watch.cancel).unwrap();
        assert_eq!(fs::read(&blob).unwrap(), whole, "{} bytes were there", damaged.len());
        let log = server.take_log();
        assert_eq!((bytes_asked(&log, SHARDS[0]), bytes_asked(&log, SHARDS[1])), (0, 70_001));
        let (total, present) = (watch.total.load(Ordering::Relaxed), watch.present.load(Ordering::Relaxed));
        assert_eq!(total - present, 70_001, "what is damaged is not told as here");
    }
    fs::write(fs::canonicalize(snapshot.join("config.json")).unwrap(), "").unwrap();
    hub.pull(&id("org/name"), &(), &GO).unwrap();
    assert_eq!(fs::read(snapshot.join("config.json")).unwrap(), b"{}");
}

/// Without its chat template a model answered as one that has none, and nobody was told.
#[test]
fn a_model_that_lost_a_small_blob_is_not_here_and_is_repaired() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let (hub, model) = (server.hub(cache.path()), id("org/name"));
    let snapshot = hub.pull(&model, &(), &GO).unwrap();
    let lost = fs::canonicalize(snapshot.join("tokenizer.json")).unwrap();
    fs::remove_file(&lost).unwrap();
    assert_eq!(hub.cached(&model).unwrap(), None);
    let offline = aerostat_hub::Hub { offline: true, ..hub.clone() };
    assert_eq!(offline.pull(&model, &(), &GO).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(hub.pull(&model, &(), &GO).unwrap(), snapshot);
    assert_eq!(fs::read(&lost).unwrap(), content(2, 2000));
}

#[test]
fn digests_are_checked_where_that_is_asked_for() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let mut hub = server.hub(cache.path());
    let snapshot = hub.pull(&id("org/name"), &(), &GO).unwrap();
    let whole = content(4, 70_001);
    let mut damaged = whole.clone();
    damaged[5000] ^= 1;
    fs::write(fs::canonicalize(snapshot.join(SHARDS[1])).unwrap(), &damaged).unwrap();
    hub.pull(&id("org/name"), &(), &GO).unwrap();
    assert_eq!(fs::read(snapshot.join(SHARDS[1])).unwrap(), damaged, "the size is right");
    hub.verify = true;
    server.take_log();
    let watch = Watch::default();
    hub.pull(&id("org/name"), &watch, &watch.cancel).unwrap();
    assert_eq!(fs::read(snapshot.join(SHARDS[1])).unwrap(), whole);
    let log = server.take_log();
    assert_eq!((bytes_asked(&log, SHARDS[0]), bytes_asked(&log, SHARDS[1])), (0, 70_001));
    assert!(watch.notes.lock().unwrap().iter().any(|note| note.contains("damaged")));
    hub.offline = true;
    assert!(hub.pull(&id("org/name"), &(), &GO).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
}

#[test]
fn a_large_file_comes_in_parts_that_do_not_overlap() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let mut hub = server.hub(cache.path());
    hub.part_bytes_max = 16_384;
    let snapshot = hub.pull(&id("org/name"), &(), &GO).unwrap();
    let log = server.take_log();
    assert_eq!(
        log.iter().filter(|request| request.fetches(SHARDS[0])).count(),
        200_000usize.div_ceil(16_384)
    );
    assert_eq!(bytes_asked(&log, SHARDS[0]), 200_000);
    assert_eq!(fs::read(snapshot.join(SHARDS[0])).unwrap(), content(3, 200_000));
}

#[test]
fn pulls_of_the_same_model_share_the_work() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| hub.pull(&id("org/name"), &(), &GO).unwrap());
        }
    });
    let log = server.take_log();
    assert_eq!((bytes_asked(&log, SHARDS[0]), bytes_asked(&log, SHARDS[1])), (200_000, 70_001));
}

#[test]
fn equal_and_empty_files_are_one_blob_each() {
    let files = [
        ("config.json", b"{}".to_vec()),
        ("generation_config.json", b"{}".to_vec()),
        ("merges.txt", Vec::new()),
        ("model.safetensors", content(1, 3000)),
    ];
    let (server, cache) = (Server::start(&files), tempfile::tempdir().unwrap());
    let snapshot = server.hub(cache.path()).pull(&id("org/name"), &(), &GO).unwrap();
    for (name, content) in files {
        assert_eq!(fs::read(snapshot.join(name)).unwrap(), content);
    }
    assert_eq!(names_below(&cache.path().join("models--org--name/blobs")).len(), 3);
}

#[test]
fn a_gguf_repository_gives_the_file_named_or_the_only_one() {
    let files = [
        ("README.md", content(1, 10)),
        ("a-Q4_0.gguf", content(2, 3000)),
        ("q8/a-00001-of-00002.gguf", content(3, 3000)),
        ("q8/a-00002-of-00002.gguf", content(4, 3000)),
    ];
    let (server, cache) = (Server::start(&files), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let error = hub.pull(&id("org/name"), &(), &GO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("\n  a-Q4_0.gguf\n  q8/a-00001-of-00002.gguf"), "{error}");

    let split = id("org/name:q8/a-00001-of-00002.gguf");
    let path = hub.pull(&split, &(), &GO).unwrap();
    assert!(path.ends_with(format!("snapshots/{COMMIT}/q8/a-00001-of-00002.gguf")));
    assert_eq!(fs::read(&path).unwrap(), content(3, 3000));
    assert!(fs::read_link(&path).unwrap().starts_with("../../../blobs"));
    assert!(path.with_file_name("a-00002-of-00002.gguf").is_file());
    assert_eq!(hub.cached(&split).unwrap(), Some(path));
    assert_eq!(hub.cached(&id("org/name:a-Q4_0.gguf")).unwrap(), None);
}

#[test]
fn offline_and_out_of_reach_fall_back_on_the_cache() {
    let (server, cache) = (sharded(), tempfile::tempdir().unwrap());
    let snapshot = server.hub(cache.path()).pull(&id("org/name"), &(), &GO).unwrap();
    server.take_log();

    let mut offline = server.hub(cache.path());
    offline.offline = true;
    assert_eq!(offline.pull(&id("org/name"), &(), &GO).unwrap(), snapshot);
    assert_eq!(offline.pull(&id("org/other"), &(), &GO).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(server.take_log().is_empty());

    let mut far = server.hub(cache.path());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    far.endpoint = format!("http://{closed}");
    let watch = Watch::default();
    assert_eq!(far.pull(&id("org/name"), &watch, &GO).unwrap(), snapshot);
    assert_eq!(watch.notes.lock().unwrap().len(), 1);
    assert_eq!(far.pull(&id("org/other"), &(), &GO).unwrap_err().kind(), ErrorKind::Network);
}
