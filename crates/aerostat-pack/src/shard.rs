//! A file of the copy while it is written: room for the header, then tensors end to end, then the header.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aerostat_checkpoint::packed::{Shard, TILE_ALIGN_BYTES};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::journal::{Done, sync_folder};
use crate::layout::{Job, ShardLayout};

/// Digits of an offset at most; what is not used is filled up with spaces.
const OFFSET_DIGITS: usize = 20;
/// What a header has for each tensor besides its name, its shape and its offsets.
const ENTRY_BYTES: usize = 64;

/// A file that is being written.
pub(crate) struct ShardFile {
    part: PathBuf,
    file: File,
    at: u64,
    header_bytes: u64,
    /// Bytes that may still be written, in tests.
    space: Option<u64>,
}

impl ShardFile {
    /// Opens the unfinished file of a shard of which `done` is said to be there; `None`: it is not.
    pub(crate) fn open(
        folder: &Path,
        layout: &ShardLayout,
        done: &[Done],
        space: Option<u64>,
    ) -> Result<Option<Self>, Error> {
        let part = folder.join(format!("{}.part", layout.file));
        let fail = |error: io::Error| Error::io(&part, "open it", &error);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).read(true).open(&part).map_err(fail)?;
        let header_bytes = header_bytes(layout);
        let at = header_bytes + done.iter().map(|done| done.bytes).sum::<u64>();
        if !done.is_empty() && file.metadata().map_err(fail)?.len() < at {
            return Ok(None);
        }
        let mut shard = Self { part, file, at, header_bytes, space };
        let seek = SeekFrom::Start(at);
        let ready = shard.file.set_len(at).and_then(|()| shard.file.seek(seek));
        ready.map_err(|error| shard.fail(&error))?;
        Ok(Some(shard))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(space) = &mut self.space {
            let Some(left) = space.checked_sub(bytes.len() as u64) else {
                return Err(self.fail(&io::ErrorKind::StorageFull.into()));
            };
            *space = left;
        }
        self.at += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| self.fail(&error))
    }

    /// Everything written so far is on disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| self.fail(&error))
    }

    /// Writes the header of a shard whose tensors are all there.
    pub(crate) fn finish(mut self, layout: &ShardLayout, done: &[Done]) -> Result<Shard, Error> {
        let header = header(layout, done, self.header_bytes);
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&header));
        written.and_then(|()| self.file.sync_all()).map_err(|error| self.fail(&error))?;
        Ok(Shard {
            file: layout.file.clone(),
            bytes: self.at,
            header_bytes: self.header_bytes,
            header_crc32c: crc32c::crc32c(&header),
        })
    }

    fn fail(&self, error: &io::Error) -> Error {
        Error::io(&self.part, "write it", error)
    }
}

/// Gives a whole shard its name, if it does not have it yet.
pub(crate) fn name(folder: &Path, layout: &ShardLayout) -> Result<(), Error> {
    let (path, part) = (folder.join(&layout.file), folder.join(format!("{}.part", layout.file)));
    if part.exists() {
        fs::rename(&part, &path).map_err(|error| Error::io(&part, "rename it", &error))?;
        sync_folder(&path)?;
    }
    Ok(())
}

/// Bytes that are kept for the header: enough whatever the sizes of tensors will be.
fn header_bytes(layout: &ShardLayout) -> u64 {
    let entry = |job: &Job| {
        let name = json!(job.name).to_string().len();
        let shape = job.shape.len().max(1) * (OFFSET_DIGITS + 1);
        name + shape + 2 * OFFSET_DIGITS + ENTRY_BYTES
    };
    let bytes = 8 + 2 + layout.tensors.iter().map(entry).sum::<usize>() as u64;
    bytes.next_multiple_of(TILE_ALIGN_BYTES)
}

fn header(layout: &ShardLayout, done: &[Done], bytes: u64) -> Vec<u8> {
    let mut entries = Map::new();
    let mut start = 0;
    for (job, done) in layout.tensors.iter().zip(done) {
        let end = start + done.bytes;
        let entry = match done.tiles.is_empty() {
            true => json!({"dtype": job.from, "shape": job.shape, "data_offsets": [start, end]}),
            false => json!({"dtype": "U8", "shape": [done.bytes], "data_offsets": [start, end]}),
        };
        entries.insert(job.name.clone(), entry);
        start = end;
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    json.resize((bytes - 8) as usize, b' ');
    [&(bytes - 8).to_le_bytes()[..], &json].concat()
}
