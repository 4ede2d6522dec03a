//! A model without its weights: what a plan needs to know, in a few megabytes.
//!
//! Small files are fetched whole, and of each file of weights its header. The file that takes its place has that header, the
//! full length, and a hole for the rest, so that whoever reads headers finds what they would find in the real one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

use crate::files::{self, Weights};
use crate::http::{Failure, Http, escape, header};
use crate::id::{self, ModelId};
use crate::transfer::parallel;
use crate::{Error, ErrorKind, Hub, listing, shapes};

/// Bytes of a file of weights that are asked for at first; most headers are shorter.
const FIRST_BYTES: u64 = 32 << 10;
/// The same of GGUF files, whose headers hold a vocabulary.
const FIRST_BYTES_GGUF: u64 = 1 << 20;
/// The longest header.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Larger files beside the weights are not fetched: vocabularies, which a plan needs the size of.
const SMALL_BYTES_MAX: u64 = 1 << 20;
const SAFETENSORS: &str = ".safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What [`Hub::outline`] and [`outline_of_folder`] make.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The folder, or the GGUF file in it: to be opened for its headers alone.
    pub path: PathBuf,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
    /// Bytes of the tokenizer's files that are not there: about what it takes in memory.
    pub tokenizer_bytes: u64,
}

impl Hub {
    /// What a plan needs of a model, in the empty folder `into`: nothing goes to the cache.
    ///
    /// # Errors
    /// As [`Hub::pull`]; [`ErrorKind::Unsupported`] of PyTorch files, which say what they hold only where they are whole.
    pub fn outline(&self, id: &ModelId, into: &Path, cancel: &AtomicBool) -> Result<Outline, Error> {
        self.outline_here(id, into, cancel).map_err(|e| e.in_repository(id.repository()))
    }

    fn outline_here(&self, id: &ModelId, into: &Path, cancel: &AtomicBool) -> Result<Outline, Error> {
        if self.offline {
            let message = "not in the cache, and HF_HUB_OFFLINE forbids asking the Hub";
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let http = Http::new(self, cancel);
        let listing = listing(&http, id)?;
        let siblings = listing.siblings.iter().filter(|sibling| id::is_path(&sibling.rfilename));
        let sizes: BTreeMap<String, Option<u64>> =
            siblings.map(|sibling| (sibling.rfilename.clone(), sibling.size)).collect();
        let names: Vec<String> = sizes.keys().cloned().collect();
        let choice = files::choose(&names, id.file())?;
        let from = Repository { http: &http, id, commit: &listing.commit, fetched: AtomicU64::new(0) };

        let size = |name: &String| sizes.get(name).copied().flatten().unwrap_or(0);
        let (large, small): (Vec<String>, Vec<String>) = choice
            .metadata
            .iter()
            .cloned()
            .partition(|name| size(name) > SMALL_BYTES_MAX && name != "config.json");
        let whole = |name: &String| from.whole(name, into).map_err(|e| e.in_file(name));
        parallel(self, &http, &small, whole)?;
        let weights = match &choice.weights {
            Weights::Files(files) | Weights::Gguf(files) => files.clone(),
            Weights::Indexed(index) => {
                whole(index)?;
                files::shards_of(&into.join(index))?
            }
        };
        if let Some(pickle) =
            weights.iter().find(|name| !name.ends_with(SAFETENSORS) && !name.ends_with(".gguf"))
        {
            let message =
                "PyTorch's files say what they hold only where they are whole; `aerostat pull` brings them";
            return Err(Error::new(ErrorKind::Unsupported, message).in_file(pickle));
        }
        parallel(self, &http, &weights, |name| {
            from.header(name, sizes.get(name).copied().flatten(), into).map_err(|e| e.in_file(name))
        })?;
        let path = match &choice.weights {
            Weights::Gguf(files) => into.join(files.first().map_or("", String::as_str)),
            _ => into.to_owned(),
        };
        let tokenizer_bytes = large.iter().map(size).sum();
        Ok(Outline { path, fetched_bytes: from.fetched.into_inner(), tokenizer_bytes })
    }
}

/// One revision of a repository.
struct Repository<'a> {
    http: &'a Http<'a>,
    id: &'a ModelId,
    commit: &'a str,
    fetched: AtomicU64,
}

impl Repository<'_> {
    fn path(&self, name: &str) -> String {
        let name: Vec<String> = name.split('/').map(escape).collect();
        format!("/{}/resolve/{}/{}", self.id.repository(), self.commit, name.join("/"))
    }

    /// Brings a file.
    fn whole(&self, name: &str, into: &Path) -> Result<(), Error> {
        let bytes = self.http.text(&self.path(name))?;
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        write(&into.join(name), &bytes, None)
    }

    /// Brings the header of a file of weights.
    fn header(&self, name: &str, size: Option<u64>, into: &Path) -> Result<(), Error> {
        let gguf = name.ends_with(".gguf");
        let mut wanted = if gguf { FIRST_BYTES_GGUF } else { FIRST_BYTES };
        let (mut bytes, mut size) = (Vec::new(), size);
        loop {
            let end = size.map_or(wanted, |size| wanted.min(size));
            let (more, told) = self.range(name, bytes.len() as u64, end)?;
            let came = more.len();
            bytes.extend(more);
            size = size.or(told);
            match end_of_header(&bytes, gguf)? {
                End::Here(end) => {
                    bytes.truncate(end);
                    break;
                }
                // Of what is cut short, whoever reads it says so.
                _ if came == 0 || size.is_some_and(|size| bytes.len() as u64 >= size) => break,
                End::At(end) => wanted = end,
                End::Later => wanted = 2 * bytes.len() as u64,
            }
            if wanted > HEADER_BYTES_MAX {
                let message = format!("its header would have more than {HEADER_BYTES_MAX} bytes");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        let size =
            size.ok_or_else(|| Error::new(ErrorKind::Server, "the server tells no size of this file"))?;
        write(&into.join(name), &bytes, Some(size))
    }

    /// Some bytes of a file, and its size if that is told.
    fn range(&self, name: &str, start: u64, end: u64) -> Result<(Vec<u8>, Option<u64>), Error> {
        if end <= start {
            return Ok((Vec::new(), None));
        }
        let path = self.path(name);
        let mut backoff = self.http.backoff();
        loop {
            match self
                .http
                .get(&path, Some((start, end)))
                .and_then(|response| read_range(response, start, end))
            {
                Ok((bytes, size)) => {
                    self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    return Ok((bytes, size));
                }
                Err(failure) => backoff.pause(failure)?,
            }
        }
    }
}

/// What a server answered to a request for a range; it may send all from the start, of which no more is read than was asked.
fn read_range(mut response: Response<Body>, start: u64, end: u64) -> Result<(Vec<u8>, Option<u64>), Failure> {
    let is_part = response.status().as_u16() == 206;
    let size = match is_part {
        true => header(&response, "content-range").and_then(|range| range.rsplit_once('/')?.1.parse().ok()),
        false => header(&response, "content-length").and_then(|length| length.parse().ok()),
    };
    let mut bytes = Vec::new();
    let skipped = if is_part { 0 } else { start };
    let read = response.body_mut().as_reader().take(end - start + skipped).read_to_end(&mut bytes);
    read.map_err(Failure::broken)?;
    bytes.drain(..(skipped as usize).min(bytes.len()));
    Ok((bytes, size))
}

/// Where a header ends, as far as its first bytes tell.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Within these bytes.
    Here(usize),
    /// At this offset, which is further.
    At(u64),
    /// Further; nothing tells where.
    Later,
}

fn end_of_header(bytes: &[u8], gguf: bool) -> Result<End, Error> {
    if gguf {
        let end = Gguf { bytes, at: 0 }.end();
        return Ok(end.map_or(End::Later, End::Here));
    }
    let Some(length) = bytes.first_chunk::<8>() else { return Ok(End::Later) };
    let end = u64::from_le_bytes(*length).saturating_add(8);
    if end > HEADER_BYTES_MAX {
        return Err(Error::new(ErrorKind::Unsupported, "this is not a safetensors file"));
    }
    Ok(if end <= bytes.len() as u64 { End::Here(end as usize) } else { End::At(end) })
}

/// A walk over the header of a GGUF file; `None` where it goes on behind the bytes that are there, or is none.
struct Gguf<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Gguf<'_> {
    fn end(mut self) -> Option<usize> {
        self.skip(8)?;
        let (tensors, entries) = (self.u64()?, self.u64()?);
        for _ in 0..entries {
            self.text()?;
            let kind = self.u32()?;
            self.value(kind)?;
        }
        for _ in 0..tensors {
            self.text()?;
            let dimensions = self.u32()?;
            // Dimensions, type, offset.
            self.skip(usize::try_from(dimensions).ok()?.checked_mul(8)?)?;
            self.skip(12)?;
        }
        Some(self.at)
    }

    fn value(&mut self, kind: u32) -> Option<()> {
        const TEXT: u32 = 8;
        const ARRAY: u32 = 9;
        match kind {
            TEXT => self.text(),
            ARRAY => {
                let (kind, count) = (self.u32()?, usize::try_from(self.u64()?).ok()?);
                match kind {
                    TEXT => (0..count).try_for_each(|_| self.text()),
                    // Nobody nests them.
                    ARRAY => None,
                    _ => self.skip(size_of_kind(kind)?.checked_mul(count)?),
                }
            }
            _ => self.skip(size_of_kind(kind)?),
        }
    }

    fn text(&mut self) -> Option<()> {
        let length = usize::try_from(self.u64()?).ok()?;
        self.skip(length)
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        let bytes = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 8;
        Some(u64::from_le_bytes(bytes))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at = self.at.checked_add(bytes).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }
}

/// Bytes of a value of a GGUF type that is neither a text nor a list.
fn size_of_kind(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// Writes a file, of a length that may be greater than what is in it.
fn write(path: &Path, bytes: &[u8], length: Option<u64>) -> Result<(), Error> {
    crate::cache::create_parent(path)?;
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        length.map_or(Ok(()), |length| file.set_len(length))
    };
    write().map_err(|e| Error::io("write", path, e))
}

/// The same for a folder with `config.json` whose safetensors files are cut off behind their headers, as they come with the
/// first bytes of each, or that has nothing but their index; `None` if the folder is anything else. What is there is copied into
/// the empty folder `into`.
///
/// # Errors
/// [`ErrorKind::Io`]; [`ErrorKind::Unsupported`] where the index and the configuration do not tell what the files hold.
pub fn outline_of_folder(folder: &Path, into: &Path) -> Result<Option<Outline>, Error> {
    let names = files::files_below(folder);
    let at_top = |name: &&String| !name.contains('/');
    if !names.iter().any(|name| name == "config.json") {
        return Ok(None);
    }
    if names.iter().any(|name| name == INDEX) && !names.iter().any(|name| is_weights(name)) {
        return outline_of_index(folder, &names, into).map(Some);
    }
    let mut cut = Vec::new();
    for name in names.iter().filter(at_top).filter(|name| name.ends_with(SAFETENSORS)) {
        if let Some(found) = cut_off(&folder.join(name))? {
            cut.push((name, found));
        }
    }
    if cut.is_empty() {
        return Ok(None);
    }
    for name in names.iter().filter(at_top) {
        let (from, to) = (folder.join(name), into.join(name));
        if let Some((_, (bytes, length))) = cut.iter().find(|(other, _)| *other == name) {
            write(&to, bytes, Some(*length))?;
        } else if name.ends_with(SAFETENSORS) {
            link(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(|e| Error::io("copy", &from, e))?;
        }
    }
    Ok(Some(Outline { path: into.to_owned(), fetched_bytes: 0, tokenizer_bytes: 0 }))
}

fn is_weights(name: &str) -> bool {
    [SAFETENSORS, ".bin", ".gguf"].iter().any(|suffix| name.ends_with(suffix))
}

/// The outline of a folder that has no weights, but `config.json` and the index of its shards.
fn outline_of_index(folder: &Path, names: &[String], into: &Path) -> Result<Outline, Error> {
    let json = |name: &str| {
        let unread = || Error::new(ErrorKind::Io, "this cannot be read, or is too long").in_file(name);
        let text = crate::cache::read_small(&folder.join(name)).ok_or_else(unread)?;
        let wrong = |e| Error::new(ErrorKind::Unsupported, "this is no JSON").caused_by(e).in_file(name);
        serde_json::from_str::<Value>(&text).map_err(wrong)
    };
    let headers = shapes::headers(&json("config.json")?, &json(INDEX)?).map_err(|e| e.in_file(INDEX))?;
    for name in names.iter().filter(|name| !name.contains('/')) {
        let from = folder.join(name);
        fs::copy(&from, into.join(name)).map_err(|e| Error::io("copy", &from, e))?;
    }
    for (name, (header, data)) in headers {
        let header = Value::Object(header).to_string().into_bytes();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
        let length = bytes.len() as u64 + data;
        write(&into.join(name), &bytes, Some(length))?;
    }
    Ok(Outline { path: into.to_owned(), fetched_bytes: 0, tokenizer_bytes: 0 })
}

/// The header of a file that ends before its tensors do, and how long it would be.
fn cut_off(path: &Path) -> Result<Option<(Vec<u8>, u64)>, Error> {
    let wrong = |e| Error::io("read", path, e);
    let mut file = File::open(path).map_err(wrong)?;
    let size = file.metadata().map_err(wrong)?.len();
    let mut length = [0; 8];
    if size < 8 || file.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let header_bytes = u64::from_le_bytes(length);
    // What has no whole header is no outline.
    if header_bytes > HEADER_BYTES_MAX || header_bytes + 8 > size {
        return Ok(None);
    }
    let mut text = vec![0; header_bytes as usize];
    file.read_exact(&mut text).map_err(wrong)?;
    let Ok(Value::Object(tensors)) = serde_json::from_slice(&text) else { return Ok(None) };
    let end = |tensor: &Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let data = tensors.values().filter_map(end).max().unwrap_or(0);
    let whole = data.saturating_add(8 + header_bytes);
    Ok((whole > size && whole < 1 << 50).then(|| ([&length[..], &text].concat(), whole)))
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    let from = fs::canonicalize(from).map_err(|e| Error::io("find", from, e))?;
    std::os::unix::fs::symlink(&from, to).map_err(|e| Error::io("link", to, e))
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    fs::hard_link(from, to).map_err(|e| Error::io("link", to, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_gguf_header_is_found_in_no_fewer_bytes() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat/twin.gguf");
        let bytes = fs::read(fixture).unwrap();
        let Ok(End::Here(end)) = end_of_header(&bytes, true) else { panic!("no end") };
        assert!(end > 1000 && end < bytes.len());
        for fewer in [0, 3, 8, 24, 100, end / 2, end - 1] {
            assert_eq!(end_of_header(&bytes[..fewer], true).unwrap(), End::Later, "{fewer}");
        }
        assert_eq!(end_of_header(&bytes[..end], true).unwrap(), End::Here(end));
    }

    #[test]
    fn the_end_of_a_safetensors_header_is_its_first_number() {
        let bytes = [&1000_u64.to_le_bytes()[..], &[b' '; 1000]].concat();
        assert_eq!(end_of_header(&bytes, false).unwrap(), End::Here(1008));
        assert_eq!(end_of_header(&bytes[..10], false).unwrap(), End::At(1008));
        assert_eq!(end_of_header(&bytes[..7], false).unwrap(), End::Later);
        assert!(end_of_header(&u64::MAX.to_le_bytes(), false).is_err());
    }
}
