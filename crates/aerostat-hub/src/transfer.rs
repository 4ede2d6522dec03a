//! From the Hub into blobs: files side by side, large ones in parts side by side, resumed where they were left.
//!
//! A blob grows in a sparse file of its full length. Beside it lies a journal, one line per range that is on disk for
//! certain: data is synced before its line is written. A line cut short by a crash is ignored, so whatever happens, the
//! journal claims too little, never too much.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::Response;

use crate::cache::{self, Folder};
use crate::http::{Failure, Http, escape, header};
use crate::id::{ModelId, is_hex};
use crate::ranges::Ranges;
use crate::{Error, ErrorKind, Hub, Progress};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Bytes a part may be ahead of the journal: what a crash can cost per connection.
const UNSYNCED_BYTES_MAX: u64 = 16 << 20;

/// Largest blob accepted; a guard against nonsense sizes.
const BLOB_BYTES_MAX: u64 = 1 << 42;

/// What every step of one pull needs.
pub(crate) struct Session<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) http: &'a Http<'a>,
    pub(crate) id: &'a ModelId,
    pub(crate) folder: &'a Folder,
    pub(crate) commit: &'a str,
    /// Sizes of the repository's files by name, as far as the listing gives them.
    pub(crate) sizes: &'a BTreeMap<String, u64>,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) cancel: &'a AtomicBool,
}

/// A file as the Hub describes it.
struct Remote {
    name: String,
    etag: String,
    size: u64,
}

/// A blob that is being fetched.
struct Blob {
    /// All names of this content in the snapshot; the first is the one asked for.
    names: Vec<String>,
    etag: String,
    size: u64,
    here: Mutex<Ranges>,
    parts_open: AtomicUsize,
    /// The server sends only whole files: one part fetches it all, the others have nothing to do.
    whole: AtomicBool,
    _lock: File,
}

/// Brings the files `names` into the snapshot. What lies there in the size that the listing gives is taken as it is, unless
/// digests are to be checked; of anything else the Hub is asked.
pub(crate) fn fetch(session: &Session<'_>, names: &[String]) -> Result<(), Error> {
    let snapshot = session.folder.snapshot(session.commit);
    let is_whole = |name: &&String| {
        let size = session.sizes.get(*name).filter(|_| !session.hub.verify);
        size.is_some_and(|size| has_size(&snapshot.join(name), *size))
    };
    let (present, absent): (Vec<_>, Vec<_>) = names.iter().partition(is_whole);
    let bytes_linked: u64 = present.iter().filter_map(|name| session.sizes.get(*name)).sum();
    let remotes = parallel(session.hub, session.http, &absent, |name| {
        describe(session, name).map_err(|e| e.in_file(name))
    })?;
    let bytes_remote: u64 = remotes.iter().map(|remote| remote.size).sum();

    let mut by_etag: BTreeMap<String, Vec<Remote>> = BTreeMap::new();
    for remote in remotes {
        by_etag.entry(remote.etag.clone()).or_default().push(remote);
    }
    let mut blobs = Vec::new();
    for (etag, remotes) in by_etag {
        blobs.extend(prepare(session, etag, remotes)?);
    }
    let parts: Vec<(&Blob, (u64, u64))> = blobs.iter().flat_map(|blob| split(session.hub, blob)).collect();
    let bytes_missing: u64 = parts.iter().map(|(_, (start, end))| end - start).sum();
    if !blobs.is_empty() {
        cache::check_space(session.folder.root(), bytes_missing)?;
    }
    let bytes_total = bytes_linked + bytes_remote;
    session.progress.started(names.len(), bytes_total, bytes_total.saturating_sub(bytes_missing));
    parallel(session.hub, session.http, &parts, |(blob, part)| {
        let name = blob.names.first().map_or("", String::as_str);
        let fetched = fetch_part(session, blob, *part).and_then(|()| {
            match blob.parts_open.fetch_sub(1, Ordering::AcqRel) {
                1 => finish(session, blob),
                _ => Ok(()),
            }
        });
        fetched.map_err(|e| e.in_file(name))
    })?;
    Ok(())
}

/// Runs `work` on all items with as many threads as the hub allows connections; the first error stops them all.
pub(crate) fn parallel<T: Sync, R: Send>(
    hub: &Hub,
    http: &Http<'_>,
    items: &[T],
    work: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(Vec::new()));
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = http.check().and_then(|()| work(item));
            let mut outcome = hold(&outcome);
            match (&mut *outcome, result) {
                (Ok(results), Ok(result)) => results.push(result),
                (Ok(_), Err(error)) => {
                    http.stop();
                    *outcome = Err(error);
                }
                (Err(_), _) => return,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..hub.connections.clamp(1, items.len().max(1)) {
            scope.spawn(run);
        }
        run();
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Asks the Hub for the size and content hash of a file.
fn describe(session: &Session<'_>, name: &str) -> Result<Remote, Error> {
    let response = session.http.head(&path_of(session, name))?;
    let odd = |what: &str| Error::new(ErrorKind::Server, format!("the server's answer {what}"));
    if header(&response, "x-repo-commit").is_some_and(|commit| commit != session.commit) {
        return Err(odd("belongs to another commit; pull again"));
    }
    let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
    let etag = etag.map(|text| text.trim_start_matches("W/").trim_matches('"')).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if etag.is_empty() || etag.len() > 128 || !etag.bytes().all(plain) {
        return Err(odd("has no usable ETag; is the endpoint a Hub?"));
    }
    let size = header(&response, "x-linked-size").or_else(|| header(&response, "content-length"));
    let size = size.and_then(|text| text.parse().ok()).filter(|&size| size <= BLOB_BYTES_MAX);
    let size = size.ok_or_else(|| odd("has no usable size; is the endpoint a Hub?"))?;
    Ok(Remote { name: name.to_owned(), etag: etag.to_owned(), size })
}

/// Locks a blob and reads how much of it is here; links it and returns none when that is all.
fn prepare(session: &Session<'_>, etag: String, remotes: Vec<Remote>) -> Result<Option<Blob>, Error> {
    let folder = session.folder;
    let size = remotes.first().map_or(0, |remote| remote.size);
    let names: Vec<String> = remotes.into_iter().map(|remote| remote.name).collect();
    let shown = names.first().cloned().unwrap_or_default();
    let on_wait = || session.progress.note(&format!("another process is fetching {shown}; waiting for it"));
    let lock = folder.lock(&etag, session.cancel, on_wait)?;
    if is_here(session, &etag, size)? {
        names.iter().try_for_each(|name| folder.link(session.commit, name, &etag))?;
        return Ok(None);
    }
    let (partial, journal) = (folder.partial(&etag), folder.journal(&etag));
    cache::create_parent(&partial)?;
    let here = match fs::metadata(&partial) {
        Ok(meta) if meta.len() == size => read_journal(&journal, size),
        _ => None,
    };
    let here = match here {
        Some(here) => here,
        None => {
            fs::write(&journal, journal_head(size)).map_err(|e| Error::io("write", &journal, e))?;
            let create = || File::create(&partial)?.set_len(size);
            create().map_err(|e| Error::io("create", &partial, e))?;
            Ranges::default()
        }
    };
    let whole = AtomicBool::new(false);
    Ok(Some(Blob {
        names,
        etag,
        size,
        here: Mutex::new(here),
        parts_open: AtomicUsize::new(0),
        whole,
        _lock: lock,
    }))
}

/// Whether a file of that many bytes lies at `path`.
fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

/// Whether a blob lies here whole. Where digests are to be checked, one whose ETag is no digest is fetched anew, since only
/// small files have none.
fn is_here(session: &Session<'_>, etag: &str, size: u64) -> Result<bool, Error> {
    let path = session.folder.blob(etag);
    if !has_size(&path, size) {
        return Ok(false);
    }
    if !session.hub.verify {
        return Ok(true);
    }
    let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
    let right = is_digest(etag) && sha256(file, &path, session.http)? == etag;
    if !right && is_digest(etag) {
        session.progress.note(&format!("{} is damaged and is fetched again", path.display()));
    }
    Ok(right)
}

/// Whether an ETag is the SHA-256 of the content, as those of large files are.
fn is_digest(etag: &str) -> bool {
    etag.len() == 64 && is_hex(etag)
}

/// The parts of a blob that are not here; one empty part when only the finish is left to do.
fn split<'b>(hub: &Hub, blob: &'b Blob) -> Vec<(&'b Blob, (u64, u64))> {
    let mut parts = hold(&blob.here).missing(blob.size, hub.part_bytes_max);
    if parts.is_empty() {
        parts.push((0, 0));
    }
    blob.parts_open.store(parts.len(), Ordering::Release);
    parts.into_iter().map(|part| (blob, part)).collect()
}

/// Fetches `[start, end)` of a blob; a broken connection goes on where it broke.
fn fetch_part(session: &Session<'_>, blob: &Blob, (start, end): (u64, u64)) -> Result<(), Error> {
    let path = path_of(session, blob.names.first().map_or("", String::as_str));
    let mut backoff = session.http.backoff();
    let mut position = start;
    while position < end && !blob.whole.load(Ordering::Acquire) {
        let before = position;
        let response = match session.http.get(&path, Some((position, end))) {
            Ok(response) => response,
            Err(failure) => {
                backoff.pause(failure)?;
                continue;
            }
        };
        if response.status().as_u16() == 200 {
            return match blob.whole.swap(true, Ordering::AcqRel) {
                true => Ok(()),
                false => fetch_whole(session, blob, &path, response),
            };
        }
        let promise = format!("bytes {position}-{}/{}", end - 1, blob.size);
        if header(&response, "content-range").is_none_or(|range| range != promise) {
            return Err(Error::new(ErrorKind::Server, "the server sends another range than asked for"));
        }
        if let Err(failure) = receive(session, blob, response, &mut position, end) {
            if position > before {
                backoff = session.http.backoff();
            }
            backoff.pause(failure)?;
        }
    }
    Ok(())
}

/// Fetches all of a blob from a server that knows no ranges; a broken connection starts over.
fn fetch_whole(session: &Session<'_>, blob: &Blob, path: &str, first: Response<Body>) -> Result<(), Error> {
    if header(&first, "content-length").is_some_and(|length| length != blob.size.to_string()) {
        return Err(Error::new(
            ErrorKind::Server,
            "the server sends a file of another size than it announced",
        ));
    }
    let mut backoff = session.http.backoff();
    let mut response = Ok(first);
    loop {
        match response.and_then(|response| receive(session, blob, response, &mut 0, blob.size)) {
            Ok(()) => return Ok(()),
            Err(failure) => backoff.pause(failure)?,
        }
        response = session.http.get(path, None);
    }
}

/// Writes an answer's body to the blob from `position`, which moves along, to `end`, and journals what is on disk.
fn receive(
    session: &Session<'_>,
    blob: &Blob,
    mut response: Response<Body>,
    position: &mut u64,
    end: u64,
) -> Result<(), Failure> {
    let path = session.folder.partial(&blob.etag);
    let open = || {
        let mut file = File::options().write(true).open(&path)?;
        file.seek(SeekFrom::Start(*position)).map(|_| file)
    };
    let mut file = open().map_err(|e| Error::io("open", &path, e))?;
    let mut body = response.body_mut().as_reader();
    let mut synced = *position;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut outcome = Ok(());
    while outcome.is_ok() && *position < end {
        outcome = session.http.check().map_err(Failure::from).and_then(|()| {
            let room = usize::try_from(end - *position).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let room = chunk.get_mut(..room).unwrap_or_default();
            let count = body.read(room).map_err(Failure::broken)?;
            if count == 0 {
                return Err(Failure::broken("the answer ended early"));
            }
            let data = room.get(..count).unwrap_or_default();
            file.write_all(data).map_err(|e| Error::io("write", &path, e))?;
            let next = *position + count as u64;
            session.progress.advanced(hold(&blob.here).add(*position, next));
            *position = next;
            Ok(())
        });
        if outcome.is_err() || *position == end || *position - synced >= UNSYNCED_BYTES_MAX {
            let recorded = record(session.folder, blob, &file, synced, *position);
            outcome = outcome.and(recorded.map_err(Failure::from));
            synced = *position;
        }
    }
    outcome
}

/// Syncs the data of `[start, end)`, then says so in the journal.
fn record(folder: &Folder, blob: &Blob, file: &File, start: u64, end: u64) -> Result<(), Error> {
    if start == end {
        return Ok(());
    }
    file.sync_data().map_err(|e| Error::io("sync", &folder.partial(&blob.etag), e))?;
    let path = folder.journal(&blob.etag);
    // The lock of `here` keeps the lines of several parts apart. A line starts with its line feed as well as ending
    // in one, so that one cut short by a full disk does not spoil the next.
    let _here = hold(&blob.here);
    let append =
        || File::options().append(true).open(&path)?.write_all(format!("\n{start} {end}\n").as_bytes());
    append().map_err(|e| Error::io("write", &path, e))
}

fn journal_head(size: u64) -> String {
    format!("aerostat ranges 1 {size}\n")
}

/// The ranges a journal vouches for; none when it is of another file or version.
fn read_journal(path: &Path, size: u64) -> Option<Ranges> {
    let text = cache::read_small(path)?;
    let mut here = Ranges::default();
    for line in text.strip_prefix(&journal_head(size))?.split_inclusive('\n') {
        let range = line.strip_suffix('\n').and_then(|line| line.split_once(' '));
        if let Some((Ok(start), Ok(end))) =
            range.map(|(start, end)| (start.parse::<u64>(), end.parse::<u64>()))
            && end <= size
        {
            here.add(start, end);
        }
    }
    Some(here)
}

/// Checks a blob whose parts are all here and gives it its name.
fn finish(session: &Session<'_>, blob: &Blob) -> Result<(), Error> {
    let folder = session.folder;
    let (partial, journal) = (folder.partial(&blob.etag), folder.journal(&blob.etag));
    if hold(&blob.here).bytes() != blob.size {
        return Err(Error::new(ErrorKind::Network, "the file is not whole; pull again to resume"));
    }
    let file = File::open(&partial).map_err(|e| Error::io("open", &partial, e))?;
    file.sync_all().map_err(|e| Error::io("sync", &partial, e))?;
    // The ETag of a large file is the SHA-256 of its content; that of a small one is a git hash, and its size must do.
    if is_digest(&blob.etag) && sha256(file, &partial, session.http)? != blob.etag {
        fs::remove_file(&partial).map_err(|e| Error::io("remove", &partial, e))?;
        fs::remove_file(&journal).map_err(|e| Error::io("remove", &journal, e))?;
        let message =
            "the content does not have the promised SHA-256; it was removed, pull again to fetch it anew";
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    cache::rename_durably(&partial, &folder.blob(&blob.etag))?;
    fs::remove_file(&journal).map_err(|e| Error::io("remove", &journal, e))?;
    blob.names.iter().try_for_each(|name| folder.link(session.commit, name, &blob.etag))
}

/// The SHA-256 of a file in hexadecimal.
pub(crate) fn sha256(mut file: File, path: &Path, http: &Http<'_>) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        http.check()?;
        match file.read(&mut chunk).map_err(|e| Error::io("read", path, e))? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(chunk.get(..count).unwrap_or_default()),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The path of a file's content on the Hub, at the commit of this pull.
fn path_of(session: &Session<'_>, name: &str) -> String {
    let name: Vec<String> = name.split('/').map(escape).collect();
    format!("/{}/resolve/{}/{}", session.id.repository(), session.commit, name.join("/"))
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_cut_anywhere_never_claims_too_much() {
        let size = 100_000;
        let full = format!("{}\n0 1234\n\n2000 34567\n\n40000 100000\n", journal_head(size));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranges");
        fs::write(&path, &full).unwrap();
        let whole = read_journal(&path, size).unwrap();
        assert_eq!(whole.missing(size, size), [(1234, 2000), (34567, 40000)]);
        for length in 0..full.len() {
            // As a crash leaves it, and as the next line after it does.
            for rest in ["", "\n7 9\n"] {
                fs::write(&path, format!("{}{rest}", &full[..length])).unwrap();
                let mut union = whole.clone();
                for (start, end) in whole.missing(size, size) {
                    let here = read_journal(&path, size).unwrap_or_default();
                    assert_eq!(union.add(start, end), end - start);
                    let gaps = here.missing(size, size);
                    assert!(gaps.iter().any(|&(s, e)| s <= start && end <= e), "cut at {length}");
                }
            }
        }
        assert_eq!(read_journal(&path, size + 1), None, "the journal is of a file of another size");
    }
}
