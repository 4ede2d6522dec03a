//! Pickles that try what a pickle can (made by `tests/fixtures/hostile.py`): each is refused, and nothing is run.

use std::fs;
use std::path::{Path, PathBuf};

use aerostat_checkpoint::{ErrorKind, fuzzing};

#[test]
fn hostile_pickles_are_refused() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 30, "{files:?}");
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let error = fuzzing::pytorch(&fs::read(&path).unwrap()).expect_err(name);
        let kinds =
            [ErrorKind::Unsupported, ErrorKind::Header, ErrorKind::Truncated, ErrorKind::MissingTensor];
        assert!(kinds.contains(&error.kind()), "{name}: {error}");
        assert!(error.to_string().contains("data.pkl"), "{name}: {error}");
    }
    assert!(!Path::new("pwned").exists());
}

/// Names of what may not be called reach the user.
#[test]
fn refusals_name_what_the_pickle_asks_for() {
    for (name, asked) in [
        ("system", "`os.system`"),
        ("system-by-memo", "`posix.system`"),
        ("eval", "`builtins.eval`"),
        ("torch-inner-pickle", "`torch.storage._load_from_bytes`"),
        ("dotted-name", "`collections.OrderedDict.__init__.__globals__`"),
    ] {
        let error = fuzzing::pytorch(&fs::read(fixtures().join(format!("{name}.bin"))).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(asked), "{name}: {error}");
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile")
}
