//! What is done, written down as it is done: the layout once, then a line for each tensor whose bytes are on disk.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use aerostat_checkpoint::packed::{NOTES, Shard};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layout::Layout;

const LAYOUT: &str = "layout.json";
const JOURNAL: &str = "journal";

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A tensor is in the unfinished file of its shard, synced.
    Tensor(Done),
    /// A shard is whole and synced; it gets its name next.
    Shard(usize, Shard),
    /// It has been read back and checked.
    Verified(usize),
}

/// A tensor that is packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) shard: usize,
    /// Its number in its shard.
    pub(crate) tensor: usize,
    /// Bytes of each tile; none: it is as it was.
    pub(crate) tiles: Vec<u64>,
    /// All of them, or of the tensor.
    pub(crate) bytes: u64,
    /// Of the tensor in the original.
    pub(crate) crc32c: u32,
    /// Root of the mean square of the error over that of the weights.
    pub(crate) error: f64,
}

/// The notes of a packing that is not finished.
pub(crate) struct Journal {
    folder: PathBuf,
    file: File,
    pub(crate) lines: Vec<Line>,
}

impl Journal {
    /// The layout that is kept in `out`, if packing has begun there.
    pub(crate) fn layout(out: &Path) -> Result<Option<Layout>, Error> {
        let path = out.join(NOTES).join(LAYOUT);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, "read it", &error)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Error::io(&path, "understand it", &error.into())),
        }
    }

    /// Keeps a layout, whole or not at all.
    pub(crate) fn begin(out: &Path, layout: &Layout) -> Result<(), Error> {
        let folder = out.join(NOTES);
        fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, "make the folder", &error))?;
        let json = serde_json::to_vec(layout).unwrap_or_default();
        write_whole(&folder.join(LAYOUT), &json)
    }

    /// Opens the journal in `out`, and drops a last line that is not whole.
    pub(crate) fn open(out: &Path) -> Result<Self, Error> {
        let folder = out.join(NOTES);
        let path = folder.join(JOURNAL);
        let fail = |error: std::io::Error| Error::io(&path, "open it", &error);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path).map_err(fail)?;
        let text = fs::read(&path).map_err(fail)?;
        let (mut lines, mut kept) = (Vec::new(), 0);
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let Some(json) = line.strip_suffix(b"\n") else { break };
            let Ok(line_read) = serde_json::from_slice(json) else { break };
            lines.push(line_read);
            kept += line.len() as u64;
        }
        file.set_len(kept).map_err(fail)?;
        let mut journal = Self { folder, file, lines };
        std::io::Seek::seek(&mut journal.file, std::io::SeekFrom::End(0)).map_err(fail)?;
        Ok(journal)
    }

    /// Adds lines, on disk when it returns.
    pub(crate) fn add(&mut self, lines: impl IntoIterator<Item = Line>) -> Result<(), Error> {
        let mut text = Vec::new();
        for line in lines {
            text.extend(serde_json::to_vec(&line).unwrap_or_default());
            text.push(b'\n');
            self.lines.push(line);
        }
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|error| Error::io(&self.folder, "write the journal", &error))
    }

    /// The tensors of a shard that are done, in order.
    pub(crate) fn done(&self, shard: usize) -> Vec<Done> {
        let of_shard = |line: &Line| match line {
            Line::Tensor(done) if done.shard == shard => Some(done.clone()),
            _ => None,
        };
        self.lines.iter().filter_map(of_shard).collect()
    }

    /// A shard that is whole.
    pub(crate) fn shard(&self, shard: usize) -> Option<&Shard> {
        self.lines.iter().find_map(|line| match line {
            Line::Shard(number, whole) if *number == shard => Some(whole),
            _ => None,
        })
    }

    pub(crate) fn is_verified(&self, shard: usize) -> bool {
        self.lines.contains(&Line::Verified(shard))
    }

    /// Forgets what was noted of a shard that turned out not to be there.
    pub(crate) fn forget(&mut self, shard: usize) -> Result<(), Error> {
        let lines = std::mem::take(&mut self.lines);
        let other = |line: &Line| match line {
            Line::Tensor(done) => done.shard != shard,
            Line::Shard(number, _) | Line::Verified(number) => *number != shard,
        };
        let fail = |error: std::io::Error| Error::io(&self.folder, "write the journal", &error);
        self.file.set_len(0).map_err(fail)?;
        std::io::Seek::seek(&mut self.file, std::io::SeekFrom::Start(0)).map_err(fail)?;
        self.add(lines.into_iter().filter(other))
    }

    /// Removes the notes.
    pub(crate) fn end(self) -> Result<(), Error> {
        drop(self.file);
        fs::remove_dir_all(&self.folder).map_err(|error| Error::io(&self.folder, "remove it", &error))
    }
}

/// Writes a small file under another name first, so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fail = |error: std::io::Error| Error::io(path, "write it", &error);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let mut file = File::create(&part).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&part, path).map_err(fail)?;
    sync_folder(path)
}

/// Makes names in the folder of `path` last.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    let Some(folder) = path.parent().filter(|_| cfg!(unix)) else { return Ok(()) };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io(folder, "sync the folder", &error))
}
