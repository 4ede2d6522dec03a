//! The folder: tensors into files, headers, weights, index.
//!
//! All is written into a folder beside the wanted one, which takes its name when it is whole. Memory is bounded by
//! one chunk for each thread.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::random::{self, Dtype, Table, VALUES_PER_HASH};
use super::tensors::{Bell, Tensor};

/// What to write, apart from where.
pub(super) struct Job {
    pub(super) tensors: Vec<Tensor>,
    pub(super) config: Value,
    pub(super) generation_config: Value,
    pub(super) dtype: Dtype,
    pub(super) seed: u64,
    /// A file larger than this holds one tensor only.
    pub(super) shard_bytes: u64,
    /// Write no weights, only files of the right length.
    pub(super) sparse: bool,
    pub(super) threads: usize,
}

/// Elements that a thread makes and writes at once.
const CHUNK_ELEMENTS: u64 = 1 << 21;
const _: () = assert!(CHUNK_ELEMENTS.is_multiple_of(VALUES_PER_HASH));

/// Space that must be left over beside the weights: headers, index, and what others write meanwhile.
const SPARE_BYTES: u64 = 64 << 20;

/// Writes the folder `out`.
///
/// # Errors
/// `out` is there and not empty, the space does not suffice, or writing fails.
pub(super) fn folder(out: &Path, job: &Job) -> Result<()> {
    ensure!(
        !out.exists() || is_empty_folder(out),
        "{} exists already; name another folder, or remove it",
        out.display()
    );
    let partial = partial_name(out)?;
    if partial.exists() {
        eprintln!("removing {}, left by an interrupted run", partial.display());
        fs::remove_dir_all(&partial).with_context(|| format!("{} cannot be removed", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("{} cannot be made", partial.display()))?;
    let outcome = fill(&partial, job);
    if outcome.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&partial);
    }
    outcome?;
    fs::rename(&partial, out).with_context(|| format!("{} cannot be renamed", partial.display()))?;
    eprintln!("wrote {}", out.display());
    Ok(())
}

/// One file of weights.
struct Shard {
    name: String,
    /// In the order in which they lie in the file.
    tensors: Vec<Tensor>,
}

/// A part of a tensor and where it goes.
struct Chunk<'a> {
    tensor: &'a Tensor,
    element_first: u64,
    bytes: usize,
    offset: u64,
}

fn fill(folder: &Path, job: &Job) -> Result<()> {
    let shards = shards(job);
    let total_bytes = bytes(&job.tensors, job.dtype);
    if !job.sparse {
        ensure_space(folder, total_bytes)?;
    }
    let progress = Progress::new(total_bytes);
    let tables = if job.sparse { BTreeMap::new() } else { tables(job) };
    for shard in &shards {
        write_shard(folder, shard, job, &tables, &progress)
            .with_context(|| format!("{} cannot be written", folder.join(&shard.name).display()))?;
    }
    progress.finish();
    if shards.len() > 1 {
        write_json(&folder.join("model.safetensors.index.json"), &index(&shards, total_bytes, job))?;
    }
    write_json(&folder.join("generation_config.json"), &job.generation_config)?;
    write_json(&folder.join("config.json"), &job.config)
}

/// Deals the tensors out to files in order; within a file they lie in order of name, as others write them.
fn shards(job: &Job) -> Vec<Shard> {
    let mut groups: Vec<Vec<Tensor>> = Vec::new();
    let mut group_bytes = 0;
    for tensor in &job.tensors {
        let tensor_bytes = bytes(std::slice::from_ref(tensor), job.dtype);
        match groups.last_mut() {
            Some(group) if group_bytes + tensor_bytes <= job.shard_bytes => {
                group.push(tensor.clone());
                group_bytes += tensor_bytes;
            }
            _ => {
                groups.push(vec![tensor.clone()]);
                group_bytes = tensor_bytes;
            }
        }
    }
    let count = groups.len();
    let name = |index: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    let in_order = groups.into_iter().enumerate().map(|(index, mut tensors)| {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Shard { name: name(index), tensors }
    });
    in_order.collect()
}

fn write_shard(folder: &Path, shard: &Shard, job: &Job, tables: &Tables, progress: &Progress) -> Result<()> {
    let path = folder.join(&shard.name);
    let header = header(&shard.tensors, job.dtype);
    let mut file = File::create(&path)?;
    file.write_all(&header)?;
    let begin = header.len() as u64;
    file.set_len(begin + bytes(&shard.tensors, job.dtype))?;
    if !job.sparse {
        let chunks = chunks(&shard.tensors, begin, job.dtype);
        let next = AtomicUsize::new(0);
        let work = || write_chunks(&path, &chunks, &next, job, tables, progress);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..job.threads).map(|_| scope.spawn(work)).collect();
            let outcomes = workers.into_iter().map(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(payload) => std::panic::resume_unwind(payload),
            });
            outcomes.collect::<Result<()>>()
        })?;
    }
    file.sync_all()?;
    Ok(())
}

/// Takes one chunk after another until none is left, through a file handle of its own.
fn write_chunks(
    path: &Path,
    chunks: &[Chunk<'_>],
    next: &AtomicUsize,
    job: &Job,
    tables: &Tables,
    progress: &Progress,
) -> Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let mut buffer = Vec::new();
    while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
        buffer.resize(chunk.bytes, 0);
        let table = tables.get(&table_key(chunk.tensor.values)).context("a tensor without a table")?;
        let key = random::key(job.seed, &chunk.tensor.name);
        table.fill(key, chunk.element_first / VALUES_PER_HASH, &mut buffer);
        file.seek(SeekFrom::Start(chunk.offset))?;
        file.write_all(&buffer)?;
        progress.add(chunk.bytes as u64);
    }
    Ok(())
}

fn chunks(tensors: &[Tensor], begin: u64, dtype: Dtype) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut tensor_begin = begin;
    for tensor in tensors {
        let elements = tensor.elements();
        for element_first in (0..elements).step_by(CHUNK_ELEMENTS as usize) {
            let count = CHUNK_ELEMENTS.min(elements - element_first);
            let offset = tensor_begin + element_first * dtype.bytes();
            chunks.push(Chunk { tensor, element_first, bytes: (count * dtype.bytes()) as usize, offset });
        }
        tensor_begin += elements * dtype.bytes();
    }
    chunks
}

/// The header of a safetensors file: its length, then JSON padded to eight bytes.
fn header(tensors: &[Tensor], dtype: Dtype) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.elements() * dtype.bytes();
        let entry = json!({ "dtype": dtype.name(), "shape": tensor.shape, "data_offsets": [offset, end] });
        entries.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(entries).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    header
}

fn index(shards: &[Shard], total_bytes: u64, job: &Job) -> Value {
    let mut map = Map::new();
    for shard in shards {
        map.extend(shard.tensors.iter().map(|tensor| (tensor.name.clone(), json!(shard.name))));
    }
    let total_parameters = total_bytes / job.dtype.bytes();
    json!({ "metadata": { "total_parameters": total_parameters, "total_size": total_bytes }, "weight_map": map })
}

/// One table for each distribution that occurs.
type Tables = BTreeMap<[u32; 2], Table>;

fn tables(job: &Job) -> Tables {
    let samples = random::bell();
    let mut tables = BTreeMap::new();
    for values in job.tensors.iter().map(|tensor| tensor.values) {
        tables.entry(table_key(values)).or_insert_with(|| Table::new(&samples, values, job.dtype));
    }
    tables
}

fn table_key(values: Bell) -> [u32; 2] {
    [values.mean.to_bits(), values.deviation.to_bits()]
}

fn bytes(tensors: &[Tensor], dtype: Dtype) -> u64 {
    tensors.iter().map(|tensor| tensor.elements() * dtype.bytes()).sum()
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).with_context(|| format!("{} cannot be written", path.display()))
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn partial_name(out: &Path) -> Result<PathBuf> {
    let Some(name) = out.file_name() else { bail!("{} names no folder", out.display()) };
    let mut partial = name.to_owned();
    partial.push(".partial");
    Ok(out.with_file_name(partial))
}

#[cfg(unix)]
fn ensure_space(folder: &Path, needed: u64) -> Result<()> {
    let system =
        rustix::fs::statvfs(folder).with_context(|| format!("{}: no free space known", folder.display()))?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    ensure!(
        needed.saturating_add(SPARE_BYTES) <= free,
        "{} has {:.1} GB free and {:.1} GB are needed; choose another disk, fewer --layers, or --sparse",
        folder.display(),
        gigabytes(free),
        gigabytes(needed.saturating_add(SPARE_BYTES))
    );
    Ok(())
}

/// Elsewhere the system says it when the disk is full.
#[cfg(not(unix))]
fn ensure_space(_folder: &Path, _needed: u64) -> Result<()> {
    Ok(())
}

/// Says on stderr how far it is, at most once for each percent.
struct Progress {
    begin: Instant,
    total_bytes: u64,
    done_bytes: AtomicU64,
    is_shown: bool,
}

impl Progress {
    fn new(total_bytes: u64) -> Progress {
        let is_shown = std::io::stderr().is_terminal();
        Progress { begin: Instant::now(), total_bytes, done_bytes: AtomicU64::new(0), is_shown }
    }

    fn add(&self, bytes: u64) {
        let before = self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        let percent = |bytes: u64| bytes.saturating_mul(100) / self.total_bytes.max(1);
        if self.is_shown && percent(before) != percent(before + bytes) {
            eprint!("\r{:3} %  {}  ", percent(before + bytes), self.rate());
        }
    }

    fn finish(&self) {
        let end = if self.is_shown { "\r" } else { "" };
        eprintln!("{end}{:.2} GB of weights, {}", gigabytes(self.total_bytes), self.rate());
    }

    fn rate(&self) -> String {
        let seconds = self.begin.elapsed().as_secs_f64().max(1e-9);
        let done = gigabytes(self.done_bytes.load(Ordering::Relaxed));
        format!("{done:.2} GB written in {seconds:.1} s, {:.2} GB/s", done / seconds)
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::shape::{Overrides, Shape};
    use super::super::{config, tensors};
    use super::*;

    fn job(name: &str, dtype: Dtype) -> Job {
        let tiny = Overrides {
            layers: Some(2),
            hidden: Some(36),
            heads: Some(6),
            kv_heads: Some(2),
            head_dim: Some(6),
            intermediate: Some(35),
            vocab: Some(101),
        };
        let shape = Shape::named(name, &tiny).expect("fits");
        Job {
            tensors: tensors::of(&shape),
            config: config::model(&shape, dtype),
            generation_config: config::generation(),
            dtype,
            seed: 1,
            shard_bytes: 16_000,
            sparse: false,
            threads: 1,
        }
    }

    fn write(job: &Job) -> BTreeMap<String, Vec<u8>> {
        let scratch = tempfile::tempdir().expect("a folder");
        let out = scratch.path().join("model");
        folder(&out, job).expect("written");
        assert_eq!(fs::read_dir(scratch.path()).expect("there").count(), 1, "nothing is left over");
        let entries = fs::read_dir(out).expect("there").map(|entry| entry.expect("there"));
        entries
            .map(|entry| {
                (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("there"))
            })
            .collect()
    }

    /// The entries of a file by place, after checking that they cover it exactly.
    fn covered(file: &[u8]) -> BTreeMap<u64, (String, Value)> {
        let (length, rest) = file.split_first_chunk::<8>().expect("a length");
        let length = u64::from_le_bytes(*length) as usize;
        assert!(length.is_multiple_of(8));
        let header: Map<String, Value> = serde_json::from_slice(&rest[..length]).expect("a header");
        let entries = header.into_iter().filter(|(name, _)| name != "__metadata__");
        let by_place: BTreeMap<_, _> = entries
            .map(|(name, entry)| (entry["data_offsets"][0].as_u64().expect("an offset"), (name, entry)))
            .collect();
        let mut expected = 0;
        for (begin, (name, entry)) in &by_place {
            assert_eq!(*begin, expected, "{name}");
            expected = entry["data_offsets"][1].as_u64().expect("an end");
        }
        assert_eq!(expected as usize, rest.len() - length);
        by_place
    }

    #[test]
    fn files_hold_every_tensor_once_and_nothing_else() {
        for name in
            ["custom", "mistral-7b", "qwen2.5-7b", "qwen3-8b", "gemma3-1b", "mixtral-8x7b", "qwen3-30b-a3b"]
        {
            let job = job(name, Dtype::Bf16);
            let files = write(&job);
            let index: Value =
                serde_json::from_slice(&files["model.safetensors.index.json"]).expect("an index");
            let mut found = 0;
            for (file, contents) in files.iter().filter(|(file, _)| file.ends_with(".safetensors")) {
                for (tensor, _) in covered(contents).values() {
                    assert_eq!(index["weight_map"][tensor], file.as_str());
                    found += 1;
                }
            }
            assert_eq!(found, job.tensors.len(), "{name}");
            assert!(files.contains_key("config.json") && files.contains_key("generation_config.json"));
        }
    }

    #[test]
    fn one_file_needs_no_index() {
        let files = write(&Job { shard_bytes: u64::MAX, ..job("custom", Dtype::F16) });
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["config.json", "generation_config.json", "model.safetensors"]
        );
    }

    #[test]
    fn the_bytes_hang_on_the_seed_alone() {
        let digest = |job: &Job| {
            write(job).iter().fold(0, |state, (name, contents)| {
                contents.iter().fold(random::key(state, name), |state, &byte| {
                    (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                })
            })
        };
        for dtype in [Dtype::Bf16, Dtype::F32] {
            let once = digest(&job("custom", dtype));
            assert_eq!(once, digest(&Job { threads: 3, ..job("custom", dtype) }));
            assert_ne!(once, digest(&Job { seed: 2, ..job("custom", dtype) }));
        }
        assert_eq!(digest(&job("custom", Dtype::Bf16)), 6_152_448_232_025_035_348);
    }

    #[test]
    fn large_tensors_are_made_in_parts_without_a_seam() {
        let vocab = CHUNK_ELEMENTS / 36 + 1000;
        let large = |threads| {
            let overrides =
                Overrides { vocab: Some(vocab), hidden: Some(36), heads: Some(2), ..Overrides::default() };
            let shape = Shape::named("custom", &overrides).expect("fits");
            let job = job("custom", Dtype::Bf16);
            Job { tensors: tensors::of(&shape), threads, shard_bytes: u64::MAX, ..job }
        };
        assert_eq!(write(&large(1)), write(&large(4)));
    }

    #[test]
    fn sparse_files_have_the_same_headers_and_lengths() {
        let dense = write(&job("gemma3-1b", Dtype::Bf16));
        let sparse = write(&Job { sparse: true, ..job("gemma3-1b", Dtype::Bf16) });
        assert!(dense.keys().eq(sparse.keys()));
        for (name, contents) in &sparse {
            assert_eq!(contents.len(), dense[name].len(), "{name}");
            if name.ends_with(".safetensors") {
                assert_eq!(covered(contents), covered(&dense[name]));
            }
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let scratch = tempfile::tempdir().expect("a folder");
        fs::write(scratch.path().join("a"), "b").expect("written");
        let error = folder(scratch.path(), &job("custom", Dtype::Bf16)).expect_err("must be refused");
        assert!(error.to_string().contains("exists already"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn too_little_space_is_told_before_anything_is_written() {
        let scratch = tempfile::tempdir().expect("a folder");
        let error = ensure_space(scratch.path(), u64::MAX).expect_err("must be refused");
        assert!(error.to_string().contains("--sparse"), "{error}");
    }
}
