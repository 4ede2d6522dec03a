//! GGUF files as people have them: written by old converters, or by others than llama.cpp's.

use std::path::Path;

use aerostat_arch::{ErrorKind, ModelSpec, describe};
use aerostat_checkpoint::{Checkpoint, Config, Tensor};
use aerostat_testkit::fixture;

/// Describes a fixture's GGUF file after its header was rewritten: entries under `without` are left out, and each tensor
/// becomes those that `change` makes of it.
fn rewritten(
    name: &str,
    without: &str,
    change: impl Fn(&Tensor) -> Vec<(String, Vec<u64>, u64)>,
) -> Result<ModelSpec, aerostat_arch::Error> {
    let file = std::fs::read(fixture(name).path.join("twin.gguf")).unwrap();
    let checkpoint = Checkpoint::open(&fixture(name).path.join("twin.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, rewrite(&file, &checkpoint, without, change)).unwrap();
    describe(&Checkpoint::open(&path).unwrap())
}

/// Names, dimensions (outermost first) and further bytes of offset take the place of each tensor's entry.
fn rewrite(
    file: &[u8],
    checkpoint: &Checkpoint,
    without: &str,
    change: impl Fn(&Tensor) -> Vec<(String, Vec<u64>, u64)>,
) -> Vec<u8> {
    let Config::Gguf(meta) = &checkpoint.config else { panic!("GGUF") };
    let entries = entries(file, meta.keys().count());
    let data = checkpoint.catalog.tensors().map(|t| t.extent.offset).min().unwrap() as usize;
    let kept: Vec<&[u8]> =
        entries.0.iter().filter(|(key, _)| key != without).map(|(_, bytes)| *bytes).collect();
    assert!(without.is_empty() || kept.len() + 1 == entries.0.len(), "{without} is there");
    let mut tensors = Vec::new();
    let mut count = 0u64;
    for tensor in checkpoint.catalog.tensors() {
        for (name, dims, further) in change(tensor) {
            count += 1;
            tensors.extend((name.len() as u64).to_le_bytes());
            tensors.extend(name.as_bytes());
            tensors.extend((dims.len() as u32).to_le_bytes());
            dims.iter().rev().for_each(|n| tensors.extend(n.to_le_bytes()));
            tensors.extend(entries.1[&tensor.name].to_le_bytes());
            tensors.extend((tensor.extent.offset - data as u64 + further).to_le_bytes());
        }
    }
    let mut made = file[..8].to_vec();
    made.extend(count.to_le_bytes());
    made.extend((kept.len() as u64).to_le_bytes());
    kept.iter().for_each(|bytes| made.extend(*bytes));
    made.extend(tensors);
    made.resize(made.len().next_multiple_of(32), 0);
    made.extend(&file[data..]);
    made
}

/// Each entry's key and bytes, and each tensor's type.
type Entries<'a> = (Vec<(String, &'a [u8])>, std::collections::BTreeMap<String, u32>);

fn entries(file: &[u8], count: usize) -> Entries<'_> {
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let text = |at: usize| {
        let end = at + 8 + u64_at(at);
        (String::from_utf8(file[at + 8..end].to_vec()).unwrap(), end)
    };
    let fixed = |id: u32| [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][id as usize];
    let mut at = 24;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (key, value) = text(at);
        let id = u32_at(value);
        let end = match id {
            8 => text(value + 4).1,
            9 => {
                let (element, count) = (u32_at(value + 4), u64_at(value + 8));
                match element {
                    8 => (0..count).fold(value + 16, |at, _| text(at).1),
                    _ => value + 16 + count * fixed(element),
                }
            }
            id => value + 4 + fixed(id),
        };
        entries.push((key, &file[at..end]));
        at = end;
    }
    let mut types = std::collections::BTreeMap::new();
    for _ in 0..u64_at(8) {
        let (name, dims) = text(at);
        let end = dims + 4 + 8 * u32_at(dims) as usize;
        types.insert(name, u32_at(end));
        at = end + 12;
    }
    (entries, types)
}

/// Norms came as `[n, 1]`, matrices with dimensions of 1 up to ggml's four: "the configuration calls for [40]".
#[test]
fn further_dimensions_of_one_mean_nothing() {
    for name in ["llama", "mixtral", "qwen2_moe", "qwen3_next", "gemma3", "gpt2", "deepseek_v2"] {
        if !Path::new(&fixture(name).path.join("twin.gguf")).exists() {
            continue;
        }
        let plain = rewritten(name, "", |t| vec![(t.name.clone(), t.shape.clone(), 0)]).unwrap();
        for dims in [2, 3, 4] {
            let padded = rewritten(name, "", |t| {
                let mut shape = t.shape.clone();
                while shape.len() < dims {
                    shape.insert(0, 1);
                }
                vec![(t.name.clone(), shape, 0)]
            });
            assert_eq!(padded.unwrap().parameters, plain.parameters, "{name} with {dims} dimensions");
        }
    }
    let wrong = rewritten("llama", "", |t| {
        let norm = t.name.ends_with("attn_norm.weight");
        vec![(t.name.clone(), if norm { vec![t.shape[0], 1] } else { t.shape.clone() }, 0)]
    });
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Tensor, "a column is no vector");
}

/// As of llama.cpp's first months with Mixtral.
#[test]
fn experts_may_lie_in_tensors_of_their_own() {
    let plain = rewritten("mixtral", "", |t| vec![(t.name.clone(), t.shape.clone(), 0)]).unwrap();
    let apart = rewritten("mixtral", "", |t| match t.name.split_once("_exps.") {
        Some((stem, rest)) => {
            let (count, bytes) = (t.shape[0], t.extent.bytes / t.shape[0]);
            let one = |e: u64| (format!("{stem}.{e}.{rest}"), t.shape[1..].to_vec(), e * bytes);
            (0..count).map(one).collect()
        }
        None => vec![(t.name.clone(), t.shape.clone(), 0)],
    })
    .unwrap();
    assert_eq!((apart.parameters, &apart.notes), (plain.parameters, &plain.notes));
    for (apart, plain) in apart.matrices().zip(plain.matrices()) {
        assert_eq!(
            (apart.rows, apart.cols, apart.extent.bytes),
            (plain.rows, plain.cols, plain.extent.bytes)
        );
    }
}

/// It was taken as 1e-6 in silence.
#[test]
fn a_missing_epsilon_is_refused() {
    let same = |t: &Tensor| vec![(t.name.clone(), t.shape.clone(), 0)];
    let key = "llama.attention.layer_norm_rms_epsilon";
    let error = rewritten("llama", key, same).expect_err("no epsilon");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(key), "{error}");
}
