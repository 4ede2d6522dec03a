//! Everything that can go wrong on the way, and that nothing is fetched twice for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aerostat_hub::{ErrorKind, Hub};

use crate::server::{COMMIT, Reply, Server, Watch, bytes_asked, content, etag, id};

static GO: AtomicBool = AtomicBool::new(false);
const WEIGHTS: &str = "model.safetensors";
const SIZE: usize = 2_000_000;

fn model() -> Server {
    Server::start(&[("config.json", b"{}".to_vec()), (WEIGHTS, content(1, SIZE))])
}

fn assert_whole(snapshot: &Path) {
    assert!(fs::read(snapshot.join(WEIGHTS)).unwrap() == content(1, SIZE));
}

fn partial(hub: &Hub) -> PathBuf {
    let name = format!("{}.aerostat.incomplete", etag(&content(1, SIZE)));
    hub.cache_dir.join("models--org--name/blobs").join(name)
}

#[test]
fn a_cut_connection_goes_on_where_it_was_cut() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    server.script(|request| if request.fetches(WEIGHTS) { Reply::CutAfter(300_000) } else { Reply::Usual });
    let snapshot = server.hub(cache.path()).pull(&id("org/name"), &(), &GO).unwrap();
    assert_whole(&snapshot);
    let log = server.take_log();
    let starts: Vec<usize> =
        log.iter().filter(|r| r.fetches(WEIGHTS)).filter_map(|r| r.range()).map(|(start, _)| start).collect();
    assert_eq!(starts, [0, 300_000, 600_000, 900_000, 1_200_000, 1_500_000, 1_800_000]);
}

#[test]
fn a_server_without_ranges_serves_too() {
    for cut in [None, Some(100_000)] {
        let (server, cache) = (model(), tempfile::tempdir().unwrap());
        let gets = AtomicUsize::new(0);
        server.script(move |request| match request.fetches(WEIGHTS) {
            false => Reply::Usual,
            // The first answer is a range, cut short: what follows starts over.
            true if gets.fetch_add(1, Ordering::Relaxed) == 0 && cut.is_some() => {
                Reply::CutAfter(cut.unwrap())
            }
            true => Reply::IgnoreRange,
        });
        let mut hub = server.hub(cache.path());
        hub.part_bytes_max = 500_000;
        let watch = Watch::default();
        assert_whole(&hub.pull(&id("org/name"), &watch, &GO).unwrap());
        assert_eq!(watch.advanced.load(Ordering::Relaxed) as usize, SIZE + 2, "no byte counts twice");
    }
}

#[test]
fn a_cancelled_pull_resumes_with_the_missing_bytes_alone() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let mut hub = server.hub(cache.path());
    hub.part_bytes_max = 400_000;
    let first = Watch { cancel_at: Some(900_000), ..Watch::default() };
    let error = hub.pull(&id("org/name"), &first, &first.cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(partial(&hub).is_file());
    assert_eq!(hub.cached(&id("org/name")).unwrap(), None);

    server.take_log();
    let second = Watch::default();
    assert_whole(&hub.pull(&id("org/name"), &second, &GO).unwrap());
    let here = first.advanced.load(Ordering::Relaxed);
    assert!((900_000..SIZE as u64).contains(&here));
    assert_eq!(second.present.load(Ordering::Relaxed), here);
    assert_eq!(second.advanced.load(Ordering::Relaxed) + here, SIZE as u64 + 2);
    let log = server.take_log();
    assert_eq!(bytes_asked(&log, WEIGHTS) + bytes_asked(&log, "config.json"), SIZE + 2 - here as usize);
}

#[test]
fn a_journal_of_another_size_or_none_starts_over() {
    for spoil in [
        |partial: &Path| fs::remove_file(partial.with_extension("incomplete.ranges")),
        |partial: &Path| fs::File::options().write(true).open(partial)?.set_len(5),
    ] {
        let (server, cache) = (model(), tempfile::tempdir().unwrap());
        let hub = server.hub(cache.path());
        let first = Watch { cancel_at: Some(500_000), ..Watch::default() };
        hub.pull(&id("org/name"), &first, &first.cancel).unwrap_err();
        spoil(&partial(&hub)).unwrap();
        server.take_log();
        assert_whole(&hub.pull(&id("org/name"), &(), &GO).unwrap());
        assert_eq!(bytes_asked(&server.take_log(), WEIGHTS), SIZE);
    }
}

#[test]
fn refusals_have_their_kinds_and_hints() {
    let cases = [
        (401, ErrorKind::Unauthorised, "HF_TOKEN", 1),
        (403, ErrorKind::Forbidden, "gated", 1),
        (404, ErrorKind::NotFound, "spelling", 1),
        (429, ErrorKind::Server, "rate", 3),
        (500, ErrorKind::Server, "500", 3),
        (418, ErrorKind::Server, "418", 1),
    ];
    for (status, kind, hint, tries) in cases {
        for on_listing in [true, false] {
            let (server, cache) = (model(), tempfile::tempdir().unwrap());
            server.script(move |request| {
                match if on_listing { request.path.starts_with("/api") } else { request.is_head(WEIGHTS) } {
                    true => Reply::Status(status, Vec::new()),
                    false => Reply::Usual,
                }
            });
            let mut hub = server.hub(cache.path());
            hub.retries = 2;
            let error = hub.pull(&id("org/name"), &(), &GO).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(text.starts_with("org/name: ") && text.contains(hint), "{text}");
            assert_eq!(text.contains(WEIGHTS), !on_listing, "{text}");
            let log = server.take_log();
            let asked =
                log.iter().filter(|r| r.path.starts_with("/api") == on_listing && !r.is_head("config.json"));
            assert_eq!(asked.count(), tries, "{status}");
        }
    }
}

#[test]
fn troubles_that_pass_are_waited_out() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let count = AtomicUsize::new(0);
    server.script(move |_| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Reply::Status(503, Vec::new()),
        1 => Reply::Status(429, vec![("retry-after", "0".to_owned())]),
        _ => Reply::Usual,
    });
    let mut hub = server.hub(cache.path());
    hub.connections = 1;
    assert_whole(&hub.pull(&id("org/name"), &(), &GO).unwrap());
}

#[test]
fn the_token_stays_with_the_hub() {
    let (server, cdn, cache) = (model(), model(), tempfile::tempdir().unwrap());
    let cdn_url = cdn.url.clone();
    let size = SIZE.to_string();
    server.script(move |request| {
        if request.path.starts_with("/org/name/resolve/") {
            // A repository that moved: the redirect stays on the Hub.
            let location = request.path.replace("/org/name/", "/org/renamed/");
            return Reply::Status(307, vec![("location", location)]);
        }
        if !request.path.ends_with(WEIGHTS) {
            return Reply::Usual;
        }
        let etag = format!("\"{}\"", etag(&content(1, SIZE)));
        let location = format!("{cdn_url}/x/resolve/{COMMIT}/{WEIGHTS}");
        let linked =
            [("x-linked-etag", etag), ("x-linked-size", size.clone()), ("etag", "\"other\"".to_owned())];
        Reply::Status(302, linked.into_iter().chain([("location", location)]).collect())
    });
    let mut hub = server.hub(cache.path());
    hub.token = Some("secret".to_owned());
    assert_whole(&hub.pull(&id("org/name"), &(), &GO).unwrap());
    let log = server.take_log();
    assert!(log.iter().all(|r| r.headers.get("authorization").is_some_and(|value| value == "Bearer secret")));
    assert!(log.iter().any(|r| r.path.starts_with("/org/renamed/")));
    let elsewhere = cdn.take_log();
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(|r| r.fetches(WEIGHTS)));
    assert!(elsewhere.iter().all(|r| !r.headers.contains_key("authorization")));
}

#[test]
fn endless_and_odd_redirects_end() {
    for location in ["/org/name/again", "ftp://127.0.0.1/x", "elsewhere"] {
        let (server, cache) = (model(), tempfile::tempdir().unwrap());
        server.script(move |_| Reply::Status(302, vec![("location", location.to_owned())]));
        let error = server.hub(cache.path()).pull(&id("org/name"), &(), &GO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
    }
}

#[test]
fn a_wrong_content_is_removed_and_fetched_anew() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    server.put(WEIGHTS, content(2, SIZE));
    let promised = format!("\"{}\"", etag(&content(1, SIZE)));
    server.script(move |request| match request.is_head(WEIGHTS) {
        true => Reply::With("etag", promised.clone()),
        false => Reply::Usual,
    });
    let hub = server.hub(cache.path());
    let error = hub.pull(&id("org/name"), &(), &GO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(WEIGHTS));
    assert!(!partial(&hub).exists());
    assert_eq!(hub.cached(&id("org/name")).unwrap(), None);

    server.put(WEIGHTS, content(1, SIZE));
    assert_whole(&hub.pull(&id("org/name"), &(), &GO).unwrap());
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let index = "model.safetensors.index.json";
    let odd_listing = |text: &str| {
        let text = text.to_owned();
        let script: Box<dyn Fn(&crate::server::Request) -> Reply + Send + Sync> =
            Box::new(
                move |r| if r.path.starts_with("/api") { Reply::Listing(text.clone()) } else { Reply::Usual },
            );
        script
    };
    let odd_head = |name: &'static str, value: &'static str| {
        let script: Box<dyn Fn(&crate::server::Request) -> Reply + Send + Sync> =
            Box::new(
                move |r| {
                    if r.is_head(WEIGHTS) { Reply::With(name, value.to_owned()) } else { Reply::Usual }
                },
            );
        script
    };
    let outside = format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"../../{WEIGHTS}"}}]}}"#);
    let sharded = format!(
        r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"{index}"}},{{"rfilename":"a.safetensors"}},{{"rfilename":"config.json"}}]}}"#
    );
    let cases = [
        (odd_listing("<html>"), ErrorKind::Server),
        (odd_listing(r#"{"sha":"../..","siblings":[]}"#), ErrorKind::Server),
        (odd_listing(&outside), ErrorKind::Unsupported),
        (odd_listing(&sharded), ErrorKind::Unsupported),
        (odd_head("etag", "\"../../../x\""), ErrorKind::Server),
        (odd_head("etag", String::leak("a".repeat(200))), ErrorKind::Server),
        (odd_head("x-linked-size", "99999999999999999999"), ErrorKind::Server),
        (odd_head("x-repo-commit", "ffff"), ErrorKind::Server),
    ];
    for (case, (script, kind)) in cases.into_iter().enumerate() {
        let (server, cache) = (model(), tempfile::tempdir().unwrap());
        server.put(index, br#"{"weight_map":{"a":"../../outside"}}"#.to_vec());
        server.script(script);
        let error = server.hub(cache.path()).pull(&id("org/name"), &(), &GO).unwrap_err();
        assert_eq!(error.kind(), kind, "case {case}: {error}");
    }
}

/// A file system of `bytes` in memory; none, with the reason printed, where this process may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output();
        match done {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                eprintln!("skipped: cannot mount a small tmpfs here ({other:?})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_too_small_is_refused_before_anything_is_fetched() {
    let Some(disk) = SmallDisk::mount(1_000_000) else { return };
    let server = model();
    let error = server.hub(disk.0.path()).pull(&id("org/name"), &(), &GO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert!(server.take_log().iter().all(|r| !r.fetches(WEIGHTS) && !r.fetches("config.json")));
}

#[test]
fn a_disk_that_fills_up_keeps_what_came_for_the_next_pull() {
    let Some(disk) = SmallDisk::mount(4_000_000) else { return };
    let (server, filler) = (model(), disk.0.path().join("filler"));
    let fill = filler.clone();
    server.script(move |request| {
        if request.fetches(WEIGHTS) {
            // Somebody else takes the room after it was found sufficient.
            fs::write(&fill, vec![1; 3_000_000]).unwrap();
        }
        Reply::Usual
    });
    let (hub, first) = (server.hub(disk.0.path()), Watch::default());
    let error = hub.pull(&id("org/name"), &first, &GO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");

    fs::remove_file(filler).unwrap();
    server.script(|_| Reply::Usual);
    server.take_log();
    let second = Watch::default();
    assert_whole(&hub.pull(&id("org/name"), &second, &GO).unwrap());
    let here = second.present.load(Ordering::Relaxed);
    assert_eq!(here, first.advanced.load(Ordering::Relaxed));
    assert!(here > 0);
}
