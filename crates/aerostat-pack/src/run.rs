//! The packing itself: shard by shard, tensor by tensor, a few tiles at a time on all threads.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use aerostat_backend::{Tile, packed};
use aerostat_checkpoint::packed::{Beside, Entry, NOTES, SIDECAR, Sidecar, Source};
use aerostat_checkpoint::{Checkpoint, Config, Extent, File};
use aerostat_stream::{Ring, SourceOptions};
use sha2::{Digest, Sha256};

use crate::codec::estimate;
use crate::journal::{Done, Journal, Line, write_whole};
use crate::layout::{Job, Layout, codec};
use crate::options::TILE_BYTES_MAX;
use crate::quantise::{Loss, quantise_lossy};
use crate::shard::{self, ShardFile};
use crate::{Error, ErrorKind, Options, Packed, Progress, Summary, verify};

/// Tiles that are held for each thread.
const TILES_PER_THREAD: usize = 2;
/// Bytes that are written before they are synced and noted.
const SYNC_BYTES: u64 = 64 << 20;
/// What is copied beside the weights: by the ends of names.
const COPIED: &[&str] = &[".json", ".jinja", ".model", ".tiktoken", ".txt", ".md", "LICENSE"];
/// The longest list of modules that is read.
const MODULES_BYTES_MAX: u64 = 1 << 20;
/// Of these, what results depend on.
const GUARDED: &[&str] = &[".json", ".jinja", ".model", ".tiktoken", "merges.txt"];

type Observe<'a> = &'a mut dyn FnMut(&Progress<'_>) -> bool;

pub(crate) fn run(
    source: &Path,
    out: &Path,
    options: &Options,
    observe: Observe<'_>,
) -> Result<Summary, Error> {
    let layout = match begun(out, options)? {
        Some(layout) => layout,
        None => begin(source, out, options)?,
    };
    let journal = Journal::open(out)?;
    let total = layout.bytes();
    let mut packing =
        Packing { out, options, layout, journal, observe, done: 0, written: 0, resumed: 0, total };
    packing.count_resumed();
    for shard in 0..packing.layout.shards.len() {
        packing.shard(shard)?;
        if options.verify || options.delete_original {
            packing.verify(shard)?;
        }
        if options.delete_original {
            packing.delete()?;
        }
    }
    packing.finish()
}

/// The layout of a packing that has begun in `out` with the same options.
fn begun(out: &Path, options: &Options) -> Result<Option<Layout>, Error> {
    let usage = |message: &str| Err(Error::new(ErrorKind::Usage, format!("{}: {message}", out.display())));
    if options.tile_bytes > TILE_BYTES_MAX {
        return usage("tiles of more than 1 GiB could not be read back; take smaller ones");
    }
    match Journal::layout(out)? {
        Some(layout) if layout.fits(options) => Ok(Some(layout)),
        Some(layout) => usage(&format!(
            "packing as {} has begun there; go on with that, or name another folder",
            codec(&layout)?
        )),
        None if out.join(SIDECAR).exists() => usage("there is a packed model already; name another folder"),
        // It was stopped before it had a plan: what is there are copies of small files, which are made again.
        None if out.join(NOTES).is_dir() => Ok(None),
        None => match fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
            Ok(true) => usage("the folder is not empty; name a new one"),
            _ => Ok(None),
        },
    }
}

fn begin(source: &Path, out: &Path, options: &Options) -> Result<Layout, Error> {
    let checkpoint = Checkpoint::open(source)?;
    let Config::HuggingFace(_) = &checkpoint.config else {
        let message = format!(
            "{}: only Hugging Face folders are packed: a packed copy has a config.json and a tokenizer.json, which a GGUF \
             file does not have, and its weights mostly are quantised already; run it as it is",
            source.display()
        );
        return Err(Error::new(ErrorKind::Usage, message));
    };
    let spec = aerostat_arch::describe(&checkpoint)?;
    let mut layout = Layout::of(&checkpoint.catalog, &spec, options)?;
    fs::create_dir_all(out).map_err(|error| Error::io(out, "make the folder", &error))?;
    let mut needed = estimate(&checkpoint.catalog, &spec, options.codec).bytes;
    if options.delete_original {
        // Files go as they are done: what two of them take is enough.
        let largest = layout.sources.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        needed = needed.min(2 * options.shard_bytes.max(largest));
    }
    check_space(out, needed)?;
    let notes = out.join(NOTES);
    fs::create_dir_all(&notes).map_err(|error| Error::io(&notes, "make the folder", &error))?;
    for entry in copied(source)? {
        let to = out.join(entry.strip_prefix(source).unwrap_or(&entry));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, "make the folder", &error))?;
        }
        let content = fs::read(&entry).map_err(|error| Error::io(&entry, "read it", &error))?;
        write_whole(&to, &content)?;
        let file = to.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if to.parent() == Some(out) && GUARDED.iter().any(|end| file.ends_with(end)) {
            layout.files.push(Beside { file, bytes: content.len() as u64, crc32c: crc32c::crc32c(&content) });
        }
    }
    Journal::begin(out, &layout)?;
    Ok(layout)
}

/// The files of a model besides its weights.
fn copied(source: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |error: std::io::Error| Error::io(source, "list the folder", &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(source).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_index = name.ends_with(".index.json") || name == SIDECAR;
        if !is_index && COPIED.iter().any(|end| name.ends_with(end)) {
            paths.push(path);
        }
    }
    for folder in modules(source)? {
        for entry in fs::read_dir(&folder).map_err(|error| Error::io(&folder, "list the folder", &error))? {
            paths.push(entry.map_err(fail)?.path());
        }
    }
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

/// The folders of an embedding model's other modules, such as `1_Pooling`: small files, and small weights of dense layers.
fn modules(source: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = source.join("modules.json");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    let read = fs::File::open(&path).and_then(|file| file.take(MODULES_BYTES_MAX).read_to_end(&mut text));
    read.map_err(|error| Error::io(&path, "read it", &error))?;
    // Whoever makes vectors says what is wrong with it.
    let list: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap_or_default();
    let is_model = |module: &serde_json::Value| {
        module
            .get("type")
            .and_then(serde_json::Value::as_str)
            .is_none_or(|kind| kind.ends_with("Transformer"))
    };
    let others = list.iter().filter(|module| !is_model(module));
    let names = others.filter_map(|module| module.get("path")?.as_str());
    let is_name =
        |name: &&str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    let folders = names.filter(is_name).map(|name| source.join(name));
    Ok(folders.filter(|folder| folder.is_dir()).collect())
}

fn check_space(folder: &Path, needed: u64) -> Result<(), Error> {
    let Some(free) = free_bytes(folder).filter(|free| needed > *free) else { return Ok(()) };
    let message = format!(
        "{}: about {needed} bytes are needed and {free} are free; free some, or name a folder on another disk",
        folder.display()
    );
    Err(Error::new(ErrorKind::Space, message))
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

struct Packing<'a> {
    out: &'a Path,
    options: &'a Options,
    layout: Layout,
    journal: Journal,
    observe: Observe<'a>,
    done: u64,
    written: u64,
    resumed: u64,
    total: u64,
}

/// A tile that a thread made.
struct Made {
    bytes: Vec<u8>,
    crc32c: u32,
    len: usize,
    loss: Loss,
}

impl Packing<'_> {
    fn count_resumed(&mut self) {
        for line in &self.journal.lines {
            if let Line::Tensor(done) = line {
                let job = self.layout.shards.get(done.shard).and_then(|s| s.tensors.get(done.tensor));
                self.done += job.map_or(0, |job| job.bytes);
                self.written += done.bytes;
            }
        }
        self.resumed = self.done;
    }

    fn tell(&mut self, tensor: Option<Packed<'_>>, verifying: bool) -> Result<(), Error> {
        let Self { done, total, written, resumed, .. } = *self;
        match (self.observe)(&Progress { tensor, done, total, written, resumed, verifying }) {
            true => {
                Err(Error::new(ErrorKind::Interrupted, "interrupted; the same command goes on from here"))
            }
            false => Ok(()),
        }
    }

    /// Makes a shard, or what is missing of it.
    fn shard(&mut self, number: usize) -> Result<(), Error> {
        let layout = self.layout.shards[number].clone();
        if self.journal.shard(number).is_some() {
            return shard::name(self.out, &layout);
        }
        let mut done = self.journal.done(number);
        let mut file = ShardFile::open(self.out, &layout, &done, self.options.space)?;
        if file.is_none() {
            self.journal.forget(number)?;
            done.clear();
            file = ShardFile::open(self.out, &layout, &done, self.options.space)?;
        }
        let Some(mut file) = file else {
            return Err(Error::new(ErrorKind::Io, format!("{} cannot be written", layout.file)));
        };
        let (mut noted, mut unsynced) = (done.len(), 0);
        if done.len() < layout.tensors.len() {
            let mut ring = self.ring(&layout.tensors[done.len()..])?;
            for (tensor, job) in layout.tensors.iter().enumerate().skip(done.len()) {
                let made = self.tensor(&mut ring, &mut file, job);
                unsynced += job.bytes;
                if made.is_err() || unsynced >= SYNC_BYTES {
                    let synced = file.sync();
                    let lines = done[noted..].iter().cloned().map(Line::Tensor);
                    let noting = synced.and_then(|()| self.journal.add(lines));
                    // What stopped it matters more than that this failed, too.
                    let made = made.and_then(|made| noting.map(|()| made))?;
                    (noted, unsynced) = (done.len(), 0);
                    done.push(Done { shard: number, tensor, ..made });
                } else {
                    done.push(Done { shard: number, tensor, ..made? });
                }
            }
        }
        let whole = file.finish(&layout, &done)?;
        let lines = done[noted..].iter().cloned().map(Line::Tensor);
        self.journal.add(lines.chain([Line::Shard(number, whole)]))?;
        shard::name(self.out, &layout)
    }

    /// Reads the files of the original that these tensors lie in.
    fn ring(&self, jobs: &[Job]) -> Result<Ring, Error> {
        let used: BTreeSet<u32> = jobs.iter().map(|job| job.file).collect();
        let largest = jobs.iter().flat_map(Job::pieces).map(|piece| piece.bytes).max().unwrap_or(1);
        // Files that are not needed any more may be gone; their places are taken by one that is there.
        let mut files = self.layout.files();
        let present = used.first().and_then(|&file| files.get(file as usize)).cloned();
        for (number, file) in files.iter_mut().enumerate() {
            if let Some(present) = present.as_ref().filter(|_| !used.contains(&(number as u32))) {
                *file = present.clone();
            }
        }
        let source = aerostat_stream::open(&files, SourceOptions::default())?;
        Ok(Ring::new(source, TILES_PER_THREAD * self.options.threads + 2, largest as usize)?)
    }

    fn tensor(&mut self, ring: &mut Ring, file: &mut ShardFile, job: &Job) -> Result<Done, Error> {
        let pieces = job.pieces();
        ring.request(&pieces)?;
        let count = if job.tiles.is_empty() { pieces.len() } else { job.tiles.len() };
        let mut reader = Reader::new(ring, job, &pieces);
        let mut done = Done { shard: 0, tensor: 0, tiles: Vec::new(), bytes: 0, crc32c: 0, error: 0.0 };
        let mut loss = Loss::default();
        let held = TILES_PER_THREAD * self.options.threads;
        for first in (0..count).step_by(held) {
            let these = first..count.min(first + held);
            let read = these.map(|tile| reader.next(tile)).collect::<Result<Vec<_>, Error>>()?;
            let rows = job.tiles.get(first..).unwrap_or_default();
            for made in make(job, read, rows, self.options.threads) {
                let made = made?;
                file.write(&made.bytes)?;
                if !job.tiles.is_empty() {
                    done.tiles.push(made.bytes.len() as u64);
                }
                done.bytes += made.bytes.len() as u64;
                done.crc32c = crc32c::crc32c_combine(done.crc32c, made.crc32c, made.len);
                loss.add(made.loss);
                self.done += made.len as u64;
                self.written += made.bytes.len() as u64;
            }
            self.tell(None, false)?;
        }
        done.error = loss.relative();
        let bytes = (job.bytes, done.bytes);
        self.tell(Some(Packed { name: &job.name, dtype: &job.to, bytes, error: done.error }), false)?;
        Ok(done)
    }

    /// Reads a shard back, unless an earlier call did.
    fn verify(&mut self, number: usize) -> Result<(), Error> {
        if self.journal.is_verified(number) {
            return Ok(());
        }
        let layout = self.layout.shards[number].clone();
        let Some(whole) = self.journal.shard(number).cloned() else { return Ok(()) };
        let done = self.journal.done(number);
        let path = self.out.join(&layout.file);
        let header = read_start(&path, whole.header_bytes)?;
        if crc32c::crc32c(&header) != whole.header_crc32c {
            let message = format!("{}: the header read back is not what was written", path.display());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let file = File { path, bytes: whole.bytes };
        let mut stopped = Ok(());
        let checked = verify::shard(file, whole.header_bytes, &layout, &done, &mut |_| {
            stopped = self.tell(None, true);
            stopped.is_err()
        });
        stopped.and(checked)?;
        self.journal.add([Line::Verified(number)])
    }

    /// Deletes the files of the original all of whose tensors are in shards that have been verified.
    fn delete(&mut self) -> Result<(), Error> {
        for (number, (path, _)) in self.layout.sources.iter().enumerate() {
            let mut shards = self.layout.shards.iter().enumerate();
            let needed = shards.any(|(shard, layout)| {
                !self.journal.is_verified(shard)
                    && layout.tensors.iter().any(|job| job.file as usize == number)
            });
            // In the Hub's cache a file is a link to where its bytes are.
            let bytes = fs::canonicalize(path).ok().filter(|_| !needed);
            for path in bytes.iter().chain([path].into_iter().filter(|_| !needed)) {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(path, "delete it", &error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Writes the sidecar; from then on the folder is a model.
    fn finish(self) -> Result<Summary, Error> {
        let (mut digest, mut entries, mut shards) = (Sha256::new(), Vec::new(), Vec::new());
        let mut worst: Option<(String, f64)> = None;
        for (number, layout) in self.layout.shards.iter().enumerate() {
            let done = self.journal.done(number);
            shards.extend(self.journal.shard(number).cloned());
            for (job, done) in layout.tensors.iter().zip(done) {
                digest.update(format!("{} {} {:?} {:08x}\n", job.name, job.from, job.shape, done.crc32c));
                let tiles: Vec<(u64, u64)> = job.tiles.iter().copied().zip(done.tiles).collect();
                let crc32c = tiles.is_empty().then_some(done.crc32c);
                let (name, dtype, shape) = (job.name.clone(), job.to.clone(), job.shape.clone());
                entries.push(Entry { name, dtype, shape, transposed: job.transposed, tiles, crc32c });
                if done.error > worst.as_ref().map_or(0.0, |worst| worst.1) {
                    worst = Some((job.name.clone(), done.error));
                }
            }
        }
        let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let source = Source { bytes: self.total, digest };
        let mut sidecar = Sidecar::new(&self.layout.codec, source, self.layout.parameters.clone());
        (sidecar.shards, sidecar.tensors) = (shards, entries);
        sidecar.files = self.layout.files.clone();
        write_whole(&self.out.join(SIDECAR), &sidecar.to_bytes())?;
        let verified = (0..self.layout.shards.len()).all(|shard| self.journal.is_verified(shard));
        let sources = self.layout.sources.iter().map(|(path, _)| path.clone());
        let summary = Summary {
            path: self.out.to_owned(),
            source_bytes: self.total,
            bytes: sidecar.shards.iter().map(|shard| shard.bytes).sum(),
            tensors: sidecar.tensors.len(),
            worst,
            verified,
            deleted: sources.filter(|path| self.options.delete_original && !path.exists()).collect(),
        };
        self.journal.end()?;
        Ok(summary)
    }
}

/// The tiles of a tensor as they are read, in order, or its pieces if it is not in tiles.
struct Reader<'a> {
    ring: &'a mut Ring,
    job: &'a Job,
    /// Pieces of each matrix that is transposed.
    pieces_each: usize,
    /// Such a matrix, by inputs, and the row by outputs after its last.
    slab: Vec<u8>,
    slab_end: u64,
    /// The next tile's first row.
    row: u64,
}

impl<'a> Reader<'a> {
    fn new(ring: &'a mut Ring, job: &'a Job, pieces: &[Extent]) -> Self {
        let matrices = (job.rows() / job.matrix_rows().max(1)).max(1) as usize;
        Self { ring, job, pieces_each: pieces.len() / matrices, slab: Vec::new(), slab_end: 0, row: 0 }
    }

    /// The bytes of tile `tile`, by outputs.
    fn next(&mut self, tile: usize) -> Result<Vec<u8>, Error> {
        let rows = self.job.tiles.get(tile).copied().unwrap_or(0);
        if !self.job.transposed {
            return Ok(self.ring.next()?.to_vec());
        }
        let of_slab = self.job.matrix_rows();
        if self.row == self.slab_end {
            self.slab.clear();
            for _ in 0..self.pieces_each {
                self.slab.extend_from_slice(&self.ring.next()?);
            }
            self.slab_end += of_slab;
        }
        let element = self.slab.len() / (of_slab as usize * self.job.cols()).max(1);
        let first = (of_slab - (self.slab_end - self.row)) as usize;
        self.row += rows;
        Ok(transpose(&self.slab, element, of_slab as usize, first, rows as usize))
    }
}

/// Columns `first .. first + count` of rows of `width` elements, as rows.
fn transpose(matrix: &[u8], element: usize, width: usize, first: usize, count: usize) -> Vec<u8> {
    let (mut out, rows) = (Vec::new(), matrix.len() / (width * element).max(1));
    out.resize(rows * count * element, 0);
    for (at, row) in matrix.chunks_exact(width * element).enumerate() {
        let part = row[first * element..][..count * element].chunks_exact(element);
        for (i, value) in part.enumerate() {
            out[(i * rows + at) * element..][..element].copy_from_slice(value);
        }
    }
    out
}

fn read_start(path: &Path, bytes: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let mut content = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(bytes).read_to_end(&mut content));
    read.map(|_| content).map_err(|error| Error::io(path, "read it", &error))
}

/// Makes tiles of what was read, in order, each on one of the threads.
fn make(job: &Job, read: Vec<Vec<u8>>, rows: &[u64], threads: usize) -> Vec<Result<Made, Error>> {
    let one = |(i, bytes): (usize, &Vec<u8>)| make_one(job, bytes, rows.get(i).copied());
    let each = read.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let chunks = read.chunks(each).enumerate();
        let workers: Vec<_> = chunks
            .map(|(chunk, tiles)| {
                scope.spawn(move || {
                    let tiles = tiles.iter().enumerate().map(|(i, bytes)| (chunk * each + i, bytes));
                    tiles.map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        let panicked = || vec![Err(Error::new(ErrorKind::Io, "a thread that packs failed"))];
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|_| panicked())).collect()
    })
}

fn make_one(job: &Job, read: &[u8], rows: Option<u64>) -> Result<Made, Error> {
    let (crc32c, len) = (crc32c::crc32c(read), read.len());
    let Some(rows) = rows else {
        return Ok(Made { bytes: read.to_vec(), crc32c, len, loss: Loss::default() });
    };
    let (from, to) = job.formats()?;
    let tile = Tile { dtype: from, rows: rows as usize, cols: job.cols(), bytes: read };
    if from == to {
        return Ok(Made {
            bytes: packed::pack(&tile, job.exponent_coded)?,
            crc32c,
            len,
            loss: Loss::default(),
        });
    }
    let (quantised, loss) = quantise_lossy(&tile, to)?;
    let tile = Tile { dtype: to, bytes: &quantised, ..tile };
    Ok(Made { bytes: packed::pack(&tile, false)?, crc32c, len, loss })
}
