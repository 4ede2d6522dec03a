//! The cache folder of one repository, laid out as Python's `huggingface_hub` does:
//! `models--org--name/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file> → ../../blobs/<etag>}`, locks apart.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::Error;
use crate::id::{ModelId, is_commit};

/// How often a lock that is taken is tried again.
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// Largest file of notes that is read: a journal of a large blob.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// Where one repository lies in the cache.
pub(crate) struct Folder {
    root: PathBuf,
    locks: PathBuf,
}

impl Folder {
    pub(crate) fn new(cache_dir: &Path, id: &ModelId) -> Self {
        let name = format!("models--{}", id.repository().replace('/', "--"));
        Self { root: cache_dir.join(&name), locks: cache_dir.join(".locks").join(&name) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// The file a blob grows in. It has its full length from the start, which Python's client would take for a whole
    /// file, so it does not bear the name that one resumes (`<etag>.incomplete`).
    pub(crate) fn partial(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.aerostat.incomplete"))
    }

    /// The list of the ranges of [`Self::partial`] that are on disk.
    pub(crate) fn journal(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.aerostat.incomplete.ranges"))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The commit the revision had when it was last fetched.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = read_small(&self.root.join("refs").join(revision))?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Records the commit a revision names; a full commit hash needs no record.
    pub(crate) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if is_commit(revision) || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        create_parent(&path)?;
        let staged =
            path.with_file_name(format!(".{commit}.{}.{:?}", std::process::id(), thread::current().id()));
        let write = || {
            let mut file = File::create(&staged)?;
            file.write_all(commit.as_bytes())?;
            file.sync_all()?;
            fs::rename(&staged, &path)
        };
        write().map_err(|e| Error::io("write", &path, e))
    }

    /// Puts the blob into the snapshot as `name`, replacing a link that leads elsewhere.
    pub(crate) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<(), Error> {
        let path = self.snapshot(commit).join(name);
        let target = format!("{}blobs/{etag}", "../".repeat(2 + name.matches('/').count()));
        if fs::read_link(&path).is_ok_and(|now| now == Path::new(&target)) {
            return Ok(());
        }
        create_parent(&path)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("replace", &path, e)),
            _ => {
                link_to(&self.blob(etag), Path::new(&target), &path).map_err(|e| Error::io("link", &path, e))
            }
        }
    }

    /// The revisions that are here: those with a name, and commits that none names.
    pub(crate) fn revisions(&self) -> Vec<String> {
        let refs = crate::files::files_below(&self.root.join("refs"));
        let mut revisions: Vec<String> =
            refs.into_iter().filter(|name| self.commit_of(name).is_some()).collect();
        let named: Vec<String> = revisions.iter().filter_map(|name| self.commit_of(name)).collect();
        let snapshots = fs::read_dir(self.root.join("snapshots")).into_iter().flatten().flatten();
        let commits = snapshots.filter_map(|entry| entry.file_name().into_string().ok());
        revisions.extend(commits.filter(|commit| is_commit(commit) && !named.contains(commit)));
        revisions
    }

    /// Removes a revision, or one GGUF file of it with those that belong to it; blobs go where no other snapshot has them. Gives
    /// the bytes that were freed.
    pub(crate) fn remove(&self, revision: &str, file: Option<&str>) -> Result<u64, Error> {
        let gone = |path: &Path| Error::io("find", path, io::ErrorKind::NotFound.into());
        let commit = self.commit_of(revision).ok_or_else(|| gone(&self.root))?;
        let snapshot = self.snapshot(&commit);
        let _locks = self.lock_all()?;
        let names = crate::files::names_below(&snapshot);
        let names = match file {
            Some(file) => match crate::files::choose(&names, Some(file))?.weights {
                crate::files::Weights::Gguf(files) => files,
                _ => Vec::new(),
            },
            None => names,
        };
        let before = self.blobs();
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
            _ => Ok(()),
        };
        let mut freed = 0;
        for name in &names {
            let path = snapshot.join(name);
            // Where files lie there themselves, since the system has no links.
            freed +=
                fs::symlink_metadata(&path).ok().filter(|meta| meta.is_file()).map_or(0, |meta| meta.len());
            remove(&path)?;
        }
        let empty = crate::files::files_below(&snapshot).is_empty();
        if empty {
            fs::remove_dir_all(&snapshot).map_err(|e| Error::io("remove", &snapshot, e))?;
            for name in self.revisions().iter().filter(|name| !is_commit(name)) {
                if self.commit_of(name).as_deref() == Some(&commit) {
                    remove(&self.root.join("refs").join(name))?;
                }
            }
        }
        let kept = self.linked();
        for (path, bytes) in before.iter().filter(|(path, _)| !kept.contains(path)) {
            remove(path)?;
            freed += bytes;
        }
        if kept.is_empty() {
            fs::remove_dir_all(&self.root).map_err(|e| Error::io("remove", &self.root, e))?;
        }
        Ok(freed)
    }

    /// The locks of all blobs: nobody else downloads while they are held.
    fn lock_all(&self) -> Result<Vec<File>, Error> {
        let mut locks = Vec::new();
        for entry in fs::read_dir(&self.locks).into_iter().flatten().flatten() {
            let path = entry.path();
            let file = File::options().append(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
            if file.try_lock().is_err() {
                let message = "another process is downloading it; end that first";
                return Err(Error::new(crate::ErrorKind::Io, message));
            }
            locks.push(file);
        }
        Ok(locks)
    }

    /// The blobs, parts of blobs included, with their sizes.
    fn blobs(&self) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(self.root.join("blobs")).into_iter().flatten().flatten();
        let blob = |entry: fs::DirEntry| {
            let path = fs::canonicalize(entry.path()).ok()?;
            let bytes = entry.metadata().ok()?.len();
            Some((path, bytes))
        };
        entries.filter_map(blob).collect()
    }

    /// The blobs that some snapshot has.
    fn linked(&self) -> Vec<PathBuf> {
        let names = crate::files::files_below(&self.root.join("snapshots"));
        names
            .iter()
            .filter_map(|name| fs::canonicalize(self.root.join("snapshots").join(name)).ok())
            .collect()
    }

    /// Takes the lock of a blob, which Python's client honours too; calls `on_wait` once if another process has it.
    /// Dropping the file gives the lock back.
    pub(crate) fn lock(
        &self,
        etag: &str,
        cancel: &AtomicBool,
        on_wait: impl FnOnce(),
    ) -> Result<File, Error> {
        lock(&self.locks.join(format!("{etag}.lock")), cancel, on_wait)
    }
}

/// Locks the file at `path`, made if absent; waits for others, calling `on_wait` once.
pub(crate) fn lock(path: &Path, cancel: &AtomicBool, on_wait: impl FnOnce()) -> Result<File, Error> {
    create_parent(path)?;
    let file =
        File::options().create(true).append(true).open(path).map_err(|e| Error::io("open", path, e))?;
    let mut on_wait = Some(on_wait);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if cancel.load(Ordering::Relaxed) => {
                return Err(Error::interrupted());
            }
            Err(TryLockError::WouldBlock) => {
                if let Some(tell) = on_wait.take() {
                    tell();
                }
                thread::sleep(LOCK_WAIT);
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
        }
    }
}

/// The text of a small file; none of one that is absent, large, or no file at all (a pipe would never end).
pub(crate) fn read_small(path: &Path) -> Option<String> {
    fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() <= SMALL_BYTES_MAX)?;
    fs::read_to_string(path).ok()
}

pub(crate) fn create_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| Error::io("create the folder", parent, e))
}

/// Moves `from`, which is synced, to `to` so that the move itself survives a power cut.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))?;
    #[cfg(unix)]
    if let Some(parent) = to.parent() {
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("sync", parent, e))?;
    }
    Ok(())
}

/// Fails when the file system of `folder` has fewer than `needed` bytes free.
pub(crate) fn check_space(folder: &Path, needed: u64) -> Result<(), Error> {
    let Some(free) = free_bytes(folder) else { return Ok(()) };
    if needed <= free {
        return Ok(());
    }
    let message = format!(
        "{} are still to be fetched, but {} has only {} free. Free some, or put the cache on another disk: HF_HOME",
        megabytes(needed),
        folder.display(),
        megabytes(free)
    );
    Err(Error::new(crate::ErrorKind::DiskFull, message))
}

/// Bytes for people.
fn megabytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
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

#[cfg(unix)]
fn link_to(_blob: &Path, relative: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

#[cfg(not(unix))]
fn link_to(blob: &Path, _relative: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path)
}
