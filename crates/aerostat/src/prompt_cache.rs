//! Pages of the KV cache kept on disk, so that a prompt that was computed once is read the next time.
//!
//! A folder holds one file for each text: its tokens, and the pages of their keys and values. What is found there becomes idle
//! pages of the cache in memory, as if another request had left them. Files are written beside their place and renamed, so
//! that readers see whole ones; any may be deleted at any time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use aerostat_backend::Backend;
use aerostat_model::{Before, Pages, Rotations};

use crate::options::PromptCache;
use crate::sequence::Sequence;

/// The first bytes of a file; the number rises when keys and values come to be computed or kept otherwise.
const MAGIC: &[u8; 8] = b"AEROKV01";
/// Shorter texts are computed as soon.
const TOKENS_MIN: usize = 64;
/// A file has no more tokens.
const TOKENS_MAX: usize = 1 << 20;
/// Files that are looked at, the latest.
const FILES_MAX: usize = 256;
/// How long what was seen in the folder is taken to be there.
const FRESH: Duration = Duration::from_secs(1);
/// A file that was not finished in this time never will be.
const STALE: Duration = Duration::from_secs(3600);

/// The folder, as an engine sees it.
#[derive(Debug)]
pub(crate) struct Kept {
    options: PromptCache,
    /// What a file must be of: model, element types, pages.
    identity: String,
    seen: Option<Instant>,
    texts: Vec<Text>,
    page_bytes: usize,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

/// A file.
#[derive(Clone, Debug)]
struct Text {
    path: PathBuf,
    tokens: Vec<u32>,
    /// Of rotations.
    class: u64,
    /// Where its pages begin.
    start: u64,
}

impl Kept {
    /// For a cache whose pages have so many bytes; `identity` names what they depend on beside the caller's own.
    pub(crate) fn new(options: PromptCache, identity: &str, page_bytes: usize) -> Self {
        let identity = format!("{} {identity} {page_bytes}", options.identity);
        let (read_bytes, written_bytes) = (0, 0);
        Self { options, identity, seen: None, texts: Vec::new(), page_bytes, read_bytes, written_bytes }
    }

    /// Brings pages of a sequence's prompt that are not in memory back, as far as they are here and there is room. Those with a
    /// salt neither find nor leave any.
    pub(crate) fn restore(
        &mut self,
        sequence: &Sequence<'_>,
        rotations: &Rotations,
        pages: &mut Pages,
        backend: &mut dyn Backend,
    ) -> io::Result<()> {
        let (class, size) = (rotations.class(sequence.prompt), pages.page_tokens());
        let wanted = sequence.results_from().min(sequence.prompt) / size;
        if wanted * size < TOKENS_MIN || sequence.is_salted() {
            return Ok(());
        }
        self.look()?;
        let alike = |text: &Text| common(&text.tokens, &sequence.tokens[..wanted * size]) / size;
        let best = self.texts.iter().filter(|text| text.class == class).max_by_key(|text| alike(text));
        let Some((text, count)) = best.map(|text| (text.clone(), alike(text))) else { return Ok(()) };
        let (mut held, mut before) = (Vec::new(), Before::Start(class));
        let chunks = sequence.tokens.chunks_exact(size).take(count);
        let mut file = None;
        for (number, tokens) in chunks.enumerate() {
            let page = match pages.find(before, tokens) {
                Some(page) => {
                    pages.hold(page);
                    page
                }
                None => {
                    let Some(page) = pages.take(1).and_then(|taken| taken.first().copied()) else { break };
                    let file = match &mut file {
                        Some(file) => file,
                        None => file.insert(BufReader::new(File::open(&text.path)?)),
                    };
                    let place = text.start + (number * (self.page_bytes + 4)) as u64;
                    if let Err(error) =
                        file.seek(SeekFrom::Start(place)).and_then(|_| load(file, page, backend))
                    {
                        pages.release([page]);
                        pages.release(held);
                        self.texts.retain(|known| known.path != text.path);
                        let _ = fs::remove_file(&text.path);
                        return Err(error);
                    }
                    self.read_bytes += self.page_bytes as u64;
                    pages.publish(page, before, tokens);
                    page
                }
            };
            held.push(page);
            before = Before::Page(page);
        }
        pages.release(held);
        if let Some(file) = file {
            // So that it is not the oldest any more.
            let _ = file.into_inner().set_modified(SystemTime::now());
        }
        Ok(())
    }

    /// Writes the pages of a sequence that others may use, unless they are here.
    pub(crate) fn save(
        &mut self,
        sequence: &Sequence<'_>,
        rotations: &Rotations,
        page_tokens: usize,
        backend: &mut dyn Backend,
    ) -> io::Result<()> {
        let known = sequence.known.min(sequence.pages.len());
        let tokens = &sequence.tokens[..known * page_tokens];
        let bytes = (known * (self.page_bytes + 4)) as u64;
        if sequence.is_salted()
            || sequence.one_of_many
            || tokens.len() < TOKENS_MIN
            || tokens.len() > TOKENS_MAX
            || bytes > self.options.bytes_max
        {
            return Ok(());
        }
        self.look()?;
        let class = rotations.class(sequence.prompt);
        if self.texts.iter().any(|text| text.class == class && text.tokens.starts_with(tokens)) {
            return Ok(());
        }
        make(&self.options.folder)?;
        let name = format!("{:08x}-{}", crc32c::crc32c(&le(tokens)), std::process::id());
        let (part, path) = (self.place(&name, "part"), self.place(&name, "kv"));
        let written = self.write(&part, (tokens, class), &sequence.pages[..known], backend);
        let renamed = written.and_then(|start| fs::rename(&part, &path).map(|()| start));
        let start = renamed.inspect_err(|_| drop(fs::remove_file(&part)))?;
        self.written_bytes += bytes;
        // What is the beginning of the new one is not needed any more.
        let (shorter, others): (Vec<Text>, Vec<Text>) = std::mem::take(&mut self.texts)
            .into_iter()
            .partition(|text| text.path != path && text.class == class && tokens.starts_with(&text.tokens));
        shorter.iter().for_each(|text| drop(fs::remove_file(&text.path)));
        self.texts = others;
        self.texts.retain(|text| text.path != path);
        self.texts.push(Text { path, tokens: tokens.to_vec(), class, start });
        self.shrink()
    }

    fn place(&self, name: &str, extension: &str) -> PathBuf {
        self.options.folder.join(format!("{name}.{extension}"))
    }

    /// Writes a file; gives the place of its first page.
    fn write(
        &self,
        path: &Path,
        (tokens, class): (&[u32], u64),
        pages: &[u32],
        backend: &mut dyn Backend,
    ) -> io::Result<u64> {
        let mut head = MAGIC.to_vec();
        head.extend((self.identity.len() as u32).to_le_bytes());
        head.extend(self.identity.as_bytes());
        head.extend(class.to_le_bytes());
        head.extend((tokens.len() as u32).to_le_bytes());
        head.extend(le(tokens));
        head.extend(crc32c::crc32c(&head).to_le_bytes());
        let mut file = BufWriter::new(OpenOptions::new().write(true).create(true).truncate(true).open(path)?);
        file.write_all(&head)?;
        for &page in pages {
            let (mut crc, mut written) = (0, Ok(()));
            let mut take = |bytes: &[u8]| {
                crc = crc32c::crc32c_append(crc, bytes);
                if written.is_ok() {
                    written = file.write_all(bytes);
                }
            };
            backend.kv_save(page, &mut take).map_err(io::Error::other)?;
            written?;
            file.write_all(&crc.to_le_bytes())?;
        }
        // Nobody waits for the disk: what a crash cuts short has another checksum, and is computed again.
        file.flush()?;
        Ok(head.len() as u64)
    }

    /// Looks which files there are, unless that was just done.
    fn look(&mut self) -> io::Result<()> {
        if self.seen.is_some_and(|seen| seen.elapsed() < FRESH) {
            return Ok(());
        }
        self.seen = Some(Instant::now());
        let entries = match fs::read_dir(&self.options.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.texts.clear();
                return Ok(());
            }
            entries => entries?,
        };
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let Ok(used) = fs::metadata(&path).and_then(|data| data.modified()) else { continue };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("kv") => files.push((used, path)),
                Some("part") if used.elapsed().is_ok_and(|age| age > STALE) => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        files.sort_by(|a, b| b.cmp(a));
        let known = std::mem::take(&mut self.texts);
        for (_, path) in files.into_iter().take(FILES_MAX) {
            let same = known.iter().find(|text| text.path == path);
            // One that is of another model, or none at all, is somebody else's.
            let text = same.cloned().map(Ok).unwrap_or_else(|| self.read(&path));
            self.texts.extend(text);
        }
        Ok(())
    }

    /// Reads the head of a file, which must be of this identity and whole.
    fn read(&self, path: &Path) -> io::Result<Text> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let file = File::open(path)?;
        let mut reader = Checked { file: BufReader::new(file), crc: 0, read: 0 };
        let magic = reader.take::<8>()?;
        let length = u32::from_le_bytes(reader.take()?) as usize;
        if magic != *MAGIC || length != self.identity.len() {
            return Err(bad());
        }
        let mut identity = vec![0; length];
        reader.fill(&mut identity)?;
        let class = u64::from_le_bytes(reader.take()?);
        let count = u32::from_le_bytes(reader.take()?) as usize;
        if identity != self.identity.as_bytes() || count > TOKENS_MAX {
            return Err(bad());
        }
        let mut tokens = vec![0; count * 4];
        reader.fill(&mut tokens)?;
        let crc = reader.crc;
        if u32::from_le_bytes(reader.take()?) != crc {
            return Err(bad());
        }
        let tokens = tokens.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let start = reader.read;
        Ok(Text { path: path.to_owned(), tokens, class, start })
    }

    /// Removes the oldest files until what is there fits.
    fn shrink(&mut self) -> io::Result<()> {
        let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.options.folder)? {
            let path = entry?.path();
            let Ok(data) = fs::metadata(&path) else { continue };
            if path.extension().is_some_and(|extension| extension == "kv") {
                all.push((data.modified()?, data.len(), path));
            }
        }
        all.sort();
        let mut total: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in all {
            if total <= self.options.bytes_max {
                break;
            }
            let _ = fs::remove_file(&path);
            self.texts.retain(|text| text.path != path);
            total -= bytes;
        }
        Ok(())
    }
}

/// Makes a folder that nobody else may look into, since keys and values tell much about their text.
fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Reads a page into the cache, and checks it.
fn load(file: &mut impl Read, page: u32, backend: &mut dyn Backend) -> io::Result<()> {
    let (mut crc, mut read) = (0, Ok(()));
    let mut fill = |bytes: &mut [u8]| {
        if read.is_ok() {
            read = file.read_exact(bytes);
            crc = crc32c::crc32c_append(crc, bytes);
        }
    };
    backend.kv_load(page, &mut fill).map_err(io::Error::other)?;
    read?;
    let mut stored = [0; 4];
    file.read_exact(&mut stored)?;
    match u32::from_le_bytes(stored) == crc {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "a page has another checksum")),
    }
}

/// A reader that sums up what it read.
struct Checked {
    file: BufReader<File>,
    crc: u32,
    read: u64,
}

impl Checked {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.read += bytes.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

/// Tokens that both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn le(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}
