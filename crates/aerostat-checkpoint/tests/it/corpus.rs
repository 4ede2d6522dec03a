//! The parsers on bytes: every seed gives what it should, and no mutation of one brings them down.

use std::fs;
use std::path::PathBuf;

use aerostat_checkpoint::gguf::{Metadata, ValueType};
use aerostat_checkpoint::{Catalog, DType, Error, FileId, fuzzing};
use proptest::prelude::*;

use crate::seeds::{self, Seed};

/// Parses bytes and walks over all that comes of them.
type Target = fn(&[u8]) -> Result<(), Error>;

/// The seeds of a target.
type Seeds = fn() -> Vec<Seed>;

const TARGETS: [(&str, Seeds, Target); 4] = [
    ("safetensors_header", seeds::safetensors_seeds, |bytes| {
        fuzzing::safetensors(bytes).map(|catalog| walk(&catalog))
    }),
    ("pytorch_file", seeds::pytorch_seeds, |bytes| fuzzing::pytorch(bytes).map(|catalog| walk(&catalog))),
    ("safetensors_index", seeds::index_seeds, |bytes| fuzzing::index(bytes).map(drop)),
    ("gguf_header", seeds::gguf_seeds, |bytes| {
        let (metadata, catalog) = fuzzing::gguf(bytes)?;
        walk_metadata(&metadata);
        walk(&catalog);
        Ok(())
    }),
];

#[test]
fn every_seed_gives_what_it_should() {
    for (target, seeds, run) in TARGETS {
        for (what, expected, bytes) in seeds() {
            let error = run(&bytes).err();
            let message = error.as_ref().map(Error::to_string);
            assert_eq!(error.map(|error| error.kind()), expected, "{target}: {what}: {message:?}");
        }
    }
}

/// The committed corpus is the seeds; `cargo test -p aerostat-checkpoint -- --ignored write_the_corpus` writes it.
#[test]
fn the_corpus_is_the_seeds() {
    for (target, seeds, run) in TARGETS {
        for (what, _, bytes) in seeds() {
            let found = fs::read(corpus_path(target, what)).unwrap_or_default();
            assert!(found == bytes, "{target}: {what}: write the corpus again");
        }
        for entry in fs::read_dir(corpus_path(target, "")).unwrap() {
            let _ = run(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

#[test]
#[ignore = "writes the corpus"]
fn write_the_corpus() {
    for (target, seeds, _) in TARGETS {
        for (what, _, bytes) in seeds() {
            let path = corpus_path(target, what);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn mutations_do_no_harm(
        target in 0..TARGETS.len(),
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        splice in prop::option::of((any::<prop::sample::Index>(), prop::sample::select(vec![0, 1, u64::MAX, 1 << 40]))),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, seeds, run) = TARGETS[target];
        let seeds = seeds();
        let mut bytes = seed.get(&seeds).2.clone();
        if !bytes.is_empty() {
            for (position, byte) in changes {
                *position.get_mut(&mut bytes) = byte;
            }
            if let Some((position, value)) = splice {
                let start = position.index(bytes.len());
                bytes[start..].iter_mut().zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
            if let Some(length) = keep {
                bytes.truncate(length.index(bytes.len()));
            }
        }
        let _ = run(&bytes);
        prop_assert!(address_space_bytes_max().is_none_or(|bytes| bytes < 8 << 30), "a huge allocation");
    }
}

#[test]
fn metadata_of_every_type_is_read() {
    let (metadata, catalog) = fuzzing::gguf(&seeds::valid_gguf().bytes()).unwrap();
    assert_eq!(metadata.str("general.architecture"), Some("tiny"));
    assert_eq!(metadata.str("lossy"), Some("a\u{fffd}"));
    let unsigned =
        ["u8", "i8", "u16", "i16", "i32", "u64", "i64", "f32", "no such key"].map(|key| metadata.u64(key));
    let expected = [Some(200), None, Some(60_000), None, Some(70_000), Some(u64::MAX), None, None, None];
    assert_eq!(unsigned, expected);
    assert_eq!(
        ["i8", "i16", "u64", "i64"].map(|key| metadata.i64(key)),
        [Some(-1), Some(-300), None, Some(-5)]
    );
    assert_eq!((metadata.f32("f32"), metadata.f64("f32")), (Some(0.5), Some(0.5)));
    assert_eq!((metadata.f32("f64"), metadata.f64("f64")), (Some(0.1), Some(0.1)));
    assert_eq!((metadata.bool("bool"), metadata.bool("u8")), (Some(true), None));
    let array = |key| metadata.array(key).unwrap();
    let strings: Vec<&[u8]> = array("strings").strings().unwrap().collect();
    assert_eq!(strings, [b"plain" as &[u8], b"\xe2\x96", b""]);
    assert_eq!(array("floats").f32s().unwrap().collect::<Vec<_>>(), [1.5, -2.0]);
    assert_eq!(array("shorts").ints().unwrap().collect::<Vec<_>>(), [-7, 9]);
    // Scores are integers in files of some converters.
    assert_eq!(array("shorts").numbers().unwrap(), [-7.0, 9.0]);
    assert_eq!(array("floats").numbers().unwrap(), [1.5, -2.0]);
    assert!(array("flags").numbers().is_none());
    assert!(
        array("large").ints().is_none()
            && array("floats").ints().is_none()
            && array("flags").f32s().is_none()
    );
    assert_eq!(array("flags").bools().unwrap().collect::<Vec<_>>(), [true, false, true]);
    let nested: Vec<_> =
        array("nested").arrays().unwrap().map(|array| (array.element_type(), array.len())).collect();
    assert_eq!(nested, [(ValueType::U8, 2), (ValueType::String, 1)]);
    assert!(array("nothing").is_empty());
    let tensors: Vec<_> = catalog
        .tensors()
        .map(|tensor| (tensor.name.as_str(), tensor.dtype, tensor.shape.as_slice()))
        .collect();
    let expected: [(&str, DType, &[u64]); 3] =
        [("a", DType::F32, &[2, 3]), ("b", DType::Q8_0, &[2, 64]), ("c", DType::Q4_K, &[256])];
    assert_eq!(tensors, expected);
    assert_eq!(catalog.weight_bytes(), 24 + 136 + 144);
}

#[test]
fn errors_name_file_and_tensor() {
    for (target, seeds, run) in TARGETS {
        for (what, _, bytes) in seeds() {
            let Err(error) = run(&bytes) else { continue };
            let named = error.to_string().contains(error.path().to_str().unwrap());
            assert!(named, "{target}: {what}: {error}");
            use aerostat_checkpoint::ErrorKind::*;
            if matches!(error.kind(), Overlap | OutOfRange | ShapeMismatch | UnknownDType) {
                assert!(error.tensor().is_some(), "{target}: {what}: {error}");
            }
        }
    }
}

fn walk(catalog: &Catalog) {
    let mut bytes = 0;
    for tensor in catalog.tensors() {
        assert_eq!(catalog.get(&tensor.name).unwrap().extent, tensor.extent);
        assert!(tensor.extent.offset + tensor.extent.bytes <= catalog.files()[0].bytes);
        assert_eq!(tensor.extent.file, FileId(0));
        assert_eq!(tensor.dtype.bytes_for(tensor.elements()), Some(tensor.extent.bytes));
        bytes += tensor.extent.bytes;
    }
    assert!(catalog.weight_bytes() <= bytes);
}

fn walk_metadata(metadata: &Metadata) {
    for array in metadata.keys().filter_map(|key| metadata.array(key)) {
        let counts = [
            array.strings().map(Iterator::count),
            array.f32s().map(Iterator::count),
            array.ints().map(Iterator::count),
            array.bools().map(Iterator::count),
            array.arrays().map(Iterator::count),
        ];
        assert!(counts.into_iter().flatten().all(|count| count == array.len()));
    }
}

fn corpus_path(target: &str, what: &str) -> PathBuf {
    let name = what.replace([' ', '^'], "-");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target).join(name)
}

/// The most address space the process has had; untouched allocations count. `None` where the system does not say.
fn address_space_bytes_max() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
